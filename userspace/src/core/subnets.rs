//! Whether a monitored subnet is up through one interface: polls, counted (row NM-4).
//!
//! ```text
//!             `fall` polls silent, or the link lost (at once)
//!       Up -----------------------------------------------------> Down
//!       ^                                                           |
//!       +-----------------------------------------------------------+
//!             `rise` polls answered
//! ```

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use crate::model::{MonitoredSubnet, SubnetDown, SubnetLoss};

/// What one poll, or the link, says of a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll {
    Answered,
    /// Nobody answered who should have.
    Silent {
        reason: String,
    },
    /// There was nobody to ask: a link that is up must do.
    NobodyToAsk,
    /// No poll can succeed: the interface is lost.
    Lost {
        reason: String,
    },
}

/// Counts polls of one subnet through one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polls {
    verdict: Option<Verdict>,
    /// Polls in a row that speak against the verdict.
    against: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Up,
    Down { reason: String, cause: Cause },
}

/// Why a subnet is down through an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The interface is lost: polls have nothing to do with it.
    Lost,
    /// The interface is back; polls have not yet been answered often enough.
    Returned,
    /// Polls were not answered.
    Silent,
}

impl Polls {
    /// None until enough is known.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    pub fn is_up(&self) -> bool {
        self.verdict == Some(Verdict::Up)
    }

    /// The interface is lost.
    pub fn is_lost(&self) -> bool {
        matches!(self.verdict, Some(Verdict::Down { cause: Cause::Lost, .. }))
    }

    /// The interface is there. True when it was lost until now: then it is time for a poll.
    pub fn found(&mut self) -> bool {
        match &mut self.verdict {
            Some(Verdict::Down { reason, cause: cause @ Cause::Lost }) => {
                *cause = Cause::Returned;
                *reason = "its link is back, and not yet enough polls were answered".to_owned();
                true
            }
            Some(Verdict::Down { .. } | Verdict::Up) | None => false,
        }
    }

    /// Takes a poll into account.
    pub fn take(&mut self, poll: Poll, fall: u16, rise: u16) {
        match (poll, &mut self.verdict) {
            (Poll::Lost { reason }, verdict) => {
                *verdict = Some(Verdict::Down { reason, cause: Cause::Lost });
                self.against = 0;
            }
            (Poll::Silent { reason }, Some(Verdict::Down { reason: known, cause })) => {
                (*known, *cause) = (reason, Cause::Silent);
                self.against = 0;
            }
            (Poll::Silent { reason }, Some(Verdict::Up) | None) => {
                self.against += 1;
                if self.against >= fall {
                    self.turn(Verdict::Down { reason, cause: Cause::Silent });
                }
            }
            (Poll::Answered | Poll::NobodyToAsk, Some(Verdict::Down { .. })) => {
                self.against += 1;
                if self.against >= rise {
                    self.turn(Verdict::Up);
                }
            }
            // The first answer suffices where nothing was known: it takes nothing back.
            (Poll::Answered | Poll::NobodyToAsk, Some(Verdict::Up) | None) => {
                self.turn(Verdict::Up);
            }
        }
    }

    fn turn(&mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
        self.against = 0;
    }
}

/// A subnet is up on a node when it is up through any of its interfaces. None while that is not known of
/// all that could help; else the reason why it is down, or no reason.
pub fn judge<'a>(
    subnet: IpNet,
    through: impl Iterator<Item = (&'a str, Option<&'a Verdict>)>,
) -> Option<Result<(), SubnetDown>> {
    let mut reasons = Vec::new();
    let mut unknown = false;
    let mut loss = SubnetLoss::Link;
    for (device, verdict) in through {
        match verdict {
            Some(Verdict::Up) => return Some(Ok(())),
            Some(Verdict::Down { reason, cause }) => {
                reasons.push(format!("{device}: {reason}"));
                match cause {
                    Cause::Lost | Cause::Returned => {}
                    Cause::Silent => loss = SubnetLoss::Silence,
                }
            }
            None => unknown = true,
        }
    }
    if unknown {
        return None;
    }
    let reason = match &reasons[..] {
        [] => format!("no interface has an address of {subnet}"),
        _ => reasons.join("; "),
    };
    Some(Err(SubnetDown { reason, cause: loss }))
}

/// How long after a node has lost a subnet it is known whether the others have lost it as well: a dead
/// switch or target is noticed by all, and by each at its own time. `soon`: how far apart they tell of the
/// loss of their links.
pub fn settles_after(down: &SubnetDown, settings: &MonitoredSubnet, soon: Duration) -> Duration {
    match down.cause {
        SubnetLoss::Link => soon,
        // One may have polled just before the target died, the other just after.
        SubnetLoss::Silence => soon + settings.interval * 2 + POLL_WAIT,
    }
}

/// How long the answer to a poll is waited for, at most.
pub const POLL_WAIT: Duration = Duration::from_secs(1);

/// Whom to ask about a subnet, and what it means when they are silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Ping these; any answer suffices.
    Targets(Vec<IpAddr>),
    /// Ping these and, when they are silent, everybody; any answer suffices.
    Peers(Vec<IpAddr>),
    /// Nobody is there to answer.
    Nobody,
}

/// A node of the cluster other than this one, as far as it can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answerer {
    /// Heard lately on any path. A silent one proves nothing about a subnet.
    pub alive: bool,
    /// A witness answers pings to its addresses, and no broadcasts: it has no datapath.
    pub witness: bool,
    /// The addresses by which the cluster reaches it.
    pub addresses: Vec<IpAddr>,
}

/// Decides whom to ask. A node's own addresses prove nothing.
pub fn question(subnet: IpNet, settings: &MonitoredSubnet, own: &[IpAddr], peers: &[Answerer]) -> Question {
    let targets: Vec<IpAddr> = settings.targets.iter().copied().filter(|t| !own.contains(t)).collect();
    if !targets.is_empty() {
        return Question::Targets(targets);
    }
    let alive = || peers.iter().filter(|p| p.alive);
    let mut known: Vec<IpAddr> =
        alive().flat_map(|p| p.addresses.iter().copied()).filter(|a| subnet.contains(a)).collect();
    known.sort_unstable();
    known.dedup();
    if known.is_empty() && !alive().any(|p| !p.witness) {
        return Question::Nobody;
    }
    Question::Peers(known)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn silent() -> Poll {
        Poll::Silent { reason: "nobody answers".into() }
    }

    fn lost() -> Poll {
        Poll::Lost { reason: "it has no carrier".into() }
    }

    fn after(polls: impl IntoIterator<Item = Poll>) -> Polls {
        let mut counted = Polls::default();
        polls.into_iter().for_each(|p| counted.take(p, 3, 2));
        counted
    }

    #[test]
    fn thresholds() {
        use Poll::Answered as ok;
        assert_eq!(after([]).verdict(), None);
        assert!(after([ok]).is_up(), "at the start one answer suffices");
        assert!(after([Poll::NobodyToAsk]).is_up());
        assert_eq!(after([silent(), silent()]).verdict(), None);
        assert!(!after([silent(), silent(), silent()]).is_up());
        assert!(after([silent(), silent(), silent()]).verdict().is_some());
        assert!(after([ok, silent(), silent(), ok, silent(), silent()]).is_up(), "not in a row");
        assert!(!after([ok, silent(), silent(), silent()]).is_up());
        assert!(!after([ok, lost()]).is_up(), "a lost link counts at once");
        assert!(!after([ok, lost(), ok]).is_up());
        assert!(after([ok, lost(), ok, ok]).is_up());
        assert!(!after([ok, lost(), ok, silent(), ok]).is_up(), "not in a row");
        assert!(after([lost(), Poll::NobodyToAsk, Poll::NobodyToAsk]).is_up(), "the link is back");
    }

    #[test]
    fn the_newest_reason_is_given() {
        let reason = |p: &Polls| match p.verdict() {
            Some(Verdict::Down { reason, cause }) => (reason.clone(), *cause),
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(&after([lost()])), ("it has no carrier".into(), Cause::Lost));
        assert_eq!(reason(&after([lost(), silent()])), ("nobody answers".into(), Cause::Silent));
    }

    #[test]
    fn an_interface_that_returns_is_polled_once_at_once() {
        let mut polls = after([Poll::Answered, lost()]);
        assert!(polls.is_lost() && polls.found());
        assert!(!polls.is_lost() && !polls.found() && !polls.is_up());
        polls.take(lost(), 3, 2);
        assert!(polls.found());
        polls.take(Poll::Answered, 3, 2);
        polls.take(Poll::Answered, 3, 2);
        assert!(polls.is_up() && !polls.found());
        assert!(!after([]).found() && !after([silent(), silent(), silent()]).found());
    }

    #[test]
    fn any_interface_will_do() {
        let subnet: IpNet = "10.1.0.0/24".parse().unwrap();
        let (up, down) = (Verdict::Up, Verdict::Down { reason: "silent".into(), cause: Cause::Silent });
        let judged = |through: &[(&'static str, Option<&Verdict>)]| judge(subnet, through.iter().copied());
        assert_eq!(judged(&[("a", Some(&down)), ("b", Some(&up))]), Some(Ok(())));
        assert_eq!(judged(&[("a", None), ("b", Some(&up))]), Some(Ok(())));
        assert_eq!(judged(&[("a", Some(&down)), ("b", None)]), None);
        let lost = Verdict::Down { reason: "no carrier".into(), cause: Cause::Lost };
        let is_down = |reason: &str, cause| Some(Err(SubnetDown { reason: reason.into(), cause }));
        let both = [("a", Some(&lost)), ("b", Some(&down))];
        assert_eq!(judged(&both), is_down("a: no carrier; b: silent", SubnetLoss::Silence));
        assert_eq!(judged(&both[..1]), is_down("a: no carrier", SubnetLoss::Link));
        assert_eq!(judged(&[]), is_down("no interface has an address of 10.1.0.0/24", SubnetLoss::Link));
    }

    #[test]
    fn a_silence_settles_later_than_a_lost_link() {
        let settings = MonitoredSubnet { interval: Duration::from_secs(10), ..MonitoredSubnet::default() };
        let soon = Duration::from_millis(500);
        let after = |cause| settles_after(&SubnetDown { reason: "why".into(), cause }, &settings, soon);
        assert_eq!(after(SubnetLoss::Link), soon);
        // Another node's next poll, and the answer that it waits for.
        assert!(after(SubnetLoss::Silence) > settings.interval + POLL_WAIT + soon);
    }

    #[test]
    fn whom_to_ask() {
        let subnet: IpNet = "10.1.0.0/24".parse().unwrap();
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        let peer = |alive, witness, address: &str| Answerer { alive, witness, addresses: vec![ip(address)] };
        let own = [ip("10.1.0.1")];
        let with = |targets: &[&str]| MonitoredSubnet {
            targets: targets.iter().map(|t| ip(t)).collect(),
            ..MonitoredSubnet::default()
        };
        let asked = |targets: &[&str], peers: &[Answerer]| question(subnet, &with(targets), &own, peers);
        let (b, c) = (peer(true, false, "10.1.0.2"), peer(true, false, "10.2.0.3"));
        let dead = peer(false, false, "10.1.0.4");
        let alone = std::slice::from_ref(&b);
        assert_eq!(asked(&["10.1.0.9"], alone), Question::Targets(vec![ip("10.1.0.9")]));
        assert_eq!(asked(&["10.1.0.1"], alone), Question::Peers(vec![ip("10.1.0.2")]), "not itself");
        assert_eq!(asked(&[], &[b.clone(), c.clone(), dead.clone()]), Question::Peers(vec![ip("10.1.0.2")]));
        assert_eq!(asked(&[], &[c]), Question::Peers(vec![]), "it answers a broadcast");
        assert_eq!(asked(&[], &[dead]), Question::Nobody, "who is dead proves nothing");
        assert_eq!(asked(&[], &[peer(true, true, "10.2.0.3")]), Question::Nobody);
        assert_eq!(asked(&[], &[peer(true, true, "10.1.0.5")]), Question::Peers(vec![ip("10.1.0.5")]));
        assert_eq!(asked(&[], &[]), Question::Nobody);
    }

    fn polls() -> impl Strategy<Value = Poll> {
        prop_oneof![3 => Just(Poll::Answered), 3 => Just(silent()), 1 => Just(Poll::NobodyToAsk), 1 => Just(lost())]
    }

    proptest! {
        /// The verdict changes only after as many polls in a row as are asked for.
        #[test]
        fn verdicts_are_earned(all in proptest::collection::vec(polls(), 0..60), fall in 1..5u16, rise in 1..5u16) {
            let mut counted = Polls::default();
            let (mut good, mut bad) = (0, 0);
            for poll in all {
                let before = counted.clone();
                let is_lost = matches!(poll, Poll::Lost { .. });
                match &poll {
                    Poll::Answered | Poll::NobodyToAsk => (good, bad) = (good + 1, 0),
                    Poll::Silent { .. } => (good, bad) = (0, bad + 1),
                    Poll::Lost { .. } => (good, bad) = (0, 0),
                }
                counted.take(poll, fall, rise);
                let was_down = before.verdict().is_some() && !before.is_up();
                let is_down = counted.verdict().is_some() && !counted.is_up();
                prop_assert!(!is_lost || is_down);
                if was_down && counted.is_up() {
                    prop_assert!(good >= rise);
                }
                if before.is_up() && is_down {
                    prop_assert!(is_lost || bad >= fall);
                }
                prop_assert!(good < rise || counted.is_up(), "enough answers");
                prop_assert!(bad < fall || is_down, "enough silence");
            }
        }
    }
}

//! What a peer's kernel and its daemon say together (row DP-9). Suspicion follows from it; it moves nothing.

use std::{net::SocketAddr, time::Duration};

use super::time::BootTime;
use crate::model::NodeId;

/// A peer on a path, as the programs are to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbePeer {
    pub node: NodeId,
    pub path: u8,
    pub ours: SocketAddr,
    pub theirs: SocketAddr,
    /// The keys of either direction: the one in use, and the other one that is accepted now, or the same again.
    pub ours_keys: [[u64; 2]; 2],
    pub theirs_keys: [[u64; 2]; 2],
    /// Unanswered for this long, the path is silent.
    pub timeout: Duration,
}

/// As whom the programs reflect and probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeIdentity {
    pub cluster: u64,
    pub me: NodeId,
    pub incarnation: u64,
}

/// A path to a peer as this node's kernel judges it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// When the peer's kernel answered last; None for never: then the path says nothing.
    pub answered: Option<BootTime>,
    /// When the probe left that was not answered in time; None while answers come.
    pub silent_since: Option<BootTime>,
}

/// What is wrong with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Its kernel never answered a probe here: heartbeats alone tell.
    Unknown,
    /// Its kernel answers on some path, and its daemon is heard.
    Well,
    /// Its kernel answers, its daemon is not heard: dead or frozen. Its guard is at work.
    ProcessSilent,
    /// Its kernel answers nowhere where it did, and its daemon was not heard since: the host is dead, or cut
    /// off.
    HostSilent,
}

/// `heard` is when the daemon was heard last, on any path; `limit` how long it may be unheard.
pub fn judge(paths: &[Sight], heard: Option<BootTime>, now: BootTime, limit: Duration) -> Condition {
    let mut known = paths.iter().filter(|p| p.answered.is_some()).peekable();
    if known.peek().is_none() {
        return Condition::Unknown;
    }
    let daemon_heard = heard.is_some_and(|t| now.since(t) < limit);
    // All silent: since the last of the probes that were not answered had left.
    let silent_since = known.map(|p| p.silent_since).try_fold(BootTime::ZERO, |a, t| t.map(|t| a.max(t)));
    match silent_since {
        None if daemon_heard => Condition::Well,
        None => Condition::ProcessSilent,
        // A daemon that spoke afterwards lives, whatever became of its programs.
        Some(since) if heard.is_some_and(|t| t > since) => {
            if daemon_heard {
                Condition::Well
            } else {
                Condition::HostSilent
            }
        }
        Some(_) => Condition::HostSilent,
    }
}

/// For how long the peer is to be called silent, when `unheard` is for how long its daemon was not heard: a silent
/// host need not be waited for.
pub fn silence(condition: Condition, unheard: Duration, limit: Duration) -> Duration {
    match condition {
        Condition::HostSilent => unheard.max(limit),
        Condition::Unknown | Condition::Well | Condition::ProcessSilent => unheard,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(1500);

    fn at(ms: u64) -> BootTime {
        BootTime(ms * 1_000_000)
    }

    const NEVER: Sight = Sight { answered: None, silent_since: None };

    fn answers(ms: u64) -> Sight {
        Sight { answered: Some(at(ms)), silent_since: None }
    }

    fn silent(ms: u64) -> Sight {
        Sight { answered: Some(at(ms - 50)), silent_since: Some(at(ms)) }
    }

    #[test]
    fn the_table() {
        use Condition::{HostSilent, ProcessSilent, Unknown, Well};
        let now = at(10_000);
        for (paths, heard, expected) in [
            (vec![], Some(9_900), Unknown),
            (vec![NEVER, NEVER], None, Unknown),
            (vec![answers(9_950)], Some(9_900), Well),
            (vec![answers(9_950)], Some(8_500), ProcessSilent),
            (vec![answers(9_950)], None, ProcessSilent),
            (vec![silent(9_500)], Some(9_400), HostSilent),
            (vec![silent(9_500)], Some(9_600), Well),
            (vec![silent(2_000)], Some(2_100), HostSilent),
            (vec![silent(9_500), answers(9_900)], Some(9_400), Well),
            (vec![silent(9_500), silent(9_450)], Some(9_470), HostSilent),
            (vec![silent(9_500), NEVER], Some(9_400), HostSilent),
            (vec![silent(9_500), NEVER], Some(9_900), Well),
            (vec![silent(9_500)], None, HostSilent),
        ] {
            assert_eq!(judge(&paths, heard.map(at), now, LIMIT), expected, "{paths:?}, heard {heard:?}");
        }
    }

    fn sight() -> impl Strategy<Value = Sight> {
        (prop::option::of(0..10_000_u64), prop::option::of(0..10_000_u64))
            .prop_map(|(a, s)| Sight { answered: a.map(at), silent_since: s.map(at) })
    }

    proptest! {
        /// One path that answers, or a daemon that was heard after the last lost probe, is enough.
        #[test]
        fn a_sign_of_life_is_believed(
            mut paths in prop::collection::vec(sight(), 0..4), heard in prop::option::of(0..10_000_u64),
        ) {
            let now = at(10_000);
            let heard = heard.map(at);
            let judged = judge(&paths, heard, now, LIMIT);
            if judged == Condition::HostSilent {
                prop_assert!(paths.iter().any(|p| p.answered.is_some()));
                prop_assert!(paths.iter().all(|p| p.answered.is_none() || p.silent_since.is_some()));
                prop_assert!(silence(judged, Duration::ZERO, LIMIT) >= LIMIT);
            } else {
                let unheard = Duration::from_millis(7);
                prop_assert_eq!(silence(judged, unheard, LIMIT), unheard);
            }
            paths.push(answers(9_999));
            prop_assert_ne!(judge(&paths, heard, now, LIMIT), Condition::HostSilent);
            paths.pop();
            prop_assert_ne!(judge(&paths, Some(now), now, LIMIT), Condition::HostSilent);
        }
    }
}

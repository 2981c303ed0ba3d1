//! Properties on a model of a host whose commands fail at random, sometimes half done.

use proptest::prelude::*;

use super::*;

/// A host's kernel and datapath, as far as one address is concerned.
#[derive(Clone, Debug)]
struct Host {
    address: bool,
    ours: bool,
    programmed: bool,
    gate_open: bool,
    /// Whom the duplicate probe finds, and who answers pings.
    claimed: bool,
    answered: bool,
    link: LinkState,
}

#[derive(Clone, Copy, Debug)]
enum Luck {
    Works,
    Fails,
    /// Does it and says that it failed.
    FailsAfterwards,
}

impl Host {
    /// May a client get an answer? Without an entry the kernel answers by itself.
    fn answers(&self) -> bool {
        if self.programmed { self.gate_open } else { self.address }
    }

    fn perform(&mut self, command: &Command, luck: Luck) -> Effect {
        if matches!(luck, Luck::Fails) {
            return failed("no luck");
        }
        let effect = match command {
            Command::ReadLink { .. } => Effect::Link(self.link),
            Command::SetLink { .. } if self.link == LinkState::Missing => return failed("missing"),
            Command::SetLink { up, .. } => {
                self.link = if *up { LinkState::Up } else { LinkState::Down };
                Effect::Done
            }
            Command::ReadAddress { .. } if self.address => present(self.ours),
            Command::ReadAddress { .. } => absent(),
            Command::ProbeDuplicate { .. } if self.claimed => Effect::Claims(vec!["02::1".to_owned()]),
            Command::ProbeDuplicate { .. } => no_claims(),
            Command::Program { .. } => {
                self.gate_open &= self.programmed;
                self.programmed = true;
                Effect::Done
            }
            Command::Unprogram { .. } => {
                (self.programmed, self.gate_open) = (false, false);
                Effect::Done
            }
            Command::OpenGate { .. } if !self.programmed => return failed("not programmed"),
            Command::OpenGate { .. } => {
                self.gate_open = true;
                Effect::Done
            }
            Command::CloseGate { .. } => {
                self.gate_open = false;
                Effect::Done
            }
            Command::AddAddress { .. } => {
                (self.address, self.ours) = (true, true);
                Effect::Done
            }
            Command::DeleteAddress { .. } => {
                self.address = false;
                Effect::Done
            }
            Command::PingList { .. } | Command::BroadcastPing { .. } if self.answered => somebody(),
            Command::PingList { .. } | Command::BroadcastPing { .. } => nobody(),
            Command::Wait { .. }
            | Command::DeleteHostRoute { .. }
            | Command::FlushRouteCache
            | Command::FlushNeighbours { .. }
            | Command::Announce { .. } => Effect::Done,
        };
        if matches!(luck, Luck::FailsAfterwards) { failed("no luck, but done") } else { effect }
    }
}

fn hosts() -> impl Strategy<Value = Host> {
    let link = prop_oneof![
        4 => Just(LinkState::Up),
        1 => Just(LinkState::Down),
        1 => Just(LinkState::NoCarrier),
        1 => Just(LinkState::Missing)
    ];
    (any::<[bool; 5]>(), proptest::bool::weighted(0.8), link).prop_map(
        |([address, ours, programmed, open, claimed], answered, link)| Host {
            // A device that does not exist has no addresses.
            address: address && link != LinkState::Missing,
            ours,
            programmed,
            gate_open: programmed && open,
            claimed: claimed && !address,
            answered,
            link,
        },
    )
}

fn contexts() -> impl Strategy<Value = Context> {
    (any::<[bool; 5]>()).prop_map(|[list, no_broadcast, no_unique, no_link, enabled]| {
        let mut c = if list { with_list() } else { context() };
        c.tunables.no_broadcast_ping = no_broadcast;
        c.tunables.no_unique_check = no_unique;
        c.tunables.no_link_check = no_link;
        c.restore_and_recover = enabled;
        c
    })
}

fn lucks() -> impl Strategy<Value = Vec<Luck>> {
    let luck = prop_oneof![12 => Just(Luck::Works), 1 => Just(Luck::Fails), 1 => Just(Luck::FailsAfterwards)];
    proptest::collection::vec(luck, 60)
}

/// Runs to the end; `watch` sees the host before and after each command.
fn drive(
    mut sequence: Sequence,
    host: &mut Host,
    lucks: &[Luck],
    mut watch: impl FnMut(&Host, &Command, &Host),
) -> Result<(), Failure> {
    let mut step = sequence.step(Input::Start);
    for luck in lucks {
        match step {
            Step::Do { command, .. } => {
                let before = host.clone();
                let effect = host.perform(&command, *luck);
                watch(&before, &command, host);
                step = sequence.step(Input::Effect(effect));
            }
            Step::Done { result, .. } => return result,
        }
    }
    panic!("no end in sight: {step:?}");
}

/// The kernel must not begin to answer by itself, whatever is done to it.
fn never_unguarded(before: &Host, command: &Command, after: &Host) {
    let unguarded = |h: &Host| h.address && !h.programmed;
    assert!(
        unguarded(before) || !unguarded(after),
        "{command:?} unguarded the address: {before:?} -> {after:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_failed_restore_is_silent_when_it_says_so(start in hosts(), c in contexts(), lucks in lucks()) {
        let mut host = start.clone();
        let enabled = c.restore_and_recover;
        match drive(Sequence::restore(c), &mut host, &lucks, never_unguarded) {
            Ok(()) if enabled => prop_assert!(host.address && host.programmed && host.gate_open),
            Ok(()) => prop_assert_eq!(format!("{host:?}"), format!("{start:?}"), "disabled touches nothing"),
            Err(f) if f.silent => prop_assert!(!host.answers(), "{} {host:?}", f.reason),
            Err(_) => {}
        }
    }

    #[test]
    fn a_remove_is_silent_when_it_says_so(start in hosts(), c in contexts(), lucks in lucks()) {
        let mut host = start.clone();
        match drive(Sequence::remove(c), &mut host, &lucks, never_unguarded) {
            Ok(()) => prop_assert!(!host.answers() && !host.address && !host.programmed),
            Err(f) if f.silent => prop_assert!(!host.answers(), "{} {host:?}", f.reason),
            Err(_) => {}
        }
    }

    #[test]
    fn a_recover_is_silent_when_it_says_so(start in hosts(), c in contexts(), lucks in lucks()) {
        let mut host = start;
        match drive(Sequence::recover(c), &mut host, &lucks, never_unguarded) {
            Ok(()) => {}
            Err(f) if f.silent => prop_assert!(!host.answers(), "{} {host:?}", f.reason),
            Err(_) => {}
        }
    }

    #[test]
    fn a_check_changes_nothing(start in hosts(), c in contexts(), lucks in lucks()) {
        let mut host = start.clone();
        let _ = drive(Sequence::quickcheck(c), &mut host, &lucks, |_, _, _| {});
        prop_assert_eq!(format!("{host:?}"), format!("{start:?}"));
    }

    /// Whatever state a host is in: with commands that work, a remove leaves nothing, and a restore on
    /// a quiet network brings the address in service.
    #[test]
    fn without_bad_luck_both_reach_their_goal(mut start in hosts(), mut c in contexts()) {
        let works = [Luck::Works; 60];
        let mut host = start.clone();
        prop_assert_eq!(drive(Sequence::remove(c.clone()), &mut host, &works, never_unguarded), Ok(()));
        prop_assert!(!host.answers());
        if start.link == LinkState::Missing {
            start.link = LinkState::Down;
        }
        c.restore_and_recover = true;
        host = Host { claimed: false, answered: true, ..start };
        prop_assert_eq!(drive(Sequence::restore(c), &mut host, &works, never_unguarded), Ok(()));
        prop_assert!(host.answers());
    }
}

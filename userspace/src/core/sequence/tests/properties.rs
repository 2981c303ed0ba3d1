//! Properties on a model of a host whose commands fail at random, sometimes half done, and whose
//! sequences are broken off anywhere.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    host::{Entry, Host, Luck},
    *,
};
use crate::model::Ranges;

/// Two subnets and two families. The last of each list is no address of the resource.
const ALL: [&str; 5] = ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24", "10.1.0.1/16", "fd00::1/64"];
const STATIONARY: [&str; 2] = ["10.0.0.250/24", "fd00::250/64"];

fn entry(address: &str, device: &'static str, route: bool) -> Entry {
    Entry { address: net(address), device, route }
}

/// Where one address is at the beginning: nowhere, in one place, in several.
fn places(number: usize) -> impl Strategy<Value = Vec<(Entry, bool)>> {
    let address = ALL[number];
    let wide = address.replace("/24", "/20").replace("/16", "/12").replace("/64", "/60");
    let one = |device, route, ours| vec![(entry(address, device, route), ours)];
    prop_oneof![
        6 => Just(vec![]),
        4 => Just(one("eth0", false, true)),
        1 => Just(one("eth0", false, false)),
        1 => Just(one("eth1", false, true)),
        1 => Just(one("eth1", false, false)),
        1 => Just(one("eth0", true, true)),
        1 => Just([one("eth0", false, true), one("eth1", false, true)].concat()),
        1 => Just([one("eth0", false, true), one("eth0", true, true)].concat()),
        1 => Just(vec![(entry(&wide, "eth0", false), true)]),
    ]
}

fn links() -> impl Strategy<Value = LinkState> {
    prop_oneof![
        6 => Just(LinkState::Up),
        1 => Just(LinkState::Down),
        1 => Just(LinkState::NoCarrier),
        1 => Just(LinkState::Missing)
    ]
}

/// Any host whose leftovers of ours are guarded, as vipd leaves them.
fn hosts() -> impl Strategy<Value = Host> {
    let all = (places(0), places(1), places(2), places(3), places(4));
    let flags = (any::<[bool; 8]>(), proptest::bool::weighted(0.7), links());
    (all, flags).prop_map(
        |((a, b, c, d, e), ([open, elsewhere, source, p, q, r, claim, unclaimed], answered, link))| {
            let mut entries: BTreeMap<_, _> = [a, b, c, d, e].concat().into_iter().collect();
            entries.extend(STATIONARY.map(|a| (entry(a, "eth0", false), false)));
            // A device that does not exist has no addresses.
            entries.retain(|e, _| link != LinkState::Missing || e.device != "eth0");
            let ours = entries.iter().filter(|(_, ours)| **ours);
            let mut programmed: BTreeSet<IpAddr> = ours.map(|(e, _)| e.address.addr()).collect();
            for (number, there) in [p, q, r].into_iter().enumerate() {
                programmed.extend(there.then(|| net(ALL[number]).addr()));
            }
            let first = entry(ALL[0], "eth0", false);
            let sources = (source && entries.get(&first) == Some(&true))
                .then(|| (("eth0".to_owned(), net("10.0.0.0/24")), first.address.addr()));
            let gate =
                (!programmed.is_empty()).then(|| (if elsewhere { "eth1" } else { "eth0" }.to_owned(), open));
            let mut host = Host {
                entries,
                announced: if open { programmed.clone() } else { BTreeSet::new() },
                programmed,
                gate,
                sources: sources.into_iter().collect(),
                route_lost: false,
                claimed: BTreeSet::new(),
                answered,
                link,
            };
            if claim && !unclaimed {
                let absent = ALL.map(|a| net(a).addr()).into_iter().filter(|ip| !host.is_here(*ip));
                host.claimed = absent.take(1).collect();
            }
            host
        },
    )
}

fn subset() -> impl Strategy<Value = Arc<Addresses>> {
    proptest::sample::subsequence(ALL.to_vec(), 1..=ALL.len()).prop_map(|some| set(&some))
}

fn contexts() -> impl Strategy<Value = Context> {
    (any::<[bool; 5]>(), proptest::bool::weighted(0.9), any::<bool>(), subset()).prop_map(
        |([list, no_broadcast, no_unique, no_link, source], enabled, route, addresses)| {
            let mut c = if list { with_list() } else { context() };
            c.addresses = addresses;
            c.tunables.no_broadcast_ping = no_broadcast;
            c.tunables.no_unique_check = no_unique;
            c.tunables.no_link_check = no_link;
            c.restore_and_recover = enabled;
            c.source = source;
            c.accept = if route { Accept::Route } else { Accept::Assign };
            c
        },
    )
}

/// What becomes of the commands, by their number; those not mentioned work.
type Lucks = BTreeMap<usize, Luck>;

const WORKS: Lucks = Lucks::new();

/// More commands than any sequence has.
const LONG: usize = 150;

fn bad_luck() -> impl Strategy<Value = Luck> {
    prop_oneof![Just(Luck::Fails), Just(Luck::FailsHalfway), Just(Luck::FailsAfterwards)]
}

fn lucks() -> impl Strategy<Value = Lucks> {
    proptest::collection::btree_map(0..40_usize, bad_luck(), 0..5)
}

fn perform(host: &mut Host, number: usize, command: &Command, lucks: &Lucks) -> Effect {
    host.perform(command, lucks.get(&number).copied().unwrap_or(Luck::Works))
}

/// Runs to the end; `watch` sees the host before and after each command.
fn drive(
    mut sequence: Sequence,
    host: &mut Host,
    lucks: &Lucks,
    mut watch: impl FnMut(&Host, &Command, &Host),
) -> Result<(), Failure> {
    let mut step = sequence.step(Input::Start);
    for number in 0..LONG {
        match step {
            Step::Do { command, .. } => {
                let before = host.clone();
                let effect = perform(host, number, &command, lucks);
                watch(&before, &command, host);
                step = sequence.step(Input::Effect(effect));
            }
            Step::Done { result, .. } => return result,
        }
    }
    panic!("no end in sight: {step:?}");
}

/// Runs so many commands, then drops the sequence as the runner does.
/// Whether a device was stopped that could not be started again.
fn break_off(mut sequence: Sequence, host: &mut Host, lucks: &Lucks, after: usize) -> bool {
    let mut stopped = false;
    let mut step = sequence.step(Input::Start);
    for number in 0..after {
        let Step::Do { command, .. } = step else { return stopped };
        let before = host.clone();
        let effect = perform(host, number, &command, lucks);
        never_unguarded(&before, &command, host);
        stopped |= matches!(command, Command::SetLink { up: true, .. }) && effect != Effect::Done;
        step = sequence.step(Input::Effect(effect));
    }
    if let Step::Do { command, .. } = step {
        // Perhaps in the middle of the command.
        host.perform(&command, Luck::FailsHalfway);
        if let Some(owed) = sequence.owed() {
            host.perform(&owed, Luck::Works);
        }
    }
    stopped
}

fn of_resource() -> impl Iterator<Item = IpAddr> {
    ALL.into_iter().map(|a| net(a).addr())
}

/// The kernel must not begin to answer by itself, whatever is done to it.
fn never_unguarded(before: &Host, command: &Command, after: &Host) {
    for ip in of_resource() {
        let unguarded = |h: &Host| h.is_here(ip) && !h.programmed.contains(&ip);
        assert!(
            unguarded(before) || !unguarded(after),
            "{command:?} unguarded {ip}: {before:?} -> {after:?}"
        );
    }
}

/// The same, where somebody else's may stay when the resource has given it up.
fn ours_never_unguarded(before: &Host, command: &Command, after: &Host) {
    for ip in of_resource() {
        let unguarded = |h: &Host| h.ours().any(|e| e.address.addr() == ip) && !h.programmed.contains(&ip);
        assert!(
            unguarded(before) || !unguarded(after),
            "{command:?} unguarded {ip}: {before:?} -> {after:?}"
        );
    }
}

fn stationary_untouched(host: &Host, start: &Host) {
    for address in STATIONARY {
        let entry = entry(address, "eth0", false);
        assert_eq!(host.entries.get(&entry), start.entries.get(&entry));
        assert!(!host.programmed.contains(&entry.address.addr()));
    }
}

fn silent(host: &Host, c: &Context) -> bool {
    c.addresses.iter().all(|a| !host.answers(a.addr()))
}

fn ours_of(host: &Host, addresses: &Addresses) -> usize {
    host.ours().filter(|e| addresses.contains(e.address.addr())).count()
}

/// All there, answered for on the right interface, and nothing of it elsewhere.
fn in_service(host: &Host, c: &Context) {
    assert!(host.in_place(c), "{host:?}");
    assert!(c.addresses.iter().all(|a| host.programmed.contains(&a.addr())), "{host:?}");
    assert!(c.addresses.iter().all(|a| host.announced.contains(&a.addr())), "{host:?}");
    assert_eq!(host.gate, Some((DEVICE.to_owned(), true)));
    assert!(ours_of(host, &c.addresses) <= c.addresses.count() as usize, "{host:?}");
    if c.source {
        for first in c.addresses.firsts().filter(|a| a.addr().is_ipv4()) {
            assert_eq!(host.sources.get(&(DEVICE.to_owned(), first.trunc())), Some(&first.addr()));
        }
    }
}

/// Nothing of ours is left and nothing is announced; the datapath keeps what is somebody else's.
fn nothing_left(host: &Host, addresses: &Addresses) {
    assert_eq!(ours_of(host, addresses), 0, "{host:?}");
    for address in addresses.iter() {
        let ip = address.addr();
        assert!(!host.programmed.contains(&ip) || host.is_here(ip), "{ip} {host:?}");
        assert!(!host.announced.contains(&ip), "{ip} {host:?}");
        assert!(host.sources.values().all(|source| *source != ip), "{ip} {host:?}");
    }
}

/// Another set, in service on eth0.
fn serving(before: &Addresses, c: &Context, start: &Host, device: &'static str) -> Host {
    let mut host = start.clone();
    host.link = LinkState::Up;
    let route = c.accept == Accept::Route;
    host.entries.retain(|e, _| !before.contains(e.address.addr()));
    host.entries.extend(before.iter().map(|address| (Entry { address, device, route }, true)));
    host.sources.clear();
    host.programmed.extend(before.iter().map(|a| a.addr()));
    host.gate = Some((device.to_owned(), true));
    host.announced = before.iter().map(|a| a.addr()).collect();
    host.claimed.retain(|ip| !before.contains(*ip));
    host
}

/// What is in service before and after: not to be touched.
fn kept_untouched(kept: &[IpAddr]) -> impl Fn(&Host, &Command, &Host) {
    move |before, command, after| {
        for ip in kept {
            assert!(
                after.is_here(*ip) && after.programmed.contains(ip),
                "{command:?} touched {ip}: {after:?}"
            );
        }
        if !kept.is_empty() {
            assert_eq!(after.gate, before.gate, "{command:?}");
        }
        ours_never_unguarded(before, command, after);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_failed_restore_is_silent_when_it_says_so(start in hosts(), c in contexts(), lucks in lucks()) {
        let mut host = start.clone();
        match drive(Sequence::restore(c.clone()), &mut host, &lucks, never_unguarded) {
            Ok(()) if c.restore_and_recover => in_service(&host, &c),
            Ok(()) => prop_assert_eq!(&host, &start, "disabled touches nothing"),
            Err(f) if f.silent => prop_assert!(silent(&host, &c), "{} {host:?}", f.reason),
            Err(f) => prop_assert!(f.in_service.is_empty()),
        }
        stationary_untouched(&host, &start);
    }

    /// An undo that works leaves the gate shut and nothing of ours.
    #[test]
    fn a_restore_that_fails_once_leaves_nothing(
        start in hosts(), c in contexts(), at in 0..30_usize, luck in bad_luck()
    ) {
        let (mut host, mut number, mut shut_at) = (start, 0, None);
        let lucks = [(at, luck)].into();
        let result = drive(Sequence::restore(c.clone()), &mut host, &lucks, |before, command, after| {
            if matches!(command, Command::CloseGate { .. }) {
                shut_at = shut_at.or(Some(number));
            }
            number += 1;
            never_unguarded(before, command, after);
        });
        let undo_worked = shut_at.is_some_and(|shut_at| at < shut_at || number <= at);
        if result.is_err() && undo_worked {
            prop_assert!(!host.is_open());
            nothing_left(&host, &c.addresses);
        }
    }

    #[test]
    fn a_remove_is_silent_when_it_says_so(start in hosts(), c in contexts(), lucks in lucks()) {
        let mut host = start.clone();
        match drive(Sequence::remove(c.clone()), &mut host, &lucks, never_unguarded) {
            Ok(()) => {
                prop_assert_eq!(ours_of(&host, &c.addresses), 0);
                // Somebody else's elsewhere was never ours to take.
                let of_others = |ip| host.is_here(ip) && !host.programmed.contains(&ip);
                prop_assert!(c.addresses.iter().all(|a| !host.answers(a.addr()) || of_others(a.addr())), "{host:?}");
            }
            Err(f) if f.silent => {
                let of_others = |ip| !host.ours().any(|e| e.address.addr() == ip) && !host.programmed.contains(&ip);
                prop_assert!(c.addresses.iter().all(|a| !host.answers(a.addr()) || of_others(a.addr())), "{} {host:?}", f.reason);
            }
            Err(_) => {}
        }
        stationary_untouched(&host, &start);
    }

    #[test]
    fn a_recover_is_silent_when_it_says_so(start in hosts(), c in contexts(), lucks in lucks()) {
        let mut host = start.clone();
        match drive(Sequence::recover(c.clone()), &mut host, &lucks, never_unguarded) {
            Ok(()) if c.restore_and_recover => in_service(&host, &c),
            Ok(()) => prop_assert_eq!(&host, &start, "disabled touches nothing"),
            Err(f) if f.silent => prop_assert!(
                c.addresses.iter().all(|a| {
                    let ours = host.ours().any(|e| e.address.addr() == a.addr());
                    !host.answers(a.addr()) || !(ours || host.programmed.contains(&a.addr()))
                }),
                "{} {host:?}", f.reason
            ),
            Err(_) => {}
        }
    }

    #[test]
    fn a_check_changes_nothing(start in hosts(), c in contexts(), lucks in lucks()) {
        let mut host = start.clone();
        let _ = drive(Sequence::quickcheck(c), &mut host, &lucks, |_, _, _| {});
        prop_assert_eq!(host, start);
    }

    #[test]
    fn a_physical_address_is_never_touched(start in hosts(), c in contexts(), lucks in lucks(), before in subset()) {
        let c = Context { physical: true, ..c };
        let old = "eth1".to_owned();
        for sequence in [
            Sequence::restore(c.clone()),
            Sequence::remove(c.clone()),
            Sequence::quickcheck(c.clone()),
            Sequence::recover(c.clone()),
            Sequence::switch(c.clone(), old),
            Sequence::amend(c, (*before).clone()),
        ] {
            let mut host = start.clone();
            let name = sequence.name();
            let result = drive(sequence, &mut host, &lucks, |_, _, _| {});
            prop_assert_eq!(&host, &start);
            prop_assert!(name == "quickcheck" || result.is_ok() == ["restore", "remove"].contains(&name));
        }
    }

    #[test]
    fn a_failed_switch_is_silent_when_it_says_so(start in hosts(), c in contexts(), lucks in lucks()) {
        let mut c = c;
        c.restore_and_recover = true;
        let start = serving(&c.addresses, &c, &start, "eth1");
        let mut host = start.clone();
        match drive(Sequence::switch(c.clone(), "eth1".to_owned()), &mut host, &lucks, never_unguarded) {
            Ok(()) => in_service(&host, &c),
            Err(f) if f.silent => prop_assert!(silent(&host, &c), "{} {host:?}", f.reason),
            Err(_) => {}
        }
        stationary_untouched(&host, &start);
        if lucks.is_empty() && !host.is_open() {
            nothing_left(&host, &c.addresses);
        }
    }

    #[test]
    fn an_amend_never_touches_the_others(
        start in hosts(), c in contexts(), before in subset(), lucks in lucks()
    ) {
        let host = serving(&before, &c, &start, "eth0");
        amended(host, &c, &before, &lucks);
    }

    #[test]
    fn an_amend_that_fails_once_takes_back_what_it_added(
        start in hosts(), c in contexts(), before in subset(), at in 0..40_usize, luck in bad_luck()
    ) {
        let lucks = [(at, luck)].into();
        let start = serving(&before, &c, &start, "eth0");
        let mut host = start.clone();
        let result = drive(Sequence::amend(c.clone(), (*before).clone()), &mut host, &lucks, |_, _, _| {});
        let Err(failure) = result else { return Ok(()) };
        // If the one failure was not within the undo.
        if !failure.reason.contains("moreover") {
            for entry in host.ours().filter(|e| c.addresses.contains(e.address.addr())) {
                let there = |e: &Entry| e.address.addr() == entry.address.addr();
                prop_assert!(start.ours().any(there), "{entry:?} stays: {} {host:?}", failure.reason);
            }
        }
    }

    /// Wherever a sequence is broken off, what follows reaches its goal.
    #[test]
    fn broken_off_anywhere(
        start in hosts(), c in contexts(), before in subset(), lucks in lucks(), after in 0..40_usize, which in 0..4_usize
    ) {
        let mut c = c;
        c.restore_and_recover = true;
        let (sequence, mut host) = match which {
            0 => (Sequence::restore(c.clone()), start),
            1 => (Sequence::recover(c.clone()), start),
            2 => (Sequence::switch(c.clone(), "eth1".to_owned()), serving(&c.addresses, &c, &start, "eth1")),
            _ => (Sequence::amend(c.clone(), (*before).clone()), serving(&before, &c, &start, "eth0")),
        };
        if which == 3 {
            break_off_amend(&c, &before, host, &lucks, after);
            return Ok(());
        }
        let link = host.link;
        let stopped = break_off(sequence, &mut host, &lucks, after);
        prop_assert!(stopped || host.link != LinkState::Down || link == LinkState::Down, "it stays stopped");
        prop_assert_eq!(drive(Sequence::remove(c.clone()), &mut host, &WORKS, never_unguarded), Ok(()));
        nothing_left(&host, &c.addresses);
    }

    /// Whatever state a host is in: with commands that work, a remove leaves nothing, and a restore on
    /// a quiet network brings the addresses in service, unless somebody else's are in the way.
    #[test]
    fn without_bad_luck_both_reach_their_goal(mut start in hosts(), mut c in contexts()) {
        let mut host = start.clone();
        prop_assert_eq!(drive(Sequence::remove(c.clone()), &mut host, &WORKS, never_unguarded), Ok(()));
        nothing_left(&host, &c.addresses);
        prop_assert!(!host.route_lost);
        if start.link == LinkState::Missing {
            start.link = LinkState::Down;
        }
        c.restore_and_recover = true;
        host = Host { claimed: BTreeSet::new(), answered: true, ..start };
        let strange = host.entries.iter().any(|(e, ours)| {
            !ours && c.addresses.contains(e.address.addr())
                && (e.device != DEVICE || e.route != (c.accept == Accept::Route))
        });
        let result = drive(Sequence::restore(c.clone()), &mut host, &WORKS, never_unguarded);
        prop_assert_eq!(result.is_ok(), !strange, "{:?} {:?}", result, host);
        prop_assert!(!host.route_lost, "{host:?}");
        if !strange {
            in_service(&host, &c);
        }
    }
}

/// Runs an amend; whatever comes of it, what stays in the resource is not touched.
fn amended(mut host: Host, c: &Context, before: &Addresses, lucks: &Lucks) {
    let kept: Vec<IpAddr> = before.within(&c.addresses.hosts()).iter().map(|a| a.addr()).collect();
    let start = host.clone();
    let result = drive(Sequence::amend(c.clone(), before.clone()), &mut host, lucks, kept_untouched(&kept));
    let gone = before.without(&c.addresses.hosts());
    let served: Ranges = host.ours().map(|e| e.address.addr()).filter(|ip| host.answers(*ip)).collect();
    match result {
        Ok(()) => {
            let out = gone
                .iter()
                .map(|a| a.addr())
                .all(|ip| !host.programmed.contains(&ip) && !host.ours().any(|e| e.address.addr() == ip));
            assert!(out, "{host:?}");
            if c.restore_and_recover {
                assert!(host.in_place(c), "{host:?}");
                assert!(c.addresses.iter().all(|a| host.programmed.contains(&a.addr())), "{host:?}");
                assert!(c.addresses.iter().all(|a| host.announced.contains(&a.addr())), "{host:?}");
            }
        }
        Err(f) => {
            let all = before.union(&c.addresses);
            let told = f.in_service.hosts();
            let untold = all.within(&served).without(&told);
            // Leftovers that it found and did not come to are no part of what it serves.
            let left: Ranges =
                start.ours().map(|e| e.address.addr()).filter(|ip| !before.contains(*ip)).collect();
            assert!(untold.without(&left).is_empty(), "{untold} is not told: {} {host:?}", f.reason);
            assert!(kept.iter().all(|ip| told.contains(*ip)), "{} {host:?}", f.reason);
            assert!(!f.silent);
        }
    }
    stationary_untouched(&host, &start);
}

/// Another amend of all that may be here finishes the work, and a remove takes all of it.
fn break_off_amend(c: &Context, before: &Addresses, mut host: Host, lucks: &Lucks, after: usize) {
    let mut sequence = Sequence::amend(c.clone(), before.clone());
    let mut step = sequence.step(Input::Start);
    for number in 0..after {
        let Step::Do { command, .. } = step else { break };
        let effect = perform(&mut host, number, &command, lucks);
        step = sequence.step(Input::Effect(effect));
    }
    let all = before.union(&c.addresses);
    let everything = Context { addresses: Arc::new(all.clone()), ..c.clone() };
    let mut removed = host.clone();
    assert_eq!(drive(Sequence::remove(everything), &mut removed, &WORKS, never_unguarded), Ok(()));
    nothing_left(&removed, &all);
    (host.claimed, host.answered) = (BTreeSet::new(), true);
    let strange = |ip: IpAddr| host.entries.iter().any(|(e, ours)| !ours && e.address.addr() == ip);
    if !c.addresses.iter().any(|a| strange(a.addr())) {
        amended(host, c, before, &WORKS);
    }
}

//! amend: .1 and .2 are in service; .2 goes, .3 comes.

use super::*;

const BEFORE: [&str; 2] = ["10.0.0.1/24", "10.0.0.2/24"];
const AFTER: [&str; 2] = ["10.0.0.1/24", "10.0.0.3/24"];
const GONE: [&str; 1] = ["10.0.0.2/24"];
const NEW: [&str; 1] = ["10.0.0.3/24"];
const KEPT: [&str; 1] = ["10.0.0.1/24"];

fn amend() -> Sequence {
    Sequence::amend(of(&AFTER), (*set(&BEFORE)).clone())
}

fn there(addresses: &[&str]) -> Place {
    place_of(&set(addresses), DEVICE)
}

fn look(addresses: &[&str], effect: Effect) -> (Command, Effect) {
    (Command::ReadAddresses { place: there(addresses) }, effect)
}

fn withdraw_of(addresses: &[&str]) -> (Command, Effect) {
    (Command::Withdraw { addresses: set(addresses) }, Effect::Done)
}

fn unprogram_of(addresses: &[&str]) -> (Command, Effect) {
    (Command::Unprogram { group: 9, addresses: set(addresses) }, Effect::Done)
}

fn source_of(addresses: &[&str]) -> (Command, Effect) {
    (Command::SetSource { addresses: set(addresses), device: DEVICE.to_owned() }, Effect::Done)
}

/// Out with these, which are here.
fn retire(addresses: &[&str]) -> Vec<(Command, Effect)> {
    let begin = vec![withdraw_of(addresses), look(addresses, found(addresses, &[], vec![]))];
    [begin, clearing(&there(addresses)), vec![unprogram_of(addresses)]].concat()
}

fn come() -> Vec<(Command, Effect)> {
    let (addresses, device) = (set(&NEW), DEVICE.to_owned());
    let ping = Command::BroadcastPing {
        source: net(NEW[0]),
        device: device.clone(),
        tries: 3,
        wait: Duration::from_secs(1),
    };
    vec![
        look(&AFTER, found(&KEPT, &[], vec![])),
        (Command::ProbeDuplicates { addresses: addresses.clone(), device: device.clone() }, no_claims()),
        (Command::Program { group: 9, addresses: addresses.clone(), device: device.clone() }, Effect::Done),
        (Command::AddAddresses { place: there(&NEW) }, Effect::Done),
        (Command::Announce { addresses, device }, Effect::Done),
        (ping, somebody()),
    ]
}

#[test]
fn what_goes_goes_first_and_the_rest_is_not_touched() {
    let kinds = succeeds(amend(), &[retire(&GONE), come()].concat());
    assert_eq!(
        kinds,
        [
            "amend.withdraw",
            "amend.gone",
            "amend.source-back",
            "amend.delete",
            "amend.host-route",
            "amend.route-cache",
            "amend.unprogram",
            "amend.presence",
            "amend.duplicate",
            "amend.program",
            "amend.address",
            "amend.announce",
            "amend.broadcast-ping",
            "amend.connectivity",
            "amend.done"
        ]
    );
}

#[test]
fn the_duplicate_check_can_be_switched_off() {
    let mut c = of(&AFTER);
    c.tunables.no_unique_check = true;
    let mut script = [retire(&GONE), come()].concat();
    script.remove(8);
    let kinds = succeeds(Sequence::amend(c, (*set(&BEFORE)).clone()), &script);
    assert!(kinds.contains(&"amend.duplicate-skipped"));
}

#[test]
fn nothing_to_change_is_only_looked_at() {
    let same = || Sequence::amend(of(&KEPT), (*set(&KEPT)).clone());
    succeeds(same(), &[look(&KEPT, found(&KEPT, &[], vec![]))]);
    fails(same(), &[look(&KEPT, failed("no netlink"))], false, "no netlink");
}

#[test]
fn physical_and_disabled() {
    let physical = Context { physical: true, ..of(&AFTER) };
    let failure = fails(Sequence::amend(physical, (*set(&BEFORE)).clone()), &[], false, "stationary");
    assert_eq!(failure.in_service, *set(&BEFORE));
    // Nothing comes on the network; what belongs to the resource no more leaves it.
    let disabled = Context { restore_and_recover: false, ..of(&AFTER) };
    let kinds = succeeds(Sequence::amend(disabled, (*set(&BEFORE)).clone()), &retire(&GONE));
    assert!(kinds.contains(&"amend.disabled"));
}

/// The source was set back with the one that went, and the first address of the subnet may be another.
#[test]
fn the_source_address_is_set_again() {
    let c = Context { source: true, ..of(&AFTER) };
    let sequence = || Sequence::amend(c.clone(), (*set(&BEFORE)).clone());
    let mut script = [retire(&GONE), come()].concat();
    script.insert(12, source_of(&AFTER));
    succeeds(sequence(), &script);
    script.truncate(13);
    script[12].1 = failed("no route");
    script.extend(retire(&NEW));
    script.push(source_of(&KEPT));
    fails(sequence(), &script, false, "cannot set the source address on eth0: no route");
    script.last_mut().unwrap().1 = failed("no route either");
    fails(sequence(), &script, false, "the source address of the others is not set: no route either");
}

/// Only what this run added is taken away, and the others are named.
#[test]
fn a_failure_leaves_the_others_in_service() {
    for (at, effect, reason) in [
        (2, failed("full"), "full"),
        (3, failed("no memory"), "cannot add 10.0.0.3/24 to eth0: no memory"),
        (4, failed("no socket"), "cannot announce 10.0.0.3/24 on eth0: no socket"),
        (5, nobody(), "nobody on the subnet"),
    ] {
        let mut script = come()[..=at].to_vec();
        script[at].1 = effect;
        let failure = fails(amend(), &[retire(&GONE), script, retire(&NEW)].concat(), false, reason);
        assert_eq!(failure.in_service, *set(&KEPT));
        assert_eq!(failure.cause, if at == 5 { Cause::Interface } else { Cause::Other });
    }
    // Nothing was added yet.
    for (at, effect, reason) in [
        (0, failed("no netlink"), "no netlink"),
        (0, found(&KEPT, &[], vec![Misplaced { place: place_of(&set(&NEW), "eth1"), ours: false }]), "eth1"),
        (1, claims(&[("10.0.0.3", "02::1")]), "10.0.0.3 by 02::1"),
        (1, failed("no socket"), "no socket"),
    ] {
        let mut script = come()[..=at].to_vec();
        script[at].1 = effect;
        let failure = fails(amend(), &[retire(&GONE), script].concat(), false, reason);
        assert_eq!(failure.in_service, *set(&KEPT));
    }
}

#[test]
fn what_cannot_be_taken_away_is_still_served_and_told() {
    let mut out = retire(&GONE);
    out[3].1 = failed("busy");
    out[6] = look(&GONE, found(&GONE, &[], vec![]));
    let failure = fails(amend(), &[out.clone(), come()].concat(), false, "deleted from eth0: busy");
    assert_eq!(failure.in_service, *set(&["10.0.0.1/24", "10.0.0.2/24", "10.0.0.3/24"]));
    // It was gone after all.
    out[6].1 = absent();
    out.push(unprogram_of(&GONE));
    succeeds(amend(), &[out.clone(), come()].concat());
    out[7].1 = failed("stuck");
    let failure =
        fails(amend(), &[out, come()].concat(), false, "cannot be taken out of the datapath: stuck");
    assert_eq!(failure.in_service.count(), 3);
    // Announcing for it must not go on.
    let mut out = retire(&GONE);
    out[0].1 = failed("no luck");
    let failure = fails(amend(), &[out, come()].concat(), false, "announcements of 10.0.0.2/24");
    assert_eq!(failure.in_service, *set(&AFTER));
    // The undo does not work either.
    let mut script = come()[..=3].to_vec();
    script[3].1 = failed("half done");
    let mut out = retire(&NEW);
    out[3].1 = failed("busy");
    out[6] = look(&NEW, found(&NEW, &[], vec![]));
    let failure = fails(amend(), &[retire(&GONE), script, out].concat(), false, "deleted from eth0: busy");
    assert_eq!(failure.in_service, *set(&AFTER));
}

#[test]
fn nobody_knows_where_the_gone_ones_are() {
    let begin = |look_again: Effect| {
        let unknown = vec![withdraw_of(&GONE), look(&GONE, failed("no netlink"))];
        [unknown, clearing(&there(&GONE)), vec![look(&GONE, look_again)]].concat()
    };
    let script = [begin(absent()), vec![unprogram_of(&GONE)], come()].concat();
    succeeds(amend(), &script);
    let script = [begin(failed("no netlink")), come()].concat();
    let failure = fails(amend(), &script, false, "nobody knows what is left of them");
    assert_eq!(failure.in_service.count(), 3);
}

/// The addresses are in service on another interface: programming some here would shut the gate of all.
#[test]
fn an_amend_does_not_move() {
    let old = Misplaced { place: place_of(&set(&KEPT), "eth1"), ours: true };
    let script = [retire(&GONE), vec![look(&AFTER, found(&[], &[], vec![old]))]].concat();
    let failure = fails(amend(), &script, false, "10.0.0.1/24 is in service on eth1");
    assert_eq!(failure.in_service, *set(&KEPT));
}

/// The way of accepting was changed: the new one is there before the old one goes.
#[test]
fn another_way_of_accepting_is_taken_without_a_gap() {
    let c = Context { accept: Accept::Route, ..of(&KEPT) };
    let sequence = || Sequence::amend(c.clone(), (*set(&KEPT)).clone());
    let old = Misplaced { place: there(&KEPT), ours: true };
    let look = |effect| (Command::ReadAddresses { place: c.place() }, effect);
    let mut replace = clearing(&there(&KEPT));
    replace.remove(2);
    let program = Command::Program { group: 9, addresses: set(&KEPT), device: DEVICE.to_owned() };
    let begin = vec![
        look(found(&[], &[], vec![old.clone()])),
        (program, Effect::Done),
        (Command::AddAddresses { place: c.place() }, Effect::Done),
    ];
    succeeds(sequence(), &[begin.clone(), replace.clone()].concat());
    // Either way it stays in service.
    let mut script = begin[..3].to_vec();
    script[2].1 = failed("no memory");
    let failure = fails(sequence(), &script, false, "no memory");
    assert_eq!(failure.in_service, *set(&KEPT));
    replace[1].1 = failed("busy");
    let script = [begin, replace, vec![look(found(&KEPT, &[], vec![old]))]].concat();
    let failure = fails(sequence(), &script, false, "busy");
    assert_eq!(failure.in_service, *set(&KEPT));
}

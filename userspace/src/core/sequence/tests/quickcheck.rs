//! quickcheck, row IP-8.

use super::*;

fn happy() -> Vec<(Command, Effect)> {
    vec![(read_address(), present(true)), (read_link(), link(LinkState::Up)), (broadcast(), somebody())]
}

#[test]
fn every_step_in_order_and_all_is_routine() {
    let (result, notes) = run(Sequence::quickcheck(context()), &happy());
    assert_eq!(result, Ok(()));
    assert!(notes.iter().all(|n| n.routine));
    let kinds: Vec<_> = notes.iter().map(|n| n.kind).collect();
    assert_eq!(
        kinds,
        [
            "quickcheck.presence",
            "quickcheck.link",
            "quickcheck.broadcast-ping",
            "quickcheck.connectivity",
            "quickcheck.done"
        ]
    );
}

#[test]
fn disabled_is_not_checked() {
    let c = Context { restore_and_recover: false, ..context() };
    assert_eq!(succeeds(Sequence::quickcheck(c.clone()), &[]), ["quickcheck.disabled"]);
    succeeds(Sequence::quickcheck(Context { physical: true, ..c }), &[]);
}

#[test]
fn a_physical_address_is_checked_for_presence_and_link_only() {
    let c = || Context { physical: true, ..with_list() };
    succeeds(Sequence::quickcheck(c()), &happy()[..2]);
    fails(Sequence::quickcheck(c()), &[(read_address(), absent())], false, "no longer on eth0");
    let script = [(read_address(), present(false)), (read_link(), link(LinkState::NoCarrier))];
    fails(Sequence::quickcheck(c()), &script, false, "no carrier");
}

#[test]
fn presence() {
    succeeds(
        Sequence::quickcheck(context()),
        &[(read_address(), present(false)), happy()[1].clone(), happy()[2].clone()],
    );
    for (effect, reason) in [
        (absent(), "no longer on eth0"),
        (misplaced(true), "this host has 10.0.0.7/16 on eth1"),
        (misplaced(false), "this host has 10.0.0.7/16 on eth1"),
        (failed("no netlink"), "no netlink"),
        (Effect::Done, "does not ask for"),
    ] {
        fails(Sequence::quickcheck(context()), &[(read_address(), effect)], false, reason);
    }
}

#[test]
fn links() {
    for (effect, reason) in [
        (link(LinkState::Missing), "does not exist any more"),
        (link(LinkState::Down), "was set down"),
        (link(LinkState::NoCarrier), "no carrier"),
        (failed("no netlink"), "no netlink"),
        (Effect::Done, "does not ask for"),
    ] {
        let script = [happy()[0].clone(), (read_link(), effect)];
        fails(Sequence::quickcheck(context()), &script, false, reason);
    }
    let c = tuned(|t| t.no_link_check = true);
    let kinds = succeeds(Sequence::quickcheck(c), &[happy()[0].clone(), happy()[2].clone()]);
    assert!(kinds.contains(&"quickcheck.link-skipped"));
}

/// What stands elsewhere too is no reason to disturb it.
#[test]
fn an_address_in_its_place_is_enough() {
    let place = place_of(&set(&["10.0.0.7/16"]), "eth1");
    let mut script = happy();
    script[0].1 = found(&["10.0.0.7/24"], &[], vec![Misplaced { place, ours: true }]);
    succeeds(Sequence::quickcheck(context()), &script);
}

#[test]
fn a_failed_link_calls_for_another_interface() {
    let script = [happy()[0].clone(), (read_link(), link(LinkState::NoCarrier))];
    assert_eq!(fails(Sequence::quickcheck(context()), &script, false, "").cause, Cause::Interface);
    let script = [(read_address(), absent())];
    assert_eq!(fails(Sequence::quickcheck(context()), &script, false, "").cause, Cause::Other);
}

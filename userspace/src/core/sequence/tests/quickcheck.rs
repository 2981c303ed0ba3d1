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
        (misplaced(true), "on eth1 with prefix length 16"),
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

#[test]
fn connectivity() {
    let quiet = |mut c: Context| {
        c.tunables.no_broadcast_ping = true;
        c
    };
    let script = |pings: Vec<(Command, Effect)>| [happy()[..2].to_vec(), pings].concat();
    let check = |c: Context| Sequence::quickcheck(c);
    succeeds(check(quiet(context())), &script(vec![]));
    succeeds(check(with_list()), &script(vec![(ping_list(), somebody())]));
    succeeds(check(with_list()), &script(vec![(ping_list(), nobody()), (broadcast(), somebody())]));
    let none = "nobody of the ping list and nobody on the subnet";
    fails(check(with_list()), &script(vec![(ping_list(), nobody()), (broadcast(), nobody())]), false, none);
    fails(
        check(quiet(with_list())),
        &script(vec![(ping_list(), nobody())]),
        false,
        "nobody of the ping list",
    );
    fails(check(context()), &script(vec![(broadcast(), nobody())]), false, "nobody on the subnet");
    fails(check(context()), &script(vec![(broadcast(), failed("down"))]), false, "nobody on the subnet");
}

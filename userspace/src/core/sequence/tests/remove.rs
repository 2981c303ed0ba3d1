//! remove, row IP-7.

use super::*;

fn happy() -> Vec<(Command, Effect)> {
    [begin(present(true)), clearing(&place()), vec![(unprogram(), Effect::Done)]].concat()
}

fn begin(presence: Effect) -> Vec<(Command, Effect)> {
    vec![(close(), Effect::Done), (withdraw(), Effect::Done), (read_address(), presence)]
}

/// The deletion fails, and this is seen after it.
fn stuck(look: Effect, rest: Vec<(Command, Effect)>) -> Vec<(Command, Effect)> {
    let mut script = happy()[..7].to_vec();
    script[DELETE].1 = failed("busy");
    script.push((read_address(), look));
    script.extend(rest);
    script
}

/// Positions in the script.
const PRESENCE: usize = 2;
const SOURCE: usize = 3;
const DELETE: usize = 4;
const HOST_ROUTE: usize = 5;
const ROUTE_CACHE: usize = 6;
const UNPROGRAM: usize = 7;

#[test]
fn every_step_in_order() {
    for ours in [true, false] {
        let mut script = happy();
        script[PRESENCE].1 = present(ours);
        assert_eq!(
            succeeds(Sequence::remove(context()), &script),
            [
                "remove.close-gate",
                "remove.withdraw",
                "remove.presence",
                "remove.source",
                "remove.address",
                "remove.host-route",
                "remove.route-cache",
                "remove.unprogram",
                "remove.done"
            ]
        );
    }
}

/// Row IP-12: the setting may have been switched off while in service.
#[test]
fn the_source_is_set_back_whether_or_not_it_is_wanted() {
    for source in [true, false] {
        succeeds(Sequence::remove(Context { source, ..context() }), &happy());
    }
    let mut script = happy();
    script[SOURCE].1 = failed("no netlink");
    assert!(succeeds(Sequence::remove(context()), &script).contains(&"remove.clear-failed"));
    // Only IPv4 has one.
    let c = of(&["fd00::7/64"]);
    let mut script = [begin(absent()), clearing(&c.place())].concat();
    script[1].0 = Command::Withdraw { addresses: c.addresses.clone() };
    script[PRESENCE] = (Command::ReadAddresses { place: c.place() }, found(&["fd00::7/64"], &[], vec![]));
    script.remove(SOURCE);
    script.push((Command::Unprogram { group: 9, addresses: c.addresses.clone() }, Effect::Done));
    succeeds(Sequence::remove(c), &script);
}

#[test]
fn a_physical_address_stays() {
    let c = Context { physical: true, ..context() };
    assert_eq!(succeeds(Sequence::remove(c), &[]), ["remove.physical"]);
}

#[test]
fn a_disabled_address_is_removed_all_the_same() {
    let c = Context { restore_and_recover: false, ..context() };
    succeeds(Sequence::remove(c), &happy());
}

#[test]
fn an_absent_address_is_only_taken_out_of_the_datapath() {
    let script = [begin(absent()), vec![(unprogram(), Effect::Done)]].concat();
    let kinds = succeeds(Sequence::remove(context()), &script);
    assert_eq!(
        kinds,
        [
            "remove.close-gate",
            "remove.withdraw",
            "remove.presence",
            "remove.absent",
            "remove.unprogram",
            "remove.done"
        ]
    );
}

#[test]
fn an_open_gate_fails_the_whole() {
    fails(Sequence::remove(context()), &[(close(), failed("stuck"))], false, "stuck");
    let reason = "may answer for it until its lease ends";
    fails(Sequence::remove(context()), &[(close(), nobody())], false, reason);
}

#[test]
fn announcements_that_go_on_are_only_noted() {
    let mut script = happy();
    script[1].1 = failed("no luck");
    assert!(succeeds(Sequence::remove(context()), &script).contains(&"remove.withdraw-failed"));
}

#[test]
fn an_unknown_place_is_deleted_where_it_should_be_and_looked_at_again() {
    let removal = |first, again, rest: Vec<(Command, Effect)>| {
        [begin(first), clearing(&place()), vec![(read_address(), again)], rest].concat()
    };
    let out = || vec![(unprogram(), Effect::Done)];
    let silence = || vec![(program(), Effect::Done)];
    for odd in [failed("no netlink"), Effect::Done] {
        let script = removal(odd, absent(), out());
        assert!(succeeds(Sequence::remove(context()), &script).contains(&"remove.presence-unknown"));
    }
    let script = removal(failed("no netlink"), failed("no netlink"), silence());
    fails(Sequence::remove(context()), &script, true, "nobody knows what is left of them: no netlink");
    // Not where it was deleted.
    let script = removal(failed("no netlink"), misplaced(true), silence());
    fails(Sequence::remove(context()), &script, true, "10.0.0.7 are somewhere else on this host");
}

#[test]
fn an_address_of_somebody_else_elsewhere_is_left_alone() {
    let kinds = succeeds(Sequence::remove(context()), &begin(misplaced(false)));
    assert_eq!(
        kinds,
        [
            "remove.close-gate",
            "remove.withdraw",
            "remove.presence",
            "remove.left-alone",
            "remove.absent",
            "remove.done"
        ]
    );
}

#[test]
fn a_misplaced_address_of_ours_is_deleted_where_it_is() {
    let there = place_of(&set(&["10.0.0.7/16"]), "eth1");
    let script = [begin(misplaced(true)), clearing(&there), vec![(unprogram(), Effect::Done)]].concat();
    assert!(succeeds(Sequence::remove(context()), &script).contains(&"remove.misplaced"));
    // If it cannot be, it is there that the datapath must keep the kernel silent.
    let mut script = script[..7].to_vec();
    script[DELETE].1 = failed("busy");
    let silence = Command::Program { group: 9, addresses: context().addresses, device: "eth1".to_owned() };
    script.extend([(read_address(), misplaced(true)), (silence, Effect::Done)]);
    fails(Sequence::remove(context()), &script, true, "could not be deleted from eth1: busy");
}

#[test]
fn host_route_and_route_cache_follow_a_failed_deletion() {
    for look in [present(true), present(false), failed("no netlink")] {
        let script = stuck(look.clone(), vec![(program(), Effect::Done)]);
        fails(Sequence::remove(context()), &script, true, "busy");
        let script = stuck(look, vec![(program(), failed("full"))]);
        fails(Sequence::remove(context()), &script, false, "the datapath does not take it: full");
    }
}

#[test]
fn a_deletion_that_failed_and_did_its_work_is_one() {
    let script = stuck(absent(), vec![(unprogram(), Effect::Done)]);
    assert!(succeeds(Sequence::remove(context()), &script).contains(&"remove.gone"));
}

#[test]
fn a_host_route_left_behind_keeps_the_address_programmed() {
    let mut script = happy();
    script[HOST_ROUTE].1 = failed("busy");
    script[UNPROGRAM] = (program(), Effect::Done);
    let reason = "host routes of 10.0.0.7/24 on eth0 could not be deleted: busy";
    fails(Sequence::remove(context()), &script, true, reason);
}

#[test]
fn a_route_cache_that_was_not_flushed_is_only_noted() {
    let mut script = happy();
    script[ROUTE_CACHE].1 = failed("no proc");
    assert!(succeeds(Sequence::remove(context()), &script).contains(&"remove.clear-failed"));
}

#[test]
fn an_entry_left_in_the_datapath_fails_silently_closed() {
    let mut script = happy();
    script[UNPROGRAM].1 = failed("stuck");
    fails(Sequence::remove(context()), &script, true, "its gate is closed");
}

//! remove, row IP-7.

use super::*;

fn happy() -> Vec<(Command, Effect)> {
    vec![
        (close(), Effect::Done),
        (read_address(), present(true)),
        (delete(), Effect::Done),
        (host_route(), Effect::Done),
        (Command::FlushRouteCache, Effect::Done),
        (unprogram(), Effect::Done),
    ]
}

#[test]
fn every_step_in_order() {
    for ours in [true, false] {
        let mut script = happy();
        script[1].1 = present(ours);
        assert_eq!(
            succeeds(Sequence::remove(context()), &script),
            [
                "remove.close-gate",
                "remove.presence",
                "remove.address",
                "remove.host-route",
                "remove.route-cache",
                "remove.unprogram",
                "remove.done"
            ]
        );
    }
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
    let script = [(close(), Effect::Done), (read_address(), absent()), (unprogram(), Effect::Done)];
    let kinds = succeeds(Sequence::remove(context()), &script);
    assert_eq!(
        kinds,
        ["remove.close-gate", "remove.presence", "remove.absent", "remove.unprogram", "remove.done"]
    );
}

#[test]
fn an_open_gate_fails_the_whole() {
    fails(Sequence::remove(context()), &[(close(), failed("stuck"))], false, "stuck");
    fails(
        Sequence::remove(context()),
        &[(close(), nobody())],
        false,
        "may answer for it until its lease ends",
    );
}

#[test]
fn an_unknown_place_is_deleted_where_it_should_be() {
    for odd in [failed("no netlink"), Effect::Done] {
        let mut script = happy();
        script[1].1 = odd;
        assert!(succeeds(Sequence::remove(context()), &script).contains(&"remove.presence-unknown"));
    }
}

#[test]
fn an_address_of_somebody_else_elsewhere_is_left_alone() {
    let script = [(close(), Effect::Done), (read_address(), misplaced(false))];
    let kinds = succeeds(Sequence::remove(context()), &script);
    assert_eq!(kinds, ["remove.close-gate", "remove.presence", "remove.left-alone"]);
}

#[test]
fn a_misplaced_address_of_ours_is_deleted_where_it_is() {
    let there = "eth1".to_owned();
    let delete_there =
        Command::DeleteAddress { address: "10.0.0.7/16".parse().unwrap(), device: there.clone() };
    let route_there = Command::DeleteHostRoute { address: ip(), device: there.clone() };
    let mut script = happy();
    script[1].1 = misplaced(true);
    script[2].0 = delete_there;
    script[3].0 = route_there;
    assert!(succeeds(Sequence::remove(context()), &script).contains(&"remove.misplaced"));
    // If it cannot be, it is there that the datapath must keep the kernel silent.
    script[2].1 = failed("busy");
    script[5] = (Command::Program { address: ip(), device: there }, Effect::Done);
    fails(Sequence::remove(context()), &script, true, "could not be deleted from eth1: busy");
}

#[test]
fn host_route_and_route_cache_follow_a_failed_deletion() {
    let mut script = happy();
    script[2].1 = failed("busy");
    script[5] = (program(), Effect::Done);
    fails(Sequence::remove(context()), &script, true, "busy");
    script[5].1 = failed("full");
    fails(Sequence::remove(context()), &script, false, "the datapath does not take it: full");
}

#[test]
fn a_host_route_left_behind_keeps_the_address_programmed() {
    let mut script = happy();
    script[3].1 = failed("busy");
    script[5] = (program(), Effect::Done);
    fails(Sequence::remove(context()), &script, true, "host route could not be deleted: busy");
    script[2].1 = failed("no luck");
    fails(Sequence::remove(context()), &script, true, "no luck; its host route could not be deleted: busy");
}

#[test]
fn a_route_cache_that_was_not_flushed_is_only_noted() {
    let mut script = happy();
    script[4].1 = failed("no proc");
    assert!(succeeds(Sequence::remove(context()), &script).contains(&"remove.route-cache-failed"));
}

#[test]
fn an_entry_left_in_the_datapath_fails_silently_closed() {
    let mut script = happy();
    script[5].1 = failed("stuck");
    fails(Sequence::remove(context()), &script, true, "its gate is closed");
}

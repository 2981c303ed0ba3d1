//! Give, Release, Report, Forgive.

use super::*;

#[test]
fn a_grant_needs_a_free_resource_and_its_newest_epoch() {
    let mut state = with_vip();
    refused(&state, give("vip", 1, 1), &["epoch 0, presumed 1"]);
    refused(&state, give("nothing", 1, 0), &["no resource 'nothing'"]);
    refused(&state, give("vip", 9, 0), &["no node number 9"]);
    refused(&state, give("vip", 4, 0), &["node 'w'"]);
    done(&mut state, give("vip", 1, 0));
    assert_eq!(place(&state, "vip").grant, Some(Grant { owner: 1, lease_epoch: 1, phase: Phase::Starting }));
    assert_eq!(place(&state, "vip").epoch, 1);
    refused(&state, give("vip", 2, 1), &["granted or deleted meanwhile"]);
    refused(&state, give("vip", 1, 0), &["granted or deleted meanwhile"]);
}

#[test]
fn a_grant_needs_a_trusted_node_and_the_wish() {
    let mut state = with_vip();
    done(&mut state, Change::Depose { node: 2, lease_epoch: 1 });
    refused(&state, give("vip", 2, 0), &["'b' (Deposed)"]);
    done(&mut state, Change::OutOfService { tag: tag("vip") });
    refused(&state, give("vip", 1, 0), &["vipctl in-service vip"]);
}

#[test]
fn a_node_that_the_resource_is_not_extended_to_gets_nothing() {
    let mut state = cluster();
    done(&mut state, Change::Create { resource: resource("x", "10.0.0.9/24", &[(1, 1)]), on: 1 });
    refused(&state, give("x", 2, 0), &["extended to"]);
}

#[test]
fn items_stand_for_themselves() {
    let mut state = with_vip();
    let x = resource("x", "10.0.0.9/24", &[(1, 1), (2, 2)]);
    done(&mut state, Change::Create { resource: x, on: 2 });
    let grant = |name: &str, to, epoch| NewGrant { tag: tag(name), to, epoch };
    refused(
        &state,
        Change::Give { grants: vec![grant("vip", 1, 7), grant("x", 1, 8)] },
        &["'vip' was granted"],
    );
    done(&mut state, Change::Give { grants: vec![grant("vip", 1, 7), grant("x", 2, 0), grant("x", 1, 0)] });
    assert_eq!((owner(&state, "vip"), owner(&state, "x")), (None, Some((2, Phase::Starting))));
    done(&mut state, Change::Give { grants: vec![] });
}

#[test]
fn the_operators_choice_is_kept_where_it_was_followed_and_else_spent() {
    let wish = |state: &ClusterState| place(state, "vip").desired;
    let mut followed = with_vip();
    done(&mut followed, give("vip", 1, 0));
    assert_eq!(wish(&followed), Desired::InService { on: Some(1) });
    let mut spent = with_vip();
    done(&mut spent, give("vip", 2, 0));
    assert_eq!(wish(&spent), Desired::InService { on: None });
    // A failover spends it too: with intelligent switchback nothing moves back by itself.
    let mut state = in_service();
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    let grants = vec![NewGrant { tag: tag("vip"), to: 3, epoch: 1 }];
    done(&mut state, Change::Vacate { node: 1, lease_epoch: 2, grants });
    assert_eq!(wish(&state), Desired::InService { on: None });
}

#[test]
fn releasing_asks_the_owner_to_stop() {
    let release = |epoch| Change::Release { tag: tag("vip"), epoch };
    refused(&with_vip(), release(0), &["not owned under epoch 0"]);
    let mut starting = with_vip();
    done(&mut starting, give("vip", 1, 0));
    for mut state in [starting, in_service()] {
        refused(&state, release(2), &["not owned under epoch 2", "newest is 1"]);
        done(&mut state, release(1));
        assert_eq!(owner(&state, "vip"), Some((1, Phase::Stopping)));
        refused(&state, release(1), &["being stopped already"]);
        done(&mut state, report("vip", 1, 1, Outcome::Started));
        assert_eq!(owner(&state, "vip"), Some((1, Phase::Stopping)), "a late start changes nothing");
        done(&mut state, report("vip", 1, 1, Outcome::Released));
        assert_eq!(owner(&state, "vip"), None);
        refused(&state, report("vip", 1, 1, Outcome::Released), &["out of date"]);
    }
    refused(&in_service(), Change::Release { tag: tag("nothing"), epoch: 1 }, &["no resource 'nothing'"]);
}

#[test]
fn only_the_owner_under_the_newest_epoch_is_believed() {
    let mut state = in_service();
    for outcome in [Outcome::Started, Outcome::Released, failure()] {
        refused(&state, report("vip", 2, 1, outcome.clone()), &["'b' does not own 'vip'"]);
        refused(&state, report("vip", 1, 2, outcome.clone()), &["out of date"]);
        refused(&state, report("nothing", 1, 1, outcome.clone()), &["no resource 'nothing'"]);
        refused(&state, report("vip", 9, 1, outcome), &["no node number 9"]);
    }
    refused(&state, report("vip", 1, 1, Outcome::Released), &["was not asked to release"]);
    done(&mut state, report("vip", 1, 1, Outcome::Started));
    assert_eq!(owner(&state, "vip"), Some((1, Phase::InService)));
}

#[test]
fn a_failure_ends_the_grant_and_is_marked() {
    let mut starting = with_vip();
    done(&mut starting, give("vip", 1, 0));
    for mut state in [starting, in_service()] {
        done(&mut state, report("vip", 1, 1, failure()));
        assert_eq!(owner(&state, "vip"), None);
        assert_eq!(place(&state, "vip").failed[&1], "no carrier");
        done(&mut state, Change::Forgive { tag: tag("vip"), node: 1 });
        assert!(place(&state, "vip").failed.is_empty());
        done(&mut state, Change::Forgive { tag: tag("vip"), node: 1 });
        refused(&state, Change::Forgive { tag: tag("nothing"), node: 1 }, &["no resource 'nothing'"]);
    }
}

#[test]
fn a_deposed_node_starts_nothing_but_may_say_that_it_stopped() {
    let mut starting = with_vip();
    done(&mut starting, give("vip", 1, 0));
    done(&mut starting, Change::Depose { node: 1, lease_epoch: 1 });
    refused(&starting, report("vip", 1, 1, Outcome::Started), &["deposed since"]);
    done(&mut starting, report("vip", 1, 1, failure()));
    assert_eq!(owner(&starting, "vip"), None);
}

/// A hierarchy leaves because one of it failed, and that one is asked to stop before it could say so.
#[test]
fn a_failure_counts_also_after_the_order_to_stop() {
    for (setting, started, gives_up) in [
        (Setting::ServiceFailfast(true), true, true),
        (Setting::ServiceFailfast(true), false, false),
        (Setting::NodeFailfast(true), false, true),
        (Setting::NodeFailfast(false), true, false),
    ] {
        let mut state = with_vip();
        done(&mut state, Change::Set { tag: tag("vip"), node: None, setting: setting.clone() });
        done(&mut state, give("vip", 1, 0));
        if started {
            done(&mut state, report("vip", 1, 1, Outcome::Started));
        }
        done(&mut state, Change::Release { tag: tag("vip"), epoch: 1 });
        done(&mut state, report("vip", 1, 1, failure()));
        assert_eq!(owner(&state, "vip"), None);
        assert_eq!(place(&state, "vip").failed[&1], "no carrier");
        assert_eq!(place(&state, "vip").failures[&1].count, 1);
        assert_eq!(state.nodes[&1].gave_up.is_some(), gives_up, "{setting:?}, started {started}");
    }
}

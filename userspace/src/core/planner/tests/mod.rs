//! Rule by rule; [`properties`] runs whole clusters.

mod laws;
mod properties;
mod rules;
mod subnets;
mod suppositions;
mod world;

use super::*;
use crate::{
    core::change::{
        Applied, NewGrant, Outcome, Setting, apply,
        tests::{cluster, done, failure, give, in_service, no_answer, report, resource, tag, with_vip},
    },
    model::{Epoch, Phase, Switchback},
};

fn fit() -> NodeHealth {
    NodeHealth { fit: true, ..NodeHealth::default() }
}

fn suspected() -> NodeHealth {
    NodeHealth { suspected: true, ..NodeHealth::default() }
}

fn silent_below(epoch: LeaseEpoch) -> NodeHealth {
    NodeHealth { suspected: true, silent_below: Some(epoch), ..NodeHealth::default() }
}

/// All four nodes fit, except those named.
fn seen(nodes: &[(NodeId, NodeHealth)]) -> Observed {
    let mut all: BTreeMap<_, _> = (1..=4).map(|id| (id, fit())).collect();
    all.extend(nodes.iter().cloned());
    Observed { nodes: all, ..Observed::default() }
}

fn planned(state: &ClusterState, observed: &Observed) -> Vec<Change> {
    plan(state, observed).into_iter().map(|d| d.change).collect()
}

fn release(epoch: Epoch) -> Change {
    Change::Release { tag: tag("vip"), epoch }
}

fn wish(state: &mut ClusterState, on: Option<NodeId>) {
    done(state, Change::InService { tag: tag("vip"), on, until: None });
}

fn automatic(state: &mut ClusterState) {
    let setting = Setting::Switchback(Switchback::Automatic);
    done(state, Change::Set { tag: tag("vip"), node: None, setting });
}

/// In service on `node`, with nothing left of the operator's choice at creation.
fn in_service_on(node: NodeId) -> ClusterState {
    let mut state = with_vip();
    wish(&mut state, None);
    done(&mut state, give("vip", node, 0));
    done(&mut state, report("vip", node, 1, Outcome::Started));
    state
}

#[test]
fn nothing_is_known_so_nothing_is_done() {
    assert_eq!(planned(&with_vip(), &Observed::default()), []);
    assert_eq!(planned(&in_service(), &Observed::default()), []);
}

#[test]
fn a_free_resource_goes_where_the_operator_wants_it_or_else_by_priority() {
    let mut state = with_vip();
    wish(&mut state, Some(3));
    assert_eq!(planned(&state, &seen(&[])), [give("vip", 3, 0)]);
    assert_eq!(planned(&state, &seen(&[(3, NodeHealth::default())])), [give("vip", 1, 0)]);
    wish(&mut state, None);
    assert_eq!(planned(&state, &seen(&[])), [give("vip", 1, 0)]);
    assert_eq!(planned(&state, &seen(&[(1, NodeHealth::default())])), [give("vip", 2, 0)]);
    let none = [(1, suspected()), (2, NodeHealth::default()), (3, NodeHealth::default())];
    assert_eq!(planned(&state, &seen(&none)), []);
    done(&mut state, Change::OutOfService { tag: tag("vip") });
    assert_eq!(planned(&state, &seen(&[])), []);
}

#[test]
fn a_node_that_is_heard_and_suspected_is_not_a_candidate() {
    let odd = NodeHealth { fit: true, suspected: true, silent_below: None };
    assert_eq!(planned(&with_vip(), &seen(&[(1, odd)])), [give("vip", 2, 0)]);
}

#[test]
fn a_failure_cascades_by_priority() {
    let mut state = in_service_on(1);
    for (epoch, node, next) in [(1, 1, 2), (2, 2, 3)] {
        done(&mut state, report("vip", node, epoch, failure()));
        assert_eq!(planned(&state, &seen(&[])), [give("vip", next, epoch)]);
        done(&mut state, give("vip", next, epoch));
    }
    done(&mut state, report("vip", 3, 3, failure()));
    assert_eq!(planned(&state, &seen(&[])), [], "it has failed everywhere");
    let forgiven = Observed { forgive: [(tag("vip"), 2)].into(), ..seen(&[]) };
    let forgive = Change::Forgive { tag: tag("vip"), node: 2 };
    assert_eq!(planned(&state, &forgiven), [forgive, give("vip", 2, 3)]);
}

#[test]
fn only_marks_that_exist_are_forgiven() {
    let unmarked = Observed { forgive: [(tag("vip"), 2), (tag("nothing"), 1)].into(), ..seen(&[]) };
    assert_eq!(planned(&in_service_on(1), &unmarked), []);
}

#[test]
fn one_change_gives_all() {
    let mut state = with_vip();
    done(&mut state, Change::Create { resource: resource("x", "10.0.0.9/24", &[(2, 1), (3, 2)]), on: 3 });
    let [Change::Give { grants }] = &planned(&state, &seen(&[]))[..] else { panic!("one change") };
    let to: Vec<_> = grants.iter().map(|g| (g.tag.as_str(), g.to)).collect();
    assert_eq!(to, [("vip", 1), ("x", 3)]);
}

#[test]
fn a_suspected_owner_is_deposed_once_and_then_waited_for() {
    let mut state = in_service_on(1);
    let observed = seen(&[(1, suspected())]);
    let depose = Change::Depose { node: 1, lease_epoch: 1 };
    assert_eq!(planned(&state, &observed), std::slice::from_ref(&depose));
    done(&mut state, depose);
    assert_eq!(planned(&state, &observed), []);
    // It is heard again, but has not rejoined: its old lease may still be believed by its kernel.
    assert_eq!(planned(&state, &seen(&[])), []);
}

#[test]
fn a_suspected_node_that_owns_nothing_is_left_alone() {
    assert_eq!(planned(&in_service_on(1), &seen(&[(2, suspected()), (4, suspected())])), []);
}

#[test]
fn proof_of_silence_gives_everything_on_in_one_step() {
    let mut state = in_service_on(1);
    let x = resource("x", "10.0.0.9/24", &[(1, 1), (3, 2)]);
    let y = resource("y", "10.0.0.10/24", &[(1, 1), (3, 2)]);
    let elsewhere = resource("z", "10.0.0.11/24", &[(2, 1)]);
    for (resource, on) in [(x, 1), (y, 1), (elsewhere, 2)] {
        let name = resource.tag.as_str().to_owned();
        done(&mut state, Change::Create { resource, on });
        done(&mut state, give(&name, on, 0));
    }
    done(&mut state, Change::Delete { tag: tag("y"), hierarchy: false });
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    let grant = |name: &str, to| NewGrant { tag: tag(name), to, epoch: 1 };
    let vacate = Change::Vacate { node: 1, lease_epoch: 2, grants: vec![grant("vip", 2), grant("x", 3)] };
    assert_eq!(planned(&state, &seen(&[(1, silent_below(2))])), std::slice::from_ref(&vacate));
    done(&mut state, vacate);
    assert!(!state.resources.contains_key(&tag("y")));
    assert_eq!(planned(&state, &seen(&[(1, silent_below(2))])), []);
}

#[test]
fn proof_about_an_earlier_deposition_is_no_proof() {
    let mut state = in_service_on(1);
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    done(&mut state, Change::Rejoin { node: 1, lease_epoch: 2 });
    done(&mut state, give("vip", 1, 1));
    done(&mut state, Change::Depose { node: 1, lease_epoch: 2 });
    assert_eq!(planned(&state, &seen(&[(1, silent_below(2))])), []);
    assert_eq!(planned(&state, &seen(&[(1, silent_below(3))])).len(), 1);
}

#[test]
fn what_nobody_can_take_is_freed_all_the_same() {
    let mut state = in_service_on(1);
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    let alone = [(1, silent_below(2)), (2, NodeHealth::default()), (3, NodeHealth::default())];
    let vacate = Change::Vacate { node: 1, lease_epoch: 2, grants: vec![] };
    assert_eq!(planned(&state, &seen(&alone)), [vacate]);
}

#[test]
fn out_of_service_and_deletion_release() {
    for change in
        [Change::OutOfService { tag: tag("vip") }, Change::Delete { tag: tag("vip"), hierarchy: false }]
    {
        for started in [true, false] {
            let mut state = if started { in_service() } else { with_vip() };
            if !started {
                done(&mut state, give("vip", 1, 0));
            }
            done(&mut state, change.clone());
            assert_eq!(planned(&state, &seen(&[])), [release(1)]);
            // Also while the node is not fit; but a silent one is deposed, not asked.
            assert_eq!(planned(&state, &seen(&[(1, NodeHealth::default())])), [release(1)]);
            let depose = Change::Depose { node: 1, lease_epoch: 1 };
            assert_eq!(planned(&state, &seen(&[(1, suspected())])), [depose]);
            done(&mut state, release(1));
            assert_eq!(planned(&state, &seen(&[])), []);
        }
    }
}

#[test]
fn an_operators_move_releases_only_when_the_target_can_start() {
    let mut state = in_service_on(1);
    wish(&mut state, Some(3));
    assert_eq!(planned(&state, &seen(&[(3, NodeHealth::default())])), []);
    assert_eq!(planned(&state, &seen(&[(3, suspected())])), []);
    assert_eq!(planned(&state, &seen(&[])), [release(1)]);
    state.placements.get_mut(&tag("vip")).unwrap().failed.insert(3, "failed".to_owned());
    assert_eq!(planned(&state, &seen(&[])), []);
    wish(&mut state, Some(3));
    done(&mut state, release(1));
    assert_eq!(planned(&state, &seen(&[])), []);
    done(&mut state, report("vip", 1, 1, Outcome::Released));
    assert_eq!(planned(&state, &seen(&[])), [give("vip", 3, 1)]);
}

#[test]
fn a_move_waits_until_the_resource_has_started() {
    let mut state = with_vip();
    done(&mut state, give("vip", 1, 0));
    wish(&mut state, Some(3));
    assert_eq!(planned(&state, &seen(&[])), []);
    done(&mut state, report("vip", 1, 1, Outcome::Started));
    assert_eq!(planned(&state, &seen(&[])), [release(1)]);
}

#[test]
fn switchback() {
    let mut state = in_service_on(3);
    assert_eq!(planned(&state, &seen(&[])), [], "intelligent: it stays");
    automatic(&mut state);
    assert_eq!(planned(&state, &seen(&[])), [release(1)]);
    let unfit = |id| (id, NodeHealth::default());
    assert_eq!(planned(&state, &seen(&[unfit(1)])), [release(1)], "node 2 is better, too");
    assert_eq!(planned(&state, &seen(&[unfit(1), unfit(2)])), []);
    // The owner itself need not be fit to be the best there is.
    assert_eq!(planned(&state, &seen(&[unfit(1), unfit(2), unfit(3)])), []);
    wish(&mut state, Some(3));
    assert_eq!(planned(&state, &seen(&[])), [], "an operator sent it there");
}

#[test]
fn after_a_failover_intelligent_stays_and_automatic_returns() {
    for is_automatic in [false, true] {
        let mut state = in_service();
        if is_automatic {
            automatic(&mut state);
        }
        done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
        for change in planned(&state, &seen(&[(1, silent_below(2))])) {
            done(&mut state, change);
        }
        done(&mut state, report("vip", 2, 2, Outcome::Started));
        done(&mut state, Change::Rejoin { node: 1, lease_epoch: 2 });
        let expected = if is_automatic { vec![release(2)] } else { vec![] };
        assert_eq!(planned(&state, &seen(&[])), expected);
    }
}

#[test]
fn witnesses_and_strangers_get_nothing() {
    let mut state = cluster();
    // The state as it could only be by a mistake elsewhere.
    let odd = resource("x", "10.0.0.9/24", &[(4, 1), (9, 2)]);
    state.resources.insert(tag("x"), odd);
    let placement = with_vip().placements.remove(&tag("vip")).unwrap();
    state.placements.insert(tag("x"), placement);
    assert_eq!(planned(&state, &seen(&[(9, fit())])), []);
}

#[test]
fn decisions_say_why() {
    let mut state = in_service_on(1);
    wish(&mut state, Some(3));
    let reasons: Vec<_> = plan(&state, &seen(&[])).into_iter().map(|d| d.reason).collect();
    assert_eq!(reasons, ["'vip' moves from node 'a' to 'c': an operator wants it there"]);
    assert_eq!(apply(&mut state, &release(1)), Applied::Done);
}

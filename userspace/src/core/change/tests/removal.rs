//! Remove, Readdress.

use super::*;

fn remove(node: NodeId, heir: Option<NodeId>) -> Change {
    Change::Remove { node, heir }
}

fn likes(state: &mut ClusterState, id: &str, node: NodeId, score: i32) {
    let constraint = Constraint::Location { tag: tag("vip"), node, score: Score::new(score) };
    done(state, Change::AddConstraint { id: id.to_owned(), constraint });
}

#[test]
fn a_node_that_owns_something_stays() {
    let mut state = in_service();
    refused(&state, remove(1, None), &["'a' has 'vip'", "vipctl node standby a"]);
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    refused(&state, remove(1, None), &["not yet proven", "maintenance"]);
    done(&mut state, Change::Vacate { node: 1, lease_epoch: 2, grants: vec![] });
    done(&mut state, remove(1, None));
    assert!(!state.nodes.contains_key(&1));
    refused(&state, remove(1, None), &["no node number 1"]);
    refused(&state, Change::Rejoin { node: 1, lease_epoch: 2 }, &["no node number 1"]);
    refused(&state, give("vip", 1, 1), &[]);
}

#[test]
fn whatever_was_said_of_it_goes_with_it() {
    let mut state = in_service();
    let list = |node| Change::SetPingList {
        node,
        subnet: "10.0.0.0/24".parse().unwrap(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
    };
    done(&mut state, list(2));
    likes(&mut state, "like", 2, 100);
    let hosts = ["192.0.2.1".parse().unwrap()];
    done(
        &mut state,
        Change::SetConnectivity { settings: Connectivity { hosts: hosts.into(), ..Connectivity::default() } },
    );
    done(&mut state, Change::ReportConnectivity { node: 2, unreached: hosts.into() });
    done(&mut state, remove(2, None));
    assert!(state.ping_lists.is_empty() && state.constraints.is_empty() && state.unreached.is_empty());
    assert_eq!(state.resources[&tag("vip")].nodes.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert_eq!(owner(&state, "vip"), Some((1, Phase::InService)), "others are left alone");
}

#[test]
fn an_operators_choice_of_it_is_over() {
    let mut state = with_vip();
    done(&mut state, Change::InService { tag: tag("vip"), on: Some(2), until: Some(7) });
    done(&mut state, remove(2, None));
    assert_eq!(place(&state, "vip").desired, Desired::InService { on: None });
    assert_eq!(place(&state, "vip").choice_ends, None);
}

#[test]
fn no_resource_loses_its_last_node() {
    let mut state = cluster();
    done(&mut state, Change::Create { resource: resource("vip", "10.0.0.7/24", &[(2, 5)]), on: 2 });
    refused(&state, remove(2, None), &["only one of 'vip'", "--replace-by"]);
    done(&mut state, remove(2, Some(3)));
    assert_eq!(state.resources[&tag("vip")].nodes, [(3, settings(5))].into());
    assert_eq!(place(&state, "vip").desired, Desired::InService { on: Some(3) });
}

#[test]
fn an_heir_gets_what_it_does_not_have_yet() {
    let mut state = cluster();
    let vip = resource("vip", "10.0.0.7/24", &[(1, 10), (2, 20)]);
    let both = resource("both", "10.0.0.8/24", &[(2, 20), (3, 30)]);
    done(&mut state, Change::CreateAll { resources: vec![vip, both], on: 2 });
    likes(&mut state, "like", 2, 100);
    done(&mut state, remove(2, Some(3)));
    assert_eq!(state.resources[&tag("vip")].nodes, [(1, settings(10)), (3, settings(20))].into());
    assert_eq!(state.resources[&tag("both")].nodes, [(3, settings(30))].into(), "keeps its own");
    let moved = Constraint::Location { tag: tag("vip"), node: 3, score: Score::new(100) };
    assert_eq!(state.constraints, [("like".to_owned(), moved)].into());
}

#[test]
fn what_is_said_of_an_heir_counts_more() {
    let mut state = with_vip();
    likes(&mut state, "old", 2, 100);
    likes(&mut state, "new", 3, -5);
    done(&mut state, remove(2, Some(3)));
    assert_eq!(state.constraints.keys().collect::<Vec<_>>(), ["new"]);
}

#[test]
fn not_everybody_can_be_an_heir() {
    let mut state = cluster();
    refused(&state, remove(2, Some(2)), &["the one that is removed"]);
    refused(&state, remove(2, Some(4)), &["witness"]);
    refused(&state, remove(2, Some(9)), &["no node number 9"]);
    assert_eq!(apply(&mut state, &Change::Reserve { node: new_node("e", 5) }), Applied::Node(5));
    refused(&state, remove(2, Some(5)), &["still joining"]);
}

#[test]
fn the_last_that_can_hold_addresses_stays() {
    let mut state = cluster();
    done(&mut state, remove(1, None));
    done(&mut state, remove(2, None));
    refused(&state, remove(3, None), &["nobody in the cluster could hold an address"]);
    done(&mut state, remove(4, None));
    refused(&state, remove(3, None), &["nobody in the cluster could hold an address"]);
}

#[test]
fn a_name_and_addresses_are_free_again_and_a_number_is_not() {
    let mut state = cluster();
    done(&mut state, remove(2, None));
    assert_eq!(apply(&mut state, &Change::Reserve { node: new_node("b", 2) }), Applied::Node(5));
    done(&mut state, remove(5, None));
}

#[test]
fn a_node_can_be_reached_elsewhere() {
    let mut state = cluster();
    let elsewhere = new_node("b", 9);
    let readdress = |rpc, paths| Change::Readdress { node: 2, rpc, paths };
    done(&mut state, readdress(elsewhere.rpc, elsewhere.paths.clone()));
    assert_eq!((state.nodes[&2].rpc, &state.nodes[&2].paths), (elsewhere.rpc, &elsewhere.paths));
    done(&mut state, readdress(elsewhere.rpc, elsewhere.paths[..1].to_vec()));
    let other = new_node("c", 3);
    refused(&state, readdress(other.rpc, elsewhere.paths.clone()), &["rpc address", "belongs to node 'c'"]);
    refused(&state, readdress(elsewhere.rpc, other.paths), &["heartbeat path", "belongs to node 'c'"]);
    refused(&state, readdress(elsewhere.rpc, vec![]), &["no heartbeat path"]);
}

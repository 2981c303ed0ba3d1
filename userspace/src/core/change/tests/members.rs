//! Found, Reserve, Admit, Depose, Vacate, Rejoin.

use super::*;

#[test]
fn a_cluster_is_founded_once() {
    let mut state = ClusterState::default();
    let found = || Change::Found { name: "test".to_owned(), node: new_node("a", 1) };
    refused(&state, Change::Found { name: String::new(), node: new_node("a", 1) }, &["needs a name"]);
    refused(&state, Change::Reserve { node: new_node("a", 1) }, &["vipctl cluster init"]);
    done(&mut state, found());
    let node = &state.nodes[&1];
    assert_eq!((node.id, node.standing, node.lease_epoch, state.last_node), (1, Standing::Member, 1, 1));
    refused(&state, found(), &["belongs to the cluster 'test'"]);
}

#[test]
fn reserving_is_idempotent_while_joining() {
    let mut state = cluster();
    let reserve = || Change::Reserve { node: new_node("d", 5) };
    assert_eq!(apply(&mut state, &reserve()), Applied::Node(5));
    assert_eq!(state.nodes[&5].standing, Standing::Joining);
    let before = state.clone();
    assert_eq!(apply(&mut state, &reserve()), Applied::Node(5));
    assert_eq!(state, before);
    refused(&state, Change::Reserve { node: new_node("d", 6) }, &["began to join as 192.168.0.5:7401"]);
    done(&mut state, Change::Admit { node: 5 });
    assert_eq!(state.nodes[&5].standing, Standing::Member);
    done(&mut state, Change::Admit { node: 5 });
    refused(&state, reserve(), &["'d' is a member already", "another name"]);
    refused(&state, Change::Admit { node: 9 }, &["no node number 9"]);
}

#[test]
fn admitting_twice_does_not_trust_a_deposed_node() {
    let mut state = in_service();
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    done(&mut state, Change::Admit { node: 1 });
    assert_eq!(state.nodes[&1].standing, Standing::Deposed);
}

#[test]
fn nodes_have_names_paths_and_addresses_of_their_own() {
    let state = cluster();
    let with = |change: fn(&mut NewNode)| {
        let mut node = new_node("d", 5);
        change(&mut node);
        Change::Reserve { node }
    };
    refused(&state, with(|n| n.name.clear()), &["needs a name"]);
    refused(&state, with(|n| n.paths.clear()), &["no heartbeat path"]);
    refused(&state, with(|n| n.paths.push(n.paths[0])), &["192.168.0.5:7400 twice"]);
    refused(
        &state,
        with(|n| n.rpc = new_node("b", 2).rpc),
        &["the rpc address 192.168.0.2:7401", "node 'b'"],
    );
    refused(&state, with(|n| n.paths[1] = new_node("b", 2).paths[0]), &["192.168.0.2:7400", "node 'b'"]);
}

#[test]
fn deposing_needs_the_present_lease_epoch() {
    let mut state = in_service();
    refused(&state, Change::Depose { node: 1, lease_epoch: 2 }, &["look again"]);
    refused(&state, Change::Depose { node: 9, lease_epoch: 1 }, &["no node number 9"]);
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    assert_eq!((state.nodes[&1].standing, state.nodes[&1].lease_epoch), (Standing::Deposed, 2));
    assert_eq!(owner(&state, "vip"), Some((1, Phase::InService)), "it owns until it is proven silent");
    refused(&state, Change::Depose { node: 1, lease_epoch: 2 }, &["Deposed"]);
    refused(&state, give("vip", 2, 1), &["granted or deleted meanwhile"]);
    assert_eq!(apply(&mut state, &Change::Reserve { node: new_node("d", 5) }), Applied::Node(5));
    refused(&state, Change::Depose { node: 5, lease_epoch: 1 }, &["Joining"]);
}

fn vacate(lease_epoch: LeaseEpoch, to: NodeId, epoch: Epoch) -> Change {
    Change::Vacate { node: 1, lease_epoch, grants: vec![NewGrant { tag: tag("vip"), to, epoch }] }
}

#[test]
fn vacating_gives_on_in_the_same_step() {
    let mut state = in_service();
    refused(&state, vacate(1, 2, 1), &["Member", "not Deposed"]);
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    refused(&state, vacate(1, 2, 1), &["lease epoch 2"]);
    refused(&state, vacate(3, 2, 1), &["lease epoch 2"]);
    done(&mut state, vacate(2, 2, 1));
    assert_eq!(owner(&state, "vip"), Some((2, Phase::Starting)));
    assert_eq!(place(&state, "vip").epoch, 2);
    assert_eq!(place(&state, "vip").grant.unwrap().lease_epoch, 1);
    // A second one finds nothing of node 1 any more.
    let before = state.clone();
    done(&mut state, vacate(2, 3, 2));
    assert_eq!(state, before);
}

#[test]
fn vacating_frees_even_if_nothing_can_be_given() {
    let mut state = in_service();
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    // To the deposed node itself, and under a stale epoch.
    for change in [vacate(2, 1, 1), vacate(2, 2, 0)] {
        let mut state = state.clone();
        done(&mut state, change);
        assert_eq!((owner(&state, "vip"), place(&state, "vip").epoch), (None, 1));
    }
}

#[test]
fn vacating_removes_what_was_being_deleted() {
    let mut state = in_service();
    done(&mut state, Change::Delete { tag: tag("vip"), hierarchy: false });
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    done(&mut state, vacate(2, 2, 1));
    assert!(state.resources.is_empty() && state.placements.is_empty());
}

#[test]
fn rejoining_ends_what_was_owned_and_only_with_the_exact_lease_epoch() {
    let mut state = in_service();
    let rejoin = |lease_epoch| Change::Rejoin { node: 1, lease_epoch };
    refused(&state, rejoin(1), &["not Deposed"]);
    done(&mut state, Change::Depose { node: 1, lease_epoch: 1 });
    refused(&state, rejoin(1), &["lease epoch 2"]);
    refused(&state, rejoin(3), &["lease epoch 2"]);
    done(&mut state, rejoin(2));
    assert_eq!((state.nodes[&1].standing, state.nodes[&1].lease_epoch), (Standing::Member, 2));
    assert_eq!(owner(&state, "vip"), None);
    refused(&state, vacate(2, 2, 1), &["not Deposed"]);
    done(&mut state, give("vip", 1, 1));
    assert_eq!(place(&state, "vip").grant, Some(Grant { owner: 1, lease_epoch: 2, phase: Phase::Starting }));
}

#[test]
fn rejoining_leaves_others_alone() {
    let mut state = in_service();
    done(&mut state, Change::Depose { node: 2, lease_epoch: 1 });
    done(&mut state, Change::Rejoin { node: 2, lease_epoch: 2 });
    assert_eq!(owner(&state, "vip"), Some((1, Phase::InService)));
}

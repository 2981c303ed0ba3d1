//! HoldAlone, LetGo, DeclareDead.

use super::*;
use crate::model::{Alone, TwoNodes};

const FIRST: Alone = Alone { life: 1, turn: 1 };
const SECOND: Alone = Alone { life: 1, turn: 2 };

/// Nodes 1 and 2, and `vip` in service on node 1.
fn two() -> ClusterState {
    let mut state = in_service();
    state.nodes.retain(|id, _| *id <= 2);
    state.resources.get_mut(&tag("vip")).unwrap().nodes.retain(|id, _| *id <= 2);
    state
}

fn freeze(state: &mut ClusterState) {
    done(state, Change::SetDefault { setting: DefaultSetting::TwoNodes(TwoNodes::Freeze) });
}

#[test]
fn a_lease_is_held_alone_only_by_one_of_two_under_the_policy() {
    let hold = |alone| Change::HoldAlone { node: 1, alone };
    let mut state = two();
    refused(&state, hold(FIRST), &["two-nodes=freeze"]);
    freeze(&mut state);
    done(&mut state, hold(FIRST));
    assert_eq!(state.nodes[&1].alone, Some(FIRST));
    assert_eq!(state.nodes[&2].alone, None);
    let mut deposed = state.clone();
    done(&mut deposed, Change::Depose { node: 1, lease_epoch: 1 });
    assert_eq!(deposed.nodes[&1].alone, Some(FIRST), "its word is needed all the same");
    refused(&deposed, hold(SECOND), &["as a member"]);
    let mut three = state.clone();
    assert_eq!(apply(&mut three, &Change::Reserve { node: new_node("z", 9) }), Applied::Node(5));
    refused(&three, hold(SECOND), &["of two"]);
    assert_eq!(three.nodes[&1].alone, Some(FIRST), "until it has let go itself");
}

#[test]
fn a_late_return_ends_no_other_permission() {
    let mut state = two();
    freeze(&mut state);
    done(&mut state, Change::HoldAlone { node: 1, alone: FIRST });
    done(&mut state, Change::HoldAlone { node: 1, alone: SECOND });
    refused(&state, Change::LetGo { node: 1, alone: FIRST }, &["another permission"]);
    done(&mut state, Change::LetGo { node: 1, alone: SECOND });
    assert_eq!(state.nodes[&1].alone, None);
    refused(&state, Change::LetGo { node: 1, alone: SECOND }, &["another permission"]);
}

#[test]
fn a_node_declared_dead_is_deposed_and_keeps_its_grants_until_it_is_proven_silent() {
    let mut state = two();
    freeze(&mut state);
    done(&mut state, Change::HoldAlone { node: 1, alone: FIRST });
    done(&mut state, Change::DeclareDead { node: 1, by: Word::Operator });
    let node = &state.nodes[&1];
    assert_eq!((node.standing, node.lease_epoch, node.alone), (Standing::Deposed, 2, None));
    assert!(node.declared_dead && !node.is_available());
    assert_eq!(owner(&state, "vip"), Some((1, Phase::InService)), "not before the proof");
    let again = state.clone();
    done(&mut state, Change::DeclareDead { node: 1, by: Word::Operator });
    assert_eq!(state.nodes, again.nodes, "saying it twice changes nothing");
    done(&mut state, Change::Vacate { node: 1, lease_epoch: 2, grants: vec![] });
    assert_eq!(owner(&state, "vip"), None);
    // It returns, has stopped everything, and is a voter again.
    done(&mut state, Change::Rejoin { node: 1, lease_epoch: 2 });
    assert!(state.nodes[&1].declared_dead, "not a voter yet");
    refused(&state, Change::HoldAlone { node: 1, alone: SECOND }, &["as a member"]);
    done(&mut state, Change::Admit { node: 1 });
    assert!(!state.nodes[&1].declared_dead);
    refused(&state, Change::DeclareDead { node: 9, by: Word::Operator }, &["no node number 9"]);
}

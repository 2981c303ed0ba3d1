//! OfferKey, UseKey, KeyInUse.

use super::*;

fn offer(generation: KeyGeneration) -> Change {
    Change::OfferKey { generation, fingerprint: format!("f{generation}") }
}

fn use_key(generation: KeyGeneration, nodes: impl IntoIterator<Item = NodeId>) -> Change {
    Change::UseKey { generation, nodes: nodes.into_iter().collect() }
}

fn used(generation: KeyGeneration, node: NodeId) -> Change {
    Change::KeyInUse { node, generation }
}

#[test]
fn a_key_is_offered_used_and_confirmed() {
    let mut state = cluster();
    assert_eq!(state.key.generation, 1);
    done(&mut state, offer(2));
    assert_eq!(state.key.generation, 1, "nobody uses it yet");
    refused(&state, used(2, 1), &["generation 1 is"]);
    done(&mut state, use_key(2, 1..=4));
    assert_eq!((state.key.generation, state.key.fingerprint.as_str()), (2, "f2"));
    for node in [3, 1, 4] {
        done(&mut state, used(2, node));
        done(&mut state, used(2, node));
    }
    assert_eq!(state.without_key_names().as_deref(), Some("'b'"));
    refused(&state, offer(3), &["'b' has not confirmed", "cluster remove"]);
    let reserve = Change::Reserve { node: new_node("d", 5) };
    refused(&state, reserve.clone(), &["'b' has not confirmed"]);
    done(&mut state, used(2, 2));
    assert_eq!(state.without_key_names(), None);
    assert_eq!(apply(&mut state, &reserve), Applied::Node(5));
    done(&mut state, offer(3));
    assert_eq!(state.revision, cluster().revision, "no part of what operators configure");
}

#[test]
fn a_later_offer_makes_an_earlier_one_void() {
    let mut state = cluster();
    done(&mut state, offer(2));
    refused(&state, Change::OfferKey { generation: 2, fingerprint: "other".into() }, &["somebody else"]);
    refused(&state, offer(4), &["somebody else"]);
    done(&mut state, offer(3));
    refused(&state, use_key(2, 1..=4), &["not offered any more"]);
    refused(&state, offer(2), &["given already"]);
    done(&mut state, use_key(3, 1..=4));
    done(&mut state, use_key(3, 1..=4));
    refused(&state, use_key(2, 1..=4), &["not offered any more"]);
}

#[test]
fn a_key_is_used_only_if_every_node_has_it() {
    let mut state = cluster();
    done(&mut state, offer(2));
    refused(&state, use_key(2, 1..=3), &["node 'w'", "rotate-key"]);
    assert_eq!(apply(&mut state, &Change::Reserve { node: new_node("d", 5) }), Applied::Node(5));
    refused(&state, use_key(2, 1..=4), &["node 'd'"]);
    // One that is gone meanwhile does not matter.
    done(&mut state, use_key(2, 1..=6));
    assert_eq!(state.key.awaited, (1..=5).collect());
}

#[test]
fn who_is_no_node_is_not_waited_for() {
    let mut state = cluster();
    done(&mut state, offer(2));
    done(&mut state, use_key(2, 1..=4));
    for node in 1..=3 {
        done(&mut state, used(2, node));
    }
    done(&mut state, Change::Remove { node: 4, heir: None });
    assert_eq!(state.key.awaited, [].into());
    assert_eq!(state.without_key_names(), None);
    refused(&state, used(2, 4), &["no node number 4"]);
    done(&mut state, offer(3));
}

#[test]
fn there_is_no_key_without_a_cluster() {
    refused(&ClusterState::default(), offer(2), &["vipctl cluster init"]);
}

#[test]
fn a_state_without_a_key_is_one_with_the_first() {
    let mut old = serde_json::to_value(cluster()).unwrap();
    old.as_object_mut().unwrap().remove("key");
    assert_eq!(serde_json::from_value::<ClusterState>(old).unwrap(), cluster());
}

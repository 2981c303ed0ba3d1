//! The change of the cluster's key. The state carries numbers and fingerprints, never a key.
//!
//! Invariant: a generation names one key only, and no key is offered while a node may still use another than
//! the present one. So a node never has to know more than two keys, and none that could still become the
//! cluster's is ever replaced.

use std::collections::BTreeSet;

use super::{Applied, Refusal, Result, no_node};
use crate::model::{ClusterState, KeyFingerprint, KeyGeneration, KeyState, NodeId, OfferedKey};

/// From now on no earlier offer can come into use.
pub(super) fn offer(
    state: &mut ClusterState,
    generation: KeyGeneration,
    fingerprint: &KeyFingerprint,
) -> Result<Applied> {
    if state.nodes.is_empty() {
        return Err(Refusal::new("there is no cluster yet: 'vipctl cluster init NAME' founds one"));
    }
    let offered = OfferedKey { generation, fingerprint: fingerprint.clone() };
    if state.key.offered.as_ref() == Some(&offered) {
        return Ok(Applied::Done);
    }
    check_finished(state)?;
    if generation != state.key.last + 1 {
        return Err(Refusal(format!(
            "somebody else changes the cluster's key at the same time (generation {generation} is given already): \
             look at 'vipctl cluster status' and repeat the command"
        )));
    }
    state.key.last = generation;
    state.key.offered = Some(offered);
    Ok(Applied::Done)
}

/// `nodes` have stored the key.
pub(super) fn start_using(
    state: &mut ClusterState,
    generation: KeyGeneration,
    nodes: &BTreeSet<NodeId>,
) -> Result<Applied> {
    if state.key.generation == generation {
        return Ok(Applied::Done);
    }
    let Some(offered) = state.key.offered.as_ref().filter(|o| o.generation == generation) else {
        return Err(Refusal(format!(
            "the key of generation {generation} is not offered any more: another 'vipctl cluster rotate-key' came \
             after it"
        )));
    };
    if let Some(without) = state.nodes.values().find(|n| !nodes.contains(&n.id)) {
        return Err(Refusal(format!(
            "node '{}' joined while the key was handed out and does not have it: repeat 'vipctl cluster rotate-key'",
            without.name
        )));
    }
    state.key = KeyState {
        generation,
        fingerprint: offered.fingerprint.clone(),
        last: state.key.last,
        offered: None,
        awaited: state.nodes.keys().copied().collect(),
    };
    Ok(Applied::Done)
}

/// The node uses the key of that generation and none before it.
pub(super) fn in_use(state: &mut ClusterState, node: NodeId, generation: KeyGeneration) -> Result<Applied> {
    if !state.nodes.contains_key(&node) {
        return Err(no_node(node));
    }
    if generation != state.key.generation {
        return Err(Refusal(format!(
            "node {node} says that it uses the cluster key of generation {generation}, and that of generation {} is \
             to be used",
            state.key.generation
        )));
    }
    state.key.awaited.remove(&node);
    Ok(Applied::Done)
}

/// An error while a node may still use the key before the present one.
pub(super) fn check_finished(state: &ClusterState) -> Result<()> {
    match state.without_key_names() {
        None => Ok(()),
        Some(names) => Err(Refusal(format!(
            "the last change of the cluster's key is not finished: {names} has not confirmed the key of generation {}; \
             bring it back, or remove it with 'vipctl cluster remove NODE', and repeat the command",
            state.key.generation
        ))),
    }
}

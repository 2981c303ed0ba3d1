//! Leases that a node holds by its own agreement alone, and the word that a node is dead (row CL-4).

use super::{Applied, Refusal, Result, no_node};
use crate::model::{Alone, ClusterState, NodeId, Standing, Word};

pub(super) fn hold(state: &mut ClusterState, id: NodeId, alone: Alone) -> Result<Applied> {
    let freezes = state.freezes();
    let node = state.nodes.get_mut(&id).ok_or_else(|| no_node(id))?;
    // A take-over that has begun counts on whoever was asked then.
    if !freezes || node.standing != Standing::Member || node.declared_dead {
        return Err(Refusal(format!(
            "node '{}' needs a majority for its lease: it may hold it alone only as a member, of two, under the \
             policy two-nodes=freeze",
            node.name
        )));
    }
    node.alone = Some(alone);
    Ok(Applied::Done)
}

pub(super) fn let_go(state: &mut ClusterState, id: NodeId, alone: Alone) -> Result<Applied> {
    let node = state.nodes.get_mut(&id).ok_or_else(|| no_node(id))?;
    if node.alone != Some(alone) {
        return Err(Refusal(format!("node '{}' has been given another permission meanwhile", node.name)));
    }
    node.alone = None;
    Ok(Applied::Done)
}

pub(super) fn declare_dead(state: &mut ClusterState, id: NodeId, by: Word) -> Result<Applied> {
    let node = state.nodes.get_mut(&id).ok_or_else(|| no_node(id))?;
    match node.standing {
        // A joining node may be a voter already.
        Standing::Joining | Standing::Member => {
            node.lease_epoch += 1;
            node.standing = Standing::Deposed;
        }
        // The proof of its silence goes on, now without its own word.
        Standing::Deposed => {}
    }
    node.alone = None;
    node.declared_dead = true;
    node.declared_by = by;
    Ok(Applied::Done)
}

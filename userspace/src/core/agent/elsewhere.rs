//! Whether what may not be mended here once more has anywhere else to go. The leader decides where; this node
//! only needs to know that there is somebody, before it gives up what it could keep.

use std::collections::BTreeSet;

use crate::model::{ClusterState, Constraint, Node, NodeId, Resource, Tag};

/// A peer that is heard could be given the resource's whole hierarchy, as far as the replicated state tells.
pub(super) fn exists(
    state: &ClusterState,
    resource: &Resource,
    me: NodeId,
    peers: &BTreeSet<NodeId>,
) -> bool {
    let others: Vec<NodeId> =
        resource.nodes.keys().copied().filter(|id| *id != me && peers.contains(id)).collect();
    if others.is_empty() {
        return false;
    }
    let members = state.hierarchy_of(&resource.tag);
    others.into_iter().any(|id| {
        state.nodes.get(&id).is_some_and(Node::is_available)
            && members.iter().all(|tag| nothing_against(state, tag, id))
            && !forbidden(state, &members, id)
    })
}

fn nothing_against(state: &ClusterState, tag: &Tag, id: NodeId) -> bool {
    let (Some(resource), Some(placement)) = (state.resources.get(tag), state.placements.get(tag)) else {
        return true;
    };
    !placement.is_wanted()
        || (!placement.failed.contains_key(&id) && state.lacking_subnets(resource, id).next().is_none())
}

fn forbidden(state: &ClusterState, members: &BTreeSet<Tag>, id: NodeId) -> bool {
    state.constraints.values().any(|constraint| match constraint {
        Constraint::Location { tag, node, score } => *node == id && score.forbids() && members.contains(tag),
        Constraint::Colocation { .. }
        | Constraint::Order { .. }
        | Constraint::Group { .. }
        | Constraint::Clone { .. } => false,
    })
}

//! What operators want of nodes: online, standby, maintenance.

use super::{Applied, Duty, Refusal, Result, no_node};
use crate::model::{ClusterState, NodeId, Placement, Tag};

pub(super) fn set(state: &mut ClusterState, node: NodeId, duty: Duty) -> Result<Applied> {
    let id = node;
    let node = state.nodes.get_mut(&id).ok_or_else(|| no_node(id))?;
    if node.witness {
        return Err(Refusal(format!(
            "node '{}' is a witness and holds no addresses: there is nothing to take from it",
            node.name
        )));
    }
    match duty {
        Duty::Online => {
            node.standby = false;
            if node.gave_up.take().is_some() {
                forgive_all(state, id);
            }
        }
        Duty::Standby => node.standby = true,
        Duty::Maintenance(on) => node.maintenance = on,
    }
    Ok(Applied::Done)
}

/// Whoever brings back a node that gave up everything says that what failed there is mended.
fn forgive_all(state: &mut ClusterState, node: NodeId) {
    let marked = |p: &Placement| p.failed.contains_key(&node) || p.failures.contains_key(&node);
    let tags: Vec<Tag> =
        state.placements.iter().filter(|(_, p)| marked(p)).map(|(tag, _)| tag.clone()).collect();
    for tag in tags {
        if let Some(placement) = state.placements.get_mut(&tag) {
            placement.failed.remove(&node);
            placement.failures.remove(&node);
        }
    }
}

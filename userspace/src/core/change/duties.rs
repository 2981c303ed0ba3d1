//! What operators want of nodes: online, standby, maintenance.

use super::{Applied, Duty, Refusal, Result, no_node};
use crate::model::{ClusterState, NodeId};

pub(super) fn set(state: &mut ClusterState, node: NodeId, duty: Duty) -> Result<Applied> {
    let node = state.nodes.get_mut(&node).ok_or_else(|| no_node(node))?;
    if node.witness {
        return Err(Refusal(format!(
            "node '{}' is a witness and holds no addresses: there is nothing to take from it",
            node.name
        )));
    }
    match duty {
        Duty::Online => {
            node.standby = false;
            node.gave_up = None;
        }
        Duty::Standby => node.standby = true,
        Duty::Maintenance(on) => node.maintenance = on,
    }
    Ok(Applied::Done)
}

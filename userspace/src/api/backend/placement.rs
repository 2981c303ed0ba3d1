//! What a placement is called: ISP, OSU, OSF and what lies between.

use crate::model::{ClusterState, Desired, NodeId, Phase, Placement, Resource, Standing};

/// The state of the whole resource.
pub fn state_of(cluster: &ClusterState, resource: &Resource, placement: &Placement) -> &'static str {
    let wanted = match placement.desired {
        Desired::InService { .. } => !placement.deleting,
        Desired::OutOfService => false,
    };
    match placement.grant {
        Some(grant) => {
            let trusted = cluster
                .nodes
                .get(&grant.owner)
                .is_some_and(|n| n.standing == Standing::Member && n.lease_epoch == grant.lease_epoch);
            match grant.phase {
                // The owner is being proven silent, then it goes elsewhere.
                _ if !trusted => "moving",
                Phase::Starting => "starting",
                Phase::InService => "ISP",
                Phase::Stopping if wanted => "moving",
                Phase::Stopping => "stopping",
            }
        }
        None if failed_everywhere(resource, placement) => "OSF",
        None if wanted && placement.epoch == 0 => "starting",
        None if wanted => "moving",
        None => "OSU",
    }
}

/// The state of a resource on one node it is extended to.
pub fn state_on(placement: &Placement, node: NodeId) -> &'static str {
    match placement.grant {
        Some(grant) if grant.owner == node => match grant.phase {
            Phase::Starting => "starting",
            Phase::InService => "ISP",
            Phase::Stopping => "stopping",
        },
        Some(_) | None if placement.failed.contains_key(&node) => "OSF",
        Some(_) | None => "OSU",
    }
}

/// Why a node that has it in service does so without all of its addresses, or not yet with those of now.
pub fn unfinished(placement: &Placement, node: NodeId) -> Option<String> {
    placement.grant.filter(|g| g.owner == node && g.phase == Phase::InService)?;
    match &placement.trouble {
        Some(reason) => Some(format!("without all of its addresses: {reason}")),
        None if placement.amended != placement.alterations => {
            Some("its addresses are being changed".to_owned())
        }
        None => None,
    }
}

/// It failed on every node that could have it.
pub fn failed_everywhere(resource: &Resource, placement: &Placement) -> bool {
    !resource.nodes.is_empty() && resource.nodes.keys().all(|n| placement.failed.contains_key(n))
}

/// `a: reason; b: reason`
pub fn reasons(cluster: &ClusterState, placement: &Placement) -> String {
    let each: Vec<String> =
        placement.failed.iter().map(|(n, reason)| format!("{}: {reason}", cluster.node_name(*n))).collect();
    each.join("; ")
}

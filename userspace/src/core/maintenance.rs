//! What nobody touches because an operator works on it.

use super::change::Refusal;
use crate::model::{ClusterState, Tag};

/// # Errors
/// When the resource's hierarchy is neither started, stopped nor moved at present; with the remedy.
pub fn check_not_maintained(state: &ClusterState, tag: &Tag) -> Result<(), Refusal> {
    if state.defaults.maintenance {
        let rule = "the cluster is in maintenance, in which nothing is started, stopped or moved: 'vipctl cluster set \
                    maintenance=off' ends it";
        return Err(Refusal(rule.to_owned()));
    }
    // The planner asks the first root, and leaves alone whatever is where any member is.
    let members = state.hierarchy_of(tag);
    let root = state.roots(&members).next().and_then(|root| state.resources.get(root));
    if root.is_some_and(|r| r.policy.maintenance) {
        return Err(Refusal(format!(
            "{tag} is in maintenance, in which it is neither started, stopped nor moved: 'vipctl set {tag} \
             maintenance=off' ends it"
        )));
    }
    let owner = members.iter().find_map(|t| state.placements.get(t)?.grant).map(|g| g.owner);
    let owner = owner.and_then(|owner| state.nodes.get(&owner));
    match owner.filter(|n| n.maintenance) {
        Some(node) => Err(Refusal(format!(
            "{tag} is on node '{0}', which is in maintenance: 'vipctl node maintenance {0} off' ends it",
            node.name
        ))),
        None => Ok(()),
    }
}

//! Hierarchies and operators' choices, as `status` shows them.

use super::placement;
use crate::{
    api::{ChoiceStatus, HierarchyStatus, MemberStatus},
    model::{ClusterState, Desired, Placement, Tag},
};

/// Those of more than one resource.
pub(super) fn all(state: &ClusterState) -> Vec<HierarchyStatus> {
    let several = state.hierarchies().into_iter().filter(|members| members.len() > 1);
    let shown = several.filter_map(|members| {
        let roots: Vec<&Tag> = state.roots(&members).collect();
        let mut shown = Vec::new();
        for root in &roots {
            descend(state, root, 0, &mut shown);
        }
        Some(HierarchyStatus { root: (*roots.first()?).clone(), members: shown })
    });
    shown.collect()
}

/// Ends, for there are no cycles.
fn descend(state: &ClusterState, tag: &Tag, depth: usize, shown: &mut Vec<MemberStatus>) {
    let (Some(resource), Some(placement)) = (state.resources.get(tag), state.placements.get(tag)) else {
        return;
    };
    // What several depend on is shown under each of them, and what is below it only the first time.
    let again = shown.iter().any(|m| m.tag == *tag);
    shown.push(MemberStatus {
        tag: tag.clone(),
        depth,
        state: placement::state_of(state, resource, placement).to_owned(),
        owner: placement.grant.map(|g| state.node_name(g.owner)),
    });
    for child in resource.children.iter().filter(|_| !again) {
        descend(state, child, depth + 1, shown);
    }
}

pub(super) fn choice(state: &ClusterState, placement: &Placement) -> Option<ChoiceStatus> {
    match placement.desired {
        Desired::InService { on: Some(node) } => {
            Some(ChoiceStatus { node: state.node_name(node), ends: placement.choice_ends })
        }
        Desired::InService { on: None } | Desired::OutOfService => None,
    }
}

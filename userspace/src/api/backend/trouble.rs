//! Warnings about duties, maintenance and hierarchies that nobody can hold.

use super::{placement, subnet};
use crate::{
    core::planner::{Explanation, NodeHealth, Observed, unplaced},
    model::{ClusterState, Node, Resource, Tag},
};

/// Of one kind, those that have a warning of their own.
const NAMED: usize = 10;

pub(super) fn warnings(state: &ClusterState) -> Vec<String> {
    let mut found: Vec<String> = state.nodes.values().flat_map(about_node).collect();
    if state.defaults.maintenance {
        found.push(
            "the cluster is in maintenance: nothing is checked, started, stopped or moved; 'vipctl cluster set \
             maintenance=off' ends it"
                .to_owned(),
        );
    }
    let maintained = state.resources.values().filter(|r| r.policy.maintenance);
    let line = |r: &Resource| {
        format!(
            "{0} is in maintenance: it is neither checked nor moved; 'vipctl set {0} maintenance=off' ends it",
            r.tag
        )
    };
    found.extend(few(maintained.map(line).collect(), "resources are in maintenance"));
    let unplaced = unplaced(state, &all_well(state));
    let homeless = unplaced.iter().filter_map(|explained| homeless(state, explained));
    found.extend(few(homeless.collect(), "hierarchies can be on no node"));
    found
}

/// The first of them, and how many more there are.
fn few(mut all: Vec<String>, what: &str) -> Vec<String> {
    let more = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    if more > 0 {
        all.push(format!("{more} more {what}: 'vipctl status --resources' lists all"));
    }
    all
}

fn about_node(node: &Node) -> Vec<String> {
    let name = &node.name;
    let mut found = Vec::new();
    if let Some(reason) = &node.gave_up {
        found.push(format!(
            "node {name} gave up everything ({reason}): mend that, then 'vipctl node online {name}'"
        ));
    }
    if node.standby {
        found.push(format!(
            "node {name} is on standby and holds nothing: 'vipctl node online {name}' ends it"
        ));
    }
    if node.maintenance {
        found.push(format!(
            "node {name} is in maintenance: what it holds is neither checked nor moved; 'vipctl node maintenance \
             {name} off' ends it"
        ));
    }
    found
}

/// Nodes that are silent have warnings of their own: this is about what does not pass by itself.
fn all_well(state: &ClusterState) -> Observed {
    let fit = NodeHealth { fit: true, ..NodeHealth::default() };
    Observed { nodes: state.nodes.keys().map(|id| (*id, fit.clone())).collect(), ..Observed::default() }
}

/// Why a hierarchy can be on no node, in the planner's words. What failed everywhere, or lacks its subnets
/// everywhere, has a warning of its own.
fn homeless(state: &ClusterState, explained: &Explanation) -> Option<String> {
    let told = |tag: &Tag| {
        let (Some(r), Some(p)) = (state.resources.get(tag), state.placements.get(tag)) else { return false };
        p.is_wanted()
            && (placement::failed_everywhere(r, p) || subnet::lacking_everywhere(state, r).is_some())
    };
    if explained.members.iter().any(told) {
        return None;
    }
    let root = &explained.root;
    let each: Option<Vec<String>> =
        explained.nodes.iter().map(|n| Some(format!("{}: {}", n.node, n.obstacles.first()?))).collect();
    Some(match each {
        Some(each) => format!(
            "{root} can be on no node ({}): mend one of these; 'vipctl show {root}' says more",
            each.join("; ")
        ),
        None => format!("{root} is on no node: it {}; 'vipctl show {root}' says more", explained.summary),
    })
}

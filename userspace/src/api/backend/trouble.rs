//! Warnings about duties, maintenance and hierarchies that nobody can hold.

use std::collections::BTreeSet;

use super::{placement, subnet};
use crate::model::{ClusterState, Node, NodeId, Resource, Tag};

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
    let homeless = state.hierarchies().into_iter().filter_map(|members| homeless(state, &members));
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

/// Why a wanted hierarchy that nobody holds can be on no node. What failed everywhere, or lacks its subnets
/// everywhere, has a warning of its own.
fn homeless(state: &ClusterState, members: &BTreeSet<Tag>) -> Option<String> {
    let placed = |tag: &Tag| state.placements.get(tag);
    let wanted: Vec<&Resource> = members
        .iter()
        .filter(|tag| placed(tag).is_some_and(|p| p.is_wanted()))
        .filter_map(|tag| state.resources.get(tag))
        .collect();
    let first = wanted.first()?;
    let told = |r: &&Resource| {
        placed(&r.tag).is_some_and(|p| placement::failed_everywhere(r, p))
            || subnet::lacking_everywhere(state, r).is_some()
    };
    if members.iter().any(|tag| placed(tag).is_some_and(|p| p.grant.is_some())) || wanted.iter().any(told) {
        return None;
    }
    let each = first
        .nodes
        .keys()
        .map(|id| Some(format!("{}: {}", state.node_name(*id), against(state, &wanted, *id)?)));
    let each: Vec<String> = each.collect::<Option<_>>()?;
    Some(format!(
        "{} can be on no node ({}): mend one of these; 'vipctl show {}' says more",
        state.roots(members).next()?,
        each.join("; "),
        first.tag
    ))
}

/// The first thing that keeps any of these resources off the node.
fn against(state: &ClusterState, wanted: &[&Resource], id: NodeId) -> Option<String> {
    let node = state.nodes.get(&id)?;
    let failed = || {
        wanted.iter().find_map(|r| {
            let reason = state.placements.get(&r.tag)?.failed.get(&id)?;
            Some(format!("{} failed there: {reason}", r.tag))
        })
    };
    let lacking = || wanted.iter().find_map(|r| subnet::lacking(state, r, id));
    match node {
        Node { gave_up: Some(reason), .. } => Some(format!("it gave up everything: {reason}")),
        Node { standby: true, .. } => Some("it is on standby".to_owned()),
        Node { maintenance: true, .. } => Some("it is in maintenance".to_owned()),
        node if !node.is_available() => Some("it has not joined, or has lost its lease".to_owned()),
        _ => failed().or_else(lacking),
    }
}

//! A node leaves the cluster for good.

use super::{Applied, Refusal, Result, no_node};
use crate::model::{ClusterState, Constraint, Desired, Node, NodeId, Resource, Standing, Tag};

/// So many are named in an error.
const NAMED: usize = 5;

/// Only a node that owns nothing can be forgotten: nobody would be left to say that it has stopped. Its number
/// is never given again, so whatever it may still ask for is refused.
pub(super) fn remove(state: &mut ClusterState, id: NodeId, heir: Option<NodeId>) -> Result<Applied> {
    let node = state.nodes.get(&id).ok_or_else(|| no_node(id))?;
    let name = node.name.clone();
    check_owns_nothing(state, node)?;
    let heir = heir.map(|heir| check_heir(state, node, heir)).transpose()?;
    let others = state.nodes.values().filter(|n| n.id != id && n.standing != Standing::Joining);
    if !others.clone().any(|n| !n.witness) && node.standing != Standing::Joining {
        return Err(Refusal(format!(
            "without node '{name}' nobody in the cluster could hold an address: let another node join first"
        )));
    }
    if heir.is_none() {
        check_not_needed(state, node)?;
    }
    let mut next = state.clone();
    if let Some(heir) = heir {
        inherit(&mut next, id, heir);
    }
    forget(&mut next, id);
    *state = next;
    Ok(Applied::Done)
}

fn check_owns_nothing(state: &ClusterState, node: &Node) -> Result<()> {
    let owned = state.placements.iter().filter(|(_, p)| p.grant.is_some_and(|g| g.owner == node.id));
    let owned: Vec<&Tag> = owned.map(|(tag, _)| tag).collect();
    if owned.is_empty() {
        return Ok(());
    }
    let (name, list) = (&node.name, listed(&owned));
    Err(Refusal(match node.standing {
        Standing::Joining | Standing::Member => format!(
            "node '{name}' has {list}: 'vipctl node standby {name}' moves what it has to others first"
        ),
        Standing::Deposed => format!(
            "node '{name}' had {list}, and it is not yet proven that it has stopped: wait until 'vipctl status' shows \
             another owner (what is in maintenance goes to nobody)"
        ),
    }))
}

fn check_heir(state: &ClusterState, node: &Node, heir: NodeId) -> Result<NodeId> {
    let other = state.nodes.get(&heir).ok_or_else(|| no_node(heir))?;
    let why = if heir == node.id {
        "is the one that is removed"
    } else if other.witness {
        "is a witness and holds no addresses"
    } else if other.standing == Standing::Joining {
        "is still joining"
    } else {
        return Ok(heir);
    };
    Err(Refusal(format!("node '{}' {why}: name another to take the place of '{}'", other.name, node.name)))
}

/// No resource loses its last node by the way.
fn check_not_needed(state: &ClusterState, node: &Node) -> Result<()> {
    let only = |r: &&Resource| r.nodes.len() == 1 && r.nodes.contains_key(&node.id);
    let tags: Vec<&Tag> = state.resources.values().filter(only).map(|r| &r.tag).collect();
    if tags.is_empty() {
        return Ok(());
    }
    Err(Refusal(format!(
        "node '{}' is the only one of {}: extend them to another node, delete them, or name the node that takes its \
         place with --replace-by",
        node.name,
        listed(&tags)
    )))
}

fn listed(tags: &[&Tag]) -> String {
    let named: Vec<String> = tags.iter().take(NAMED).map(|t| format!("'{t}'")).collect();
    match tags.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// Whatever is said of `from` and not yet of `to` holds for `to`, too: the settings there with their priority,
/// ping lists, the operators' likes and choices.
fn inherit(state: &mut ClusterState, from: NodeId, to: NodeId) {
    let tags: Vec<Tag> = state.resources.keys().cloned().collect();
    for tag in &tags {
        // A hierarchy is extended as a whole, so its members agree on who has it already.
        let Some(settings) = state.resources.get(tag).and_then(|r| r.nodes.get(&from)).cloned() else {
            continue;
        };
        if let Some(resource) = state.resources.get_mut(tag).filter(|r| !r.nodes.contains_key(&to)) {
            resource.nodes.remove(&from);
            resource.nodes.insert(to, settings);
        }
        if let Some(placement) = state.placements.get_mut(tag)
            && placement.desired == (Desired::InService { on: Some(from) })
        {
            placement.desired = Desired::InService { on: Some(to) };
        }
    }
    let lists = state.ping_lists.iter().filter(|((node, _), _)| *node == from);
    let lists: Vec<_> = lists.map(|((_, subnet), list)| (*subnet, list.clone())).collect();
    for (subnet, list) in lists {
        state.ping_lists.entry((to, subnet)).or_insert(list);
    }
    let rated = |state: &ClusterState, rated: &Tag| {
        let by = |c: &Constraint| matches!(c, Constraint::Location { tag, node, .. } if tag == rated && *node == to);
        state.constraints.values().any(by)
    };
    let all: Vec<_> = state.constraints.iter().map(|(id, c)| (id.clone(), c.clone())).collect();
    for (id, constraint) in all {
        if let Constraint::Location { tag, node, score } = constraint
            && node == from
            && !rated(state, &tag)
        {
            state.constraints.insert(id, Constraint::Location { tag, node: to, score });
        }
    }
}

fn forget(state: &mut ClusterState, id: NodeId) {
    let tags: Vec<Tag> = state.resources.keys().cloned().collect();
    for tag in &tags {
        // Copies on write: what does not speak of the node is left alone.
        if state.resources.get(tag).is_some_and(|r| r.nodes.contains_key(&id))
            && let Some(resource) = state.resources.get_mut(tag)
        {
            resource.nodes.remove(&id);
        }
        let Some(placement) = state.placements.get_mut(tag) else { continue };
        placement.failed.remove(&id);
        placement.failures.remove(&id);
        if placement.desired == (Desired::InService { on: Some(id) }) {
            placement.desired = Desired::InService { on: None };
            placement.choice_ends = None;
        }
    }
    state.ping_lists.retain(|(node, _), _| *node != id);
    state.subnets_down.remove(&id);
    state.unreached.remove(&id);
    state.constraints.retain(|_, c| !matches!(c, Constraint::Location { node, .. } if *node == id));
    state.nodes.remove(&id);
}

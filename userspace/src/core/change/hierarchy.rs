//! Changes of hierarchies: what depends on what, on which nodes, and whether it is to be in service.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Applied, Refusal, Result, cloud, constraints, no_node, placement,
    resources::{self, check_priority_free, check_settings, copy_ping_lists, extended, holder, kept},
    sweep_deleted,
};
use crate::{
    core::maintenance::check_not_maintained,
    model::{ClusterState, Desired, NodeId, NodeSettings, Phase, Resource, Switchback, Tag},
};

pub(super) fn extend(
    state: &mut ClusterState,
    to: NodeId,
    members: &BTreeMap<Tag, NodeSettings>,
) -> Result<Applied> {
    let Some((first, wanted)) = members.first_key_value() else {
        return Err(Refusal::new("there is nothing to extend: name a resource"));
    };
    let hierarchy = state.hierarchy_of(first);
    if let Some(other) = members.keys().find(|t| !hierarchy.contains(*t)) {
        return Err(Refusal(format!(
            "'{first}' and '{other}' belong to different hierarchies: extend one after the other"
        )));
    }
    if let Some(missing) = hierarchy.iter().find(|t| !members.contains_key(*t)) {
        return Err(Refusal(format!(
            "'{first}' and '{missing}' depend on each other and are extended together: look again and decide anew"
        )));
    }
    for (tag, settings) in members {
        let resource = kept(state, tag)?;
        let node = holder(state, tag, to)?;
        if resource.nodes.contains_key(&to) {
            return Err(Refusal(format!(
                "'{tag}' is extended to node '{}' already: 'vipctl set {tag}' changes its settings there",
                node.name
            )));
        }
        check_settings(state, resource, node, settings)?;
        check_priority_free(state, resource, to, settings.priority)?;
        if settings.priority != wanted.priority {
            return Err(Refusal(format!(
                "'{first}' and '{tag}' are one hierarchy and need the same priority on node '{}', not {} and {}",
                node.name, wanted.priority, settings.priority
            )));
        }
    }
    for (tag, settings) in members {
        let Some(resource) = state.resources.get(tag) else { continue };
        let mut resource = resource.clone();
        resource.nodes.insert(to, settings.clone());
        copy_ping_lists(state, &resource, to);
        state.resources.insert(tag.clone(), resource);
    }
    Ok(Applied::Done)
}

pub(super) fn unextend(state: &mut ClusterState, tag: &Tag, from: NodeId) -> Result<Applied> {
    let members = state.hierarchy_of(tag);
    for tag in &members {
        let resource = kept(state, tag)?;
        extended(state, resource, from)?;
        let name = state.node_name(from);
        if resource.nodes.len() == 1 {
            return Err(Refusal(format!(
                "node '{name}' is the only one of '{tag}': 'vipctl delete {tag}' deletes it as a whole"
            )));
        }
        if state.placements.get(tag).and_then(|p| p.grant).is_some_and(|g| g.owner == from) {
            return Err(Refusal(format!(
                "'{tag}' is in service on node '{name}': move it with 'vipctl in-service {tag} --on NODE', or take it \
                 out of service, and then unextend it"
            )));
        }
    }
    for tag in &members {
        if let Some(resource) = state.resources.get_mut(tag) {
            resource.nodes.remove(&from);
        }
        let placement = placement(state, tag)?;
        placement.failed.remove(&from);
        placement.failures.remove(&from);
        if placement.desired == (Desired::InService { on: Some(from) }) {
            placement.desired = Desired::InService { on: None };
        }
    }
    Ok(Applied::Done)
}

pub(super) fn delete(state: &mut ClusterState, tag: &Tag, hierarchy: bool) -> Result<Applied> {
    placement(state, tag)?;
    let members = if hierarchy { state.hierarchy_of(tag) } else { BTreeSet::from([tag.clone()]) };
    let stays = |t: &&Tag| state.placements.get(*t).is_some_and(|p| !p.deleting);
    let parents = state.resources.get(tag).map(|r| &r.parents);
    if let Some(parent) = parents.into_iter().flatten().filter(|_| !hierarchy).find(stays) {
        cloud::check_unfollowed(state, parent, tag)?;
        return Err(Refusal(format!(
            "'{parent}' depends on '{tag}': 'vipctl undepend {parent} {tag}' separates them, 'vipctl delete {tag} \
             --hierarchy' deletes all that depends on each other"
        )));
    }
    // What is being deleted can be changed no more: in maintenance it would never be stopped.
    if members.iter().any(|t| state.placements.get(t).is_some_and(|p| p.grant.is_some())) {
        check_not_maintained(state, tag)?;
    }
    for tag in &members {
        let placement = placement(state, tag)?;
        placement.deleting = true;
        placement.desired = Desired::OutOfService;
    }
    for tag in &members {
        sweep_deleted(state, tag);
    }
    Ok(Applied::Done)
}

/// A resource that is gone is nobody's child or parent.
pub(super) fn forget(state: &mut ClusterState, gone: &Resource) {
    for child in &gone.children {
        if let Some(child) = state.resources.get_mut(child) {
            child.parents.remove(&gone.tag);
        }
    }
    for parent in &gone.parents {
        if let Some(parent) = state.resources.get_mut(parent) {
            parent.children.remove(&gone.tag);
        }
    }
}

pub(super) fn depend(state: &mut ClusterState, parent: &Tag, child: &Tag) -> Result<Applied> {
    let (above, below) = (kept(state, parent)?, kept(state, child)?);
    if parent == child {
        return Err(Refusal(format!("'{parent}' cannot depend on itself: name two resources")));
    }
    if above.children.contains(child) {
        return Err(Refusal(format!(
            "'{parent}' depends on '{child}' already: 'vipctl show {parent}' tells"
        )));
    }
    if state.with_descendants(child).contains(parent) {
        return Err(Refusal(format!(
            "'{child}' depends on '{parent}', directly or not: the other way round as well neither could start"
        )));
    }
    check_same_nodes(state, above, below)?;
    check_same_settings(above, below)?;
    check_not_stopping(state, parent, child)?;
    check_same_place(state, parent, child)?;
    constraints::check_joined(state, parent, child)?;
    if let Some(resource) = state.resources.get_mut(parent) {
        resource.children.insert(child.clone());
    }
    if let Some(resource) = state.resources.get_mut(child) {
        resource.parents.insert(parent.clone());
    }
    // What a wanted resource depends on is wanted, too.
    if state.placements.get(parent).is_some_and(|p| p.is_wanted()) {
        for tag in state.with_descendants(child) {
            let placement = placement(state, &tag)?;
            if placement.desired == Desired::OutOfService {
                placement.desired = Desired::InService { on: None };
            }
        }
    }
    Ok(Applied::Done)
}

/// A hierarchy moves as one: its members know the same nodes, in the same order of preference.
fn check_same_nodes(state: &ClusterState, parent: &Resource, child: &Resource) -> Result<()> {
    let on_one = |here: &Resource, there: &Resource| {
        let missing = here.nodes.keys().find(|id| !there.nodes.contains_key(*id))?;
        let (tag, name) = (&there.tag, state.node_name(*missing));
        Some(Refusal(format!(
            "'{}' is extended to node '{name}' and '{tag}' is not: a hierarchy moves as one; 'vipctl extend {tag} --to \
             {name}' first",
            here.tag
        )))
    };
    if let Some(refusal) = on_one(parent, child).or_else(|| on_one(child, parent)) {
        return Err(refusal);
    }
    for (id, settings) in &parent.nodes {
        let theirs = child.nodes.get(id).map_or(settings.priority, |s| s.priority);
        if theirs != settings.priority {
            let name = state.node_name(*id);
            return Err(Refusal(format!(
                "on node '{name}' the priority of '{}' is {} and that of '{}' is {theirs}: a hierarchy moves as one; make \
                 them equal with 'vipctl set {} priority={} --node {name}'",
                parent.tag, settings.priority, child.tag, child.tag, settings.priority
            )));
        }
    }
    Ok(())
}

/// What decides about a place is said once for a whole hierarchy: which of two should hold is not guessed.
fn check_same_settings(parent: &Resource, child: &Resource) -> Result<()> {
    let settings = |r: &Resource| {
        let (policy, switchback) = (&r.policy, r.switchback);
        let switchback = match switchback {
            Switchback::Intelligent => "intelligent",
            Switchback::Automatic => "automatic",
        };
        [
            ("switchback", switchback.to_owned()),
            ("stickiness", policy.stickiness.map_or("default".to_owned(), |s| s.to_string())),
            ("maintenance", if policy.maintenance { "on" } else { "off" }.to_owned()),
            ("connectivity", if policy.ignores_connectivity { "ignore" } else { "use" }.to_owned()),
        ]
    };
    let (above, below) = (settings(parent), settings(child));
    match above.into_iter().zip(below).find(|(above, below)| above != below) {
        Some(((key, above), (_, below))) => Err(Refusal(format!(
            "{key} is {above} for '{}' and {below} for '{}': a hierarchy is placed as one; make them equal with 'vipctl set \
             {} {key}={above}'",
            parent.tag, child.tag, child.tag
        ))),
        None => Ok(()),
    }
}

/// Else the parent would have to stop first.
fn check_not_stopping(state: &ClusterState, parent: &Tag, child: &Tag) -> Result<()> {
    let phase = |tag: &Tag| state.placements.get(tag).and_then(|p| p.grant).map(|g| g.phase);
    let held = |tag: &Tag| matches!(phase(tag), Some(Phase::Starting | Phase::InService));
    let stopping = state.with_descendants(child).into_iter().find(|tag| phase(tag) == Some(Phase::Stopping));
    match (stopping, state.with_ancestors(parent).into_iter().find(held)) {
        (Some(stopping), Some(held)) => Err(Refusal(format!(
            "'{stopping}' is being stopped, and '{held}' would have to stop before it: wait until it has, then say so again"
        ))),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

/// Nothing is moved by being told that it depends on something.
fn check_same_place(state: &ClusterState, parent: &Tag, child: &Tag) -> Result<()> {
    let owned = |tag: &Tag| {
        let members = state.hierarchy_of(tag).into_iter();
        members.into_iter().find_map(|t| Some((state.placements.get(&t)?.grant?.owner, t)))
    };
    match (owned(parent), owned(child)) {
        (Some((here, one)), Some((there, other))) if here != there => Err(Refusal(format!(
            "'{one}' is on node '{}' and '{other}' on node '{}': bring them together first with 'vipctl in-service {child} \
             --on {}'",
            state.node_name(here),
            state.node_name(there),
            state.node_name(here)
        ))),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

pub(super) fn undepend(state: &mut ClusterState, parent: &Tag, child: &Tag) -> Result<Applied> {
    kept(state, child)?;
    if !kept(state, parent)?.children.contains(child) {
        return Err(Refusal(format!(
            "'{parent}' does not depend directly on '{child}': 'vipctl show {parent}' tells on what"
        )));
    }
    if let Some(resource) = state.resources.get_mut(parent) {
        resource.children.remove(child);
    }
    if let Some(resource) = state.resources.get_mut(child) {
        resource.parents.remove(parent);
    }
    Ok(Applied::Done)
}

pub(super) fn in_service(
    state: &mut ClusterState,
    tag: &Tag,
    on: Option<NodeId>,
    until: Option<u64>,
) -> Result<Applied> {
    let resource = kept(state, tag)?;
    if let Some(id) = on {
        extended(state, resource, id)?;
        check_available(state, id)?;
    } else if until.is_some() {
        return Err(Refusal(format!(
            "only the choice of a node can end by itself: name one for '{tag}' with --on"
        )));
    }
    let started = state.with_descendants(tag);
    let hierarchy = state.hierarchy_of(tag);
    for tag in &started {
        kept(state, tag)?;
    }
    for member in hierarchy {
        let placement = placement(state, &member)?;
        // With a node, all that is in service anywhere goes there, for a hierarchy is in one place.
        let moved = on.is_some() && placement.is_wanted();
        if !started.contains(&member) && !moved {
            continue;
        }
        match on {
            Some(id) => {
                placement.failed.remove(&id);
                placement.failures.remove(&id);
            }
            None => {
                placement.failed.clear();
                placement.failures.clear();
            }
        }
        placement.desired = Desired::InService { on };
        placement.choice_ends = until;
    }
    Ok(Applied::Done)
}

fn check_available(state: &ClusterState, id: NodeId) -> Result<()> {
    let node = state.nodes.get(&id).ok_or_else(|| no_node(id))?;
    let name = &node.name;
    if let Some(reason) = &node.gave_up {
        return Err(Refusal(format!(
            "node '{name}' gave up everything ({reason}): mend that, then 'vipctl node online {name}'"
        )));
    }
    if node.standby {
        return Err(Refusal(format!("node '{name}' is on standby: 'vipctl node online {name}' ends that")));
    }
    if node.maintenance {
        return Err(Refusal(format!(
            "node '{name}' is in maintenance: 'vipctl node maintenance {name} off' ends that"
        )));
    }
    Ok(())
}

pub(super) fn out_of_service(state: &mut ClusterState, tag: &Tag) -> Result<Applied> {
    kept(state, tag)?;
    for tag in state.with_ancestors(tag) {
        let placement = placement(state, &tag)?;
        placement.desired = Desired::OutOfService;
        placement.choice_ends = None;
    }
    Ok(Applied::Done)
}

pub(super) fn clear(state: &mut ClusterState, tag: &Tag) -> Result<Applied> {
    kept(state, tag)?;
    for tag in state.hierarchy_of(tag) {
        let placement = placement(state, &tag)?;
        if let Desired::InService { on } = &mut placement.desired {
            *on = None;
        }
        placement.choice_ends = None;
    }
    Ok(Applied::Done)
}

pub(super) fn cleanup(state: &mut ClusterState, tag: &Tag, node: Option<NodeId>) -> Result<Applied> {
    let resource = kept(state, tag)?;
    if let Some(id) = node {
        resources::extended(state, resource, id)?;
    }
    for tag in state.hierarchy_of(tag) {
        let placement = placement(state, &tag)?;
        let stays = |id: &NodeId| node.is_some_and(|n| n != *id);
        placement.failed.retain(|id, _| stays(id));
        placement.failures.retain(|id, _| stays(id));
    }
    Ok(Applied::Done)
}

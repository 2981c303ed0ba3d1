//! Hierarchies on the way to a goal: taken apart where something that their members have in common changes,
//! so that each member can be changed by itself, and put together again. All of it is one batch, which nobody
//! sees half done.

use std::collections::{BTreeMap, BTreeSet};

use super::{Subject, steps::Steps};
use crate::{
    core::change::{Change, Setting},
    model::{ClusterState, Declared, DeclaredResource, NodeId, NodeSettings, Resource, Tag},
};

/// Takes apart what is not to be, and whatever changes as a whole.
pub(super) fn cut(steps: &mut Steps, _: &Declared, wanted: &Declared) {
    let mut loose: BTreeSet<Tag> = BTreeSet::new();
    for (tag, goal) in &wanted.resources {
        if !loose.contains(tag) && steps.state.resources.get(tag).is_some_and(|r| differs(r, goal)) {
            loose.extend(steps.state.hierarchy_of(tag));
        }
    }
    for (parent, child) in edges(&steps.state) {
        if loose.contains(&parent) || !wanted.children(&parent).contains(&child) {
            let about = Subject::Resource(parent.clone());
            steps.take(about, Change::Undepend { parent, child });
        }
    }
}

/// In what all members of a hierarchy have in common.
fn differs(now: &Resource, goal: &DeclaredResource) -> bool {
    let places = |nodes: &BTreeMap<NodeId, NodeSettings>| -> Vec<(NodeId, u16)> {
        nodes.iter().map(|(id, s)| (*id, s.priority)).collect()
    };
    let (before, after) = (&now.policy, &goal.policy);
    places(&now.nodes) != places(&goal.nodes)
        || now.switchback != goal.switchback
        || before.stickiness != after.stickiness
        || before.maintenance != after.maintenance
        || before.ignores_connectivity != after.ignores_connectivity
}

/// (parent, child), without those that are being deleted.
fn edges(state: &ClusterState) -> Vec<(Tag, Tag)> {
    let stays = |tag: &Tag| state.placements.get(tag).is_some_and(|p| !p.deleting);
    let of = |r: &Resource| {
        let children = r.children.iter().filter(|c| stays(c)).cloned();
        children.map(|child| (r.tag.clone(), child)).collect::<Vec<_>>()
    };
    state.resources.values().filter(|r| stays(&r.tag)).flat_map(of).collect()
}

/// Everything depends on what it is to depend on.
pub(super) fn join(steps: &mut Steps, _: &Declared, wanted: &Declared) {
    for parent in wanted.resources.keys() {
        for child in wanted.children(parent) {
            let there = steps.state.resources.get(parent).is_some_and(|r| r.children.contains(&child));
            if !there {
                let about = Subject::Resource(parent.clone());
                steps.take(about, Change::Depend { parent: parent.clone(), child });
            }
        }
    }
}

/// And on nothing else.
pub(super) fn trim(steps: &mut Steps, wanted: &Declared) {
    for (parent, child) in edges(&steps.state) {
        if !wanted.children(&parent).contains(&child) {
            let about = Subject::Resource(parent.clone());
            steps.take(about, Change::Undepend { parent, child });
        }
    }
}

/// The nodes of a resource that is by itself.
pub(super) fn nodes(
    steps: &mut Steps,
    tag: &Tag,
    now: &BTreeMap<NodeId, NodeSettings>,
    goal: &BTreeMap<NodeId, NodeSettings>,
) {
    let about = || Subject::Resource(tag.clone());
    priorities(steps, tag, now, goal);
    for (id, settings) in goal {
        let Some(before) = now.get(id) else {
            let members = BTreeMap::from([(tag.clone(), settings.clone())]);
            steps.take(about(), Change::Extend { to: *id, members });
            continue;
        };
        if before.devices != settings.devices {
            steps.set(tag, Some(*id), Setting::Devices(settings.devices.clone()));
        }
        if before.restore_and_recover != settings.restore_and_recover {
            steps.set(tag, Some(*id), Setting::RestoreAndRecover(settings.restore_and_recover));
        }
        if before.source != settings.source {
            steps.set(tag, Some(*id), Setting::Source(settings.source));
        }
        if before.physical != settings.physical {
            let reason = "whether an address is a node's own (physical) cannot be changed: 'vipctl delete' it first, \
                          and declare it anew";
            steps.problems.push(super::Problem::new(about(), reason.to_owned()));
        }
    }
    for id in now.keys().filter(|id| !goal.contains_key(id)) {
        steps.take(about(), Change::Unextend { tag: tag.clone(), from: *id });
    }
}

/// Numbers are unique at every moment: those that are in the way are changed twice.
fn priorities(
    steps: &mut Steps,
    tag: &Tag,
    now: &BTreeMap<NodeId, NodeSettings>,
    goal: &BTreeMap<NodeId, NodeSettings>,
) {
    let used: BTreeSet<u16> = now.values().chain(goal.values()).map(|s| s.priority).collect();
    let mut free = (1..=999).rev().filter(|n| !used.contains(n));
    let mut away = BTreeSet::new();
    for (id, settings) in now {
        let taken = goal.iter().any(|(other, s)| other != id && s.priority == settings.priority);
        if taken && let Some(aside) = free.next() {
            steps.set(tag, Some(*id), Setting::Priority(aside));
            away.insert(*id);
        }
    }
    for (id, settings) in goal {
        let Some(before) = now.get(id) else { continue };
        if before.priority != settings.priority || away.contains(id) {
            steps.set(tag, Some(*id), Setting::Priority(settings.priority));
        }
    }
}

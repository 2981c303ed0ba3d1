//! What is placed as one: every hierarchy, and every resource that stands alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    ClusterState, Grant, NodeId, NodeSettings, Phase, Placement, Resource, Score, Switchback, Tag,
};

/// The number of a unit within one plan.
pub(super) type UnitId = usize;

pub(super) struct Member<'a> {
    pub resource: &'a Resource,
    pub placement: &'a Placement,
}

pub(super) struct Unit<'a> {
    /// Its first root: what it is called by, and whose settings hold for the whole.
    pub root: &'a Resource,
    /// By tag.
    pub members: Vec<Member<'a>>,
}

impl<'a> Member<'a> {
    pub fn tag(&self) -> &'a Tag {
        &self.resource.tag
    }

    pub fn phase(&self) -> Option<Phase> {
        self.placement.grant.map(|g| g.phase)
    }

    /// Owned, and not yet asked to stop.
    pub fn is_held(&self) -> bool {
        matches!(self.phase(), Some(Phase::Starting | Phase::InService))
    }
}

impl<'a> Unit<'a> {
    pub fn tag(&self) -> &'a Tag {
        &self.root.tag
    }

    /// Its nodes with their priorities: the same for all members.
    pub fn nodes(&self) -> &'a BTreeMap<NodeId, NodeSettings> {
        &self.root.nodes
    }

    pub fn is_automatic(&self) -> bool {
        match self.root.switchback {
            Switchback::Automatic => true,
            Switchback::Intelligent => false,
        }
    }

    /// How much it likes to stay. Not below zero: it would be driven to and fro without end.
    pub fn stickiness(&self, state: &ClusterState) -> Score {
        self.root.policy.stickiness(&state.defaults).max(Score::ZERO)
    }

    /// Members that are to be in service.
    pub fn wanted(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(|m| m.placement.is_wanted())
    }

    pub fn is_wanted(&self) -> bool {
        self.wanted().next().is_some()
    }

    pub fn grants(&self) -> impl Iterator<Item = Grant> {
        self.members.iter().filter_map(|m| m.placement.grant)
    }

    /// The node that has it, also while it stops there.
    pub fn holder(&self) -> Option<NodeId> {
        self.grants().next().map(|g| g.owner)
    }

    /// Some member is held that was not asked to stop.
    pub fn is_held(&self) -> bool {
        self.members.iter().any(Member::is_held)
    }

    pub fn member(&self, tag: &Tag) -> Option<&Member<'a>> {
        self.members.iter().find(|m| m.tag() == tag)
    }
}

/// Every unit once, by the first tags of their members.
pub(super) fn units(state: &ClusterState) -> Vec<Unit<'_>> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::with_capacity(state.resources.len());
    for (tag, resource) in &state.resources {
        if resource.stands_alone() {
            all.extend(
                state
                    .placements
                    .get(tag)
                    .map(|placement| Unit { root: resource, members: vec![Member { resource, placement }] }),
            );
        } else if !seen.contains(tag) {
            let members = connected(state, tag);
            seen.extend(members.iter().copied());
            all.extend(unit(state, members));
        }
    }
    all
}

/// As [`ClusterState::hierarchy_of`], without copies.
fn connected<'a>(state: &'a ClusterState, from: &'a Tag) -> BTreeSet<&'a Tag> {
    let mut seen = BTreeSet::from([from]);
    let mut waiting = vec![from];
    while let Some(resource) = waiting.pop().and_then(|tag| state.resources.get(tag)) {
        waiting.extend(resource.children.iter().chain(&resource.parents).filter(|next| seen.insert(next)));
    }
    seen
}

fn unit<'a>(state: &'a ClusterState, tags: BTreeSet<&'a Tag>) -> Option<Unit<'a>> {
    let member = |tag: &'a Tag| {
        Some(Member { resource: state.resources.get(tag)?, placement: state.placements.get(tag)? })
    };
    let members: Vec<Member<'a>> = tags.into_iter().filter_map(member).collect();
    let root = members.iter().find(|m| m.resource.parents.is_empty()).or(members.first())?.resource;
    Some(Unit { root, members })
}

//! Hierarchies: resources that depend on each other are placed, moved and fail over as one.
//!
//! ```text
//!     web        parent: starts last, stops first
//!    /   \
//!  ip-1  ip-2    children: start first, stop last; each may have several parents
//! ```
//!
//! Invariant (kept by `core::change`): `children` and `parents` say the same, there is no cycle, and all
//! members of a hierarchy are extended to the same nodes with the same priorities.

use std::collections::{BTreeMap, BTreeSet};

use super::{ClusterState, Resource, Tag};

impl ClusterState {
    /// All that depend on each other directly or not, the resource itself included.
    pub fn hierarchy_of(&self, tag: &Tag) -> BTreeSet<Tag> {
        self.reach(tag, |r| r.children.iter().chain(&r.parents))
    }

    /// The resource and all that it depends on.
    pub fn with_descendants(&self, tag: &Tag) -> BTreeSet<Tag> {
        self.reach(tag, |r| r.children.iter().chain(&[]))
    }

    /// The resource and all that depend on it.
    pub fn with_ancestors(&self, tag: &Tag) -> BTreeSet<Tag> {
        self.reach(tag, |r| r.parents.iter().chain(&[]))
    }

    fn reach<'a, I: Iterator<Item = &'a Tag>>(
        &'a self,
        from: &Tag,
        next: impl Fn(&'a Resource) -> I,
    ) -> BTreeSet<Tag> {
        let mut seen = BTreeSet::from([from.clone()]);
        let mut waiting = vec![from.clone()];
        while let Some(tag) = waiting.pop() {
            for other in self.resources.get(&tag).into_iter().flat_map(&next) {
                if seen.insert(other.clone()) {
                    waiting.push(other.clone());
                }
            }
        }
        seen
    }

    /// The members without parents: the first by tag is what the hierarchy is called by.
    pub fn roots<'a>(&'a self, members: &'a BTreeSet<Tag>) -> impl Iterator<Item = &'a Tag> {
        members.iter().filter(|tag| self.resources.get(*tag).is_some_and(|r| r.parents.is_empty()))
    }

    /// Every hierarchy once, each in the order of tags; by their first members.
    pub fn hierarchies(&self) -> Vec<BTreeSet<Tag>> {
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        for (tag, resource) in &self.resources {
            if resource.stands_alone() {
                all.push(BTreeSet::from([tag.clone()]));
            } else if !seen.contains(tag) {
                let members = self.hierarchy_of(tag);
                seen.extend(members.iter().cloned());
                all.push(members);
            }
        }
        all
    }

    /// Children before their parents; of those that may come in any order, by tag.
    pub fn bottom_up(&self, members: &BTreeSet<Tag>) -> Vec<Tag> {
        let inside = |r: &Resource| r.children.iter().filter(|c| members.contains(*c)).count();
        let mut missing: BTreeMap<&Tag, usize> =
            members.iter().filter_map(|tag| Some((tag, inside(self.resources.get(tag)?)))).collect();
        let mut ready: BTreeSet<&Tag> = missing.iter().filter(|(_, n)| **n == 0).map(|(t, _)| *t).collect();
        let mut order = Vec::new();
        while let Some(tag) = ready.pop_first() {
            order.push(tag.clone());
            for parent in self.resources.get(tag).into_iter().flat_map(|r| &r.parents) {
                if let Some((parent, left)) = missing.get_key_value(parent).map(|(p, n)| (*p, n - 1)) {
                    missing.insert(parent, left);
                    if left == 0 {
                        ready.insert(parent);
                    }
                }
            }
        }
        order
    }
}

impl Resource {
    /// Neither depends on another nor is depended on.
    pub fn stands_alone(&self) -> bool {
        self.children.is_empty() && self.parents.is_empty()
    }
}

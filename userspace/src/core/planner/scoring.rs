//! How much a unit likes a node.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeSet,
};

use super::{Planner, rules::CloneId, units::UnitId};
use crate::model::{ConstraintId, NodeId, Score};

/// Less is better: it is what nodes are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    score: Reverse<Score>,
    /// Other instances of its clones on the node.
    crowd: usize,
    priority: u16,
    node: NodeId,
}

impl Rank {
    /// Of the node that it is on.
    pub fn staying(mut self, stickiness: Score) -> Self {
        self.score.0 = self.score.0 + stickiness;
        self
    }

    /// By more than the mere number of the node.
    pub fn is_better_than(&self, other: &Self) -> bool {
        let key = |r: &Self| (r.score, r.crowd, r.priority);
        key(self).cmp(&key(other)) == Ordering::Less
    }
}

impl<'a> Planner<'a> {
    /// What locations and colocations say for and against the node, each by its constraint.
    pub(super) fn wishes(&self, u: UnitId, id: NodeId) -> impl Iterator<Item = (&'a ConstraintId, Score)> {
        let rules = self.book.of(u);
        let locations = rules.locations.iter().filter(move |l| l.node == id).map(|l| (l.id, l.score));
        let with = rules.colocations.iter().filter(move |c| self.place(c.other) == Some(id));
        locations.chain(with.map(|c| (c.id, c.score)))
    }

    pub(super) fn rank(&self, u: UnitId, id: NodeId) -> Rank {
        let unit = &self.units[u];
        let clones = &self.book.of(u).clones;
        Rank {
            score: Reverse(self.wishes(u, id).map(|(_, score)| score).sum()),
            crowd: clones.iter().map(|c| self.others(u, *c, id)).sum(),
            priority: unit.nodes().get(&id).map_or(u16::MAX, |s| s.priority),
            node: id,
        }
    }

    /// The other instances of a clone that are on the node. Those that go where the unit goes do not count: it
    /// would run away from them, and they after it, for ever.
    fn others(&self, u: UnitId, clone: CloneId, id: NodeId) -> usize {
        let others = self.census.others(clone, id, &self.units[u]);
        if others == 0 || self.book.of(u).followers.is_empty() {
            return others;
        }
        let (mut seen, mut waiting) = (BTreeSet::from([u]), vec![u]);
        let mut following = 0;
        while let Some(next) = waiting.pop() {
            for follower in self.book.of(next).followers.iter().map(|c| c.other).filter(|f| seen.insert(*f)) {
                waiting.push(follower);
                let counts = self.seats[follower].is_none() && self.book.of(follower).clones.contains(&clone);
                following += usize::from(counts && self.units[follower].holder() == Some(id));
            }
        }
        others.saturating_sub(following)
    }
}

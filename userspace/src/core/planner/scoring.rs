//! How much a unit likes a node.

use std::cmp::{Ordering, Reverse};

use super::{Planner, units::UnitId};
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
            crowd: clones.iter().map(|c| self.census.others(*c, id, unit)).sum(),
            priority: unit.nodes().get(&id).map_or(u16::MAX, |s| s.priority),
            node: id,
        }
    }
}

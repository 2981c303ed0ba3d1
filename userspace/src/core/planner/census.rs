//! How many instances of each clone are on each node.

use std::collections::BTreeMap;

use super::{
    placement::Seat,
    rules::{CloneId, RuleBook},
    units::{Unit, UnitId},
};
use crate::model::NodeId;

#[derive(Clone, Copy, Default)]
struct Count {
    /// Going to be there, as is decided already.
    decided: usize,
    /// There, and yet to be decided about.
    undecided: usize,
    /// There, but about to leave.
    leaving: usize,
}

#[derive(Default)]
pub(super) struct Census {
    counts: BTreeMap<(CloneId, NodeId), Count>,
}

impl Census {
    pub fn new(book: &RuleBook<'_>, units: &[Unit<'_>]) -> Self {
        let mut census = Self::default();
        if book.clones.is_empty() {
            return census;
        }
        for (u, unit) in units.iter().enumerate() {
            let Some(holder) = unit.holder() else { continue };
            for clone in &book.of(u).clones {
                census.counts.entry((*clone, holder)).or_default().undecided += 1;
            }
        }
        census
    }

    pub fn decide(&mut self, book: &RuleBook<'_>, u: UnitId, unit: &Unit<'_>, seat: &Seat<'_>) {
        for clone in &book.of(u).clones {
            if let Some(holder) = unit.holder() {
                let count = self.counts.entry((*clone, holder)).or_default();
                count.undecided = count.undecided.saturating_sub(1);
                if seat.place != Some(holder) {
                    count.leaving += 1;
                }
            }
            if let Some(place) = seat.place {
                self.counts.entry((*clone, place)).or_default().decided += 1;
            }
        }
    }

    /// Those that keep the unit, about which nothing is decided yet, from the node. Of too many on one node
    /// the first stay.
    pub fn crowd(&self, clone: CloneId, node: NodeId, unit: &Unit<'_>) -> usize {
        let count = self.count(clone, node);
        if unit.holder() == Some(node) {
            count.decided
        } else {
            count.decided + count.undecided + count.leaving
        }
    }

    /// The other instances that are, or will be, on the node.
    pub fn others(&self, clone: CloneId, node: NodeId, unit: &Unit<'_>) -> usize {
        let count = self.count(clone, node);
        (count.decided + count.undecided).saturating_sub(usize::from(unit.holder() == Some(node)))
    }

    fn count(&self, clone: CloneId, node: NodeId) -> Count {
        self.counts.get(&(clone, node)).copied().unwrap_or_default()
    }
}

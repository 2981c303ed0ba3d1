//! The constraints, found by the units that they speak of, and the order in which units are placed.

use std::collections::{BTreeMap, BTreeSet};

use super::units::{Unit, UnitId};
use crate::model::{ClusterState, Constraint, ConstraintId, NodeId, OrderKind, Score, Tag};

/// The number of a clone constraint within one plan.
pub(super) type CloneId = usize;

/// What constraints say of one unit.
#[derive(Default)]
pub(super) struct Rules<'a> {
    pub locations: Vec<Location<'a>>,
    /// With whom it likes, or dislikes, to be.
    pub colocations: Vec<Colocation<'a>>,
    /// Who likes, or dislikes, to be with it.
    pub followers: Vec<Colocation<'a>>,
    /// After what it starts.
    pub after: Vec<Order<'a>>,
    /// What starts after it.
    pub before: Vec<Order<'a>>,
    pub clones: Vec<CloneId>,
}

#[derive(Clone, Copy)]
pub(super) struct Location<'a> {
    pub id: &'a ConstraintId,
    pub node: NodeId,
    pub score: Score,
}

#[derive(Clone, Copy)]
pub(super) struct Colocation<'a> {
    pub id: &'a ConstraintId,
    /// The other unit.
    pub other: UnitId,
    pub score: Score,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    pub id: &'a ConstraintId,
    pub first: UnitId,
    /// The member of it that the constraint names.
    pub first_tag: &'a Tag,
    pub then: UnitId,
    pub kind: OrderKind,
}

impl Order<'_> {
    pub fn is_mandatory(&self) -> bool {
        match self.kind {
            OrderKind::Mandatory => true,
            OrderKind::Optional => false,
        }
    }
}

pub(super) struct CloneRule<'a> {
    pub id: &'a ConstraintId,
    pub per_node: usize,
}

pub(super) struct RuleBook<'a> {
    /// By unit; empty where there are no constraints at all.
    rules: Vec<Rules<'a>>,
    pub clones: Vec<CloneRule<'a>>,
    nothing: Rules<'a>,
}

impl<'a> RuleBook<'a> {
    pub fn new(state: &'a ClusterState, units: &[Unit<'a>]) -> Self {
        let mut book = Self { rules: Vec::new(), clones: Vec::new(), nothing: Rules::default() };
        if state.constraints.is_empty() {
            return book;
        }
        book.rules.resize_with(units.len(), Rules::default);
        let numbers: BTreeMap<&Tag, UnitId> = units
            .iter()
            .enumerate()
            .flat_map(|(u, unit)| unit.members.iter().map(move |m| (m.tag(), u)))
            .collect();
        for (id, constraint) in &state.constraints {
            book.enter(&numbers, id, constraint);
        }
        book
    }

    /// What speaks of a resource that does not exist says nothing.
    fn enter(&mut self, numbers: &BTreeMap<&Tag, UnitId>, id: &'a ConstraintId, constraint: &'a Constraint) {
        let number = |tag: &Tag| numbers.get(tag).copied();
        match constraint {
            Constraint::Location { tag, node, score } => {
                if let Some(u) = number(tag) {
                    self.rules[u].locations.push(Location { id, node: *node, score: *score });
                }
            }
            Constraint::Colocation { tag, with, score } => {
                if let (Some(u), Some(with)) = (number(tag), number(with))
                    && u != with
                {
                    self.rules[u].colocations.push(Colocation { id, other: with, score: *score });
                    self.rules[with].followers.push(Colocation { id, other: u, score: *score });
                }
            }
            Constraint::Order { first: first_tag, then, kind } => {
                if let (Some(first), Some(then)) = (number(first_tag), number(then))
                    && first != then
                {
                    let order = Order { id, first, first_tag, then, kind: *kind };
                    self.rules[then].after.push(order);
                    self.rules[first].before.push(order);
                }
            }
            // It is in what the resources depend on.
            Constraint::Group { .. } => {}
            Constraint::Clone { members, per_node } => {
                let clone = self.clones.len();
                self.clones.push(CloneRule { id, per_node: usize::from(*per_node) });
                // Instances that became one hierarchy since count as one.
                let instances: BTreeSet<UnitId> = members.iter().filter_map(number).collect();
                for u in instances {
                    self.rules[u].clones.push(clone);
                }
            }
        }
    }

    pub fn of(&self, u: UnitId) -> &Rules<'a> {
        self.rules.get(u).unwrap_or(&self.nothing)
    }

    /// Whoever others want to be with comes before them; else by number. Circles, which `core::change`
    /// refuses but dependencies made later can close, are cut at their first member.
    pub fn placing_order(&self, count: usize) -> Vec<UnitId> {
        if self.rules.iter().all(|r| r.colocations.is_empty()) {
            return (0..count).collect();
        }
        let mut missing: Vec<usize> = (0..count).map(|u| self.of(u).colocations.len()).collect();
        let mut ready: BTreeSet<UnitId> = (0..count).filter(|u| missing[*u] == 0).collect();
        let mut waiting: BTreeSet<UnitId> = (0..count).filter(|u| missing[*u] > 0).collect();
        let mut order = Vec::with_capacity(count);
        while let Some(u) = ready.pop_first().or_else(|| waiting.pop_first()) {
            order.push(u);
            for follower in &self.of(u).followers {
                missing[follower.other] = missing[follower.other].saturating_sub(1);
                if missing[follower.other] == 0 && waiting.remove(&follower.other) {
                    ready.insert(follower.other);
                }
            }
        }
        order
    }
}

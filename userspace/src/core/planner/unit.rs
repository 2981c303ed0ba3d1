//! What is placed as one: hierarchies, with the constraints that concern them, found once for each plan.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{ClusterState, Constraint, NodeId, OrderKind, Resource, Score, Tag};

/// Index into [`Units::all`].
pub(super) type UnitId = usize;

pub(super) struct Unit<'a> {
    pub members: BTreeSet<Tag>,
    /// The first root: the hierarchy is called by its tag and treated by its policy.
    pub root: &'a Resource,
    pub locations: Vec<Location<'a>>,
    /// Where others are matters to it.
    pub colocations: Vec<Colocation<'a>>,
    /// What has to be in service first.
    pub firsts: Vec<Order<'a>>,
    /// What comes after it.
    pub thens: Vec<Order<'a>>,
    pub clones: Vec<Clones<'a>>,
}

pub(super) struct Location<'a> {
    pub id: &'a str,
    pub node: NodeId,
    pub score: Score,
}

pub(super) struct Colocation<'a> {
    pub id: &'a str,
    pub with: UnitId,
    pub score: Score,
}

pub(super) struct Order<'a> {
    pub id: &'a str,
    /// The other's unit, and the very resource that is meant.
    pub unit: UnitId,
    pub tag: &'a Tag,
    pub kind: OrderKind,
}

pub(super) struct Clones<'a> {
    pub id: &'a str,
    /// The other instances.
    pub others: Vec<UnitId>,
    pub per_node: u16,
}

pub(super) struct Units<'a> {
    pub all: Vec<Unit<'a>>,
    /// What is looked at before what depends on its place or its being in service.
    pub order: Vec<UnitId>,
}

impl<'a> Units<'a> {
    pub fn new(state: &'a ClusterState) -> Self {
        let all = state.hierarchies().into_iter().filter_map(|members| Unit::new(state, members)).collect();
        let mut units = Self { all, order: Vec::new() };
        units.constrain(state);
        units.sort();
        units
    }

    /// Only what constraints name is looked up.
    fn constrain(&mut self, state: &'a ClusterState) {
        let named: BTreeSet<&Tag> = state.constraints.values().flat_map(Constraint::tags).collect();
        if named.is_empty() {
            return;
        }
        let mut unit_of: BTreeMap<&Tag, UnitId> = BTreeMap::new();
        for (id, unit) in self.all.iter().enumerate() {
            for tag in &unit.members {
                if let Some(tag) = named.get(tag) {
                    unit_of.insert(*tag, id);
                }
            }
        }
        let of = |tag: &Tag| unit_of.get(tag).copied();
        for (id, constraint) in &state.constraints {
            match constraint {
                Constraint::Location { tag, node, score } => {
                    if let Some(unit) = of(tag) {
                        self.all[unit].locations.push(Location { id, node: *node, score: *score });
                    }
                }
                Constraint::Colocation { tag, with, score } => {
                    if let (Some(unit), Some(with)) = (of(tag), of(with))
                        && unit != with
                    {
                        self.all[unit].colocations.push(Colocation { id, with, score: *score });
                    }
                }
                Constraint::Order { first, then, kind } => {
                    if let (Some(before), Some(after)) = (of(first), of(then))
                        && before != after
                    {
                        self.all[after].firsts.push(Order { id, unit: before, tag: first, kind: *kind });
                        self.all[before].thens.push(Order { id, unit: after, tag: then, kind: *kind });
                    }
                }
                // Their dependencies have made them one hierarchy.
                Constraint::Group { .. } => {}
                Constraint::Clone { members, per_node } => {
                    let instances: BTreeSet<UnitId> = members.iter().filter_map(of).collect();
                    for &unit in &instances {
                        let others = instances.iter().copied().filter(|o| *o != unit).collect();
                        self.all[unit].clones.push(Clones { id, others, per_node: *per_node });
                    }
                }
            }
        }
    }

    /// Depth first along what each waits for. Where that goes in a circle (an order one way, a colocation the
    /// other), whichever comes first by tag is looked at first.
    fn sort(&mut self) {
        let mut seen = vec![false; self.all.len()];
        let mut order = Vec::with_capacity(self.all.len());
        for start in 0..self.all.len() {
            let mut stack = vec![(start, false)];
            while let Some((id, done)) = stack.pop() {
                if done {
                    order.push(id);
                } else if !std::mem::replace(&mut seen[id], true) {
                    stack.push((id, true));
                    let unit = &self.all[id];
                    let waits = unit.firsts.iter().map(|o| o.unit);
                    let waits = waits.chain(unit.colocations.iter().map(|c| c.with));
                    stack.extend(waits.filter(|w| !seen[*w]).map(|w| (w, false)));
                }
            }
        }
        self.order = order;
    }
}

impl<'a> Unit<'a> {
    fn new(state: &'a ClusterState, members: BTreeSet<Tag>) -> Option<Self> {
        let root = state.roots(&members).next().or(members.first())?;
        let root = state.resources.get(root)?;
        Some(Self {
            members,
            root,
            locations: Vec::new(),
            colocations: Vec::new(),
            firsts: Vec::new(),
            thens: Vec::new(),
            clones: Vec::new(),
        })
    }
}

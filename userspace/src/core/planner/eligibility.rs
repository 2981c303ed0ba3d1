//! What keeps a unit from a node.

use ipnet::IpNet;

use super::{
    Planner,
    rules::Colocation,
    units::{Member, Unit, UnitId},
};
use crate::model::{ConstraintId, Node, NodeId, Standing, SubnetDown, Tag};

/// One reason why a unit cannot be started on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hurdle<'a> {
    NotExtended {
        tag: &'a Tag,
    },
    UnknownNode,
    Witness,
    Standing(Standing),
    /// Not heard, or without a valid lease.
    NotFit,
    Standby,
    Maintenance,
    GaveUp(&'a str),
    Failed {
        tag: &'a Tag,
        reason: &'a str,
    },
    Subnet {
        subnet: &'a IpNet,
        down: &'a SubnetDown,
    },
    Location {
        id: &'a ConstraintId,
    },
    /// It belongs to another that is, or will be, elsewhere or nowhere.
    Together {
        id: &'a ConstraintId,
        with: &'a Tag,
        place: Option<NodeId>,
    },
    /// It must not be where the other is, or will be.
    Apart {
        id: &'a ConstraintId,
        with: &'a Tag,
    },
    /// The other must not be where it is, and cannot be moved from there.
    Occupied {
        id: &'a ConstraintId,
        by: &'a Tag,
    },
    Clone {
        id: &'a ConstraintId,
        there: usize,
    },
}

/// What a hurdle means for a unit that is on the node already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Force {
    /// It leaves, also where nobody else can take it.
    Expels,
    /// It leaves if another can take it.
    Drives,
    /// Only starting is impossible there.
    Stays,
}

impl Hurdle<'_> {
    pub fn force(&self) -> Force {
        match self {
            Self::NotExtended { .. }
            | Self::Witness
            | Self::Standby
            | Self::GaveUp(_)
            | Self::Location { .. }
            | Self::Together { .. }
            | Self::Apart { .. }
            | Self::Clone { .. } => Force::Expels,
            Self::Failed { .. } | Self::Subnet { .. } => Force::Drives,
            // Who is silent is deposed, not asked.
            Self::UnknownNode
            | Self::Standing(_)
            | Self::NotFit
            | Self::Maintenance
            | Self::Occupied { .. } => Force::Stays,
        }
    }
}

impl<'a> Planner<'a> {
    /// All that keeps the unit from being started on the node, or, where it is on it already, from staying.
    pub(super) fn hurdles(&self, u: UnitId, id: NodeId) -> impl Iterator<Item = Hurdle<'a>> {
        let unit = &self.units[u];
        let not_extended =
            (!unit.nodes().contains_key(&id)).then_some(Hurdle::NotExtended { tag: unit.tag() });
        let node = self.state.nodes.get(&id);
        let unknown = node.is_none().then_some(Hurdle::UnknownNode);
        let of_node = node.into_iter().flat_map(|node| self.hurdles_of_node(node));
        not_extended
            .into_iter()
            .chain(unknown)
            .chain(of_node)
            .chain(unit.wanted().flat_map(move |m| self.hurdles_of_member(m, id)))
            .chain(self.constraints(u, id))
    }

    pub(super) fn can_start(&self, u: UnitId, id: NodeId) -> bool {
        self.hurdles(u, id).next().is_none()
    }

    fn hurdles_of_node(&self, node: &'a Node) -> impl Iterator<Item = Hurdle<'a>> {
        let witness = node.witness.then_some(Hurdle::Witness);
        let standing = (node.standing != Standing::Member).then_some(Hurdle::Standing(node.standing));
        let unfit = !self.fit(node.id);
        let standby = node.standby.then_some(Hurdle::Standby);
        let maintenance = node.maintenance.then_some(Hurdle::Maintenance);
        let gave_up = node.gave_up.as_deref().map(Hurdle::GaveUp);
        [witness, standing, standby, maintenance, gave_up]
            .into_iter()
            .flatten()
            .chain(unfit.then_some(Hurdle::NotFit))
    }

    /// What keeps a single member from the node.
    pub(super) fn hurdles_of_member(&self, m: &Member<'a>, id: NodeId) -> impl Iterator<Item = Hurdle<'a>> {
        let tag = m.tag();
        let failed = m.placement.failed.get(&id).filter(|_| {
            let forgive = &self.observed.forgive;
            forgive.is_empty() || !forgive.contains(&(tag.clone(), id))
        });
        let failed = failed.map(|reason| Hurdle::Failed { tag, reason });
        let lacking = self.state.lacking_subnets(m.resource, id);
        let lacking = lacking.map(|(subnet, down)| Hurdle::Subnet { subnet, down });
        failed.into_iter().chain(lacking)
    }

    fn constraints(&self, u: UnitId, id: NodeId) -> impl Iterator<Item = Hurdle<'a>> {
        let rules = self.book.of(u);
        let here = self.units[u].holder() == Some(id);
        let locations = rules.locations.iter().filter(move |l| l.node == id && l.score.forbids());
        let locations = locations.map(|l| Hurdle::Location { id: l.id });
        let with = rules.colocations.iter().filter_map(move |c| self.company(c, id, here));
        let guests = rules.followers.iter().filter(move |c| c.score.forbids() && !here);
        let guests = guests.filter(move |c| self.frozen(c.other) && self.holder(c.other) == Some(id));
        let guests = guests.map(|c| Hurdle::Occupied { id: c.id, by: self.units[c.other].tag() });
        let clones = rules.clones.iter().filter_map(move |clone| {
            let rule = &self.book.clones[*clone];
            let there = self.census.crowd(*clone, id, &self.units[u]);
            (there >= rule.per_node).then_some(Hurdle::Clone { id: rule.id, there })
        });
        locations.chain(with).chain(guests).chain(clones)
    }

    fn company(&self, c: &Colocation<'a>, id: NodeId, here: bool) -> Option<Hurdle<'a>> {
        let place = self.place(c.other);
        let with = self.units[c.other].tag();
        if c.score.demands() {
            return (place != Some(id)).then_some(Hurdle::Together { id: c.id, with, place });
        }
        // Who is about to leave has the node until it has left, but does not drive others away any more.
        let there = place == Some(id) || (!here && self.holder(c.other) == Some(id));
        (c.score.forbids() && there).then_some(Hurdle::Apart { id: c.id, with })
    }

    pub(super) fn holder(&self, u: UnitId) -> Option<NodeId> {
        self.units[u].holder()
    }

    /// How many connectivity hosts the node reaches, for a unit to which that matters.
    pub(super) fn reach(&self, unit: &Unit<'a>, id: NodeId) -> usize {
        if unit.root.policy.ignores_connectivity {
            0
        } else {
            self.reached.get(&id).copied().unwrap_or_default()
        }
    }

    /// Where it is going to be as far as that is decided; else where it is.
    pub(super) fn place(&self, u: UnitId) -> Option<NodeId> {
        match &self.seats[u] {
            Some(seat) => seat.place,
            None => self.holder(u),
        }
    }
}

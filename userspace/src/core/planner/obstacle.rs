//! Why a hierarchy cannot be on a node, and how much it would like to be there.

use std::cmp::Reverse;

use super::{
    Planner,
    unit::{Unit, UnitId},
};
use crate::model::{NodeId, Score, Standing, Tag};

/// What keeps a hierarchy off a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub reason: String,
    pub gravity: Gravity,
}

/// What an obstacle means for a hierarchy that is on the node already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gravity {
    /// It may stay: nothing is started there, and that is all.
    Stays,
    /// It leaves when it can be somewhere else.
    Leaves,
    /// It must not be there, even if it then is nowhere.
    Goes,
}

/// How good a node is for a hierarchy: the greatest is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// How many of the connectivity hosts the node reaches.
    pub reach: usize,
    pub score: Score,
    /// How many other instances of its clones are there.
    crowd: Reverse<usize>,
    pub priority: Reverse<u16>,
    node: Reverse<NodeId>,
}

/// Where each unit is, or is going to be, as far as that is known.
pub(super) type Places = [Option<NodeId>];

impl Planner<'_> {
    /// Everything against the node, the gravest first.
    pub fn obstacles(&self, unit: &Unit, id: NodeId, places: &Places) -> Vec<Obstacle> {
        let mut all = Vec::new();
        let mut add = |gravity, reason: String| all.push(Obstacle { reason, gravity });
        let Some(node) = self.state.nodes.get(&id) else {
            add(Gravity::Goes, "no such node".into());
            return all;
        };
        if node.witness {
            add(Gravity::Goes, "a witness holds no addresses".into());
        }
        if let Some(reason) = &node.gave_up {
            add(Gravity::Goes, format!("gave up everything: {reason}"));
        }
        if node.standby {
            add(Gravity::Goes, "on standby".into());
        }
        if node.maintenance {
            add(Gravity::Stays, "in maintenance".into());
        }
        match node.standing {
            Standing::Member if !self.fit(id) => add(Gravity::Stays, "not heard, or without a lease".into()),
            Standing::Member => {}
            Standing::Joining => add(Gravity::Stays, "still joining".into()),
            Standing::Deposed => add(Gravity::Stays, "deposed, and has not rejoined".into()),
        }
        for tag in self.wanted(unit) {
            self.obstacles_of(tag, id, &mut add);
        }
        for location in unit.locations.iter().filter(|l| l.node == id && l.score.forbids()) {
            add(Gravity::Goes, format!("constraint '{}' forbids it", location.id));
        }
        for colocation in &unit.colocations {
            let with = &self.units.all[colocation.with].root.tag;
            let apart = places[colocation.with] != Some(id);
            if colocation.score.demands() && apart {
                add(Gravity::Goes, format!("constraint '{}' wants it to be with '{with}'", colocation.id));
            }
            if colocation.score.forbids() && !apart {
                add(Gravity::Goes, format!("constraint '{}' keeps it apart from '{with}'", colocation.id));
            }
        }
        for clones in &unit.clones {
            let there = others_on(&clones.others, id, places);
            if there >= usize::from(clones.per_node) {
                add(Gravity::Stays, format!("clone '{}' has {there} instances there already", clones.id));
            }
        }
        all.sort_by_key(|o| Reverse(o.gravity));
        all
    }

    fn obstacles_of(&self, tag: &Tag, id: NodeId, add: &mut impl FnMut(Gravity, String)) {
        let (Some(resource), Some(placement)) = (self.state.resources.get(tag), self.placement(tag)) else {
            return;
        };
        if !resource.nodes.contains_key(&id) {
            add(Gravity::Stays, format!("'{tag}' is not extended to it"));
        }
        if let Some(reason) = placement.failed.get(&id)
            && !self.observed.forgive.contains(&(tag.clone(), id))
        {
            add(Gravity::Leaves, format!("'{tag}' failed there: {reason}"));
        }
        let lost = self.state.lacking_subnets(resource, id);
        for (subnet, down) in lost {
            // Others may have lost it as well, and be about to say so.
            let fresh = self.observed.fresh_losses.contains(&(id, *subnet));
            let gravity = if fresh { Gravity::Stays } else { Gravity::Leaves };
            add(gravity, format!("subnet {subnet} is down there: {}", down.reason));
        }
    }

    /// None where anything is against it.
    pub fn rank(&self, unit: &Unit, id: NodeId, places: &Places) -> Option<Rank> {
        self.obstacles(unit, id, places).is_empty().then(|| self.rank_of(unit, id, places))
    }

    /// As if nothing were against it.
    pub fn rank_of(&self, unit: &Unit, id: NodeId, places: &Places) -> Rank {
        let ignores = unit.root.policy.ignores_connectivity;
        let crowd: usize = unit.clones.iter().map(|c| others_on(&c.others, id, places)).sum();
        Rank {
            reach: if ignores { 0 } else { self.state.reached_by(id) },
            score: self.scores(unit, id, places).map(|(_, score)| score).sum(),
            crowd: Reverse(crowd),
            priority: Reverse(unit.root.nodes.get(&id).map_or(u16::MAX, |s| s.priority)),
            node: Reverse(id),
        }
    }

    /// Every part of the score, by what it comes from.
    pub fn scores<'s>(
        &'s self,
        unit: &'s Unit,
        id: NodeId,
        places: &'s Places,
    ) -> impl Iterator<Item = (String, Score)> + 's {
        let locations =
            unit.locations.iter().filter(move |l| l.node == id).map(|l| (l.id.to_owned(), l.score));
        let with = unit.colocations.iter().filter(move |c| places[c.with] == Some(id));
        let colocations = with.map(|c| (c.id.to_owned(), c.score));
        let stickiness = unit.root.policy.stickiness(&self.state.defaults);
        let sticks = (self.owner(unit) == Some(id) && stickiness != Score::ZERO)
            .then(|| ("stickiness".to_owned(), stickiness));
        locations.chain(colocations).chain(sticks)
    }

    /// The best of the nodes that have nothing against it.
    pub fn best(&self, unit: &Unit, places: &Places) -> Option<(NodeId, Rank)> {
        let ranked = unit.root.nodes.keys().filter_map(|id| Some((*id, self.rank(unit, *id, places)?)));
        ranked.max_by_key(|(_, rank)| *rank)
    }

    /// Who has it, or a part of it.
    pub fn owner(&self, unit: &Unit) -> Option<NodeId> {
        unit.members.iter().find_map(|t| Some(self.live_grant(self.placement(t)?)?.owner))
    }

    /// The members that are to be in service.
    pub fn wanted<'u>(&'u self, unit: &'u Unit) -> impl Iterator<Item = &'u Tag> {
        unit.members.iter().filter(|t| self.placement(t).is_some_and(|p| p.is_wanted()))
    }
}

fn others_on(others: &[UnitId], id: NodeId, places: &Places) -> usize {
    others.iter().filter(|o| places[**o] == Some(id)).count()
}

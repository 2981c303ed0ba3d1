//! Where each unit shall be, and why it leaves where it is.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{
    Planner,
    census::Census,
    eligibility::{Force, Hurdle},
    rules::Order,
    scoring::Rank,
    units::UnitId,
};
use crate::model::{NodeId, Phase};

/// What is decided about one unit.
#[derive(Clone, Debug)]
pub(super) struct Seat<'a> {
    /// Where it shall be; None: nowhere.
    pub place: Option<NodeId>,
    pub course: Course<'a>,
}

#[derive(Clone, Debug)]
pub(super) enum Course<'a> {
    /// Nobody has it, or it stops already: it starts at its place as soon as it can.
    Free,
    /// Who has it is past asking, and not yet proven silent. Until then nobody makes room for it elsewhere.
    Lost,
    Stays,
    /// Released where it is, to be started at its place.
    Leaves(Why<'a>),
    /// An operator works on it.
    Frozen,
}

/// Why a unit leaves the node that it is on.
#[derive(Clone, Debug)]
pub(super) enum Why<'a> {
    /// It cannot stay, whoever can take it.
    Expelled(Hurdle<'a>),
    /// Another can take it.
    Driven(Hurdle<'a>),
    /// The other node reaches more of the connectivity hosts.
    Connectivity {
        here: usize,
        there: usize,
    },
    /// An operator sent it to its new place.
    Choice,
    /// Automatic switchback: the new place is better.
    Better,
    Unwanted,
    /// What it may only run after will be nowhere.
    Without(Order<'a>),
}

impl<'a> Planner<'a> {
    /// Decides about all units. What turns out to be nowhere for want of another is left out, and all is decided anew:
    /// nobody makes room for what does not come.
    pub(super) fn seat_all(&mut self) {
        let mut absent = BTreeMap::new();
        loop {
            self.seat_each(&absent);
            let without = self.unseat_those_without();
            if without.is_empty() {
                return;
            }
            absent.extend(without);
        }
    }

    /// One after another.
    fn seat_each(&mut self, absent: &BTreeMap<UnitId, Why<'a>>) {
        self.census = Census::new(&self.book, &self.units);
        self.seats.fill(None);
        for u in self.book.placing_order(self.units.len()) {
            let seat = absent.get(&u).map_or_else(|| self.seat(u), |why| self.nowhere(u, why));
            self.census.decide(&self.book, u, &self.units[u], &seat);
            self.seats[u] = Some(seat);
        }
    }

    fn seat(&self, u: UnitId) -> Seat<'a> {
        let unit = &self.units[u];
        let holder = unit.grants().find(|g| !self.void(g)).map(|g| g.owner);
        if self.frozen(u) {
            return Seat { place: holder, course: Course::Frozen };
        }
        if holder.is_some_and(|id| !self.trusted(id)) {
            return Seat { place: holder, course: Course::Lost };
        }
        match holder.filter(|_| unit.is_held()) {
            None if !unit.is_wanted() => Seat { place: None, course: Course::Free },
            None => Seat { place: self.choose(u, None), course: Course::Free },
            Some(_) if !unit.is_wanted() => Seat { place: None, course: Course::Leaves(Why::Unwanted) },
            Some(here) => match self.leave(u, here) {
                Some((place, why)) => Seat { place, course: Course::Leaves(why) },
                None => Seat { place: Some(here), course: Course::Stays },
            },
        }
    }

    /// Where to and why, if a unit leaves the node on which it starts or is. Whatever makes it leave, it goes to
    /// the best of the others: just so it is decided again once it has stopped.
    fn leave(&self, u: UnitId, here: NodeId) -> Option<(Option<NodeId>, Why<'a>)> {
        let unit = &self.units[u];
        let hurdles: Vec<Hurdle<'a>> = self.hurdles(u, here).collect();
        if let Some(hurdle) = hurdles.iter().find(|h| h.force() == Force::Expels) {
            return Some((self.choose(u, Some(here)), Why::Expelled(*hurdle)));
        }
        let starting = unit.wanted().any(|m| m.phase() == Some(Phase::Starting));
        let drives = |h: &&Hurdle<'a>| match h {
            Hurdle::Subnet { subnet, .. } => !starting && self.is_settled(here, subnet),
            Hurdle::Failed { .. } => true,
            other => other.force() == Force::Drives,
        };
        if let Some(hurdle) = hurdles.iter().find(drives)
            && self.has_refuge(u, here)
        {
            return Some((self.choose(u, Some(here)), Why::Driven(*hurdle)));
        }
        // What is starting is not moved by a mere wish: it could never end.
        if starting { None } else { self.rather(u, here) }
    }

    /// Where it is better off than where it is, though it could stay.
    fn rather(&self, u: UnitId, here: NodeId) -> Option<(Option<NodeId>, Why<'a>)> {
        let unit = &self.units[u];
        let goes = |why| Some((self.choose(u, Some(here)), why));
        // Whoever reaches fewer hosts is left again at once.
        let watched = !self.state.unreached.is_empty() && self.has_settled(here);
        let more = |id| self.reach(unit, id) > self.reach(unit, here) && self.has_settled(id);
        if watched && let Some(to) = self.choose_among(u, more) {
            return goes(Why::Connectivity { here: self.reach(unit, here), there: self.reach(unit, to) });
        }
        if let Some(wanted) = self.choice(unit) {
            let follows = wanted != here
                && self.reaches_as_much(u, wanted, here)
                && self.choose(u, Some(here)) == Some(wanted);
            return if follows { goes(Why::Choice) } else { None };
        }
        if !unit.is_automatic() {
            return None;
        }
        let now = self.rank(u, here).staying(unit.stickiness(self.state));
        let better = |id| self.reaches_as_much(u, id, here) && self.rank(u, id).is_better_than(&now);
        let any = self.choose_among(u, |id| id != here && better(id));
        any.and_then(|_| goes(Why::Better))
    }

    fn reaches_as_much(&self, u: UnitId, there: NodeId, here: NodeId) -> bool {
        let unit = &self.units[u];
        self.reach(unit, there) >= self.reach(unit, here)
    }

    /// How many hosts the node reaches has been so for long enough that others would have said the same.
    fn has_settled(&self, id: NodeId) -> bool {
        !self.observed.fresh_reach.contains(&id)
    }

    /// Another node can take what is driven away from `here`. Where a subnet has only just come back it may
    /// come back `here`, too, in a moment.
    fn has_refuge(&self, u: UnitId, here: NodeId) -> bool {
        self.choose_among(u, |id| id != here && self.gained_nothing(u, id)).is_some()
    }

    fn gained_nothing(&self, u: UnitId, id: NodeId) -> bool {
        let fresh = &self.observed.fresh_gains;
        fresh.is_empty()
            || !self.units[u].wanted().flat_map(|m| &m.resource.monitored).any(|s| fresh.contains(&(id, *s)))
    }

    fn is_settled(&self, node: NodeId, subnet: &IpNet) -> bool {
        !self.observed.fresh_losses.contains(&(node, *subnet))
    }

    /// The best node that it can start on.
    pub(super) fn choose(&self, u: UnitId, except: Option<NodeId>) -> Option<NodeId> {
        self.choose_among(u, |id| Some(id) != except)
    }

    fn choose_among(&self, u: UnitId, allowed: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let unit = &self.units[u];
        let choice = self.choice(unit);
        let nodes = unit.nodes().keys().copied();
        let able = nodes.filter(|id| allowed(*id) && self.can_start(u, *id));
        let key = |id: &NodeId| (std::cmp::Reverse(self.reach(unit, *id)), choice != Some(*id));
        able.min_by(|a, b| {
            key(a).cmp(&key(b)).then_with(|| {
                let (a, b): (Rank, Rank) = (self.rank(u, *a), self.rank(u, *b));
                a.cmp(&b)
            })
        })
    }

    fn nowhere(&self, u: UnitId, why: &Why<'a>) -> Seat<'a> {
        let course = if self.units[u].is_held() { Course::Leaves(why.clone()) } else { Course::Free };
        Seat { place: None, course }
    }

    /// A unit that may only run after another is nowhere while that one is nowhere; and so is what belongs to it.
    /// Answers which had a place, and why they have none.
    fn unseat_those_without(&mut self) -> Vec<(UnitId, Why<'a>)> {
        let mut nowhere: Vec<UnitId> = (0..self.units.len()).filter(|u| self.place(*u).is_none()).collect();
        let mut unseated = Vec::new();
        while let Some(gone) = nowhere.pop() {
            let tag = self.units[gone].tag();
            let rules = self.book.of(gone);
            let after = rules.before.iter().filter(|o| o.is_mandatory()).map(|o| (o.then, Why::Without(*o)));
            let demanding = rules.followers.iter().filter(|c| c.score.demands());
            let together = demanding
                .map(|c| (c.other, Why::Expelled(Hurdle::Together { id: c.id, with: tag, place: None })));
            let lost: Vec<_> = after.chain(together).collect();
            for (u, why) in lost {
                if self.place(u).is_some() && !self.frozen(u) {
                    self.seats[u] = Some(self.nowhere(u, &why));
                    nowhere.push(u);
                    unseated.push((u, why));
                }
            }
        }
        unseated
    }
}

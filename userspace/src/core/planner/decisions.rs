//! What can be done now about where units are and where they shall be.

use std::collections::BTreeSet;

use super::{
    Decision, Planner,
    placement::{Course, Why},
    rules::Order,
    units::{Member, Unit, UnitId},
    words::not_up,
};
use crate::{
    core::change::{Change, NewGrant},
    model::{Grant, Node, NodeId, OrderKind, Phase, Standing, Tag},
};

impl<'a> Planner<'a> {
    pub(super) fn decide(&self) -> Vec<Decision> {
        let mut decisions = self.depositions();
        decisions.extend(self.vacations());
        decisions.extend(self.forgivenesses());
        decisions.extend(self.clearances());
        decisions.extend(self.releases());
        decisions.extend(self.gifts());
        decisions
    }

    /// Suspected nodes that own something lose their lease epoch. Who owns nothing is left alone: there
    /// is nothing to take from it, and it is not given anything while it is not fit.
    fn depositions(&self) -> Vec<Decision> {
        let owners: BTreeSet<NodeId> = self.units.iter().flat_map(Unit::grants).map(|g| g.owner).collect();
        let members = self.state.nodes.values();
        let members = members.filter(|n| n.standing == Standing::Member && !self.worked_on(n));
        members
            .filter(|n| owners.contains(&n.id) && self.suspected(n.id))
            .map(|n| Decision {
                change: Change::Depose { node: n.id, lease_epoch: n.lease_epoch },
                reason: format!("node '{}' is silent: its lease is not renewed any more", n.name),
            })
            .collect()
    }

    /// What a deposed and silent node owned goes on to others in the same step that frees it.
    fn vacations(&self) -> Vec<Decision> {
        let deposed = self.state.nodes.values().filter(|n| n.standing == Standing::Deposed);
        deposed.filter(|n| self.silent(n)).filter_map(|n| self.vacation(n)).collect()
    }

    fn vacation(&self, node: &Node) -> Option<Decision> {
        let mut owned = 0;
        let mut grants = Vec::new();
        for (u, unit) in self.units.iter().enumerate() {
            let freed = unit.grants().filter(|g| is_freed(g, node)).count();
            if freed > 0 {
                owned += freed;
                grants.extend(self.gift(u));
            }
        }
        (owned > 0).then(|| Decision {
            reason: format!(
                "node '{}' is proven silent: {} of its {owned} resources are given to others",
                node.name,
                grants.len()
            ),
            change: Change::Vacate { node: node.id, lease_epoch: node.lease_epoch, grants },
        })
    }

    fn forgivenesses(&self) -> Vec<Decision> {
        let placement = |tag: &Tag| self.state.placements.get(tag);
        let marked = |tag: &Tag, node: &NodeId| {
            placement(tag).is_some_and(|p| p.failed.contains_key(node) || p.failures.contains_key(node))
        };
        self.observed
            .forgive
            .iter()
            .filter(|(tag, node)| marked(tag, node))
            .map(|(tag, node)| Decision {
                change: Change::Forgive { tag: tag.clone(), node: *node },
                reason: format!("the failure of '{tag}' on node '{}' is long enough ago", self.name(*node)),
            })
            .collect()
    }

    /// Operators' choices of nodes that have run out.
    fn clearances(&self) -> Vec<Decision> {
        let ended = self.units.iter().filter_map(|unit| self.ended_choice(unit));
        ended
            .map(|m| Decision {
                change: Change::Clear { tag: m.tag().clone() },
                reason: format!("the time for which '{}' was sent to a node is over", m.tag()),
            })
            .collect()
    }

    fn releases(&self) -> Vec<Decision> {
        (0..self.units.len()).flat_map(|u| self.release(u)).collect()
    }

    fn release(&self, u: UnitId) -> Vec<Decision> {
        let unit = &self.units[u];
        let Some(owner) = unit.holder() else { return Vec::new() };
        if !unit.is_held() || !self.trusted(owner) || self.frozen(u) {
            return Vec::new();
        }
        let leaves = self.leaves(u) || self.missing_first(u).is_some();
        let mut going: Vec<&Member<'a>> = unit
            .members
            .iter()
            .filter(|m| m.is_held())
            .filter(|m| leaves || !m.placement.is_wanted() || self.undermined(unit, m).is_some())
            .collect();
        if going.is_empty() || self.waits_to_release(u, &going) {
            return Vec::new();
        }
        self.sort_top_down(unit, &mut going);
        going
            .into_iter()
            .map(|m| Decision {
                change: Change::Release { tag: m.tag().clone(), epoch: m.placement.epoch },
                reason: self.release_reason(u, m, owner),
            })
            .collect()
    }

    /// Something that the member depends on was asked to stop, and waits for it: the order to the member itself may
    /// have been refused, or its reason gone before it came.
    fn undermined(&self, unit: &Unit<'a>, m: &Member<'a>) -> Option<&'a Tag> {
        let stops = |other: &&Member<'a>| other.phase() == Some(Phase::Stopping);
        unit.members.iter().find(stops)?;
        let needed = self.state.with_descendants(m.tag());
        unit.members.iter().filter(stops).map(Member::tag).find(|tag| needed.contains(*tag))
    }

    fn release_reason(&self, u: UnitId, m: &Member<'a>, owner: NodeId) -> String {
        let (tag, name) = (m.tag(), self.name(owner));
        if !m.placement.is_wanted() {
            return format!("'{tag}' is to be out of service: node '{name}' is asked to stop it");
        }
        if let Some(seat) = &self.seats[u]
            && let Course::Leaves(why) = &seat.course
        {
            return self.departure(tag, owner, seat, why);
        }
        let missing = self.missing_first(u).map(not_up);
        let undermined = self.undermined(&self.units[u], m);
        let undermined = undermined.map(|child| format!("'{child}', on which it depends, is being stopped"));
        format!("'{tag}' leaves node '{name}': {}", missing.or(undermined).unwrap_or_default())
    }

    /// Is decided to leave the node that it is on.
    pub(super) fn leaves(&self, u: UnitId) -> bool {
        self.seats[u].as_ref().is_some_and(|s| matches!(s.course, Course::Leaves(_)))
    }

    /// A mandatory order whose first is not in service, or not for long.
    pub(super) fn missing_first(&self, u: UnitId) -> Option<&Order<'a>> {
        if !self.dismissed[u] {
            return None;
        }
        self.book.of(u).after.iter().find(|o| {
            o.is_mandatory() && (!self.is_up(o) || self.dismissed[o.first] && !self.frozen(o.first))
        })
    }

    /// Whatever must not run because something before it does not, or not for long. Along whole chains: when
    /// the first of three leaves, all leave, the last one first.
    pub(super) fn dismiss(&mut self) {
        let missing = |o: &&Order<'a>| o.is_mandatory() && !self.is_up(o);
        let mut gone: Vec<UnitId> =
            (0..self.units.len()).filter(|u| self.book.of(*u).after.iter().any(|o| missing(&o))).collect();
        while let Some(u) = gone.pop() {
            if !std::mem::replace(&mut self.dismissed[u], true) {
                // What an operator works on stays as it is.
                let stays = self.frozen(u);
                let thens = self.book.of(u).before.iter().filter(|o| o.is_mandatory() && !stays);
                gone.extend(thens.map(|o| o.then));
            }
        }
    }

    /// What `order` names first is in service and stays there.
    fn is_up(&self, order: &Order<'a>) -> bool {
        let unit = &self.units[order.first];
        let up = |m: &Member<'a>| {
            m.placement.is_wanted()
                && m.placement.grant.is_some_and(|g| g.phase == Phase::InService && self.trusted(g.owner))
        };
        unit.member(order.first_tag).is_some_and(up) && !self.leaves(order.first)
    }

    /// Whatever runs after those of the unit that are going goes before them.
    fn waits_to_release(&self, u: UnitId, going: &[&Member<'a>]) -> bool {
        let concerned = |o: &&Order<'a>| going.iter().any(|m| m.tag() == o.first_tag);
        let later = self.book.of(u).before.iter().filter(concerned).any(|o| {
            let then = &self.units[o.then];
            // What is in maintenance stays as it is, whatever it needs.
            if self.frozen(o.then) {
                return false;
            }
            match o.kind {
                OrderKind::Mandatory => then.grants().any(|g| !self.void(&g)),
                OrderKind::Optional => {
                    let stops = then.grants().any(|g| g.phase == Phase::Stopping && !self.void(&g));
                    stops || (then.is_held() && self.leaves(o.then))
                }
            }
        });
        later || (self.leaves_by_wish(u) && self.is_occupied(u))
    }

    /// It could stay until its new place is free.
    fn leaves_by_wish(&self, u: UnitId) -> bool {
        self.seats[u].as_ref().is_some_and(|s| match &s.course {
            Course::Leaves(why) => match why {
                Why::Driven(_) | Why::Connectivity { .. } | Why::Choice | Why::Better => true,
                Why::Expelled(_) | Why::Unwanted | Why::Without(_) => false,
            },
            Course::Free | Course::Lost | Course::Stays | Course::Frozen => false,
        })
    }

    fn is_occupied(&self, u: UnitId) -> bool {
        self.occupant(u).is_some()
    }

    /// Who must not be with it and still has the place that it shall have.
    pub(super) fn occupant(&self, u: UnitId) -> Option<&'a Tag> {
        let place = self.place(u)?;
        let guests = self.book.of(u).followers.iter().filter(|c| c.score.forbids());
        guests.into_iter().find(|c| self.holder(c.other) == Some(place)).map(|c| self.units[c.other].tag())
    }

    /// Parents stop before their children.
    fn sort_top_down(&self, unit: &Unit<'a>, going: &mut [&Member<'a>]) {
        if going.len() > 1 {
            let all = unit.members.iter().map(|m| m.tag().clone()).collect();
            let order = self.state.bottom_up(&all);
            let rank: std::collections::BTreeMap<&Tag, usize> =
                order.iter().enumerate().map(|(i, tag)| (tag, i)).collect();
            going.sort_by_key(|m| std::cmp::Reverse(rank.get(m.tag()).copied()));
        }
    }

    /// One change for all that nobody owns and somebody can start.
    fn gifts(&self) -> Vec<Decision> {
        // What belongs to nodes past asking is given on when they are vacated.
        let open = |u: &UnitId| self.holder(*u).is_none_or(|id| self.trusted(id));
        let grants: Vec<NewGrant> = (0..self.units.len()).filter(open).flat_map(|u| self.gift(u)).collect();
        if grants.is_empty() {
            return Vec::new();
        }
        let reason = match &grants[..] {
            [one] => format!("'{}' is given to node '{}'", one.tag, self.name(one.to)),
            many => format!("{} resources are given to nodes", many.len()),
        };
        vec![Decision { change: Change::Give { grants }, reason }]
    }

    /// All members that are wanted and that nobody has, or whose owner is proven silent, to one node.
    fn gift(&self, u: UnitId) -> Vec<NewGrant> {
        let Some(to) = self.startable_place(u) else { return Vec::new() };
        let unit = &self.units[u];
        let free = unit.wanted().filter(|m| m.placement.grant.as_ref().is_none_or(|g| self.void(g)));
        // Of what is started as a whole it is known that nothing keeps it from there.
        let whole = unit.grants().all(|g| self.void(&g));
        let startable = free.filter(|m| whole || self.can_be_added(unit, m, to));
        startable.map(|m| NewGrant { tag: m.tag().clone(), to, epoch: m.placement.epoch }).collect()
    }

    /// Where the others of its hierarchy are, it and all that it depends on can be. What it depends on may be stopping
    /// there, although it is wanted again: given before that has ended, it would have to be taken back at once.
    fn can_be_added(&self, unit: &Unit<'a>, m: &Member<'a>, to: NodeId) -> bool {
        let needed = self.state.with_descendants(m.tag());
        let mut needed = unit.members.iter().filter(|other| needed.contains(other.tag()));
        needed.all(|other| {
            other.phase() != Some(Phase::Stopping) && self.hurdles_of_member(other, to).next().is_none()
        })
    }

    /// The place of a unit, if what is missing there can be started now.
    fn startable_place(&self, u: UnitId) -> Option<NodeId> {
        let unit = &self.units[u];
        let seat = self.seats[u].as_ref()?;
        let place = seat.place?;
        let possible = match seat.course {
            // Some of it may still be on the node that it leaves, or belong to one that is not proven silent.
            Course::Free => unit.grants().all(|g| self.void(&g)),
            Course::Stays => {
                unit.wanted().any(|m| m.placement.grant.is_none())
                    && unit.grants().all(|g| g.owner == place)
                    && self.is_usable(place)
            }
            Course::Leaves(_) | Course::Lost | Course::Frozen => false,
        };
        (possible && !self.is_occupied(u) && !self.waits_to_start(u)).then_some(place)
    }

    pub(super) fn waits_to_start(&self, u: UnitId) -> bool {
        self.missing_first(u).is_some() || self.starting_first(u).is_some()
    }

    /// An optional order whose first starts now, or is on the way to where it starts.
    pub(super) fn starting_first(&self, u: UnitId) -> Option<&Order<'a>> {
        let optional = self.book.of(u).after.iter().filter(|o| !o.is_mandatory());
        optional.into_iter().find(|o| {
            let first = &self.units[o.first];
            let Some(m) = first.member(o.first_tag).filter(|m| m.placement.is_wanted()) else { return false };
            // What a silent node has may take long: that is not waited for.
            let changes = first.grants().all(|g| self.void(&g) || self.trusted(g.owner));
            let goes = changes && self.place(o.first).is_some() && self.missing_first(o.first).is_none();
            match m.phase() {
                Some(Phase::InService) => goes && self.leaves(o.first),
                Some(Phase::Starting | Phase::Stopping) => goes,
                None => goes && self.is_to_start(o.first, m),
            }
        })
    }

    /// Nobody has the member; it will be given where its hierarchy is, or shall be.
    fn is_to_start(&self, u: UnitId, m: &Member<'a>) -> bool {
        let (Some(seat), Some(place)) = (&self.seats[u], self.place(u)) else { return false };
        match seat.course {
            Course::Free | Course::Leaves(_) => true,
            Course::Stays => self.can_be_added(&self.units[u], m, place) && self.is_usable(place),
            Course::Lost | Course::Frozen => false,
        }
    }

    fn is_usable(&self, node: NodeId) -> bool {
        self.fit(node) && self.state.nodes.get(&node).is_some_and(Node::is_available)
    }
}

fn is_freed(grant: &Grant, node: &Node) -> bool {
    grant.owner == node.id && grant.lease_epoch < node.lease_epoch
}

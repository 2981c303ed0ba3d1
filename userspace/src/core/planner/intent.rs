//! Where each hierarchy belongs now: it stays, leaves, or is started.

use super::{
    Planner,
    obstacle::{Gravity, Rank},
    unit::{Unit, UnitId},
};
use crate::model::{NodeId, OrderKind, Phase, Switchback};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// Nothing of it is to be anywhere, or an operator works on it.
    Idle,
    /// Where it is; what is missing is added.
    Stay(NodeId),
    /// Away from its owner, as far as is known to that node.
    Leave { reason: String, to: Option<NodeId> },
    /// It is on its way out and goes there next.
    Next(NodeId),
    /// Free, and goes there.
    Start(NodeId),
    /// Free, and cannot start now.
    Wait { reason: String },
}

/// One for each unit.
pub(super) struct Intents {
    pub of: Vec<Intent>,
    /// Where each is, or is going to be.
    pub places: Vec<Option<NodeId>>,
}

impl Intents {
    pub fn new(planner: &Planner) -> Self {
        let units = &planner.units;
        let owners = units.all.iter().map(|unit| planner.owner(unit)).collect();
        let mut intents = Self { of: vec![Intent::Idle; units.all.len()], places: owners };
        for &id in &units.order {
            let (intent, place) = intents.judge(planner, id);
            intents.of[id] = intent;
            intents.places[id] = place;
        }
        intents
    }

    fn judge(&self, planner: &Planner, id: UnitId) -> (Intent, Option<NodeId>) {
        let unit = &planner.units.all[id];
        let owner = planner.owner(unit);
        if planner.state.in_maintenance(unit.root, owner) || planner.wanted(unit).next().is_none() {
            return (Intent::Idle, owner);
        }
        let Some(owner) = owner else {
            return match self.start(planner, unit) {
                Ok(node) => (Intent::Start(node), Some(node)),
                Err(reason) => (Intent::Wait { reason }, None),
            };
        };
        let stops = planner.wanted(unit).any(|t| planner.phase(t) == Some(Phase::Stopping));
        if stops {
            let next = self.target(planner, unit).map(|(node, _)| node);
            return (next.map_or(Intent::Idle, Intent::Next), next);
        }
        match self.departure(planner, unit, owner) {
            Some((reason, to)) => (Intent::Leave { reason, to }, to),
            None => (Intent::Stay(owner), Some(owner)),
        }
    }

    /// The operator's choice where that can be, else the best. Who reaches fewer of the connectivity hosts than
    /// another node cannot be chosen: it would be left again at once.
    fn target(&self, planner: &Planner, unit: &Unit) -> Option<(NodeId, Rank)> {
        let best = planner.best(unit, &self.places)?;
        let chosen = choice(planner, unit).and_then(|n| Some((n, planner.rank(unit, n, &self.places)?)));
        Some(chosen.filter(|(_, rank)| rank.reach >= best.1.reach).unwrap_or(best))
    }

    fn start(&self, planner: &Planner, unit: &Unit) -> Result<NodeId, String> {
        for first in &unit.firsts {
            let waits = match first.kind {
                OrderKind::Mandatory => planner.phase(first.tag) != Some(Phase::InService),
                OrderKind::Optional => {
                    planner.phase(first.tag) == Some(Phase::Starting) || self.starts(first.unit)
                }
            };
            if waits {
                return Err(format!("constraint '{}': '{}' comes first", first.id, first.tag));
            }
        }
        let target = self.target(planner, unit).map(|(node, _)| node);
        target.ok_or_else(|| "no node can have it".to_owned())
    }

    fn starts(&self, unit: UnitId) -> bool {
        matches!(self.of[unit], Intent::Start(_) | Intent::Next(_))
    }

    pub fn leaves(&self, unit: UnitId) -> bool {
        matches!(self.of[unit], Intent::Leave { .. })
    }

    /// Why it leaves, and where it is going then.
    fn departure(&self, planner: &Planner, unit: &Unit, owner: NodeId) -> Option<(String, Option<NodeId>)> {
        let places = &self.places;
        let name = planner.name(owner);
        for first in unit.firsts.iter().filter(|f| f.kind == OrderKind::Mandatory) {
            let up = planner.phase(first.tag) == Some(Phase::InService);
            if !up || self.leaves(first.unit) || !planner.placement(first.tag).is_some_and(|p| p.is_wanted())
            {
                let reason =
                    format!("constraint '{}': '{}' is not, or not to be, in service", first.id, first.tag);
                return Some((reason, None));
            }
        }
        let obstacles = planner.obstacles(unit, owner, places);
        let gravest = obstacles.first();
        if let Some(o) = gravest.filter(|o| o.gravity == Gravity::Goes) {
            let to = self.target(planner, unit).map(|(node, _)| node);
            return Some((o.reason.clone(), to));
        }
        // What is being started is not asked to stop before it is known to fail.
        if planner.wanted(unit).any(|t| planner.phase(t) == Some(Phase::Starting)) {
            return None;
        }
        let to = |node: NodeId, why: &str| Some((why.to_owned(), Some(node)));
        if let Some(o) = gravest.filter(|o| o.gravity == Gravity::Leaves) {
            let (node, _) = self.target(planner, unit).filter(|(node, _)| *node != owner)?;
            return to(node, &o.reason);
        }
        let now = planner.rank_of(unit, owner, places);
        let (target, rank) = self.target(planner, unit)?;
        let fresh = |node| planner.observed.fresh_reach.contains(&node);
        if target != owner && rank.reach > now.reach && !fresh(owner) && !fresh(target) {
            let why = format!(
                "node '{name}' reaches {} of the connectivity hosts and '{}' {}",
                now.reach,
                planner.name(target),
                rank.reach
            );
            return to(target, &why);
        }
        if let Some(wanted) = choice(planner, unit) {
            let follows = target == wanted && target != owner && rank.reach >= now.reach;
            return if follows { to(wanted, "an operator wants it there") } else { None };
        }
        let better = target != owner
            && (rank.score, rank.priority) > (now.score, now.priority)
            && rank.reach >= now.reach;
        match unit.root.switchback {
            Switchback::Automatic if better => to(target, "automatic switchback"),
            Switchback::Automatic | Switchback::Intelligent => None,
        }
    }
}

/// Where an operator sent it: the same for all members that were sent.
fn choice(planner: &Planner, unit: &Unit) -> Option<NodeId> {
    planner.wanted(unit).find_map(|tag| planner.choice(tag))
}

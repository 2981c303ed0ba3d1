//! What would move where, without doing it: the planner itself, on a copy of the state, with nodes that do at
//! once and without fail what they are told (row CL-12).

use std::collections::{BTreeMap, BTreeSet};

use super::{NodeHealth, Observed, Planner, plan};
use crate::{
    core::change::{Applied, Change, Duty, Outcome, Report, apply},
    model::{ClusterState, LeaseEpoch, NodeId, Phase, Tag},
};

/// Rounds of plans and reports after which the outcome is taken as it is.
const ROUNDS: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhatIf {
    NodeFails(NodeId),
    Standby(NodeId),
    /// Resources with another interface that works stay.
    LinkFails {
        node: NodeId,
        device: String,
    },
}

/// A resource that would be elsewhere than now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub tag: Tag,
    pub from: Option<NodeId>,
    /// None: out of service.
    pub to: Option<NodeId>,
    /// The decision that ends its being where it was; or why nobody has it.
    pub reason: String,
}

/// In the order of tags. What is under way anyway is no consequence and is left out.
pub fn simulate(state: &ClusterState, observed: &Observed, what: &[WhatIf]) -> Vec<Move> {
    let mut before = Simulated::new(state, observed);
    before.settle();
    let mut after = Simulated::new(&before.state, observed);
    what.iter().for_each(|one| after.suppose(one, what));
    after.settle();
    let owners = before.owners();
    let now = after.owners();
    let moved = owners.iter().filter(|(tag, from)| now.get(*tag) != Some(*from));
    let obstacles = after.obstacles();
    moved
        .map(|(tag, from)| {
            let to = now.get(tag).copied().flatten();
            Move { tag: tag.clone(), from: *from, to, reason: after.reason(tag, to, &obstacles) }
        })
        .collect()
}

/// Who has each resource, or is to have it, once what is under way is done; None: nobody.
pub fn destinations(state: &ClusterState, observed: &Observed) -> BTreeMap<Tag, Option<NodeId>> {
    let mut simulated = Simulated::new(state, observed);
    simulated.settle();
    simulated.owners()
}

struct Simulated {
    state: ClusterState,
    observed: Observed,
    reasons: BTreeMap<Tag, String>,
    /// Why the nodes that fail are left.
    failing: BTreeSet<NodeId>,
}

impl Simulated {
    fn new(state: &ClusterState, observed: &Observed) -> Self {
        // Time passes: what is only just known is settled by then.
        let observed = Observed {
            fresh_losses: BTreeSet::new(),
            fresh_gains: BTreeSet::new(),
            fresh_reach: BTreeSet::new(),
            ..observed.clone()
        };
        Self { state: state.clone(), observed, reasons: BTreeMap::new(), failing: BTreeSet::new() }
    }

    fn suppose(&mut self, one: &WhatIf, all: &[WhatIf]) {
        match one {
            WhatIf::NodeFails(node) => {
                let health = NodeHealth { suspected: true, fit: false, silent_below: Some(LeaseEpoch::MAX) };
                self.observed.nodes.insert(*node, health);
                self.failing.insert(*node);
                let name = self.state.node_name(*node);
                for tag in self.owned_by(*node) {
                    self.reasons.insert(tag, format!("node '{name}' fails"));
                }
            }
            WhatIf::Standby(node) => {
                self.apply(&Change::SetNode { node: *node, duty: Duty::Standby });
            }
            WhatIf::LinkFails { node, .. } => self.fail_links(*node, all),
        }
    }

    /// Whatever has no other interface on the node cannot be there.
    fn fail_links(&mut self, node: NodeId, all: &[WhatIf]) {
        let down: BTreeSet<&str> = all
            .iter()
            .filter_map(|what| match what {
                WhatIf::LinkFails { node: n, device } if *n == node => Some(device.as_str()),
                WhatIf::LinkFails { .. } | WhatIf::NodeFails(_) | WhatIf::Standby(_) => None,
            })
            .collect();
        let lost = |devices: &[String]| devices.iter().all(|d| down.contains(d.as_str()));
        let tags: Vec<Tag> = self
            .state
            .resources
            .values()
            .filter(|r| r.nodes.get(&node).is_some_and(|s| lost(&s.devices)))
            .map(|r| r.tag.clone())
            .collect();
        let name = self.state.node_name(node);
        for tag in tags {
            let Some(placement) = self.state.placements.get_mut(&tag) else { continue };
            let reason = format!("node '{name}' loses all interfaces that '{tag}' may use there");
            placement.failed.insert(node, reason.clone());
            if placement.grant.is_some_and(|g| g.owner == node) {
                placement.end_grant();
                self.reasons.insert(tag, reason);
            }
        }
    }

    fn owned_by(&self, node: NodeId) -> Vec<Tag> {
        let owned = self.state.placements.iter().filter(|(_, p)| p.grant.is_some_and(|g| g.owner == node));
        owned.map(|(tag, _)| tag.clone()).collect()
    }

    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let mut changed = false;
            for decision in plan(&self.state, &self.observed) {
                if let Change::Release { tag, .. } = &decision.change {
                    self.reasons.entry(tag.clone()).or_insert(decision.reason);
                }
                changed |= self.apply(&decision.change);
            }
            for change in self.reports() {
                changed |= self.apply(&change);
            }
            if !changed {
                return;
            }
        }
    }

    /// Everybody does as told, children before parents when they start, after them when they stop.
    fn reports(&self) -> Vec<Change> {
        let phase = |tag: &Tag| self.state.placements.get(tag).and_then(|p| p.grant).map(|g| g.phase);
        let mut changes = Vec::new();
        for (tag, placement) in &self.state.placements {
            let Some(grant) = placement.grant.filter(|g| !self.failing.contains(&g.owner)) else { continue };
            let Some(resource) = self.state.resources.get(tag) else { continue };
            let outcome = match grant.phase {
                Phase::Starting if resource.children.iter().all(|c| phase(c) == Some(Phase::InService)) => {
                    Outcome::Started
                }
                Phase::Stopping if resource.parents.iter().all(|p| phase(p).is_none()) => Outcome::Released,
                Phase::Starting | Phase::Stopping | Phase::InService => continue,
            };
            let report = Report { tag: tag.clone(), epoch: placement.epoch, outcome };
            changes.push(Change::Report { node: grant.owner, reports: vec![report] });
        }
        changes
    }

    fn apply(&mut self, change: &Change) -> bool {
        !matches!(apply(&mut self.state, change), Applied::Refused(_))
    }

    fn owners(&self) -> BTreeMap<Tag, Option<NodeId>> {
        self.state.placements.iter().map(|(tag, p)| (tag.clone(), p.grant.map(|g| g.owner))).collect()
    }

    /// Of each wanted resource that nobody has: the gravest obstacle on every node.
    fn obstacles(&self) -> BTreeMap<Tag, String> {
        let planner = Planner::new(&self.state, &self.observed);
        let mut all = BTreeMap::new();
        for (u, unit) in planner.units.iter().enumerate().filter(|(_, unit)| unit.holder().is_none()) {
            let told = planner.explain(u);
            let against =
                told.nodes.iter().filter_map(|n| Some(format!("{}: {}", n.node, n.obstacles.first()?)));
            let against: Vec<String> = against.collect();
            let text = if against.len() == told.nodes.len() { against.join("; ") } else { told.summary };
            all.extend(unit.members.iter().map(|m| (m.tag().clone(), text.clone())));
        }
        all
    }

    fn reason(&self, tag: &Tag, to: Option<NodeId>, obstacles: &BTreeMap<Tag, String>) -> String {
        let why = self.reasons.get(tag).cloned();
        match (why, to) {
            (Some(why), Some(_)) => why,
            (why, None) => {
                let nowhere = obstacles.get(tag).cloned();
                [why, nowhere].into_iter().flatten().collect::<Vec<_>>().join("; nowhere else: ")
            }
            (None, Some(_)) => "it is given to the best node".to_owned(),
        }
    }
}

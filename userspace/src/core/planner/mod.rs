//! What the leader proposes next, from the replicated state and what it observes of the nodes.
//!
//! Pure and level-triggered: it compares what is with what should be and remembers nothing. Every
//! proposal carries what it presumes, so one computed from an old state is refused and harmless.
//! Once its proposals are applied, the same observations yield no new ones; where constraints are, after a
//! few rounds: what one hierarchy was told may move the place of another that follows it.
//!
//! 1. [`units`]: hierarchies are placed as one; [`rules`]: constraints, found by unit.
//! 2. [`placement`]: every unit gets its place, from what keeps it from nodes ([`eligibility`]) and how much
//!    it likes them ([`scoring`], [`census`]). Whoever others want to be with is placed first. In which order
//!    things start does not matter to that: else an order one way and a colocation the other way would have
//!    each wait for the other. What cannot run for want of another has no place, and nobody makes room for it.
//! 3. [`decisions`]: what can be done about that now, in the order that constraints ask for.
//!
//! The effort grows with the number of units times their nodes, and with the number of constraints; once more with each
//! time that something turns out to have no place for want of another.

mod census;
mod decisions;
mod eligibility;
mod explain;
mod placement;
mod rules;
mod scoring;
pub mod simulate;
#[cfg(test)]
mod tests;
mod units;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use self::{
    census::Census,
    placement::Seat,
    rules::RuleBook,
    units::{Member, Unit, UnitId},
};
use super::change::Change;
use crate::model::{ClusterState, Desired, Grant, LeaseEpoch, Node, NodeId, Standing, Tag};

pub use self::explain::{Explanation, NodeVerdict, explain, unplaced};

/// What the leader knows of a node beside the replicated state. The default, which also holds for nodes
/// not mentioned, gives no reason to do anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeHealth {
    /// A majority has not heard it for too long.
    pub suspected: bool,
    /// Heard lately, and its lease is valid: it can bring addresses in service.
    pub fit: bool,
    /// All its leases of epochs below this one have run out. An epoch and not a yes, so that a proof
    /// about an earlier deposition can never serve for a later one.
    pub silent_below: Option<LeaseEpoch>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub nodes: BTreeMap<NodeId, NodeHealth>,
    /// Failures that are forgotten by now.
    pub forgive: BTreeSet<(Tag, NodeId)>,
    /// Subnets that a node has only just lost: whether others are better off is about to be known.
    pub fresh_losses: BTreeSet<(NodeId, IpNet)>,
    /// Subnets that have only just come back to a node: whether also to others is about to be known.
    pub fresh_gains: BTreeSet<(NodeId, IpNet)>,
    /// Nodes that have only just said how many of the connectivity hosts they reach.
    pub fresh_reach: BTreeSet<NodeId>,
    /// Resources whose operator's choice of a node has ended.
    pub ended_choices: BTreeSet<Tag>,
}

/// A change to propose, and why, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub change: Change,
    pub reason: String,
}

/// What to propose now, in this order.
pub fn plan(state: &ClusterState, observed: &Observed) -> Vec<Decision> {
    Planner::new(state, observed).decide()
}

/// What all decisions of one plan are made from.
struct Planner<'a> {
    state: &'a ClusterState,
    observed: &'a Observed,
    units: Vec<Unit<'a>>,
    book: RuleBook<'a>,
    /// How many connectivity hosts each node reaches.
    reached: BTreeMap<NodeId, usize>,
    census: Census,
    /// What is decided about each unit; None: nothing yet.
    seats: Vec<Option<Seat<'a>>>,
    /// Units that must not run now because of what they may only run after.
    dismissed: Vec<bool>,
}

impl<'a> Planner<'a> {
    /// With every unit placed.
    fn new(state: &'a ClusterState, observed: &'a Observed) -> Self {
        let units = units::units(state);
        let book = RuleBook::new(state, &units);
        let seats = units.iter().map(|_| None).collect();
        let reached = state.nodes.keys().map(|id| (*id, state.reached_by(*id))).collect();
        let dismissed = vec![false; units.len()];
        let mut planner =
            Self { state, observed, units, book, reached, census: Census::default(), seats, dismissed };
        planner.seat_all();
        planner.dismiss();
        planner
    }

    fn suspected(&self, node: NodeId) -> bool {
        self.observed.nodes.get(&node).is_some_and(|h| h.suspected)
    }

    fn fit(&self, node: NodeId) -> bool {
        self.observed.nodes.get(&node).is_some_and(|h| h.fit && !h.suspected)
    }

    /// Can be asked to stop something. A suspected or deposed owner is past asking; what it owns is freed by
    /// proof, not by release.
    fn trusted(&self, node: NodeId) -> bool {
        self.state.nodes.get(&node).is_some_and(|n| n.standing == Standing::Member) && !self.suspected(node)
    }

    /// Deposed, and what it had is nobody's any more.
    fn silent(&self, node: &Node) -> bool {
        let below = self.observed.nodes.get(&node.id).and_then(|h| h.silent_below);
        let proven = below.is_some_and(|epoch| epoch >= node.lease_epoch);
        node.standing == Standing::Deposed && proven && !self.worked_on(node)
    }

    /// What an operator works on keeps what it has, and finds it again when it comes back.
    fn worked_on(&self, node: &Node) -> bool {
        node.maintenance || self.state.defaults.maintenance
    }

    /// Its deposed owner is proven not to use it any more: a vacation ends it.
    fn void(&self, grant: &Grant) -> bool {
        let owner = self.state.nodes.get(&grant.owner);
        owner.is_some_and(|n| grant.lease_epoch < n.lease_epoch && self.silent(n))
    }

    fn name(&self, node: NodeId) -> String {
        self.state.node_name(node)
    }

    /// An operator works on it: it is neither given, moved nor stopped.
    fn frozen(&self, u: UnitId) -> bool {
        self.state.in_maintenance(self.units[u].root, self.units[u].holder())
    }

    /// The node that an operator chose: the same for all members that were sent.
    fn choice(&self, unit: &Unit<'a>) -> Option<NodeId> {
        if self.ended_choice(unit).is_some() {
            return None;
        }
        unit.wanted().find_map(|m| match m.placement.desired {
            Desired::InService { on } => on,
            Desired::OutOfService => None,
        })
    }

    /// A member whose choice has run out: with it goes that of the whole hierarchy.
    fn ended_choice<'u>(&self, unit: &'u Unit<'a>) -> Option<&'u Member<'a>> {
        let ended = &self.observed.ended_choices;
        let over = |m: &&Member<'_>| {
            m.placement.choice_ends.is_some() && !m.placement.deleting && ended.contains(m.tag())
        };
        if ended.is_empty() { None } else { unit.members.iter().find(over) }
    }
}

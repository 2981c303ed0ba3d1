//! What the leader proposes next, from the replicated state and what it observes of the nodes.
//!
//! Pure and level-triggered: it compares what is with what should be and remembers nothing. Every
//! proposal carries what it presumes, so one computed from an old state is refused and harmless.
//! Once its proposals are applied, the same observations yield no new ones.
//!
//! ```text
//!   state, observed -> units (hierarchies, constraints) -> intents (where each belongs) -> decisions
//!                                                      \-> explanation (why there, why not elsewhere)
//! ```

mod decide;
mod explain;
mod intent;
mod obstacle;
pub mod simulate;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use self::{decide::decide, intent::Intents, unit::Units};
use super::change::{Change, NewGrant};
use crate::model::{
    ClusterState, Desired, Epoch, Grant, LeaseEpoch, Node, NodeId, Phase, Placement, Standing, Tag,
};

pub use self::explain::{Explanation, NodeVerdict, explain};

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
    let planner = Planner::new(state, observed);
    let intents = Intents::new(&planner);
    decide(&planner, &intents)
}

/// What all decisions of one plan are made from.
struct Planner<'a> {
    state: &'a ClusterState,
    observed: &'a Observed,
    units: Units<'a>,
}

impl<'a> Planner<'a> {
    fn new(state: &'a ClusterState, observed: &'a Observed) -> Self {
        Self { state, observed, units: Units::new(state) }
    }

    fn suspected(&self, node: NodeId) -> bool {
        self.observed.nodes.get(&node).is_some_and(|h| h.suspected)
    }

    fn fit(&self, node: NodeId) -> bool {
        self.observed.nodes.get(&node).is_some_and(|h| h.fit && !h.suspected)
    }

    /// Deposed, and what it had is nobody's any more.
    fn silent(&self, node: &Node) -> bool {
        let below = self.observed.nodes.get(&node.id).and_then(|h| h.silent_below);
        node.standing == Standing::Deposed && below.is_some_and(|epoch| epoch >= node.lease_epoch)
    }

    /// The grant, unless it is one that its deposed owner is proven not to use any more.
    fn live_grant(&self, placement: &Placement) -> Option<Grant> {
        let void = |g: &Grant| {
            let owner = self.state.nodes.get(&g.owner);
            owner.is_some_and(|n| g.lease_epoch < n.lease_epoch && self.silent(n))
        };
        placement.grant.filter(|g| !void(g))
    }

    fn name(&self, node: NodeId) -> String {
        self.state.node_name(node)
    }

    fn placement(&self, tag: &Tag) -> Option<&'a Placement> {
        self.state.placements.get(tag)
    }

    fn choice(&self, tag: &Tag) -> Option<NodeId> {
        let Desired::InService { on } = self.placement(tag)?.desired else { return None };
        on.filter(|_| !self.observed.ended_choices.contains(tag))
    }

    fn new_grant(&self, tag: &Tag, to: NodeId) -> Option<NewGrant> {
        let epoch: Epoch = self.placement(tag)?.epoch;
        Some(NewGrant { tag: tag.clone(), to, epoch })
    }

    fn phase(&self, tag: &Tag) -> Option<Phase> {
        Some(self.live_grant(self.placement(tag)?)?.phase)
    }
}

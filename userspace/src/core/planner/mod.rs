//! What the leader proposes next, from the replicated state and what it observes of the nodes.
//!
//! Pure and level-triggered: it compares what is with what should be and remembers nothing. Every
//! proposal carries what it presumes, so one computed from an old state is refused and harmless.
//! Once its proposals are applied, the same observations yield no new ones.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::change::{Change, NewGrant};
use crate::model::{
    ClusterState, Desired, Epoch, Grant, LeaseEpoch, Node, NodeId, Phase, Placement, Resource, Standing,
    Switchback, Tag,
};

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
    /// Failure marks that have expired.
    pub forgive: BTreeSet<(Tag, NodeId)>,
    /// Subnets that a node has only just lost: whether others are better off is about to be known.
    pub fresh_losses: BTreeSet<(NodeId, IpNet)>,
}

/// A change to propose, and why, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub change: Change,
    pub reason: String,
}

/// What to propose now, in this order.
pub fn plan(state: &ClusterState, observed: &Observed) -> Vec<Decision> {
    let planner = Planner { state, observed };
    let mut decisions = planner.depositions();
    decisions.extend(planner.vacations());
    decisions.extend(planner.forgivenesses());
    decisions.extend(planner.releases());
    decisions.extend(planner.gifts());
    decisions
}

struct Planner<'a> {
    state: &'a ClusterState,
    observed: &'a Observed,
}

impl Planner<'_> {
    /// Suspected nodes that own something lose their lease epoch. Who owns nothing is left alone: there
    /// is nothing to take from it, and it is not given anything while it is not fit.
    fn depositions(&self) -> Vec<Decision> {
        let owners: BTreeSet<NodeId> =
            self.state.placements.values().filter_map(|p| p.grant).map(|g| g.owner).collect();
        let members = self.state.nodes.values().filter(|n| n.standing == Standing::Member);
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
        for (tag, placement) in &self.state.placements {
            let old = |g: &Grant| g.owner == node.id && g.lease_epoch < node.lease_epoch;
            if placement.grant.as_ref().is_none_or(|g| !old(g)) {
                continue;
            }
            owned += 1;
            grants.extend(self.gift(tag, placement));
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
        let marked =
            |tag: &Tag, node| self.state.placements.get(tag).is_some_and(|p| p.failed.contains_key(node));
        self.observed
            .forgive
            .iter()
            .filter(|(tag, node)| marked(tag, node))
            .map(|(tag, node)| Decision {
                change: Change::Forgive { tag: tag.clone(), node: *node },
                reason: format!(
                    "the failure of '{tag}' on node '{}' is long enough ago",
                    self.state.node_name(*node)
                ),
            })
            .collect()
    }

    fn releases(&self) -> Vec<Decision> {
        self.state.placements.iter().filter_map(|(tag, placement)| self.release(tag, placement)).collect()
    }

    fn release(&self, tag: &Tag, placement: &Placement) -> Option<Decision> {
        let grant = placement.grant.as_ref()?;
        // A suspected or deposed owner is past asking; what it owns is freed by proof, not by release.
        let owner = self.state.nodes.get(&grant.owner)?;
        if owner.standing != Standing::Member || self.suspected(owner.id) {
            return None;
        }
        let reason = match (grant.phase, placement.desired) {
            (Phase::Stopping, Desired::InService { .. } | Desired::OutOfService)
            | (Phase::Starting, Desired::InService { .. }) => return None,
            (Phase::Starting | Phase::InService, Desired::OutOfService) => {
                format!("'{tag}' is to be out of service: node '{}' is asked to stop it", owner.name)
            }
            (Phase::InService, Desired::InService { on }) => {
                let to = |id| self.state.node_name(id);
                match self.refuge(tag, placement, owner.id, on) {
                    Some((id, subnet)) => {
                        format!(
                            "subnet {subnet} is down on node '{}': '{tag}' moves to '{}'",
                            owner.name,
                            to(id)
                        )
                    }
                    None => {
                        let id = self.better(tag, placement, owner.id, on)?;
                        format!("'{tag}' moves from node '{}' to '{}'", owner.name, to(id))
                    }
                }
            }
        };
        Some(Decision { change: Change::Release { tag: tag.clone(), epoch: placement.epoch }, reason })
    }

    /// Where a resource can start whose owner has lost a subnet that it needs; nowhere if it has all. The
    /// other has all of them up, so that nothing is moved to and fro.
    fn refuge(
        &self,
        tag: &Tag,
        placement: &Placement,
        owner: NodeId,
        on: Option<NodeId>,
    ) -> Option<(NodeId, &IpNet)> {
        let resource = self.state.resources.get(tag)?;
        let settled = |subnet: &IpNet| !self.observed.fresh_losses.contains(&(owner, *subnet));
        let lost = self.state.lacking_subnets(resource, owner).map(|(subnet, _)| subnet);
        let subnet = lost.into_iter().find(|subnet| settled(subnet))?;
        let wanted = on.filter(|id| self.can_start(resource, placement, *id));
        Some((wanted.or_else(|| self.best(resource, placement))?, subnet))
    }

    /// Where a resource in service should rather be, if it can start there now.
    fn better(&self, tag: &Tag, placement: &Placement, owner: NodeId, on: Option<NodeId>) -> Option<NodeId> {
        let resource = self.state.resources.get(tag)?;
        match (on, resource.switchback) {
            (Some(wanted), Switchback::Intelligent | Switchback::Automatic) => {
                (wanted != owner && self.can_start(resource, placement, wanted)).then_some(wanted)
            }
            (None, Switchback::Intelligent) => None,
            (None, Switchback::Automatic) => {
                let best = self.best(resource, placement)?;
                let now = resource.nodes.get(&owner)?.priority;
                (resource.nodes.get(&best)?.priority < now).then_some(best)
            }
        }
    }

    /// One change for all that nobody owns and somebody can start.
    fn gifts(&self) -> Vec<Decision> {
        let free = self.state.placements.iter().filter(|(_, p)| p.grant.is_none());
        let grants: Vec<NewGrant> = free.filter_map(|(tag, p)| self.gift(tag, p)).collect();
        if grants.is_empty() {
            return Vec::new();
        }
        let reason = match &grants[..] {
            [one] => format!("'{}' is given to node '{}'", one.tag, self.state.node_name(one.to)),
            many => format!("{} resources are given to nodes", many.len()),
        };
        vec![Decision { change: Change::Give { grants }, reason }]
    }

    fn gift(&self, tag: &Tag, placement: &Placement) -> Option<NewGrant> {
        let Desired::InService { on } = placement.desired else { return None };
        let resource = self.state.resources.get(tag)?;
        let wanted = on.filter(|id| self.can_start(resource, placement, *id));
        let to = wanted.or_else(|| self.best(resource, placement))?;
        let epoch: Epoch = placement.epoch;
        (!placement.deleting).then(|| NewGrant { tag: tag.clone(), to, epoch })
    }

    /// The node of the lowest priority number that can start the resource.
    fn best(&self, resource: &Resource, placement: &Placement) -> Option<NodeId> {
        resource
            .nodes
            .iter()
            .filter(|(id, _)| self.can_start(resource, placement, **id))
            .min_by_key(|(id, settings)| (settings.priority, **id))
            .map(|(id, _)| *id)
    }

    fn can_start(&self, resource: &Resource, placement: &Placement, id: NodeId) -> bool {
        let Some(node) = self.state.nodes.get(&id) else { return false };
        let failed = placement.failed.contains_key(&id)
            && !self.observed.forgive.contains(&(resource.tag.clone(), id));
        let fit = self.observed.nodes.get(&id).is_some_and(|h| h.fit && !h.suspected);
        let connected = self.state.lacking_subnets(resource, id).next().is_none();
        fit && !failed
            && connected
            && !node.witness
            && node.standing == Standing::Member
            && resource.nodes.contains_key(&id)
    }

    fn suspected(&self, node: NodeId) -> bool {
        self.observed.nodes.get(&node).is_some_and(|h| h.suspected)
    }

    fn silent(&self, node: &Node) -> bool {
        let below = self.observed.nodes.get(&node.id).and_then(|h| h.silent_below);
        below.is_some_and(|epoch| epoch >= node.lease_epoch)
    }
}

//! What the leader remembers between two rounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;

use super::Testimony;
use crate::{
    core::{
        change::Change,
        lease::Proof,
        planner::{Decision, Observed},
        quorum::Quorum,
        subnets::{POLL_WAIT, settles_after},
        time::BootTime,
    },
    model::{ClusterState, NodeId, Tag},
    observe::clock,
};

/// Worth nothing after a loss of leadership.
#[derive(Default)]
pub(super) struct Memory {
    pub proofs: BTreeMap<NodeId, Proof>,
    pub asking: BTreeSet<(NodeId, NodeId)>,
    /// How many failures there were, and since when there are so many.
    failures: BTreeMap<(Tag, NodeId), (u32, BootTime)>,
    /// When each subnet was first seen to be down on a node.
    losses: BTreeMap<(NodeId, IpNet), BootTime>,
    /// When each subnet that was down on a node was first seen to be up there again.
    gains: BTreeMap<(NodeId, IpNet), BootTime>,
    /// How many connectivity hosts each node reaches, and since when.
    reach: BTreeMap<NodeId, (usize, BootTime)>,
    /// What the last plan was made from, if there was nothing to do.
    idle: Option<(ClusterState, Observed)>,
    /// Leases agreed under a former set of voters have run out by then.
    pub settled: BootTime,
    pub own_lease_lost: Option<BootTime>,
}

impl Memory {
    /// Says by what a node was proven silent.
    pub fn explained(&self, decision: Decision, now: BootTime) -> Decision {
        let Decision { change, mut reason } = decision;
        if let Change::Vacate { node, .. } = &change {
            let fenced = self.proofs.get(node).is_some_and(|p| p.is_fenced(now));
            reason.push_str(if fenced {
                " (its kernel confirmed that it is fenced)"
            } else {
                " (the promises of a majority have run out)"
            });
        }
        Decision { change, reason }
    }

    pub fn take(&mut self, t: Testimony) {
        self.asking.remove(&(t.voter, t.node));
        match t.remaining {
            Ok(remaining) => {
                if let Some(proof) = self.proofs.get_mut(&t.node).filter(|p| p.lease_epoch == t.below) {
                    proof.testimony(t.voter, t.heard, remaining);
                }
            }
            Err(error) => tracing::debug!(voter = t.voter, node = t.node, %error, "no testimony"),
        }
    }

    /// The next moment at which a proof completes by the passing of time.
    pub fn next_proof(&self, needed: impl Fn(NodeId) -> Quorum) -> Option<BootTime> {
        let now = clock::now();
        let complete = self.proofs.iter().filter_map(|(id, p)| p.complete_at(&needed(*id), self.settled));
        complete.filter(|&t| t > now).min()
    }

    pub fn fresh_losses(
        &mut self,
        state: &ClusterState,
        now: BootTime,
        soon: Duration,
    ) -> BTreeSet<(NodeId, IpNet)> {
        let is_down = |(node, subnet): &(NodeId, IpNet)| state.subnet_down(*node, subnet).is_some();
        let back = self.losses.keys().filter(|loss| !is_down(loss));
        self.gains.extend(back.map(|loss| (*loss, now)));
        self.losses.retain(|loss, _| is_down(loss));
        let mut fresh = BTreeSet::new();
        for (node, all) in &state.subnets_down {
            for (subnet, down) in all {
                let since = *self.losses.entry((*node, *subnet)).or_insert(now);
                let Some(settings) = state.subnets.get(subnet) else { continue };
                if now.since(since) < settles_after(down, settings, soon) {
                    fresh.insert((*node, *subnet));
                }
            }
        }
        fresh
    }

    /// Subnets that came back to a node so lately that they may be about to come back to others as well: one that
    /// was lost by all is found again by each at its own time. To be asked after [`Self::fresh_losses`].
    pub fn fresh_gains(
        &mut self,
        state: &ClusterState,
        now: BootTime,
        soon: Duration,
    ) -> BTreeSet<(NodeId, IpNet)> {
        self.gains.retain(|(node, subnet), since| {
            let settings = state.subnets.get(subnet);
            let settles = settings.map(|s| soon + s.interval * 2 + POLL_WAIT);
            state.subnet_down(*node, subnet).is_none() && settles.is_some_and(|t| now.since(*since) < t)
        });
        self.gains.keys().copied().collect()
    }

    /// Nodes of which it is not yet known whether others reach as few of the connectivity hosts: a host that
    /// dies is missed by all nodes, by each at its own time.
    pub fn fresh_reach(&mut self, state: &ClusterState, now: BootTime, soon: Duration) -> BTreeSet<NodeId> {
        let settles = soon + state.connectivity.interval * 2 + POLL_WAIT;
        self.reach.retain(|node, _| state.nodes.contains_key(node));
        let mut fresh = BTreeSet::new();
        for &node in state.nodes.keys() {
            let reached = state.reached_by(node);
            // What a new leader finds may have been so for long, or not.
            let known = self.reach.entry(node).or_insert((reached, now));
            if known.0 != reached {
                *known = (reached, now);
            }
            if now.since(known.1) < settles {
                fresh.insert(node);
            }
        }
        fresh
    }

    /// Failures without another for the time after which they are forgotten.
    pub fn expired_failures(&mut self, state: &ClusterState, now: BootTime) -> BTreeSet<(Tag, NodeId)> {
        let mut marks = BTreeMap::new();
        for (tag, placement) in &state.placements {
            for &node in placement.failed.keys().chain(placement.failures.keys()) {
                let count = placement.failures.get(&node).map_or(0, |f| f.count);
                marks.insert((tag.clone(), node), count);
            }
        }
        self.failures.retain(|mark, _| marks.contains_key(mark));
        let mut expired = BTreeSet::new();
        for (mark, count) in marks {
            let known = self.failures.entry(mark.clone()).or_insert((count, now));
            if known.0 != count {
                *known = (count, now);
            }
            let policy = state.resources.get(&mark.0).map(|r| &r.policy);
            let timeout =
                policy.map_or(state.defaults.failure_timeout, |p| p.failure_timeout(&state.defaults));
            if now.since(known.1) >= timeout {
                expired.insert(mark);
            }
        }
        expired
    }

    /// The last plan found nothing to do, and nothing has changed since.
    pub fn is_settled(&self, state: &ClusterState, observed: &Observed) -> bool {
        self.idle.as_ref().is_some_and(|(s, o)| is_same(s, state) && o == observed)
    }

    pub fn planned(&mut self, state: &ClusterState, observed: Observed, nothing: bool) {
        self.idle = nothing.then(|| (state.clone(), observed));
    }
}

/// False says nothing. Comparing ten thousand resources would cost as much as planning for them.
fn is_same(one: &ClusterState, other: &ClusterState) -> bool {
    let small = |s: &ClusterState| {
        (s.revision, s.nodes.clone(), s.subnets_down.clone(), s.unreached.clone(), s.connectivity.clone())
    };
    one.resources.is_same(&other.resources)
        && one.placements.is_same(&other.placements)
        && small(one) == small(other)
}

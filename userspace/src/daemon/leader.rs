//! The leader's loop: observe, let the planner decide, propose. Runs on every node and does nothing
//! where the node does not lead. A leader that was deposed unknowingly does no harm: its proposals
//! are refused by the quorum, and each carries what it presumes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use ipnet::IpNet;
use tokio::sync::{mpsc, watch};

use super::events::{About, EventLog};
use crate::{
    act::gatekeeper::Gatekeeper,
    cluster::{
        Leadership, Store,
        heartbeat::{Ears, Fences, lock, membership_settles_after},
    },
    config::Timing,
    core::{
        change::{Applied, Change},
        lease::Proof,
        planner::{Decision, NodeHealth, Observed, plan},
        quorum::Quorum,
        subnets::settles_after,
        time::BootTime,
    },
    model::{ClusterState, LeaseEpoch, NodeId, Standing, Tag},
    observe::clock,
};

/// How long a failure keeps a resource away from a node.
const FAILURE_EXPIRES: Duration = Duration::from_secs(60);

/// Asks a voter to refuse old lease epochs of a node, and how long what it promised still runs.
#[async_trait]
pub trait Voters: Send + Sync {
    async fn refuse_below(&self, voter: NodeId, node: NodeId, below: LeaseEpoch) -> Result<Duration, String>;
}

pub struct Leader {
    pub me: NodeId,
    pub store: Arc<dyn Store>,
    pub voters: Arc<dyn Voters>,
    pub ears: Arc<Mutex<Ears>>,
    pub keeper: Arc<Gatekeeper>,
    /// None where this node's kernel probes nobody.
    pub fences: Option<Arc<Fences>>,
    pub timing: Timing,
    pub events: EventLog,
}

/// What the leader remembers between two rounds; worth nothing after a loss of leadership.
#[derive(Default)]
struct Memory {
    proofs: BTreeMap<NodeId, Proof>,
    asking: BTreeSet<(NodeId, NodeId)>,
    failures: BTreeMap<(Tag, NodeId), BootTime>,
    /// When each subnet was first seen to be down on a node.
    losses: BTreeMap<(NodeId, IpNet), BootTime>,
    /// Leases agreed under a former set of voters have run out by then.
    settled: BootTime,
    own_lease_lost: Option<BootTime>,
}

/// A voter's answer about a deposed node.
struct Testimony {
    voter: NodeId,
    node: NodeId,
    below: LeaseEpoch,
    heard: BootTime,
    remaining: Result<Duration, String>,
}

impl Leader {
    pub async fn run(self) {
        let mut view = self.store.view();
        let mut leadership = self.store.leadership();
        let (testify, mut testimonies) = mpsc::unbounded_channel();
        let mut memory = Memory::default();
        let mut kernel = self.fences.as_ref().map(|f| f.changed());
        // The membership's log index and when this node first saw it, leading or not: a final set of
        // voters is appended only after the joint one before it was committed, and from then on no
        // majority renews for a node that counts on an older set.
        let mut membership = (0, BootTime::ZERO);
        loop {
            let lead = leadership.borrow_and_update().clone();
            if lead.membership != membership.0 {
                membership = (lead.membership, clock::now());
            }
            memory.settled = membership.1.after(membership_settles_after(&self.timing));
            let state = view.borrow_and_update().state.clone();
            let wait = if lead.is_me {
                self.round(&mut memory, &lead, &state, &testify).await
            } else {
                memory = Memory::default();
                if let Some(fences) = &self.fences {
                    fences.ask(&BTreeMap::new());
                }
                Duration::from_secs(3600)
            };
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
                Some(t) = testimonies.recv() => memory.take(t),
                () = told(&mut kernel) => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One round; answers how soon the next is due when nothing happens.
    async fn round(
        &self,
        memory: &mut Memory,
        lead: &Leadership,
        state: &ClusterState,
        testify: &mpsc::UnboundedSender<Testimony>,
    ) -> Duration {
        let now = clock::now();
        let quorum = Quorum::new(lead.configs.clone());
        self.gather_proofs(memory, state, &quorum, testify);
        let observed = self.observe(memory, state, &quorum, now);
        for decision in plan(state, &observed) {
            self.propose(memory.explained(decision, now)).await;
        }
        memory.next_proof(&quorum).map_or(self.tick(), |t| t.since(now).min(self.tick()))
    }

    fn tick(&self) -> Duration {
        self.timing.heartbeat / 2
    }

    /// Has every voter asked that has not yet testified about a deposed node.
    fn gather_proofs(
        &self,
        memory: &mut Memory,
        state: &ClusterState,
        quorum: &Quorum,
        testify: &mpsc::UnboundedSender<Testimony>,
    ) {
        let deposed: BTreeMap<NodeId, LeaseEpoch> = state
            .nodes
            .values()
            .filter(|n| n.standing == Standing::Deposed)
            .map(|n| (n.id, n.lease_epoch))
            .collect();
        memory.proofs.retain(|node, p| deposed.get(node) == Some(&p.lease_epoch));
        if let Some(fences) = &self.fences {
            fences.ask(&deposed);
        }
        for (node, below) in deposed {
            let proof = memory.proofs.entry(node).or_insert_with(|| Proof::new(below));
            if let Some(at) = self.fences.as_ref().and_then(|f| f.confirmed(node, below)) {
                proof.fenced(at);
            }
            for voter in quorum.voters() {
                if proof.heard(voter) || !memory.asking.insert((voter, node)) {
                    continue;
                }
                let (voters, testify, pace) = (self.voters.clone(), testify.clone(), self.timing.heartbeat);
                tokio::spawn(async move {
                    let remaining = voters.refuse_below(voter, node, below).await;
                    let heard = clock::now();
                    if remaining.is_err() {
                        // A refused connection answers at once: ask no faster than hearts beat.
                        tokio::time::sleep(pace).await;
                    }
                    // The receiver is gone only when the daemon ends.
                    let _ = testify.send(Testimony { voter, node, below, heard, remaining });
                });
            }
        }
    }

    fn observe(&self, memory: &mut Memory, state: &ClusterState, quorum: &Quorum, now: BootTime) -> Observed {
        let own_lease = self.keeper.held().deadline > now;
        memory.own_lease_lost = if own_lease { None } else { memory.own_lease_lost.or(Some(now)) };
        let Timing { suspicion, startup_grace, .. } = self.timing;
        let own_lost =
            memory.own_lease_lost.is_some_and(|since| now.since(since) >= suspicion + startup_grace);
        let ears = lock(&self.ears);
        let health = |id: NodeId| NodeHealth {
            suspected: if id == self.me {
                own_lost
            } else {
                ears.is_suspected(id, quorum, now, suspicion, startup_grace)
            },
            fit: if id == self.me {
                own_lease
            } else {
                ears.is_alive(id, now, suspicion) && ears.peer(id).is_some_and(|p| p.lease_valid)
            },
            silent_below: memory.proofs.get(&id).and_then(|p| {
                p.complete_at(quorum, memory.settled).is_some_and(|t| now >= t).then_some(p.lease_epoch)
            }),
        };
        let nodes = state.nodes.keys().map(|&id| (id, health(id))).collect();
        Observed {
            nodes,
            forgive: memory.expired_failures(state, now),
            fresh_losses: memory.fresh_losses(state, now, self.timing.heartbeat * 2),
        }
    }

    async fn propose(&self, decision: Decision) {
        let Decision { change, reason } = decision;
        let kind = match &change {
            Change::Depose { .. } => "node.deposed",
            Change::Vacate { .. } => "node.silent",
            Change::Give { .. } => "resource.given",
            Change::Release { .. } => "resource.release",
            Change::Forgive { .. } => "resource.forgiven",
            Change::Found { .. }
            | Change::Reserve { .. }
            | Change::Admit { .. }
            | Change::Create { .. }
            | Change::CreateAll { .. }
            | Change::AlterAddresses { .. }
            | Change::SetAddresses { .. }
            | Change::Extend { .. }
            | Change::Delete { .. }
            | Change::Set { .. }
            | Change::SetPingList { .. }
            | Change::MonitorSubnet { .. }
            | Change::UnmonitorSubnet { .. }
            | Change::ReportSubnets { .. }
            | Change::InService { .. }
            | Change::OutOfService { .. }
            | Change::Rejoin { .. }
            | Change::Report { .. } => "planner",
        };
        match self.store.propose(change).await {
            Ok(Applied::Done | Applied::Node(_)) => self.events.record(About::default(), kind, reason),
            Ok(Applied::Refused(why)) => tracing::debug!(%reason, %why, "overtaken by another change"),
            Err(error) => tracing::warn!(%reason, %error, "decision not committed"),
        }
    }
}

/// Waits until the kernel has told something; for ever where it tells nothing.
async fn told(kernel: &mut Option<watch::Receiver<()>>) {
    if let Some(told) = kernel
        && told.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

impl Memory {
    /// Says by what a node was proven silent.
    fn explained(&self, decision: Decision, now: BootTime) -> Decision {
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

    fn take(&mut self, t: Testimony) {
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
    fn next_proof(&self, quorum: &Quorum) -> Option<BootTime> {
        let now = clock::now();
        self.proofs.values().filter_map(|p| p.complete_at(quorum, self.settled)).filter(|&t| t > now).min()
    }

    fn fresh_losses(
        &mut self,
        state: &ClusterState,
        now: BootTime,
        soon: Duration,
    ) -> BTreeSet<(NodeId, IpNet)> {
        self.losses.retain(|(node, subnet), _| state.subnet_down(*node, subnet).is_some());
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

    fn expired_failures(&mut self, state: &ClusterState, now: BootTime) -> BTreeSet<(Tag, NodeId)> {
        let marks: BTreeSet<(Tag, NodeId)> = state
            .placements
            .iter()
            .flat_map(|(tag, p)| p.failed.keys().map(|&node| (tag.clone(), node)))
            .collect();
        self.failures.retain(|mark, _| marks.contains(mark));
        for mark in marks {
            self.failures.entry(mark).or_insert(now);
        }
        let expired = |seen: BootTime| now.since(seen) >= FAILURE_EXPIRES;
        self.failures.iter().filter(|(_, seen)| expired(**seen)).map(|(mark, _)| mark.clone()).collect()
    }
}

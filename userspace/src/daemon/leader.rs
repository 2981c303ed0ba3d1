//! The leader's loop: observe, let the planner decide, propose. Runs on every node and does nothing
//! where the node does not lead. A leader that was deposed unknowingly does no harm: its proposals
//! are refused by the quorum, and each carries what it presumes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

mod memory;

use self::memory::Memory;
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
        time::BootTime,
    },
    model::{ClusterState, LeaseEpoch, NodeId, Standing, Tag},
    observe::clock,
};

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
        // The membership's number and when this node first saw it, leading or not: a final set of
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
        if memory.is_settled(state, &observed) {
            return memory.next_proof(&quorum).map_or(self.tick(), |t| t.since(now).min(self.tick()));
        }
        let decisions = plan(state, &observed);
        memory.planned(state, observed, decisions.is_empty());
        for decision in decisions {
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
            fresh_gains: memory.fresh_gains(state, now, self.timing.heartbeat * 2),
            fresh_reach: memory.fresh_reach(state, now, self.timing.heartbeat * 2),
            ended_choices: ended_choices(state, SystemTime::now()),
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
            Change::Clear { .. } => "resource.choice-ended",
            Change::Found { .. }
            | Change::Reserve { .. }
            | Change::Admit { .. }
            | Change::Remove { .. }
            | Change::Readdress { .. }
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
            | Change::Unextend { .. }
            | Change::Depend { .. }
            | Change::Undepend { .. }
            | Change::Cleanup { .. }
            | Change::AddConstraint { .. }
            | Change::RemoveConstraint { .. }
            | Change::SetNode { .. }
            | Change::SetDefault { .. }
            | Change::SetConnectivity { .. }
            | Change::ReportConnectivity { .. }
            | Change::Batch { .. }
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

/// Operators say until when by the wall clock: a node whose clock is wrong ends the choice early or late.
fn ended_choices(state: &ClusterState, now: SystemTime) -> BTreeSet<Tag> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let ended = state.placements.iter().filter(|(_, p)| p.choice_ends.is_some_and(|t| u128::from(t) <= now));
    ended.map(|(tag, _)| tag.clone()).collect()
}

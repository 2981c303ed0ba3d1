//! Drives the node's [`Agent`]: feeds it the cluster's state, this node's situation and what changes on
//! this host; runs the sequences it asks for; tells the cluster what came of them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    events::{About, EventLog},
    interfaces::Interfaces,
    runner::{self, GrantGates},
};
use crate::{
    act::{
        address,
        datapath::{Datapath, Programmed},
        executor::Executor,
        gatekeeper::Gatekeeper,
    },
    cluster::Store,
    config::{Timing, TunablesFile},
    core::{
        agent::{Action, Agent, Operation, Situation},
        change::{Applied, Change},
        sequence::{Context, Sequence},
        time::BootTime,
    },
    model::{ClusterState, Epoch, LeaseEpoch, NodeId, Resource, ResourceId, Tag},
    observe::{
        clock,
        network::{Assigned, Network, NetworkEvent},
    },
};

pub struct AgentDriver {
    pub me: NodeId,
    pub store: Arc<dyn Store>,
    pub keeper: Arc<Gatekeeper>,
    pub datapath: Arc<dyn Datapath>,
    pub network: Network,
    pub interfaces: Arc<Interfaces>,
    pub executor: Executor,
    pub tunables: TunablesFile,
    pub timing: Timing,
    pub events: EventLog,
    /// Everything decided before this daemon started has been applied.
    pub caught_up: tokio::sync::watch::Receiver<bool>,
}

struct Finished {
    tag: Tag,
    operation: Operation,
    result: Result<(), String>,
}

impl AgentDriver {
    pub async fn run(mut self) {
        let mut view = self.store.view();
        let mut network_events = self.network.events();
        let (done, mut finished) = mpsc::unbounded_channel::<Finished>();
        let (told, mut telling) = mpsc::unbounded_channel::<()>();
        let mut loop_state =
            Loop { agent: Agent::new(self.me), known: BTreeMap::new(), in_flight: false, had_lease: false };
        if self.caught_up.wait_for(|c| *c).await.is_err() {
            return;
        }
        let state = view.borrow_and_update().state.clone();
        self.forget_another_cluster(&state);
        // What is not known to be here could stay here: nothing begins before that was looked at.
        while let Err(error) = self.adopt_what_is_here(&mut loop_state, &state).await {
            tracing::error!(%error, "cannot tell what an earlier life of vipd left here; looking again");
            tokio::time::sleep(self.timing.heartbeat).await;
        }
        loop_state.agent.begin(&state);
        loop {
            let state = view.borrow_and_update().state.clone();
            self.step(&mut loop_state, &state, &done, &told);
            let now = clock::now();
            let due = loop_state.agent.next_deadline().map_or(Duration::MAX, |t| t.since(now));
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                Some(f) = finished.recv() => {
                    self.finish(&mut loop_state, f, &state, &done);
                    // Many sequences end at the same time: one look at all of them.
                    while let Ok(f) = finished.try_recv() {
                        self.finish(&mut loop_state, f, &state, &done);
                    }
                }
                Some(()) = telling.recv() => loop_state.in_flight = false,
                event = network_events.recv() => match event {
                    Ok(event) => self.touch(&mut loop_state.agent, &event, &state),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.touch(&mut loop_state.agent, &NetworkEvent::Resync, &state);
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                // The lease runs out by the passing of time alone.
                () = tokio::time::sleep(due.min(self.timing.heartbeat)) => {}
            }
        }
    }

    /// The kernel's lease epoch comes from the state, so a higher one than the state's, all decisions being
    /// known, belongs to another cluster whose pins were left here: nothing of it may count.
    fn forget_another_cluster(&self, state: &ClusterState) {
        let held = self.keeper.held().epoch;
        if state.nodes.get(&self.me).is_none_or(|n| held <= n.lease_epoch) {
            return;
        }
        let message = format!("the kernel holds lease epoch {held} of another cluster: all of it is dropped");
        self.events.warn(About::default(), "lease.foreign", message);
        if let Err(error) = self.keeper.reset() {
            tracing::error!(%error, "cannot drop what another cluster left in the kernel");
        }
    }

    fn situation(&self, now: BootTime) -> Situation {
        let held = self.keeper.held();
        let guarded = self.interfaces.all_guarded();
        // Without the kernel's guard the addresses must be gone, not about to go, when the lease ends.
        let notice = if guarded { Duration::ZERO } else { self.timing.lease / 2 };
        Situation {
            caught_up: *self.caught_up.borrow(),
            lease_valid: held.deadline > now.after(notice),
            guarded,
            lease_epoch: held.epoch,
        }
    }

    fn step(
        &self,
        l: &mut Loop,
        state: &Arc<ClusterState>,
        done: &mpsc::UnboundedSender<Finished>,
        told: &mpsc::UnboundedSender<()>,
    ) {
        self.follow_lease_epoch(state);
        let now = clock::now();
        let situation = self.situation(now);
        self.tell_lease(l, situation);
        for action in l.agent.plan(now, state, situation) {
            self.act(l, action, state, done);
        }
        let agent = &l.agent;
        l.known.retain(|tag, _| agent.has(tag));
        self.report(l, state, situation, told);
    }

    /// A deposition shuts every gate of the old lease before the new epoch is asked for.
    fn follow_lease_epoch(&self, state: &ClusterState) {
        let Some(node) = state.nodes.get(&self.me) else { return };
        let held = self.keeper.held();
        if node.lease_epoch <= held.epoch {
            return;
        }
        match self.keeper.adopt(node.lease_epoch) {
            Ok(()) if held.epoch == 0 => {}
            Ok(()) => self.events.warn(
                About::default(),
                "lease.deposed",
                format!(
                    "the cluster deposed this node: all gates are shut (lease epoch {})",
                    node.lease_epoch
                ),
            ),
            Err(error) => tracing::error!(%error, "cannot shut the gates of the old lease; trying again"),
        }
    }

    fn tell_lease(&self, l: &mut Loop, situation: Situation) {
        if situation.lease_valid == l.had_lease {
            return;
        }
        l.had_lease = situation.lease_valid;
        if situation.lease_valid {
            let message = format!("lease valid (epoch {})", situation.lease_epoch);
            self.events.record(About::default(), "lease.valid", message);
        } else {
            let guard =
                if situation.guarded { "the kernel answers for nothing" } else { "taking addresses down" };
            let message = format!("lease not renewed by a majority in time: {guard} until it is");
            self.events.warn(About::default(), "lease.expired", message);
        }
    }

    fn act(
        &self,
        l: &mut Loop,
        action: Action,
        state: &Arc<ClusterState>,
        done: &mpsc::UnboundedSender<Finished>,
    ) {
        match action {
            Action::Cancel { tag } => {
                if let Some(cancel) = l.known.get(&tag).and_then(|k| k.cancel.as_ref()) {
                    cancel.cancel();
                }
            }
            Action::Start { tag, operation, epoch, lease_epoch } => {
                let here = l.known.get(&tag).map(|k| k.resource.clone());
                let wanted = state.resources.get(&tag).cloned();
                // What is here is removed as it was brought here: the resource may have been deleted
                // since, and its tag may stand for another address by now.
                let resource = match operation {
                    Operation::Remove => here.or(wanted),
                    Operation::Restore | Operation::Quickcheck | Operation::Recover => wanted.or(here),
                };
                let Some(resource) = resource else {
                    tracing::error!(%tag, "nothing is known of this resource any more");
                    return;
                };
                let cancel = CancellationToken::new();
                let known = Known { resource: resource.clone(), cancel: Some(cancel.clone()) };
                l.known.insert(tag.clone(), known);
                let job = self.job(&resource, operation, epoch, lease_epoch, state);
                let done = done.clone();
                tokio::spawn(async move {
                    let result = job.run(&cancel).await;
                    // The receiver is gone only when the daemon ends.
                    let _ = done.send(Finished { tag, operation, result });
                });
            }
        }
    }

    fn job(
        &self,
        resource: &Resource,
        operation: Operation,
        epoch: Epoch,
        lease_epoch: LeaseEpoch,
        state: &Arc<ClusterState>,
    ) -> Job {
        let ip = resource.ip();
        let of_subnet = |subnet| Some((subnet, state.ping_lists.get(&(self.me, subnet))?.clone()));
        let settings = resource.nodes.get(&self.me);
        let context = Context {
            group: resource.id,
            addresses: Arc::new(ip.addresses.clone()),
            accept: ip.accept,
            source: settings.is_some_and(|s| s.source),
            device: settings.and_then(|s| s.devices.first().cloned()).unwrap_or_default(),
            epoch,
            physical: settings.is_some_and(|s| s.physical),
            restore_and_recover: settings.is_none_or(|s| s.restore_and_recover),
            ping_lists: ip.addresses.subnets().filter_map(of_subnet).collect(),
            tunables: self.tunables.read(),
        };
        let gates = Arc::new(GrantGates { keeper: self.keeper.clone(), lease_epoch });
        Job {
            about: About {
                tag: Some(resource.tag.clone()),
                address: ip.addresses.first().map(|a| a.addr()),
                epoch: Some(epoch),
            },
            device: context.device.clone(),
            sequence: match operation {
                Operation::Restore => Sequence::restore(context),
                Operation::Remove => Sequence::remove(context),
                Operation::Quickcheck => Sequence::quickcheck(context),
                Operation::Recover => Sequence::recover(context),
            },
            operation,
            executor: self.executor.with_gates(gates),
            interfaces: self.interfaces.clone(),
            state: state.clone(),
            me: self.me,
            events: self.events.clone(),
        }
    }

    fn finish(
        &self,
        l: &mut Loop,
        f: Finished,
        state: &Arc<ClusterState>,
        done: &mpsc::UnboundedSender<Finished>,
    ) {
        let now = clock::now();
        let situation = self.situation(now);
        let about = About { tag: Some(f.tag.clone()), ..About::default() };
        match (&f.result, f.operation) {
            (Ok(()), Operation::Quickcheck) => {}
            (Ok(()), Operation::Restore | Operation::Recover) => {
                self.events.record(about, "resource.in-service", "in service here");
            }
            (Ok(()), Operation::Remove) => self.events.record(about, "resource.removed", "removed here"),
            (Err(reason), operation) => {
                let kind = match operation {
                    Operation::Restore => "restore.failed",
                    Operation::Remove => "remove.failed",
                    Operation::Quickcheck => "quickcheck.failed",
                    Operation::Recover => "recover.failed",
                };
                self.events.warn(about, kind, reason.clone());
            }
        }
        let interval = self.tunables.read().quickcheck_interval;
        if let Some(next) = l.agent.finished(&f.tag, f.result, now, interval, situation) {
            self.act(l, next, state, done);
        }
    }

    /// Tells the cluster, one proposal at a time; what is still true is told again until noted.
    fn report(
        &self,
        l: &mut Loop,
        state: &ClusterState,
        situation: Situation,
        told: &mpsc::UnboundedSender<()>,
    ) {
        if l.in_flight {
            return;
        }
        let reports = l.agent.reports(state);
        let change = if !reports.is_empty() {
            Change::Report { node: self.me, reports }
        } else if let Some(lease_epoch) = l.agent.may_rejoin(state, situation) {
            Change::Rejoin { node: self.me, lease_epoch }
        } else {
            return;
        };
        l.in_flight = true;
        let (store, told, pace) = (self.store.clone(), told.clone(), self.timing.heartbeat);
        tokio::spawn(async move {
            match store.propose(change).await {
                Ok(Applied::Done | Applied::Node(_)) => {}
                Ok(Applied::Refused(why)) => {
                    tracing::debug!(%why, "report refused: the cluster has moved on");
                    tokio::time::sleep(pace).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "report not committed; it is told again");
                    tokio::time::sleep(pace).await;
                }
            }
            let _ = told.send(());
        });
    }

    /// At start: what an earlier life of this daemon left in the kernel. Served addresses go on being
    /// served; what belongs to no resource any more is removed.
    async fn adopt_what_is_here(&self, l: &mut Loop, state: &ClusterState) -> anyhow::Result<()> {
        let programmed = self.datapath.programmed()?;
        let mut assigned = self.network.addresses().await?;
        assigned.retain(|a| a.protocol == Some(address::PROTOCOL));
        let held = self.keeper.held();
        let now = clock::now();
        for (tag, resource) in &state.resources {
            let addresses = resource.addresses();
            let gate = programmed.iter().find(|p| p.group == resource.id);
            let present = assigned.iter().any(|a| addresses.contains(a.address.addr()));
            let serving =
                gate.filter(|g| present && g.gate_active && g.lease_epoch == held.epoch).map(|g| g.epoch);
            if gate.is_some() || present {
                l.agent.found(tag.clone(), serving, now);
                l.known.insert(tag.clone(), Known { resource: resource.clone(), cancel: None });
            }
        }
        let known = |address: IpAddr| state.resources.values().any(|r| r.addresses().contains(address));
        let group_known = |id: ResourceId| state.resources.values().any(|r| r.id == id);
        for leftover in assigned.iter().filter(|a| !known(a.address.addr())) {
            self.remove_leftover(leftover).await;
        }
        for Programmed { group, addresses, .. } in programmed.iter().filter(|p| !group_known(p.group)) {
            if let Err(error) = self.datapath.unprogram(*group, addresses) {
                tracing::error!(%error, %addresses, "cannot remove a leftover from the datapath");
            }
        }
        Ok(())
    }

    async fn remove_leftover(&self, leftover: &Assigned) {
        let about = About { address: Some(leftover.address.addr()), ..About::default() };
        let links = self.network.links().await.unwrap_or_default();
        let Some(link) = links.iter().find(|l| l.index == leftover.index) else { return };
        match self.network.delete_address(link, leftover.address).await {
            Ok(()) => self.events.record(
                about,
                "leftover.removed",
                format!("{} on {} was left by an earlier life of vipd: removed", leftover.address, link.name),
            ),
            Err(error) => self.events.warn(about, "leftover.failed", error.to_string()),
        }
    }

    fn touch(&self, agent: &mut Agent, event: &NetworkEvent, state: &ClusterState) {
        let resource = |tag: &Tag| state.resources.get(tag);
        let now = clock::now();
        match event {
            NetworkEvent::Resync => agent.touched(|_| true, now),
            NetworkEvent::Address { address, .. } => {
                agent.touched(|tag| resource(tag).is_some_and(|r| r.addresses().contains(*address)), now);
            }
            NetworkEvent::Link { name, .. } => agent.touched(
                |tag| {
                    let here = resource(tag).and_then(|r| r.nodes.get(&self.me));
                    here.is_some_and(|s| s.devices.contains(name))
                },
                now,
            ),
        }
    }
}

struct Loop {
    agent: Agent,
    known: BTreeMap<Tag, Known>,
    /// A report is on its way.
    in_flight: bool,
    had_lease: bool,
}

/// A resource of which something is or was here.
struct Known {
    /// As it was when the last sequence began.
    resource: Resource,
    /// Stops that sequence.
    cancel: Option<CancellationToken>,
}

/// One sequence with all it needs.
struct Job {
    about: About,
    device: String,
    operation: Operation,
    sequence: Sequence,
    executor: Executor,
    interfaces: Arc<Interfaces>,
    state: Arc<ClusterState>,
    me: NodeId,
    events: EventLog,
}

impl Job {
    async fn run(self, cancel: &CancellationToken) -> Result<(), String> {
        match self.operation {
            // The kernel must guard the interface before an address is put on it.
            Operation::Restore | Operation::Recover => {
                self.interfaces
                    .ensure(&self.device, &self.state, self.me)
                    .await
                    .map_err(|e| e.to_string())?;
            }
            Operation::Remove | Operation::Quickcheck => {}
        }
        runner::run(self.sequence, &self.executor, cancel, &self.about, &self.events).await
    }
}

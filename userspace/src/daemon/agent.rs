//! Drives the node's [`Agent`]: feeds it the cluster's state, this node's situation and what changes on
//! this host; runs the sequences it asks for; tells the cluster what came of them.

mod adopt;
mod adopt_cloud;
mod devices;
mod job;
mod permit;
mod touch;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::{job::Job, touch::Touched};
use super::{
    conflicts::Yielded,
    events::{About, EventLog},
    interfaces::Interfaces,
    owners::Owners,
};
use crate::{
    act::{cloud::EipBook, datapath::Datapath, executor::Executor, gatekeeper::Gatekeeper},
    api::{in_cloud::InCloud, in_use::InUse},
    cluster::{
        Store,
        heartbeat::{Ears, lock},
    },
    config::{Timing, TunablesFile},
    core::{
        agent::{Action, Agent, Devices, Operation, Situation, Start},
        change::{Applied, Change},
        cloud::CloudReport,
        links::LinkTable,
        sequence::Failure,
        time::BootTime,
    },
    model::{Addresses, ClusterState, NodeId, Ranges, ResourceId, Tag, Tunables},
    observe::{clock, network::Network},
};

/// Quickchecks at work at the same time. Restores and removes are never made to wait.
pub const CHECKS_AT_ONCE: usize = 256;

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
    pub caught_up: watch::Receiver<bool>,
    /// Who else is there.
    pub ears: Arc<Mutex<Ears>>,
    /// What the interfaces are good for.
    pub links: watch::Receiver<LinkTable>,
    /// Kept up to date with the interface that each resource uses here.
    pub in_use: InUse,
    /// Kept up to date with what is known of EC2.
    pub in_cloud: InCloud,
    /// Which Elastic IPs may be on this node's interfaces.
    pub eip_book: EipBook,
    /// Resources that must not stay in service here.
    pub yielded: mpsc::UnboundedReceiver<Yielded>,
    /// [`CHECKS_AT_ONCE`].
    pub checks: Arc<Semaphore>,
    /// As many of what is in EC2, which may be silent for long: no other check waits for it.
    pub cloud_checks: Arc<Semaphore>,
}

struct Finished {
    tag: Tag,
    operation: Operation,
    result: Result<(), Failure>,
    /// Of the sequence.
    addresses: Arc<Addresses>,
    device: String,
    /// Of EC2.
    report: Option<CloudReport>,
}

impl AgentDriver {
    pub async fn run(mut self) {
        let mut view = self.store.view();
        let mut network_events = self.network.events();
        let (done, mut finished) = mpsc::unbounded_channel::<Finished>();
        let (told, mut telling) = mpsc::unbounded_channel::<()>();
        let mut l = Loop::new(Agent::new(self.me));
        let mut links = self.links.clone();
        // Nothing begins before it is known where it can.
        if self.caught_up.wait_for(|c| *c).await.is_err()
            || links.wait_for(LinkTable::is_known).await.is_err()
        {
            return;
        }
        let state = view.borrow_and_update().state.clone();
        self.forget_another_cluster(&state);
        // What is not known to be here could stay here: nothing begins before that was looked at.
        while let Err(error) = self.adopt_what_is_here(&mut l, &state).await {
            tracing::error!(%error, "cannot tell what an earlier life of vipd left here; looking again");
            tokio::time::sleep(self.timing.heartbeat).await;
        }
        l.agent.begin(&state);
        let mut touched = Touched::everything();
        loop {
            let state = view.borrow_and_update().state.clone();
            self.touch(&mut l, &mut touched, &state);
            self.step(&mut l, &state, &done, &told);
            let now = clock::now();
            let due = l.agent.next_deadline().into_iter().chain(touched.due()).min();
            let due = due.map_or(Duration::MAX, |t| t.since(now));
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                changed = links.changed() => match changed {
                    Ok(()) => touched.verdicts = true,
                    Err(_) => return,
                },
                Some(f) = finished.recv() => {
                    self.finish(&mut l, f);
                    // Many sequences end at the same time: one look at all of them.
                    while let Ok(f) = finished.try_recv() {
                        self.finish(&mut l, f);
                    }
                }
                Some(()) = telling.recv() => l.in_flight = false,
                Some(Yielded { tag, id, reason }) = self.yielded.recv() => l.agent.give_up(&tag, id, reason),
                event = network_events.recv() => {
                    if matches!(event, Err(broadcast::error::RecvError::Closed)) {
                        return;
                    }
                    touched.note(event);
                }
                // The lease runs out by the passing of time alone.
                () = tokio::time::sleep(due.min(self.timing.heartbeat)) => {}
            }
            touched.drain(&mut network_events);
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

    /// The other nodes that are heard and have a valid lease.
    fn peers(&self, state: &ClusterState, now: BootTime) -> BTreeSet<NodeId> {
        let (ears, limit) = (lock(&self.ears), self.timing.suspicion);
        let fit =
            |id: &NodeId| ears.is_alive(*id, now, limit) && ears.peer(*id).is_some_and(|p| p.lease_valid);
        state.nodes.keys().copied().filter(|id| *id != self.me && fit(id)).collect()
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
        l.agent.set_peers(self.peers(state, now));
        let mut tunables = None;
        for action in l.agent.plan(now, state, situation) {
            match action {
                Action::Cancel { tag } => {
                    if let Some(cancel) = l.cancels.get(&tag) {
                        cancel.cancel();
                    }
                }
                Action::Start(start) => {
                    // Read at each action (row IP-14), but once for all that begin together.
                    let tunables = tunables.get_or_insert_with(|| self.tunables(state)).clone();
                    let job = Job::new(self, &start, state, tunables);
                    self.start(l, *start, job, done.clone());
                }
            }
        }
        self.report(l, state, situation, told);
    }

    fn tunables(&self, state: &ClusterState) -> Tunables {
        let mut tunables = self.tunables.read();
        tunables.no_broadcast_ping |= !state.expects_broadcast_answers();
        tunables
    }

    fn start(&self, l: &mut Loop, start: Start, job: Job, done: mpsc::UnboundedSender<Finished>) {
        let Start { tag, operation, target, .. } = start;
        let cancel = CancellationToken::new();
        l.cancels.insert(tag.clone(), cancel.clone());
        self.know(l, &tag);
        tokio::spawn(async move {
            let (result, report) = job.run(&cancel).await;
            // What is in EC2 has no addresses on this host.
            let on_host = target.resource.ip().is_some();
            let addresses = if on_host { target.addresses } else { Arc::default() };
            let device = target.device;
            // The receiver is gone only when the daemon ends.
            let _ = done.send(Finished { tag, operation, result, addresses, device, report });
        });
    }

    /// What of the resource is here has changed.
    fn know(&self, l: &mut Loop, tag: &Tag) {
        let here = l.agent.here(tag);
        l.owners.set(tag, here.filter(|h| h.resource.ip().is_some()).map(|h| &h.addresses));
        self.in_use.set(tag, here.map(|h| h.device.as_str()));
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

    fn finish(&self, l: &mut Loop, f: Finished) {
        let now = clock::now();
        let situation = self.situation(now);
        let about = About { tag: Some(f.tag.clone()), ..About::default() };
        match (&f.result, f.operation) {
            (Ok(()), Operation::Quickcheck) => {}
            (Ok(()), Operation::Recover) if f.report.as_ref().is_some_and(|r| !r.mended) => {
                let message = "nothing is to be mended any more: nothing was changed";
                self.events.record(about, "recover.unneeded", message);
            }
            (Ok(()), Operation::Restore | Operation::Recover) => {
                self.events.record(about, "resource.in-service", "in service here");
            }
            (Ok(()), Operation::Switch) => {
                self.events.record(about, "resource.switched", format!("in service on {} now", f.device));
            }
            (Ok(()), Operation::Amend) => {
                self.events.record(about, "resource.amended", format!("in service: {}", f.addresses));
            }
            (Ok(()), Operation::Remove) => {
                self.events.record(about, "resource.removed", "removed here");
                self.forget_shut(l, &f.addresses);
            }
            (Err(failure), operation) => {
                let kind = match operation {
                    Operation::Restore => "restore.failed",
                    Operation::Remove => "remove.failed",
                    Operation::Quickcheck => "quickcheck.failed",
                    Operation::Recover => "recover.failed",
                    Operation::Switch => "switch.failed",
                    Operation::Amend => "amend.failed",
                };
                self.events.warn(about, kind, failure.reason.clone());
            }
        }
        let is_cloud = l.agent.here(&f.tag).is_some_and(|here| here.resource.cloud().is_some());
        let interval = l.interval(&self.tunables, now, is_cloud);
        l.cancels.remove(&f.tag);
        if let Some(report) = f.report {
            l.agent.learned(&f.tag, report);
        }
        l.agent.finished(&f.tag, f.result, now, interval, situation);
        self.know(l, &f.tag);
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
        let reports = l.agent.reports(state, situation);
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
}

struct Loop {
    agent: Agent,
    /// As the agent was last told.
    devices: Devices,
    /// Stop the running sequences.
    cancels: BTreeMap<Tag, CancellationToken>,
    /// Whose the addresses on this host are.
    owners: Owners,
    /// On this host though nobody's: kept silent by the closed gates of these numbers.
    shut: Vec<(ResourceId, Ranges)>,
    /// The times between two checks (of what is on this host, of what is in EC2), and when they were read.
    interval: Option<(BootTime, (Duration, Duration))>,
    /// A report is on its way.
    in_flight: bool,
    had_lease: bool,
}

/// The time between two checks is read again after this.
const INTERVAL_AGE: Duration = Duration::from_millis(100);

impl Loop {
    fn new(agent: Agent) -> Self {
        Self {
            agent,
            devices: Devices::new(),
            cancels: BTreeMap::new(),
            owners: Owners::default(),
            shut: Vec::new(),
            interval: None,
            in_flight: false,
            had_lease: false,
        }
    }

    /// The time between two checks, of what is in EC2 or of what is not.
    fn interval(&mut self, tunables: &TunablesFile, now: BootTime, is_cloud: bool) -> Duration {
        let both = match self.interval {
            Some((read, both)) if now.since(read) < INTERVAL_AGE => both,
            Some(_) | None => {
                let tunables = tunables.read();
                let both = (tunables.quickcheck_interval, tunables.ec2.quickcheck_interval);
                self.interval = Some((now, both));
                both
            }
        };
        if is_cloud { both.1 } else { both.0 }
    }
}

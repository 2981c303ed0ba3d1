//! A node that belongs to a cluster: opens its store and starts everything that needs it.

use std::{
    collections::BTreeSet,
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU8},
    time::Duration,
};

use async_trait::async_trait;
use datapath_common::{PathEvent, PathState};
use tokio::sync::{Semaphore, mpsc, watch};
use vipd_ec2::Ec2;

use super::{
    agent::{AgentDriver, CHECKS_AT_ONCE},
    alone::AloneKeeper,
    conflicts::ConflictWatch,
    connectivity::ConnectivityMonitor,
    events::{About, EventLog},
    interfaces::Interfaces,
    leader::{Leader, Voters},
    links::{LinkMonitor, Unreachable},
    rekey,
    subnets::SubnetMonitor,
    tie_breaker::TieBreaker,
    watcher::Watcher,
};
use crate::{
    act::{
        announce::Plan,
        bounce::Bouncer,
        cloud::{Cloud, EipBook},
        datapath::{Datapath, Probes},
        executor::{Executor, Gates, Siblings},
        gatekeeper::Gatekeeper,
    },
    api::{
        facts::{ConflictFacts, Facts},
        in_cloud::InCloud,
        in_use::InUse,
    },
    cluster::{
        OpenStore, PromiseAnswer, PromiseBook, PromiseQuery,
        heartbeat::{
            LeaseSlot, LiveKeys, Prober, ProberConfig, ProbingKernel, Promises, Pulse, PulseConfig, Solitude,
        },
        identity::{self, Identity},
        macs_of,
        transport::Peers,
    },
    config::{NodeConfig, Timing, TunablesFile},
    core::{
        detection::{ProbeIdentity, ProbePeer},
        lease::Held,
        links::LinkTable,
        time::BootTime,
    },
    daemon::runner::GrantGates,
    model::{LeaseEpoch, NodeId},
    observe::network::Network,
};

/// What exists on a node whether or not it belongs to a cluster.
#[derive(Clone)]
pub struct Host {
    pub config: Arc<NodeConfig>,
    pub timing: Timing,
    pub state_dir: PathBuf,
    pub tunables: TunablesFile,
    pub events: EventLog,
    pub network: Network,
    pub datapath: Arc<dyn Datapath>,
    pub keeper: Arc<Gatekeeper>,
    pub interfaces: Arc<Interfaces>,
    pub bouncer: Bouncer,
    pub facts: watch::Sender<Facts>,
    /// Which interface each resource uses here.
    pub in_use: InUse,
    /// What the resources in EC2 have learned.
    pub in_cloud: InCloud,
    pub ec2: Arc<dyn Ec2>,
    pub eip_book: EipBook,
    pub links: watch::Sender<LinkTable>,
    pub conflicts: watch::Sender<Vec<ConflictFacts>>,
}

impl LeaseSlot for Gatekeeper {
    fn held(&self) -> Held {
        self.held()
    }

    fn extend(&self, epoch: LeaseEpoch, deadline: BootTime) -> Result<(), String> {
        self.extend(epoch, deadline).map_err(|e| e.to_string())
    }
}

impl ProbingKernel for Probes {
    fn identify(&self, who: ProbeIdentity) -> Result<(), String> {
        self.identify(who).map_err(|e| e.to_string())
    }

    fn set_peers(&self, peers: &[ProbePeer]) -> Result<(), String> {
        self.set_peers(peers).map_err(|e| e.to_string())
    }

    fn beat(&self, alive_until: BootTime, guarded: bool) -> Result<(), String> {
        self.beat(alive_until, guarded).map_err(|e| e.to_string())
    }

    fn states(&self) -> Result<Vec<(NodeId, u8, PathState)>, String> {
        self.states().map_err(|e| e.to_string())
    }

    fn drain(&self) -> Vec<PathEvent> {
        self.drain()
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.readable()
    }
}

impl PromiseBook for Promises {
    fn query(&self, query: &PromiseQuery) -> PromiseAnswer {
        let remaining = self.refuse_below(query.node, query.below);
        PromiseAnswer { remaining_ns: u64::try_from(remaining.as_nanos()).unwrap_or(u64::MAX) }
    }
}

struct PeerVoters {
    me: NodeId,
    own: Promises,
    peers: Peers,
}

#[async_trait]
impl Voters for PeerVoters {
    async fn refuse_below(&self, voter: NodeId, node: NodeId, below: LeaseEpoch) -> Result<Duration, String> {
        if voter == self.me {
            return Ok(self.own.refuse_below(node, below));
        }
        let answer = self.peers.promise(voter, PromiseQuery { node, below }).await;
        answer.map(|a| Duration::from_nanos(a.remaining_ns)).map_err(|e| e.to_string())
    }
}

/// The nodes that this one hears.
struct Others {
    me: NodeId,
    store: Arc<dyn OpenStore>,
    facts: watch::Receiver<Facts>,
}

#[async_trait]
impl Siblings for Others {
    async fn macs(&self) -> BTreeSet<[u8; 6]> {
        let alive = |id: &NodeId| self.facts.borrow().peers.get(id).is_some_and(|p| p.alive);
        let state = self.store.view().borrow().state.clone();
        let others = state.nodes.keys().copied().filter(|id| *id != self.me && alive(id));
        macs_of(self.store.peers(), others).await.into_keys().collect()
    }
}

/// The promises of this voter, durable where they must be.
pub fn promises(host: &Host) -> anyhow::Result<Promises> {
    let longest = identity::read_longest_promise(&host.state_dir)?;
    let dir = host.state_dir.clone();
    let remember = move |d: Duration| {
        identity::write_longest_promise(&dir, d).map_err(|e| std::io::Error::other(e.to_string()))
    };
    Ok(Promises::new(longest, Box::new(remember)))
}

/// Starts heartbeats, leader loop, agent and the rest on an open store. Everything runs until the
/// daemon ends.
///
/// # Errors
/// When a heartbeat socket or the state directory can't be used.
pub fn start(
    host: &Host,
    identity: &Identity,
    store: Arc<dyn OpenStore>,
    promises: Promises,
) -> anyhow::Result<()> {
    let me = identity.node;
    let transmits = Arc::new(AtomicU8::new(0));
    let keys = || LiveKeys::new(identity.id, store.keyring().follower());
    let incarnation = identity::next_incarnation(&host.state_dir)?;
    let solitude = Solitude::new(host.keeper.held().deadline);
    let mut pulse = Pulse::start(
        PulseConfig {
            me,
            paths: host.config.paths.clone(),
            keys: keys(),
            timing: host.timing,
            incarnation,
            promises: promises.clone(),
            solitude: solitude.clone(),
            transmits: transmits.clone(),
        },
        store.view(),
        store.leadership(),
        host.keeper.clone(),
    )?;
    let prober = probe_peers(host, me, keys(), incarnation, &mut pulse, store.as_ref());
    store.hear(pulse.ears.clone());
    let (caught, caught_up) = watch::channel(false);
    let watcher = Watcher {
        me,
        store: store.clone(),
        ears: pulse.ears.clone(),
        timing: host.timing,
        events: host.events.clone(),
        facts: host.facts.clone(),
    };
    let alone = AloneKeeper {
        me,
        life: incarnation,
        store: store.clone(),
        solitude,
        timing: host.timing,
        events: host.events.clone(),
        caught_up: caught_up.clone(),
    };
    let unreachable = watch::Sender::new(Unreachable::new());
    let links = LinkMonitor {
        me,
        config: host.config.clone(),
        view: store.view(),
        network: host.network.clone(),
        datapath: host.datapath.clone(),
        ears: pulse.ears.clone(),
        timing: host.timing,
        events: host.events.clone(),
        unreachable: unreachable.subscribe(),
        transmits,
        table: host.links.clone(),
    };
    let subnets = SubnetMonitor {
        me,
        store: store.clone(),
        network: host.network.clone(),
        links: host.links.subscribe(),
        facts: host.facts.subscribe(),
        timing: host.timing,
        events: host.events.clone(),
        caught_up: caught_up.clone(),
        unreachable,
    };
    let connectivity = ConnectivityMonitor {
        me,
        store: store.clone(),
        links: host.links.subscribe(),
        timing: host.timing,
        events: host.events.clone(),
        caught_up: caught_up.clone(),
    };
    let tie_breaker = TieBreaker {
        me,
        store: store.clone(),
        network: host.network.clone(),
        keeper: host.keeper.clone(),
        links: host.links.subscribe(),
        facts: host.facts.subscribe(),
        timing: host.timing,
        events: host.events.clone(),
        caught_up: caught_up.clone(),
    };
    let leader = Leader {
        me,
        voters: Arc::new(PeerVoters { me, own: promises.clone(), peers: store.peers().clone() }),
        store: store.clone(),
        ears: pulse.ears.clone(),
        keeper: host.keeper.clone(),
        fences: prober.as_ref().map(|p| p.fences.clone()),
        timing: host.timing,
        events: host.events.clone(),
    };
    // Replaced for each sequence by the gates of its grant; epoch 0 opens nothing.
    let no_gates: Arc<dyn Gates> = Arc::new(GrantGates { keeper: host.keeper.clone(), lease_epoch: 0 });
    let executor =
        Executor::new(host.network.clone(), host.datapath.clone(), no_gates, host.timing.duplicate_wait)
            .with_bouncer(host.bouncer.clone())
            .with_cloud(Cloud::new(host.ec2.clone(), host.network.clone()))
            .with_siblings(Arc::new(Others { me, store: store.clone(), facts: host.facts.subscribe() }))
            .announcing_by({
                let tunables = host.tunables.clone();
                move || Plan::from(&tunables.read())
            });
    let (yielding, yielded) = mpsc::unbounded_channel();
    let conflicts = ConflictWatch {
        view: store.view(),
        network: host.network.clone(),
        announcer: executor.announcer().clone(),
        events: host.events.clone(),
        facts: host.conflicts.clone(),
        yielded: yielding,
    };
    let agent = AgentDriver {
        me,
        store: store.clone(),
        keeper: host.keeper.clone(),
        datapath: host.datapath.clone(),
        network: host.network.clone(),
        interfaces: host.interfaces.clone(),
        executor,
        yielded,
        tunables: host.tunables.clone(),
        timing: host.timing,
        events: host.events.clone(),
        caught_up,
        ears: pulse.ears.clone(),
        links: host.links.subscribe(),
        in_use: host.in_use.clone(),
        in_cloud: host.in_cloud.clone(),
        eip_book: host.eip_book.clone(),
        checks: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
        cloud_checks: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
    };
    if !host.config.witness {
        tokio::spawn(host.interfaces.clone().run(me, store.view()));
    }
    tokio::spawn(links.run());
    if let Some(reader) = host.datapath.conflicts() {
        tokio::spawn(conflicts.run(reader));
    }
    if !host.config.witness {
        tokio::spawn(subnets.run());
        tokio::spawn(connectivity.run());
        tokio::spawn(alone.run());
        tokio::spawn(tie_breaker.run());
    }
    tokio::spawn(watcher.run());
    tokio::spawn(leader.run());
    tokio::spawn(agent.run());
    tokio::spawn(rekey::follow(store.clone(), host.timing.heartbeat, host.events.clone()));
    tokio::spawn(catch_up(
        store,
        promises,
        caught,
        host.timing.heartbeat,
        host.events.clone(),
        (pulse, prober),
    ));
    Ok(())
}

/// Has the peers' kernels probed by this one, where it can. Otherwise heartbeats alone tell.
fn probe_peers(
    host: &Host,
    me: NodeId,
    keys: LiveKeys,
    incarnation: u64,
    pulse: &mut Pulse,
    store: &dyn OpenStore,
) -> Option<Prober> {
    let probes = host.datapath.probes()?;
    let config = ProberConfig {
        me,
        paths: host.config.paths.clone(),
        sockets: std::mem::take(&mut pulse.sockets),
        keys,
        timing: host.timing,
        incarnation,
        guarded: {
            let interfaces = host.interfaces.clone();
            Box::new(move || interfaces.fence_holds())
        },
    };
    let started = Prober::start(config, probes, store.view(), pulse.ears.clone());
    let complain = |error: &std::io::Error| {
        let message = format!("peers are not probed by the kernel, heartbeats alone tell of them: {error}");
        host.events.warn(About::default(), "probes.unavailable", message);
    };
    started.inspect_err(complain).ok()
}

/// Until everything is applied that was committed before this daemon started, it neither promises nor
/// opens. Afterwards it only keeps the heartbeat alive.
async fn catch_up(
    store: Arc<dyn OpenStore>,
    promises: Promises,
    caught: watch::Sender<bool>,
    pace: Duration,
    events: EventLog,
    threads: (Pulse, Option<Prober>),
) {
    while let Err(error) = store.barrier().await {
        tracing::debug!(%error, "not caught up yet");
        tokio::time::sleep(pace).await;
    }
    // The heartbeat thread looks at the state once a beat: an ask of an epoch that is over may come first.
    let state = store.view().borrow().state.clone();
    promises.caught_up(&state);
    caught.send_replace(true);
    events.record(About::default(), "node.caught-up", "all earlier decisions are known here");
    // The threads run until this task ends with the daemon.
    let _threads = threads;
    std::future::pending::<()>().await;
}

//! `vipd` from start to end.

use std::{
    fs::{self, File},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use nix::fcntl::{Flock, FlockArg};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Mutex, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    events::{About, EventLog},
    interfaces::Interfaces,
    leftovers::{self, Which},
    member::{self, Host},
    owed::{Debtor, Outside},
    rekey,
    runner::GrantGates,
};
use crate::{
    act::{
        bounce::Bouncer,
        cloud::{self, Cloud, EipBook},
        datapath::{self, Datapath, MemoryDatapath},
        executor::Executor,
        gatekeeper::Gatekeeper,
        network_manager::NetworkManager,
    },
    api::{
        ApiError, ErrorKind,
        backend::{Backend, ClusterControl, Context, Member, NetworkHost},
        facts::Facts,
        in_cloud::InCloud,
        in_use::InUse,
        server::Server,
    },
    cluster::{
        ClusterError, Inspections, OpenStore, StoreError, Token, departed, heartbeat::Promises,
        raft::OpenOptions,
    },
    config::{self, DatapathMode, NodeConfig, TunablesFile},
    core::{change::NewNode, links::LinkTable},
    observe::{clock, network::Network},
};

/// How a life of the daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By a signal.
    Stopped,
    /// To be followed by another in the same process: this node is in no cluster any more, or has other addresses.
    StartOver,
}

/// Why another life is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Departed,
    Readdressed,
}

/// For a node that has joined to be heard.
const SETTLE: Duration = Duration::from_secs(5);

/// Those who wait for an answer get it before the next life begins, if they take it so soon.
const FAREWELL: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Options {
    pub config: PathBuf,
    pub state_dir: PathBuf,
    pub run_dir: PathBuf,
    /// Vote, and hold no addresses, whatever the configuration says.
    pub witness: bool,
}

/// Runs until SIGTERM or SIGINT. Whatever is in service then stays so until the lease runs out: a
/// restart is not an outage, and a daemon that does not return is failed over.
///
/// # Errors
/// When something it can't run without is missing; the error names it.
pub async fn run(options: Options) -> anyhow::Result<End> {
    let mut config = config::load(&options.config)?;
    config.witness |= options.witness;
    make_dir(&options.state_dir)?;
    make_dir(&options.run_dir)?;
    let _only = lock(&options.run_dir)?;
    let _alone = if config.witness { None } else { Some(lock_network()?) };
    let events = EventLog::open(Some(options.state_dir.clone()));
    let network = Network::open().context("cannot reach this host's network through netlink")?;
    let datapath = open_datapath(&config);
    if let Some(reason) = datapath.unguarded()
        && !config.witness
    {
        events.warn(
            About::default(),
            "datapath.unguarded",
            format!("the kernel does not guard the lease: {reason}"),
        );
    }
    let keeper = Arc::new(Gatekeeper::new(datapath.clone())?);
    let interfaces =
        Arc::new(Interfaces::new(config.clone(), network.clone(), datapath.clone(), events.clone()));
    let (facts, facts_seen) = watch::channel(Facts::default());
    let (links, links_seen) = watch::channel(LinkTable::default());
    let (conflicts, conflicts_seen) = watch::channel(Vec::new());
    let config = Arc::new(config);
    let tunables = {
        let events = events.clone();
        TunablesFile::with_reporter(&config.tunables, move |complaint| {
            events.warn(About::default(), "tunables.wrong", complaint);
        })
    };
    let bouncer = Bouncer::new(network.clone(), NetworkManager::default());
    let bouncer = bouncer.with_book(options.run_dir.join("stopped"));
    bouncer.resume().await.context("cannot see what an earlier vipd left stopped")?;
    let in_use = InUse::default();
    let in_cloud = InCloud::default();
    let ec2 = cloud::connect(&config.ec2);
    let (eip_book, complaints) = EipBook::open(options.state_dir.join("elastic-ips"));
    for complaint in complaints {
        events.warn(About::default(), "ec2.note-lost", complaint);
    }
    let host = Host {
        timing: config.profile.timing(),
        state_dir: options.state_dir.clone(),
        tunables: tunables.clone(),
        events: events.clone(),
        datapath: datapath.clone(),
        network: network.clone(),
        config: config.clone(),
        keeper,
        interfaces,
        bouncer: bouncer.clone(),
        facts,
        in_use: in_use.clone(),
        in_cloud: in_cloud.clone(),
        ec2: ec2.clone(),
        eip_book,
        links,
        conflicts,
    };
    let (inspections, mut asked) = Inspections::channel();
    let control = Arc::new(Control::new(host, options.clone(), inspections)?);
    control.resume().await?;
    let server = Server::bind(options.run_dir.join("vipd.sock"), config.control_group.as_deref())?;
    let context = Context {
        config: config.clone(),
        tunables,
        events: events.clone(),
        host: Arc::new(NetworkHost::new(network)),
        datapath,
        facts: facts_seen,
        links: links_seen,
        in_use,
        in_cloud,
        conflicts: conflicts_seen,
        member: control.member.subscribe(),
        control: control.clone(),
        ec2,
    };
    let looking = context.clone();
    tokio::spawn(async move {
        while let Some(inspection) = asked.recv().await {
            let context = looking.clone();
            tokio::spawn(async move {
                let findings = context.inspect(&inspection.inquiry).await;
                inspection.done(findings);
            });
        }
    });
    let backend = Backend::new(context);
    let message = format!("vipd {} on node '{}' is ready", env!("CARGO_PKG_VERSION"), config.name);
    events.record(About::default(), "daemon.started", message);
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut over = control.over.subscribe();
    let idle = server.idle();
    let mut serving = std::pin::pin!(server.serve(Arc::new(backend)));
    let over = tokio::select! {
        () = &mut serving => None,
        _ = terminated.recv() => None,
        _ = interrupted.recv() => None,
        over = over.wait_for(Option::is_some) => over.ok().and_then(|over| *over),
    };
    if over.is_some() {
        tokio::select! {
            () = &mut serving => {}
            _ = timeout(FAREWELL, idle.reached()) => {}
        }
    }
    control.shutdown().await;
    if over == Some(Over::Departed) {
        crate::cluster::forget(&options.state_dir)?;
        let message = "this node is in no cluster any more: vipd starts over";
        events.record(About::default(), "node.left", message);
        bouncer.settle().await;
        return Ok(End::StartOver);
    }
    // What nothing guards would outlive its lease.
    let removed = control.remove_leftovers(Which::Unguarded).await;
    bouncer.settle().await;
    removed?;
    if over.is_some() {
        events.record(About::default(), "daemon.restarts", "with the addresses that node.toml says now");
        return Ok(End::StartOver);
    }
    events.record(
        About::default(),
        "daemon.stopped",
        "what is in service behind the kernel's guard stays so until the lease runs out",
    );
    Ok(End::Stopped)
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| {
        format!("cannot make the directory {}: run vipd as root, or choose another", dir.display())
    })
}

/// One daemon a run directory: two would fight over the same addresses.
fn lock(run_dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = run_dir.join("vipd.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            bail!("another vipd runs with {}: stop it first, or give another --run-dir", run_dir.display())
        }
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// One daemon a network namespace: another would take the first one's addresses for its own leftovers. An
/// abstract socket belongs to the namespace and ends with its process, however that ends.
fn lock_network() -> anyhow::Result<UnixListener> {
    let name = SocketAddr::from_abstract_name("vipd")?;
    match UnixListener::bind_addr(&name) {
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("another vipd holds the addresses of this host (network namespace): stop it first")
        }
        bound => bound.context("cannot tell whether another vipd runs on this host"),
    }
}

fn open_datapath(config: &NodeConfig) -> Arc<dyn Datapath> {
    if config.witness && config.datapath.mode == DatapathMode::Auto {
        return Arc::new(MemoryDatapath::new(
            config.datapath.max_vips,
            "a witness holds no addresses".into(),
        ));
    }
    datapath::open(&config.datapath)
}

/// Founds, joins and resumes the membership.
struct Control {
    host: Host,
    promises: Promises,
    inspections: Inspections,
    store: Mutex<Option<Arc<dyn OpenStore>>>,
    /// The same, at hand without waiting for `init` or `join` to end.
    open: std::sync::Mutex<Option<Arc<dyn OpenStore>>>,
    member: watch::Sender<Option<Member>>,
    start: Options,
    over: watch::Sender<Option<Over>>,
    outside: Outside,
}

impl Control {
    fn new(host: Host, start: Options, inspections: Inspections) -> anyhow::Result<Self> {
        Ok(Self {
            promises: member::promises(&host)?,
            inspections,
            host,
            store: Mutex::default(),
            open: std::sync::Mutex::default(),
            member: watch::Sender::new(None),
            start,
            over: watch::Sender::new(None),
            outside: Outside(CancellationToken::new()),
        })
    }

    fn options(&self) -> OpenOptions {
        OpenOptions {
            state_dir: self.host.state_dir.clone(),
            timing: self.host.timing,
            store: self.host.config.store.clone(),
            rpc: self.host.config.rpc,
            promises: Arc::new(self.promises.clone()),
            inspections: self.inspections.clone(),
        }
    }

    fn node(&self) -> NewNode {
        let config = &self.host.config;
        NewNode {
            name: config.name.clone(),
            rpc: config.rpc,
            paths: config.paths.clone(),
            witness: config.witness,
        }
    }

    async fn resume(&self) -> anyhow::Result<()> {
        self.remove_leftovers(Which::Unguarded).await?;
        if let Some(store) = crate::cluster::resume(&self.options()).await? {
            return self.begin(&mut *self.store.lock().await, store);
        }
        // Not part of a cluster: whatever an earlier membership left in the kernel is void. The addresses
        // go before their gates, which are shut: out of the datapath, the kernel would answer for them.
        self.host.keeper.shut_all()?;
        self.remove_leftovers(Which::All).await?;
        self.host.keeper.reset()?;
        if !self.host.config.witness {
            tokio::spawn(self.debtor().run());
        }
        Ok(())
    }

    /// Takes off what a membership left in EC2.
    fn debtor(&self) -> Debtor {
        let host = &self.host;
        let gates = Arc::new(GrantGates { keeper: host.keeper.clone(), lease_epoch: 0 });
        let executor =
            Executor::new(host.network.clone(), host.datapath.clone(), gates, host.timing.duplicate_wait);
        let cloud = Cloud::new(host.ec2.clone(), host.network.clone());
        Debtor {
            book: host.eip_book.clone(),
            executor: executor.with_cloud(cloud.with_permit(Arc::new(self.outside.clone()))),
            tunables: host.tunables.clone(),
            events: host.events.clone(),
            outside: self.outside.clone(),
        }
    }

    /// A witness never had any, and may share a host with a daemon that has.
    async fn remove_leftovers(&self, which: Which) -> anyhow::Result<()> {
        if self.host.config.witness {
            return Ok(());
        }
        leftovers::remove(which, &self.host.network, &self.host.datapath, &self.host.events).await
    }

    fn begin(&self, slot: &mut Option<Arc<dyn OpenStore>>, store: Arc<dyn OpenStore>) -> anyhow::Result<()> {
        let identity = store.identity();
        self.outside.0.cancel();
        member::start(&self.host, &identity, store.clone(), self.promises.clone())?;
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(store.clone());
        self.member.send_replace(Some(Member {
            id: identity.node,
            peers: Arc::new(store.peers().clone()),
            store: store.clone(),
        }));
        let (watched, over) = (store.clone(), self.over.clone());
        tokio::spawn(async move {
            departed(&*watched).await;
            over.send_replace(Some(Over::Departed));
        });
        tokio::spawn(keep_addresses(store.clone(), self.host.config.clone(), self.host.events.clone()));
        *slot = Some(store);
        Ok(())
    }

    fn open(&self) -> Result<Arc<dyn OpenStore>, ApiError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        open.ok_or_else(|| ApiError::failed("this node is not part of a cluster"))
    }

    /// The others hear this node, for a majority of them renews its lease: whoever is told that it joined can use it.
    /// Not for ever, because it is a member all the same.
    async fn settled(&self) {
        let mut facts = self.host.facts.subscribe();
        let valid = async {
            // Facts come once a heartbeat.
            while self.host.keeper.held().deadline <= clock::now() && facts.changed().await.is_ok() {}
        };
        let _ = timeout(SETTLE, valid).await;
    }

    async fn shutdown(&self) {
        if let Some(store) = self.store.lock().await.take() {
            store.shutdown().await;
        }
    }
}

#[async_trait]
impl ClusterControl for Control {
    async fn init(&self, name: &str) -> Result<String, ApiError> {
        let mut slot = self.store.lock().await;
        let store = crate::cluster::init(&self.options(), name, self.node()).await.map_err(to_api)?;
        self.begin(&mut slot, store).map_err(|e| ApiError::failed(format!("{e:#}")))?;
        Ok(format!(
            "cluster '{name}' founded; let others join with 'vipctl cluster join {} --token T' \
             (print T with 'vipctl cluster token')",
            self.host.config.rpc
        ))
    }

    async fn join(&self, address: std::net::SocketAddr, token: &str) -> Result<String, ApiError> {
        let token: Token = token.parse().map_err(|e| ApiError::usage(format!("{e}")))?;
        let mut slot = self.store.lock().await;
        let store =
            crate::cluster::enroll(&self.options(), address, &token, self.node()).await.map_err(to_api)?;
        self.begin(&mut slot, store.clone()).map_err(|e| ApiError::failed(format!("{e:#}")))?;
        crate::cluster::admitted(&store, address).await.map_err(|e| {
            let api = to_api(e);
            ApiError { message: format!("{}; this node goes on asking to be admitted", api.message), ..api }
        })?;
        self.settled().await;
        Ok(format!("node '{}' is a member of cluster '{}'", self.host.config.name, token.cluster))
    }

    async fn forget(&self) -> Result<(), ApiError> {
        self.over.send_replace(Some(Over::Departed));
        Ok(())
    }

    async fn readdress(&self) -> Result<String, ApiError> {
        let slot = self.store.lock().await;
        let store = slot.as_ref().ok_or_else(|| ApiError::failed("this node is not part of a cluster"))?;
        let wanted = config::load(&self.start.config)
            .map_err(|e| ApiError::refused(format!("{:#}", anyhow::Error::from(e))))?;
        let present = &self.host.config;
        if wanted.name != present.name {
            return Err(ApiError::refused(format!(
                "node.toml calls this node '{}', and it is '{}' in the cluster: a node keeps its name",
                wanted.name, present.name
            )));
        }
        if (wanted.rpc, &wanted.paths) == (present.rpc, &present.paths) {
            return Ok(format!("nothing changed: {} says where this node is", self.start.config.display()));
        }
        check_here(&wanted, present)?;
        crate::cluster::readdress(&**store, wanted.rpc, wanted.paths.clone()).await.map_err(to_api)?;
        self.over.send_replace(Some(Over::Readdressed));
        let paths: Vec<String> = wanted.paths.iter().map(ToString::to_string).collect();
        Ok(format!("this node is reached at {} and heard on {} from now on", wanted.rpc, paths.join(", ")))
    }

    fn token(&self) -> Result<String, ApiError> {
        Ok(self.open()?.token().to_string())
    }

    async fn rotate_key(&self) -> Result<String, ApiError> {
        rekey::rotate(&*self.open()?, to_api).await
    }
}

/// Peers can reach this node there: looked at before anybody is told.
fn check_here(wanted: &NodeConfig, present: &NodeConfig) -> Result<(), ApiError> {
    let missing = |what: &str, address: std::net::SocketAddr, e: std::io::Error| {
        ApiError::refused(format!(
            "the {what} {address} of node.toml cannot be used on this host ({e}): give it to an interface first, or \
             correct it; nothing was changed"
        ))
    };
    if wanted.rpc != present.rpc {
        std::net::TcpListener::bind(wanted.rpc).map_err(|e| missing("rpc address", wanted.rpc, e))?;
    }
    for path in wanted.paths.iter().filter(|p| !present.paths.contains(p)) {
        std::net::UdpSocket::bind(path).map_err(|e| missing("heartbeat path", *path, e))?;
    }
    Ok(())
}

/// Between two attempts to tell where this node is.
const TELL: Duration = Duration::from_secs(1);

/// Has the cluster know the addresses of the configuration, where they were changed while the daemon did not run.
async fn keep_addresses(store: Arc<dyn OpenStore>, config: Arc<NodeConfig>, events: EventLog) {
    let me = store.identity().node;
    let mut view = store.view();
    loop {
        let known = view.borrow_and_update().state.nodes.get(&me).map(|n| (n.rpc, n.paths.clone()));
        let elsewhere = match known {
            Some((rpc, paths)) if (rpc, &paths) == (config.rpc, &config.paths) => return,
            Some(_) => true,
            // The others may be calling in vain.
            None => store.is_believed_elsewhere(config.rpc),
        };
        if elsewhere {
            match crate::cluster::readdress(&*store, config.rpc, config.paths.clone()).await {
                Ok(()) => {
                    let message = format!("the cluster reaches this node at {} from now on", config.rpc);
                    return events.record(About::default(), "node.readdressed", message);
                }
                Err(error) => tracing::warn!(%error, "the cluster does not know yet where this node is"),
            }
        }
        if let Ok(Err(_)) = timeout(TELL, view.changed()).await {
            return;
        }
    }
}

fn to_api(error: ClusterError) -> ApiError {
    match error {
        ClusterError::Refused(refusal) => ApiError::refused(refusal.to_string()),
        other @ ClusterError::OtherStore { .. } => ApiError::refused(other.to_string()),
        other @ ClusterError::Store(StoreError::NoQuorum(_) | StoreError::Away(_)) => {
            ApiError::new(ErrorKind::NoQuorum, other.to_string())
        }
        other => ApiError::failed(other.to_string()),
    }
}

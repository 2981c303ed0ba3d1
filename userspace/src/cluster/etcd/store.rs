//! [`Store`] by etcd.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    cache,
    client::EtcdKv,
    election::{self, Election},
    follow,
    keys::Keys,
    kv::Kv,
    log::Log,
    propose::{Known, Proposer},
    serve::{ADMIT, Answerer, AskPeers, PATIENCE, admit, remove},
};
use crate::{
    cluster::{
        error::ClusterError,
        heartbeat::{Ears, lock},
        identity::Identity,
        keyring::Keyring,
        raft::OpenOptions,
        store::{Leadership, OpenStore, Store, StoreError, StoreHealth, StoreMember, View},
        threads::Threads,
        transport::{self, Peers},
    },
    config::{StoreConfig, StoreKind, Timing},
    core::change::{Applied, Change, Refusal},
    model::NodeId,
    observe::clock,
};

/// Between two attempts to catch up.
const RETRY: Duration = Duration::from_millis(100);

/// Between two looks at the health of etcd's members.
const HEALTH: Duration = Duration::from_secs(2);

/// A member of a cluster whose state is in etcd. Its connections run on two threads of their own. Dropping it
/// stops them as a crash would, which loses nothing.
pub(crate) struct EtcdStore {
    keyring: Keyring,
    rpc: SocketAddr,
    timing: Timing,
    log: Arc<Log>,
    proposer: Proposer,
    known: Arc<dyn Known>,
    peers: Peers,
    ears: election::Ears,
    members: watch::Receiver<Vec<StoreMember>>,
    stop: CancellationToken,
    listener: Mutex<Option<JoinHandle<()>>>,
    threads: Option<Threads>,
}

impl EtcdStore {
    /// Needs no answer from etcd: a node that starts while etcd is away goes on when it is back.
    pub(crate) async fn open(identity: Identity, options: &OpenOptions) -> Result<Arc<Self>, ClusterError> {
        let threads = Threads::start("vipd-etcd")?;
        let options = options.clone();
        let mut store = threads.run(|handle| async move { start(identity, options, handle) }).await??;
        store.threads = Some(threads);
        Ok(Arc::new(store))
    }

    /// An error when etcd cannot be reached, or has a cluster of that name: looked at before anything is written.
    pub(crate) async fn check_free(config: &StoreConfig, cluster: &str) -> Result<(), ClusterError> {
        let (kv, keys) = (EtcdKv::new(config)?, Keys::new(config.prefix(), cluster));
        if Log::is_taken(&kv, &keys).await? {
            let all = keys.all();
            let rule = format!(
                "etcd has a cluster of that name already: join it, found one under another name, or remove it with \
                 'etcdctl del --prefix {all}' when none of its nodes runs any more"
            );
            return Err(Refusal(rule).into());
        }
        Ok(())
    }
}

fn start(identity: Identity, options: OpenOptions, runtime: Handle) -> Result<EtcdStore, ClusterError> {
    let listener = transport::listen(options.rpc)
        .map_err(|source| ClusterError::Listen { address: options.rpc, source })?;
    let rpc =
        listener.local_addr().map_err(|source| ClusterError::Listen { address: options.rpc, source })?;
    let me = identity.node;
    let kv: Arc<dyn Kv> = Arc::new(EtcdKv::new(&options.store)?);
    let keys = Keys::new(options.store.prefix(), &identity.cluster);
    let image = cache::load(&options.state_dir)?;
    let log = Arc::new(Log::new(kv.clone(), keys, identity.id.to_string(), image));
    let keyring = Keyring::new(identity, options.state_dir.clone());
    let credentials = Arc::new(keyring.credentials());
    let peers = Peers::new(credentials.clone(), options.rpc.ip(), &options.timing, runtime);
    let known: Arc<dyn Known> = Arc::new(AskPeers { me, log: log.clone(), peers: peers.clone() });
    let proposer = Proposer::start(log.clone(), known.clone());
    let stop = CancellationToken::new();
    let answerer = Arc::new(Answerer {
        log: log.clone(),
        proposer: proposer.clone(),
        known: known.clone(),
        promises: options.promises,
        inspections: options.inspections,
        keyring: keyring.clone(),
    });
    let listening = tokio::spawn(transport::serve(listener, credentials, answerer, stop.clone()));
    let ears = election::Ears::default();
    let election = Election::new(me, log.clone(), ears.clone(), options.timing.heartbeat / 2);
    let (publish, members) = watch::channel(vec![]);
    let work = [
        tokio::spawn(follow::follow(log.clone())),
        tokio::spawn(election.run()),
        tokio::spawn(addresses(log.clone(), peers.clone())),
        tokio::spawn(cache::keep(log.clone(), options.state_dir.clone())),
        tokio::spawn(health(kv, publish)),
    ];
    let ended = stop.clone();
    tokio::spawn(async move {
        ended.cancelled().await;
        work.iter().for_each(JoinHandle::abort);
    });
    Ok(EtcdStore {
        keyring,
        rpc,
        timing: options.timing,
        log,
        proposer,
        known,
        peers,
        ears,
        members,
        stop,
        listener: Mutex::new(Some(listening)),
        threads: None,
    })
}

/// Tells the connections where the nodes are.
async fn addresses(log: Arc<Log>, peers: Peers) {
    let mut view = log.view();
    let mut known = BTreeMap::new();
    loop {
        let now: BTreeMap<NodeId, String> =
            view.borrow_and_update().state.nodes.values().map(|n| (n.id, n.rpc.to_string())).collect();
        if now != known {
            known.clone_from(&now);
            peers.set_addresses(now);
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

async fn health(kv: Arc<dyn Kv>, publish: watch::Sender<Vec<StoreMember>>) {
    while !publish.is_closed() {
        publish.send_replace(kv.members().await);
        sleep(HEALTH).await;
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn propose(&self, change: Change) -> Result<Applied, StoreError> {
        self.proposer.propose(change, Instant::now() + PATIENCE).await
    }

    async fn barrier(&self) -> Result<(), StoreError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.log.catch_up().await {
                Err(StoreError::Away(_)) if Instant::now() + RETRY < deadline => sleep(RETRY).await,
                result => return result,
            }
        }
    }

    fn view(&self) -> watch::Receiver<View> {
        self.log.view()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.log.leadership()
    }

    async fn admit(&self, node: NodeId) -> Result<(), StoreError> {
        match admit(&self.log, &self.proposer, &*self.known, node, Instant::now() + ADMIT).await? {
            Applied::Done | Applied::Node(_) => Ok(()),
            Applied::Refused(Refusal(reason)) => {
                Err(StoreError::NoQuorum(format!("node {node} is not admitted: {reason}")))
            }
        }
    }

    async fn remove(&self, node: NodeId, heir: Option<NodeId>) -> Result<Applied, StoreError> {
        remove(&self.log, &self.proposer, &*self.known, node, heir, Instant::now() + ADMIT).await
    }

    async fn readdress(
        &self,
        node: NodeId,
        rpc: SocketAddr,
        paths: Vec<SocketAddr>,
    ) -> Result<Applied, StoreError> {
        self.propose(Change::Readdress { node, rpc, paths }).await
    }

    fn health(&self) -> StoreHealth {
        StoreHealth {
            kind: StoreKind::Etcd,
            place: Some(self.log.keys.all().to_owned()),
            members: self.members.borrow().clone(),
            trouble: self.log.trouble.borrow().clone(),
        }
    }
}

#[async_trait]
impl OpenStore for EtcdStore {
    fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    async fn initialize(&self) -> Result<(), StoreError> {
        self.log.found().await
    }

    fn peers(&self) -> &Peers {
        &self.peers
    }

    fn rpc(&self) -> SocketAddr {
        self.rpc
    }

    /// The lead is claimed sooner than a node is suspected: then somebody is there to depose it.
    fn hear(&self, ears: Arc<Mutex<Ears>>) {
        let limit = self.timing.election.0;
        let hears = move |node: NodeId| lock(&ears).is_alive(node, clock::now(), limit);
        *self.ears.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(hears));
    }

    async fn shutdown(&self) {
        self.keyring.close();
        self.stop.cancel();
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = listener {
            // It can only have been cancelled.
            let _ = listener.await;
        }
        if let Some(threads) = &self.threads {
            threads.end().await;
        }
    }
}

//! [`Store`] by embedded Raft.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use openraft::{BasicNode, Config, SnapshotPolicy};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    forced::{self, Presumed},
    leader::{self, Leader},
    leadership,
    log::Log,
    machine::Machine,
    network::Network,
    serve::Answerer,
    types::Raft,
};
use crate::{
    cluster::{
        error::ClusterError,
        identity::Identity,
        inspections::Inspections,
        keyring::Keyring,
        promise::PromiseBook,
        store::{Leadership, OpenStore, Store, StoreError, View},
        threads::Threads,
        transport::{self, PeerAnswer, PeerRequest, Peers},
    },
    config::{StoreConfig, Timing},
    core::change::{Applied, Change, Refusal},
    model::{NodeId, Word},
};

/// How long a change is tried for.
const PROPOSE: Duration = Duration::from_secs(5);

/// A snapshot is taken each time the log has grown by so many entries; older entries are deleted.
const SNAPSHOT_EVERY: u64 = 1000;

/// What a store needs beside the node's identity.
#[derive(Clone)]
pub struct OpenOptions {
    pub state_dir: PathBuf,
    pub timing: Timing,
    /// Where the cluster keeps its state.
    pub store: StoreConfig,
    /// Where to listen for peers.
    pub rpc: SocketAddr,
    /// Answers the other nodes' questions about leases.
    pub promises: Arc<dyn PromiseBook>,
    /// Looks at this host for the other nodes.
    pub inspections: Inspections,
}

/// A running member of the cluster. Raft, its connections and its listener run on two threads of
/// their own, so that no other work of the daemon makes a leader late. Dropping it stops them as a
/// crash would, which loses nothing; [`RaftStore::shutdown`] waits for it.
pub struct RaftStore {
    leader: Leader,
    keyring: Keyring,
    presumed: Presumed,
    rpc: SocketAddr,
    view: watch::Receiver<View>,
    stop: CancellationToken,
    listener: Mutex<Option<JoinHandle<()>>>,
    threads: Option<Threads>,
}

/// openraft's own timers, such that `Timing` comes true.
///
/// openraft looks at its timers every 1.5 heartbeat intervals, so a heartbeat every `raft_heartbeat`
/// takes two thirds of it. A follower waits for a leader's lease (the greatest election time-out)
/// and then its own random time-out before it stands for election: together they are to lie between
/// the two times of `Timing::election`.
fn config(timing: &Timing, cluster: &str) -> Config {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX).max(1);
    let heartbeat_interval = (ms(timing.raft_heartbeat) * 2 / 3).max(1);
    let most = (ms(timing.election.1) / 2).max(heartbeat_interval * 2 + 1);
    // No less than two heartbeats: a voter needs the time to sync its vote.
    let least = ms(timing.election.0).saturating_sub(most).clamp(heartbeat_interval * 2, most - 1);
    Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval,
        election_timeout_min: least,
        election_timeout_max: most,
        install_snapshot_timeout: 10_000,
        snapshot_max_chunk_size: 1 << 20,
        max_payload_entries: 256,
        replication_lag_threshold: SNAPSHOT_EVERY * 2,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: SNAPSHOT_EVERY / 2,
        ..Config::default()
    }
}

impl RaftStore {
    /// Reads the state from disk and takes part in the cluster from then on.
    pub async fn open(identity: Identity, options: &OpenOptions) -> Result<Arc<Self>, ClusterError> {
        let threads = Threads::start("vipd-raft")?;
        let options = options.clone();
        let mut store = threads.run(|handle| start(identity, options, handle)).await??;
        store.threads = Some(threads);
        Ok(Arc::new(store))
    }

    /// Requests to the other nodes.
    pub fn peers(&self) -> &Peers {
        self.leader.peers()
    }

    /// Where this node listens for peers.
    pub fn rpc(&self) -> SocketAddr {
        self.rpc
    }

    /// Leaves the threads, closes the listener and all connections.
    pub async fn shutdown(&self) {
        self.keyring.close();
        self.stop.cancel();
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = listener {
            // It can only have been cancelled.
            let _ = listener.await;
        }
        if let Err(e) = self.leader.raft().shutdown().await {
            tracing::warn!("Raft did not stop in order: {e}");
        }
        if let Some(threads) = &self.threads {
            threads.end().await;
        }
    }

    /// Begins a cluster of this node alone, if that was not done before.
    pub(crate) async fn initialize(&self) -> Result<(), StoreError> {
        let raft = self.leader.raft();
        let failed = |e: String| StoreError::Storage(format!("the cluster cannot be founded: {e}"));
        if raft.is_initialized().await.map_err(|e| failed(e.to_string()))? {
            return Ok(());
        }
        let me = self.keyring.identity().node;
        let nodes = BTreeMap::from([(me, BasicNode::new(self.rpc))]);
        raft.initialize(nodes).await.map_err(|e| failed(e.to_string()))
    }

    async fn change_members(&self, request: PeerRequest) -> Result<Applied, StoreError> {
        match self.leader.ask(request, Instant::now() + leader::ADMIT).await?.answer {
            PeerAnswer::Done => Ok(Applied::Done),
            PeerAnswer::Applied(applied) => Ok(applied),
            other => Err(leader::odd(&other)),
        }
    }

    /// Returns once this node has applied that entry.
    async fn applied(&self, index: u64, deadline: Instant) -> Result<(), StoreError> {
        let mut view = self.view.clone();
        match timeout_at(deadline, view.wait_for(|v| v.applied >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(StoreError::NoQuorum("vipd is stopping".into())),
            Err(_) => Err(StoreError::NoQuorum("the newest changes do not arrive here".into())),
        }
    }
}

async fn start(identity: Identity, options: OpenOptions, runtime: Handle) -> Result<RaftStore, ClusterError> {
    let listener = transport::listen(options.rpc)
        .map_err(|source| ClusterError::Listen { address: options.rpc, source })?;
    let rpc =
        listener.local_addr().map_err(|source| ClusterError::Listen { address: options.rpc, source })?;
    let dir = options.state_dir.join("raft");
    let (publish, view) = watch::channel(View::default());
    let machine = Machine::open(&dir, publish)?;
    let log = Log::open(&dir, machine.snapshot())?;
    let (me, cluster) = (identity.node, identity.cluster.clone());
    let keyring = Keyring::new(identity, options.state_dir);
    let credentials = Arc::new(keyring.credentials());
    let peers = Peers::new(credentials.clone(), options.rpc.ip(), &options.timing, runtime);
    let presumed = Presumed::default();
    let pause = options.timing.raft_heartbeat;
    let network = Network { peers: peers.clone(), pause, presumed: presumed.clone() };
    let config = config(&options.timing, &cluster)
        .validate()
        .map_err(|e| StoreError::Storage(format!("the timing does not suit Raft: {e}")))?;
    let raft = Raft::new(me, Arc::new(config), network, log, machine)
        .await
        .map_err(|e| StoreError::Storage(e.to_string()))?;
    let (publish, leadership) = watch::channel(Leadership::default());
    tokio::spawn(leadership::follow(raft.metrics(), publish, peers.clone(), options.timing.election.1));
    let leader = Leader::new(me, raft.clone(), peers, view.clone(), leadership);
    let stop = CancellationToken::new();
    let answerer = Arc::new(Answerer::new(
        raft,
        leader.clone(),
        view.clone(),
        options.promises,
        options.inspections,
        keyring.clone(),
    ));
    let listening = tokio::spawn(transport::serve(listener, credentials, answerer, stop.clone()));
    let (tidy, ended) = (leader.clone(), stop.clone());
    tokio::spawn(async move { ended.run_until_cancelled(tidy.tidy()).await });
    let (returned, ended) = (leader.clone(), stop.clone());
    tokio::spawn(async move { ended.run_until_cancelled(forced::take_back(returned)).await });
    Ok(RaftStore {
        leader,
        keyring,
        presumed,
        rpc,
        view,
        stop,
        listener: Mutex::new(Some(listening)),
        threads: None,
    })
}

impl Drop for RaftStore {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Store for RaftStore {
    async fn propose(&self, change: Change) -> Result<Applied, StoreError> {
        let asked = self.leader.ask(PeerRequest::Propose(change), Instant::now() + PROPOSE).await?;
        match asked.answer {
            // Perhaps refused because the first try was carried out after all: nobody can tell.
            PeerAnswer::Applied(Applied::Refused(Refusal(reason))) if asked.doubtful => {
                Err(StoreError::NoQuorum(format!(
                    "the leader was lost while it made the change; look whether it was made (a second try \
                     was refused: {reason})"
                )))
            }
            PeerAnswer::Applied(applied) => Ok(applied),
            other => Err(leader::odd(&other)),
        }
    }

    async fn go_on_without(&self, node: NodeId, by: Word) -> Result<Applied, StoreError> {
        let me = self.identity().node;
        forced::go_on_without(&self.leader, &self.presumed, me, (node, by)).await
    }

    async fn barrier(&self) -> Result<(), StoreError> {
        let deadline = Instant::now() + PROPOSE;
        match self.leader.ask(PeerRequest::ReadIndex, deadline).await?.answer {
            PeerAnswer::Index(index) => self.applied(index, deadline).await,
            other => Err(leader::odd(&other)),
        }
    }

    fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leader.leadership()
    }

    async fn admit(&self, node: NodeId) -> Result<(), StoreError> {
        let deadline = Instant::now() + leader::ADMIT;
        match self.leader.ask(PeerRequest::Admit(node), deadline).await?.answer {
            PeerAnswer::Done => Ok(()),
            PeerAnswer::Applied(Applied::Refused(Refusal(reason))) => {
                Err(StoreError::NoQuorum(format!("node {node} is not admitted: {reason}")))
            }
            other => Err(leader::odd(&other)),
        }
    }

    async fn remove(&self, node: NodeId, heir: Option<NodeId>) -> Result<Applied, StoreError> {
        self.change_members(PeerRequest::Remove { node, heir }).await
    }

    async fn readdress(
        &self,
        node: NodeId,
        rpc: SocketAddr,
        paths: Vec<SocketAddr>,
    ) -> Result<Applied, StoreError> {
        self.change_members(PeerRequest::Readdress { node, rpc, paths }).await
    }
}

#[async_trait]
impl OpenStore for RaftStore {
    fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    async fn initialize(&self) -> Result<(), StoreError> {
        self.initialize().await
    }

    fn peers(&self) -> &Peers {
        self.peers()
    }

    fn rpc(&self) -> SocketAddr {
        self.rpc()
    }

    async fn shutdown(&self) {
        self.shutdown().await;
    }
}

#[cfg(test)]
mod tests;

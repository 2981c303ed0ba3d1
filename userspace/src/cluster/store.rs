//! The traits that hide how the cluster agrees: embedded Raft ([`super::raft`]), or etcd.

use std::{
    any::Any,
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    error::ClusterError, heartbeat::Ears, identity::Identity, keyring::Keyring, token::Token,
    transport::Peers,
};
use crate::{
    config::StoreKind,
    core::change::{Applied, Change},
    model::{ClusterState, NodeId, Word},
};

/// The state as far as this node has applied it.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub state: Arc<ClusterState>,
    /// Log index of the last change applied.
    pub applied: u64,
}

/// Who leads and who votes, as this node believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    pub leader: Option<NodeId>,
    /// This node leads, as far as it knows.
    pub is_me: bool,
    /// Voters of the effective membership, joint configurations united.
    pub voters: BTreeSet<NodeId>,
    /// Every set of voters of which a majority is needed: one, or two while a change is under way.
    pub configs: Vec<BTreeSet<NodeId>>,
    /// The number of the effective membership; a newer one has a greater.
    pub membership: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("no quorum: {0}")]
    NoQuorum(String),
    #[error("this node is not part of a cluster: use 'vipctl cluster init' or 'vipctl cluster join'")]
    NoCluster,
    #[error("the state on disk cannot be used: {0}")]
    Storage(String),
    /// etcd does not answer. As for `NoQuorum`, the change may have been made.
    #[error("no quorum: {0}")]
    Away(String),
    /// Nothing that passes by itself; the text has the remedy.
    #[error("etcd: {0}")]
    Etcd(String),
}

/// Where the state is kept, and how that is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    pub kind: StoreKind,
    /// Below which keys of etcd.
    pub place: Option<String>,
    pub members: Vec<StoreMember>,
    /// Set while this node is out of touch with its store.
    pub trouble: Option<Trouble>,
}

/// A member of the etcd cluster, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreMember {
    pub endpoint: String,
    /// `leader`, `follower`, `no leader` or `unreachable`.
    pub state: String,
    /// It takes part in decisions.
    pub healthy: bool,
    /// Empty where it is not known.
    pub version: String,
    /// Size of its database.
    pub bytes: u64,
    /// What it complains of, or why it is unreachable.
    pub trouble: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub since: Instant,
    pub reason: String,
}

#[async_trait]
pub trait Store: Send + Sync {
    /// Commits a change, through the leader wherever that is, and answers what it answered when it was
    /// applied. `NoQuorum` does not say whether it was committed: presumptions in the change make a
    /// second try safe.
    async fn propose(&self, change: Change) -> Result<Applied, StoreError>;

    /// Returns once this node has applied everything that was committed when it was called.
    async fn barrier(&self) -> Result<(), StoreError>;

    fn view(&self) -> watch::Receiver<View>;

    fn leadership(&self) -> watch::Receiver<Leadership>;

    /// Makes a reserved node a voter. Only the leader can.
    async fn admit(&self, node: NodeId) -> Result<(), StoreError>;

    /// The other of two voters is dead, somebody says: has the cluster know it, and decides without it from now
    /// on. UNSAFE where it is not dead and may hold its lease alone, or goes on alone as well.
    async fn go_on_without(&self, node: NodeId, by: Word) -> Result<Applied, StoreError> {
        self.propose(Change::DeclareDead { node, by }).await
    }

    /// Forgets a node that owns nothing, which votes no longer from then on; `heir` takes its place. May be repeated.
    async fn remove(&self, node: NodeId, heir: Option<NodeId>) -> Result<Applied, StoreError>;

    /// The node is reached elsewhere from now on. May be repeated.
    async fn readdress(
        &self,
        node: NodeId,
        rpc: SocketAddr,
        paths: Vec<SocketAddr>,
    ) -> Result<Applied, StoreError>;

    /// Where the state is kept, and how that is.
    fn health(&self) -> StoreHealth {
        StoreHealth::default()
    }
}

/// The store of a node that is a member, or on its way to be one. It listens for peers until it is shut down.
#[async_trait]
pub trait OpenStore: Store + Any {
    /// The cluster's keys and who this node is, as they are on disk.
    fn keyring(&self) -> &Keyring;

    /// This node, as it is on disk.
    fn identity(&self) -> Identity {
        self.keyring().identity()
    }

    /// Notes on disk that the cluster has admitted this node.
    fn become_member(&self) -> Result<(), ClusterError> {
        Ok(self.keyring().become_member()?)
    }

    /// Begins a cluster of this node alone, if that was not done before.
    async fn initialize(&self) -> Result<(), StoreError>;

    /// Requests to the other nodes.
    fn peers(&self) -> &Peers;

    /// What another node needs to join now.
    fn token(&self) -> Token {
        let identity = self.identity();
        Token { cluster: identity.cluster, id: identity.id, key: identity.keys.current, rpc: self.rpc() }
    }

    /// Where this node listens for peers.
    fn rpc(&self) -> SocketAddr;

    /// A peer said that this node is not part of the cluster any more.
    fn expelled(&self) -> watch::Receiver<bool> {
        self.peers().expelled()
    }

    /// The others call this node at another address than `rpc`, as far as it knows.
    fn is_believed_elsewhere(&self, rpc: SocketAddr) -> bool {
        self.peers().believed(self.identity().node).is_some_and(|at| at != rpc.to_string())
    }

    /// The heartbeats run from now on.
    fn hear(&self, _ears: Arc<Mutex<Ears>>) {}

    /// Ends all work, closes the listener and all connections. Nothing is written to disk afterwards.
    async fn shutdown(&self);
}

//! The trait that hides how the cluster agrees. Embedded Raft implements it ([`super::raft`]).

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    core::change::{Applied, Change},
    model::{ClusterState, NodeId},
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
    /// Log index of the effective membership.
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
}

//! Answers the other nodes' requests.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::{
    log::Log,
    propose::{Known, Proposer},
};
use crate::{
    cluster::{
        promise::PromiseBook,
        rest,
        store::StoreError,
        transport::{Contact, Handler, PeerAnswer, PeerRequest, Peers},
    },
    config::StoreKind,
    core::change::{Applied, Change, Refusal},
    model::{NodeId, Standing},
};

/// Whoever asks has given up after so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long making a node a voter may take.
pub(crate) const ADMIT: Duration = Duration::from_secs(10);

/// For a node to say how far it is.
const GLANCE: Duration = Duration::from_millis(500);

/// Between two questions whether a node has caught up.
const RETRY: Duration = Duration::from_millis(50);

/// The other nodes, asked over the peers' connections.
pub(crate) struct AskPeers {
    pub(crate) me: NodeId,
    pub(crate) log: Arc<Log>,
    pub(crate) peers: Peers,
}

#[async_trait]
impl Known for AskPeers {
    async fn applied(&self, node: NodeId) -> Option<u64> {
        let image = self.log.image();
        if node == self.me {
            return Some(image.applied);
        }
        let address = image.state.nodes.get(&node)?.rpc.to_string();
        match self.peers.call(&Contact { node, address }, &PeerRequest::Applied, GLANCE).await {
            Ok(PeerAnswer::Index(applied)) => Some(applied),
            Ok(_) | Err(_) => None,
        }
    }
}

/// Makes a reserved node a voter. May be repeated at any point.
pub(crate) async fn admit(
    log: &Log,
    proposer: &Proposer,
    known: &dyn Known,
    node: NodeId,
    deadline: Instant,
) -> Result<Applied, StoreError> {
    log.catch_up().await?;
    let image = log.image();
    let Some(reserved) = image.state.nodes.get(&node) else {
        let rule = format!("node {node} is not reserved; use 'vipctl cluster join' on it");
        return Ok(Applied::Refused(Refusal(rule)));
    };
    if reserved.standing != Standing::Joining {
        return Ok(Applied::Done);
    }
    // Nobody becomes a voter who cannot be reached, or does not see the state: the others would miss its word.
    loop {
        match known.applied(node).await {
            Some(applied) if applied >= image.applied => break,
            _ if Instant::now() + RETRY < deadline => sleep(RETRY).await,
            Some(_) => {
                return Err(StoreError::NoQuorum(format!(
                    "node {node} does not follow the state in etcd: check [store] in its node.toml, and whether it \
                     reaches etcd"
                )));
            }
            None => {
                return Err(StoreError::NoQuorum(format!(
                    "node {node} cannot be reached at {}: check its 'rpc' address and firewalls",
                    reserved.rpc
                )));
            }
        }
    }
    proposer.propose(Change::Admit { node }, deadline).await
}

/// Forgets a node that owns nothing. May be repeated.
pub(crate) async fn remove(
    log: &Log,
    proposer: &Proposer,
    known: &dyn Known,
    node: NodeId,
    heir: Option<NodeId>,
    deadline: Instant,
) -> Result<Applied, StoreError> {
    log.catch_up().await?;
    let state = log.image().state;
    if !state.nodes.contains_key(&node) && node <= state.last_node {
        return Ok(Applied::Done);
    }
    let rest = rest::rest(&log.leadership().borrow().configs, node);
    let voters: BTreeSet<NodeId> = rest.iter().flatten().copied().collect();
    let asked = voters.into_iter().map(|voter| async move { (voter, known.applied(voter).await) });
    let answered = join_all(asked).await.into_iter().filter_map(|(voter, at)| at.map(|_| voter)).collect();
    if let Err(refusal) = rest::check(&state, rest, node, &answered) {
        return Ok(Applied::Refused(refusal));
    }
    proposer.propose(Change::Remove { node, heir }, deadline).await
}

/// `Applied`, or `Done` where there is nothing more to say.
fn done(applied: Applied) -> PeerAnswer {
    match applied {
        Applied::Refused(refusal) => PeerAnswer::Applied(Applied::Refused(refusal)),
        Applied::Done | Applied::Node(_) => PeerAnswer::Done,
    }
}

pub(crate) struct Answerer {
    pub(crate) log: Arc<Log>,
    pub(crate) proposer: Proposer,
    pub(crate) known: Arc<dyn Known>,
    pub(crate) promises: Arc<dyn PromiseBook>,
}

#[async_trait]
impl Handler for Answerer {
    async fn handle(&self, from: NodeId, request: PeerRequest) -> PeerAnswer {
        let name = request.name();
        tracing::trace!("node {from} asks: {name}");
        if self.log.image().state.was_removed(from) {
            return PeerAnswer::Removed;
        }
        let answer = match request {
            PeerRequest::Promise(query) => return PeerAnswer::Promise(self.promises.query(&query)),
            PeerRequest::StoreKind => return PeerAnswer::StoreKind(StoreKind::Etcd),
            PeerRequest::Applied => return PeerAnswer::Index(self.log.image().applied),
            PeerRequest::Reserve(node) => {
                let deadline = Instant::now() + PATIENCE;
                self.proposer.propose(Change::Reserve { node }, deadline).await.map(PeerAnswer::Applied)
            }
            PeerRequest::Admit(node) => {
                let deadline = Instant::now() + ADMIT;
                admit(&self.log, &self.proposer, &*self.known, node, deadline).await.map(done)
            }
            PeerRequest::Remove { node, heir } => {
                let deadline = Instant::now() + ADMIT;
                remove(&self.log, &self.proposer, &*self.known, node, heir, deadline).await.map(done)
            }
            PeerRequest::Readdress { node, rpc, paths } => {
                let deadline = Instant::now() + PATIENCE;
                let change = Change::Readdress { node, rpc, paths };
                self.proposer.propose(change, deadline).await.map(done)
            }
            PeerRequest::AppendEntries(_)
            | PeerRequest::Vote(_)
            | PeerRequest::InstallSnapshot(_)
            | PeerRequest::Propose(_)
            | PeerRequest::ReadIndex => {
                let reason = format!("'{name}' is Raft's, and this cluster keeps its state in etcd");
                return PeerAnswer::Failed { reason };
            }
        };
        answer.unwrap_or_else(|e| PeerAnswer::Failed { reason: e.to_string() })
    }
}

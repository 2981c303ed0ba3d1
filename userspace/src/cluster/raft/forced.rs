//! One of two voters goes on without the other, on the word of an operator, or of the tie-breaker, that the other is
//! dead; and takes it back in when it returns.
//!
//! With two voters both keep every entry before it is committed, so the survivor has all that was ever decided, and
//! loses nothing by going on alone. For as long as it takes to make itself the only voter it *presumes* that the
//! other agrees to what it is sent ([`Presumed`]): so the way there is Raft's own, an election and a change of
//! membership in the log, and a crash at any point leaves a log that either set of voters can go on from. Nothing is
//! presumed after a restart: the order is repeated.
//!
//! The other, when it returns, counts on two voters and has the shorter log: it wins no election, commits nothing,
//! and is taken back in as one that learns before it votes. One that was told to go on alone as well counts on
//! itself only; it is left outside, because its log has another end.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::{
    leader::{self, ADMIT, Leader, odd},
    types::ANY_NODE,
};
use crate::{
    cluster::{
        store::StoreError,
        transport::{Contact, PeerAnswer, PeerRequest},
    },
    core::change::{Applied, Change},
    model::{Node, NodeId, Word},
};

/// An election and a change of membership.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two attempts.
const RETRY: Duration = Duration::from_millis(50);

/// Between two looks whether a node that was declared dead is back.
const LOOK: Duration = Duration::from_secs(1);

/// A voter that is presumed to agree to everything. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presumed(Arc<AtomicU64>);

impl Presumed {
    pub(crate) fn is(&self, node: NodeId) -> bool {
        node != ANY_NODE && self.0.load(Ordering::SeqCst) == node
    }

    fn agrees(&self, node: NodeId) -> Presumption {
        self.0.store(node, Ordering::SeqCst);
        Presumption(self.clone())
    }
}

/// Ends with it.
struct Presumption(Presumed);

impl Drop for Presumption {
    fn drop(&mut self) {
        self.0.0.store(ANY_NODE, Ordering::SeqCst);
    }
}

/// Makes this node the only voter, and has the cluster know that `dead` is dead. May be repeated at any point.
pub(crate) async fn go_on_without(
    leader: &Leader,
    presumed: &Presumed,
    me: NodeId,
    (dead, by): (NodeId, Word),
) -> Result<Applied, StoreError> {
    // Right after its start Raft has not said yet who votes.
    let mut leadership = leader.leadership();
    let known = timeout(PATIENCE, leadership.wait_for(|l| !l.voters.is_empty())).await;
    let voters = known.ok().and_then(Result::ok).map(|l| l.voters.clone()).unwrap_or_default();
    if !voters.contains(&me) || voters.iter().any(|v| ![me, dead].contains(v)) {
        return Err(StoreError::NoQuorum(format!(
            "the voters are nodes {voters:?}: only one of two can go on alone, of more the lost ones may know what \
             this one does not"
        )));
    }
    // What it is presumed to have it need not have when it returns: the presumption must not end before this node is
    // the only voter, also when nobody waits for that any more.
    let (leader, presumption) = (leader.clone(), presumed.agrees(dead));
    let going = tokio::spawn(async move {
        let _presumption = presumption;
        let declared = declare(&leader, dead, by).await;
        exclude(&leader, dead).await?;
        declared
    });
    let late = || StoreError::NoQuorum("this node does not become the only voter, and goes on trying".into());
    match timeout(PATIENCE, going).await {
        Ok(Ok(done)) => done,
        Ok(Err(e)) => Err(StoreError::Storage(format!("vipd is stopping ({e})"))),
        Err(_) => Err(late()),
    }
}

async fn declare(leader: &Leader, node: NodeId, by: Word) -> Result<Applied, StoreError> {
    let request = PeerRequest::Propose(Change::DeclareDead { node, by });
    match leader.ask(request, Instant::now() + PATIENCE).await?.answer {
        PeerAnswer::Applied(applied) => Ok(applied),
        other => Err(odd(&other)),
    }
}

/// Returns once it is no voter any more, or Raft has ended.
async fn exclude(leader: &Leader, node: NodeId) -> Result<(), StoreError> {
    let mut leadership = leader.leadership();
    loop {
        let Ok(lead) = leadership.wait_for(|l| l.is_me).await.map(|l| l.clone()) else {
            return Err(StoreError::NoQuorum("vipd is stopping".into()));
        };
        if !lead.voters.contains(&node) {
            return Ok(());
        }
        if let Err(answer) = leader.disenfranchise(node, Instant::now() + PATIENCE).await {
            tracing::warn!("node {node} is not left out yet: {answer:?}");
            sleep(RETRY).await;
        }
    }
}

/// Takes nodes that were declared dead back in, as the leader, once they answer.
pub(crate) async fn take_back(leader: Leader) {
    loop {
        sleep(LOOK).await;
        if !leader.leadership().borrow().is_me {
            continue;
        }
        let state = leader.state();
        for node in state.nodes.values().filter(|n| n.declared_dead) {
            match returned(&leader, node).await {
                None => {}
                Some(voters) if voters.contains(&leader.me()) => {
                    let deadline = Instant::now() + ADMIT;
                    match leader.lead(PeerRequest::Admit(node.id), deadline).await {
                        PeerAnswer::Done => tracing::info!("node '{}' is taken back in", node.name),
                        other => {
                            tracing::info!("node '{}' cannot be taken back in yet: {other:?}", node.name)
                        }
                    }
                }
                Some(voters) => tracing::warn!(
                    "node '{}' went on alone as well (its voters are {voters:?}) and is left outside: stop \
                     it, delete its state directory, and join it anew under another name",
                    node.name
                ),
            }
        }
    }
}

/// Whom a node that answers counts as voters.
async fn returned(leader: &Leader, node: &Node) -> Option<BTreeSet<NodeId>> {
    let to = Contact { node: node.id, address: node.rpc.to_string() };
    match leader.peers().call(&to, &PeerRequest::Voters, LOOK).await {
        // Empty before its Raft has started.
        Ok(PeerAnswer::Voters(voters)) => (!voters.is_empty()).then_some(voters),
        Ok(other) => {
            tracing::debug!("{}", leader::odd(&other));
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests;

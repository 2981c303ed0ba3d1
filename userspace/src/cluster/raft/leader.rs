//! What only the leader can do: done here when this node leads, asked of the leader otherwise.

mod membership;

use std::{sync::Arc, time::Duration};

use openraft::{
    BasicNode,
    error::{CheckIsLeaderError, ClientWriteError, Fatal, ForwardToLeader, RaftError},
};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout_at},
};

pub(crate) use self::membership::ADMIT;
use super::types::Raft;
use crate::{
    cluster::{
        store::{Leadership, StoreError, View},
        transport::{Contact, PeerAnswer, PeerRequest, Peers},
    },
    core::change::{Applied, Change},
    model::NodeId,
};

/// Between two attempts when nothing better tells when to try again.
const RETRY: Duration = Duration::from_millis(50);

/// For the last word of a leader that was replaced.
const GRACE: Duration = Duration::from_millis(300);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Leader(Arc<Inner>);

struct Inner {
    me: NodeId,
    raft: Raft,
    peers: Peers,
    view: watch::Receiver<View>,
    leadership: watch::Receiver<Leadership>,
    /// Membership changes are made one after another.
    changing: Mutex<()>,
}

pub(crate) struct Asked {
    pub(crate) answer: PeerAnswer,
    /// An earlier try may have been carried out too.
    pub(crate) doubtful: bool,
}

/// For an answer that does not belong to the request.
pub(crate) fn odd(answer: &PeerAnswer) -> StoreError {
    StoreError::NoQuorum(format!("the leader answered something else: {answer:?}"))
}

type Answer = Result<PeerAnswer, PeerAnswer>;

impl Leader {
    pub(crate) fn new(
        me: NodeId,
        raft: Raft,
        peers: Peers,
        view: watch::Receiver<View>,
        leadership: watch::Receiver<Leadership>,
    ) -> Self {
        Self(Arc::new(Inner { me, raft, peers, view, leadership, changing: Mutex::new(()) }))
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.0.raft
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.0.peers
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// Has the leader carry a request out, whoever that is and however often it changes, until the
    /// deadline.
    pub(crate) async fn ask(&self, request: PeerRequest, deadline: Instant) -> Result<Asked, StoreError> {
        let mut leadership = self.leadership();
        let mut doubtful = false;
        let mut hint: Option<Contact> = None;
        let mut hops = 0;
        loop {
            self.sound()?;
            let reason;
            let leader = leadership.borrow_and_update().leader;
            let to = hint.take().or_else(|| leader.and_then(|node| self.0.peers.contact(node)));
            match to {
                None if leader.is_none() => reason = "no leader is known".into(),
                None => reason = "the leader's address is not known".into(),
                Some(to) => match self.send_to_leader(&to, &request, deadline).await {
                    Ok(PeerAnswer::NotLeader { leader }) => {
                        reason = format!("node {} no longer leads", to.node);
                        // Two that take one another for the leader must not keep us running.
                        hops += 1;
                        hint = leader.filter(|l| *l != to && hops % 4 != 0);
                    }
                    Ok(PeerAnswer::Failed { reason: why }) => reason = why,
                    Ok(answer) => return Ok(Asked { answer, doubtful }),
                    Err((why, done)) => {
                        doubtful |= done;
                        reason = why;
                    }
                },
            }
            if Instant::now() >= deadline {
                return Err(StoreError::NoQuorum(reason));
            }
            if hint.is_none() {
                let again = deadline.min(Instant::now() + RETRY);
                // Sooner when the leader changes; its end is noticed above.
                let _ = timeout_at(again, leadership.changed()).await;
            }
        }
    }

    /// As [`Self::send`], until another leads: then the answer of the old leader is waited for no
    /// longer than [`GRACE`].
    async fn send_to_leader(
        &self,
        to: &Contact,
        request: &PeerRequest,
        deadline: Instant,
    ) -> Result<PeerAnswer, (String, bool)> {
        let mut leadership = self.leadership();
        let before = leadership.borrow().leader;
        let other = |l: &Leadership| l.leader.is_some_and(|n| n != to.node) && l.leader != before;
        let mut sending = std::pin::pin!(self.send(to, request, deadline));
        tokio::select! {
            answer = &mut sending => answer,
            _ = async { leadership.wait_for(other).await.map(drop) } => timeout_at(Instant::now() + GRACE, sending)
                .await
                .unwrap_or_else(|_| Err((format!("node {} lost the lead", to.node), true))),
        }
    }

    async fn send(
        &self,
        to: &Contact,
        request: &PeerRequest,
        deadline: Instant,
    ) -> Result<PeerAnswer, (String, bool)> {
        if to.node == self.0.me {
            return timeout_at(deadline, self.lead(request.clone(), deadline))
                .await
                .map_err(|_| ("a majority of the voters does not answer".into(), true));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        self.0.peers.call(to, request, left).await.map_err(|e| (e.to_string(), e.maybe_done()))
    }

    /// Whether Raft runs.
    fn sound(&self) -> Result<(), StoreError> {
        match &self.0.raft.metrics().borrow().running_state {
            Ok(()) => Ok(()),
            Err(Fatal::Stopped) => Err(StoreError::NoQuorum("vipd is stopping".into())),
            Err(e) => Err(StoreError::Storage(format!("{e}; mend it and restart vipd"))),
        }
    }

    /// Carries a request out as the leader; `NotLeader` when this node does not lead.
    pub(crate) async fn lead(&self, request: PeerRequest, deadline: Instant) -> PeerAnswer {
        let answer = match request {
            PeerRequest::Propose(change) => self.write(change).await.map(PeerAnswer::Applied),
            PeerRequest::Reserve(node) => self.write(Change::Reserve { node }).await.map(PeerAnswer::Applied),
            PeerRequest::ReadIndex => self.read_index().await.map(PeerAnswer::Index),
            PeerRequest::Admit(node) => self.admit(node, deadline).await,
            PeerRequest::Remove { node, heir } => self.remove(node, heir, deadline).await,
            PeerRequest::Readdress { node, rpc, paths } => self.readdress(node, rpc, paths, deadline).await,
            other => Err(failed(format!("'{}' is not for the leader", other.name()))),
        };
        answer.unwrap_or_else(|e| e)
    }

    async fn write(&self, change: Change) -> Result<Applied, PeerAnswer> {
        match self.0.raft.client_write(change).await {
            Ok(written) => Ok(written.data),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => Err(forward(to)),
            Err(e) => Err(failed(e.to_string())),
        }
    }

    async fn read_index(&self) -> Result<u64, PeerAnswer> {
        match self.0.raft.get_read_log_id().await {
            Ok((read, _)) => Ok(read.map_or(0, |id| id.index)),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => Err(forward(to)),
            Err(e) => Err(failed(e.to_string())),
        }
    }
}

fn failed(reason: String) -> PeerAnswer {
    PeerAnswer::Failed { reason }
}

fn forward(to: ForwardToLeader<NodeId, BasicNode>) -> PeerAnswer {
    let leader = to.leader_id.zip(to.leader_node);
    PeerAnswer::NotLeader { leader: leader.map(|(node, at)| Contact { node, address: at.addr }) }
}

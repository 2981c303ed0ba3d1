//! Raft's own requests, over the peers' connections.

use std::time::Duration;

use openraft::{
    AnyError, BasicNode, RaftNetwork, RaftNetworkFactory,
    error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable},
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};

use tokio::task::JoinHandle;

use super::{
    forced::Presumed,
    types::{LogId, Types, Vote},
};
use crate::{
    cluster::transport::{Contact, PeerAnswer, PeerError, PeerRequest, Peers, wrong_answer},
    model::NodeId,
};

type Failure<E> = RPCError<NodeId, BasicNode, E>;

pub(crate) struct Network {
    pub(crate) peers: Peers,
    /// After a peer could not be reached.
    pub(crate) pause: Duration,
    pub(crate) presumed: Presumed,
}

pub(crate) struct Client {
    peers: Peers,
    to: Contact,
    pause: Duration,
    presumed: Presumed,
    appending: Option<Appending>,
}

/// openraft waits one heartbeat for the answer to new entries and then sends them again, however
/// large they are and however slow the follower's disk. If it did, and each time were too short, it
/// would never get on. So a request goes on, and the same request again only waits for its answer.
struct Appending {
    vote: Vote,
    prev: Option<LogId>,
    last: LogId,
    answer: JoinHandle<Result<PeerAnswer, PeerError>>,
}

/// An append that takes longer is sent again.
const APPEND: Duration = Duration::from_secs(5);

impl Drop for Appending {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Client {
        let to = Contact { node: target, address: node.addr.clone() };
        let (peers, presumed) = (self.peers.clone(), self.presumed.clone());
        Client { peers, to, pause: self.pause, presumed, appending: None }
    }
}

fn failure<E: std::error::Error>(e: PeerError) -> Failure<E> {
    match e {
        PeerError::Unreachable { .. } | PeerError::Unknown(_) => Unreachable::new(&e).into(),
        PeerError::Unanswered { .. } => NetworkError::new(&e).into(),
    }
}

impl Client {
    async fn call<E: std::error::Error>(
        &self,
        request: PeerRequest,
        option: &RPCOption,
    ) -> Result<PeerAnswer, Failure<E>> {
        self.peers.call(&self.to, &request, option.hard_ttl()).await.map_err(failure)
    }

    fn appended(
        &self,
        answer: PeerAnswer,
    ) -> Result<AppendEntriesResponse<NodeId>, Box<Failure<RaftError<NodeId>>>> {
        match answer {
            PeerAnswer::AppendEntries(result) => result.map_err(|e| Box::new(self.remote(e))),
            other => Err(Box::new(self.odd("append entries", &other))),
        }
    }

    fn odd<E: std::error::Error>(&self, request: &'static str, answer: &PeerAnswer) -> Failure<E> {
        let error = wrong_answer(&self.to, request, answer);
        NetworkError::from(AnyError::new(&error)).into()
    }

    fn remote<E: std::error::Error>(&self, error: E) -> Failure<E> {
        RemoteError::new(self.to.node, error).into()
    }
}

impl RaftNetwork<Types> for Client {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Failure<RaftError<NodeId>>> {
        if self.presumed.is(self.to.node) {
            return Ok(AppendEntriesResponse::Success);
        }
        let Some(newest) = rpc.entries.last().map(|e| e.log_id) else {
            let answer = self.call(PeerRequest::AppendEntries(rpc), &option).await?;
            return self.appended(answer).map_err(|e| *e);
        };
        let holds = |a: &Appending| {
            a.vote == rpc.vote && a.prev == rpc.prev_log_id && rpc.entries.iter().any(|e| e.log_id == a.last)
        };
        let mut beat = None;
        if self.appending.as_ref().is_some_and(holds) {
            let (vote, prev_log_id, leader_commit) = (rpc.vote, rpc.prev_log_id, rpc.leader_commit);
            let empty = AppendEntriesRequest { vote, prev_log_id, entries: Vec::new(), leader_commit };
            beat = Some(PeerRequest::AppendEntries(empty));
        } else {
            let (peers, to) = (self.peers.clone(), self.to.clone());
            let (vote, prev) = (rpc.vote, rpc.prev_log_id);
            let request = PeerRequest::AppendEntries(rpc);
            let answer = tokio::spawn(async move { peers.call(&to, &request, APPEND).await });
            self.appending = Some(Appending { vote, prev, last: newest, answer });
        }
        let Some(appending) = &mut self.appending else { unreachable!("it was just begun") };
        // Given up here by openraft, this goes on; the next call finds it.
        let answer = match beat {
            None => (&mut appending.answer).await,
            Some(beat) => tokio::select! {
                biased;
                answer = &mut appending.answer => answer,
                beat = self.peers.call(&self.to, &beat, option.hard_ttl()) => match beat {
                    Ok(PeerAnswer::AppendEntries(Ok(higher @ AppendEntriesResponse::HigherVote(_)))) => {
                        return Ok(higher);
                    }
                    _ => (&mut appending.answer).await,
                },
            },
        };
        let last = appending.last;
        self.appending = None;
        let answer = answer.map_err(|e| NetworkError::new(&e))?.map_err(failure)?;
        match self.appended(answer).map_err(|e| *e)? {
            AppendEntriesResponse::Success if last != newest => {
                Ok(AppendEntriesResponse::PartialSuccess(Some(last)))
            }
            other => Ok(other),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, Failure<RaftError<NodeId, InstallSnapshotError>>> {
        if self.presumed.is(self.to.node) {
            return Ok(InstallSnapshotResponse { vote: rpc.vote });
        }
        match self.call(PeerRequest::InstallSnapshot(rpc.into()), &option).await? {
            PeerAnswer::InstallSnapshot(result) => result.map_err(|e| self.remote(e)),
            other => Err(self.odd("install snapshot", &other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, Failure<RaftError<NodeId>>> {
        if self.presumed.is(self.to.node) {
            return Ok(VoteResponse { vote: rpc.vote, vote_granted: true, last_log_id: rpc.last_log_id });
        }
        match self.call(PeerRequest::Vote(rpc), &option).await? {
            PeerAnswer::Vote(result) => result.map_err(|e| self.remote(e)),
            other => Err(self.odd("vote", &other)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.pause))
    }
}

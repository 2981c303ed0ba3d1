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

use super::types::Types;
use crate::{
    cluster::transport::{Contact, PeerAnswer, PeerError, PeerRequest, Peers, wrong_answer},
    model::NodeId,
};

type Failure<E> = RPCError<NodeId, BasicNode, E>;

pub(crate) struct Network {
    pub(crate) peers: Peers,
    /// After a peer could not be reached.
    pub(crate) pause: Duration,
}

pub(crate) struct Client {
    peers: Peers,
    to: Contact,
    pause: Duration,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Client {
        let to = Contact { node: target, address: node.addr.clone() };
        Client { peers: self.peers.clone(), to, pause: self.pause }
    }
}

impl Client {
    async fn call<E: std::error::Error>(
        &self,
        request: PeerRequest,
        option: &RPCOption,
    ) -> Result<PeerAnswer, Failure<E>> {
        self.peers.call(&self.to, &request, option.hard_ttl()).await.map_err(|e| match e {
            PeerError::Unreachable { .. } | PeerError::Unknown(_) => Unreachable::new(&e).into(),
            PeerError::Unanswered { .. } => NetworkError::new(&e).into(),
        })
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
        match self.call(PeerRequest::AppendEntries(rpc), &option).await? {
            PeerAnswer::AppendEntries(result) => result.map_err(|e| self.remote(e)),
            other => Err(self.odd("append entries", &other)),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, Failure<RaftError<NodeId, InstallSnapshotError>>> {
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
        match self.call(PeerRequest::Vote(rpc), &option).await? {
            PeerAnswer::Vote(result) => result.map_err(|e| self.remote(e)),
            other => Err(self.odd("vote", &other)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.pause))
    }
}

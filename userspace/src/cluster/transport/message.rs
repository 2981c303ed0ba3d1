//! What nodes ask one another, as JSON.

use std::{collections::BTreeSet, net::SocketAddr};

use base64::{Engine, prelude::BASE64_STANDARD};
use openraft::{
    error::{InstallSnapshotError, RaftError},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::task::spawn_blocking;

use crate::{
    cluster::{
        keyring::KeyOffer,
        promise::{PromiseAnswer, PromiseQuery},
        raft::{SnapshotMeta, Types, Vote},
    },
    config::StoreKind,
    core::{
        change::{Applied, Change, NewNode},
        inspection::{Findings, Inquiry},
    },
    model::NodeId,
};

/// Each sort of request has a connection of its own, on which only so many are carried out at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Traffic {
    /// What keeps the leader leading never waits behind anything else.
    Urgent,
    /// Long or slow.
    Bulk,
    /// Answered when whoever is asked has heard of others: of the network, or of an EC2 that may be silent.
    Inquiry,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerRequest {
    AppendEntries(AppendEntriesRequest<Types>),
    Vote(VoteRequest<NodeId>),
    InstallSnapshot(SnapshotPart),
    /// Only the leader carries it out. Answered with `Applied`.
    Propose(Change),
    /// The index of the last entry that may be committed, once the leader has made sure that it still
    /// leads. Answered with `Index`.
    ReadIndex,
    /// Reserves a number for a joining node. Answered with `Applied`.
    Reserve(NewNode),
    /// Makes a reserved node a voter. Answered with `Done`.
    Admit(NodeId),
    /// Forgets a node that owns nothing, and takes its vote. Answered with `Done`.
    Remove {
        node: NodeId,
        heir: Option<NodeId>,
    },
    /// The node is reached elsewhere from now on. Answered with `Done`.
    Readdress {
        node: NodeId,
        rpc: SocketAddr,
        paths: Vec<SocketAddr>,
    },
    Promise(PromiseQuery),
    /// Where the cluster keeps its state; asked before joining. Answered with `StoreKind`.
    StoreKind,
    /// Whom the node counts as voters. Answered with `Voters`.
    Voters,
    /// How far the node has applied the log in etcd. Answered with `Index`.
    Applied,
    /// To look at itself, before a change is made. Answered with `Inspected`.
    Inspect(Inquiry),
    /// A key that may become the cluster's. Answered with `Done` once it is stored and accepted.
    OfferKey(KeyOffer),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerAnswer {
    AppendEntries(Result<AppendEntriesResponse<NodeId>, RaftError<NodeId>>),
    Vote(Result<VoteResponse<NodeId>, RaftError<NodeId>>),
    InstallSnapshot(Result<InstallSnapshotResponse<NodeId>, RaftError<NodeId, InstallSnapshotError>>),
    Applied(Applied),
    Index(u64),
    Done,
    Promise(PromiseAnswer),
    StoreKind(StoreKind),
    Inspected(Findings),
    Voters(BTreeSet<NodeId>),
    /// Whoever asks is not part of the cluster any more.
    Removed,
    /// Ask the leader, if this node knows it.
    NotLeader {
        leader: Option<Contact>,
    },
    /// Leads and could not do it: no quorum, or a broken disk.
    Failed {
        reason: String,
    },
}

/// Longer messages are coded where they hold nobody up, and travel with the slow requests.
pub(crate) const LONG: usize = 64 << 10;

/// Decodes what a peer sent.
pub(crate) async fn decode<T: DeserializeOwned + Send + 'static>(body: Vec<u8>) -> Result<T, String> {
    let short = body.len() <= LONG;
    let decode = move || serde_json::from_slice(&body).map_err(|e| e.to_string());
    if short { decode() } else { spawn_blocking(decode).await.map_err(|e| e.to_string())? }
}

/// A node and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Contact {
    pub node: NodeId,
    pub address: String,
}

/// `InstallSnapshotRequest` with its bytes as base64, which is a third of the length of a JSON list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotPart {
    vote: Vote,
    meta: SnapshotMeta,
    offset: u64,
    data: String,
    done: bool,
}

impl From<InstallSnapshotRequest<Types>> for SnapshotPart {
    fn from(r: InstallSnapshotRequest<Types>) -> Self {
        let data = BASE64_STANDARD.encode(r.data);
        Self { vote: r.vote, meta: r.meta, offset: r.offset, data, done: r.done }
    }
}

impl TryFrom<SnapshotPart> for InstallSnapshotRequest<Types> {
    type Error = base64::DecodeError;
    fn try_from(p: SnapshotPart) -> Result<Self, Self::Error> {
        let data = BASE64_STANDARD.decode(p.data)?;
        Ok(Self { vote: p.vote, meta: p.meta, offset: p.offset, data, done: p.done })
    }
}

impl PeerRequest {
    /// For errors and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AppendEntries(_) => "append entries",
            Self::Vote(_) => "vote",
            Self::InstallSnapshot(_) => "install snapshot",
            Self::Propose(_) => "propose",
            Self::ReadIndex => "read index",
            Self::Reserve(_) => "reserve",
            Self::Admit(_) => "admit",
            Self::Remove { .. } => "remove",
            Self::Readdress { .. } => "readdress",
            Self::Promise(_) => "promise",
            Self::StoreKind => "store kind",
            Self::Voters => "voters",
            Self::Applied => "applied",
            Self::Inspect(_) => "inspect",
            Self::OfferKey(_) => "offer key",
        }
    }

    /// By which connection it goes.
    pub(crate) fn traffic(&self) -> Traffic {
        match self {
            Self::AppendEntries(_)
            | Self::Vote(_)
            | Self::ReadIndex
            | Self::Promise(_)
            | Self::StoreKind
            | Self::Voters
            | Self::Applied => Traffic::Urgent,
            Self::InstallSnapshot(_)
            | Self::Propose(_)
            | Self::Reserve(_)
            | Self::Admit(_)
            | Self::OfferKey(_)
            | Self::Remove { .. }
            | Self::Readdress { .. } => Traffic::Bulk,
            Self::Inspect(_) => Traffic::Inquiry,
        }
    }
}

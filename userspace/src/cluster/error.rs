//! Why a node is not in the cluster.

use std::{io, net::SocketAddr};

use super::{DiskError, StoreError, transport::PeerError};
use crate::core::change::Refusal;

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot listen for peers on {address}: {source}; check 'rpc' in the node's configuration")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("this node is already '{node}' of cluster '{cluster}': move its state directory away first")]
    AlreadyMember { node: String, cluster: String },
    #[error("joining through {address} failed: {reason}")]
    Join { address: String, reason: String },
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("refused by the cluster: {0}")]
    Refused(#[from] Refusal),
}

//! Why a node is not in the cluster.

use std::{io, net::SocketAddr};

use super::{DiskError, StoreError, transport::PeerError};
use crate::{config::StoreKind, core::change::Refusal};

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
    #[error(
        "node.toml says that the cluster keeps its state in {configured}, and cluster '{cluster}' keeps it in {kept}: \
         set 'kind' of [store] to \"{kept}\" as on its other nodes"
    )]
    OtherStore { cluster: String, configured: StoreKind, kept: StoreKind },
    #[error("joining through {address} failed: {reason}")]
    Join { address: String, reason: String },
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("refused by the cluster: {0}")]
    Refused(#[from] Refusal),
}

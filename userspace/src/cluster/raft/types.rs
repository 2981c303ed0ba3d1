//! What openraft is told about us.

use std::io::Cursor;

use crate::{
    core::change::{Applied, Change},
    model::NodeId,
};

openraft::declare_raft_types!(
    /// The types of our Raft.
    pub Types:
        D = Change,
        R = Applied,
        NodeId = NodeId,
        Node = openraft::BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
);

pub type Raft = openraft::Raft<Types>;
pub type Entry = openraft::Entry<Types>;
pub type LogId = openraft::LogId<NodeId>;
pub type Vote = openraft::Vote<NodeId>;
pub type StoredMembership = openraft::StoredMembership<NodeId, openraft::BasicNode>;
pub type SnapshotMeta = openraft::SnapshotMeta<NodeId, openraft::BasicNode>;
pub type Snapshot = openraft::Snapshot<Types>;
pub type StorageError = openraft::StorageError<NodeId>;
pub type RaftMetrics = openraft::RaftMetrics<NodeId, openraft::BasicNode>;

/// No node has the number 0: a wildcard where a peer is known by its address alone.
pub const ANY_NODE: NodeId = 0;

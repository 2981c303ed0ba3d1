//! The commands of the replicated state. [`apply`] is deterministic: every node computes the same.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::model::{ClusterState, Epoch, LeaseEpoch, NodeId, NodeSettings, Resource, Switchback, Tag};

/// A change, with all that it presumes: where the presumption no longer holds it is refused and
/// changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
pub enum Change {
    /// The first entry of a cluster.
    Found {
        name: String,
        node: NewNode,
    },
    /// Reserves a number for a joining node; answers [`Applied::Node`]. Idempotent by name while the
    /// node is still `Joining` with the same addresses.
    Reserve {
        node: NewNode,
    },
    /// The node is a voter now.
    Admit {
        node: NodeId,
    },
    Create {
        resource: Resource,
        on: NodeId,
    },
    Extend {
        tag: Tag,
        to: NodeId,
        settings: NodeSettings,
    },
    Delete {
        tag: Tag,
    },
    Set {
        tag: Tag,
        node: Option<NodeId>,
        setting: Setting,
    },
    SetPingList {
        node: NodeId,
        subnet: IpNet,
        addresses: Vec<IpAddr>,
    },
    /// An operator's wish; clears the failures that stand in its way.
    InService {
        tag: Tag,
        on: Option<NodeId>,
    },
    OutOfService {
        tag: Tag,
    },
    /// The leader no longer trusts the node with this lease epoch.
    Depose {
        node: NodeId,
        lease_epoch: LeaseEpoch,
    },
    /// The deposed node is proven silent: what it owned is free, and given on in the same step.
    Vacate {
        node: NodeId,
        lease_epoch: LeaseEpoch,
        grants: Vec<NewGrant>,
    },
    /// A deposed node has stopped everything itself; it may be trusted again.
    Rejoin {
        node: NodeId,
        lease_epoch: LeaseEpoch,
    },
    Give {
        grants: Vec<NewGrant>,
    },
    /// Asks the owner to stop.
    Release {
        tag: Tag,
        epoch: Epoch,
    },
    /// What the owner says of its grants.
    Report {
        node: NodeId,
        reports: Vec<Report>,
    },
    /// A failure mark has expired.
    Forgive {
        tag: Tag,
        node: NodeId,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    pub name: String,
    pub rpc: SocketAddr,
    pub paths: Vec<SocketAddr>,
    pub witness: bool,
}

/// Presumes that the resource has no owner and that `epoch` is its newest epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewGrant {
    pub tag: Tag,
    pub to: NodeId,
    pub epoch: Epoch,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub tag: Tag,
    pub epoch: Epoch,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// In service: restored and checked.
    Started,
    /// Stopped as asked: the gate is closed and the address gone.
    Released,
    /// Could not be started, or failed and could not be recovered; stopped again.
    Failed { reason: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    Switchback(Switchback),
    Priority(u16),
    Devices(Vec<String>),
    RestoreAndRecover(bool),
}

/// What a change answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Applied {
    Done,
    Node(NodeId),
    Refused(Refusal),
}

/// Why a change was refused: the rule and the remedy, for an operator to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Applies a change or says why not; a refused change leaves the state as it was.
pub fn apply(_state: &mut ClusterState, _change: &Change) -> Applied {
    Applied::Done // replaced below by its owner
}

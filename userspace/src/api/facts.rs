//! What the daemon knows of heartbeats, published for `vipctl status`. Plain data.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{
    core::time::BootTime,
    model::{NodeId, Tag},
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// This node reaches a majority of the voters.
    pub quorum: bool,
    /// Every other node of the cluster.
    pub peers: BTreeMap<NodeId, PeerFacts>,
}

/// Another host claims an address that is in service here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictFacts {
    pub tag: Tag,
    pub address: IpAddr,
    pub mac: [u8; 6],
    /// Claims that were told of.
    pub count: u64,
    pub last: BootTime,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerFacts {
    /// Heard lately on any path.
    pub alive: bool,
    /// Its lease was valid, as it said itself when last heard.
    pub lease_valid: bool,
    /// In the order of its paths; may be shorter while nothing is known.
    pub paths: Vec<PathFacts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathFacts {
    /// Heard lately on this path.
    pub up: bool,
    /// The peer said that it transmits there: its interface has a carrier.
    pub transmits: bool,
    /// None for never since this daemon started.
    pub last_heard: Option<BootTime>,
    /// What this node's kernel measured; None where the peer's never answered a probe.
    pub kernel: Option<KernelFacts>,
}

/// A path as the kernels at both ends see it, whatever their daemons do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelFacts {
    /// A probe was not answered in time, and none since.
    pub silent: bool,
    /// Round trips from tc egress here to XDP here: the last and the shortest.
    pub rtt: Duration,
    pub rtt_min: Duration,
}

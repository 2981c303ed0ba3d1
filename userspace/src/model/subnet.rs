//! Monitored subnets (rows NM-3, NM-4).

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

/// How a subnet is watched, on every node that may hold addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitoredSubnet {
    /// Addresses to ping: one answer from any suffices. Empty: the peers, and whoever else answers a
    /// broadcast ping.
    pub targets: Vec<IpAddr>,
    /// From one poll to the next.
    pub interval: Duration,
    /// Polls without an answer, one after another, before the subnet counts as down.
    pub fall: u16,
    /// Answered polls, one after another, before it counts as up again.
    pub rise: u16,
}

impl Default for MonitoredSubnet {
    fn default() -> Self {
        Self { targets: Vec::new(), interval: Duration::from_secs(2), fall: 3, rise: 2 }
    }
}

/// A monitored subnet is down on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetDown {
    pub reason: String,
    pub cause: SubnetLoss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubnetLoss {
    /// The node's own interfaces are lost.
    Link,
    /// Nobody answers. That may be the targets' fault, which other nodes then find out, too.
    Silence,
}

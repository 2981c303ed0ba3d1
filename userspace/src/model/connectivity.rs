//! Hosts that every node pings: who reaches more of them is the better place (row CL-8).

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

/// Which hosts, and how they are watched. No hosts: nothing is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connectivity {
    pub hosts: BTreeSet<IpAddr>,
    /// From one poll to the next.
    pub interval: Duration,
    /// Polls without an answer, one after another, before a host counts as lost.
    pub fall: u16,
    /// Answered polls, one after another, before it counts as reached again.
    pub rise: u16,
}

impl Default for Connectivity {
    fn default() -> Self {
        Self { hosts: BTreeSet::new(), interval: Duration::from_secs(2), fall: 3, rise: 2 }
    }
}

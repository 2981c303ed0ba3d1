//! The two profiles and what follows from them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Fails over in about two seconds; does not flap on a busy two-core machine.
    #[default]
    Default,
    /// Fails over in a third of a second; wants a machine whose cores are not all taken.
    Fast,
}

/// All periods that decide how soon a failure is noticed and acted upon. The same on all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a lease lasts from the moment it was asked for.
    pub lease: Duration,
    /// Between two heartbeats, each of which asks for a renewal.
    pub heartbeat: Duration,
    /// Unheard for this long by a majority, a node is suspected. Less than `lease`: the rest of the
    /// lease runs out while the deposition is being agreed.
    pub suspicion: Duration,
    /// Between two probes that the peers' kernels reflect. Cheap: no process of the peer wakes up for them.
    pub probe: Duration,
    /// Unanswered for this long, a probe makes its path silent. Several probes, so that a lost one does not
    /// count, and more than a busy kernel postpones its packets: tens of milliseconds when all cores are taken.
    pub probe_timeout: Duration,
    /// How long a node that was not heard since this daemon started is waited for.
    pub startup_grace: Duration,
    /// Raft leader's heartbeats.
    pub raft_heartbeat: Duration,
    /// Raft election time-out, least and most.
    pub election: (Duration, Duration),
    /// How long a duplicate is waited for before an address is brought up.
    pub duplicate_wait: Duration,
    /// An interface that received nothing for this long although peers transmit is deaf. Several
    /// heartbeats, so that a few lost ones don't count.
    pub deaf_after: Duration,
    /// How long an interface that came back is not preferred to another yet.
    pub link_hold: Duration,
}

impl Profile {
    pub fn timing(self) -> Timing {
        let ms = Duration::from_millis;
        match self {
            Self::Default => Timing {
                lease: ms(2000),
                heartbeat: ms(250),
                suspicion: ms(1500),
                probe: ms(100),
                probe_timeout: ms(400),
                startup_grace: ms(8000),
                raft_heartbeat: ms(200),
                election: (ms(900), ms(1500)),
                duplicate_wait: ms(100),
                deaf_after: ms(3000),
                link_hold: ms(5000),
            },
            Self::Fast => Timing {
                lease: ms(300),
                heartbeat: ms(40),
                suspicion: ms(200),
                probe: ms(20),
                probe_timeout: ms(100),
                startup_grace: ms(3000),
                raft_heartbeat: ms(40),
                election: (ms(150), ms(260)),
                duplicate_wait: ms(20),
                deaf_after: ms(600),
                link_hold: ms(2000),
            },
        }
    }
}

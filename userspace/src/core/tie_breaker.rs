//! Which of two voters that lost one another goes on alone by itself (row CL-4, `two-nodes=tie-breaker`).
//!
//! Leases are as ever: neither has one, and both are silent. So it is about one thing only: that not both go on. The
//! one that reaches a majority of the connectivity hosts may, but where only the links between the two are cut both
//! do. Then they meet on the clients' network: whoever wants to go on *looks* whether anybody answers or probes for
//! the addresses that were in service, and probes for them itself from its first look until it answers for them.
//!
//! - The one that owned most goes *first*. The other waits [`HEAD_START`] longer and hears, in one look, the first's
//!   probes or its answers.
//! - The first does not hear probes for what it held: its kernel drops them while the gates are shut. So when it is
//!   late, and the other may have looked already, it looks for longer than the other takes from its look to its
//!   answers; in that time the other hears it, or it sees the other's answers.
//! - It is late by its own lease, which the other agreed to as long as it heard it: the other's turn comes no sooner
//!   than the same time after that, and [`HEAD_START`].
//!
//! What remains: two that cannot hear one another on the clients' network either.

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use crate::model::{ClusterState, NodeId, Tag};

/// By how much the one that owned less waits longer.
pub const HEAD_START: Duration = Duration::from_secs(5);

/// How long one look takes.
pub const LOOK: Duration = Duration::from_secs(1);

/// Looks of a first that is late, one after another: longer than the other needs from its look to its answers.
const LOOKS_WHEN_LATE: u32 = 10;

/// Between two attempts of the one that goes first.
const RETRY: Duration = Duration::from_secs(1);

/// Addresses of one resource that are looked at: its owner answers for all of them or none.
const SAMPLE: usize = 4;

/// This node of two has lost the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub other: NodeId,
    /// This one goes first: it owned most, or as much and has the lower number.
    pub first: bool,
}

/// None where this node does not go on alone whatever happens.
pub fn case(state: &ClusterState, voters: &BTreeSet<NodeId>, me: NodeId) -> Option<Case> {
    let other = *state.nodes.keys().find(|id| **id != me)?;
    let own = state.nodes.get(&me)?;
    // A word is given once: what comes of it is seen in the voters. A witness has nothing to go on with.
    let may = state.breaks_ties()
        && *voters == BTreeSet::from([me, other])
        && own.standing == crate::model::Standing::Member
        && !own.declared_dead
        && !own.witness;
    may.then(|| {
        let (mine, others) = (owned(state, me).count(), owned(state, other).count());
        Case { other, first: mine > others || (mine == others && me < other) }
    })
}

fn owned(state: &ClusterState, node: NodeId) -> impl Iterator<Item = &Tag> {
    state.placements.iter().filter(move |(_, p)| p.grant.is_some_and(|g| g.owner == node)).map(|(t, _)| t)
}

/// An operator works on the cluster or on one of the two.
pub fn is_maintained(state: &ClusterState) -> bool {
    state.defaults.maintenance || state.nodes.values().any(|n| n.maintenance)
}

/// Addresses whose user tells that somebody goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched<'a> {
    /// Where this node could have them, best first.
    pub devices: &'a [String],
    pub addresses: Vec<IpAddr>,
}

/// What is looked at. The one that waits looks at what the other owned: that is answered first, and it disturbs no
/// bring-up of what the other takes over. The first looks at everything.
pub fn watched(state: &ClusterState, me: NodeId, case: Case) -> Vec<Watched<'_>> {
    let owners = if case.first { vec![me, case.other] } else { vec![case.other] };
    let all = owners.into_iter().flat_map(|owner| owned(state, owner).map(move |tag| (owner, tag)));
    all.filter_map(|(owner, tag)| {
        // What is in EC2 answers nobody on a network.
        let resource = state.resources.get(tag).filter(|r| r.ip().is_some())?;
        let (here, there) = (resource.nodes.get(&me)?, resource.nodes.get(&owner)?);
        let is_on_the_network = there.restore_and_recover && !there.physical;
        let addresses = resource.addresses().iter().take(SAMPLE).map(|net| net.addr()).collect();
        is_on_the_network.then_some(Watched { devices: &here.devices, addresses })
    })
    .collect()
}

/// How long after the other was suspected it is this node's turn. No lease of before is valid then.
pub fn turn(first: bool, lease: Duration, margin: Duration) -> Duration {
    lease + margin + if first { Duration::ZERO } else { HEAD_START }
}

/// The other may have begun, `since_lease` after this node's own lease ran out.
pub fn is_late(since_lease: Duration, suspicion: Duration, margin: Duration) -> bool {
    since_lease > suspicion + margin + HEAD_START / 2
}

/// Who was seen on the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// No address was in service.
    Nothing,
    /// None of the addresses could be looked at.
    Blind,
    Nobody,
    Somebody {
        address: IpAddr,
        mac: String,
        probing: bool,
    },
}

/// What one look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub maintained: bool,
    /// Of the connectivity hosts, by pings of now.
    pub reached: usize,
    pub hosts: usize,
    /// The other has just agreed to something over TCP.
    pub agrees: bool,
    pub seen: Seen,
    pub late: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This node goes on alone.
    Go,
    /// It looks again, at once.
    Again,
    /// It stays as it is, and looks again [`Why::pause`] later.
    Stay(Why),
}

/// Why a node does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    Maintenance,
    Unreached { reached: usize, hosts: usize },
    Agrees,
    Nothing,
    Blind,
    Somebody { address: IpAddr, mac: String, probing: bool },
}

impl Why {
    pub fn pause(&self, first: bool) -> Duration {
        match self {
            Self::Somebody { probing: false, .. } | Self::Agrees => HEAD_START,
            _ if first => RETRY,
            _ => HEAD_START,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maintenance => f.write_str(
                "in maintenance nothing goes on by itself: 'vipctl cluster set maintenance=off' or 'vipctl node \
                 maintenance NODE off' ends it",
            ),
            Self::Unreached { reached, hosts } => write!(
                f,
                "this node reaches {reached} of the {hosts} connectivity hosts, which is no majority: it may be the \
                 one that is cut off"
            ),
            Self::Agrees => f.write_str(
                "it is alive: it answers over TCP, only its heartbeats are not heard (is the UDP port open on every \
                 path?)",
            ),
            Self::Nothing => f.write_str(
                "nothing was in service whose answer would tell whether the other node went on; if it is dead for \
                 certain, 'vipctl cluster force-quorum' says so",
            ),
            Self::Blind => f.write_str(
                "no interface on which the addresses could be looked at works here, so that it is not known whether \
                 the other node answers for them",
            ),
            Self::Somebody { address, mac, probing: false } => {
                write!(f, "{mac} answers for {address}: the other node is alive, or somebody else has its address")
            }
            Self::Somebody { address, mac, probing: true } => {
                write!(f, "{mac} probes for {address}: the other node is alive and about to go on")
            }
        }
    }
}

/// Looks, one after another.
#[derive(Debug, Default)]
pub struct Contest {
    clear: u32,
}

impl Contest {
    pub fn take(&mut self, first: bool, look: Look) -> Step {
        match why_not(first, &look) {
            Some(why) => {
                self.clear = 0;
                Step::Stay(why)
            }
            None => {
                self.clear += 1;
                let wanted = if first && look.late { LOOKS_WHEN_LATE } else { 1 };
                if self.clear < wanted { Step::Again } else { Step::Go }
            }
        }
    }
}

fn why_not(first: bool, look: &Look) -> Option<Why> {
    if look.maintained {
        return Some(Why::Maintenance);
    }
    let (reached, hosts) = (look.reached, look.hosts);
    if reached * 2 <= hosts {
        return Some(Why::Unreached { reached, hosts });
    }
    if look.agrees {
        return Some(Why::Agrees);
    }
    match &look.seen {
        Seen::Nothing if first => None,
        Seen::Nothing => Some(Why::Nothing),
        Seen::Blind => Some(Why::Blind),
        Seen::Nobody => None,
        Seen::Somebody { address, mac, probing } => {
            Some(Why::Somebody { address: *address, mac: mac.clone(), probing: *probing })
        }
    }
}

#[cfg(test)]
mod tests;

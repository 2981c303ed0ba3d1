//! Members of the cluster.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A node's number: given once by the cluster, never reused.
pub type NodeId = u64;

/// The number of a lease period of a node. It rises each time the cluster deposes the node; a lease
/// asked for under an older epoch is refused.
pub type LeaseEpoch = u64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub name: String,
    /// TCP address for consensus and peer requests.
    pub rpc: SocketAddr,
    /// UDP addresses for heartbeats, one per path; path `i` of one node talks to path `i` of another.
    pub paths: Vec<SocketAddr>,
    /// A witness votes and holds no addresses.
    pub witness: bool,
    pub lease_epoch: LeaseEpoch,
    pub standing: Standing,
    /// Holds nothing, by an operator's order: what it has moves away.
    #[serde(default)]
    pub standby: bool,
    /// What it has is neither checked nor moved, and it gets nothing: an operator works on it.
    #[serde(default)]
    pub maintenance: bool,
    /// Why it gave up everything by itself (failfast). It gets nothing until an operator says `online`.
    #[serde(default)]
    pub gave_up: Option<String>,
    /// It may hold its lease by its own agreement alone. While that is so, nobody takes over from it without its
    /// own word (or its kernel's, or an operator's): see `core::quorum`.
    #[serde(default)]
    pub alone: Option<Alone>,
    /// It was said to be dead, and it has not been taken back in since.
    #[serde(default)]
    pub declared_dead: bool,
    /// Who said so.
    #[serde(default)]
    pub declared_by: Word,
}

/// By whose word a node is dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    #[default]
    Operator,
    /// The other one's own, which reached the connectivity hosts (row CL-4).
    TieBreaker,
}

impl Word {
    /// Whose it is, in a sentence.
    pub fn whose(self) -> &'static str {
        match self {
            Self::Operator => "an operator",
            Self::TieBreaker => "the tie-breaker (two-nodes=tie-breaker, no operator)",
        }
    }
}

/// One permission to hold the lease alone. No two are the same, so that what ends an earlier one, and is late,
/// cannot end a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Alone {
    /// The node's incarnation: no two lives of its daemon have the same.
    pub life: u64,
    /// Counted by that life.
    pub turn: u64,
}

impl Node {
    /// May be given resources, as far as operators and the cluster are concerned.
    pub fn is_available(&self) -> bool {
        !self.witness
            && self.standing == Standing::Member
            && !self.standby
            && !self.maintenance
            && self.gave_up.is_none()
    }
}

/// Whether the cluster trusts a node with addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Reserved by `join`, not yet a voter.
    Joining,
    /// A full member.
    Member,
    /// Lost its lease epoch. It owns what it owned until its silence is proven; it is a member again
    /// when it has itself confirmed that it has stopped.
    Deposed,
}

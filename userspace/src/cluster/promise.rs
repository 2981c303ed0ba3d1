//! What voters promise one another about leases, asked before a takeover.

use serde::{Deserialize, Serialize};

use crate::model::{LeaseEpoch, NodeId};

/// "From now on refuse every lease of this node below this epoch; how long does what you promised
/// still run?"
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseQuery {
    pub node: NodeId,
    pub below: LeaseEpoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseAnswer {
    /// Nanoseconds on the answering voter's clock until its last promise to the node has run out,
    /// drift margin included; 0 when there is none.
    pub remaining_ns: u64,
}

/// A voter's memory of its promises.
pub trait PromiseBook: Send + Sync {
    /// The refusal of older epochs must be in force when this returns.
    fn query(&self, query: &PromiseQuery) -> PromiseAnswer;
}

//! Which cluster key is in use, as the replicated state knows it: never the key itself.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{ClusterState, NodeId};

/// The number of a cluster key: given once, never reused. 1 is the key that `cluster init` made.
pub type KeyGeneration = u64;

/// By which nodes tell whether they mean the same key. Not secret.
pub type KeyFingerprint = String;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyState {
    /// Of the key that is to be used.
    pub generation: KeyGeneration,
    /// Of that key; empty for the first one, which was never offered.
    pub fingerprint: KeyFingerprint,
    /// The highest generation ever given.
    pub last: KeyGeneration,
    /// A key that nodes are being handed and nobody uses yet.
    pub offered: Option<OfferedKey>,
    /// Who has not yet said that it uses the key. While there is somebody, the key before is accepted too.
    pub awaited: BTreeSet<NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedKey {
    pub generation: KeyGeneration,
    pub fingerprint: KeyFingerprint,
}

impl Default for KeyState {
    fn default() -> Self {
        Self { generation: 1, fingerprint: String::new(), last: 1, offered: None, awaited: BTreeSet::new() }
    }
}

impl ClusterState {
    /// The nodes, by number, that have not said that they use the cluster's key. Who is no node any more is
    /// not waited for.
    pub fn without_key(&self) -> impl Iterator<Item = NodeId> {
        self.key.awaited.iter().copied().filter(|id| self.nodes.contains_key(id))
    }

    /// The names of those nodes, for people to read; None when there is none.
    pub fn without_key_names(&self) -> Option<String> {
        let names: Vec<String> = self.without_key().map(|id| format!("'{}'", self.node_name(id))).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

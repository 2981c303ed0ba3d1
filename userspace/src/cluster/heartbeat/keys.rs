//! The keys of heartbeats and probes, as the cluster's key changes.

use tokio::sync::watch;

use super::wire::{Key, Message};
use crate::cluster::{identity::ClusterId, keyring::Keys};

/// Of one thread.
pub struct LiveKeys {
    cluster: ClusterId,
    source: watch::Receiver<Keys>,
    used: Key,
    /// Those of others that may not know yet what is used, or know it already.
    others: Vec<Key>,
}

impl LiveKeys {
    pub fn new(cluster: ClusterId, source: watch::Receiver<Keys>) -> Self {
        let (used, others) = derived(&cluster, &source.borrow());
        Self { cluster, source, used, others }
    }

    /// Takes over what was published since. Cheap when that is nothing.
    pub(super) fn refresh(&mut self) {
        // An error says that the store is closed: then they do not change any more.
        if self.source.has_changed().unwrap_or(false) {
            let keys = self.source.borrow_and_update().clone();
            (self.used, self.others) = derived(&self.cluster, &keys);
        }
    }

    /// Under which this node speaks.
    pub(super) fn used(&self) -> &Key {
        &self.used
    }

    /// The other key that is accepted now; the used one when there is none.
    pub(super) fn other(&self) -> &Key {
        self.others.first().unwrap_or(&self.used)
    }

    /// See [`Message::decode`].
    pub(super) fn decode(&self, bytes: &[u8]) -> Option<Message> {
        std::iter::once(&self.used).chain(&self.others).find_map(|key| Message::decode(bytes, key))
    }
}

fn derived(cluster: &ClusterId, keys: &Keys) -> (Key, Vec<Key>) {
    let derive = |k: &crate::cluster::keyring::NumberedKey| Key::derive(&cluster.0, &k.key.0);
    (derive(&keys.current), keys.accepted().skip(1).map(derive).collect())
}

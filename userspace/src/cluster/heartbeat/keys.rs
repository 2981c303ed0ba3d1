//! The keys of heartbeats and probes, as the cluster's key changes.

use super::wire::{Key, Message};
use crate::cluster::{
    identity::ClusterId,
    keyring::{Follower, Keys, NumberedKey},
};

/// Of one thread.
pub struct LiveKeys {
    cluster: ClusterId,
    source: Follower,
    used: Key,
    /// Those of others that may not know yet what is used, or know it already.
    others: Vec<Key>,
}

impl LiveKeys {
    pub fn new(cluster: ClusterId, source: Follower) -> Self {
        let (used, others) = derived(&cluster, &source.keys());
        Self { cluster, source, used, others }
    }

    /// Takes over what was published since. Cheap when that is nothing.
    pub(super) fn refresh(&mut self) {
        if let Some(keys) = self.source.changed() {
            (self.used, self.others) = derived(&self.cluster, &keys);
        }
    }

    /// What was last refreshed is in effect.
    pub(super) fn taken_over(&self) {
        self.source.taken_over();
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
    let derive = |k: &NumberedKey| Key::derive(&cluster.0, &k.key.0);
    (derive(&keys.current), keys.accepted().skip(1).map(derive).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{
            DiskError,
            heartbeat::wire::Body,
            identity::{ClusterKey, Identity, Stage},
            keyring::{KeyOffer, Keyring},
        },
        config::StoreKind,
        core::time::BootTime,
    };

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    fn numbered(generation: u64) -> NumberedKey {
        NumberedKey { generation, key: ClusterKey([generation as u8; 32]) }
    }

    fn beat(generation: u64) -> Vec<u8> {
        let message = Message {
            from: 1,
            to: 2,
            path: 0,
            incarnation: 1,
            sequence: 1,
            asked: BootTime(5),
            lease_epoch: 1,
            body: Body::Ack { asker_incarnation: 3, refused: None },
        };
        message.encode(&Key::derive(&CLUSTER.0, &numbered(generation).key.0))
    }

    /// The generations under which a heartbeat is believed.
    fn heard(keys: &LiveKeys) -> Vec<u64> {
        (1..5).filter(|g| keys.decode(&beat(*g)).is_some()).collect()
    }

    #[test]
    fn heartbeats_are_heard_under_each_accepted_key_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity {
            cluster: "lab".into(),
            id: CLUSTER,
            keys: Keys::only(numbered(1)),
            node: 2,
            name: "b".into(),
            stage: Stage::Member,
            store: StoreKind::Raft,
        };
        let ring = Keyring::new(identity, dir.path().into());
        let mut keys = LiveKeys::new(CLUSTER, ring.follower());
        assert_eq!(heard(&keys), [1]);
        assert_eq!(keys.other().probe(1, 2), keys.used().probe(1, 2), "there is no other");

        ring.take(KeyOffer { follows: 1, key: numbered(2) }).unwrap();
        keys.refresh();
        assert_eq!(heard(&keys), [1, 2]);
        let first = keys.used().probe(1, 2);
        assert_ne!(keys.other().probe(1, 2), first);

        let fingerprint = numbered(2).fingerprint();
        ring.alter(|k| Ok::<_, DiskError>((k.using(2, &fingerprint).unwrap(), ()))).unwrap();
        keys.refresh();
        assert_eq!(heard(&keys), [1, 2]);
        assert_eq!(keys.other().probe(1, 2), first, "what was used is the other one now");

        ring.alter(|k| Ok::<_, DiskError>((k.forgetting_before(2), ()))).unwrap();
        keys.refresh();
        assert_eq!(heard(&keys), [2]);
    }
}

//! The cluster's keys as this node has them, shared by all that use them: connections, heartbeats, probes.
//! They change while the daemon runs ([`super::rekey`]); whatever is published here is durable.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::spawn_blocking, time::timeout};

use super::{
    durable::DiskError,
    heartbeat,
    identity::{ClusterKey, Identity, Stage},
    raft::ANY_NODE,
    transport::{Credentials, PeerAnswer},
};
use crate::model::{KeyFingerprint, KeyGeneration, NodeId};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberedKey {
    pub generation: KeyGeneration,
    pub key: ClusterKey,
}

impl NumberedKey {
    pub fn fingerprint(&self) -> KeyFingerprint {
        let bytes = heartbeat::derive(&self.key.0, [b"vipd fingerprint 1", b"vipd fingerprint 2"]);
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// There are never more than two: an offer tells that nobody needs the one before the present any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Under which this node speaks.
    pub current: NumberedKey,
    /// Offered: others may use it before this node knows that it is to be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<NumberedKey>,
    /// Others may not know yet that it is not to be used any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<NumberedKey>,
}

impl Keys {
    /// Of a new cluster.
    pub fn first(key: ClusterKey) -> Self {
        Self::only(NumberedKey { generation: 1, key })
    }

    pub fn only(current: NumberedKey) -> Self {
        Self { current, pending: None, previous: None }
    }

    /// Under which others may speak; the present one first.
    pub fn accepted(&self) -> impl Iterator<Item = &NumberedKey> {
        [Some(&self.current), self.pending.as_ref(), self.previous.as_ref()].into_iter().flatten()
    }

    fn seen(&self) -> Seen {
        let other = self.accepted().nth(1).map_or(0, |k| k.generation);
        [self.current.generation, other]
    }

    pub fn accepts(&self, generation: KeyGeneration) -> bool {
        self.accepted().any(|k| k.generation == generation)
    }

    /// Whoever has no number yet comes with a token: a former one lets nobody in any more.
    pub fn lets_in(&self, from: NodeId, generation: KeyGeneration) -> bool {
        self.accepts(generation) && (from != ANY_NODE || generation >= self.current.generation)
    }

    /// With the offered key pending; the reason when it is not taken.
    pub fn taking(&self, offer: KeyOffer) -> Result<Self, String> {
        let (used, offered) = (self.current.generation, offer.key.generation);
        if used != offer.follows || offered <= used {
            return Err(format!(
                "it uses the cluster key of generation {used}, and was offered {offered} as the one after {}",
                offer.follows
            ));
        }
        let pending = self.pending.as_ref().filter(|p| p.generation >= offered && **p != offer.key);
        if let Some(known) = pending {
            return Err(format!("it was offered a newer key meanwhile (generation {})", known.generation));
        }
        // Nothing is offered before all nodes use the present key: the one before is done with.
        Ok(Self { current: self.current.clone(), pending: Some(offer.key), previous: None })
    }

    /// With that key as the present one. None: this node was never offered it, or has lost it.
    pub fn using(&self, generation: KeyGeneration, fingerprint: &KeyFingerprint) -> Option<Self> {
        if self.current.generation >= generation {
            return Some(self.clone());
        }
        let fits = |k: &&NumberedKey| k.generation == generation && k.fingerprint() == *fingerprint;
        let current = self.pending.as_ref().filter(fits)?.clone();
        Some(Self { current, pending: None, previous: Some(self.current.clone()) })
    }

    /// Without the key before that of the generation, which all nodes use.
    pub fn forgetting_before(&self, generation: KeyGeneration) -> Self {
        let done = self.current.generation == generation;
        Self { previous: self.previous.clone().filter(|_| !done), ..self.clone() }
    }
}

/// What one node sends to all when the key is to be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOffer {
    /// The generation that all nodes use now.
    pub follows: KeyGeneration,
    pub key: NumberedKey,
}

/// How long those are waited for who use the keys at a pace of their own.
const SETTLE: Duration = Duration::from_secs(1);

/// The generations of the keys that are accepted, the one in use first.
type Seen = [KeyGeneration; 2];

/// The keys as one thread knows them. Says that it has ended when it is dropped.
pub struct Follower {
    keys: watch::Receiver<Keys>,
    seen: Seen,
    taken: watch::Sender<Seen>,
}

impl Follower {
    pub(crate) fn keys(&self) -> Keys {
        self.keys.borrow().clone()
    }

    /// What was published since the last call, if anything was.
    pub(crate) fn changed(&mut self) -> Option<Keys> {
        // An error says that the store is closed: then they do not change any more.
        if !self.keys.has_changed().unwrap_or(false) {
            return None;
        }
        let keys = self.keys.borrow_and_update().clone();
        self.seen = keys.seen();
        Some(keys)
    }

    /// What was last returned is in effect.
    pub(crate) fn taken_over(&self) {
        self.taken.send_if_modified(|taken| std::mem::replace(taken, self.seen) != self.seen);
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>);

struct Inner {
    /// Who uses the keys at a pace of its own.
    followers: Mutex<Vec<watch::Receiver<Seen>>>,
    state_dir: PathBuf,
    /// As it is on disk.
    identity: Mutex<Identity>,
    keys: watch::Sender<Keys>,
    closed: AtomicBool,
}

impl Keyring {
    /// `identity` is on disk in `state_dir`.
    pub fn new(identity: Identity, state_dir: PathBuf) -> Self {
        let keys = watch::Sender::new(identity.keys.clone());
        let followers = Mutex::default();
        Self(Arc::new(Inner {
            followers,
            state_dir,
            identity: Mutex::new(identity),
            keys,
            closed: AtomicBool::new(false),
        }))
    }

    pub fn identity(&self) -> Identity {
        self.lock().clone()
    }

    pub fn keys(&self) -> watch::Receiver<Keys> {
        self.0.keys.subscribe()
    }

    /// The keys for one who says when it has taken them over.
    pub fn follower(&self) -> Follower {
        let keys = self.keys();
        let seen = keys.borrow().seen();
        let (taken, takes) = watch::channel(seen);
        self.0.followers.lock().unwrap_or_else(PoisonError::into_inner).push(takes);
        Follower { keys, seen, taken }
    }

    /// Until all followers use the present keys, which is a matter of milliseconds. One that is stuck is not waited
    /// for: its probes are not understood for a while, which alone has no consequence.
    pub(crate) async fn settled(&self) {
        let wanted = self.0.keys.borrow().seen();
        let mut followers = self.0.followers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = async {
            for follower in &mut followers {
                // An error says that it has ended.
                let _ = follower.wait_for(|seen| *seen == wanted).await;
            }
        };
        if timeout(SETTLE, all).await.is_err() {
            tracing::warn!("a changed cluster key was not taken over by the probes within {SETTLE:?}");
        }
    }

    pub(crate) fn credentials(&self) -> Credentials {
        let identity = self.lock();
        Credentials { id: identity.id, keys: self.keys(), me: identity.node }
    }

    fn lock(&self) -> MutexGuard<'_, Identity> {
        self.0.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// First on disk, then for all to see.
    fn save(&self, mut present: MutexGuard<'_, Identity>, next: Identity) -> Result<(), DiskError> {
        if *present != next {
            if self.0.closed.load(Ordering::Relaxed) {
                let stopping = std::io::Error::other("vipd is stopping");
                return Err(DiskError::io("write", &self.0.state_dir)(stopping));
            }
            next.save(&self.0.state_dir)?;
            self.0.keys.send_if_modified(|keys| {
                let changed = *keys != next.keys;
                keys.clone_from(&next.keys);
                changed
            });
            *present = next;
        }
        Ok(())
    }

    /// Nothing is written from now on: the files may be another life's, or of another cluster.
    pub(crate) fn close(&self) {
        // No write is under way meanwhile.
        let _alone = self.lock();
        self.0.closed.store(true, Ordering::Relaxed);
    }

    /// The cluster has admitted this node.
    pub fn become_member(&self) -> Result<(), DiskError> {
        let present = self.lock();
        let next = Identity { stage: Stage::Member, ..present.clone() };
        self.save(present, next)
    }

    /// Alters the keys; when that fails nothing is altered.
    pub(crate) fn alter<T, E: From<DiskError>>(
        &self,
        change: impl FnOnce(&Keys) -> Result<(Keys, T), E>,
    ) -> Result<T, E> {
        let present = self.lock();
        let (keys, answer) = change(&present.keys)?;
        let next = Identity { keys, ..present.clone() };
        self.save(present, next)?;
        Ok(answer)
    }

    /// Stores a key that may become the cluster's, and accepts it from now on; the reason when not.
    pub fn take(&self, offer: KeyOffer) -> Result<(), String> {
        self.alter(|keys| Ok((keys.taking(offer).map_err(NotTaken)?, ()))).map_err(|NotTaken(reason)| reason)
    }

    /// [`Self::take`] for a peer.
    pub(crate) async fn answer(&self, offer: KeyOffer) -> PeerAnswer {
        let keyring = self.clone();
        match spawn_blocking(move || keyring.take(offer)).await {
            Ok(Ok(())) => {
                self.settled().await;
                PeerAnswer::Done
            }
            Ok(Err(reason)) => PeerAnswer::Failed { reason },
            Err(e) => PeerAnswer::Failed { reason: format!("the key was not stored: {e}") },
        }
    }
}

/// Why an offered key is not taken.
struct NotTaken(String);

impl From<DiskError> for NotTaken {
    fn from(e: DiskError) -> Self {
        Self(e.to_string())
    }
}

#[cfg(test)]
mod tests;

//! The log of changes in etcd, followed by every node.
//!
//! `head` is the index of the newest entry, and an entry is only ever made by a transaction that finds the
//! head as its maker knows it. So all nodes apply the same changes in the same order, whoever makes them.
//!
//! Following is level-triggered: a watch tells of new entries, and whatever it left out is read. Each watch
//! begins with "now" and is followed by a read, so neither a broken watch nor a compaction of etcd's own
//! history loses anything; entries that are deleted already are in the snapshot.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    keys::Keys,
    kv::{Compare, Event, Kv, KvError, Op, Pair, Span},
    machine::{Entry, Image, Machine, voters},
    parts::{self, Parts},
};
use crate::cluster::store::{Leadership, StoreError, Trouble, View};

/// Entries read in one request.
const PAGE: i64 = 256;

/// Bytes of the longest entry that stands in the log itself: a page of them must fit into one answer.
pub(crate) const INLINE: usize = 64 << 10;

/// The longest answer that is taken: a page of entries, or a few parts.
pub(crate) const LONGEST_ANSWER: usize = 32 << 20;

/// A text, or where its parts are.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stored<T> {
    Here(T),
    Parts(Parts),
}

/// The value of the key `snapshot`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Shelf {
    pub(crate) applied: u64,
    pub(crate) image: Stored<Image>,
}

/// Who claims to lead: the value of the key `leader`, which is gone when the claimant's etcd lease is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) node: crate::model::NodeId,
    /// Of this life of the claimant.
    pub(crate) lease: i64,
}

/// A claim, or that there is none, and etcd's revision of that.
pub(crate) type Seen = (i64, Option<Claim>);

pub(crate) struct Log {
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) keys: Keys,
    cluster: String,
    machine: Mutex<Machine>,
    /// Reading on is done by one at a time.
    reading: tokio::sync::Mutex<()>,
    view: watch::Sender<View>,
    leadership: watch::Sender<Leadership>,
    pub(crate) claim: watch::Sender<Seen>,
    pub(crate) trouble: watch::Sender<Option<Trouble>>,
}

impl From<KvError> for StoreError {
    fn from(e: KvError) -> Self {
        match e {
            KvError::Failed(reason) => Self::Away(format!("etcd does not answer: {reason}")),
            KvError::Refused(reason) => Self::Etcd(format!("it refuses: {reason}")),
        }
    }
}

impl Log {
    /// `cluster` is the id of the cluster, `image` what this node remembers of an earlier life.
    pub(crate) fn new(kv: Arc<dyn Kv>, keys: Keys, cluster: String, image: Image) -> Self {
        let log = Self {
            kv,
            keys,
            cluster,
            machine: Mutex::new(Machine::new(image)),
            reading: tokio::sync::Mutex::default(),
            view: watch::Sender::default(),
            leadership: watch::Sender::default(),
            claim: watch::Sender::default(),
            trouble: watch::Sender::default(),
        };
        log.publish(&log.machine());
        log
    }

    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn image(&self) -> Image {
        self.machine().now.clone()
    }

    pub(crate) fn view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    /// Who leads, as the election says; the rest is the log's.
    pub(crate) fn set_leader(&self, term: u64, leader: Option<crate::model::NodeId>, is_me: bool) -> bool {
        self.leadership.send_if_modified(|l| {
            let changed = (l.term, l.leader, l.is_me) != (term, leader, is_me);
            (l.term, l.leader, l.is_me) = (term, leader, is_me);
            changed
        })
    }

    /// The voters first: whoever says that it applied a change of them refuses leases under older ones.
    fn publish(&self, machine: &Machine) {
        let now = &machine.now;
        self.leadership.send_if_modified(|l| {
            let voters = voters(&now.state);
            let changed = l.membership != now.membership || l.voters != voters;
            if changed {
                l.configs = if voters.is_empty() { vec![] } else { vec![voters.clone()] };
                l.voters = voters;
                l.membership = now.membership;
            }
            changed
        });
        self.view.send_if_modified(|v| {
            let changed = v.applied != now.applied;
            *v = View { state: now.state.clone(), applied: now.applied };
            changed
        });
    }

    /// Makes the cluster's first keys. Refused where another cluster has that name.
    pub(crate) async fn found(&self) -> Result<(), StoreError> {
        let compares = vec![Compare::Absent(self.keys.id())];
        let ops = vec![
            Op::Put(self.keys.id(), self.cluster.clone().into_bytes(), None),
            Op::Put(self.keys.head(), b"0".to_vec(), None),
        ];
        self.kv.commit(compares, ops).await?;
        // Done before, by a life that was interrupted or a try whose answer was lost: that looks the same.
        self.catch_up().await
    }

    /// Whether a cluster of that name is there.
    pub(crate) async fn is_taken(kv: &dyn Kv, keys: &Keys) -> Result<bool, StoreError> {
        let look = kv.read(vec![Span::key(keys.id())]).await?;
        Ok(look.spans.iter().any(|pairs| !pairs.is_empty()))
    }

    /// Returns once all is applied that was committed when this was called.
    pub(crate) async fn catch_up(&self) -> Result<(), StoreError> {
        let result = self.read_on().await;
        self.trouble.send_if_modified(|known| {
            let now = result.as_ref().err().map(|e| Trouble {
                since: known.as_ref().map_or_else(Instant::now, |t| t.since),
                reason: match e {
                    StoreError::Away(reason) => reason.clone(),
                    other => other.to_string(),
                },
            });
            let changed = *known != now;
            if known.is_none() != now.is_none() {
                match &now {
                    Some(t) => tracing::warn!("the state cannot be followed: {}", t.reason),
                    None => tracing::info!("etcd answers"),
                }
            }
            *known = now;
            changed
        });
        result
    }

    async fn read_on(&self) -> Result<(), StoreError> {
        let _one = self.reading.lock().await;
        loop {
            let applied = self.image().applied;
            let look = self
                .kv
                .read(vec![
                    Span::key(self.keys.id()),
                    Span::key(self.keys.head()),
                    Span::key(self.keys.leader()),
                    Span::range(self.keys.entries(applied + 1, None), PAGE),
                ])
                .await?;
            let [id, head, leader, entries] = look.spans.as_slice() else {
                return Err(StoreError::Etcd("its answer makes no sense".into()));
            };
            self.check_cluster(id.first())?;
            let head = number(head.first()).ok_or_else(|| self.damaged("the head is not a number"))?;
            if head < applied {
                return Err(self.damaged(&format!(
                    "it ends at change {head}, and this node has applied {applied}: was etcd restored from a backup? \
                     Put the newer state back, or move the nodes' state directories away and found the cluster anew"
                )));
            }
            self.note_claim(look.revision, leader.first());
            let mut at = applied;
            for pair in entries {
                if self.keys.entry_index(&pair.key) != Some(at + 1)
                    || !self.apply_stored(at + 1, pair).await?
                {
                    break;
                }
                at += 1;
            }
            if at >= head {
                return Ok(());
            }
            if at == applied {
                self.load_snapshot(applied).await?;
            }
        }
    }

    fn check_cluster(&self, id: Option<&Pair>) -> Result<(), StoreError> {
        let all = self.keys.all();
        match id {
            Some(id) if id.value == self.cluster.as_bytes() => Ok(()),
            Some(_) => Err(StoreError::Etcd(format!(
                "{all} belongs to another cluster of the same name: check 'endpoints' and 'prefix' in node.toml"
            ))),
            None => Err(StoreError::Etcd(format!(
                "there is nothing of this cluster below {all}: check 'endpoints' and 'prefix' in node.toml, they are \
                 the same on all nodes"
            ))),
        }
    }

    fn damaged(&self, reason: &str) -> StoreError {
        StoreError::Etcd(format!("the log below {} cannot be used: {reason}", self.keys.all()))
    }

    /// False when its parts are gone.
    async fn apply_stored(&self, index: u64, pair: &Pair) -> Result<bool, StoreError> {
        let wrong = |e: serde_json::Error| self.damaged(&format!("entry {index} makes no sense here ({e})"));
        match serde_json::from_slice(&pair.value).map_err(wrong)? {
            Stored::Here(entry) => self.apply(index, &entry, None),
            Stored::Parts(parts) => {
                let Some(text) = parts::read(&*self.kv, &self.keys, &parts).await? else { return Ok(false) };
                self.apply(index, &serde_json::from_slice(&text).map_err(wrong)?, Some(parts));
            }
        }
        Ok(true)
    }

    /// Applies an entry if it is the next one.
    pub(crate) fn apply(&self, index: u64, entry: &Entry, parts: Option<Parts>) {
        let mut machine = self.machine();
        if machine.apply(index, entry) {
            if let Some(parts) = parts {
                machine.long.insert(index, parts);
            }
            self.publish(&machine);
        }
    }

    async fn load_snapshot(&self, applied: u64) -> Result<(), StoreError> {
        let look = self.kv.read(vec![Span::key(self.keys.snapshot())]).await?;
        let pair = look.spans.first().and_then(|s| s.first());
        let pair = pair.ok_or_else(|| self.damaged(&format!("there is no entry {}", applied + 1)))?;
        let wrong = |e: serde_json::Error| self.damaged(&format!("the snapshot makes no sense here ({e})"));
        let shelf: Shelf = serde_json::from_slice(&pair.value).map_err(wrong)?;
        let image: Image = match shelf.image {
            Stored::Here(image) => image,
            Stored::Parts(parts) => match parts::read(&*self.kv, &self.keys, &parts).await? {
                Some(text) => serde_json::from_slice(&text).map_err(wrong)?,
                // Replaced meanwhile by a newer one.
                None => return Ok(()),
            },
        };
        if image.applied <= applied {
            return Err(self.damaged(&format!("there is no entry {}", applied + 1)));
        }
        tracing::info!("going on from the snapshot of change {}", image.applied);
        let mut machine = self.machine();
        machine.jump(image);
        self.publish(&machine);
        Ok(())
    }

    /// Takes what a watch tells; false when something must be read.
    pub(crate) fn take(&self, events: &[Event]) -> bool {
        let mut whole = true;
        for event in events {
            match event {
                Event::Put(pair) if pair.key == self.keys.leader() => {
                    self.note_claim(pair.revision, Some(pair));
                }
                Event::Deleted { key, revision } if *key == self.keys.leader() => {
                    self.note_claim(*revision, None);
                }
                Event::Put(pair) => {
                    let Some(index) = self.keys.entry_index(&pair.key) else { continue };
                    let Ok(Stored::Here(entry)) = serde_json::from_slice(&pair.value) else {
                        whole = false;
                        continue;
                    };
                    self.apply(index, &entry, None);
                    whole &= self.image().applied >= index;
                }
                Event::Deleted { .. } => {}
            }
        }
        whole
    }

    fn note_claim(&self, revision: i64, pair: Option<&Pair>) {
        let claim = pair.and_then(|p| serde_json::from_slice(&p.value).ok());
        // A claim's own revision is its number, not that of the look.
        let revision = pair.map_or(revision, |p| p.revision);
        self.claim.send_if_modified(|seen| {
            let newer = revision > seen.0 && (claim.is_some() || seen.1.is_some());
            if newer {
                *seen = (revision, claim);
            }
            newer
        });
    }

    /// What every transaction presumes: this cluster, and the head as this node knows it.
    pub(crate) fn presumes(&self, head: u64) -> Vec<Compare> {
        vec![
            Compare::Value(self.keys.id(), self.cluster.clone().into_bytes()),
            Compare::Value(self.keys.head(), head.to_string().into_bytes()),
        ]
    }

    /// Entries up to `index` are gone, and with them what referred to their parts.
    pub(crate) fn forget_long(&self, index: u64) {
        let mut machine = self.machine();
        machine.long = machine.long.split_off(&(index + 1));
    }
}

fn number(pair: Option<&Pair>) -> Option<u64> {
    std::str::from_utf8(&pair?.value).ok()?.parse().ok()
}

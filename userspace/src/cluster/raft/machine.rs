//! The state machine and its snapshots, for openraft.
//!
//! Applying an entry touches no disk: a restart replays the log from the last snapshot on.

use std::{
    io::Cursor,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    AnyError, EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder, StorageIOError,
    storage::RaftStateMachine,
};
use tokio::sync::watch;

use super::{
    frame::{self, Taken},
    types::{Entry, LogId, Snapshot, SnapshotMeta, StorageError, StoredMembership, Types},
};
use crate::{
    cluster::{
        durable::{self, DiskError},
        store::View,
    },
    core::change::{self, Applied},
    model::ClusterState,
};

/// A snapshot is the state as JSON.
#[derive(Clone)]
struct Saved {
    meta: SnapshotMeta,
    state: Arc<Vec<u8>>,
}

/// The newest snapshot, in memory and in its file.
struct Shelf {
    path: PathBuf,
    saved: Mutex<Option<Saved>>,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Option<Saved>> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until it is durable. An older snapshot than the present one is left out: one may be
    /// installed while another is being built.
    fn put(&self, saved: Saved) -> Result<(), DiskError> {
        let mut present = self.lock();
        if present.as_ref().is_some_and(|p| p.meta.last_log_id > saved.meta.last_log_id) {
            return Ok(());
        }
        let meta = serde_json::to_vec(&saved.meta)
            .map_err(|e| DiskError::io("encode for", &self.path)(std::io::Error::other(e)))?;
        if saved.state.len() > frame::LONGEST {
            return Err(DiskError::io("write", &self.path)(std::io::Error::other("the state is too large")));
        }
        let mut bytes = Vec::with_capacity(meta.len() + saved.state.len() + 2 * frame::HEADER);
        frame::put(&mut bytes, &meta);
        frame::put(&mut bytes, &saved.state);
        durable::replace(&self.path, &bytes)?;
        *present = Some(saved);
        Ok(())
    }
}

/// The replicated state as far as it is applied here.
pub(crate) struct Machine {
    state: Arc<ClusterState>,
    applied: Option<LogId>,
    membership: StoredMembership,
    shelf: Arc<Shelf>,
    view: watch::Sender<View>,
}

impl Machine {
    /// Starts from the snapshot on disk, if there is one. The receiver of `view` sees every change.
    pub(crate) fn open(dir: &Path, view: watch::Sender<View>) -> Result<Self, DiskError> {
        durable::make_dir(dir)?;
        let path = dir.join("snapshot");
        let mut machine = Self {
            state: Arc::default(),
            applied: None,
            membership: StoredMembership::default(),
            shelf: Arc::new(Shelf { path: path.clone(), saved: Mutex::new(None) }),
            view,
        };
        if let Some(bytes) = durable::read(&path)? {
            let saved = decode(&path, &bytes)?;
            let state = serde_json::from_slice(&saved.state)
                .map_err(|e| DiskError::damaged(&path, 0, format!("not a state ({e})")))?;
            machine.become_state(state, &saved.meta);
            *machine.shelf.lock() = Some(saved);
        }
        Ok(machine)
    }

    /// The last entry that the snapshot on disk has.
    pub(crate) fn snapshot(&self) -> Option<LogId> {
        self.shelf.lock().as_ref().and_then(|s| s.meta.last_log_id)
    }

    fn become_state(&mut self, state: ClusterState, meta: &SnapshotMeta) {
        self.state = Arc::new(state);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
    }

    fn publish(&self) {
        let applied = self.applied.map_or(0, |id| id.index);
        self.view.send_replace(View { state: self.state.clone(), applied });
    }
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Saved, DiskError> {
    let damaged = |reason: &str| DiskError::damaged(path, 0, reason);
    let Taken::Frame { body: meta, rest } = frame::take(bytes) else {
        return Err(damaged("the checksum of its head is wrong"));
    };
    let Taken::Frame { body: state, rest: [] } = frame::take(rest) else {
        return Err(damaged("its checksum is wrong"));
    };
    let meta = serde_json::from_slice(meta).map_err(|e| damaged(&e.to_string()))?;
    Ok(Saved { meta, state: Arc::new(state.to_vec()) })
}

async fn put(shelf: Arc<Shelf>, saved: Saved) -> Result<(), StorageError> {
    let error = |e: AnyError| StorageIOError::new(ErrorSubject::Snapshot(None), ErrorVerb::Write, e);
    tokio::task::spawn_blocking(move || shelf.put(saved))
        .await
        .map_err(|e| error(AnyError::new(&e)))?
        .map_err(|e| error(AnyError::new(&e)))?;
    Ok(())
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            self.applied = Some(entry.log_id);
            answers.push(match entry.payload {
                EntryPayload::Blank => Applied::Done,
                EntryPayload::Normal(change) => change::apply(Arc::make_mut(&mut self.state), &change),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Applied::Done
                }
            });
        }
        self.publish();
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: self.state.clone(),
            applied: self.applied,
            membership: self.membership.clone(),
            shelf: self.shelf.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = Arc::new(snapshot.into_inner());
        let text = bytes.clone();
        let state = tokio::task::spawn_blocking(move || serde_json::from_slice(&text))
            .await
            .map_err(|e| StorageIOError::read_snapshot(Some(meta.signature()), AnyError::new(&e)))?
            .map_err(|e| StorageIOError::read_snapshot(Some(meta.signature()), AnyError::new(&e)))?;
        put(self.shelf.clone(), Saved { meta: meta.clone(), state: bytes }).await?;
        self.become_state(state, meta);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        Ok(self.shelf.lock().as_ref().map(Saved::snapshot))
    }
}

impl Saved {
    fn snapshot(&self) -> Snapshot {
        Snapshot { meta: self.meta.clone(), snapshot: Box::new(Cursor::new(self.state.as_ref().clone())) }
    }
}

/// A state that later changes do not touch, to be written down.
pub(crate) struct Builder {
    state: Arc<ClusterState>,
    applied: Option<LogId>,
    membership: StoredMembership,
    shelf: Arc<Shelf>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let state = self.state.clone();
        let bytes = tokio::task::spawn_blocking(move || serde_json::to_vec(state.as_ref()))
            .await
            .map_err(|e| StorageIOError::read_state_machine(AnyError::new(&e)))?
            .map_err(|e| StorageIOError::read_state_machine(AnyError::new(&e)))?;
        let snapshot_id = match self.applied {
            Some(id) => format!("{}-{}-{}", id.leader_id.term, id.leader_id.node_id, id.index),
            None => "empty".into(),
        };
        let meta =
            SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone(), snapshot_id };
        let saved = Saved { meta, state: Arc::new(bytes) };
        put(self.shelf.clone(), saved.clone()).await?;
        Ok(saved.snapshot())
    }
}

#[cfg(test)]
mod tests;

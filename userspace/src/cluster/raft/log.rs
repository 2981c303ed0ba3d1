//! The log and the vote, for openraft.
//!
//! The entries are also in memory: after each snapshot no more than a few thousand are kept.

use std::{
    collections::VecDeque,
    fmt::Debug,
    fs::{File, OpenOptions},
    ops::{Bound, RangeBounds},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    AnyError, ErrorSubject, ErrorVerb, LogState, OptionalSend, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};

use super::{
    frame::{self, Taken},
    segments::Segments,
    types::{Entry, LogId, StorageError, Types, Vote},
};
use crate::cluster::durable::{self, DiskError};

#[derive(Default)]
struct Memory {
    entries: VecDeque<Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl Memory {
    fn last(&self) -> Option<LogId> {
        self.entries.back().map(|e| e.log_id).or(self.purged)
    }

    fn slice(&self, range: &impl RangeBounds<u64>) -> Vec<Entry> {
        let Some(first) = self.entries.front().map(|e| e.log_id.index) else { return Vec::new() };
        let start = match range.start_bound() {
            Bound::Included(&i) => i,
            Bound::Excluded(&i) => i.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&i) => i.saturating_add(1),
            Bound::Excluded(&i) => i,
            Bound::Unbounded => u64::MAX,
        };
        let at = |index: u64| {
            usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX).min(self.entries.len())
        };
        let (start, end) = (at(start), at(end));
        if start >= end { Vec::new() } else { self.entries.range(start..end).cloned().collect() }
    }
}

/// Cheap to clone; openraft reads through clones while it writes.
#[derive(Clone)]
pub(crate) struct Log {
    dir: PathBuf,
    memory: Arc<Mutex<Memory>>,
    disk: Arc<Mutex<Segments>>,
    committed: Arc<File>,
}

/// A panic elsewhere cannot leave these half changed: no code that can panic runs under the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(subject: ErrorSubject<u64>, verb: ErrorVerb, e: &DiskError) -> StorageError {
    StorageIOError::new(subject, verb, AnyError::new(e)).into()
}

impl Log {
    /// Reads the log from disk. `snapshot`: the last entry that the snapshot has.
    pub(crate) fn open(dir: &Path, snapshot: Option<LogId>) -> Result<Self, DiskError> {
        let (segments, found) = Segments::open(dir)?;
        let vote_file = dir.join("vote");
        let vote = durable::read(&vote_file)?.map(|bytes| read_frame(&vote_file, &bytes)).transpose()?;
        let (file, committed) = open_committed(dir)?;
        let mut memory = Memory { entries: found.entries, purged: found.purged, vote, committed };
        let last = memory.last();
        if memory.committed > last.max(snapshot) {
            // Nothing that was committed can have been in a torn write.
            let (path, offset) = found.cut.unwrap_or_else(|| (dir.to_owned(), 0));
            return Err(DiskError::damaged(
                &path,
                offset,
                "the end of the log, committed entries too, is gone",
            ));
        }
        memory.committed = memory.committed.min(last);
        if let Some((path, offset)) = found.cut {
            tracing::info!("'{}': a torn write was cut off at byte {offset}", path.display());
        }
        Ok(Self {
            dir: dir.to_owned(),
            memory: Arc::new(Mutex::new(memory)),
            disk: Arc::new(Mutex::new(segments)),
            committed: Arc::new(file),
        })
    }

    /// Runs a write where it may block.
    async fn on_disk(
        &self,
        work: impl FnOnce(&mut Segments) -> Result<(), DiskError> + Send + 'static,
    ) -> Result<(), StorageError> {
        let disk = self.disk.clone();
        match tokio::task::spawn_blocking(move || work(&mut lock(&disk))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(failed(ErrorSubject::Logs, ErrorVerb::Write, &e)),
            Err(e) => Err(StorageIOError::write_logs(AnyError::new(&e)).into()),
        }
    }
}

fn read_frame<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, DiskError> {
    let Taken::Frame { body, rest: [] } = frame::take(bytes) else {
        return Err(DiskError::damaged(path, 0, "its checksum is wrong"));
    };
    serde_json::from_slice(body).map_err(|e| DiskError::damaged(path, 0, e.to_string()))
}

/// How much is committed is a hint: after a restart the state is shown as it was before a leader is
/// found. It is not synced, and of no use when it is torn.
fn open_committed(dir: &Path) -> Result<(File, Option<LogId>), DiskError> {
    let path = dir.join("committed");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(DiskError::io("open", &path))?;
    let bytes = durable::read(&path)?.unwrap_or_default();
    let committed = match frame::take(&bytes) {
        Taken::Frame { body, .. } => serde_json::from_slice(body).ok(),
        Taken::End | Taken::Torn(_) | Taken::Damaged(_) => None,
    };
    Ok((file, committed))
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(lock(&self.memory).slice(&range))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let memory = lock(&self.memory);
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let body = serde_json::to_vec(vote).map_err(|e| StorageIOError::write_vote(AnyError::new(&e)))?;
        let mut bytes = Vec::new();
        frame::put(&mut bytes, &body);
        let path = self.dir.join("vote");
        tokio::task::spawn_blocking(move || durable::replace(&path, &bytes))
            .await
            .map_err(|e| StorageIOError::write_vote(AnyError::new(&e)))?
            .map_err(|e| failed(ErrorSubject::Vote, ErrorVerb::Write, &e))?;
        lock(&self.memory).vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(lock(&self.memory).vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let mut bytes = Vec::new();
        if let Some(id) = committed {
            let body = serde_json::to_vec(&id).map_err(|e| StorageIOError::write_logs(AnyError::new(&e)))?;
            frame::put(&mut bytes, &body);
        }
        // Into the page cache only: quick enough to be done here.
        self.committed
            .write_all_at(&bytes, 0)
            .map_err(DiskError::io("write", &self.dir.join("committed")))
            .map_err(|e| failed(ErrorSubject::Logs, ErrorVerb::Write, &e))?;
        lock(&self.memory).committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(lock(&self.memory).committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Arc<Vec<Entry>> = Arc::new(entries.into_iter().collect());
        if !entries.is_empty() {
            let batch = entries.clone();
            self.on_disk(move |disk| disk.append(&batch)).await?;
            // Readable only once durable: what is replicated from here is never lost here.
            lock(&self.memory).entries.extend(Arc::unwrap_or_clone(entries));
        }
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.on_disk(move |disk| disk.truncate(log_id.index)).await?;
        let mut memory = lock(&self.memory);
        while memory.entries.back().is_some_and(|e| e.log_id.index >= log_id.index) {
            memory.entries.pop_back();
        }
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.on_disk(move |disk| disk.purge(log_id)).await?;
        let mut memory = lock(&self.memory);
        while memory.entries.front().is_some_and(|e| e.log_id.index <= log_id.index) {
            memory.entries.pop_front();
        }
        memory.purged = memory.purged.max(Some(log_id));
        Ok(())
    }
}

#[cfg(test)]
mod tests;

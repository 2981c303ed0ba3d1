//! The node's event log: what `vipctl events` shows.
//!
//! Recording never waits: the newest events are kept in memory, each is traced, sent to followers and
//! handed to a thread that appends it to a file. Where that thread is too slow, the file loses events
//! and says how many; memory and followers do not.

mod file;
mod rfc3339;

use std::{
    collections::VecDeque,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::broadcast;

use crate::{
    api::Event,
    model::{Epoch, Tag},
    observe::clock,
};

/// Events kept in memory.
pub const KEPT: usize = 10_000;

/// Events a follower may be behind before it loses some (and is told).
const FOLLOWER_BACKLOG: usize = 4096;

/// What an event is about.
#[derive(Clone, Debug, Default)]
pub struct About {
    pub tag: Option<Tag>,
    pub address: Option<IpAddr>,
    pub epoch: Option<Epoch>,
}

impl About {
    /// About a resource.
    pub fn tag(tag: &Tag) -> Self {
        Self { tag: Some(tag.clone()), ..Self::default() }
    }
}

/// How loud the log line of an event is. A wish of the caller: the event itself is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A decision or a step.
    Debug,
    /// The state changed.
    Info,
    /// A person should look at it.
    Warn,
    /// Function was lost.
    Error,
}

/// Shared, cheap to clone. Keeps the newest events in memory and appends each to the log (tracing).
#[derive(Clone)]
pub struct EventLog {
    inner: Arc<Inner>,
}

struct Inner {
    kept: Mutex<Kept>,
    followers: broadcast::Sender<Event>,
}

struct Kept {
    events: VecDeque<Event>,
    /// Number of the next event.
    next: u64,
    file: Option<file::Writer>,
}

impl EventLog {
    /// Opens the log. With a state directory the events of earlier runs are read from its
    /// `events.jsonl` and new ones appended there; a file that cannot be used is itself an event,
    /// never a reason not to run.
    pub fn open(state_dir: Option<PathBuf>) -> Self {
        let earlier = state_dir.as_deref().map_or_else(Vec::new, |dir| file::read(dir, KEPT));
        let next = earlier.last().map_or(1, |e| e.number + 1);
        let (file, problem) = match state_dir.as_deref().map(file::Writer::start) {
            None => (None, None),
            Some(Ok(writer)) => (Some(writer), None),
            Some(Err(e)) => (None, Some(unusable(state_dir.as_deref(), &e))),
        };
        let kept = Kept { events: earlier.into(), next, file };
        let followers = broadcast::Sender::new(FOLLOWER_BACKLOG);
        let log = Self { inner: Arc::new(Inner { kept: Mutex::new(kept), followers }) };
        if let Some(problem) = problem {
            log.record_at(Level::Warn, About::default(), "events.no-file", problem);
        }
        log
    }

    /// Records that something happened now. `kind` is a stable dotted name.
    pub fn record(&self, about: About, kind: &str, message: impl Into<String>) {
        self.record_at(Level::Info, about, kind, message);
    }

    /// As [`record`](Self::record), for what a person should look at.
    pub fn warn(&self, about: About, kind: &str, message: impl Into<String>) {
        self.record_at(Level::Warn, about, kind, message);
    }

    /// As [`record`](Self::record), with the level of the log line.
    pub fn record_at(&self, level: Level, about: About, kind: &str, message: impl Into<String>) {
        let About { tag, address, epoch } = about;
        let message = message.into();
        trace(level, kind, tag.as_ref(), &message);
        let mut kept = self.kept();
        let event = Event {
            number: kept.next,
            time: rfc3339::format(SystemTime::now()),
            boot_ns: clock::now().0,
            tag,
            address,
            epoch,
            kind: kind.to_owned(),
            message,
        };
        kept.next += 1;
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(event.clone());
        if let Some(file) = &mut kept.file {
            file.append(event.clone());
        }
        // Sent under the lock, so that a follower that subscribes under it has no gap and no double.
        // An error says that nobody follows.
        let _ = self.inner.followers.send(event);
    }

    /// The events kept, oldest first, and a receiver for those to come, without a gap between.
    pub fn follow(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let kept = self.kept();
        (kept.events.iter().cloned().collect(), self.inner.followers.subscribe())
    }

    /// Only those to come.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.inner.followers.subscribe()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing that can panic runs under the lock with the ring half changed.
        self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unusable(dir: Option<&Path>, e: &std::io::Error) -> String {
    let path = file::path(dir.unwrap_or(Path::new("")));
    format!(
        "events are kept in memory only: cannot write {}: {e}; make the directory writable for vipd and \
         restart it",
        path.display()
    )
}

fn trace(level: Level, kind: &str, tag: Option<&Tag>, message: &str) {
    let tag = tag.map_or("", Tag::as_str);
    match level {
        Level::Debug => tracing::debug!(target: "vipd::event", kind, tag, "{message}"),
        Level::Info => tracing::info!(target: "vipd::event", kind, tag, "{message}"),
        Level::Warn => tracing::warn!(target: "vipd::event", kind, tag, "{message}"),
        Level::Error => tracing::error!(target: "vipd::event", kind, tag, "{message}"),
    }
}

#[cfg(test)]
mod tests;

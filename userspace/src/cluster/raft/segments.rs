//! The log on disk: segments that are only ever appended to, and deleted as a whole.
//!
//! ```text
//! <state_dir>/raft/log-0000000000000001   "vipdlog1", then frames
//! <state_dir>/raft/purged                 the last entry that is no longer needed
//! ```
//!
//! A frame holds a batch of entries, or a truncation ("entries from this index on are void"). A
//! truncation is written behind what it makes void, so that no crash in it can lose an entry that
//! stays.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{
    frame::{self, Taken},
    types::{Entry, LogId},
};
use crate::cluster::durable::{self, DiskError};

const MAGIC: &[u8; 8] = b"vipdlog1";

/// A segment longer than this is closed and the next begun.
const SEGMENT_BYTES: u64 = 4 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Record {
    Entries(Vec<Entry>),
    Truncate { from: u64 },
}

/// Only to write: entries need not be copied.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum RecordRef<'a> {
    Entries(&'a [Entry]),
    Truncate { from: u64 },
}

struct Segment {
    path: PathBuf,
    number: u64,
    /// The highest index of any entry in it, void ones too; 0 without any.
    highest: u64,
}

/// Writes the log. Blocks: to be called where that is allowed.
pub(crate) struct Segments {
    dir: PathBuf,
    segments: VecDeque<Segment>,
    /// The last segment, and its length.
    file: Option<(File, u64)>,
    limit: u64,
    /// Until the last write is done, nobody else may use the directory.
    _lock: Flock<File>,
    /// A write failed: what is on disk behind the last good frame is unknown, so nothing may follow.
    broken: bool,
}

/// What was found on disk.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Behind `purged`, without gaps.
    pub(crate) entries: VecDeque<Entry>,
    pub(crate) purged: Option<LogId>,
    /// The last segment ended in a torn frame, which was cut off: file and offset.
    pub(crate) cut: Option<(PathBuf, u64)>,
}

impl Segments {
    pub(crate) fn open(dir: &Path) -> Result<(Self, Found), DiskError> {
        durable::make_dir(dir)?;
        let lock = lock(dir)?;
        let mut found = Found { purged: read_purged(dir)?, ..Found::default() };
        let mut segments = Self {
            dir: dir.to_owned(),
            segments: VecDeque::new(),
            file: None,
            limit: SEGMENT_BYTES,
            _lock: lock,
            broken: false,
        };
        let numbers = list(dir)?;
        for (i, &number) in numbers.iter().enumerate() {
            let path = path(dir, number);
            if i > 0 && number != numbers[i - 1] + 1 {
                return Err(DiskError::damaged(&path, 0, "the segment before this one is missing"));
            }
            let last = i + 1 == numbers.len();
            let (highest, length) = load(&path, last, &mut found)?;
            segments.segments.push_back(Segment { path: path.clone(), number, highest });
            if last {
                let file =
                    OpenOptions::new().append(true).open(&path).map_err(DiskError::io("open", &path))?;
                segments.file = Some((file, length));
            }
        }
        Ok((segments, found))
    }

    /// Durable once this returns.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Result<(), DiskError> {
        let highest = entries.iter().map(|e| e.log_id.index).max().unwrap_or(0);
        self.write(&RecordRef::Entries(entries), highest)
    }

    /// Makes the entries from `from` on void.
    pub(crate) fn truncate(&mut self, from: u64) -> Result<(), DiskError> {
        self.write(&RecordRef::Truncate { from }, 0)
    }

    /// Forgets the entries up to this one, and deletes the segments that hold no other.
    pub(crate) fn purge(&mut self, upto: LogId) -> Result<(), DiskError> {
        let path = self.dir.join("purged");
        let mut bytes = Vec::new();
        frame::put(&mut bytes, &encode(&upto, &path)?);
        durable::replace(&path, &bytes)?;
        let mut deleted = false;
        while self.segments.len() > 1 && self.segments[0].highest <= upto.index {
            let path = &self.segments[0].path;
            fs::remove_file(path).map_err(DiskError::io("delete", path))?;
            self.segments.pop_front();
            deleted = true;
        }
        if deleted { durable::sync_dir(&self.dir) } else { Ok(()) }
    }

    fn write(&mut self, record: &RecordRef<'_>, highest: u64) -> Result<(), DiskError> {
        if self.broken {
            let path = self.segments.back().map_or(&self.dir, |s| &s.path);
            return Err(DiskError::io("append to", path)(std::io::Error::other(
                "an earlier write failed: mend the disk and restart vipd",
            )));
        }
        let body = encode(record, &self.dir)?;
        let mut bytes = Vec::with_capacity(frame::HEADER + body.len());
        frame::put(&mut bytes, &body);
        let written = self.write_frame(&bytes, highest);
        self.broken = written.is_err();
        written
    }

    fn write_frame(&mut self, bytes: &[u8], highest: u64) -> Result<(), DiskError> {
        if self.file.as_ref().is_none_or(|(_, length)| *length >= self.limit) {
            self.begin_segment()?;
        }
        let (Some((file, length)), Some(segment)) = (&mut self.file, self.segments.back_mut()) else {
            unreachable!("a segment was just begun")
        };
        file.write_all(bytes).map_err(DiskError::io("append to", &segment.path))?;
        file.sync_data().map_err(DiskError::io("sync", &segment.path))?;
        *length += bytes.len() as u64;
        segment.highest = segment.highest.max(highest);
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<(), DiskError> {
        let number = self.segments.back().map_or(1, |s| s.number + 1);
        let path = path(&self.dir, number);
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(DiskError::io("create", &path))?;
        file.write_all(MAGIC).map_err(DiskError::io("write", &path))?;
        file.sync_all().map_err(DiskError::io("sync", &path))?;
        durable::sync_dir(&self.dir)?;
        self.file = Some((file, MAGIC.len() as u64));
        self.segments.push_back(Segment { path, number, highest: 0 });
        Ok(())
    }
}

fn lock(dir: &Path) -> Result<Flock<File>, DiskError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(DiskError::io("create", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        DiskError::io("lock", &path)(std::io::Error::other(
            "another vipd uses this state directory: stop it first",
        ))
    })
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("log-{number:016}"))
}

fn encode(value: &impl Serialize, path: &Path) -> Result<Vec<u8>, DiskError> {
    let bytes =
        serde_json::to_vec(value).map_err(|e| DiskError::io("encode for", path)(std::io::Error::other(e)))?;
    if bytes.len() > frame::LONGEST {
        return Err(DiskError::io("append to", path)(std::io::Error::other("the entry is too long")));
    }
    Ok(bytes)
}

fn read_purged(dir: &Path) -> Result<Option<LogId>, DiskError> {
    let path = dir.join("purged");
    let Some(bytes) = durable::read(&path)? else { return Ok(None) };
    let Taken::Frame { body, rest: [] } = frame::take(&bytes) else {
        return Err(DiskError::damaged(&path, 0, "its checksum is wrong"));
    };
    serde_json::from_slice(body).map(Some).map_err(|e| DiskError::damaged(&path, 0, e.to_string()))
}

fn list(dir: &Path) -> Result<Vec<u64>, DiskError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(DiskError::io("list", dir))? {
        let name = entry.map_err(DiskError::io("list", dir))?.file_name();
        if let Some(number) = name.to_str().and_then(|n| n.strip_prefix("log-")?.parse().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads one segment; answers the highest index in it and its length, a torn end cut off.
fn load(path: &Path, last: bool, found: &mut Found) -> Result<(u64, u64), DiskError> {
    let bytes = fs::read(path).map_err(DiskError::io("read", path))?;
    let Some(mut left) = bytes.strip_prefix(MAGIC) else {
        // A crash while the segment was begun: nothing was acknowledged in it.
        if last && MAGIC.starts_with(&bytes) {
            let file = OpenOptions::new().write(true).open(path).map_err(DiskError::io("open", path))?;
            file.set_len(0).map_err(DiskError::io("cut", path))?;
            (&file).write_all(MAGIC).map_err(DiskError::io("write", path))?;
            file.sync_all().map_err(DiskError::io("sync", path))?;
            return Ok((0, MAGIC.len() as u64));
        }
        return Err(DiskError::damaged(path, 0, "not a log segment of vipd"));
    };
    let mut highest = 0;
    loop {
        let offset = (bytes.len() - left.len()) as u64;
        match frame::take(left) {
            Taken::End => return Ok((highest, offset)),
            Taken::Frame { body, rest } => {
                let record: Record = serde_json::from_slice(body)
                    .map_err(|e| DiskError::damaged(path, offset, format!("not a log record ({e})")))?;
                if let Record::Entries(entries) = &record {
                    highest = entries.iter().map(|e| e.log_id.index).fold(highest, u64::max);
                }
                replay(record, found).map_err(|reason| DiskError::damaged(path, offset, reason))?;
                left = rest;
            }
            Taken::Torn(_) if last => {
                let file = OpenOptions::new().write(true).open(path).map_err(DiskError::io("open", path))?;
                file.set_len(offset).map_err(DiskError::io("cut", path))?;
                file.sync_all().map_err(DiskError::io("sync", path))?;
                found.cut = Some((path.to_owned(), offset));
                return Ok((highest, offset));
            }
            Taken::Torn(reason) | Taken::Damaged(reason) => {
                return Err(DiskError::damaged(path, offset, reason));
            }
        }
    }
}

fn replay(record: Record, found: &mut Found) -> Result<(), String> {
    let purged = found.purged.map_or(0, |p| p.index + 1);
    match record {
        Record::Truncate { from } => {
            while found.entries.back().is_some_and(|e| e.log_id.index >= from) {
                found.entries.pop_back();
            }
        }
        Record::Entries(entries) => {
            for entry in entries {
                let index = entry.log_id.index;
                let next = found.entries.back().map_or(purged, |e| e.log_id.index + 1);
                match index {
                    _ if index < purged => {}
                    _ if index == next => found.entries.push_back(entry),
                    _ => return Err(format!("entry {index} where {next} should be")),
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! The file of the event log: JSON lines, appended by a thread of its own, rotated by size.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::{self, JoinHandle},
};

use crate::api::Event;

/// A file this long is renamed to `events.jsonl.1` (replacing that) and a new one begun.
const ROTATE_BYTES: u64 = 8 * 1024 * 1024;

/// Events that may wait for the disk.
const QUEUE: usize = 8192;

pub fn path(dir: &Path) -> PathBuf {
    dir.join("events.jsonl")
}

fn older(dir: &Path) -> PathBuf {
    dir.join("events.jsonl.1")
}

/// The newest `limit` events on disk, oldest first. Lines that cannot be read (a torn last line, another
/// version's) are left out.
pub fn read(dir: &Path, limit: usize) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for path in [older(dir), path(dir)] {
        let Ok(file) = File::open(path) else { continue };
        for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
            if let Ok(event) = serde_json::from_slice::<Event>(&line) {
                events.push(event);
            }
        }
    }
    let surplus = events.len().saturating_sub(limit);
    events.drain(..surplus);
    events
}

/// Hands events to the thread that writes them.
pub struct Writer {
    queue: Option<SyncSender<Event>>,
    thread: Option<JoinHandle<()>>,
    /// Events that found the queue full and are not in the file.
    lost: u64,
}

impl Writer {
    pub fn start(dir: &Path) -> io::Result<Self> {
        let log = Log::open(dir, ROTATE_BYTES)?;
        let (queue, events) = sync_channel(QUEUE);
        let thread = thread::Builder::new().name("vipd-events".into()).spawn(move || write(log, &events))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), lost: 0 })
    }

    /// Never waits.
    pub fn append(&mut self, event: Event) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(event) {
            Ok(()) if self.lost > 0 => {
                let lost = std::mem::take(&mut self.lost);
                tracing::warn!("the disk was too slow: {lost} events are missing from the event file");
            }
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.lost += 1,
            Err(TrySendError::Disconnected(_)) => self.queue = None,
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None; // ends the thread once it has written what waits
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(mut log: Log, events: &Receiver<Event>) {
    let mut failing = false;
    while let Ok(first) = events.recv() {
        let mut result = log.append(&first);
        while let Ok(event) = events.try_recv() {
            result = result.and(log.append(&event));
        }
        result = result.and(log.flush());
        // A full disk stays full: say so once, and again only after it has worked in between.
        if let Err(e) = &result
            && !failing
        {
            tracing::warn!("cannot write {}: {e}; events are kept in memory only", path(&log.dir).display());
        }
        failing = result.is_err();
    }
}

struct Log {
    dir: PathBuf,
    file: BufWriter<File>,
    length: u64,
    rotate: u64,
}

impl Log {
    fn open(dir: &Path, rotate: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path(dir))?;
        let mut length = file.metadata()?.len();
        if length > 0 {
            // A line torn by a crash must not swallow the next one.
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                length += 1;
            }
        }
        Ok(Self { dir: dir.to_owned(), file: BufWriter::new(file), length, rotate })
    }

    fn append(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        if self.length > 0 && self.length + line.len() as u64 > self.rotate {
            self.file.flush()?;
            fs::rename(path(&self.dir), older(&self.dir))?;
            let file = OpenOptions::new().create(true).append(true).open(path(&self.dir))?;
            self.file = BufWriter::new(file);
            self.length = 0;
        }
        self.file.write_all(&line)?;
        self.length += line.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Event {
        Event {
            number,
            time: "2026-01-01T00:00:00.000000Z".into(),
            boot_ns: number,
            tag: None,
            address: None,
            epoch: None,
            kind: "test".into(),
            message: "x".repeat(50),
        }
    }

    fn numbers(events: &[Event]) -> Vec<u64> {
        events.iter().map(|e| e.number).collect()
    }

    #[test]
    fn rotates_by_size_and_reads_both_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 1000).unwrap();
        for n in 1..=10 {
            log.append(&event(n)).unwrap();
        }
        log.flush().unwrap();
        assert!(older(dir.path()).exists());
        assert!(fs::metadata(path(dir.path())).unwrap().len() <= 1000);
        let kept = numbers(&read(dir.path(), 100));
        assert_eq!(kept.last(), Some(&10));
        assert!(kept.windows(2).all(|w| w[1] == w[0] + 1), "{kept:?}");
        assert_eq!(numbers(&read(dir.path(), 2)), [9, 10]);
    }

    #[test]
    fn a_torn_line_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 10_000).unwrap();
        log.append(&event(1)).unwrap();
        log.append(&event(2)).unwrap();
        log.flush().unwrap();
        drop(log);
        let bytes = fs::read(path(dir.path())).unwrap();
        fs::write(path(dir.path()), &bytes[..bytes.len() - 20]).unwrap();
        let mut log = Log::open(dir.path(), 10_000).unwrap();
        log.append(&event(3)).unwrap();
        log.flush().unwrap();
        assert_eq!(numbers(&read(dir.path(), 100)), [1, 3]);
    }

    #[test]
    fn the_writer_writes_all_before_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::start(dir.path()).unwrap();
        for n in 1..=500 {
            writer.append(event(n));
        }
        drop(writer);
        assert_eq!(read(dir.path(), 1000).len(), 500);
    }
}

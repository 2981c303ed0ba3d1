//! Waiting is polling with a deadline.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::interrupt;

/// Between two polls: soon enough to feel immediate, rare enough to leave the CPU to the daemons.
const PAUSE: Duration = Duration::from_millis(40);

/// Polls until the closure succeeds; after `patience` the error names what was waited for and the
/// closure's last reason.
pub fn wait_until<T>(patience: Duration, what: &str, mut closure: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        interrupt::check()?;
        match closure() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                bail!("{what}: not within {patience:?}: {error:#}");
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Pins need a bpffs; containers often come without.
pub(super) fn mount_bpffs() -> Result<()> {
    let at = Path::new("/sys/fs/bpf");
    if statfs(at).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    let none: Option<&str> = None;
    mount(Some("bpf"), at, Some("bpf"), MsFlags::empty(), none)
        .with_context(|| format!("cannot mount bpffs at {}", at.display()))
}

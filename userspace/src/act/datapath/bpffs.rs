//! Where programs, maps and links are pinned: `<pin_dir>/v<LAYOUT_VERSION>/` on a bpffs.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use datapath_common::LAYOUT_VERSION;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::DatapathError;

/// How long a process that is just ending is waited for.
const HANDOVER: Duration = Duration::from_secs(2);

/// Between a version and a number, in the name of a directory that was set aside.
const ASIDE: &str = "-old-";

const STANDARD: &str = "/sys/fs/bpf";

pub(super) fn failed(action: impl Into<String>, reason: impl ToString) -> DatapathError {
    DatapathError::Failed { action: action.into(), reason: reason.to_string() }
}

/// Makes the directory of this layout's pins; mounts the standard bpffs where it is missing.
pub(super) fn prepare(pin_dir: &Path) -> Result<PathBuf, DatapathError> {
    if pin_dir.starts_with(STANDARD) {
        mount_standard()?;
    }
    let dir = version_dir(pin_dir, LAYOUT_VERSION);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.map_err(|error| failed(format!("make the pin directory {}", dir.display()), error))?;
    if !is_bpffs(&dir)? {
        return Err(failed(
            format!("pin BPF objects in {}", dir.display()),
            "it is not on a bpffs: choose a datapath.pin-dir below /sys/fs/bpf, or mount one with \
             `mount -t bpf bpf DIR`",
        ));
    }
    Ok(dir)
}

/// One process at a time may own the pins: a second one, perhaps in another network namespace, would take
/// the first one's interfaces for lost. The lock goes with its process, however that ends.
pub(super) fn lock(pin_dir: &Path) -> Result<Flock<File>, DatapathError> {
    let action = || format!("own the pins in {}", pin_dir.display());
    let mut dir = File::open(pin_dir).map_err(|error| failed(action(), error))?;
    let end = Instant::now() + HANDOVER;
    loop {
        match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < end => {
                dir = back;
                std::thread::sleep(HANDOVER / 100);
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(failed(
                    action(),
                    "another running (or stopped) vipd uses them: give each its own datapath.pin-dir, or end the other",
                ));
            }
            Err((_, error)) => return Err(failed(action(), error)),
        }
    }
}

pub(super) fn version_dir(pin_dir: &Path, version: u32) -> PathBuf {
    pin_dir.join(format!("v{version}"))
}

/// Renames this layout's directory, to make place for another; answers its new path. A directory that was
/// set aside earlier stays beside it.
pub(super) fn set_aside(dir: &Path) -> Result<PathBuf, DatapathError> {
    let action = || format!("set the pins in {} aside", dir.display());
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let aside =
        (1_u32..).map(|n| dir.with_file_name(format!("{name}{ASIDE}{n}"))).find(|path| !path.exists());
    let aside = aside.ok_or_else(|| failed(action(), "too many of them"))?;
    fs::rename(dir, &aside).map_err(|error| failed(action(), error))?;
    DirBuilder::new().mode(0o700).create(dir).map_err(|error| failed(action(), error))?;
    Ok(aside)
}

/// Directories of pins that other versions of the layout have left, or that were set aside.
pub(super) fn other_versions(pin_dir: &Path) -> Vec<PathBuf> {
    let ours = version_dir(pin_dir, LAYOUT_VERSION);
    entries(pin_dir)
        .into_iter()
        .filter(|path| *path != ours && version(path).is_some() && path.is_dir())
        .collect()
}

/// Which version of the layout has its pins there.
pub(super) fn version(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?.strip_prefix('v')?;
    let number = match name.split_once(ASIDE) {
        Some((number, n)) => n.parse::<u32>().ok().map(|_| number)?,
        None => name,
    };
    number.parse().ok()
}

/// The paths in a directory, in order; none when it cannot be read.
pub(super) fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// It is no error when it is gone already.
pub(super) fn remove(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(format!("remove the pin {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Removes a directory of pins and all in it. Links come first: no program may outlive its maps' names.
pub(super) fn remove_dir(dir: &Path) -> Result<(), DatapathError> {
    let (links, rest): (Vec<_>, Vec<_>) =
        entries(dir).into_iter().partition(|path| super::links::Pin::parse(path).is_some());
    for path in &links {
        super::links::release(path)?;
    }
    for path in &rest {
        remove(path)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(format!("remove the pin directory {}", dir.display()), error))
        }
        _ => Ok(()),
    }
}

/// Removes all pins of all versions.
pub(super) fn remove_all(pin_dir: &Path) -> Result<(), DatapathError> {
    for dir in entries(pin_dir).into_iter().filter(|path| version(path).is_some() && path.is_dir()) {
        remove_dir(&dir)?;
    }
    // Anything else in there is not ours; then the directory stays.
    let _ = fs::remove_dir(pin_dir);
    Ok(())
}

fn is_bpffs(path: &Path) -> Result<bool, DatapathError> {
    let stat = statfs(path)
        .map_err(|error| failed(format!("look at the file system of {}", path.display()), error))?;
    Ok(stat.filesystem_type() == BPF_FS_MAGIC)
}

/// Two daemons (of two network namespaces) that start together must not mount one over the other's
/// pins: the look and the mount happen under a lock.
fn mount_standard() -> Result<(), DatapathError> {
    let action = || format!("mount a bpffs at {STANDARD}");
    let parent = File::open("/sys/fs").map_err(|error| failed(action(), error))?;
    let _lock = Flock::lock(parent, FlockArg::LockExclusive).map_err(|(_, error)| failed(action(), error))?;
    if is_bpffs(Path::new(STANDARD))? {
        return Ok(());
    }
    mount(Some("bpf"), STANDARD, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .map_err(|error| failed(action(), format!("{error} (vipd needs CAP_SYS_ADMIN for that)")))
}

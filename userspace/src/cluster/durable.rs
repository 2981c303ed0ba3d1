//! Files that survive a crash: replaced as a whole, or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A file of the state directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("cannot {action} '{}': {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("'{}' is damaged at byte {offset}: {reason}; {remedy}", path.display())]
    Damaged { path: PathBuf, offset: u64, reason: String, remedy: &'static str },
}

/// What to do about a node whose own copy of the cluster's state is damaged.
pub(crate) const REJOIN: &str = "the other nodes still have the state: check the disk, move the state \
     directory away and let this node join the cluster again under a new name";

impl DiskError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), offset, reason: reason.into(), remedy: REJOIN }
    }
}

/// Makes a directory with all its parents, and their entries durable.
pub(crate) fn make_dir(dir: &Path) -> Result<(), DiskError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_dir(parent)?;
    }
    match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(DiskError::io("make", dir)(e)),
        _ => dir.parent().map_or(Ok(()), sync_dir),
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), DiskError> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|d| d.sync_all()).map_err(DiskError::io("sync", dir))
}

/// Puts `bytes` in place of the file: whoever reads it, at whatever moment of a crash, finds the old
/// content or the new, whole. Only the owner can read it. Durable once this returns.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(DiskError::io("create", &fresh))?;
    file.write_all(bytes).map_err(DiskError::io("write", &fresh))?;
    file.sync_all().map_err(DiskError::io("sync", &fresh))?;
    fs::rename(&fresh, path).map_err(DiskError::io("replace", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// The whole file, or None when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(DiskError::io("read", path)(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_a_file_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file");
        make_dir(path.parent().unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), None);
        replace(&path, b"one and more").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing left behind");
    }

    #[test]
    fn errors_name_the_file() {
        let e = replace(Path::new("/proc/nowhere/file"), b"").unwrap_err();
        assert!(e.to_string().contains("/proc/nowhere/file.new"), "{e}");
    }
}

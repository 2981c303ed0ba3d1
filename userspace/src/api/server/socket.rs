//! The socket in the file system: taken safely, removed at the end.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::Gid,
};
use tokio::net::UnixListener;

use super::BindError;

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// The right to a socket path, held as a file lock beside it: of two daemons that start at once only
/// one gets it, and a socket whose lock is free belongs to nobody alive.
pub struct Claim {
    path: PathBuf,
    /// Of the socket made here: another's is not removed.
    inode: u64,
    _lock: Flock<File>,
}

impl Claim {
    pub fn take(path: PathBuf, group: Option<Gid>) -> Result<(Self, UnixListener), BindError> {
        let io = |action| {
            let path = path.clone();
            move |source| BindError::Io { action, path, source }
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(io("make the directory of"))?;
        }
        let lock_path =
            PathBuf::from(std::ffi::OsStr::from_bytes(&[path.as_os_str().as_bytes(), b".lock"].concat()));
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(lock_path)
            .map_err(io("make the lock of"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| match e {
            Errno::EWOULDBLOCK => BindError::Taken(path.clone()),
            e => io("lock")(e.into()),
        })?;
        clear(&path)?;
        let listener = UnixListener::bind(&path).map_err(io("listen on"))?;
        // Between bind and here the mode is the umask's; the credentials of every caller are checked
        // in any case.
        if let Some(gid) = group {
            chown(&path, None, Some(gid.as_raw())).map_err(io("give to its group"))?;
        }
        fs::set_permissions(&path, Permissions::from_mode(MODE)).map_err(io("set the mode of"))?;
        let inode = fs::metadata(&path).map_err(io("look at"))?.ino();
        Ok((Self { path, inode, _lock: lock }, listener))
    }
}

/// Removes a socket that nobody answers.
fn clear(path: &Path) -> Result<(), BindError> {
    let io = |action| {
        let path = path.to_owned();
        move |source| BindError::Io { action, path, source }
    };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io("look at")(e)),
        Ok(m) if !m.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    // The lock may have been removed under a living daemon (a cleaner of /run): ask the socket too.
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(io("remove")),
        Ok(_) => Err(BindError::Taken(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io("find out whether anybody serves")(e)),
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

//! BPF_LINK_DETACH: off the interface before the call returns. Removing a link's pin alone lets the
//! kernel detach some moments later, when the pin's inode is freed.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::libc;

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;

/// `bpf_attr` of BPF_OBJ_GET.
#[repr(C)]
#[derive(Default)]
struct Get {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `bpf_attr` of BPF_LINK_DETACH.
#[repr(C)]
#[derive(Default)]
struct Detach {
    link_fd: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: bpf(2) reads and writes at most the given size of a live, exclusively borrowed structure
    // that is laid out as the kernel expects for this command.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *mut T, size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Detaches the link that is pinned here. The pin stays, as a link to nothing.
pub(super) fn detach_pinned(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut get = Get { pathname: name.as_ptr() as u64, ..Get::default() };
    let fd = bpf(BPF_OBJ_GET, &mut get)?;
    // SAFETY: the kernel has just given us this descriptor; nobody else knows it.
    let link = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    bpf(BPF_LINK_DETACH, &mut Detach { link_fd: link.as_raw_fd() as u32 })?;
    Ok(())
}

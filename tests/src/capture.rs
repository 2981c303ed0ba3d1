//! Records every frame by which somebody claims or uses a watched address, inside one namespace.

use std::{
    collections::HashSet,
    io::IoSliceMut,
    net::IpAddr,
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::Socket;

use crate::{
    frames::{self, Mac},
    netns::NetNs,
    timeline::{Moment, Record, Timeline},
};

/// Enough for a second of a busy segment while this process does not get a CPU.
const BUFFER: usize = 64 << 20;

/// A reader thread; it stops when this is dropped.
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    watched: RwLock<HashSet<IpAddr>>,
    timeline: Mutex<Timeline>,
    stop: AtomicBool,
}

impl Capture {
    /// Starts to listen on the interface of the namespace. Frames that `own` sent do not count.
    pub fn start(ns: &NetNs, interface: &str, own: Mac) -> Result<Self> {
        let shared = Arc::new(Shared {
            watched: RwLock::default(),
            timeline: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let socket = packet_socket(ns, interface)?;
        // Not permitted to be this large? Then what is permitted has to do.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).context("no time stamps for frames")?;
        socket.set_read_timeout(Some(Duration::from_millis(50))).context("no time-out for reading")?;
        let reader = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("capture".into())
            .spawn(move || read(&socket, own, &reader))
            .context("no thread for the capture")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Records these addresses as well from now on.
    pub fn watch(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.shared.watched.write().unwrap_or_else(PoisonError::into_inner).extend(addresses);
    }

    /// What was seen so far.
    pub fn timeline(&self) -> Timeline {
        self.shared.timeline.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at what was seen so far without copying it.
    pub fn look<T>(&self, closure: impl FnOnce(&Timeline) -> T) -> T {
        closure(&self.shared.timeline.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within its read time-out; a panic inside has been printed already.
            let _ = thread.join();
        }
    }
}

fn read(socket: &Socket, own: Mac, shared: &Shared) {
    let mut frame = [0; 2048];
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    while !shared.stop.load(Ordering::Relaxed) {
        let mut parts = [IoSliceMut::new(&mut frame)];
        let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        // Nothing within the time-out, or a signal.
        let Ok(message) = received else { continue };
        let stamp = message.cmsgs().ok().and_then(|mut all| {
            all.find_map(|one| match one {
                ControlMessageOwned::ScmTimestampns(t) => {
                    Some(Moment(t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64))
                }
                _ => None,
            })
        });
        let (time, length) = (stamp.unwrap_or_else(Moment::now), message.bytes);
        let Some(claim) = frames::claim(&frame[..length]) else { continue };
        let watched = shared.watched.read().unwrap_or_else(PoisonError::into_inner).contains(&claim.address);
        if claim.mac != own && watched {
            let record = Record { time, address: claim.address, mac: claim.mac, kind: claim.kind };
            shared.timeline.lock().unwrap_or_else(PoisonError::into_inner).records.push(record);
        }
    }
}

/// A raw packet socket for all protocols on an interface of the namespace.
pub fn packet_socket(ns: &NetNs, interface: &str) -> Result<Socket> {
    ns.enter(|| {
        let index = nix::net::if_::if_nametoindex(interface)
            .with_context(|| format!("there is no interface '{interface}' in {}", ns.name()))?;
        let all = nix::libc::ETH_P_ALL;
        let socket = Socket::new(
            socket2::Domain::PACKET,
            socket2::Type::RAW.cloexec(),
            Some(i32::from((all as u16).to_be()).into()),
        )
        .context("cannot open a packet socket (is this root?)")?;
        socket.bind(&packet_address(index)?).with_context(|| format!("cannot listen on '{interface}'"))?;
        Ok(socket)
    })
}

/// The socket address of an interface, for all protocols (packet(7)).
fn packet_address(index: u32) -> Result<socket2::SockAddr> {
    let fill = |storage: *mut socket2::SockAddrStorage, length: *mut nix::libc::socklen_t| {
        let address = storage.cast::<nix::libc::sockaddr_ll>();
        // SAFETY: the storage is zeroed, larger than any socket address and aligned for all of them.
        let address = unsafe { &mut *address };
        address.sll_family = nix::libc::AF_PACKET as u16;
        address.sll_protocol = (nix::libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as i32;
        // SAFETY: `length` is the caller's, valid for writing.
        unsafe { *length = size_of::<nix::libc::sockaddr_ll>() as u32 };
        Ok(())
    };
    // SAFETY: `fill` makes a valid address of the length it says.
    let ((), address) = unsafe { socket2::SockAddr::try_init(fill) }.context("no packet address")?;
    Ok(address)
}

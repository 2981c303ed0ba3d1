//! AF_PACKET sockets: whole Ethernet frames, in and out.

use std::{io, mem, os::fd::AsRawFd, time::Duration};

use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::frame::Mac;

pub(crate) const ETH_P_ARP: u16 = libc::ETH_P_ARP as u16;
pub(crate) const ETH_P_IPV6: u16 = libc::ETH_P_IPV6 as u16;

/// The most messages of one `sendmmsg` (UIO_MAXIOV).
const BATCH: usize = 1024;

/// How long a full send buffer is waited for.
const SEND_TIMEOUT: Duration = Duration::from_millis(20);

/// Socket buffers, in bytes, for some ten thousand short frames.
const ANSWERS: usize = 8 << 20;

/// A frame to send and its protocol (`ETH_P_*`).
pub(crate) type Outgoing = (u16, Vec<u8>);

/// Multicast link-layer addresses to be received beside those that the host receives anyway.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Groups<'a> {
    These(&'a [Mac]),
    /// The device receives every group while the socket is open.
    All,
}

/// Hears the frames of one protocol on one interface that pass a filter, from the moment it is made.
pub(crate) struct Listener(Option<AsyncFd<Socket>>);

impl Listener {
    pub(crate) fn open(
        ifindex: u32,
        protocol: u16,
        filter: &[SockFilter],
        groups: Groups<'_>,
    ) -> io::Result<Self> {
        let socket = unbound()?;
        socket.set_nonblocking(true)?;
        // The filter comes before the capture begins: nothing else is ever queued.
        socket.attach_filter(filter)?;
        match groups {
            Groups::These(groups) => {
                for group in groups {
                    join(&socket, ifindex, libc::PACKET_MR_MULTICAST, group)?;
                }
            }
            Groups::All => join(&socket, ifindex, libc::PACKET_MR_ALLMULTI, &[])?,
        }
        socket.bind(&link_address(ifindex, protocol)?)?;
        Ok(Self(Some(readable(socket)?)))
    }

    /// The next frame; its length is returned. Cancel-safe.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket().async_io(Interest::READABLE, |socket| io::Read::read(&mut &*socket, buffer)).await
    }

    /// Makes room for the answers to thousands of questions. Where that is not allowed, what is allowed
    /// has to do.
    pub(crate) fn enlarge(&self) {
        let socket = self.socket().get_ref();
        let _ = setsockopt(socket, sockopt::RcvBufForce, &ANSWERS);
        let _ = setsockopt(socket, sockopt::SndBufForce, &ANSWERS);
    }

    /// As [`Sender::send_all`], never waiting.
    pub(crate) fn send_all(&self, ifindex: u32, frames: &[Outgoing]) -> io::Result<Vec<usize>> {
        send_all(self.socket().get_ref(), ifindex, frames)
    }

    fn socket(&self) -> &AsyncFd<Socket> {
        self.0.as_ref().expect("taken only when dropped")
    }
}

impl Drop for Listener {
    /// Closing a packet socket waits until no CPU can still be delivering to it, some ten milliseconds
    /// (an RCU grace period): not on a thread that others depend on.
    fn drop(&mut self) {
        let socket = self.0.take().map(AsyncFd::into_inner);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(socket));
        }
    }
}

/// Sends frames; hears nothing. To be kept: closing it takes as long as closing a [`Listener`].
pub(crate) struct Sender(Socket);

impl Sender {
    /// In the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self(socket))
    }

    /// Sends the frames in as few system calls as possible, waiting a moment when the device does not
    /// take them fast enough. Answers the positions of those that were dropped on their way to it.
    pub(crate) fn send_all(&self, ifindex: u32, frames: &[Outgoing]) -> io::Result<Vec<usize>> {
        send_all(&self.0, ifindex, frames)
    }
}

/// Lets the runtime tell when the socket is readable.
pub(crate) fn readable(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a Socket owns its descriptor, which stays open and the same until it is dropped.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(Into::into)
}

/// A socket that hears nothing until it is bound to a protocol. Frames sent through it pass the queueing
/// discipline and tc egress, where the egress guard judges them (PACKET_QDISC_BYPASS stays off).
fn unbound() -> io::Result<Socket> {
    Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))
}

fn send_all(socket: &Socket, ifindex: u32, frames: &[Outgoing]) -> io::Result<Vec<usize>> {
    let arp = link_address(ifindex, ETH_P_ARP)?;
    let ipv6 = link_address(ifindex, ETH_P_IPV6)?;
    let mut dropped = Vec::new();
    let mut next = 0;
    while next < frames.len() {
        let batch = &frames[next..frames.len().min(next + BATCH)];
        match send_batch(socket, batch, |protocol| if protocol == ETH_P_ARP { &arp } else { &ipv6 }) {
            Ok(sent) => next += sent,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // ENOBUFS: dropped by tc egress or a full queue. EAGAIN: the send buffer stayed full.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => {
                dropped.push(next);
                next += 1;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(dropped)
}

/// One `sendmmsg`: how many frames from the front were sent. An error is about the first frame.
fn send_batch<'a>(
    socket: &Socket,
    frames: &[Outgoing],
    address: impl Fn(u16) -> &'a SockAddr,
) -> io::Result<usize> {
    let mut parts: Vec<libc::iovec> = frames
        .iter()
        .map(|(_, frame)| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = frames
        .iter()
        .zip(&mut parts)
        .map(|((protocol, _), part)| {
            let to = address(*protocol);
            // SAFETY: mmsghdr is plain data for which all zeros is a valid value.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
            message.msg_hdr.msg_namelen = to.len();
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    // SAFETY: every message points to one iovec in `parts`, a frame in `frames` and an address, all of
    // which outlive the call; the kernel only reads them.
    let sent = unsafe {
        libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as libc::c_uint, 0)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn link_address(ifindex: u32, protocol: u16) -> io::Result<SockAddr> {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is a kind of socket address, plain data for which any bytes are valid.
    let address: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index(ifindex)?;
    // SAFETY: a sockaddr_ll was just written into the storage, and this is its length.
    Ok(unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) })
}

/// Until the socket is closed. `kind`: PACKET_MR_*.
fn join(socket: &Socket, ifindex: u32, kind: libc::c_int, group: &[u8]) -> io::Result<()> {
    let mut request = libc::packet_mreq {
        mr_ifindex: index(ifindex)?,
        mr_type: kind as u16,
        mr_alen: group.len() as u16,
        mr_address: [0; 8],
    };
    request.mr_address[..group.len()].copy_from_slice(group);
    // SAFETY: the option takes a packet_mreq, which is passed with its size and only read.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            size_of_val(&request) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn index(ifindex: u32) -> io::Result<i32> {
    i32::try_from(ifindex).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

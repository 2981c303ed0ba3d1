//! Thousands of changes in few system calls: the kernel handles all messages of one send in turn, and
//! answers only those that it refuses.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::{
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt,
        socket, sockopt,
    },
    sys::time::{TimeVal, TimeValLike as _},
};
use tokio::sync::Mutex;

/// Changes in one send. Should the kernel refuse all of them, their answers fit into the receive buffer.
const AT_ONCE: u32 = 256;

const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// The kernel answers while it handles a send: an answer this late was lost.
const ANSWER_WAIT_SECONDS: i64 = 5;

/// One answer: a header, an errno, and the message that it is about, if the kernel repeats it.
const ANSWER_MAX: usize = 4096;

/// What the kernel refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The number of the change, from 0.
    pub(crate) at: usize,
    pub(crate) error: io::Error,
}

/// A blocking socket of its own. Whoever holds it has the kernel's addresses and routes for themselves,
/// as far as this process is concerned.
pub(super) struct Pipe(OwnedFd);

impl Pipe {
    /// In the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_WAIT_SECONDS))?;
        // Needs CAP_NET_ADMIN, as all changes do.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES);
        Ok(Self(socket))
    }

    fn send(&self, chunk: &Chunk, done: usize, refused: &mut Vec<Refusal>) -> io::Result<()> {
        sendto(self.0.as_raw_fd(), &chunk.bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut buffer = [0; ANSWER_MAX];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer[..length])
                .map_err(io::Error::other)?;
            let number = answer.header.sequence_number.wrapping_sub(chunk.first);
            // Another is the late answer to an earlier send.
            if number >= chunk.count {
                continue;
            }
            let NetlinkPayload::Error(error) = answer.payload else { continue };
            if error.code.is_some() {
                refused.push(Refusal { at: done + number as usize, error: error.to_io() });
            }
            if number + 1 == chunk.count {
                return Ok(());
            }
        }
    }
}

/// Serialised changes whose last one asks for an answer.
struct Chunk {
    bytes: Vec<u8>,
    first: u32,
    count: u32,
}

impl Chunk {
    /// None when nothing is left.
    fn next(messages: &mut impl Iterator<Item = RouteNetlinkMessage>, flags: u16) -> Option<Self> {
        static SEQUENCE: AtomicU32 = AtomicU32::new(1);
        let first = SEQUENCE.fetch_add(AT_ONCE, Ordering::Relaxed);
        let (mut bytes, mut count, mut last) = (Vec::new(), 0, 0);
        for message in messages.take(AT_ONCE as usize) {
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | flags;
            header.sequence_number = first.wrapping_add(count);
            let mut message = NetlinkMessage::new(header, message.into());
            message.finalize();
            last = bytes.len();
            bytes.resize(last + message.buffer_len(), 0);
            message.serialize(&mut bytes[last..]);
            count += 1;
        }
        // nlmsg_flags: behind the length (4 bytes) and the type (2).
        let at = last + 6;
        let flags = bytes.get_mut(at..at + 2)?;
        flags.copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | header_flags(flags)).to_ne_bytes());
        Some(Self { bytes, first, count })
    }
}

fn header_flags(bytes: &[u8]) -> u16 {
    bytes.try_into().map_or(0, u16::from_ne_bytes)
}

/// Tells the thread that works for a future that the future was dropped.
struct Abandoned(Arc<AtomicBool>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// All changes are tried, in their order; those refused are returned. When the future is dropped no more
/// is sent, and whoever uses the pipe afterwards finds nothing of this under way.
pub(super) async fn change_all(
    pipe: Arc<Mutex<Pipe>>,
    mut messages: impl Iterator<Item = RouteNetlinkMessage> + Send + 'static,
    flags: u16,
) -> io::Result<Vec<Refusal>> {
    let guard = Abandoned(Arc::default());
    let abandoned = Arc::clone(&guard.0);
    // Thousands of addresses keep the kernel busy for seconds, in the thread that sends.
    let work = tokio::task::spawn_blocking(move || {
        let (mut done, mut refused) = (0, Vec::new());
        while let Some(chunk) = Chunk::next(&mut messages, flags) {
            let pipe = pipe.blocking_lock();
            if abandoned.load(Ordering::Acquire) {
                break;
            }
            pipe.send(&chunk, done, &mut refused)?;
            done += chunk.count as usize;
        }
        Ok(refused)
    });
    let result = work.await.map_err(io::Error::other)?;
    drop(guard);
    result
}

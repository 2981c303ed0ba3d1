//! Requests to rtnetlink whose end is proven: an acknowledgement or the end of a dump was seen.

use std::{
    io,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::{Handle, sys::AsyncSocket};
use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};

use super::batch::{self, Pipe, Refusal};

/// How often a dump is begun anew when the kernel says that what it dumped changed meanwhile.
const DUMP_ATTEMPTS: u32 = 20;

/// Requests under way at the same time. The kernel silently drops answers that do not fit into the
/// socket's receive buffer, and whoever waits for one of them would wait for ever.
const AT_ONCE: usize = 8;

/// The kernel answers while it handles a request: an answer this late was lost.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Room for the answers to all requests under way, dumps included.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// A socket for requests; cheap to clone. It is served by a task that ends with the last clone, and
/// opened again should it ever break.
#[derive(Clone)]
pub(crate) struct Netlink {
    handle: Arc<std::sync::Mutex<Handle>>,
    /// Dumps take turns, because the kernel refuses a second one on the same socket with EBUSY, and
    /// with batches, because a dump is worth nothing when what it lists changes meanwhile.
    pipe: Arc<Mutex<Pipe>>,
    turns: Arc<Semaphore>,
}

impl Netlink {
    /// In the network namespace of the calling thread; needs a tokio runtime.
    pub(crate) fn open() -> io::Result<Self> {
        let handle = Arc::new(std::sync::Mutex::new(connect()?));
        let pipe = Arc::new(Mutex::new(Pipe::open()?));
        Ok(Self { handle, pipe, turns: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// Asks for a change and waits until the kernel has confirmed it. The error is the kernel's errno.
    pub(crate) async fn change(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, NLM_F_ACK | flags).await?;
        Ok(())
    }

    /// Asks for many changes, in this order, and waits until the kernel has handled all of them: those
    /// that it refused. Dropping the future stops it.
    pub(crate) async fn change_all<M>(&self, messages: M, flags: u16) -> io::Result<Vec<Refusal>>
    where
        M: IntoIterator<Item = RouteNetlinkMessage>,
        M::IntoIter: Send + 'static,
    {
        batch::change_all(Arc::clone(&self.pipe), messages.into_iter(), flags).await
    }

    /// Asks for one object; the error is the kernel's errno (ENODEV, ESRCH ... when there is none).
    pub(crate) async fn get(&self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        Ok(self.request(message, NLM_F_ACK).await?.found)
    }

    /// All objects that pass the filters in `message`, as they were at one moment.
    pub(crate) async fn dump(&self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let _alone = self.pipe.lock().await;
        for _ in 0..DUMP_ATTEMPTS {
            let answer = self.request(message.clone(), NLM_F_DUMP).await?;
            if !answer.interrupted {
                return Ok(answer.found);
            }
            tokio::task::yield_now().await;
        }
        Err(io::Error::other(format!("it changed during each of {DUMP_ATTEMPTS} attempts to read it")))
    }

    async fn request(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Answer> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the netlink socket is closed");
        let _turn = self.turns.acquire().await.map_err(|_| gone())?;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut responses = {
            let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
            match handle.request(request.clone()) {
                Ok(responses) => responses,
                Err(_) => {
                    *handle = connect()?;
                    handle.request(request).map_err(|_| gone())?
                }
            }
        };
        let mut answer = Answer { found: Vec::new(), interrupted: false };
        while let Some(response) =
            timeout(ANSWER_WAIT, responses.next()).await.map_err(|_| io::ErrorKind::TimedOut)?
        {
            answer.interrupted |= response.header.flags & NLM_F_DUMP_INTR != 0;
            match response.payload {
                NetlinkPayload::InnerMessage(found) => answer.found.push(found),
                NetlinkPayload::Error(error) => {
                    return if error.code.is_some() { Err(error.to_io()) } else { Ok(answer) };
                }
                NetlinkPayload::Done(done) => {
                    return if done.code < 0 {
                        Err(io::Error::from_raw_os_error(-done.code))
                    } else {
                        Ok(answer)
                    };
                }
                _ => return Err(io::Error::other("the kernel sent an answer of an unknown type")),
            }
        }
        Err(gone())
    }
}

fn connect() -> io::Result<Handle> {
    // Strict checking makes the kernel obey the filters of dumps (Linux 4.20).
    let (mut connection, handle, _) =
        rtnetlink::new_connection_with_strict_check().or_else(|_| rtnetlink::new_connection())?;
    // Needs CAP_NET_ADMIN; with less, the default size must do.
    let _ = setsockopt(&*connection.socket_mut().socket_mut(), sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES);
    connection.set_forward_ack(true);
    connection.set_forward_done(true);
    tokio::spawn(connection);
    Ok(handle)
}

struct Answer {
    found: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

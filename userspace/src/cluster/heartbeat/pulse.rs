//! The heartbeat thread: sends, answers, renews the lease, and notices when it was itself late.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::watch;

use super::{
    ears::Ears,
    promises::Promises,
    wire::{Body, Key, MAX_LEN, Message, ReplayWindow},
};
use crate::{
    cluster::{Leadership, View},
    config::Timing,
    core::{
        lease::{Held, Holder, drift_margin},
        quorum::Quorum,
        time::BootTime,
    },
    model::{LeaseEpoch, NodeId},
    observe::clock,
};

/// Where the lease is kept for the kernel to read.
pub trait LeaseSlot: Send + Sync {
    fn held(&self) -> Held;

    /// Moves the deadline forward; ignored for another epoch than the present one. The reason when the
    /// kernel did not take it.
    fn extend(&self, epoch: LeaseEpoch, deadline: BootTime) -> Result<(), String>;
}

pub struct PulseConfig {
    pub me: NodeId,
    pub paths: Vec<SocketAddr>,
    pub key: Key,
    pub timing: Timing,
    /// This life of the daemon: higher than any before.
    pub incarnation: u64,
    pub promises: Promises,
    /// A bit for each path whose interface has a carrier, told to the peers.
    pub transmits: Arc<AtomicU8>,
}

/// The running thread. Dropping it stops the thread and so lets the lease run out.
pub struct Pulse {
    pub ears: Arc<Mutex<Ears>>,
    /// Those of the paths once more, for probes.
    pub sockets: Vec<UdpSocket>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Pulse {
    /// Binds one socket per path and starts the thread. An address that is not (yet) on this host is
    /// bound all the same (IP_FREEBIND): its interface may come up later.
    ///
    /// # Errors
    /// When a socket cannot be had, naming its address.
    pub fn start(
        config: PulseConfig,
        view: watch::Receiver<View>,
        leadership: watch::Receiver<Leadership>,
        keeper: Arc<dyn LeaseSlot>,
    ) -> std::io::Result<Self> {
        let sockets: Vec<UdpSocket> = config.paths.iter().map(bind).collect::<Result<_, _>>()?;
        let again = sockets.iter().map(UdpSocket::try_clone).collect::<Result<_, _>>()?;
        let now = clock::now();
        let ears = Arc::new(Mutex::new(Ears::new(config.me, now)));
        let stop = Arc::new(AtomicBool::new(false));
        let heart = Heart {
            holder: Holder::new(config.timing.lease, keeper.held().epoch),
            sequence: 0,
            window: ReplayWindow::default(),
            known: BTreeMap::new(),
            sockets,
            view,
            leadership,
            keeper,
            ears: ears.clone(),
            config,
        };
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("heartbeat".into()).spawn(move || {
            prefer_this_thread();
            heart.run(&stopped);
        })?;
        Ok(Self { ears, sockets: again, stop, thread: Some(thread) })
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; the lease has run out by itself.
            let _ = thread.join();
        }
    }
}

/// What the heartbeat thread shares is consistent between any two statements: a panic leaves no harm.
pub(crate) fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Heart {
    config: PulseConfig,
    sockets: Vec<UdpSocket>,
    view: watch::Receiver<View>,
    leadership: watch::Receiver<Leadership>,
    keeper: Arc<dyn LeaseSlot>,
    ears: Arc<Mutex<Ears>>,
    holder: Holder,
    sequence: u64,
    window: ReplayWindow,
    /// The paths of all others, as of the last beat.
    known: BTreeMap<NodeId, Vec<SocketAddr>>,
}

impl Heart {
    fn run(mut self, stop: &AtomicBool) {
        let period = self.config.timing.heartbeat;
        let mut next_beat = clock::now();
        while !stop.load(Ordering::Relaxed) {
            let now = clock::now();
            if now >= next_beat {
                self.beat(now);
                next_beat = now.after(period);
            }
            let wait = next_beat.since(clock::now());
            self.wait_readable(wait);
            // What lay in the sockets is heard first; only then is it judged who was silent.
            self.receive();
            let woke = clock::now();
            if woke.since(next_beat) > period {
                tracing::debug!(late = ?woke.since(next_beat), "the heartbeat thread was stalled");
                lock(&self.ears).stalled(woke);
            }
        }
    }

    fn wait_readable(&self, wait: Duration) {
        let mut fds: Vec<PollFd<'_>> =
            self.sockets.iter().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)).collect();
        // Rounded up: waking early would spin until the time has come.
        let ms = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        // EINTR only means waking early.
        let _ = poll(&mut fds, PollTimeout::from(ms));
    }

    /// Asks everybody for a renewal, itself included.
    fn beat(&mut self, now: BootTime) {
        self.follow_state();
        let held = self.keeper.held();
        self.holder.adopt(held.epoch);
        let (membership, quorum) = self.quorum();
        let (me, duration) = (self.config.me, self.holder.duration());
        let asked = now;
        if self.config.promises.ask(me, held.epoch, (membership, membership), duration).is_ok() {
            self.holder.agreed(me, held.epoch, asked);
        }
        self.renew(&quorum);
        let peers = self.peers();
        let grace = self.config.timing.startup_grace;
        let suspicion = self.config.timing.suspicion;
        let silences = lock(&self.ears).silences(peers.iter().map(|p| p.0), now, grace, suspicion);
        for (node, addresses) in &peers {
            for (path, address) in addresses.iter().enumerate().take(self.sockets.len()) {
                let body = Body::Ask {
                    membership,
                    duration,
                    lease_valid: held.deadline > now,
                    transmits: self.config.transmits.load(Ordering::Relaxed),
                    silences: silences.clone(),
                };
                self.send(*node, *address, path, asked, held.epoch, body);
            }
        }
    }

    /// Whom this node asks and answers, and where. A joining node too: it is a voter a moment before the state calls
    /// it a member; and one that was removed, which is a voter a moment longer.
    fn peers(&mut self) -> Vec<(NodeId, Vec<SocketAddr>)> {
        let view = self.view.borrow();
        let voters = self.leadership.borrow().voters.clone();
        self.known.retain(|id, _| voters.contains(id));
        for node in view.state.nodes.values().filter(|n| n.id != self.config.me) {
            self.known.insert(node.id, node.paths.clone());
        }
        self.known.iter().map(|(id, paths)| (*id, paths.clone())).collect()
    }

    fn send(
        &mut self,
        to: NodeId,
        address: SocketAddr,
        path: usize,
        asked: BootTime,
        lease_epoch: u64,
        body: Body,
    ) {
        self.sequence += 1;
        let message = Message {
            from: self.config.me,
            to,
            path: path as u8,
            incarnation: self.config.incarnation,
            sequence: self.sequence,
            asked,
            lease_epoch,
            body,
        };
        if let Err(error) = self.sockets[path].send_to(&message.encode(&self.config.key), address) {
            // A link that is down: the other paths and the peers' silence tell the rest.
            tracing::trace!(%address, %error, "heartbeat not sent");
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; MAX_LEN + 1];
        for path in 0..self.sockets.len() {
            // Bounded, so that a flood on one path can't keep the next beat from being sent.
            for _ in 0..256 {
                let Ok((len, from)) = self.sockets[path].recv_from(&mut buffer) else { break };
                let Some(message) = Message::decode(&buffer[..len], &self.config.key) else {
                    tracing::trace!(%from, "not a heartbeat of this cluster");
                    continue;
                };
                let fits = message.to == self.config.me && usize::from(message.path) == path;
                // Whoever was removed still has the key.
                let known = self.known.contains_key(&message.from);
                if fits && known && self.window.is_fresh(&message) {
                    self.take(message, path, from);
                }
            }
        }
    }

    fn take(&mut self, m: Message, path: usize, from: SocketAddr) {
        let now = clock::now();
        match m.body {
            Body::Ask { membership, duration, lease_valid, transmits, silences } => {
                let mut ears = lock(&self.ears);
                ears.heard(m.from, path, m.incarnation, now).says(lease_valid, transmits, silences, now);
                drop(ears);
                let known = self.leadership.borrow().membership;
                let answer = self.config.promises.ask(m.from, m.lease_epoch, (membership, known), duration);
                let body = Body::Ack { asker_incarnation: m.incarnation, refused: answer.err() };
                self.send(m.from, from, path, m.asked, m.lease_epoch, body);
            }
            Body::Ack { asker_incarnation, refused } => {
                {
                    let mut ears = lock(&self.ears);
                    let peer = ears.heard(m.from, path, m.incarnation, now);
                    if refused.is_none() {
                        peer.agreed = Some(now);
                    }
                }
                // An answer to an earlier life was asked for on a clock that may have started anew.
                if refused.is_none() && asker_incarnation == self.config.incarnation && m.asked <= now {
                    self.holder.agreed(m.from, m.lease_epoch, m.asked);
                    let (_, quorum) = self.quorum();
                    self.renew(&quorum);
                } else if let Some(why) = refused {
                    tracing::debug!(voter = m.from, ?why, "lease not renewed");
                }
            }
        }
    }

    fn renew(&self, quorum: &Quorum) {
        let Some(deadline) = self.holder.deadline(quorum) else { return };
        if let Err(error) = self.keeper.extend(self.holder.epoch(), deadline) {
            tracing::error!(%error, "the kernel did not take the renewed lease");
        }
    }

    fn quorum(&self) -> (u64, Quorum) {
        let leadership = self.leadership.borrow();
        (leadership.membership, Quorum::new(leadership.configs.clone()))
    }

    /// Epochs that the cluster's state knows of bind this voter too.
    fn follow_state(&self) {
        let view = self.view.borrow();
        for node in view.state.nodes.values() {
            self.config.promises.raise_floor(node.id, node.lease_epoch);
        }
    }
}

fn bind(address: &SocketAddr) -> std::io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let name = |e: std::io::Error| std::io::Error::new(e.kind(), format!("heartbeat address {address}: {e}"));
    let socket = Socket::new(Domain::for_address(*address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))
        .map_err(name)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true).map_err(name)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true).map_err(name)?;
            socket.set_freebind_v6(true).map_err(name)?;
        }
    }
    socket.bind(&(*address).into()).map_err(name)?;
    Ok(socket.into())
}

/// Real-time priority for the calling thread, where allowed: with all cores taken, an ordinary thread
/// wakes up tens of milliseconds late.
pub(super) fn prefer_this_thread() {
    let param = nix::libc::sched_param { sched_priority: 10 };
    // SAFETY: pid 0 is the calling thread and `param` is a valid sched_param for the call's duration.
    let rc = unsafe { nix::libc::sched_setscheduler(0, nix::libc::SCHED_RR, &param) };
    if rc != 0 {
        let error = std::io::Error::last_os_error();
        tracing::info!(%error, "no real-time priority for heartbeats: they may be late on a busy machine");
    }
}

/// How long a take-over may have to wait for leases agreed under a former set of voters.
pub(crate) fn membership_settles_after(timing: &Timing) -> Duration {
    timing.lease + drift_margin(timing.lease)
}

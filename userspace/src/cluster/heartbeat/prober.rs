//! The prober (row DP-9): sends what the peers' kernels reflect, and tells `Ears` and the leader what this
//! node's kernel found out. It judges nothing itself: a prober that is late starts no timer.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::net::UnixDatagram,
    },
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use datapath_common::{
    PATH_FENCED, PATH_SILENT, PROBE_KIND_FENCE, PROBE_KIND_PROBE, PathEvent, PathState, Probe,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::watch;

use super::{
    ears::Ears,
    keys::LiveKeys,
    pulse::{lock, prefer_this_thread},
};
use crate::{
    cluster::View,
    config::Timing,
    core::{
        detection::{ProbeIdentity, ProbePeer, Sight},
        time::BootTime,
    },
    model::{LeaseEpoch, NodeId},
    observe::clock,
};

/// What this node's kernel does for probing. All methods are quick; the errors are for people to read.
pub trait ProbingKernel: Send + Sync {
    /// From now on it reflects and probes as this node.
    fn identify(&self, who: ProbeIdentity) -> Result<(), String>;

    /// Exactly these are probed and answered from now on.
    fn set_peers(&self, peers: &[ProbePeer]) -> Result<(), String>;

    /// What reflections tell of this daemon and of its interfaces.
    fn beat(&self, alive_until: BootTime, guarded: bool) -> Result<(), String>;

    /// What is known of each peer and path that is probed.
    fn states(&self) -> Result<Vec<(NodeId, u8, PathState)>, String>;

    /// What was told since the last call.
    fn drain(&self) -> Vec<PathEvent>;

    /// Readable when there is something to drain.
    fn readable(&self) -> BorrowedFd<'_>;
}

pub struct ProberConfig {
    pub me: NodeId,
    /// This node's heartbeat addresses, and a socket bound to each.
    pub paths: Vec<SocketAddr>,
    pub sockets: Vec<UdpSocket>,
    pub keys: LiveKeys,
    pub timing: Timing,
    pub incarnation: u64,
    /// All interfaces that may speak for an address here are guarded.
    pub guarded: Box<dyn Fn() -> bool + Send>,
}

/// What the kernel found out about a path, for people to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelPath {
    pub node: NodeId,
    pub path: u8,
    pub state: PathState,
}

/// Which nodes are to be fenced, and what became of it. Shared by the leader and the prober.
pub struct Fences {
    asked: Mutex<BTreeMap<NodeId, LeaseEpoch>>,
    confirmed: Mutex<BTreeMap<NodeId, (LeaseEpoch, BootTime)>>,
    waker: UnixDatagram,
    changed: watch::Sender<()>,
}

impl Fences {
    /// Has the kernels of exactly these nodes asked to shut all lease epochs below.
    pub fn ask(&self, nodes: &BTreeMap<NodeId, LeaseEpoch>) {
        let mut asked = lock(&self.asked);
        if *asked != *nodes {
            asked.clone_from(nodes);
            // A full buffer wakes it too.
            let _ = self.waker.send(&[0]);
        }
    }

    /// When the node's kernel was first known to have shut all lease epochs below `below`.
    pub fn confirmed(&self, node: NodeId, below: LeaseEpoch) -> Option<BootTime> {
        lock(&self.confirmed).get(&node).filter(|(fence, _)| *fence >= below).map(|(_, at)| *at)
    }

    /// Changes when something that the leader judges by was told by the kernel.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// The running thread. Dropping it stops the thread; the kernel goes on reflecting.
pub struct Prober {
    pub fences: Arc<Fences>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Prober {
    /// # Errors
    /// When the programs cannot be told whom to answer, or there are no more threads.
    pub fn start(
        config: ProberConfig,
        probes: Arc<dyn ProbingKernel>,
        view: watch::Receiver<View>,
        ears: Arc<Mutex<Ears>>,
    ) -> std::io::Result<Self> {
        let who = ProbeIdentity {
            cluster: config.keys.used().cluster(),
            me: config.me,
            incarnation: config.incarnation,
        };
        probes.identify(who).map_err(std::io::Error::other)?;
        let (waker, woken) = UnixDatagram::pair()?;
        waker.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let fences = Arc::new(Fences {
            asked: Mutex::default(),
            confirmed: Mutex::default(),
            waker,
            changed: watch::Sender::new(()),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let work = Work {
            config,
            probes,
            view,
            ears,
            fences: fences.clone(),
            woken,
            peers: Vec::new(),
            sequences: BTreeMap::new(),
        };
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("prober".into()).spawn(move || {
            prefer_this_thread();
            work.run(&stopped);
        })?;
        Ok(Self { fences, stop, thread: Some(thread) })
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it, or it is awake.
        let _ = self.fences.waker.send(&[0]);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

struct Work {
    config: ProberConfig,
    probes: Arc<dyn ProbingKernel>,
    view: watch::Receiver<View>,
    ears: Arc<Mutex<Ears>>,
    fences: Arc<Fences>,
    woken: UnixDatagram,
    peers: Vec<ProbePeer>,
    sequences: BTreeMap<(NodeId, u8), u64>,
}

impl Work {
    fn run(mut self, stop: &AtomicBool) {
        let mut next = clock::now();
        while !stop.load(Ordering::Relaxed) {
            let now = clock::now();
            if now >= next {
                self.follow();
                self.tell_alive(now);
                self.look(now);
                self.send_all();
                next = now.after(self.config.timing.probe);
            }
            self.wait(next.since(clock::now()));
            if self.woken() {
                // A fence does not wait for its turn.
                self.send_all();
            }
            let events = self.probes.drain();
            if !events.is_empty() {
                for event in &events {
                    let silent = event.kind == PATH_SILENT;
                    tracing::debug!(node = event.node, path = event.path, silent, "told by the kernel");
                    if event.kind == PATH_FENCED {
                        tracing::info!(node = event.node, "its kernel told of a higher fence");
                    }
                }
                self.look(clock::now());
                self.fences.changed.send_replace(());
            }
        }
    }

    fn wait(&self, wait: Duration) {
        let mut fds = [
            PollFd::new(self.probes.readable(), PollFlags::POLLIN),
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
        ];
        // Rounded up: waking early would spin until the time has come.
        let ms = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        // EINTR only means waking early.
        let _ = poll(&mut fds, PollTimeout::from(ms));
    }

    fn woken(&self) -> bool {
        let mut any = false;
        while self.woken.recv(&mut [0; 8]).is_ok() {
            any = true;
        }
        any
    }

    /// Whom the programs probe and answer.
    fn follow(&mut self) {
        self.config.keys.refresh();
        let ProberConfig { me, keys, timing, .. } = &self.config;
        let both = [keys.used(), keys.other()];
        let mut peers = Vec::new();
        for node in self.view.borrow().state.nodes.values().filter(|n| n.id != *me) {
            for (path, (theirs, ours)) in node.paths.iter().zip(&self.config.paths).enumerate() {
                if theirs.is_ipv4() != ours.is_ipv4() {
                    continue;
                }
                peers.push(ProbePeer {
                    node: node.id,
                    path: path as u8,
                    ours: *ours,
                    theirs: *theirs,
                    ours_keys: both.map(|key| key.probe(*me, node.id)),
                    theirs_keys: both.map(|key| key.probe(node.id, *me)),
                    timeout: timing.probe_timeout,
                });
            }
        }
        if peers != self.peers {
            match self.probes.set_peers(&peers) {
                Ok(()) => self.peers = peers,
                // Tried again at the next probe; heartbeats go on.
                Err(error) => return tracing::warn!(%error, "the kernel was not told whom to probe"),
            }
        }
        self.config.keys.taken_over();
    }

    fn tell_alive(&self, now: BootTime) {
        let until = now.after(self.config.timing.suspicion);
        if let Err(error) = self.probes.beat(until, (self.config.guarded)()) {
            tracing::warn!(%error, "the kernel was not told that this daemon lives");
        }
    }

    fn send_all(&mut self) {
        let fences = lock(&self.fences.asked).clone();
        for peer in &self.peers {
            let below = fences.get(&peer.node).copied();
            let sequence = self.sequences.entry((peer.node, peer.path)).or_default();
            *sequence += 1;
            let kind = if below.is_some() { PROBE_KIND_FENCE } else { PROBE_KIND_PROBE };
            let mut probe = Probe {
                head: Probe::head(kind, peer.path),
                cluster: self.config.keys.used().cluster(),
                from: self.config.me,
                to: peer.node,
                incarnation: self.config.incarnation,
                sequence: *sequence,
                sent_ns: clock::now().0,
                fence_below: below.unwrap_or(0),
                reflected_ns: 0,
                lease_epoch: 0,
                lease_remaining_ns: 0,
                fence: 0,
                flags: 0,
                reserved: 0,
                tag: 0,
            };
            probe.sign(&peer.ours_keys[0]);
            let socket = &self.config.sockets[usize::from(peer.path)];
            if let Err(error) = socket.send_to(bytemuck::bytes_of(&probe), peer.theirs) {
                // A link that is down: what does not leave starts no timer, and heartbeats tell the rest.
                tracing::trace!(address = %peer.theirs, %error, "probe not sent");
            }
        }
    }

    /// Hands on what the kernel knows.
    fn look(&self, now: BootTime) {
        let states = match self.probes.states() {
            Ok(states) => states,
            Err(error) => return tracing::warn!(%error, "cannot read what the kernel knows of paths"),
        };
        let mut confirmed = lock(&self.fences.confirmed);
        for (node, _, state) in &states {
            let known = confirmed.entry(*node).or_insert((0, now));
            if state.fence > known.0 {
                *known = (state.fence, now);
            }
        }
        drop(confirmed);
        lock(&self.ears).kernel_says(
            states.into_iter().map(|(node, path, state)| KernelPath { node, path, state }).collect(),
        );
    }
}

impl KernelPath {
    pub fn sight(&self) -> Sight {
        let PathState { answered_ns, silent, waiting_ns, .. } = self.state;
        Sight {
            answered: (answered_ns != 0).then_some(BootTime(answered_ns)),
            silent_since: (silent != 0).then_some(BootTime(waiting_ns)),
        }
    }
}

//! What the programs need to probe and to reflect (row DP-9), and what they have found out.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsRawFd as _, BorrowedFd},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, RingBuf},
};
use datapath_common::{MAX_PATHS, Node, PathEvent, PathState, PeerKey, PeerPath, TimedPath};

use super::{
    DatapathError,
    bpffs::{self, failed},
    kernel::absent_is_fine,
    layout,
    links::text,
};
use crate::{
    core::{
        detection::{ProbeIdentity, ProbePeer},
        time::BootTime,
    },
    model::{LeaseEpoch, NodeId},
};

/// The kernel's part in probing. All methods are quick.
pub struct Probes {
    inner: Mutex<Inner>,
    events: Mutex<RingBuf<MapData>>,
    event_fd: i32,
}

struct Inner {
    node: Array<MapData, Node>,
    peers: HashMap<MapData, PeerKey, PeerPath>,
    fence: Array<MapData, u64>,
    paths: Array<MapData, TimedPath>,
    /// Slots by peer and path.
    known: BTreeMap<(NodeId, u8), (u32, ProbePeer)>,
}

impl Probes {
    pub(super) fn take(ebpf: &mut Ebpf, dir: &Path) -> Result<Self, DatapathError> {
        let wrong = |name: &str, error: String| failed(format!("open the BPF map {name}"), error);
        let pinned = |name: &str| {
            MapData::from_pin(dir.join(name)).and_then(Map::from_map_data).map_err(|e| wrong(name, text(e)))
        };
        let mut own = |name: &str| ebpf.take_map(name).ok_or_else(|| wrong(name, "it is missing".into()));
        let events = RingBuf::try_from(own("PATH_EVENTS")?).map_err(|e| wrong("PATH_EVENTS", text(e)))?;
        let inner = Inner {
            node: Array::try_from(pinned("NODE")?).map_err(|e| wrong("NODE", text(e)))?,
            peers: HashMap::try_from(pinned("PEERS")?).map_err(|e| wrong("PEERS", text(e)))?,
            fence: Array::try_from(pinned("FENCE")?).map_err(|e| wrong("FENCE", text(e)))?,
            paths: Array::try_from(own("PATHS")?).map_err(|e| wrong("PATHS", text(e)))?,
            known: BTreeMap::new(),
        };
        Ok(Self { event_fd: events.as_raw_fd(), events: Mutex::new(events), inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each map entry is whole by itself; the next call of `set_peers` repairs the rest.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the programs reflect and probe as this node. The fence of another membership is void.
    pub fn identify(&self, who: ProbeIdentity) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        let old = inner.read_node()?;
        if (old.cluster, old.me) != (who.cluster, who.me) {
            inner.forget(old.me != 0)?;
        }
        let ProbeIdentity { cluster, me, incarnation } = who;
        inner.write_node(Node { cluster, me, incarnation, ..Node::default() })
    }

    /// The programs reflect for nobody, and the fence is gone: this node belongs to no cluster, and nothing is
    /// programmed.
    pub fn forget(&self) -> Result<(), DatapathError> {
        self.inner().forget(true)
    }

    /// What reflections tell of this daemon and of its interfaces.
    pub fn beat(&self, alive_until: BootTime, guarded: bool) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        let node = inner.read_node()?;
        inner.write_node(Node { alive_until_ns: alive_until.0, guarded: u64::from(guarded), ..node })
    }

    /// Exactly these are probed and answered from now on. Those that stay keep what is known of them, as long as they
    /// are where they were.
    pub fn set_peers(&self, peers: &[ProbePeer]) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        let wanted: BTreeSet<(NodeId, u8)> = peers.iter().map(|p| (p.node, p.path)).collect();
        let stale: Vec<PeerKey> = inner.peers.keys().filter_map(Result::ok).collect();
        for key in stale.into_iter().filter(|k| !wanted.contains(&(k.node, k.path as u8))) {
            let gone = absent_is_fine(inner.peers.remove(&key));
            gone.map_err(|e| failed(format!("forget peer {}", key.node), text(e)))?;
        }
        inner.known.retain(|key, _| wanted.contains(key));
        for peer in peers {
            let key = (peer.node, peer.path);
            let before = inner.known.get(&key).map(|(_, known)| (known.theirs, known.ours));
            let slot = match inner.known.get(&key) {
                Some((_, known)) if known == peer => continue,
                Some((slot, _)) => *slot,
                None => {
                    let used: BTreeSet<u32> = inner.known.values().map(|(slot, _)| *slot).collect();
                    let free = (0..MAX_PATHS).find(|slot| !used.contains(slot));
                    let slot = free.ok_or_else(|| failed("probe a peer", "too many peers and paths"))?;
                    let clear = inner.paths.set(slot, TimedPath::default(), 0);
                    clear.map_err(|e| failed("clear a path's state", text(e)))?;
                    slot
                }
            };
            let value = PeerPath {
                theirs_keys: peer.theirs_keys,
                ours_keys: peer.ours_keys,
                theirs: layout::address(layout::key(peer.theirs.ip())),
                ours: layout::address(layout::key(peer.ours.ip())),
                timeout_ns: peer.timeout.as_nanos() as u64,
                theirs_port: peer.theirs.port().to_be(),
                ours_port: peer.ours.port().to_be(),
                slot,
            };
            let map_key = PeerKey { node: peer.node, path: u64::from(peer.path) };
            let written = inner.peers.insert(map_key, value, 0);
            written.map_err(|e| failed(format!("enter peer {}", peer.node), text(e)))?;
            if before.is_some_and(|ends| ends != (peer.theirs, peer.ours)) {
                inner.begin_anew(slot)?;
            }
            inner.known.insert(key, (slot, *peer));
        }
        Ok(())
    }

    /// What is known of each peer and path that is probed.
    pub fn states(&self) -> Result<Vec<(NodeId, u8, PathState)>, DatapathError> {
        let inner = self.inner();
        let read = |(&(node, path), (slot, _)): (&(NodeId, u8), &(u32, ProbePeer))| {
            let value = inner.paths.get(slot, 0).map_err(|e| failed("read a path's state", text(e)))?;
            Ok((node, path, value.state))
        };
        inner.known.iter().map(read).collect()
    }

    /// This kernel's own fence.
    pub fn fence(&self) -> Result<LeaseEpoch, DatapathError> {
        self.inner().fence.get(&0, 0).map_err(|e| failed("read the fence", text(e)))
    }

    /// What the programs have told since the last call.
    pub fn drain(&self) -> Vec<PathEvent> {
        let mut ring = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            events.extend(bytemuck::try_pod_read_unaligned::<PathEvent>(&item));
        }
        events
    }

    /// Readable when there is something to drain.
    pub fn readable(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring buffer, which owns the descriptor, lives as long as this value does.
        unsafe { BorrowedFd::borrow_raw(self.event_fd) }
    }
}

/// Programs that an earlier process has pinned reflect for nobody from now on: what this process does without
/// programs, their fence does not bind.
pub(super) fn reflect_no_more(pin_dir: &Path) -> Result<(), DatapathError> {
    let dirs = bpffs::entries(pin_dir).into_iter().filter(|path| bpffs::version(path).is_some());
    for pin in dirs.map(|dir| dir.join("NODE")).filter(|pin| pin.exists()) {
        let wrong = |error| failed(format!("stop the probes' reflection by {}", pin.display()), error);
        let map = MapData::from_pin(&pin).and_then(Map::from_map_data).map_err(|e| wrong(text(e)))?;
        let mut node: Array<MapData, Node> = Array::try_from(map).map_err(|e| wrong(text(e)))?;
        node.set(0, Node::default(), 0).map_err(|e| wrong(text(e)))?;
    }
    Ok(())
}

impl Inner {
    fn read_node(&self) -> Result<Node, DatapathError> {
        self.node.get(&0, 0).map_err(|e| failed("read as whom probes are reflected", text(e)))
    }

    fn write_node(&mut self, node: Node) -> Result<(), DatapathError> {
        self.node.set(0, node, 0).map_err(|e| failed("write as whom probes are reflected", text(e)))
    }

    /// Nobody has answered there yet. A kernel is silent only where it did: at its new address it answers no sooner
    /// than its daemon has started over, and would be taken for dead meanwhile. What left before is not waited for,
    /// nor believed.
    fn begin_anew(&mut self, slot: u32) -> Result<(), DatapathError> {
        let wrong = |e| failed("clear a path's state", text(e));
        let TimedPath { timer, state } = self.paths.get(&slot, 0).map_err(wrong)?;
        let state = begun_anew(state);
        self.paths.set(slot, TimedPath { timer, state }, 0).map_err(wrong)
    }

    /// First nobody is answered any more, then the fence goes: nobody was told of what is lost.
    fn forget(&mut self, fence_too: bool) -> Result<(), DatapathError> {
        self.write_node(Node::default())?;
        let all: Vec<PeerKey> = self.peers.keys().filter_map(Result::ok).collect();
        for key in all {
            absent_is_fine(self.peers.remove(&key)).map_err(|e| failed("forget a peer", text(e)))?;
        }
        self.known.clear();
        if fence_too {
            self.fence.set(0, 0, 0).map_err(|e| failed("clear the fence", text(e)))?;
        }
        Ok(())
    }
}

fn begun_anew(state: PathState) -> PathState {
    PathState { answered: state.departed, waiting: state.departed, answered_ns: 0, silent: 0, ..state }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_moved_has_never_answered_and_nothing_is_outstanding() {
        let before = PathState {
            departed: 9,
            waiting: 7,
            answered: 6,
            answered_ns: 5,
            silent: 1,
            ..PathState::default()
        };
        let after = begun_anew(PathState { fence: 4, ..before });
        assert_eq!((after.answered_ns, after.silent), (0, 0));
        // The next departure starts the timer, and no answer to an earlier one is believed.
        assert!(after.answered >= after.waiting && after.answered >= before.departed);
        assert_eq!(after.fence, 4, "a fence never falls");
    }
}

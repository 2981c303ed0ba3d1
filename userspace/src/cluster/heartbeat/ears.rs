//! What this node hears: everything that the leader judges by and that `status` shows.

use std::{collections::BTreeMap, time::Duration};

use super::{prober::KernelPath, wire::PATHS_TOLD};
use crate::{
    core::{
        detection::{self, Condition},
        quorum::Quorum,
        suspicion::{Hearing, Testimony, is_suspected},
        time::BootTime,
    },
    model::NodeId,
};

/// What is known of one peer.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Per path: when it was heard last.
    pub paths: Vec<Option<BootTime>>,
    /// Its lease was valid when it was heard last.
    pub lease_valid: bool,
    /// A bit for each path on which it said it transmits, when it was heard last.
    transmits: u8,
    /// Since when it has been saying that its lease is not valid.
    lease_lost: Option<BootTime>,
    /// It has said at least once, in its present life, that its lease was valid.
    had_lease: bool,
    incarnation: u64,
    /// When it last agreed to this node's lease.
    pub agreed: Option<BootTime>,
    /// For how long it has not heard others, and when it said so.
    silences: BTreeMap<NodeId, Testimony>,
}

#[derive(Debug)]
pub struct Ears {
    me: NodeId,
    hearing: Hearing,
    peers: BTreeMap<NodeId, Peer>,
    kernel: Vec<KernelPath>,
}

impl Ears {
    pub fn new(me: NodeId, now: BootTime) -> Self {
        Self { me, hearing: Hearing::new(now), peers: BTreeMap::new(), kernel: Vec::new() }
    }

    /// What this node's kernel knows of all peers and paths that it probes.
    pub(super) fn kernel_says(&mut self, paths: Vec<KernelPath>) {
        self.kernel = paths;
    }

    pub fn kernel(&self) -> &[KernelPath] {
        &self.kernel
    }

    /// What is known of the peer by its kernel and its daemon together.
    pub fn condition(&self, node: NodeId, now: BootTime, limit: Duration) -> Condition {
        let paths: Vec<_> = self.kernel.iter().filter(|p| p.node == node).map(KernelPath::sight).collect();
        detection::judge(&paths, self.hearing.last_heard(node), now, limit)
    }

    fn silence(&self, node: NodeId, now: BootTime, grace: Duration, limit: Duration) -> Duration {
        let unheard = self.hearing.silence(node, now, grace);
        detection::silence(self.condition(node, now, limit), unheard, limit)
    }

    pub fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node)
    }

    pub(super) fn heard(&mut self, node: NodeId, path: usize, incarnation: u64, now: BootTime) -> &mut Peer {
        self.hearing.heard(node, now);
        let peer = self.peers.entry(node).or_default();
        if peer.paths.len() <= path {
            peer.paths.resize(path + 1, None);
        }
        peer.paths[path] = Some(now);
        if peer.incarnation != incarnation {
            peer.incarnation = incarnation;
            peer.had_lease = false;
            peer.lease_lost = None;
        }
        peer
    }

    pub(super) fn stalled(&mut self, now: BootTime) {
        self.hearing.stalled(now);
    }

    /// For how long each of `nodes` has been silent, to be told to the others.
    pub(super) fn silences(
        &self,
        nodes: impl Iterator<Item = NodeId>,
        now: BootTime,
        grace: Duration,
        limit: Duration,
    ) -> Vec<(NodeId, Duration)> {
        nodes.map(|n| (n, self.silence(n, now, grace, limit))).collect()
    }

    /// All that were ever heard.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.peers.iter().map(|(id, peer)| (*id, peer))
    }

    /// Heard within `limit`.
    pub fn is_alive(&self, node: NodeId, now: BootTime, limit: Duration) -> bool {
        node == self.me || self.hearing.last_heard(node).is_some_and(|t| now.since(t) < limit)
    }

    /// A majority of voters no longer hears the node; or the node itself has been saying for that long
    /// that it has no lease (it is cut off in one direction), after having had one or after `grace`.
    pub fn is_suspected(
        &self,
        node: NodeId,
        quorum: &Quorum,
        now: BootTime,
        limit: Duration,
        grace: Duration,
    ) -> bool {
        if node == self.me {
            return false;
        }
        let unheard = is_suspected(quorum, now, limit, |voter| {
            if voter == self.me {
                let silence = self.silence(node, now, grace, limit);
                return Some(Testimony { silence, heard_at: now });
            }
            self.peers.get(&voter)?.silences.get(&node).copied()
        });
        unheard || self.peers.get(&node).is_some_and(|p| p.lacks_lease(now, limit, grace))
    }
}

impl Peer {
    pub(super) fn says(
        &mut self,
        lease_valid: bool,
        transmits: u8,
        silences: Vec<(NodeId, Duration)>,
        now: BootTime,
    ) {
        self.lease_valid = lease_valid;
        self.transmits = transmits;
        self.had_lease |= lease_valid;
        self.lease_lost = if lease_valid { None } else { self.lease_lost.or(Some(now)) };
        self.silences =
            silences.into_iter().map(|(n, silence)| (n, Testimony { silence, heard_at: now })).collect();
    }

    /// It said, when it was heard last, that it transmits on that path.
    pub fn transmits_on(&self, path: usize) -> bool {
        path < PATHS_TOLD && self.transmits & 1 << path != 0
    }

    fn lacks_lease(&self, now: BootTime, limit: Duration, grace: Duration) -> bool {
        let patience = if self.had_lease { limit } else { limit + grace };
        self.lease_lost.is_some_and(|since| now.since(since) >= patience)
    }
}

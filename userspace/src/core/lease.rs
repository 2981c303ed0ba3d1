//! Leases: how a node may know that it may answer, and the cluster that it no longer does.
//!
//! A node asks all voters at once. A voter that agrees *promises* to support no take-over from that
//! node until its own now + duration + drift margin. Once a majority agreed, the lease is valid until
//! the moment of *asking* + duration. To take over, a majority of voters must first refuse the old
//! lease epoch for good and let their promises run out. Two majorities share a voter, and that voter
//! agreed after the holder asked: so the holder is silent before the majority's promises have run out.
//! No leader is involved, so the loss of a leader neither stops renewals nor adds to a take-over.
//!
//! Assumed: the rates of two hosts' CLOCK_BOOTTIME differ by less than [`drift_margin`] allows.

use std::{collections::BTreeMap, time::Duration};

use super::{quorum::Quorum, time::BootTime};
use crate::model::{LeaseEpoch, NodeId};

/// What a voter adds to a lease's duration: 1 % of it and 5 ms. Quartz drifts by 0.01 %, a clock being
/// slewed by NTP by 0.05 %.
pub fn drift_margin(duration: Duration) -> Duration {
    duration / 100 + Duration::from_millis(5)
}

/// A lease as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub epoch: LeaseEpoch,
    /// `BootTime::ZERO` when there is none.
    pub deadline: BootTime,
}

/// The side that holds a lease.
#[derive(Debug)]
pub struct Holder {
    duration: Duration,
    epoch: LeaseEpoch,
    /// When this node asked for what each voter agreed to last.
    agreed: BTreeMap<NodeId, BootTime>,
}

impl Holder {
    pub fn new(duration: Duration, epoch: LeaseEpoch) -> Self {
        Self { duration, epoch, agreed: BTreeMap::new() }
    }

    pub fn epoch(&self) -> LeaseEpoch {
        self.epoch
    }

    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Starts over under another epoch; what was agreed under the old one is void.
    pub fn adopt(&mut self, epoch: LeaseEpoch) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.agreed.clear();
        }
    }

    /// A voter agreed to what was asked at `asked` under `epoch`.
    pub fn agreed(&mut self, voter: NodeId, epoch: LeaseEpoch, asked: BootTime) {
        if epoch == self.epoch {
            let newest = self.agreed.entry(voter).or_default();
            *newest = (*newest).max(asked);
        }
    }

    /// Until when a majority agreed; None when none did.
    pub fn deadline(&self, quorum: &Quorum) -> Option<BootTime> {
        quorum.reached(|v| self.agreed.get(&v).copied()).map(|asked| asked.after(self.duration))
    }
}

/// Why a voter does not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The epoch is older than one that this voter knows of.
    OldEpoch,
    /// The asker counts on an older set of voters than this voter knows of.
    OldMembership,
    /// This voter has not yet caught up since its start and can't tell what has been decided.
    NotReady,
}

/// The side that promises.
#[derive(Debug)]
pub struct Granter {
    promises: BTreeMap<NodeId, BootTime>,
    /// Epochs below are refused.
    floor: BTreeMap<NodeId, LeaseEpoch>,
    /// Until then promises of an earlier life of this voter may run, to anybody.
    forgotten: BootTime,
    /// Set when this voter has applied all that was decided before it started.
    ready: bool,
}

impl Granter {
    /// `longest` is the longest duration that this voter ever promised before it started.
    pub fn new(now: BootTime, longest: Duration) -> Self {
        let forgotten = if longest.is_zero() { now } else { now.after(longest + drift_margin(longest)) };
        Self { promises: BTreeMap::new(), floor: BTreeMap::new(), forgotten, ready: false }
    }

    /// This voter has applied all that was decided before it started; `epochs` are all nodes' lease
    /// epochs then. They bind it from its first promise on: what an earlier life refused, and a leader
    /// counted on, must stay refused.
    pub fn caught_up(&mut self, epochs: impl IntoIterator<Item = (NodeId, LeaseEpoch)>) {
        for (node, epoch) in epochs {
            self.raise_floor(node, epoch);
        }
        self.ready = true;
    }

    /// The cluster's state says that the node's epoch is at least this.
    pub fn raise_floor(&mut self, node: NodeId, epoch: LeaseEpoch) {
        let floor = self.floor.entry(node).or_default();
        *floor = (*floor).max(epoch);
    }

    /// A node asks. `memberships` are the numbers of the set of voters that it counts on and of the one that
    /// this voter knows.
    pub fn ask(
        &mut self,
        now: BootTime,
        node: NodeId,
        epoch: LeaseEpoch,
        memberships: (u64, u64),
        duration: Duration,
    ) -> Result<(), Refused> {
        if !self.ready {
            return Err(Refused::NotReady);
        }
        if epoch < self.floor.get(&node).copied().unwrap_or(0) {
            return Err(Refused::OldEpoch);
        }
        if memberships.0 < memberships.1 {
            return Err(Refused::OldMembership);
        }
        let until = now.after(duration + drift_margin(duration));
        let promise = self.promises.entry(node).or_default();
        *promise = (*promise).max(until);
        Ok(())
    }

    /// Refuses epochs below `below` from now on, and answers how long what was promised to the node
    /// still runs.
    pub fn refuse_below(&mut self, now: BootTime, node: NodeId, below: LeaseEpoch) -> Duration {
        self.raise_floor(node, below);
        let promised = self.promises.get(&node).copied().unwrap_or_default();
        promised.max(self.forgotten).since(now)
    }
}

/// How long what was judged before a fence rose may still be on its way out of that host: programs that ran on
/// other processors, frames in a queue.
const FENCE_MARGIN: Duration = Duration::from_millis(5);

/// The leader's proof that a deposed node is silent: a majority's promises have run out, or its own kernel
/// said that it has shut all gates of older lease epochs.
///
/// Why the kernel's word is enough. The node's grants up to its deposition belong to lease epochs below the one
/// that it was raised to. A gate is open only while its lease epoch is at least the kernel's fence, and the same
/// function judges for ingress, egress and announcements. The fence never falls while the node is a
/// member (it is raised by compare-and-exchange, and carried over whenever maps are). So once a
/// reflection signed by that kernel tells a fence of that epoch, none of those gates opens there any more, whatever
/// a daemon that was frozen writes when it goes on. The fence is asked for only after the deposition
/// was committed: a daemon that starts later learns of it before it opens anything (the barrier). The
/// programs say whether every interface that may speak for an address is guarded; where one is not,
/// their word does not count, and promises are waited for. After a restart of the host there is neither a fence nor an
/// open gate.
#[derive(Debug)]
pub struct Proof {
    /// The epoch that the node was raised to; grants of older ones are void once proven.
    pub lease_epoch: LeaseEpoch,
    run_out: BTreeMap<NodeId, BootTime>,
    /// When the node's own kernel was known to be fenced.
    fenced: Option<BootTime>,
}

impl Proof {
    pub fn new(lease_epoch: LeaseEpoch) -> Self {
        Self { lease_epoch, run_out: BTreeMap::new(), fenced: None }
    }

    /// A voter refuses the old epoch since before `heard` and its promise runs `remaining` from then.
    pub fn testimony(&mut self, voter: NodeId, heard: BootTime, remaining: Duration) {
        // The voter's clock measured `remaining`; this clock might run faster.
        self.run_out.insert(voter, heard.after(remaining + remaining / 100));
    }

    /// At `at`, the node's kernel was known to have shut all lease epochs below this proof's.
    pub fn fenced(&mut self, at: BootTime) {
        self.fenced.get_or_insert(at);
    }

    /// The node's own kernel proves it, by now.
    pub fn is_fenced(&self, now: BootTime) -> bool {
        self.fenced.is_some_and(|at| now >= at.after(FENCE_MARGIN))
    }

    pub fn heard(&self, voter: NodeId) -> bool {
        self.run_out.contains_key(&voter)
    }

    /// When the node is proven silent; None while too few voters have testified. `not_before`: leases
    /// agreed under a former set of voters have run out by then.
    pub fn complete_at(&self, quorum: &Quorum, not_before: BootTime) -> Option<BootTime> {
        // `reached` looks for the greatest; the earliest moment is the greatest of the reversed.
        let earliest = quorum.reached(|v| self.run_out.get(&v).map(|&t| std::cmp::Reverse(t)));
        let by_promises = earliest.map(|std::cmp::Reverse(t)| t.max(not_before));
        // No promise of anybody matters to a gate that is shut for good.
        let by_fence = self.fenced.map(|at| at.after(FENCE_MARGIN));
        by_promises.into_iter().chain(by_fence).min()
    }
}

#[cfg(test)]
mod tests;

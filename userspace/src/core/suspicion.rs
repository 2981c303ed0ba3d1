//! Who seems to be gone. Suspicion alone moves nothing: it makes the leader depose, and leases decide.

use std::{collections::BTreeMap, time::Duration};

use super::{quorum::Quorum, time::BootTime};
use crate::model::NodeId;

/// What one node hears of the others.
#[derive(Debug)]
pub struct Hearing {
    /// Since when this node has been listening without a gap: after a stall of its own it knows
    /// nothing about the others and must listen anew before it judges.
    listening_since: BootTime,
    started: BootTime,
    last_heard: BTreeMap<NodeId, BootTime>,
}

impl Hearing {
    pub fn new(now: BootTime) -> Self {
        Self { listening_since: now, started: now, last_heard: BTreeMap::new() }
    }

    pub fn heard(&mut self, node: NodeId, now: BootTime) {
        self.last_heard.insert(node, now);
    }

    /// This node itself was stalled until `now`.
    pub fn stalled(&mut self, now: BootTime) {
        self.listening_since = now;
    }

    pub fn last_heard(&self, node: NodeId) -> Option<BootTime> {
        self.last_heard.get(&node).copied()
    }

    /// For how long the node has been silent while this one listened. A node never heard since this
    /// one started is given `grace` first.
    pub fn silence(&self, node: NodeId, now: BootTime, grace: Duration) -> Duration {
        match self.last_heard(node) {
            Some(heard) => now.since(heard.max(self.listening_since)),
            None => now.since(self.started.max(self.listening_since)).saturating_sub(grace),
        }
    }
}

/// What a voter said of a node's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Testimony {
    pub silence: Duration,
    /// When it was said, on the clock of who listens.
    pub heard_at: BootTime,
}

impl Testimony {
    /// Old testimony counts for nothing: the node may have spoken since.
    fn stands(&self, now: BootTime, limit: Duration) -> bool {
        now.since(self.heard_at) < limit && self.silence >= limit
    }
}

/// A node is suspected when a majority of the voters has not heard it for `limit`: then it can't be
/// renewing its lease either.
pub fn is_suspected(
    quorum: &Quorum,
    now: BootTime,
    limit: Duration,
    said_by: impl Fn(NodeId) -> Option<Testimony>,
) -> bool {
    quorum.is_met(|voter| said_by(voter).is_some_and(|t| t.stands(now, limit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(1500);

    fn at(ms: u64) -> BootTime {
        BootTime(ms * 1_000_000)
    }

    #[test]
    fn silence_counts_from_the_last_word() {
        let mut h = Hearing::new(at(0));
        h.heard(2, at(1000));
        assert_eq!(h.silence(2, at(1700), Duration::ZERO), Duration::from_millis(700));
    }

    #[test]
    fn never_heard_is_given_grace() {
        let h = Hearing::new(at(0));
        let grace = Duration::from_secs(8);
        assert_eq!(h.silence(2, at(7000), grace), Duration::ZERO);
        assert_eq!(h.silence(2, at(9500), grace), LIMIT);
    }

    #[test]
    fn who_stalled_knows_nothing() {
        let mut h = Hearing::new(at(0));
        h.heard(2, at(1000));
        h.stalled(at(6000));
        assert_eq!(h.silence(2, at(6100), Duration::ZERO), Duration::from_millis(100));
    }

    #[test]
    fn a_majority_that_still_listens_decides() {
        let q = Quorum::new(vec![(1..=3).collect()]);
        let t =
            |silence, heard| Some(Testimony { silence: Duration::from_millis(silence), heard_at: at(heard) });
        let judge = |one, two| {
            is_suspected(&q, at(10_000), LIMIT, |v| match v {
                1 => one,
                2 => two,
                _ => None,
            })
        };
        assert!(judge(t(1500, 10_000), t(1600, 9_900)));
        assert!(!judge(t(1500, 10_000), t(1400, 9_900)), "the other has heard it");
        assert!(!judge(t(1500, 10_000), t(9000, 8_000)), "the other's word is old");
        assert!(!judge(t(1500, 10_000), None), "one alone does not judge");
    }
}

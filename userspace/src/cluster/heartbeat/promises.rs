//! This voter's promises, shared by the heartbeat thread that makes them and the peer requests that ask
//! about them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::pulse::lock;
use crate::{
    core::lease::{Granter, Refused},
    model::{ClusterState, LeaseEpoch, NodeId},
    observe::clock,
};

/// Makes a longer promise known to the next life of this voter.
pub type Remember = Box<dyn FnMut(Duration) -> std::io::Result<()> + Send>;

/// Shared, cheap to clone.
#[derive(Clone)]
pub struct Promises(Arc<Mutex<Book>>);

struct Book {
    granter: Granter,
    longest: Duration,
    remember: Remember,
}

impl Promises {
    /// `longest` is the longest lease that this voter ever promised in an earlier life; zero for never.
    /// `remember` is called, and must have stored it durably, before a longer one is promised.
    pub fn new(longest: Duration, remember: Remember) -> Self {
        let granter = Granter::new(clock::now(), longest);
        Self(Arc::new(Mutex::new(Book { granter, longest, remember })))
    }

    /// This voter has applied all that was decided before it started, up to this state: it may promise
    /// from now on, and refuses what the state says is over.
    pub fn caught_up(&self, state: &ClusterState) {
        lock(&self.0).granter.caught_up(state.nodes.values().map(|n| (n.id, n.lease_epoch)));
    }

    /// Refuses the node's lease epochs below `below` from now on; how long promises still run.
    pub fn refuse_below(&self, node: NodeId, below: LeaseEpoch) -> Duration {
        let mut book = lock(&self.0);
        book.granter.refuse_below(clock::now(), node, below)
    }

    pub(super) fn raise_floor(&self, node: NodeId, epoch: LeaseEpoch) {
        lock(&self.0).granter.raise_floor(node, epoch);
    }

    /// See [`Granter::ask`].
    pub(super) fn ask(
        &self,
        node: NodeId,
        epoch: LeaseEpoch,
        memberships: (u64, u64),
        duration: Duration,
    ) -> Result<(), Refused> {
        let mut book = lock(&self.0);
        if duration > book.longest {
            if let Err(error) = (book.remember)(duration) {
                tracing::error!(%error, "cannot store how long leases are promised: none is");
                return Err(Refused::NotReady);
            }
            book.longest = duration;
        }
        // Read after taking the lock: the clock must not be older than the promise.
        book.granter.ask(clock::now(), node, epoch, memberships, duration)
    }
}

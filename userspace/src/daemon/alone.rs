//! Asks the cluster for the permission to hold this node's lease alone where the policy of two nodes says so, and
//! gives it back where it no longer does (row CL-4).

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::events::{About, EventLog};
use crate::{
    cluster::{Store, heartbeat::Solitude},
    config::Timing,
    core::{
        alone::{Step, step},
        change::{Applied, Change},
    },
    model::{Alone, NodeId},
    observe::clock,
};

pub struct AloneKeeper {
    pub me: NodeId,
    /// This life of the daemon.
    pub life: u64,
    pub store: Arc<dyn Store>,
    pub solitude: Solitude,
    pub timing: Timing,
    pub events: EventLog,
    pub caught_up: watch::Receiver<bool>,
}

impl AloneKeeper {
    /// Runs until the daemon ends.
    pub async fn run(mut self) {
        let mut view = self.store.view();
        let mut turn = 0;
        // Before, an earlier life's permission means nothing.
        if self.caught_up.wait_for(|caught| *caught).await.is_err() {
            return;
        }
        loop {
            let state = view.borrow_and_update().state.clone();
            let wait = match step(&state, self.me, self.solitude.asked()) {
                Step::Nothing => Duration::from_secs(3600),
                Step::Stop => {
                    self.solitude.give_up();
                    Duration::from_secs(3600)
                }
                Step::Ask => {
                    turn += 1;
                    self.ask(Alone { life: self.life, turn }).await
                }
                Step::Return(alone) => self.give_back(alone).await,
            };
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Answers when to look again if nothing happens.
    async fn ask(&self, alone: Alone) -> Duration {
        self.solitude.ask(alone);
        match self.store.propose(Change::HoldAlone { node: self.me, alone }).await {
            Ok(Applied::Done | Applied::Node(_)) => {
                // Another permission asked for before this one is known here would take its place.
                let mut view = self.store.view();
                let granted =
                    view.wait_for(|v| v.state.nodes.get(&self.me).is_none_or(|n| n.alone == Some(alone)));
                // Without an end only where the cluster is lost at this moment: then it is asked for again.
                let _ = tokio::time::timeout(self.timing.lease, granted).await;
                let message = "this node keeps what it has when it loses the other (two-nodes=freeze)";
                self.events.record(About::default(), "lease.alone", message);
            }
            Ok(Applied::Refused(why)) => tracing::debug!(%why, "the lease is not to be held alone"),
            Err(error) => tracing::debug!(%error, "the permission to hold the lease alone is not there yet"),
        }
        self.timing.heartbeat
    }

    /// The lease that was held alone must have run out before others may presume that none is.
    async fn give_back(&self, alone: Alone) -> Duration {
        let left = self.solitude.give_up().since(clock::now());
        if !left.is_zero() {
            return left;
        }
        match self.store.propose(Change::LetGo { node: self.me, alone }).await {
            Ok(Applied::Done | Applied::Node(_)) => {
                let message = "this node needs a majority for its lease from now on";
                self.events.record(About::default(), "lease.shared", message);
            }
            Ok(Applied::Refused(why)) => tracing::debug!(%why, "another permission is there"),
            Err(error) => {
                tracing::debug!(%error, "the permission to hold the lease alone is not returned yet")
            }
        }
        self.timing.heartbeat
    }
}

//! Asks the cluster for the permission to hold this node's lease alone where the policy of two nodes says so, and
//! gives it back where it no longer does (row CL-4).

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::events::{About, EventLog};
use crate::{
    cluster::{Store, heartbeat::Solitude},
    config::Timing,
    core::change::{Applied, Change},
    model::{Alone, ClusterState, NodeId, Standing},
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

/// What is to be done about the permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// A permission of this life is wanted, and there is none.
    Ask,
    /// None may be used, and this one is still the cluster's to know of.
    Return(Alone),
    /// None may be used, and there is none.
    Stop,
}

fn step(state: &ClusterState, me: NodeId, asked: Option<Alone>) -> Step {
    let Some(node) = state.nodes.get(&me) else { return Step::Stop };
    if state.freezes() {
        return match node.standing {
            Standing::Member if node.alone.is_none() || node.alone != asked => Step::Ask,
            Standing::Member | Standing::Joining => Step::Nothing,
            // Until it has rejoined.
            Standing::Deposed => Step::Stop,
        };
    }
    node.alone.map_or(Step::Stop, Step::Return)
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
                let granted = view.wait_for(|v| v.state.nodes.get(&self.me).is_none_or(|n| n.alone == Some(alone)));
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
            Err(error) => tracing::debug!(%error, "the permission to hold the lease alone is not returned yet"),
        }
        self.timing.heartbeat
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::change::{NewNode, apply},
        model::TwoNodes,
    };

    fn two(policy: TwoNodes) -> ClusterState {
        let mut state = ClusterState::default();
        let node = |n: u8| {
            let at = ([10, 0, 0, n], 7411).into();
            NewNode { name: format!("n{n}"), rpc: at, paths: vec![at], witness: false }
        };
        apply(&mut state, &Change::Found { name: "lab".into(), node: node(1) });
        apply(&mut state, &Change::Reserve { node: node(2) });
        apply(&mut state, &Change::Admit { node: 2 });
        state.defaults.two_nodes = policy;
        state
    }

    #[test]
    fn asks_where_the_policy_says_so_and_returns_it_where_not() {
        let mine = Alone { life: 7, turn: 1 };
        let former = Alone { life: 6, turn: 3 };
        let mut state = two(TwoNodes::Freeze);
        assert_eq!(step(&state, 1, None), Step::Ask);
        assert_eq!(step(&state, 1, Some(mine)), Step::Ask, "asked, not granted");
        state.nodes.get_mut(&1).unwrap().alone = Some(former);
        assert_eq!(step(&state, 1, None), Step::Ask, "that of an earlier life is not to be used");
        state.nodes.get_mut(&1).unwrap().alone = Some(mine);
        assert_eq!(step(&state, 1, Some(mine)), Step::Nothing);
        state.nodes.get_mut(&1).unwrap().standing = Standing::Deposed;
        assert_eq!(step(&state, 1, Some(mine)), Step::Stop);
        state.nodes.get_mut(&1).unwrap().standing = Standing::Member;
        state.defaults.two_nodes = TwoNodes::Off;
        assert_eq!(step(&state, 1, Some(mine)), Step::Return(mine));
        state.nodes.get_mut(&1).unwrap().alone = None;
        assert_eq!(step(&state, 1, Some(mine)), Step::Stop);
    }

    #[test]
    fn a_third_node_on_its_way_ends_it() {
        let mut state = two(TwoNodes::Freeze);
        let at = ([10, 0, 0, 3], 7411).into();
        let node = NewNode { name: "n3".into(), rpc: at, paths: vec![at], witness: true };
        assert_eq!(step(&state, 2, None), Step::Ask);
        apply(&mut state, &Change::Reserve { node });
        assert_eq!(step(&state, 2, None), Step::Stop);
    }
}

//! Publishes what the daemon knows of heartbeats, and turns changes of it into events.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::watch;

use super::events::{About, EventLog};
use crate::{
    api::facts::{Facts, KernelFacts, PathFacts, PeerFacts},
    cluster::{
        Store,
        heartbeat::{Ears, KernelPath, lock},
    },
    config::Timing,
    core::{quorum::Quorum, time::BootTime},
    model::{ClusterState, NodeId},
    observe::clock,
};

pub struct Watcher {
    pub me: NodeId,
    pub store: Arc<dyn Store>,
    pub ears: Arc<Mutex<Ears>>,
    pub timing: Timing,
    pub events: EventLog,
    pub facts: watch::Sender<Facts>,
}

impl Watcher {
    /// Runs until nobody reads the facts any more.
    pub async fn run(self) {
        let (view, mut leadership) = (self.store.view(), self.store.leadership());
        let mut ticks = tokio::time::interval(self.timing.heartbeat);
        let mut last_leader = None;
        let mut known = Facts::default();
        while !self.facts.is_closed() {
            // Who votes decides what a quorum is: an answer must not tell of one that is over.
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = leadership.changed() => {}
            }
            let state = view.borrow().state.clone();
            let (leader, quorum) = {
                let lead = leadership.borrow_and_update();
                (lead.leader, Quorum::new(lead.configs.clone()))
            };
            let facts = self.look(&state, &quorum, clock::now());
            self.tell_changes(&known, &facts, &state);
            if leader != last_leader {
                last_leader = leader;
                let message = match leader {
                    Some(id) => format!("node '{}' leads", state.node_name(id)),
                    None => "no leader: nothing can be decided until there is one".to_owned(),
                };
                self.events.record(About::default(), "cluster.leader", message);
            }
            known = facts.clone();
            self.facts.send_replace(facts);
        }
    }

    fn look(&self, state: &ClusterState, quorum: &Quorum, now: BootTime) -> Facts {
        let limit = self.timing.suspicion;
        let ears = lock(&self.ears);
        let peer = |id: NodeId| {
            let known = ears.peer(id);
            let transmits = |i: usize| known.is_some_and(|p| p.transmits_on(i));
            let kernel: Vec<&KernelPath> = ears.kernel().iter().filter(|k| k.node == id).collect();
            let heard = |i: usize| known.and_then(|p| p.paths.get(i).copied().flatten());
            let path = |i: usize| PathFacts {
                up: heard(i).is_some_and(|t| now.since(t) < limit),
                transmits: transmits(i),
                last_heard: heard(i),
                kernel: kernel.iter().find(|k| usize::from(k.path) == i).and_then(|k| facts_of(k)),
            };
            let count = known.map_or(0, |p| p.paths.len()).max(kernel.len());
            PeerFacts {
                alive: ears.is_alive(id, now, limit),
                lease_valid: known.is_some_and(|p| p.lease_valid),
                paths: (0..count).map(path).collect(),
            }
        };
        let others = state.nodes.keys().filter(|&&id| id != self.me);
        let peers: BTreeMap<NodeId, PeerFacts> = others.map(|&id| (id, peer(id))).collect();
        Facts { quorum: quorum.is_met(|v| v == self.me || ears.is_alive(v, now, limit)), peers }
    }

    /// The peer's kernel stopped answering on a path, or answers again.
    fn tell_silence(&self, i: usize, before: PathFacts, now: PathFacts, name: &str) {
        let silent = |p: PathFacts| p.kernel.is_some_and(|k| k.silent);
        if silent(now) && !silent(before) {
            let message = format!("path {i} to node '{name}' is silent: its kernel answers no probe there");
            self.events.warn(About::default(), "path.silent", message);
        } else if silent(before) && !silent(now) {
            let message = format!("path {i} to node '{name}': its kernel answers again");
            self.events.record(About::default(), "path.answers", message);
        }
    }

    fn tell_changes(&self, was: &Facts, is: &Facts, state: &ClusterState) {
        for (id, now) in &is.peers {
            let before = was.peers.get(id).cloned().unwrap_or_default();
            let name = state.node_name(*id);
            if now.alive != before.alive {
                let (kind, message) = if now.alive {
                    ("node.heard", format!("node '{name}' is heard"))
                } else {
                    ("node.unheard", format!("node '{name}' is no longer heard on any path"))
                };
                self.events.record(About::default(), kind, message);
            }
            for (i, path) in now.paths.iter().enumerate() {
                self.tell_silence(i, before.paths.get(i).copied().unwrap_or_default(), *path, &name);
                let up_before = before.paths.get(i).is_some_and(|p| p.up);
                // While the whole node is silent, its paths say nothing more.
                if path.up == up_before || !now.alive {
                    continue;
                }
                if path.up {
                    let message = format!("path {i} to node '{name}' is up");
                    self.events.record(About::default(), "path.up", message);
                } else {
                    let message = format!("path {i} to node '{name}' is down; others still carry heartbeats");
                    self.events.warn(About::default(), "path.down", message);
                }
            }
        }
    }
}

/// None where the peer's kernel never answered.
fn facts_of(path: &KernelPath) -> Option<KernelFacts> {
    let sight = path.sight();
    sight.answered?;
    Some(KernelFacts {
        silent: sight.silent_since.is_some(),
        rtt: Duration::from_nanos(path.state.rtt_ns),
        rtt_min: Duration::from_nanos(path.state.rtt_min_ns),
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use async_trait::async_trait;

    use super::*;
    use crate::{
        cluster::{Leadership, StoreError, View},
        config::Profile,
        core::change::{Applied, Change},
    };

    const ME: NodeId = 1;

    /// Only says who votes.
    struct Voters(watch::Sender<Leadership>, watch::Sender<View>);

    #[async_trait]
    impl Store for Voters {
        async fn propose(&self, _: Change) -> Result<Applied, StoreError> {
            Err(StoreError::NoCluster)
        }

        async fn barrier(&self) -> Result<(), StoreError> {
            Err(StoreError::NoCluster)
        }

        fn view(&self) -> watch::Receiver<View> {
            self.1.subscribe()
        }

        fn leadership(&self) -> watch::Receiver<Leadership> {
            self.0.subscribe()
        }

        async fn admit(&self, _: NodeId) -> Result<(), StoreError> {
            Err(StoreError::NoCluster)
        }

        async fn remove(&self, _: NodeId, _: Option<NodeId>) -> Result<Applied, StoreError> {
            Err(StoreError::NoCluster)
        }

        async fn readdress(
            &self,
            _: NodeId,
            _: SocketAddr,
            _: Vec<SocketAddr>,
        ) -> Result<Applied, StoreError> {
            Err(StoreError::NoCluster)
        }
    }

    #[tokio::test]
    async fn who_votes_counts_from_the_moment_at_which_it_changes() {
        let two = Leadership { configs: vec![[ME, 2].into()], ..Leadership::default() };
        let store = Arc::new(Voters(watch::Sender::new(two), watch::Sender::new(View::default())));
        let (facts, mut seen) = watch::channel(Facts { quorum: true, ..Facts::default() });
        // No tick but the first one comes within this test.
        let timing = Timing { heartbeat: Duration::from_secs(3600), ..Profile::Default.timing() };
        let watcher = Watcher {
            me: ME,
            store: store.clone(),
            ears: Arc::new(Mutex::new(Ears::new(ME, clock::now()))),
            timing,
            events: EventLog::open(None),
            facts,
        };
        tokio::spawn(watcher.run());
        seen.wait_for(|f| !f.quorum).await.unwrap();
        store.0.send_modify(|l| l.configs = vec![[ME].into()]);
        tokio::time::timeout(Duration::from_secs(60), seen.wait_for(|f| f.quorum)).await.unwrap().unwrap();
    }
}

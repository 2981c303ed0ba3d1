//! Goes on alone by itself where the other of two voters is lost and the policy says so (row CL-4). What it decides
//! by is in [`crate::core::tie_breaker`]; what follows is what follows an operator's `force-quorum`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    connectivity::{poll, ways},
    events::{About, EventLog},
};
use crate::{
    act::gatekeeper::Gatekeeper,
    api::facts::Facts,
    cluster::Store,
    config::{StoreKind, Timing},
    core::{
        change::Applied,
        lease::drift_margin,
        links::LinkTable,
        subnets::{POLL_WAIT, Poll},
        tie_breaker::{
            Case, Contest, HEAD_START, LOOK, Look, Seen, Step, Why, case, is_late, is_maintained, turn,
            watched,
        },
        time::BootTime,
    },
    model::{ClusterState, NodeId, Word},
    observe::{
        clock,
        network::{Network, mac_text},
        probe::uses_of,
    },
};

pub struct TieBreaker {
    pub me: NodeId,
    pub store: Arc<dyn Store>,
    pub network: Network,
    pub keeper: Arc<Gatekeeper>,
    pub links: watch::Receiver<LinkTable>,
    pub facts: watch::Receiver<Facts>,
    pub timing: Timing,
    pub events: EventLog,
    /// Who was restarted since does not know what the other decided, and goes nowhere.
    pub caught_up: watch::Receiver<bool>,
}

/// The other was lost, and has been since.
struct Loss {
    case: Case,
    since: BootTime,
    contest: Contest,
    said: Option<Why>,
}

impl TieBreaker {
    /// Runs until the daemon ends.
    pub async fn run(mut self) {
        if self.caught_up.wait_for(|c| *c).await.is_err() || self.store.health().kind == StoreKind::Etcd {
            return;
        }
        let mut loss: Option<Loss> = None;
        let mut last = clock::now();
        // Fresh facts come once a heartbeat.
        while self.facts.changed().await.is_ok() {
            let now = clock::now();
            // This daemon was stalled: what it believes of the other's silence is worth nothing.
            let was_stalled = now.since(last) > self.timing.suspicion;
            last = now;
            let lost = self.lost().filter(|_| !was_stalled);
            loss = match (loss.take(), lost) {
                (Some(l), Some(case)) if l.case == case => Some(l),
                (_, Some(case)) => Some(Loss { case, since: now, contest: Contest::default(), said: None }),
                (_, None) => None,
            };
            let Some(l) = &mut loss else { continue };
            let wait = turn(l.case.first, self.timing.lease, drift_margin(self.timing.lease));
            if now.since(l.since) >= wait {
                self.attempt(l).await;
                last = clock::now();
            }
        }
    }

    /// The other of two, which is not heard.
    fn lost(&self) -> Option<Case> {
        let view = self.store.view();
        let state = view.borrow().state.clone();
        let voters = self.store.leadership().borrow().voters.clone();
        let case = case(&state, &voters, self.me)?;
        let heard = self.facts.borrow().peers.get(&case.other).is_none_or(|p| p.alive);
        (!heard).then_some(case)
    }

    async fn attempt(&mut self, loss: &mut Loss) {
        let since_lease = clock::now().since(self.keeper.held().deadline);
        let margin = drift_margin(self.timing.lease);
        let late = is_late(since_lease, self.timing.suspicion, margin);
        let look = Look { late, ..self.look(loss.case).await };
        let step = loss.contest.take(loss.case.first, look);
        if let Step::Stay(why) = step {
            let pause = why.pause(loss.case.first);
            if loss.said.as_ref() != Some(&why) {
                let name = self.store.view().borrow().state.node_name(loss.case.other);
                let message = format!("node '{name}' is lost and this one does not go on without it: {why}");
                self.events.warn(About::default(), "cluster.tie", message);
                loss.said = Some(why);
            }
            sleep(pause).await;
            return;
        }
        // It may have been heard during the look.
        let still = self.facts.changed().await.is_ok() && self.lost() == Some(loss.case);
        if step == Step::Go && still {
            self.go(loss.case).await;
        }
    }

    /// Until it answers for the addresses it probes for them, so that the other hears it.
    async fn go(&self, case: Case) {
        let state = self.store.view().borrow().state.clone();
        let name = state.node_name(case.other);
        let going = self.store.go_on_without(case.other, Word::TieBreaker);
        let probing = async {
            loop {
                self.seen(&state, case).await;
            }
        };
        let done = tokio::select! {
            done = going => done,
            () = probing => return,
        };
        match done {
            Ok(Applied::Done | Applied::Node(_)) => {
                let message = format!(
                    "UNSAFE if it is alive: node '{name}' was declared dead by {}, and the cluster goes on without it: \
                     this node reaches the connectivity hosts, and nobody else was seen on the addresses",
                    Word::TieBreaker.whose()
                );
                self.events.warn(About::default(), "cluster.forced", message);
            }
            Ok(Applied::Refused(why)) => tracing::warn!(%why, "the tie-breaker's word is refused"),
            Err(error) => tracing::warn!(%error, "this node does not go on without '{name}' yet"),
        }
        let _ = timeout(HEAD_START, async {
            loop {
                self.seen(&state, case).await;
            }
        })
        .await;
    }

    async fn look(&self, case: Case) -> Look {
        let state = self.store.view().borrow().state.clone();
        let pings = state.connectivity.hosts.iter().map(|host| self.reaches(*host));
        let (reached, agrees, seen) =
            tokio::join!(join_all(pings), timeout(LOOK, self.store.barrier()), self.seen(&state, case));
        Look {
            maintained: is_maintained(&state),
            reached: reached.into_iter().filter(|r| *r).count(),
            hosts: state.connectivity.hosts.len(),
            agrees: matches!(agrees, Ok(Ok(()))),
            seen,
            late: false,
        }
    }

    /// One of this node's own addresses tells nothing.
    async fn reaches(&self, host: std::net::IpAddr) -> bool {
        let ways = ways(host, &self.links.borrow());
        match ways {
            Ok(ways) => poll(host, ways, POLL_WAIT).await == Poll::Answered,
            Err(_) => false,
        }
    }

    /// Takes [`LOOK`], also where there is nothing to look at.
    async fn seen(&self, state: &ClusterState, case: Case) -> Seen {
        let (seen, ()) = tokio::join!(self.users(state, case), sleep(LOOK));
        seen
    }

    async fn users(&self, state: &ClusterState, case: Case) -> Seen {
        let watched = watched(state, self.me, case);
        if watched.is_empty() {
            return Seen::Nothing;
        }
        let mut on = BTreeMap::new();
        {
            let table = self.links.borrow();
            for w in &watched {
                let Some(device) = table.choose(w.devices, None) else { continue };
                on.entry(device.to_owned()).or_insert_with(Vec::new).extend(&w.addresses);
            }
        }
        let Ok(links) = self.network.links().await else { return Seen::Blind };
        // Probes are spread over the first half, and answers to the last waited for in the other.
        let wait: Duration = LOOK / 2;
        let looks = on.into_iter().filter_map(|(device, addresses)| {
            let link = links.iter().find(|l| l.name == device)?;
            Some(uses_of(link, addresses, wait))
        });
        let heard: Vec<_> = join_all(looks).await.into_iter().filter_map(Result::ok).collect();
        if heard.is_empty() {
            return Seen::Blind;
        }
        // Who answers says more than who probes.
        match heard.into_iter().flatten().min_by_key(|h| h.probing) {
            None => Seen::Nobody,
            Some(h) => Seen::Somebody { address: h.address, mac: mac_text(h.mac), probing: h.probing },
        }
    }
}

//! Foreign claims on addresses in service here (row DP-10): told, remembered for status, and answered as
//! the resource's policy says.

use std::{collections::HashMap, time::Duration};

use tokio::sync::{mpsc, watch};

use super::events::{About, EventLog};
use crate::{
    act::{
        announce::Announcer,
        datapath::{ConflictReader, ForeignClaim},
    },
    api::facts::ConflictFacts,
    cluster::View,
    core::{
        conflict::{Conflicts, Response},
        time::BootTime,
    },
    model::{OnConflict, Resource, ResourceId, Tag},
    observe::{
        clock,
        network::{Link, Network},
    },
};

/// Tells the agent that a resource must not stay in service here, and why.
pub struct Yielded {
    pub tag: Tag,
    pub id: ResourceId,
    pub reason: String,
}

pub struct ConflictWatch {
    pub view: watch::Receiver<View>,
    pub network: Network,
    pub announcer: Announcer,
    pub events: EventLog,
    pub facts: watch::Sender<Vec<ConflictFacts>>,
    pub yielded: mpsc::UnboundedSender<Yielded>,
}

/// Claims that wait to be judged; more are as if they had not been heard. The kernel tells of each gate's at
/// most once a second, so a host that goes on claiming is heard again.
const WAITING: usize = 1024;

/// A claim that has waited longer says nothing of now.
const STALE: Duration = Duration::from_secs(5);

/// How long what was looked up is good for, and how often the facts are published.
const PACE: Duration = Duration::from_millis(500);

/// What is looked up for many claims at once.
#[derive(Default)]
struct Known {
    resources: HashMap<ResourceId, Tag>,
    links: Vec<Link>,
    looked: Option<BootTime>,
}

impl ConflictWatch {
    /// Runs as long as the daemon.
    pub async fn run(self, reader: ConflictReader) {
        let (heard, mut claims) = mpsc::channel(WAITING);
        let reading = reader.run(move |claim| {
            // What does not fit is heard again if it goes on.
            let _ = heard.try_send(claim);
        });
        let judging = async {
            let (mut conflicts, mut known) = (Conflicts::default(), Known::default());
            while let Some(claim) = claims.recv().await {
                if clock::now().since(claim.claim.at) < STALE {
                    self.judge(&mut conflicts, &mut known, &claim).await;
                }
                if claims.is_empty() {
                    self.publish(&conflicts);
                }
            }
        };
        tokio::select! {
            result = reading => if let Err(error) = result {
                let message = format!("foreign claims on addresses are not noticed any more: {error}");
                self.events.warn(About::default(), "conflict.watch-failed", message);
            },
            () = judging => {}
        }
    }

    async fn look(&self, known: &mut Known) {
        let now = clock::now();
        if known.looked.is_some_and(|at| now.since(at) < PACE) {
            return;
        }
        let state = self.view.borrow().state.clone();
        known.resources = state.resources.values().map(|r| (r.id, r.tag.clone())).collect();
        known.links = self.network.links().await.unwrap_or_default();
        known.looked = Some(now);
    }

    async fn judge(&self, conflicts: &mut Conflicts, known: &mut Known, foreign: &ForeignClaim) {
        self.look(known).await;
        let Some(tag) = known.resources.get(&foreign.group) else { return };
        let resource = self.view.borrow().state.resources.get(tag).cloned();
        let Some(resource) = resource.filter(|r| r.id == foreign.group) else { return };
        if known.links.iter().any(|link| link.mac == foreign.claim.mac) {
            tracing::debug!(?foreign, "this host's own other interface on the same segment");
            return;
        }
        let link = known.links.iter().find(|link| link.index == foreign.ifindex);
        let response = conflicts.heard(foreign.group, foreign.claim, resource.on_conflict);
        self.tell(&resource, foreign, link, response);
        match response {
            Response::Tell => {}
            Response::Defend => self.defend(&resource, foreign, link),
            Response::Yield => {
                let reason = self.sentence(foreign, link);
                // The receiver is gone only when the daemon ends.
                let _ = self.yielded.send(Yielded { tag: resource.tag.clone(), id: resource.id, reason });
            }
        }
    }

    fn about(resource: &Resource, foreign: &ForeignClaim) -> About {
        About { tag: Some(resource.tag.clone()), address: Some(foreign.claim.address), ..About::default() }
    }

    fn sentence(&self, foreign: &ForeignClaim, link: Option<&Link>) -> String {
        let mac = foreign.claim.mac.map(|byte| format!("{byte:02x}")).join(":");
        let on = link.map_or_else(|| format!("interface number {}", foreign.ifindex), |l| l.name.clone());
        format!("{mac} {} {} on {on}", foreign.claim.kind, foreign.claim.address)
    }

    fn tell(&self, resource: &Resource, foreign: &ForeignClaim, link: Option<&Link>, response: Response) {
        let (about, said) = (Self::about(resource, foreign), self.sentence(foreign, link));
        if !foreign.claim.kind.is_claim() {
            let message = format!("{said}, which is in service here: it was told so");
            self.events.record(about, "conflict.probe", message);
            return;
        }
        let then = match (response, resource.on_conflict) {
            (Response::Yield, _) => "it is given up here (on-conflict=yield)",
            (Response::Defend, _) => "it is announced again (on-conflict=defend)",
            (Response::Tell, OnConflict::Defend) => "it was announced again a moment ago",
            (Response::Tell, OnConflict::Report | OnConflict::Yield) => {
                "nothing is done (on-conflict=report)"
            }
        };
        let message = format!("{said}, which is in service here: {then}; take it away from that host");
        self.events.warn(about, "conflict", message);
    }

    fn defend(&self, resource: &Resource, foreign: &ForeignClaim, link: Option<&Link>) {
        let Some(link) = link else { return };
        if let Err(error) = self.announcer.once(link, foreign.claim.address) {
            self.events.warn(Self::about(resource, foreign), "conflict.defence-failed", error.to_string());
        }
    }

    fn publish(&self, conflicts: &Conflicts) {
        let state = self.view.borrow().state.clone();
        let tags: HashMap<ResourceId, &Tag> = state.resources.values().map(|r| (r.id, &r.tag)).collect();
        let facts = conflicts.recent(clock::now()).filter_map(|(address, known)| {
            let tag = (*tags.get(&known.group)?).clone();
            let (mac, count, last) = (known.last.mac, known.count, known.last.at);
            Some(ConflictFacts { tag, address: *address, mac, count, last })
        });
        self.facts.send_replace(facts.collect());
    }
}

//! Foreign claims on addresses in service here (row DP-10): told, remembered for status, and answered as
//! the resource's policy says.

use tokio::sync::{mpsc, watch};

use super::events::{About, EventLog};
use crate::{
    act::datapath::{ConflictReader, ForeignClaim},
    api::facts::ConflictFacts,
    cluster::View,
    core::conflict::{Conflicts, Response},
    model::{OnConflict, Resource, Tag},
    observe::network::{Link, Network},
};

/// Tells the agent that a resource must not stay in service here, and why.
pub struct Yielded {
    pub tag: Tag,
    pub reason: String,
}

pub struct ConflictWatch {
    pub view: watch::Receiver<View>,
    pub network: Network,
    pub events: EventLog,
    pub facts: watch::Sender<Vec<ConflictFacts>>,
    pub yielded: mpsc::UnboundedSender<Yielded>,
}

impl ConflictWatch {
    /// Runs as long as the daemon.
    pub async fn run(self, reader: ConflictReader) {
        let (heard, mut claims) = mpsc::unbounded_channel();
        let reading = reader.run(move |claim| {
            // The receiver is gone only when the daemon ends.
            let _ = heard.send(claim);
        });
        let judging = async {
            let mut conflicts = Conflicts::default();
            while let Some(claim) = claims.recv().await {
                self.judge(&mut conflicts, &claim).await;
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

    async fn judge(&self, conflicts: &mut Conflicts, foreign: &ForeignClaim) {
        let resource = {
            let state = self.view.borrow().state.clone();
            state.resources.values().find(|r| r.id == foreign.group).cloned()
        };
        let Some(resource) = resource else { return };
        let links = self.network.links().await.unwrap_or_default();
        if links.iter().any(|link| link.mac == foreign.claim.mac) {
            tracing::debug!(?foreign, "this host's own other interface on the same segment");
            return;
        }
        let link = links.iter().find(|link| link.index == foreign.ifindex);
        let response = conflicts.heard(foreign.group, foreign.claim, resource.on_conflict);
        self.tell(&resource, foreign, link, response);
        match response {
            Response::Tell => {}
            Response::Defend => self.defend(&resource, foreign, link),
            Response::Yield => {
                let reason = self.sentence(foreign, link);
                // The receiver is gone only when the daemon ends.
                let _ = self.yielded.send(Yielded { tag: resource.tag.clone(), reason });
            }
        }
        self.publish(conflicts, foreign);
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
        if let Err(error) = self.network.announce(link, &[foreign.claim.address]) {
            self.events.warn(Self::about(resource, foreign), "conflict.defence-failed", error.to_string());
        }
    }

    fn publish(&self, conflicts: &Conflicts, foreign: &ForeignClaim) {
        let state = self.view.borrow().state.clone();
        let facts = conflicts.recent(foreign.claim.at).filter_map(|(address, known)| {
            let tag = state.resources.values().find(|r| r.id == known.group)?.tag.clone();
            Some(ConflictFacts {
                tag,
                address: *address,
                mac: known.last.mac,
                count: known.count,
                last: known.last.at,
            })
        });
        self.facts.send_replace(facts.collect());
    }
}

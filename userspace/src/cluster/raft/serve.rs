//! Answers the other nodes' requests.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    leader::{self, Leader},
    types::Raft,
};
use crate::{
    cluster::{
        promise::PromiseBook,
        store::View,
        transport::{Handler, PeerAnswer, PeerRequest},
    },
    config::StoreKind,
    model::NodeId,
};

/// Whoever asks has given up after so long.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Answerer {
    raft: Raft,
    leader: Leader,
    view: watch::Receiver<View>,
    promises: Arc<dyn PromiseBook>,
}

impl Answerer {
    pub(crate) fn new(
        raft: Raft,
        leader: Leader,
        view: watch::Receiver<View>,
        promises: Arc<dyn PromiseBook>,
    ) -> Self {
        Self { raft, leader, view, promises }
    }

    /// Such a node learns it from whomever it asks. Raft's word of its leader still counts: one that removed itself
    /// leads until the others are the voters.
    fn is_removed(&self, from: NodeId, request: &PeerRequest) -> bool {
        let leads = matches!(request, PeerRequest::AppendEntries(_) | PeerRequest::InstallSnapshot(_));
        let votes = || self.leader.leadership().borrow().voters.contains(&from);
        !leads && self.view.borrow().state.was_removed(from) && !votes()
    }

    async fn answer(&self, request: PeerRequest, deadline: Instant) -> PeerAnswer {
        match request {
            PeerRequest::AppendEntries(rpc) => PeerAnswer::AppendEntries(self.raft.append_entries(rpc).await),
            PeerRequest::Vote(rpc) => PeerAnswer::Vote(self.raft.vote(rpc).await),
            PeerRequest::InstallSnapshot(part) => match part.try_into() {
                Ok(rpc) => PeerAnswer::InstallSnapshot(self.raft.install_snapshot(rpc).await),
                Err(e) => PeerAnswer::Failed { reason: format!("a broken part of a snapshot: {e}") },
            },
            PeerRequest::StoreKind => PeerAnswer::StoreKind(StoreKind::Raft),
            PeerRequest::Promise(query) => PeerAnswer::Promise(self.promises.query(&query)),
            leaders => self.leader.lead(leaders, deadline).await,
        }
    }
}

#[async_trait]
impl Handler for Answerer {
    async fn handle(&self, from: NodeId, request: PeerRequest) -> PeerAnswer {
        let name = request.name();
        tracing::trace!("node {from} asks: {name}");
        if self.is_removed(from, &request) {
            return PeerAnswer::Removed;
        }
        let patience = match request {
            PeerRequest::Admit(_) | PeerRequest::Remove { .. } | PeerRequest::Readdress { .. } => {
                leader::ADMIT
            }
            PeerRequest::InstallSnapshot(_) => PATIENCE * 4,
            _ => PATIENCE,
        };
        let deadline = Instant::now() + patience;
        timeout_at(deadline, self.answer(request, deadline)).await.unwrap_or_else(|_| PeerAnswer::Failed {
            reason: format!("'{name}' was not done in {patience:?}: no majority answers"),
        })
    }
}

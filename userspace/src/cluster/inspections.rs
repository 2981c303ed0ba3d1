//! A node that carries out an order has the others look at themselves first (row CL-6).

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::{mpsc, oneshot};

use super::transport::{PeerAnswer, PeerError, Peers};
use crate::{
    core::inspection::{Findings, Inquiry, Mac},
    model::NodeId,
};

/// The largest sets take so long to be looked for on the network.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// For a node to tell only which link-layer addresses are its own.
const GLANCE: Duration = Duration::from_secs(1);

/// Inspections that may wait for the daemon.
const QUEUE: usize = 64;

/// One to be carried out.
pub struct Inspection {
    pub inquiry: Inquiry,
    answer: oneshot::Sender<Findings>,
}

impl Inspection {
    pub fn done(self, findings: Findings) {
        // Whoever asked may have given up.
        let _ = self.answer.send(findings);
    }
}

/// Hands what other nodes ask to whoever looks at this host. Cheap to clone.
#[derive(Clone)]
pub struct Inspections(mpsc::Sender<Inspection>);

impl Inspections {
    /// And the other end. Until somebody takes from it, those who ask wait.
    pub fn channel() -> (Self, mpsc::Receiver<Inspection>) {
        let (ask, asked) = mpsc::channel(QUEUE);
        (Self(ask), asked)
    }

    pub(crate) async fn answer(&self, inquiry: Inquiry) -> PeerAnswer {
        let (answer, answered) = oneshot::channel();
        let failed = || PeerAnswer::Failed { reason: "its vipd is stopping".into() };
        if self.0.send(Inspection { inquiry, answer }).await.is_err() {
            return failed();
        }
        answered.await.map_or_else(|_| failed(), PeerAnswer::Inspected)
    }
}

/// The other nodes, to be asked about themselves.
#[async_trait]
pub trait Inspectors: Send + Sync {
    /// What the node finds, within `patience`.
    ///
    /// # Errors
    /// When it cannot be reached or does not answer in time.
    async fn inspect(
        &self,
        node: NodeId,
        inquiry: Inquiry,
        patience: Duration,
    ) -> Result<Findings, PeerError>;
}

#[async_trait]
impl Inspectors for Peers {
    async fn inspect(
        &self,
        node: NodeId,
        inquiry: Inquiry,
        patience: Duration,
    ) -> Result<Findings, PeerError> {
        self.inspect(node, inquiry, patience).await
    }
}

/// Whose link-layer addresses these are, as far as the nodes answer at once.
pub async fn macs_of(peers: &dyn Inspectors, nodes: impl Iterator<Item = NodeId>) -> BTreeMap<Mac, NodeId> {
    let asked = nodes.map(|node| async move {
        let found = peers.inspect(node, Inquiry::default(), GLANCE).await.unwrap_or_default();
        found.macs.into_iter().map(move |mac| (mac, node))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

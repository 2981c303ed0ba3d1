//! The caller's side: requests to any node.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    lane::{Call, Lane, Patience, PeerError},
    message::{Contact, LONG, PeerAnswer, PeerRequest, Traffic, decode},
    noise::Credentials,
    quiet::Quiet,
};
use crate::{
    cluster::promise::{PromiseAnswer, PromiseQuery},
    config::Timing,
    core::inspection::{Findings, Inquiry},
    model::NodeId,
};

/// Requests that may queue for one connection.
const QUEUE: usize = 256;

/// Cheap to clone. Connections are made when they are first needed and end with the last clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    credentials: Arc<Credentials>,
    /// This node's own address.
    from: IpAddr,
    patience: Patience,
    /// How long a [`Peers::promise`] may take.
    promise: Duration,
    runtime: Handle,
    quiet: Arc<Quiet>,
    lanes: Mutex<HashMap<(Contact, Traffic), mpsc::Sender<Call>>>,
    addresses: Mutex<BTreeMap<NodeId, String>>,
    expelled: watch::Sender<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peers {
    /// Connections are served on `runtime`.
    pub(crate) fn new(credentials: Arc<Credentials>, from: IpAddr, timing: &Timing, runtime: Handle) -> Self {
        Self::with(credentials, from, timing, Patience::of(timing), runtime)
    }

    /// For a node that is not in the cluster yet, and in no hurry.
    pub(crate) fn from_outside(
        credentials: Arc<Credentials>,
        from: IpAddr,
        timing: &Timing,
        runtime: Handle,
    ) -> Self {
        let patience = Patience { connect: Duration::from_secs(3), ..Patience::of(timing).for_bulk() };
        Self::with(credentials, from, timing, patience, runtime)
    }

    fn with(
        credentials: Arc<Credentials>,
        from: IpAddr,
        timing: &Timing,
        patience: Patience,
        runtime: Handle,
    ) -> Self {
        Self(Arc::new(Inner {
            credentials,
            from,
            patience,
            promise: timing.raft_heartbeat * 4,
            runtime,
            quiet: Arc::default(),
            lanes: Mutex::default(),
            addresses: Mutex::default(),
            expelled: watch::Sender::new(false),
        }))
    }

    /// Somebody answered that this node is not part of the cluster any more.
    pub(crate) fn expelled(&self) -> watch::Receiver<bool> {
        self.0.expelled.subscribe()
    }

    /// Where the nodes listen, replacing what was known.
    pub(crate) fn set_addresses(&self, addresses: BTreeMap<NodeId, String>) {
        // Connections to places where nobody is any more end with their senders.
        lock(&self.0.lanes).retain(|(to, _), _| addresses.get(&to.node).is_none_or(|a| *a == to.address));
        *lock(&self.0.addresses) = addresses;
    }

    /// Where all others than `me` listen.
    pub(crate) fn others(&self, me: NodeId) -> Vec<SocketAddr> {
        let addresses = lock(&self.0.addresses);
        addresses.iter().filter(|(id, _)| **id != me).filter_map(|(_, at)| at.parse().ok()).collect()
    }

    /// Where this node is believed to listen.
    pub(crate) fn believed(&self, me: NodeId) -> Option<String> {
        lock(&self.0.addresses).get(&me).cloned()
    }

    pub(crate) fn contact(&self, node: NodeId) -> Option<Contact> {
        lock(&self.0.addresses).get(&node).map(|address| Contact { node, address: address.clone() })
    }

    /// Asks a voter about its promises. Bounded by a few Raft heartbeats.
    pub async fn promise(&self, node: NodeId, query: PromiseQuery) -> Result<PromiseAnswer, PeerError> {
        let to = self.contact(node).ok_or(PeerError::Unknown(node))?;
        match self.call(&to, &PeerRequest::Promise(query), self.0.promise).await? {
            PeerAnswer::Promise(answer) => Ok(answer),
            other => Err(wrong_answer(&to, "promise", &other)),
        }
    }

    /// Has a node look at itself.
    pub async fn inspect(
        &self,
        node: NodeId,
        inquiry: Inquiry,
        patience: Duration,
    ) -> Result<Findings, PeerError> {
        let to = self.contact(node).ok_or(PeerError::Unknown(node))?;
        match self.call(&to, &PeerRequest::Inspect(inquiry), patience).await? {
            PeerAnswer::Inspected(findings) => Ok(findings),
            other => Err(wrong_answer(&to, "inspect", &other)),
        }
    }

    /// Asks one node and waits no longer than `patience`.
    pub(crate) async fn call(
        &self,
        to: &Contact,
        request: &PeerRequest,
        patience: Duration,
    ) -> Result<PeerAnswer, PeerError> {
        let name = request.name();
        let unsent = |reason: String| PeerError::Unreachable { address: to.address.clone(), reason };
        let unanswered =
            |reason: String| PeerError::Unanswered { address: to.address.clone(), request: name, reason };
        let body = serde_json::to_vec(request).map_err(|e| unsent(e.to_string()))?;
        let (answer, answered) = oneshot::channel();
        let traffic = match request.traffic() {
            Traffic::Urgent if body.len() > LONG => Traffic::Bulk,
            traffic => traffic,
        };
        self.lane(to, traffic)
            .try_send(Call { request: name, body, answer })
            .map_err(|_| unsent("too many requests wait for it".into()))?;
        let body = timeout(patience, answered)
            .await
            .map_err(|_| unanswered(format!("no answer within {patience:?}")))?
            .map_err(|_| unanswered("vipd is stopping".into()))??;
        let answer = decode(body).await.map_err(|e| unanswered(format!("its answer makes no sense: {e}")))?;
        if matches!(answer, PeerAnswer::Removed) {
            self.0.expelled.send_replace(true);
            return Err(unanswered("this node is not part of the cluster any more".into()));
        }
        Ok(answer)
    }

    fn lane(&self, to: &Contact, traffic: Traffic) -> mpsc::Sender<Call> {
        let mut lanes = lock(&self.0.lanes);
        lanes
            .entry((to.clone(), traffic))
            .or_insert_with(|| {
                let (calls, queue) = mpsc::channel(QUEUE);
                let patience = self.0.patience;
                let lane = Lane {
                    node: to.node,
                    address: to.address.clone(),
                    from: self.0.from,
                    credentials: self.0.credentials.clone(),
                    patience: match traffic {
                        Traffic::Urgent => patience,
                        Traffic::Bulk | Traffic::Inquiry => patience.for_bulk(),
                    },
                    quiet: self.0.quiet.clone(),
                };
                self.0.runtime.spawn(lane.run(queue));
                calls
            })
            .clone()
    }
}

pub(crate) fn wrong_answer(to: &Contact, request: &'static str, answer: &PeerAnswer) -> PeerError {
    let reason = match answer {
        PeerAnswer::Failed { reason } => reason.clone(),
        other => format!("it answered something else: {other:?}"),
    };
    PeerError::Unanswered { address: to.address.clone(), request, reason }
}

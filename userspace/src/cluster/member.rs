//! How a node gets into a cluster: by founding it, or by joining through any member.
//!
//! Each step is durable before the next begins, so that what a crash interrupts goes on at the next
//! start ([`resume`]) or when the operator repeats the command.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

#[cfg(feature = "etcd")]
use super::etcd::EtcdStore;
use super::{
    departure,
    error::ClusterError,
    identity::{ClusterId, ClusterKey, Identity, Stage, random},
    raft::{ANY_NODE, OpenOptions, RaftStore},
    store::{OpenStore, StoreError},
    token::Token,
    transport::{Contact, Credentials, PeerAnswer, PeerRequest, Peers},
};
use crate::{
    config::StoreKind,
    core::change::{Applied, Change, NewNode},
    model::{NodeId, Standing},
};

/// The number of the node that founds a cluster.
const FOUNDER: NodeId = 1;

/// How long an operator waits for `join`.
const JOIN: Duration = Duration::from_secs(30);

/// How long one node is asked to have an address changed.
const READDRESS: Duration = Duration::from_secs(5);

/// Between two attempts to be admitted.
const RETRY: Duration = Duration::from_millis(500);

/// Starts what this node is a member of. None: of nothing yet.
pub async fn resume(options: &OpenOptions) -> Result<Option<Arc<dyn OpenStore>>, ClusterError> {
    let Some(identity) = Identity::load(&options.state_dir)? else { return Ok(None) };
    let stage = identity.stage.clone();
    let store = open(identity, options).await?;
    match stage {
        Stage::Member => {}
        Stage::Founding { node } => found(&*store, node).await?,
        Stage::Joining { via } => {
            tracing::info!("this node has yet to be admitted to the cluster: asking at {via}");
            keep_asking(&store, via);
        }
    }
    Ok(Some(store))
}

async fn open(identity: Identity, options: &OpenOptions) -> Result<Arc<dyn OpenStore>, ClusterError> {
    let (kept, configured) = (identity.store, options.store.kind);
    if kept != configured {
        return Err(ClusterError::OtherStore { cluster: identity.cluster, configured, kept });
    }
    match configured {
        StoreKind::Raft => Ok(RaftStore::open(identity, options).await?),
        #[cfg(feature = "etcd")]
        StoreKind::Etcd => Ok(EtcdStore::open(identity, options).await?),
        #[cfg(not(feature = "etcd"))]
        StoreKind::Etcd => Err(StoreError::Etcd("this vipd was built without etcd".into()).into()),
    }
}

/// Asks to be admitted until it is granted, as long as the store is in use.
fn keep_asking(store: &Arc<dyn OpenStore>, via: SocketAddr) {
    let weak = Arc::downgrade(store);
    tokio::spawn(async move {
        while let Some(store) = weak.upgrade() {
            match admission(&*store, via, Instant::now() + JOIN).await {
                Ok(()) => return tracing::info!("this node is a member of the cluster now"),
                Err(e) => tracing::warn!("this node is not admitted yet, trying on: {e}"),
            }
            drop(store);
            sleep(RETRY).await;
        }
    });
}

/// Founds a cluster of this node alone.
pub async fn init(
    options: &OpenOptions,
    cluster: &str,
    node: NewNode,
) -> Result<Arc<dyn OpenStore>, ClusterError> {
    let identity = match Identity::load(&options.state_dir)? {
        Some(i) if i.cluster == cluster && matches!(&i.stage, Stage::Founding { node: n } if *n == node) => i,
        Some(other) => return Err(already(other)),
        None => {
            check_listen(options)?;
            departure::forget_rest(&options.state_dir)?;
            #[cfg(feature = "etcd")]
            if options.store.kind == StoreKind::Etcd {
                EtcdStore::check_free(&options.store, cluster).await?;
            }
            Identity {
                cluster: cluster.to_owned(),
                id: ClusterId(random()?),
                key: ClusterKey(random()?),
                node: FOUNDER,
                name: node.name.clone(),
                stage: Stage::Founding { node: node.clone() },
                store: options.store.kind,
            }
        }
    };
    identity.save(&options.state_dir)?;
    let store = open(identity, options).await?;
    match found(&*store, node).await {
        Ok(()) => Ok(store),
        Err(e) => {
            store.shutdown().await;
            Err(e)
        }
    }
}

/// Peers can reach this node at its address: looked at before anything is written, so that a wrong `rpc`
/// can be corrected and the command repeated.
fn check_listen(options: &OpenOptions) -> Result<(), ClusterError> {
    let address = options.rpc;
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(source) => Err(ClusterError::Listen { address, source }),
    }
}

async fn found(store: &dyn OpenStore, node: NewNode) -> Result<(), ClusterError> {
    store.initialize().await?;
    store.barrier().await?;
    // Known already: a crash came between this and the note of it.
    if store.view().borrow().state.name.is_empty() {
        let name = store.identity().cluster;
        if let Applied::Refused(refusal) = store.propose(Change::Found { name, node }).await? {
            return Err(refusal.into());
        }
    }
    store.become_member()
}

fn already(identity: Identity) -> ClusterError {
    ClusterError::AlreadyMember { node: identity.name, cluster: identity.cluster }
}

/// Gets a number in the cluster of the token, through the member that listens at `via`, and starts taking
/// part; [`admitted`] makes it a voter. Between the two the caller starts what a voter needs, heartbeats
/// above all: others count on a voter's promises from the moment it is one.
pub async fn enroll(
    options: &OpenOptions,
    via: SocketAddr,
    token: &Token,
    node: NewNode,
) -> Result<Arc<dyn OpenStore>, ClusterError> {
    let deadline = Instant::now() + JOIN;
    let identity = match Identity::load(&options.state_dir)? {
        Some(before) => {
            let again = matches!(before.stage, Stage::Joining { .. });
            if !again || before.id != token.id || before.name != node.name {
                return Err(already(before));
            }
            // It has its number, and may even be admitted by now.
            Identity { stage: Stage::Joining { via }, ..before }
        }
        None => {
            check_listen(options)?;
            departure::forget_rest(&options.state_dir)?;
            Identity {
                cluster: token.cluster.clone(),
                id: token.id,
                key: token.key.clone(),
                node: reserve(options, via, token, &node, deadline).await?,
                name: node.name,
                stage: Stage::Joining { via },
                store: options.store.kind,
            }
        }
    };
    identity.save(&options.state_dir)?;
    open(identity, options).await
}

/// Waits until an enrolled node is a member. After an error it goes on asking by itself: it may be a voter
/// already, which the others would miss.
pub async fn admitted(store: &Arc<dyn OpenStore>, via: SocketAddr) -> Result<(), ClusterError> {
    let admission = admission(&**store, via, Instant::now() + JOIN).await;
    if admission.is_err() {
        keep_asking(store, via);
    }
    admission
}

/// Asks for a number.
async fn reserve(
    options: &OpenOptions,
    via: SocketAddr,
    token: &Token,
    node: &NewNode,
    deadline: Instant,
) -> Result<NodeId, ClusterError> {
    let credentials = Credentials { id: token.id, key: token.key.clone(), me: ANY_NODE };
    let peers =
        Peers::from_outside(Arc::new(credentials), options.rpc.ip(), &options.timing, Handle::current());
    match ask(&peers, via, &PeerRequest::StoreKind, deadline, Door::New).await? {
        PeerAnswer::StoreKind(kept) if kept == options.store.kind => {}
        PeerAnswer::StoreKind(kept) => {
            let (cluster, configured) = (token.cluster.clone(), options.store.kind);
            return Err(ClusterError::OtherStore { cluster, configured, kept });
        }
        other => {
            let reason = format!("it answered something else: {other:?}");
            return Err(ClusterError::Join { address: via.to_string(), reason });
        }
    }
    match ask(&peers, via, &PeerRequest::Reserve(node.clone()), deadline, Door::New).await? {
        PeerAnswer::Applied(Applied::Node(number)) => Ok(number),
        PeerAnswer::Applied(Applied::Refused(refusal)) => Err(refusal.into()),
        other => Err(ClusterError::Join {
            address: via.to_string(),
            reason: format!("it answered something else: {other:?}"),
        }),
    }
}

/// Asks to be admitted, and waits until this node knows that it is.
async fn admission(store: &dyn OpenStore, via: SocketAddr, deadline: Instant) -> Result<(), ClusterError> {
    let me = store.identity().node;
    match ask(store.peers(), via, &PeerRequest::Admit(me), deadline, Door::Known).await? {
        PeerAnswer::Done => {}
        PeerAnswer::Applied(Applied::Refused(refusal)) => return Err(refusal.into()),
        other => {
            let reason = format!("it answered something else: {other:?}");
            return Err(ClusterError::Join { address: via.to_string(), reason });
        }
    }
    let mut view = store.view();
    let known = view.wait_for(|v| v.state.nodes.get(&me).is_some_and(|n| n.standing != Standing::Joining));
    match tokio::time::timeout_at(deadline, known).await {
        Ok(Ok(_)) => {}
        _ => return Err(StoreError::NoQuorum("the cluster's state does not arrive here".into()).into()),
    }
    store.become_member()
}

/// Tells the cluster where this node is reached from now on. Where no leader is known any other node is asked for
/// it: none can call this one to tell who that is while it believes it elsewhere.
pub async fn readdress(
    store: &dyn OpenStore,
    rpc: SocketAddr,
    paths: Vec<SocketAddr>,
) -> Result<(), ClusterError> {
    let node = store.identity().node;
    let leads = store.leadership().borrow().leader.is_some();
    if leads || store.health().kind != StoreKind::Raft {
        return match store.readdress(node, rpc, paths).await? {
            Applied::Refused(refusal) => Err(refusal.into()),
            Applied::Done | Applied::Node(_) => Ok(()),
        };
    }
    let request = PeerRequest::Readdress { node, rpc, paths };
    let mut answer = Err(StoreError::NoQuorum("no other node is known".into()).into());
    for via in store.peers().others(node) {
        answer = ask(store.peers(), via, &request, Instant::now() + READDRESS, Door::New).await;
        if answer.is_ok() {
            break;
        }
    }
    match answer? {
        PeerAnswer::Done => Ok(()),
        PeerAnswer::Applied(Applied::Refused(refusal)) => Err(refusal.into()),
        other => Err(StoreError::NoQuorum(format!("the leader answered something else: {other:?}")).into()),
    }
}

/// Whether the member that is asked first was ever reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    /// If it is the wrong one, that does not change by waiting.
    New,
    Known,
}

/// Has the leader carry a request out, found through the member at `via`.
async fn ask(
    peers: &Peers,
    via: SocketAddr,
    request: &PeerRequest,
    deadline: Instant,
    known: Door,
) -> Result<PeerAnswer, ClusterError> {
    let door = Contact { node: ANY_NODE, address: via.to_string() };
    let mut to = door.clone();
    let mut hops = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let reason = match peers.call(&to, request, left).await {
            Ok(PeerAnswer::NotLeader { leader: Some(leader) }) if leader != to && hops < 4 => {
                hops += 1;
                to = leader;
                continue;
            }
            Ok(PeerAnswer::NotLeader { .. }) => "no leader is known there: is there a quorum?".to_owned(),
            Ok(PeerAnswer::Failed { reason }) => reason,
            Ok(answer) => return Ok(answer),
            Err(e) if known == Door::New && to == door && !e.maybe_done() => return Err(e.into()),
            Err(e) => e.to_string(),
        };
        if Instant::now() + RETRY >= deadline {
            return Err(ClusterError::Join { address: via.to_string(), reason });
        }
        to = door.clone();
        hops = 0;
        sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests;

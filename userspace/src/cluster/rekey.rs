//! The change of the cluster's key while it runs.
//!
//! 1. The node where it is ordered has the cluster note that a key of the next generation is offered
//!    ([`Change::OfferKey`]); no earlier offer can come into use from then on. It makes the key and sends it to every
//!    node, which stores it and accepts it beside the present one.
//! 2. Once all have it, [`Change::UseKey`] is committed. Every node that applies it speaks under the new key, still
//!    accepts the old one, and says so ([`Change::KeyInUse`]).
//! 3. Once all have said so, every node forgets the old key, and closes what was made under it.
//!
//! Each step is durable before the next begins, and 2 and 3 follow from comparing the state with this node's keys
//! ([`follow_key`]): whoever was away goes on where it was.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};

use super::{
    DiskError, OpenStore, View,
    error::ClusterError,
    identity::{ClusterKey, random},
    keyring::{KeyOffer, Keyring, Keys, NumberedKey},
    transport::{Contact, PeerAnswer, PeerRequest},
};
use crate::{
    core::change::{Applied, Change, Refusal},
    model::{ClusterState, KeyGeneration, Node, NodeId},
};

/// For a node to store a key.
const OFFER: Duration = Duration::from_secs(5);

/// For all nodes to use it.
const USE: Duration = Duration::from_secs(10);

/// What was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    pub generation: KeyGeneration,
    /// The names of the nodes that have not confirmed: until they do, the old key is accepted. None: all have.
    pub without: Option<String>,
}

/// Changes the cluster's key. May be repeated at any point.
///
/// # Errors
/// `Refused` when a node does not take the key, or the change before is not finished: then all go on with the
/// present one.
pub async fn rotate_key(store: &dyn OpenStore) -> Result<Rotated, ClusterError> {
    store.barrier().await?;
    let state = store.view().borrow().state.clone();
    let generation = state.key.last + 1;
    let key = NumberedKey { generation, key: ClusterKey(random()?) };
    propose(store, Change::OfferKey { generation, fingerprint: key.fingerprint() }).await?;
    // Whoever is in the state now; who comes later makes `UseKey` fail.
    let state = store.view().borrow().state.clone();
    hand_out(store, &state, KeyOffer { follows: state.key.generation, key }).await?;
    let nodes: BTreeSet<NodeId> = state.nodes.keys().copied().collect();
    propose(store, Change::UseKey { generation, nodes }).await?;
    let mut view = store.view();
    let done =
        view.wait_for(|v| v.state.key.generation >= generation && v.state.without_key().next().is_none());
    // Still under way afterwards: the state says who is missing.
    let _ = timeout(USE, done).await;
    let without = store.view().borrow().state.without_key_names();
    Ok(Rotated { generation, without })
}

async fn propose(store: &dyn OpenStore, change: Change) -> Result<(), ClusterError> {
    match store.propose(change).await? {
        Applied::Refused(refusal) => Err(refusal.into()),
        Applied::Done | Applied::Node(_) => Ok(()),
    }
}

/// Returns once every node has the key.
async fn hand_out(store: &dyn OpenStore, state: &ClusterState, offer: KeyOffer) -> Result<(), ClusterError> {
    let me = store.identity().node;
    let mut asked = JoinSet::new();
    for node in state.nodes.values().cloned() {
        let (peers, keyring, offer) = (store.peers().clone(), store.keyring().clone(), offer.clone());
        asked.spawn(async move {
            let answer = if node.id == me {
                keyring.answer(offer).await
            } else {
                let to = Contact { node: node.id, address: node.rpc.to_string() };
                match peers.call(&to, &PeerRequest::OfferKey(offer), OFFER).await {
                    Ok(answer) => answer,
                    Err(e) => PeerAnswer::Failed { reason: e.to_string() },
                }
            };
            (node, answer)
        });
    }
    let mut without: Vec<(Node, String)> = Vec::new();
    while let Some(answered) = asked.join_next().await {
        match answered {
            Ok((_, PeerAnswer::Done)) => {}
            Ok((node, PeerAnswer::Failed { reason })) => without.push((node, reason)),
            Ok((node, other)) => without.push((node, format!("it answered something else: {other:?}"))),
            Err(e) => return Err(Refusal(format!("the new key was not handed out: {e}")).into()),
        }
    }
    if without.is_empty() {
        return Ok(());
    }
    without.sort_by_key(|(node, _)| node.id);
    let names: Vec<String> = without.iter().map(|(n, why)| format!("node '{}' ({why})", n.name)).collect();
    Err(Refusal(format!(
        "nothing is changed: every node must have the new key before it is used, and it was not taken by {}; bring \
         it back, or remove it with 'vipctl cluster remove {}', and repeat the command",
        names.join(" nor by "),
        without[0].0.name
    ))
    .into())
}

/// Does what the state says about the cluster's key, until the store is closed. `told` hears what an operator
/// should know of it, as kind and text.
pub async fn follow_key(
    store: Arc<dyn OpenStore>,
    pace: Duration,
    told: impl Fn(&'static str, String) + Send,
) {
    let keyring = store.keyring().clone();
    let me = keyring.identity().node;
    let (mut view, mut keys) = (store.view(), keyring.keys());
    let (mut missing, mut stored) = (0, 0);
    loop {
        let pending = keys.borrow_and_update().pending.as_ref().map_or(0, |k| k.generation);
        if pending > stored {
            stored = pending;
            keyring.settled().await;
            told(
                "key.stored",
                format!("a key of generation {pending} is stored: it is used once all nodes have it"),
            );
        }
        let state = view.borrow_and_update().state.clone();
        let step = match step(&keyring, state, me).await {
            Ok(step) => step,
            Err(e) => {
                told("key.failed", format!("the cluster's key is not changed here: {e}; tried again"));
                Step::Again
            }
        };
        let again = match step {
            Step::Nothing => false,
            Step::Again => true,
            Step::Missing(generation) => {
                if missing != generation {
                    missing = generation;
                    told(
                        "key.missing",
                        format!(
                            "this node does not have the cluster's key of generation {generation}: remove it from the \
                             cluster and join it anew"
                        ),
                    );
                }
                false
            }
            Step::Confirm(generation) => {
                // Whoever hears it may soon accept nothing else.
                keyring.settled().await;
                match store.propose(Change::KeyInUse { node: me, generation }).await {
                    Ok(Applied::Done | Applied::Node(_)) => {
                        told(
                            "key.used",
                            format!("the cluster's key of generation {generation} is used here"),
                        );
                        false
                    }
                    Ok(Applied::Refused(why)) => {
                        tracing::debug!(%why, "what is said of the key is not true any more");
                        true
                    }
                    Err(error) => {
                        tracing::debug!(%error, "not told that the new key is used; it is told again");
                        true
                    }
                }
            }
            Step::Forgotten(generation) => {
                told(
                    "key.done",
                    format!(
                        "all nodes use the cluster's key of generation {generation}: no earlier one is accepted"
                    ),
                );
                false
            }
        };
        if !wait(&mut view, &mut keys, again.then_some(pace)).await {
            return;
        }
    }
}

/// Until the state or the keys change, or it is time to try again; false at the end.
async fn wait(
    view: &mut watch::Receiver<View>,
    keys: &mut watch::Receiver<Keys>,
    again: Option<Duration>,
) -> bool {
    let later = async {
        match again {
            Some(pace) => sleep(pace).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        changed = view.changed() => changed.is_ok(),
        changed = keys.changed() => changed.is_ok(),
        () = later => true,
    }
}

/// What is to be done, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Again,
    Missing(KeyGeneration),
    Confirm(KeyGeneration),
    Forgotten(KeyGeneration),
}

/// Brings this node's keys in line with the state.
async fn step(keyring: &Keyring, state: Arc<ClusterState>, me: NodeId) -> Result<Step, DiskError> {
    let keyring = keyring.clone();
    let work = move || keyring.alter(|keys| Ok(follow(keys, &state, me)));
    spawn_blocking(work).await.unwrap_or(Ok(Step::Again))
}

/// A state of before a restart asks for nothing that is not true any more: who has confirmed is not awaited again,
/// and older generations are passed over.
fn follow(keys: &Keys, state: &ClusterState, me: NodeId) -> (Keys, Step) {
    let generation = state.key.generation;
    let Some(next) = keys.using(generation, &state.key.fingerprint) else {
        return (keys.clone(), Step::Missing(generation));
    };
    if next.current.generation > generation {
        return (next, Step::Nothing);
    }
    if state.without_key().any(|id| id == me) {
        return (next, Step::Confirm(generation));
    }
    if state.without_key().next().is_some() {
        return (next, Step::Nothing);
    }
    let done = next.forgetting_before(generation);
    let step = if done == next { Step::Nothing } else { Step::Forgotten(generation) };
    (done, step)
}

#[cfg(test)]
mod tests;

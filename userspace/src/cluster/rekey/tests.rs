use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    cluster::{
        ClusterError, StoreError,
        raft::testing::{TestNode, eventually, three},
        transport::{LinkError, PeerError},
    },
    core::change::{NewNode, apply},
};

const NODES: [NodeId; 3] = [1, 2, 3];

fn numbered(generation: KeyGeneration) -> NumberedKey {
    NumberedKey { generation, key: ClusterKey([generation as u8; 32]) }
}

/// A cluster on paper: a log, and nodes that have applied it so far and hold keys on their disks.
struct World {
    log: Vec<Change>,
    keys: BTreeMap<NodeId, Keys>,
    applied: BTreeMap<NodeId, usize>,
    /// Offers that were made, by generation, and who has taken them.
    offers: BTreeMap<KeyGeneration, (KeyOffer, BTreeSet<NodeId>)>,
}

#[derive(Clone, Debug)]
enum Event {
    /// An operator orders a new key; what was ordered before may still be under way.
    Order,
    /// An offer arrives, perhaps late or again.
    Deliver {
        back: u64,
        to: NodeId,
    },
    /// The node that made the offer goes on, if all have taken it.
    Use {
        back: u64,
    },
    Apply {
        node: NodeId,
        entries: usize,
    },
    /// The node does what the state tells it; what it proposes is committed.
    Follow {
        node: NodeId,
    },
    /// Only what is on disk is left, and of the log perhaps less than was applied.
    Crash {
        node: NodeId,
        back: usize,
    },
}

fn events() -> impl Strategy<Value = Event> {
    let node = || proptest::sample::select(&NODES[..]);
    prop_oneof![
        2 => Just(Event::Order),
        12 => (0..3u64, node()).prop_map(|(back, to)| Event::Deliver { back, to }),
        6 => (0..3u64).prop_map(|back| Event::Use { back }),
        6 => (node(), 1..4usize).prop_map(|(node, entries)| Event::Apply { node, entries }),
        8 => node().prop_map(|node| Event::Follow { node }),
        2 => (node(), 0..6usize).prop_map(|(node, back)| Event::Crash { node, back }),
    ]
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            log: Vec::new(),
            keys: NODES.map(|id| (id, Keys::only(numbered(1)))).into(),
            applied: NODES.map(|id| (id, 0)).into(),
            offers: BTreeMap::new(),
        };
        for id in NODES {
            let at = format!("192.0.2.{id}:7411").parse().unwrap();
            let node = NewNode { name: format!("n{id}"), rpc: at, paths: vec![at], witness: false };
            if id == 1 {
                world.log.push(Change::Found { name: "lab".into(), node });
            } else {
                world.log.push(Change::Reserve { node });
                world.log.push(Change::Admit { node: id });
            }
        }
        world
    }

    fn state(&self, entries: usize) -> ClusterState {
        let mut state = ClusterState::default();
        for change in &self.log[..entries] {
            apply(&mut state, change);
        }
        state
    }

    fn newest(&self) -> ClusterState {
        self.state(self.log.len())
    }

    fn commit(&mut self, change: Change) -> bool {
        let accepted = !matches!(apply(&mut self.newest(), &change), Applied::Refused(_));
        self.log.push(change);
        accepted
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Order => {
                let state = self.newest();
                let key = numbered(state.key.last + 1);
                let (generation, fingerprint) = (key.generation, key.fingerprint());
                if self.commit(Change::OfferKey { generation, fingerprint }) {
                    let offer = KeyOffer { follows: state.key.generation, key };
                    self.offers.insert(generation, (offer, BTreeSet::new()));
                }
            }
            Event::Deliver { back, to } => {
                let last = self.newest().key.last;
                let Some((offer, taken)) = self.offers.get_mut(&last.saturating_sub(back)) else { return };
                if let Ok(next) = self.keys[&to].taking(offer.clone()) {
                    self.keys.insert(to, next);
                    taken.insert(to);
                }
            }
            Event::Use { back } => {
                let generation = self.newest().key.last.saturating_sub(back);
                let Some((_, nodes)) = self.offers.get(&generation) else { return };
                if nodes.len() == NODES.len() {
                    self.commit(Change::UseKey { generation, nodes: nodes.clone() });
                }
            }
            Event::Apply { node, entries } => {
                let all = self.log.len();
                self.applied.entry(node).and_modify(|n| *n = (*n + entries).min(all));
            }
            Event::Follow { node } => {
                let (next, step) = follow(&self.keys[&node], &self.state(self.applied[&node]), node);
                self.keys.insert(node, next);
                if let Step::Confirm(generation) = step {
                    self.commit(Change::KeyInUse { node, generation });
                }
                assert!(!matches!(step, Step::Missing(_)), "node {node} lacks the key: {step:?}");
            }
            Event::Crash { node, back } => {
                self.applied.entry(node).and_modify(|n| *n = n.saturating_sub(back));
            }
        }
    }

    /// Whoever calls is let in.
    fn check(&self) -> Result<(), TestCaseError> {
        for (caller, keys) in &self.keys {
            for (answerer, ring) in &self.keys {
                let fits = ring.accepted().any(|k| *k == keys.current);
                prop_assert!(fits, "{caller} speaks under {keys:?}, {answerer} has {ring:?}");
            }
            prop_assert!(keys.accepted().count() <= 2, "{keys:?}");
        }
        Ok(())
    }

    /// Everybody is up and goes on.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..4 {
            for node in NODES {
                self.happens(&Event::Apply { node, entries: usize::MAX >> 1 });
                self.happens(&Event::Follow { node });
                self.check()?;
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// However offers, crashes and repeated orders mix, all nodes can talk to one another at any moment, and in the
    /// end all use the same key and accept no former one.
    #[test]
    fn nobody_is_ever_locked_out(events in proptest::collection::vec(events(), 1..120)) {
        let mut world = World::new();
        for event in &events {
            world.happens(event);
            world.check()?;
        }
        world.settle()?;
        let state = world.newest();
        for keys in world.keys.values() {
            prop_assert_eq!(keys.current.generation, state.key.generation);
            prop_assert_eq!(&keys.previous, &None);
        }
        // And then the next change goes through.
        world.happens(&Event::Order);
        for to in NODES {
            world.happens(&Event::Deliver { back: 0, to });
        }
        world.happens(&Event::Use { back: 0 });
        world.settle()?;
        prop_assert!(world.newest().key.generation > state.key.generation);
    }
}

/// The keys of a running node.
fn keys(node: &TestNode) -> Keys {
    node.store().keyring().keys().borrow().clone()
}

fn used_alone(node: &TestNode, generation: KeyGeneration) -> bool {
    let keys = keys(node);
    keys.current.generation == generation && keys.previous.is_none()
}

/// As the daemon does.
fn followed(node: &TestNode) {
    tokio::spawn(follow_key(node.store().clone(), Duration::from_millis(50), |_, _| {}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_cluster_changes_its_key_and_old_tokens_are_void() {
    let nodes = three().await;
    let [a, b, c] = &nodes;
    [a, b, c].into_iter().for_each(followed);
    let old = a.store().token();
    for (by, generation) in [(b, 2), (c, 3)] {
        let rotated = rotate_key(&**by.store()).await.unwrap();
        assert_eq!(rotated, Rotated { generation, without: None });
        for node in [a, b, c] {
            eventually("the old key is forgotten", || used_alone(node, generation)).await;
        }
        a.set(1, generation as u8).await.unwrap();
        for node in [a, b, c] {
            eventually("the cluster works on", || node.got(1) == Some(generation as u8)).await;
        }
    }
    let mut d = TestNode::new("d");
    let Err(refused) = d.join_at(a.options.rpc, &old).await else { panic!("an old token lets in") };
    assert!(refused.to_string().contains(&LinkError::WrongKey.to_string()), "{refused}");
    assert_eq!(a.view().state.nodes.len(), 3);
    d.join(a).await.unwrap();
    assert_eq!(keys(&d).current, keys(a).current);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_away_keeps_the_key_as_it_is() {
    let mut nodes = three().await;
    nodes[2].kill();
    let [a, b, c] = &mut nodes;
    [&*a, &*b].into_iter().for_each(followed);
    let refused = rotate_key(&**a.store()).await.unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, ClusterError::Refused(_)), "{text}");
    assert!(text.contains("node 'c'") && text.contains("cluster remove c"), "{text}");
    for node in [&*a, &*b] {
        assert_eq!((node.view().state.key.generation, keys(node).current.generation), (1, 1));
    }
    c.start().await;
    followed(c);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    // Its connections are made again after a moment.
    let rotated = loop {
        match rotate_key(&**a.store()).await {
            Ok(rotated) => break rotated,
            Err(e) => assert!(tokio::time::Instant::now() < deadline, "{e}"),
        }
    };
    assert_eq!(rotated.without, None);
    assert!(rotated.generation > 2, "a number is never used for two keys");
    for node in [&*a, &*b, &*c] {
        eventually("all use it", || used_alone(node, rotated.generation)).await;
    }
}

/// It has the key and does not know yet that it is used.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_between_offer_and_use_catches_up() {
    let mut nodes = three().await;
    let [a, b, c] = &mut nodes;
    [&*a, &*b].into_iter().for_each(followed);
    let key = NumberedKey { generation: 2, key: ClusterKey(random().unwrap()) };
    propose(&**a.store(), Change::OfferKey { generation: 2, fingerprint: key.fingerprint() }).await.unwrap();
    let state = a.view().state;
    hand_out(&**a.store(), &state, KeyOffer { follows: 1, key }).await.unwrap();
    c.kill();
    let nodes: BTreeSet<NodeId> = NODES.into();
    propose(&**a.store(), Change::UseKey { generation: 2, nodes }).await.unwrap();
    eventually("both others use it", || [&*a, &*b].iter().all(|n| keys(n).current.generation == 2)).await;
    eventually("both have said so", || a.view().state.without_key_names() == Some("'c'".into())).await;
    assert!(keys(a).previous.is_some(), "the old key is accepted while one node may still use it");
    let again = rotate_key(&**a.store()).await.unwrap_err().to_string();
    assert!(again.contains("'c' has not confirmed"), "{again}");
    c.start().await;
    assert_eq!(keys(c).current.generation, 1);
    followed(c);
    for node in [&*a, &*b, &*c] {
        eventually("all use it", || used_alone(node, 2)).await;
    }
    c.set(3, 9).await.unwrap();
}

/// What was made under the old key does not outlive it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_only_the_old_key_is_shut_out() {
    let nodes = three().await;
    let [a, b, c] = &nodes;
    let stranger = {
        let identity = c.store().identity();
        let credentials = crate::cluster::transport::Credentials::fixed(identity.id, identity.keys, 3);
        let from = a.options.rpc.ip();
        let timing = a.options.timing;
        crate::cluster::transport::Peers::new(
            Arc::new(credentials),
            from,
            &timing,
            tokio::runtime::Handle::current(),
        )
    };
    let to = Contact { node: 1, address: a.options.rpc.to_string() };
    let ask = || stranger.call(&to, &PeerRequest::StoreKind, Duration::from_secs(2));
    assert!(matches!(ask().await, Ok(PeerAnswer::StoreKind(_))), "it stands");
    [a, b, c].into_iter().for_each(followed);
    rotate_key(&**a.store()).await.unwrap();
    for node in [a, b, c] {
        eventually("the old key is forgotten", || used_alone(node, 2)).await;
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        match ask().await {
            Err(PeerError::Unreachable { reason, .. }) if reason == LinkError::WrongKey.to_string() => break,
            answer => assert!(tokio::time::Instant::now() < deadline, "{answer:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_while_the_old_key_is_accepted() {
    let nodes = three().await;
    let [a, b, _c] = &nodes;
    [a, b].into_iter().for_each(followed);
    // The third does not follow: as if it were too slow.
    let rotated = rotate_key(&**a.store()).await.unwrap();
    assert_eq!(rotated.without, Some("'c'".into()));
    let d = TestNode::new("d");
    let Err(refused) = d.join_at(a.options.rpc, &a.store().token()).await else { panic!("it joined") };
    let text = refused.to_string();
    assert!(text.contains("'c' has not confirmed"), "{text}");
    assert!(!matches!(refused, ClusterError::Store(StoreError::NoQuorum(_))));
}

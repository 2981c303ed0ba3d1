use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::{
    election::{Ears, Election},
    fake::{FakeKv, Fault},
    follow,
    keys::Keys,
    log::Log,
    machine::Image,
    propose::{Known, Proposer},
    serve::admit,
    snapshot,
};
use crate::{
    cluster::{
        raft::testing::{eventually, ping_list},
        store::StoreError,
    },
    core::change::{Applied, Change, NewNode},
    model::{NodeId, Standing},
};

const SOON: Duration = Duration::from_secs(5);

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// What the nodes of a test say of themselves; None: silent.
#[derive(Clone, Default)]
struct World(Arc<Mutex<BTreeMap<NodeId, Option<Arc<Log>>>>>);

#[async_trait]
impl Known for World {
    async fn applied(&self, node: NodeId) -> Option<u64> {
        let log = self.0.lock().unwrap().get(&node).cloned().flatten()?;
        Some(log.image().applied)
    }
}

/// A node without its network.
struct Node {
    me: NodeId,
    kv: FakeKv,
    log: Arc<Log>,
    proposer: Proposer,
    world: World,
    ears: Ears,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn keys() -> Keys {
    Keys::new("/vipd", "lab")
}

impl Node {
    /// It follows the log by itself when `follows`.
    fn start(kv: &FakeKv, world: &World, me: NodeId, image: Image, follows: bool) -> Self {
        let kv = kv.another();
        let log = Arc::new(Log::new(Arc::new(kv.clone()), keys(), "c1".into(), image));
        world.0.lock().unwrap().insert(me, Some(log.clone()));
        let proposer = Proposer::start(log.clone(), Arc::new(world.clone()));
        let ears = Ears::default();
        let mut tasks = vec![];
        if follows {
            tasks.push(tokio::spawn(follow::follow(log.clone())));
            let election = Election::new(me, log.clone(), ears.clone(), Duration::from_millis(5));
            tasks.push(tokio::spawn(election.run()));
        }
        Self { me, kv, log, proposer, world: world.clone(), ears, tasks }
    }

    /// From now on it hears these.
    fn hears(&self, nodes: &[NodeId]) {
        let nodes = nodes.to_vec();
        *self.ears.lock().unwrap() = Some(Arc::new(move |id| nodes.contains(&id)));
    }

    fn leads(&self) -> bool {
        self.log.leadership().borrow().is_me
    }

    fn leader(&self) -> Option<NodeId> {
        self.log.leadership().borrow().leader
    }

    async fn propose(&self, change: Change) -> Result<Applied, StoreError> {
        self.proposer.propose(change, Instant::now() + SOON).await
    }

    async fn set(&self, last: u8) -> Applied {
        self.propose(ping_list(1, last)).await.unwrap()
    }

    async fn admit(&self, node: NodeId, patience: Duration) -> Result<Applied, StoreError> {
        admit(&self.log, &self.proposer, &self.world, node, Instant::now() + patience).await
    }

    fn got(&self) -> Option<std::net::IpAddr> {
        let image = self.log.image();
        let lists = &image.state.ping_lists;
        lists.get(&(1, "192.0.2.0/24".parse().unwrap()))?.first().copied()
    }

    fn applied(&self) -> u64 {
        self.log.image().applied
    }
}

fn new_node(number: u8) -> NewNode {
    let at = |port| std::net::SocketAddr::from(([127, 0, 0, number], port));
    NewNode { name: format!("n{number}"), rpc: at(1), paths: vec![at(2)], witness: false }
}

async fn founded(kv: &FakeKv, world: &World, follows: bool) -> Node {
    let node = Node::start(kv, world, 1, Image::default(), follows);
    node.log.found().await.unwrap();
    let found = Change::Found { name: "lab".into(), node: new_node(1) };
    assert_eq!(node.propose(found).await.unwrap(), Applied::Done);
    node
}

/// Three admitted nodes that follow the log.
async fn three(kv: &FakeKv, world: &World) -> Vec<Node> {
    let mut nodes = vec![founded(kv, world, true).await];
    for number in [2, 3] {
        let reserved = nodes[0].propose(Change::Reserve { node: new_node(number) }).await.unwrap();
        assert_eq!(reserved, Applied::Node(number.into()));
        nodes.push(Node::start(kv, world, number.into(), Image::default(), true));
        assert_eq!(nodes[0].admit(number.into(), SOON).await.unwrap(), Applied::Done);
    }
    for node in &nodes {
        eventually("three voters", || node.log.leadership().borrow().voters.len() == 3).await;
    }
    nodes
}

#[test]
fn proposals_of_two_nodes_race_and_none_is_lost_or_done_twice() {
    run(async {
        let (kv, world) = (FakeKv::default(), World::default());
        let a = founded(&kv, &world, true).await;
        let b = Node::start(&kv, &world, 2, Image::default(), true);
        let before = a.applied();
        async fn each(node: &Node) -> Vec<Result<Applied, StoreError>> {
            futures::future::join_all((0..100).map(|i| node.propose(ping_list(1, i)))).await
        }
        let (of_a, of_b) = tokio::join!(each(&a), each(&b));
        assert!(of_a.iter().chain(&of_b).all(|r| *r.as_ref().unwrap() == Applied::Done));
        a.log.catch_up().await.unwrap();
        b.log.catch_up().await.unwrap();
        assert_eq!(a.applied(), before + 200);
        assert_eq!(a.log.image(), b.log.image());
        assert!(kv.commits.load(std::sync::atomic::Ordering::Relaxed) < 100, "many in one transaction");
    });
}

#[test]
fn a_lost_answer_is_looked_up_and_the_change_is_made_once() {
    run(async {
        let (kv, world) = (FakeKv::default(), World::default());
        let a = founded(&kv, &world, false).await;
        for faults in [
            &[Fault::Lost][..],
            &[Fault::AnswerLost],
            &[Fault::Late],
            &[Fault::Lost, Fault::AnswerLost],
            &[Fault::Late, Fault::AnswerLost],
            &[Fault::Late, Fault::Late, Fault::Lost],
        ] {
            let before = a.applied();
            kv.fail_next(faults);
            // Not idempotent: a second one would get another number.
            let change = Change::Reserve { node: new_node(10 + before as u8) };
            let number = a.log.image().state.last_node + 1;
            assert_eq!(a.propose(change).await.unwrap(), Applied::Node(number), "{faults:?}");
            a.set(1).await;
            a.log.catch_up().await.unwrap();
            assert_eq!((a.applied(), a.log.image().state.last_node), (before + 2, number), "{faults:?}");
        }
    });
}

#[test]
fn an_answer_that_never_comes_is_no_quorum_and_in_time() {
    run(async {
        let (kv, world) = (FakeKv::default(), World::default());
        let a = founded(&kv, &world, true).await;
        kv.set_down(true);
        let asked = Instant::now();
        let patience = Duration::from_millis(300);
        let answer = a.proposer.propose(ping_list(1, 1), asked + patience).await;
        assert!(matches!(&answer, Err(StoreError::Away(r)) if r.contains("nobody is there")), "{answer:?}");
        assert!(asked.elapsed() < patience * 3);
        eventually("told", || a.log.trouble.borrow().is_some()).await;
        kv.set_down(false);
        assert_eq!(a.set(2).await, Applied::Done);
        eventually("untold", || a.log.trouble.borrow().is_none()).await;
        assert_eq!(a.got(), Some([192, 0, 2, 2].into()), "what was given up is not made later");
    });
}

#[test]
fn a_broken_or_silent_watch_is_made_up_for() {
    run(async {
        let (kv, world) = (FakeKv::default(), World::default());
        let a = founded(&kv, &world, false).await;
        let b = Node::start(&kv, &world, 2, Image::default(), true);
        a.set(1).await;
        eventually("followed", || b.applied() == a.applied()).await;
        let reads = kv.reads.load(std::sync::atomic::Ordering::Relaxed);
        for last in 2..10 {
            a.set(last).await;
            eventually("followed", || b.applied() == a.applied()).await;
        }
        let read = kv.reads.load(std::sync::atomic::Ordering::Relaxed) - reads;
        assert!(read <= 1, "the watch has all that is needed: {read}");
        kv.break_watches();
        a.set(20).await;
        eventually("the watch is renewed", || b.applied() == a.applied()).await;
        kv.mute(true);
        a.set(21).await;
        eventually("looked at all the same", || b.applied() == a.applied()).await;
    });
}

#[test]
fn who_was_left_behind_goes_on_from_the_snapshot() {
    run(async {
        let (kv, world) = (FakeKv::default(), World::default());
        let a = founded(&kv, &world, false).await;
        let mut behind = Vec::new();
        for round in 0..3_u64 {
            behind.push(Node::start(&kv, &world, 10 + round, Image::default(), false));
            behind.last().unwrap().log.catch_up().await.unwrap();
            for i in 0..10 {
                a.set(i).await;
            }
            assert!(snapshot::take(&a.log, 10).await.unwrap().0);
            assert!(!snapshot::take(&a.log, 10).await.unwrap().0, "not again at once");
        }
        let first = kv.keys().iter().find_map(|k| keys().entry_index(k)).unwrap();
        assert_eq!(first, a.applied() - 9, "what the last but one snapshot has is gone");
        behind.push(Node::start(&kv, &world, 20, Image::default(), false));
        for node in &behind {
            node.log.catch_up().await.unwrap();
            assert_eq!(node.log.image(), a.log.image());
        }
        // Their proposals go on from there.
        assert_eq!(behind[3].set(77).await, Applied::Done);
    });
}

#[test]
fn a_doubtful_proposal_whose_node_was_left_behind_is_not_repeated() {
    run(async {
        let (kv, world) = (FakeKv::default(), World::default());
        let a = founded(&kv, &world, false).await;
        let b = Node::start(&kv, &world, 2, Image::default(), false);
        b.log.catch_up().await.unwrap();
        kv.fail_next(&[Fault::AnswerLostAndCut]);
        let change = Change::Reserve { node: new_node(9) };
        let (answer, ()) = tokio::join!(b.propose(change), async {
            eventually("made", || kv.keys().contains(&keys().entry(2))).await;
            a.log.catch_up().await.unwrap();
            // Before b can look, a goes so far ahead that the entry is gone.
            for _ in 0..2 {
                for i in 0..5 {
                    a.set(i).await;
                }
                assert!(snapshot::take(&a.log, 5).await.unwrap().0);
            }
            b.kv.cut(false);
        });
        assert!(matches!(&answer, Err(StoreError::NoQuorum(r)) if r.contains("look whether")), "{answer:?}");
        assert_eq!(b.set(9).await, Applied::Done, "it goes on");
        a.log.catch_up().await.unwrap();
        assert_eq!(a.log.image().state.last_node, 2, "once");
    });
}

#[test]
fn long_changes_and_states_are_kept_in_parts_and_tidied_away() {
    run(async {
        let (kv, world) = (FakeKv::default(), World::default());
        let a = founded(&kv, &world, false).await;
        let b = Node::start(&kv, &world, 2, Image::default(), true);
        // A node with very many paths: the state is long as well.
        let path = |i: u32| std::net::SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + i), 7412));
        let paths = (0..60_000_u32).map(path).collect();
        let long = Change::Reserve { node: NewNode { paths, ..new_node(2) } };
        let parts = || kv.keys().iter().filter(|k| keys().part_id(k).is_some()).count();
        assert_eq!(a.propose(long).await.unwrap(), Applied::Node(2));
        assert!(parts() >= 2, "{}", parts());
        eventually("followed", || b.applied() == a.applied()).await;
        a.set(1).await;
        assert!(snapshot::take(&a.log, 1).await.unwrap().0);
        assert!(snapshot::tidy(&a.log).await.unwrap());
        let both = parts();
        let c = Node::start(&kv, &world, 3, Image::default(), false);
        c.log.catch_up().await.unwrap();
        assert_eq!(c.log.image(), a.log.image());
        // What nothing refers to goes; what the log or the snapshot refers to stays.
        kv.put(&keys().part("orphan", 0), "x");
        b.set(2).await;
        a.log.catch_up().await.unwrap();
        assert!(snapshot::take(&a.log, 1).await.unwrap().0);
        // An entry that this node does not know yet could refer to anything.
        b.set(3).await;
        assert!(!snapshot::tidy(&a.log).await.unwrap());
        assert!(kv.keys().contains(&keys().part("orphan", 0)));
        a.log.catch_up().await.unwrap();
        assert!(snapshot::tidy(&a.log).await.unwrap());
        assert!(parts() < both, "the long entry is gone: {} of {both}", parts());
        assert!(!kv.keys().contains(&keys().part("orphan", 0)));
        let d = Node::start(&kv, &world, 4, Image::default(), false);
        d.log.catch_up().await.unwrap();
        assert_eq!(d.log.image(), a.log.image());
        let huge = vec![0; super::parts::LONGEST + 1];
        let e = super::parts::write(&kv, &keys(), "huge".into(), &huge).await.unwrap_err().to_string();
        assert!(e.contains("too long"), "{e}");
        assert_eq!(a.set(3).await, Applied::Done);
    });
}

#[test]
fn members_change_one_at_a_time_and_only_once_a_majority_knows_the_last_change() {
    run(async {
        let (kv, world) = (FakeKv::default(), World::default());
        let a = founded(&kv, &world, false).await;
        for number in 2..=4 {
            a.propose(Change::Reserve { node: new_node(number) }).await.unwrap();
        }
        let b = Node::start(&kv, &world, 2, Image::default(), false);
        // It does not follow: nobody becomes a voter who does not see the state.
        let short = Duration::from_millis(120);
        let e = a.admit(2, short).await.unwrap_err().to_string();
        assert!(e.contains("does not follow"), "{e}");
        let e = a.admit(4, short).await.unwrap_err().to_string();
        assert!(e.contains("127.0.0.4:1"), "{e}");
        b.log.catch_up().await.unwrap();
        assert_eq!(a.admit(2, SOON).await.unwrap(), Applied::Done);
        let second = a.log.leadership().borrow().membership;
        assert_eq!(second, a.applied());

        // Of the voters 1 and 2 only 1 knows that they are two: node 1 alone must not be able to go on.
        let c = Node::start(&kv, &world, 3, Image::default(), true);
        eventually("c follows", || c.applied() == a.applied()).await;
        let e = a.admit(3, short).await.unwrap_err().to_string();
        assert!(e.contains("yet to learn"), "{e}");
        b.log.catch_up().await.unwrap();
        assert_eq!(a.admit(3, SOON).await.unwrap(), Applied::Done);
        assert_eq!(a.admit(3, SOON).await.unwrap(), Applied::Done, "twice is once");
        let third = a.log.leadership().borrow().clone();
        assert!(third.membership > second && third.voters == [1, 2, 3].into());
        assert_eq!(third.configs, [[1, 2, 3].into()]);
        assert_eq!(a.log.image().state.nodes[&4].standing, Standing::Joining);
    });
}

#[test]
fn an_admission_that_was_overtaken_by_another_is_made_after_it() {
    run(async {
        let (kv, world) = (FakeKv::default(), World::default());
        let a = founded(&kv, &world, true).await;
        let mut others = vec![];
        for number in 2..=5 {
            a.propose(Change::Reserve { node: new_node(number) }).await.unwrap();
            others.push(Node::start(&kv, &world, number.into(), Image::default(), true));
        }
        // All at once, and each by another node.
        let admit = |(i, node): (usize, &Node)| {
            let by = if i == 0 { 0 } else { i - 1 };
            let (me, by) = (node.me, &others[by]);
            async move { by.admit(me, SOON).await }
        };
        let all = futures::future::join_all(others.iter().enumerate().map(admit)).await;
        assert!(all.iter().all(|r| *r.as_ref().unwrap() == Applied::Done), "{all:?}");
        eventually("five voters", || a.log.leadership().borrow().voters.len() == 5).await;
    });
}

#[test]
fn what_is_not_this_clusters_is_refused() {
    run(async {
        let (kv, world) = (FakeKv::default(), World::default());
        let a = Node::start(&kv, &world, 1, Image::default(), false);
        let e = a.log.catch_up().await.unwrap_err().to_string();
        assert!(e.contains("nothing of this cluster below /vipd/lab/"), "{e}");
        assert!(!Log::is_taken(&kv, &keys()).await.unwrap());
        kv.put(&keys().id(), "another");
        kv.put(&keys().head(), "0");
        assert!(Log::is_taken(&kv, &keys()).await.unwrap());
        let e = a.log.found().await.unwrap_err().to_string();
        assert!(e.contains("another cluster of the same name"), "{e}");
        kv.clear();
        let a = founded(&kv, &world, false).await;
        a.set(1).await;
        a.set(2).await;
        kv.put(&keys().head(), "1");
        let e = a.log.catch_up().await.unwrap_err().to_string();
        assert!(e.contains("restored from a backup"), "{e}");
    });
}

#[test]
fn the_lead_follows_heartbeats_and_the_claims_lease() {
    run(async {
        let (kv, world) = (FakeKv::default(), World::default());
        let nodes = three(&kv, &world).await;
        nodes.iter().for_each(|n| n.hears(&[1, 2, 3]));
        eventually("the first leads", || nodes[0].leads()).await;
        eventually("all agree", || nodes.iter().all(|n| n.leader() == Some(1))).await;
        let term = nodes[1].log.leadership().borrow().term;

        // Its host is lost: the others no longer hear it.
        nodes[1].hears(&[3]);
        nodes[2].hears(&[2]);
        eventually("the second leads", || nodes[1].leads()).await;
        assert!(nodes[1].log.leadership().borrow().term > term);
        eventually("the first knows", || !nodes[0].leads()).await;

        // Heard again, it does not take the lead back.
        nodes.iter().for_each(|n| n.hears(&[1, 2, 3]));
        nodes[0].set(5).await;
        eventually("all agree", || nodes.iter().all(|n| n.leader() == Some(2))).await;

        // The leader is heard and has lost etcd: its lease runs out.
        let lease = nodes[1].log.claim.borrow().1.clone().unwrap().lease;
        nodes[1].kv.cut(true);
        eventually("it stands down by itself", || !nodes[1].leads()).await;
        kv.expire(lease);
        eventually("the first leads again", || nodes[0].leads()).await;

        // The leader is heard and hears nobody: it gives the lead away.
        nodes[1].kv.cut(false);
        eventually("etcd is back", || nodes[1].log.trouble.borrow().is_none()).await;
        nodes[0].hears(&[]);
        eventually("the second leads again", || nodes[1].leads()).await;
    });
}

#[test]
fn without_etcd_nobody_leads_and_all_is_as_before_when_it_is_back() {
    run(async {
        let (kv, world) = (FakeKv::default(), World::default());
        let nodes = three(&kv, &world).await;
        nodes.iter().for_each(|n| n.hears(&[1, 2, 3]));
        eventually("a leader", || nodes[0].leads()).await;
        kv.set_down(true);
        eventually("none", || nodes.iter().all(|n| n.leader().is_none())).await;
        assert_eq!(nodes[0].log.leadership().borrow().voters.len(), 3, "leases go on being renewed");
        kv.set_down(false);
        eventually("a leader again", || nodes.iter().all(|n| n.leader().is_some())).await;
        assert_eq!(nodes[2].set(9).await, Applied::Done);
    });
}

#[test]
fn a_new_life_goes_on_from_what_the_earlier_one_remembered() {
    run(async {
        let (kv, world) = (FakeKv::default(), World::default());
        let a = founded(&kv, &world, false).await;
        a.set(3).await;
        let dir = tempfile::tempdir().unwrap();
        let remember = tokio::spawn(super::cache::keep(a.log.clone(), dir.path().to_owned()));
        tokio::task::yield_now().await;
        a.propose(Change::Reserve { node: new_node(2) }).await.unwrap();
        eventually("written", || super::cache::load(dir.path()).unwrap().applied == a.applied()).await;
        remember.abort();
        let image = super::cache::load(dir.path()).unwrap();
        assert_eq!(image, a.log.image());
        let again = Node::start(&kv, &world, 1, image, false);
        kv.set_down(true);
        assert_eq!(again.log.leadership().borrow().voters, [1].into(), "known without etcd");
        assert_eq!(again.log.view().borrow().state.nodes.len(), 2);
        kv.set_down(false);
        a.set(4).await;
        again.log.catch_up().await.unwrap();
        assert_eq!(again.log.image(), a.log.image());
        sleep(Duration::ZERO).await;
    });
}

use std::time::Instant as Clock;

use super::*;
use crate::{
    cluster::raft::testing::{TestNode, eventually, three, timing},
    config::Profile,
    core::change::{Outcome, Report},
    model::Standing,
};

/// Tests talk from a runtime of their own, as the daemon does.
fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn leader(nodes: &[TestNode]) -> Option<usize> {
    nodes.iter().position(TestNode::leads)
}

async fn one_leader(nodes: &[TestNode]) -> usize {
    eventually("a leader", || leader(nodes).is_some()).await;
    leader(nodes).unwrap()
}

#[test]
fn the_timers_of_openraft_give_the_timing_that_is_asked_for() {
    for timing in [Profile::Default.timing(), Profile::Fast.timing(), timing()] {
        let c = config(&timing, "lab").validate().unwrap();
        let ms = Duration::from_millis;
        let beat = ms(c.heartbeat_interval) * 3 / 2;
        assert!(beat <= timing.raft_heartbeat && beat * 10 >= timing.raft_heartbeat * 9, "{beat:?}");
        let least = ms(c.election_timeout_max + c.election_timeout_min);
        let most = ms(c.election_timeout_max * 2);
        assert!(least >= timing.election.0 && most <= timing.election.1, "{least:?} {most:?}");
        assert!(least >= beat * 3, "three heartbeats may be lost");
    }
}

#[test]
fn a_node_alone_decides_and_remembers() {
    run(async {
        let mut a = TestNode::new("a");
        assert!(crate::cluster::resume(&a.options).await.unwrap().is_none());
        a.init().await;
        assert_eq!(a.view().state.name, "lab");
        assert_eq!(a.view().state.nodes[&1].standing, Standing::Member);
        assert_eq!(a.set(1, 7).await.unwrap(), Applied::Done);
        a.store().barrier().await.unwrap();
        assert_eq!(a.got(1), Some(7));
        eventually("it leads", || a.leads()).await;
        a.store().shutdown().await;
        a.kill();
        a.start().await;
        assert_eq!(a.got(1), Some(7), "known at once, before anybody leads");
        assert_eq!(a.set(1, 8).await.unwrap(), Applied::Done);
    });
}

#[test]
fn three_nodes_agree_and_outlive_their_leader() {
    run(async {
        let mut nodes = three().await;
        for node in &nodes {
            node.store().barrier().await.unwrap();
            let view = node.view();
            assert_eq!(view.state.nodes.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
            assert!(view.state.nodes.values().all(|n| n.standing == Standing::Member));
            eventually("all vote", || {
                let l = node.store().leadership().borrow().clone();
                l.voters.len() == 3 && l.configs.len() == 1 && l.leader.is_some()
            })
            .await;
        }
        let first = one_leader(&nodes).await;
        let follower = (first + 1) % 3;
        assert_eq!(nodes[follower].set(1, 1).await.unwrap(), Applied::Done);
        nodes[first].store().barrier().await.unwrap();
        assert_eq!(nodes[first].got(1), Some(1));

        nodes[first].kill();
        let asked = Clock::now();
        assert_eq!(nodes[follower].set(1, 2).await.unwrap(), Applied::Done);
        assert!(asked.elapsed() < PROPOSE, "{:?}", asked.elapsed());
        let second = one_leader(&nodes).await;
        assert_ne!(first, second);
        for node in nodes.iter().filter(|n| n.store.is_some()) {
            node.store().barrier().await.unwrap();
            assert_eq!(node.got(1), Some(2));
        }

        nodes[first].start().await;
        nodes[first].store().barrier().await.unwrap();
        assert_eq!(nodes[first].got(1), Some(2), "it has what it missed");

        nodes.iter_mut().for_each(TestNode::kill);
        for node in &mut nodes {
            node.start().await;
        }
        nodes[follower].store().barrier().await.unwrap();
        assert_eq!(nodes[follower].got(1), Some(2), "all restarted");
        assert_eq!(nodes[first].set(2, 3).await.unwrap(), Applied::Done);
    });
}

#[test]
fn a_minority_decides_nothing_and_says_so_in_time() {
    run(async {
        let mut nodes = three().await;
        let leading = one_leader(&nodes).await;
        for node in nodes.iter_mut().enumerate().filter(|(i, _)| *i != leading).map(|(_, n)| n) {
            node.kill();
        }
        let asked = Clock::now();
        let node = &nodes[leading];
        let (set, barrier) = tokio::join!(node.set(1, 9), node.store().barrier());
        assert!(matches!(set, Err(StoreError::NoQuorum(_))), "{set:?}");
        assert!(matches!(barrier, Err(StoreError::NoQuorum(_))), "{barrier:?}");
        assert!(asked.elapsed() < PROPOSE + Duration::from_secs(1), "{:?}", asked.elapsed());
        assert!(!node.leads(), "a leader without followers is none");
        assert_eq!(node.got(1), None, "not applied");
    });
}

#[test]
fn a_late_joiner_gets_a_snapshot() {
    run(async {
        let (mut a, mut b) = (TestNode::new("a"), TestNode::new("b"));
        a.init().await;
        let writes = futures::future::join_all((0..SNAPSHOT_EVERY + 600).map(|i| a.set(1, i as u8)));
        assert!(writes.await.into_iter().all(|w| w.unwrap() == Applied::Done));
        a.set(1, 99).await.unwrap();
        let metrics = a.raft().leader.raft().metrics();
        eventually("old entries are gone", || metrics.borrow().purged.is_some()).await;
        b.join(&a).await.unwrap();
        b.store().barrier().await.unwrap();
        assert_eq!(b.got(1), Some(99));
        let raft = b.raft().leader.raft().metrics();
        assert!(raft.borrow().snapshot.is_some(), "not by its log alone");
        b.store().shutdown().await;
        b.kill();
        b.start().await;
        assert_eq!(b.got(1), Some(99), "the snapshot is on its disk");
        assert!(b.raft_dir().join("snapshot").exists());
    });
}

#[test]
fn promises_are_asked_over_the_wire() {
    run(async {
        use crate::cluster::{PromiseAnswer, PromiseQuery};
        let nodes = three().await;
        for (from, to) in [(0, 2), (1, 1), (2, 3)] {
            let peers = nodes[from].store().peers().clone();
            let answer = peers.promise(to, PromiseQuery { node: 2, below: 7 }).await.unwrap();
            assert_eq!(answer, PromiseAnswer { remaining_ns: 2007 });
        }
        assert!(nodes[0].store().peers().promise(9, PromiseQuery { node: 2, below: 7 }).await.is_err());
    });
}

#[test]
fn two_daemons_never_share_a_state_directory() {
    run(async {
        let mut a = TestNode::new("a");
        a.init().await;
        let mut options = a.options.clone();
        options.rpc = crate::cluster::raft::testing::free_port();
        let e = crate::cluster::resume(&options).await.err().expect("refused").to_string();
        assert!(e.contains("another vipd"), "{e}");
    });
}

#[test]
fn what_takes_longer_than_many_heartbeats_is_replicated_without_losing_the_leader() {
    run(async {
        let nodes = three().await;
        let leading = one_leader(&nodes).await;
        let term = nodes[leading].store().leadership().borrow().term;
        let outcome = Outcome::Failed { reason: "x".repeat(256 << 10) };
        let change = Change::Report {
            node: 1,
            reports: vec![Report { tag: "ip-1".parse().unwrap(), epoch: 1, outcome }],
        };
        // Whatever comes of it: nobody knows the resource.
        nodes[(leading + 1) % 3].store().propose(change).await.unwrap();
        for node in &nodes {
            node.store().barrier().await.unwrap();
            let leadership = node.store().leadership().borrow().clone();
            assert_eq!(leadership.term, term, "the same leader");
        }
    });
}

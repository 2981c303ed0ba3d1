use std::time::Duration;

use tokio::{runtime::Builder, time::sleep};

use crate::{
    cluster::raft::testing::{TestNode, eventually},
    core::change::Applied,
    model::{NodeId, Standing, Word},
};

const A: NodeId = 1;
const B: NodeId = 2;

fn run(test: impl Future<Output = ()>) {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

async fn two() -> [TestNode; 2] {
    let (mut a, mut b) = (TestNode::new("a"), TestNode::new("b"));
    a.init().await;
    b.join(&a).await.unwrap();
    assert_eq!(b.set(B, 1).await.unwrap(), Applied::Done);
    [a, b]
}

fn voters(node: &TestNode) -> Vec<NodeId> {
    node.store().leadership().borrow().voters.iter().copied().collect()
}

/// Both are voters, know the same, and nobody is called dead.
async fn whole(a: &TestNode, b: &TestNode, known: u8) {
    for node in [a, b] {
        eventually("both vote, and know what was decided", || {
            voters(node) == [A, B]
                && node.got(B) == Some(known)
                && node.view().state.nodes.values().all(|n| !n.declared_dead)
        })
        .await;
    }
}

#[test]
fn the_last_of_two_goes_on_and_takes_the_other_back_in() {
    run(async {
        let [mut a, b] = two().await;
        eventually("the founder leads", || a.leads()).await;
        a.kill();
        assert!(b.set(B, 2).await.is_err(), "not without a majority");
        assert_eq!(b.store().go_on_without(A, Word::Operator).await.unwrap(), Applied::Done);
        assert_eq!(voters(&b), [B]);
        assert_eq!(b.set(B, 3).await.unwrap(), Applied::Done);
        assert_eq!(
            b.store().go_on_without(A, Word::Operator).await.unwrap(),
            Applied::Done,
            "it may be repeated"
        );
        let dead = b.view().state.nodes[&A].clone();
        assert!(dead.declared_dead && dead.standing == Standing::Deposed);
        a.start().await;
        whole(&a, &b, 3).await;
        assert_eq!(a.set(B, 4).await.unwrap(), Applied::Done);
        whole(&a, &b, 4).await;
    });
}

/// A crash of the survivor at any point of the way: the order is repeated, or the other comes back after all.
#[test]
fn a_crash_on_the_way_loses_nothing() {
    run(async {
        let [mut a, mut b] = two().await;
        for (round, pause) in [0, 400, 900, 1000, 1100, 1300].into_iter().enumerate() {
            let known = 10 + round as u8;
            eventually("somebody leads", || a.leads() || b.leads()).await;
            a.set(B, known).await.unwrap();
            a.kill();
            tokio::select! {
                _ = b.store().go_on_without(A, Word::Operator) => {}
                () = sleep(Duration::from_millis(pause)) => {}
            }
            b.kill();
            b.start().await;
            if round % 2 == 0 {
                assert_eq!(b.store().go_on_without(A, Word::Operator).await.unwrap(), Applied::Done);
                assert_eq!(b.set(B, known + 100).await.unwrap(), Applied::Done);
                a.start().await;
                whole(&a, &b, known + 100).await;
            } else {
                a.start().await;
                whole(&a, &b, known).await;
            }
        }
    });
}

/// Two logs with different ends are never joined.
#[test]
fn two_that_were_both_told_to_go_on_alone_stay_apart() {
    run(async {
        let [mut a, mut b] = two().await;
        a.kill();
        b.store().go_on_without(A, Word::Operator).await.unwrap();
        b.set(B, 3).await.unwrap();
        b.kill();
        a.start().await;
        a.store().go_on_without(B, Word::Operator).await.unwrap();
        a.set(B, 4).await.unwrap();
        b.start().await;
        // Not a wait for something to happen, but the time in which nothing may: two looks of each.
        sleep(Duration::from_millis(2500)).await;
        assert_eq!((voters(&a), voters(&b)), (vec![A], vec![B]));
        assert_eq!((a.got(B), b.got(B)), (Some(4), Some(3)));
        assert!(a.set(B, 5).await.is_ok() && b.set(B, 6).await.is_ok(), "each is a cluster of its own");
    });
}

use super::*;
use crate::cluster::raft::testing::{TestNode, eventually, free_port};

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

async fn error(node: &mut TestNode, via: SocketAddr, token: &Token) -> String {
    match node.join_at(via, token).await {
        Ok(_) => panic!("it joined"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn what_can_go_wrong_with_a_join_has_an_error_of_its_own() {
    run(async {
        let (mut a, mut b) = (TestNode::new("a"), TestNode::new("b"));
        a.init().await;
        let token = a.store().token();
        let rpc = a.options.rpc;

        let mut wrong = token.clone();
        wrong.key.key.0[3] ^= 1;
        let e = error(&mut b, rpc, &wrong).await;
        assert!(e.contains("keys differ") && e.contains("cluster token"), "{e}");

        let mut wrong = token.clone();
        wrong.id.0[3] ^= 1;
        let e = error(&mut b, rpc, &wrong).await;
        assert!(e.contains("another cluster"), "{e}");

        let nobody = free_port();
        let e = error(&mut b, nobody, &token).await;
        assert!(e.contains(&nobody.to_string()) && e.contains("cannot be reached"), "{e}");

        b.new.name = "a".into();
        let e = error(&mut b, rpc, &token).await;
        assert!(e.contains("named 'a'"), "{e}");

        assert!(Identity::load(&b.options.state_dir).unwrap().is_none(), "nothing is left behind");
        b.new.name = "b".into();
        b.join(&a).await.unwrap();
        assert_eq!(b.store().identity().node, 2);

        let e = error(&mut b, rpc, &token).await;
        assert!(e.contains("already 'b' of cluster 'lab'"), "{e}");
        let e = init(&b.options, "other", b.new.clone()).await.err().unwrap().to_string();
        assert!(e.contains("already 'b' of cluster 'lab'"), "{e}");
    });
}

#[test]
fn a_join_that_was_interrupted_goes_on() {
    run(async {
        let (mut a, mut b, mut c) = (TestNode::new("a"), TestNode::new("b"), TestNode::new("c"));
        a.init().await;
        let token = a.store().token();
        let via = a.options.rpc;
        // The crash comes right after the number was reserved; the answer was lost.
        let deadline = Instant::now() + JOIN;
        let number = reserve(&b.options, via, &token, &b.new, deadline).await.unwrap();
        b.join(&a).await.unwrap();
        assert_eq!(b.store().identity().node, number);

        // The crash comes after the member was admitted, before it noted that.
        b.store().shutdown().await;
        let joining = Identity { stage: Stage::Joining { via }, ..b.store().identity() };
        joining.save(&b.options.state_dir).unwrap();
        b.kill();
        b.start().await;
        let store = b.store().clone();
        eventually("noted", || store.identity().stage == Stage::Member).await;
        drop(store);

        // The number is noted and nothing else: the operator repeats the command.
        let number = reserve(&c.options, via, &token, &c.new, Instant::now() + JOIN).await.unwrap();
        Identity { node: number, name: "c".into(), ..joining }.save(&c.options.state_dir).unwrap();
        c.join(&b).await.unwrap();
        assert_eq!(c.store().identity().stage, Stage::Member);
        eventually("three voters", || c.store().leadership().borrow().voters.len() == 3).await;
    });
}

#[test]
fn a_founding_that_was_interrupted_goes_on() {
    run(async {
        let mut a = TestNode::new("a");
        a.init().await;
        a.store().shutdown().await;
        let member = a.store().identity();
        a.kill();
        // After the first entries, before the note of them.
        let founding = Identity { stage: Stage::Founding { node: a.new.clone() }, ..member.clone() };
        founding.save(&a.options.state_dir).unwrap();
        a.start().await;
        assert_eq!(a.store().identity(), member);
        a.store().shutdown().await;
        a.kill();
        // Before any entry.
        std::fs::remove_dir_all(a.raft_dir()).unwrap();
        founding.save(&a.options.state_dir).unwrap();
        a.start().await;
        assert_eq!(a.view().state.name, "lab");
    });
}

#[test]
fn a_node_that_cannot_be_reached_never_becomes_a_voter() {
    run(async {
        let (mut a, b) = (TestNode::new("a"), TestNode::new("b"));
        a.init().await;
        let change = Change::Reserve { node: b.new.clone() };
        assert_eq!(a.store().propose(change).await.unwrap(), Applied::Node(2));
        let e = a.store().admit(2).await.unwrap_err().to_string();
        assert!(e.contains(&b.options.rpc.to_string()), "{e}");
        assert_eq!(a.set(1, 1).await.unwrap(), Applied::Done, "the cluster still decides");
        assert!(a.store().admit(7).await.unwrap_err().to_string().contains("not reserved"));
    });
}

/// A wrong `rpc` in the configuration is corrected and the command repeated: nothing may stand in the way.
#[test]
fn an_address_that_cannot_be_listened_on_leaves_nothing_behind() {
    run(async {
        let (mut a, mut b) = (TestNode::new("a"), TestNode::new("b"));
        let right = (a.options.rpc, b.options.rpc);
        // TEST-NET-1 (RFC 5737): no address of this host.
        let wrong: SocketAddr = "192.0.2.1:7411".parse().unwrap();
        a.options.rpc = wrong;
        let e = init(&a.options, "lab", a.new.clone()).await.err().unwrap().to_string();
        assert!(e.contains("cannot listen for peers on 192.0.2.1:7411"), "{e}");
        assert!(Identity::load(&a.options.state_dir).unwrap().is_none());
        a.options.rpc = right.0;
        a.init().await;

        b.options.rpc = wrong;
        let token = a.store().token();
        let e = error(&mut b, right.0, &token).await;
        assert!(e.contains("cannot listen for peers on 192.0.2.1:7411"), "{e}");
        assert!(Identity::load(&b.options.state_dir).unwrap().is_none());
        b.options.rpc = right.1;
        b.join(&a).await.unwrap();
        assert_eq!(b.store().identity().node, 2, "no number was used up");
    });
}

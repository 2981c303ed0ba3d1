use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::yield_now};

use super::*;
use crate::{api::backend::wait::Verdict, daemon::events::About, model::ClusterState};

const WEB: &str = "ip-10.0.0.9";

/// Starts a request, lets it get to where it waits, and does what the cluster would do.
async fn meanwhile(
    bench: &Bench,
    request: Request,
    steps: impl AsyncFnOnce(&Bench),
) -> (Vec<String>, Answer) {
    let (out, mut interim) = mpsc::channel(64);
    let context = bench.context.clone();
    let work = tokio::spawn(async move { context.handle(request, &out).await.unwrap_or_else(Answer::Error) });
    settle().await;
    steps(bench).await;
    let answer = work.await.unwrap();
    let mut said = vec![];
    while let Some(a) = interim.recv().await {
        if let Answer::Progress(p) = a {
            said.push(p.message);
        }
    }
    (said, answer)
}

/// Everything that can run has run (one thread, nothing waits for real time).
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

fn waiting_create() -> Request {
    Request::CreateIp(CreateIp { wait: true, extend_to: vec!["all".into()], ..wanted("10.0.0.9") })
}

fn in_service(on: Option<&str>) -> Request {
    Request::InService { tag: tag(WEB), on: on.map(Into::into), hold: None, wait: true }
}

#[tokio::test]
async fn create_ends_when_it_is_in_service_and_tells_the_steps() {
    let bench = bench();
    let (said, answer) = meanwhile(&bench, waiting_create(), async |b| {
        b.give(WEB, 1);
        settle().await;
        b.context.events.record(About::tag(&tag(WEB)), "restore.announce", "announced on eth0");
        b.context.events.record(About::tag(&tag("other")), "restore.announce", "not of interest");
        settle().await;
        b.report(WEB, Outcome::Started);
    })
    .await;
    assert_eq!(answer, Answer::done("ip-10.0.0.9 is in service on a"));
    let said = said.join("\n");
    for step in ["waits to be granted", "is starting on a", "restore.announce: announced on eth0"] {
        assert!(said.contains(step), "{step}: {said}");
    }
    assert!(!said.contains("not of interest"));
}

#[tokio::test]
async fn a_failure_here_and_a_success_elsewhere_are_both_told() {
    let bench = bench();
    let (_, answer) = meanwhile(&bench, waiting_create(), async |b| {
        b.give(WEB, 1);
        b.report(WEB, Outcome::Failed { reason: "eth0 has no carrier".into() });
        settle().await;
        b.give(WEB, 2);
        b.report(WEB, Outcome::Started);
    })
    .await;
    assert_eq!(answer, Answer::done("ip-10.0.0.9 is in service on b (failed on a: eth0 has no carrier)"));
}

#[tokio::test]
async fn failed_everywhere_is_a_failure_with_all_reasons() {
    let bench = bench();
    let (_, answer) = meanwhile(&bench, waiting_create(), async |b| {
        for node in [1, 2, 3] {
            b.give(WEB, node);
            b.report(WEB, Outcome::Failed { reason: format!("reason {node}") });
        }
    })
    .await;
    let Answer::Error(e) = answer else { panic!("{answer:?}") };
    assert_eq!(e.kind, ErrorKind::Failed);
    assert!(e.message.contains("a: reason 1; b: reason 2; c: reason 3"), "{}", e.message);
}

#[tokio::test]
async fn a_move_ends_on_the_node_that_was_named() {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    bench.give(WEB, 1);
    bench.report(WEB, Outcome::Started);
    let (said, answer) = meanwhile(&bench, in_service(Some("b")), async |b| {
        b.release(WEB);
        settle().await;
        b.report(WEB, Outcome::Released);
        b.give(WEB, 2);
        b.report(WEB, Outcome::Started);
    })
    .await;
    assert_eq!(answer, Answer::done("ip-10.0.0.9 is in service on b"));
    assert!(said.join("\n").contains("is stopping on a"), "{said:?}");
}

#[tokio::test]
async fn a_move_fails_when_the_named_node_fails() {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    let (_, answer) = meanwhile(&bench, in_service(Some("b")), async |b| {
        b.give(WEB, 2);
        b.report(WEB, Outcome::Failed { reason: "duplicate".into() });
    })
    .await;
    assert!(
        matches!(&answer, Answer::Error(e) if e.message.contains("failed on node 'b': duplicate")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn in_service_where_it_is_already_ends_at_once() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    bench.give(WEB, 1);
    bench.report(WEB, Outcome::Started);
    assert_eq!(bench.done(in_service(None)).await, "ip-10.0.0.9 is in service on a");
}

#[tokio::test]
async fn in_service_on_a_node_that_cannot_have_it_is_refused() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    assert!(bench.refused(in_service(Some("b"))).await.message.contains("extend ip-10.0.0.9 --to b"));
    assert!(bench.refused(in_service(Some("w"))).await.message.contains("witness"));
    let extend =
        Request::Extend { tag: tag(WEB), to: "b".into(), priority: None, devices: vec![], force: false };
    bench.done(extend).await;
    bench.facts.send_modify(|f| {
        f.peers.insert(2, crate::api::facts::PeerFacts::default());
    });
    assert!(bench.refused(in_service(Some("b"))).await.message.contains("not heard"));
}

#[tokio::test]
async fn out_of_service_ends_when_nobody_holds_it() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    bench.give(WEB, 1);
    bench.report(WEB, Outcome::Started);
    let (said, answer) = meanwhile(&bench, Request::OutOfService { tag: tag(WEB), wait: true }, async |b| {
        b.release(WEB);
        settle().await;
        b.report(WEB, Outcome::Released);
    })
    .await;
    assert_eq!(answer, Answer::done("ip-10.0.0.9 is out of service"));
    assert!(said.join("\n").contains("stopping on a"), "{said:?}");
}

#[tokio::test]
async fn orders_that_contradict_each_other_end_the_older_wait() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    let (_, answer) = meanwhile(&bench, in_service(None), async |b| {
        b.done(Request::OutOfService { tag: tag(WEB), wait: false }).await;
    })
    .await;
    assert!(
        matches!(&answer, Answer::Error(e) if e.message.contains("out of service meanwhile")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn delete_ends_when_it_is_gone_and_ping_lists_stay() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    bench.give(WEB, 1);
    bench.report(WEB, Outcome::Started);
    let add = Request::PingListAdd {
        subnet: "10.0.0.0/24".parse().unwrap(),
        addresses: vec!["10.0.0.254".parse().unwrap()],
        node: None,
    };
    bench.ask(add).await;
    let (_, answer) = meanwhile(
        &bench,
        Request::Delete { tag: tag(WEB), hierarchy: false, force: false, wait: true },
        async |b| {
            b.release(WEB);
            b.report(WEB, Outcome::Released);
        },
    )
    .await;
    assert_eq!(answer, Answer::done("ip-10.0.0.9 is deleted"));
    assert!(!bench.store.state().resources.contains_key(&tag(WEB)));
    assert_eq!(bench.store.state().ping_lists.len(), 1);
    let e =
        bench.refused(Request::Delete { tag: tag(WEB), hierarchy: false, force: false, wait: true }).await;
    assert_eq!(e.kind, ErrorKind::Refused);
}

#[tokio::test]
async fn a_wait_is_bounded_and_says_what_to_do() {
    let bench = bench();
    let (out, _listening) = mpsc::channel(8);
    let member = bench.context.member().unwrap();
    let judge = |_: &ClusterState| Verdict::Pending("it waits".into());
    let limit = Duration::from_millis(1);
    let e = bench.context.wait(&member, &tag(WEB), limit, &out, judge).await.unwrap_err();
    assert_eq!(e.kind, ErrorKind::Failed);
    assert!(e.message.contains("it waits") && e.message.contains("vipctl show"), "{}", e.message);
}

#[tokio::test]
async fn a_wait_ends_with_its_client_and_the_order_stands() {
    let bench = Arc::new(bench());
    let (out, interim) = mpsc::channel(64);
    let context = bench.context.clone();
    let work = tokio::spawn(async move { context.handle(waiting_create(), &out).await });
    settle().await;
    drop(interim);
    assert!(work.await.unwrap().is_ok());
    assert!(bench.store.state().resources.contains_key(&tag(WEB)));
}

use super::*;
use crate::{
    act::address::PROTOCOL,
    api::backend::fake::{assigned, link},
    model::{Desired, NodeSettings},
};

#[tokio::test]
async fn one_node_gets_the_best_priority_and_the_subnets_interface() {
    let bench = bench();
    let said = bench.done(create("10.0.0.9")).await;
    assert!(said.contains("ip-10.0.0.9") && said.contains("10.0.0.9/24"), "{said}");
    let state = bench.store.state();
    let resource = &state.resources[&tag("ip-10.0.0.9")];
    let expected = NodeSettings::new(1, vec!["eth0".into()]);
    assert_eq!(resource.nodes.iter().collect::<Vec<_>>(), [(&1, &expected)]);
    assert_eq!(state.placements[&tag("ip-10.0.0.9")].desired, Desired::InService { on: Some(1) });
}

#[tokio::test]
async fn all_nodes_but_the_witness_get_falling_priorities_in_one_change() {
    let bench = bench();
    bench.done(create_on_all("fd00::9")).await;
    let state = bench.store.state();
    let nodes = &state.resources[&tag("ip-fd00::9")].nodes;
    let priorities: Vec<_> = nodes.iter().map(|(n, s)| (*n, s.priority)).collect();
    assert_eq!(priorities, [(1, 1), (2, 10), (3, 20)]);
    assert_eq!(bench.store.proposed.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn named_nodes_are_preferred_in_their_order() {
    let bench = bench();
    let request = CreateIp {
        extend_to: vec!["c".into(), "b".into()],
        priority: Some(15),
        tag: Some(tag("web")),
        ..wanted("10.0.0.9")
    };
    bench.done(Request::CreateIp(request)).await;
    let state = bench.store.state();
    let priorities: Vec<_> =
        state.resources[&tag("web")].nodes.iter().map(|(n, s)| (*n, s.priority)).collect();
    assert_eq!(priorities, [(1, 15), (2, 30), (3, 20)]);
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_changed() {
    let mut host = FakeHost::usual();
    host.claimed.push("10.0.0.66".parse().unwrap());
    host.pingable.push("10.0.0.77".parse().unwrap());
    let bench = Bench::new(host);
    bench.done(create("10.0.0.9")).await;
    let with = |f: &dyn Fn(&mut CreateIp)| {
        let mut request = wanted("10.0.0.20");
        f(&mut request);
        Request::CreateIp(request)
    };
    let cases: Vec<(Request, ErrorKind, &str)> = vec![
        (create("10.0.0.9"), ErrorKind::Refused, "belongs to the resource 'ip-10.0.0.9'"),
        (create("10.0.0.66"), ErrorKind::Refused, "02:00:00:00:00:99 claims it on eth0"),
        (create("10.0.0.77"), ErrorKind::Refused, "answers a ping through eth0"),
        (create("10.0.0.0"), ErrorKind::Refused, "network address"),
        (create("10.0.0.255"), ErrorKind::Refused, "broadcast address"),
        (create("224.0.0.9/24"), ErrorKind::Refused, "multicast"),
        (create("10.0.0.2"), ErrorKind::Refused, "of node 'b' itself"),
        (create("192.0.2.9"), ErrorKind::Refused, "prefix length is unknown"),
        (create("no.such.name"), ErrorKind::Failed, "cannot be resolved"),
        (create("10.0.0.9/24/24"), ErrorKind::Usage, "no netmask"),
        (with(&|r| r.tag = Some(tag("ip-10.0.0.9"))), ErrorKind::Refused, "is taken"),
        (with(&|r| r.devices = vec!["eth1".into()]), ErrorKind::Refused, "allowed: eth0"),
        (with(&|r| r.extend_to = vec!["w".into()]), ErrorKind::Refused, "witness"),
        (with(&|r| r.extend_to = vec!["a".into()]), ErrorKind::Usage, "this node"),
        (with(&|r| r.extend_to = vec!["b".into(), "b".into()]), ErrorKind::Usage, "twice"),
        (with(&|r| r.extend_to = vec!["bb".into()]), ErrorKind::Refused, "is 'b' "),
        (
            with(&|r| {
                r.extend_to = vec!["b".into()];
                r.priority = Some(995);
            }),
            ErrorKind::Refused,
            "smaller --priority",
        ),
    ];
    let before = bench.store.state();
    for (request, kind, reason) in cases {
        let text = format!("{request:?}");
        let e = bench.refused(request).await;
        assert_eq!(e.kind, kind, "{text}: {}", e.message);
        assert!(e.message.contains(reason), "{text}: {}", e.message);
    }
    assert_eq!(bench.store.state(), before);
}

#[tokio::test]
async fn noipunique_skips_the_check_from_the_next_create_on() {
    let mut host = FakeHost::usual();
    host.claimed.push("10.0.0.66".parse().unwrap());
    let bench = Bench::new(host);
    let e = bench.refused(create("10.0.0.66")).await;
    assert!(e.message.contains("NOIPUNIQUE=1") && e.message.contains("tunables"), "{}", e.message);
    std::fs::write(bench.dir.path().join("tunables"), "NOIPUNIQUE=1\n").unwrap();
    bench.done(create("10.0.0.66")).await;
}

#[tokio::test]
async fn the_nodes_own_address_is_protected_as_it_is() {
    let bench = bench();
    let (interim, _) = bench.ask(create("10.0.0.1")).await;
    assert!(format!("{interim:?}").contains("never touched"), "{interim:?}");
    let settings = bench.store.state().resources[&tag("ip-10.0.0.1")].nodes[&1].clone();
    assert!(settings.physical && settings.devices == ["eth0"]);
    let cases = [
        (CreateIp { extend_to: vec!["b".into()], ..wanted("10.1.0.1") }, "leave --extend-to out"),
        (CreateIp { devices: vec!["eth0".into()], ..wanted("10.1.0.1") }, "leave --dev out"),
        (wanted("10.1.0.1/24"), "with prefix length 16"),
        (wanted("127.0.0.1"), "loopback"),
    ];
    for (request, reason) in cases {
        let e = bench.refused(Request::CreateIp(request)).await;
        assert!(e.message.contains(reason), "{}", e.message);
    }
}

#[tokio::test]
async fn a_leftover_of_ours_is_not_the_nodes_own_address() {
    let mut host = FakeHost::usual();
    let mut leftover = assigned(2, "10.0.0.9/24");
    leftover.protocol = Some(PROTOCOL);
    host.assigned.push(leftover);
    let bench = Bench::new(host);
    bench.done(create("10.0.0.9")).await;
    assert!(!bench.store.state().resources[&tag("ip-10.0.0.9")].nodes[&1].physical);
}

#[tokio::test]
async fn a_witness_and_a_node_without_cluster_create_nothing() {
    let mut bench = bench();
    let mut config = (*bench.context.config).clone();
    config.witness = true;
    bench.context.config = config.into();
    assert!(bench.refused(create("10.0.0.9")).await.message.contains("witness"));
    bench.context.member = tokio::sync::watch::Sender::new(None).subscribe();
    let e = bench.refused(create("10.0.0.9")).await;
    assert!(e.message.contains("cluster init"), "{}", e.message);
}

#[tokio::test]
async fn without_quorum_it_is_exit_code_five() {
    let bench = bench();
    *bench.store.no_quorum.lock().unwrap() = true;
    let e = bench.refused(create("10.0.0.9")).await;
    assert_eq!(e.kind, ErrorKind::NoQuorum);
    assert!(e.message.contains("b and c are silent"), "{}", e.message);
}

#[tokio::test]
async fn of_two_creates_at_once_one_is_refused() {
    let bench = bench();
    let again = CreateIp { tag: Some(tag("other")), ..wanted("10.0.0.9") };
    let (first, second) = tokio::join!(bench.ask(create("10.0.0.9")), bench.ask(Request::CreateIp(again)));
    let answers = [first.1, second.1];
    assert_eq!(answers.iter().filter(|a| matches!(a, Answer::Done { .. })).count(), 1, "{answers:?}");
    let refused = |a: &Answer| matches!(a, Answer::Error(e) if e.kind == ErrorKind::Refused);
    assert!(answers.iter().any(refused), "{answers:?}");
}

#[tokio::test]
async fn a_link_that_is_down_is_named() {
    let mut host = FakeHost::usual();
    host.links[1] = crate::observe::network::Link { carrier: false, ..link(2, "eth0") };
    let e = Bench::new(host).refused(create("10.0.0.9")).await;
    assert!(e.message.contains("eth0 has no carrier"), "{}", e.message);
}

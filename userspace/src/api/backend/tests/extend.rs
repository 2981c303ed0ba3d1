use super::*;

fn extend(to: &str) -> Request {
    Request::Extend { tag: tag("ip-10.0.0.9"), to: to.into(), priority: None, devices: vec![], force: false }
}

#[tokio::test]
async fn devices_priority_and_ping_list_follow_the_preferred_node() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    let add = Request::PingListAdd {
        subnet: "10.0.0.0/24".parse().unwrap(),
        addresses: vec!["10.0.0.254".parse().unwrap()],
        node: None,
    };
    assert!(matches!(bench.ask(add).await.1, Answer::PingLists(l) if l.len() == 1));
    let said = bench.done(extend("b")).await;
    assert!(said.contains("b (priority 10)") && said.contains("eth0"), "{said}");
    let state = bench.store.state();
    assert_eq!(state.resources[&tag("ip-10.0.0.9")].nodes[&2].devices, ["eth0"]);
    assert_eq!(state.ping_lists[&(2, "10.0.0.0/24".parse().unwrap())].len(), 1);
}

#[tokio::test]
async fn a_list_of_its_own_is_kept() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    for (node, last) in [("a", 254), ("b", 253)] {
        let add = Request::PingListAdd {
            subnet: "10.0.0.0/24".parse().unwrap(),
            addresses: vec![format!("10.0.0.{last}").parse().unwrap()],
            node: Some(node.into()),
        };
        bench.ask(add).await;
    }
    bench.done(extend("b")).await;
    let kept: Vec<String> = bench.store.state().ping_lists[&(2, "10.0.0.0/24".parse().unwrap())]
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(kept, ["10.0.0.253"]);
}

#[tokio::test]
async fn all_means_every_node_that_lacks_it() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    bench.done(extend("c")).await;
    assert!(bench.done(extend("all")).await.contains("b (priority 20)"));
    assert!(bench.done(extend("all")).await.contains("already"));
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    bench.done(create("10.0.0.1")).await;
    let physical = Request::Extend {
        tag: tag("ip-10.0.0.1"),
        to: "b".into(),
        priority: None,
        devices: vec![],
        force: false,
    };
    let taken = Request::Extend {
        tag: tag("ip-10.0.0.9"),
        to: "b".into(),
        priority: Some(1),
        devices: vec!["eth0".into()],
        force: false,
    };
    let unknown = Request::Extend {
        tag: tag("10.0.0.9"),
        to: "b".into(),
        priority: None,
        devices: vec![],
        force: false,
    };
    let cases = [
        (extend("a"), "already"),
        (extend("w"), "witness"),
        (extend("d"), "no node 'd'"),
        (physical, "own address"),
        (taken, "priority"),
        (unknown, "is 'ip-10.0.0.9' "),
    ];
    for (request, reason) in cases {
        let e = bench.refused(request).await;
        assert_eq!(e.kind, ErrorKind::Refused);
        assert!(e.message.contains(reason), "{}", e.message);
    }
}

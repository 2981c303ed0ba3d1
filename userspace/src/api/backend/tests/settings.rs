use ipnet::IpNet;

use super::*;

fn set(node: Option<&str>, settings: &[(&str, &str)]) -> Request {
    Request::Set {
        tag: tag("ip-10.0.0.9"),
        node: node.map(Into::into),
        settings: settings.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
    }
}

#[tokio::test]
async fn settings_of_a_node_and_of_the_whole_together() {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    let request = set(
        Some("b"),
        &[
            ("priority", "5"),
            ("devices", "eth7"),
            ("restore-and-recover", "disable"),
            ("switchback", "automatic"),
        ],
    );
    bench.done(request).await;
    let state = bench.store.state();
    let resource = &state.resources[&tag("ip-10.0.0.9")];
    let b = &resource.nodes[&2];
    assert_eq!(
        (b.priority, b.devices.as_slice(), b.restore_and_recover),
        (5, &["eth7".to_owned()][..], false)
    );
    assert_eq!(resource.switchback, Switchback::Automatic);
    assert!(resource.nodes[&1].restore_and_recover);
}

#[tokio::test]
async fn one_wrong_setting_changes_nothing() {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    let before = bench.store.state();
    let cases = [
        (set(Some("b"), &[("restore-and-recover", "disable"), ("priority", "1")]), ErrorKind::Refused),
        (set(Some("b"), &[("switchback", "automatic"), ("colour", "red")]), ErrorKind::Usage),
        (set(None, &[("restore-and-recover", "disable"), ("priority", "7")]), ErrorKind::Refused),
        (set(Some("w"), &[("priority", "7")]), ErrorKind::Refused),
        (set(Some("a"), &[("devices", "eth9")]), ErrorKind::Refused),
        (set(None, &[("devices", "eth9")]), ErrorKind::Refused),
    ];
    for (request, kind) in cases {
        let text = format!("{request:?}");
        let e = bench.refused(request).await;
        assert_eq!(e.kind, kind, "{text}: {}", e.message);
    }
    assert_eq!(bench.store.state(), before);
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn change(add: bool, addresses: &[&str], node: Option<&str>) -> Request {
    let subnet = net("10.0.0.7/24"); // host bits do not matter
    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let node = node.map(Into::into);
    if add {
        Request::PingListAdd { subnet, addresses, node }
    } else {
        Request::PingListRemove { subnet, addresses, node }
    }
}

async fn lists(bench: &Bench, request: Request) -> Vec<String> {
    match bench.ask(request).await.1 {
        Answer::PingLists(lists) => {
            lists.iter().map(|l| format!("{} {} {:?}", l.node, l.subnet, l.addresses)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn ping_lists_are_changed_in_any_state_and_shown() {
    let bench = bench();
    let added = lists(&bench, change(true, &["10.0.0.254", "10.0.0.253"], None)).await;
    assert_eq!(added, ["a 10.0.0.0/24 [10.0.0.254, 10.0.0.253]"]);
    let again = lists(&bench, change(true, &["10.0.0.254"], Some("all"))).await;
    assert_eq!(again.len(), 3, "all but the witness: {again:?}");
    let show = |node: Option<&str>| Request::PingListShow {
        subnet: Some(net("10.0.0.0/24")),
        node: node.map(Into::into),
    };
    assert_eq!(lists(&bench, show(None)).await.len(), 3);
    assert_eq!(lists(&bench, show(Some("b"))).await, ["b 10.0.0.0/24 [10.0.0.254]"]);
    let other = Request::PingListShow { subnet: Some(net("10.9.0.0/24")), node: None };
    assert!(lists(&bench, other).await.is_empty());
    let emptied = lists(&bench, change(false, &["10.0.0.254"], Some("b"))).await;
    assert_eq!(emptied, ["b 10.0.0.0/24 []"]);
}

#[tokio::test]
async fn wrong_entries_are_refused_with_the_reason() {
    let bench = bench();
    for (addresses, reason) in [
        (&["fd00::1"][..], "address family"),
        (&["127.0.0.1"][..], "no other host's"),
        (&["224.0.0.1"][..], "no other host's"),
        (&["10.0.0.255"][..], "broadcast"),
        (&[][..], "no address"),
    ] {
        let e = bench.refused(change(true, addresses, None)).await;
        assert!(e.message.contains(reason), "{addresses:?}: {}", e.message);
    }
    let e = bench.refused(change(false, &["10.0.0.254"], None)).await;
    assert!(e.message.contains("not in the ping list"), "{}", e.message);
    assert!(bench.refused(change(true, &["10.0.0.254"], Some("w"))).await.message.contains("witness"));
}

#[tokio::test]
async fn source_conflict_and_accept_are_set_and_said_to_whom_they_belong() {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    let said = bench.done(set(Some("b"), &[("source", "enable")])).await;
    assert!(said.contains("ip-10.0.0.9 is set on b;"), "{said}");
    let said = bench.done(set(Some("b"), &[("on-conflict", "yield"), ("source", "enable")])).await;
    assert!(
        said.contains("set on b, but on all of its nodes where") && said.contains(": on-conflict"),
        "{said}"
    );
    let said = bench.done(set(Some("b"), &[("accept", "route"), ("switchback", "automatic")])).await;
    assert!(said.contains("set on all of its nodes: accept, switchback belong to it as a whole"), "{said}");
    assert!(said.contains("at the next bring-up"), "{said}");
    let state = bench.store.state();
    let resource = &state.resources[&tag("ip-10.0.0.9")];
    assert!(resource.nodes[&2].source && !resource.nodes[&1].source);
    assert_eq!(resource.on_conflict, crate::model::OnConflict::Yield);
    assert_eq!(resource.accept(), crate::model::Accept::Route);
    bench.done(create_on_all("fd00::9")).await;
    let source = Request::Set {
        tag: tag("ip-fd00::9"),
        node: None,
        settings: vec![("source".into(), "enable".into())],
    };
    let e = bench.refused(source).await;
    assert!(e.kind == ErrorKind::Refused && e.message.contains("IPv4 only"), "{}", e.message);
}

#[tokio::test]
async fn a_ping_list_has_no_target_that_never_counts() {
    let bench = bench();
    bench.done(create_on_all("10.0.0.9")).await;
    for (addresses, node, reason) in [
        (&["10.0.0.9"][..], None, "virtual address itself (resource 'ip-10.0.0.9')"),
        (&["10.0.0.1"][..], None, "an address of node 'a' itself"),
        (&["10.1.0.1"][..], None, "an address of node 'a' itself"),
        (&["10.0.0.2"][..], Some("all"), "an address of node 'b' itself"),
        (&["10.0.0.0"][..], None, "network address"),
        (&["255.255.255.255"][..], None, "broadcast"),
    ] {
        let e = bench.refused(change(true, addresses, node)).await;
        assert_eq!(e.kind, ErrorKind::Refused);
        assert!(e.message.contains(reason), "{addresses:?}: {}", e.message);
    }
    assert!(bench.store.state().ping_lists.is_empty());
    // What is another node's own is as good as any.
    assert_eq!(lists(&bench, change(true, &["10.0.0.2"], None)).await, ["a 10.0.0.0/24 [10.0.0.2]"]);
}

#[tokio::test]
async fn a_list_that_nobody_needs_yet_is_kept_with_a_hint() {
    let bench = bench();
    bench.done(create("10.0.0.9")).await;
    let add = |subnet: &str| Request::PingListAdd {
        subnet: net(subnet),
        addresses: vec!["10.0.0.254".parse().unwrap()],
        node: None,
    };
    let hint = async |request| match bench.ask(request).await.1 {
        Answer::PingLists(lists) => lists[0].hint.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(hint(add("10.0.0.0/24")).await, None);
    let said = hint(add("10.0.0.0/25")).await.unwrap();
    assert!(said.contains("waits for one; is 10.0.0.0/24 meant?"), "{said}");
    assert_eq!(bench.store.state().ping_lists.len(), 2);
}

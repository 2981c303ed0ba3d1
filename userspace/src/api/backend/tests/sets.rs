//! Many addresses: sets, groups, and one resource each.

use super::*;
use crate::{
    api::backend::fake::{FakeHost, assigned},
    model::{Accept, AcceptBy, Addresses, NodeSettings, Resource, Word},
};

fn given(texts: &[&str]) -> CreateIp {
    let addresses = texts.iter().map(|t| Given::Argument((*t).to_owned())).collect();
    CreateIp { addresses, ..wanted("") }
}

fn each(text: &str) -> CreateIp {
    CreateIp { each: true, ..given(&[text]) }
}

fn ip(bench: &Bench, name: &str) -> (String, Accept, AcceptBy) {
    let state = bench.store.state();
    let ip = state.resources[&tag(name)].ip().unwrap().clone();
    (ip.addresses.to_string(), ip.accept, ip.accept_by)
}

#[tokio::test]
async fn several_addresses_are_one_resource() {
    let bench = bench();
    let said = bench.done(Request::CreateIp(given(&["10.0.0.20-10.0.0.29", "10.0.0.15", "fd00::9"]))).await;
    assert!(said.contains("ip-10.0.0.15 is created, for 12 addresses"), "{said}");
    let (_, accept, by) = ip(&bench, "ip-10.0.0.15");
    assert_eq!((accept, by), (Accept::Assign, AcceptBy::Size));
    let state = bench.store.state();
    assert_eq!(state.resources[&tag("ip-10.0.0.15")].nodes[&1].devices, ["eth0"]);
}

#[tokio::test]
async fn a_whole_prefix_is_taken_as_prefix() {
    let bench = bench();
    let request = CreateIp { tag: Some(tag("big")), ..each("10.9.0.0/16") };
    let said = bench.done(Request::CreateIp(request)).await;
    assert!(
        said.contains("65,534 addresses 10.9.0.1-10.9.255.254/16 (anyip, by default: more than 64"),
        "{said}"
    );
    assert_eq!(ip(&bench, "big").1, Accept::Anyip);
    let assign =
        Request::Set { tag: tag("big"), node: None, settings: vec![("accept".into(), "assign".into())] };
    let said = bench.done(assign).await;
    assert!(said.contains("needs long for 65,534 addresses"), "{said}");
    let back =
        Request::Set { tag: tag("big"), node: None, settings: vec![("accept".into(), "anyip".into())] };
    bench.done(back).await;
    let status = match bench.ask(Request::Status).await.1 {
        Answer::Status(status) => status,
        other => panic!("{other:?}"),
    };
    let shown = &status.resources[0];
    assert_eq!((shown.addresses, shown.span.as_str()), (65_534, "10.9.0.1-10.9.255.254/16"));
    assert_eq!(shown.accept_reason, "an operator's choice");
    let page = |offset, limit| Request::Addresses { tag: Some(tag("big")), limit, offset };
    let Answer::Addresses(page) = bench.ask(page(65_530, Some(10))).await.1 else { panic!() };
    let listed: Vec<String> = page.addresses.iter().map(|a| a.address.to_string()).collect();
    assert_eq!(page.total, 65_534);
    assert_eq!(listed, ["10.9.255.251/16", "10.9.255.252/16", "10.9.255.253/16", "10.9.255.254/16"]);
}

#[tokio::test]
async fn stationary_addresses_are_named_and_can_be_left_out() {
    let bench = bench();
    let e = bench.refused(Request::CreateIp(each("10.0.0.0/24"))).await;
    assert_eq!(e.kind, ErrorKind::Refused);
    for part in
        ["10.0.0.1 of node 'a'", "10.0.0.2 of node 'b'", "10.0.0.4 of node 'w'", "--except 10.0.0.1-10.0.0.4"]
    {
        assert!(e.message.contains(part), "{part}: {}", e.message);
    }
    let except = vec!["10.0.0.1-10.0.0.4".parse().unwrap()];
    let said = bench.done(Request::CreateIp(CreateIp { except, ..each("10.0.0.0/24") })).await;
    assert!(said.contains("250 addresses 10.0.0.5-10.0.0.254/24"), "{said}");
}

#[tokio::test]
async fn all_conflicts_are_told_at_once() {
    let mut host = FakeHost::usual();
    host.claimed.extend((60..80).map(|n| std::net::IpAddr::from([10, 0, 0, n])));
    host.pingable.push("10.0.0.90".parse().unwrap());
    let bench = Bench::new(host);
    let e = bench.refused(Request::CreateIp(given(&["10.0.0.50-10.0.0.99"]))).await;
    assert_eq!(e.kind, ErrorKind::Refused);
    for part in [
        "21 addresses are in use",
        "10.0.0.60 (02:00:00:00:00:99), 10.0.0.61",
        "and 5 more",
        "--except",
        "NOIPUNIQUE=1",
    ] {
        assert!(e.message.contains(part), "{part}: {}", e.message);
    }
    assert!(bench.store.state().resources.is_empty());
    let e = bench.refused(Request::CreateIp(given(&["10.0.0.89-10.0.0.91"]))).await;
    assert!(e.message.contains("10.0.0.90 is in use on the network: it answers a ping"), "{}", e.message);
}

#[tokio::test]
async fn a_group_is_created_grows_and_shrinks() {
    let bench = bench();
    let group = |texts: &[&str]| Request::CreateIp(CreateIp { group: Some(tag("shop")), ..given(texts) });
    assert!(bench.done(group(&["10.0.0.20-10.0.0.22"])).await.contains("shop is created, for 3 addresses"));
    let said = bench.done(group(&["10.0.0.22-10.0.0.24"])).await;
    assert!(said.contains("shop has 2 more") && said.contains("now 5 in all"), "{said}");
    assert!(bench.done(group(&["10.0.0.23"])).await.contains("has these addresses already"));
    let extra = CreateIp { devices: vec!["eth0".into()], group: Some(tag("shop")), ..given(&["10.0.0.30"]) };
    let e = bench.refused(Request::CreateIp(extra)).await;
    assert!(e.message.contains("vipctl set shop devices=IF"), "{}", e.message);
    // Another subnet is on another interface than the group's.
    let e = bench.refused(group(&["10.1.0.9"])).await;
    assert!(
        e.message.contains("10.1.0.9 cannot be on eth0") && e.message.contains("allowed: eth1"),
        "{}",
        e.message
    );

    let remove = |texts: &[&str]| Request::RemoveAddresses {
        tag: tag("shop"),
        addresses: texts.iter().map(|t| Given::Argument((*t).to_owned())).collect(),
        wait: false,
    };
    let said = bench.done(remove(&["10.0.0.20", "10.0.0.23-10.0.0.24"])).await;
    assert!(said.contains("3 fewer, and 2 addresses 10.0.0.21-10.0.0.22/24 left"), "{said}");
    let e = bench.refused(remove(&["10.0.0.20-10.0.0.22"])).await;
    assert!(e.message.contains("10.0.0.20: not among the addresses of 'shop'"), "{}", e.message);
    let e = bench.refused(remove(&["10.0.0.21-10.0.0.22"])).await;
    assert!(e.message.contains("vipctl delete shop"), "{}", e.message);
    assert_eq!(ip(&bench, "shop").0, "10.0.0.21-10.0.0.22/24");
}

/// The request, and the owner's answer as soon as the addresses were changed.
async fn amended(bench: &Bench, request: Request, owner: impl Fn(u64)) -> Answer {
    let before = bench.store.state().placements[&tag("shop")].alterations;
    let answer = async {
        let mut views = crate::cluster::Store::view(&*bench.store);
        views.wait_for(|v| v.state.placements[&tag("shop")].alterations > before).await.unwrap();
        owner(before + 1);
    };
    tokio::join!(bench.ask(request), answer).0.1
}

#[tokio::test]
async fn a_group_in_service_has_changed_when_its_owner_says_so() {
    let bench = bench();
    let group =
        |texts: &[&str]| Request::CreateIp(CreateIp { group: Some(tag("shop")), wait: true, ..given(texts) });
    bench
        .done(Request::CreateIp(CreateIp { group: Some(tag("shop")), ..given(&["10.0.0.20-10.0.0.22"]) }))
        .await;
    bench.give("shop", 1);
    bench.report("shop", Outcome::Started);
    let says = |alterations, trouble: Option<&str>| {
        let trouble = trouble.map(str::to_owned);
        bench.report("shop", Outcome::Amended { alterations, gone: Default::default(), trouble });
    };
    let said = amended(&bench, group(&["10.0.0.23"]), |n| says(n, None)).await;
    assert!(matches!(&said, Answer::Done { message } if message.contains("now 4 in all")), "{said:?}");

    let said = amended(&bench, group(&["10.0.0.24"]), |n| says(n, Some("10.0.0.24 is in use"))).await;
    let Answer::Error(e) = said else { panic!("{said:?}") };
    assert_eq!(e.kind, ErrorKind::Failed);
    assert!(e.message.contains("on a: 10.0.0.24 is in use"), "{}", e.message);
    let Answer::Status(status) = bench.ask(Request::Status).await.1 else { panic!() };
    let shown = &status.resources[0];
    assert_eq!(shown.state, "ISP");
    assert!(shown.nodes[0].reason.as_ref().is_some_and(|r| r.contains("10.0.0.24 is in use")), "{shown:?}");
    let warned = "'shop' is in service without all of its addresses on a: 10.0.0.24 is in use";
    assert!(status.warnings.iter().any(|w| w == warned), "{:?}", status.warnings);
    // Ordered again, it is no better, until the owner has all of them.
    assert!(bench.refused(group(&["10.0.0.24"])).await.message.contains("10.0.0.24 is in use"));
    says(2, None);
    assert!(bench.done(group(&["10.0.0.24"])).await.contains("has these addresses already"));

    // The owner is lost meanwhile: the next brings up all.
    let remove = || Request::RemoveAddresses {
        tag: tag("shop"),
        addresses: vec![Given::Argument("10.0.0.24".into())],
        wait: true,
    };
    let said = amended(&bench, remove(), |_| {
        bench.report("shop", Outcome::Failed { reason: "no carrier".into() });
        bench.give("shop", 1);
        bench.report("shop", Outcome::Started);
    })
    .await;
    assert!(matches!(&said, Answer::Done { message } if message.contains("1 fewer")), "{said:?}");
    let said = amended(&bench, group(&["10.0.0.24"]), |_| {
        bench.report("shop", Outcome::Failed { reason: "no carrier".into() });
    })
    .await;
    assert!(matches!(&said, Answer::Done { message } if message.contains("next bring-up")), "{said:?}");
}

#[tokio::test]
async fn a_group_that_outgrows_assigning_is_refused_until_an_operator_says_how() {
    let bench = bench();
    let group = |texts: &[&str]| Request::CreateIp(CreateIp { group: Some(tag("shop")), ..given(texts) });
    bench.done(group(&["10.0.0.20-10.0.0.29"])).await;
    let e = bench.refused(group(&["10.0.0.30-10.0.0.130"])).await;
    assert_eq!(e.kind, ErrorKind::Refused);
    assert!(e.message.contains("would have 111") && e.message.contains("accept=anyip"), "{}", e.message);
    let accept = |value: &str| Request::Set {
        tag: tag("shop"),
        node: None,
        settings: vec![("accept".into(), value.into())],
    };
    assert!(bench.done(accept("assign")).await.contains("next bring-up"));
    bench.done(group(&["10.0.0.30-10.0.0.130"])).await;
    assert_eq!(ip(&bench, "shop"), ("10.0.0.20-10.0.0.130/24".into(), Accept::Assign, AcceptBy::Operator));
}

#[tokio::test]
async fn separate_ones_are_created_in_few_changes() {
    let bench = bench();
    let request = CreateIp { separate: true, extend_to: vec!["all".into()], ..each("10.9.0.0/21") };
    let (interim, last) = bench.ask(Request::CreateIp(request)).await;
    let Answer::Done { message } = last else { panic!("{last:?}") };
    assert!(message.contains("2,046 resources are created, ip-10.9.0.1 to ip-10.9.7.254"), "{message}");
    let told = format!("{interim:?}");
    assert!(told.contains("created: 1,000 of 2,046") && told.contains("created: 2,046 of 2,046"), "{told}");
    assert_eq!(bench.store.proposed.lock().unwrap().len(), 3);
    let state = bench.store.state();
    let count = |accept| state.resources.values().filter(|r| r.accept() == accept).count();
    assert_eq!(
        (count(Accept::Assign), count(Accept::Route)),
        (1000, 1046),
        "no node assigns more than are quick"
    );
    let again = CreateIp { separate: true, ..given(&["10.9.0.5-10.9.0.6/21"]) };
    let e = bench.refused(Request::CreateIp(again)).await;
    assert!(e.message.contains("belongs to the resource 'ip-10.9.0.5'"), "{}", e.message);
    for (wrong, reason) in [
        (CreateIp { separate: true, tag: Some(tag("x")), ..given(&["10.0.0.9"]) }, "leave --tag out"),
        (CreateIp { separate: true, group: Some(tag("x")), ..given(&["10.0.0.9"]) }, "choose one"),
        (CreateIp { tag: Some(tag("y")), group: Some(tag("x")), ..given(&["10.0.0.9"]) }, "leave --tag out"),
    ] {
        let e = bench.refused(Request::CreateIp(wrong)).await;
        assert!(e.kind == ErrorKind::Usage && e.message.contains(reason), "{}", e.message);
    }
}

#[tokio::test]
async fn one_that_fails_of_many_is_told() {
    let bench = bench();
    let request = CreateIp { separate: true, wait: true, ..given(&["10.0.0.20-10.0.0.21"]) };
    let task = {
        let context = bench.context.clone();
        let (out, _interim) = tokio::sync::mpsc::channel(64);
        tokio::spawn(async move {
            let _open = _interim;
            context.handle(Request::CreateIp(request), &out).await
        })
    };
    let mut views = crate::cluster::Store::view(&*bench.store);
    while views.borrow_and_update().state.resources.len() < 2 {
        views.changed().await.unwrap();
    }
    for (name, outcome) in [
        ("ip-10.0.0.20", Outcome::Started),
        ("ip-10.0.0.21", Outcome::Failed { reason: "no carrier".into() }),
    ] {
        bench.give(name, 1);
        bench.report(name, outcome);
    }
    let e = task.await.unwrap().unwrap_err();
    for part in
        ["1 of 2 resources are in service", "--state OSF", "ip-10.0.0.21 failed on every node: a: no carrier"]
    {
        assert!(e.message.contains(part), "{part}: {}", e.message);
    }
}

#[tokio::test]
async fn ipv6_without_addresses_needs_xdp() {
    let mut host = FakeHost::usual();
    host.assigned.push(assigned(3, "fd01::1/64"));
    let bench = Bench::new(host);
    // XDP is on eth0 and not on eth1.
    bench
        .done(Request::CreateIp(CreateIp { accept: Some(Accept::Anyip), ..given(&["fd00::10-fd00::13"]) }))
        .await;
    let e = bench.refused(Request::CreateIp(given(&["fd01::10-fd01::ff"]))).await;
    assert!(e.message.contains("eth1 has none") && e.message.contains("--accept assign"), "{}", e.message);
    let route = CreateIp { accept: Some(Accept::Route), ..given(&["fd01::10"]) };
    assert!(bench.refused(Request::CreateIp(route)).await.message.contains("(route)"));
    bench
        .done(Request::CreateIp(CreateIp { accept: Some(Accept::Assign), ..given(&["fd01::10-fd01::ff"]) }))
        .await;
    bench.done(Request::CreateIp(CreateIp { accept: Some(Accept::Route), ..given(&["10.1.0.10"]) })).await;
    let set = |value: &str| Request::Set {
        tag: tag("ip-fd01::10"),
        node: None,
        settings: vec![("accept".into(), value.into())],
    };
    assert!(bench.refused(set("anyip")).await.message.contains("eth1 has none"));
}

#[tokio::test]
async fn a_subnet_in_service_without_assigned_addresses_binds_to_its_interface() {
    let bench = bench();
    let request = CreateIp { tag: Some(tag("big")), devices: vec!["eth2".into()], ..each("10.9.0.0/24") };
    bench.done(Request::CreateIp(request)).await;
    bench.give("big", 1);
    bench.report("big", Outcome::Started);
    // The fake datapath has group 1 on eth0.
    let choices =
        match bench.ask(Request::Interfaces { address: Some("10.9.0.7/24".parse().unwrap()) }).await.1 {
            Answer::Interfaces(choices) => choices,
            other => panic!("{other:?}"),
        };
    let allowed: Vec<&str> = choices.iter().filter(|c| c.allowed).map(|c| c.name.as_str()).collect();
    assert_eq!(allowed, ["eth0"]);
}

#[tokio::test]
async fn limits_are_said() {
    let bench = bench();
    let e = bench.refused(Request::CreateIp(each("10.0.0.0/8"))).await;
    assert!(e.message.contains("16,777,214 addresses, and 1,048,576 are the limit"), "{}", e.message);
    let nothing = CreateIp { except: vec!["10.0.0.9".parse().unwrap()], ..given(&["10.0.0.9"]) };
    assert!(bench.refused(Request::CreateIp(nothing)).await.message.contains("no address is left"));
    let own = CreateIp { group: Some(tag("g")), ..given(&["10.0.0.1"]) };
    assert!(bench.refused(Request::CreateIp(own)).await.message.contains("--except"));
}

#[test]
fn a_batch_of_many_is_linear() {
    let mut state = crate::model::ClusterState::default();
    let node = crate::model::Node {
        id: 1,
        name: "a".into(),
        rpc: "192.0.2.1:1".parse().unwrap(),
        paths: vec![],
        witness: false,
        lease_epoch: 1,
        standing: crate::model::Standing::Member,
        standby: false,
        maintenance: false,
        gave_up: None,
        alone: None,
        declared_dead: false,
        declared_by: Word::default(),
    };
    state.nodes.insert(1, node);
    for batch in 0..10u8 {
        let resources = (0..1000u16)
            .map(|n| {
                let address: ipnet::IpNet = format!("10.{batch}.{}.{}/8", n >> 8, n & 255).parse().unwrap();
                let nodes = [(1, NodeSettings::new(1, vec!["eth0".into()]))];
                Resource::new(format!("r{batch}-{n}").parse().unwrap(), Addresses::from(address), nodes)
            })
            .collect();
        let applied = crate::core::change::apply(&mut state, &Change::CreateAll { resources, on: 1 });
        assert_eq!(applied, crate::core::change::Applied::Done);
    }
    assert_eq!(state.resources.len(), 10_000);
}

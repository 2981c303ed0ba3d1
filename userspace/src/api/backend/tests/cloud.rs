//! Resources of EC2: created, checked on every node, changed, declared.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use vipd_ec2::{
    Action, Association, CallError, ElasticIp, Route, RouteTable,
    testing::{FakeApi, FakeEc2},
};

use super::*;
use crate::{
    api::{CreateEc2Eip, CreateEc2Route, Declare, DeclareAim, Selection},
    model::{Cloud, Desired, Kind},
};

const VIP: &str = "172.16.0.9";
const IP: &str = "ip-172.16.0.9";
const ROUTE: &str = "ec2-ip-172.16.0.9";
const EIP: &str = "ec2-203.0.113.9";

/// Three nodes in one VPC whose eth0 is `eni-NODE`, with entries for the VIP in two tables; the Elastic IP is
/// associated with nothing.
struct Region {
    bench: Bench,
    api: Arc<Mutex<FakeApi>>,
    nodes: Vec<FakeEc2>,
}

/// The link-layer address of eth0 of a host of the bench.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

impl Region {
    fn new() -> Self {
        let mut bench = bench();
        let api: Arc<Mutex<FakeApi>> = Arc::default();
        let nodes: Vec<FakeEc2> = ["a", "b", "c"].map(|name| FakeEc2::new(name, api.clone())).into();
        for (id, ec2) in (1..).zip(&nodes) {
            ec2.attach(MAC, &format!("eni-{id}"), "vpc-1");
            if id > 1 {
                bench.let_ask(id, ec2.clone());
            }
        }
        bench.context.ec2 = Arc::new(nodes[0].clone());
        let table = |id: &str| {
            let destination = format!("{VIP}/32").parse().unwrap();
            let route = Route { destination, target: "eni-9".into(), blackhole: false };
            RouteTable { id: id.into(), routes: vec![route] }
        };
        let address = Ipv4Addr::new(203, 0, 113, 9);
        {
            let mut api = api.lock().unwrap();
            api.tables.insert("vpc-1".into(), vec![table("rtb-1"), table("rtb-2")]);
            let allocation = "eipalloc-1".to_owned();
            api.elastic_ips.push(ElasticIp { address, allocation, association: None });
        }
        Self { bench, api, nodes }
    }

    /// With the IP resource in service on a node, priorities 1, 10, 20.
    async fn serving(on: NodeId) -> Self {
        let region = Self::new();
        let ip = CreateIp { extend_to: vec!["b".into(), "c".into()], ..wanted(&format!("{VIP}/24")) };
        region.bench.done(Request::CreateIp(ip)).await;
        region.bench.give(IP, on);
        region.bench.report(IP, Outcome::Started);
        region
    }

    async fn left_alone(&self, request: Request, says: &[&str]) {
        let before = self.bench.store.state();
        let e = self.bench.refused(request).await;
        assert_eq!(e.kind, ErrorKind::Refused, "{e:?}");
        for part in says {
            assert!(e.message.contains(part), "'{part}' is not in: {}", e.message);
        }
        assert_eq!(*self.bench.store.state(), *before);
    }
}

fn route_to(ip: &str) -> CreateEc2Route {
    CreateEc2Route { ip: tag(ip), region: None, tag: None, force: false, wait: false }
}

fn route() -> Request {
    Request::CreateEc2Route(route_to(IP))
}

fn wanted_eip() -> CreateEc2Eip {
    CreateEc2Eip {
        address: [203, 0, 113, 9].into(),
        devices: vec!["eth0".into()],
        region: None,
        tag: None,
        priority: None,
        switchback: Switchback::Automatic,
        extend_to: vec!["all".into()],
        force: false,
        wait: false,
    }
}

fn eip() -> Request {
    Request::CreateEc2Eip(wanted_eip())
}

fn set(name: &str, key: &str, value: &str) -> Request {
    Request::Set { tag: tag(name), node: None, settings: vec![(key.into(), value.into())] }
}

#[tokio::test]
async fn a_route_gets_the_nodes_and_the_place_of_its_ip_resource() {
    let region = Region::serving(2).await;
    region.bench.done(set(IP, "switchback", "automatic")).await;
    region.bench.done(set(IP, "stickiness", "50")).await;
    let before = region.bench.store.proposed.lock().unwrap().len();
    let said = region.bench.done(route()).await;
    assert!(said.starts_with("ec2-ip-172.16.0.9 is created, for routes to ip-172.16.0.9"), "{said}");
    assert_eq!(region.bench.store.proposed.lock().unwrap().len(), before + 1, "one entry");
    let state = region.bench.store.state();
    let (ip, made) = (&state.resources[&tag(IP)], &state.resources[&tag(ROUTE)]);
    assert_eq!(made.cloud().and_then(Cloud::followed), Some(&tag(IP)));
    let places =
        |r: &crate::model::Resource| r.nodes.iter().map(|(id, s)| (*id, s.priority)).collect::<Vec<_>>();
    assert_eq!(places(made), places(ip));
    assert!(made.nodes.values().all(|s| s.devices.is_empty()));
    assert_eq!((made.switchback, made.policy.stickiness), (Switchback::Automatic, ip.policy.stickiness));
    assert!(made.children.contains(&tag(IP)) && ip.parents.contains(&tag(ROUTE)));
    assert_eq!(state.placements[&tag(ROUTE)].desired, Desired::InService { on: None });
    // It waits until it is in service.
    region.bench.done(Request::Delete { tag: tag(ROUTE), hierarchy: false, force: false, wait: false }).await;
    let waiting = Request::CreateEc2Route(CreateEc2Route { wait: true, tag: Some(tag("r")), ..route_to(IP) });
    let work = async {
        let mut views = region.bench.context.member().unwrap().store.view();
        views.wait_for(|v| v.state.resources.contains_key(&tag("r"))).await.unwrap();
        region.bench.give("r", 2);
        region.bench.report("r", Outcome::Started);
    };
    let ((_, answer), ()) = tokio::join!(region.bench.ask(waiting), work);
    let Answer::Done { message } = answer else { panic!("{answer:?}") };
    assert!(message.starts_with("r is in service on b, for routes to ip-172.16.0.9"), "{message}");
}

#[tokio::test]
async fn only_ipv4_resources_in_service_are_offered() {
    let region = Region::serving(1).await;
    let bench = &region.bench;
    for address in ["10.0.0.20", "fd00::9", "10.0.0.1/24"] {
        bench.done(create(address)).await;
    }
    bench.give("ip-fd00::9", 1);
    bench.report("ip-fd00::9", Outcome::Started);
    bench.done(eip()).await;
    let offer = "; choose one of ip-172.16.0.9";
    for (ip, why) in [
        ("ip-10.0.0.20", "is not in service ('vipctl in-service ip-10.0.0.20'"),
        ("ip-fd00::9", "has addresses in fd00::/64, and routes are for IPv4 only"),
        ("ip-10.0.0.1", "protects a node's own address"),
        (EIP, "is of the kind ec2-eip"),
    ] {
        region.left_alone(Request::CreateEc2Route(route_to(ip)), &[why, offer]).await;
    }
    region
        .left_alone(Request::CreateEc2Route(route_to("ip-172.16.0.8")), &["is 'ip-172.16.0.9' meant"])
        .await;
    bench.done(route()).await;
    let says =
        ["has its routes seen to by 'ec2-ip-172.16.0.9' already", "there is no IPv4 resource in service"];
    region.left_alone(route(), &says).await;
}

#[tokio::test]
async fn an_elastic_ip_is_created_on_this_node_and_others() {
    let region = Region::new();
    let said = region.bench.done(eip()).await;
    assert_eq!(
        said,
        "ec2-203.0.113.9 is created, for Elastic IP 203.0.113.9 on eth0, and being brought in service"
    );
    let state = region.bench.store.state();
    let made = &state.resources[&tag(EIP)];
    assert!(matches!(&made.kind, Kind::Ec2Eip(eip) if eip.address == Ipv4Addr::new(203, 0, 113, 9)));
    let nodes: Vec<_> = made.nodes.iter().map(|(id, s)| (*id, s.priority, s.devices.join(","))).collect();
    assert_eq!(nodes, [(1, 1, "eth0".into()), (2, 10, "eth0".into()), (3, 20, "eth0".to_owned())]);
    assert_eq!(state.placements[&tag(EIP)].desired, Desired::InService { on: Some(1) });
    let other = CreateEc2Eip { tag: Some(tag("again")), ..wanted_eip() };
    region
        .left_alone(Request::CreateEc2Eip(other), &["belongs to the resource 'ec2-203.0.113.9' already"])
        .await;
    region.api.lock().unwrap().elastic_ips.push(ElasticIp {
        address: [203, 0, 113, 10].into(),
        allocation: "eipalloc-2".into(),
        association: None,
    });
    let second = CreateEc2Eip { address: [203, 0, 113, 10].into(), ..wanted_eip() };
    let says = ["eth0 of node 'a' may carry 'ec2-203.0.113.9' already", "--dev"];
    region.left_alone(Request::CreateEc2Eip(second), &says).await;
}

#[tokio::test]
async fn everything_that_is_wrong_on_any_node_is_told_at_once() {
    let region = Region::serving(1).await;
    region.api.lock().unwrap().interfaces.get_mut("eni-1").unwrap().source_dest_check = true;
    region.nodes[1].host().denied.insert(Action::ReplaceRoute);
    region.nodes[1].host().identity.region = "eu-west-1".into();
    region.nodes[2].host().nics.clear();
    let says = [
        "4 objections, nothing was changed",
        "ec2-ip-172.16.0.9 on a: the source/dest check of eth0 (eni-1) is on",
        "ec2-ip-172.16.0.9 on b: ec2:ReplaceRoute is not permitted (UnauthorizedOperation)",
        r#"{"Effect":"Allow","Action":"ec2:ReplaceRoute","Resource":["arn:aws:ec2:eu-west-1:*:route-table/rtb-1","#,
        "ec2-ip-172.16.0.9 on c: eth0 is no network interface of EC2",
        "its nodes are in different regions (eu-central-1: a, c; eu-west-1: b)",
    ];
    region.left_alone(route(), &says).await;
    let force = Request::CreateEc2Route(CreateEc2Route { force: true, ..route_to(IP) });
    region.left_alone(force, &says).await;
    for ec2 in &region.nodes {
        assert!(ec2.host().asked.iter().all(|call| !["replace_route", "associate"].contains(call)));
    }
}

#[tokio::test]
async fn nodes_of_another_vpc_are_found_out_also_when_they_come_later() {
    let region = Region::new();
    region.nodes[2].attach(MAC, "eni-3", "vpc-2");
    let tables = region.api.lock().unwrap().tables["vpc-1"].clone();
    region.api.lock().unwrap().tables.insert("vpc-2".into(), tables);
    let ip = CreateIp { extend_to: vec!["b".into()], ..wanted(&format!("{VIP}/24")) };
    region.bench.done(Request::CreateIp(ip)).await;
    region.bench.give(IP, 1);
    region.bench.report(IP, Outcome::Started);
    region.bench.done(route()).await;
    let extend =
        Request::Extend { tag: tag(IP), to: "c".into(), priority: None, devices: vec![], force: false };
    region.left_alone(extend.clone(), &["different VPCs (vpc-1: a; vpc-2: c)"]).await;
    region.nodes[2].attach(MAC, "eni-3", "vpc-1");
    let said = region.bench.done(extend).await;
    assert!(said.contains("so are ec2-ip-172.16.0.9 of its hierarchy"), "{said}");
    let state = region.bench.store.state();
    assert!(state.resources[&tag(ROUTE)].nodes[&3].devices.is_empty());
    region.bench.done(Request::Unextend { tag: tag(ROUTE), from: "c".into(), force: false }).await;
    let extend =
        Request::Extend { tag: tag(ROUTE), to: "c".into(), priority: None, devices: vec![], force: false };
    let said = region.bench.done(extend).await;
    assert!(said.starts_with("ec2-ip-172.16.0.9 is extended to c (priority 20); so are"), "{said}");
}

#[tokio::test]
async fn a_silent_api_holds_it_up_unless_forced() {
    let region = Region::serving(1).await;
    let within = std::time::Duration::from_secs(5);
    let silent = CallError::Silent { what: "DescribeRouteTables".into(), within };
    region.nodes[1].host().failing.insert("route_tables", silent);
    let says = ["ec2-ip-172.16.0.9 on b: DescribeRouteTables was not answered within 5s", "with --force"];
    region.left_alone(route(), &says).await;
    let force = Request::CreateEc2Route(CreateEc2Route { force: true, ..route_to(IP) });
    let said = region.bench.done(force).await;
    assert!(said.contains("not checked: ec2-ip-172.16.0.9 on b: DescribeRouteTables was not"), "{said}");
}

#[tokio::test]
async fn without_the_sdk_it_is_said() {
    let mut region = Region::new();
    region.bench.context.ec2 = Arc::new(vipd_ec2::Absent);
    let request = Request::CreateEc2Eip(CreateEc2Eip { extend_to: vec![], ..wanted_eip() });
    region.left_alone(request, &["ec2-203.0.113.9 on a: this vipd was built without EC2"]).await;
}

#[tokio::test]
async fn what_is_worth_knowing_is_told_and_refuses_nothing() {
    let region = Region::serving(1).await;
    let add = Request::PingListAdd {
        subnet: "172.16.0.0/24".parse().unwrap(),
        addresses: vec!["172.16.0.254".parse().unwrap()],
        node: Some("b".into()),
    };
    region.bench.ask(add).await;
    let said = region.bench.done(route()).await;
    for (node, warned) in [("a", true), ("b", false), ("c", true)] {
        let remedy = format!("'vipctl ping-list add 172.16.0.0/24 ADDRESS... --node {node}'");
        assert!(said.contains(&remedy) == warned, "{node}: {said}");
    }
    let on = |id: &str, eni: &str| Association {
        id: id.into(),
        interface: Some(eni.into()),
        instance: None,
        private_address: None,
    };
    {
        let mut api = region.api.lock().unwrap();
        api.elastic_ips[0].association = Some(on("eipassoc-1", "eni-9"));
        api.elastic_ips.push(ElasticIp {
            address: [198, 51, 100, 7].into(),
            allocation: "eipalloc-7".into(),
            association: Some(on("eipassoc-7", "eni-2")),
        });
    }
    let said = region.bench.done(eip()).await;
    assert!(said.contains("ec2-203.0.113.9 on b: eth0 has 198.51.100.7 now"), "{said}");
    assert!(said.contains("203.0.113.9 is on eni-9 now, which no node of it has"), "{said}");
}

#[tokio::test]
async fn tunables_say_whether_broadcasts_are_expected() {
    let region = Region::serving(1).await;
    std::fs::write(region.bench.dir.path().join("tunables"), "NOBCASTPING=1\n").unwrap();
    let said = region.bench.done(route()).await;
    assert!(!said.contains("ping-list"), "{said}");
}

#[tokio::test]
async fn settings_that_mean_nothing_are_refused() {
    let region = Region::serving(1).await;
    region.bench.done(route()).await;
    region.bench.done(eip()).await;
    for (name, key, value, why) in [
        (ROUTE, "devices", "eth0", "follows 'ip-172.16.0.9' to the interface"),
        (ROUTE, "devices", "nosuch", "follows 'ip-172.16.0.9' to the interface"),
        (ROUTE, "source", "enable", "source is about addresses"),
        (ROUTE, "accept", "route", "accept is about addresses"),
        (EIP, "on-conflict", "yield", "on-conflict is about addresses"),
        (EIP, "devices", "nosuch", "there is no interface 'nosuch'"),
    ] {
        region.left_alone(set(name, key, value), &[why]).await;
    }
    region.bench.done(set(EIP, "devices", "eth1")).await;
    region.bench.done(set(ROUTE, "switchback", "automatic")).await;
    assert_eq!(region.bench.store.state().resources[&tag(IP)].switchback, Switchback::Automatic);
    let undepend = Request::Undepend { parent: tag(ROUTE), child: tag(IP), force: false };
    region.left_alone(undepend, &["cannot be without it", "vipctl delete ec2-ip-172.16.0.9"]).await;
    let delete = |hierarchy| Request::Delete { tag: tag(IP), hierarchy, force: false, wait: false };
    region.left_alone(delete(false), &["--hierarchy"]).await;
    region.bench.done(delete(true)).await;
    let state = region.bench.store.state();
    assert!(!state.resources.contains_key(&tag(ROUTE)) && state.placements[&tag(IP)].deleting);
}

#[tokio::test]
async fn lists_treat_them_rightly() {
    let region = Region::serving(1).await;
    region.bench.done(route()).await;
    region.bench.done(eip()).await;
    let list = |name: Option<&str>| Request::Addresses { tag: name.map(tag), limit: None, offset: 0 };
    region.left_alone(list(Some(EIP)), &["is no IP resource but of the kind ec2-eip"]).await;
    let Answer::Addresses(page) = region.bench.ask(list(None)).await.1 else { panic!() };
    assert_eq!(page.total, 1);
    let of = Selection { pattern: Some("203.0.113.9".into()), ..Selection::default() };
    let Answer::Status(status) = region.bench.ask(Request::StatusOf(of)).await.1 else { panic!() };
    assert_eq!(status.resources.len(), 1);
    let joined = Selection { join_above: Some(0), ..Selection::default() };
    let Answer::Status(status) = region.bench.ask(Request::StatusOf(joined)).await.1 else { panic!() };
    assert!(status.resources.iter().all(|r| r.run.is_none()) && status.resources.len() == 3);
    let Answer::Shown(shown) = region.bench.ask(Request::Show { tag: tag(EIP) }).await.1 else { panic!() };
    assert_eq!(shown.status.kind, "ec2-eip");
}

const FILE: &str = "\
[[resource]]
tag = \"db\"
addresses = [\"172.16.0.9/24\"]
[resource.nodes]
a = { priority = 1, devices = [\"eth0\"] }
b = { priority = 10, devices = [\"eth0\"] }

[[resource]]
tag = \"db-route\"
kind = \"ec2-route\"
ip = \"db\"
region = \"eu-central-1\"
[resource.nodes]
a = { priority = 1 }
b = { priority = 10 }

[[resource]]
tag = \"www\"
kind = \"ec2-eip\"
eip = \"203.0.113.9\"
[resource.nodes]
a = { priority = 1, devices = [\"eth0\"] }
";

fn declared(text: &str, aim: DeclareAim) -> Request {
    Request::Declare(Declare { name: "c.toml".into(), text: text.into(), prune: false, force: false, aim })
}

const APPLY: DeclareAim = DeclareAim::Apply { revision: None, wait: false };

#[tokio::test]
async fn a_file_declares_them_and_is_checked_on_the_nodes() {
    let region = Region::new();
    region.nodes[1].host().denied.insert(Action::DescribeRouteTables);
    let why = "db-route on b: ec2:DescribeRouteTables is not permitted";
    region.left_alone(declared(FILE, APPLY), &[why]).await;
    region.nodes[1].host().denied.clear();
    assert!(region.bench.done(declared(FILE, APPLY)).await.starts_with("3 differences are applied"));
    let state = region.bench.store.state();
    assert!(state.resources[&tag("db-route")].children.contains(&tag("db")));
    assert!(region.bench.done(declared(FILE, APPLY)).await.contains("already"));
    let Answer::Exported(text) = region.bench.ask(Request::Export).await.1 else { panic!() };
    assert!(text.contains("kind = \"ec2-route\"\nip = \"db\"\nregion = \"eu-central-1\""), "{text}");
    assert!(!text.contains("kind = \"ip\"") && !text.contains("depends"), "{text}");
    assert!(region.bench.done(declared(&text, APPLY)).await.contains("already"));

    // Checked again, although nothing is to be changed.
    region.api.lock().unwrap().interfaces.get_mut("eni-2").unwrap().source_dest_check = true;
    let verify = declared(FILE, DeclareAim::Verify);
    let Answer::Planned(planned) = region.bench.ask(verify).await.1 else { panic!() };
    let [finding] = &planned.findings[..] else { panic!("{planned:?}") };
    assert!(finding.starts_with("db-route on b: the source/dest check of eth0 (eni-2) is on"), "{finding}");
    assert!(planned.differences.is_empty(), "{planned:?}");
}

#[tokio::test]
async fn what_a_declared_resource_is_cannot_change() {
    let region = Region::new();
    region.bench.done(declared(FILE, APPLY)).await;
    let other = FILE.replace("203.0.113.9", "203.0.113.10");
    let says = ["c.toml:17: resource.www: it is the Elastic IP 203.0.113.9", "'vipctl delete www' first"];
    region.left_alone(declared(&other, APPLY), &says).await;
}

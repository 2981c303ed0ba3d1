use super::*;
use crate::core::change::{
    Change, Setting,
    tests::{cluster, done, in_service, resource, settings, tag, with_vip},
};
use crate::model::{Ec2Eip, Ec2Route, Kind};

const A: Mac = [2, 0, 0, 0, 0, 1];
const B: Mac = [2, 0, 0, 0, 0, 2];
const X: Mac = [2, 0, 0, 0, 0, 0x99];

fn asked(before: &ClusterState, changes: impl IntoIterator<Item = Change>) -> Inquiries {
    let mut after = before.clone();
    changes.into_iter().for_each(|change| done(&mut after, change));
    Inquiries::of_change(before, &after, 1)
}

/// (node, arrivals, departures, separations), by tags.
type Outline<'a> = (NodeId, Vec<&'a str>, Vec<&'a str>, Vec<&'a str>);

fn outline(all: &Inquiries) -> Vec<Outline<'_>> {
    all.iter()
        .map(|(node, i)| {
            (
                node,
                i.arrivals.iter().map(|a| a.tag.as_str()).collect(),
                i.departures.iter().map(Tag::as_str).collect(),
                i.separations.iter().map(Tag::as_str).collect(),
            )
        })
        .collect()
}

fn new_on(all: &Inquiries, node: NodeId) -> u64 {
    all.of(node).map_or(0, Inquiry::probes)
}

#[test]
fn a_new_resource_is_checked_on_all_of_its_nodes_and_its_addresses_are_looked_for() {
    let create = Change::Create { resource: resource("web", "10.0.0.9/24", &[(1, 1), (3, 9)]), on: 1 };
    let all = asked(&cluster(), [create]);
    assert_eq!(outline(&all), [(1, vec!["web"], vec![], vec![]), (3, vec!["web"], vec![], vec![])]);
    assert_eq!([new_on(&all, 1), new_on(&all, 3)], [1, 1]);
    assert!(!all.of(3).unwrap().is_farewell());
}

#[test]
fn only_the_node_that_gets_it_is_asked_and_what_is_in_service_is_not_looked_for() {
    let mut before = cluster();
    done(&mut before, Change::Create { resource: resource("web", "10.0.0.9/24", &[(1, 1), (2, 9)]), on: 1 });
    let members = [(tag("web"), settings(20))].into();
    let all = asked(&before, [Change::Extend { to: 3, members }]);
    assert_eq!(outline(&all), [(3, vec!["web"], vec![], vec![])]);
    assert_eq!(new_on(&all, 3), 0);
}

#[test]
fn other_interfaces_are_checked_where_they_are_other() {
    let set = Change::Set {
        tag: tag("vip"),
        node: Some(2),
        setting: Setting::Devices(vec!["eth1".into(), "eth0".into()]),
    };
    let all = asked(&in_service(), [set]);
    assert_eq!(outline(&all), [(2, vec!["vip"], vec![], vec![])]);
    assert_eq!(all.of(2).unwrap().arrivals[0].devices, ["eth1", "eth0"]);
    let priority = Change::Set { tag: tag("vip"), node: Some(2), setting: Setting::Priority(7) };
    assert!(asked(&in_service(), [priority]).is_empty(), "a priority is no node's business");
}

#[test]
fn only_addresses_that_come_are_looked_for() {
    let add = Addresses::from("10.0.0.8/24".parse::<ipnet::IpNet>().unwrap());
    let alter = Change::AlterAddresses { tag: tag("vip"), add, remove: Ranges::default() };
    let all = asked(&in_service(), [alter]);
    assert_eq!([1, 2, 3].map(|n| new_on(&all, n)), [1, 1, 1]);
    let arrival = &all.of(2).unwrap().arrivals[0];
    assert_eq!((arrival.addresses.count(), arrival.new.to_string()), (2, "10.0.0.8".to_owned()));
}

#[test]
fn an_address_that_goes_from_one_resource_to_another_is_not_new() {
    let delete = Change::Delete { tag: tag("vip"), hierarchy: false };
    let create = Change::Create { resource: resource("web", "10.0.0.7/24", &[(1, 1), (2, 2)]), on: 1 };
    let all = asked(&with_vip(), [delete, create]);
    assert_eq!(
        outline(&all),
        [
            (1, vec!["web"], vec!["vip"], vec![]),
            (2, vec!["web"], vec!["vip"], vec![]),
            (3, vec![], vec!["vip"], vec![])
        ]
    );
    assert_eq!([1, 2, 3].map(|n| new_on(&all, n)), [0, 0, 0]);
}

#[test]
fn large_sets_are_looked_for_by_one_node() {
    let mut large = resource("web", "10.0.0.9/16", &[(2, 9), (3, 1)]);
    large.ip_mut().unwrap().addresses =
        Addresses::from_iter([("10.1.0.0/16".parse().unwrap(), "10.1.1.0-10.1.9.0".parse().unwrap())]);
    let count = large.addresses().count();
    let mut all = Inquiries::default();
    all.whole(&large, &large.addresses().hosts(), 1, &cluster());
    assert_eq!([2, 3].map(|n| new_on(&all, n)), [0, count], "by the best, where the asker is none of them");
    let mut all = Inquiries::default();
    all.whole(&large, &large.addresses().hosts(), 2, &cluster());
    assert_eq!([2, 3].map(|n| new_on(&all, n)), [count, 0]);
}

#[test]
fn what_is_forgotten_is_asked_for_everywhere_whether_in_service_or_not() {
    let delete = || Change::Delete { tag: tag("vip"), hierarchy: false };
    for before in [with_vip(), in_service()] {
        let all = asked(&before, [delete()]);
        let expected = [1, 2, 3].map(|n| (n, vec![], vec!["vip"], vec![]));
        assert_eq!(outline(&all), expected);
        assert!(all.of(2).unwrap().is_farewell());
    }
    let all = asked(&in_service(), [Change::Unextend { tag: tag("vip"), from: 3 }]);
    assert_eq!(outline(&all), [(3, vec![], vec!["vip"], vec![])]);
}

#[test]
fn both_ends_of_a_new_dependency_are_checked_and_the_parent_of_one_that_ends() {
    let mut before = in_service();
    done(
        &mut before,
        Change::Create { resource: resource("web", "10.0.0.9/24", &[(1, 10), (2, 20), (3, 30)]), on: 1 },
    );
    let (parent, child) = (tag("web"), tag("vip"));
    let depend = Change::Depend { parent: parent.clone(), child: child.clone() };
    let all = asked(&before, [depend.clone()]);
    assert_eq!(outline(&all), [1, 2, 3].map(|n| (n, vec!["vip", "web"], vec![], vec![])));
    assert_eq!(new_on(&all, 1), 0);
    done(&mut before, depend);
    let all = asked(&before, [Change::Undepend { parent, child }]);
    assert_eq!(outline(&all), [1, 2, 3].map(|n| (n, vec![], vec![], vec!["web"])));
}

#[test]
fn what_changes_nothing_for_a_node_asks_nobody() {
    let orders = [
        Change::InService { tag: tag("vip"), on: Some(2), until: None },
        Change::Clear { tag: tag("vip") },
        Change::OutOfService { tag: tag("vip") },
    ];
    assert!(asked(&in_service(), orders).is_empty());
}

#[test]
fn inquiries_and_findings_survive_json() {
    let create = Change::Create { resource: resource("web", "fd00::9/64", &[(1, 1)]), on: 1 };
    let inquiry = asked(&cluster(), [create]).of(1).unwrap().clone();
    let text = serde_json::to_string(&inquiry).unwrap();
    assert_eq!(serde_json::from_str::<Inquiry>(&text).unwrap(), inquiry);
    let findings = Findings {
        objections: vec![Objection { about: "web".into(), reason: "no".into() }],
        unchecked: vec![Objection { about: "web".into(), reason: "silent".into() }],
        warnings: vec![Objection { about: "web".into(), reason: "mind".into() }],
        clouds: vec![],
        claims: vec![claim("10.0.0.9", Claimant::Prober(X)), claim("10.0.0.9", Claimant::Pinged)],
        macs: vec![A],
    };
    let text = serde_json::to_string(&findings).unwrap();
    assert_eq!(serde_json::from_str::<Findings>(&text).unwrap(), findings);
}

fn claim(address: &str, by: Claimant) -> Claim {
    Claim { address: address.parse().unwrap(), device: "eth0".into(), by }
}

/// (address, seen by, who)
fn judged(claims: &[(NodeId, Claim)]) -> Vec<(String, NodeId, Who)> {
    let mut by_node: BTreeMap<NodeId, Vec<Claim>> = BTreeMap::new();
    for (node, claim) in claims {
        by_node.entry(*node).or_default().push(claim.clone());
    }
    let members = BTreeMap::from([(A, 1), (B, 2)]);
    let found = conflicts(&by_node, &members, 1);
    found.into_iter().map(|c| (c.address.to_string(), c.seen_by, c.who)).collect()
}

#[test]
fn members_that_look_are_no_conflict_and_members_that_have_it_are() {
    let one = "10.0.0.9";
    assert_eq!(judged(&[(1, claim(one, Claimant::Prober(B))), (2, claim(one, Claimant::Prober(A)))]), []);
    let held = judged(&[(1, claim(one, Claimant::Holder(B)))]);
    assert_eq!(held, [(one.to_owned(), 1, Who::Member(2, B))]);
    let stranger = judged(&[(2, claim(one, Claimant::Prober(X)))]);
    assert_eq!(stranger, [(one.to_owned(), 2, Who::Stranger(X))], "RFC 5227 section 2.1.1");
}

#[test]
fn each_address_is_told_of_once_by_the_best_witness() {
    let (one, two) = ("10.0.0.9", "10.0.0.10");
    let all = [
        (2, claim(one, Claimant::Holder(X))),
        (1, claim(one, Claimant::Pinged)),
        (1, claim(one, Claimant::Holder(X))),
        (3, claim(two, Claimant::Pinged)),
    ];
    let expected = [(one.to_owned(), 1, Who::Stranger(X)), (two.to_owned(), 3, Who::Pinged)];
    assert_eq!(judged(&all), expected);
}

#[test]
fn those_who_probe_and_are_not_known_are_asked_for() {
    let claims = BTreeMap::from([(
        1,
        vec![
            claim("10.0.0.9", Claimant::Prober(B)),
            claim("10.0.0.9", Claimant::Holder(X)),
            claim("10.0.0.9", Claimant::Pinged),
        ],
    )]);
    assert_eq!(unknown_probers(&claims, &BTreeMap::from([(B, 2)])), BTreeSet::new());
    assert_eq!(unknown_probers(&claims, &BTreeMap::from([(A, 1)])), BTreeSet::from([B]));
}

/// (node, what is asked of it about EC2, about which interfaces).
fn clouds(all: &Inquiries) -> Vec<(NodeId, Vec<(&str, String)>)> {
    all.iter()
        .filter(|(_, i)| !i.clouds.is_empty())
        .map(|(node, i)| (node, i.clouds.iter().map(|c| (c.tag.as_str(), c.devices.join(","))).collect()))
        .collect()
}

fn routed() -> ClusterState {
    let mut state = in_service();
    done(&mut state, Change::Batch { revision: None, changes: route_to("vip").into() });
    state
}

fn route_to(ip: &str) -> [Change; 2] {
    let nodes = [(1, 10), (2, 20), (3, 30)].map(|(id, p)| (id, NodeSettings::new(p, vec![])));
    let kind = Kind::Ec2Route(Ec2Route { ip: tag(ip), region: None });
    [
        Change::Create { resource: Resource::of_kind(tag("r"), kind, nodes), on: 1 },
        Change::Depend { parent: tag("r"), child: tag(ip) },
    ]
}

fn eip(nodes: &[(NodeId, u16)]) -> Change {
    let kind = Kind::Ec2Eip(Ec2Eip { address: [203, 0, 113, 9].into(), region: None });
    let nodes = nodes.iter().map(|(id, p)| (*id, settings(*p)));
    Change::Create { resource: Resource::of_kind(tag("e"), kind, nodes), on: 1 }
}

#[test]
fn a_new_route_is_asked_about_on_all_nodes_for_the_interfaces_of_what_it_leads_to() {
    let before = in_service();
    let mut after = before.clone();
    done(&mut after, Change::Batch { revision: None, changes: route_to("vip").into() });
    let all = Inquiries::of_change(&before, &after, 1);
    assert_eq!(clouds(&all), [1, 2, 3].map(|n| (n, vec![("r", "eth0".to_owned())])));
    let cloud = &all.of(2).unwrap().clouds[0];
    assert!(matches!(&cloud.what, cloud::CloudWish::Route { ip, addresses }
        if *ip == tag("vip") && addresses.contains([10, 0, 0, 7].into())));
    assert!(!all.of(2).unwrap().is_farewell() && all.of(2).unwrap().subjects().contains(&tag("r")));
    let text = serde_json::to_string(all.of(2).unwrap()).unwrap();
    assert_eq!(&serde_json::from_str::<Inquiry>(&text).unwrap(), all.of(2).unwrap());
}

#[test]
fn a_route_is_asked_about_again_when_what_it_leads_to_changes() {
    let before = routed();
    let add = Change::AlterAddresses {
        tag: tag("vip"),
        add: "10.0.0.8/24".parse::<ipnet::IpNet>().unwrap().into(),
        remove: Ranges::default(),
    };
    let all = asked(&before, [add]);
    assert_eq!(clouds(&all), [1, 2, 3].map(|n| (n, vec![("r", "eth0".to_owned())])));
    let devices = Setting::Devices(vec!["eth1".into()]);
    let all = asked(&before, [Change::Set { tag: tag("vip"), node: Some(2), setting: devices }]);
    assert_eq!(clouds(&all), [(2, vec![("r", "eth1".to_owned())])]);
    assert!(asked(&before, [Change::Clear { tag: tag("vip") }]).is_empty());
}

#[test]
fn who_carries_out_the_order_is_asked_beside_a_new_node() {
    let mut before = cluster();
    done(&mut before, eip(&[(1, 1), (2, 2)]));
    let members = [(tag("e"), settings(20))].into();
    let all = asked(&before, [Change::Extend { to: 3, members }]);
    assert_eq!(clouds(&all), [1, 3].map(|n| (n, vec![("e", "eth0".to_owned())])));
    assert!(all.iter().all(|(_, i)| i.clouds[0].nodes == 3));
    let whole = before.resources[&tag("e")].clone();
    let mut all = Inquiries::default();
    all.whole(&whole, &Ranges::default(), 3, &before);
    assert_eq!(clouds(&all), [1, 2].map(|n| (n, vec![("e", "eth0".to_owned())])));
    let all = asked(&before, [Change::Unextend { tag: tag("e"), from: 2 }]);
    assert!(clouds(&all).is_empty() && all.of(2).unwrap().is_farewell());
}

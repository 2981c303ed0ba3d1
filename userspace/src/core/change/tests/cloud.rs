//! Resources of EC2: what they need, and what means nothing for them.

use super::*;
use crate::model::{Ec2Eip, Ec2Route, Kind, OnConflict};

const BOTH: [(NodeId, u16); 3] = [(1, 10), (2, 20), (3, 30)];

pub(super) fn route(name: &str, ip: &str) -> Resource {
    let kind = Kind::Ec2Route(Ec2Route { ip: tag(ip), region: None });
    let nodes = BOTH.map(|(id, priority)| (id, NodeSettings::new(priority, vec![])));
    Resource::of_kind(tag(name), kind, nodes)
}

pub(super) fn eip(name: &str, address: &str) -> Resource {
    let kind = Kind::Ec2Eip(Ec2Eip { address: address.parse().unwrap(), region: None });
    Resource::of_kind(tag(name), kind, BOTH.map(|(id, priority)| (id, settings(priority))))
}

fn create(resource: Resource) -> Change {
    Change::Create { resource, on: 1 }
}

fn depend(parent: &str, child: &str) -> Change {
    Change::Depend { parent: tag(parent), child: tag(child) }
}

fn undepend(parent: &str, child: &str) -> Change {
    Change::Undepend { parent: tag(parent), child: tag(child) }
}

fn batch(changes: impl IntoIterator<Item = Change>) -> Change {
    Change::Batch { revision: None, changes: changes.into_iter().collect() }
}

/// The resource "vip" in service on node 1, and the route "r" to it.
fn routed() -> ClusterState {
    let mut state = in_service();
    done(&mut state, batch([create(route("r", "vip")), depend("r", "vip")]));
    state
}

#[test]
fn each_has_one_resource() {
    let state = routed();
    refused(&state, create(route("s", "vip")), &["'r' sees to the routes to 'vip' already"]);
    refused(&state, create(route("s", "r")), &["'r' is of the kind ec2-route", "--ip"]);
    refused(&state, create(route("s", "no")), &["there is no resource 'no'", "vipctl create ip"]);
    let mut with_six = state.clone();
    done(&mut with_six, create(resource("six", "fd00::7/64", &[(1, 10)])));
    refused(&with_six, create(route("s", "six")), &["fd00::/64", "IPv4 addresses only"]);
    let mut with_own = state.clone();
    let mut own = resource("own", "10.0.0.77/24", &[(1, 10)]);
    own.nodes.get_mut(&1).unwrap().physical = true;
    done(&mut with_own, create(own));
    refused(&with_own, create(route("s", "own")), &["'own' protects a node's own address", "never moves"]);
    let mut after = state.clone();
    done(&mut after, create(eip("e", "203.0.113.9")));
    refused(&after, create(eip("f", "203.0.113.9")), &["the Elastic IP 203.0.113.9 belongs to", "'e'"]);
    refused(&after, create(eip("f", "0.0.0.0")), &["0.0.0.0 is no Elastic IP"]);
    let all = |resources| Change::CreateAll { resources, on: 1 };
    refused(
        &state,
        all(vec![eip("e", "203.0.113.9"), eip("f", "203.0.113.9")]),
        &["'e' and 'f' are both for"],
    );
    let rival = all(vec![eip("e", "203.0.113.9"), eip("f", "203.0.113.10")]);
    refused(&state, rival, &["eth0 may carry 'e' and 'f' on the same node"]);
}

#[test]
fn a_region_is_a_name() {
    let state = in_service();
    for good in ["eu-central-1", "us-gov-west-1", "us-iso-east-1"] {
        let mut resource = eip("e", "203.0.113.9");
        resource.kind = Kind::Ec2Eip(Ec2Eip { address: [203, 0, 113, 9].into(), region: Some(good.into()) });
        done(&mut state.clone(), create(resource));
    }
    for bad in ["", "EU", "eu-central-1.evil.example/", "eu-", "-eu", "1eu"] {
        let mut resource = eip("e", "203.0.113.9");
        resource.kind = Kind::Ec2Eip(Ec2Eip { address: [203, 0, 113, 9].into(), region: Some(bad.into()) });
        refused(&state, create(resource), &["is no region of AWS"]);
    }
}

#[test]
fn a_route_stays_with_what_it_leads_to() {
    let state = routed();
    let inseparable = "'r' sees to the routes to 'vip' and cannot be without it: 'vipctl delete r'";
    refused(&state, undepend("r", "vip"), &[inseparable]);
    refused(&state, batch([undepend("r", "vip")]), &[inseparable]);
    let delete = |name: &str, hierarchy| Change::Delete { tag: tag(name), hierarchy };
    refused(&state, delete("vip", false), &["'vipctl delete r' deletes it first", "--hierarchy"]);
    // Apart for a moment, which nobody sees.
    let mut after = state.clone();
    done(&mut after, batch([undepend("r", "vip"), depend("r", "vip")]));
    assert!(after.resources[&tag("r")].children.contains(&tag("vip")));
    let mut after = state.clone();
    done(&mut after, batch([undepend("r", "vip"), delete("r", false)]));
    let mut after = state.clone();
    done(&mut after, delete("vip", true));
    assert!(!after.resources.contains_key(&tag("r")) && after.placements[&tag("vip")].deleting);
    // Others may come and go.
    let mut after = state;
    done(&mut after, create(eip("e", "203.0.113.9")));
    done(&mut after, depend("e", "r"));
    done(&mut after, undepend("e", "r"));
}

#[test]
fn what_is_about_addresses_is_refused() {
    let mut state = routed();
    done(&mut state, create(eip("e", "203.0.113.9")));
    let set = |name: &str, setting| Change::Set { tag: tag(name), node: None, setting };
    let yields = || Setting::OnConflict(OnConflict::Yield);
    refused(&state, set("r", yields()), &["on-conflict is about addresses", "ec2-route", "set it for 'vip'"]);
    refused(&state, set("e", yields()), &["on-conflict", "ec2-eip", "in EC2"]);
    refused(&state, set("r", Setting::Accept(Accept::Route)), &["accept is about addresses", "'vip'"]);
    refused(&state, set("e", Setting::Source(true)), &["source is about addresses"]);
    refused(&state, set("e", Setting::Source(false)), &["source is about addresses"]);
    let devices = || Setting::Devices(vec!["eth1".to_owned()]);
    refused(&state, set("r", devices()), &["'r' follows 'vip' to the interface", "set it for 'vip'"]);
    done(&mut state, set("e", devices()));
    let mut own = eip("f", "203.0.113.10");
    own.nodes.get_mut(&1).unwrap().physical = true;
    refused(&state, create(own), &["leave physical and source out"]);
    let six: IpNet = "fd00::9/64".parse().unwrap();
    let change = Change::SetAddresses { tag: tag("vip"), addresses: six.into() };
    refused(&state, change, &["fd00::/64", "'r' sees to routes of IPv4"]);
    let change = Change::SetAddresses { tag: tag("e"), addresses: six.into() };
    refused(&state, change, &["'e' is no IP resource but of the kind ec2-eip"]);
}

#[test]
fn changes_with_them_survive_json() {
    for resource in [route("r", "vip"), eip("e", "203.0.113.9")] {
        let change = create(resource);
        let text = serde_json::to_string(&change).unwrap();
        assert_eq!(serde_json::from_str::<Change>(&text).unwrap(), change, "{text}");
    }
}

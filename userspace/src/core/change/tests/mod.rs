//! Each change: what it does, when it is refused, and that a refusal leaves no trace.

mod alone;
mod cloud;
mod constraints;
mod duties;
mod grants;
mod hierarchy;
mod keys;
mod members;
mod properties;
mod removal;
mod resources;
mod sets;
mod subnets;

use super::*;
use crate::model::{Desired, Grant, Phase, Standing, SubnetLoss, Word};

pub(crate) fn new_node(name: &str, host: u8) -> NewNode {
    NewNode {
        name: name.to_owned(),
        rpc: SocketAddr::from(([192, 168, 0, host], 7401)),
        paths: vec![
            SocketAddr::from(([192, 168, 0, host], 7400)),
            SocketAddr::from(([192, 168, 1, host], 7400)),
        ],
        witness: false,
    }
}

pub(crate) fn settings(priority: u16) -> NodeSettings {
    NodeSettings::new(priority, vec!["eth0".to_owned()])
}

pub(crate) fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

pub(crate) fn resource(name: &str, address: &str, nodes: &[(NodeId, u16)]) -> Resource {
    let address: IpNet = address.parse().unwrap();
    Resource::new(tag(name), address, nodes.iter().map(|(id, priority)| (*id, settings(*priority))))
}

/// Nodes 1 to 3 "a", "b", "c" and a witness 4 "w", all members.
pub(crate) fn cluster() -> ClusterState {
    let mut state = ClusterState::default();
    done(&mut state, Change::Found { name: "test".to_owned(), node: new_node("a", 1) });
    for (name, host) in [("b", 2), ("c", 3), ("w", 4)] {
        let node = NewNode { witness: name == "w", ..new_node(name, host) };
        let id = u64::from(host);
        assert_eq!(apply(&mut state, &Change::Reserve { node }), Applied::Node(id));
        done(&mut state, Change::Admit { node: id });
    }
    state
}

/// With the resource "vip" on all three nodes, priorities 10, 20, 30, wanted on node 1.
pub(crate) fn with_vip() -> ClusterState {
    let mut state = cluster();
    let resource = resource("vip", "10.0.0.7/24", &[(1, 10), (2, 20), (3, 30)]);
    done(&mut state, Change::Create { resource, on: 1 });
    state
}

/// In service on node 1 under epoch 1.
pub(crate) fn in_service() -> ClusterState {
    let mut state = with_vip();
    done(&mut state, give("vip", 1, 0));
    done(&mut state, report("vip", 1, 1, Outcome::Started));
    state
}

pub(crate) fn give(name: &str, to: NodeId, epoch: Epoch) -> Change {
    Change::Give { grants: vec![NewGrant { tag: tag(name), to, epoch }] }
}

pub(crate) fn report(name: &str, node: NodeId, epoch: Epoch, outcome: Outcome) -> Change {
    Change::Report { node, reports: vec![Report { tag: tag(name), epoch, outcome }] }
}

pub(crate) fn failure() -> Outcome {
    Outcome::Failed { reason: "no carrier".to_owned() }
}

pub(crate) fn no_answer() -> SubnetDown {
    SubnetDown { reason: "no answer".to_owned(), cause: SubnetLoss::Silence }
}

#[track_caller]
pub(crate) fn done(state: &mut ClusterState, change: Change) {
    let applied = apply(state, &change);
    assert_eq!(applied, Applied::Done, "{change:?}");
}

/// The change is refused, says all of `says`, and leaves the state alone.
#[track_caller]
fn refused(state: &ClusterState, change: Change, says: &[&str]) {
    let mut after = state.clone();
    match apply(&mut after, &change) {
        Applied::Refused(Refusal(text)) => {
            for part in says {
                assert!(text.contains(part), "'{text}' does not say '{part}'");
            }
        }
        other @ (Applied::Done | Applied::Node(_)) => panic!("{change:?} was not refused: {other:?}"),
    }
    assert_eq!(&after, state, "a refused change left a trace");
}

fn place<'a>(state: &'a ClusterState, name: &str) -> &'a Placement {
    &state.placements[&tag(name)]
}

fn owner(state: &ClusterState, name: &str) -> Option<(NodeId, Phase)> {
    place(state, name).grant.map(|g| (g.owner, g.phase))
}

/// Entries of the log are JSON: numbers as keys of maps must survive it.
#[test]
fn every_change_survives_json() {
    let changes = [
        Change::Found { name: "test".to_owned(), node: new_node("a", 1) },
        Change::Reserve { node: new_node("b", 2) },
        Change::Admit { node: 2 },
        Change::Remove { node: 2, heir: Some(3) },
        Change::Readdress { node: 2, rpc: new_node("b", 9).rpc, paths: new_node("b", 9).paths },
        Change::Create { resource: resource("vip", "2001:db8::7/64", &[(1, 10), (2, 20)]), on: 1 },
        Change::CreateAll { resources: vec![resource("vip", "10.0.0.7/24", &[(1, 10), (2, 20)])], on: 1 },
        Change::AlterAddresses {
            tag: tag("vip"),
            add: "10.0.0.8/24".parse::<IpNet>().unwrap().into(),
            remove: ["10.0.0.7".parse::<IpAddr>().unwrap()].into_iter().collect(),
        },
        Change::Extend { to: 2, members: [(tag("vip"), settings(20))].into() },
        Change::Delete { tag: tag("vip"), hierarchy: false },
        Change::Set { tag: tag("vip"), node: None, setting: Setting::Switchback(Switchback::Automatic) },
        Change::Set { tag: tag("vip"), node: Some(1), setting: Setting::Priority(5) },
        Change::Set { tag: tag("vip"), node: None, setting: Setting::Devices(vec!["eth1".to_owned()]) },
        Change::Set { tag: tag("vip"), node: None, setting: Setting::RestoreAndRecover(false) },
        Change::SetPingList {
            node: 1,
            subnet: "10.0.0.0/24".parse().unwrap(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
        },
        Change::MonitorSubnet {
            subnet: "10.1.0.0/24".parse().unwrap(),
            settings: MonitoredSubnet {
                targets: vec!["10.1.0.9".parse().unwrap()],
                ..MonitoredSubnet::default()
            },
        },
        Change::UnmonitorSubnet { subnet: "fd00::/64".parse().unwrap() },
        Change::ReportSubnets { node: 1, down: [("10.1.0.0/24".parse().unwrap(), no_answer())].into() },
        Change::Set {
            tag: tag("vip"),
            node: None,
            setting: Setting::Subnets(vec!["10.1.0.0/24".parse().unwrap()]),
        },
        Change::InService { tag: tag("vip"), on: Some(2), until: None },
        Change::InService { tag: tag("vip"), on: None, until: None },
        Change::OutOfService { tag: tag("vip") },
        Change::Depose { node: 1, lease_epoch: 1 },
        Change::Vacate {
            node: 1,
            lease_epoch: 2,
            grants: vec![NewGrant { tag: tag("vip"), to: 2, epoch: 1 }],
        },
        Change::Rejoin { node: 1, lease_epoch: 2 },
        Change::HoldAlone { node: 1, alone: crate::model::Alone { life: 3, turn: 1 } },
        Change::LetGo { node: 1, alone: crate::model::Alone { life: 3, turn: 1 } },
        Change::DeclareDead { node: 1, by: Word::Operator },
        Change::SetDefault { setting: DefaultSetting::TwoNodes(TwoNodes::Freeze) },
        give("vip", 1, 0),
        Change::Release { tag: tag("vip"), epoch: 1 },
        report("vip", 1, 1, Outcome::Started),
        report("vip", 1, 1, Outcome::Released),
        report("vip", 1, 1, failure()),
        Change::Forgive { tag: tag("vip"), node: 1 },
        Change::OfferKey { generation: 2, fingerprint: "f00d".to_owned() },
        Change::UseKey { generation: 2, nodes: [1, 2].into() },
        Change::KeyInUse { node: 1, generation: 2 },
    ];
    for change in changes {
        let text = serde_json::to_string(&change).unwrap();
        assert_eq!(serde_json::from_str::<Change>(&text).unwrap(), change, "{text}");
    }
    for applied in [Applied::Done, Applied::Node(3), Applied::Refused(Refusal::new("no"))] {
        let text = serde_json::to_string(&applied).unwrap();
        assert_eq!(serde_json::from_str::<Applied>(&text).unwrap(), applied, "{text}");
    }
}

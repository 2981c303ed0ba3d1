//! Create, Extend, Delete, Set, SetPingList, InService, OutOfService.

use super::*;

fn create(resource: Resource, on: NodeId) -> Change {
    Change::Create { resource, on }
}

#[test]
fn a_new_resource_is_wanted_where_it_was_created() {
    let state = with_vip();
    let expected = Placement::new(Desired::InService { on: Some(1) }, 0);
    assert_eq!(place(&state, "vip"), &expected);
}

#[test]
fn tags_and_addresses_are_unique() {
    let state = with_vip();
    refused(&state, create(resource("vip", "10.0.0.8/24", &[(1, 1)]), 1), &["'vip' is taken", "--tag"]);
    // The address is the same whatever its prefix length.
    let same = resource("x", "10.0.0.7/16", &[(1, 1)]);
    refused(&state, create(same, 1), &["10.0.0.7 belongs to the resource 'vip'"]);
}

#[test]
fn addresses_are_those_of_single_hosts() {
    let state = cluster();
    for bad in
        ["0.0.0.0/24", "224.0.0.18/24", "255.255.255.255/32", "127.0.0.1/8", "ff02::1/64", "::1/128", "::/64"]
    {
        refused(&state, create(resource("x", bad, &[(1, 1)]), 1), &["cannot be a virtual address"]);
    }
    let stationary = resource("x", "192.168.1.2/24", &[(1, 1)]);
    refused(&state, create(stationary.clone(), 1), &["reaches node 'b'"]);
    let mut physical = stationary;
    physical.nodes.insert(2, NodeSettings { physical: true, ..settings(1) });
    physical.nodes.remove(&1);
    done(&mut state.clone(), create(physical, 2));
}

#[test]
fn where_a_resource_may_be() {
    let mut state = cluster();
    assert_eq!(apply(&mut state, &Change::Reserve { node: new_node("d", 5) }), Applied::Node(5));
    let at = |nodes: &[(NodeId, u16)]| resource("x", "10.0.0.9/24", nodes);
    refused(&state, create(at(&[]), 1), &["has no node"]);
    refused(&state, create(at(&[(9, 1)]), 9), &["no node number 9"]);
    refused(&state, create(at(&[(4, 1)]), 4), &["'w' is a witness"]);
    refused(&state, create(at(&[(5, 1)]), 5), &["'d' is still joining"]);
    refused(&state, create(at(&[(1, 1)]), 2), &["not extended to node 'b'"]);
    refused(&state, create(at(&[(1, 1)]), 4), &["'w' is a witness"]);
    refused(&state, create(at(&[(1, 7), (2, 7)]), 1), &["priority 7", "node 'a'", "--priority"]);
    done(&mut state, Change::Depose { node: 2, lease_epoch: 1 });
    refused(&state, create(at(&[(1, 1), (2, 2)]), 2), &["'b' is deposed"]);
    done(&mut state, create(at(&[(1, 1), (2, 2)]), 1));
}

#[test]
fn settings_are_checked_wherever_they_come_from() {
    let state = with_vip();
    let table: [(NodeSettings, &str); 8] = [
        (NodeSettings { priority: 0, ..settings(1) }, "out of range"),
        (NodeSettings { priority: 1000, ..settings(1) }, "out of range"),
        (NodeSettings { devices: vec![], ..settings(1) }, "--dev"),
        (NodeSettings { devices: vec![String::new()], ..settings(1) }, "no name of an interface"),
        (NodeSettings { devices: vec!["a b".to_owned()], ..settings(1) }, "no name of an interface"),
        (
            NodeSettings { devices: vec!["sixteen-letters.".to_owned()], ..settings(1) },
            "no name of an interface",
        ),
        (NodeSettings { devices: vec!["e0".to_owned(), "e0".to_owned()], ..settings(1) }, "listed twice"),
        (NodeSettings { devices: vec!["e0".to_owned(), "lo".to_owned()], ..settings(1) }, "loopback"),
    ];
    for (bad, says) in table {
        let mut created = resource("x", "10.0.0.9/24", &[(1, 1)]);
        created.nodes.insert(1, bad.clone());
        refused(&state, create(created, 1), &[says]);
        let mut partly = with_vip();
        partly.resources.get_mut(&tag("vip")).unwrap().nodes.remove(&3);
        refused(&partly, Change::Extend { to: 3, members: [(tag("vip"), bad.clone())].into() }, &[says]);
        let setting = if says == "out of range" {
            Setting::Priority(bad.priority)
        } else {
            Setting::Devices(bad.devices)
        };
        refused(&state, Change::Set { tag: tag("vip"), node: Some(2), setting }, &[says]);
    }
}

#[test]
fn extending() {
    let mut state = cluster();
    done(&mut state, create(resource("x", "10.0.0.9/24", &[(1, 10)]), 1));
    let extend = |to, priority| Change::Extend { to, members: [(tag("x"), settings(priority))].into() };
    refused(&state, extend(1, 20), &["extended to node 'a' already", "vipctl set x"]);
    refused(&state, extend(2, 10), &["taken by node 'a'"]);
    refused(&state, extend(4, 20), &["witness"]);
    refused(&state, extend(9, 20), &["no node number 9"]);
    done(&mut state, extend(2, 20));
    assert_eq!(state.resources[&tag("x")].nodes[&2], settings(20));
    let missing = Change::Extend { to: 2, members: [(tag("nothing"), settings(1))].into() };
    refused(&state, missing, &["no resource 'nothing'"]);
}

#[test]
fn deleting_at_once_or_when_the_owner_has_stopped() {
    let delete = || Change::Delete { tag: tag("vip"), hierarchy: false };
    let mut free = with_vip();
    done(&mut free, delete());
    assert!(free.resources.is_empty() && free.placements.is_empty());
    refused(&free, delete(), &["no resource 'vip'"]);

    for outcome in [Outcome::Released, failure()] {
        let mut state = in_service();
        done(&mut state, delete());
        assert!(place(&state, "vip").deleting);
        assert_eq!(place(&state, "vip").desired, Desired::OutOfService);
        done(&mut state, delete());
        done(&mut state, Change::Release { tag: tag("vip"), epoch: 1 });
        done(&mut state, report("vip", 1, 1, outcome));
        assert!(state.resources.is_empty() && state.placements.is_empty());
    }
    let mut rejoined = in_service();
    done(&mut rejoined, delete());
    done(&mut rejoined, Change::Depose { node: 1, lease_epoch: 1 });
    done(&mut rejoined, Change::Rejoin { node: 1, lease_epoch: 2 });
    assert!(rejoined.resources.is_empty() && rejoined.placements.is_empty());
}

#[test]
fn nothing_else_is_done_with_what_is_being_deleted() {
    let mut state = in_service();
    done(&mut state, Change::Delete { tag: tag("vip"), hierarchy: false });
    let vip = || tag("vip");
    for change in [
        Change::InService { tag: vip(), on: None, until: None },
        Change::OutOfService { tag: vip() },
        Change::Set { tag: vip(), node: None, setting: Setting::RestoreAndRecover(false) },
        Change::Extend { to: 2, members: [(vip(), settings(1))].into() },
    ] {
        refused(&state, change, &["being deleted"]);
    }
    refused(&state, create(resource("vip", "10.0.0.8/24", &[(1, 1)]), 1), &["taken"]);
}

#[test]
fn setting() {
    let mut state = with_vip();
    let set = |node, setting| Change::Set { tag: tag("vip"), node, setting };
    let of = |state: &ClusterState, id| state.resources[&tag("vip")].nodes[&id].clone();

    done(&mut state, set(None, Setting::Switchback(Switchback::Automatic)));
    assert_eq!(state.resources[&tag("vip")].switchback, Switchback::Automatic);
    refused(&state, set(Some(1), Setting::Switchback(Switchback::Automatic)), &["without --node"]);

    done(&mut state, set(Some(2), Setting::Priority(5)));
    assert_eq!(of(&state, 2).priority, 5);
    done(&mut state, set(Some(2), Setting::Priority(5)));
    refused(&state, set(Some(2), Setting::Priority(10)), &["taken by node 'a'"]);
    refused(&state, set(None, Setting::Priority(7)), &["--node"]);

    done(&mut state, set(Some(3), Setting::Devices(vec!["eth1".to_owned(), "eth2".to_owned()])));
    assert_eq!(of(&state, 3).devices, ["eth1", "eth2"]);
    assert_eq!(of(&state, 1).devices, ["eth0"]);
    done(&mut state, set(None, Setting::Devices(vec!["bond0".to_owned()])));
    assert!([1, 2, 3].iter().all(|id| of(&state, *id).devices == ["bond0"]));

    done(&mut state, set(Some(2), Setting::RestoreAndRecover(false)));
    assert!(!of(&state, 2).restore_and_recover && of(&state, 1).restore_and_recover);
    done(&mut state, set(None, Setting::RestoreAndRecover(false)));
    assert!(!of(&state, 1).restore_and_recover);

    refused(&state, set(Some(4), Setting::RestoreAndRecover(true)), &["vipctl extend vip --to w"]);
    let missing = Change::Set { tag: tag("nothing"), node: None, setting: Setting::RestoreAndRecover(true) };
    refused(&state, missing, &["no resource 'nothing'"]);
}

#[test]
fn a_priority_needs_no_node_where_there_is_only_one() {
    let mut state = cluster();
    done(&mut state, create(resource("x", "10.0.0.9/24", &[(2, 10)]), 2));
    done(&mut state, Change::Set { tag: tag("x"), node: None, setting: Setting::Priority(7) });
    assert_eq!(state.resources[&tag("x")].nodes[&2].priority, 7);
}

fn pings(node: NodeId, addresses: &[&str]) -> Change {
    let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
    Change::SetPingList { node, subnet: "10.0.0.5/24".parse().unwrap(), addresses }
}

#[test]
fn ping_lists() {
    let mut state = cluster();
    done(&mut state, pings(1, &["10.0.0.1", "10.0.0.2", "10.0.0.1"]));
    let key = (1, "10.0.0.0/24".parse().unwrap());
    let expected: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
    assert_eq!(state.ping_lists[&key], expected);
    refused(&state, pings(1, &["2001:db8::1"]), &["same family"]);
    refused(&state, pings(1, &["224.0.0.1"]), &["single hosts"]);
    refused(&state, pings(1, &["0.0.0.0"]), &["single hosts"]);
    refused(&state, pings(9, &["10.0.0.1"]), &["no node number 9"]);
    done(&mut state, pings(1, &[]));
    assert!(state.ping_lists.is_empty());
}

#[test]
fn ping_lists_are_copied_when_extending_and_survive_deletion() {
    let mut state = cluster();
    done(&mut state, create(resource("x", "10.0.0.9/24", &[(1, 10), (2, 20)]), 2));
    done(&mut state, pings(1, &["10.0.0.1"]));
    done(&mut state, pings(2, &["10.0.0.2"]));
    done(&mut state, give("x", 2, 0));
    let extend = || Change::Extend { to: 3, members: [(tag("x"), settings(30))].into() };
    let list = |state: &ClusterState, node: NodeId| {
        state.ping_lists.get(&(node, "10.0.0.0/24".parse().unwrap())).cloned().unwrap_or_default()
    };
    let one = |a: &str| -> Vec<IpAddr> { vec![a.parse().unwrap()] };
    // The owner's, not that of the best priority.
    let mut owned = state.clone();
    done(&mut owned, extend());
    assert_eq!(list(&owned, 3), one("10.0.0.2"));
    // An own list is kept.
    let mut own = state.clone();
    done(&mut own, pings(3, &["10.0.0.3"]));
    done(&mut own, extend());
    assert_eq!(list(&own, 3), one("10.0.0.3"));
    // Without an owner the best priority's.
    done(&mut state, Change::Release { tag: tag("x"), epoch: 1 });
    done(&mut state, report("x", 2, 1, Outcome::Released));
    done(&mut state, extend());
    assert_eq!(list(&state, 3), one("10.0.0.1"));
    done(&mut state, Change::Delete { tag: tag("x"), hierarchy: false });
    assert!(state.resources.is_empty());
    assert_eq!(list(&state, 3), one("10.0.0.1"));
    // A resource created anew takes part in what its nodes have.
    done(&mut state, pings(3, &[]));
    done(&mut state, create(resource("y", "10.0.0.9/24", &[(1, 1), (3, 2)]), 3));
    assert_eq!(list(&state, 3), one("10.0.0.1"));
}

#[test]
fn in_and_out_of_service() {
    let mut state = in_service();
    let go = |on| Change::InService { tag: tag("vip"), on, until: None };
    done(&mut state, report("vip", 1, 1, failure()));
    done(&mut state, give("vip", 2, 1));
    done(&mut state, report("vip", 2, 2, failure()));
    assert_eq!(place(&state, "vip").failed.len(), 2);
    refused(&state, go(Some(4)), &["vipctl extend vip --to w"]);
    refused(&state, go(Some(9)), &["no node number 9"]);
    refused(
        &state,
        Change::InService { tag: tag("nothing"), on: None, until: None },
        &["no resource 'nothing'"],
    );
    done(&mut state, go(Some(1)));
    assert_eq!(place(&state, "vip").desired, Desired::InService { on: Some(1) });
    assert_eq!(place(&state, "vip").failed.keys().collect::<Vec<_>>(), [&2]);
    done(&mut state, Change::OutOfService { tag: tag("vip") });
    assert_eq!(place(&state, "vip").desired, Desired::OutOfService);
    done(&mut state, go(None));
    assert_eq!(place(&state, "vip").desired, Desired::InService { on: None });
    assert!(place(&state, "vip").failed.is_empty());
    refused(&state, Change::OutOfService { tag: tag("nothing") }, &["no resource 'nothing'"]);
}

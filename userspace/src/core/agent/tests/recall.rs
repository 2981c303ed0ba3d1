//! A start of a node that had to do with Elastic IPs.

use super::*;
use crate::model::{Ec2Eip, Kind};

const FIRST: [u8; 4] = [198, 51, 100, 7];
const OTHER: [u8; 4] = [198, 51, 100, 8];

fn eip(address: [u8; 4]) -> Kind {
    Kind::Ec2Eip(Ec2Eip { address: address.into(), region: None })
}

/// The Elastic IP with that grant of epoch 4, on `eth0` and `eth1` of this node.
fn with(grant: Option<(NodeId, Phase)>) -> ClusterState {
    let mut s = state(grant, 4);
    let resource = s.resources.get_mut(&tag()).unwrap();
    (resource.kind, resource.id) = (eip(FIRST), 5);
    s
}

/// None there is.
fn deleted() -> ClusterState {
    ClusterState { resources: Map::default(), placements: Map::default(), ..with(None) }
}

fn noted(address: [u8; 4], device: &str) -> BTreeMap<Tag, Option<Footprint>> {
    let (device, others) = (device.to_owned(), vec!["eth0".to_owned()]);
    [(tag(), Some(Footprint { address: address.into(), region: None, device, others }))].into()
}

/// What becomes of the only one: where it may be, of what number of resource, and on which interfaces it is looked for.
fn only(s: &ClusterState, noted: &BTreeMap<Tag, Option<Footprint>>) -> Option<(Fate, String, Vec<String>)> {
    let all = recall(ME, 1, s, noted);
    let [one] = &all[..] else {
        assert!(all.is_empty(), "{all:?}");
        return None;
    };
    let settings = &one.here.resource.nodes[&ME];
    assert!(settings.restore_and_recover || noted.is_empty());
    Some((one.fate, one.here.device.clone(), settings.devices.clone()))
}

fn all(devices: &[&str]) -> Vec<String> {
    devices.iter().map(|d| (*d).to_owned()).collect()
}

#[test]
fn it_is_where_it_was_and_in_service_as_its_grant_says() {
    let (none, eth1) = (BTreeMap::new(), noted(FIRST, "eth1"));
    let both = || all(&["eth0", "eth1"]);
    let on = |fate, device: &str| Some((fate, device.to_owned(), both()));
    for (grant, notes, expected) in [
        (Some((ME, Phase::InService)), &eth1, on(Fate::Serves(4), "eth1")),
        (Some((ME, Phase::Stopping)), &eth1, on(Fate::Leaves, "eth1")),
        (Some((ME, Phase::Starting)), &eth1, on(Fate::Owed, "eth1")),
        (Some((1, Phase::InService)), &eth1, on(Fate::Owed, "eth1")),
        (None, &eth1, on(Fate::Owed, "eth1")),
        // Without a note it is known by its grant alone.
        (Some((ME, Phase::InService)), &none, on(Fate::Serves(4), "eth0")),
        (Some((ME, Phase::Stopping)), &none, on(Fate::Leaves, "eth0")),
        (Some((ME, Phase::Starting)), &none, None),
        (Some((1, Phase::InService)), &none, None),
        (None, &none, None),
    ] {
        assert_eq!(only(&with(grant), notes), expected, "{grant:?} {notes:?}");
    }
    // The lease under which it was in service is another one.
    let mut s = with(Some((ME, Phase::InService)));
    s.placements.get_mut(&tag()).unwrap().grant.as_mut().unwrap().lease_epoch = 3;
    assert_eq!(only(&s, &eth1), on(Fate::Owed, "eth1"));
    // A note that cannot be read says that there may be something.
    let damaged = [(tag(), None)].into();
    assert_eq!(only(&with(None), &damaged), on(Fate::Owed, "eth0"));
    assert_eq!(only(&deleted(), &damaged), None);
}

#[test]
fn what_is_listed_no_more_is_looked_at_all_the_same() {
    let eth7 = noted(FIRST, "eth7");
    let three = all(&["eth0", "eth1", "eth7"]);
    // It is to be on one that is listed, and the first check says that it is not.
    let serves = only(&with(Some((ME, Phase::InService))), &eth7);
    assert_eq!(serves, Some((Fate::Serves(4), "eth0".to_owned(), three.clone())));
    assert_eq!(only(&with(None), &eth7), Some((Fate::Owed, "eth7".to_owned(), three)));
    let noted = (Fate::Owed, "eth7".to_owned(), all(&["eth7", "eth0"]));
    assert_eq!(only(&deleted(), &eth7), Some(noted.clone()));
    // It is not for this node any more.
    let mut s = with(None);
    s.resources.get_mut(&tag()).unwrap().nodes.clear();
    assert_eq!(only(&s, &eth7), Some(noted));
}

#[test]
fn ec2_is_asked_for_what_it_was_asked_for_before_and_for_nothing_else() {
    let mut s = with(Some((ME, Phase::InService)));
    s.resources.get_mut(&tag()).unwrap().nodes.get_mut(&ME).unwrap().restore_and_recover = false;
    let alone = recall(ME, 1, &s, &BTreeMap::new());
    assert!(!alone[0].here.resource.nodes[&ME].restore_and_recover);
    assert_eq!(Footprint::of(&alone[0].here, ME), None);
    let before = recall(ME, 1, &s, &noted(FIRST, "eth1"));
    assert!(before[0].here.resource.nodes[&ME].restore_and_recover);
    // What was noted is noted again.
    assert_eq!(Footprint::of(&before[0].here, ME), noted(FIRST, "eth1").remove(&tag()).unwrap());
}

#[test]
fn another_one_of_the_same_tag_is_not_mistaken_for_it() {
    for s in [deleted(), with(Some((ME, Phase::InService))), with(Some((ME, Phase::Starting)))] {
        let all = recall(ME, 1, &s, &noted(OTHER, "eth1"));
        assert_eq!((all.len(), all[0].fate), (1, Fate::Owed), "{all:?}");
        let here = &all[0].here;
        assert_eq!((&here.resource.kind, here.resource.id), (&eip(OTHER), 0));
        assert_eq!(here.addresses.first().map(|a| a.addr()), Some(IpAddr::from(OTHER)));
    }
}

/// An agent that has just started.
fn started(s: &ClusterState, noted: &BTreeMap<Tag, Option<Footprint>>) -> Agent {
    let mut a = Agent::new(ME);
    a.set_devices(devices([Healthy, Healthy]));
    for one in recall(ME, 1, s, noted) {
        a.recalled(one, at(0));
    }
    a.begin(s);
    a
}

fn outcomes(a: &mut Agent, s: &ClusterState) -> Vec<Outcome> {
    a.reports(s, SOUND).into_iter().map(|r| r.outcome).collect()
}

#[test]
fn in_service_it_is_checked_where_it_was() {
    let s = with(Some((ME, Phase::InService)));
    let mut a = started(&s, &noted(FIRST, "eth1"));
    let check = one(&mut a, at(0), &s);
    assert_eq!((check.operation, check.target.device.as_str()), (Operation::Quickcheck, "eth1"));
    a.finished(&tag(), Ok(()), at(1), CHECK, SOUND);
    assert_eq!(outcomes(&mut a, &s), []);
    assert_eq!(plan(&mut a, at(2), &s, SOUND), []);
}

#[test]
fn what_is_owed_is_removed_until_that_is_done_and_keeps_nobody_waiting() {
    for s in [deleted(), with(None), with(Some((1, Phase::Starting)))] {
        let mut a = started(&s, &noted(FIRST, "eth1"));
        for (now, pause) in [(0, 2_000), (2_000, 4_000), (6_000, 8_000), (14_000, 16_000), (30_000, 16_000)] {
            let remove = one(&mut a, at(now), &s);
            assert_eq!((remove.operation, remove.target.device.as_str()), (Operation::Remove, "eth1"));
            a.finished(&tag(), silent("EC2 is silent"), at(now), CHECK, SOUND);
            assert_eq!(plan(&mut a, at(now + pause - 1), &s, SOUND), []);
            assert_eq!(outcomes(&mut a, &s), []);
        }
        assert_eq!(one(&mut a, at(46_000), &s).operation, Operation::Remove);
        a.finished(&tag(), Ok(()), at(46_001), CHECK, SOUND);
        assert_eq!(plan(&mut a, at(100_000), &s, SOUND), []);
        assert_eq!((a.here(&tag()), a.next_deadline()), (None, None));
    }
    // Nor does a node wait for it that is to rejoin.
    let mut s = with(None);
    s.nodes.get_mut(&ME).unwrap().standing = Standing::Deposed;
    assert_eq!(started(&s, &noted(FIRST, "eth1")).may_rejoin(&s, SOUND), Some(1));
}

#[test]
fn a_grant_that_was_only_starting_is_made_anew_and_nothing_is_taken_off_meanwhile() {
    let mut s = with(Some((ME, Phase::Starting)));
    let mut a = started(&s, &noted(FIRST, "eth1"));
    assert_eq!(plan(&mut a, at(0), &s, SOUND), []);
    assert_eq!(outcomes(&mut a, &s), [Outcome::Restarted]);
    s.placements.get_mut(&tag()).unwrap().epoch = 5;
    assert_eq!(plan(&mut a, at(1), &s, SOUND), start(Operation::Restore, 5));
    // Given to another node instead, it goes.
    let mut a = started(&with(Some((ME, Phase::Starting))), &noted(FIRST, "eth1"));
    let elsewhere = with(Some((1, Phase::Starting)));
    assert_eq!(plan(&mut a, at(1), &elsewhere, SOUND), start(Operation::Remove, 0));
}

#[test]
fn what_the_cluster_waits_for_is_tried_before_anything_is_said() {
    let s = with(Some((ME, Phase::Stopping)));
    let mut a = started(&s, &noted(FIRST, "eth1"));
    assert_eq!(plan(&mut a, at(0), &s, SOUND), start(Operation::Remove, 0));
    assert_eq!(outcomes(&mut a, &s), []);
    a.finished(&tag(), silent("EC2 is silent"), at(1), CHECK, SOUND);
    assert_eq!(outcomes(&mut a, &s), [Outcome::Released]);
}

#[test]
fn with_another_address_of_the_same_tag_the_old_one_goes_first() {
    let s = with(Some((ME, Phase::Starting)));
    let mut a = started(&s, &noted(OTHER, "eth1"));
    assert_eq!(outcomes(&mut a, &s), [Outcome::Restarted]);
    let remove = one(&mut a, at(0), &s);
    assert_eq!((remove.operation, &remove.target.resource.kind), (Operation::Remove, &eip(OTHER)));
    a.finished(&tag(), Ok(()), at(1), CHECK, SOUND);
    let mut s = s;
    s.placements.get_mut(&tag()).unwrap().epoch = 5;
    let restore = one(&mut a, at(2), &s);
    assert_eq!((restore.operation, &restore.target.resource.kind), (Operation::Restore, &eip(FIRST)));
}

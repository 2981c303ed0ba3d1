//! What holds after any sequence of changes, sensible or not.

use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

const TAGS: [&str; 3] = ["p", "q", "r"];

fn tags() -> impl Strategy<Value = Tag> {
    proptest::sample::select(&TAGS[..]).prop_map(tag)
}

fn ids() -> std::ops::RangeInclusive<NodeId> {
    1..=5
}

/// Small numbers, so that presumptions often hold.
fn epochs() -> std::ops::Range<u64> {
    0..5
}

fn new_nodes() -> impl Strategy<Value = NewNode> {
    (1..=5u8, 1..=5u8, proptest::bool::weighted(0.1))
        .prop_map(|(name, host, witness)| NewNode { witness, ..new_node(&format!("n{name}"), host) })
}

fn all_settings() -> impl Strategy<Value = NodeSettings> {
    (1..=6u16, any::<bool>(), any::<bool>()).prop_map(|(priority, restore_and_recover, physical)| {
        NodeSettings { restore_and_recover, physical, ..settings(priority) }
    })
}

fn resources() -> impl Strategy<Value = Resource> {
    let nodes = proptest::collection::btree_map(ids(), all_settings(), 1..4);
    (tags(), 7..=10u8, nodes, any::<bool>()).prop_map(|(tag, host, nodes, automatic)| {
        let address: IpNet = format!("10.0.0.{host}/24").parse().unwrap();
        let switchback = if automatic { Switchback::Automatic } else { Switchback::Intelligent };
        Resource { switchback, ..Resource::new(tag, address, nodes) }
    })
}

fn grants() -> impl Strategy<Value = Vec<NewGrant>> {
    let one = (tags(), ids(), epochs()).prop_map(|(tag, to, epoch)| NewGrant { tag, to, epoch });
    proptest::collection::vec(one, 0..4)
}

fn reports() -> impl Strategy<Value = Vec<Report>> {
    let outcome = prop_oneof![Just(Outcome::Started), Just(Outcome::Released), Just(failure())];
    let one = (tags(), epochs(), outcome).prop_map(|(tag, epoch, outcome)| Report { tag, epoch, outcome });
    proptest::collection::vec(one, 0..4)
}

fn set_changes() -> impl Strategy<Value = Setting> {
    prop_oneof![
        Just(Setting::Switchback(Switchback::Automatic)),
        (0..=6u16).prop_map(Setting::Priority),
        Just(Setting::Devices(vec!["eth1".to_owned()])),
        any::<bool>().prop_map(Setting::RestoreAndRecover)
    ]
}

fn subnet(n: u8) -> IpNet {
    IpNet::new(IpAddr::from([10, n, 0, 0]), 24).unwrap()
}

fn ping_changes() -> impl Strategy<Value = Change> {
    (ids(), proptest::collection::vec(1..=3u8, 0..3)).prop_map(|(node, hosts)| Change::SetPingList {
        node,
        subnet: "10.0.0.0/24".parse().unwrap(),
        addresses: hosts.into_iter().map(|h| IpAddr::from([10, 0, 0, h])).collect(),
    })
}

fn alterations() -> impl Strategy<Value = Change> {
    let hosts = || proptest::collection::vec(6..=10u8, 0..3);
    (tags(), hosts(), hosts()).prop_map(|(tag, add, remove)| {
        let address = |h| IpAddr::from([10, 0, 0, h]);
        let add = add.into_iter().map(|h| IpNet::new(address(h), 24).unwrap()).collect();
        Change::AlterAddresses { tag, add, remove: remove.into_iter().map(address).collect() }
    })
}

fn key_changes() -> impl Strategy<Value = Change> {
    let generation = || 1..=4u64;
    prop_oneof![
        (generation(), "[ab]")
            .prop_map(|(generation, fingerprint)| Change::OfferKey { generation, fingerprint }),
        (generation(), proptest::collection::btree_set(ids(), 2..=5))
            .prop_map(|(generation, nodes)| Change::UseKey { generation, nodes }),
        (ids(), generation()).prop_map(|(node, generation)| Change::KeyInUse { node, generation }),
    ]
}

fn changes() -> impl Strategy<Value = Change> {
    let node_change = prop_oneof![
        1 => new_nodes().prop_map(|node| Change::Found { name: "test".to_owned(), node }),
        2 => new_nodes().prop_map(|node| Change::Reserve { node }),
        2 => ids().prop_map(|node| Change::Admit { node }),
        4 => (ids(), epochs()).prop_map(|(node, lease_epoch)| Change::Depose { node, lease_epoch }),
        4 => (ids(), epochs(), grants())
            .prop_map(|(node, lease_epoch, grants)| Change::Vacate { node, lease_epoch, grants }),
        4 => (ids(), epochs()).prop_map(|(node, lease_epoch)| Change::Rejoin { node, lease_epoch }),
        1 => ids().prop_map(|node| Change::DeclareDead { node, by: Word::TieBreaker }),
        1 => (ids(), proptest::option::of(ids())).prop_map(|(node, heir)| Change::Remove { node, heir }),
        1 => (ids(), new_nodes())
            .prop_map(|(node, NewNode { rpc, paths, .. })| Change::Readdress { node, rpc, paths }),
    ];
    let wish = prop_oneof![
        6 => (resources(), ids()).prop_map(|(resource, on)| Change::Create { resource, on }),
        2 => (tags(), ids(), all_settings())
            .prop_map(|(tag, to, settings)| Change::Extend { to, members: [(tag, settings)].into() }),
        2 => (proptest::collection::vec(resources(), 0..3), ids())
            .prop_map(|(resources, on)| Change::CreateAll { resources, on }),
        2 => alterations(),
        1 => tags().prop_map(|tag| Change::Delete { tag, hierarchy: false }),
        2 => (tags(), proptest::option::of(ids()), set_changes())
            .prop_map(|(tag, node, setting)| Change::Set { tag, node, setting }),
        1 => ping_changes(),
        2 => (tags(), proptest::option::of(ids())).prop_map(|(tag, on)| Change::InService { tag, on, until: None }),
        1 => tags().prop_map(|tag| Change::OutOfService { tag }),
    ];
    let subnet_change = prop_oneof![
        2 => (0..3u8, 0..3u16).prop_map(|(n, fall)| Change::MonitorSubnet {
            subnet: subnet(n),
            settings: MonitoredSubnet { fall, ..MonitoredSubnet::default() },
        }),
        1 => (0..3u8).prop_map(|n| Change::UnmonitorSubnet { subnet: subnet(n) }),
        2 => (ids(), proptest::collection::btree_map(0..3u8, "[a-z]{1,3}", 0..3)).prop_map(|(node, all)| {
            let one = |(n, reason)| (subnet(n), SubnetDown { reason, ..no_answer() });
            let down = all.into_iter().map(one).collect();
            Change::ReportSubnets { node, down }
        }),
        2 => (tags(), proptest::collection::vec(0..3u8, 0..3)).prop_map(|(tag, needed)| {
            let setting = Setting::Subnets(needed.into_iter().map(subnet).collect());
            Change::Set { tag, node: None, setting }
        }),
    ];
    let ownership = prop_oneof![
        6 => grants().prop_map(|grants| Change::Give { grants }),
        2 => (tags(), epochs()).prop_map(|(tag, epoch)| Change::Release { tag, epoch }),
        6 => (ids(), reports()).prop_map(|(node, reports)| Change::Report { node, reports }),
        1 => (tags(), ids()).prop_map(|(tag, node)| Change::Forgive { tag, node }),
    ];
    prop_oneof![2 => node_change, 2 => wish, 1 => subnet_change, 1 => key_changes(), 4 => ownership]
}

/// A cluster to start from, or none.
fn starts() -> impl Strategy<Value = ClusterState> {
    prop_oneof![1 => Just(ClusterState::default()), 2 => Just(cluster()), 4 => Just(populated())]
}

fn populated() -> ClusterState {
    let mut state = cluster();
    for (name, host, on) in [("p", 7, 1), ("q", 8, 2), ("r", 9, 3)] {
        let address = format!("10.0.0.{host}/24");
        let resource = resource(name, &address, &[(1, 1), (2, 2), (3, 3)]);
        done(&mut state, Change::Create { resource, on });
        done(&mut state, give(name, on, 0));
    }
    state
}

fn well_formed(state: &ClusterState) {
    assert!(state.resources.keys().eq(state.placements.keys()), "a placement for every resource");
    let mut addresses = BTreeSet::new();
    for (tag, resource) in &state.resources {
        assert_eq!(tag, &resource.tag);
        assert!(
            resource.addresses().iter().all(|a| addresses.insert(a.addr())),
            "{tag}: the address is another's too"
        );
        let priorities: BTreeSet<u16> = resource.nodes.values().map(|s| s.priority).collect();
        assert_eq!(priorities.len(), resource.nodes.len(), "{tag}: priorities are unique");
        assert!(priorities.iter().all(|p| (1..=999).contains(p)));
        assert!(!resource.addresses().is_empty(), "{tag}: without an address");
        assert!(resource.nodes.values().all(|s| !s.devices.is_empty()));
        assert!(resource.nodes.keys().all(|id| state.nodes.get(id).is_some_and(|n| !n.witness)));
    }
    for (tag, placement) in &state.placements {
        assert!(!placement.deleting || placement.grant.is_some(), "{tag}: deleted and free, but still there");
        assert!(!placement.deleting || placement.desired == Desired::OutOfService);
        let Some(grant) = placement.grant else { continue };
        let node = &state.nodes[&grant.owner];
        assert!(placement.epoch > 0 && state.resources[tag].nodes.contains_key(&grant.owner));
        match node.standing {
            Standing::Joining => panic!("{tag}: owned by a node that is still joining"),
            Standing::Member => {
                assert_eq!(grant.lease_epoch, node.lease_epoch, "{tag}: a trusted owner's lease")
            }
            Standing::Deposed => {
                assert!(grant.lease_epoch < node.lease_epoch, "{tag}: a deposed owner's lease")
            }
        }
    }
    let mut rpc = BTreeSet::new();
    for (id, node) in &state.nodes {
        assert!(*id == node.id && *id <= state.last_node && rpc.insert(node.rpc));
    }
    assert!(state.ping_lists.values().all(|l| !l.is_empty()));
    let key = &state.key;
    assert!(key.generation <= key.last && key.offered.as_ref().is_none_or(|o| o.generation == key.last));
    assert!(key.offered.is_none() || state.without_key().next().is_none(), "two keys at most");
    let monitored = |subnet: &IpNet| state.subnets.contains_key(subnet);
    assert!(state.resources.values().all(|r| r.monitored.iter().all(monitored)));
    let known = |id: &NodeId| state.nodes.contains_key(id);
    assert!(state.ping_lists.keys().all(|(id, _)| known(id)) && state.unreached.keys().all(known));
    assert!(state.placements.values().all(|p| p.failed.keys().chain(p.failures.keys()).all(known)));
    for (node, down) in &state.subnets_down {
        assert!(state.nodes.contains_key(node) && !down.is_empty() && down.keys().all(monitored));
    }
}

/// What `change` may do to one grant: it ends only by its owner's word or by proof, and a new one is
/// made only where there was none at some instant between.
fn lawful(before: &ClusterState, change: &Change, after: &ClusterState, tag: &Tag) {
    let (Some(b), a) = (before.placements.get(tag), after.placements.get(tag)) else { return };
    if let Some(a) = a {
        assert!(a.epoch == b.epoch || a.epoch == b.epoch + 1, "{tag}: epochs rise one by one");
        if a.epoch > b.epoch {
            let fresh = a.grant.is_some_and(|g| g.phase == Phase::Starting);
            assert!(fresh, "{tag}: an epoch is spent on a grant only");
        }
        let same = |x: Grant, y: Grant| (x.owner, x.lease_epoch) == (y.owner, y.lease_epoch);
        if let (Some(x), Some(y)) = (b.grant, a.grant)
            && a.epoch == b.epoch
        {
            assert!(same(x, y), "{tag}: a grant does not change hands");
            return;
        }
    }
    let Some(old) = b.grant else {
        if a.is_some_and(|a| a.grant.is_some()) {
            assert!(
                matches!(change, Change::Give { .. } | Change::Vacate { .. }),
                "{tag}: given by {change:?}"
            );
        }
        return;
    };
    // The old grant has ended.
    match change {
        Change::Report { node, reports } => {
            assert_eq!(*node, old.owner, "{tag}: ended by another's word");
            let said = |r: &Report| r.tag == *tag && r.epoch == b.epoch && r.outcome != Outcome::Started;
            assert!(reports.iter().any(said), "{tag}: ended by another report");
        }
        Change::Vacate { node, lease_epoch, .. } | Change::Rejoin { node, lease_epoch } => {
            assert!(*node == old.owner && old.lease_epoch < *lease_epoch, "{tag}: proof about another lease");
            assert_eq!(before.nodes[node].standing, Standing::Deposed);
        }
        other => panic!("{tag}: a grant was ended by {other:?}"),
    }
}

fn json(state: &ClusterState) -> ClusterState {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn safety(start in starts(), changes in proptest::collection::vec(changes(), 1..60)) {
        let mut state = start;
        for change in &changes {
            let before = state.clone();
            let applied = apply(&mut state, change);

            let mut again = json(&before);
            prop_assert_eq!(apply(&mut again, &serde_json::from_str(&serde_json::to_string(change).unwrap()).unwrap()), applied.clone());
            prop_assert_eq!(&again, &state, "deterministic, also from what was stored");

            if let Applied::Refused(Refusal(text)) = &applied {
                prop_assert_eq!(&before, &state, "{:?} was refused and left a trace", change);
                prop_assert!(text.len() > 10);
            }
            well_formed(&state);
            for name in TAGS {
                lawful(&before, change, &state, &tag(name));
            }
            for (id, node) in &before.nodes {
                match state.nodes.get(id) {
                    Some(now) => prop_assert!(now.lease_epoch >= node.lease_epoch),
                    None => {
                        let removed = matches!(change, Change::Remove { node, .. } if node == id);
                        prop_assert!(removed, "forgotten by another change");
                        let owns = |p: &Placement| p.grant.is_some_and(|g| g.owner == *id);
                        prop_assert!(!before.placements.values().any(owns), "forgotten while it owned something");
                    }
                }
            }
            prop_assert!(state.last_node >= before.last_node);
            prop_assert!(state.key.last >= before.key.last && state.key.generation >= before.key.generation);
        }
        prop_assert_eq!(json(&state), state);
    }

    /// A proposal may be committed twice when its answer is lost: the second time changes nothing.
    #[test]
    fn twice_is_once(start in starts(), changes in proptest::collection::vec(changes(), 1..40)) {
        let mut state = start;
        for change in &changes {
            apply(&mut state, change);
            let once = state.clone();
            apply(&mut state, change);
            // That somebody said it again counts.
            state.revision = once.revision;
            prop_assert_eq!(&state, &once, "{:?}", change);
        }
    }
}

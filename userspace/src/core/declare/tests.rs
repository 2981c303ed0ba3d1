//! Any state is exported, compared and reached from any other.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use proptest::{prelude::*, strategy::ValueTree};

use super::*;
use crate::{
    core::change::{Applied, DefaultSetting, NewGrant, Outcome, Report, Setting, apply},
    model::{
        Accept, Connectivity, Constraint, DeclaredCloud, Ec2Eip, Ec2Route, Kind, MonitoredSubnet, Node,
        NodeId, NodeSettings, OrderKind, Resource, Score, Standing, Switchback, Threshold, Word,
    },
};

const TAGS: [&str; 5] = ["p", "q", "r", "s", "t"];
/// Those of EC2: what each is stays the same, as it must.
const CLOUDS: [&str; 3] = ["u-eip", "v-route", "w-route"];
const NODES: NodeId = 3;

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

/// Three nodes and a witness, and nothing else.
pub(crate) fn empty() -> ClusterState {
    let mut state = ClusterState { name: "test".into(), last_node: 4, ..ClusterState::default() };
    for id in 1..=NODES + 1 {
        let node = Node {
            id,
            name: format!("node-{id}"),
            rpc: format!("10.77.0.{id}:7411").parse().unwrap(),
            paths: vec![format!("10.77.0.{id}:7412").parse().unwrap()],
            witness: id > NODES,
            lease_epoch: 1,
            standing: Standing::Member,
            standby: false,
            maintenance: false,
            gave_up: None,
            alone: None,
            declared_dead: false,
            declared_by: Word::default(),
        };
        state.nodes.insert(id, node);
    }
    state
}

fn tags() -> impl Strategy<Value = Tag> {
    prop_oneof![4 => ips(), 1 => proptest::sample::select(&CLOUDS[..]).prop_map(tag)]
}

fn ips() -> impl Strategy<Value = Tag> {
    proptest::sample::select(&TAGS[..]).prop_map(tag)
}

/// As they are created: a route together with the dependency.
fn clouds() -> impl Strategy<Value = Change> {
    (proptest::sample::select(&CLOUDS[..]), places()).prop_map(|(name, nodes)| {
        let on = nodes[0].0;
        let nodes = nodes.into_iter().map(|(id, s)| (id, NodeSettings { source: false, ..s }));
        if name == "u-eip" {
            let eip = Ec2Eip { address: "203.0.113.9".parse().unwrap(), region: None };
            let resource = Resource::of_kind(tag(name), Kind::Ec2Eip(eip), nodes);
            return Change::Create { resource, on };
        }
        let nodes = nodes.map(|(id, s)| (id, NodeSettings { devices: vec![], ..s }));
        let ip = tag(if name == "v-route" { "p" } else { "q" });
        let region = (name == "w-route").then(|| "eu-central-1".to_owned());
        let kind = Kind::Ec2Route(Ec2Route { ip: ip.clone(), region });
        let resource = Resource::of_kind(tag(name), kind, nodes);
        let depend = Change::Depend { parent: tag(name), child: ip };
        Change::Batch { revision: None, changes: vec![Change::Create { resource, on }, depend] }
    })
}

fn ids() -> std::ops::RangeInclusive<NodeId> {
    1..=NODES
}

/// Most hierarchies have equal nodes: a few patterns are common.
fn places() -> impl Strategy<Value = Vec<(NodeId, NodeSettings)>> {
    let orders = proptest::sample::select(vec![
        vec![(1, 1), (2, 10), (3, 20)],
        vec![(1, 1), (2, 10), (3, 20)],
        vec![(1, 10), (2, 1), (3, 20)],
        vec![(1, 20), (2, 10), (3, 1)],
        vec![(1, 1), (2, 10)],
        vec![(3, 1)],
    ]);
    (orders, any::<bool>(), any::<bool>()).prop_map(|(order, restore, source)| {
        let one = |(id, priority)| {
            let settings = NodeSettings::new(priority, vec!["eth0".into(), format!("eth{id}")]);
            (id, NodeSettings { restore_and_recover: restore, source, ..settings })
        };
        order.into_iter().map(one).collect()
    })
}

/// Every tag has addresses of its own, so that nobody waits for another's.
fn own(tag: &Tag, count: u8) -> crate::model::Addresses {
    let number = TAGS.iter().position(|t| *t == tag.as_str()).unwrap() as u8 + 1;
    (1..=count).map(|host| format!("10.{number}.0.{host}/24").parse::<ipnet::IpNet>().unwrap()).collect()
}

fn settings() -> impl Strategy<Value = Setting> {
    prop_oneof![
        Just(Setting::Switchback(Switchback::Automatic)),
        Just(Setting::OnConflict(crate::model::OnConflict::Yield)),
        Just(Setting::Accept(Accept::Route)),
        Just(Setting::Accept(Accept::Assign)),
        (-2..3).prop_map(|n| Setting::Stickiness(Some(Score::new(n * 600_000)))),
        (1..3u32).prop_map(|n| Setting::MigrationThreshold(Some(Threshold::Failures(n)))),
        (1..3000u64).prop_map(|n| Setting::FailureTimeout(Some(Duration::from_millis(n + 1000)))),
        any::<bool>().prop_map(Setting::ServiceFailfast),
        any::<bool>().prop_map(Setting::NodeFailfast),
        any::<bool>().prop_map(Setting::Maintenance),
        any::<bool>().prop_map(Setting::IgnoresConnectivity),
        Just(Setting::Subnets(vec!["10.9.0.0/24".parse().unwrap()])),
        Just(Setting::Subnets(vec![])),
    ]
}

fn constraints() -> impl Strategy<Value = Constraint> {
    let score = || (-2..3).prop_map(|n| Score::new(n * 600_000));
    prop_oneof![
        (tags(), ids(), score()).prop_map(|(tag, node, score)| Constraint::Location { tag, node, score }),
        (tags(), tags(), score()).prop_map(|(tag, with, score)| Constraint::Colocation { tag, with, score }),
        (tags(), tags(), any::<bool>()).prop_map(|(first, then, optional)| Constraint::Order {
            first,
            then,
            kind: if optional { OrderKind::Optional } else { OrderKind::Mandatory },
        }),
        proptest::collection::vec(tags(), 2..4).prop_map(|members| Constraint::Group { members }),
        (proptest::collection::btree_set(tags(), 2..4), 1..3u16)
            .prop_map(|(members, per_node)| Constraint::Clone { members, per_node }),
    ]
}

fn host(n: u8) -> IpAddr {
    IpAddr::from([10, 200, 0, n])
}

/// What operators do.
fn orders() -> impl Strategy<Value = Change> {
    let resource = prop_oneof![
        9 => clouds(),
        8 => (ips(), 1..4u8, places()).prop_map(|(tag, count, nodes)| {
            let on = nodes[0].0;
            let addresses = own(&tag, count);
            Change::Create { resource: Resource::new(tag, addresses, nodes), on }
        }),
        2 => (ips(), 1..100u8).prop_map(|(tag, n)| {
            Change::SetAddresses { addresses: own(&tag, n), tag }
        }),
        1 => tags().prop_map(|tag| Change::Delete { tag, hierarchy: false }),
        4 => (tags(), settings()).prop_map(|(tag, setting)| Change::Set { tag, node: None, setting }),
        1 => (tags(), ids(), 1..5u16).prop_map(|(tag, node, priority)| {
            Change::Set { tag, node: Some(node), setting: Setting::Priority(priority) }
        }),
        4 => (tags(), tags()).prop_map(|(parent, child)| Change::Depend { parent, child }),
        1 => (tags(), tags()).prop_map(|(parent, child)| Change::Undepend { parent, child }),
        2 => tags().prop_map(|tag| Change::OutOfService { tag }),
        1 => tags().prop_map(|tag| Change::InService { tag, on: None, until: None }),
        3 => ("[a-c]", constraints()).prop_map(|(id, constraint)| Change::AddConstraint { id, constraint }),
    ];
    let cluster = prop_oneof![
        (8..11u8, 1..3u16, 0..3u8).prop_map(|(n, fall, hosts)| Change::MonitorSubnet {
            subnet: format!("10.{n}.0.0/24").parse().unwrap(),
            settings: MonitoredSubnet {
                fall,
                targets: (0..hosts).map(|h| IpAddr::from([10, n, 0, h + 1])).collect(),
                ..MonitoredSubnet::default()
            },
        }),
        (ids(), 1..3u8, proptest::collection::vec(1..4u8, 0..3)).prop_map(|(node, n, hosts)| {
            let subnet = format!("10.{n}.0.0/24").parse().unwrap();
            let addresses = hosts.into_iter().map(|h| IpAddr::from([10, n, 0, 100 + h])).collect();
            Change::SetPingList { node, subnet, addresses }
        }),
        (proptest::collection::btree_set((1..4u8).prop_map(host), 0..3), 100..5000u64).prop_map(
            |(hosts, ms)| Change::SetConnectivity {
                settings: Connectivity {
                    hosts,
                    interval: Duration::from_millis(ms),
                    ..Connectivity::default()
                }
            }
        ),
        any::<bool>().prop_map(|on| Change::SetDefault { setting: DefaultSetting::Maintenance(on) }),
        (1..5u32).prop_map(|n| {
            let limit = Threshold::Failures(n);
            Change::SetDefault { setting: DefaultSetting::MigrationThreshold(limit) }
        }),
    ];
    prop_oneof![4 => resource, 1 => cluster]
}

/// What the cluster does about itself.
fn decisions() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => (tags(), ids(), 0..3u64).prop_map(|(tag, to, epoch)| Change::Give {
            grants: vec![NewGrant { tag, to, epoch }]
        }),
        1 => (tags(), ids(), 0..3u64).prop_map(|(tag, node, epoch)| Change::Report {
            node,
            reports: vec![Report { tag, epoch, outcome: Outcome::Started }],
        }),
    ]
}

/// A cluster after any sequence of orders.
pub(crate) fn idle() -> impl Strategy<Value = ClusterState> {
    proptest::collection::vec(orders(), 0..60).prop_map(after)
}

/// A cluster at work, in which much is owned by somebody.
pub(crate) fn busy() -> impl Strategy<Value = ClusterState> {
    let any = prop_oneof![2 => orders(), 1 => decisions()];
    proptest::collection::vec(any, 0..80).prop_map(after)
}

fn after(changes: Vec<Change>) -> ClusterState {
    let mut state = empty();
    for change in &changes {
        apply(&mut state, change);
    }
    state
}

fn applied(state: &ClusterState, plan: &Plan) -> ClusterState {
    let mut state = state.clone();
    let change = Change::Batch { revision: Some(plan.revision), changes: plan.changes.clone() };
    assert_eq!(apply(&mut state, &change), Applied::Done);
    state
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.problems.iter().map(|p| p.reason.as_str()).collect()
}

/// Compared as people read them, so that a failure can be read.
fn same(state: &ClusterState, one: &Declared, other: &Declared) {
    let found = compare(state, one, other);
    assert!(found.is_empty() && one == other, "{found:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What is exported is what is there.
    #[test]
    fn an_export_changes_nothing(state in busy(), prune: bool) {
        let plan = plan(&state, &export(&state), prune);
        prop_assert_eq!(reasons(&plan), Vec::<&str>::new());
        prop_assert!(plan.differences.is_empty(), "{:#?}", plan.differences);
        prop_assert!(plan.changes.is_empty() && plan.unmanaged.is_empty(), "{plan:#?}");
    }

    /// The same nodes, and nothing else: an export makes the same configuration of it.
    #[test]
    fn an_export_makes_the_same_cluster(state in busy()) {
        let plan = plan(&empty(), &export(&state), true);
        prop_assert_eq!(reasons(&plan), Vec::<&str>::new());
        let made = if plan.changes.is_empty() { empty() } else { applied(&empty(), &plan) };
        same(&made, &exact(&made), &exact(&state));
    }

    /// As long as nobody owns anything, everything is possible.
    #[test]
    fn any_configuration_becomes_any_other(from in idle(), to in idle()) {
        let declared = export(&to);
        let first = plan(&from, &declared, true);
        prop_assert_eq!(reasons(&first), Vec::<&str>::new());
        let made = applied(&from, &first);
        same(&made, &exact(&made), &exact(&to));
        prop_assert!(plan(&made, &declared, true).differences.is_empty());
    }

    /// Whatever is in service: a plan is refused with reasons, or it comes where it says.
    #[test]
    fn a_plan_is_refused_or_comes_true(from in busy(), to in busy(), prune: bool) {
        let declared = export(&to);
        let first = plan(&from, &declared, prune);
        prop_assert_eq!(first.problems.is_empty(), first.differences.is_empty() || !first.changes.is_empty());
        for problem in &first.problems {
            prop_assert!(problem.reason.len() > 10);
            prop_assert!(!problem.reason.contains("in one step"), "{}", problem.reason);
        }
        if !first.problems.is_empty() {
            return Ok(());
        }
        let made = applied(&from, &first);
        let again = plan(&made, &declared, prune);
        prop_assert!(again.differences.is_empty() && again.problems.is_empty(), "{again:#?}");
        // What was owned is owned by the same, and only what is said to stop is wanted no more.
        for (tag, before) in &from.placements {
            match made.placements.get(tag) {
                Some(after) => {
                    prop_assert_eq!(after.grant, before.grant, "{}", tag);
                    if before.is_wanted() && !after.is_wanted() {
                        prop_assert!(first.stops.contains(tag), "{tag} stops unsaid");
                    }
                }
                None => prop_assert!(before.grant.is_none()),
            }
        }
        if !prune {
            let there = |tag: &&Tag| made.placements.get(*tag).is_some_and(|p| !p.deleting);
            let before: BTreeSet<&Tag> = from.placements.iter().filter(|(_, p)| !p.deleting).map(|(t, _)| t).collect();
            prop_assert!(before.iter().all(there), "nothing is deleted");
        }
    }
}

/// The law above says something: enough plans from clusters at work come true.
#[test]
fn clusters_at_work_are_changed_too() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut draw = || busy().new_tree(&mut runner).unwrap().current();
    let (mut done, mut owned) = (0, 0);
    for _ in 0..200 {
        let (from, to) = (draw(), draw());
        let plan = plan(&from, &export(&to), true);
        if plan.problems.is_empty() && !plan.changes.is_empty() {
            done += 1;
            owned += usize::from(from.placements.values().any(|p| p.grant.is_some()));
        }
    }
    assert!(done > 60 && owned > 20, "{done} of 200 plans come true, {owned} where something is owned");
}

fn with(changes: impl IntoIterator<Item = Change>) -> ClusterState {
    let mut state = empty();
    for change in changes {
        assert_eq!(apply(&mut state, &change), Applied::Done, "{change:?}");
    }
    state
}

fn new(name: &str, address: &str) -> Change {
    let nodes =
        [(1, NodeSettings::new(1, vec!["eth0".into()])), (2, NodeSettings::new(2, vec!["eth0".into()]))];
    let address: ipnet::IpNet = address.parse().unwrap();
    Change::Create { resource: Resource::new(tag(name), address, nodes), on: 1 }
}

#[test]
fn an_address_passes_from_one_resource_to_another() {
    let state = with([new("a", "10.0.0.1/24"), new("b", "10.0.0.2/24")]);
    let wanted = with([new("b", "10.0.0.1/24"), new("a", "10.0.0.3/24"), new("c", "10.0.0.2/24")]);
    let plan = plan(&state, &export(&wanted), false);
    assert_eq!(reasons(&plan), Vec::<&str>::new());
    assert_eq!(exact(&applied(&state, &plan)).resources, exact(&wanted).resources);
    // Two that exchange all they have would have none in between.
    let wanted = with([new("b", "10.0.0.1/24"), new("a", "10.0.0.2/24")]);
    let refused = super::plan(&state, &export(&wanted), false);
    assert!(
        refused.changes.is_empty() && reasons(&refused)[0].contains("belongs to the resource"),
        "{refused:?}"
    );
}

#[test]
fn a_plan_tells_what_stops_and_what_stays() {
    let state = with([
        new("a", "10.0.0.1/24"),
        new("b", "10.0.0.2/24"),
        Change::Depend { parent: tag("a"), child: tag("b") },
        new("c", "10.0.0.3/24"),
    ]);
    let mut declared = export(&state);
    declared.resources.remove(&tag("c"));
    let b = declared.resources.get_mut(&tag("b")).unwrap();
    b.in_service = Some(false);
    let refused = plan(&state, &declared, false);
    assert!(reasons(&refused)[0].contains("'a', which depends on it, in service"), "{refused:?}");

    declared.resources.get_mut(&tag("a")).unwrap().in_service = None;
    let some = plan(&state, &declared, false);
    assert_eq!(some.stops, BTreeSet::from([tag("a"), tag("b")]));
    assert_eq!((some.unmanaged.as_slice(), some.served), (&["resource c".to_owned()][..], [tag("c")].into()));
    let said: Vec<(&str, &[String])> =
        some.differences.iter().map(|d| (d.what.as_str(), d.details.as_slice())).collect();
    let off = ["state: in-service -> out-of-service".to_owned()];
    assert_eq!(said, [("resource a", &off[..]), ("resource b", &off[..])]);

    let all = plan(&state, &declared, true);
    assert_eq!(all.stops, BTreeSet::from([tag("a"), tag("b"), tag("c")]));
    assert!(all.differences.iter().any(|d| d.action == Action::Delete && d.what == "resource c"));
}

#[test]
fn what_does_not_fit_together_is_told_at_once() {
    let state = with([new("a", "10.0.0.1/24"), new("b", "10.0.0.2/24"), new("c", "10.0.0.3/24")]);
    let mut declared = export(&state);
    let depend = |declared: &mut Declared, on: [(&str, &str); 2]| {
        for (parent, child) in on {
            let parent = declared.resources.get_mut(&tag(parent)).unwrap();
            parent.depends = Some(BTreeSet::from([tag(child)]));
        }
    };
    depend(&mut declared, [("a", "gone"), ("b", "lost")]);
    declared
        .constraints
        .insert("x".into(), Constraint::Location { tag: tag("no"), node: 1, score: Score::ZERO });
    assert_eq!(plan(&state, &declared, false).problems.len(), 3);
    declared.constraints.clear();
    depend(&mut declared, [("a", "b"), ("b", "a")]);
    assert!(reasons(&plan(&state, &declared, false))[0].contains("depends on itself"));
    depend(&mut declared, [("a", "b"), ("b", "c")]);
    declared.resources.get_mut(&tag("c")).unwrap().nodes.remove(&2);
    let plan = plan(&state, &declared, false);
    assert!(reasons(&plan)[0].contains("node-1 1, node-2 2"), "{plan:?}");
}

/// Enough of what the laws are about is there.
#[test]
fn the_clusters_have_routes_and_elastic_ips() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut draw = || busy().new_tree(&mut runner).unwrap().current();
    let mut found = [0; 3];
    for _ in 0..200 {
        let state = draw();
        for (count, name) in found.iter_mut().zip(CLOUDS) {
            *count += usize::from(state.resources.contains_key(&tag(name)));
        }
    }
    assert!(found[0] > 60 && found[1] > 12 && found[2] > 12, "{found:?}");
}

fn routed() -> ClusterState {
    let nodes = [(1, NodeSettings::new(1, vec![])), (2, NodeSettings::new(2, vec![]))];
    let kind = Kind::Ec2Route(Ec2Route { ip: tag("a"), region: None });
    let route = Resource::of_kind(tag("route"), kind, nodes);
    let both =
        [Change::Create { resource: route, on: 1 }, Change::Depend { parent: tag("route"), child: tag("a") }];
    with([new("a", "10.0.0.1/24"), Change::Batch { revision: None, changes: both.into() }])
}

#[test]
fn a_route_and_what_it_leads_to_change_together() {
    let state = routed();
    let mut declared = export(&state);
    assert_eq!(declared.resources[&tag("route")].depends, None, "that is what a route is");
    for name in ["a", "route"] {
        let resource = declared.resources.get_mut(&tag(name)).unwrap();
        resource.nodes.remove(&1);
        resource.switchback = Switchback::Automatic;
    }
    let plan = plan(&state, &declared, false);
    assert_eq!(reasons(&plan), Vec::<&str>::new());
    let made = applied(&state, &plan);
    assert!(made.resources[&tag("route")].children.contains(&tag("a")));
    assert_eq!(made.resources[&tag("route")].nodes.len(), 1);
}

#[test]
fn what_a_resource_is_does_not_change() {
    let state = routed();
    let eip = Ec2Eip { address: "203.0.113.9".parse().unwrap(), region: None };
    let cases: [(&str, Option<DeclaredCloud>, &str); 3] = [
        (
            "a",
            Some(DeclaredCloud::Eip(eip)),
            "it is an IP resource, and cannot become the Elastic IP 203.0.113.9 in",
        ),
        (
            "route",
            Some(DeclaredCloud::Route(Ec2Route { ip: tag("a"), region: Some("eu-west-1".into()) })),
            "it is the routes to 'a' in the region of its nodes, and cannot become the routes to 'a' in eu-west-1",
        ),
        ("route", None, "and cannot become an IP resource: 'vipctl delete route' first"),
    ];
    for (name, cloud, says) in cases {
        let mut declared = export(&state);
        let resource = declared.resources.get_mut(&tag(name)).unwrap();
        resource.cloud = cloud;
        let plan = plan(&state, &declared, false);
        assert!(plan.changes.is_empty() && reasons(&plan)[0].contains(says), "{plan:#?}");
    }
}

#[test]
fn differences_are_told_in_words_of_the_kind() {
    let plan = plan(&empty(), &export(&routed()), false);
    let of = |what: &str| plan.differences.iter().find(|d| d.what == what).unwrap().details.join("; ");
    let route = of("resource route");
    assert!(route.contains("kind: ec2-route") && route.contains("ip: a"), "{route}");
    assert!(!route.contains("addresses") && !route.contains("on-conflict"), "{route}");
    assert!(of("resource a").contains("addresses: 10.0.0.1/24"));
}

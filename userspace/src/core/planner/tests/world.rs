//! Random clusters with hierarchies, constraints and policies, and what can happen to them.

use proptest::prelude::*;

use super::{properties::work, *};
use crate::{
    core::change::{DefaultSetting, Duty},
    model::{Connectivity, Constraint, OrderKind, Score, Standing, Threshold},
};

pub(super) const TAGS: [&str; 7] = ["p", "q", "r", "s", "t", "u", "v"];
const SUBNET: &str = "10.1.0.0/24";
const HOSTS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

#[derive(Clone, Debug)]
pub(super) enum Event {
    Health {
        node: NodeId,
        suspected: bool,
        fit: bool,
    },
    Silence {
        node: NodeId,
    },
    Rejoin {
        node: NodeId,
    },
    Work {
        tag: usize,
        fails: bool,
    },
    /// Local recovery mended it once more.
    Recovered {
        tag: usize,
    },
    Forgive {
        tag: usize,
        node: NodeId,
    },
    Subnet {
        node: NodeId,
        down: bool,
        fresh: bool,
    },
    Unreached {
        node: NodeId,
        hosts: usize,
        fresh: bool,
    },
    ChoiceEnds {
        tag: usize,
    },
    /// Whatever an operator may order; much of it is refused.
    Order(Box<Change>),
}

fn tags() -> impl Strategy<Value = Tag> {
    proptest::sample::select(&TAGS[..]).prop_map(tag)
}

fn scores() -> impl Strategy<Value = Score> {
    prop_oneof![
        2 => Just(Score::MINUS_INFINITY),
        2 => Just(Score::INFINITY),
        3 => (-20..20i32).prop_map(Score::new)
    ]
}

pub(super) fn constraints() -> impl Strategy<Value = Constraint> {
    let kind = prop_oneof![3 => Just(OrderKind::Mandatory), 1 => Just(OrderKind::Optional)];
    prop_oneof![
        2 => (tags(), 1..=3u64, scores()).prop_map(|(tag, node, score)| Constraint::Location { tag, node, score }),
        4 => (tags(), tags(), scores()).prop_map(|(tag, with, score)| Constraint::Colocation { tag, with, score }),
        3 => (tags(), tags(), kind).prop_map(|(first, then, kind)| Constraint::Order { first, then, kind }),
        1 => (proptest::collection::btree_set(tags(), 2..4), 1..=2u16)
            .prop_map(|(members, per_node)| Constraint::Clone { members, per_node }),
    ]
}

fn settings() -> impl Strategy<Value = Setting> {
    prop_oneof![
        Just(Setting::Switchback(Switchback::Automatic)),
        Just(Setting::Switchback(Switchback::Intelligent)),
        (-30..30i32).prop_map(|n| Setting::Stickiness(Some(Score::new(n)))),
        (1..3u32).prop_map(|n| Setting::MigrationThreshold(Some(Threshold::Failures(n)))),
        any::<bool>().prop_map(Setting::Maintenance),
        any::<bool>().prop_map(Setting::IgnoresConnectivity),
        any::<bool>().prop_map(Setting::NodeFailfast),
        any::<bool>()
            .prop_map(|on| Setting::Subnets(on.then(|| SUBNET.parse().unwrap()).into_iter().collect())),
    ]
}

fn orders() -> impl Strategy<Value = Change> {
    let duty = prop_oneof![
        3 => Just(Duty::Online),
        2 => Just(Duty::Standby),
        1 => any::<bool>().prop_map(Duty::Maintenance)
    ];
    prop_oneof![
        4 => (tags(), proptest::option::of(1..=3u64))
            .prop_map(|(tag, on)| Change::InService { tag, on, until: on.map(|_| 7) }),
        2 => tags().prop_map(|tag| Change::OutOfService { tag }),
        4 => (tags(), settings()).prop_map(|(tag, setting)| Change::Set { tag, node: None, setting }),
        3 => (1..=3u64, duty).prop_map(|(node, duty)| Change::SetNode { node, duty }),
        1 => proptest::bool::weighted(0.3)
            .prop_map(|on| Change::SetDefault { setting: DefaultSetting::Maintenance(on) }),
        2 => (tags(), tags()).prop_map(|(parent, child)| Change::Depend { parent, child }),
        1 => (tags(), tags()).prop_map(|(parent, child)| Change::Undepend { parent, child }),
        2 => (constraints(), 0..100u8)
            .prop_map(|(constraint, n)| Change::AddConstraint { id: format!("later-{n}"), constraint }),
        1 => tags().prop_map(|tag| Change::Clear { tag }),
        1 => tags().prop_map(|tag| Change::Cleanup { tag, node: None }),
        1 => (tags(), 1..=3u64).prop_map(|(tag, from)| Change::Unextend { tag, from }),
        1 => (tags(), any::<bool>()).prop_map(|(tag, hierarchy)| Change::Delete { tag, hierarchy }),
    ]
}

pub(super) fn events() -> impl Strategy<Value = Event> {
    let node = 1..=3u64;
    let t = 0..TAGS.len();
    prop_oneof![
        4 => (node.clone(), proptest::bool::weighted(0.3), any::<bool>())
            .prop_map(|(node, suspected, fit)| Event::Health { node, suspected, fit }),
        2 => node.clone().prop_map(|node| Event::Silence { node }),
        2 => node.clone().prop_map(|node| Event::Rejoin { node }),
        12 => (t.clone(), proptest::bool::weighted(0.1)).prop_map(|(tag, fails)| Event::Work { tag, fails }),
        1 => t.clone().prop_map(|tag| Event::Recovered { tag }),
        1 => (t.clone(), node.clone()).prop_map(|(tag, node)| Event::Forgive { tag, node }),
        2 => (node.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(node, down, fresh)| Event::Subnet { node, down, fresh }),
        2 => (node, 0..3usize, any::<bool>())
            .prop_map(|(node, hosts, fresh)| Event::Unreached { node, hosts, fresh }),
        1 => t.prop_map(|tag| Event::ChoiceEnds { tag }),
        8 => orders().prop_map(|change| Event::Order(Box::new(change))),
    ]
}

/// Dependencies and constraints among seven resources on three nodes.
pub(super) fn worlds() -> impl Strategy<Value = ClusterState> {
    let depend = proptest::collection::vec((tags(), tags()), 0..4);
    let constraints = proptest::collection::vec(constraints(), 0..5);
    let priorities = proptest::collection::vec(0..3u64, TAGS.len());
    (priorities, depend, constraints).prop_map(|(priorities, depend, constraints)| {
        let mut state = cluster();
        let settings = crate::model::MonitoredSubnet::default();
        done(&mut state, Change::MonitorSubnet { subnet: SUBNET.parse().unwrap(), settings });
        let hosts = HOSTS.iter().map(|h| h.parse().unwrap()).collect();
        done(
            &mut state,
            Change::SetConnectivity { settings: Connectivity { hosts, ..Connectivity::default() } },
        );
        for (i, (name, first)) in TAGS.iter().zip(priorities).enumerate() {
            let nodes: Vec<_> = (1..=3).map(|id| (id, ((id + first) % 3 + 1) as u16)).collect();
            let resource = resource(name, &format!("10.0.0.{}/24", i + 7), &nodes);
            done(&mut state, Change::Create { resource, on: (first + i as u64) % 3 + 1 });
            done(&mut state, Change::Clear { tag: tag(name) });
        }
        for (parent, child) in depend {
            apply(&mut state, &Change::Depend { parent, child });
        }
        for (n, constraint) in constraints.into_iter().enumerate() {
            apply(&mut state, &Change::AddConstraint { id: format!("c{n}"), constraint });
        }
        state
    })
}

pub(super) fn happens(state: &mut ClusterState, observed: &mut Observed, event: &Event) {
    match event {
        Event::Health { node, suspected, fit } => {
            let health = observed.nodes.entry(*node).or_default();
            (health.suspected, health.fit) = (*suspected, *fit && !*suspected);
        }
        Event::Silence { node } => {
            if state.nodes[node].standing == Standing::Deposed {
                let epoch = state.nodes[node].lease_epoch;
                observed.nodes.entry(*node).or_default().silent_below = Some(epoch);
            }
        }
        Event::Rejoin { node } => {
            let lease_epoch = state.nodes[node].lease_epoch;
            apply(state, &Change::Rejoin { node: *node, lease_epoch });
        }
        Event::Work { tag: t, fails } => work(state, &tag(TAGS[*t]), *fails),
        Event::Recovered { tag: t } => {
            let t = tag(TAGS[*t]);
            let Some(placement) = state.placements.get(&t) else { return };
            let Some(grant) = placement.grant else { return };
            let outcome = Outcome::Recovered { count: placement.recoveries + 1, reason: "gone".to_owned() };
            let change = report(t.as_str(), grant.owner, placement.epoch, outcome);
            apply(state, &change);
        }
        Event::Forgive { tag: t, node } => observed.forgive = [(tag(TAGS[*t]), *node)].into(),
        Event::Subnet { node, down, fresh } => {
            let subnet: IpNet = SUBNET.parse().unwrap();
            let lost = down.then(|| (subnet, no_answer())).into_iter().collect();
            done(state, Change::ReportSubnets { node: *node, down: lost });
            for (set, is) in [(&mut observed.fresh_losses, *down), (&mut observed.fresh_gains, !*down)] {
                set.remove(&(*node, subnet));
                if is && *fresh {
                    set.insert((*node, subnet));
                }
            }
        }
        Event::Unreached { node, hosts, fresh } => {
            let unreached = HOSTS.iter().take(*hosts).map(|h| h.parse().unwrap()).collect();
            done(state, Change::ReportConnectivity { node: *node, unreached });
            observed.fresh_reach.remove(node);
            if *fresh {
                observed.fresh_reach.insert(*node);
            }
        }
        Event::ChoiceEnds { tag: t } => {
            observed.ended_choices.insert(tag(TAGS[*t]));
        }
        Event::Order(change) => {
            apply(state, change);
        }
    }
}

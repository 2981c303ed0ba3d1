//! Clusters that run for a while: operators wish, nodes fail and return, and the leader plans.

use proptest::prelude::*;

use super::*;
use crate::core::change::Report;

const TAGS: [&str; 4] = ["p", "q", "r", "s"];

#[derive(Clone, Debug)]
enum Event {
    /// The leader's view of a node changes.
    Health {
        node: NodeId,
        suspected: bool,
        fit: bool,
    },
    /// Voters' promises to a deposed node have run out.
    Silence {
        node: NodeId,
    },
    /// A deposed node has stopped everything.
    Rejoin {
        node: NodeId,
    },
    /// An owner does as it is told, or fails.
    Work {
        tag: usize,
        fails: bool,
    },
    Wish {
        tag: usize,
        on: Option<NodeId>,
    },
    OutOfService {
        tag: usize,
    },
    Automatic {
        tag: usize,
    },
    Forgive {
        tag: usize,
        node: NodeId,
    },
    /// A node says which subnets are down there: a bit each.
    Subnets {
        node: NodeId,
        down: u8,
    },
}

const SUBNETS: [&str; 2] = ["10.1.0.0/24", "10.2.0.0/24"];

fn events() -> impl Strategy<Value = Event> {
    let node = 1..=3u64;
    let t = 0..TAGS.len();
    prop_oneof![
        4 => (node.clone(), proptest::bool::weighted(0.3), any::<bool>())
            .prop_map(|(node, suspected, fit)| Event::Health { node, suspected, fit }),
        3 => node.clone().prop_map(|node| Event::Silence { node }),
        3 => node.clone().prop_map(|node| Event::Rejoin { node }),
        8 => (t.clone(), proptest::bool::weighted(0.2)).prop_map(|(tag, fails)| Event::Work { tag, fails }),
        2 => (t.clone(), proptest::option::of(node.clone())).prop_map(|(tag, on)| Event::Wish { tag, on }),
        1 => t.clone().prop_map(|tag| Event::OutOfService { tag }),
        1 => t.clone().prop_map(|tag| Event::Automatic { tag }),
        1 => (t, node.clone()).prop_map(|(tag, node)| Event::Forgive { tag, node }),
        4 => (node, 0..4u8).prop_map(|(node, down)| Event::Subnets { node, down }),
    ]
}

fn start() -> (ClusterState, Observed) {
    let mut state = cluster();
    for subnet in SUBNETS {
        let settings = crate::model::MonitoredSubnet::default();
        done(&mut state, Change::MonitorSubnet { subnet: subnet.parse().unwrap(), settings });
    }
    for (i, name) in TAGS.iter().enumerate() {
        let on = i as u64 % 3 + 1;
        let nodes: Vec<_> = (1..=3).map(|id| (id, (id + on) as u16 % 3 + 1)).collect();
        let resource = resource(name, &format!("10.0.0.{}/24", i + 7), &nodes);
        done(&mut state, Change::Create { resource, on });
        // "p" needs none of them, "q" one, the others both.
        let setting = Setting::Subnets(SUBNETS.iter().take(i).map(|s| s.parse().unwrap()).collect());
        done(&mut state, Change::Set { tag: tag(name), node: None, setting });
    }
    (state, seen(&[]))
}

fn happens(state: &mut ClusterState, observed: &mut Observed, event: &Event) {
    match event {
        Event::Health { node, suspected, fit } => {
            let health = observed.nodes.entry(*node).or_default();
            (health.suspected, health.fit) = (*suspected, *fit && !*suspected);
        }
        Event::Silence { node } => {
            let epoch = state.nodes[node].lease_epoch;
            if state.nodes[node].standing == Standing::Deposed {
                observed.nodes.entry(*node).or_default().silent_below = Some(epoch);
            }
        }
        Event::Rejoin { node } => {
            let lease_epoch = state.nodes[node].lease_epoch;
            apply(state, &Change::Rejoin { node: *node, lease_epoch });
        }
        Event::Work { tag: t, fails } => work(state, &tag(TAGS[*t]), *fails),
        Event::Wish { tag: t, on } => {
            apply(state, &Change::InService { tag: tag(TAGS[*t]), on: *on, until: None });
        }
        Event::OutOfService { tag: t } => {
            apply(state, &Change::OutOfService { tag: tag(TAGS[*t]) });
        }
        Event::Automatic { tag: t } => {
            let setting = Setting::Switchback(Switchback::Automatic);
            apply(state, &Change::Set { tag: tag(TAGS[*t]), node: None, setting });
        }
        Event::Forgive { tag: t, node } => {
            observed.forgive = [(tag(TAGS[*t]), *node)].into();
        }
        Event::Subnets { node, down } => {
            let lost = SUBNETS.iter().enumerate().filter(|(i, _)| down & 1 << i != 0);
            let down = lost.map(|(_, s)| (s.parse().unwrap(), no_answer())).collect();
            done(state, Change::ReportSubnets { node: *node, down });
        }
    }
}

pub(super) fn work(state: &mut ClusterState, tag: &Tag, fails: bool) {
    let Some(placement) = state.placements.get(tag) else { return };
    let Some(grant) = placement.grant else { return };
    let outcome = match grant.phase {
        Phase::Starting | Phase::InService if fails => failure(),
        Phase::Starting | Phase::InService => Outcome::Started,
        Phase::Stopping => Outcome::Released,
    };
    let reports = vec![Report { tag: tag.clone(), epoch: placement.epoch, outcome }];
    apply(state, &Change::Report { node: grant.owner, reports });
}

/// Why each change may be planned: from what is so, not from how the planner came to it.
fn justified(state: &ClusterState, observed: &Observed, change: &Change) {
    let health = |node: &NodeId| observed.nodes.get(node).cloned().unwrap_or_default();
    let startable = |grant: &NewGrant, forgiven: bool| {
        let placement = &state.placements[&grant.tag];
        assert!(health(&grant.to).fit && state.nodes[&grant.to].standing == Standing::Member);
        assert!(state.resources[&grant.tag].nodes.contains_key(&grant.to));
        assert_eq!(state.lacking_subnets(&state.resources[&grant.tag], grant.to).next(), None);
        assert!(forgiven || !placement.failed.contains_key(&grant.to));
        assert!(matches!(placement.desired, Desired::InService { .. }) && !placement.deleting);
    };
    match change {
        Change::Depose { node, lease_epoch } => {
            assert!(health(node).suspected && state.nodes[node].lease_epoch == *lease_epoch);
            assert!(state.placements.values().any(|p| p.grant.is_some_and(|g| g.owner == *node)));
        }
        Change::Vacate { node, lease_epoch, grants } => {
            assert_eq!(health(node).silent_below, Some(*lease_epoch), "without proof");
            assert_eq!(state.nodes[node].lease_epoch, *lease_epoch);
            for grant in grants {
                assert_eq!(
                    state.placements[&grant.tag].grant.unwrap().owner,
                    *node,
                    "not the node's to give"
                );
                startable(grant, observed.forgive.contains(&(grant.tag.clone(), grant.to)));
            }
        }
        Change::Give { grants } => {
            for grant in grants {
                assert_eq!(state.placements[&grant.tag].grant, None, "still owned");
                startable(grant, observed.forgive.contains(&(grant.tag.clone(), grant.to)));
            }
        }
        Change::Release { tag, epoch } => {
            let placement = &state.placements[tag];
            assert_eq!(placement.epoch, *epoch);
            let owner = placement.grant.unwrap().owner;
            let wish = match placement.desired {
                Desired::OutOfService => return,
                Desired::InService { on } => on,
            };
            let lost = state.lacking_subnets(&state.resources[tag], owner).next().is_some();
            let better = |id: &NodeId| {
                let nodes = &state.resources[tag].nodes;
                let automatic = state.resources[tag].switchback == Switchback::Automatic;
                let returns = automatic && wish.is_none() && nodes[id].priority < nodes[&owner].priority;
                let connected = state.lacking_subnets(&state.resources[tag], *id).next().is_none();
                health(id).fit && connected && (wish == Some(*id) || returns || lost)
            };
            let others = state.nodes.keys().filter(|id| **id != owner && !state.nodes[id].witness);
            assert!(others.into_iter().any(better), "{tag} moves without a reason");
        }
        Change::Forgive { tag, node } => assert!(state.placements[tag].failed.contains_key(node)),
        other @ (Change::Found { .. }
        | Change::Reserve { .. }
        | Change::Admit { .. }
        | Change::Remove { .. }
        | Change::Readdress { .. }
        | Change::Create { .. }
        | Change::CreateAll { .. }
        | Change::AlterAddresses { .. }
        | Change::SetAddresses { .. }
        | Change::Extend { .. }
        | Change::Delete { .. }
        | Change::Set { .. }
        | Change::SetPingList { .. }
        | Change::MonitorSubnet { .. }
        | Change::UnmonitorSubnet { .. }
        | Change::ReportSubnets { .. }
        | Change::InService { .. }
        | Change::Unextend { .. }
        | Change::Depend { .. }
        | Change::Undepend { .. }
        | Change::Clear { .. }
        | Change::Cleanup { .. }
        | Change::AddConstraint { .. }
        | Change::RemoveConstraint { .. }
        | Change::SetNode { .. }
        | Change::SetDefault { .. }
        | Change::SetConnectivity { .. }
        | Change::ReportConnectivity { .. }
        | Change::Batch { .. }
        | Change::OutOfService { .. }
        | Change::Rejoin { .. }
        | Change::Report { .. }) => panic!("not the planner's to propose: {other:?}"),
    }
}

fn check_plan(state: &mut ClusterState, observed: &Observed) -> Vec<Change> {
    let changes = planned(state, observed);
    assert_eq!(changes, planned(state, observed), "deterministic");
    for change in &changes {
        justified(state, observed, change);
    }
    for change in &changes {
        done(state, change.clone());
    }
    assert_eq!(planned(state, observed), [], "planning again after {changes:?}");
    changes
}

/// Owners do what they are told until nothing changes any more.
fn settle(state: &mut ClusterState, observed: &Observed) {
    for _ in 0..20 {
        let before = state.clone();
        check_plan(state, observed);
        for name in TAGS {
            work(state, &tag(name), false);
        }
        if *state == before {
            return;
        }
    }
    panic!("it never settles: {state:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_decision_has_a_reason_and_is_made_once(events in proptest::collection::vec(events(), 1..80)) {
        let (mut state, mut observed) = start();
        for event in &events {
            happens(&mut state, &mut observed, event);
            check_plan(&mut state, &observed);
            observed.forgive.clear();
        }
    }

    #[test]
    fn a_failure_never_moves_what_it_does_not_concern(
        events in proptest::collection::vec(events(), 0..40),
        victim in 1..=3u64,
    ) {
        let (mut state, mut observed) = start();
        for event in &events {
            happens(&mut state, &mut observed, event);
            check_plan(&mut state, &observed);
            observed.forgive.clear();
        }
        settle(&mut state, &observed);
        let before = state.clone();
        observed.nodes.insert(victim, suspected());
        check_plan(&mut state, &observed);
        let epoch = state.nodes[&victim].lease_epoch;
        observed.nodes.insert(victim, silent_below(epoch));
        settle(&mut state, &observed);
        for (tag, placement) in &before.placements {
            if placement.grant.is_none_or(|g| g.owner != victim) {
                prop_assert_eq!(&state.placements[tag], placement, "{} was moved", tag);
            }
        }
    }

    /// When all is well for long enough, everything wanted is in service, where it should be.
    #[test]
    fn a_healthy_cluster_comes_to_rest_with_all_in_service(events in proptest::collection::vec(events(), 0..60)) {
        let (mut state, mut observed) = start();
        for event in &events {
            happens(&mut state, &mut observed, event);
            check_plan(&mut state, &observed);
            observed.forgive.clear();
        }
        observed = seen(&[]);
        for node in 1..=3 {
            happens(&mut state, &mut observed, &Event::Rejoin { node });
            happens(&mut state, &mut observed, &Event::Subnets { node, down: 0 });
        }
        for name in TAGS {
            observed.forgive.extend((1..=3).map(|id| (tag(name), id)));
        }
        settle(&mut state, &observed);
        for (tag, placement) in &state.placements {
            let owner = placement.grant.map(|g| (g.owner, g.phase));
            match placement.desired {
                Desired::OutOfService => prop_assert_eq!(owner, None),
                Desired::InService { on } => {
                    let Some((owner, Phase::InService)) = owner else { panic!("{tag}: {placement:?}") };
                    let best = state.resources[tag].nodes.iter().min_by_key(|(_, s)| s.priority).unwrap().0;
                    match (on, state.resources[tag].switchback) {
                        (Some(on), _) => prop_assert_eq!(owner, on),
                        (None, Switchback::Automatic) => prop_assert_eq!(owner, *best),
                        (None, Switchback::Intelligent) => {}
                    }
                }
            }
        }
    }

    /// However subnets come and go, once nothing changes any more nothing moves any more, and whatever is
    /// in service without its subnets had nowhere better to go.
    #[test]
    fn lost_subnets_never_make_it_move_to_and_fro(events in proptest::collection::vec(events(), 0..60)) {
        let (mut state, mut observed) = start();
        for event in &events {
            happens(&mut state, &mut observed, event);
            check_plan(&mut state, &observed);
            observed.forgive.clear();
        }
        // Panics when it goes on moving.
        settle(&mut state, &observed);
        for (tag, placement) in &state.placements {
            let Some(grant) = placement.grant.filter(|g| g.phase == Phase::InService) else { continue };
            let resource = &state.resources[tag];
            let suspected = observed.nodes.get(&grant.owner).is_some_and(|h| h.suspected);
            let trusted = state.nodes[&grant.owner].standing == Standing::Member && !suspected;
            if trusted && state.lacking_subnets(resource, grant.owner).next().is_some() {
                let refuge = resource.nodes.keys().any(|id| {
                    let node = &state.nodes[id];
                    let fit = observed.nodes.get(id).is_some_and(|h| h.fit && !h.suspected);
                    fit && node.standing == Standing::Member
                        && !placement.failed.contains_key(id)
                        && state.lacking_subnets(resource, *id).next().is_none()
                });
                prop_assert!(!refuge, "{} has a better place", tag);
            }
        }
    }
}

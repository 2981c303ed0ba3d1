//! What the planner never does, and what it always achieves, in random clusters.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    properties::work,
    world::{Event, TAGS, events, happens, worlds},
    *,
};
use crate::{
    core::change::Duty,
    model::{Constraint, OrderKind, Standing},
};

type Hierarchies = BTreeMap<Tag, BTreeSet<Tag>>;

fn hierarchies(state: &ClusterState) -> Hierarchies {
    let all = state.hierarchies().into_iter();
    all.flat_map(|members| members.clone().into_iter().map(move |t| (t, members.clone()))).collect()
}

/// Whoever has any of them.
fn holders(state: &ClusterState, members: &BTreeSet<Tag>) -> BTreeSet<NodeId> {
    members.iter().filter_map(|t| state.placements.get(t)?.grant).map(|g| g.owner).collect()
}

fn frozen(state: &ClusterState, members: &BTreeSet<Tag>) -> bool {
    let owner = holders(state, members).first().copied();
    let root = state.roots(members).next().unwrap();
    state.in_maintenance(&state.resources[root], owner)
}

/// Pairs that must not meet, and do.
fn meetings(state: &ClusterState) -> BTreeSet<(String, NodeId)> {
    let of = hierarchies(state);
    let mut all = BTreeSet::new();
    for (id, constraint) in &state.constraints {
        if let Constraint::Colocation { tag, with, score } = constraint
            && score.forbids()
            && of[tag] != of[with]
        {
            let (a, b) = (holders(state, &of[tag]), holders(state, &of[with]));
            all.extend(a.intersection(&b).map(|node| (id.clone(), *node)));
        }
    }
    all
}

/// Clones with more instances on a node than may be, and how many.
fn crowds(state: &ClusterState) -> BTreeMap<(String, NodeId), usize> {
    let of = hierarchies(state);
    let mut all = BTreeMap::new();
    for (id, constraint) in &state.constraints {
        if let Constraint::Clone { members, per_node } = constraint {
            let instances: BTreeSet<&BTreeSet<Tag>> = members.iter().map(|t| &of[t]).collect();
            for node in state.nodes.keys() {
                let there = instances.iter().filter(|i| holders(state, i).contains(node)).count();
                if there > usize::from(*per_node) {
                    all.insert((id.clone(), *node), there);
                }
            }
        }
    }
    all
}

fn check_give(state: &ClusterState, observed: &Observed, grant: &NewGrant) {
    let NewGrant { tag, to, .. } = grant;
    let (node, placement, resource) = (&state.nodes[to], &state.placements[tag], &state.resources[tag]);
    let members = &hierarchies(state)[tag];
    assert!(node.is_available() && observed.nodes[to].fit, "{tag} is given to {}", node.name);
    assert!(resource.nodes.contains_key(to) && placement.is_wanted());
    assert!(!frozen(state, members), "{tag} is in maintenance");
    assert!(!placement.failed.contains_key(to), "{tag} failed there");
    assert_eq!(state.lacking_subnets(resource, *to).next(), None);
    for constraint in state.constraints.values() {
        match constraint {
            Constraint::Location { tag: named, node, score } if members.contains(named) => {
                assert!(node != to || !score.forbids(), "{tag} is given where it must not be");
            }
            Constraint::Order { first, then, kind: OrderKind::Mandatory }
                if members.contains(then) && !members.contains(first) =>
            {
                let before = &state.placements[first];
                let up = before.is_wanted() && before.grant.is_some_and(|g| g.phase == Phase::InService);
                assert!(up, "{tag} is given before {first} is in service");
            }
            Constraint::Location { .. }
            | Constraint::Order { .. }
            | Constraint::Colocation { .. }
            | Constraint::Group { .. }
            | Constraint::Clone { .. } => {}
        }
    }
}

fn check_release(state: &ClusterState, tag: &Tag, reason: &str) {
    let of = hierarchies(state);
    let members = &of[tag];
    assert!(!frozen(state, members), "{tag} is released in maintenance");
    // It ends in what is so, and not in nothing.
    assert!(reason.len() > 20 && !reason.ends_with(": "), "{tag} is released without a reason: '{reason}'");
    for constraint in state.constraints.values() {
        if let Constraint::Order { first, then, kind: OrderKind::Mandatory } = constraint
            && first == tag
            && !members.contains(then)
        {
            let gone = holders(state, &of[then]).is_empty();
            assert!(gone || frozen(state, &of[then]), "{tag} is released before {then} has stopped");
        }
    }
}

/// For whoever reads a failed test.
fn told(state: &ClusterState, observed: &Observed) -> String {
    use std::fmt::Write;
    let mut text = format!("{:?}\n", state.constraints);
    for told in state.hierarchies().iter().filter_map(|m| explain(state, observed, m.first()?)) {
        let members: Vec<_> = told.members.iter().map(Tag::as_str).collect();
        write!(text, "{members:?}: {};", told.summary).unwrap();
        told.nodes.iter().for_each(|n| write!(text, " {}: {};", n.node, n.line()).unwrap());
        text.push('\n');
    }
    text
}

/// Plans until nothing more is planned: at once, or soon where constraints are.
fn step(state: &mut ClusterState, observed: &Observed) {
    let rounds = if state.constraints.is_empty() { 1 } else { 8 };
    for _ in 0..rounds {
        if !round(state, observed) {
            return;
        }
    }
    let more = plan(state, observed);
    assert!(more.is_empty(), "still planning {more:?} for\n{}", told(state, observed));
}

/// Applies the plan. Every step keeps the laws.
fn round(state: &mut ClusterState, observed: &Observed) -> bool {
    let decisions = plan(state, observed);
    assert_eq!(decisions, plan(state, observed), "the same inputs, another plan");
    let (met, crowded) = (meetings(state), crowds(state));
    for Decision { change, reason } in &decisions {
        match change {
            Change::Give { grants } | Change::Vacate { grants, .. } => {
                assert!(grants.iter().all(|g| !frozen(state, &hierarchies(state)[&g.tag])));
                if let Change::Give { grants } = change {
                    grants.iter().for_each(|g| check_give(state, observed, g));
                }
            }
            Change::Release { tag, .. } => check_release(state, tag, reason),
            Change::Depose { .. } | Change::Forgive { .. } | Change::Clear { .. } => {}
            other => panic!("not the planner's to propose: {other:?}"),
        }
        done(state, change.clone());
        for members in state.hierarchies() {
            assert!(holders(state, &members).len() < 2, "{members:?} is on two nodes after {change:?}");
        }
    }
    let meet = meetings(state);
    assert!(meet.is_subset(&met), "{meet:?} meet after {decisions:?}");
    for (place, count) in crowds(state) {
        assert!(
            crowded.get(&place).is_some_and(|c| *c >= count),
            "{place:?} has {count} after {decisions:?}"
        );
    }
    !decisions.is_empty()
}

/// Owners do what they are told until nothing changes any more.
fn settle(state: &mut ClusterState, observed: &Observed) {
    let mut history = Vec::new();
    for _ in 0..60 {
        let before = state.clone();
        history.push(plan(state, observed));
        step(state, observed);
        for name in TAGS {
            work(state, &tag(name), false);
        }
        if *state == before {
            return;
        }
    }
    panic!("it never settles: {:#?}\n{}", &history[history.len() - 6..], told(state, observed));
}

fn run(state: &mut ClusterState, events: &[Event]) -> Observed {
    let mut observed = seen(&[]);
    for event in events {
        happens(state, &mut observed, event);
        step(state, &observed);
        observed.forgive.clear();
    }
    observed
}

/// The hierarchies that constraints connect with any of these, directly or not.
fn concerned(state: &ClusterState, of: &BTreeSet<Tag>) -> BTreeSet<Tag> {
    let hierarchies = hierarchies(state);
    let mut all = of.clone();
    loop {
        let mut more = all.clone();
        more.extend(all.iter().flat_map(|t| hierarchies[t].clone()));
        for constraint in state.constraints.values() {
            if constraint.tags().into_iter().any(|t| all.contains(t)) {
                more.extend(constraint.tags().into_iter().cloned());
            }
        }
        if more == all {
            return all;
        }
        all = more;
    }
}

fn owned_by(state: &ClusterState, node: NodeId) -> BTreeSet<Tag> {
    let owned = state.placements.iter().filter(|(_, p)| p.grant.is_some_and(|g| g.owner == node));
    owned.map(|(tag, _)| tag.clone()).collect()
}

/// What would be there if it could start: it waits for something else.
fn bound_for(state: &ClusterState, observed: &Observed, node: NodeId) -> BTreeSet<Tag> {
    let planner = Planner::new(state, observed);
    let bound = (0..planner.units.len()).filter(|u| planner.place(*u) == Some(node));
    bound.flat_map(|u| &planner.units[u].members).map(|m| m.tag().clone()).collect()
}

/// What has only just changed has been so for long.
fn calm(observed: &mut Observed) {
    observed.fresh_losses.clear();
    observed.fresh_gains.clear();
    observed.fresh_reach.clear();
}

fn all_well(state: &mut ClusterState) -> Observed {
    for node in 1..=3 {
        let lease_epoch = state.nodes[&node].lease_epoch;
        apply(state, &Change::Rejoin { node, lease_epoch });
        for duty in [Duty::Online, Duty::Maintenance(false)] {
            done(state, Change::SetNode { node, duty });
        }
        done(state, Change::ReportSubnets { node, down: BTreeMap::new() });
        done(state, Change::ReportConnectivity { node, unreached: BTreeSet::new() });
    }
    let setting = crate::core::change::DefaultSetting::Maintenance(false);
    done(state, Change::SetDefault { setting });
    for name in TAGS.iter().map(|name| tag(name)) {
        apply(state, &Change::Cleanup { tag: name.clone(), node: None });
        apply(state, &Change::Set { tag: name, node: None, setting: Setting::Maintenance(false) });
    }
    seen(&[])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_step_breaks_a_law(mut state in worlds(), events in proptest::collection::vec(events(), 1..60)) {
        run(&mut state, &events);
    }

    #[test]
    fn nothing_goes_to_and_fro(mut state in worlds(), events in proptest::collection::vec(events(), 0..40)) {
        let observed = run(&mut state, &events);
        settle(&mut state, &observed);
    }

    #[test]
    fn a_failing_node_never_moves_what_it_does_not_concern(
        mut state in worlds(),
        events in proptest::collection::vec(events(), 0..30),
        victim in 1..=3u64,
    ) {
        let mut observed = run(&mut state, &events);
        calm(&mut observed);
        settle(&mut state, &observed);
        let there = owned_by(&state, victim).into_iter().chain(bound_for(&state, &observed, victim)).collect();
        let concerned = concerned(&state, &there);
        let before = state.clone();
        observed.nodes.insert(victim, suspected());
        step(&mut state, &observed);
        let epoch = state.nodes[&victim].lease_epoch;
        observed.nodes.insert(victim, silent_below(epoch));
        settle(&mut state, &observed);
        // What nobody had may come in service by that: who was to be with it was kept from the node that is no choice now.
        let had = before.placements.iter().filter(|(_, p)| p.grant.is_some());
        for (tag, placement) in had.filter(|(tag, _)| !concerned.contains(*tag)) {
            prop_assert_eq!(state.placements.get(tag), Some(placement), "{} was moved: {}", tag, told(&before, &observed));
        }
    }

    #[test]
    fn a_failing_resource_never_moves_what_it_does_not_concern(
        mut state in worlds(),
        events in proptest::collection::vec(events(), 0..30),
        victim in 0..TAGS.len(),
    ) {
        let mut observed = run(&mut state, &events);
        calm(&mut observed);
        settle(&mut state, &observed);
        let name = tag(TAGS[victim]);
        if state.resources.contains_key(&name) {
            let mut affected = concerned(&state, &[name.clone()].into());
            let owner = state.placements[&name].grant.map(|g| g.owner);
            // Failfast concerns all that the node has.
            if state.resources[&name].policy.node_failfast && let Some(owner) = owner {
                affected = concerned(&state, &owned_by(&state, owner));
            }
            let before = state.clone();
            work(&mut state, &name, true);
            settle(&mut state, &observed);
            for (tag, placement) in before.placements.iter().filter(|(tag, _)| !affected.contains(*tag)) {
                prop_assert_eq!(state.placements.get(tag), Some(placement), "{} was moved: {}", tag, told(&before, &observed));
            }
        }
    }

    /// When all is well, whatever no constraint concerns is in service if it is wanted; nothing is where it
    /// must not be; and what is nowhere says why.
    #[test]
    fn all_that_can_be_in_service_is(
        mut state in worlds(),
        events in proptest::collection::vec(events(), 0..40),
    ) {
        run(&mut state, &events);
        let observed = all_well(&mut state);
        settle(&mut state, &observed);
        let of = hierarchies(&state);
        for (name, placement) in &state.placements {
            let free = concerned(&state, &[name.clone()].into()) == of[name]
                && !state.constraints.values().any(|c| c.tags().iter().any(|t| of[name].contains(*t)));
            let up = placement.grant.is_some_and(|g| g.phase == Phase::InService);
            let told = explain(&state, &observed, name).unwrap();
            if placement.is_wanted() && free {
                prop_assert!(up, "{name} is not in service: {told:?}");
            }
            if placement.is_wanted() && !up {
                prop_assert!(told.summary.starts_with("waits"), "{told:?}");
            }
        }
        prop_assert_eq!(meetings(&state), BTreeSet::new());
        prop_assert_eq!(crowds(&state), BTreeMap::new());
        for constraint in state.constraints.values() {
            match constraint {
                Constraint::Location { tag, node, score } if score.forbids() => {
                    prop_assert!(!holders(&state, &of[tag]).contains(node), "{constraint:?}");
                }
                Constraint::Colocation { tag, with, score } if score.demands() && of[tag] != of[with] => {
                    let there = holders(&state, &of[tag]);
                    prop_assert!(there.is_empty() || there == holders(&state, &of[with]), "{constraint:?}");
                }
                Constraint::Order { first, then, kind: OrderKind::Mandatory } if of[first] != of[then] => {
                    let up = state.placements[first].grant.is_some();
                    prop_assert!(up || holders(&state, &of[then]).is_empty(), "{constraint:?}");
                }
                _ => {}
            }
        }
        prop_assert!(state.nodes.values().all(|n| n.standing == Standing::Member));
    }

    /// Whatever the cluster is like, every hierarchy is told about, node by node.
    #[test]
    fn explanations_agree_with_plans(mut state in worlds(), events in proptest::collection::vec(events(), 0..40)) {
        let observed = run(&mut state, &events);
        settle(&mut state, &observed);
        for (name, resource) in &state.resources {
            let told = explain(&state, &observed, name).unwrap();
            prop_assert_eq!(told.nodes.len(), resource.nodes.len());
            prop_assert!(told.members.contains(name) && !told.summary.is_empty());
            let wanted = state.placements[name].is_wanted();
            // At rest, who could start somewhere is somewhere, or waits for another.
            if wanted && told.owner.is_none() && told.nodes.iter().any(NodeVerdict::is_eligible) {
                let why = told.summary.starts_with("waits") || told.summary.contains("maintenance");
                prop_assert!(why, "{told:?}");
            }
        }
    }
}

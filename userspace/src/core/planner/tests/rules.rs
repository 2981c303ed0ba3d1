//! One table to a rule, both ways: what it does, and what it leaves alone.

use super::*;
use crate::{
    core::change::{DefaultSetting, Duty},
    model::{Connectivity, Constraint, OrderKind, Score, Threshold},
};

/// "p" and "q" on nodes 1 to 3, priorities in that order, in service on node 1.
fn two() -> ClusterState {
    let mut state = cluster();
    for (name, host) in [("p", 1), ("q", 2)] {
        let nodes = [(1, 1), (2, 2), (3, 3)];
        let resource = resource(name, &format!("10.0.0.{host}/24"), &nodes);
        done(&mut state, Change::Create { resource, on: 1 });
        done(&mut state, Change::Clear { tag: tag(name) });
    }
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [Some(1), Some(1)]);
    state
}

/// Nodes do as told until nothing happens any more.
fn rest(state: &mut ClusterState, observed: &Observed) {
    for _ in 0..40 {
        let before = state.clone();
        planned(state, observed).into_iter().for_each(|change| done(state, change));
        let tags: Vec<Tag> = state.placements.keys().cloned().collect();
        tags.iter().for_each(|t| properties::work(state, t, false));
        if *state == before {
            return;
        }
    }
    panic!("it does not come to rest");
}

fn places(state: &ClusterState) -> [Option<NodeId>; 2] {
    ["p", "q"].map(|name| state.placements[&tag(name)].grant.map(|g| g.owner))
}

fn constrain(state: &mut ClusterState, id: &str, constraint: Constraint) {
    done(state, Change::AddConstraint { id: id.to_owned(), constraint });
}

fn with(name: &str, other: &str, score: Score) -> Constraint {
    Constraint::Colocation { tag: tag(name), with: tag(other), score }
}

fn location(name: &str, node: NodeId, score: Score) -> Constraint {
    Constraint::Location { tag: tag(name), node, score }
}

fn order(first: &str, then: &str, kind: OrderKind) -> Constraint {
    Constraint::Order { first: tag(first), then: tag(then), kind }
}

fn set(state: &mut ClusterState, name: &str, setting: Setting) {
    done(state, Change::Set { tag: tag(name), node: None, setting });
}

fn duty(state: &mut ClusterState, node: NodeId, duty: Duty) {
    done(state, Change::SetNode { node, duty });
}

fn fails(state: &mut ClusterState, name: &str) {
    properties::work(state, &tag(name), true);
}

#[test]
fn locations() {
    let (plus, minus, some) = (Score::INFINITY, Score::MINUS_INFINITY, Score::new(5));
    for (node, score, intelligent, automatic) in [
        (1, minus, 2, 2), // Forbidden: it goes, whatever the switchback.
        (3, plus, 1, 3),
        (3, some, 1, 3),
        (2, Score::new(-5), 1, 1),
        (1, Score::new(-5), 1, 2),
    ] {
        for (is_automatic, expected) in [(false, intelligent), (true, automatic)] {
            let mut state = two();
            if is_automatic {
                set(&mut state, "p", Setting::Switchback(Switchback::Automatic));
            }
            constrain(&mut state, "l", location("p", node, score));
            rest(&mut state, &seen(&[]));
            assert_eq!(
                places(&state),
                [Some(expected), Some(1)],
                "{score} on {node}, automatic {is_automatic}"
            );
        }
    }
    // Forbidden everywhere it is nowhere; a wish is no rule.
    let mut state = two();
    for node in 1..=3 {
        constrain(&mut state, &format!("l{node}"), location("p", node, minus));
    }
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [None, Some(1)]);
    let told = explain(&state, &seen(&[]), &tag("p")).unwrap();
    assert_eq!(told.summary, "waits: no node can have it");
    assert!(told.nodes.iter().all(|n| n.obstacles[0].contains("forbids it")), "{told:?}");
}

#[test]
fn stickiness_holds_against_lesser_scores() {
    for (stickiness, score, place) in [(0, 1, 3), (5, 4, 1), (5, 5, 1), (5, 6, 3), (-9, 0, 1)] {
        let mut state = two();
        set(&mut state, "p", Setting::Switchback(Switchback::Automatic));
        set(&mut state, "p", Setting::Stickiness(Some(Score::new(stickiness))));
        constrain(&mut state, "l", location("p", 3, Score::new(score)));
        rest(&mut state, &seen(&[]));
        assert_eq!(places(&state)[0], Some(place), "stickiness {stickiness}, score {score}");
    }
    // A better priority does not outweigh it either.
    let mut state = two();
    done(&mut state, Change::InService { tag: tag("p"), on: Some(3), until: None });
    rest(&mut state, &seen(&[]));
    set(&mut state, "p", Setting::Switchback(Switchback::Automatic));
    set(&mut state, "p", Setting::Stickiness(Some(Score::new(1))));
    done(&mut state, Change::Clear { tag: tag("p") });
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state)[0], Some(3));
    set(&mut state, "p", Setting::Stickiness(None));
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state)[0], Some(1));
}

#[test]
fn colocations() {
    let (plus, minus) = (Score::INFINITY, Score::MINUS_INFINITY);
    // Where "q" is sent to 2, and then stopped. What is apart from it leaves first, while it still has node 1.
    for (score, sent, stopped) in [(plus, [2, 2], None), (minus, [3, 2], Some(3))] {
        let mut state = two();
        constrain(&mut state, "c", with("p", "q", score));
        rest(&mut state, &seen(&[]));
        let expected = if score == plus { Some(1) } else { Some(2) };
        assert_eq!(places(&state), [expected, Some(1)], "{score}");
        done(&mut state, Change::InService { tag: tag("q"), on: Some(2), until: None });
        rest(&mut state, &seen(&[]));
        assert_eq!(places(&state), sent.map(Some), "{score}");
        done(&mut state, Change::OutOfService { tag: tag("q") });
        rest(&mut state, &seen(&[]));
        assert_eq!(places(&state), [stopped, None], "{score}");
    }
}

/// "q" belongs to "p", and "p" runs only after "q": each has a say about the other, and both run.
#[test]
fn an_order_and_a_colocation_may_go_opposite_ways() {
    let mut state = two();
    constrain(&mut state, "c", with("q", "p", Score::INFINITY));
    constrain(&mut state, "o", order("q", "p", OrderKind::Mandatory));
    for name in ["p", "q"] {
        done(&mut state, Change::OutOfService { tag: tag(name) });
    }
    rest(&mut state, &seen(&[]));
    for name in ["p", "q"] {
        done(&mut state, Change::InService { tag: tag(name), on: None, until: None });
    }
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [Some(1), Some(1)]);
    duty(&mut state, 1, Duty::Standby);
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [Some(2), Some(2)]);
}

fn released(state: &ClusterState) -> Vec<String> {
    let releases = planned(state, &seen(&[])).into_iter().filter_map(|c| match c {
        Change::Release { tag, .. } => Some(tag.to_string()),
        _ => None,
    });
    releases.collect()
}

#[test]
fn a_mandatory_order_stops_backwards_and_starts_forwards() {
    let mut state = two();
    constrain(&mut state, "o", order("p", "q", OrderKind::Mandatory));
    assert_eq!(released(&state), [""; 0]);
    done(&mut state, Change::InService { tag: tag("p"), on: Some(2), until: None });
    assert_eq!(released(&state), ["q"], "what comes after it stops first");
    planned(&state, &seen(&[])).into_iter().for_each(|c| done(&mut state, c));
    assert_eq!(released(&state), [""; 0], "it has not stopped yet");
    properties::work(&mut state, &tag("q"), false);
    assert_eq!(released(&state), ["p"]);
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [Some(2), Some(1)], "and it is started again");
    fails(&mut state, "p");
    assert_eq!(released(&state), ["q"], "also when the first fails");
    done(&mut state, Change::OutOfService { tag: tag("p") });
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [None, None], "it never runs without");
}

#[test]
fn an_optional_order_holds_only_where_both_change() {
    let mut state = two();
    constrain(&mut state, "o", order("p", "q", OrderKind::Optional));
    done(&mut state, Change::InService { tag: tag("p"), on: Some(2), until: None });
    assert_eq!(released(&state), ["p"], "the other stays");
    rest(&mut state, &seen(&[]));
    for name in ["p", "q"] {
        done(&mut state, Change::OutOfService { tag: tag(name) });
    }
    assert_eq!(released(&state), ["q"]);
    rest(&mut state, &seen(&[]));
    for name in ["p", "q"] {
        done(&mut state, Change::InService { tag: tag(name), on: None, until: None });
    }
    let [Change::Give { grants }] = &planned(&state, &seen(&[]))[..] else { panic!("one change") };
    assert_eq!(grants.iter().map(|g| g.tag.as_str()).collect::<Vec<_>>(), ["p"]);
    rest(&mut state, &seen(&[]));
    done(&mut state, Change::OutOfService { tag: tag("p") });
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [None, Some(1)]);
}

#[test]
fn clones_spread_and_are_no_more_than_allowed() {
    for (per_node, out, expected) in [
        (1, vec![], [Some(1), Some(2)]),
        (1, vec![2, 3], [Some(1), None]),
        (2, vec![], [Some(1), Some(1)]), // In service already: nothing moves by itself.
    ] {
        let mut state = two();
        for node in out {
            duty(&mut state, node, Duty::Standby);
        }
        let members = [tag("p"), tag("q")].into();
        constrain(&mut state, "c", Constraint::Clone { members, per_node });
        rest(&mut state, &seen(&[]));
        assert_eq!(places(&state), expected, "{per_node}");
        for name in ["p", "q"] {
            done(&mut state, Change::OutOfService { tag: tag(name) });
        }
        rest(&mut state, &seen(&[]));
        for name in ["p", "q"] {
            done(&mut state, Change::InService { tag: tag(name), on: None, until: None });
        }
        rest(&mut state, &seen(&[]));
        let spread = if expected[1].is_none() { [Some(1), None] } else { [Some(1), Some(2)] };
        assert_eq!(places(&state), spread, "{per_node}");
    }
}

#[test]
fn standby_moves_everything_and_coming_back_moves_nothing() {
    let mut state = two();
    duty(&mut state, 1, Duty::Standby);
    let reasons: Vec<_> = plan(&state, &seen(&[])).into_iter().map(|d| d.reason).collect();
    assert_eq!(reasons[0], "'p' moves from node 'a' to 'b': on standby");
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [Some(2), Some(2)]);
    duty(&mut state, 1, Duty::Online);
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [Some(2), Some(2)]);
    // Also where there is nowhere to go.
    for node in 1..=3 {
        duty(&mut state, node, Duty::Standby);
    }
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [None, None]);
}

#[test]
fn a_node_that_gave_up_gets_nothing_until_it_is_online() {
    let mut state = two();
    set(&mut state, "p", Setting::NodeFailfast(true));
    fails(&mut state, "p");
    assert!(state.nodes[&1].gave_up.is_some());
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [Some(2), Some(2)]);
    duty(&mut state, 2, Duty::Standby);
    duty(&mut state, 3, Duty::Standby);
    done(&mut state, Change::Cleanup { tag: tag("p"), node: None });
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [None, None]);
    duty(&mut state, 1, Duty::Online);
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [Some(1), Some(1)]);
}

#[test]
fn maintenance_leaves_alone() {
    type Freeze = fn(&mut ClusterState, bool);
    let freeze: [(&str, Freeze); 3] = [
        ("node", |state, on| duty(state, 1, Duty::Maintenance(on))),
        ("hierarchy", |state, on| ["p", "q"].iter().for_each(|n| set(state, n, Setting::Maintenance(on)))),
        ("cluster", |state, on| {
            done(state, Change::SetDefault { setting: DefaultSetting::Maintenance(on) });
        }),
    ];
    for (what, freeze) in freeze {
        let mut state = two();
        freeze(&mut state, true);
        duty(&mut state, 1, Duty::Standby);
        done(&mut state, Change::OutOfService { tag: tag("q") });
        assert_eq!(planned(&state, &seen(&[])), [], "{what}");
        freeze(&mut state, false);
        rest(&mut state, &seen(&[]));
        assert_eq!(places(&state), [Some(2), None], "{what}");
    }
    // A node in maintenance gets nothing, and keeps what it has even when it is silent.
    let mut state = two();
    duty(&mut state, 1, Duty::Maintenance(true));
    assert_eq!(planned(&state, &seen(&[(1, silent_below(9))])), []);
    let mut state = two();
    duty(&mut state, 2, Duty::Maintenance(true));
    duty(&mut state, 1, Duty::Standby);
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [Some(3), Some(3)]);
    // A hierarchy in maintenance is freed from a dead node, and given to nobody.
    let mut state = two();
    set(&mut state, "p", Setting::Maintenance(true));
    let observed = seen(&[(1, silent_below(9))]);
    rest(&mut state, &observed);
    assert_eq!(places(&state), [None, Some(2)]);
}

#[test]
fn too_many_failures_drive_it_away_if_another_can_take_it() {
    for (threshold, recoveries, place) in [(3, 2, 1), (3, 3, 2), (1, 1, 2)] {
        let mut state = two();
        set(&mut state, "p", Setting::MigrationThreshold(Some(Threshold::Failures(threshold))));
        let outcome = Outcome::Recovered { count: recoveries, reason: "gone".to_owned() };
        done(&mut state, report("p", 1, 1, outcome));
        rest(&mut state, &seen(&[]));
        assert_eq!(places(&state), [Some(place), Some(1)], "{recoveries} of {threshold}");
    }
    let mut state = two();
    set(&mut state, "p", Setting::MigrationThreshold(Some(Threshold::Failures(1))));
    duty(&mut state, 2, Duty::Standby);
    duty(&mut state, 3, Duty::Standby);
    done(&mut state, report("p", 1, 1, Outcome::Recovered { count: 1, reason: "gone".to_owned() }));
    assert_eq!(planned(&state, &seen(&[])), [], "nobody else: it stays in service");
}

#[test]
fn who_reaches_more_hosts_gets_it_once_that_is_settled() {
    let mut state = two();
    set(&mut state, "q", Setting::IgnoresConnectivity(true));
    let hosts = ["192.0.2.1", "192.0.2.2"].map(|h| h.parse().unwrap());
    done(
        &mut state,
        Change::SetConnectivity { settings: Connectivity { hosts: hosts.into(), ..Connectivity::default() } },
    );
    let lose = |state: &mut ClusterState, node, n: usize| {
        let unreached = hosts.iter().take(n).copied().collect();
        done(state, Change::ReportConnectivity { node, unreached });
    };
    lose(&mut state, 1, 1);
    for node in [1, 2] {
        // All others have not told either, or might have lost it, too.
        let fresh = Observed { fresh_reach: if node == 1 { [1].into() } else { [2, 3].into() }, ..seen(&[]) };
        assert_eq!(planned(&state, &fresh), []);
    }
    lose(&mut state, 2, 2);
    let mut moved = state.clone();
    rest(&mut moved, &seen(&[]));
    assert_eq!(places(&moved), [Some(3), Some(1)]);
    // Lost by all: nothing moves.
    lose(&mut state, 3, 1);
    assert_eq!(planned(&state, &seen(&[])), []);
}

#[test]
fn a_subnet_that_comes_back_to_all_moves_nothing() {
    let mut state = two();
    let subnet: IpNet = "10.1.0.0/24".parse().unwrap();
    done(&mut state, Change::MonitorSubnet { subnet, settings: crate::model::MonitoredSubnet::default() });
    set(&mut state, "p", Setting::Subnets(vec![subnet]));
    let report = |state: &mut ClusterState, node, down: bool| {
        let down = down.then(|| (subnet, no_answer())).into_iter().collect();
        done(state, Change::ReportSubnets { node, down });
    };
    (1..=3).for_each(|node| report(&mut state, node, true));
    assert_eq!(planned(&state, &seen(&[])), []);
    report(&mut state, 2, false);
    let fresh = Observed { fresh_gains: [(2, subnet)].into(), ..seen(&[]) };
    assert_eq!(planned(&state, &fresh), [], "it may be about to come back here, too");
    assert_eq!(planned(&state, &seen(&[])).len(), 1, "it has not");
}

#[test]
fn a_choice_ends_by_itself() {
    let mut state = two();
    set(&mut state, "p", Setting::Switchback(Switchback::Automatic));
    done(&mut state, Change::InService { tag: tag("p"), on: Some(3), until: Some(1) });
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state)[0], Some(3));
    let ended = Observed { ended_choices: [tag("p")].into(), ..seen(&[]) };
    assert_eq!(planned(&state, &ended)[0], Change::Clear { tag: tag("p") });
    rest(&mut state, &ended);
    assert_eq!(places(&state)[0], Some(1));
    assert_eq!(planned(&state, &ended), [], "once");
}

#[test]
fn a_hierarchy_moves_as_one_parents_first() {
    let mut state = two();
    done(&mut state, Change::Depend { parent: tag("q"), child: tag("p") });
    duty(&mut state, 1, Duty::Standby);
    assert_eq!(released(&state), ["q", "p"]);
    planned(&state, &seen(&[])).into_iter().for_each(|c| done(&mut state, c));
    properties::work(&mut state, &tag("q"), false);
    assert_eq!(planned(&state, &seen(&[])), [], "not before all of it has stopped");
    properties::work(&mut state, &tag("p"), false);
    let [Change::Give { grants }] = &planned(&state, &seen(&[]))[..] else { panic!("one change") };
    assert!(grants.len() == 2 && grants.iter().all(|g| g.to == 2), "{grants:?}");
    // One that fails takes all along.
    rest(&mut state, &seen(&[]));
    fails(&mut state, "p");
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [Some(3), Some(3)]);
}

/// The order to the parent was refused, or its reason is gone: it is asked all the same, for the child waits.
#[test]
fn whatever_depends_on_what_is_being_stopped_is_stopped() {
    let mut state = two();
    done(&mut state, Change::Depend { parent: tag("p"), child: tag("q") });
    let epoch = state.placements[&tag("q")].epoch;
    done(&mut state, Change::Release { tag: tag("q"), epoch });
    let decisions = plan(&state, &seen(&[]));
    let [decision] = &decisions[..] else { panic!("one decision: {decisions:?}") };
    let epoch = state.placements[&tag("p")].epoch;
    assert_eq!(decision.change, Change::Release { tag: tag("p"), epoch });
    assert!(decision.reason.contains("'q', on which it depends, is being stopped"), "{}", decision.reason);
    rest(&mut state, &seen(&[]));
    assert_eq!(places(&state), [Some(1), Some(1)], "both start again");
}

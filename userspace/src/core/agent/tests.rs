use std::collections::BTreeMap;

use super::*;
use crate::core::change;
use crate::model::{Desired, Grant, Node, NodeSettings, Placement, Resource};

const ME: NodeId = 2;
const CHECK: Duration = Duration::from_secs(10);

fn at(ms: u64) -> BootTime {
    BootTime(ms * 1_000_000)
}

fn tag() -> Tag {
    "ip-a".parse().expect("a valid tag")
}

const SOUND: Situation = Situation { caught_up: true, lease_valid: true, guarded: true, lease_epoch: 1 };

/// A state in which the one resource is as given; this node has lease epoch 1.
fn state(grant: Option<(NodeId, Phase)>, epoch: Epoch) -> ClusterState {
    let node = |id: NodeId| Node {
        id,
        name: format!("n{id}"),
        rpc: ([127, 0, 0, 1], 7000 + id as u16).into(),
        paths: Vec::new(),
        witness: false,
        lease_epoch: 1,
        standing: Standing::Member,
    };
    let settings = NodeSettings::new(1, vec!["eth0".into()]);
    let address: ipnet::IpNet = "10.0.0.9/24".parse().expect("an address");
    let resource = Resource::new(tag(), address, [(ME, settings)]);
    let placement = Placement {
        desired: Desired::InService { on: None },
        grant: grant.map(|(owner, phase)| Grant { owner, lease_epoch: 1, phase }),
        epoch,
        failed: BTreeMap::new(),
        deleting: false,
    };
    ClusterState {
        nodes: (1..=3).map(|id| (id, node(id))).collect(),
        resources: BTreeMap::from([(tag(), resource)]),
        placements: BTreeMap::from([(tag(), placement)]),
        ..ClusterState::default()
    }
}

fn starting(epoch: Epoch) -> ClusterState {
    state(Some((ME, Phase::Starting)), epoch)
}

fn start(operation: Operation, epoch: Epoch) -> Vec<Action> {
    vec![Action::Start { tag: tag(), operation, epoch, lease_epoch: 1 }]
}

/// An agent that has the resource in service under epoch 1 since 0 ms.
fn up() -> Agent {
    let mut a = Agent::new(ME);
    assert_eq!(a.plan(at(0), &starting(1), SOUND), start(Operation::Restore, 1));
    assert_eq!(a.finished(&tag(), Ok(()), at(0), CHECK, SOUND), None);
    a
}

fn outcomes(a: &Agent, s: &ClusterState) -> Vec<Outcome> {
    a.reports(s).into_iter().map(|r| r.outcome).collect()
}

#[test]
fn grant_restores_once_and_is_reported_until_noted() {
    let a = up();
    assert_eq!(outcomes(&a, &starting(1)), [Outcome::Started]);
    assert_eq!(outcomes(&a, &state(Some((ME, Phase::InService)), 1)), []);
}

#[test]
fn nothing_starts_before_catching_up_or_without_a_lease() {
    let mut a = Agent::new(ME);
    assert_eq!(a.plan(at(0), &starting(1), Situation { caught_up: false, ..SOUND }), []);
    assert_eq!(a.plan(at(0), &starting(1), Situation { lease_valid: false, ..SOUND }), []);
    assert_eq!(a.plan(at(0), &starting(1), SOUND), start(Operation::Restore, 1));
    assert_eq!(a.plan(at(0), &starting(1), SOUND), [], "one sequence at a time");
}

#[test]
fn release_removes_and_only_then_reports() {
    let mut a = up();
    let stopping = state(Some((ME, Phase::Stopping)), 1);
    assert_eq!(outcomes(&a, &stopping), []);
    assert_eq!(a.plan(at(5), &stopping, SOUND), start(Operation::Remove, 0));
    assert_eq!(outcomes(&a, &stopping), [], "not while the remove runs");
    a.finished(&tag(), Err("busy".into()), at(6), CHECK, SOUND);
    assert_eq!(outcomes(&a, &stopping), [], "a failed remove is no release");
    assert_eq!(a.plan(at(7), &stopping, SOUND), [], "retried after a while");
    assert_eq!(a.next_deadline(), Some(at(2006)));
    assert_eq!(a.plan(at(2006), &stopping, SOUND), start(Operation::Remove, 0));
    a.finished(&tag(), Ok(()), at(2007), CHECK, SOUND);
    assert_eq!(outcomes(&a, &stopping), [Outcome::Released]);
}

#[test]
fn failed_restore_cleans_up_then_reports_and_does_not_try_again_under_the_same_grant() {
    let mut a = Agent::new(ME);
    a.plan(at(0), &starting(1), SOUND);
    a.finished(&tag(), Err("no link".into()), at(1), CHECK, SOUND);
    assert_eq!(outcomes(&a, &starting(1)), []);
    assert_eq!(a.plan(at(1), &starting(1), SOUND), start(Operation::Remove, 0));
    a.finished(&tag(), Ok(()), at(2), CHECK, SOUND);
    assert_eq!(a.plan(at(2), &starting(1), SOUND), []);
    assert_eq!(outcomes(&a, &starting(1)), [Outcome::Failed { reason: "no link".into() }]);
    assert_eq!(a.plan(at(3), &starting(2), SOUND), start(Operation::Restore, 2), "a new grant is a new try");
}

#[test]
fn failed_check_recovers_here_first_and_fails_only_then() {
    let mut a = up();
    let s = state(Some((ME, Phase::InService)), 1);
    assert_eq!(a.next_deadline(), Some(at(10_000)));
    assert_eq!(a.plan(at(10_000), &s, SOUND), start(Operation::Quickcheck, 1));
    let follows = a.finished(&tag(), Err("gone".into()), at(10_001), CHECK, SOUND);
    assert_eq!(follows.into_iter().collect::<Vec<_>>(), start(Operation::Recover, 1));
    assert_eq!(a.plan(at(10_001), &s, SOUND), []);
    a.finished(&tag(), Err("still gone".into()), at(10_002), CHECK, SOUND);
    assert_eq!(a.plan(at(10_002), &s, SOUND), start(Operation::Remove, 0));
    a.finished(&tag(), Ok(()), at(10_003), CHECK, SOUND);
    assert_eq!(outcomes(&a, &s), [Outcome::Failed { reason: "still gone".into() }]);
}

#[test]
fn recovered_is_up_again() {
    let mut a = up();
    let s = state(Some((ME, Phase::InService)), 1);
    a.touched(|_| true, at(50));
    assert_eq!(a.plan(at(50), &s, SOUND), start(Operation::Quickcheck, 1), "a touched one is checked now");
    a.finished(&tag(), Err("gone".into()), at(51), CHECK, SOUND);
    a.finished(&tag(), Ok(()), at(52), CHECK, SOUND);
    assert!(a.is_up(&tag()));
    assert_eq!(outcomes(&a, &s), []);
}

#[test]
fn without_a_lease_a_guarded_node_waits_and_an_unguarded_one_takes_down() {
    let s = state(Some((ME, Phase::InService)), 1);
    let lost = Situation { lease_valid: false, ..SOUND };
    let mut guarded = up();
    assert_eq!(guarded.plan(at(60_000), &s, lost), [], "no check can mean anything now");
    let mut unguarded = up();
    let bare = Situation { guarded: false, ..lost };
    assert_eq!(unguarded.plan(at(5), &s, bare), start(Operation::Remove, 0));
    unguarded.finished(&tag(), Ok(()), at(6), CHECK, bare);
    assert_eq!(outcomes(&unguarded, &s), [], "it still owns the address");
    let back = Situation { guarded: false, ..SOUND };
    assert_eq!(unguarded.plan(at(7), &s, back), start(Operation::Restore, 1));
}

#[test]
fn check_that_failed_while_the_lease_was_lost_means_nothing() {
    let mut a = up();
    let s = state(Some((ME, Phase::InService)), 1);
    a.plan(at(10_000), &s, SOUND);
    let lost = Situation { lease_valid: false, ..SOUND };
    assert_eq!(a.finished(&tag(), Err("no answer".into()), at(10_500), CHECK, lost), None);
    assert!(a.is_up(&tag()));
}

#[test]
fn deposed_stops_everything_before_it_rejoins() {
    let mut a = up();
    let mut s = state(Some((ME, Phase::InService)), 1);
    let me = s.nodes.get_mut(&ME).expect("this node");
    (me.lease_epoch, me.standing) = (2, Standing::Deposed);
    let adopted = Situation { lease_epoch: 2, lease_valid: false, ..SOUND };
    let removing = vec![Action::Start { tag: tag(), operation: Operation::Remove, epoch: 0, lease_epoch: 2 }];
    assert_eq!(a.plan(at(5), &s, adopted), removing);
    assert_eq!(a.may_rejoin(&s, adopted), None);
    a.finished(&tag(), Ok(()), at(6), CHECK, adopted);
    assert_eq!(a.may_rejoin(&s, SOUND), None, "not before the old epoch is given up");
    assert_eq!(a.may_rejoin(&s, adopted), Some(2));
    assert_eq!(outcomes(&a, &s), [], "it has no say about what it owned");
}

#[test]
fn running_restore_is_cancelled_when_no_longer_wanted() {
    let mut a = Agent::new(ME);
    a.plan(at(0), &starting(1), SOUND);
    let elsewhere = state(Some((1, Phase::Starting)), 2);
    assert_eq!(a.plan(at(1), &elsewhere, SOUND), [Action::Cancel { tag: tag() }]);
    assert_eq!(a.plan(at(2), &elsewhere, SOUND), [], "cancelled once");
    a.finished(&tag(), Err("overtaken".into()), at(3), CHECK, SOUND);
    assert_eq!(a.plan(at(3), &elsewhere, SOUND), start(Operation::Remove, 0));
}

#[test]
fn newer_grant_without_a_stop_between_starts_from_nothing() {
    let mut a = up();
    assert_eq!(a.plan(at(5), &starting(3), SOUND), start(Operation::Remove, 0));
    a.finished(&tag(), Ok(()), at(6), CHECK, SOUND);
    assert_eq!(a.plan(at(6), &starting(3), SOUND), start(Operation::Restore, 3));
}

#[test]
fn what_an_earlier_life_left_is_adopted_or_removed() {
    let s = state(Some((ME, Phase::InService)), 4);
    let mut serving = Agent::new(ME);
    serving.found(tag(), Some(4), at(0));
    assert_eq!(serving.plan(at(0), &s, SOUND), start(Operation::Quickcheck, 4), "checked, not interrupted");
    let mut stale = Agent::new(ME);
    stale.found(tag(), Some(3), at(0));
    assert_eq!(stale.plan(at(0), &s, SOUND), start(Operation::Remove, 0));
    let mut unclear = Agent::new(ME);
    unclear.found(tag(), None, at(0));
    assert_eq!(unclear.plan(at(0), &s, SOUND), start(Operation::Remove, 0));
    unclear.finished(&tag(), Ok(()), at(1), CHECK, SOUND);
    assert_eq!(unclear.plan(at(1), &s, SOUND), start(Operation::Restore, 4));
}

#[test]
fn a_grant_of_an_earlier_life_is_made_anew_before_it_is_used() {
    let mut state = starting(4);
    let mut agent = Agent::new(ME);
    agent.begin(&state);
    assert_eq!(agent.plan(at(0), &state, SOUND), [], "a report of its failure may be on its way");
    let reports = agent.reports(&state);
    assert_eq!(reports, [Report { tag: tag(), epoch: 4, outcome: Outcome::Restarted }]);
    let answer = |state: &mut ClusterState, reports| {
        change::apply(state, &change::Change::Report { node: ME, reports })
    };
    assert_eq!(answer(&mut state, reports), change::Applied::Done);
    let late = Report { tag: tag(), epoch: 4, outcome: Outcome::Failed { reason: "earlier".into() } };
    assert!(matches!(answer(&mut state, vec![late]), change::Applied::Refused(_)));
    let start = Action::Start { tag: tag(), operation: Operation::Restore, epoch: 5, lease_epoch: 1 };
    assert_eq!(agent.plan(at(1), &state, SOUND), [start]);
}

#[test]
fn what_is_still_in_service_after_a_restart_goes_on_under_its_grant() {
    let state = state(Some((ME, Phase::InService)), 4);
    let mut agent = Agent::new(ME);
    agent.found(tag(), Some(4), at(0));
    agent.begin(&state);
    assert!(agent.reports(&state).is_empty());
    let check = Action::Start { tag: tag(), operation: Operation::Quickcheck, epoch: 4, lease_epoch: 1 };
    assert_eq!(agent.plan(at(0), &state, SOUND), [check]);
}

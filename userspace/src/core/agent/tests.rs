use std::collections::BTreeMap;

use super::*;
use crate::core::{change, sequence::Cause};
use crate::model::{Addresses, Desired, Grant, Node, NodeSettings, Placement, Resource};

const ME: NodeId = 2;
const CHECK: Duration = Duration::from_secs(10);

fn at(ms: u64) -> BootTime {
    BootTime(ms * 1_000_000)
}

fn tag() -> Tag {
    "ip-a".parse().expect("a valid tag")
}

fn addresses(last: &[u8]) -> Addresses {
    last.iter().map(|n| format!("10.0.0.{n}/24").parse::<ipnet::IpNet>().expect("an address")).collect()
}

fn failure(reason: &str) -> Failure {
    Failure { reason: reason.into(), silent: false, cause: Cause::Other, in_service: Addresses::default() }
}

fn failed(reason: &str) -> Result<(), Failure> {
    Err(failure(reason))
}

/// It failed, and is known not to answer.
fn silent(reason: &str) -> Result<(), Failure> {
    Err(Failure { silent: true, ..failure(reason) })
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
    let settings = NodeSettings::new(1, ["eth0", "eth1"].map(String::from).to_vec());
    let resource = Resource::new(tag(), addresses(&[9]), [(ME, settings)]);
    let placement = Placement {
        desired: Desired::InService { on: None },
        grant: grant.map(|(owner, phase)| Grant { owner, lease_epoch: 1, phase }),
        epoch,
        failed: BTreeMap::new(),
        deleting: false,
    };
    ClusterState {
        nodes: (1..=3).map(|id| (id, node(id))).collect(),
        resources: [(tag(), resource)].into(),
        placements: [(tag(), placement)].into(),
        ..ClusterState::default()
    }
}

fn starting(epoch: Epoch) -> ClusterState {
    state(Some((ME, Phase::Starting)), epoch)
}

/// An action without all that it is about.
#[derive(Debug, PartialEq, Eq)]
enum Did {
    Start(Operation, Epoch, LeaseEpoch),
    Cancel,
}

fn plan(a: &mut Agent, now: BootTime, state: &ClusterState, situation: Situation) -> Vec<Did> {
    let did = |action| match action {
        Action::Start(s) => Did::Start(s.operation, s.epoch, s.lease_epoch),
        Action::Cancel { .. } => Did::Cancel,
    };
    a.plan(now, state, situation).into_iter().map(did).collect()
}

/// The one sequence that is to be run.
fn one(a: &mut Agent, now: BootTime, state: &ClusterState) -> Start {
    match &a.plan(now, state, SOUND)[..] {
        [Action::Start(start)] => (**start).clone(),
        other => panic!("one sequence was expected: {other:?}"),
    }
}

fn start(operation: Operation, epoch: Epoch) -> Vec<Did> {
    vec![Did::Start(operation, epoch, 1)]
}

/// An agent that has the resource in service under epoch 1 since 0 ms.
fn up() -> Agent {
    let mut a = Agent::new(ME);
    assert_eq!(plan(&mut a, at(0), &starting(1), SOUND), start(Operation::Restore, 1));
    a.finished(&tag(), Ok(()), at(0), CHECK, SOUND);
    a
}

/// All that the state wants, on the first interface.
fn here(s: &ClusterState) -> Here {
    let resource = s.resources.get_shared(&tag()).expect("the resource");
    Here { addresses: resource.addresses().clone().into(), resource, device: "eth0".into() }
}

fn outcomes(a: &mut Agent, s: &ClusterState) -> Vec<Outcome> {
    a.reports(s, SOUND).into_iter().map(|r| r.outcome).collect()
}

#[test]
fn grant_restores_once_and_is_reported_until_noted() {
    let mut a = up();
    assert_eq!(outcomes(&mut a, &starting(1)), [Outcome::Started]);
    assert_eq!(outcomes(&mut a, &state(Some((ME, Phase::InService)), 1)), []);
}

#[test]
fn nothing_starts_before_catching_up_or_without_a_lease() {
    let mut a = Agent::new(ME);
    assert_eq!(plan(&mut a, at(0), &starting(1), Situation { caught_up: false, ..SOUND }), []);
    assert_eq!(plan(&mut a, at(0), &starting(1), Situation { lease_valid: false, ..SOUND }), []);
    assert_eq!(plan(&mut a, at(0), &starting(1), SOUND), start(Operation::Restore, 1));
    assert_eq!(plan(&mut a, at(0), &starting(1), SOUND), [], "one sequence at a time");
}

#[test]
fn release_removes_and_only_then_reports() {
    let mut a = up();
    let stopping = state(Some((ME, Phase::Stopping)), 1);
    assert_eq!(outcomes(&mut a, &stopping), []);
    assert_eq!(plan(&mut a, at(5), &stopping, SOUND), start(Operation::Remove, 0));
    assert_eq!(outcomes(&mut a, &stopping), [], "not while the remove runs");
    a.finished(&tag(), failed("busy"), at(6), CHECK, SOUND);
    assert_eq!(outcomes(&mut a, &stopping), [], "a failed remove is no release");
    assert_eq!(plan(&mut a, at(7), &stopping, SOUND), [], "retried after a while");
    assert_eq!(a.next_deadline(), Some(at(2006)));
    assert_eq!(plan(&mut a, at(2006), &stopping, SOUND), start(Operation::Remove, 0));
    a.finished(&tag(), Ok(()), at(2007), CHECK, SOUND);
    assert_eq!(outcomes(&mut a, &stopping), [Outcome::Released]);
}

#[test]
fn failed_restore_cleans_up_then_reports_and_does_not_try_again_under_the_same_grant() {
    let mut a = Agent::new(ME);
    plan(&mut a, at(0), &starting(1), SOUND);
    a.finished(&tag(), failed("no link"), at(1), CHECK, SOUND);
    assert_eq!(outcomes(&mut a, &starting(1)), []);
    assert_eq!(plan(&mut a, at(1), &starting(1), SOUND), start(Operation::Remove, 0));
    a.finished(&tag(), Ok(()), at(2), CHECK, SOUND);
    assert_eq!(plan(&mut a, at(2), &starting(1), SOUND), []);
    assert_eq!(outcomes(&mut a, &starting(1)), [Outcome::Failed { reason: "no link".into() }]);
    assert_eq!(plan(&mut a, at(3), &starting(2), SOUND), start(Operation::Restore, 2), "a new grant is a new try");
}

#[test]
fn failed_check_recovers_here_first_and_fails_only_then() {
    let mut a = up();
    let s = state(Some((ME, Phase::InService)), 1);
    assert!(a.next_deadline().is_some_and(|t| t > at(0) && t <= at(10_000)));
    assert_eq!(plan(&mut a, at(10_000), &s, SOUND), start(Operation::Quickcheck, 1));
    a.finished(&tag(), failed("gone"), at(10_001), CHECK, SOUND);
    assert_eq!(plan(&mut a, at(10_001), &s, SOUND), start(Operation::Recover, 1));
    assert_eq!(plan(&mut a, at(10_001), &s, SOUND), []);
    a.finished(&tag(), failed("still gone"), at(10_002), CHECK, SOUND);
    assert_eq!(plan(&mut a, at(10_002), &s, SOUND), start(Operation::Remove, 0));
    a.finished(&tag(), Ok(()), at(10_003), CHECK, SOUND);
    assert_eq!(outcomes(&mut a, &s), [Outcome::Failed { reason: "still gone".into() }]);
}

#[test]
fn recovered_is_up_again() {
    let mut a = up();
    let s = state(Some((ME, Phase::InService)), 1);
    a.touched(&tag(), at(50));
    assert_eq!(plan(&mut a, at(50), &s, SOUND), start(Operation::Quickcheck, 1), "a touched one is checked now");
    a.finished(&tag(), failed("gone"), at(51), CHECK, SOUND);
    assert_eq!(plan(&mut a, at(51), &s, SOUND), start(Operation::Recover, 1));
    a.finished(&tag(), Ok(()), at(52), CHECK, SOUND);
    assert!(a.is_up(&tag()));
    assert_eq!(outcomes(&mut a, &s), []);
}

#[test]
fn without_a_lease_a_guarded_node_waits_and_an_unguarded_one_takes_down() {
    let s = state(Some((ME, Phase::InService)), 1);
    let lost = Situation { lease_valid: false, ..SOUND };
    let mut guarded = up();
    assert_eq!(plan(&mut guarded, at(60_000), &s, lost), [], "no check can mean anything now");
    let mut unguarded = up();
    let bare = Situation { guarded: false, ..lost };
    assert_eq!(plan(&mut unguarded, at(5), &s, bare), start(Operation::Remove, 0));
    unguarded.finished(&tag(), Ok(()), at(6), CHECK, bare);
    assert_eq!(outcomes(&mut unguarded, &s), [], "it still owns the address");
    let back = Situation { guarded: false, ..SOUND };
    assert_eq!(plan(&mut unguarded, at(7), &s, back), start(Operation::Restore, 1));
}

#[test]
fn check_that_failed_while_the_lease_was_lost_means_nothing() {
    let mut a = up();
    let s = state(Some((ME, Phase::InService)), 1);
    plan(&mut a, at(10_000), &s, SOUND);
    let lost = Situation { lease_valid: false, ..SOUND };
    a.finished(&tag(), failed("no answer"), at(10_500), CHECK, lost);
    assert_eq!(plan(&mut a, at(10_501), &s, SOUND), []);
    assert!(a.is_up(&tag()));
}

#[test]
fn deposed_stops_everything_before_it_rejoins() {
    let mut a = up();
    let mut s = state(Some((ME, Phase::InService)), 1);
    let me = s.nodes.get_mut(&ME).expect("this node");
    (me.lease_epoch, me.standing) = (2, Standing::Deposed);
    let adopted = Situation { lease_epoch: 2, lease_valid: false, ..SOUND };
    let removing = vec![Did::Start(Operation::Remove, 0, 2)];
    assert_eq!(plan(&mut a, at(5), &s, adopted), removing);
    assert_eq!(a.may_rejoin(&s, adopted), None);
    a.finished(&tag(), Ok(()), at(6), CHECK, adopted);
    assert_eq!(a.may_rejoin(&s, SOUND), None, "not before the old epoch is given up");
    assert_eq!(a.may_rejoin(&s, adopted), Some(2));
    assert_eq!(outcomes(&mut a, &s), [], "it has no say about what it owned");
}

#[test]
fn running_restore_is_cancelled_when_no_longer_wanted() {
    let mut a = Agent::new(ME);
    plan(&mut a, at(0), &starting(1), SOUND);
    let elsewhere = state(Some((1, Phase::Starting)), 2);
    assert_eq!(plan(&mut a, at(1), &elsewhere, SOUND), [Did::Cancel]);
    assert_eq!(plan(&mut a, at(2), &elsewhere, SOUND), [], "cancelled once");
    a.finished(&tag(), failed("overtaken"), at(3), CHECK, SOUND);
    assert_eq!(plan(&mut a, at(3), &elsewhere, SOUND), start(Operation::Remove, 0));
}

#[test]
fn newer_grant_without_a_stop_between_starts_from_nothing() {
    let mut a = up();
    assert_eq!(plan(&mut a, at(5), &starting(3), SOUND), start(Operation::Remove, 0));
    a.finished(&tag(), Ok(()), at(6), CHECK, SOUND);
    assert_eq!(plan(&mut a, at(6), &starting(3), SOUND), start(Operation::Restore, 3));
}

#[test]
fn what_an_earlier_life_left_is_adopted_or_removed() {
    let s = state(Some((ME, Phase::InService)), 4);
    let mut serving = Agent::new(ME);
    serving.found(tag(), here(&s), Some(4), at(0));
    assert_eq!(plan(&mut serving, at(0), &s, SOUND), start(Operation::Quickcheck, 4), "checked, not interrupted");
    let mut stale = Agent::new(ME);
    stale.found(tag(), here(&s), Some(3), at(0));
    assert_eq!(plan(&mut stale, at(0), &s, SOUND), start(Operation::Remove, 0));
    let mut unclear = Agent::new(ME);
    unclear.found(tag(), here(&s), None, at(0));
    assert_eq!(plan(&mut unclear, at(0), &s, SOUND), start(Operation::Remove, 0));
    unclear.finished(&tag(), Ok(()), at(1), CHECK, SOUND);
    assert_eq!(plan(&mut unclear, at(1), &s, SOUND), start(Operation::Restore, 4));
}

#[test]
fn a_grant_of_an_earlier_life_is_made_anew_before_it_is_used() {
    let mut state = starting(4);
    let mut agent = Agent::new(ME);
    agent.begin(&state);
    assert_eq!(plan(&mut agent, at(0), &state, SOUND), [], "a report of its failure may be on its way");
    let reports = agent.reports(&state, SOUND);
    assert_eq!(reports, [Report { tag: tag(), epoch: 4, outcome: Outcome::Restarted }]);
    let answer = |state: &mut ClusterState, reports| {
        change::apply(state, &change::Change::Report { node: ME, reports })
    };
    assert_eq!(answer(&mut state, reports), change::Applied::Done);
    let late = Report { tag: tag(), epoch: 4, outcome: Outcome::Failed { reason: "earlier".into() } };
    assert!(matches!(answer(&mut state, vec![late]), change::Applied::Refused(_)));
    assert_eq!(plan(&mut agent, at(1), &state, SOUND), start(Operation::Restore, 5));
}

#[test]
fn what_is_still_in_service_after_a_restart_goes_on_under_its_grant() {
    let state = state(Some((ME, Phase::InService)), 4);
    let mut agent = Agent::new(ME);
    agent.found(tag(), here(&state), Some(4), at(0));
    agent.begin(&state);
    assert!(agent.reports(&state, SOUND).is_empty());
    assert_eq!(plan(&mut agent, at(0), &state, SOUND), start(Operation::Quickcheck, 4));
}

mod cloud;
mod density;
mod hierarchies;
mod recall;

use super::{DeviceHealth::*, *};
use crate::core::{
    change::{self, Outcome, Report},
    sequence::Cause,
};
use crate::model::{
    Addresses, Desired, Grant, Node, NodeSettings, Placement, Resource, Standing, Switchback, Word,
};

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
        standby: false,
        maintenance: false,
        gave_up: None,
        alone: None,
        declared_dead: false,
        declared_by: Word::default(),
    };
    let settings = NodeSettings::new(1, ["eth0", "eth1"].map(String::from).to_vec());
    let resource = Resource::new(tag(), addresses(&[9]), [(ME, settings)]);
    let placement = Placement {
        grant: grant.map(|(owner, phase)| Grant { owner, lease_epoch: 1, phase }),
        ..Placement::new(Desired::InService { on: None }, epoch)
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
    assert_eq!(
        plan(&mut a, at(3), &starting(2), SOUND),
        start(Operation::Restore, 2),
        "a new grant is a new try"
    );
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
    assert_eq!(
        plan(&mut a, at(50), &s, SOUND),
        start(Operation::Quickcheck, 1),
        "a touched one is checked now"
    );
    a.finished(&tag(), failed("gone"), at(51), CHECK, SOUND);
    assert_eq!(plan(&mut a, at(51), &s, SOUND), start(Operation::Recover, 1));
    a.finished(&tag(), Ok(()), at(52), CHECK, SOUND);
    assert!(a.is_up(&tag()));
    // It is counted, until the cluster has taken note.
    let recovered = Outcome::Recovered { count: 1, reason: "gone".into() };
    assert_eq!(outcomes(&mut a, &s), [recovered]);
    let mut noted = s.clone();
    noted.placements.get_mut(&tag()).unwrap().recoveries = 1;
    assert_eq!(outcomes(&mut a, &noted), []);
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
    assert_eq!(
        plan(&mut serving, at(0), &s, SOUND),
        start(Operation::Quickcheck, 4),
        "checked, not interrupted"
    );
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

fn devices(health: [DeviceHealth; 2]) -> Devices {
    ["eth0", "eth1"].map(String::from).into_iter().zip(health).collect()
}

/// An agent that has the resource in service on the first of two healthy interfaces, and the state.
fn on_eth0() -> (Agent, ClusterState) {
    let mut a = Agent::new(ME);
    a.set_devices(devices([Healthy, Healthy]));
    let restore = one(&mut a, at(0), &starting(1));
    assert_eq!((restore.operation, restore.target.device.as_str()), (Operation::Restore, "eth0"));
    a.finished(&tag(), Ok(()), at(0), CHECK, SOUND);
    let s = state(Some((ME, Phase::InService)), 1);
    assert_eq!(plan(&mut a, at(0), &s, SOUND), []);
    (a, s)
}

#[test]
fn a_failed_interface_is_left_at_once_and_returned_to_only_if_that_is_wished() {
    for switchback in [Switchback::Intelligent, Switchback::Automatic] {
        let (mut a, mut s) = on_eth0();
        s.resources.get_mut(&tag()).expect("the resource").switchback = switchback;
        a.set_devices(devices([Failed, Healthy]));
        let switch = one(&mut a, at(1), &s);
        assert_eq!((switch.operation, switch.epoch), (Operation::Switch, 1));
        assert_eq!(switch.target.device, "eth1");
        assert_eq!(switch.was.expect("it was here").device, "eth0");
        a.finished(&tag(), Ok(()), at(2), CHECK, SOUND);
        assert_eq!(outcomes(&mut a, &s), [], "that is nobody's business but this node's");
        assert_eq!(a.here(&tag()).map(|h| h.device.as_str()), Some("eth1"));
        a.set_devices(devices([Recovering, Healthy]));
        assert_eq!(plan(&mut a, at(3), &s, SOUND), []);
        a.set_devices(devices([Healthy, Healthy]));
        let back = plan(&mut a, at(4), &s, SOUND);
        assert_eq!(back.is_empty(), switchback == Switchback::Intelligent, "{back:?}");
    }
}

#[test]
fn a_check_gives_way_to_a_switch() {
    let (mut a, s) = on_eth0();
    a.touched(&tag(), at(1));
    assert_eq!(plan(&mut a, at(1), &s, SOUND), start(Operation::Quickcheck, 1));
    a.set_devices(devices([Failed, Healthy]));
    assert_eq!(plan(&mut a, at(2), &s, SOUND), [Did::Cancel]);
    a.finished(&tag(), failed("overtaken"), at(3), CHECK, SOUND);
    assert_eq!(plan(&mut a, at(3), &s, SOUND), start(Operation::Switch, 1));
}

#[test]
fn without_another_interface_that_works_it_is_as_without_one() {
    let (mut a, s) = on_eth0();
    a.set_devices(devices([Failed, Failed]));
    a.touched(&tag(), at(1));
    assert_eq!(plan(&mut a, at(1), &s, SOUND), start(Operation::Quickcheck, 1));
    a.finished(&tag(), failed("no carrier"), at(2), CHECK, SOUND);
    assert_eq!(plan(&mut a, at(2), &s, SOUND), start(Operation::Recover, 1));
    a.finished(&tag(), failed("no carrier"), at(3), CHECK, SOUND);
    assert_eq!(plan(&mut a, at(3), &s, SOUND), start(Operation::Remove, 0));
    a.finished(&tag(), Ok(()), at(4), CHECK, SOUND);
    assert_eq!(outcomes(&mut a, &s), [Outcome::Failed { reason: "no carrier".into() }]);
}

#[test]
fn a_failed_switch_is_recovered_and_only_then_failed() {
    let (mut a, s) = on_eth0();
    a.set_devices(devices([Failed, Healthy]));
    assert_eq!(plan(&mut a, at(1), &s, SOUND), start(Operation::Switch, 1));
    a.finished(&tag(), failed("busy"), at(2), CHECK, SOUND);
    let recover = one(&mut a, at(2), &s);
    assert_eq!((recover.operation, recover.target.device.as_str()), (Operation::Recover, "eth1"));
    a.finished(&tag(), failed("still busy"), at(3), CHECK, SOUND);
    assert_eq!(plan(&mut a, at(3), &s, SOUND), start(Operation::Remove, 0));
    a.finished(&tag(), Ok(()), at(4), CHECK, SOUND);
    assert_eq!(outcomes(&mut a, &s), [Outcome::Failed { reason: "still busy".into() }]);
}

#[test]
fn a_bring_up_that_the_interface_spoiled_is_tried_on_the_next_before_the_grant_is_given_up() {
    let mut a = Agent::new(ME);
    a.set_devices(devices([Healthy, Healthy]));
    let deaf = || Err(Failure { cause: Cause::Interface, ..failure("nobody answers") });
    for device in ["eth0", "eth1"] {
        let restore = one(&mut a, at(1), &starting(1));
        assert_eq!((restore.operation, restore.target.device.as_str()), (Operation::Restore, device));
        a.finished(&tag(), deaf(), at(2), CHECK, SOUND);
        assert_eq!(plan(&mut a, at(2), &starting(1), SOUND), start(Operation::Remove, 0));
        a.finished(&tag(), Ok(()), at(3), CHECK, SOUND);
    }
    assert_eq!(plan(&mut a, at(4), &starting(1), SOUND), []);
    assert_eq!(outcomes(&mut a, &starting(1)), [Outcome::Failed { reason: "nobody answers".into() }]);
}

#[test]
fn addresses_change_in_service_and_a_failure_of_that_is_no_failover() {
    let (mut a, mut s) = on_eth0();
    let set = |s: &mut ClusterState, last: &[u8]| {
        let change = change::Change::SetAddresses { tag: tag(), addresses: addresses(last) };
        assert_eq!(change::apply(s, &change), change::Applied::Done);
    };
    set(&mut s, &[10, 11]);
    let amend = one(&mut a, at(1), &s);
    assert_eq!((amend.operation, amend.epoch), (Operation::Amend, 1));
    assert_eq!(*amend.target.addresses, addresses(&[10, 11]));
    assert_eq!(*amend.was.expect("it was here").addresses, addresses(&[9]));
    assert_eq!(a.here(&tag()).map(|h| &*h.addresses), Some(&addresses(&[9, 10, 11])), "all may be here");
    let partly = Failure { in_service: addresses(&[9, 10]), ..failure("11 is in use") };
    a.finished(&tag(), Err(partly), at(2), CHECK, SOUND);
    assert_eq!(plan(&mut a, at(3), &s, SOUND), [], "not at once");
    set(&mut s, &[9, 10]);
    let again = one(&mut a, at(2002), &s);
    assert_eq!(again.operation, Operation::Amend);
    assert_eq!(*again.was.expect("it was here").addresses, addresses(&[9, 10]));
    assert_eq!(outcomes(&mut a, &s), [], "the earlier failure says nothing of this change");
    a.finished(&tag(), Ok(()), at(2003), CHECK, SOUND);
    let amended = Outcome::Amended { alterations: 2, gone: addresses(&[11]).hosts(), trouble: None };
    assert_eq!(outcomes(&mut a, &s), [amended]);
    // Due meanwhile.
    let check = one(&mut a, at(2004), &s);
    assert_eq!((check.operation, &*check.target.addresses), (Operation::Quickcheck, &addresses(&[9, 10])));
}

#[test]
fn what_became_of_a_change_is_said_once() {
    let (mut a, mut s) = on_eth0();
    let change = change::Change::SetAddresses { tag: tag(), addresses: addresses(&[9, 10]) };
    assert_eq!(change::apply(&mut s, &change), change::Applied::Done);
    let note = |a: &mut Agent, s: &mut ClusterState| {
        let reports = a.reports(s, SOUND);
        let outcomes: Vec<Outcome> = reports.iter().map(|r| r.outcome.clone()).collect();
        if !reports.is_empty() {
            let change = change::Change::Report { node: ME, reports };
            assert_eq!(change::apply(s, &change), change::Applied::Done);
        }
        outcomes
    };
    let amended = |trouble: Option<&str>| {
        let trouble = trouble.map(str::to_owned);
        vec![Outcome::Amended { alterations: 1, gone: Default::default(), trouble }]
    };
    let partly = || Err(Failure { in_service: addresses(&[9]), ..failure("10 is in use") });
    assert_eq!(note(&mut a, &mut s), []);
    assert_eq!(one(&mut a, at(1), &s).operation, Operation::Amend);
    assert_eq!(note(&mut a, &mut s), [], "not yet");
    a.finished(&tag(), partly(), at(2), CHECK, SOUND);
    assert_eq!(note(&mut a, &mut s), amended(Some("10 is in use")));
    assert_eq!(note(&mut a, &mut s), [], "it is known");
    // The same again, then what the end of the lease spoils, then success.
    assert_eq!(one(&mut a, at(2002), &s).operation, Operation::Amend);
    a.finished(&tag(), partly(), at(2003), CHECK, SOUND);
    assert_eq!(note(&mut a, &mut s), []);
    assert_eq!(one(&mut a, at(6003), &s).operation, Operation::Amend);
    let lapsed = Situation { lease_valid: false, ..SOUND };
    a.finished(&tag(), failed("nobody answers"), at(6004), CHECK, lapsed);
    assert_eq!(note(&mut a, &mut s), []);
    let check = one(&mut a, at(10_001), &s);
    assert_eq!(check.operation, Operation::Quickcheck);
    a.finished(&tag(), Ok(()), at(10_002), CHECK, SOUND);
    assert_eq!(one(&mut a, at(14_004), &s).operation, Operation::Amend);
    a.finished(&tag(), Ok(()), at(14_005), CHECK, SOUND);
    assert_eq!(note(&mut a, &mut s), amended(None));
    assert_eq!(note(&mut a, &mut s), []);
}

#[test]
fn what_is_checked_while_a_change_failed_is_what_must_be_there_all_the_same() {
    let (mut a, mut s) = on_eth0();
    let change = change::Change::SetAddresses { tag: tag(), addresses: addresses(&[9, 10]) };
    assert_eq!(change::apply(&mut s, &change), change::Applied::Done);
    assert_eq!(plan(&mut a, at(1), &s, SOUND), start(Operation::Amend, 1));
    assert_eq!(outcomes(&mut a, &s), [], "nothing is known to be gone");
    a.finished(&tag(), failed("broken off"), at(2), CHECK, SOUND);
    a.touched(&tag(), at(3));
    let check = one(&mut a, at(3), &s);
    assert_eq!((check.operation, &*check.target.addresses), (Operation::Quickcheck, &addresses(&[9])));
    a.finished(&tag(), failed("gone"), at(4), CHECK, SOUND);
    // Recovery would know only of what is wanted: all that may be here goes first.
    let change = change::Change::SetAddresses { tag: tag(), addresses: addresses(&[10]) };
    assert_eq!(change::apply(&mut s, &change), change::Applied::Done);
    let remove = one(&mut a, at(4), &s);
    assert_eq!((remove.operation, &*remove.target.addresses), (Operation::Remove, &addresses(&[9, 10])));
    a.finished(&tag(), Ok(()), at(5), CHECK, SOUND);
    let restore = one(&mut a, at(5), &s);
    assert_eq!((restore.operation, &*restore.target.addresses), (Operation::Restore, &addresses(&[10])));
}

#[test]
fn what_cannot_be_removed_but_is_silent_is_given_up_and_cleaned_up_all_the_same() {
    let mut a = up();
    let stopping = state(Some((ME, Phase::Stopping)), 1);
    assert_eq!(plan(&mut a, at(1), &stopping, SOUND), start(Operation::Remove, 0));
    a.finished(&tag(), silent("cannot delete it"), at(2), CHECK, SOUND);
    assert_eq!(outcomes(&mut a, &stopping), [Outcome::Released]);
    let bare = Situation { guarded: false, ..SOUND };
    assert_eq!(a.reports(&stopping, bare), [], "a shut gate that no kernel enforces is worth nothing");
    // Elsewhere, and back here before it is clean: it can't be used, and that is said.
    let elsewhere = state(Some((1, Phase::InService)), 2);
    assert_eq!(plan(&mut a, at(3), &elsewhere, SOUND), []);
    let back = starting(3);
    assert_eq!(plan(&mut a, at(4), &back, SOUND), []);
    assert_eq!(outcomes(&mut a, &back), [Outcome::Failed { reason: "cannot delete it".into() }]);
    assert_eq!(plan(&mut a, at(2002), &back, SOUND), start(Operation::Remove, 0));
    assert_eq!(outcomes(&mut a, &back).len(), 1, "silent while it is tried again");
    a.finished(&tag(), Ok(()), at(2003), CHECK, SOUND);
    assert_eq!(plan(&mut a, at(2004), &back, SOUND), [], "what was said to have failed is not used");
    assert_eq!(plan(&mut a, at(2005), &starting(4), SOUND), start(Operation::Restore, 4));
}

#[test]
fn silent_leftovers_do_not_keep_a_node_from_rejoining() {
    let mut a = up();
    let mut s = state(Some((ME, Phase::InService)), 1);
    let me = s.nodes.get_mut(&ME).expect("this node");
    (me.lease_epoch, me.standing) = (2, Standing::Deposed);
    let adopted = Situation { lease_epoch: 2, lease_valid: false, ..SOUND };
    plan(&mut a, at(5), &s, adopted);
    a.finished(&tag(), silent("cannot delete it"), at(6), CHECK, adopted);
    assert_eq!(a.may_rejoin(&s, Situation { guarded: false, ..adopted }), None);
    assert_eq!(a.may_rejoin(&s, adopted), Some(2));
    assert_eq!(a.reports(&s, adopted), [], "it has no say about what it owned");
}

#[test]
fn what_was_found_with_other_addresses_is_amended_without_an_outage() {
    let s = state(Some((ME, Phase::InService)), 4);
    let mut a = Agent::new(ME);
    let found = Here { addresses: addresses(&[8, 9]).into(), device: "eth1".into(), ..here(&s) };
    a.set_devices(devices([Healthy, Healthy]));
    a.found(tag(), found, Some(4), at(0));
    a.begin(&s);
    let amend = one(&mut a, at(0), &s);
    assert_eq!((amend.operation, amend.target.device.as_str()), (Operation::Amend, "eth1"));
    assert_eq!(*amend.was.expect("it was here").addresses, addresses(&[8, 9]));
}

#[test]
fn disabling_restore_and_recover_takes_nothing_down() {
    let (mut a, mut s) = on_eth0();
    let settings = |s: &mut ClusterState, on| {
        let change = change::Change::Set {
            tag: tag(),
            node: Some(ME),
            setting: change::Setting::RestoreAndRecover(on),
        };
        assert_eq!(change::apply(s, &change), change::Applied::Done);
    };
    settings(&mut s, false);
    a.set_devices(devices([Failed, Healthy]));
    assert_eq!(plan(&mut a, at(1), &s, SOUND), [], "nor is it moved");
    let check = one(&mut a, at(10_000), &s);
    let of_me = |start: &Start| start.target.resource.nodes[&ME].restore_and_recover;
    assert_eq!((check.operation, of_me(&check)), (Operation::Quickcheck, false));
    a.finished(&tag(), Ok(()), at(10_001), CHECK, SOUND);
    assert!(a.is_up(&tag()));
    settings(&mut s, true);
    a.set_devices(devices([Healthy, Healthy]));
    let check = one(&mut a, at(20_001), &s);
    assert_eq!((check.operation, of_me(&check)), (Operation::Quickcheck, true));
}

//! Resources of EC2 on one node: what they follow, and what silence means.

use super::*;
use crate::model::{Cloud, Ec2Eip, Ec2Route, Kind};

fn route() -> Tag {
    "ec2-ip-a".parse().expect("a valid tag")
}

/// The IP resource and the route that follows it, both in that phase.
fn both(phase: Phase, epoch: Epoch) -> ClusterState {
    let mut s = state(Some((ME, phase)), epoch);
    let kind = Kind::Ec2Route(Ec2Route { ip: tag(), region: None });
    let mut parent = Resource::of_kind(route(), kind, [(ME, NodeSettings::new(1, vec![]))]);
    parent.children = [tag()].into();
    s.resources.get_mut(&tag()).unwrap().parents = [route()].into();
    s.resources.insert(route(), parent);
    let placement = s.placements[&tag()].clone();
    s.placements.insert(route(), placement);
    s
}

/// The one sequence that is to be run, of that resource.
fn only(a: &mut Agent, now: BootTime, s: &ClusterState, of: &Tag) -> Start {
    let start = one(a, now, s);
    assert_eq!(start.tag, *of);
    start
}

/// Both are in service since 0 ms.
fn serving() -> Agent {
    let mut a = Agent::new(ME);
    let s = both(Phase::Starting, 1);
    only(&mut a, at(0), &s, &tag());
    a.finished(&tag(), Ok(()), at(0), CHECK, SOUND);
    let start = only(&mut a, at(0), &s, &route());
    assert_eq!(start.operation, Operation::Restore);
    assert!(matches!(start.target.resource.cloud(), Some(Cloud::Route(_))));
    assert_eq!((*start.target.addresses).clone(), addresses(&[9]));
    assert_eq!(start.target.device, "eth0");
    a.finished(&route(), Ok(()), at(0), CHECK, SOUND);
    a
}

fn unanswered() -> Result<(), Failure> {
    Err(Failure { cause: Cause::Unanswered, ..failure("silent") })
}

#[test]
fn a_route_starts_after_its_ip_resource_with_what_that_has() {
    let mut a = serving();
    let mut reports = a.reports(&both(Phase::Starting, 1), SOUND);
    reports.sort_by(|x, y| x.tag.cmp(&y.tag));
    let said: Vec<_> = reports.into_iter().map(|r| (r.tag, r.outcome)).collect();
    assert_eq!(said, [(route(), Outcome::Started), (tag(), Outcome::Started)]);
}

#[test]
fn checks_come_close_at_first_and_then_at_the_interval() {
    let (mut a, s) = (serving(), both(Phase::InService, 1));
    let mut now = 0;
    for pause in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
        let early = a.plan(at(now + pause - 1), &s, SOUND);
        assert!(early.iter().all(|x| matches!(x, Action::Start(s) if s.tag != route())), "{early:?}");
        for start in early {
            let Action::Start(start) = start else { unreachable!() };
            a.finished(&start.tag, Ok(()), at(now + pause - 1), CHECK, SOUND);
        }
        now += pause;
        let due = a.plan(at(now), &s, SOUND);
        let of_route = |x: &&Action| matches!(x, Action::Start(s) if s.tag == route());
        assert_eq!(due.iter().filter(of_route).count(), 1, "at {now}");
        for start in due {
            let Action::Start(start) = start else { unreachable!() };
            a.finished(&start.tag, Ok(()), at(now), CHECK, SOUND);
        }
    }
}

#[test]
fn it_follows_its_ip_resource_to_another_interface() {
    let (mut a, s) = (serving(), both(Phase::InService, 1));
    a.set_devices([("eth0".to_owned(), Failed), ("eth1".to_owned(), Healthy)].into());
    // At the same time: neither is of use without the other.
    let starts = a.plan(at(5), &s, SOUND);
    let said: Vec<_> = starts
        .iter()
        .map(|x| match x {
            Action::Start(s) => (s.tag.clone(), s.operation, s.target.device.as_str()),
            Action::Cancel { tag } => panic!("{tag} is broken off"),
        })
        .collect();
    assert_eq!(said, [(tag(), Operation::Switch, "eth1"), (route(), Operation::Switch, "eth1")]);
    a.finished(&tag(), Ok(()), at(6), CHECK, SOUND);
    a.finished(&route(), Ok(()), at(7), CHECK, SOUND);
    assert!(a.plan(at(7), &s, SOUND).is_empty());
    assert_eq!(a.here(&route()).unwrap().device, "eth1");
}

#[test]
fn it_follows_its_ip_resource_to_other_addresses() {
    let (mut a, mut s) = (serving(), both(Phase::InService, 1));
    s.resources.get_mut(&tag()).unwrap().ip_mut().unwrap().addresses = addresses(&[9, 10]);
    let starts = a.plan(at(5), &s, SOUND);
    let mut seen: Vec<_> = starts
        .iter()
        .map(|x| match x {
            Action::Start(s) => (s.tag.clone(), s.operation, s.target.addresses.count()),
            Action::Cancel { tag } => panic!("{tag} is broken off"),
        })
        .collect();
    seen.sort_by(|x, y| x.0.cmp(&y.0));
    a.finished(&tag(), Ok(()), at(6), CHECK, SOUND);
    a.finished(&route(), Ok(()), at(7), CHECK, SOUND);
    assert_eq!(seen, [(route(), Operation::Amend, 2), (tag(), Operation::Amend, 2)]);
    assert_eq!(*a.here(&route()).unwrap().addresses, addresses(&[9, 10]));
}

#[test]
fn a_wrong_target_is_mended_here_and_only_a_refusal_gives_it_away() {
    let (mut a, s) = (serving(), both(Phase::InService, 1));
    a.touched(&route(), at(10));
    assert_eq!(only(&mut a, at(10), &s, &route()).operation, Operation::Quickcheck);
    a.finished(&route(), failed("it leads to eni-x"), at(11), CHECK, SOUND);
    assert_eq!(only(&mut a, at(11), &s, &route()).operation, Operation::Recover);
    // The API does not answer: nobody would know more.
    a.finished(&route(), unanswered(), at(12), CHECK, SOUND);
    assert!(a.is_up(&route()));
    assert!(a.plan(at(12), &s, SOUND).is_empty() && a.reports(&s, SOUND).is_empty());
    a.touched(&route(), at(20));
    assert_eq!(only(&mut a, at(20), &s, &route()).operation, Operation::Quickcheck);
    a.finished(&route(), failed("it leads to eni-x"), at(21), CHECK, SOUND);
    assert_eq!(only(&mut a, at(21), &s, &route()).operation, Operation::Recover);
    a.finished(&route(), failed("not permitted"), at(22), CHECK, SOUND);
    assert_eq!(only(&mut a, at(22), &s, &route()).operation, Operation::Remove);
    a.finished(&route(), Ok(()), at(23), CHECK, SOUND);
    let reports = a.reports(&s, SOUND);
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!(report.outcome, Outcome::Failed { reason: "not permitted".into() });
    assert!(a.is_up(&tag()));
}

#[test]
fn a_recovery_that_had_nothing_to_mend_is_counted_nowhere() {
    let (mut a, mut s) = (serving(), both(Phase::InService, 1));
    let recovered = |a: &mut Agent, s: &ClusterState, now, mended| {
        a.touched(&route(), at(now));
        assert_eq!(only(a, at(now), s, &route()).operation, Operation::Quickcheck);
        a.finished(&route(), failed("it leads to eni-x"), at(now + 1), CHECK, SOUND);
        assert_eq!(only(a, at(now + 1), s, &route()).operation, Operation::Recover);
        a.learned(&route(), CloudReport { answered: true, mended, ..CloudReport::default() });
        a.finished(&route(), Ok(()), at(now + 2), CHECK, SOUND);
        a.reports(s, SOUND).into_iter().map(|r| r.outcome).collect::<Vec<_>>()
    };
    for n in 0..5 {
        assert_eq!(recovered(&mut a, &s, 10 * n + 10, false), []);
        assert!(a.is_up(&route()) && a.plan(at(10 * n + 15), &s, SOUND).is_empty());
    }
    let reason = "it leads to eni-x".to_owned();
    assert_eq!(recovered(&mut a, &s, 100, true), [Outcome::Recovered { count: 1, reason }]);
    s.placements.get_mut(&route()).unwrap().recoveries = 1;
    assert_eq!(recovered(&mut a, &s, 110, false), [], "what was learned once is of that one");
}

#[test]
fn who_cannot_be_taken_off_is_tried_again_after_growing_pauses() {
    let (mut a, s) = (serving(), both(Phase::InService, 1));
    let strangers = Strangers { associations: ["eipassoc-1".to_owned()].into(), why: "not permitted".into() };
    let seen =
        || CloudReport { answered: true, strangers: Some(strangers.clone()), ..CloudReport::default() };
    let check = |a: &mut Agent, now| {
        a.touched(&route(), at(now));
        let starts = a.plan(at(now), &s, SOUND).into_iter().filter_map(|x| match x {
            Action::Start(start) => Some(*start),
            Action::Cancel { .. } => None,
        });
        let mut of_route = None;
        for start in starts {
            if start.tag == route() {
                of_route = Some(start);
            } else {
                a.finished(&start.tag, Ok(()), at(now), CHECK, SOUND);
            }
        }
        let start = of_route.expect("it is checked");
        assert_eq!(start.operation, Operation::Quickcheck);
        start.borne
    };
    let mut now = 10;
    for pause in [10_000, 20_000, 40_000, 80_000] {
        assert_eq!(check(&mut a, now), None);
        a.finished(&route(), failed("eni-here has another"), at(now), CHECK, SOUND);
        assert_eq!(only(&mut a, at(now), &s, &route()).operation, Operation::Recover);
        a.learned(&route(), seen());
        a.finished(&route(), Ok(()), at(now), CHECK, SOUND);
        for early in [1, pause - 1] {
            assert_eq!(check(&mut a, now + early).as_ref(), Some(&strangers));
            a.learned(&route(), seen());
            a.finished(&route(), Ok(()), at(now + early), CHECK, SOUND);
        }
        assert_eq!(a.reports(&s, SOUND), [], "nothing was mended");
        now += pause;
    }
}

#[test]
fn where_events_were_lost_ec2_is_not_asked_for_it() {
    let (mut a, s) = (serving(), both(Phase::InService, 1));
    a.all_touched(at(10));
    assert_eq!(only(&mut a, at(10), &s, &tag()).operation, Operation::Quickcheck);
    a.finished(&tag(), Ok(()), at(11), CHECK, SOUND);
    assert!(a.plan(at(11), &s, SOUND).is_empty());
    a.touched(&route(), at(12));
    assert_eq!(only(&mut a, at(12), &s, &route()).operation, Operation::Quickcheck);
}

#[test]
fn what_was_overtaken_has_not_failed() {
    let mut a = Agent::new(ME);
    let s = both(Phase::Starting, 1);
    only(&mut a, at(0), &s, &tag());
    a.finished(&tag(), Ok(()), at(0), CHECK, SOUND);
    only(&mut a, at(0), &s, &route());
    let overtaken = Failure { cause: Cause::Overtaken, ..failure("the lease has run out") };
    a.finished(&route(), Err(overtaken), at(1), CHECK, SOUND);
    assert_eq!(only(&mut a, at(1), &s, &route()).operation, Operation::Remove);
    a.finished(&route(), Ok(()), at(2), CHECK, SOUND);
    // The grant holds all the same: once more.
    assert_eq!(only(&mut a, at(2), &s, &route()).operation, Operation::Restore);
}

#[test]
fn an_elastic_ip_that_could_not_be_taken_off_keeps_nobody_waiting() {
    let eip = || Kind::Ec2Eip(Ec2Eip { address: [198, 51, 100, 7].into(), region: None });
    let with = |phase| {
        let mut s = state(Some((ME, phase)), 1);
        s.resources.get_mut(&tag()).unwrap().kind = eip();
        s
    };
    // No kernel has a part in it.
    for guarded in [true, false] {
        let situation = Situation { guarded, ..SOUND };
        let mut a = Agent::new(ME);
        assert_eq!(plan(&mut a, at(0), &with(Phase::Starting), situation), start(Operation::Restore, 1));
        a.finished(&tag(), Ok(()), at(0), CHECK, situation);
        let stopping = with(Phase::Stopping);
        assert_eq!(plan(&mut a, at(1), &stopping, situation), start(Operation::Remove, 0));
        a.finished(&tag(), silent("EC2 is silent"), at(2), CHECK, situation);
        let said: Vec<_> = a.reports(&stopping, situation).into_iter().map(|r| r.outcome).collect();
        assert_eq!(said, [Outcome::Released], "guarded: {guarded}");
        // It is tried again, until it is off, or wanted here once more.
        assert_eq!(plan(&mut a, at(2_002), &stopping, situation), start(Operation::Remove, 0));
        a.finished(&tag(), silent("EC2 is silent"), at(2_003), CHECK, situation);
        let mut again = with(Phase::Starting);
        again.placements.get_mut(&tag()).unwrap().epoch = 2;
        assert_eq!(a.reports(&again, situation), [], "guarded: {guarded}");
        assert_eq!(plan(&mut a, at(2_004), &again, situation), start(Operation::Restore, 2));
        a.finished(&tag(), Ok(()), at(2_005), CHECK, situation);
        let said: Vec<_> = a.reports(&again, situation).into_iter().map(|r| r.outcome).collect();
        assert_eq!(said, [Outcome::Started]);
    }
}

#[test]
fn a_fight_over_it_is_fought_at_the_interval_and_no_faster() {
    let (mut a, s) = (serving(), both(Phase::InService, 1));
    let (mut now, mut recoveries) = (0, 0);
    // Somebody takes it away each time.
    while now < 600_000 {
        let starts = a.plan(at(now), &s, SOUND);
        for start in &starts {
            let Action::Start(start) = start else { panic!("nothing is broken off") };
            let taken = start.tag == route() && start.operation == Operation::Quickcheck;
            recoveries += u32::from(start.operation == Operation::Recover);
            a.finished(
                &start.tag,
                if taken { failed("it leads to eni-x") } else { Ok(()) },
                at(now),
                CHECK,
                SOUND,
            );
        }
        if starts.is_empty() {
            now += 100;
        }
    }
    let intervals = 600_000 / u32::try_from(CHECK.as_millis()).unwrap();
    assert!((intervals / 2..=intervals + 4).contains(&recoveries), "{recoveries} in {intervals} intervals");
}

mod laws;
mod world;

use std::{sync::Arc, time::Duration};

use self::world::{Fate, Run, World, eip, table};
use super::*;
use crate::core::{
    command::LinkState,
    sequence::{Cause, Failure},
};

const EIP: [u8; 4] = [198, 51, 100, 7];

fn context(goal: Goal) -> CloudContext {
    CloudContext {
        goal,
        region: None,
        device: "eth0".into(),
        others: Vec::new(),
        left_to: None,
        restore_and_recover: true,
        borne: None,
        no_link_check: false,
        tunables: Ec2Tunables::default(),
    }
}

fn routes(addresses: &[&str]) -> CloudContext {
    let addresses: Addresses =
        addresses.iter().map(|a| format!("{a}/32").parse::<ipnet::IpNet>().unwrap()).collect();
    context(Goal::Routes(Arc::new(addresses)))
}

fn elastic() -> CloudContext {
    context(Goal::Eip(EIP.into()))
}

fn run(world: &mut World, verb: Verb, context: CloudContext, fates: &[Fate]) -> Run {
    world.run(&mut CloudSequence::new(verb, context), fates, 200)
}

fn failed(run: &Run) -> &Failure {
    run.result.as_ref().expect_err("it failed")
}

fn writes(run: &Run) -> Vec<&Ask> {
    run.asked.iter().filter(|ask| ask.writes()).collect()
}

fn two_zones() -> World {
    let other = ("10.9.0.6/32", "eni-other");
    World::new(
        vec![
            table("rtb-1", &[("10.9.0.5/32", "eni-old"), other]),
            table("rtb-2", &[("10.9.0.5/32", "eni-here")]),
            table("rtb-3", &[other]),
        ],
        Vec::new(),
    )
}

#[test]
fn only_wrong_entries_of_the_address_are_written_and_read_back() {
    let mut world = two_zones();
    let before = world.clone();
    let run = run(&mut world, Verb::Restore, routes(&["10.9.0.5"]), &[]);
    assert_eq!(run.result, Ok(()));
    let entry = Entry { table: "rtb-1".into(), destination: "10.9.0.5/32".parse().unwrap() };
    assert_eq!(writes(&run), [&Ask::ReplaceRoutes { entries: vec![entry], interface: "eni-here".into() }]);
    assert!(!run.asked.last().unwrap().writes(), "it was read back");
    assert_eq!(world.tables[0].routes[0].target, "eni-here");
    assert_eq!(world.tables[0].routes[1], before.tables[0].routes[1]);
    assert_eq!(world.tables[1..], before.tables[1..]);
    assert_eq!(run.report.targets, ["rtb-1: 1 route leads here", "rtb-2: 1 route leads here"]);
    assert_eq!(run.report.interface.as_deref(), Some("eni-here"));
}

#[test]
fn what_is_right_is_not_written() {
    let mut world =
        World::new(vec![table("rtb-1", &[("10.9.0.5/32", "eni-here")])], vec![eip(EIP, Some("eni-here"))]);
    for context in [routes(&["10.9.0.5"]), elastic()] {
        for verb in [Verb::Restore, Verb::Recover, Verb::Switch, Verb::Amend, Verb::Quickcheck] {
            let run = run(&mut world, verb, context.clone(), &[]);
            assert_eq!((run.result.clone(), writes(&run).len()), (Ok(()), 0), "{verb:?}");
        }
    }
}

#[test]
fn only_a_recovery_that_changed_something_has_mended_it() {
    let mut world = two_zones();
    assert!(run(&mut world, Verb::Recover, routes(&["10.9.0.5"]), &[]).report.mended);
    // The check before it saw a copy that was behind.
    let again = run(&mut world, Verb::Recover, routes(&["10.9.0.5"]), &[]);
    assert_eq!((again.result.clone(), again.report.mended), (Ok(()), false));
    // An answer that got lost may have been to what was done.
    let lost = [Fate::Fine, Fate::Fine, Fate::Lost];
    assert!(run(&mut two_zones(), Verb::Recover, routes(&["10.9.0.5"]), &lost).report.mended);
    let mut world = World::new(Vec::new(), vec![eip(EIP, Some("eni-old"))]);
    assert!(run(&mut world, Verb::Recover, elastic(), &[]).report.mended);
    assert!(!run(&mut world, Verb::Recover, elastic(), &[]).report.mended);
    // What may not be done has changed nothing.
    let both = vec![eip(EIP, Some("eni-here")), eip([203, 0, 113, 9], Some("eni-here"))];
    let denied = [Fate::Fine, Fate::Fine, Fate::Fine, Fate::Denied];
    let denied = run(&mut World::new(Vec::new(), both), Verb::Recover, elastic(), &denied);
    assert_eq!((denied.result.clone(), denied.report.mended), (Ok(()), false));
}

#[test]
fn a_success_that_was_none_is_found_out_and_the_write_repeated_so_often() {
    let mut world = two_zones();
    // Interface, tables, the write.
    let lie = [Fate::Fine, Fate::Fine, Fate::Lie];
    let once = run(&mut world, Verb::Restore, routes(&["10.9.0.5"]), &lie);
    assert_eq!((once.result.clone(), writes(&once).len()), (Ok(()), 2));

    let mut world = two_zones();
    let always = [Fate::Lie; 150];
    let never = run(&mut world, Verb::Restore, routes(&["10.9.0.5"]), &always);
    let Failure { reason, silent, cause, .. } = failed(&never);
    assert_eq!((*silent, *cause, writes(&never).len()), (false, Cause::Other, 4));
    assert!(reason.contains("written 4 times, and still 10.9.0.5/32 in rtb-1 leads to eni-old"), "{reason}");
}

#[test]
fn a_write_that_is_seen_only_later_is_waited_for() {
    // The first look after a write, and the one after the first pause, see what was before.
    for context in [routes(&["10.9.0.5"]), elastic()] {
        let mut world = World::new(two_zones().tables, vec![eip(EIP, Some("eni-old"))]);
        world.lag = 2;
        let late = run(&mut world, Verb::Restore, context.clone(), &[]);
        assert_eq!(late.result, Ok(()), "{:?}", late.asked);
        let pauses = |run: &Run| run.asked.iter().filter(|ask| matches!(ask, Ask::Pause { .. })).count();
        assert!(pauses(&late) >= 1, "{:?}", late.asked);
        // Nothing is written twice without such a pause, and one that is enough is all there is.
        world = World::new(two_zones().tables, vec![eip(EIP, Some("eni-old"))]);
        world.lag = 1;
        let soon = run(&mut world, Verb::Restore, context.clone(), &[]);
        let of_route = matches!(context.goal, Goal::Routes(_));
        assert_eq!(
            (soon.result.clone(), pauses(&soon), writes(&soon).len()),
            (Ok(()), 1, if of_route { 1 } else { 2 })
        );
    }
    let mut world = World::new(Vec::new(), vec![eip(EIP, Some("eni-here"))]);
    world.lag = 1;
    let gone = run(&mut world, Verb::Remove, elastic(), &[]);
    assert_eq!((gone.result.clone(), writes(&gone).len()), (Ok(()), 1));
}

#[test]
fn a_recovery_that_ends_before_its_first_answer_has_met_silence() {
    for steps in 0..3 {
        let mut sequence = CloudSequence::new(Verb::Recover, routes(&["10.9.0.5"]));
        let late = two_zones().run(&mut sequence, &[], steps);
        assert!(late.overran, "{late:?}");
        let Failure { reason, cause, .. } = failed(&late);
        assert_eq!(*cause, Cause::Unanswered, "{reason}");
        assert!(reason.contains("EC2 has not answered"), "{reason}");
    }
    // What was answered, and wrongly, to the last is another matter.
    let tunables = Ec2Tunables { max_retry: 100, ..Ec2Tunables::default() };
    let lies = [Fate::Lie; 150];
    let mut sequence = CloudSequence::new(Verb::Recover, CloudContext { tunables, ..routes(&["10.9.0.5"]) });
    // Interface, tables, the write, interface, tables, and the pause.
    let false_to_the_last = two_zones().run(&mut sequence, &lies, 5);
    assert_eq!(failed(&false_to_the_last).cause, Cause::Other, "{false_to_the_last:?}");
}

#[test]
fn what_was_seen_before_a_silence_is_no_news_and_that_there_is_nothing_is() {
    let fates = [Fate::Fine, Fate::Fine, Fate::Silent, Fate::Silent];
    let mut sequence = CloudSequence::new(Verb::Recover, routes(&["10.9.0.5"]));
    let silent = two_zones().run(&mut sequence, &fates, 5);
    assert!(silent.overran && !silent.report.answered && silent.report.targets.is_empty(), "{silent:?}");
    let none = run(&mut two_zones(), Verb::Quickcheck, routes(&["10.9.0.9"]), &[]);
    assert!(none.report.answered && none.report.targets.is_empty(), "{none:?}");
}

#[test]
fn a_lost_answer_is_no_failure_where_the_write_was_done() {
    let mut world = two_zones();
    let lost = run(&mut world, Verb::Restore, routes(&["10.9.0.5"]), &[Fate::Fine, Fate::Fine, Fate::Lost]);
    assert_eq!((lost.result.clone(), writes(&lost).len()), (Ok(()), 1));
    assert!(
        lost.notes
            .iter()
            .any(|n| n.kind == "restore.ec2-again" && n.message.contains("10.9.0.5/32 in rtb-1"))
    );
}

#[test]
fn a_table_that_fails_is_named_and_only_it_is_written_again() {
    let mut world = World::new(
        vec![table("rtb-1", &[("10.9.0.5/32", "eni-a")]), table("rtb-2", &[("10.9.0.5/32", "eni-b")])],
        Vec::new(),
    );
    let fates = [Fate::Fine, Fate::Fine, Fate::Fine, Fate::Throttled];
    let run = run(&mut world, Verb::Restore, routes(&["10.9.0.5"]), &fates);
    assert_eq!(run.result, Ok(()));
    let again = run.notes.iter().find(|n| n.kind == "restore.ec2-again").expect("it is told");
    assert!(again.message.contains("rtb-2") && !again.message.contains("rtb-1"), "{}", again.message);
    let second = Entry { table: "rtb-2".into(), destination: "10.9.0.5/32".parse().unwrap() };
    assert_eq!(*writes(&run)[1], Ask::ReplaceRoutes { entries: vec![second], interface: "eni-here".into() });
}

#[test]
fn a_bring_up_waits_for_a_silent_api_to_its_limit_with_growing_pauses() {
    let mut world = two_zones();
    let fates = [Fate::Silent, Fate::Throttled, Fate::Silent, Fate::Fine, Fate::Silent];
    let late = run(&mut world, Verb::Restore, routes(&["10.9.0.5"]), &fates);
    assert_eq!(late.result, Ok(()));
    let pauses: Vec<u64> = late
        .asked
        .iter()
        .filter_map(|ask| if let Ask::Pause { about } = ask { Some(about.as_secs()) } else { None })
        .collect();
    assert_eq!(pauses, [1, 2, 4, 8]);

    let never = run(&mut two_zones(), Verb::Restore, routes(&["10.9.0.5"]), &[Fate::Silent; 300]);
    assert!(never.overran);
    let Failure { reason, cause, .. } = failed(&never);
    assert_eq!(*cause, Cause::Unanswered);
    assert!(
        reason.contains("restore did not finish within 300s") && reason.contains("not answered within 5s"),
        "{reason}"
    );
}

#[test]
fn what_is_not_permitted_fails_at_once_and_names_the_action() {
    for (n, action) in [(1, "ec2:DescribeRouteTables"), (2, "ec2:ReplaceRoute")] {
        let mut fates = vec![Fate::Fine; n];
        fates.push(Fate::Denied);
        let run = run(&mut two_zones(), Verb::Restore, routes(&["10.9.0.5"]), &fates);
        assert!(failed(&run).reason.contains(&format!("{action} is not permitted")), "{:?}", run.result);
        assert_eq!(failed(&run).cause, Cause::Other);
    }
}

/// An entry in a table that no node may change must not put out of service what all other tables lead to.
#[test]
fn a_recovery_that_is_not_permitted_leaves_in_service_what_leads_here() {
    let recover = |world: &mut World, fates: &[Fate]| {
        let run = run(world, Verb::Recover, routes(&["10.9.0.5"]), fates);
        assert!(failed(&run).reason.contains("is not permitted"), "{:?}", run.result);
        assert!(run.report.trouble.is_some());
        failed(&run).cause
    };
    let tables = |first, second| {
        let all = vec![table("rtb-1", &[("10.9.0.5/32", first)]), table("rtb-2", &[("10.9.0.5/32", second)])];
        World::new(all, Vec::new())
    };
    let denied = [Fate::Fine, Fate::Fine, Fate::Denied];
    assert_eq!(recover(&mut tables("eni-here", "eni-b"), &denied), Cause::Unanswered);
    // The second one was turned at least.
    assert_eq!(recover(&mut tables("eni-a", "eni-b"), &denied), Cause::Unanswered);
    // Nothing leads here: perhaps another node may do what this one may not.
    let neither = [&denied[..], &[Fate::Denied]].concat();
    assert_eq!(recover(&mut tables("eni-a", "eni-b"), &neither), Cause::Other);
    // It may not even look.
    assert_eq!(recover(&mut tables("eni-here", "eni-b"), &[Fate::Fine, Fate::Denied]), Cause::Unanswered);
}

#[test]
fn an_overtaken_write_ends_it() {
    let mut world = two_zones();
    let before = world.clone();
    let run =
        run(&mut world, Verb::Recover, routes(&["10.9.0.5"]), &[Fate::Fine, Fate::Fine, Fate::Overtaken]);
    assert_eq!(failed(&run).cause, Cause::Overtaken);
    assert_eq!((writes(&run).len(), world), (1, before));
}

#[test]
fn a_check_changes_nothing_and_only_what_it_knows_to_be_wrong_is_a_failure() {
    let mut world = two_zones();
    let before = world.clone();
    let wrong = run(&mut world, Verb::Quickcheck, routes(&["10.9.0.5"]), &[]);
    let reason = &failed(&wrong).reason;
    assert!(reason.contains("10.9.0.5/32 in rtb-1 leads to eni-old"), "{reason}");
    for fate in [Fate::Silent, Fate::Throttled, Fate::Denied] {
        for n in 0..2 {
            let mut fates = vec![Fate::Fine; n];
            fates.push(fate);
            let blind = run(&mut world, Verb::Quickcheck, routes(&["10.9.0.5"]), &fates);
            assert_eq!(blind.result, Ok(()), "{fate:?}");
            assert!(blind.report.trouble.is_some() && blind.report.targets.is_empty());
            assert!(
                blind.notes.iter().all(|n| n.routine),
                "it is an event once, by whoever keeps the report"
            );
        }
    }
    let mut hangs = CloudSequence::new(Verb::Quickcheck, routes(&["10.9.0.5"]));
    let late = world.run(&mut hangs, &[], 0);
    assert!(late.overran && late.result == Ok(()));
    assert!(late.report.trouble.unwrap().contains("within 100s"));
    assert_eq!(world, before);
}

#[test]
fn an_interface_that_is_gone_is_a_failure_and_nothing_is_left_on_it() {
    for context in [routes(&["10.9.0.5"]), elastic()] {
        let mut world = two_zones();
        world.nic = None;
        for verb in [Verb::Quickcheck, Verb::Restore, Verb::Recover] {
            let run = run(&mut world, verb, context.clone(), &[]);
            assert_eq!(failed(&run).cause, Cause::Interface, "{verb:?}");
        }
        assert_eq!(run(&mut world, Verb::Remove, context, &[]).result, Ok(()));
    }
}

#[test]
fn where_no_route_exists_no_node_could_do_better() {
    let mut world = two_zones();
    let check = run(&mut world, Verb::Quickcheck, routes(&["10.9.0.9"]), &[]);
    assert_eq!(check.result, Ok(()));
    assert!(check.report.trouble.unwrap().contains("no route table of vpc-1 has a route to 10.9.0.9"));
    let restore = run(&mut world, Verb::Restore, routes(&["10.9.0.9"]), &[]);
    assert!(failed(&restore).reason.contains("create one"));
    // One of two is better than none.
    let some = run(&mut world, Verb::Restore, routes(&["10.9.0.5", "10.9.0.9"]), &[]);
    assert_eq!(some.result, Ok(()));
    assert!(some.report.trouble.unwrap().contains("10.9.0.9"));
    let gone = run(&mut world, Verb::Quickcheck, elastic(), &[]);
    assert_eq!(gone.result, Ok(()));
    assert!(gone.report.trouble.unwrap().contains("no Elastic IP 198.51.100.7"));
}

#[test]
fn others_are_taken_off_the_interface_before_the_elastic_ip_comes() {
    let stranger = [203, 0, 113, 9];
    let mut world = World::new(
        Vec::new(),
        vec![
            eip(EIP, Some("eni-old")),
            eip(stranger, Some("eni-here")),
            eip([203, 0, 113, 1], Some("eni-x")),
        ],
    );
    let untouched = world.eips[2].clone();
    let moved = run(&mut world, Verb::Restore, elastic(), &[]);
    assert_eq!(moved.result, Ok(()));
    let away = ["eipassoc-203.0.113.9-at-first", "eipassoc-198.51.100.7-at-first"].map(String::from);
    assert_eq!(
        writes(&moved),
        [
            &Ask::Disassociate { associations: away.into() },
            &Ask::Associate { allocation: "eipalloc-198.51.100.7".into(), interface: "eni-here".into() }
        ]
    );
    let on = |e: &ElasticIp| e.association.as_ref().and_then(|a| a.interface.clone());
    assert_eq!((on(&world.eips[0]).as_deref(), on(&world.eips[1])), (Some("eni-here"), None));
    assert_eq!(world.eips[2], untouched);
    assert_eq!(moved.report.targets, ["198.51.100.7 -> eni-here"]);
}

#[test]
fn a_removal_takes_the_elastic_ip_off_this_node_only_and_leaves_routes() {
    let mut world = World::new(two_zones().tables, vec![eip(EIP, Some("eni-other"))]);
    let before = world.clone();
    assert_eq!(run(&mut world, Verb::Remove, elastic(), &[]).result, Ok(()));
    let left = run(&mut world, Verb::Remove, routes(&["10.9.0.5"]), &[]);
    assert_eq!((left.result, left.asked), (Ok(()), vec![]));
    assert_eq!(world, before);
    world.eips = vec![eip(EIP, Some("eni-here"))];
    assert_eq!(run(&mut world, Verb::Remove, elastic(), &[]).result, Ok(()));
    assert_eq!(world.eips, [eip(EIP, None)]);
    // Nobody waits for a silent API: the next owner takes it in any case.
    world.eips = vec![eip(EIP, Some("eni-here"))];
    let silent = run(&mut world, Verb::Remove, elastic(), &[Fate::Fine, Fate::Silent]);
    assert!(failed(&silent).silent && silent.asked.len() == 2);
}

#[test]
fn a_removal_looks_at_all_interfaces_of_this_node() {
    // A switch to eth0 failed before it took it off eth2.
    for nic in [Some("eni-here"), None] {
        let mut world = World::new(Vec::new(), vec![eip(EIP, Some("eni-standby"))]);
        world.nic = nic.map(str::to_owned);
        world.standby = Some("eni-standby".to_owned());
        let context = CloudContext { others: vec!["eth2".to_owned()], ..elastic() };
        let gone = run(&mut world, Verb::Remove, context.clone(), &[]);
        assert_eq!((gone.result.clone(), writes(&gone).len()), (Ok(()), 1));
        assert_eq!(world.eips, [eip(EIP, None)]);
        // Nowhere else is it looked for.
        world.eips = vec![eip(EIP, Some("eni-standby"))];
        let check = run(&mut world, Verb::Quickcheck, context, &[]);
        assert!(
            check.result.is_err() && check.asked.iter().all(|a| *a != Ask::Nic { device: "eth2".into() })
        );
    }
}

#[test]
fn what_another_resource_of_this_node_has_now_is_not_removed() {
    let mut world = World::new(Vec::new(), vec![eip(EIP, Some("eni-here"))]);
    let heir = CloudContext { left_to: Some("ec2-b".parse().unwrap()), ..elastic() };
    let left = run(&mut world, Verb::Remove, heir.clone(), &[]);
    assert_eq!((left.result, left.asked), (Ok(()), vec![]));
    // It has no part in anything else.
    let check = run(&mut world, Verb::Quickcheck, heir, &[]);
    assert!(check.result.is_ok() && !check.asked.is_empty());
}

#[test]
fn an_elastic_ip_needs_a_link_to_come_and_to_stay() {
    let mut world = World::new(Vec::new(), vec![eip(EIP, Some("eni-here"))]);
    let before = world.clone();
    for link in [LinkState::NoCarrier, LinkState::Down, LinkState::Missing] {
        world.link = link;
        for verb in [Verb::Quickcheck, Verb::Restore, Verb::Recover, Verb::Switch] {
            let run = run(&mut world, verb, elastic(), &[]);
            assert_eq!((failed(&run).cause, run.asked.len()), (Cause::Interface, 0), "{verb:?} {link:?}");
        }
        let trusting = CloudContext { no_link_check: true, ..elastic() };
        assert_eq!(run(&mut world, Verb::Quickcheck, trusting, &[]).result, Ok(()));
        assert_eq!(world.eips, before.eips);
        // It is taken off all the same, and that of a route's interface is looked at by its IP resource.
        let gone = run(&mut world.clone(), Verb::Remove, elastic(), &[]);
        assert_eq!((gone.result.clone(), writes(&gone).len()), (Ok(()), 1));
    }
}

#[test]
fn disabled_nothing_is_asked() {
    for verb in [Verb::Restore, Verb::Remove, Verb::Quickcheck, Verb::Recover] {
        let context = CloudContext { restore_and_recover: false, ..elastic() };
        let run = run(&mut two_zones(), verb, context, &[]);
        assert_eq!((run.result, run.asked), (Ok(()), vec![]), "{verb:?}");
    }
}

#[test]
fn every_call_has_the_terms_of_its_sequence() {
    let tunables =
        Ec2Tunables { call_timeout: Duration::from_secs(2), max_retry: 7, ..Ec2Tunables::default() };
    let context = CloudContext { region: Some("eu-west-1".into()), tunables, ..routes(&["10.9.0.5"]) };
    let mut sequence = CloudSequence::new(Verb::Restore, context);
    let crate::core::sequence::Step::Do { command, .. } = sequence.step(crate::core::sequence::Input::Start)
    else {
        panic!("it asks")
    };
    let call = vipd_ec2::Call {
        region: Some("eu-west-1".into()),
        attempt_timeout: Duration::from_secs(2),
        retries: 7,
        purpose: vipd_ec2::Purpose::Service,
    };
    let ask = Ask::Nic { device: "eth0".into() };
    assert_eq!(command, crate::core::command::Command::Cloud { call, ask });
}

#[test]
fn who_cannot_be_taken_off_the_interface_moves_nothing_that_is_there() {
    let stranger = [203, 0, 113, 9];
    let here = || World::new(Vec::new(), vec![eip(EIP, Some("eni-here")), eip(stranger, Some("eni-here"))]);
    for verb in [Verb::Restore, Verb::Recover] {
        // Interface, the two looks, and the write that the least policy does not allow.
        let mut world = here();
        let denied = run(&mut world, verb, elastic(), &[Fate::Fine, Fate::Fine, Fate::Fine, Fate::Denied]);
        assert_eq!((denied.result.clone(), world), (Ok(()), here()), "{verb:?}");
        assert!(denied.report.trouble.unwrap().contains("ec2:DisassociateAddress is not permitted"));
        let false_successes = run(&mut here(), verb, elastic(), &[Fate::Lie; 150]);
        assert_eq!(false_successes.result, Ok(()), "{verb:?}");
        assert!(false_successes.report.trouble.unwrap().contains("eni-here has 203.0.113.9 as well"));
    }
    // Where it is not yet, that is in its way.
    let mut world = World::new(Vec::new(), vec![eip(EIP, None), eip(stranger, Some("eni-here"))]);
    let run = run(&mut world, Verb::Restore, elastic(), &[Fate::Fine, Fate::Fine, Fate::Fine, Fate::Denied]);
    assert_eq!(failed(&run).cause, Cause::Other);
}

#[test]
fn who_could_not_be_taken_off_is_no_failure_of_a_check_while_nobody_else_comes() {
    let (ours, stranger) = (eip(EIP, Some("eni-here")), eip([203, 0, 113, 9], Some("eni-here")));
    let world = |eips: &[&ElasticIp]| World::new(Vec::new(), eips.iter().map(|e| (*e).clone()).collect());
    let fates = [Fate::Fine, Fate::Fine, Fate::Fine, Fate::Denied];
    let strangers = run(&mut world(&[&ours, &stranger]), Verb::Recover, elastic(), &fates).report.strangers;
    let strangers = strangers.expect("it is told who is there");
    assert_eq!(strangers.associations, ["eipassoc-203.0.113.9-at-first".to_owned()].into());
    let patient = CloudContext { borne: Some(strangers.clone()), ..elastic() };
    let check = |eips: &[&ElasticIp]| run(&mut world(eips), Verb::Quickcheck, patient.clone(), &[]);
    let same = check(&[&ours, &stranger]);
    assert_eq!((same.result.clone(), same.report.trouble.as_ref()), (Ok(()), Some(&strangers.why)));
    assert_eq!(same.report.strangers, Some(strangers));
    let gone = check(&[&ours]);
    assert_eq!((gone.result.clone(), gone.report.trouble, gone.report.strangers), (Ok(()), None, None));
    // Others, more of them, and ours elsewhere.
    let other = eip([203, 0, 113, 8], Some("eni-here"));
    for eips in [&[&ours, &other][..], &[&ours, &stranger, &other], &[&eip(EIP, Some("eni-x")), &stranger]] {
        failed(&check(eips));
    }
    failed(&run(&mut world(&[&ours, &stranger]), Verb::Quickcheck, elastic(), &[]));
}

#[test]
fn a_route_that_leads_here_and_drops_all_is_told() {
    let mut world = World::new(vec![table("rtb-1", &[("10.9.0.5/32", "eni-here")])], Vec::new());
    world.tables[0].routes[0].blackhole = true;
    for verb in [Verb::Restore, Verb::Quickcheck] {
        let run = run(&mut world, verb, routes(&["10.9.0.5"]), &[]);
        assert_eq!((run.result.clone(), writes(&run).len()), (Ok(()), 0));
        assert!(
            run.report
                .trouble
                .unwrap()
                .contains("10.9.0.5/32 in rtb-1 leads here, and EC2 calls it a blackhole")
        );
    }
}

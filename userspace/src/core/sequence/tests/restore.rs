//! restore, row IP-6.

use super::*;

/// A whole bring-up; each entry may fail, and then this is undone.
fn happy() -> Vec<(Command, Effect)> {
    vec![
        (read_link(), link(LinkState::Up)),
        (read_address(), absent()),
        (probe(), no_claims()),
        (program(), Effect::Done),
        (add(), Effect::Done),
        (neighbours(), Effect::Done),
        (open(), Effect::Done),
        (announce(), Effect::Done),
        (broadcast(), somebody()),
    ]
}

/// The address is elsewhere or somebody else's: nothing but the gate is closed.
fn undo_nothing() -> Vec<(Command, Effect)> {
    vec![(close(), Effect::Done), (withdraw(), Effect::Done)]
}

/// The failure came before the address was looked for.
fn undo_unseen() -> Vec<(Command, Effect)> {
    [undo_nothing(), vec![(read_address(), absent()), (unprogram(), Effect::Done)]].concat()
}

fn undo_program() -> Vec<(Command, Effect)> {
    [undo_nothing(), vec![(unprogram(), Effect::Done)]].concat()
}

fn undo_all() -> Vec<(Command, Effect)> {
    [undo_nothing(), clearing(&place()), vec![(unprogram(), Effect::Done)]].concat()
}

/// The undo in which this command is answered otherwise; with what follows then.
fn undo_but(command: &Command, effect: Effect, rest: Vec<(Command, Effect)>) -> Vec<(Command, Effect)> {
    let mut script: Vec<_> = undo_all().into_iter().take_while(|(c, _)| c != command).collect();
    script.push((command.clone(), effect));
    script.extend(rest);
    script
}

/// The happy path up to `command`, which is answered with `effect`, and then `rest`.
fn until(command: &Command, effect: Effect, rest: Vec<(Command, Effect)>) -> Vec<(Command, Effect)> {
    let mut script: Vec<_> = happy().into_iter().take_while(|(c, _)| c != command).collect();
    script.push((command.clone(), effect));
    script.extend(rest);
    script
}

#[test]
fn every_step_in_order() {
    let kinds = succeeds(Sequence::restore(context()), &happy());
    assert_eq!(
        kinds,
        [
            "restore.link",
            "restore.presence",
            "restore.duplicate",
            "restore.program",
            "restore.address",
            "restore.neighbours",
            "restore.open-gate",
            "restore.announce",
            "restore.broadcast-ping",
            "restore.connectivity",
            "restore.done"
        ]
    );
}

#[test]
fn ipv6_takes_the_same_steps_and_has_no_source_setting() {
    let c = Context { source: true, ..of(&["2001:db8::7/64"]) };
    let (addresses, device, place) = (c.addresses.clone(), DEVICE.to_owned(), c.place());
    let script = [
        (read_link(), link(LinkState::Up)),
        (Command::ReadAddresses { place: place.clone() }, absent()),
        (Command::ProbeDuplicates { addresses: addresses.clone(), device: device.clone() }, no_claims()),
        (Command::Program { group: 9, addresses: addresses.clone(), device: device.clone() }, Effect::Done),
        (Command::AddAddresses { place }, Effect::Done),
        (neighbours(), Effect::Done),
        (open(), Effect::Done),
        (Command::Announce { addresses, device: device.clone() }, Effect::Done),
        (
            Command::BroadcastPing {
                source: net("2001:db8::7/64"),
                device,
                tries: 3,
                wait: Duration::from_secs(1),
            },
            somebody(),
        ),
    ];
    succeeds(Sequence::restore(c), &script);
}

/// Row IP-12: after the announcement, before the connectivity check.
#[test]
fn the_source_address_is_set_and_undone() {
    let c = || Context { source: true, ..context() };
    let mut script = happy();
    script.insert(8, (set_source(), Effect::Done));
    assert!(succeeds(Sequence::restore(c()), &script).contains(&"restore.source"));
    // Also when it failed: it may be set.
    let mut undo = undo_all();
    undo.insert(2, (unset_source(), Effect::Done));
    let mut script = until(&broadcast(), failed("no route"), undo.clone());
    script[8].0 = set_source();
    fails(Sequence::restore(c()), &script, true, "cannot set the source address on eth0: no route");
    undo[2].1 = failed("no luck");
    let mut script = until(&broadcast(), failed("no route"), undo);
    script[8].0 = set_source();
    fails(Sequence::restore(c()), &script, true, "a source address of eth0 was not set back: no luck");
}

#[test]
fn physical_and_disabled_succeed_without_a_command() {
    assert_eq!(
        succeeds(Sequence::restore(Context { physical: true, ..context() }), &[]),
        ["restore.physical"]
    );
    let disabled = Context { restore_and_recover: false, ..context() };
    assert_eq!(succeeds(Sequence::restore(disabled), &[]), ["restore.disabled"]);
}

#[test]
fn each_failing_command_is_undone() {
    let table = [
        (read_link(), undo_unseen()),
        (read_address(), undo_unseen()),
        (probe(), undo_program()),
        (program(), undo_program()),
        (add(), undo_all()),
        (neighbours(), undo_all()),
        (open(), undo_all()),
        (announce(), undo_all()),
        (broadcast(), undo_all()),
    ];
    for (command, undo) in table {
        let script = until(&command, failed("no luck"), undo.clone());
        let reason = if command == broadcast() { "nobody on the subnet" } else { "no luck" };
        fails(Sequence::restore(context()), &script, true, reason);
        // An answer to another question is a failure too.
        let odd =
            if matches!(command, Command::ReadLink { .. }) { Effect::Done } else { link(LinkState::Up) };
        let script = until(&command, odd, undo);
        fails(Sequence::restore(context()), &script, true, "cannot be brought in service");
    }
}

#[test]
fn a_second_start_is_a_failure_that_is_undone() {
    let mut sequence = Sequence::restore(context());
    let mut step = sequence.step(Input::Start);
    for (expected, effect) in happy().into_iter().take(7) {
        assert!(matches!(&step, Step::Do { command, .. } if *command == expected));
        step = sequence.step(Input::Effect(effect));
    }
    assert!(matches!(step, Step::Do { command: Command::Announce { .. }, .. }));
    let step = sequence.step(Input::Start);
    assert!(matches!(step, Step::Do { command: Command::CloseGate { .. }, .. }), "{step:?}");
}

#[test]
fn a_link_that_is_not_up_is_stopped_and_started_once() {
    for state in [LinkState::Down, LinkState::NoCarrier] {
        let mut script = vec![
            (read_link(), link(state)),
            (set_link(false), Effect::Done),
            (wait(5), Effect::Done),
            (set_link(true), Effect::Done),
            (read_link(), link(LinkState::NoCarrier)),
            (wait(1), Effect::Done),
        ];
        script.extend(happy());
        let kinds = succeeds(Sequence::restore(context()), &script);
        assert_eq!(
            kinds[..8],
            [
                "restore.link",
                "restore.link-stop",
                "restore.link-wait",
                "restore.link-start",
                "restore.link-recheck",
                "restore.link-wait",
                "restore.link-recheck",
                "restore.presence"
            ]
        );
    }
}

fn restarted(c: &Context) -> Vec<(Command, Effect)> {
    vec![
        (read_link(), link(LinkState::NoCarrier)),
        (set_link(false), Effect::Done),
        (Command::Wait { duration: c.tunables.link_down_wait }, Effect::Done),
        (set_link(true), Effect::Done),
    ]
}

#[test]
fn a_dropped_sequence_owes_the_start_of_a_device_that_it_stopped() {
    let c = context();
    let script = [restarted(&c), happy()].concat();
    for mut sequence in [Sequence::restore(c.clone()), Sequence::recover(c)] {
        let mut step = sequence.step(Input::Start);
        // What the recovery removes first.
        while !matches!(step, Step::Do { command: Command::ReadLink { .. }, .. }) {
            assert_eq!(sequence.owed(), None);
            let gone = matches!(step, Step::Do { command: Command::ReadAddresses { .. }, .. });
            step = sequence.step(Input::Effect(if gone { absent() } else { Effect::Done }));
        }
        for (number, (expected, effect)) in script.iter().enumerate() {
            assert!(matches!(&step, Step::Do { command, .. } if command == expected), "{step:?}");
            let owed = (1..=3).contains(&number).then(|| set_link(true));
            assert_eq!(sequence.owed(), owed, "while {expected:?} is under way");
            step = sequence.step(Input::Effect(effect.clone()));
        }
        assert!(matches!(step, Step::Done { result: Ok(()), .. }));
        assert_eq!(sequence.owed(), None);
    }
}

#[test]
fn the_link_is_looked_at_as_often_as_tuned() {
    for (checks, looks) in [(0, 1), (1, 1), (2, 2), (5, 5)] {
        let c = tuned(|t| {
            t.link_checks = checks;
            t.link_down_wait = Duration::from_millis(300);
        });
        let mut script = restarted(&c);
        for look in 0..looks {
            if look > 0 {
                script.push((wait(1), Effect::Done));
            }
            script.push((read_link(), link(LinkState::NoCarrier)));
        }
        script.extend(undo_unseen());
        fails(Sequence::restore(c), &script, true, "without carrier");
    }
}

#[test]
fn each_command_of_the_restart_may_fail() {
    let c = context();
    let all = restarted(&c);
    let mut script = all.clone();
    script[3].1 = failed("no luck");
    script.extend(undo_unseen());
    fails(Sequence::restore(c.clone()), &script, true, "ip link set eth0 up");
    // Whatever comes of the stop and of the wait, the device is started again.
    let mut script = [all[..2].to_vec(), all[3..].to_vec(), happy()].concat();
    script[1].1 = failed("no luck");
    assert!(succeeds(Sequence::restore(c.clone()), &script).contains(&"restore.link-stop-failed"));
    let mut script = [all.clone(), happy()].concat();
    script[2].1 = failed("no luck");
    assert!(succeeds(Sequence::restore(c.clone()), &script).contains(&"restore.link-wait-failed"));
    // The look and the wait after it.
    for (more, undo, reason) in [
        (vec![(read_link(), failed("no luck"))], undo_unseen(), "cannot look at the link"),
        (
            vec![(read_link(), link(LinkState::Down)), (wait(1), failed("no luck"))],
            undo_unseen(),
            "cannot wait",
        ),
        (vec![(read_link(), link(LinkState::Missing))], undo_unseen(), "there is no interface eth0"),
    ] {
        let mut script = all.clone();
        script.extend(more);
        script.extend(undo);
        fails(Sequence::restore(c.clone()), &script, true, reason);
    }
}

#[test]
fn a_missing_device_fails_with_the_remedy() {
    let mut script = vec![(read_link(), link(LinkState::Missing))];
    script.extend(undo_unseen());
    fails(Sequence::restore(context()), &script, true, "vipctl set TAG devices=");
}

#[test]
fn the_link_check_can_be_switched_off() {
    let c = tuned(|t| t.no_link_check = true);
    let kinds = succeeds(Sequence::restore(c), &happy()[1..]);
    assert_eq!(kinds[..2], ["restore.link-skipped", "restore.presence"]);
}

#[test]
fn the_duplicate_check_can_be_switched_off() {
    let c = tuned(|t| t.no_unique_check = true);
    let script: Vec<_> = happy().into_iter().filter(|(c, _)| *c != probe()).collect();
    assert!(succeeds(Sequence::restore(c), &script).contains(&"restore.duplicate-skipped"));
}

#[test]
fn a_duplicate_fails_and_names_who() {
    let claims = claims(&[("10.0.0.7", "02:00:00:00:00:01"), ("10.0.0.7", "02:00:00:00:00:02")]);
    let script = until(&probe(), claims, undo_program());
    let reason = "10.0.0.7 by 02:00:00:00:00:01, 10.0.0.7 by 02:00:00:00:00:02";
    let failure = fails(Sequence::restore(context()), &script, true, reason);
    assert_eq!(failure.cause, Cause::Other);
}

#[test]
fn an_address_elsewhere_on_the_host_fails_and_says_where() {
    let script = until(&read_address(), misplaced(false), undo_nothing());
    // Nobody keeps the kernel from answering for it there.
    fails(Sequence::restore(context()), &script, false, "ip address del 10.0.0.7/16 dev eth1");
}

fn already(ours: bool) -> Vec<(Command, Effect)> {
    vec![
        (read_link(), link(LinkState::Up)),
        (read_address(), present(ours)),
        (program(), Effect::Done),
        (open(), Effect::Done),
        (announce(), Effect::Done),
        (broadcast(), somebody()),
    ]
}

#[test]
fn a_present_address_is_neither_probed_nor_added() {
    for ours in [true, false] {
        let kinds = succeeds(Sequence::restore(context()), &already(ours));
        assert_eq!(
            kinds,
            [
                "restore.link",
                "restore.presence",
                "restore.present",
                "restore.program",
                "restore.open-gate",
                "restore.announce",
                "restore.broadcast-ping",
                "restore.connectivity",
                "restore.done"
            ]
        );
    }
}

#[test]
fn a_present_address_of_ours_is_deleted_by_the_undo() {
    for at in 2..=5 {
        let mut script = already(true)[..at].to_vec();
        script.push((already(true)[at].0.clone(), failed("no luck")));
        script.extend(undo_all());
        fails(Sequence::restore(context()), &script, true, "cannot be brought in service");
    }
}

#[test]
fn a_foreign_address_stays_behind_its_closed_gate() {
    for at in 3..=5 {
        let mut script = already(false)[..at].to_vec();
        script.push((already(false)[at].0.clone(), failed("no luck")));
        script.extend(undo_nothing());
        fails(Sequence::restore(context()), &script, true, "cannot be brought in service");
    }
}

#[test]
fn a_foreign_address_that_the_datapath_does_not_take_is_not_silent() {
    let mut script = already(false)[..2].to_vec();
    script.push((program(), failed("full")));
    script.extend(undo_nothing());
    fails(Sequence::restore(context()), &script, false, "full");
}

#[test]
fn what_cannot_be_undone_is_said() {
    let restore = || Sequence::restore(context());
    let after = |undo| until(&announce(), failed("no luck"), undo);
    let rest = |look: Effect| {
        vec![(host_route(), Effect::Done), (Command::FlushRouteCache, Effect::Done), (read_address(), look)]
    };
    let unprogrammed = vec![(unprogram(), Effect::Done)];
    // The address stays: it stays programmed, and silent.
    let undo = undo_but(&delete(), failed("busy"), rest(present(true)));
    fails(restore(), &after(undo), true, "moreover 10.0.0.7/24 could not be deleted from eth0: busy");
    let undo = undo_but(&delete(), failed("busy"), rest(failed("no netlink")));
    fails(restore(), &after(undo), true, "nobody knows what is left of them: no netlink");
    // It is gone all the same.
    let undo = undo_but(&delete(), failed("busy"), [rest(absent()), unprogrammed.clone()].concat());
    fails(restore(), &after(undo), true, "busy");
    // The gate cannot be closed, but the entry can be taken out.
    let mut undo = undo_all();
    undo[0].1 = failed("stuck");
    fails(restore(), &after(undo.clone()), true, "moreover its gate cannot be closed: stuck");
    // Neither: this host may still answer.
    undo.last_mut().unwrap().1 = failed("stuck too");
    let reason = "moreover it cannot be taken out of the datapath: stuck too";
    fails(restore(), &after(undo), false, reason);
    let mut undo = undo_but(&delete(), failed("busy"), rest(present(true)));
    undo[0].1 = failed("stuck");
    fails(restore(), &after(undo), false, "busy");
    // The entry stays behind with its gate closed.
    let undo = undo_but(&unprogram(), failed("stuck"), vec![]);
    fails(restore(), &after(undo), true, "stuck");
    // A closed gate lets no announcement out.
    let mut undo = undo_all();
    undo[1].1 = failed("no luck");
    undo[2].1 = failed("no luck");
    undo[5].1 = failed("no luck");
    fails(restore(), &after(undo), true, "cannot be brought in service");
    // A host route may still make the kernel accept packets.
    let undo = undo_but(&host_route(), failed("busy"), vec![(Command::FlushRouteCache, Effect::Done)]);
    fails(restore(), &after(undo), true, "host routes of 10.0.0.7/24 on eth0 could not be deleted: busy");
}

#[test]
fn an_address_not_yet_looked_for_is_looked_for_by_the_undo() {
    let mut script = [vec![(read_link(), failed("no luck"))], undo_nothing()].concat();
    let unprogrammed = vec![(unprogram(), Effect::Done)];
    let elsewhere = place_of(&set(&["10.0.0.7/16"]), "eth1");
    for (presence, rest, silent) in [
        (absent(), unprogrammed.clone(), true),
        (present(true), [clearing(&place()), unprogrammed.clone()].concat(), true),
        (misplaced(true), [clearing(&elsewhere), unprogrammed].concat(), true),
        // Not ours, and perhaps not even in the datapath.
        (present(false), vec![], false),
        (misplaced(false), vec![], false),
        (failed("no netlink"), vec![], false),
    ] {
        script.truncate(3);
        script.push((read_address(), presence));
        script.extend(rest);
        fails(Sequence::restore(context()), &script, silent, "no luck");
    }
}

#[test]
fn pings_use_the_tunables() {
    let c = tuned(|t| {
        t.ping_tries = 7;
        t.ping_wait = Duration::from_millis(40);
    });
    let mut script = happy();
    script[8].0 = Command::BroadcastPing {
        source: net("10.0.0.7/24"),
        device: DEVICE.to_owned(),
        tries: 7,
        wait: Duration::from_millis(40),
    };
    succeeds(Sequence::restore(c), &script);
}

/// Others may bounce the same device; what counts is that it is up.
#[test]
fn a_link_that_is_up_after_all_is_gone_on_with() {
    let start = restarted(&context());
    let refused = [start[..1].to_vec(), vec![(set_link(false), failed("another one bounces it"))]].concat();
    let never_down = vec![(set_link(true), Effect::Done)];
    succeeds(Sequence::restore(context()), &[refused, never_down, happy()].concat());
    // Only the last look finds it up.
    let mut script = start;
    for _ in 0..4 {
        script.extend([(read_link(), link(LinkState::Down)), (wait(1), Effect::Done)]);
    }
    succeeds(Sequence::restore(context()), &[script, happy()].concat());
}

/// Another interface may do better (row NM-5).
#[test]
fn failures_of_the_interface_are_told_apart() {
    let cause = |script: &[(Command, Effect)]| {
        let (result, _) = run(Sequence::restore(context()), script);
        result.expect_err("must fail").cause
    };
    let missing = [vec![(read_link(), link(LinkState::Missing))], undo_unseen()].concat();
    assert_eq!(cause(&missing), Cause::Interface);
    assert_eq!(cause(&until(&broadcast(), nobody(), undo_all())), Cause::Interface);
    assert_eq!(cause(&until(&add(), failed("no memory"), undo_all())), Cause::Other);
}

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
    vec![(close(), Effect::Done)]
}

/// The failure came before the address was looked for.
fn undo_unseen() -> Vec<(Command, Effect)> {
    vec![(close(), Effect::Done), (read_address(), absent()), (unprogram(), Effect::Done)]
}

fn undo_program() -> Vec<(Command, Effect)> {
    vec![(close(), Effect::Done), (unprogram(), Effect::Done)]
}

fn undo_all() -> Vec<(Command, Effect)> {
    vec![(close(), Effect::Done), (delete(), Effect::Done), (unprogram(), Effect::Done)]
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
fn ipv6_takes_the_same_steps() {
    let mut c = context();
    c.address = "2001:db8::7/64".parse().unwrap();
    let mut sequence = Sequence::restore(c.clone());
    let (ip, device) = (c.address.addr(), DEVICE.to_owned());
    let mut step = sequence.step(Input::Start);
    for (expected, effect) in [
        (read_link(), link(LinkState::Up)),
        (Command::ReadAddress { address: c.address, device: device.clone() }, absent()),
        (Command::ProbeDuplicate { address: ip, device: device.clone() }, no_claims()),
        (Command::Program { address: ip, device: device.clone() }, Effect::Done),
        (Command::AddAddress { address: c.address, device: device.clone() }, Effect::Done),
        (neighbours(), Effect::Done),
        (Command::OpenGate { address: ip, epoch: 4 }, Effect::Done),
        (Command::Announce { address: ip, device }, Effect::Done),
    ] {
        assert!(matches!(&step, Step::Do { command, .. } if *command == expected), "{step:?}");
        step = sequence.step(Input::Effect(effect));
    }
    assert!(
        matches!(step, Step::Do { command: Command::BroadcastPing { source, .. }, .. } if source == c.address)
    );
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
            let gone = matches!(step, Step::Do { command: Command::ReadAddress { .. }, .. });
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
        (vec![(read_link(), link(LinkState::Missing))], undo_program(), "there is no interface eth0"),
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
    script.extend(undo_program());
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
    let claims = Effect::Claims(vec!["02:00:00:00:00:01".to_owned(), "02:00:00:00:00:02".to_owned()]);
    let script = until(&probe(), claims, undo_program());
    fails(Sequence::restore(context()), &script, true, "by 02:00:00:00:00:01, 02:00:00:00:00:02");
}

#[test]
fn an_address_elsewhere_on_the_host_fails_and_says_where() {
    let script = until(&read_address(), misplaced(false), undo_nothing());
    fails(Sequence::restore(context()), &script, true, "on eth1 with prefix length 16");
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
fn a_foreign_address_that_the_datapath_does_not_take_is_deleted() {
    let mut script = already(false)[..2].to_vec();
    script.push((program(), failed("full")));
    script.extend(undo_all());
    fails(Sequence::restore(context()), &script, true, "full");
    let at = script.len() - 2;
    script.truncate(at);
    script.push((delete(), failed("no luck")));
    // Not programmed and still there: the kernel answers on its own.
    fails(Sequence::restore(context()), &script, false, "moreover it cannot be deleted");
}

#[test]
fn what_cannot_be_undone_is_said() {
    // The address stays: it stays programmed, and silent.
    let undo = vec![(close(), Effect::Done), (delete(), failed("busy"))];
    let script = until(&announce(), failed("no luck"), undo);
    fails(Sequence::restore(context()), &script, true, "moreover it cannot be deleted from eth0: busy");
    // The gate cannot be closed, but the entry can be taken out.
    let undo = vec![(close(), failed("stuck")), (delete(), Effect::Done), (unprogram(), Effect::Done)];
    let script = until(&announce(), failed("no luck"), undo);
    fails(Sequence::restore(context()), &script, true, "moreover its gate cannot be closed: stuck");
    // Neither: this host may still answer.
    let undo = vec![(close(), failed("stuck")), (delete(), Effect::Done), (unprogram(), failed("stuck too"))];
    let script = until(&announce(), failed("no luck"), undo);
    fails(
        Sequence::restore(context()),
        &script,
        false,
        "moreover it cannot be taken out of the datapath: stuck too",
    );
    let undo = vec![(close(), failed("stuck")), (delete(), failed("busy"))];
    let script = until(&announce(), failed("no luck"), undo);
    fails(Sequence::restore(context()), &script, false, "busy");
    // The entry stays behind with its gate closed.
    let undo = vec![(close(), Effect::Done), (delete(), Effect::Done), (unprogram(), failed("stuck"))];
    let script = until(&announce(), failed("no luck"), undo);
    fails(Sequence::restore(context()), &script, true, "stuck");
}

#[test]
fn an_address_not_yet_looked_for_is_looked_for_by_the_undo() {
    let mut script = vec![(read_link(), failed("no luck")), (close(), Effect::Done)];
    for (presence, rest, silent) in [
        (absent(), vec![(unprogram(), Effect::Done)], true),
        (present(true), vec![(delete(), Effect::Done), (unprogram(), Effect::Done)], true),
        (present(false), vec![(delete(), Effect::Done), (unprogram(), Effect::Done)], true),
        (misplaced(false), vec![], true),
        (failed("no netlink"), vec![], false),
    ] {
        script.truncate(2);
        script.push((read_address(), presence));
        script.extend(rest);
        fails(Sequence::restore(context()), &script, silent, "no luck");
    }
}

/// Connectivity, row IP-10: (list, NOBCASTPING, answers of list, answers of broadcast) -> outcome.
#[test]
fn connectivity() {
    let prefix = happy()[..8].to_vec();
    let quiet = |mut c: Context| {
        c.tunables.no_broadcast_ping = true;
        c
    };
    let run_with = |c: Context, pings: Vec<(Command, Effect)>, reason: Option<&str>| {
        let mut script = prefix.clone();
        script.extend(pings);
        match reason {
            None => {
                succeeds(Sequence::restore(c), &script);
            }
            Some(reason) => {
                script.extend(undo_all());
                fails(Sequence::restore(c), &script, true, reason);
            }
        }
    };
    run_with(context(), vec![(broadcast(), somebody())], None);
    run_with(context(), vec![(broadcast(), nobody())], Some("nobody on the subnet"));
    run_with(quiet(context()), vec![], None);
    run_with(with_list(), vec![(ping_list(), somebody())], None);
    run_with(with_list(), vec![(ping_list(), nobody()), (broadcast(), somebody())], None);
    run_with(
        with_list(),
        vec![(ping_list(), nobody()), (broadcast(), nobody())],
        Some("nobody of the ping list and nobody on the subnet"),
    );
    run_with(
        with_list(),
        vec![(ping_list(), failed("unreachable")), (broadcast(), failed("unreachable"))],
        Some("nobody of the ping list and nobody on the subnet"),
    );
    run_with(quiet(with_list()), vec![(ping_list(), somebody())], None);
    run_with(quiet(with_list()), vec![(ping_list(), nobody())], Some("nobody of the ping list answered"));
    run_with(quiet(with_list()), vec![(ping_list(), failed("unreachable"))], Some("nobody of the ping list"));
}

#[test]
fn pings_use_the_tunables() {
    let c = tuned(|t| {
        t.ping_tries = 7;
        t.ping_wait = Duration::from_millis(40);
    });
    let mut script = happy();
    script[8].0 = Command::BroadcastPing {
        source: c.address,
        device: DEVICE.to_owned(),
        tries: 7,
        wait: Duration::from_millis(40),
    };
    succeeds(Sequence::restore(c), &script);
}

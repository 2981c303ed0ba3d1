//! switch, row NM-5: from eth1 to eth0.

use super::*;

fn old() -> Place {
    place_of(&context().addresses, "eth1")
}

fn happy() -> Vec<(Command, Effect)> {
    let new = vec![
        (program(), Effect::Done),
        (add(), Effect::Done),
        (open(), Effect::Done),
        (announce(), Effect::Done),
        (neighbours(), Effect::Done),
    ];
    [new, clearing(&old()), vec![(broadcast(), somebody())]].concat()
}

fn switch() -> Sequence {
    Sequence::switch(context(), "eth1".to_owned())
}

/// Everything is shut, and what is found on either interface deleted.
fn undo(found: Effect, places: &[Place]) -> Vec<(Command, Effect)> {
    let mut script = vec![(close(), Effect::Done), (withdraw(), Effect::Done), (read_address(), found)];
    for (number, place) in places.iter().enumerate() {
        let cleared = clearing(place);
        let last = number + 1 == places.len();
        script.extend_from_slice(if last { &cleared } else { &cleared[..3] });
    }
    script.push((unprogram(), Effect::Done));
    script
}

fn on_both() -> Effect {
    found(&["10.0.0.7/24"], &[], vec![Misplaced { place: old(), ours: true }])
}

#[test]
fn every_step_in_order() {
    assert_eq!(
        succeeds(switch(), &happy()),
        [
            "switch.program",
            "switch.address",
            "switch.open-gate",
            "switch.announce",
            "switch.neighbours",
            "switch.source-back",
            "switch.old-address",
            "switch.host-route",
            "switch.route-cache",
            "switch.broadcast-ping",
            "switch.connectivity",
            "switch.done"
        ]
    );
}

/// Clients wait for the gate and for the announcement: nothing that can be done later comes before them.
#[test]
fn the_gate_is_open_after_three_commands_and_announced_after_four() {
    let (result, commands) = asked(switch(), |command| match command {
        Command::BroadcastPing { .. } => somebody(),
        _ => Effect::Done,
    });
    assert_eq!(result, Ok(()));
    assert!(matches!(
        commands[..4],
        [
            Command::Program { .. },
            Command::AddAddresses { .. },
            Command::OpenGate { .. },
            Command::Announce { .. }
        ]
    ));
}

#[test]
fn the_source_address_follows() {
    let c = Context { source: true, ..context() };
    let mut script = happy();
    script.insert(9, (set_source(), Effect::Done));
    succeeds(Sequence::switch(c.clone(), "eth1".to_owned()), &script);
    let mut script = script[..10].to_vec();
    script[9].1 = failed("no route");
    let mut undo = undo(present(true), &[place()]);
    undo.insert(2, (unset_source(), Effect::Done));
    script.extend(undo);
    fails(Sequence::switch(c, "eth1".to_owned()), &script, true, "cannot set the source address on eth0");
}

#[test]
fn physical_disabled_and_there_already_touch_nothing() {
    let from = |c: Context, from: &str| Sequence::switch(c, from.to_owned());
    fails(from(Context { physical: true, ..context() }, "eth1"), &[], false, "stationary");
    let disabled = Context { restore_and_recover: false, ..context() };
    assert_eq!(succeeds(from(disabled, "eth1"), &[]), ["switch.disabled"]);
    assert_eq!(succeeds(from(context(), "eth0"), &[]), ["switch.done"]);
}

#[test]
fn each_failing_command_shuts_and_clears_both_interfaces() {
    // What the look after the failure finds.
    let before = || found(&[], &[], vec![Misplaced { place: old(), ours: true }]);
    for at in [0, 1, 2, 3, 4, 9] {
        let (found, places) = match at {
            0 => (before(), vec![old()]),
            9 => (present(true), vec![place()]),
            _ => (on_both(), vec![place(), old()]),
        };
        let mut script = happy()[..=at].to_vec();
        script[at].1 = if at == 9 { nobody() } else { failed("no luck") };
        script.extend(undo(found, &places));
        let reason = if at == 9 { "nobody on the subnet" } else { "no luck" };
        let failure = fails(switch(), &script, true, reason);
        assert_eq!(failure.cause, if at == 9 { Cause::Interface } else { Cause::Other });
        assert!(failure.reason.contains("cannot move from eth1 to eth0"), "{}", failure.reason);
    }
}

#[test]
fn an_address_that_stays_on_the_old_interface_fails() {
    let mut script = happy()[..9].to_vec();
    script[6].1 = failed("busy");
    script.push((read_address(), on_both()));
    let mut stuck = undo(on_both(), &[place(), old()]);
    stuck.pop();
    stuck[7].1 = failed("busy");
    let mut look = script.clone();
    look.extend(stuck);
    look.push((read_address(), found(&[], &[], vec![Misplaced { place: old(), ours: true }])));
    fails(switch(), &look, true, "10.0.0.7/24 could not be deleted from eth1: busy");
    // It is gone all the same: on with it, although the same address is on the new interface.
    script[9].1 = present(true);
    script.push((broadcast(), somebody()));
    succeeds(switch(), &script);
}

#[test]
fn a_host_that_cannot_be_looked_at_is_silent_behind_its_gate() {
    let mut script = happy()[..2].to_vec();
    script[1].1 = failed("no luck");
    script.extend([
        (close(), Effect::Done),
        (withdraw(), Effect::Done),
        (read_address(), failed("no netlink")),
    ]);
    fails(switch(), &script, true, "nobody knows whether it is on eth0: no netlink");
    // Not if the datapath did not take it, or the gate is open.
    let mut unknown = script[..1].to_vec();
    unknown[0].1 = failed("full");
    unknown.extend_from_slice(&script[2..]);
    fails(switch(), &unknown, false, "no netlink");
    script[2].1 = failed("stuck");
    fails(switch(), &script, false, "stuck");
}

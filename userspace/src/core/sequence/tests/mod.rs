//! Transition tables of the sequences: what is asked for, step by step, whatever comes back.

mod amend;
mod connectivity;
mod host;
mod properties;
mod quickcheck;
mod recover;
mod remove;
mod restore;
mod sets;
mod switch;

use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{Cause, Context, Failure, Input, Sequence, Step, StepNote};
use crate::{
    core::command::{Claim, Command, Effect, LinkState, Misplaced, Place, Presence},
    model::{Accept, Addresses, Tunables},
};

const DEVICE: &str = "eth0";

fn context() -> Context {
    Context {
        group: 9,
        addresses: set(&["10.0.0.7/24"]),
        device: DEVICE.to_owned(),
        accept: Accept::Assign,
        epoch: 4,
        physical: false,
        restore_and_recover: true,
        source: false,
        ping_lists: [].into(),
        unreached: None,
        tunables: Tunables::default(),
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Addresses, each with its prefix length.
fn set(all: &[&str]) -> Arc<Addresses> {
    Arc::new(all.iter().map(|a| net(a)).collect())
}

fn of(addresses: &[&str]) -> Context {
    Context { addresses: set(addresses), ..context() }
}

fn targets() -> Vec<IpAddr> {
    vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]
}

fn with_list() -> Context {
    Context { ping_lists: [(net("10.0.0.0/24"), targets())].into(), ..context() }
}

fn tuned(change: impl FnOnce(&mut Tunables)) -> Context {
    let mut context = context();
    change(&mut context.tunables);
    context
}

fn failed(why: &str) -> Effect {
    Effect::Failed(why.to_owned())
}

/// Runs a sequence against a script: the command that must come, and what to answer.
#[track_caller]
fn run(mut sequence: Sequence, script: &[(Command, Effect)]) -> (Result<(), Failure>, Vec<StepNote>) {
    let mut all = Vec::new();
    let mut step = sequence.step(Input::Start);
    for (number, (expected, effect)) in script.iter().enumerate() {
        let Step::Do { command, notes } = step else {
            panic!("step {number}: expected {expected:?}, got {step:?}")
        };
        assert_eq!(&command, expected, "step {number}");
        assert!(!notes.is_empty(), "step {number} ({command:?}) says nothing");
        all.extend(notes);
        step = sequence.step(Input::Effect(effect.clone()));
    }
    let Step::Done { result, notes } = step else { panic!("expected the end, got {step:?}") };
    assert!(!notes.is_empty(), "the end says nothing");
    all.extend(notes);
    let after = sequence.step(Input::Effect(Effect::Done));
    assert!(matches!(after, Step::Done { result: Err(_), .. }), "nothing follows the end: {after:?}");
    (result, all)
}

/// Runs a sequence on a host that answers; what it asked for.
fn asked(
    mut sequence: Sequence,
    mut answer: impl FnMut(&Command) -> Effect,
) -> (Result<(), Failure>, Vec<Command>) {
    let mut commands = Vec::new();
    let mut step = sequence.step(Input::Start);
    for _ in 0..1000 {
        match step {
            Step::Done { result, .. } => return (result, commands),
            Step::Do { command, .. } => {
                step = sequence.step(Input::Effect(answer(&command)));
                commands.push(command);
            }
        }
    }
    panic!("no end in sight: {step:?}");
}

#[track_caller]
fn succeeds(sequence: Sequence, script: &[(Command, Effect)]) -> Vec<&'static str> {
    let (result, notes) = run(sequence, script);
    assert_eq!(result, Ok(()));
    notes.iter().map(|n| n.kind).collect()
}

#[track_caller]
fn fails(sequence: Sequence, script: &[(Command, Effect)], silent: bool, reason: &str) -> Failure {
    let (result, notes) = run(sequence, script);
    let failure = result.expect_err("must fail");
    assert!(failure.reason.contains(reason), "'{}' does not say '{reason}'", failure.reason);
    assert_eq!(failure.silent, silent, "{}", failure.reason);
    let last = notes.last().unwrap();
    assert!(!last.routine, "a failure is no routine");
    assert!(last.message.contains(reason), "the note says why: {}", last.message);
    failure
}

// The commands of the example context.

fn read_link() -> Command {
    Command::ReadLink { device: DEVICE.to_owned() }
}
fn set_link(up: bool) -> Command {
    Command::SetLink { device: DEVICE.to_owned(), up }
}
fn wait(seconds: u64) -> Command {
    Command::Wait { duration: Duration::from_secs(seconds) }
}
fn place_of(addresses: &Arc<Addresses>, device: &str) -> Place {
    Place { addresses: addresses.clone(), device: device.to_owned(), accept: Accept::Assign }
}
fn place() -> Place {
    context().place()
}
fn read_address() -> Command {
    Command::ReadAddresses { place: place() }
}
fn probe() -> Command {
    Command::ProbeDuplicates { addresses: context().addresses, device: DEVICE.to_owned() }
}
fn program() -> Command {
    Command::Program { group: 9, addresses: context().addresses, device: DEVICE.to_owned() }
}
fn unprogram() -> Command {
    Command::Unprogram { group: 9, addresses: context().addresses }
}
fn open() -> Command {
    Command::OpenGate { group: 9, epoch: 4 }
}
fn close() -> Command {
    Command::CloseGate { group: 9 }
}
fn withdraw() -> Command {
    Command::Withdraw { addresses: context().addresses }
}
fn add() -> Command {
    Command::AddAddresses { place: place() }
}
fn unset_source() -> Command {
    Command::UnsetSource { addresses: context().addresses, device: DEVICE.to_owned() }
}
fn set_source() -> Command {
    Command::SetSource { addresses: context().addresses, device: DEVICE.to_owned() }
}
fn delete() -> Command {
    Command::DeleteAddresses { place: place() }
}
fn host_route() -> Command {
    Command::DeleteHostRoutes { addresses: context().addresses, device: DEVICE.to_owned() }
}
fn neighbours() -> Command {
    Command::FlushNeighbours { device: DEVICE.to_owned() }
}
fn announce() -> Command {
    Command::Announce { addresses: context().addresses, device: DEVICE.to_owned() }
}
fn broadcast() -> Command {
    Command::BroadcastPing {
        source: net("10.0.0.7/24"),
        device: DEVICE.to_owned(),
        tries: 3,
        wait: Duration::from_secs(1),
    }
}

/// What takes a place away, IPv4.
fn clearing(place: &Place) -> Vec<(Command, Effect)> {
    let Place { addresses, device, .. } = place.clone();
    let route = Command::DeleteHostRoutes { addresses: addresses.clone(), device: device.clone() };
    vec![
        (Command::UnsetSource { addresses, device }, Effect::Done),
        (Command::DeleteAddresses { place: place.clone() }, Effect::Done),
        (route, Effect::Done),
        (Command::FlushRouteCache, Effect::Done),
    ]
}

fn link(state: LinkState) -> Effect {
    Effect::Link(state)
}
fn absent() -> Effect {
    Effect::Presence(Presence::default())
}
fn found(ours: &[&str], foreign: &[&str], misplaced: Vec<Misplaced>) -> Effect {
    let (ours, foreign) = ((*set(ours)).clone(), (*set(foreign)).clone());
    Effect::Presence(Presence { ours, foreign, misplaced })
}
fn present(ours: bool) -> Effect {
    if ours { found(&["10.0.0.7/24"], &[], vec![]) } else { found(&[], &["10.0.0.7/24"], vec![]) }
}
fn misplaced(ours: bool) -> Effect {
    let place = place_of(&set(&["10.0.0.7/16"]), "eth1");
    found(&[], &[], vec![Misplaced { place, ours }])
}
fn claims(all: &[(&str, &str)]) -> Effect {
    let claim =
        |(address, by): &(&str, &str)| Claim { address: address.parse().unwrap(), by: (*by).to_owned() };
    Effect::Claims(all.iter().map(claim).collect())
}
fn nobody() -> Effect {
    Effect::Answers(Vec::new())
}
fn somebody() -> Effect {
    Effect::Answers(vec!["10.0.0.2".parse().unwrap()])
}
fn no_claims() -> Effect {
    Effect::Claims(Vec::new())
}

#[test]
fn limits_are_the_tunables_of_each_sequence() {
    let c = || {
        tuned(|t| {
            t.restore_timeout = Duration::from_secs(1);
            t.remove_timeout = Duration::from_secs(2);
            t.quickcheck_timeout = Duration::from_secs(3);
            t.recover_timeout = Duration::from_secs(4);
        })
    };
    for (sequence, name, seconds) in [
        (Sequence::restore(c()), "restore", 1),
        (Sequence::remove(c()), "remove", 2),
        (Sequence::quickcheck(c()), "quickcheck", 3),
        (Sequence::recover(c()), "recover", 4),
        (Sequence::switch(c(), "eth1".to_owned()), "switch", 1),
        (Sequence::amend(c(), Addresses::default()), "amend", 4),
    ] {
        assert_eq!((sequence.name(), sequence.limit()), (name, Duration::from_secs(seconds)));
    }
}

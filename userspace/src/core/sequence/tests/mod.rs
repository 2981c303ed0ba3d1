//! Transition tables of the sequences: what is asked for, step by step, whatever comes back.

mod host;
mod quickcheck;
mod recover;
mod remove;
mod restore;

use std::{net::IpAddr, time::Duration};

use super::{Context, Failure, Input, Sequence, Step, StepNote};
use crate::{
    core::command::{Command, Effect, LinkState, Presence},
    model::Tunables,
};

const DEVICE: &str = "eth0";

fn context() -> Context {
    Context {
        address: "10.0.0.7/24".parse().unwrap(),
        device: DEVICE.to_owned(),
        epoch: 4,
        physical: false,
        restore_and_recover: true,
        ping_list: Vec::new(),
        tunables: Tunables::default(),
    }
}

fn with_list() -> Context {
    Context { ping_list: vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()], ..context() }
}

fn tuned(change: impl FnOnce(&mut Tunables)) -> Context {
    let mut context = context();
    change(&mut context.tunables);
    context
}

fn ip() -> IpAddr {
    context().address.addr()
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

#[track_caller]
fn succeeds(sequence: Sequence, script: &[(Command, Effect)]) -> Vec<&'static str> {
    let (result, notes) = run(sequence, script);
    assert_eq!(result, Ok(()));
    notes.iter().map(|n| n.kind).collect()
}

#[track_caller]
fn fails(sequence: Sequence, script: &[(Command, Effect)], silent: bool, reason: &str) {
    let (result, notes) = run(sequence, script);
    let failure = result.expect_err("must fail");
    assert!(failure.reason.contains(reason), "'{}' does not say '{reason}'", failure.reason);
    assert_eq!(failure.silent, silent, "{}", failure.reason);
    let last = notes.last().unwrap();
    assert!(!last.routine, "a failure is no routine");
    assert!(last.message.contains(reason), "the note says why: {}", last.message);
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
fn read_address() -> Command {
    Command::ReadAddress { address: context().address, device: DEVICE.to_owned() }
}
fn probe() -> Command {
    Command::ProbeDuplicate { address: ip(), device: DEVICE.to_owned() }
}
fn program() -> Command {
    Command::Program { address: ip(), device: DEVICE.to_owned() }
}
fn unprogram() -> Command {
    Command::Unprogram { address: ip() }
}
fn open() -> Command {
    Command::OpenGate { address: ip(), epoch: 4 }
}
fn close() -> Command {
    Command::CloseGate { address: ip() }
}
fn add() -> Command {
    Command::AddAddress { address: context().address, device: DEVICE.to_owned() }
}
fn delete() -> Command {
    Command::DeleteAddress { address: context().address, device: DEVICE.to_owned() }
}
fn host_route() -> Command {
    Command::DeleteHostRoute { address: ip(), device: DEVICE.to_owned() }
}
fn neighbours() -> Command {
    Command::FlushNeighbours { device: DEVICE.to_owned() }
}
fn announce() -> Command {
    Command::Announce { address: ip(), device: DEVICE.to_owned() }
}
fn ping_list() -> Command {
    Command::PingList {
        source: ip(),
        device: DEVICE.to_owned(),
        targets: with_list().ping_list,
        tries: 3,
        wait: Duration::from_secs(1),
    }
}
fn broadcast() -> Command {
    Command::BroadcastPing {
        source: context().address,
        device: DEVICE.to_owned(),
        tries: 3,
        wait: Duration::from_secs(1),
    }
}

fn link(state: LinkState) -> Effect {
    Effect::Link(state)
}
fn absent() -> Effect {
    Effect::Presence(Presence::Absent)
}
fn present(ours: bool) -> Effect {
    Effect::Presence(Presence::Present { ours })
}
fn misplaced(ours: bool) -> Effect {
    Effect::Presence(Presence::Misplaced { device: "eth1".to_owned(), prefix_len: 16, ours })
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
    ] {
        assert_eq!((sequence.name(), sequence.limit()), (name, Duration::from_secs(seconds)));
    }
}

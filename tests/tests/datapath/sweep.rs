//! Every request cut off after every byte, and frames of random bytes: never a wrong answer.

use std::net::IpAddr;

use datapath_common::Verdict;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use vipd_tests::packets::checksum;

use crate::{
    arp,
    bench::*,
    echo4, echo6,
    fixture::{Fixture, Fixtures},
    nd,
};

/// The kernel takes nothing shorter for a frame.
const SHORTEST: usize = 14;

fn answered() -> Vec<Fixture> {
    let mut fixtures = Fixtures::default();
    arp::fixtures(&mut fixtures);
    echo4::fixtures(&mut fixtures);
    echo6::fixtures(&mut fixtures);
    nd::fixtures(&mut fixtures);
    fixtures.0.into_iter().filter(|fixture| fixture.answer.is_some()).collect()
}

/// A frame without its padding, so that each byte matters.
fn needed(frame: &[u8]) -> usize {
    let mut at = 12;
    let word = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    while [0x8100, 0x88a8].contains(&word(at)) {
        at += 4;
    }
    match word(at) {
        0x0806 => at + 2 + 28,
        0x0800 => at + 2 + word(at + 4),
        0x86dd => at + 2 + 40 + word(at + 6),
        other => panic!("no fixture has ethertype {other:#x}"),
    }
}

pub fn truncated_at_every_byte() -> Result<(), String> {
    Form::ALL.into_iter().try_for_each(truncated)
}

fn truncated(form: Form) -> Result<(), String> {
    let mut bench = bench();
    bench.enter(form);
    bench.set(Gates::Open);
    for fixture in answered() {
        for length in SHORTEST..needed(&fixture.frame) {
            let frame = &fixture.frame[..length];
            let outcome = bench.ingress(frame);
            let passed =
                outcome.counted.iter().all(|(verdict, _)| format!("{verdict:?}").starts_with("Passed"));
            if !passed || outcome.action != 2 || outcome.frame != frame {
                return Err(format!("{} cut off after {length} bytes: {outcome:?}", fixture.name));
            }
        }
    }
    Ok(())
}

/// Whatever comes in while the gates are closed, nothing is answered in their name.
pub fn random_closed() -> Result<(), String> {
    Form::ALL.into_iter().try_for_each(|form| random(form, Gates::Expired))
}

pub fn random_open() -> Result<(), String> {
    Form::ALL.into_iter().try_for_each(|form| random(form, Gates::Open))
}

fn random(form: Form, gates: Gates) -> Result<(), String> {
    let seeds: Vec<Vec<u8>> = answered().into_iter().map(|fixture| fixture.frame).collect();
    let mutated = (0..seeds.len(), vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), any::<bool>())
        .prop_map(move |(seed, changes, cut)| {
            let mut frame = seeds[seed].clone();
            for (at, byte) in &changes {
                let at = at.index(frame.len());
                frame[at] = *byte;
            }
            if cut && let Some((at, _)) = changes.first() {
                let length = SHORTEST + at.index(frame.len() - SHORTEST);
                frame.truncate(length);
            }
            frame
        });
    let noise = vec(any::<u8>(), SHORTEST..200);
    let frames = prop_oneof![4 => mutated, 1 => noise];
    let mut bench = bench();
    bench.enter(form);
    bench.set(gates);
    let bench = std::cell::RefCell::new(bench);
    TestRunner::new(Config { cases: 4000, failure_persistence: None, ..Config::default() })
        .run(&frames, |frame| {
            let outcome = bench.borrow_mut().ingress(&frame);
            judge(form, gates, &frame, &outcome).map_err(TestCaseError::fail)
        })
        .map_err(|error| error.to_string())
}

/// What must hold of any frame.
fn judge(form: Form, gates: Gates, frame: &[u8], outcome: &Outcome) -> Result<(), String> {
    let [(verdict, 1)] = outcome.counted[..] else { return Err(format!("counted {:?}", outcome.counted)) };
    let answered = format!("{verdict:?}").starts_with("Answered");
    if !answered {
        return if outcome.frame == frame { Ok(()) } else { Err(format!("{verdict:?}, but changed")) };
    }
    let stationary = matches!(verdict, Verdict::AnsweredBroadcastPing4 | Verdict::AnsweredAllNodesPing6);
    if gates != Gates::Open && !stationary {
        return Err(format!("{verdict:?} while {gates:?}"));
    }
    let out = &outcome.frame;
    if out[6..12] != US {
        return Err("not from our station".into());
    }
    if out[0] & 1 != 0 && out[..6] != [0x33, 0x33, 0, 0, 0, 1] {
        return Err("to a group".into());
    }
    let mut l3 = 14;
    while [[0x81, 0x00], [0x88, 0xa8]].contains(&[out[l3 - 2], out[l3 - 1]]) {
        l3 += 4;
    }
    if out[12..l3] != frame[12..l3] {
        return Err("tags or type changed".into());
    }
    let stations4 = [STATION4, STATION4_B].map(IpAddr::from);
    let stations6 = [STATION6, STATION6_LOCAL].map(IpAddr::from);
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&out[at..at + 4]).unwrap());
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&out[at..at + 16]).unwrap());
    let ours = |address: IpAddr| answered_here(form, address);
    let ok = match verdict {
        Verdict::AnsweredArp => ours(v4(l3 + 14)),
        Verdict::AnsweredEcho4 => checksum(&out[l3..l3 + 20]) == 0 && ours(v4(l3 + 12)),
        Verdict::AnsweredBroadcastPing4 => {
            checksum(&out[l3..l3 + 20]) == 0 && stations4.contains(&v4(l3 + 12))
        }
        Verdict::AnsweredEcho6 => ours(v6(l3 + 8)),
        Verdict::AnsweredAllNodesPing6 => stations6.contains(&v6(l3 + 8)),
        Verdict::AnsweredNd => {
            let covered = [&out[l3 + 8..l3 + 40], &[0, 0, 0, 32, 0, 0, 0, 58], &out[l3 + 40..]].concat();
            checksum(&covered) == 0 && ours(v6(l3 + 8)) && v6(l3 + 48) == v6(l3 + 8)
        }
        other => return Err(format!("unexpected {other:?}")),
    };
    if ok { Ok(()) } else { Err(format!("a wrong answer: {out:02x?}")) }
}

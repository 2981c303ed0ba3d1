//! A fixture: a frame, how the gates stand, and what must become of it, as data.

use datapath_common::Verdict;
use vipd_tests::packets::Tag;

use crate::bench::{Form, Gates, bench};

pub struct Fixture {
    pub name: String,
    pub hook: Hook,
    pub gates: Gates,
    pub frame: Vec<u8>,
    pub verdict: Verdict,
    /// None: the frame goes on as it came.
    pub answer: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Ingress,
    Egress,
}

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const TC_NEXT: u32 = u32::MAX;
const TC_SHOT: u32 = 2;

/// Each is a test of its own.
#[derive(Default)]
pub struct Fixtures(pub Vec<Fixture>);

impl Fixtures {
    /// A frame that must be answered while the gate is open, and with `closed` not, in any way to be shut.
    pub fn answered(
        &mut self,
        name: &str,
        frame: Vec<u8>,
        verdict: Verdict,
        answer: Vec<u8>,
        closed: Verdict,
    ) {
        for gates in Gates::CLOSED {
            self.push(&format!("{name}, gate closed ({gates:?})"), gates, frame.clone(), closed, None);
        }
        self.push(name, Gates::Open, frame, verdict, Some(answer));
    }

    /// A frame that is the kernel's while the gate is open.
    pub fn passed(&mut self, name: &str, frame: Vec<u8>, verdict: Verdict) {
        self.push(name, Gates::Open, frame, verdict, None);
    }

    pub fn push(
        &mut self,
        name: &str,
        gates: Gates,
        frame: Vec<u8>,
        verdict: Verdict,
        answer: Option<Vec<u8>>,
    ) {
        self.0.push(Fixture { name: name.into(), hook: Hook::Ingress, gates, frame, verdict, answer });
    }

    /// A frame that leaves, or may not (`DroppedEgress`).
    pub fn leaving(&mut self, name: &str, gates: Gates, frame: Vec<u8>, verdict: Verdict) {
        let name = format!("egress: {name} ({gates:?})");
        self.0.push(Fixture { name, hook: Hook::Egress, gates, frame, verdict, answer: None });
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(16)
        .enumerate()
        .map(|(row, bytes)| {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("\n    {:4}  {}", row * 16, bytes.join(" "))
        })
        .collect()
}

impl Fixture {
    /// With the addresses alone, and as members of pages.
    pub fn run(&self) -> Result<(), String> {
        for form in Form::ALL {
            self.run_with(form).map_err(|error| format!("entered as {form:?}: {error}"))?;
        }
        Ok(())
    }

    fn run_with(&self, form: Form) -> Result<(), String> {
        let mut bench = bench();
        bench.enter(form);
        bench.set(self.gates);
        let before = bench.activity();
        let outcome = match self.hook {
            Hook::Ingress => bench.ingress(&self.frame),
            Hook::Egress => bench.egress(&self.frame),
        };
        let after = bench.activity();
        drop(bench);

        let (action, counted) = match self.hook {
            Hook::Ingress => (xdp_action(self.verdict), vec![(self.verdict, 1)]),
            // What may leave is not counted.
            Hook::Egress if self.verdict == Verdict::DroppedEgress => (TC_SHOT, vec![(self.verdict, 1)]),
            Hook::Egress => (TC_NEXT, Vec::new()),
        };
        if outcome.counted != counted {
            return Err(format!("counted {:?}, expected {counted:?}", outcome.counted));
        }
        if outcome.action != action {
            return Err(format!("action {}, expected {action}", outcome.action));
        }
        let expected = self.answer.as_ref().unwrap_or(&self.frame);
        if outcome.frame != *expected {
            return Err(format!(
                "wrong frame\n  in:      {}\n  out:     {}\n  expected:{}",
                hex(&self.frame),
                hex(&outcome.frame),
                hex(expected)
            ));
        }
        let heard = u64::from(self.hook == Hook::Ingress);
        let bytes = heard * self.frame.len() as u64;
        if after.frames != before.frames + heard || after.bytes != before.bytes + bytes {
            return Err(format!("activity went from {before:?} to {after:?}"));
        }
        Ok(())
    }
}

fn xdp_action(verdict: Verdict) -> u32 {
    let name = format!("{verdict:?}");
    match name.as_str() {
        name if name.starts_with("Answered") => XDP_TX,
        name if name.starts_with("Dropped") || name.starts_with("Limited") => XDP_DROP,
        name if name.starts_with("Passed") => XDP_PASS,
        name => panic!("no action for {name}"),
    }
}

const DOT1Q: u16 = 0x8100;
const DOT1AD: u16 = 0x88a8;

/// Ways to be tagged, and with which VLAN ids the frame counts: (name, tags, outer, inner).
pub fn taggings() -> Vec<(&'static str, Vec<Tag>, u16, u16)> {
    let tag = |protocol, control| Tag { protocol, control };
    vec![
        ("untagged", vec![], 0, 0),
        ("priority tag", vec![tag(DOT1Q, 0xe000)], 0, 0),
        ("802.1Q", vec![tag(DOT1Q, 0x6007)], 7, 0),
        ("802.1ad", vec![tag(DOT1AD, 0x0007)], 7, 0),
        ("802.1ad and 802.1Q", vec![tag(DOT1AD, 0x2008), tag(DOT1Q, 0x4009)], 8, 9),
        ("802.1Q twice", vec![tag(DOT1Q, 0x0008), tag(DOT1Q, 0x0009)], 8, 9),
    ]
}

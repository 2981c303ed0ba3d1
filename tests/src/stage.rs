//! Where the benchmarks of moves take place: hosts, and a client that asks for a sample of many addresses
//! and records who announces and answers.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};

use crate::{
    capture::Capture,
    frames::{Kind, Mac},
    lab::{Lab, Options},
    prober::{Prober, Targets},
    timeline::Moment,
};

/// Of the subnet that has room for all addresses.
pub const PREFIX_LEN: u8 = 15;
/// The largest runs take the kernel seconds.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Addresses whose answers are watched.
const SAMPLE: usize = 500;

pub struct Stage {
    pub lab: Lab,
    pub capture: Capture,
    pub vips: Vec<IpAddr>,
    /// At most 500 of them, evenly spread, the first and the last among them.
    pub sample: Vec<IpAddr>,
    _prober: Prober,
}

impl Stage {
    /// No daemon runs yet.
    ///
    /// # Errors
    /// When the lab cannot be set up.
    pub fn new(options: &Options, count: usize) -> Result<Self> {
        let lab = Lab::new(options)?;
        lab.add_wide_subnet()?;
        let vips = Lab::wide_addresses(count);
        let sampled = count.min(SAMPLE);
        let spread = |n: usize| vips[n * (count - 1) / (sampled - 1).max(1)];
        let sample: Vec<IpAddr> = (0..sampled).map(spread).collect();
        let capture = lab.capture(&vips)?;
        let targets = Targets { addresses: sample.clone(), interval: Duration::from_millis(10) };
        let asker = lab.segment.asker();
        let prober = Prober::start(lab.segment.client(), "eth0", asker, Vec::new(), vec![targets])?;
        Ok(Self { lab, capture, vips, sample, _prober: prober })
    }

    /// All addresses, as the CLI reads them.
    pub fn range(&self) -> String {
        let (first, last) = (self.vips[0], self.vips[self.vips.len() - 1]);
        if first == last { format!("{first}/{PREFIX_LEN}") } else { format!("{first}-{last}/{PREFIX_LEN}") }
    }

    /// Until `owner` answers for the sample and has announced all.
    ///
    /// # Errors
    /// When it does not within [`PATIENCE`].
    pub fn wait_taken(&self, owner: Mac, since: Moment) -> Result<()> {
        self.lab.wait(PATIENCE, "all addresses answer and are announced", || {
            self.capture.look(|timeline| {
                let later = timeline.records.iter().rev().take_while(|r| r.time > since);
                let (mut answered, mut announced) = (HashSet::new(), HashSet::new());
                for record in later.filter(|r| r.mac == owner) {
                    if record.kind.is_answer() {
                        answered.insert(record.address);
                    } else if record.kind == Kind::Announcement {
                        announced.insert(record.address);
                    }
                }
                ensure!(answered.len() >= self.sample.len(), "{} answer", answered.len());
                ensure!(announced.len() == self.vips.len(), "{} are announced", announced.len());
                Ok(())
            })
        })
    }

    /// What the client saw of `owner` after that moment.
    pub fn firsts(&self, owner: Mac, since: Moment) -> Firsts {
        let mut firsts = Firsts::default();
        self.capture.look(|timeline| {
            for record in timeline.records.iter().filter(|r| r.mac == owner && r.time > since) {
                let of_kind = match record.kind {
                    Kind::Announcement => &mut firsts.announcements,
                    kind if kind.is_answer() => &mut firsts.answers,
                    Kind::ArpReply | Kind::Advertisement | Kind::EchoReply | Kind::Other => continue,
                };
                of_kind.entry(record.address).or_insert(record.time);
            }
        });
        firsts
    }
}

/// When each address was first answered for, and first announced.
#[derive(Debug, Default)]
pub struct Firsts {
    pub answers: HashMap<IpAddr, Moment>,
    pub announcements: HashMap<IpAddr, Moment>,
}

/// The moment of a reading of CLOCK_BOOTTIME, as events have it.
///
/// # Errors
/// When a clock cannot be read.
pub fn moment_of(boot_ns: u64) -> Result<Moment> {
    let now = |clock| -> Result<u64> {
        let now = clock_gettime(clock).context("cannot read a clock")?;
        Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
    };
    let (real, boot) = (now(ClockId::CLOCK_REALTIME)?, now(ClockId::CLOCK_BOOTTIME)?);
    Ok(Moment(real - boot + boot_ns))
}

//! From SIGKILL of the owner to the client's first answer from another host: ours in both profiles
//! beside keepalived at three advert intervals, on the same topology, asked by the same client. Then
//! thousands of addresses in many hierarchies, for three reasons to move ([`hierarchies`]).

mod hierarchies;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use vipd_tests::{
    capture::Capture,
    frames::Mac,
    interrupt,
    keepalived::{Instance, Keepalived},
    lab::{self, Lab, Options, PATIENCE},
    measure::{Spread, write_json},
    prober::{Prober, Targets},
    table::Table,
    timeline::Moment,
};

#[derive(Parser)]
struct Arguments {
    /// Kills per case
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Numbers of addresses
    #[arg(long, value_delimiter = ',', default_value = "1,200")]
    addresses: Vec<usize>,
    /// Hierarchies that are moved all at once; 0: none
    #[arg(long, default_value_t = 50)]
    hierarchies: usize,
    /// Addresses of each
    #[arg(long, default_value_t = 200)]
    each: usize,
    /// Losses, kills and moves of all hierarchies
    #[arg(long, default_value_t = 3)]
    moves: usize,
    /// Only cases whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Where to write the results
    #[arg(long, default_value = "target/bench/failover.json")]
    json: PathBuf,
}

/// Who fails over.
#[derive(Clone, Copy, Debug)]
enum Contender {
    Vipd { profile: &'static str },
    Keepalived { advert_interval: &'static str },
}

const CONTENDERS: [Contender; 5] = [
    Contender::Vipd { profile: "default" },
    Contender::Vipd { profile: "fast" },
    Contender::Keepalived { advert_interval: "1" },
    Contender::Keepalived { advert_interval: "0.1" },
    Contender::Keepalived { advert_interval: "0.01" },
];

impl Contender {
    fn name(self) -> String {
        match self {
            Self::Vipd { profile } => format!("vipd, {profile} profile"),
            Self::Keepalived { advert_interval } => format!("keepalived, advert_int {advert_interval}"),
        }
    }
}

/// One kill.
#[derive(Clone, Copy, Debug, Serialize)]
struct Run {
    /// To the first answer from a new owner, for any address.
    first_ms: f64,
    /// Until every address was answered by a new owner.
    last_ms: f64,
    /// Frames of the dead owner after the new one's first, for the same address.
    double_answers: usize,
}

#[derive(Debug, Serialize)]
struct Case {
    contender: String,
    addresses: usize,
    runs: Vec<Run>,
}

#[derive(Debug, Serialize)]
struct Results {
    kills: Vec<Case>,
    hierarchies: Vec<hierarchies::Case>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    interrupt::install()?;
    lab::sweep();
    let mut cases = Vec::new();
    for count in &arguments.addresses {
        for contender in CONTENDERS {
            let name = contender.name();
            if arguments.only.as_ref().is_some_and(|only| !name.contains(only)) {
                continue;
            }
            eprint!("{name}, {count} addresses ");
            let runs = match contender {
                Contender::Vipd { profile } => vipd(profile, *count, arguments.runs),
                Contender::Keepalived { advert_interval } => {
                    keepalived(advert_interval, *count, arguments.runs)
                }
            }
            .with_context(|| format!("{name} with {count} addresses"))?;
            eprintln!();
            cases.push(Case { contender: name, addresses: *count, runs });
        }
    }
    let moved = if arguments.hierarchies == 0 {
        Vec::new()
    } else {
        let size = hierarchies::Size { hierarchies: arguments.hierarchies, each: arguments.each };
        hierarchies::run(&size, arguments.moves, arguments.only.as_deref())?
    };
    print(&cases);
    let results = Results { kills: cases, hierarchies: moved };
    write_json(&arguments.json, &results)?;
    hierarchies::print(&results.hierarchies)
}

fn addresses(count: usize) -> Vec<IpAddr> {
    let address = |n: usize| IpAddr::from(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 77, 1, 0)) + n as u32));
    (1..=count).map(address).collect()
}

/// A lab whose subnet is wide enough, the client's capture, and ARP requests for all addresses. Who
/// answers is asked for by broadcast, so every host that would answer does.
fn stage(profile: &'static str, vips: &[IpAddr]) -> Result<(Lab, Capture, Prober)> {
    let lab = Lab::new(&Options { profile, ..Options::default() })?;
    let capture = lab.capture(vips)?;
    // One address finely, for the first answer; all of them as often as leaves the CPU to the hosts.
    let all = Duration::from_millis(if vips.len() > 1 { 20 } else { 2 });
    let targets = vec![
        Targets { addresses: vips[..1].to_vec(), interval: Duration::from_millis(2) },
        Targets { addresses: vips.to_vec(), interval: all },
    ];
    let asker = lab.segment.asker();
    let prober = Prober::start(lab.segment.client(), "eth0", asker, Vec::new(), targets)?;
    Ok((lab, capture, prober))
}

/// Who answered for the first address last.
fn owner(lab: &Lab, capture: &Capture, vips: &[IpAddr], since: Moment) -> Result<usize> {
    let mac = capture
        .look(|timeline| timeline.of(vips[0]).rfind(|r| r.time > since && r.kind.is_answer()).map(|r| r.mac));
    let mac = mac.context("nobody answers")?;
    lab.host_of(mac).map(lab::Host::index).context("a stranger answers")
}

/// Waits until every address is answered by somebody who is not `not`, all after `since`.
fn all_answered(
    lab: &Lab,
    capture: &Capture,
    vips: &[IpAddr],
    not: Option<Mac>,
    since: Moment,
) -> Result<()> {
    lab.wait(PATIENCE, "all addresses are answered", || {
        capture.look(|timeline| {
            let later = timeline.records.iter().rev().take_while(|r| r.time > since);
            let answered: std::collections::HashSet<IpAddr> =
                later.filter(|r| r.kind.is_answer() && Some(r.mac) != not).map(|r| r.address).collect();
            ensure!(answered.len() == vips.len(), "{} of {} are", answered.len(), vips.len());
            Ok(())
        })
    })
}

/// What the client saw of the takeover.
fn measure(capture: &Capture, vips: &[IpAddr], dead: Mac, killed: Moment) -> Result<Run> {
    let seen = capture.timeline().between(killed, Moment(u64::MAX));
    let mut firsts = Vec::new();
    let mut double_answers = 0;
    for vip in vips {
        let first = seen.of(*vip).find(|r| r.mac != dead && r.kind.is_answer()).context("no new owner")?;
        firsts.push(first.time.since(killed).as_secs_f64() * 1e3);
        double_answers += seen.of(*vip).filter(|r| r.mac == dead && r.time > first.time).count();
    }
    firsts.sort_by(f64::total_cmp);
    let at = |index: usize| firsts.get(index).copied().unwrap_or(f64::NAN);
    Ok(Run { first_ms: at(0), last_ms: at(firsts.len().saturating_sub(1)), double_answers })
}

fn vipd(profile: &'static str, count: usize, runs: usize) -> Result<Vec<Run>> {
    let vips = addresses(count);
    let (lab, capture, _prober) = stage(profile, &vips)?;
    lab.widen()?;
    lab.form_cluster()?;
    let name = |vip: &IpAddr| (format!("vip-{vip}"), format!("{vip}/16"));
    lab.create_many(0, &vips.iter().map(name).collect::<Vec<_>>())?;
    let mut results = Vec::new();
    for _ in 0..runs {
        let since = Moment::now();
        all_answered(&lab, &capture, &vips, None, since)?;
        let victim = owner(&lab, &capture, &vips, since)?;
        let dead = lab.host(victim).mac();
        let killed = lab.host(victim).sigkill()?;
        all_answered(&lab, &capture, &vips, Some(dead), killed)?;
        results.push(measure(&capture, &vips, dead, killed)?);
        lab.host(victim).start()?;
        lab.wait_whole()?;
        eprint!(".");
    }
    Ok(results)
}

fn keepalived(advert_interval: &'static str, count: usize, runs: usize) -> Result<Vec<Run>> {
    let vips = addresses(count);
    let (lab, capture, _prober) = stage("default", &vips)?;
    lab.widen()?;
    let instance = Instance { addresses: vips.clone(), prefix_len: 16, advert_interval };
    let mut all = (0..lab.hosts.len())
        .map(|index| Keepalived::prepare(lab.dir(), index, &instance))
        .collect::<Result<Vec<_>>>()?;
    all.iter_mut().try_for_each(|k| k.start(&lab.segment))?;
    let mut results = Vec::new();
    for _ in 0..runs {
        let since = Moment::now();
        let answered = all_answered(&lab, &capture, &vips, None, since);
        answered.with_context(|| all.iter().map(Keepalived::log).collect::<Vec<_>>().join("----\n"))?;
        let victim = owner(&lab, &capture, &vips, since)?;
        let dead = lab.host(victim).mac();
        let killed = all[victim].sigkill()?;
        all_answered(&lab, &capture, &vips, Some(dead), killed)?;
        results.push(measure(&capture, &vips, dead, killed)?);
        // It left all its addresses behind; an operator would reboot.
        let host = lab.segment.host(victim);
        for vip in &vips {
            host.ip(&format!("addr del {vip}/16 dev eth0"))?;
        }
        all[victim].start(&lab.segment)?;
        eprint!(".");
    }
    Ok(results)
}

fn print(cases: &[Case]) {
    if cases.is_empty() {
        return;
    }
    let mut table = Table::new(&[
        "SIGKILL of the owner; ms, min / median / max",
        "addresses",
        "first answer",
        "last address",
        "double answers",
    ]);
    for case in cases {
        let first = Spread::of(case.runs.iter().map(|r| r.first_ms));
        let last = Spread::of(case.runs.iter().map(|r| r.last_ms));
        let double: usize = case.runs.iter().map(|r| r.double_answers).sum();
        table.row([
            case.contender.clone(),
            case.addresses.to_string(),
            first.to_string(),
            last.to_string(),
            double.to_string(),
        ]);
    }
    println!("\n{table}");
    for case in cases.iter().filter(|c| c.contender.starts_with("vipd")) {
        let median = |case: &Case| Spread::of(case.runs.iter().map(|r| r.last_ms)).median;
        let same =
            |other: &&Case| other.addresses == case.addresses && other.contender.starts_with("keepalived");
        let ratios: Vec<String> = cases
            .iter()
            .filter(same)
            .map(|other| format!("{:.2} x {}", median(case) / median(other), other.contender))
            .collect();
        if !ratios.is_empty() {
            println!("  {} with {}: {}", case.contender, case.addresses, ratios.join(", "));
        }
    }
}

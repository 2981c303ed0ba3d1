//! How long an address is away when the interface that carries it loses its carrier and the host has
//! another one for it (row NM-5).
//!
//! The clock starts when `ip link set ... down`, at the far end of the cable, has returned. The two
//! interfaces take turns: each switch goes to the one that the switch before left. Which addresses answer is
//! asked for a sample of at most 500; announcements are counted for all.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use vipd::api::LinkHealth;
use vipd_tests::{
    frames::Mac,
    interrupt,
    lab::{self, Lab, Options},
    measure::{Spread, write_json},
    stage::{Firsts, PATIENCE, PREFIX_LEN, Stage, moment_of},
    table::Table,
    timeline::Moment,
};

const TAG: &str = "bench";
const DEVICES: [&str; 2] = ["eth0", "eth2"];

#[derive(Parser)]
struct Arguments {
    /// Switches per case
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Numbers of addresses
    #[arg(long, value_delimiter = ',', default_value = "1,1000,65536")]
    addresses: Vec<usize>,
    /// Only cases whose way of accepting contains this
    #[arg(long)]
    only: Option<String>,
    /// Where to write the results
    #[arg(long, default_value = "target/bench/switch.json")]
    json: PathBuf,
}

/// The ways, and how many addresses they can do within reason: adding kernel addresses is quadratic.
const WAYS: [(&str, usize); 2] = [("assign", 1_000), ("anyip", usize::MAX)];

/// One switch; milliseconds since the carrier was lost.
#[derive(Clone, Copy, Debug, Serialize)]
struct Run {
    /// By the host's own log: the interface is down.
    noticed_ms: f64,
    /// The sequence begins.
    begun_ms: f64,
    /// The gate is open on the other interface.
    opened_ms: f64,
    first_announcement_ms: f64,
    last_announcement_ms: f64,
    last_answer_ms: f64,
}

#[derive(Debug, Serialize)]
struct Case {
    accept: &'static str,
    addresses: usize,
    runs: Vec<Run>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    interrupt::install()?;
    lab::sweep();
    let mut cases = Vec::new();
    for count in &arguments.addresses {
        for (accept, most) in WAYS {
            let wanted = arguments.only.as_ref().is_none_or(|only| accept.contains(only));
            if !wanted || *count > most {
                continue;
            }
            eprint!("{accept}, {count} addresses ");
            let runs = switches(accept, *count, arguments.runs)
                .with_context(|| format!("{accept} with {count} addresses"))?;
            eprintln!();
            cases.push(Case { accept, addresses: *count, runs });
        }
    }
    print(&cases);
    write_json(&arguments.json, &cases)
}

fn switches(accept: &str, count: usize, runs: usize) -> Result<Vec<Run>> {
    // What the nodes say to each other goes over a network of its own.
    let stage = Stage::new(&Options { paths: 2, rpc_path: 1, ..Options::default() }, count)?;
    let lab = &stage.lab;
    lab.segment.plug_standby(0)?;
    lab.segment.host(0).ip(&format!("addr add 10.90.0.21/{PREFIX_LEN} broadcast + dev eth2"))?;
    lab.form_cluster()?;
    wait_up(lab, DEVICES[1])?;
    let begun = Moment::now();
    let range = stage.range();
    let [first, second] = DEVICES;
    let create = ["create", "ip", &range, "--dev", first, "--dev", second, "--tag", TAG, "--accept", accept];
    lab.host(0).vipctl(&create)?.done().map_err(|e| lab.explain(e))?;
    stage.wait_taken(lab.host(0).mac(), begun)?;
    lab.wait_in_service(TAG, 0)?;
    let mut results = Vec::new();
    for run in 0..runs {
        let (from, to) = (run % 2, (run + 1) % 2);
        results.push(switch(&stage, from == 1, DEVICES[to])?);
        lab.segment.set_carrier(0, from == 1, true)?;
        wait_up(lab, DEVICES[from])?;
        eprint!(".");
    }
    Ok(results)
}

fn wait_up(lab: &Lab, device: &str) -> Result<()> {
    lab.wait(PATIENCE, &format!("{device} is up"), || {
        let interfaces = lab.host(0).status()?.interfaces;
        let health = interfaces.iter().find(|i| i.name == device).map(|i| i.health);
        ensure!(health == Some(LinkHealth::Up), "it is {health:?}");
        Ok(())
    })
}

/// Cuts the first interface, or the standby one, and waits until all is on the other.
fn switch(stage: &Stage, standby: bool, to: &str) -> Result<Run> {
    let (lab, own) = (&stage.lab, stage.lab.host(0));
    let mac: Mac = if standby { own.mac() } else { lab.segment.standby_mac(0) };
    // Within that command, and before it returns, the host may have noticed.
    let before = Moment::now();
    lab.segment.set_carrier(0, standby, false)?;
    let cut = Moment::now();
    stage.wait_taken(mac, before)?;
    lab.wait(PATIENCE, "the switch is over", || {
        let resource = lab.resource(0, TAG)?;
        ensure!(resource.device.as_deref() == Some(to), "it is on {:?}", resource.device);
        told(lab, "resource.switched", before).map(drop)
    })?;
    let Firsts { answers, announcements } = stage.firsts(mac, before);
    let ms = |moment: Moment| moment.since(cut).as_secs_f64() * 1e3;
    let first = announcements.values().min().copied().context("nothing was announced")?;
    let last = announcements.values().max().copied().context("nothing was announced")?;
    let answer = answers.values().max().copied().context("nothing was answered")?;
    Ok(Run {
        noticed_ms: ms(told(lab, "link.down", before)?),
        begun_ms: ms(told(lab, "switch.program", before)?),
        opened_ms: ms(told(lab, "switch.open-gate", before)?),
        first_announcement_ms: ms(first),
        last_announcement_ms: ms(last),
        last_answer_ms: ms(answer),
    })
}

/// When the host first told of this after that moment.
fn told(lab: &Lab, kind: &str, after: Moment) -> Result<Moment> {
    for event in lab.host(0).events()?.iter().filter(|e| e.kind == kind) {
        let moment = moment_of(event.boot_ns)?;
        if moment > after {
            return Ok(moment);
        }
    }
    anyhow::bail!("no event {kind} yet")
}

fn print(cases: &[Case]) {
    let mut table = Table::new(&[
        "from carrier loss; ms, min / median / max",
        "addresses",
        "noticed",
        "begun",
        "gate opens",
        "first announced",
        "last announced",
        "last address answers",
    ]);
    for case in cases {
        let spread = |of: fn(&Run) -> f64| Spread::of(case.runs.iter().map(of)).to_string();
        table.row([
            format!("vipd, {}", case.accept),
            case.addresses.to_string(),
            spread(|r| r.noticed_ms),
            spread(|r| r.begun_ms),
            spread(|r| r.opened_ms),
            spread(|r| r.first_announcement_ms),
            spread(|r| r.last_announcement_ms),
            spread(|r| r.last_answer_ms),
        ]);
    }
    println!("\n{table}");
}

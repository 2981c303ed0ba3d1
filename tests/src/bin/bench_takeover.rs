//! How long it takes a host that was given addresses to answer for all of them and to have told
//! everybody: ours with kernel addresses and with one local route a prefix, beside keepalived and the
//! OCF agent IPaddr2 at the sizes they can do.
//!
//! The clock starts when the new owner is told: at the first step of the sequence that the grant starts,
//! when keepalived's master is asked to end (its last advert hands over at once), at the call of the first agent. Which addresses answer is
//! asked for a sample of at most 500; announcements are counted for all.

use std::{collections::HashMap, fs, net::IpAddr, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use vipd_tests::{
    frames::Mac,
    interrupt,
    keepalived::{Instance, Keepalived},
    lab::{self, Lab, Options},
    measure::{Spread, write_json},
    stage::{Firsts, PATIENCE, PREFIX_LEN, Stage, moment_of},
    table::Table,
    timeline::Moment,
};

const TAG: &str = "bench";
const IPADDR2: &str = "/usr/lib/ocf/resource.d/heartbeat/IPaddr2";

#[derive(Parser)]
struct Arguments {
    /// Takeovers per case
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Numbers of addresses
    #[arg(long, value_delimiter = ',', default_value = "1,200,1000,10000,65536")]
    addresses: Vec<usize>,
    /// Only cases whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Where to write the results
    #[arg(long, default_value = "target/bench/takeover.json")]
    json: PathBuf,
}

/// Who takes over, and how many addresses it can do within reason: adding kernel addresses is quadratic.
#[derive(Clone, Copy, Debug)]
enum Contender {
    Vipd { accept: &'static str, most: usize },
    Keepalived { most: usize },
    IpAddr2 { most: usize },
}

const CONTENDERS: [Contender; 4] = [
    Contender::Vipd { accept: "anyip", most: usize::MAX },
    Contender::Vipd { accept: "assign", most: 10_000 },
    Contender::Keepalived { most: 1_000 },
    Contender::IpAddr2 { most: 1 },
];

impl Contender {
    fn name(self) -> String {
        match self {
            Self::Vipd { accept, .. } => format!("vipd, {accept}"),
            Self::Keepalived { .. } => "keepalived".to_owned(),
            Self::IpAddr2 { .. } => "IPaddr2, one after another".to_owned(),
        }
    }

    fn most(self) -> usize {
        match self {
            Self::Vipd { most, .. } | Self::Keepalived { most } | Self::IpAddr2 { most } => most,
        }
    }
}

/// One takeover; milliseconds from the moment the new owner was told.
#[derive(Clone, Copy, Debug, Serialize)]
struct Run {
    last_answer_ms: f64,
    last_announcement_ms: f64,
    /// Addresses that were never announced although they should be.
    unannounced: usize,
}

#[derive(Debug, Serialize)]
struct Case {
    contender: String,
    addresses: usize,
    runs: Vec<Run>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    interrupt::install()?;
    lab::sweep();
    let mut cases = Vec::new();
    for count in &arguments.addresses {
        for contender in CONTENDERS {
            let name = contender.name();
            let wanted = arguments.only.as_ref().is_none_or(|only| name.contains(only));
            if !wanted || *count > contender.most() {
                continue;
            }
            eprint!("{name}, {count} addresses ");
            let runs = match contender {
                Contender::Vipd { accept, .. } => vipd(accept, *count, arguments.runs),
                Contender::Keepalived { .. } => keepalived(*count, arguments.runs),
                Contender::IpAddr2 { .. } => ipaddr2(*count, arguments.runs),
            }
            .with_context(|| format!("{name} with {count} addresses"))?;
            eprintln!();
            cases.push(Case { contender: name, addresses: *count, runs });
        }
    }
    print(&cases);
    write_json(&arguments.json, &cases)
}

/// What the client saw since the new owner was told.
fn measure(stage: &Stage, owner: Mac, told: Moment) -> Result<Run> {
    let Firsts { answers, announcements } = stage.firsts(owner, told);
    let last = |firsts: &HashMap<IpAddr, Moment>| {
        let last = firsts.values().max().copied().context("nothing was seen");
        last.map(|t| t.since(told).as_secs_f64() * 1e3)
    };
    Ok(Run {
        last_answer_ms: last(&answers)?,
        last_announcement_ms: last(&announcements)?,
        unannounced: stage.vips.len() - announcements.len(),
    })
}

fn hosts(hosts: usize) -> Options {
    Options { hosts, ..Options::default() }
}

fn vipd(accept: &'static str, count: usize, runs: usize) -> Result<Vec<Run>> {
    let stage = Stage::new(&hosts(3), count)?;
    let lab = &stage.lab;
    lab.form_cluster()?;
    let range = stage.range();
    let begun = Moment::now();
    let create =
        ["create", "ip", &range, "--dev", "eth0", "--tag", TAG, "--accept", accept, "--extend-to", "all"];
    lab.host(0).vipctl(&create)?.done().map_err(|e| lab.explain(e))?;
    stage.wait_taken(lab.host(0).mac(), begun)?;
    let mut results = Vec::new();
    for run in 0..runs {
        let to = (run + 1) % lab.hosts.len();
        let begun = Moment::now();
        lab.host(0).vipctl(&["in-service", TAG, "--on", lab.host(to).name()])?.done()?;
        stage.wait_taken(lab.host(to).mac(), begun)?;
        let told = told(lab, to)?;
        results.push(measure(&stage, lab.host(to).mac(), told)?);
        eprint!(".");
    }
    Ok(results)
}

/// When the newest bring-up began on the host, by its own log of events.
fn told(lab: &Lab, on: usize) -> Result<Moment> {
    let events = lab.host(on).events()?;
    let own = || events.iter().filter(|e| e.tag.as_ref().is_some_and(|t| t.as_str() == TAG));
    let epoch = own().filter(|e| e.kind.starts_with("restore.")).filter_map(|e| e.epoch).max();
    let first = own().find(|e| e.epoch == epoch && e.kind.starts_with("restore."));
    let boot_ns = first.context("no event says when it began")?.boot_ns;
    moment_of(boot_ns)
}

fn keepalived(count: usize, runs: usize) -> Result<Vec<Run>> {
    let stage = Stage::new(&hosts(2), count)?;
    let lab = &stage.lab;
    let instance = Instance { addresses: stage.vips.clone(), prefix_len: PREFIX_LEN, advert_interval: "0.1" };
    let mut all =
        (0..2).map(|index| Keepalived::prepare(lab.dir(), index, &instance)).collect::<Result<Vec<_>>>()?;
    let begun = Moment::now();
    all[0].start(&lab.segment)?;
    stage.wait_taken(lab.host(0).mac(), begun)?;
    let mut owner = 0;
    let mut results = Vec::new();
    for _ in 0..runs {
        let next = 1 - owner;
        all[next].start(&lab.segment)?;
        lab.wait(PATIENCE, "the backup is one", || {
            ensure!(all[next].log().contains("Entering BACKUP STATE"), "not yet");
            Ok(())
        })?;
        let begun = Moment::now();
        let told = all[owner].terminate()?;
        stage.wait_taken(lab.host(next).mac(), begun)?;
        results.push(measure(&stage, lab.host(next).mac(), told)?);
        owner = next;
        eprint!(".");
    }
    Ok(results)
}

fn ipaddr2(count: usize, runs: usize) -> Result<Vec<Run>> {
    ensure!(fs::exists(IPADDR2)?, "there is no {IPADDR2}: `cargo xtask setup` installs resource-agents");
    let stage = Stage::new(&hosts(1), count)?;
    let lab = &stage.lab;
    let mut results = Vec::new();
    for _ in 0..runs {
        let told = Moment::now();
        stage.vips.iter().try_for_each(|vip| agent(lab, *vip, "start"))?;
        stage.wait_taken(lab.host(0).mac(), told)?;
        results.push(measure(&stage, lab.host(0).mac(), told)?);
        stage.vips.iter().try_for_each(|vip| agent(lab, *vip, "stop"))?;
        eprint!(".");
    }
    Ok(results)
}

fn agent(lab: &Lab, vip: IpAddr, action: &str) -> Result<()> {
    interrupt::check()?;
    let state = lab.dir().join("ocf");
    fs::create_dir_all(&state).context("no directory for the agent")?;
    let mut command = lab.host(0).command(IPADDR2)?;
    command.arg(action).env("OCF_ROOT", "/usr/lib/ocf").env("OCF_RESOURCE_INSTANCE", format!("vip-{vip}"));
    command.env("OCF_RESKEY_ip", vip.to_string()).env("OCF_RESKEY_nic", "eth0");
    command.env("OCF_RESKEY_cidr_netmask", PREFIX_LEN.to_string()).env("HA_RSCTMP", &state);
    let output = command.output().context("cannot run IPaddr2")?;
    ensure!(output.status.success(), "IPaddr2 {action}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn print(cases: &[Case]) {
    let mut table = Table::new(&[
        "from being told; ms, min / median / max",
        "addresses",
        "last address answers",
        "last one announced",
        "not announced",
    ]);
    for case in cases {
        table.row([
            case.contender.clone(),
            case.addresses.to_string(),
            Spread::of(case.runs.iter().map(|r| r.last_answer_ms)).to_string(),
            Spread::of(case.runs.iter().map(|r| r.last_announcement_ms)).to_string(),
            case.runs.iter().map(|r| r.unannounced).sum::<usize>().to_string(),
        ]);
    }
    println!("\n{table}");
    let median = |case: &Case| Spread::of(case.runs.iter().map(|r| r.last_answer_ms)).median;
    for case in cases.iter().filter(|c| c.contender.starts_with("vipd")) {
        let peers =
            cases.iter().filter(|o| o.addresses == case.addresses && !o.contender.starts_with("vipd"));
        let ratios: Vec<String> =
            peers.map(|o| format!("{:.2} x {}", median(case) / median(o), o.contender)).collect();
        if !ratios.is_empty() {
            println!("  {} with {}: {}", case.contender, case.addresses, ratios.join(", "));
        }
    }
}

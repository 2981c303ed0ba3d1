//! What holding addresses costs while nothing happens: CPU time and memory of the daemon, beside
//! keepalived.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use vipd_tests::{
    interrupt,
    keepalived::{Instance, Keepalived},
    lab::{self, Lab, Options},
    measure::write_json,
    table::Table,
};

const PREFIX_LEN: u8 = 15;
/// The kernel needs long for many addresses.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Arguments {
    /// Seconds to look at each case
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Numbers of addresses
    #[arg(long, value_delimiter = ',', default_value = "1,1000,65536")]
    addresses: Vec<usize>,
    /// Where to write the results
    #[arg(long, default_value = "target/bench/idle.json")]
    json: PathBuf,
}

/// More kernel addresses than this take keepalived too long.
const KEEPALIVED_MOST: usize = 1_000;

#[derive(Debug, Serialize)]
struct Case {
    contender: String,
    addresses: usize,
    /// Of one core.
    cpu_percent: f64,
    resident_mib: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    interrupt::install()?;
    lab::sweep();
    let time = Duration::from_secs(arguments.seconds);
    let mut cases = Vec::new();
    for &count in &arguments.addresses {
        eprintln!("vipd, {count} addresses");
        cases.push(vipd(count, time)?);
        if count <= KEEPALIVED_MOST {
            eprintln!("keepalived, {count} addresses");
            cases.push(keepalived(count, time)?);
        }
    }
    let mut table = Table::new(&["at rest", "addresses", "CPU, % of a core", "resident, MiB"]);
    for case in &cases {
        table.row([
            case.contender.clone(),
            case.addresses.to_string(),
            format!("{:.2}", case.cpu_percent),
            format!("{:.1}", case.resident_mib),
        ]);
    }
    println!("\n{table}");
    write_json(&arguments.json, &cases)
}

/// The owner, one of three hosts, with its usual checks and heartbeats.
fn vipd(count: usize, time: Duration) -> Result<Case> {
    let lab = Lab::new(&Options::default())?;
    lab.add_wide_subnet()?;
    lab.form_cluster()?;
    let vips = Lab::wide_addresses(count);
    let range = format!("{}-{}/{PREFIX_LEN}", vips[0], vips[count - 1]);
    let create = ["create", "ip", &range, "--dev", "eth0", "--tag", "bench", "--extend-to", "all"];
    lab.host(0).vipctl(&create)?.done().map_err(|e| lab.explain(e))?;
    lab.wait(PATIENCE, "the addresses are in service", || lab.check_in_service("bench", 0, 0))?;
    let pid = lab.host(0).pid().context("the daemon is not running")?;
    at_rest("vipd", count, &[pid], time)
}

/// The master, with one backup.
fn keepalived(count: usize, time: Duration) -> Result<Case> {
    let lab = Lab::new(&Options { hosts: 2, ..Options::default() })?;
    lab.add_wide_subnet()?;
    let addresses = Lab::wide_addresses(count);
    let instance = Instance { addresses, prefix_len: PREFIX_LEN, advert_interval: "1" };
    let mut all =
        (0..2).map(|index| Keepalived::prepare(lab.dir(), index, &instance)).collect::<Result<Vec<_>>>()?;
    all.iter_mut().try_for_each(|k| k.start(&lab.segment))?;
    lab.wait(PATIENCE, "keepalived is master", || {
        ensure!(all[0].log().contains("Entering MASTER STATE"), "not yet");
        Ok(())
    })?;
    at_rest("keepalived", count, &all[0].pids(), time)
}

/// What the processes use from now on, after the work of the start has settled.
fn at_rest(contender: &str, addresses: usize, pids: &[u32], time: Duration) -> Result<Case> {
    pause(Duration::from_secs(10).min(time))?;
    let before = pids.iter().map(|&pid| cpu(pid)).sum::<Result<Duration>>()?;
    pause(time)?;
    let used = pids.iter().map(|&pid| cpu(pid)).sum::<Result<Duration>>()?.saturating_sub(before);
    let resident = pids.iter().map(|&pid| resident_kib(pid)).sum::<Result<u64>>()?;
    Ok(Case {
        contender: contender.to_owned(),
        addresses,
        cpu_percent: 100.0 * used.as_secs_f64() / time.as_secs_f64(),
        resident_mib: resident as f64 / 1024.0,
    })
}

fn pause(time: Duration) -> Result<()> {
    let end = std::time::Instant::now() + time;
    while std::time::Instant::now() < end {
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(50).min(time));
    }
    Ok(())
}

/// User and system time so far (proc_pid_schedstat(5) counts in nanoseconds, all threads one by one).
fn cpu(pid: u32) -> Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("{pid} has ended"))? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(sum))
}

fn resident_kib(pid: u32) -> Result<u64> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("{pid} has ended"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.trim_end_matches("kB").trim().parse().context("VmRSS is no number")
}

//! How long it takes, and how many calls, to move addresses in the route tables of a VPC: by vipd, by the OCF agent
//! aws-vpc-move-ip and by the AWS command line alone, through the same proxy to the same server of EC2's API.
//!
//! Each call takes a given time before it is executed; the server executes one after another. What is compared:
//! - the peers are called on the host that takes over, nobody else having to be asked: their clock starts with the
//!   first call of them and knows nothing of the loss of a host;
//! - vipd's clock starts with the order, or with the SIGKILL of the owner. The decision, the removal from the former
//!   owner or the detection of its loss, the address on the new owner's interface, and the reading back of what was
//!   written are in its figures. When the new owner began is told beside them.

mod ours;
mod peers;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use vipd_tests::{
    cloud::{Call, World, journal},
    interrupt, lab,
    measure::{Spread, write_json},
    table::Table,
    timeline::Moment,
};

use self::{
    ours::{Cause, Cluster, Shape},
    peers::{Peer, Stage},
};

#[derive(Parser)]
struct Arguments {
    /// Moves per case
    #[arg(long, default_value_t = 3)]
    moves: usize,
    /// Numbers of addresses
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    addresses: Vec<usize>,
    /// Route tables
    #[arg(long, default_value_t = 10)]
    tables: usize,
    /// What every call to the API takes, in milliseconds
    #[arg(long, default_value_t = 50)]
    latency: u64,
    /// The agent moves at most so many: 100 take it the better part of an hour
    #[arg(long, default_value_t = 10)]
    agent_most: usize,
    /// The AWS command line moves at most so many: 100 in 10 tables are 1,000 processes, half a second of a core each
    #[arg(long, default_value_t = 10)]
    command_line_most: usize,
    /// With more addresses than this a case of the peers is run once
    #[arg(long, default_value_t = 1)]
    repeat_most: usize,
    /// Only cases whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Where to write the results
    #[arg(long, default_value = "target/bench/cloud.json")]
    json: PathBuf,
}

/// One move of all addresses; milliseconds from the order, the kill, or the first call of a peer.
#[derive(Clone, Debug, Serialize)]
struct Run {
    /// Until the new owner began. Peers are called there.
    begun_ms: f64,
    /// Until the server had changed the last route.
    last_route_ms: f64,
    /// Until whoever moves them said that it is done: vipd, that the last resource is in service.
    done_ms: f64,
    /// By whoever takes over, until it is done.
    calls: usize,
    calls_by_action: BTreeMap<String, usize>,
    /// Of them reads that may belong to periodic checks of what is in service already, not to the move.
    perhaps_checks: usize,
}

#[derive(Debug, Serialize)]
struct Case {
    contender: String,
    addresses: usize,
    tables: usize,
    latency_ms: u64,
    /// Agents or commands that run at the same time.
    side_by_side: Option<usize>,
    runs: Vec<Run>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    interrupt::install()?;
    lab::sweep();
    let mut cases = Vec::new();
    for &count in &arguments.addresses {
        for shape in Shape::ALL {
            vipd(&arguments, shape, count, &mut cases)?;
        }
        for peer in Peer::ALL {
            if arguments.wants(peer.name()) && count <= arguments.most(peer) {
                cases.push(of_peer(&arguments, peer, count)?);
            }
        }
    }
    print(&cases);
    write_json(&arguments.json, &cases)
}

impl Arguments {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    fn most(&self, peer: Peer) -> usize {
        match peer {
            Peer::Agent => self.agent_most,
            Peer::CommandLine => self.command_line_most,
        }
    }

    fn case(&self, contender: String, addresses: usize, side_by_side: Option<usize>, runs: Vec<Run>) -> Case {
        Case { contender, addresses, tables: self.tables, latency_ms: self.latency, side_by_side, runs }
    }
}

/// All causes in one cluster.
fn vipd(arguments: &Arguments, shape: Shape, count: usize, cases: &mut Vec<Case>) -> Result<()> {
    let name = |cause: Cause| format!("vipd, {}, {}", shape.name(), cause.name());
    let causes: Vec<Cause> = Cause::ALL.into_iter().filter(|cause| arguments.wants(&name(*cause))).collect();
    if causes.is_empty() {
        return Ok(());
    }
    eprint!("vipd, {}, {count} addresses ", shape.name());
    let cluster = Cluster::new(arguments, shape, count)?;
    eprintln!("are in service");
    for cause in causes {
        let name = name(cause);
        eprint!("{name}, {count} addresses ");
        let runs = (0..arguments.moves).map(|_| cluster.measure(cause)).collect::<Result<_>>();
        let runs = runs.with_context(|| format!("{name} with {count} addresses"))?;
        eprintln!();
        cases.push(arguments.case(name, count, None, runs));
    }
    Ok(())
}

fn of_peer(arguments: &Arguments, peer: Peer, count: usize) -> Result<Case> {
    let name = peer.name();
    eprint!("{name}, {count} addresses ");
    let stage = Stage::new(arguments, count)?;
    let moves = if count > arguments.repeat_most { 1 } else { arguments.moves };
    // From the first host to the second, back, and so on.
    let runs = (0..moves).map(|run| stage.measure(peer, (run + 1) % 2)).collect::<Result<_>>();
    let runs = runs.with_context(|| format!("{name} with {count} addresses"))?;
    eprintln!();
    Ok(arguments.case(name.to_owned(), count, Some(side_by_side()), runs))
}

/// Outside of the VPC's blocks.
fn addresses(count: usize) -> Vec<Ipv4Addr> {
    let first = u32::from(Ipv4Addr::new(172, 16, 1, 1));
    (0..count).map(|n| Ipv4Addr::from(first + n as u32)).collect()
}

/// An error unless every route to these addresses leads to the node.
fn check_moved(world: &World, vips: &[Ipv4Addr], to: usize) -> Result<()> {
    let snapshot = world.snapshot()?;
    for (vip, table) in vips.iter().flat_map(|vip| world.tables.iter().map(move |t| (vip, t))) {
        let target = snapshot.target(table, &format!("{vip}/32"));
        ensure!(target.as_ref() == Some(&world.nodes[to].eni), "{vip} was not moved in {table}");
    }
    Ok(())
}

/// When the last of them changed something.
fn last_write(calls: &[Call]) -> Result<Moment> {
    let writes = calls.iter().filter(|call| call.is_effective_write());
    writes.filter_map(|call| Some(call.executed?.at)).max().context("nothing was written")
}

fn by_action(calls: &[Call]) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for ((_, action), count) in journal::count(calls) {
        *all.entry(action).or_default() += count;
    }
    all
}

fn side_by_side() -> usize {
    2 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does all of it, so many side by side; the first error, if there is one.
fn all<F: Fn() -> Result<()> + Sync>(jobs: Vec<F>) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            job()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..side_by_side()).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })
}

fn print(cases: &[Case]) {
    let mut table = Table::new(&[
        "addresses moved in route tables; ms, min / median / max",
        "addresses",
        "tables",
        "new owner began",
        "last route changed",
        "done",
        "API calls",
        "of them reads",
        "perhaps of checks",
    ]);
    for case in cases {
        let of = |pick: fn(&Run) -> f64| Spread::of(case.runs.iter().map(pick));
        let reads = |run: &Run| -> f64 {
            let reads = run.calls_by_action.iter().filter(|(action, _)| action.starts_with("Describe"));
            reads.map(|(_, count)| count).sum::<usize>() as f64
        };
        table.row([
            case.contender.clone(),
            case.addresses.to_string(),
            case.tables.to_string(),
            of(|run| run.begun_ms).to_string(),
            of(|run| run.last_route_ms).to_string(),
            of(|run| run.done_ms).to_string(),
            format!("{:.0}", of(|run| run.calls as f64).median),
            format!("{:.0}", Spread::of(case.runs.iter().map(reads)).median),
            format!("{:.0}", of(|run| run.perhaps_checks as f64).median),
        ]);
    }
    println!("\n{table}");
    println!(
        "  vipd: from the order or the SIGKILL, its decision or the detection of the loss included, to the last \
         resource in service, read back.\n  Peers: from their call on the new owner: the swap alone, nobody's \
         loss detected; the AWS command line reads nothing, neither before nor after."
    );
}

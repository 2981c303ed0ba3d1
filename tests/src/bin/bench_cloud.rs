//! How long it takes, and how many calls, to move addresses in the route tables of a VPC: by the OCF agent
//! aws-vpc-move-ip and by the AWS command line alone, through the same proxy to the same server of EC2's API.
//!
//! Each call takes a given time before it is executed. As many agents or commands run side by side as Pacemaker
//! lets run on a node by default: twice the number of cores.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use vipd_tests::{
    cloud::{Cloud, Imds, Plan, REGION, World, journal, tools},
    interrupt, lab,
    measure::{Spread, write_json},
    netns::{NetNs, run, veth},
    table::Table,
    timeline::Moment,
};

/// As on EC2, and unlike any interface of the machine's own: the agent looks into /sys first, which shows those.
const INTERFACE: &str = "ens5";
const MACS: [&str; 2] = ["02:00:00:77:00:01", "02:00:00:77:00:02"];
const POLICY: &str =
    r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}]}"#;

#[derive(Parser)]
struct Arguments {
    /// Moves per case
    #[arg(long, default_value_t = 3)]
    runs: usize,
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
    /// With more addresses than this a case is run once
    #[arg(long, default_value_t = 1)]
    repeat_most: usize,
    /// Only cases whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Where to write the results
    #[arg(long, default_value = "target/bench/cloud.json")]
    json: PathBuf,
}

#[derive(Clone, Copy, Debug)]
enum Contender {
    Agent,
    CommandLine,
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Agent => "aws-vpc-move-ip",
            Self::CommandLine => "aws ec2 replace-route",
        }
    }
}

/// One move of all addresses; milliseconds from its beginning.
#[derive(Clone, Debug, Serialize)]
struct Run {
    /// Until the server had changed the last route.
    last_route_ms: f64,
    /// Until whoever moves them said that it is done.
    done_ms: f64,
    calls: usize,
    calls_by_action: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize)]
struct Case {
    contender: &'static str,
    addresses: usize,
    tables: usize,
    latency_ms: u64,
    side_by_side: usize,
    runs: Vec<Run>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    interrupt::install()?;
    lab::sweep();
    let mut cases = Vec::new();
    for &count in &arguments.addresses {
        for contender in [Contender::Agent, Contender::CommandLine] {
            let wanted = arguments.only.as_ref().is_none_or(|only| contender.name().contains(only));
            let within = !matches!(contender, Contender::Agent) || count <= arguments.agent_most;
            if !wanted || !within {
                continue;
            }
            eprint!("{}, {count} addresses ", contender.name());
            let stage = Stage::new(&arguments, count)?;
            let runs = if count > arguments.repeat_most { 1 } else { arguments.runs };
            // From the first host to the second, back, and so on.
            let runs = (0..runs).map(|run| stage.measure(contender, (run + 1) % 2)).collect::<Result<_>>();
            let runs = runs.with_context(|| format!("{} with {count} addresses", contender.name()))?;
            eprintln!();
            cases.push(Case {
                contender: contender.name(),
                addresses: count,
                tables: arguments.tables,
                latency_ms: arguments.latency,
                side_by_side: side_by_side(),
                runs,
            });
        }
    }
    print(&cases);
    write_json(&arguments.json, &cases)
}

fn side_by_side() -> usize {
    2 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// Two instances that addresses move between. Fields are dropped in this order.
struct Stage {
    _imds: Vec<Imds>,
    hosts: Vec<NetNs>,
    world: World,
    cloud: Cloud,
    vips: Vec<Ipv4Addr>,
}

impl Stage {
    fn new(arguments: &Arguments, count: usize) -> Result<Self> {
        let cloud = Cloud::start()?;
        let mut plan = Plan { tables: arguments.tables, ..Plan::default() };
        plan.nodes.truncate(2);
        let world = World::build(&cloud.moto, &plan)?;
        let first = u32::from(Ipv4Addr::new(172, 16, 1, 0));
        let vips: Vec<Ipv4Addr> = (0..count).map(|n| Ipv4Addr::from(first + n as u32)).collect();
        vips.iter().try_for_each(|vip| world.add_vip(*vip, &world.nodes[0].eni))?;
        let hosts = [NetNs::new("vipd-host1")?, NetNs::new("vipd-host2")?];
        veth(&hosts[0], INTERFACE, &hosts[1], INTERFACE)?;
        let role = cloud.moto.role("node", POLICY)?;
        let imds = hosts.iter().enumerate().map(|(index, host)| {
            host.ip(&format!("link set {INTERFACE} address {}", MACS[index]))?;
            cloud.connect(host, index)?;
            let mut identity = world.identity(&world.nodes[index], MACS[index]);
            identity.role = Some(("node".to_owned(), role.clone()));
            Imds::start(host, identity)
        });
        let _imds = imds.collect::<Result<_>>()?;
        cloud.proxy.set_latency(Duration::from_millis(arguments.latency));
        Ok(Self { _imds, hosts: hosts.into(), world, cloud, vips })
    }

    fn measure(&self, contender: Contender, to: usize) -> Result<Run> {
        let mark = self.cloud.proxy.mark();
        let begun = Moment::now();
        match contender {
            Contender::Agent => {
                let agents = self.vips.iter().map(|vip| move || self.agent(to, *vip));
                all(agents.collect())?;
            }
            Contender::CommandLine => {
                let pairs = self.vips.iter().flat_map(|vip| self.world.tables.iter().map(move |t| (vip, t)));
                all(pairs.map(|(vip, table)| move || self.replace(to, *vip, table)).collect())?;
            }
        }
        let done = Moment::now();
        let snapshot = self.world.snapshot()?;
        for (vip, table) in self.vips.iter().flat_map(|vip| self.world.tables.iter().map(move |t| (vip, t))) {
            let target = snapshot.target(table, &format!("{vip}/32"));
            ensure!(target.as_ref() == Some(&self.world.nodes[to].eni), "{vip} was not moved in {table}");
        }
        let calls = self.cloud.proxy.calls_since(mark);
        let writes = calls.iter().filter(|call| call.is_effective_write());
        let last = writes.filter_map(|call| Some(call.executed?.at)).max().context("nothing was written")?;
        let mut calls_by_action = BTreeMap::new();
        for ((_, action), count) in journal::count(&calls) {
            *calls_by_action.entry(action).or_default() += count;
        }
        eprint!(".");
        let ms = |at: Moment| at.since(begun).as_secs_f64() * 1e3;
        Ok(Run { last_route_ms: ms(last), done_ms: ms(done), calls: calls.len(), calls_by_action })
    }

    /// `start` on the new host, as a resource manager calls it.
    fn agent(&self, host: usize, vip: Ipv4Addr) -> Result<()> {
        let mut agent = self.hosts[host].command(tools::AGENT);
        self.cloud.environment(&mut agent);
        agent.arg("start").env("OCF_ROOT", "/usr/lib/ocf").env("OCF_RESOURCE_INSTANCE", format!("vip-{vip}"));
        agent.env("OCF_RESKEY_ip", vip.to_string()).env("OCF_RESKEY_interface", INTERFACE);
        agent.env("OCF_RESKEY_routing_table", self.world.tables.join(",")).env("OCF_RESKEY_region", REGION);
        agent.env("OCF_RESKEY_awscli", tools::program("aws")?);
        // moto names no instance at a route to an interface.
        agent.env("OCF_RESKEY_lookup_type", "NetworkInterfaceId");
        finish(&mut agent)
    }

    fn replace(&self, host: usize, vip: Ipv4Addr, table: &str) -> Result<()> {
        let mut aws = self.hosts[host].command(tools::program("aws")?);
        self.cloud.environment(&mut aws);
        aws.args(["ec2", "replace-route", "--route-table-id", table]);
        aws.args(["--destination-cidr-block", &format!("{vip}/32")]);
        aws.args(["--network-interface-id", &self.world.nodes[host].eni]);
        finish(&mut aws)
    }
}

fn finish(command: &mut Command) -> Result<()> {
    interrupt::check()?;
    run(command).map(drop)
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
        "last route changed",
        "done",
        "API calls",
    ]);
    for case in cases {
        table.row([
            case.contender.to_owned(),
            case.addresses.to_string(),
            case.tables.to_string(),
            Spread::of(case.runs.iter().map(|run| run.last_route_ms)).to_string(),
            Spread::of(case.runs.iter().map(|run| run.done_ms)).to_string(),
            format!("{:.0}", Spread::of(case.runs.iter().map(|run| run.calls as f64)).median),
        ]);
    }
    println!("\n{table}");
}

//! How long the leader takes to plan: thousands of hierarchies on many nodes, with and without constraints.
//!
//! Only the planner: no daemon, no network, one thread.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use ipnet::IpNet;
use serde::Serialize;
use vipd::{
    core::{
        change::{Applied, Change, NewNode, Outcome, Report, apply},
        planner::{Decision, NodeHealth, Observed, plan},
    },
    model::{
        ClusterState, Constraint, LeaseEpoch, NodeId, NodeSettings, OrderKind, Phase, Resource, Score,
        Standing, Tag,
    },
};
use vipd_tests::{
    measure::{Spread, write_json},
    table::Table,
};

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 5000)]
    hierarchies: usize,
    #[arg(long, default_value_t = 32)]
    nodes: u64,
    /// Plans of each case
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Where to write the results
    #[arg(long, default_value = "target/bench/plan.json")]
    json: PathBuf,
}

#[derive(Debug, Serialize)]
struct Case {
    constraints: usize,
    situation: &'static str,
    /// Grants and releases in the plan.
    decided: usize,
    least_ms: f64,
    median_ms: f64,
    most_ms: f64,
}

#[derive(Debug, Serialize)]
struct Results {
    build: &'static str,
    hierarchies: usize,
    nodes: u64,
    cases: Vec<Case>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.nodes >= 3 && arguments.rounds > 0, "three nodes and one round at least");
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let mut cases = Vec::new();
    for constrained in [false, true] {
        let mut state = cluster(arguments.hierarchies, arguments.nodes)?;
        if constrained {
            constrain(&mut state, arguments.hierarchies)?;
        }
        let observed = all_fit(&state);
        let cold = state.clone();
        settle(&mut state, &observed)?;
        let (lost, without) = one_node_lost(&state, &observed)?;
        let situations = [
            ("idle", &state, &observed),
            ("one node lost", &lost, &without),
            ("all nodes restarted", &cold, &observed),
        ];
        for (situation, state, observed) in situations {
            eprintln!("{situation}, {} constraints", state.constraints.len());
            cases.push(measure(situation, state, observed, arguments.rounds));
        }
    }
    let title = format!("{} hierarchies, {} nodes", arguments.hierarchies, arguments.nodes);
    let mut table = Table::new(&[&title, "constraints", "decided", "ms: least / median / most"]);
    for case in &cases {
        table.row(vec![
            case.situation.to_owned(),
            case.constraints.to_string(),
            case.decided.to_string(),
            format!("{:.1} / {:.1} / {:.1}", case.least_ms, case.median_ms, case.most_ms),
        ]);
    }
    println!("{table}\n  {build} build");
    let results = Results { build, hierarchies: arguments.hierarchies, nodes: arguments.nodes, cases };
    write_json(&arguments.json, &results)
}

fn measure(situation: &'static str, state: &ClusterState, observed: &Observed, rounds: usize) -> Case {
    let mut decided = 0;
    let times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            let decisions = plan(state, observed);
            let time = start.elapsed();
            decided = decisions.iter().map(size).sum();
            time.as_secs_f64() * 1e3
        })
        .collect();
    let Spread { min, median, max } = Spread::of(times);
    let constraints = state.constraints.len();
    Case { constraints, situation, decided, least_ms: min, median_ms: median, most_ms: max }
}

fn size(decision: &Decision) -> usize {
    match &decision.change {
        Change::Give { grants } | Change::Vacate { grants, .. } => grants.len(),
        Change::Release { .. } => 1,
        _ => 0,
    }
}

fn done(state: &mut ClusterState, change: &Change) -> Result<()> {
    match apply(state, change) {
        Applied::Done | Applied::Node(_) => Ok(()),
        Applied::Refused(why) => bail!("{why}"),
    }
}

fn tag(n: usize) -> Result<Tag> {
    format!("h{n}").parse().context("a tag")
}

/// Every hierarchy may be on every node, and prefers another order of them.
fn cluster(hierarchies: usize, nodes: u64) -> Result<ClusterState> {
    let mut state = ClusterState::default();
    for n in 1..=nodes {
        let address = |port| SocketAddr::from(([192, 168, 0, n as u8], port));
        let node =
            NewNode { name: format!("n{n}"), rpc: address(7401), paths: vec![address(7400)], witness: false };
        if n == 1 {
            done(&mut state, &Change::Found { name: "bench".to_owned(), node })?;
        } else {
            done(&mut state, &Change::Reserve { node })?;
            done(&mut state, &Change::Admit { node: n })?;
        }
    }
    let mut resources = Vec::with_capacity(hierarchies);
    for n in 0..hierarchies {
        let host = IpAddr::from([10, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
        let address = IpNet::new(host, 8).context("an address")?;
        let settings = (1..=nodes).map(|id| {
            let priority = (id + n as u64) % nodes + 1;
            (id, NodeSettings::new(priority as u16, vec!["eth0".to_owned()]))
        });
        resources.push(Resource::new(tag(n)?, address, settings));
    }
    done(&mut state, &Change::CreateAll { resources, on: 1 })?;
    // The choice of the first node ends at once: priorities decide.
    for n in 0..hierarchies {
        done(&mut state, &Change::Clear { tag: tag(n)? })?;
    }
    Ok(state)
}

/// One constraint to five hierarchies, of every kind, and one clone of a hundred.
fn constrain(state: &mut ClusterState, hierarchies: usize) -> Result<()> {
    let mut all: BTreeMap<String, Constraint> = BTreeMap::new();
    for n in (0..hierarchies.saturating_sub(4)).step_by(20) {
        let (one, other, third) = (tag(n)?, tag(n + 1)?, tag(n + 2)?);
        let node: NodeId = n as u64 % 3 + 1;
        let score = Score::new(100);
        all.insert(format!("l{n}"), Constraint::Location { tag: one.clone(), node, score });
        let together =
            Constraint::Colocation { tag: other.clone(), with: one.clone(), score: Score::INFINITY };
        all.insert(format!("t{n}"), together);
        let apart =
            Constraint::Colocation { tag: third.clone(), with: one.clone(), score: Score::MINUS_INFINITY };
        all.insert(format!("a{n}"), apart);
        let order = Constraint::Order { first: one, then: other, kind: OrderKind::Mandatory };
        all.insert(format!("o{n}"), order);
    }
    let members = (0..hierarchies).skip(3).step_by(20).take(100).map(tag).collect::<Result<_>>()?;
    all.insert("clone".to_owned(), Constraint::Clone { members, per_node: 8 });
    // Straight into the state: adding them one by one, each checked against all, is not what is measured.
    state.constraints = all;
    Ok(())
}

fn all_fit(state: &ClusterState) -> Observed {
    let fit = NodeHealth { fit: true, ..NodeHealth::default() };
    Observed { nodes: state.nodes.keys().map(|id| (*id, fit.clone())).collect(), ..Observed::default() }
}

/// The nodes do at once what they are told.
fn settle(state: &mut ClusterState, observed: &Observed) -> Result<()> {
    for _ in 0..50 {
        let decisions = plan(state, observed);
        for decision in &decisions {
            done(state, &decision.change)?;
        }
        let mut reports: BTreeMap<NodeId, Vec<Report>> = BTreeMap::new();
        for (tag, placement) in &state.placements {
            let Some(grant) = placement.grant else { continue };
            let outcome = match grant.phase {
                Phase::Starting => Outcome::Started,
                Phase::Stopping => Outcome::Released,
                Phase::InService => continue,
            };
            let report = Report { tag: tag.clone(), epoch: placement.epoch, outcome };
            reports.entry(grant.owner).or_default().push(report);
        }
        if decisions.is_empty() && reports.is_empty() {
            return Ok(());
        }
        for (node, reports) in reports {
            done(state, &Change::Report { node, reports })?;
        }
    }
    bail!("the cluster does not come to rest")
}

/// Deposed and proven silent: everything it had is to be given to others in this plan.
fn one_node_lost(state: &ClusterState, observed: &Observed) -> Result<(ClusterState, Observed)> {
    let (mut state, mut observed) = (state.clone(), observed.clone());
    let lease_epoch = state.nodes.get(&2).context("node 2")?.lease_epoch;
    done(&mut state, &Change::Depose { node: 2, lease_epoch })?;
    ensure!(state.nodes.get(&2).is_some_and(|n| n.standing == Standing::Deposed), "node 2 is trusted still");
    let silent = NodeHealth { suspected: true, fit: false, silent_below: Some(LeaseEpoch::MAX) };
    observed.nodes.insert(2, silent);
    Ok((state, observed))
}

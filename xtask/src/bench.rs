//! `cargo xtask bench [NAME]`: measures beside peers.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    build,
    setup::{self, Part},
    shell::{is_root, run as run_program, target_dir},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Answers a second and ns a frame: XDP, the kernel's stack, XDP_DROP
    Datapath,
    /// From SIGKILL of the owner to the client's first answer, beside keepalived; 10,000 addresses in 50
    /// hierarchies when their node is lost, its daemon killed, or they are moved (--moves N, --hierarchies N)
    Failover,
    /// From the grant to the last address answering and announced, beside keepalived and IPaddr2
    Takeover,
    /// From the loss of a carrier to the next interface of the same host announcing and answering
    Switch,
    /// From a peer's silence to the event: the kernel's timer, user space, keepalived's BFD
    Detect,
    /// CPU and memory of a daemon that holds addresses, beside keepalived
    Idle,
    /// Moves of addresses in EC2's route tables, time and API calls, beside aws-vpc-move-ip and the AWS command line
    /// (--moves N, --addresses N,N, --tables N, --agent-most 100,
    /// --command-line-most 100)
    Cloud,
    /// The leader's planning for 5,000 hierarchies on 32 nodes (needs no root)
    Plan,
}

pub fn run(name: Option<Name>, arguments: &[String]) -> Result<()> {
    let pure = name == Some(Name::Plan);
    if !pure && !is_root() {
        bail!("benchmarks make network namespaces and load BPF programs: run `cargo xtask bench` as root");
    }
    let mut parts = vec![Part::Bpf];
    if !pure {
        parts.push(Part::Peers);
    }
    if name.is_none_or(|name| name == Name::Cloud) {
        parts.push(Part::Cloud);
    }
    setup::ensure(&parts)?;
    let bin = build::packages(&["vipd", "vipd-tests"], true)?;
    let results = target_dir().join("bench");
    std::fs::create_dir_all(&results).with_context(|| format!("cannot make {}", results.display()))?;
    let all = [
        Name::Datapath,
        Name::Failover,
        Name::Takeover,
        Name::Switch,
        Name::Detect,
        Name::Idle,
        Name::Cloud,
        Name::Plan,
    ];
    for name in all.into_iter().filter(|n| name.is_none_or(|wanted| wanted == *n)) {
        let (program, file) = match name {
            Name::Datapath => ("bench_datapath", "datapath.json"),
            Name::Failover => ("bench_failover", "failover.json"),
            Name::Takeover => ("bench_takeover", "takeover.json"),
            Name::Switch => ("bench_switch", "switch.json"),
            Name::Detect => ("bench_detect", "detect.json"),
            Name::Idle => ("bench_idle", "idle.json"),
            Name::Cloud => ("bench_cloud", "cloud.json"),
            Name::Plan => ("bench_plan", "plan.json"),
        };
        run_program(Command::new(bin.join(program)).arg("--json").arg(results.join(file)).args(arguments))?;
    }
    Ok(())
}

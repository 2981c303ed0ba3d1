//! Alone on the machine, because it takes all of it: both cores are hogged for a minute, and nobody may be
//! taken for dead.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use vipd_tests::{
    lab::{self, Lab, NewIp, Options},
    machine,
};

const NAME: &str = "load::a_minute_with_all_cores_taken_is_no_failover";
const MINUTE: Duration = Duration::from_secs(60);
const HOSTS: usize = 5;

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let root = nix::unistd::geteuid().is_root();
    if root && !arguments.list {
        lab::sweep();
    }
    let run = || machine::watched(a_minute);
    let trial = Trial::test(NAME, run).with_ignored_flag(!root);
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}

fn a_minute() -> Result<()> {
    let lab = Lab::new(&Options { hosts: HOSTS, ..Options::default() })?;
    lab.form_cluster()?;
    for on in 0..HOSTS {
        let (address, tag) = (format!("10.77.0.{}/24", 50 + on), format!("ip-{on}"));
        let others: Vec<usize> = (1..HOSTS).map(|next| (on + next) % HOSTS).collect();
        lab.create_ip(&NewIp { address: &address, tag: &tag, on, extend_to: &others })?;
    }
    hogged(|| {
        // Not a wait for something to happen, but the time in which nothing may.
        std::thread::sleep(MINUTE);
    })?;
    for on in 0..HOSTS {
        let resource = lab.resource(on, &format!("ip-{on}"))?;
        ensure!(
            resource.owner.as_deref() == Some(lab.host(on).name()),
            "ip-{on} moved to {:?}",
            resource.owner
        );
        ensure!(resource.epoch == 1, "ip-{on} was granted {} times", resource.epoch);
    }
    for host in &lab.hosts {
        let events = host.events()?;
        let deposed = events.iter().find(|e| e.kind == "node.deposed");
        ensure!(deposed.is_none(), "a false failover: {deposed:?}");
    }
    Ok(())
}

/// Two busy threads for each core while the closure runs.
fn hogged(while_busy: impl FnOnce()) -> Result<()> {
    let cores = std::thread::available_parallelism().context("how many cores are there?")?.get();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..cores * 2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        while_busy();
        stop.store(true, Ordering::Relaxed);
    });
    Ok(())
}

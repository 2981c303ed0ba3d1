//! The library's network effects and observations, against real peers in network namespaces. Needs
//! root and Debian's iputils-arping, iputils-ping, ndisc6 and iproute2.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test here, which clippy cannot see")]

mod accept;
mod address;
mod announce;
mod devices;
mod events;
mod executor;
mod lab;
mod leftovers;
mod managed;
mod network_manager;
mod ping;
mod probe;
mod source;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use vipd_tests::machine;

/// Name and function of each test of a module.
type Tests = &'static [(&'static str, fn() -> Result<()>)];

fn main() {
    let modules = [
        ("accept", accept::TESTS),
        ("address", address::TESTS),
        ("announce", announce::TESTS),
        ("devices", devices::TESTS),
        ("events", events::TESTS),
        ("executor", executor::TESTS),
        ("network_manager", network_manager::TESTS),
        ("leftovers", leftovers::TESTS),
        ("ping", ping::TESTS),
        ("probe", probe::TESTS),
        ("source", source::TESTS),
    ];
    // In CI nothing is left out: there its absence is a failure.
    let missing = managed::missing().filter(|_| std::env::var_os("CI").is_none_or(|ci| ci != "true"));
    let trials = modules.iter().flat_map(|(module, tests)| {
        tests.iter().map(move |&(name, test)| {
            let trial = Trial::test(format!("{module}::{name}"), move || machine::watched(test));
            match missing {
                Some(program) if *module == "network_manager" => {
                    trial.with_kind(format!("no {program}: cargo xtask setup")).with_ignored_flag(true)
                }
                _ => trial,
            }
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

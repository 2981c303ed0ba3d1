//! EC2: a server of its API, a proxy in front of it that fails as it is told, and instances' metadata services.
//! Needs root and what `cargo xtask setup` installs.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test here, which clippy cannot see")]

mod caller;
mod command_line;
mod creation;
mod declared;
mod eip_races;
mod eips;
mod faults;
mod many;
mod metadata;
mod network;
mod outages;
mod policies;
mod policy;
mod races;
mod refusals;
mod routes;
mod scene;
mod server;
mod silence;

use libtest_mimic::{Arguments, Trial};
use vipd_tests::{cloud::tools, lab, machine};

type Test = fn() -> anyhow::Result<()>;

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    // Each has a server of its own that takes a second of CPU to start.
    arguments.test_threads.get_or_insert(2);
    let root = nix::unistd::geteuid().is_root();
    if root && !arguments.list {
        lab::sweep();
    }
    let tests: Vec<(&str, Test)> = [
        server::TESTS,
        policies::TESTS,
        faults::TESTS,
        many::TESTS,
        command_line::TESTS,
        metadata::TESTS,
        network::TESTS,
        routes::TESTS,
        silence::TESTS,
        races::TESTS,
        eips::TESTS,
        eip_races::TESTS,
        creation::TESTS,
        policy::TESTS,
        declared::TESTS,
        outages::TESTS,
    ]
    .concat();
    // In CI nothing is left out: there its absence is a failure.
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    let missing = ["moto_server", "aws"].into_iter().find(|name| !ci && tools::program(name).is_err());
    let trial = |(name, test): (&str, Test)| {
        let run = move || machine::watched(test);
        let trial = Trial::test(format!("cloud::{name}"), run).with_ignored_flag(!root || missing.is_some());
        match missing {
            Some(program) => trial.with_kind(format!("no {program}: cargo xtask setup")),
            None => trial,
        }
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

//! Whole clusters, through the real daemon and CLI, in network namespaces. In each test the client
//! records every frame that claims a virtual address, and at the end no two hosts may have answered
//! for one address in overlapping terms.

mod checks;
mod conflicts;
mod connectivity;
mod crashes;
mod create;
mod declare;
mod density;
mod departures;
mod etcd;
mod failures;
mod five;
mod hierarchies;
mod keys;
mod links;
mod membership;
mod neighbours;
mod operator;
mod partitions;
mod probes;
mod restarts;
mod scene;
mod service;
mod sizes;
mod standby;
mod subnets;
mod two_nodes;
mod verbs;

use libtest_mimic::{Arguments, Trial};
use vipd_tests::{lab, machine};

type Test = fn() -> anyhow::Result<()>;

fn main() -> std::process::ExitCode {
    let mut arguments = Arguments::from_args();
    // Clusters that run side by side must not take each other's heartbeats' CPU.
    arguments.test_threads.get_or_insert(2);
    let root = nix::unistd::geteuid().is_root();
    if root && !arguments.list {
        lab::sweep();
    }
    let tests: Vec<(&str, Test)> = [
        service::TESTS,
        connectivity::TESTS,
        checks::TESTS,
        conflicts::TESTS,
        crashes::TESTS,
        partitions::TESTS,
        probes::TESTS,
        restarts::TESTS,
        membership::TESTS,
        keys::TESTS,
        sizes::TESTS,
        two_nodes::TESTS,
        departures::TESTS,
        operator::TESTS,
        links::TESTS,
        subnets::TESTS,
        standby::TESTS,
        density::TESTS,
        five::TESTS,
        failures::TESTS,
        hierarchies::TESTS,
        neighbours::TESTS,
        create::TESTS,
        declare::TESTS,
        etcd::TESTS,
        verbs::TESTS,
    ]
    .concat();
    let trial = |(name, test): (&str, Test)| {
        let run = move || machine::watched(test);
        Trial::test(name, run).with_ignored_flag(!root)
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit_code()
}

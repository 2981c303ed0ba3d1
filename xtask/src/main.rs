//! `cargo xtask`: everything a developer does with this repository, one module per command.

mod bench;
mod bpf;
mod build;
mod demo;
mod layering;
mod lint;
mod load;
mod python;
mod setup;
mod shell;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, test, demonstrate and measure vipd")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need (asks for nothing)
    Setup,
    /// Build the BPF object, then vipd and vipctl, into target/
    Build {
        /// Optimised, into target/release
        #[arg(long)]
        release: bool,
    },
    /// Attach the datapath alone to interfaces, print its counters, detach at the end
    Load {
        /// Passed on to vipd-load: --iface X ... (see --help there)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<String>,
    },
    /// Run every test: unit, BPF prog-run, namespaces, real peers
    Test {
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// The main job, live: a three-node cluster in network namespaces whose owner dies three times
    Demo,
    /// rustfmt, clippy, cargo-deny, layering and file-length checks
    Lint,
    /// Measure beside peers; prints tables and writes JSON into target/bench/
    Bench {
        /// Only this one
        #[arg(value_enum)]
        name: Option<bench::Name>,
        /// Passed on to the benchmark
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\x1b[1;31merror:\x1b[0m {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Setup => setup::run(),
        Command::Build { release } => build::run(release),
        Command::Load { arguments } => load::run(&arguments),
        Command::Test { filter } => test::run(filter.as_deref()),
        Command::Demo => demo::run(),
        Command::Lint => lint::run(),
        Command::Bench { name, arguments } => bench::run(name, &arguments),
    }
}

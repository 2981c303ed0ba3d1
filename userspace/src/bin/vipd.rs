//! The daemon.

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use tracing::Level;
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, prelude::*};
use vipd::daemon::run::{End, Options, run};

/// Amazon's SDK, which writes access keys to the log at the level debug and session tokens at trace: there it says nothing.
const AMAZON: &str = "aws_";

/// Keeps virtual IP addresses alive on a cluster of hosts.
///
/// Found a cluster with 'vipctl cluster init NAME' on one node, and let others join with
/// 'vipctl cluster join ADDRESS --token T'. VIPD_LOG sets the log level (info, debug, vipd=trace ...).
#[derive(Parser)]
#[command(name = "vipd", version)]
struct Arguments {
    /// This node's configuration
    #[arg(long, default_value = "/etc/vipd/node.toml")]
    config: PathBuf,
    /// Where the cluster's state is kept; losing it means joining anew under another name
    #[arg(long, default_value = "/var/lib/vipd")]
    state_dir: PathBuf,
    /// Where the control socket is
    #[arg(long, default_value = "/run/vipd")]
    run_dir: PathBuf,
    /// Vote and hold no addresses
    #[arg(long)]
    witness: bool,
}

/// For what cannot be interrupted when a life of the daemon ends and another begins.
const WIND_UP: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("VIPD_LOG").unwrap_or_else(|_| EnvFilter::new("info,openraft=off"));
    let discreet = filter_fn(|m| *m.level() <= Level::INFO || !m.target().starts_with(AMAZON));
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    tracing_subscriber::registry().with(filter).with(discreet).with(lines).init();
    abort_on_panic();
    let options = Options {
        config: arguments.config,
        state_dir: arguments.state_dir,
        run_dir: arguments.run_dir,
        witness: arguments.witness,
    };
    loop {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // Two are enough for everything that is not time-critical: heartbeats and Raft have their own.
            .worker_threads(2)
            .enable_all()
            .build()?;
        let end = runtime.block_on(run(options.clone()))?;
        // With all its tasks, as the end of the process would.
        runtime.shutdown_timeout(WIND_UP);
        if end == End::Stopped {
            return Ok(());
        }
    }
}

/// A daemon that lost one of its tasks would go on renewing its lease and never be failed over. Ended as a
/// whole, it is restarted, or its kernel goes silent and others take over.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

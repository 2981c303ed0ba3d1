//! The datapath alone (row DP-13): attaches to one interface under pins of its own, prints the counters
//! every second, and detaches. Printing is its purpose.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Parser;
use datapath_common::{InterfaceActivity, Verdict};
use vipd::{
    act::datapath::{self, Attachment, Datapath, KernelDatapath},
    config::{DatapathConfig, DatapathMode},
    model::{Ranges, ResourceId},
    observe::clock,
};

/// Loads vipd's BPF programs on an interface without the daemon, and shows what they do.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Interface to attach to.
    #[arg(long, value_name = "IF")]
    iface: String,
    /// Answer for this address meanwhile; may be repeated.
    #[arg(long = "vip", value_name = "ADDRESS")]
    vips: Vec<IpAddr>,
    /// End after so many seconds instead of at Ctrl-C.
    #[arg(long)]
    seconds: Option<u64>,
    /// auto, native or generic.
    #[arg(long, default_value = "auto", value_parser = mode)]
    mode: DatapathMode,
    /// Answers to broadcast pings a second; 0 leaves them to the kernel.
    #[arg(long, default_value_t = 50)]
    broadcast_pings: u32,
    /// Log every frame.
    #[arg(long)]
    log_packets: bool,
    /// Where to pin meanwhile; removed at the end.
    #[arg(long)]
    pin_dir: Option<PathBuf>,
}

fn mode(text: &str) -> Result<DatapathMode, String> {
    match text {
        "auto" => Ok(DatapathMode::Auto),
        "native" => Ok(DatapathMode::Native),
        "generic" => Ok(DatapathMode::Generic),
        other => Err(format!("{other} is none of auto, native, generic")),
    }
}

const PERIOD: Duration = Duration::from_secs(1);
/// Long enough to be renewed in time by a loop that wakes every second.
const LEASE: Duration = Duration::from_secs(3);
/// The addresses given open and shut together.
const GROUP: ResourceId = 1;
const EPOCH: u64 = 1;

fn main() -> ExitCode {
    let options = Options::parse();
    if options.log_packets {
        tracing_subscriber::fmt().with_target(false).init();
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vipd-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `println!` would panic when nobody reads any more, and leave the pins behind.
fn say(line: std::fmt::Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

fn run(options: &Options) -> Result<()> {
    let pin_dir = options
        .pin_dir
        .clone()
        .unwrap_or_else(|| format!("/sys/fs/bpf/vipd-load-{}", std::process::id()).into());
    let config = DatapathConfig {
        mode: options.mode,
        pin_dir: pin_dir.clone(),
        log_packets: options.log_packets,
        ..DatapathConfig::default()
    };
    let stop = stop_signal()?;
    let result = watch(options, &config, &stop);
    // Whatever happened: nothing stays behind.
    let removed = datapath::unload(&pin_dir).context("removing the pins");
    result.and(removed)?;
    say(format_args!("detached from {}", options.iface))?;
    Ok(())
}

/// Hears of the first SIGINT or SIGTERM.
fn stop_signal() -> Result<mpsc::Receiver<()>> {
    use nix::sys::signal::{SigSet, Signal};
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    // Before any other thread exists, so that all of them inherit the mask.
    signals.thread_block().context("blocking signals")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if signals.wait().is_ok() {
                // The receiver is gone only when the program ends anyway.
                let _ = sender.send(());
            }
        })
        .context("starting the signal thread")?;
    Ok(receiver)
}

fn watch(options: &Options, config: &DatapathConfig, stop: &mpsc::Receiver<()>) -> Result<()> {
    let datapath = KernelDatapath::open(config)?;
    let facts = datapath::facts(&options.iface, options.broadcast_pings)?;
    let index = facts.index;
    match datapath.attach(&facts)? {
        Attachment::Native => say(format_args!("{}: attached in native mode", options.iface))?,
        Attachment::Generic { reason } => {
            say(format_args!("{}: attached in generic mode ({reason})", options.iface))?;
        }
        Attachment::None { reason } => anyhow::bail!("{}: not attached: {reason}", options.iface),
    }
    datapath.set_lease(EPOCH, clock::now().after(LEASE))?;
    let vips: Ranges = options.vips.iter().copied().collect();
    datapath.program(GROUP, index, &vips)?;
    if !vips.is_empty() {
        datapath.open_gate(GROUP, EPOCH, EPOCH)?;
        say(format_args!("answering for {vips}"))?;
    }
    let end = options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut before = InterfaceActivity::default();
    loop {
        let wait = match end {
            Some(end) => PERIOD.min(end.saturating_duration_since(Instant::now())),
            None => PERIOD,
        };
        match stop.recv_timeout(wait) {
            Ok(()) => break,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the signal thread ended"),
        }
        datapath.set_lease(EPOCH, clock::now().after(LEASE))?;
        before = show(&datapath, index, before)?;
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
    }
    for vip in &options.vips {
        let activity = datapath.vip_activity(*vip)?;
        say(format_args!("{vip}: {} frames, {} bytes", activity.packets, activity.bytes))?;
    }
    datapath.close_gate(GROUP)?;
    Ok(())
}

fn show(datapath: &KernelDatapath, index: u32, before: InterfaceActivity) -> Result<InterfaceActivity> {
    let now = datapath.interface_activity(index)?;
    let verdicts: Vec<String> = datapath
        .verdicts()?
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(verdict, count): (Verdict, u64)| format!("{verdict:?} {count}"))
        .collect();
    say(format_args!(
        "{} frames (+{}), {} bytes, arp {}, nd {}, echo requests {}, echo replies {} | {}",
        now.frames,
        now.frames - before.frames,
        now.bytes,
        now.arp,
        now.nd,
        now.echo_requests,
        now.echo_replies,
        verdicts.join(", "),
    ))?;
    Ok(now)
}

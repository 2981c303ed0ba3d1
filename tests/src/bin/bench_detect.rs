//! From a peer's silence to the event that tells of it: the kernel's timer, a user-space judge of heartbeats
//! (an ordinary thread and one with real-time priority share the code), and keepalived's BFD, at rest and with all
//! cores taken; and how often each was wrong.

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, UdpSocket},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use datapath_common::{PATH_SILENT, PROBE_KIND_PROBE, Probe};
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, killpg},
    },
    unistd::Pid,
};
use serde::Serialize;
use vipd::{
    act::datapath::{self, Datapath as _, KernelDatapath, Probes},
    config::DatapathConfig,
    core::detection::{ProbeIdentity, ProbePeer},
    observe::clock,
};
use vipd_tests::{
    interrupt,
    measure::{Spread, write_json},
    netns::{NetNs, veth},
    table::Table,
};

const PORT: u16 = 7402;
const HEARTBEATS: u16 = 7403;
/// Unanswered or unheard for so many intervals is silence, for all.
const MULTIPLIER: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Arguments {
    /// Silences of each case
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Milliseconds between probes, heartbeats and BFD packets
    #[arg(long, default_value_t = 100)]
    interval: u64,
    /// Seconds to listen for false alarms in each case
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    #[arg(long, default_value = "target/bench/detect.json")]
    json: PathBuf,
}

#[derive(Debug, Serialize)]
struct Case {
    contender: &'static str,
    load: &'static str,
    /// From the silence to its being told, in milliseconds; the peer was last heard up to an interval earlier.
    milliseconds: Vec<f64>,
    false_alarms: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    interrupt::install()?;
    let mut cases = Vec::new();
    for (load, hogs) in [("idle", 0), ("all cores taken", thread::available_parallelism()?.get())] {
        let _hogs = Hogs::start(hogs)?;
        for (contender, measure) in [
            ("kernel timer", kernel as fn(&Arguments, &Stage) -> Result<(Vec<f64>, u64)>),
            ("user space", user_space),
            ("keepalived BFD", bfd),
        ] {
            eprintln!("{contender}, {load}");
            let (milliseconds, false_alarms) = measure(&arguments, &Stage::new()?)?;
            cases.push(Case { contender, load, milliseconds, false_alarms });
        }
    }
    let mut table = Table::new(&["silence to event", "load", "min / median / max, ms", "false alarms"]);
    for case in &cases {
        let spread = Spread::of(case.milliseconds.iter().copied());
        let alarms = case.false_alarms.to_string();
        table.row([case.contender.to_owned(), case.load.to_owned(), spread.to_string(), alarms]);
    }
    println!("\n{table}");
    write_json(&arguments.json, &cases)
}

/// Threads that take a core each, until dropped.
struct Hogs(Arc<AtomicBool>, Vec<JoinHandle<()>>);

impl Hogs {
    fn start(count: usize) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let hog = |_| {
            let stop = stop.clone();
            thread::Builder::new().spawn(move || while !stop.load(Ordering::Relaxed) {})
        };
        let threads = (0..count).map(hog).collect::<io::Result<_>>()?;
        Ok(Self(stop, threads))
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

/// Two hosts on one link.
struct Stage {
    a: NetNs,
    b: NetNs,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Result<Self> {
        let (a, b) = (NetNs::new("vipd-detect-a")?, NetNs::new("vipd-detect-b")?);
        veth(&a, "left", &b, "right")?;
        a.ip("addr add 10.9.0.1/24 dev left")?;
        b.ip("addr add 10.9.0.2/24 dev right")?;
        Ok(Self { a, b, dir: tempfile::tempdir()? })
    }
}

fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        interrupt::check()?;
        thread::sleep(Duration::from_millis(10).min(time));
    }
    Ok(())
}

/// Rounds begin at odd moments of the interval.
fn stagger(round: usize, interval: Duration) -> Duration {
    interval * 5 + interval * (round as u32 * 7 % 10) / 10
}

fn wait(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !done()? {
        interrupt::check()?;
        ensure!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A host with its programs; pins are removed at the end.
struct Guarded {
    probes: Arc<Probes>,
    _datapath: KernelDatapath,
    pins: PathBuf,
}

impl Guarded {
    fn new(ns: &NetNs, device: &str) -> Result<Self> {
        let pins: PathBuf = format!("/sys/fs/bpf/vipd-detect-{}-{device}", std::process::id()).into();
        let config = DatapathConfig { max_vips: 16, pin_dir: pins.clone(), ..DatapathConfig::default() };
        let datapath = ns.enter(|| -> Result<_> {
            let datapath = KernelDatapath::open(&config)?;
            datapath.attach(&datapath::facts(device, 0)?)?;
            Ok(datapath)
        })?;
        let probes = datapath.probes().context("no probes")?;
        Ok(Self { probes, _datapath: datapath, pins })
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = datapath::unload(&self.pins);
    }
}

const KEYS: [[u64; 2]; 2] = [[1, 2], [3, 4]];

fn ends() -> Result<[SocketAddr; 2]> {
    Ok([format!("10.9.0.1:{PORT}").parse()?, format!("10.9.0.2:{PORT}").parse()?])
}

fn kernel(arguments: &Arguments, stage: &Stage) -> Result<(Vec<f64>, u64)> {
    let interval = Duration::from_millis(arguments.interval);
    let (a, b) = (Guarded::new(&stage.a, "left")?, Guarded::new(&stage.b, "right")?);
    let [left, right] = ends()?;
    let (timeout, path) = (interval * MULTIPLIER, 0);
    let identity = |me| ProbeIdentity { cluster: 1, me, incarnation: 1 };
    let answering = |on: bool| -> Result<()> {
        b.probes.forget()?;
        if on {
            b.probes.identify(identity(2))?;
            let (ours_keys, theirs_keys) = ([KEYS[1]; 2], [KEYS[0]; 2]);
            b.probes.set_peers(&[ProbePeer {
                node: 1,
                path,
                ours: right,
                theirs: left,
                ours_keys,
                theirs_keys,
                timeout,
            }])?;
        }
        Ok(())
    };
    a.probes.identify(identity(1))?;
    let (ours_keys, theirs_keys) = ([KEYS[0]; 2], [KEYS[1]; 2]);
    a.probes.set_peers(&[ProbePeer {
        node: 2,
        path,
        ours: left,
        theirs: right,
        ours_keys,
        theirs_keys,
        timeout,
    }])?;
    answering(true)?;
    let socket = stage.a.enter(|| UdpSocket::bind(left))?;
    let stop = Arc::new(AtomicBool::new(false));
    let sender = spawn(&stop, interval, move |sequence| {
        let mut probe: Probe = bytemuck::Zeroable::zeroed();
        probe.head = Probe::head(PROBE_KIND_PROBE, path);
        (probe.cluster, probe.from, probe.to, probe.incarnation, probe.sequence) = (1, 1, 2, 1, sequence);
        probe.sign(&KEYS[0]);
        // What does not leave is not judged.
        let _ = socket.send_to(bytemuck::bytes_of(&probe), right);
    })?;
    let alarms = || a.probes.drain().into_iter().filter(|e| e.kind == PATH_SILENT).map(|e| e.time_ns);
    let answered = || Ok(a.probes.states()?.iter().any(|(.., s)| s.answered != 0 && s.silent == 0));
    let result = (|| {
        wait("an answer", answered)?;
        alarms().for_each(drop);
        pause(Duration::from_secs(arguments.seconds))?;
        let wrong = alarms().count() as u64;
        let mut all = Vec::new();
        for round in 0..arguments.rounds {
            pause(stagger(round, interval))?;
            let before = clock::now();
            answering(false)?;
            let mut told = None;
            wait("an event", || {
                told = told.or(alarms().next());
                Ok(told.is_some())
            })?;
            all.extend(told.map(|t| t.saturating_sub(before.0) as f64 / 1e6));
            answering(true)?;
            wait("an answer", answered)?;
        }
        Ok((all, wrong))
    })();
    stop.store(true, Ordering::Relaxed);
    let _ = sender.join();
    result
}

/// A thread that does something each interval, with the priority of the daemon's heartbeats.
fn spawn(
    stop: &Arc<AtomicBool>,
    interval: Duration,
    mut act: impl FnMut(u64) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let stop = stop.clone();
    thread::Builder::new().spawn(move || {
        prefer_this_thread();
        let mut next = Instant::now();
        for sequence in 1.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            act(sequence);
            next += interval;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    })
}

fn prefer_this_thread() {
    let param = nix::libc::sched_param { sched_priority: 10 };
    // SAFETY: pid 0 is the calling thread and `param` is valid for the call. Refused, it stays ordinary.
    unsafe { nix::libc::sched_setscheduler(0, nix::libc::SCHED_RR, &param) };
}

/// Heartbeats as the daemon sends and judges them: datagrams read by a thread, silence told by its clock.
fn user_space(arguments: &Arguments, stage: &Stage) -> Result<(Vec<f64>, u64)> {
    let interval = Duration::from_millis(arguments.interval);
    let to: SocketAddr = format!("10.9.0.1:{HEARTBEATS}").parse()?;
    let receiver = stage.a.enter(|| UdpSocket::bind(to))?;
    let sender = stage.b.enter(|| UdpSocket::bind(("10.9.0.2", HEARTBEATS)))?;
    let (stop, quiet) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (alarms, at) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let heart = spawn(&stop, interval, {
        let quiet = quiet.clone();
        move |_| {
            if !quiet.load(Ordering::Relaxed) {
                let _ = sender.send_to(&[0; 160], to);
            }
        }
    })?;
    let judge = {
        let (stop, alarms, at) = (stop.clone(), alarms.clone(), at.clone());
        receiver.set_read_timeout(Some(interval * MULTIPLIER))?;
        thread::Builder::new().spawn(move || {
            prefer_this_thread();
            let mut told = true;
            while !stop.load(Ordering::Relaxed) {
                match receiver.recv(&mut [0; 256]) {
                    Ok(_) => told = false,
                    Err(_) if !told => {
                        told = true;
                        at.store(clock::now().0, Ordering::SeqCst);
                        alarms.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(_) => {}
                }
            }
        })?
    };
    let result = (|| {
        pause(interval * 10)?;
        let from = alarms.load(Ordering::SeqCst);
        pause(Duration::from_secs(arguments.seconds))?;
        let wrong = alarms.load(Ordering::SeqCst) - from;
        let mut all = Vec::new();
        for round in 0..arguments.rounds {
            pause(stagger(round, interval))?;
            let known = alarms.load(Ordering::SeqCst);
            let before = clock::now();
            quiet.store(true, Ordering::Relaxed);
            wait("an alarm", || Ok(alarms.load(Ordering::SeqCst) > known))?;
            all.push(at.load(Ordering::SeqCst).saturating_sub(before.0) as f64 / 1e6);
            quiet.store(false, Ordering::Relaxed);
        }
        Ok((all, wrong))
    })();
    stop.store(true, Ordering::Relaxed);
    let _ = heart.join();
    let _ = judge.join();
    result
}

/// keepalived with one BFD instance; killed when dropped.
struct Bfd {
    child: Child,
    log: PathBuf,
}

impl Bfd {
    fn start(ns: &NetNs, dir: &Path, name: &str, ours: &str, theirs: &str, interval: u64) -> Result<Self> {
        let path = |kind: &str| dir.join(format!("{name}.{kind}"));
        let config = format!(
            "bfd_instance peer {{\n  neighbor_ip {theirs}\n  source_ip {ours}\n  min_rx {interval}\n  \
             min_tx {interval}\n  idle_tx {interval}\n  multiplier {MULTIPLIER}\n}}\n"
        );
        fs::write(path("conf"), config)?;
        let log = File::create(path("log"))?;
        let mut command = ns.command("keepalived");
        command.args(["--dont-fork", "--log-console", "--log-detail", "--use-file"]).arg(path("conf"));
        command.arg("--pid").arg(path("pid")).arg("--bfd_pid").arg(path("bfd.pid"));
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let die_with_us = || Ok(set_pdeathsig(Signal::SIGKILL)?);
        // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
        unsafe { command.pre_exec(die_with_us) };
        let child = command.spawn().context("cannot run keepalived (`cargo xtask setup` installs it)")?;
        Ok(Self { child, log: path("log") })
    }

    fn count(&self, what: &str) -> Result<usize> {
        Ok(fs::read_to_string(&self.log)?.matches(what).count())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(killpg(Pid::from_raw(self.child.id() as i32), signal)?)
    }
}

impl Drop for Bfd {
    fn drop(&mut self) {
        let _ = self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// The peer is frozen; told is what the log says, looked at each millisecond.
fn bfd(arguments: &Arguments, stage: &Stage) -> Result<(Vec<f64>, u64)> {
    let (dir, interval) = (stage.dir.path(), Duration::from_millis(arguments.interval));
    let a = Bfd::start(&stage.a, dir, "a", "10.9.0.1", "10.9.0.2", arguments.interval)?;
    let b = Bfd::start(&stage.b, dir, "b", "10.9.0.2", "10.9.0.1", arguments.interval)?;
    let down = "Entering Down state";
    // A session comes up with slow timers, and only then agrees on those that are configured.
    let usual = format!("Detection time is {} us (was", arguments.interval * 1000 * u64::from(MULTIPLIER));
    wait("BFD is up", || Ok(a.count(&usual)? > 0))
        .with_context(|| fs::read_to_string(&a.log).unwrap_or_default())?;
    pause(interval * 20)?;
    let before = a.count(down)?;
    pause(Duration::from_secs(arguments.seconds))?;
    let wrong = (a.count(down)? - before) as u64;
    let mut all = Vec::new();
    for round in 0..arguments.rounds {
        pause(stagger(round, interval))?;
        let (downs, agreed) = (a.count(down)?, a.count(&usual)?);
        let before = clock::now();
        b.signal(Signal::SIGSTOP)?;
        wait("BFD is down", || Ok(a.count(down)? > downs))?;
        all.push(clock::now().since(before).as_secs_f64() * 1e3);
        b.signal(Signal::SIGCONT)?;
        wait("BFD is up again", || Ok(a.count(&usual)? > agreed))?;
    }
    Ok((all, wrong))
}

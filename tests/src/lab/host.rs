//! One host of the lab and the real daemon in it.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use vipd::api::Status;

use super::{Etcd, Options, PATIENCE, Segment, wait_until};
use crate::{frames::Mac, timeline::Moment};

const RPC_PORT: u16 = 7690;
const HEARTBEAT_PORT: u16 = 7691;

pub struct Host {
    index: usize,
    name: String,
    dir: PathBuf,
    pins: PathBuf,
    witness: bool,
    log: Option<&'static str>,
    mac: Mac,
    rpc: String,
    /// A handle on the namespace, which [`Segment`] owns.
    ns: NamespaceOf,
    daemon: Mutex<Option<Child>>,
}

/// Makes commands that run inside the host's namespace.
struct NamespaceOf(String);

impl NamespaceOf {
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let path = Path::new("/run/netns").join(&self.0);
        let handle = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut command = Command::new(program);
        let enter = move || {
            nix::sched::setns(&handle, nix::sched::CloneFlags::CLONE_NEWNET)?;
            Ok(())
        };
        // SAFETY: between fork and exec only setns(2) is called, which is async-signal-safe and
        // allocates nothing; the descriptor is owned by the closure.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }
}

/// What vipctl said.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// An error with all it said unless it exited with 0.
    pub fn done(self) -> Result<Self> {
        ensure!(self.status.success(), "vipctl: {}: {}{}", self.status, self.stdout, self.stderr);
        Ok(self)
    }
}

impl Host {
    pub(super) fn prepare(
        index: usize,
        lab: &str,
        dir: &Path,
        segment: &Segment,
        options: &Options,
        etcd: Option<&Etcd>,
    ) -> Result<Self> {
        let name = format!("host{}", index + 1);
        let dir = dir.join(&name);
        for below in ["state", "run"] {
            let below = dir.join(below);
            fs::create_dir_all(&below).with_context(|| format!("cannot make {}", below.display()))?;
        }
        let host = Self {
            index,
            pins: Path::new("/sys/fs/bpf").join(format!("{lab}-{name}")),
            witness: options.witness == Some(index),
            log: options.log,
            mac: segment.host_mac(index),
            rpc: format!("{}:{RPC_PORT}", segment.address(index, options.rpc_path)),
            ns: NamespaceOf(segment.host(index).name().to_owned()),
            daemon: Mutex::default(),
            name,
            dir,
        };
        let paths: Vec<String> = (0..options.paths)
            .map(|path| format!("\"{}:{HEARTBEAT_PORT}\"", segment.address(index, path)))
            .collect();
        let store = etcd.map(Etcd::config).unwrap_or_default();
        let config = format!(
            "name = \"{}\"\nrpc = \"{}\"\npaths = [{}]\nprofile = \"{}\"\ntunables = \"{}\"\n\n[datapath]\npin-dir = \"{}\"\n{store}\n{}",
            host.name,
            host.rpc,
            paths.join(", "),
            options.profile,
            host.dir.join("defaults").display(),
            host.pins.display(),
            options.config,
        );
        host.write("node.toml", &config)?;
        host.write("defaults", &options.tunables)?;
        Ok(host)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.dir.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// From 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// As the cluster knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Where its peers reach it.
    pub fn rpc(&self) -> &str {
        &self.rpc
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Where its daemon pins BPF programs and maps.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Replaces the tunables file; it is read at the next action.
    pub fn set_tunables(&self, lines: &str) -> Result<()> {
        self.write("defaults", lines)
    }

    /// Replaces text in the configuration, which is read when the daemon starts.
    pub fn edit_config(&self, from: &str, to: &str) -> Result<()> {
        let path = self.dir.join("node.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(text.contains(from), "node.toml of {} has no '{from}': {text}", self.name);
        self.write("node.toml", &text.replace(from, to))
    }

    /// Starts the daemon; it is up when [`Host::wait_up`] returns.
    pub fn start(&self) -> Result<()> {
        let mut daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(daemon.is_none(), "{}: the daemon runs already", self.name);
        let log = self.dir.join("log");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = self.ns.command(binary("vipd")?)?;
        command.arg("--config").arg(self.dir.join("node.toml"));
        command.arg("--state-dir").arg(self.state_dir());
        command.arg("--run-dir").arg(self.dir.join("run"));
        if self.witness {
            command.arg("--witness");
        }
        command.env("NO_COLOR", "1");
        command.envs(self.log.map(|log| ("VIPD_LOG", log)));
        // Whatever this machine has to do with a real cloud is none of the lab's business.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        // A group of its own: Ctrl-C is for the lab, which then stops the daemon. And no lab that dies
        // leaves a daemon behind.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let die_with_us = || Ok(set_pdeathsig(Signal::SIGKILL)?);
        // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
        unsafe { command.pre_exec(die_with_us) };
        *daemon = Some(command.spawn().context("cannot run vipd")?);
        Ok(())
    }

    /// Until the daemon answers on its socket.
    pub fn wait_up(&self) -> Result<Status> {
        let what = format!("the daemon of {} answers", self.name);
        wait_until(PATIENCE, &what, || {
            self.check_alive()?;
            self.status()
        })
        .with_context(|| self.diagnosis())
    }

    /// An error when the daemon ended by itself.
    pub fn check_alive(&self) -> Result<()> {
        let mut daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(child) = daemon.as_mut() else { bail!("{}: the daemon is not running", self.name) };
        match child.try_wait()? {
            Some(status) => bail!("{}: the daemon ended by itself ({status})", self.name),
            None => Ok(()),
        }
    }

    /// The daemon's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Child::id)
    }

    pub fn is_running(&self) -> bool {
        self.check_alive().is_ok()
    }

    fn signal(&self, signal: Signal) -> Result<Moment> {
        let daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(child) = daemon.as_ref() else { bail!("{}: the daemon is not running", self.name) };
        let at = Moment::now();
        kill(Pid::from_raw(child.id() as i32), signal)
            .with_context(|| format!("cannot send {signal} to the daemon of {}", self.name))?;
        Ok(at)
    }

    /// Kills the daemon at once; answers when.
    pub fn sigkill(&self) -> Result<Moment> {
        let at = self.signal(Signal::SIGKILL)?;
        self.reap()?;
        Ok(at)
    }

    /// Freezes the daemon; answers when.
    pub fn sigstop(&self) -> Result<Moment> {
        self.signal(Signal::SIGSTOP)
    }

    /// Thaws the daemon; answers when.
    pub fn sigcont(&self) -> Result<Moment> {
        self.signal(Signal::SIGCONT)
    }

    /// Asks the daemon to end and waits for it; answers when it was asked.
    pub fn terminate(&self) -> Result<Moment> {
        let at = self.signal(Signal::SIGTERM)?;
        wait_until(PATIENCE, &format!("the daemon of {} ends", self.name), || {
            let mut daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = match daemon.as_mut() {
                Some(child) => child.try_wait()?.is_some(),
                None => true,
            };
            ensure!(ended, "still running");
            *daemon = None;
            Ok(())
        })?;
        Ok(at)
    }

    fn reap(&self) -> Result<()> {
        let child = self.daemon.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            child.wait().with_context(|| format!("the daemon of {} was lost", self.name))?;
        }
        Ok(())
    }

    /// Runs the real vipctl against this host's daemon.
    pub fn vipctl(&self, arguments: &[&str]) -> Result<Answer> {
        let output = self
            .vipctl_command()?
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("cannot run vipctl")?;
        Ok(Answer {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// vipctl with its socket, its verb still missing.
    pub fn vipctl_command(&self) -> Result<Command> {
        let mut command = self.ns.command(binary("vipctl")?)?;
        command.arg("--socket").arg(self.dir.join("run/vipd.sock"));
        Ok(command)
    }

    /// A command inside the host's namespace.
    pub fn command(&self, program: &str) -> Result<Command> {
        self.ns.command(program)
    }

    pub fn status(&self) -> Result<Status> {
        let answer = self.vipctl(&["--json", "status"])?.done()?;
        serde_json::from_str(&answer.stdout).context("the status is not what it should be")
    }

    /// Events so far.
    pub fn events(&self) -> Result<Vec<vipd::api::Event>> {
        let answer = self.vipctl(&["--json", "events", "--last", "100000"])?.done()?;
        // One document, or one a line.
        if let Ok(all) = serde_json::from_str(&answer.stdout) {
            return Ok(all);
        }
        let lines = answer.stdout.lines().filter(|l| !l.trim().is_empty());
        lines.map(|l| serde_json::from_str(l).with_context(|| format!("not an event: {l}"))).collect()
    }

    /// Deletes an address behind the daemon's back, as a foreign process might.
    pub fn delete_address(&self, address: &str) -> Result<()> {
        let mut ip = self.command("ip")?;
        crate::netns::run(ip.args(["address", "delete", address, "dev", "eth0"])).map(drop)
    }

    /// Whether the kernel has the address.
    pub fn has_address(&self, address: &str) -> Result<bool> {
        let mut ip = self.command("ip")?;
        let output = crate::netns::run(ip.args(["-o", "address", "show", "dev", "eth0"]))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.split_whitespace().any(|word| word.split('/').next() == Some(address)))
    }

    /// The log so far.
    pub fn log(&self) -> String {
        fs::read(self.dir.join("log")).map(|l| String::from_utf8_lossy(&l).into_owned()).unwrap_or_default()
    }

    /// What it says of itself and the end of its log, for errors.
    pub fn diagnosis(&self) -> String {
        let state = match self.check_alive() {
            Ok(()) => match self.quick_status() {
                Ok(text) => text,
                Err(error) => format!("{error:#}"),
            },
            Err(error) => format!("{error:#}"),
        };
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        format!("---- {} ----\n{state}\n---- end of its log ----\n{tail}", self.name)
    }

    /// The status as text; a frozen daemon must not freeze the report.
    fn quick_status(&self) -> Result<String> {
        let mut child = self
            .vipctl_command()?
            .arg("status")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let ended = wait_until(Duration::from_secs(3), "vipctl status", || {
            ensure!(child.try_wait()?.is_some(), "no answer");
            Ok(())
        });
        if ended.is_err() {
            // It is ours and hangs; the report goes on without it.
            let _ = child.kill();
        }
        let output = child.wait_with_output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // All of this is best effort: the lab is being taken down, perhaps by a panic.
        let _ = self.signal(Signal::SIGKILL);
        let _ = self.reap();
        let _ = fs::remove_dir_all(&self.pins);
    }
}

/// A binary of this build: in $VIPD_BIN_DIR, else beside this executable.
pub fn binary(name: &str) -> Result<PathBuf> {
    let dirs = match std::env::var_os("VIPD_BIN_DIR") {
        Some(dir) => vec![PathBuf::from(dir)],
        None => {
            let me = std::env::current_exe().context("this executable has no path")?;
            // target/debug/demo, or target/debug/deps/cluster-HASH.
            me.ancestors().skip(1).take(2).map(Path::to_path_buf).collect()
        }
    };
    let found = dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no {name} in {dirs:?}: run `cargo xtask build` or set VIPD_BIN_DIR"))
}

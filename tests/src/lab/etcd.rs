//! A real etcd cluster of three, each member in a namespace of its own.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use nix::sys::{prctl::set_pdeathsig, signal::Signal};

use super::{PATIENCE, Segment, secrets::Secrets, wait_until};
use crate::netns::{NetNs, run};

/// The last part of the first member's address.
const FIRST: u8 = 201;
const MEMBERS: usize = 3;

pub struct Etcd {
    members: Vec<Member>,
    secrets: Option<Secrets>,
}

struct Member {
    number: usize,
    ns: NetNs,
    dir: PathBuf,
    secrets: Option<Secrets>,
    process: Mutex<Option<Child>>,
}

fn address(number: usize) -> String {
    format!("10.77.0.{}", usize::from(FIRST) + number)
}

fn endpoint(number: usize, secure: bool) -> String {
    let scheme = if secure { "https" } else { "http" };
    format!("{scheme}://{}:2379", address(number))
}

impl Etcd {
    /// Of node.toml.
    pub(super) fn config(&self) -> String {
        let endpoint = |i| format!("\"{}\"", endpoint(i, self.secrets.is_some()));
        let endpoints: Vec<String> = (0..MEMBERS).map(endpoint).collect();
        let secrets = self.secrets.as_ref().map(Secrets::config).unwrap_or_default();
        let endpoints = endpoints.join(", ");
        format!("\n[store]\nkind = \"etcd\"\nendpoints = [{endpoints}]\nprefix = \"/vipd\"\n{secrets}")
    }

    /// The members as [`Segment::part_from`] counts them.
    pub fn numbers() -> Vec<u8> {
        (FIRST..).take(MEMBERS).collect()
    }

    pub(super) fn start(segment: &Segment, dir: &Path, secrets: Option<Secrets>) -> Result<Self> {
        let member = |number: usize| {
            let ns = segment.plug_other(&format!("vipd-etcd{}", number + 1), FIRST + number as u8)?;
            let dir = dir.join(number.to_string());
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            Ok(Member { number, ns, dir, secrets: secrets.clone(), process: Mutex::default() })
        };
        let members = (0..MEMBERS).map(member).collect::<Result<_>>()?;
        let etcd = Self { members, secrets };
        etcd.members.iter().try_for_each(Member::start)?;
        etcd.wait_sound()?;
        if let Some(secrets) = &etcd.secrets {
            secrets.lock(|arguments| etcd.ctl(arguments))?;
        }
        Ok(etcd)
    }

    /// Until all members that run agree on a leader and answer.
    pub fn wait_sound(&self) -> Result<()> {
        wait_until(PATIENCE, "etcd is sound", || {
            self.members
                .iter()
                .filter(|m| m.is_running())
                .try_for_each(|m| m.ctl(&["endpoint", "health"]).map(drop))
        })
        .with_context(|| self.diagnosis())
    }

    /// As `kill -9` does.
    pub fn kill(&self, number: usize) -> Result<()> {
        self.members[number].kill()
    }

    /// Starts a member that was killed, with its data.
    pub fn restart(&self, number: usize) -> Result<()> {
        self.members[number].start()
    }

    /// Which member leads, asked of one that runs.
    pub fn leader(&self) -> Result<usize> {
        wait_until(PATIENCE, "etcd has a leader", || {
            let leads = |m: &&Member| -> Result<bool> {
                let said = m.ctl(&["endpoint", "status", "-w", "fields"])?;
                let field = |name: &str| {
                    said.lines().find_map(|l| l.strip_prefix(&format!("\"{name}\" : "))).map(str::to_owned)
                };
                Ok(field("MemberID").is_some() && field("MemberID") == field("Leader"))
            };
            let mut running = self.members.iter().filter(|m| m.is_running());
            let found = running.find(|m| leads(m).unwrap_or(false)).context("none leads")?;
            Ok(found.number)
        })
    }

    /// What `etcdctl ARGUMENTS` says, asked of any member that runs.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let member = self.members.iter().find(|m| m.is_running()).context("no member of etcd runs")?;
        member.ctl(arguments)
    }

    pub(super) fn diagnosis(&self) -> String {
        let tail = |m: &Member| {
            let log = fs::read(m.dir.join("log")).map(|l| String::from_utf8_lossy(&l).into_owned());
            let log = log.unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(5)..].join("\n");
            format!("---- etcd {} (runs: {}) ----\n{end}", m.number, m.is_running())
        };
        self.members.iter().map(tail).collect::<Vec<_>>().join("\n")
    }
}

impl Member {
    fn start(&self) -> Result<()> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(process.is_none(), "etcd {} runs already", self.number);
        let log: File = OpenOptions::new().create(true).append(true).open(self.dir.join("log"))?;
        let (me, own) = (address(self.number), endpoint(self.number, self.secrets.is_some()));
        let peer = |number: usize| format!("http://{}:2380", address(number));
        let all: Vec<String> = (0..MEMBERS).map(|i| format!("e{i}={}", peer(i))).collect();
        let mut command: Command = self.ns.command("etcd");
        command.args(["--name", &format!("e{}", self.number)]);
        command.arg("--data-dir").arg(self.dir.join("data"));
        command.args(["--listen-client-urls", &own]);
        command.args(["--advertise-client-urls", &own]);
        command.args(["--listen-peer-urls", &format!("http://{me}:2380")]);
        command.args(["--initial-advertise-peer-urls", &peer(self.number)]);
        command.args(["--initial-cluster", &all.join(",")]);
        command.args(["--initial-cluster-state", "new", "--initial-cluster-token", "vipd-lab"]);
        if let Some(secrets) = &self.secrets {
            command.args(secrets.server());
        }
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let die_with_us = || Ok(set_pdeathsig(Signal::SIGKILL)?);
        // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
        unsafe { command.pre_exec(die_with_us) };
        *process = Some(command.spawn().context("cannot run etcd: `cargo xtask setup` installs it")?);
        Ok(())
    }

    fn is_running(&self) -> bool {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn kill(&self) -> Result<()> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut process = process.with_context(|| format!("etcd {} does not run", self.number))?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut ctl = self.ns.command("etcdctl");
        ctl.env("ETCDCTL_API", "3").args(["--dial-timeout", "1s", "--command-timeout", "2s"]);
        ctl.args(["--endpoints", &endpoint(self.number, self.secrets.is_some())]);
        if let Some(secrets) = &self.secrets {
            ctl.args(secrets.client());
        }
        ctl.args(arguments);
        let output = run(&mut ctl)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have been killed by the test already; its namespace goes with it.
        let _ = self.kill();
    }
}

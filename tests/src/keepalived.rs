//! keepalived on the lab's hosts: the peer that failover is measured beside.

use std::{
    fs::{self, File},
    net::IpAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use anyhow::{Context, Result};
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, killpg},
    },
    unistd::Pid,
};

use crate::{lab::Segment, timeline::Moment};

/// keepalived in one host; all its processes are killed when this is dropped.
pub struct Keepalived {
    dir: PathBuf,
    index: usize,
    child: Option<Child>,
}

/// How the instances are configured.
#[derive(Clone, Debug)]
pub struct Instance {
    pub addresses: Vec<IpAddr>,
    pub prefix_len: u8,
    /// Seconds, as keepalived writes them: `1`, `0.1`, `0.01`.
    pub advert_interval: &'static str,
}

impl Keepalived {
    /// Writes the configuration below `dir`; the host with the smallest index has the highest priority.
    pub fn prepare(dir: &Path, index: usize, instance: &Instance) -> Result<Self> {
        let dir = dir.join(format!("keepalived{}", index + 1));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let line = |a: &IpAddr| format!("    {a}/{} dev eth0\n", instance.prefix_len);
        // One address in the adverts, the others excluded from them: VRRP's packets hold only so many.
        let first: String = instance.addresses.iter().take(1).map(line).collect();
        let others: String = instance.addresses.iter().skip(1).map(line).collect();
        let excluded = if others.is_empty() {
            others
        } else {
            format!("  virtual_ipaddress_excluded {{\n{others}  }}\n")
        };
        let config = format!(
            "global_defs {{\n  router_id host{id}\n  vrrp_version 3\n  vrrp_garp_master_repeat 1\n}}\n\
             vrrp_instance lab {{\n  state BACKUP\n  nopreempt\n  interface eth0\n  virtual_router_id 77\n  \
             priority {priority}\n  advert_int {interval}\n  virtual_ipaddress {{\n{first}  }}\n{excluded}}}\n",
            id = index + 1,
            priority = 200 - 10 * index,
            interval = instance.advert_interval,
        );
        let path = dir.join("keepalived.conf");
        fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { dir, index, child: None })
    }

    /// Starts it in its host's namespace.
    pub fn start(&mut self, segment: &Segment) -> Result<()> {
        let log = File::create(self.dir.join("log")).context("no log file for keepalived")?;
        let mut command = segment.host(self.index).command("keepalived");
        command.args(["--dont-fork", "--vrrp", "--log-console", "--use-file"]);
        command.arg(self.dir.join("keepalived.conf"));
        command.arg("--pid").arg(self.dir.join("pid"));
        command.arg("--vrrp_pid").arg(self.dir.join("vrrp.pid"));
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let die_with_us = || Ok(set_pdeathsig(Signal::SIGKILL)?);
        // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
        unsafe { command.pre_exec(die_with_us) };
        self.child =
            Some(command.spawn().context("cannot run keepalived (`cargo xtask setup` installs it)")?);
        Ok(())
    }

    /// Kills all its processes at once; answers when.
    pub fn sigkill(&mut self) -> Result<Moment> {
        let mut child = self.child.take().context("keepalived is not running")?;
        let at = Moment::now();
        killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL).context("cannot kill keepalived")?;
        child.wait().context("keepalived was lost")?;
        // Stale ones block its next start.
        for file in ["pid", "vrrp.pid"] {
            // Where it was not written yet there is nothing to remove.
            let _ = fs::remove_file(self.dir.join(file));
        }
        Ok(at)
    }

    /// Asks it to stop; its backup takes over at once. Answers when it was asked.
    pub fn terminate(&mut self) -> Result<Moment> {
        let mut child = self.child.take().context("keepalived is not running")?;
        let at = Moment::now();
        killpg(Pid::from_raw(child.id() as i32), Signal::SIGTERM).context("cannot stop keepalived")?;
        child.wait().context("keepalived was lost")?;
        Ok(at)
    }

    /// Its processes: the parent and the one that does the work.
    pub fn pids(&self) -> Vec<u32> {
        let Some(child) = &self.child else { return Vec::new() };
        let path = format!("/proc/{0}/task/{0}/children", child.id());
        let children = fs::read_to_string(path).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(child.id()).chain(children).collect()
    }

    /// Its log, for errors.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        if self.child.is_some() {
            // The lab is being taken down, perhaps by a panic.
            let _ = self.sigkill();
        }
    }
}

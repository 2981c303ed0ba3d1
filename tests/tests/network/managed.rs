//! The real NetworkManager in a host of its own: a bus and the daemon, with private mounts for what it
//! would write.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
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
use tempfile::TempDir;
use vipd::act::network_manager::NetworkManager;
use vipd_tests::{
    lab::{PATIENCE, binary, wait_until},
    netns::{NetNs, run, veth},
};

/// Programs that [`Managed`] runs.
const PROGRAMS: [&str; 4] = ["NetworkManager", "nmcli", "dbus-daemon", "unshare"];

/// The profile that NetworkManager has for eth0.
pub const PROFILE: &str = "wired";

const WIRED: &str = "[connection]
id=wired
uuid=2d9a1b62-93e1-4c6b-9f3e-0d5f7f0a1c11
type=ethernet
interface-name=eth0
[ipv4]
method=manual
address1=192.0.2.1/24,192.0.2.254
[ipv6]
method=manual
addr-gen-mode=eui64
address1=2001:db8::1/64
";

/// eth1 is not NetworkManager's, and what nobody made a profile for stays as it is.
const CONFIG: &str = "[main]
plugins=keyfile
dns=none
rc-manager=unmanaged
hostname-mode=none
auth-polkit=false
no-auto-default=*
[keyfile]
path=DIR/profiles
unmanaged-devices=interface-name:eth1
[logging]
level=INFO
";

/// A bus without rules: everybody on it is root here.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=DIR/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*"/> <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

/// NetworkManager sees its own interfaces in /sys, and takes one that is not writable as a sign that there
/// is no udev to wait for. The mounts go with the process.
const PRIVATE: &str = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib/NetworkManager \
    && mount -t sysfs -o ro sysfs /sys && exec NetworkManager \"$@\"";

/// A host with eth0 and eth1, a peer with the other ends, and a bus. Fields are dropped in this order.
pub struct Managed {
    daemon: Mutex<Option<Child>>,
    bus: Child,
    dir: TempDir,
    pub us: NetNs,
    pub peer: NetNs,
}

/// The first of the programs that is missing.
pub fn missing() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = std::env::split_paths(&path).collect();
    PROGRAMS.into_iter().find(|program| !dirs.iter().any(|dir| dir.join(program).is_file()))
}

impl Managed {
    /// With a NetworkManager that has brought eth0 up.
    pub fn new() -> Result<Self> {
        let host = Self::without_network_manager()?;
        host.start()?;
        host.wait_for_state("eth0", "connected")?;
        Ok(host)
    }

    /// With a bus on which nobody is.
    pub fn without_network_manager() -> Result<Self> {
        let (us, peer) = (NetNs::new("vipd-nm")?, NetNs::new("vipd-peer")?);
        for host in [&us, &peer] {
            host.sysctl("ipv6/conf/default/accept_dad", "0")?;
        }
        veth(&us, "eth0", &peer, "eth0")?;
        veth(&us, "eth1", &peer, "eth1")?;
        let dir = tempfile::Builder::new().prefix("vipd-nm").tempdir().context("no directory")?;
        let bus = Self::start_bus(dir.path(), &us)?;
        let host = Self { daemon: Mutex::default(), bus, dir, us, peer };
        wait_until(PATIENCE, "the bus", || {
            ensure!(host.dir.path().join("bus").exists(), "no socket: {}", host.log());
            Ok(())
        })?;
        Ok(host)
    }

    fn start_bus(dir: &Path, us: &NetNs) -> Result<Child> {
        let config = dir.join("bus.conf");
        fs::write(&config, BUS.replace("DIR", &dir.display().to_string()))?;
        let mut command = us.command("dbus-daemon");
        command.arg(format!("--config-file={}", config.display())).args(["--nofork", "--nopidfile"]);
        spawn(command, &dir.join("bus.log"))
    }

    /// Starts NetworkManager; what it does then takes a moment.
    pub fn start(&self) -> Result<()> {
        let dir = self.dir.path();
        let profile = dir.join("profiles/wired.nmconnection");
        if !profile.exists() {
            use std::os::unix::fs::PermissionsExt;
            fs::create_dir_all(dir.join("profiles"))?;
            fs::write(&profile, WIRED)?;
            // It does not read what others may read.
            fs::set_permissions(&profile, fs::Permissions::from_mode(0o600))?;
        }
        let config = dir.join("NetworkManager.conf");
        fs::write(&config, CONFIG.replace("DIR", &dir.display().to_string()))?;
        let mut command = self.us.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", PRIVATE, "NetworkManager"]);
        command.args(["--no-daemon", "--config"]).arg(config);
        for (option, name) in [
            ("--config-dir", "none"),
            ("--system-config-dir", "none"),
            ("--intern-config", "intern.conf"),
            ("--state-file", "state"),
            ("--pid-file", "pid"),
        ] {
            command.arg(option).arg(dir.join(name));
        }
        command.env("DBUS_SYSTEM_BUS_ADDRESS", self.address());
        *self.daemon() = Some(spawn(command, &dir.join("log"))?);
        wait_until(PATIENCE, "NetworkManager", || self.nmcli("general status").map(drop))
    }

    /// The real daemon beside this NetworkManager, without a cluster, until the answer is dropped.
    pub fn vipd(&self, run_dir: &Path) -> Result<Daemon> {
        let (config, state) = (self.dir.path().join("node.toml"), self.dir.path().join("vipd"));
        let lines = "name = \"n\"\nrpc = \"192.0.2.1:7690\"\npaths = [\"192.0.2.1:7691\"]\n";
        fs::write(&config, format!("{lines}\n[datapath]\nmode = \"none\"\n"))?;
        let mut command = self.us.command(binary("vipd")?);
        command.arg("--config").arg(config).arg("--state-dir").arg(state).arg("--run-dir").arg(run_dir);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", self.address()).env("NO_COLOR", "1");
        Ok(Daemon(spawn(command, &self.dir.path().join("vipd.log"))?))
    }

    /// As in $DBUS_SYSTEM_BUS_ADDRESS.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.dir.path().join("bus").display())
    }

    pub fn network_manager(&self) -> NetworkManager {
        NetworkManager::at(self.address())
    }

    /// Its output.
    pub fn nmcli(&self, arguments: &str) -> Result<String> {
        let mut command = Command::new("nmcli");
        command.env("DBUS_SYSTEM_BUS_ADDRESS", self.address()).env("LC_ALL", "C");
        let output = run(command.args(arguments.split_whitespace()))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The device's state in nmcli's words, and the profile that is active on it.
    pub fn device(&self, name: &str) -> Result<(String, String)> {
        let all = self.nmcli("-t -f DEVICE,STATE,CONNECTION device status")?;
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        match all.lines().map(fields).find(|fields| fields.first().is_some_and(|f| f == name)) {
            Some(fields) if fields.len() == 3 => Ok((fields[1].clone(), fields[2].clone())),
            _ => bail!("NetworkManager does not list {name}:\n{all}"),
        }
    }

    pub fn wait_for_state(&self, device: &str, state: &str) -> Result<()> {
        wait_until(PATIENCE, &format!("{device} {state}"), || {
            let now = self.device(device)?.0;
            ensure!(now == state, "{device} is {now}\n{}", self.log());
            Ok(())
        })
    }

    /// How often NetworkManager has activated something: it numbers its activations.
    pub fn activations(&self) -> Result<u32> {
        let path = self.nmcli(&format!("-g GENERAL.DBUS-PATH connection show {PROFILE}"))?;
        let number = path.rsplit('/').next().and_then(|number| number.parse().ok());
        number.with_context(|| format!("no number in '{path}'"))
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Child>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let daemon = self.daemon();
        let daemon = daemon.as_ref().context("NetworkManager is not running")?;
        Ok(kill(Pid::from_raw(daemon.id() as i32), signal)?)
    }

    /// As a crash would, what it configured stays.
    pub fn kill(&self) -> Result<()> {
        let mut daemon = self.daemon().take().context("NetworkManager is not running")?;
        daemon.kill()?;
        daemon.wait()?;
        Ok(())
    }

    /// The ends of the logs, for errors.
    pub fn log(&self) -> String {
        let tail = |name: &str| {
            let log = fs::read(self.dir.path().join(name)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let lines: Vec<_> = log.lines().collect();
            lines[lines.len().saturating_sub(30)..].join("\n")
        };
        let [bus, daemon, vipd] = ["bus.log", "log", "vipd.log"].map(tail);
        format!("---- bus ----\n{bus}\n---- NetworkManager ----\n{daemon}\n---- vipd ----\n{vipd}")
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        // Best effort: the test is over, perhaps by a panic.
        let _ = self.kill();
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}

/// Killed when it is dropped.
pub struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // Best effort, as above.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In the background, until it is killed or this process dies.
fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log).context("no log file")?;
    command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let die_with_us = || Ok(set_pdeathsig(Signal::SIGKILL)?);
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
    unsafe { command.pre_exec(die_with_us) };
    command.spawn().with_context(|| format!("cannot run {command:?} (`cargo xtask setup` installs it)"))
}

/// Longest a stuck NetworkManager may hold up a command: generous, there is other work on the machine.
pub const STUCK: Duration = Duration::from_secs(60);

//! A cluster in network namespaces: hosts and a client on a bridge, the real daemon in each host.
//!
//! ```text
//!      host1          host2          host3         client
//!   eth0 10.77.0.1 eth0 10.77.0.2 eth0 10.77.0.3 eth0 10.77.0.100
//!        |              |              |              |
//!       h1             h2             h3              c       ports
//!        +--------------+------ br0 ---+--------------+       the bridge's namespace
//! ```
//! With etcd as the store, its members are on `br0` as well (10.77.0.201 and so on), in namespaces of their own.
//! With two paths every host has an `eth1` (10.78.0.I) on a second bridge `br1` for heartbeats. A standby
//! interface is an `eth2` (10.77.0.2I) beside `eth0`.

mod cluster;
mod etcd;
mod host;
mod secrets;
mod segment;
mod sweep;
mod wait;

use std::{net::IpAddr, path::Path, sync::atomic::AtomicU32, sync::atomic::Ordering, time::Duration};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

pub use cluster::NewIp;
pub use etcd::Etcd;
pub use host::{Answer, Host, binary};
pub use segment::{CLIENT_V4, CLIENT_V6, Segment};
pub use sweep::sweep;
pub use wait::wait_until;

use self::secrets::Secrets;
use crate::{
    capture::Capture,
    frames::Mac,
    prober::{Prober, Targets},
};

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Where the state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    Raft,
    /// In an etcd cluster of three beside the hosts.
    Etcd,
    /// The same with TLS, certificates for clients too, and a password.
    SecureEtcd,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub hosts: usize,
    /// 1 or 2 networks for heartbeats.
    pub paths: usize,
    /// The network for consensus and peer requests.
    pub rpc_path: usize,
    /// `default` or `fast`.
    pub profile: &'static str,
    /// The host (from 0) that only votes.
    pub witness: Option<usize>,
    pub store: Store,
    /// Lines of the tunables file, in shell-assignment form.
    pub tunables: String,
    /// Further lines of node.toml.
    pub config: String,
    /// What the daemons log (`VIPD_LOG`); None: as by default.
    pub log: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: 3,
            paths: 1,
            rpc_path: 0,
            profile: "default",
            witness: None,
            store: Store::Raft,
            tunables: String::new(),
            config: String::new(),
            log: None,
        }
    }
}

/// Fields are dropped in this order: daemons first, then the network below them.
pub struct Lab {
    pub hosts: Vec<Host>,
    etcd: Option<Etcd>,
    pub segment: Segment,
    dir: TempDir,
}

impl Lab {
    /// Namespaces, links and configuration files; no daemon runs yet.
    pub fn new(options: &Options) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("network namespaces and BPF programs need root");
        }
        wait::mount_bpffs()?;
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vipd-lab-{}-{number}", std::process::id());
        let mut dir = tempfile::Builder::new().prefix(&name).tempdir().context("no directory for the lab")?;
        // Logs and state stay for a look afterwards.
        dir.disable_cleanup(std::env::var_os("VIPD_LAB_KEEP").is_some());
        let segment = Segment::new(options.hosts, options.paths)?;
        let secrets =
            (options.store == Store::SecureEtcd).then(|| Secrets::make(&dir.path().join("secrets")));
        let etcd = match options.store {
            Store::Raft => None,
            Store::Etcd | Store::SecureEtcd => {
                Some(Etcd::start(&segment, &dir.path().join("etcd"), secrets.transpose()?)?)
            }
        };
        let hosts = (0..options.hosts)
            .map(|index| Host::prepare(index, &name, dir.path(), &segment, options, etcd.as_ref()))
            .collect::<Result<_>>()?;
        Ok(Self { hosts, etcd, segment, dir })
    }

    /// Only where the options ask for it.
    pub fn etcd(&self) -> Result<&Etcd> {
        self.etcd.as_ref().context("this lab has no etcd")
    }

    /// Configuration, state and logs of all hosts.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    /// 10.77.0.0/16 instead of /24 on all hosts, so that thousands of addresses have room.
    pub fn widen(&self) -> Result<()> {
        for index in 0..self.hosts.len() {
            let (host, address) = (self.segment.host(index), self.segment.address(index, 0));
            host.ip(&format!("addr del {address}/24 dev eth0"))?;
            host.ip(&format!("addr add {address}/16 broadcast + dev eth0"))?;
        }
        Ok(())
    }

    /// A second subnet on all hosts, 10.90.0.0/15, that has room for 65,536 addresses beside the hosts' own.
    pub fn add_wide_subnet(&self) -> Result<()> {
        let own = |number: usize| format!("addr add 10.90.0.{number}/15 broadcast + dev eth0");
        (0..self.hosts.len()).try_for_each(|i| self.segment.host(i).ip(&own(i + 1)).map(drop))?;
        self.segment.client().ip(&own(100)).map(drop)
    }

    /// The first of the wide subnet's addresses that nobody has.
    pub fn wide_addresses(count: usize) -> Vec<IpAddr> {
        let first = u32::from(std::net::Ipv4Addr::new(10, 90, 1, 0));
        (0..count).map(|n| std::net::Ipv4Addr::from(first + n as u32).into()).collect()
    }

    /// Listens at the client for everybody who uses one of these addresses.
    pub fn capture(&self, addresses: &[IpAddr]) -> Result<Capture> {
        let capture = Capture::start(self.segment.client(), "eth0", self.segment.client_mac())?;
        capture.watch(addresses.iter().copied());
        Ok(capture)
    }

    /// Asks for these addresses from the client until it is dropped.
    pub fn prober(&self, targets: Vec<Targets>) -> Result<Prober> {
        let hosts = self.hosts.iter().map(Host::mac).collect();
        Prober::start(self.segment.client(), "eth0", self.segment.asker(), hosts, targets)
    }

    /// The host with this link-layer address.
    pub fn host_of(&self, mac: Mac) -> Option<&Host> {
        self.hosts.iter().find(|host| host.mac() == mac)
    }

    /// Polls until the closure succeeds. After `patience` the error has its last reason, and what the
    /// hosts say and logged.
    pub fn wait<T>(&self, patience: Duration, what: &str, closure: impl FnMut() -> Result<T>) -> Result<T> {
        wait_until(patience, what, closure).map_err(|error| self.explain(error))
    }

    /// Adds what the hosts say and logged to an error.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        if crate::interrupt::check().is_err() {
            return error;
        }
        let hosts = self.hosts.iter().map(Host::diagnosis);
        let all: Vec<String> = hosts.chain(self.etcd.iter().map(Etcd::diagnosis)).collect();
        anyhow::anyhow!("{error:#}\n{}", all.join("\n"))
    }
}

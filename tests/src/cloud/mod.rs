//! A cloud for tests: an EC2 API with state ([`moto`]) behind a proxy that fails as it is told ([`proxy`]), instances'
//! metadata services ([`imds`]), and a network between hosts and API that carries nothing else.
//!
//! ```text
//!      host1            host2            host3
//!   api0 100.64.7.1  api0 100.64.7.2  api0 100.64.7.3
//!        c1               c2               c3              ports, isolated from each other
//!        +----------------+----- api ------+
//!                                |                         the cloud's namespace
//!      proxy 100.64.7.254:8000  -> moto 127.0.0.1:5000
//! ```
//! Hosts are any namespaces: a lab's or bare ones.

mod canned;
mod clustered;
pub mod faults;
mod form;
pub mod http;
pub mod imds;
pub mod journal;
pub mod moto;
pub mod proxy;
mod sign;
mod snapshot;
pub mod tools;
pub mod world;
mod xml;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

pub use clustered::{CloudLab, role};
pub use faults::{Fault, When};
pub use imds::Imds;
pub use journal::{Call, Outcome};
pub use moto::{Moto, REGION, Refusal};
pub use proxy::Proxy;
pub use sign::Credentials;
pub use snapshot::Snapshot;
pub use world::{Plan, World};
pub use xml::Element;

use crate::netns::{NetNs, veth};

/// The hosts' interface towards the API.
pub const INTERFACE: &str = "api0";
const PROXY: Ipv4Addr = Ipv4Addr::new(100, 64, 7, 254);
const PORT: u16 = 8000;

/// Fields are dropped in this order: who calls first, then who answers, then the network.
pub struct Cloud {
    pub proxy: Proxy,
    pub moto: Arc<Moto>,
    /// Hosts that are cut off.
    cut: Mutex<BTreeSet<usize>>,
    ns: Arc<NetNs>,
    dir: TempDir,
}

impl Cloud {
    /// Nothing is in it yet, and no host is connected.
    ///
    /// # Errors
    /// When not root, or moto is not installed.
    pub fn start() -> Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("vipd-cloud").tempdir().context("no directory for the cloud")?;
        let ns = Arc::new(NetNs::new("vipd-cloud")?);
        ns.ip("link add api type bridge stp_state 0 forward_delay 0 mcast_snooping 0")?;
        ns.sysctl("ipv6/conf/api/disable_ipv6", "1")?;
        ns.ip(&format!("addr add {PROXY}/24 dev api"))?;
        ns.ip("link set api up")?;
        // Programs that ask for the profile `default` by name want to find it.
        let config = format!("[default]\nregion = {REGION}\n");
        std::fs::write(dir.path().join("config"), config).context("no configuration for clients")?;
        let moto = Arc::new(Moto::start(Arc::clone(&ns), dir.path())?);
        let proxy = Proxy::start(&ns, (PROXY, PORT).into(), moto.address(), moto.keys())?;
        Ok(Self { proxy, moto, cut: Mutex::default(), ns, dir })
    }

    /// What clients are given as EC2's end point.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.proxy.address())
    }

    /// Plugs a host in: it gets the interface `api0`. Answers its address there, by which it is known.
    ///
    /// # Errors
    /// When it is plugged in already.
    pub fn connect(&self, host: &NetNs, index: usize) -> Result<IpAddr> {
        let port = format!("c{}", index + 1);
        veth(&self.ns, &port, host, INTERFACE)?;
        self.ns.sysctl(&format!("ipv6/conf/{port}/disable_ipv6"), "1")?;
        host.sysctl(&format!("ipv6/conf/{INTERFACE}/disable_ipv6"), "1")?;
        self.ns.ip(&format!("link set {port} master api"))?;
        self.ns.ip(&format!("link set {port} type bridge_slave isolated on"))?;
        let address = Self::address(index);
        host.ip(&format!("addr add {address}/24 dev {INTERFACE}"))?;
        Ok(address)
    }

    /// The address by which the proxy knows a host.
    pub fn address(index: usize) -> IpAddr {
        Ipv4Addr::new(100, 64, 7, index as u8 + 1).into()
    }

    /// From now on nothing gets from the host to the API or back, without a word to either.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn cut(&self, index: usize) -> Result<()> {
        self.change_cut(|cut| {
            cut.insert(index);
        })
    }

    /// Undoes [`Cloud::cut`].
    ///
    /// # Errors
    /// When nft refuses.
    pub fn mend(&self, index: usize) -> Result<()> {
        self.change_cut(|cut| {
            cut.remove(&index);
        })
    }

    fn change_cut(&self, change: impl FnOnce(&mut BTreeSet<usize>)) -> Result<()> {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut cut);
        let rule = |which: &str| -> String {
            cut.iter().map(|index| format!("ip {which} {} drop\n", Self::address(*index))).collect()
        };
        let rules = format!(
            "table inet cloud\ndelete table inet cloud\ntable inet cloud {{\n\
             chain input {{\ntype filter hook input priority 0;\n{}}}\n\
             chain output {{\ntype filter hook output priority 0;\n{}}}\n}}\n",
            rule("saddr"),
            rule("daddr")
        );
        self.ns.nft(&rules)
    }

    /// A TCP connection from a host to the proxy.
    ///
    /// # Errors
    /// When the host cannot reach it.
    pub fn dial(&self, host: &NetNs) -> Result<std::net::TcpStream> {
        let address: SocketAddr = self.proxy.address();
        host.enter(|| std::net::TcpStream::connect(address)).context("cannot reach the proxy")
    }

    /// The AWS command line in a host's namespace, its verb still missing, with the proxy as EC2's end point and nothing of
    /// this machine's configuration. It does not retry.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn aws(&self, host: &NetNs, credentials: &Credentials) -> Result<Command> {
        let mut command = host.command(tools::program("aws")?);
        self.environment(&mut command);
        command.env("AWS_MAX_ATTEMPTS", "1").env("AWS_ACCESS_KEY_ID", &credentials.access_key);
        command.env("AWS_SECRET_ACCESS_KEY", &credentials.secret);
        if let Some(token) = &credentials.token {
            command.env("AWS_SESSION_TOKEN", token);
        }
        Ok(command)
    }

    /// What makes a program that uses an AWS SDK call this cloud and nothing else.
    pub fn environment(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            let other = name.to_string_lossy();
            let python = ["PYTHONPATH", "PYTHONHOME"].contains(&&*other);
            let proxied = other.to_ascii_lowercase().ends_with("_proxy");
            if other.starts_with("AWS_") || python || proxied {
                command.env_remove(&name);
            }
        }
        command.env("AWS_ENDPOINT_URL", self.endpoint()).env("AWS_DEFAULT_REGION", REGION);
        command.env("AWS_REGION", REGION).env("AWS_PAGER", "");
        command.env("AWS_CONFIG_FILE", self.dir.path().join("config"));
        command.env("AWS_SHARED_CREDENTIALS_FILE", self.dir.path().join("credentials"));
    }
}

//! `/etc/vipd/node.toml`.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Profile;

/// What one node knows of itself; everything else is in the cluster's state.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NodeConfig {
    /// This node's name, unique in the cluster.
    pub name: String,
    /// TCP address for peers; must be reachable by them (not 0.0.0.0).
    pub rpc: SocketAddr,
    /// UDP addresses for heartbeats, one per path.
    pub paths: Vec<SocketAddr>,
    #[serde(default)]
    pub profile: Profile,
    #[serde(default)]
    pub witness: bool,
    /// The defaults file of row IP-14.
    #[serde(default = "default_tunables")]
    pub tunables: PathBuf,
    /// Members of this group may use vipctl, besides root and the daemon's own user. None: nobody else.
    #[serde(default)]
    pub control_group: Option<String>,
    /// Where the cluster keeps its state.
    #[serde(default)]
    pub store: StoreConfig,
    #[serde(default)]
    pub datapath: DatapathConfig,
    /// How this node reaches Amazon EC2.
    #[serde(default)]
    pub ec2: Ec2Config,
    /// Settings per interface name.
    #[serde(default)]
    pub interface: BTreeMap<String, InterfaceConfig>,
}

/// The same kind on all nodes. All but `kind` is for etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct StoreConfig {
    pub kind: StoreKind,
    /// `http://HOST:PORT` or `https://HOST:PORT`, one for each member of etcd.
    pub endpoints: Vec<String>,
    /// The cluster's keys are below PREFIX/CLUSTER/.
    pub prefix: Option<String>,
    /// A file with the line `NAME:PASSWORD`, where etcd asks for one.
    pub user_file: Option<PathBuf>,
    /// PEM: who signed the certificates of etcd's members.
    pub ca: Option<PathBuf>,
    /// PEM: this node's own certificate, where etcd asks for one.
    pub cert: Option<PathBuf>,
    /// PEM: its private key.
    pub key: Option<PathBuf>,
}

impl StoreConfig {
    /// Without a slash at the end.
    pub fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or("/vipd")
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// Embedded: the nodes themselves keep the state.
    #[default]
    Raft,
    /// An etcd cluster of the operator's keeps it.
    Etcd,
}

impl StoreKind {
    pub fn is_raft(&self) -> bool {
        *self == Self::Raft
    }
}

impl std::fmt::Display for StoreKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Raft => "raft",
            Self::Etcd => "etcd",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DatapathConfig {
    pub mode: DatapathMode,
    /// A directory on a bpffs; made, and bpffs mounted at /sys/fs/bpf, when missing.
    pub pin_dir: PathBuf,
    /// Capacity of the maps, in addresses.
    pub max_vips: u32,
    /// Log every packet (aya-log): for debugging only.
    pub log_packets: bool,
}

impl Default for DatapathConfig {
    fn default() -> Self {
        Self {
            mode: DatapathMode::Auto,
            pin_dir: "/sys/fs/bpf/vipd".into(),
            // All of an IPv4 /16 and 16,384 more.
            max_vips: 81_920,
            log_packets: false,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatapathMode {
    /// Native where it is known to work, else generic, else none.
    #[default]
    Auto,
    Native,
    Generic,
    None,
}

/// What is None is as Amazon's SDK has it: by the environment (`AWS_ENDPOINT_URL_EC2`,
/// `AWS_EC2_METADATA_SERVICE_ENDPOINT`, `AWS_PROFILE`), else the usual one. Keys are never written here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Ec2Config {
    /// URL of the API: a VPC's interface endpoint, for example.
    pub endpoint: Option<String>,
    /// URL of the metadata service of the instance.
    pub metadata_endpoint: Option<String>,
    /// A section of the files `credentials` and `config` of AWS.
    pub profile: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct InterfaceConfig {
    /// Answer broadcast and all-nodes pings (row DP-4).
    pub broadcast_ping: bool,
    /// Answers a second; the rest is dropped.
    pub broadcast_ping_rate: u32,
}

impl Default for InterfaceConfig {
    fn default() -> Self {
        Self { broadcast_ping: true, broadcast_ping_rate: 50 }
    }
}

fn default_tunables() -> PathBuf {
    "/etc/default/vipd".into()
}

//! The facts that `vipctl status`, `events` and `interfaces` show. JSON keys are stable.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use crate::core::links::LinkHealth;
use crate::model::{Accept, Epoch, LeaseEpoch, NodeId, Standing, Tag, Word};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node that answers.
    pub node: String,
    pub version: String,
    pub profile: String,
    /// None before `cluster init` or `cluster join`.
    pub cluster: Option<ClusterStatus>,
    pub lease: LeaseStatus,
    pub datapath: DatapathStatus,
    pub nodes: Vec<NodeStatus>,
    /// All of them, or those that were selected.
    pub resources: Vec<ResourceStatus>,
    /// How many there are in each state: of all, or of those that match, also where fewer are listed.
    #[serde(default)]
    pub states: BTreeMap<String, usize>,
    /// Resources that depend on each other, whatever was selected.
    #[serde(default)]
    pub hierarchies: Vec<HierarchyStatus>,
    pub interfaces: Vec<InterfaceStatus>,
    /// Each monitored subnet on each node that may hold addresses.
    pub subnets: Vec<SubnetStatus>,
    /// Other hosts that claimed addresses in service here in the last minutes.
    #[serde(default)]
    pub conflicts: Vec<ConflictStatus>,
    /// What a person should look at now.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    pub name: String,
    pub leader: Option<String>,
    pub term: u64,
    /// Log index of the last change applied here.
    pub applied: u64,
    /// This node can reach a majority of the voters.
    pub quorum: bool,
    pub voters: usize,
    /// What two voters do when they lose one another: `off` or `freeze`.
    #[serde(default)]
    pub two_nodes: String,
    /// What the number of voters cannot do, and what is unsafe (those begin with `UNSAFE`); also among the warnings.
    #[serde(default)]
    pub cautions: Vec<String>,
    #[serde(default)]
    pub store: StoreStatus,
    /// The number of the secret that all nodes share.
    #[serde(default)]
    pub key_generation: u64,
    /// Nodes that have not confirmed it yet: until they do, the key before it is accepted too.
    #[serde(default)]
    pub key_unconfirmed: Vec<String>,
}

/// Where the cluster's state is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// `raft` (the nodes themselves) or `etcd`.
    pub kind: String,
    /// The keys of etcd that begin with this.
    pub place: Option<String>,
    /// As this node sees them.
    pub members: Vec<StoreMemberStatus>,
    /// Milliseconds for which this node has been out of touch with the store; None while it is not.
    pub unreachable_ms: Option<u64>,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMemberStatus {
    pub endpoint: String,
    /// `leader`, `follower`, `no leader` or `unreachable`.
    pub state: String,
    pub healthy: bool,
    pub version: String,
    pub bytes: u64,
    pub trouble: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictStatus {
    pub tag: Tag,
    pub address: IpAddr,
    /// Link-layer address of the other host.
    pub mac: String,
    /// Claims told of; at most one a second and resource.
    pub count: u64,
    /// Milliseconds since the last one.
    pub last_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    pub valid: bool,
    /// Milliseconds until the kernel goes silent unless renewed; 0 when it is.
    pub remaining_ms: u64,
    pub duration_ms: u64,
    pub epoch: LeaseEpoch,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatapathStatus {
    /// `kernel` when BPF enforces the lease, `user-space` when only the daemon does.
    pub guard: String,
    /// Why not `kernel`.
    pub reason: Option<String>,
    /// (verdict, frames) since load, only those that are not zero.
    pub verdicts: Vec<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub id: NodeId,
    pub name: String,
    pub witness: bool,
    pub standing: Standing,
    pub rpc: SocketAddr,
    /// Heard lately, as this node sees it.
    pub alive: bool,
    /// Its lease is valid, as it said itself when last heard.
    pub lease_valid: bool,
    pub paths: Vec<PathStatus>,
    pub resources_in_service: usize,
    #[serde(default)]
    pub standby: bool,
    #[serde(default)]
    pub maintenance: bool,
    /// Why it gave up everything by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gave_up: Option<String>,
    /// It may hold its lease without anybody's agreement: nothing is taken over from it without its own word.
    #[serde(default)]
    pub holds_alone: bool,
    /// And it has not been taken back in since.
    #[serde(default)]
    pub declared_dead: bool,
    /// Who declared it dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared_by: Option<Word>,
}

impl NodeStatus {
    /// In one word or two.
    pub fn duty(&self) -> String {
        let duties = [
            (self.witness, "witness"),
            (self.declared_dead, "DECLARED DEAD"),
            (self.gave_up.is_some(), "GAVE UP"),
            (self.standby, "standby"),
            (self.maintenance, "maintenance"),
        ];
        let those: Vec<&str> = duties.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        if those.is_empty() { "online".to_owned() } else { those.join(", ") }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStatus {
    pub address: SocketAddr,
    pub up: bool,
    /// Milliseconds since the last heartbeat on this path; None for never.
    pub last_heard_ms: Option<u64>,
    /// `up` or `silent`: whether the peer's kernel answers probes here; None where it never did.
    #[serde(default)]
    pub kernel: Option<String>,
    /// Round trip between the kernels in microseconds, the last and the shortest.
    #[serde(default)]
    pub rtt_us: Option<u64>,
    #[serde(default)]
    pub rtt_min_us: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceStatus {
    pub tag: Tag,
    pub kind: String,
    /// The first one.
    pub address: IpNet,
    /// How many there are.
    pub addresses: u64,
    /// All of them in short: `10.9.0.1-10.9.255.254/16`.
    #[serde(default)]
    pub span: String,
    pub accept: Accept,
    /// Why packets are accepted in this way.
    #[serde(default)]
    pub accept_reason: String,
    /// ISP, OSU, OSF, or `starting`, `stopping`, `moving`.
    pub state: String,
    pub owner: Option<String>,
    pub epoch: Epoch,
    pub device: Option<String>,
    /// (node, priority, OSF reason)
    pub nodes: Vec<ResourceNodeStatus>,
    /// The node that an operator sent it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<ChoiceStatus>,
    /// Frames received for the address here, where this node's datapath counts them.
    pub packets: Option<u64>,
    /// Of a resource in EC2 that is in service on the node that answers, or was the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<CloudStatus>,
    /// This entry stands for several that are alike, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}

/// What the owner knows of a resource in EC2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudStatus {
    /// The owner's network interface (`eni-...`).
    pub interface: Option<String>,
    /// Where things led when EC2 last answered: a line for each route table, or one for an Elastic IP.
    pub targets: Vec<String>,
    /// Milliseconds since that answer; None: there was none yet.
    pub answered_ms: Option<u64>,
    /// What is wrong, or why nothing is known, though it stays in service.
    pub trouble: Option<String>,
    /// For how many milliseconds.
    pub trouble_ms: Option<u64>,
}

/// An operator's choice of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoiceStatus {
    pub node: String,
    /// It ends by itself at this wall time, in milliseconds since 1970; None: until it is cleared.
    pub ends: Option<u64>,
}

/// Resources that are placed, moved and fail over as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchyStatus {
    /// What it is called by.
    pub root: Tag,
    /// Parents before their children. What several depend on is there once for each of them.
    pub members: Vec<MemberStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    pub tag: Tag,
    /// How many are above it; 0 for a root.
    pub depth: usize,
    /// As of a [`ResourceStatus`].
    pub state: String,
    pub owner: Option<String>,
}

/// Resources at consecutive addresses that are alike in all that is shown; the entry is the first of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// How many, with the first.
    pub count: usize,
    pub last_tag: Tag,
    pub last_address: IpNet,
}

/// Which resources a status lists. Empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// A tag with `*` and `?`, a part of one, or an address that the resource has.
    pub pattern: Option<String>,
    pub owner: Option<String>,
    /// `ISP`, `OSU`, `OSF`, `starting`, `stopping` or `moving`.
    pub state: Option<String>,
    /// More than so many are joined to [`Run`]s.
    pub join_above: Option<usize>,
    /// At most so many entries.
    pub limit: Option<usize>,
    /// Entries to leave out before.
    pub offset: usize,
}

/// Some of the addresses of one resource or of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPage {
    /// How many there are.
    pub total: u64,
    /// How many were left out before these.
    pub offset: usize,
    pub addresses: Vec<ListedAddress>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedAddress {
    pub tag: Tag,
    pub address: IpNet,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceNodeStatus {
    pub node: String,
    pub priority: u16,
    pub state: String,
    pub reason: Option<String>,
    /// How often it failed there, also where it was mended there, since that was last forgotten.
    #[serde(default)]
    pub failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    pub name: String,
    pub up: bool,
    pub carrier: bool,
    /// native, generic or none, and why.
    pub xdp: String,
    pub addresses: Vec<IpNet>,
    /// This node's own among them, which are never moved.
    pub stationary: Vec<IpNet>,
    /// `up`, `admin-down`, `no-carrier`, `missing`, `deaf` or `unreachable`.
    pub health: LinkHealth,
    /// Why it is not up.
    pub health_reason: Option<String>,
    /// Milliseconds for which it has had this health; None outside a cluster.
    pub health_ms: Option<u64>,
    /// It came back a short while ago and is not preferred to another yet.
    pub recovering: bool,
    pub frames: u64,
    pub bytes: u64,
    pub arp: u64,
    pub nd: u64,
    pub echo_requests: u64,
    pub echo_replies: u64,
    pub last_receive_ms: Option<u64>,
}

impl InterfaceStatus {
    /// One that does not exist.
    pub fn missing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            up: false,
            carrier: false,
            xdp: "none".to_owned(),
            addresses: vec![],
            stationary: vec![],
            health: LinkHealth::Missing,
            health_reason: None,
            health_ms: None,
            recovering: false,
            frames: 0,
            bytes: 0,
            arp: 0,
            nd: 0,
            echo_requests: 0,
            echo_replies: 0,
            last_receive_ms: None,
        }
    }
}

/// A monitored subnet on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetStatus {
    pub subnet: IpNet,
    pub node: String,
    /// `up`, `down`, or `unknown` while the node is silent.
    pub state: String,
    pub reason: Option<String>,
    /// Empty: the other nodes of the cluster.
    pub targets: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceChoice {
    pub name: String,
    pub allowed: bool,
    /// Why it is the best, allowed, or not allowed.
    pub reason: String,
}

/// One line of a long operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub message: String,
}

/// One thing that happened on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Rises by one with each event of this daemon.
    pub number: u64,
    /// RFC 3339 in UTC, microseconds.
    pub time: String,
    /// CLOCK_BOOTTIME nanoseconds: for intervals between events of one host.
    pub boot_ns: u64,
    pub tag: Option<Tag>,
    pub address: Option<IpAddr>,
    pub epoch: Option<Epoch>,
    /// Stable name: `restore.announce`, `lease.expired`, `node.suspected` ...
    pub kind: String,
    pub message: String,
}

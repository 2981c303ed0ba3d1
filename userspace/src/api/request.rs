//! What vipctl asks of vipd. Names are resolved by the daemon; nodes are named, not numbered.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    AddressPage, CreateEc2Eip, CreateEc2Route, Event, InterfaceChoice, Progress, ResourceStatus, Selection,
    Status, SubnetStatus,
};
use crate::core::declare::Difference;
pub use crate::core::planner::{Explanation, NodeVerdict};
use crate::model::{Accept, Placement, Range, Resource, Score, Switchback, Tag};

/// Longest request line, in bytes, with its end: files of addresses travel in it, and who may ask was
/// looked at before.
pub const LONGEST_LINE: usize = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request")]
pub enum Request {
    Status,
    /// Answered as `Status`, with some of the resources.
    StatusOf(Selection),
    CreateIp(CreateIp),
    CreateEc2Route(CreateEc2Route),
    CreateEc2Eip(CreateEc2Eip),
    Extend {
        tag: Tag,
        to: String,
        priority: Option<u16>,
        devices: Vec<String>,
        /// Although a node cannot check it.
        #[serde(default)]
        force: bool,
    },
    /// The whole hierarchy gives up the node.
    Unextend {
        tag: Tag,
        from: String,
        /// Although a node cannot check it.
        #[serde(default)]
        force: bool,
    },
    Depend {
        parent: Tag,
        child: Tag,
        /// Although a node cannot check it.
        #[serde(default)]
        force: bool,
    },
    Undepend {
        parent: Tag,
        child: Tag,
        /// Although a node cannot check it.
        #[serde(default)]
        force: bool,
    },
    Delete {
        tag: Tag,
        /// All that depends on each other.
        #[serde(default)]
        hierarchy: bool,
        /// Although a node cannot check it.
        #[serde(default)]
        force: bool,
        /// Answer when it is gone, with progress until then; else as soon as it is decided.
        #[serde(default)]
        wait: bool,
    },
    /// Takes addresses out of a set, which stays in service.
    RemoveAddresses {
        tag: Tag,
        addresses: Vec<Given>,
        /// Answer when the owner has given them up, with progress until then; else as soon as it is decided.
        #[serde(default)]
        wait: bool,
    },
    /// The addresses of one resource or of all, in their order.
    Addresses {
        tag: Option<Tag>,
        limit: Option<usize>,
        #[serde(default)]
        offset: usize,
    },
    InService {
        tag: Tag,
        on: Option<String>,
        /// For so long the node is the operator's choice; None: until it is cleared.
        #[serde(default)]
        hold: Option<Duration>,
        /// Answer when it is in service.
        #[serde(default)]
        wait: bool,
    },
    OutOfService {
        tag: Tag,
        /// Answer when nobody holds it any more.
        #[serde(default)]
        wait: bool,
    },
    /// The operator's choice of a node ends.
    Clear {
        tag: Tag,
    },
    /// Its failures are mended.
    Cleanup {
        tag: Tag,
        node: Option<String>,
    },
    ConstraintAdd {
        /// None: made from what it says.
        id: Option<String>,
        constraint: NewConstraint,
    },
    ConstraintRemove {
        id: String,
    },
    ConstraintList,
    NodeOrder {
        node: String,
        order: NodeOrder,
        /// Answer when a node on standby holds nothing any more.
        #[serde(default)]
        wait: bool,
    },
    /// `key=value` pairs as given, for all resources that say nothing else.
    ClusterSet {
        settings: Vec<(String, String)>,
    },
    /// What would move if all of this were so at once.
    Simulate {
        suppose: Vec<Supposition>,
    },
    ConnectivityShow,
    ConnectivityAdd(ConnectivityChange),
    ConnectivityRemove {
        hosts: Vec<IpAddr>,
    },
    Show {
        tag: Tag,
    },
    /// `key=value` pairs as given: switchback, priority, devices (comma separated),
    /// restore-and-recover (enable|disable), source (enable|disable), on-conflict
    /// (report|defend|yield), accept (assign|route|anyip).
    Set {
        tag: Tag,
        node: Option<String>,
        settings: Vec<(String, String)>,
    },
    /// All subnets without one; all nodes without one.
    PingListShow {
        subnet: Option<IpNet>,
        node: Option<String>,
    },
    PingListAdd {
        subnet: IpNet,
        addresses: Vec<IpAddr>,
        node: Option<String>,
    },
    PingListRemove {
        subnet: IpNet,
        addresses: Vec<IpAddr>,
        node: Option<String>,
    },
    /// The allowed interfaces for an address, best first; all of them without an address.
    Interfaces {
        address: Option<IpNet>,
    },
    /// The present configuration, as a file.
    Export,
    Declare(Declare),
    SubnetList,
    SubnetMonitor(MonitorSubnet),
    SubnetUnmonitor {
        subnet: IpNet,
    },
    ClusterInit {
        name: String,
    },
    ClusterJoin {
        address: SocketAddr,
        token: String,
    },
    ClusterToken,
    /// Replaces the secret that all nodes share, while they run.
    ClusterRotateKey,
    /// An operator's word that this node is dead: the other of two goes on without it.
    ForceQuorum {
        dead: String,
    },
    /// This node leaves; with `drain` what it holds moves away first.
    ClusterLeave {
        drain: bool,
    },
    /// As [`Request::ClusterLeave`], of a node that cannot tell the others.
    ClusterForget,
    ClusterRemove {
        node: String,
        heir: Option<String>,
        /// The heir need not be there to check what it gets.
        force: bool,
    },
    /// This node takes its addresses from its configuration anew.
    ClusterReaddress,
    Events {
        follow: bool,
        #[serde(flatten)]
        filter: EventFilter,
    },
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventFilter {
    /// Of those that happened already, the newest so many; all without it.
    pub last: Option<usize>,
    /// Of this kind or a part of it: `restore` means `restore.announce` too.
    pub kind: Option<String>,
    pub tag: Option<Tag>,
}

/// Where addresses come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Given {
    /// `ADDRESS[/LEN]`, `NAME[/LEN]`, `FIRST-LAST[/LEN]`, or a prefix of which each host is meant.
    Argument(String),
    /// One of these a line, `#` begins a comment.
    File { name: String, text: String },
}

impl Request {
    /// Answered from what the daemon knows, without waiting for the network or for other nodes.
    pub fn is_quick(&self) -> bool {
        match self {
            Self::Status
            | Self::StatusOf(_)
            | Self::Addresses { .. }
            | Self::Show { .. }
            | Self::PingListShow { .. }
            | Self::Interfaces { .. }
            | Self::SubnetList
            | Self::ConstraintList
            | Self::ConnectivityShow
            | Self::ClusterToken => true,
            Self::CreateIp(_)
            | Self::CreateEc2Route(_)
            | Self::CreateEc2Eip(_)
            | Self::Extend { .. }
            | Self::Unextend { .. }
            | Self::Depend { .. }
            | Self::Undepend { .. }
            | Self::Clear { .. }
            | Self::Cleanup { .. }
            | Self::ConstraintAdd { .. }
            | Self::ConstraintRemove { .. }
            | Self::NodeOrder { .. }
            | Self::ClusterSet { .. }
            | Self::Simulate { .. }
            | Self::ConnectivityAdd(_)
            | Self::ConnectivityRemove { .. }
            | Self::Delete { .. }
            | Self::RemoveAddresses { .. }
            | Self::InService { .. }
            | Self::OutOfService { .. }
            | Self::Set { .. }
            | Self::PingListAdd { .. }
            | Self::PingListRemove { .. }
            | Self::Export
            | Self::Declare(_)
            | Self::SubnetMonitor(_)
            | Self::SubnetUnmonitor { .. }
            | Self::ClusterInit { .. }
            | Self::ClusterJoin { .. }
            | Self::ClusterRotateKey
            | Self::ForceQuorum { .. }
            | Self::ClusterLeave { .. }
            | Self::ClusterForget
            | Self::ClusterRemove { .. }
            | Self::ClusterReaddress
            | Self::Events { .. } => false,
        }
    }
}

/// A constraint with nodes by their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewConstraint {
    Location { tag: Tag, node: String, score: Score },
    Colocation { tag: Tag, with: Tag, score: Score },
    Order { first: Tag, then: Tag, optional: bool },
    Group { members: Vec<Tag> },
    Clone { members: Vec<Tag>, per_node: u16 },
}

/// A constraint as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConstraintOf {
    pub id: String,
    /// `location`, `colocation`, `order`, `group` or `clone`.
    pub kind: String,
    /// In words.
    pub says: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Supposition {
    Fail(String),
    Standby(String),
    LinkDown { node: String, device: String },
}

/// A resource that would be elsewhere than now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreseen {
    /// What its hierarchy is called by.
    pub hierarchy: Tag,
    pub tag: Tag,
    pub from: Option<String>,
    /// None: out of service.
    pub to: Option<String>,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeOrder {
    /// Holds nothing.
    Standby,
    /// Holds resources again, also after it gave up everything by itself.
    Online,
    /// Keeps what it has, unchecked, and gets nothing; or no longer so.
    Maintenance(bool),
}

/// What is not given stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectivityChange {
    pub hosts: Vec<IpAddr>,
    pub interval: Option<Duration>,
    pub fall: Option<u16>,
    pub rise: Option<u16>,
}

/// The hosts that every node pings, and what each node reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectivityOf {
    pub hosts: Vec<IpAddr>,
    pub interval_ms: u64,
    pub fall: u16,
    pub rise: u16,
    pub nodes: Vec<ReachOf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachOf {
    pub node: String,
    pub reached: usize,
    pub lost: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateIp {
    /// Several make one resource: a set that is granted, opened and moved as one.
    pub addresses: Vec<Given>,
    /// Prefix length or dotted netmask, for those without `/LEN`.
    pub netmask: Option<String>,
    /// Prefixes stand for each of their hosts.
    #[serde(default)]
    pub each: bool,
    /// Left out of ranges and prefixes.
    #[serde(default)]
    pub except: Vec<Range>,
    /// The resource of this tag gets the addresses; it is created if it is not there.
    #[serde(default)]
    pub group: Option<Tag>,
    /// One resource for each address.
    #[serde(default)]
    pub separate: bool,
    /// None for the rule of row IP-17.
    #[serde(default)]
    pub accept: Option<Accept>,
    pub devices: Vec<String>,
    pub tag: Option<Tag>,
    pub priority: Option<u16>,
    pub switchback: Switchback,
    /// Other nodes to extend to at once, in falling preference; `all` for all that can hold it.
    pub extend_to: Vec<String>,
    /// Although a node cannot check it.
    #[serde(default)]
    pub force: bool,
    /// Answer when it is in service.
    #[serde(default)]
    pub wait: bool,
}

/// The configuration that a file declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declare {
    /// What the file is called in messages.
    pub name: String,
    pub text: String,
    /// Delete what it does not declare.
    #[serde(default)]
    pub prune: bool,
    /// Although a node cannot check it.
    #[serde(default)]
    pub force: bool,
    pub aim: DeclareAim,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeclareAim {
    /// Check it, and tell what would be done.
    Plan,
    /// Tell what differs, also what is there and not declared, and what is wrong here.
    Verify,
    Apply {
        /// Of the plan that was shown: refused when something was changed since. None: whatever it is.
        revision: Option<u64>,
        /// Answer when everything is in service.
        #[serde(default)]
        wait: bool,
    },
}

/// What is between the cluster and what is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Of the state that was looked at.
    pub revision: u64,
    pub differences: Vec<Difference>,
    /// What goes out of service, and where it is.
    pub stops: Vec<String>,
    /// What comes in service.
    pub starts: Vec<String>,
    /// What is there and not declared, and stays.
    pub unmanaged: Vec<String>,
    /// What is wrong on the nodes.
    pub findings: Vec<String>,
    /// Of nodes that are down: what nobody looked at there.
    pub notes: Vec<String>,
}

/// What is not given stays as it is, or is the default where the subnet is new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorSubnet {
    pub subnet: IpNet,
    /// Empty: the other nodes of the cluster.
    pub targets: Option<Vec<IpAddr>>,
    pub interval: Option<Duration>,
    pub fall: Option<u16>,
    pub rise: Option<u16>,
}

/// A monitored subnet, and its state on each node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetOf {
    pub subnet: IpNet,
    /// Empty: the other nodes of the cluster.
    pub targets: Vec<IpAddr>,
    pub interval_ms: u64,
    pub fall: u16,
    pub rise: u16,
    pub needed_by: Vec<Tag>,
    pub nodes: Vec<SubnetStatus>,
}

/// Zero or more `Progress` and `Event` lines, then exactly one of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer", content = "value")]
pub enum Answer {
    Progress(Progress),
    Event(Event),
    Done { message: String },
    Status(Box<Status>),
    Shown(Box<Shown>),
    PingLists(Vec<PingListOf>),
    Interfaces(Vec<InterfaceChoice>),
    Addresses(AddressPage),
    Subnets(Vec<SubnetOf>),
    Constraints(Vec<ConstraintOf>),
    Connectivity(ConnectivityOf),
    Exported(String),
    Planned(Box<Planned>),
    Foreseen(Vec<Foreseen>),
    Token(String),
    Error(ApiError),
}

/// All about one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// With the names of nodes.
    pub status: ResourceStatus,
    pub resource: Resource,
    pub placement: Placement,
    /// Why it is where it is, and why not elsewhere, as the node that answers sees it.
    #[serde(default)]
    pub explanation: Option<Explanation>,
    /// Those that speak of its hierarchy.
    #[serde(default)]
    pub constraints: Vec<ConstraintOf>,
    /// The ping lists that its connectivity check uses, per node.
    pub ping_lists: Vec<PingListOf>,
    /// As they are on the node that answers.
    pub tunables: Vec<(String, String)>,
    /// Names of those that are not at their default.
    #[serde(default)]
    pub tuned: Vec<String>,
    /// The file that they are read from, on the node that answers.
    #[serde(default)]
    pub tunables_file: String,
    /// What is wrong in that file now, with line numbers.
    #[serde(default)]
    pub complaints: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingListOf {
    pub node: String,
    pub subnet: IpNet,
    pub addresses: Vec<IpAddr>,
    /// What an operator should know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    pub kind: ErrorKind,
    /// Names the thing, the reason and the remedy.
    pub message: String,
}

/// Decides vipctl's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// 1
    Failed,
    /// 2
    Usage,
    /// 3
    NoPermission,
    /// 4
    Refused,
    /// 5
    NoQuorum,
}

impl ApiError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }
}

impl Answer {
    /// The last line of an answer.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Progress(_) | Self::Event(_))
    }

    pub fn done(message: impl Into<String>) -> Self {
        Self::Done { message: message.into() }
    }
}

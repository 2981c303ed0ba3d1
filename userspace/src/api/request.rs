//! What vipctl asks of vipd. Names are resolved by the daemon; nodes are named, not numbered.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Event, InterfaceChoice, Progress, Status};
use crate::model::{Placement, Resource, Switchback, Tag};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "request")]
pub enum Request {
    Status,
    CreateIp(CreateIp),
    Extend {
        tag: Tag,
        to: String,
        priority: Option<u16>,
        devices: Vec<String>,
    },
    Delete {
        tag: Tag,
    },
    InService {
        tag: Tag,
        on: Option<String>,
    },
    OutOfService {
        tag: Tag,
    },
    Show {
        tag: Tag,
    },
    /// `key=value` pairs as given: switchback, priority, devices (comma separated),
    /// restore-and-recover (enable|disable).
    Set {
        tag: Tag,
        node: Option<String>,
        settings: Vec<(String, String)>,
    },
    PingListShow {
        subnet: IpNet,
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
    ClusterInit {
        name: String,
    },
    ClusterJoin {
        address: SocketAddr,
        token: String,
    },
    ClusterToken,
    Events {
        follow: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateIp {
    /// An address or a name; with `/LEN` it carries its own prefix length.
    pub address: String,
    /// Prefix length or dotted netmask.
    pub netmask: Option<String>,
    pub devices: Vec<String>,
    pub tag: Option<Tag>,
    pub priority: Option<u16>,
    pub switchback: Switchback,
    /// Other nodes to extend to at once, in falling preference.
    pub extend_to: Vec<String>,
}

/// Zero or more `Progress` and `Event` lines, then exactly one of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer", content = "value")]
pub enum Answer {
    Progress(Progress),
    Event(Event),
    Done { message: String },
    Status(Box<Status>),
    Shown { resource: Resource, placement: Placement, tunables: Vec<(String, String)> },
    PingLists(Vec<PingListOf>),
    Interfaces(Vec<InterfaceChoice>),
    Token(String),
    Error(ApiError),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingListOf {
    pub node: String,
    pub subnet: IpNet,
    pub addresses: Vec<IpAddr>,
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

//! What the cluster protects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::LazyLock,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Addresses, Cloud, Ec2Eip, Ec2Route, NodeId, Policy};

/// The number of a resource: given once by the cluster, never reused. The datapath knows its gate by it.
pub type ResourceId = u64;

/// The unique name of a resource: 1 to 64 of `A-Z a-z 0-9 . : _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tag '{0}' is not valid: use 1 to 64 of letters, digits, '.', ':', '_' and '-'")]
pub struct BadTag(String);

impl FromStr for Tag {
    type Err = BadTag;
    fn from_str(s: &str) -> Result<Self, BadTag> {
        let fits = |c: char| c.is_ascii_alphanumeric() || ".:_-".contains(c);
        if s.is_empty() || s.len() > 64 || !s.chars().all(fits) {
            return Err(BadTag(s.to_owned()));
        }
        Ok(Self(s.to_owned()))
    }
}

impl TryFrom<String> for Tag {
    type Error = BadTag;
    fn try_from(s: String) -> Result<Self, BadTag> {
        s.parse()
    }
}

impl From<Tag> for String {
    fn from(t: Tag) -> Self {
        t.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Tag {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A protected resource with its settings on each node it is extended to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    pub tag: Tag,
    /// 0 until it is created.
    pub id: ResourceId,
    pub kind: Kind,
    pub switchback: Switchback,
    pub on_conflict: OnConflict,
    /// Subnets that must be up on a node for the resource to start, and to stay, there (row NM-3).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub monitored: BTreeSet<IpNet>,
    /// What it depends on: those start before it and stop after it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub children: BTreeSet<Tag>,
    /// What depends on it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub parents: BTreeSet<Tag>,
    #[serde(default)]
    pub policy: Policy,
    pub nodes: BTreeMap<NodeId, NodeSettings>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Kind {
    Ip(IpResource),
    Ec2Route(Ec2Route),
    Ec2Eip(Ec2Eip),
}

impl Kind {
    /// As operators name it: `ip`, `ec2-route`, `ec2-eip`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ip(_) => "ip",
            Self::Ec2Route(_) => "ec2-route",
            Self::Ec2Eip(_) => "ec2-eip",
        }
    }
}

/// Addresses that are granted, opened and moved as one (row DP-8): often just one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpResource {
    pub addresses: Addresses,
    pub accept: Accept,
    /// Why in this way.
    #[serde(default)]
    pub accept_by: AcceptBy,
}

/// How the kernel is made to take packets for the addresses (row IP-17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accept {
    /// One kernel address each: what other tools see and expect. The kernel takes quadratic time for many.
    Assign,
    /// One local route each.
    Route,
    /// One local route for each prefix; the datapath alone answers ARP and neighbour discovery.
    Anyip,
}

/// Who or what decided between assign, route and anyip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcceptBy {
    /// The number of addresses of the resource.
    #[default]
    Size,
    /// A node would have too many assigned addresses.
    Limit,
    Operator,
}

/// What happens when another host claims an address that is in service here (row DP-10). It is told in
/// every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// Nothing more.
    Report,
    /// The address is announced again, at most once in an interval (RFC 5227 section 2.4 (c)).
    #[default]
    Defend,
    /// The resource fails on this node (RFC 5227 section 2.4 (a)).
    Yield,
}

impl Resource {
    /// Addresses with the usual settings, on the nodes given.
    pub fn new(
        tag: Tag,
        addresses: impl Into<Addresses>,
        nodes: impl IntoIterator<Item = (NodeId, NodeSettings)>,
    ) -> Self {
        let addresses = addresses.into();
        let (accept, accept_by) = (Accept::Assign, AcceptBy::default());
        Self::of_kind(tag, Kind::Ip(IpResource { addresses, accept, accept_by }), nodes)
    }

    /// Any resource with the usual settings, on the nodes given.
    pub fn of_kind(tag: Tag, kind: Kind, nodes: impl IntoIterator<Item = (NodeId, NodeSettings)>) -> Self {
        Self {
            tag,
            id: 0,
            kind,
            switchback: Switchback::Intelligent,
            on_conflict: OnConflict::default(),
            monitored: BTreeSet::new(),
            children: BTreeSet::new(),
            parents: BTreeSet::new(),
            policy: Policy::default(),
            nodes: nodes.into_iter().collect(),
        }
    }

    /// None for what is no IP resource.
    pub fn ip(&self) -> Option<&IpResource> {
        match &self.kind {
            Kind::Ip(ip) => Some(ip),
            Kind::Ec2Route(_) | Kind::Ec2Eip(_) => None,
        }
    }

    /// How the kernel takes packets for its addresses; without addresses the usual way.
    pub fn accept(&self) -> Accept {
        self.ip().map_or(Accept::Assign, |ip| ip.accept)
    }

    pub fn ip_mut(&mut self) -> Option<&mut IpResource> {
        match &mut self.kind {
            Kind::Ip(ip) => Some(ip),
            Kind::Ec2Route(_) | Kind::Ec2Eip(_) => None,
        }
    }

    /// None for what is no resource of EC2.
    pub fn cloud(&self) -> Option<Cloud<'_>> {
        match &self.kind {
            Kind::Ip(_) => None,
            Kind::Ec2Route(route) => Some(Cloud::Route(route)),
            Kind::Ec2Eip(eip) => Some(Cloud::Eip(eip)),
        }
    }

    /// What it puts on the network, through the kernel of its node: nothing unless it is an IP resource.
    pub fn addresses(&self) -> &Addresses {
        static NONE: LazyLock<Addresses> = LazyLock::new(Addresses::default);
        self.ip().map_or(&NONE, |ip| &ip.addresses)
    }
}

/// How a resource behaves on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSettings {
    /// 1..=999, unique in the resource, lower is better.
    pub priority: u16,
    /// The interfaces that may carry the address, best first. None for a route, which follows its IP resource.
    pub devices: Vec<String>,
    /// False: brought in service without putting the address on the network (row IP-13).
    pub restore_and_recover: bool,
    /// The address is this node's own stationary one and is never touched (row IP-5).
    pub physical: bool,
    /// While in service the subnet's route has the address as its source (row IP-12, IPv4 only).
    pub source: bool,
}

impl NodeSettings {
    /// The usual settings.
    pub fn new(priority: u16, devices: Vec<String>) -> Self {
        Self { priority, devices, restore_and_recover: true, physical: false, source: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switchback {
    /// Stays where it is until an operator moves it.
    Intelligent,
    /// Returns to a better node as soon as that one is fit.
    Automatic,
}

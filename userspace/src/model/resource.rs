//! What the cluster protects.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::NodeId;

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
    pub kind: Kind,
    pub switchback: Switchback,
    pub nodes: BTreeMap<NodeId, NodeSettings>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Kind {
    Ip(IpResource),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpResource {
    /// The address with the prefix length of its subnet, host bits kept.
    pub address: IpNet,
}

impl Resource {
    pub fn ip(&self) -> &IpResource {
        match &self.kind {
            Kind::Ip(ip) => ip,
        }
    }

    pub fn address(&self) -> IpAddr {
        self.ip().address.addr()
    }
}

/// How a resource behaves on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSettings {
    /// 1..=999, unique in the resource, lower is better.
    pub priority: u16,
    /// The interfaces that may carry the address, best first.
    pub devices: Vec<String>,
    /// False: brought in service without putting the address on the network (row IP-13).
    pub restore_and_recover: bool,
    /// The address is this node's own stationary one and is never touched (row IP-5).
    pub physical: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switchback {
    /// Stays where it is until an operator moves it.
    Intelligent,
    /// Returns to a better node as soon as that one is fit.
    Automatic,
}

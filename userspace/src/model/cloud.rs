//! Resources of Amazon EC2 (rows EC2-1 to EC2-8).

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::Tag;

/// Every route to an address of an IP resource, in every route table of the VPC, leads to the node that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ec2Route {
    /// The IP resource, on which it depends.
    pub ip: Tag,
    /// None: the one that the node itself is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// An Elastic IP is associated with an interface of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ec2Eip {
    pub address: Ipv4Addr,
    /// None: the one that the node itself is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// A resource of EC2, whichever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud<'a> {
    Route(&'a Ec2Route),
    Eip(&'a Ec2Eip),
}

impl<'a> Cloud<'a> {
    /// The IP resource that it follows; None for an Elastic IP, which is by itself.
    pub fn followed(self) -> Option<&'a Tag> {
        match self {
            Self::Route(route) => Some(&route.ip),
            Self::Eip(_) => None,
        }
    }

    pub fn region(self) -> Option<&'a str> {
        match self {
            Self::Route(route) => route.region.as_deref(),
            Self::Eip(eip) => eip.region.as_deref(),
        }
    }
}

//! What EC2 knows, as far as vipd has a use for it.

use std::{fmt, net::Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Which host this is, by its metadata service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `i-...`
    pub instance: String,
    /// `eu-central-1`
    pub region: String,
    /// `eu-central-1a`
    pub zone: String,
}

/// A network interface (ENI) of this host, by its metadata service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// `eni-...`
    pub id: String,
    /// `vpc-...`
    pub vpc: String,
    /// All IPv4 blocks of the VPC.
    pub vpc_cidrs: Vec<Ipv4Net>,
}

/// A network interface as the API describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceDetails {
    pub id: String,
    pub vpc: String,
    /// The instance that it is attached to.
    pub instance: Option<String>,
    /// Packets that are neither from nor to its own addresses are dropped.
    pub source_dest_check: bool,
    pub private_addresses: Vec<Ipv4Addr>,
}

/// A route table of a VPC with those of its routes that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTable {
    /// `rtb-...`
    pub id: String,
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: Ipv4Net,
    /// Where it leads, as the API names it: `eni-...`, `igw-...`, an instance without interface, ...; empty for none.
    pub target: String,
    /// Its target is gone or down.
    pub blackhole: bool,
}

/// An Elastic IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElasticIp {
    pub address: Ipv4Addr,
    /// `eipalloc-...`
    pub allocation: String,
    pub association: Option<Association>,
}

/// Where an Elastic IP is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// `eipassoc-...`: another one each time, so that what is undone by it is what was seen.
    pub id: String,
    /// `eni-...`
    pub interface: Option<String>,
    pub instance: Option<String>,
    pub private_address: Option<Ipv4Addr>,
}

/// What a policy (IAM) must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    DescribeRouteTables,
    ReplaceRoute,
    DescribeAddresses,
    DisassociateAddress,
    AssociateAddress,
    DescribeNetworkInterfaces,
}

impl Action {
    pub const ALL: [Self; 6] = [
        Self::DescribeRouteTables,
        Self::ReplaceRoute,
        Self::DescribeAddresses,
        Self::DisassociateAddress,
        Self::AssociateAddress,
        Self::DescribeNetworkInterfaces,
    ];
}

impl fmt::Display for Action {
    /// As a policy has it: `ec2:ReplaceRoute`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ec2:{self:?}")
    }
}

//! Orders to create resources of EC2.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::model::{Switchback, Tag};

/// Its nodes, priorities and all that holds for a hierarchy are those of the IP resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateEc2Route {
    /// The IP resource to whose addresses the routes lead.
    pub ip: Tag,
    /// None: the one that each node is in.
    pub region: Option<String>,
    pub tag: Option<Tag>,
    /// Although a node, or EC2, cannot be asked.
    #[serde(default)]
    pub force: bool,
    /// Answer when it is in service.
    #[serde(default)]
    pub wait: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateEc2Eip {
    pub address: Ipv4Addr,
    /// Of this node, the best first; elsewhere those of the same names.
    pub devices: Vec<String>,
    /// None: the one that each node is in.
    pub region: Option<String>,
    pub tag: Option<Tag>,
    pub priority: Option<u16>,
    pub switchback: Switchback,
    /// Other nodes to extend to at once, in falling preference; `all` for all that can hold it.
    pub extend_to: Vec<String>,
    /// Although a node, or EC2, cannot be asked.
    #[serde(default)]
    pub force: bool,
    /// Answer when it is in service.
    #[serde(default)]
    pub wait: bool,
}

//! The configuration as operators declare it in a file (row CL-12): what they set, without what the cluster
//! decides by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    Accept, Addresses, Connectivity, Constraint, ConstraintId, Defaults, MonitoredSubnet, NodeId,
    NodeSettings, OnConflict, Policy, Switchback, Tag,
};

/// What is None is not spoken of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    pub defaults: Option<Defaults>,
    pub connectivity: Option<Connectivity>,
    /// Host bits zero.
    pub subnets: BTreeMap<IpNet, MonitoredSubnet>,
    /// Per node and subnet (host bits zero). An empty list: the node has none.
    pub ping_lists: BTreeMap<(NodeId, IpNet), Vec<IpAddr>>,
    pub resources: BTreeMap<Tag, DeclaredResource>,
    pub constraints: BTreeMap<ConstraintId, Constraint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredResource {
    pub addresses: Addresses,
    /// None: by the rule of row IP-17.
    pub accept: Option<Accept>,
    /// None: as it is, or in service where it is new.
    pub in_service: Option<bool>,
    pub switchback: Switchback,
    pub on_conflict: OnConflict,
    pub monitored: BTreeSet<IpNet>,
    /// What it depends on. None: what groups say.
    pub depends: Option<BTreeSet<Tag>>,
    pub policy: Policy,
    pub nodes: BTreeMap<NodeId, NodeSettings>,
}

impl Declared {
    /// What members of groups depend on by being members.
    pub fn by_groups(&self, tag: &Tag) -> BTreeSet<Tag> {
        let groups = self.constraints.values().filter_map(|c| match c {
            Constraint::Group { members } => Some(members),
            Constraint::Location { .. }
            | Constraint::Colocation { .. }
            | Constraint::Order { .. }
            | Constraint::Clone { .. } => None,
        });
        let below = |members: &Vec<Tag>| {
            let pairs = members.windows(2).filter_map(|pair| match pair {
                [child, parent] if parent == tag => Some(child.clone()),
                _ => None,
            });
            pairs.collect::<Vec<_>>()
        };
        groups.flat_map(below).collect()
    }

    /// What the resource depends on, by itself or by groups.
    pub fn children(&self, tag: &Tag) -> BTreeSet<Tag> {
        match self.resources.get(tag).and_then(|r| r.depends.clone()) {
            Some(depends) => depends,
            None => self.by_groups(tag),
        }
    }
}

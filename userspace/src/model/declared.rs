//! The configuration as operators declare it in a file (row CL-12): what they set, without what the cluster
//! decides by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    Accept, Addresses, Cloud, Connectivity, Constraint, ConstraintId, Defaults, Ec2Eip, Ec2Route, Kind,
    MonitoredSubnet, NodeId, NodeSettings, OnConflict, Policy, Switchback, Tag,
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
    /// None: an IP resource.
    pub cloud: Option<DeclaredCloud>,
    /// None at all for a resource of EC2.
    pub addresses: Addresses,
    /// None: by the rule of row IP-17, or no IP resource.
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

/// A resource of EC2, whichever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeclaredCloud {
    Route(Ec2Route),
    Eip(Ec2Eip),
}

impl DeclaredCloud {
    /// None for an IP resource.
    pub fn of(kind: &Kind) -> Option<Self> {
        match kind {
            Kind::Ip(_) => None,
            Kind::Ec2Route(route) => Some(Self::Route(route.clone())),
            Kind::Ec2Eip(eip) => Some(Self::Eip(eip.clone())),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Route(route) => Kind::Ec2Route(route.clone()),
            Self::Eip(eip) => Kind::Ec2Eip(eip.clone()),
        }
    }

    pub fn cloud(&self) -> Cloud<'_> {
        match self {
            Self::Route(route) => Cloud::Route(route),
            Self::Eip(eip) => Cloud::Eip(eip),
        }
    }
}

impl DeclaredResource {
    /// The IP resource that a route leads to.
    pub fn followed(&self) -> Option<&Tag> {
        self.cloud.as_ref().and_then(|c| c.cloud().followed())
    }
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

    /// What the resource depends on by what it is, or by groups.
    pub fn implied(&self, tag: &Tag) -> BTreeSet<Tag> {
        let followed = self.resources.get(tag).and_then(DeclaredResource::followed);
        self.by_groups(tag).into_iter().chain(followed.cloned()).collect()
    }

    /// What the resource depends on, by itself, by groups, or by what it is.
    pub fn children(&self, tag: &Tag) -> BTreeSet<Tag> {
        let Some(resource) = self.resources.get(tag) else { return self.by_groups(tag) };
        match &resource.depends {
            Some(depends) => depends.iter().chain(resource.followed()).cloned().collect(),
            None => self.implied(tag),
        }
    }
}

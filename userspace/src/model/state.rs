//! The whole replicated state: small, changed only by [`crate::core::change`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    Connectivity, Constraint, ConstraintId, Defaults, Epoch, KeyState, Map, MonitoredSubnet, Node, NodeId,
    Placement, Ranges, Resource, ResourceId, Standing, SubnetDown, Tag, TwoNodes,
};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    pub name: String,
    pub nodes: BTreeMap<NodeId, Node>,
    /// The highest node number ever given.
    pub last_node: NodeId,
    /// The highest resource number ever given.
    #[serde(default)]
    pub last_resource: ResourceId,
    /// The highest epoch of any resource that was deleted: a new one under the same tag begins above it, so
    /// that nothing said of the old one can be taken for the new one's.
    #[serde(default)]
    pub spent_epoch: Epoch,
    pub resources: Map<Tag, Resource>,
    /// One per resource, same keys.
    pub placements: Map<Tag, Placement>,
    /// Per node and subnet (host bits zero): addresses to ping.
    #[serde(with = "ping_lists")]
    pub ping_lists: BTreeMap<(NodeId, IpNet), Vec<IpAddr>>,
    /// Watched by every node that may hold addresses (host bits zero).
    #[serde(default)]
    pub subnets: BTreeMap<IpNet, MonitoredSubnet>,
    /// Monitored subnets that a node says are down there, with the reason. All others are up.
    #[serde(default)]
    pub subnets_down: BTreeMap<NodeId, BTreeMap<IpNet, SubnetDown>>,
    #[serde(default)]
    pub defaults: Defaults,
    #[serde(default)]
    pub constraints: BTreeMap<ConstraintId, Constraint>,
    /// Hosts that every node pings (row CL-8).
    #[serde(default)]
    pub connectivity: Connectivity,
    /// Those of them that a node says it does not reach. All others are reached.
    #[serde(default)]
    pub unreached: BTreeMap<NodeId, BTreeSet<IpAddr>>,
    /// How often operators changed anything: a plan made from an older state is refused.
    #[serde(default)]
    pub revision: u64,
    /// Which cluster key is in use.
    #[serde(default)]
    pub key: KeyState,
}

impl ClusterState {
    pub fn node_named(&self, name: &str) -> Option<&Node> {
        self.nodes.values().find(|n| n.name == name)
    }

    /// The node was part of the cluster and is not any more. Numbers are never given again, so that stays true; and
    /// it is never said of a node that this state does not know yet, nor of one that has no number.
    pub fn was_removed(&self, id: NodeId) -> bool {
        (1..=self.last_node).contains(&id) && !self.nodes.contains_key(&id)
    }

    /// The resource, if any, that has one of these addresses.
    pub fn resource_with(&self, hosts: &Ranges) -> Option<&Resource> {
        self.resources.values().find(|r| !r.addresses().hosts().intersection(hosts).is_empty())
    }

    /// Why a monitored subnet is down on a node; None where it is up.
    pub fn subnet_down(&self, node: NodeId, subnet: &IpNet) -> Option<&SubnetDown> {
        self.subnets_down.get(&node)?.get(subnet)
    }

    /// The subnets that the resource needs and that are down on the node, and why.
    pub fn lacking_subnets<'a>(
        &'a self,
        resource: &'a Resource,
        node: NodeId,
    ) -> impl Iterator<Item = (&'a IpNet, &'a SubnetDown)> {
        resource.monitored.iter().filter_map(move |subnet| Some((subnet, self.subnet_down(node, subnet)?)))
    }

    /// How many of the connectivity hosts the node reaches.
    pub fn reached_by(&self, node: NodeId) -> usize {
        let lost = self.unreached.get(&node);
        self.connectivity.hosts.iter().filter(|h| lost.is_none_or(|l| !l.contains(*h))).count()
    }

    /// The resource is neither checked nor moved while it is on that node.
    pub fn in_maintenance(&self, resource: &Resource, node: Option<NodeId>) -> bool {
        let on = node.and_then(|id| self.nodes.get(&id));
        self.defaults.maintenance || resource.policy.maintenance || on.is_some_and(|n| n.maintenance)
    }

    /// Whether its nodes may be told to hold their leases alone: two of them, no third on its way, and the policy
    /// says so.
    pub fn freezes(&self) -> bool {
        self.defaults.two_nodes == TwoNodes::Freeze
            && self.nodes.len() == 2
            && self.nodes.values().all(|n| n.standing != Standing::Joining)
    }

    /// Whether the one of its nodes that loses the other may go on without it by itself: two of them, no third on its
    /// way, and the policy says so.
    pub fn breaks_ties(&self) -> bool {
        self.defaults.two_nodes == TwoNodes::TieBreaker
            && self.nodes.len() == 2
            && self.nodes.values().all(|n| n.standing != Standing::Joining)
    }

    /// Whether a broadcast ping tells anything. Of two nodes only the other one is known to answer: its loss would
    /// take the address off the node that is to keep it.
    pub fn expects_broadcast_answers(&self) -> bool {
        !self.freezes() && !self.breaks_ties() && !self.nodes.values().any(|n| n.declared_dead)
    }

    /// The node's name, or its number when it is unknown.
    pub fn node_name(&self, id: NodeId) -> String {
        self.nodes.get(&id).map_or_else(|| format!("#{id}"), |n| n.name.clone())
    }
}

/// JSON has no tuple keys: a list of triples instead.
mod ping_lists {
    use super::{BTreeMap, IpAddr, IpNet, NodeId};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Lists = BTreeMap<(NodeId, IpNet), Vec<IpAddr>>;

    pub fn serialize<S: Serializer>(lists: &Lists, s: S) -> Result<S::Ok, S::Error> {
        lists.iter().map(|((n, net), a)| (n, net, a)).collect::<Vec<_>>().serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Lists, D::Error> {
        let rows = Vec::<(NodeId, IpNet, Vec<IpAddr>)>::deserialize(d)?;
        Ok(rows.into_iter().map(|(n, net, a)| ((n, net), a)).collect())
    }
}

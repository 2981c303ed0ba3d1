//! What the nodes check on themselves before a change is made (row CL-6): from a state and the one that a change
//! would lead to, what is to be asked of whom; from what they answer, who else uses an address.
//!
//! A node is asked about what would be new for it: a resource that it may get, other interfaces, more addresses, a
//! dependency. It is also asked before the cluster forgets something there, of which a removal may have left a part.

pub mod cloud;
mod conflicts;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use self::cloud::{CloudArrival, CloudFound};
pub use self::conflicts::{Conflict, Who, conflicts, unknown_probers};
use crate::model::{
    Accept, AcceptBy, Addresses, ClusterState, NodeId, NodeSettings, Phase, Ranges, Resource, Standing, Tag,
};

/// A link-layer address.
pub type Mac = [u8; 6];

/// Larger sets are looked for on the network by one node only: every probe is heard by all the others.
const PROBED_BY_ALL: u64 = 1024;

/// What one node is to look at on itself. Nothing of it: it only tells its link-layer addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inquiry {
    pub arrivals: Vec<Arrival>,
    /// What it might have to do at EC2.
    #[serde(default)]
    pub clouds: Vec<CloudArrival>,
    /// What the cluster is about to forget on that node.
    pub departures: Vec<Tag>,
    /// Parents that are about to depend on a child no longer.
    pub separations: Vec<Tag>,
}

/// What the node might have to bring in service then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    pub tag: Tag,
    pub addresses: Addresses,
    /// The first carries the addresses, the others stand by.
    pub devices: Vec<String>,
    pub accept: Accept,
    pub accept_by: AcceptBy,
    /// The addresses are the node's own.
    pub physical: bool,
    /// Those that nobody may be using on the network: no resource had them so far.
    pub new: Ranges,
}

/// What a node found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    pub objections: Vec<Objection>,
    /// What could not be looked at, because somebody did not answer: no objection when that is accepted.
    #[serde(default)]
    pub unchecked: Vec<Objection>,
    /// What is to be told, and speaks against nothing.
    #[serde(default)]
    pub warnings: Vec<Objection>,
    /// Where it is in EC2.
    #[serde(default)]
    pub clouds: Vec<CloudFound>,
    /// Who uses new addresses already.
    pub claims: Vec<Claim>,
    /// The node's own, so that its probes are not taken for a stranger's.
    pub macs: Vec<Mac>,
}

/// Why a node cannot have it so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objection {
    /// A resource, or what of the node is wrong.
    pub about: String,
    /// With the remedy.
    pub reason: String,
}

/// Somebody was met on the network who uses, or is about to use, an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    pub address: IpAddr,
    /// The interface by which he was met.
    pub device: String,
    pub by: Claimant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claimant {
    /// He has it.
    Holder(Mac),
    /// He looks whether somebody has it, as we do.
    Prober(Mac),
    /// Whoever answered a ping.
    Pinged,
}

impl Inquiry {
    /// Nothing new is asked of the node: it may be down for all that.
    pub fn is_farewell(&self) -> bool {
        self.arrivals.is_empty() && self.clouds.is_empty()
    }

    /// How many addresses are to be looked for on the network.
    pub fn probes(&self) -> u64 {
        self.arrivals.iter().map(|a| a.new.count()).sum()
    }

    /// What it is about, for people.
    pub fn subjects(&self) -> BTreeSet<&Tag> {
        let arrivals = self.arrivals.iter().map(|a| &a.tag);
        let arrivals = arrivals.chain(self.clouds.iter().map(|c| &c.tag));
        arrivals.chain(&self.departures).chain(&self.separations).collect()
    }
}

/// What is to be asked of each node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inquiries {
    by_node: BTreeMap<NodeId, Inquiry>,
    /// Arrivals that were noted, so that each is asked once.
    noted: BTreeSet<(NodeId, Tag)>,
}

impl Inquiries {
    /// For a change from one state to the other, asked by the node `me`.
    pub fn of_change(before: &ClusterState, after: &ClusterState, me: NodeId) -> Self {
        let mut all = Self::default();
        let mut changed: BTreeSet<Tag> = after.resources.changed_since(&before.resources);
        changed.extend(after.placements.changed_since(&before.placements));
        // Addresses may go from one of these to another.
        let former = changed.iter().filter_map(|tag| before.resources.get(tag));
        let taken = former.fold(Ranges::default(), |all, r| all.union(&r.addresses().hosts()));
        for tag in &changed {
            match (before.resources.get(tag), after.resources.get(tag)) {
                (_, Some(now)) if is_deleted(before, after, tag) => {
                    all.forget(now, now.nodes.keys().copied())
                }
                (Some(was), None) => all.forget(was, was.nodes.keys().copied()),
                (was, Some(now)) => all.compare(was, now, &taken, me, after),
                (None, None) => {}
            }
        }
        all
    }

    /// For all that a resource needs on its nodes, whatever it was before; `state` has what it follows.
    pub fn whole(&mut self, resource: &Resource, new: &Ranges, me: NodeId, state: &ClusterState) {
        for (node, settings) in &resource.nodes {
            let new = if probes(resource, new, *node, me) { new.clone() } else { Ranges::default() };
            self.arrive(*node, settings, resource, new, state);
        }
    }

    /// What is asked of that node alone.
    pub fn only(mut self, node: NodeId) -> Self {
        self.by_node.retain(|id, _| *id == node);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    pub fn of(&self, node: NodeId) -> Option<&Inquiry> {
        self.by_node.get(&node)
    }

    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Inquiry)> {
        self.by_node.iter().map(|(node, inquiry)| (*node, inquiry))
    }

    fn compare(
        &mut self,
        was: Option<&Resource>,
        now: &Resource,
        taken: &Ranges,
        me: NodeId,
        after: &ClusterState,
    ) {
        let had = was.map(|r| r.addresses().hosts()).unwrap_or_default();
        let hosts = now.addresses().hosts();
        let gained = !hosts.difference(&had).is_empty();
        let new = hosts.difference(taken);
        let accepts = was.is_some_and(|r| r.accept() == now.accept());
        for (node, settings) in &now.nodes {
            let same = was.and_then(|r| r.nodes.get(node)).is_some_and(|s| is_alike(s, settings));
            if same && !gained && accepts {
                continue;
            }
            let new = if probes(now, &new, *node, me) { new.clone() } else { Ranges::default() };
            self.arrive(*node, settings, now, new, after);
            if !same || gained {
                self.follow(*node, now, after);
            }
        }
        self.beside_a_new_node(was, now, me, after);
        let none = BTreeSet::new();
        let children = was.map_or(&none, |r| &r.children);
        for child in now.children.difference(children) {
            let both = after.resources.get(child).into_iter().chain([now]);
            for resource in both {
                for (node, settings) in &resource.nodes {
                    self.arrive(*node, settings, resource, Ranges::default(), after);
                }
            }
        }
        let Some(was) = was else { return };
        self.forget(was, was.nodes.keys().copied().filter(|n| !now.nodes.contains_key(n)));
        if !children.is_subset(&now.children) {
            for node in now.nodes.keys() {
                self.by_node.entry(*node).or_default().separations.push(now.tag.clone());
            }
        }
    }

    /// Routes follow their IP resource to its interfaces, and have to be there for all of its addresses.
    fn follow(&mut self, node: NodeId, ip: &Resource, after: &ClusterState) {
        for route in cloud::followers(ip, after) {
            if let Some(settings) = route.nodes.get(&node) {
                self.arrive(node, settings, route, Ranges::default(), after);
            }
        }
    }

    /// Where a node is in EC2 is compared with where another one is.
    fn beside_a_new_node(
        &mut self,
        was: Option<&Resource>,
        now: &Resource,
        me: NodeId,
        after: &ClusterState,
    ) {
        let is_new = |node: &NodeId| was.is_some_and(|was| !was.nodes.contains_key(node));
        if now.cloud().is_some()
            && now.nodes.keys().any(is_new)
            && let Some(settings) = now.nodes.get(&me)
        {
            self.arrive(me, settings, now, Ranges::default(), after);
        }
    }

    /// What is said later of the same resource there counts only as far as it adds addresses.
    fn arrive(
        &mut self,
        node: NodeId,
        settings: &NodeSettings,
        resource: &Resource,
        new: Ranges,
        after: &ClusterState,
    ) {
        let inquiry = self.by_node.entry(node).or_default();
        if !self.noted.insert((node, resource.tag.clone())) {
            if let Some(known) = inquiry.arrivals.iter_mut().find(|a| a.tag == resource.tag) {
                known.new = known.new.union(&new);
            }
            return;
        }
        let Some(ip) = resource.ip() else {
            inquiry.clouds.extend(CloudArrival::of(resource, node, after));
            return;
        };
        inquiry.arrivals.push(Arrival {
            tag: resource.tag.clone(),
            addresses: ip.addresses.clone(),
            devices: settings.devices.clone(),
            accept: ip.accept,
            accept_by: ip.accept_by,
            physical: settings.physical,
            new: if settings.physical { Ranges::default() } else { new },
        });
    }

    fn forget(&mut self, resource: &Resource, nodes: impl Iterator<Item = NodeId>) {
        for node in nodes {
            self.by_node.entry(node).or_default().departures.push(resource.tag.clone());
        }
    }
}

/// What a node would bring in service is the same.
fn is_alike(a: &NodeSettings, b: &NodeSettings) -> bool {
    a.devices == b.devices && a.physical == b.physical
}

/// Whether this node looks for the new addresses on the network.
fn probes(resource: &Resource, new: &Ranges, node: NodeId, me: NodeId) -> bool {
    if new.count() <= PROBED_BY_ALL {
        return true;
    }
    let best = || resource.nodes.iter().min_by_key(|(_, s)| s.priority).map(|(id, _)| *id);
    let one = Some(me).filter(|me| resource.nodes.contains_key(me)).or_else(best);
    one == Some(node)
}

fn is_deleted(before: &ClusterState, after: &ClusterState, tag: &Tag) -> bool {
    let deleting = |state: &ClusterState| state.placements.get(tag).is_some_and(|p| p.deleting);
    deleting(after) && !deleting(before)
}

/// In service, or at least granted, on that node.
pub fn is_granted(state: &ClusterState, tag: &Tag, node: NodeId) -> bool {
    state.placements.get(tag).and_then(|p| p.grant).is_some_and(|g| g.owner == node)
}

/// In service there, and neither starting nor stopping.
pub fn is_settled(state: &ClusterState, tag: &Tag, node: NodeId) -> bool {
    let grant = state.placements.get(tag).and_then(|p| p.grant);
    grant.is_some_and(|g| g.owner == node && g.phase == Phase::InService)
}

/// Not trusted at the moment: it lost its lease, and has not said that it has stopped everything.
pub fn is_deposed(state: &ClusterState, node: NodeId) -> bool {
    state.nodes.get(&node).is_some_and(|n| n.standing == Standing::Deposed)
}

#[cfg(test)]
mod tests;

//! How a resource accepts packets, where the operator does not say (row IP-17): the kernel takes quadratic
//! time to assign many addresses, and no default may lead there.

use std::collections::BTreeMap;

use crate::model::{Accept, AcceptBy, Addresses, ClusterState, NodeId};

/// Largest set that is assigned.
pub const SET: u64 = 64;

/// Assigned virtual addresses of a node, measured: IPv4 1,000 take the kernel 17 ms and 10,000 take 1.6 s;
/// IPv6 1,000 take 0.6 s and 10,000 take 58 s.
pub const NODE: Families = Families { v4: 1000, v6: 256 };

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    pub v4: u64,
    pub v6: u64,
}

impl Families {
    fn of(addresses: &Addresses) -> Self {
        let mut all = Self::default();
        for (subnet, hosts) in addresses.by_subnet() {
            let count = if subnet.addr().is_ipv4() { &mut all.v4 } else { &mut all.v6 };
            *count = count.saturating_add(hosts.count());
        }
        all
    }

    fn plus(self, other: Self) -> Self {
        Self { v4: self.v4.saturating_add(other.v4), v6: self.v6.saturating_add(other.v6) }
    }

    /// Only of the families that there are.
    fn fits(self, new: Self) -> bool {
        let all = self.plus(new);
        (new.v4 == 0 || all.v4 <= NODE.v4) && (new.v6 == 0 || all.v6 <= NODE.v6)
    }
}

/// How many addresses each node has to assign when all that may be there is there.
pub struct Budget(BTreeMap<NodeId, Families>);

impl Budget {
    pub fn new(state: &ClusterState) -> Self {
        let mut budget = Self(BTreeMap::new());
        for resource in state.resources.values() {
            if resource.accept() == Accept::Assign {
                let nodes = resource.nodes.iter().filter(|(_, s)| !s.physical).map(|(id, _)| *id);
                budget.take(resource.addresses(), nodes);
            }
        }
        budget
    }

    fn take(&mut self, addresses: &Addresses, nodes: impl Iterator<Item = NodeId>) {
        let new = Families::of(addresses);
        for node in nodes {
            let used = self.0.entry(node).or_default();
            *used = used.plus(new);
        }
    }

    /// The default for addresses on these nodes; what is assigned counts for those to come.
    pub fn choose(
        &mut self,
        addresses: &Addresses,
        nodes: impl Iterator<Item = NodeId> + Clone,
    ) -> (Accept, AcceptBy) {
        let many = if addresses.is_single() { Accept::Route } else { Accept::Anyip };
        if addresses.count() > SET {
            return (many, AcceptBy::Size);
        }
        let new = Families::of(addresses);
        if nodes.clone().all(|n| self.0.get(&n).copied().unwrap_or_default().fits(new)) {
            self.take(addresses, nodes);
            return (Accept::Assign, AcceptBy::Size);
        }
        (many, AcceptBy::Limit)
    }
}

/// The rule where no node has too many.
pub fn by_size(addresses: &Addresses) -> Accept {
    if addresses.count() > SET { Accept::Anyip } else { Accept::Assign }
}

/// Whether the kernel assigns them without delay.
pub fn is_quick(addresses: &Addresses) -> bool {
    Families::default().fits(Families::of(addresses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeSettings, Resource, Tag};

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn set(text: &str) -> Addresses {
        let (range, length) = text.split_once('/').unwrap();
        let range: crate::model::Range = range.parse().unwrap();
        let subnet = crate::model::with_length(range.first(), length.parse().unwrap()).unwrap();
        [(subnet, range)].into_iter().collect()
    }

    fn with(existing: &[(&str, &str, &[NodeId])]) -> Budget {
        let mut state = ClusterState::default();
        for (name, addresses, nodes) in existing {
            let settings = nodes.iter().map(|n| (*n, NodeSettings::new(*n as u16, vec!["eth0".into()])));
            state.resources.insert(tag(name), Resource::new(tag(name), set(addresses), settings));
        }
        Budget::new(&state)
    }

    #[test]
    fn small_sets_are_assigned_and_large_ones_taken_by_prefix() {
        let mut budget = with(&[]);
        let mut choose = |text: &str| budget.choose(&set(text), [1, 2].into_iter());
        assert_eq!(choose("10.0.0.9-10.0.0.9/24"), (Accept::Assign, AcceptBy::Size));
        assert_eq!(choose("10.1.0.1-10.1.0.64/24"), (Accept::Assign, AcceptBy::Size));
        assert_eq!(choose("10.2.0.1-10.2.0.65/24"), (Accept::Anyip, AcceptBy::Size));
        assert_eq!(choose("fd00::1-fd00::ffff/64"), (Accept::Anyip, AcceptBy::Size));
    }

    #[test]
    fn no_node_gets_more_assigned_addresses_than_are_quick() {
        let mut budget = with(&[("many", "10.3.0.1-10.3.3.231/16", &[2])]); // 999
        let one = |n: u8| set(&format!("10.0.0.{n}-10.0.0.{n}/24"));
        assert_eq!(budget.choose(&one(1), [1, 2].into_iter()), (Accept::Assign, AcceptBy::Size));
        assert_eq!(budget.choose(&one(2), [1, 2].into_iter()), (Accept::Route, AcceptBy::Limit));
        assert_eq!(budget.choose(&one(3), [1].into_iter()), (Accept::Assign, AcceptBy::Size), "another node");
        let few = set("10.1.0.1-10.1.0.2/24");
        assert_eq!(budget.choose(&few, [2].into_iter()), (Accept::Anyip, AcceptBy::Limit));
        let six = set("fd00::1-fd00::1/64");
        assert_eq!(budget.choose(&six, [2].into_iter()), (Accept::Assign, AcceptBy::Size), "another family");
    }

    #[test]
    fn ipv6_has_a_limit_of_its_own() {
        let mut budget = with(&[("six", "fd00::1-fd00::100/64", &[1])]); // 256
        assert_eq!(budget.choose(&set("fd00:1::1-fd00:1::1/64"), [1].into_iter()).0, Accept::Route);
        assert_eq!(budget.choose(&set("10.0.0.1-10.0.0.1/24"), [1].into_iter()).0, Accept::Assign);
    }
}

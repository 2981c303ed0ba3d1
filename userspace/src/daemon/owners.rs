//! Whose an address is, found quickly among many.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::model::{Addresses, ClusterState, Tag};

/// Addresses of resources, which have none in common (the cluster sees to that).
#[derive(Default)]
pub struct Owners {
    /// By the first address of a range: the last one, and whose it is.
    ranges: BTreeMap<IpAddr, (IpAddr, Tag)>,
    of: BTreeMap<Tag, Arc<Addresses>>,
}

impl Owners {
    /// Of all resources of the cluster.
    pub fn of(state: &ClusterState) -> Self {
        let mut owners = Self::default();
        for (tag, resource) in &state.resources {
            owners.insert(tag, resource.addresses());
        }
        owners
    }

    fn insert(&mut self, tag: &Tag, addresses: &Addresses) {
        for range in addresses.by_subnet().flat_map(|(_, hosts)| hosts.ranges()) {
            self.ranges.insert(range.first(), (range.last(), tag.clone()));
        }
    }

    /// From now on these are the resource's.
    pub fn set(&mut self, tag: &Tag, addresses: Option<&Arc<Addresses>>) {
        let known = self.of.get(tag);
        if known.zip(addresses).is_some_and(|(a, b)| Arc::ptr_eq(a, b)) {
            return;
        }
        if let Some(former) = self.of.remove(tag) {
            for range in former.by_subnet().flat_map(|(_, hosts)| hosts.ranges()) {
                if self.ranges.get(&range.first()).is_some_and(|(_, t)| t == tag) {
                    self.ranges.remove(&range.first());
                }
            }
        }
        if let Some(addresses) = addresses {
            self.insert(tag, addresses);
            self.of.insert(tag.clone(), addresses.clone());
        }
    }

    pub fn find(&self, address: IpAddr) -> Option<&Tag> {
        let (_, (last, tag)) = self.ranges.range(..=address).next_back()?;
        (address <= *last).then_some(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn addresses(net: &str, range: &str) -> Arc<Addresses> {
        let mut all = Addresses::default();
        all.insert(net.parse().unwrap(), range.parse().unwrap());
        Arc::new(all)
    }

    #[test]
    fn an_address_has_one_owner_at_a_time() {
        let mut owners = Owners::default();
        owners.set(&tag("a"), Some(&addresses("10.0.0.0/24", "10.0.0.5-10.0.0.9")));
        owners.set(&tag("six"), Some(&addresses("fd00::/64", "fd00::5-fd00::9")));
        let of = |owners: &Owners, text: &str| owners.find(text.parse().unwrap()).map(Tag::to_string);
        assert_eq!(of(&owners, "10.0.0.5").as_deref(), Some("a"));
        assert_eq!(of(&owners, "10.0.0.9").as_deref(), Some("a"));
        assert_eq!(of(&owners, "10.0.0.4"), None);
        assert_eq!(of(&owners, "10.0.0.10"), None);
        assert_eq!(of(&owners, "fd00::7").as_deref(), Some("six"));
        owners.set(&tag("a"), Some(&addresses("10.0.0.0/24", "10.0.0.7")));
        assert_eq!(of(&owners, "10.0.0.5"), None);
        assert_eq!(of(&owners, "10.0.0.7").as_deref(), Some("a"));
        owners.set(&tag("a"), None);
        assert_eq!(of(&owners, "10.0.0.7"), None);
    }
}

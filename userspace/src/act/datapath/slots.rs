//! Which gate belongs to which resource, and which activity slot to which address.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use datapath_common::{Address, Gate, Vip};

use crate::model::{Ranges, ResourceId};

/// The key of an address in the maps.
pub(super) fn key(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => Address::v4(v4.octets()),
        IpAddr::V6(v6) => Address::v6(v6.octets()),
    }
}

/// The address of a key.
pub(super) fn address(key: Address) -> IpAddr {
    IpAddr::from(key.0).to_canonical()
}

/// Numbers from 0 on that nobody has; the lowest is handed out first.
#[derive(Debug)]
struct Numbers(Vec<u32>);

impl Numbers {
    fn new(capacity: u32, taken: impl Iterator<Item = u32>) -> Self {
        let mut free = vec![true; capacity as usize];
        for number in taken {
            if let Some(free) = free.get_mut(number as usize) {
                *free = false;
            }
        }
        Self((0..capacity).rev().filter(|n| free[*n as usize]).collect())
    }
}

/// What is programmed for one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) gate: u32,
    pub(super) addresses: Ranges,
}

/// What the maps hold, and which numbers are free. Rebuilt from the maps at start.
#[derive(Debug)]
pub(super) struct Slots {
    vips: HashMap<IpAddr, (Vip, ResourceId)>,
    groups: BTreeMap<ResourceId, Group>,
    slots: Numbers,
    gates: Numbers,
    capacity: u32,
}

impl Slots {
    /// `held` are the entries found in `VIPS`, `gate` reads one of `GATES`.
    pub(super) fn new<E>(
        capacity: u32,
        held: impl IntoIterator<Item = (Address, Vip)>,
        gate: impl Fn(u32) -> Result<Gate, E>,
    ) -> Result<Self, E> {
        let mut vips = HashMap::new();
        let mut members = BTreeMap::<(ResourceId, u32), Vec<IpAddr>>::new();
        for (key, vip) in held {
            let group = gate(vip.gate)?.group;
            vips.insert(address(key), (vip, group));
            members.entry((group, vip.gate)).or_default().push(address(key));
        }
        let slots = Numbers::new(capacity, vips.values().map(|(vip, _)| vip.slot));
        let gates = Numbers::new(capacity, vips.values().map(|(vip, _)| vip.gate));
        let groups = members.into_iter().map(|((group, gate), addresses)| {
            (group, Group { gate, addresses: addresses.into_iter().collect() })
        });
        Ok(Self { vips, groups: groups.collect(), slots, gates, capacity })
    }

    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(super) fn free(&self) -> u64 {
        self.slots.0.len() as u64
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (ResourceId, &Group)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    pub(super) fn group(&self, id: ResourceId) -> Option<&Group> {
        self.groups.get(&id)
    }

    pub(super) fn vip(&self, address: IpAddr) -> Option<(Vip, ResourceId)> {
        self.vips.get(&address).copied()
    }

    /// The gate of the resource, a free one when it has none.
    pub(super) fn gate(&self, id: ResourceId) -> Option<u32> {
        self.groups.get(&id).map(|g| g.gate).or_else(|| self.gates.0.last().copied())
    }

    /// A slot that no address has. It is free again if it is not inserted.
    pub(super) fn next_slot(&self) -> Option<u32> {
        self.slots.0.last().copied()
    }

    pub(super) fn insert(&mut self, id: ResourceId, address: IpAddr, vip: Vip) {
        if self.slots.0.last() == Some(&vip.slot) {
            self.slots.0.pop();
        }
        if self.gates.0.last() == Some(&vip.gate) {
            self.gates.0.pop();
        }
        self.vips.insert(address, (vip, id));
        let group = self.groups.entry(id).or_insert_with(|| Group { gate: vip.gate, ..Group::default() });
        group.addresses.insert(address.into());
    }

    /// The gate that is free with the last address of its resource.
    pub(super) fn remove(&mut self, id: ResourceId, address: IpAddr) -> Option<u32> {
        let (vip, _) = self.vips.remove(&address)?;
        self.slots.0.push(vip.slot);
        let group = self.groups.get_mut(&id)?;
        group.addresses = group.addresses.difference(&[address].into_iter().collect());
        if !group.addresses.is_empty() {
            return None;
        }
        self.groups.remove(&id);
        self.gates.0.push(vip.gate);
        Some(vip.gate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rebuilt_from_what_is_held() {
        let [a, b, c] = ["10.0.0.1", "10.0.0.2", "fd00::1"].map(|t| t.parse::<IpAddr>().unwrap());
        let held = [(key(a), Vip { gate: 0, slot: 0 }), (key(b), Vip { gate: 0, slot: 2 })];
        let gate = |_| Ok::<_, ()>(Gate { group: 7, ..Gate::default() });
        let mut slots = Slots::new(4, held, gate).unwrap();
        assert_eq!((slots.gate(7), slots.gate(8), slots.next_slot()), (Some(0), Some(1), Some(1)));
        slots.insert(8, c, Vip { gate: 1, slot: 1 });
        assert_eq!((slots.gate(9), slots.next_slot()), (Some(2), Some(3)));
        assert_eq!(slots.remove(7, a), None);
        assert_eq!(slots.group(7).unwrap().addresses, [b].into_iter().collect());
        assert_eq!(slots.remove(7, b), Some(0));
        assert_eq!((slots.group(7), slots.gate(7)), (None, Some(0)));
        assert_eq!(slots.vip(c), Some((Vip { gate: 1, slot: 1 }, 8)));
    }

    #[test]
    fn keys_are_reversible() {
        for text in ["10.1.2.3", "fd00::1", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(super::address(key(address)), address);
        }
    }
}

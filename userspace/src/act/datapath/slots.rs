//! Which gate and which activity slot belongs to which address. One number serves for both.

use std::{collections::HashMap, net::IpAddr};

use datapath_common::{Address, Vip};

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

/// What the map `VIPS` holds, and which numbers are free. Rebuilt from the map at start.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) vips: HashMap<Address, Vip>,
    free: Vec<u32>,
    capacity: u32,
}

impl Slots {
    /// `held` are the entries found in the map.
    pub(super) fn new(capacity: u32, held: impl IntoIterator<Item = (Address, Vip)>) -> Self {
        let vips: HashMap<_, _> = held.into_iter().collect();
        let mut taken = vec![false; capacity as usize];
        for vip in vips.values() {
            if let Some(taken) = taken.get_mut(vip.gate as usize) {
                *taken = true;
            }
        }
        // The lowest number is handed out first.
        let free = (0..capacity).rev().filter(|slot| !taken[*slot as usize]).collect();
        Self { vips, free, capacity }
    }

    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// A number that no address has. It is free again if it is not inserted.
    pub(super) fn next_free(&self) -> Option<u32> {
        self.free.last().copied()
    }

    pub(super) fn insert(&mut self, key: Address, vip: Vip) {
        if let Some(old) = self.vips.insert(key, vip)
            && old.gate != vip.gate
        {
            self.free.push(old.gate);
        }
        self.free.retain_last(vip.gate);
    }

    pub(super) fn remove(&mut self, key: &Address) -> Option<Vip> {
        let vip = self.vips.remove(key)?;
        self.free.push(vip.gate);
        Some(vip)
    }
}

trait RetainLast {
    /// Takes the number off the end, where `next_free` saw it.
    fn retain_last(&mut self, number: u32);
}

impl RetainLast for Vec<u32> {
    fn retain_last(&mut self, number: u32) {
        if self.last() == Some(&number) {
            self.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(gate: u32) -> Vip {
        Vip { ifindex: 1, gate, slot: gate, vlan_outer: 0, vlan_inner: 0 }
    }

    #[test]
    fn numbers_are_rebuilt_from_what_is_held() {
        let (a, b, c) = (Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2]), Address::v6([1; 16]));
        let mut slots = Slots::new(4, [(a, vip(0)), (b, vip(2))]);
        assert_eq!(slots.next_free(), Some(1));
        slots.insert(c, vip(1));
        assert_eq!(slots.next_free(), Some(3));
        slots.remove(&b);
        assert_eq!(slots.next_free(), Some(2));
        slots.insert(b, vip(2));
        slots.insert(Address::v4([10, 0, 0, 3]), vip(3));
        assert_eq!(slots.next_free(), None);
        // Replacing an entry under its own number frees nothing.
        slots.insert(a, vip(0));
        assert_eq!(slots.next_free(), None);
    }

    #[test]
    fn keys_are_reversible() {
        for text in ["10.1.2.3", "fd00::1", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(super::address(key(address)), address);
        }
    }
}

//! Numbers that are handed out: gates one by one; activity slots one by one or 256 neighbours at a time.

use std::collections::{BTreeSet, VecDeque};

use datapath_common::PAGE_SIZE;

use super::layout::Members;

/// Numbers from 0 on that nobody has. One that was given back comes last: a program that is held up between
/// reading the number of a gate and looking at that gate must not find another resource's there.
#[derive(Debug)]
pub(super) struct Numbers {
    next: u32,
    returned: VecDeque<u32>,
    capacity: u32,
}

impl Numbers {
    pub(super) fn new(capacity: u32, taken: &BTreeSet<u32>) -> Self {
        let next = taken.last().map_or(0, |last| last + 1);
        let returned = (0..next).filter(|n| !taken.contains(n)).collect();
        Self { next, returned, capacity }
    }

    pub(super) fn peek(&self) -> Option<u32> {
        if self.next < self.capacity { Some(self.next) } else { self.returned.front().copied() }
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        let number = self.peek()?;
        if self.next < self.capacity {
            self.next += 1;
        } else {
            self.returned.pop_front();
        }
        Some(number)
    }

    pub(super) fn give_back(&mut self, number: u32) {
        self.returned.push_back(number);
    }
}

/// Activity slots in blocks of 256: a page has a whole block, addresses that stand alone share blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    used: Vec<Members>,
    empty: BTreeSet<u32>,
    /// With some of their slots free.
    partial: BTreeSet<u32>,
}

impl Blocks {
    pub(super) fn new(slots: u32) -> Self {
        let blocks = slots / PAGE_SIZE;
        Self {
            used: vec![Members::default(); blocks as usize],
            empty: (0..blocks).collect(),
            partial: BTreeSet::new(),
        }
    }

    pub(super) fn has_empty(&self) -> bool {
        !self.empty.is_empty()
    }

    /// The first of 256 free neighbours.
    pub(super) fn take_block(&mut self) -> Option<u32> {
        let slot = self.empty.first()? * PAGE_SIZE;
        self.mark(slot, Members::ALL);
        Some(slot)
    }

    pub(super) fn take_one(&mut self) -> Option<u32> {
        let block = *self.partial.first().or_else(|| self.empty.first())?;
        let free = Members::ALL.difference(self.used[block as usize]).first()?;
        let slot = block * PAGE_SIZE + u32::from(free);
        self.mark(slot, Members::one(free));
        Some(slot)
    }

    /// Takes given slots of the block that begins at or before `slot`: what was found in the maps.
    pub(super) fn mark(&mut self, slot: u32, members: Members) {
        self.change(slot, |used| used.union(members));
    }

    pub(super) fn give_back_block(&mut self, slot: u32) {
        self.change(slot, |_| Members::default());
    }

    pub(super) fn give_back(&mut self, slot: u32) {
        self.change(slot, |used| used.difference(Members::one((slot % PAGE_SIZE) as u8)));
    }

    fn change(&mut self, slot: u32, change: impl FnOnce(Members) -> Members) {
        let block = slot / PAGE_SIZE;
        // A slot out of range can only come from maps that somebody else wrote: then there is nothing to keep.
        let Some(used) = self.used.get_mut(block as usize) else { return };
        *used = change(*used);
        self.empty.remove(&block);
        self.partial.remove(&block);
        if used.is_empty() {
            self.empty.insert(block);
        } else if *used != Members::ALL {
            self.partial.insert(block);
        }
    }
}

/// Slots for so many addresses, however they lie: pages waste at most every other slot
/// ([`super::layout::DENSE`]), and one block more lets a page be taken apart at the very limit.
pub(super) fn slots_for(max_vips: u32) -> u32 {
    (max_vips.div_ceil(PAGE_SIZE) * 2 + 1).saturating_mul(PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_comes_last() {
        let mut numbers = Numbers::new(4, &[0, 2].into());
        assert_eq!((numbers.take(), numbers.peek()), (Some(3), Some(1)));
        numbers.give_back(0);
        assert_eq!((numbers.take(), numbers.take(), numbers.take()), (Some(1), Some(0), None));
    }

    #[test]
    fn single_slots_fill_a_block_before_the_next_is_begun() {
        let mut blocks = Blocks::new(3 * PAGE_SIZE);
        assert_eq!((blocks.take_one(), blocks.take_one()), (Some(0), Some(1)));
        assert_eq!(blocks.take_block(), Some(256));
        blocks.give_back(0);
        blocks.mark(512 + 7, Members::one(7));
        assert!(!blocks.has_empty());
        assert_eq!((blocks.take_block(), blocks.take_one()), (None, Some(0)));
        blocks.give_back_block(256);
        assert_eq!(blocks.take_block(), Some(256));
        assert_eq!((0..255 + 254).filter_map(|_| blocks.take_one()).count(), 254 + 255);
        assert_eq!(blocks.take_one(), None);
    }
}

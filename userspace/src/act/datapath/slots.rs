//! What the maps hold, and the steps by which they come to hold something else. Pure: the steps are data,
//! carried out by [`super::program`].
//!
//! Invariant: after every single step each address that was held before the first and is to be held after
//! the last is found by the programs, and leads to its gate. So what is new is entered before what it replaces
//! is removed.

use std::collections::{BTreeMap, BTreeSet};

use datapath_common::{Address, Gate, Page, Vip};

use super::{
    DatapathError,
    layout::{self, Form, Key, Members},
    numbers::{Blocks, Numbers, slots_for},
};
use crate::model::{Ranges, ResourceId};

/// One write to a map, or some to the activity records that no address has at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Clears the records of so many slots.
    Clear {
        slot: u32,
        count: u32,
    },
    /// What was counted goes with its address.
    Copy {
        from: u32,
        to: u32,
    },
    /// Makes or replaces the entry of a page.
    Page {
        base: Key,
        page: Page,
    },
    /// Makes the entry of one address.
    Alone {
        key: Key,
        vip: Vip,
    },
    NoPage {
        base: Key,
    },
    NotAlone {
        key: Key,
    },
}

#[derive(Clone, Copy, Debug)]
struct Single {
    vip: Vip,
    group: ResourceId,
}

#[derive(Clone, Copy, Debug)]
struct Whole {
    page: Page,
    group: ResourceId,
}

/// What is programmed for one resource.
#[derive(Debug)]
struct Group {
    gate: u32,
    pages: BTreeSet<Key>,
    singles: BTreeSet<Key>,
}

/// What the maps hold, and which numbers are free. Rebuilt from the maps at start.
#[derive(Debug)]
pub(super) struct Slots {
    singles: BTreeMap<Key, Single>,
    pages: BTreeMap<Key, Whole>,
    groups: BTreeMap<ResourceId, Group>,
    blocks: Blocks,
    gates: Numbers,
    capacity: u32,
    held: u64,
}

impl Slots {
    /// `pages` and `singles` are the entries found in the maps, `gate` reads one of `GATES`. Also answers the
    /// keys in `VIPS` to remove: a process that was killed had just entered them in a page.
    ///
    /// # Errors
    /// Those of `gate`.
    pub(super) fn new<E>(
        capacity: u32,
        pages: Vec<(Address, Page)>,
        singles: Vec<(Address, Vip)>,
        gate: impl Fn(u32) -> Result<Gate, E>,
    ) -> Result<(Self, Vec<Key>), E> {
        let mut slots = Self {
            singles: BTreeMap::new(),
            pages: BTreeMap::new(),
            groups: BTreeMap::new(),
            blocks: Blocks::new(slots_for(capacity)),
            gates: Numbers::new(capacity, &BTreeSet::new()),
            capacity,
            held: 0,
        };
        let mut gates = BTreeMap::new();
        for number in pages.iter().map(|(_, p)| p.gate).chain(singles.iter().map(|(_, v)| v.gate)) {
            if let std::collections::btree_map::Entry::Vacant(entry) = gates.entry(number) {
                entry.insert(gate(number)?.group);
            }
        }
        for (base, page) in pages {
            slots.blocks.mark(page.slot, Members::ALL);
            slots.enter_page(gates[&page.gate], Key::from_be_bytes(base.0), page);
        }
        let mut redundant = Vec::new();
        for (key, vip) in singles {
            let key = Key::from_be_bytes(key.0);
            let (base, last) = layout::split(key);
            if slots.pages.get(&base).is_some_and(|w| Members(w.page.members).contains(last)) {
                redundant.push(key);
                continue;
            }
            slots.blocks.mark(vip.slot, Members::one((vip.slot % 256) as u8));
            slots.enter_single(gates[&vip.gate], key, vip);
        }
        slots.gates = Numbers::new(capacity, &gates.into_keys().collect());
        Ok((slots, redundant))
    }

    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = ResourceId> {
        self.groups.keys().copied()
    }

    pub(super) fn has_pages(&self) -> bool {
        !self.pages.is_empty()
    }

    pub(super) fn has_singles(&self) -> bool {
        !self.singles.is_empty()
    }

    /// The gate of the resource.
    pub(super) fn gate(&self, id: ResourceId) -> Option<u32> {
        self.groups.get(&id).map(|group| group.gate)
    }

    /// The gate that a new resource would get. It is taken with the first entry that leads to it.
    pub(super) fn free_gate(&self) -> Option<u32> {
        self.gates.peek()
    }

    pub(super) fn addresses(&self, id: ResourceId) -> Ranges {
        let Some(group) = self.groups.get(&id) else { return Ranges::default() };
        let pages = group.pages.iter().flat_map(|base| layout::ranges(*base, self.members(*base)));
        let singles = group.singles.iter().map(|key| layout::ip(*key).into());
        pages.chain(singles).collect()
    }

    /// The activity slot of an address.
    pub(super) fn slot(&self, key: Key) -> Option<u32> {
        let (base, last) = layout::split(key);
        match self.pages.get(&base).filter(|w| Members(w.page.members).contains(last)) {
            Some(whole) => Some(whole.page.slot + u32::from(last)),
            None => self.singles.get(&key).map(|single| single.vip.slot),
        }
    }

    /// All addresses of a resource with their activity slots, neighbours after each other.
    pub(super) fn slots(&self, id: ResourceId) -> impl Iterator<Item = (Key, u32)> {
        let group = self.groups.get(&id);
        let pages = group.into_iter().flat_map(|group| &group.pages).flat_map(|base| {
            let whole = &self.pages[base];
            Members(whole.page.members)
                .iter()
                .map(move |last| (base | Key::from(last), whole.page.slot + u32::from(last)))
        });
        let singles = group.into_iter().flat_map(|group| &group.singles);
        pages.chain(singles.map(|key| (*key, self.singles[key].vip.slot)))
    }

    fn members(&self, base: Key) -> Members {
        self.pages.get(&base).map_or_else(Members::default, |whole| Members(whole.page.members))
    }

    fn singles_of(&self, base: Key) -> impl Iterator<Item = (u8, &Single)> {
        self.singles.range(base..=base | 0xff).map(|(key, single)| (layout::split(*key).1, single))
    }

    /// What of a page the resource has, and how; or an address that another has of those wanted.
    fn present(&self, id: ResourceId, base: Key, wanted: Members) -> Result<Members, DatapathError> {
        let mut mine = Members::default();
        let taken = |last: u8, other| DatapathError::Taken(layout::ip(base | Key::from(last)), other);
        if let Some(whole) = self.pages.get(&base) {
            let members = Members(whole.page.members);
            if whole.group == id {
                mine = members;
            } else if let Some(last) = members.intersection(wanted).first() {
                return Err(taken(last, whole.group));
            }
        }
        for (last, single) in self.singles_of(base) {
            if single.group == id {
                mine = mine.union(Members::one(last));
            } else if wanted.contains(last) {
                return Err(taken(last, single.group));
            }
        }
        Ok(mine)
    }

    /// The steps that add the addresses to the resource, whose gate has this number. Their slots are
    /// taken: every step must then be [`Slots::done`] or [`Slots::undone`].
    ///
    /// # Errors
    /// `Taken`, `Full`: nothing is changed then.
    pub(super) fn program(
        &mut self,
        id: ResourceId,
        gate: u32,
        addresses: &Ranges,
    ) -> Result<Vec<Step>, DatapathError> {
        let full = || DatapathError::Full(self.capacity);
        if addresses.count() > u64::from(self.capacity) {
            return Err(full());
        }
        let mut work = Vec::new();
        let mut new = 0;
        for (base, wanted) in layout::pages(addresses) {
            let mine = self.present(id, base, wanted)?;
            let more = wanted.difference(mine);
            new += u64::from(more.count());
            if !more.is_empty() {
                work.push((base, mine, more));
            }
        }
        if self.held + new > u64::from(self.capacity) {
            return Err(full());
        }
        let mut steps = Vec::new();
        for (base, mine, more) in work {
            self.add(id, gate, base, mine, more, &mut steps).ok_or(DatapathError::Full(self.capacity))?;
        }
        Ok(steps)
    }

    fn add(
        &mut self,
        id: ResourceId,
        gate: u32,
        base: Key,
        mine: Members,
        more: Members,
        steps: &mut Vec<Step>,
    ) -> Option<()> {
        let all = mine.union(more);
        let own = self.pages.get(&base).filter(|whole| whole.group == id).map(|whole| whole.page);
        let room = own.is_some() || (!self.pages.contains_key(&base) && self.blocks.has_empty());
        match layout::form(all.count(), room) {
            Form::Page => {
                let slot = match own {
                    Some(page) => page.slot,
                    None => self.blocks.take_block()?,
                };
                match own {
                    // What was taken out of a page may have been counted meanwhile.
                    Some(_) => {
                        steps
                            .extend(more.iter().map(|n| Step::Clear { slot: slot + u32::from(n), count: 1 }));
                    }
                    None => steps.push(Step::Clear { slot, count: datapath_common::PAGE_SIZE }),
                }
                let singles: Vec<(u8, u32)> = self
                    .singles_of(base)
                    .filter(|(_, single)| single.group == id)
                    .map(|(last, single)| (last, single.vip.slot))
                    .collect();
                steps.extend(
                    singles
                        .iter()
                        .map(|(last, from)| Step::Copy { from: *from, to: slot + u32::from(*last) }),
                );
                steps.push(Step::Page { base, page: layout::page(base, gate, slot, all) });
                steps.extend(singles.iter().map(|(last, _)| Step::NotAlone { key: base | Key::from(*last) }));
            }
            Form::Alone => {
                for last in more.iter() {
                    let slot = self.blocks.take_one()?;
                    steps.push(Step::Clear { slot, count: 1 });
                    steps.push(alone(base | Key::from(last), gate, slot));
                }
            }
        }
        Some(())
    }

    /// The steps that take the addresses from the resource; those that it does not have are ignored. Every step
    /// must then be [`Slots::done`] or [`Slots::undone`].
    pub(super) fn unprogram(&mut self, id: ResourceId, addresses: &Ranges) -> Vec<Step> {
        let mut steps = Vec::new();
        let gone = self.addresses(id).intersection(addresses);
        for (base, gone) in layout::pages(&gone) {
            let singles = self.singles_of(base).filter(|(last, s)| s.group == id && gone.contains(*last));
            let singles: Vec<u8> = singles.map(|(last, _)| last).collect();
            if let Some(whole) = self.pages.get(&base).copied().filter(|whole| whole.group == id) {
                self.shrink(base, whole.page, gone, &mut steps);
            }
            steps.extend(singles.iter().map(|last| Step::NotAlone { key: base | Key::from(*last) }));
        }
        steps
    }

    /// A page that gets too thin is taken apart.
    fn shrink(&mut self, base: Key, page: Page, gone: Members, steps: &mut Vec<Step>) {
        let members = Members(page.members);
        let rest = members.difference(gone);
        if rest == members {
            return;
        }
        if layout::form(rest.count(), true) == Form::Page {
            steps.push(Step::Page { base, page: Page { members: rest.0, ..page } });
            return;
        }
        for last in rest.iter() {
            // There is always room (see `slots_for`); if not, the page stays as thin as it is.
            let Some(slot) = self.blocks.take_one() else {
                steps.push(Step::Page { base, page: Page { members: rest.0, ..page } });
                return;
            };
            steps.push(Step::Copy { from: page.slot + u32::from(last), to: slot });
            steps.push(alone(base | Key::from(last), page.gate, slot));
        }
        steps.push(Step::NoPage { base });
    }

    /// The step has been carried out for this resource. Answers the gate that is free with its last address.
    pub(super) fn done(&mut self, id: ResourceId, step: Step) -> Option<u32> {
        match step {
            Step::Clear { .. } | Step::Copy { .. } => None,
            Step::Page { base, page } => {
                self.leave_page(base);
                self.enter_page(id, base, page);
                None
            }
            Step::Alone { key, vip } => {
                self.enter_single(id, key, vip);
                None
            }
            Step::NoPage { base } => {
                let slot = self.leave_page(base)?;
                self.blocks.give_back_block(slot);
                self.forget_if_empty(id)
            }
            Step::NotAlone { key } => {
                let slot = self.leave_single(key)?;
                self.blocks.give_back(slot);
                self.forget_if_empty(id)
            }
        }
    }

    /// The step will not be carried out: what it would have used is free again.
    pub(super) fn undone(&mut self, step: Step) {
        match step {
            Step::Page { base, page } if !self.pages.contains_key(&base) => {
                self.blocks.give_back_block(page.slot);
            }
            Step::Alone { key, vip } if !self.singles.contains_key(&key) => self.blocks.give_back(vip.slot),
            Step::Page { .. }
            | Step::Alone { .. }
            | Step::Clear { .. }
            | Step::Copy { .. }
            | Step::NoPage { .. }
            | Step::NotAlone { .. } => {}
        }
    }

    fn group(&mut self, id: ResourceId, gate: u32) -> &mut Group {
        self.groups.entry(id).or_insert_with(|| {
            if self.gates.peek() == Some(gate) {
                self.gates.take();
            }
            Group { gate, pages: BTreeSet::new(), singles: BTreeSet::new() }
        })
    }

    /// The number of addresses held, each once, although two entries may lead to it in between.
    fn recount(&mut self, base: Key, before: u32) {
        self.held = self.held + u64::from(self.count(base)) - u64::from(before);
    }

    fn count(&self, base: Key) -> u32 {
        let singles = self.singles_of(base).map(|(last, _)| Members::one(last));
        singles.fold(self.members(base), Members::union).count()
    }

    fn enter_page(&mut self, id: ResourceId, base: Key, page: Page) {
        let before = self.count(base);
        self.group(id, page.gate).pages.insert(base);
        self.pages.insert(base, Whole { page, group: id });
        self.recount(base, before);
    }

    fn leave_page(&mut self, base: Key) -> Option<u32> {
        let before = self.count(base);
        let whole = self.pages.remove(&base)?;
        if let Some(group) = self.groups.get_mut(&whole.group) {
            group.pages.remove(&base);
        }
        self.recount(base, before);
        Some(whole.page.slot)
    }

    fn enter_single(&mut self, id: ResourceId, key: Key, vip: Vip) {
        let (base, _) = layout::split(key);
        let before = self.count(base);
        self.group(id, vip.gate).singles.insert(key);
        self.singles.insert(key, Single { vip, group: id });
        self.recount(base, before);
    }

    fn leave_single(&mut self, key: Key) -> Option<u32> {
        let (base, _) = layout::split(key);
        let before = self.count(base);
        let single = self.singles.remove(&key)?;
        if let Some(group) = self.groups.get_mut(&single.group) {
            group.singles.remove(&key);
        }
        self.recount(base, before);
        Some(single.vip.slot)
    }

    fn forget_if_empty(&mut self, id: ResourceId) -> Option<u32> {
        let group = self.groups.get(&id)?;
        if !group.pages.is_empty() || !group.singles.is_empty() {
            return None;
        }
        let gate = group.gate;
        self.groups.remove(&id);
        self.gates.give_back(gate);
        Some(gate)
    }
}

fn alone(key: Key, gate: u32, slot: u32) -> Step {
    Step::Alone { key, vip: Vip { mark: layout::address(key).mark(), gate, slot } }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::model::Range;

/// What the programs would find: the two maps, looked up as `gate.rs` does.
#[derive(Default)]
struct Tables {
    pages: BTreeMap<Key, Page>,
    singles: BTreeMap<Key, Vip>,
}

impl Tables {
    fn apply(&mut self, step: Step) {
        match step {
            Step::Clear { .. } | Step::Copy { .. } => {}
            Step::Page { base, page } => {
                self.pages.insert(base, page);
            }
            Step::Alone { key, vip } => {
                self.singles.insert(key, vip);
            }
            Step::NoPage { base } => {
                assert!(self.pages.remove(&base).is_some(), "no such page");
            }
            Step::NotAlone { key } => {
                assert!(self.singles.remove(&key).is_some(), "no such entry");
            }
        }
    }

    /// (gate, slot)
    fn find(&self, key: Key) -> Option<(u32, u32)> {
        let (base, last) = layout::split(key);
        if let Some(page) = self.pages.get(&base).filter(|p| Members(p.members).contains(last)) {
            assert_eq!(page.mark, layout::address(base).mark());
            return Some((page.gate, page.slot + u32::from(last)));
        }
        let vip = self.singles.get(&key)?;
        assert_eq!(vip.mark, layout::address(key).mark());
        Some((vip.gate, vip.slot))
    }
}

const CAPACITY: u32 = 1000;

fn slots(capacity: u32) -> Slots {
    Slots::new(capacity, vec![], vec![], |_| Ok::<_, ()>(Gate::default())).unwrap().0
}

fn set(text: &str) -> Ranges {
    text.split(',').map(|t| t.parse::<Range>().unwrap()).collect()
}

/// Carries the steps out one by one, looking after each whether all of `steady` is found.
fn carry_out(slots: &mut Slots, tables: &mut Tables, id: ResourceId, steps: Vec<Step>, steady: &Ranges) {
    for step in steps {
        tables.apply(step);
        slots.done(id, step);
        for address in steady.iter() {
            assert!(tables.find(layout::key(address)).is_some(), "{address} is unknown after {step:?}");
        }
    }
}

fn program(slots: &mut Slots, tables: &mut Tables, id: ResourceId, text: &str) -> Vec<Step> {
    let gate = slots.gate(id).or_else(|| slots.free_gate()).unwrap();
    let steps = slots.program(id, gate, &set(text)).unwrap();
    let steady = slots.addresses(id);
    carry_out(slots, tables, id, steps.clone(), &steady);
    steps
}

fn writes(steps: &[Step]) -> usize {
    steps.iter().filter(|s| !matches!(s, Step::Clear { .. } | Step::Copy { .. })).count()
}

#[test]
fn a_whole_16_is_256_entries() {
    let (mut slots, mut tables) = (slots(81_920), Tables::default());
    let steps = program(&mut slots, &mut tables, 1, "10.9.0.0-10.9.255.255");
    assert_eq!(writes(&steps), 256);
    assert_eq!(slots.addresses(1), set("10.9.0.0-10.9.255.255"));
    // And there is room for others.
    program(&mut slots, &mut tables, 2, "10.8.0.1-10.8.0.9,fd00::1");
    let steps = slots.unprogram(1, &set("10.0.0.0-10.255.255.255"));
    assert_eq!(writes(&steps), 256);
}

#[test]
fn entries_become_a_page_and_one_becomes_entries_again() {
    let (mut slots, mut tables) = (slots(CAPACITY), Tables::default());
    program(&mut slots, &mut tables, 1, "10.0.0.0-10.0.0.99");
    assert_eq!((tables.pages.len(), tables.singles.len()), (0, 100));
    program(&mut slots, &mut tables, 1, "10.0.0.128-10.0.0.199");
    assert_eq!((tables.pages.len(), tables.singles.len()), (1, 0));
    let rest = set("10.0.0.0-10.0.0.9");
    let steps = slots.unprogram(1, &set("10.0.0.10-10.0.0.255"));
    carry_out(&mut slots, &mut tables, 1, steps, &rest);
    assert_eq!((tables.pages.len(), tables.singles.len()), (0, 10));
    assert_eq!(slots.addresses(1), rest);
    assert!(!slots.has_pages() && slots.has_singles());
}

#[test]
fn a_page_has_one_owner_and_neighbours_stand_alone() {
    let (mut slots, mut tables) = (slots(CAPACITY), Tables::default());
    program(&mut slots, &mut tables, 1, "10.0.0.0-10.0.0.127");
    program(&mut slots, &mut tables, 2, "10.0.0.128-10.0.0.255");
    assert_eq!((tables.pages.len(), tables.singles.len()), (1, 128));
    let gate = |text: &str| tables.find(layout::key(text.parse().unwrap())).unwrap().0;
    assert_eq!((gate("10.0.0.127"), gate("10.0.0.128")), (0, 1));
    for (wanted, by) in [("10.0.0.127", 2), ("10.0.0.200", 1)] {
        let error = slots.program(by, 0, &set(wanted)).unwrap_err();
        let owner = 3 - by;
        assert!(matches!(error, DatapathError::Taken(_, id) if id == owner), "{error}");
    }
}

#[test]
fn full_is_full_and_changes_nothing() {
    let (mut slots, mut tables) = (slots(4), Tables::default());
    program(&mut slots, &mut tables, 1, "10.0.0.1-10.0.0.3");
    for text in ["10.0.0.4-10.0.0.5", "fd00::-fdff::"] {
        assert!(matches!(slots.program(1, 0, &set(text)), Err(DatapathError::Full(4))));
    }
    program(&mut slots, &mut tables, 2, "fd00::1");
    assert_eq!(slots.addresses(1).count(), 3);
}

/// However the addresses lie, as many as the capacity says can be held.
#[test]
fn half_full_pages_leave_room_for_the_rest() {
    let (mut slots, mut tables) = (slots(CAPACITY), Tables::default());
    // Singles that leave no block untouched, then all but one of each block removed.
    program(&mut slots, &mut tables, 1, "10.1.0.1-10.1.0.100,10.2.0.1-10.2.0.100,10.3.0.1-10.3.0.100");
    let steps = slots.unprogram(1, &set("10.1.0.2-10.3.0.99"));
    carry_out(&mut slots, &mut tables, 1, steps, &set("10.1.0.1,10.3.0.100"));
    let pages: Vec<String> = (0..7).map(|n| format!("10.9.{n}.0-10.9.{n}.127")).collect();
    program(&mut slots, &mut tables, 2, &pages.join(","));
    program(&mut slots, &mut tables, 3, "10.10.0.1-10.10.0.102");
    assert!(matches!(slots.program(3, 0, &set("10.11.0.1")), Err(DatapathError::Full(CAPACITY))));
}

#[test]
fn what_was_held_is_rebuilt_and_doubles_are_named() {
    let (mut slots, mut tables) = (slots(CAPACITY), Tables::default());
    program(&mut slots, &mut tables, 7, "10.0.0.0-10.0.0.199,10.0.1.5,fd00::1");
    program(&mut slots, &mut tables, 8, "10.0.1.6");
    // A process was killed after it had entered the page.
    let double = layout::key("10.0.0.3".parse().unwrap());
    let vip = Vip { mark: layout::address(double).mark(), gate: 0, slot: 900 };
    tables.singles.insert(double, vip);
    let pages = tables.pages.iter().map(|(key, page)| (layout::address(*key), *page)).collect();
    let singles = tables.singles.iter().map(|(key, vip)| (layout::address(*key), *vip)).collect();
    let gate = |n| Ok::<_, ()>(Gate { group: 7 + u64::from(n), ..Gate::default() });
    let (mut again, doubles) = Slots::new(CAPACITY, pages, singles, gate).unwrap();
    assert_eq!(doubles, [double]);
    for id in [7, 8] {
        assert_eq!((again.addresses(id), again.gate(id)), (slots.addresses(id), slots.gate(id)));
    }
    assert_eq!(again.free_gate(), Some(2));
    tables.singles.remove(&double);
    let steps = again.program(9, 2, &set("10.7.0.1-10.7.0.9")).unwrap();
    carry_out(&mut again, &mut tables, 9, steps, &slots.addresses(7));
    no_slot_twice(&again);
}

fn no_slot_twice(slots: &Slots) {
    let all: Vec<u32> = slots.groups().flat_map(|id| slots.slots(id).map(|(_, slot)| slot)).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

#[test]
fn what_was_not_carried_out_is_free_again() {
    let mut slots = slots(CAPACITY);
    for _ in 0..20 {
        let steps = slots.program(1, 0, &set("10.0.0.0-10.0.0.255,10.0.1.1-10.0.1.100")).unwrap();
        steps.into_iter().for_each(|step| slots.undone(step));
    }
    assert_eq!(slots.free_gate(), Some(0));
    assert_eq!(slots.addresses(1), Ranges::default());
}

#[derive(Clone, Debug)]
struct Operation {
    add: bool,
    id: ResourceId,
    addresses: Ranges,
}

fn operation() -> impl Strategy<Value = Operation> {
    // Three pages, spans of any length, so that pages come, grow, thin out and go.
    let span = (0_u16..768, 1_u16..300).prop_map(|(first, length)| {
        let at = |n: u16| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
        Range::new(at(first), at((first + length).min(767))).unwrap()
    });
    let some = prop::collection::vec(span, 1..4);
    (any::<bool>(), 1_u64..4, some).prop_map(|(add, id, spans)| Operation {
        add,
        id,
        addresses: spans.into_iter().collect(),
    })
}

proptest! {
    #[test]
    fn no_step_loses_an_address(operations in prop::collection::vec(operation(), 1..24)) {
        let (mut slots, mut tables) = (slots(600), Tables::default());
        let mut model: BTreeMap<ResourceId, Ranges> = BTreeMap::new();
        for Operation { add, id, addresses } in operations {
            let mine = model.get(&id).cloned().unwrap_or_default();
            let others: Ranges = model
                .iter()
                .filter(|(other, _)| **other != id)
                .flat_map(|(_, ranges)| ranges.ranges().to_vec())
                .collect();
            let (steps, after) = if add {
                let wanted = mine.union(&addresses);
                let gate = slots.gate(id).or_else(|| slots.free_gate()).unwrap();
                match slots.program(id, gate, &addresses) {
                    Ok(steps) => (steps, wanted),
                    Err(DatapathError::Taken(address, _)) => {
                        prop_assert!(others.contains(address) && addresses.contains(address));
                        continue;
                    }
                    Err(DatapathError::Full(_)) => {
                        prop_assert!(wanted.count() + others.count() > 600);
                        continue;
                    }
                    Err(other) => panic!("{other}"),
                }
            } else {
                (slots.unprogram(id, &addresses), mine.difference(&addresses))
            };
            let steady = mine.intersection(&after).union(&others);
            carry_out(&mut slots, &mut tables, id, steps, &steady);
            model.insert(id, after);

            let mut taken = BTreeSet::new();
            for (id, addresses) in &model {
                prop_assert_eq!(&slots.addresses(*id), addresses);
                for address in addresses.iter() {
                    let (gate, slot) = tables.find(layout::key(address)).unwrap();
                    prop_assert_eq!(Some(gate), slots.gate(*id));
                    prop_assert_eq!(Some(slot), slots.slot(layout::key(address)));
                    prop_assert!(taken.insert(slot), "{} is used twice", slot);
                }
            }
            let held: u64 = model.values().map(Ranges::count).sum();
            prop_assert_eq!(slots.held, held);
            let entries: u32 = tables.pages.values().map(|p| Members(p.members).count()).sum();
            prop_assert_eq!(u64::from(entries) + tables.singles.len() as u64, held, "doubles stay behind");
        }
    }
}

//! Carries out what [`super::slots`] has planned, and opens and shuts gates.

use datapath_common::{Directory, Gate};

use super::{
    DatapathError,
    bpffs::failed,
    kernel::{Inner, absent_is_fine},
    layout,
    links::text,
    slots::Step,
};
use crate::model::{Ranges, ResourceId};

impl Inner {
    pub(super) fn gate(&self, index: u32) -> Result<Gate, DatapathError> {
        self.maps.gate(index)
    }

    pub(super) fn set_gate(&mut self, index: u32, gate: Gate) -> Result<(), DatapathError> {
        let action = if gate.active == 1 { "open" } else { "close" };
        self.maps.gates.set(index, gate, 0).map_err(|error| {
            failed(format!("{action} the gate of resource number {}", gate.group), text(error))
        })
    }

    pub(super) fn close(&mut self, index: u32) -> Result<(), DatapathError> {
        // Only this word matters to the programs; the epochs stay for people to read.
        let gate = self.gate(index)?;
        self.set_gate(index, Gate { active: 0, ..gate })
    }

    /// Two writes, whatever the number of addresses; one for a gate that is open under this lease already.
    pub(super) fn open(&mut self, index: u32, lease_epoch: u64, epoch: u64) -> Result<(), DatapathError> {
        let old = self.gate(index)?;
        if old.active != 1 || old.lease_epoch != lease_epoch {
            // The kernel copies a value word by word: the epochs are in place before the gate is active.
            self.set_gate(index, Gate { active: 0, lease_epoch, epoch, ..old })?;
        }
        self.set_gate(index, Gate { active: 1, lease_epoch, epoch, ..old })
    }

    pub(super) fn program(
        &mut self,
        group: ResourceId,
        ifindex: u32,
        addresses: &Ranges,
    ) -> Result<(), DatapathError> {
        let known = self.slots.gate(group);
        let full = DatapathError::Full(self.slots.capacity());
        let Some(index) = known.or_else(|| self.slots.free_gate()) else { return Err(full) };
        let steps = self.slots.program(group, index, addresses)?;
        match self.point(group, index, known.is_some(), ifindex) {
            Ok(()) => self.carry_out(group, &steps),
            Err(error) => {
                steps.iter().for_each(|step| self.slots.undone(*step));
                Err(error)
            }
        }
    }

    /// Gives the gate its interface; shut until it is opened there. What the programs compare changes only
    /// while it is.
    fn point(
        &mut self,
        group: ResourceId,
        index: u32,
        known: bool,
        ifindex: u32,
    ) -> Result<(), DatapathError> {
        let gate = if known { self.gate(index)? } else { Gate::default() };
        if known && gate.ifindex == ifindex {
            return Ok(());
        }
        if known {
            self.set_gate(index, Gate { active: 0, ..gate })?;
        }
        self.set_gate(index, Gate { group, ifindex, ..Gate::default() })
    }

    pub(super) fn unprogram(&mut self, group: ResourceId, addresses: &Ranges) -> Result<(), DatapathError> {
        let Some(index) = self.slots.gate(group) else { return Ok(()) };
        if self.slots.addresses(group).difference(addresses).is_empty() {
            self.close(index)?;
        }
        let steps = self.slots.unprogram(group, addresses);
        self.carry_out(group, &steps)
    }

    pub(super) fn carry_out(&mut self, group: ResourceId, steps: &[Step]) -> Result<(), DatapathError> {
        let pages = steps.iter().any(|step| matches!(step, Step::Page { .. }));
        let singles = steps.iter().any(|step| matches!(step, Step::Alone { .. }));
        let result = self.announce(pages, singles).and_then(|()| {
            for (n, step) in steps.iter().enumerate() {
                if let Err(error) = self.write(step) {
                    return Err((n, error));
                }
                self.slots.done(group, *step);
            }
            Ok(())
        });
        match result {
            Ok(()) => self.announce(false, false).map_err(|(_, error)| error),
            Err((done, error)) => {
                steps[done..].iter().for_each(|step| self.slots.undone(*step));
                Err(error)
            }
        }
    }

    /// Says which tables are in use, or are about to be.
    pub(super) fn announce(&mut self, pages: bool, singles: bool) -> Result<(), (usize, DatapathError)> {
        let directory = Directory {
            pages: u32::from(pages || self.slots.has_pages()),
            vips: u32::from(singles || self.slots.has_singles()),
            ..self.directory
        };
        if directory != self.directory {
            let written = self.maps.directory.set(0, directory, 0);
            written.map_err(|error| (0, failed("write the directory of the maps", text(error))))?;
            self.directory = directory;
        }
        Ok(())
    }

    fn write(&mut self, step: &Step) -> Result<(), DatapathError> {
        let (key, written) = match *step {
            Step::Clear { slot, count } => {
                self.records.clear(slot, count);
                return Ok(());
            }
            Step::Copy { from, to } => {
                self.records.copy(from, to);
                return Ok(());
            }
            Step::Page { base, page } => (base, self.maps.pages.insert(layout::address(base), page, 0)),
            Step::Alone { key, vip } => (key, self.maps.vips.insert(layout::address(key), vip, 0)),
            Step::NoPage { base } => (base, absent_is_fine(self.maps.pages.remove(&layout::address(base)))),
            Step::NotAlone { key } => (key, absent_is_fine(self.maps.vips.remove(&layout::address(key)))),
        };
        let what = match step {
            Step::Page { .. } | Step::NoPage { .. } => "the page of",
            Step::Alone { .. } | Step::NotAlone { .. } | Step::Clear { .. } | Step::Copy { .. } => {
                "the entry of"
            }
        };
        written.map_err(|error| failed(format!("change {what} {}", layout::ip(key)), text(error)))
    }
}

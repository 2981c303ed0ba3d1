//! The activity of addresses (row DP-5), read and cleared where the programs write it: the map is part of
//! this process' memory, so that 65,536 records cost no system call.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use aya::maps::MapData;
use datapath_common::VipActivity;
use nix::libc;

const WORDS: usize = size_of::<VipActivity>() / size_of::<u64>();

/// The records of all CPUs.
pub(super) struct Records {
    start: NonNull<AtomicU64>,
    /// Records of one CPU.
    slots: u32,
    cpus: u32,
}

// SAFETY: the memory is shared with the kernel anyway, and accessed through atomics only.
unsafe impl Send for Records {}
// SAFETY: as above.
unsafe impl Sync for Records {}

impl Records {
    /// Maps `VIP_ACTIVITY` into memory; it must have `slots` records for each of so many CPUs.
    pub(super) fn map(map: &MapData, slots: u32, cpus: u32) -> io::Result<Self> {
        let length = Self::bytes(slots, cpus);
        // SAFETY: a new mapping, at an address of the kernel's choice, of a map that has at least these bytes.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, slots, cpus })
    }

    fn bytes(slots: u32, cpus: u32) -> usize {
        slots as usize * cpus as usize * size_of::<VipActivity>()
    }

    fn words(&self) -> &[AtomicU64] {
        let length = Self::bytes(self.slots, self.cpus) / size_of::<u64>();
        // SAFETY: mapped until `self` is dropped, aligned to a memory page; any bits are valid; the programs
        // change words meanwhile, as other threads would atomics.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), length) }
    }

    /// The record of a slot on each CPU; none for a slot that there is not.
    fn of(&self, slot: u32) -> impl Iterator<Item = &[AtomicU64]> {
        let cpus = if slot < self.slots { self.cpus } else { 0 };
        (0..cpus as usize).filter_map(move |cpu| {
            let at = (cpu * self.slots as usize + slot as usize) * WORDS;
            self.words().get(at..at + WORDS)
        })
    }

    /// All CPUs together.
    pub(super) fn read(&self, slot: u32) -> VipActivity {
        self.of(slot).fold(VipActivity::default(), |sum, record| VipActivity {
            packets: sum.packets + record[0].load(Relaxed),
            bytes: sum.bytes + record[1].load(Relaxed),
            last_receive_ns: sum.last_receive_ns.max(record[2].load(Relaxed)),
        })
    }

    /// For slots that no address has.
    pub(super) fn clear(&self, slot: u32, count: u32) {
        for word in (slot..slot.saturating_add(count)).flat_map(|slot| self.of(slot)).flatten() {
            // Most are clean: a page of memory that is never written stays out of the caches.
            if word.load(Relaxed) != 0 {
                word.store(0, Relaxed);
            }
        }
    }

    /// To a slot that no address has. What is counted meanwhile is lost.
    pub(super) fn copy(&self, from: u32, to: u32) {
        self.copy_from(self, from, to);
    }

    /// The same, from other records.
    pub(super) fn copy_from(&self, other: &Self, from: u32, to: u32) {
        for (from, to) in other.of(from).zip(self.of(to)) {
            for (from, to) in from.iter().zip(to) {
                to.store(from.load(Relaxed), Relaxed);
            }
        }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        let length = Self::bytes(self.slots, self.cpus);
        // SAFETY: our own mapping, of this length; nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), length) };
    }
}

//! Whether this node may speak for an address at this moment.

use core::ptr::read_volatile;

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use datapath_common::{Address, Directory, Gate, Lease, Page, Vip};

use crate::{
    fence,
    frame::Frame,
    headers::Vlans,
    maps::{DIRECTORY, GATES, INTERFACES, LEASE, PAGES, VIPS},
};

/// What is programmed for an address.
#[derive(Clone, Copy)]
pub struct Held {
    /// Index into `GATES`.
    pub gate: u32,
    /// Its record within the part of `VIP_ACTIVITY` of each CPU.
    pub slot: u32,
    /// How long such a part is.
    pub slots: u32,
}

/// The entry of an address, if it is one that this node has programmed: one of a page, or alone.
#[inline(always)]
pub fn find(address: &Address) -> Option<Held> {
    let directory: *const Directory = DIRECTORY.get_ptr(0)?;
    // SAFETY: points into a map that outlives the program; each word is written as a whole.
    let (pages, vips, slots) = unsafe {
        (
            read_volatile(&raw const (*directory).pages),
            read_volatile(&raw const (*directory).vips),
            read_volatile(&raw const (*directory).slots),
        )
    };
    if pages != 0
        && let Some(held) = in_page(address, slots)
    {
        return Some(held);
    }
    if vips != 0 { alone(address, slots) } else { None }
}

#[inline(always)]
fn in_page(address: &Address, slots: u32) -> Option<Held> {
    let (base, last) = address.page();
    let page: *const Page = PAGES.get_ptr(base)?;
    let word = usize::from(last >> 6);
    // SAFETY: elements of a preallocated map stay mapped. One that is removed or replaced meanwhile may be
    // reused for another page: the mark, which is written first, is read last, so that nothing of
    // the other page is taken for this one's.
    let (members, gate, slot, mark) = unsafe {
        (
            read_volatile((&raw const (*page).members).cast::<u64>().add(word & 3)),
            read_volatile(&raw const (*page).gate),
            read_volatile(&raw const (*page).slot),
            read_volatile(&raw const (*page).mark),
        )
    };
    let member = members >> (last & 63) & 1 == 1 && mark == base.mark();
    member.then_some(Held { gate, slot: slot + u32::from(last), slots })
}

#[inline(always)]
fn alone(address: &Address, slots: u32) -> Option<Held> {
    let vip: *const Vip = VIPS.get_ptr(address)?;
    // SAFETY: as above.
    let (gate, slot, mark) = unsafe {
        (
            read_volatile(&raw const (*vip).gate),
            read_volatile(&raw const (*vip).slot),
            read_volatile(&raw const (*vip).mark),
        )
    };
    (mark == address.mark()).then_some(Held { gate, slot, slots })
}

/// The entry of an address that lives where the frame came in.
#[inline(always)]
pub fn held(frame: &Frame, vlans: Vlans, address: &Address) -> Option<Held> {
    let held = find(address)?;
    here(&held, frame.ifindex, vlans).then_some(held)
}

#[inline(always)]
fn here(held: &Held, ifindex: u32, vlans: Vlans) -> bool {
    let Some(gate) = GATES.get_ptr(held.gate) else { return false };
    // SAFETY: points into a map that outlives the program; user space changes these words only while the
    // gate is shut.
    unsafe {
        let gate: *const Gate = gate;
        read_volatile(&raw const (*gate).ifindex) == ifindex
            && read_volatile(&raw const (*gate).vlan_outer) == vlans.outer
            && read_volatile(&raw const (*gate).vlan_inner) == vlans.inner
    }
}

/// Open iff active, opened under the present lease, whose epoch is not below the fence and which has not run
/// out.
#[inline(always)]
pub fn open(held: &Held, now: u64) -> bool {
    let (Some(gate), Some(lease)) = (GATES.get_ptr(held.gate), LEASE.get_ptr(0)) else {
        return false;
    };
    // SAFETY: both point into maps that outlive the program. User space changes the words of a lease
    // one by one, the epoch only while the deadline is 0: the epoch is read before and after the
    // deadline, so that the deadline of one epoch is never taken for that of another.
    unsafe {
        let gate: *const Gate = gate;
        let lease: *const Lease = lease;
        let epoch = read_volatile(&raw const (*lease).epoch);
        let deadline = read_volatile(&raw const (*lease).deadline_ns);
        now < deadline
            && epoch >= fence::stands()
            && read_volatile(&raw const (*gate).active) == 1
            && read_volatile(&raw const (*gate).lease_epoch) == epoch
            && read_volatile(&raw const (*lease).epoch) == epoch
    }
}

/// The address is held, wherever it lives, and its gate is closed: nothing may leave in its name.
#[inline(always)]
pub fn shut(address: &Address) -> bool {
    match find(address) {
        // SAFETY: a helper without arguments.
        Some(held) => !open(&held, unsafe { bpf_ktime_get_boot_ns() }),
        None => false,
    }
}

/// The address lives on that interface, untagged, and its gate is open.
#[inline(always)]
pub fn speaks(address: &Address, ifindex: u32, now: u64) -> bool {
    match find(address) {
        Some(held) => here(&held, ifindex, Vlans::NONE) && open(&held, now),
        None => false,
    }
}

/// The address is held, and lives on an interface with another hardware address than this.
#[inline(always)]
pub fn is_elsewhere(address: &Address, mac: [u8; 6]) -> bool {
    let Some(held) = find(address) else { return false };
    let Some(gate) = GATES.get_ptr(held.gate) else { return false };
    let gate: *const Gate = gate;
    // SAFETY: points into a map that outlives the program; the word changes only while the gate is shut.
    let ifindex = unsafe { read_volatile(&raw const (*gate).ifindex) };
    // SAFETY: a value that is replaced as a whole; the map is preallocated.
    let home = unsafe { INTERFACES.get(ifindex) };
    home.is_some_and(|interface| interface.mac != mac)
}

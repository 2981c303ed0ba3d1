//! Whether this node may speak for an address at this moment.

use core::ptr::read_volatile;

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use datapath_common::{Address, Gate, Lease, Vip};

use crate::{
    frame::Frame,
    headers::Vlans,
    maps::{GATES, LEASE, VIPS},
};

/// The entry of an address, if it is one that this node has programmed.
#[inline(always)]
fn find(address: &Address) -> Option<&'static Vip> {
    // SAFETY: an entry removed meanwhile may be reused for another address; its gate index then leads
    // to that address' gate or to a closed one, so at worst one frame is judged by a gate that is open
    // for this node anyway. Elements of a preallocated map stay mapped.
    unsafe { VIPS.get(address) }
}

/// The entry of an address that lives where the frame came in.
#[inline(always)]
pub fn held(frame: &Frame, vlans: Vlans, address: &Address) -> Option<&'static Vip> {
    let vip = find(address)?;
    here(vip, frame.ifindex, vlans).then_some(vip)
}

#[inline(always)]
fn here(vip: &Vip, ifindex: u32, vlans: Vlans) -> bool {
    let Some(gate) = GATES.get_ptr(vip.gate) else { return false };
    // SAFETY: points into a map that outlives the program; user space changes these words only while the
    // gate is shut.
    unsafe {
        let gate: *const Gate = gate;
        read_volatile(&raw const (*gate).ifindex) == ifindex
            && read_volatile(&raw const (*gate).vlan_outer) == vlans.outer
            && read_volatile(&raw const (*gate).vlan_inner) == vlans.inner
    }
}

/// Open iff active, opened under the present lease, and that lease has not run out.
#[inline(always)]
pub fn open(vip: &Vip, now: u64) -> bool {
    let (Some(gate), Some(lease)) = (GATES.get_ptr(vip.gate), LEASE.get_ptr(0)) else {
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
        Some(vip) => !open(vip, unsafe { bpf_ktime_get_boot_ns() }),
        None => false,
    }
}

/// The address lives on that interface, untagged, and its gate is open.
#[inline(always)]
pub fn speaks(address: &Address, ifindex: u32, now: u64) -> bool {
    match find(address) {
        Some(vip) => here(vip, ifindex, Vlans::NONE) && open(vip, now),
        None => false,
    }
}

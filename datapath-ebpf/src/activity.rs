//! Counters: what was heard, for whom, and what became of it. All per CPU, so plain additions do.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use datapath_common::{InterfaceActivity, Verdict};

use crate::{
    frame::Frame,
    gate::Held,
    maps::{INTERFACE_ACTIVITY, VERDICTS, VIP_ACTIVITY},
};

/// Takes a frame down and hands the interface's record on for what is in it. None for an interface
/// that user space has not made a record for.
#[inline(always)]
pub fn heard(ifindex: u32, now: u64, bytes: u64) -> Option<*mut InterfaceActivity> {
    let record = INTERFACE_ACTIVITY.get_ptr_mut(ifindex)?;
    // SAFETY: this CPU's own value; a program is not preempted by another run of itself on its CPU.
    unsafe {
        (*record).frames += 1;
        (*record).bytes += bytes;
        (*record).last_receive_ns = now;
    }
    Some(record)
}

/// Takes a frame to an address down.
#[inline(always)]
pub fn heard_for(held: &Held, frame: &Frame) {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
    if let Some(record) = VIP_ACTIVITY.get_ptr_mut(cpu * held.slots + held.slot) {
        // SAFETY: as above. User space clears a record only while no address has it.
        unsafe {
            (*record).packets += 1;
            (*record).bytes += frame.length as u64;
            (*record).last_receive_ns = frame.now;
        }
    }
}

#[inline(always)]
pub fn count(verdict: Verdict) {
    if let Some(counter) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: as above.
        unsafe { *counter += 1 };
    }
}

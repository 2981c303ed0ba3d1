//! A received frame and the only place where it is touched: every access is checked against its end.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_ktime_get_boot_ns, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use datapath_common::{Interface, InterfaceActivity, Verdict};

use crate::{
    activity,
    headers::{Ethernet, Mac},
    maps::INTERFACES,
};

/// A type that may be laid over any bytes of a frame: plain old data, valid for all bit patterns,
/// aligned to two bytes at most.
///
/// # Safety
/// Implementors are `repr(C)` structures of `u8` and `u16` only.
pub unsafe trait Wire: Copy {}

// SAFETY: bytes.
unsafe impl Wire for u8 {}
// SAFETY: 16-bit words.
unsafe impl<const N: usize> Wire for [u16; N] {}

pub struct Frame {
    ctx: *mut xdp_md,
    start: usize,
    end: usize,
    pub ifindex: u32,
    /// CLOCK_BOOTTIME nanoseconds of its arrival.
    pub now: u64,
    /// Its whole length, fragments of a multi-buffer frame included.
    pub length: usize,
    activity: Option<*mut InterfaceActivity>,
}

/// To whom a frame is addressed on the link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    Us,
    /// Broadcast or multicast.
    Group,
    /// Somebody else: seen in promiscuous mode, or the switch has not learnt yet.
    Others,
}

impl Frame {
    /// Takes the frame and the time of its arrival down, in the interface's activity too.
    #[inline(always)]
    pub fn arrived(ctx: &XdpContext) -> Result<Self, Verdict> {
        // SAFETY: helpers without side effects on a valid context.
        let (now, length) = unsafe { (bpf_ktime_get_boot_ns(), bpf_xdp_get_buff_len(ctx.ctx)) };
        // SAFETY: the kernel hands a valid `xdp_md` to the program.
        let ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
        let activity = activity::heard(ifindex, now, length);
        Ok(Self { activity, ifindex, now, ..Self::of(ctx, length) })
    }

    /// A frame of that length that was not taken down: see [`Self::heard`].
    #[inline(always)]
    pub fn of(ctx: &XdpContext, length: u64) -> Self {
        let (start, end) = (ctx.data(), ctx.data_end());
        Self { ctx: ctx.ctx, start, end, ifindex: 0, now: 0, length: length as usize, activity: None }
    }

    /// Takes down that it arrived.
    #[inline(always)]
    pub fn heard(&mut self) {
        // SAFETY: a helper without side effects, and the kernel's valid context.
        (self.now, self.ifindex) = unsafe { (bpf_ktime_get_boot_ns(), (*self.ctx).ingress_ifindex) };
        activity::heard(self.ifindex, self.now, self.length as u64);
    }

    /// The bytes at `offset`, or `PassedMalformed` when the frame is shorter.
    #[inline(always)]
    pub fn at<T: Wire>(&self, offset: usize) -> Result<&'static mut T, Verdict> {
        if self.start + offset + size_of::<T>() > self.end {
            return Err(Verdict::PassedMalformed);
        }
        // SAFETY: within the frame (checked above, and again by the verifier), which outlives the
        // program's run; `T` is valid for any bytes. Programs run on one CPU per frame, and no handler
        // holds two views of the same bytes across a write.
        Ok(unsafe { &mut *((self.start + offset) as *mut T) })
    }

    /// Makes the frame exactly `length` bytes long. Views taken before are invalid afterwards, which
    /// the verifier enforces. False when the driver has no room.
    #[inline(always)]
    pub fn resize(&mut self, length: usize) -> bool {
        let delta = length as i64 - self.length as i64;
        if delta == 0 {
            return true;
        }
        // SAFETY: the context is valid; the pointers are read anew below.
        if unsafe { bpf_xdp_adjust_tail(self.ctx, delta as i32) } != 0 {
            return false;
        }
        // SAFETY: the context is valid.
        unsafe {
            self.start = (*self.ctx).data as usize;
            self.end = (*self.ctx).data_end as usize;
        }
        self.length = length;
        true
    }

    /// For helpers that take the frame as a whole.
    #[inline(always)]
    pub fn context(&self) -> *mut xdp_md {
        self.ctx
    }

    /// What is configured for the interface it came by.
    #[inline(always)]
    pub fn interface(&self) -> Option<&'static Interface> {
        // SAFETY: entries are replaced only when an interface's facts change; a torn read gives at
        // worst one answer with a stale address, and elements of a preallocated map stay mapped.
        unsafe { INTERFACES.get(self.ifindex) }
    }

    #[inline(always)]
    pub fn activity(&mut self) -> Option<&mut InterfaceActivity> {
        // SAFETY: a per-CPU value that only this run touches.
        self.activity.map(|activity| unsafe { &mut *activity })
    }

    #[inline(always)]
    pub fn destination(&self, interface: &Interface) -> Result<Destination, Verdict> {
        let ethernet = self.at::<Ethernet>(0)?;
        Ok(if ethernet.destination == Mac::of(interface) {
            Destination::Us
        } else if ethernet.destination.is_group() {
            Destination::Group
        } else {
            Destination::Others
        })
    }

    /// Turns the Ethernet header round: to `to`, from this interface. Tags stay as they are.
    #[inline(always)]
    pub fn send_to(&self, to: Mac, interface: &Interface) -> Result<(), Verdict> {
        let ethernet = self.at::<Ethernet>(0)?;
        ethernet.destination = to;
        ethernet.source = Mac::of(interface);
        Ok(())
    }
}

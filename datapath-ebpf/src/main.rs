//! The programs in the kernel: `vipd_xdp` answers for virtual addresses and drops what is addressed to
//! them while their gate is closed, `vipd_egress` lets nothing leave in their name meanwhile,
//! `vipd_announce` says where they are now, and `vipd_clock` tells user space the time that the gates
//! are judged by.
//!
//! The programs know nothing of policy: they look a value up and do what it says. Every handler
//! returns an [`Outcome`]; [`action`] is the one place where a verdict becomes an XDP action.
#![no_std]
#![no_main]
// For the one instruction that `fence` spells out.
#![feature(asm_experimental_arch)]

mod activity;
mod announce;
mod arp;
mod broadcast;
mod checksum;
mod conflict;
mod echo;
mod egress;
mod fence;
mod frame;
mod gate;
mod headers;
mod ipv4;
mod ipv6;
mod log;
mod maps;
mod nd;
mod probe;
mod sane;
mod silence;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    helpers::bpf_ktime_get_boot_ns,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use datapath_common::Verdict;
use frame::Frame;

/// What became of a frame. `Err` is how a handler leaves early; it is no worse than `Ok`.
type Outcome = Result<Verdict, Verdict>;

#[xdp(frags)]
pub fn vipd_xdp(ctx: XdpContext) -> u32 {
    let verdict = match probe::arrived(&ctx) {
        Verdict::Passed => handle(&ctx),
        verdict => verdict,
    };
    activity::count(verdict);
    log::frame(&ctx, verdict);
    action(verdict)
}

/// Not inlined, nor is what handles probes: each has nearly all of the stack that the kernel grants.
#[inline(never)]
fn handle(ctx: &XdpContext) -> Verdict {
    match Frame::arrived(ctx).and_then(headers::dispatch) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

/// Every verdict's meaning for the kernel.
#[inline(always)]
fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::AnsweredArp
        | Verdict::AnsweredNd
        | Verdict::AnsweredEcho4
        | Verdict::AnsweredEcho6
        | Verdict::AnsweredBroadcastPing4
        | Verdict::AnsweredAllNodesPing6
        | Verdict::AnsweredProbe
        | Verdict::AnsweredFence => xdp_action::XDP_TX,
        Verdict::DroppedClosedArp
        | Verdict::DroppedClosedNd
        | Verdict::DroppedClosedEcho
        | Verdict::DroppedClosedOther
        | Verdict::LimitedBroadcastPing
        | Verdict::DroppedEgress
        | Verdict::DroppedReflection => xdp_action::XDP_DROP,
        Verdict::Passed
        | Verdict::PassedVip
        | Verdict::PassedForeignClaim
        | Verdict::PassedMalformed
        | Verdict::PassedProbe => xdp_action::XDP_PASS,
    }
}

/// `TC_ACT_UNSPEC` (also `TCX_NEXT`) leaves the frame to whatever program comes next.
#[classifier]
pub fn vipd_egress(ctx: TcContext) -> i32 {
    if egress::forbidden(&ctx) {
        activity::count(Verdict::DroppedEgress);
        log::egress(&ctx);
        TC_ACT_SHOT
    } else {
        silence::departs(&ctx);
        TC_ACT_UNSPEC
    }
}

/// Announces a chunk of addresses: run by user space with BPF_PROG_TEST_RUN. Answers how many frames
/// left.
#[classifier]
pub fn vipd_announce(ctx: TcContext) -> i32 {
    announce::run(&ctx) as i32
}

/// Writes the kernel's CLOCK_BOOTTIME into the first eight bytes of the frame: run by the loader with
/// BPF_PROG_TEST_RUN, to learn whether user space (which may live in a time namespace) reads the same.
#[xdp]
pub fn vipd_clock(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    if start + size_of::<u64>() > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the eight bytes lie within the frame (checked above); alignment is given up explicitly.
    unsafe { (start as *mut u64).write_unaligned(bpf_ktime_get_boot_ns()) };
    xdp_action::XDP_DROP
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could come here.
    loop {}
}

/// The kernel reads this to know which helpers it may lend.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

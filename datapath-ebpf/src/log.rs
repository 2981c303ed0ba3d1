//! One line per frame for debugging (row DP-13), behind a switch that is fixed at load time: off, the
//! verifier removes the code.

use aya_ebpf::{
    Global,
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::info;
use datapath_common::Verdict;

/// Set by the loader; 0 is off.
#[unsafe(no_mangle)]
static LOG_PACKETS: Global<u8> = Global::new(0);

/// Not inlined: its part of the stack would be added to that of every handler.
#[inline(never)]
pub fn frame(ctx: &XdpContext, verdict: Verdict) {
    if LOG_PACKETS.load() != 0 {
        let length = ctx.data_end() - ctx.data();
        info!(ctx, "in  if {} length {} verdict {}", ctx.ingress_ifindex(), length, verdict as u32);
    }
}

#[inline(always)]
pub fn egress(ctx: &TcContext) {
    if LOG_PACKETS.load() != 0 {
        info!(ctx, "out length {} verdict {}", ctx.len(), Verdict::DroppedEgress as u32);
    }
}

//! Silence of a peer's kernel (row DP-9): a probe that leaves by tc egress starts a timer, a reflection stops
//! it, and the timer raises an event. So a prober that is itself stalled sends nothing and judges nothing,
//! and an answer that the kernel has received counts, whether or not user space came to see it.
//!
//! Egress, ingress and the timer may run on different CPUs at once. Every race ends on the side of patience:
//! a timer that is not running although a probe is unanswered is started by the next probe.

use core::{
    ffi::c_void,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{
    bindings::bpf_timer,
    btf_maps::Array,
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{
            bpf_skb_load_bytes, bpf_timer_cancel, bpf_timer_init, bpf_timer_set_callback, bpf_timer_start,
        },
    },
    macros::{btf_map, map},
    maps::{PerCpuArray, RingBuf},
    programs::TcContext,
};
use datapath_common::{
    MAX_PATHS, PATH_ANSWERS, PATH_FENCED, PATH_SILENT, PROBE_GUARDED, PROBE_KIND_FENCE, PROBE_KIND_PROBE,
    PROBE_LENGTH, PathEvent, PathState, PeerKey, PeerPath, Probe,
};

use crate::{
    maps::{NODE, PEERS},
    probe::{UDP_HEADER, UDP_LENGTH, UDP_PROTOCOL, tag},
};

#[repr(C)]
pub struct TimedPath {
    timer: bpf_timer,
    state: PathState,
}

/// Not pinned: timers end with the process that reads what they tell.
#[btf_map]
static PATHS: Array<TimedPath, { MAX_PATHS as usize }, 0> = Array::new();

/// Not pinned either.
#[map]
static PATH_EVENTS: RingBuf = RingBuf::with_byte_size(16 * 4096, 0);

/// The probe that leaves, on this CPU. Not that of XDP, which may interrupt this program.
#[map]
static DEPARTING: PerCpuArray<Probe> = PerCpuArray::with_max_entries(1, 0);

const CLOCK_BOOTTIME: u64 = 7;

const TAG: u32 = 4;
const ETHERNET: u32 = 14;
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const PAYLOAD: u32 = UDP_LENGTH as u32;
const IPV4_PROTOCOL: usize = 9;
const IPV6_NEXT_HEADER: usize = 6;

/// A frame leaves. If it is a probe of this node's daemon, its departure is taken down and the timer runs.
#[inline(always)]
pub fn departs(ctx: &TcContext) {
    // The length alone rules nearly everything else out.
    let length = ctx.len();
    let over = length.wrapping_sub(ETHERNET + IPV4_HEADER + PAYLOAD);
    let (tags, v6) = match over {
        0 => (0, false),
        TAG => (TAG, false),
        8 => (8, false),
        20 => (0, true),
        24 => (TAG, true),
        28 => (8, true),
        _ => return,
    };
    let l3 = (ETHERNET + tags) as usize;
    let (next_header, l4) = if v6 {
        (l3 + IPV6_NEXT_HEADER, l3 + IPV6_HEADER as usize)
    } else {
        (l3 + IPV4_PROTOCOL, l3 + IPV4_HEADER as usize)
    };
    if ctx.load::<u8>(next_header) != Ok(UDP_PROTOCOL) {
        return;
    }
    let Some(probe) = DEPARTING.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own, and the buffer is as long as is said.
    let (probe, loaded) = unsafe {
        let to = probe.cast();
        (&*probe, bpf_skb_load_bytes(ctx.skb.skb.cast(), (l4 + UDP_HEADER) as u32, to, PROBE_LENGTH as u32))
    };
    if loaded != 0 {
        return;
    }
    if !probe.is_ours() || (probe.kind() != PROBE_KIND_PROBE && probe.kind() != PROBE_KIND_FENCE) {
        return;
    }
    let Some(node) = NODE.get(0) else { return };
    if node.me == 0 || probe.from != node.me || probe.incarnation != node.incarnation {
        return;
    }
    let key = PeerKey { node: probe.to, path: u64::from(probe.path()) };
    // SAFETY: an entry is replaced as a whole; what is read torn fits no tag.
    let Some(peer) = (unsafe { PEERS.get(key) }) else { return };
    // Anybody on this host may send such a datagram: only the daemon can sign it.
    if probe.tag != tag(probe.signed(), &peer.ours_keys[0]) {
        return;
    }
    let Some(path) = PATHS.get_ptr_mut(peer.slot) else { return };
    departed(path, peer, &key, probe.sequence);
}

#[inline(always)]
fn departed(path: *mut TimedPath, peer: &PeerPath, key: &PeerKey, sequence: u64) {
    // SAFETY: elements of an array stay mapped.
    unsafe {
        let state = &raw mut (*path).state;
        // The same frame again, on the interface below a VLAN or a bridge.
        if sequence <= read_volatile(&raw const (*state).departed) {
            return;
        }
        let now = bpf_ktime_get_boot_ns();
        write_volatile(&raw mut (*state).node, key.node);
        write_volatile(&raw mut (*state).path, key.path);
        write_volatile(&raw mut (*state).timeout_ns, peer.timeout_ns);
        write_volatile(&raw mut (*state).departed_ns, now);
        write_volatile(&raw mut (*state).departed, sequence);
        let waits = read_volatile(&raw const (*state).answered) < read_volatile(&raw const (*state).waiting);
        if waits {
            return;
        }
        write_volatile(&raw mut (*state).waiting_ns, now);
        write_volatile(&raw mut (*state).waiting, sequence);
        write_volatile(&raw mut (*state).due_ns, now + peer.timeout_ns);
        let timer = &raw mut (*path).timer;
        // Says that it is initialised already, from the second time on.
        bpf_timer_init(timer, (&raw const PATHS).cast_mut().cast(), CLOCK_BOOTTIME);
        bpf_timer_set_callback(timer, expired as *mut c_void);
        bpf_timer_start(timer, peer.timeout_ns, 0);
    }
}

/// A reflection has come. None when it answers nothing that is outstanding.
#[inline(always)]
pub fn answered(peer: &PeerPath, probe: &Probe, now: u64) -> Option<()> {
    let path: *mut TimedPath = PATHS.get_ptr_mut(peer.slot)?;
    // SAFETY: elements of an array stay mapped.
    unsafe {
        let state = &raw mut (*path).state;
        let departed = read_volatile(&raw const (*state).departed);
        let departed_ns = read_volatile(&raw const (*state).departed_ns);
        if probe.sequence > departed || probe.sequence <= read_volatile(&raw const (*state).answered) {
            return None;
        }
        write_volatile(&raw mut (*state).answered, probe.sequence);
        write_volatile(&raw mut (*state).answered_ns, now);
        if probe.sequence == departed {
            let rtt = now.saturating_sub(departed_ns);
            let least = read_volatile(&raw const (*state).rtt_min_ns);
            write_volatile(&raw mut (*state).rtt_ns, rtt);
            if least == 0 || rtt < least {
                write_volatile(&raw mut (*state).rtt_min_ns, rtt);
            }
        }
        write_volatile(&raw mut (*state).lease_epoch, probe.lease_epoch);
        write_volatile(&raw mut (*state).lease_remaining_ns, probe.lease_remaining_ns);
        write_volatile(&raw mut (*state).flags, probe.flags);
        // A fence that is not guarded everywhere proves nothing.
        if probe.flags & PROBE_GUARDED != 0 && probe.fence > read_volatile(&raw const (*state).fence) {
            write_volatile(&raw mut (*state).fence_ns, now);
            write_volatile(&raw mut (*state).fence, probe.fence);
            tell(state, now, PATH_FENCED);
        }
        let timer = &raw mut (*path).timer;
        if departed > probe.sequence {
            // The newest is given its full time: this may cost one period, never a false alarm.
            let timeout = read_volatile(&raw const (*state).timeout_ns);
            let due = departed_ns + timeout;
            write_volatile(&raw mut (*state).waiting_ns, departed_ns);
            write_volatile(&raw mut (*state).waiting, departed);
            write_volatile(&raw mut (*state).due_ns, due);
            bpf_timer_start(timer, due.saturating_sub(now), 0);
        } else {
            bpf_timer_cancel(timer);
        }
        if read_volatile(&raw const (*state).silent) != 0 {
            write_volatile(&raw mut (*state).silent, 0);
            tell(state, now, PATH_ANSWERS);
        }
    }
    Some(())
}

/// The timer has run out.
extern "C" fn expired(_map: *mut c_void, _index: *mut u32, path: *mut TimedPath) -> i32 {
    // SAFETY: the kernel hands the element of the timer.
    unsafe {
        let now = bpf_ktime_get_boot_ns();
        let state = &raw mut (*path).state;
        let waiting = read_volatile(&raw const (*state).waiting);
        if read_volatile(&raw const (*state).answered) >= waiting
            || read_volatile(&raw const (*state).silent) != 0
        {
            return 0;
        }
        let due = read_volatile(&raw const (*state).due_ns);
        let grace = read_volatile(&raw const (*state).timeout_ns) / 4;
        if now > due + grace {
            // This host was itself stalled: answers may lie in its queues. They get time to be seen.
            write_volatile(&raw mut (*state).due_ns, now + grace);
            bpf_timer_start(&raw mut (*path).timer, grace, 0);
            return 0;
        }
        write_volatile(&raw mut (*state).silent, 1);
        tell(state, now, PATH_SILENT);
    }
    0
}

/// A full buffer is not being read; the state says the same.
#[inline(always)]
unsafe fn tell(state: *const PathState, now: u64, kind: u64) {
    // SAFETY: the caller's.
    let event = unsafe {
        PathEvent {
            time_ns: now,
            node: read_volatile(&raw const (*state).node),
            path: read_volatile(&raw const (*state).path),
            kind,
            sequence: read_volatile(&raw const (*state).waiting),
            departed_ns: read_volatile(&raw const (*state).waiting_ns),
            answered_ns: read_volatile(&raw const (*state).answered_ns),
        }
    };
    let _ = PATH_EVENTS.output::<PathEvent>(&event, 0);
}

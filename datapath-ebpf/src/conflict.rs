//! Foreign claims (row DP-10): another station says that it has, or is about to take, an address that is
//! in service here. User space is told through a ring buffer, at most once a second for each gate, so that
//! a flood of claims is no flood of events.

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, RingBuf},
};
use datapath_common::{
    Address, CONFLICT_ARP_ANNOUNCEMENT, CONFLICT_ARP_PROBE, CONFLICT_ARP_REPLY, CONFLICT_ND_ADVERTISEMENT,
    CONFLICT_ND_PROBE, CONFLICT_SOURCE, Conflict, Gate, Interface,
};

use crate::{
    frame::Frame,
    gate::{self, Held},
    headers::Mac,
    maps::GATES,
};

/// Not pinned: what a daemon that ended has not read is of no use to the next one.
#[map]
static CONFLICTS: RingBuf = RingBuf::with_byte_size(16 * 4096, 0);

/// When a conflict was last told, by gate and by whether it was a probe: a probe must not hide the claim
/// that follows it. Of more gates than this, the least recent is forgotten and told again.
#[map]
static CONFLICT_TIMES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    ArpReply = CONFLICT_ARP_REPLY,
    ArpAnnouncement = CONFLICT_ARP_ANNOUNCEMENT,
    ArpProbe = CONFLICT_ARP_PROBE,
    NdAdvertisement = CONFLICT_ND_ADVERTISEMENT,
    Source = CONFLICT_SOURCE,
    NdProbe = CONFLICT_ND_PROBE,
}

/// Tells of a claim by the sender `mac`, unless it is this interface itself (a loop) or the address is not
/// in service: a deposed node hears its successor, which is as it should be.
#[inline(always)]
pub fn report(frame: &Frame, interface: &Interface, held: &Held, address: Address, mac: Mac, kind: Kind) {
    if mac == Mac::of(interface) || !gate::open(held, frame.now) || told_lately(frame.now, held.gate, kind) {
        return;
    }
    let Some(gate) = GATES.get_ptr(held.gate) else { return };
    let gate: *const Gate = gate;
    let [a, b, c] = mac.0.map(u16::to_ne_bytes);
    let conflict = Conflict {
        time_ns: frame.now,
        address: address.0,
        // SAFETY: points into a map that outlives the program; the word does not change while the gate is
        // in use.
        group: unsafe { (*gate).group },
        ifindex: frame.ifindex,
        mac: [a[0], a[1], b[0], b[1], c[0], c[1]],
        kind: kind as u16,
        reserved: 0,
    };
    // A full buffer is not being read; the frame is counted all the same.
    let _ = CONFLICTS.output::<Conflict>(&conflict, 0);
}

/// CPUs may race here: then it is told twice, which is all that can happen.
#[inline(always)]
fn told_lately(now: u64, gate: u32, kind: Kind) -> bool {
    let probe = kind == Kind::ArpProbe || kind == Kind::NdProbe;
    let key = u64::from(gate) << 1 | u64::from(probe);
    // SAFETY: a word that is replaced as a whole.
    if let Some(last) = unsafe { CONFLICT_TIMES.get(key) }
        && now < *last + SECOND
    {
        return true;
    }
    // Without memory for it, it is told again next time.
    let _ = CONFLICT_TIMES.insert(key, now, 0);
    false
}

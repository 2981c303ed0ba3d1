//! Probes that the peer's kernel reflects (row DP-9): their form on the wire, and the maps behind them.
//!
//! A probe is a UDP datagram between the heartbeat addresses of two nodes, recognised by its length and its
//! first word. It is 15 words of 64 bits, least significant byte first, so that neither the programs nor
//! user space take it apart byte by byte. All but the last are signed by the last.

use bytemuck::{Pod, Zeroable};

use crate::{Address, siphash24};

/// Words of a datagram, its tag included.
pub const PROBE_WORDS: usize = 15;
pub const PROBE_SIGNED: usize = PROBE_WORDS - 1;
/// The payload's length in bytes.
pub const PROBE_LENGTH: usize = PROBE_WORDS * 8;

/// "VIPP", version 1: the low 40 bits of the first word.
const MAGIC: u64 = 0x01_5050_4956;
const MAGIC_BITS: u32 = 40;

pub const PROBE_KIND_PROBE: u8 = 1;
pub const PROBE_KIND_FENCE: u8 = 2;
/// Added to the kind in an answer.
pub const PROBE_KIND_REFLECTED: u8 = 0x80;

/// The reflecting node's daemon has said that it lives.
pub const PROBE_ALIVE: u64 = 1;
/// All interfaces of the reflecting node that may speak for an address are guarded: its fence can be relied upon.
pub const PROBE_GUARDED: u64 = 2;

/// A probe, a fence request, or the reflection of either.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Probe {
    /// Magic and version, then kind and path, one byte each.
    pub head: u64,
    pub cluster: u64,
    /// Node ids of who sends this datagram and to whom: exchanged in a reflection.
    pub from: u64,
    pub to: u64,
    /// The prober's, and its count of datagrams to this peer on this path. A reflection repeats both.
    pub incarnation: u64,
    pub sequence: u64,
    /// When it was sent, on the prober's clock.
    pub sent_ns: u64,
    /// A fence request: lease epochs below this are to be shut for good.
    pub fence_below: u64,
    /// What follows is the reflecting node's, and zero in a request. When it received the request, on its clock.
    pub reflected_ns: u64,
    pub lease_epoch: u64,
    /// Until its lease runs out; 0 when it has.
    pub lease_remaining_ns: u64,
    /// Its fence: no gate of a lower lease epoch opens there.
    pub fence: u64,
    /// `PROBE_ALIVE`, `PROBE_GUARDED`.
    pub flags: u64,
    pub reserved: u64,
    pub tag: u64,
}

impl Probe {
    #[inline(always)]
    pub const fn head(kind: u8, path: u8) -> u64 {
        MAGIC | (kind as u64) << MAGIC_BITS | (path as u64) << (MAGIC_BITS + 8)
    }

    #[inline(always)]
    pub const fn is_ours(&self) -> bool {
        self.head & ((1 << MAGIC_BITS) - 1) == MAGIC && self.head >> (MAGIC_BITS + 16) == 0
    }

    #[inline(always)]
    pub const fn kind(&self) -> u8 {
        (self.head >> MAGIC_BITS) as u8
    }

    #[inline(always)]
    pub const fn path(&self) -> u8 {
        (self.head >> (MAGIC_BITS + 8)) as u8
    }

    /// The words that the tag stands for.
    #[inline(always)]
    pub fn signed(&self) -> &[u64; PROBE_SIGNED] {
        // SAFETY: repr(C), 15 words without padding, of which the first 14 are borrowed.
        unsafe { &*(&raw const *self).cast::<[u64; PROBE_SIGNED]>() }
    }

    /// Signs it under the key of its direction.
    pub fn sign(&mut self, key: &[u64; 2]) {
        self.tag = siphash24(key, self.signed());
    }

    /// Under which key it was signed is for the caller to know: each direction of each pair has its own.
    pub fn is_signed(&self, key: &[u64; 2]) -> bool {
        self.tag == siphash24(key, self.signed())
    }
}

/// The one value of `NODE`: as whom the programs reflect. All zero: as nobody.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct Node {
    pub cluster: u64,
    /// The node's id; 0 for none.
    pub me: u64,
    /// The incarnation under which this node probes.
    pub incarnation: u64,
    /// The daemon lives until then, as far as it said.
    pub alive_until_ns: u64,
    /// 1: all interfaces that may speak for an address are guarded.
    pub guarded: u64,
}

/// Key of `PEERS` and `PEERS_SEEN`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct PeerKey {
    pub node: u64,
    pub path: u64,
}

/// Value of `PEERS`: a peer on a path.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct PeerPath {
    /// What it signs with, and what this node signs with for it: the key in use and the other one that is accepted
    /// while the cluster's key changes, else the same again. An answer is signed with the key of the question.
    pub theirs_keys: [[u64; 2]; 2],
    pub ours_keys: [[u64; 2]; 2],
    pub theirs: Address,
    pub ours: Address,
    /// Unanswered for this long, the path is silent.
    pub timeout_ns: u64,
    /// UDP ports, in network order.
    pub theirs_port: u16,
    pub ours_port: u16,
    /// Index into `PATHS`.
    pub slot: u32,
}

/// Value of `PEERS_SEEN`: the newest datagram of a peer on a path. What is not newer is a replay.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct Seen {
    pub incarnation: u64,
    pub sequence: u64,
}

/// What the prober's kernel knows of a path: value of `PATHS`, behind a timer ([`TIMER_SIZE`] bytes).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct PathState {
    /// The peer, for the timer to tell.
    pub node: u64,
    pub path: u64,
    /// The newest probe that left, and when.
    pub departed: u64,
    pub departed_ns: u64,
    /// The oldest one not known to be answered when it left, on which the timer runs.
    pub waiting: u64,
    pub waiting_ns: u64,
    /// When the timer is to look.
    pub due_ns: u64,
    /// The newest one that was answered, and when; 0 for never.
    pub answered: u64,
    pub answered_ns: u64,
    pub rtt_ns: u64,
    pub rtt_min_ns: u64,
    /// 1: silent since `waiting` was not answered in time.
    pub silent: u64,
    pub timeout_ns: u64,
    /// Of the last reflection.
    pub lease_epoch: u64,
    pub lease_remaining_ns: u64,
    pub fence: u64,
    /// When a guarded reflection last told that fence; 0 for never.
    pub fence_ns: u64,
    pub flags: u64,
}

/// `struct bpf_timer`.
pub const TIMER_SIZE: usize = 16;

/// A path as user space reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct TimedPath {
    /// The kernel's: reads as zero.
    pub timer: [u64; 2],
    pub state: PathState,
}

/// What the programs tell user space through the ring buffer `PATH_EVENTS`: a path went silent or answers again,
/// or the peer's fence rose.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct PathEvent {
    /// CLOCK_BOOTTIME nanoseconds.
    pub time_ns: u64,
    pub node: u64,
    pub path: u64,
    /// `PATH_*`.
    pub kind: u64,
    /// The probe that was not answered in time (or was answered), and when it left.
    pub sequence: u64,
    pub departed_ns: u64,
    /// The last answer; 0 for never.
    pub answered_ns: u64,
}

pub const PATH_ANSWERS: u64 = 0;
pub const PATH_SILENT: u64 = 1;
/// The peer's fence is higher than was known.
pub const PATH_FENCED: u64 = 2;

/// Peers times paths that one node can probe.
pub const MAX_PATHS: u32 = 512;

const _: () = {
    assert!(size_of::<Probe>() == PROBE_LENGTH);
    assert!(size_of::<Node>() == 40);
    assert!(size_of::<PeerPath>() == 112);
    assert!(size_of::<TimedPath>() == TIMER_SIZE + size_of::<PathState>());
};

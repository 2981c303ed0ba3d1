//! What the XDP and tc programs share with user space: map keys, map values, names and bounds.
//!
//! Every type is `repr(C)` without hidden padding (asserted below), addresses are big-endian byte
//! arrays, and nothing here has policy: a program looks a value up and does what it says.
#![cfg_attr(target_arch = "bpf", no_std)]

mod probe;
mod siphash;

use bytemuck::{Pod, Zeroable};
pub use probe::*;
pub use siphash::siphash24;

/// Version of the layout of all pinned maps together. Any change of a type below raises it; pins of
/// another version are replaced, never reinterpreted.
pub const LAYOUT_VERSION: u32 = 4;

/// Key of the map `VIPS`: an address as 16 bytes, IPv4 in the mapped form ::ffff:a.b.c.d
/// (RFC 4291 section 2.5.5.2), so that one look-up and one map serve both families.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Address(pub [u8; 16]);

impl Address {
    pub const fn v4(octets: [u8; 4]) -> Self {
        let o = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, o[0], o[1], o[2], o[3]])
    }

    pub const fn v6(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The page that the address belongs to (a key of `PAGES`), and which of its addresses it is.
    #[inline(always)]
    pub const fn page(&self) -> (Self, u8) {
        let mut base = self.0;
        let last = base[15];
        base[15] = 0;
        (Self(base), last)
    }

    /// Tells the entry of one address from that of another (see [`Vip::mark`]): never equal for two
    /// addresses of IPv4, nor for two of one IPv6 prefix.
    #[inline(always)]
    pub const fn mark(&self) -> u64 {
        let a = &self.0;
        let high = u64::from_ne_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]);
        let low = u64::from_ne_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]);
        // Prefixes and hosts are often numbered alike: without the factor they would cancel out.
        high.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32) ^ low
    }
}

/// Value of `VIPS`, for addresses that stand alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Vip {
    /// [`Address::mark`] of the key. An entry that is removed may be reused for another key while a program
    /// still reads it: comes first because it is overwritten first, and is read last.
    pub mark: u64,
    /// Index into `GATES`.
    pub gate: u32,
    /// Index into `VIP_ACTIVITY`.
    pub slot: u32,
}

/// Key of `PAGES` is the first of 256 neighbouring addresses: an [`Address`] whose last byte is 0. The
/// value says which of them are held, all behind one gate: a few hundred pages stay in the processor's
/// caches where 65,536 entries of their own would not.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Page {
    /// [`Address::mark`] of the key, as in [`Vip`].
    pub mark: u64,
    /// Index into `GATES`.
    pub gate: u32,
    /// Index into `VIP_ACTIVITY` of the page's first address; the others follow.
    pub slot: u32,
    /// Bit `n % 64` of word `n / 64` stands for the address with the last byte `n`.
    pub members: [u64; 4],
}

/// The addresses of a page.
pub const PAGE_SIZE: u32 = 256;

/// The one value of `DIRECTORY`: which tables have anything in them, so that nothing is looked up in vain,
/// and how the activity is laid out. A table is marked as used before its first entry is made, and as empty
/// after its last is gone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct Directory {
    /// 1 while there may be entries in `VIPS`.
    pub vips: u32,
    /// 1 while there may be entries in `PAGES`.
    pub pages: u32,
    /// Slots of one CPU in `VIP_ACTIVITY`; never changes while the maps exist.
    pub slots: u32,
    pub reserved: u32,
}

/// Value of `GATES`: the addresses of one resource open and shut, and change their interface, together.
/// A gate is open while `active` is 1, its `lease_epoch` equals that of the lease and is not below the fence
/// (the one word of `FENCE`), and the lease's deadline lies in the future.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct Gate {
    pub active: u64,
    /// The lease epoch under which the gate was opened: a gate of an older lease stays shut.
    pub lease_epoch: u64,
    /// The grant's epoch, for people and for the daemon after a restart.
    pub epoch: u64,
    /// The number of the resource, for the daemon after a restart.
    pub group: u64,
    /// The interface on which the addresses are answered: where the program runs (`ingress_ifindex`).
    /// Changed only while `active` is 0.
    pub ifindex: u32,
    /// VLAN ids expected in the frame itself, outer then inner; 0 for none.
    pub vlan_outer: u16,
    pub vlan_inner: u16,
}

/// The one value of `LEASE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct Lease {
    /// Nanoseconds of CLOCK_BOOTTIME (`bpf_ktime_get_boot_ns`); 0 when there is none.
    pub deadline_ns: u64,
    pub epoch: u64,
}

/// Key of `INTERFACES` and `INTERFACE_ACTIVITY` is the ifindex (u32).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct Interface {
    pub mac: [u8; 6],
    /// `INTERFACE_*` bits.
    pub flags: u16,
    /// Answers to broadcast and all-nodes pings allowed in one second; 0 for none.
    pub broadcast_pings_per_second: u32,
    pub reserved: u32,
    /// Source of an answer to an all-nodes ping from a link-local requester; all zero for none.
    pub link_local: [u8; 16],
    /// Source of an answer to any other all-nodes ping; all zero for none.
    pub global_v6: [u8; 16],
    /// Source of an answer to a ping to 255.255.255.255; all zero for none.
    pub primary_v4: [u8; 4],
    pub reserved2: u32,
}

/// Broadcast and all-nodes pings are answered here.
pub const INTERFACE_BROADCAST_PING: u16 = 1;

/// The kernel forwards packets that arrive here: neighbour advertisements say so (RFC 4861 section 4.4, R).
pub const INTERFACE_ROUTER: u16 = 2;

/// What the programs tell user space through the ring buffer `CONFLICTS` (row DP-10): somebody else claims
/// a held address. At most one a second and gate, whatever is sent; the rest is only counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Conflict {
    /// CLOCK_BOOTTIME nanoseconds.
    pub time_ns: u64,
    pub address: [u8; 16],
    /// The number of the resource.
    pub group: u64,
    pub ifindex: u32,
    pub mac: [u8; 6],
    /// `CONFLICT_*`.
    pub kind: u16,
    pub reserved: u32,
}

pub const CONFLICT_ARP_REPLY: u16 = 1;
pub const CONFLICT_ARP_ANNOUNCEMENT: u16 = 2;
/// RFC 5227: somebody is about to use the address.
pub const CONFLICT_ARP_PROBE: u16 = 3;
pub const CONFLICT_ND_ADVERTISEMENT: u16 = 4;
/// Somebody else uses the address as the source of a packet or of a solicitation.
pub const CONFLICT_SOURCE: u16 = 5;
/// RFC 4862: somebody is about to use the address.
pub const CONFLICT_ND_PROBE: u16 = 6;

/// Key of `BROADCASTS`: a subnet's broadcast address on an interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct BroadcastKey {
    pub ifindex: u32,
    pub broadcast: [u8; 4],
}

/// Value of `BROADCASTS`: the node's stationary address in that subnet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct BroadcastSource {
    pub address: [u8; 4],
}

/// Value of `BROADCAST_RATES` (key: ifindex): answers to broadcast and all-nodes pings in one second of
/// CLOCK_BOOTTIME. Written by the programs alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct BroadcastRate {
    pub second: u64,
    pub answered: u64,
}

/// Capacity of the maps by interface.
pub const MAX_INTERFACES: u32 = 1024;

/// Capacity of `BROADCASTS`.
pub const MAX_BROADCASTS: u32 = 4096;

/// Value of `INTERFACE_ACTIVITY`, one per CPU: what an interface has heard (ingress).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct InterfaceActivity {
    pub frames: u64,
    pub bytes: u64,
    pub arp: u64,
    pub nd: u64,
    pub echo_requests: u64,
    pub echo_replies: u64,
    /// CLOCK_BOOTTIME nanoseconds; 0 for never.
    pub last_receive_ns: u64,
}

/// Value of `VIP_ACTIVITY`: an array of `Directory::slots` records for each CPU, one CPU's after the other's.
/// A plain array that user space maps into its memory: records beside each other, read and cleared without
/// a system call each, and one indirection less for the programs than a per-CPU map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct VipActivity {
    pub packets: u64,
    pub bytes: u64,
    pub last_receive_ns: u64,
}

/// Addresses that one run of `vipd_announce` announces at most. A run keeps its CPU from receiving: the
/// segment's own bridge queues one frame for each of its ports meanwhile, 1,000 by default.
pub const ANNOUNCE_CHUNK: usize = 32;

/// The one value of `ANNOUNCE`: what `vipd_announce` is to announce, and what became of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct AnnounceChunk {
    /// Where the frames leave: addresses that live elsewhere are left out.
    pub ifindex: u32,
    /// How many of the addresses are meant.
    pub count: u32,
    pub addresses: [Address; ANNOUNCE_CHUNK],
    /// `ANNOUNCED_*`, 0 where the run did not come to it.
    pub results: [u8; ANNOUNCE_CHUNK],
}

pub const ANNOUNCED_SENT: u8 = 1;
/// Not held on that interface, or its gate is closed.
pub const ANNOUNCED_SHUT: u8 = 2;
/// The interface, its queue or tc egress did not take the frame.
pub const ANNOUNCED_DROPPED: u8 = 3;

/// What became of a frame; the index into `VERDICTS` (one u64 per CPU each).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing of ours: to the kernel.
    Passed = 0,
    AnsweredArp,
    AnsweredNd,
    AnsweredEcho4,
    AnsweredEcho6,
    AnsweredBroadcastPing4,
    AnsweredAllNodesPing6,
    /// Traffic of an open VIP that is the kernel's to handle.
    PassedVip,
    /// ARP, ND, echo or other traffic to a held VIP while its gate is closed.
    DroppedClosedArp,
    DroppedClosedNd,
    DroppedClosedEcho,
    DroppedClosedOther,
    /// A broadcast ping beyond the interface's rate.
    LimitedBroadcastPing,
    /// Egress: something with a held VIP as its source while its gate is closed.
    DroppedEgress,
    /// Claims the VIP as its own source: left to the kernel and never answered.
    PassedForeignClaim,
    /// Truncated or nonsensical; left to the kernel, never answered.
    PassedMalformed,
    /// A peer's probe, reflected.
    AnsweredProbe,
    /// A peer's request to raise the fence: raised where it was lower, and reflected.
    AnsweredFence,
    /// The reflection of a probe of ours: taken down, and used up.
    DroppedReflection,
    /// Looks like a probe and is none that may be believed, or a replay: left to the kernel.
    PassedProbe,
}

pub const VERDICT_COUNT: u32 = 20;

impl Verdict {
    pub const ALL: [Self; VERDICT_COUNT as usize] = [
        Self::Passed,
        Self::AnsweredArp,
        Self::AnsweredNd,
        Self::AnsweredEcho4,
        Self::AnsweredEcho6,
        Self::AnsweredBroadcastPing4,
        Self::AnsweredAllNodesPing6,
        Self::PassedVip,
        Self::DroppedClosedArp,
        Self::DroppedClosedNd,
        Self::DroppedClosedEcho,
        Self::DroppedClosedOther,
        Self::LimitedBroadcastPing,
        Self::DroppedEgress,
        Self::PassedForeignClaim,
        Self::PassedMalformed,
        Self::AnsweredProbe,
        Self::AnsweredFence,
        Self::DroppedReflection,
        Self::PassedProbe,
    ];
}

const _: () = {
    assert!(size_of::<Vip>() == 16);
    assert!(size_of::<Page>() == 48);
    assert!(size_of::<Directory>() == 16);
    assert!(size_of::<Gate>() == 40);
    assert!(size_of::<Conflict>() == 48);
    assert!(size_of::<Lease>() == 16);
    assert!(size_of::<Interface>() == 56);
    assert!(size_of::<InterfaceActivity>() == 56);
    assert!(size_of::<VipActivity>() == 24);
    assert!(size_of::<AnnounceChunk>() == 8 + 17 * ANNOUNCE_CHUNK);
    assert!(Verdict::PassedProbe as u32 + 1 == VERDICT_COUNT);
};

#[cfg(feature = "user")]
mod user {
    use super::*;
    // SAFETY: each is repr(C), Copy, without padding and valid for any bit pattern (bytemuck::Pod).
    unsafe impl aya::Pod for Address {}
    // SAFETY: as above.
    unsafe impl aya::Pod for AnnounceChunk {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Vip {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Page {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Directory {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Conflict {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Gate {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Lease {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Interface {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BroadcastKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BroadcastSource {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BroadcastRate {}
    // SAFETY: as above.
    unsafe impl aya::Pod for InterfaceActivity {}
    // SAFETY: as above.
    unsafe impl aya::Pod for VipActivity {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Node {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PeerKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PeerPath {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Seen {}
    // SAFETY: as above.
    unsafe impl aya::Pod for TimedPath {}
}

//! All maps. Names, sizes and types are the contract with user space (`datapath_common`); capacities
//! given here are replaced at load time by those the operator configured.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap},
};
use datapath_common::{
    Address, AnnounceChunk, BroadcastKey, BroadcastRate, BroadcastSource, Directory, Gate, Interface,
    InterfaceActivity, Lease, MAX_BROADCASTS, MAX_INTERFACES, MAX_PATHS, Node, PAGE_SIZE, Page, PeerKey,
    PeerPath, Seen, VERDICT_COUNT, Vip, VipActivity,
};

const MAX_VIPS: u32 = 65_536;

// Both are preallocated: no address may be refused at a take-over for want of memory. Entries that are
// removed are reused at once, preallocated or not (the kernel's allocator for BPF does the same since
// Linux 6.1): what a program reads is checked by its mark.
#[map]
pub static VIPS: HashMap<Address, Vip> = HashMap::pinned(MAX_VIPS, 0);

#[map]
pub static PAGES: HashMap<Address, Page> = HashMap::pinned(MAX_VIPS / PAGE_SIZE, 0);

#[map]
pub static DIRECTORY: Array<Directory> = Array::pinned(1, 0);

#[map]
pub static GATES: Array<Gate> = Array::pinned(MAX_VIPS, 0);

#[map]
pub static LEASE: Array<Lease> = Array::pinned(1, 0);

/// Written by the programs; see `fence`.
#[map]
pub static FENCE: Array<u64> = Array::pinned(1, 0);

// Pinned, so that peers are answered while no daemon runs.
#[map]
pub static NODE: Array<Node> = Array::pinned(1, 0);

#[map]
pub static PEERS: HashMap<PeerKey, PeerPath> = HashMap::pinned(MAX_PATHS, 0);

/// Not pinned: a new daemon's programs begin anew, and what they may be told twice does no harm.
#[map]
pub static PEERS_SEEN: HashMap<PeerKey, Seen> = HashMap::with_max_entries(MAX_PATHS, 0);

#[map]
pub static INTERFACES: HashMap<u32, Interface> = HashMap::pinned(MAX_INTERFACES, 0);

#[map]
pub static BROADCASTS: HashMap<BroadcastKey, BroadcastSource> = HashMap::pinned(MAX_BROADCASTS, 0);

#[map]
pub static BROADCAST_RATES: HashMap<u32, BroadcastRate> = HashMap::pinned(MAX_INTERFACES, 0);

#[map]
pub static INTERFACE_ACTIVITY: PerCpuHashMap<u32, InterfaceActivity> =
    PerCpuHashMap::pinned(MAX_INTERFACES, 0);

#[map]
pub static VIP_ACTIVITY: Array<VipActivity> = Array::pinned(MAX_VIPS, BPF_F_MMAPABLE);

#[map]
pub static VERDICTS: PerCpuArray<u64> = PerCpuArray::pinned(VERDICT_COUNT, 0);

/// Not pinned: it means something only while the process that filled it runs `vipd_announce`.
#[map]
pub static ANNOUNCE: Array<AnnounceChunk> = Array::with_max_entries(1, 0);

//! Probes (row DP-9): a peer's is reflected with the state of this node's guard, whether or not its daemon
//! runs; a peer's reflection of ours is taken down. A fence request shuts lease epochs for good first.
//!
//! Whatever is not believed goes on to the kernel as it came. The payload is copied, because the handler is
//! compiled once for all network headers; only the headers are touched in the frame.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{BPF_ANY, xdp_md},
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    macros::map,
    maps::PerCpuArray,
    programs::XdpContext,
};
use datapath_common::{
    Address, Lease, Node, PROBE_ALIVE, PROBE_GUARDED, PROBE_KIND_FENCE, PROBE_KIND_PROBE,
    PROBE_KIND_REFLECTED, PROBE_LENGTH, PROBE_SIGNED, PeerKey, PeerPath, Probe, Seen, Verdict, siphash24,
};

use crate::{
    Outcome, checksum, fence,
    frame::{Destination, Frame, Wire},
    headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Tag, is_tag},
    ipv4::{self, Ipv4},
    ipv6::{self, Ipv6},
    maps::{LEASE, NODE, PEERS, PEERS_SEEN},
    sane, silence,
};

pub const UDP_PROTOCOL: u8 = 17;
pub const UDP_HEADER: usize = 8;
/// Of a datagram that can be a probe.
pub const UDP_LENGTH: u16 = (UDP_HEADER + PROBE_LENGTH) as u16;

#[repr(C)]
#[derive(Clone, Copy)]
struct Udp {
    source: u16,
    destination: u16,
    length: u16,
    checksum: u16,
}

// SAFETY: repr(C), 16-bit words only.
unsafe impl Wire for Udp {}

/// What is worked on, off the stack: there is not enough of that.
#[repr(C)]
struct Scratch {
    probe: Probe,
    source: Address,
    destination: Address,
    source_port: u16,
    destination_port: u16,
    /// Of the UDP header, once the datagram was turned round.
    checksum: u16,
    reserved: u16,
    /// The sum of both addresses.
    pseudo: u32,
    now: u64,
}

/// Of this CPU: XDP programs do not interrupt each other.
#[map]
static PROBE_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// `Passed` when it is nothing like a probe, and was not taken down.
#[inline(never)]
pub fn arrived(ctx: &XdpContext) -> Verdict {
    // The length alone rules nearly everything else out.
    // SAFETY: a helper without side effects on a valid context.
    let length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    if !(LEAST..=MOST).contains(&length) {
        return Verdict::Passed;
    }
    let mut frame = Frame::of(ctx, length);
    match dispatch(&mut frame) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

const LEAST: u64 = 14 + ipv4::HEADER as u64 + UDP_LENGTH as u64;
const MOST: u64 = 14 + 8 + ipv6::HEADER as u64 + UDP_LENGTH as u64;

#[inline(always)]
fn dispatch(frame: &mut Frame) -> Outcome {
    let nothing = |_| Verdict::Passed;
    let mut ethertype = u16::from_be(frame.at::<Ethernet>(0).map_err(nothing)?.ethertype);
    if !is_tag(ethertype) {
        return network::<14>(frame, ethertype);
    }
    ethertype = u16::from_be(frame.at::<Tag>(14).map_err(nothing)?.ethertype);
    if !is_tag(ethertype) {
        return network::<18>(frame, ethertype);
    }
    ethertype = u16::from_be(frame.at::<Tag>(18).map_err(nothing)?.ethertype);
    network::<22>(frame, ethertype)
}

#[inline(always)]
fn network<const L3: usize>(frame: &mut Frame, ethertype: u16) -> Outcome {
    match ethertype {
        ETHERTYPE_IPV4 => v4::<L3>(frame),
        ETHERTYPE_IPV6 => v6::<L3>(frame),
        _ => Ok(Verdict::Passed),
    }
}

#[inline(always)]
fn v4<const L3: usize>(frame: &mut Frame) -> Outcome {
    let ip = frame.at::<Ipv4>(L3).map_err(|_| Verdict::Passed)?;
    if !ipv4::is_plain(ip)
        || ip.protocol != UDP_PROTOCOL
        || u16::from_be(ip.total_length) != ipv4::HEADER as u16 + UDP_LENGTH
    {
        return Ok(Verdict::Passed);
    }
    let pseudo = checksum::sum(&ip.source.0) + checksum::sum(&ip.destination.0);
    let verdict = datagram(frame, ip.source.key(), ip.destination.key(), pseudo, L3 + ipv4::HEADER)?;
    if is_answer(verdict) {
        ipv4::turn(ip, ip.destination);
    }
    Ok(verdict)
}

#[inline(always)]
fn v6<const L3: usize>(frame: &mut Frame) -> Outcome {
    let ip = frame.at::<Ipv6>(L3).map_err(|_| Verdict::Passed)?;
    if ip.version >> 4 != 6 || ip.next_header != UDP_PROTOCOL || u16::from_be(ip.payload_length) != UDP_LENGTH
    {
        return Ok(Verdict::Passed);
    }
    let pseudo = checksum::sum(&ip.source.0) + checksum::sum(&ip.destination.0);
    let verdict = datagram(frame, ip.source.key(), ip.destination.key(), pseudo, L3 + ipv6::HEADER)?;
    if is_answer(verdict) {
        ipv6::turn(ip, ip.destination);
    }
    Ok(verdict)
}

#[inline(always)]
fn is_answer(verdict: Verdict) -> bool {
    verdict == Verdict::AnsweredProbe || verdict == Verdict::AnsweredFence
}

/// All but the IP header. An answer's is turned round too.
#[inline(always)]
fn datagram(frame: &mut Frame, source: Address, destination: Address, pseudo: u32, l4: usize) -> Outcome {
    let udp = frame.at::<Udp>(l4).map_err(|_| Verdict::Passed)?;
    let Some(scratch) = PROBE_SCRATCH.get_ptr_mut(0) else { return Ok(Verdict::Passed) };
    // SAFETY: this CPU's own, which no other program uses meanwhile.
    let scratch = unsafe { &mut *scratch };
    scratch.source = source;
    scratch.destination = destination;
    scratch.source_port = udp.source;
    scratch.destination_port = udp.destination;
    scratch.pseudo = pseudo;
    let offset = (l4 + UDP_HEADER) as u32;
    if !load(frame.context(), scratch, offset) {
        return Ok(Verdict::Passed);
    }
    frame.heard();
    scratch.now = frame.now;
    let interface = frame.interface().ok_or(Verdict::PassedProbe)?;
    if frame.destination(interface)? != Destination::Us || sane::sender(frame, interface).is_err() {
        return Ok(Verdict::PassedProbe);
    }
    let verdict = match believe(frame.context(), scratch, offset) {
        REFLECTED => Verdict::AnsweredProbe,
        FENCED => Verdict::AnsweredFence,
        TAKEN => return Ok(Verdict::DroppedReflection),
        _ => return Ok(Verdict::PassedProbe),
    };
    (udp.source, udp.destination) = (udp.destination, udp.source);
    udp.checksum = scratch.checksum;
    let ethernet = frame.at::<Ethernet>(0)?;
    (ethernet.source, ethernet.destination) = (ethernet.destination, ethernet.source);
    Ok(verdict)
}

/// The payload, if it begins like a probe.
#[inline(always)]
fn load(context: *mut xdp_md, scratch: &mut Scratch, offset: u32) -> bool {
    // SAFETY: the context is valid, and the buffer is as long as is said.
    let loaded =
        unsafe { bpf_xdp_load_bytes(context, offset, (&raw mut scratch.probe).cast(), PROBE_LENGTH as u32) };
    loaded == 0 && scratch.probe.is_ours()
}

/// Not inlined: one copy serves all headers, and both ways.
#[inline(never)]
pub fn tag(words: &[u64; PROBE_SIGNED], key: &[u64; 2]) -> u64 {
    siphash24(key, words)
}

const DOUBTED: u32 = 0;
const REFLECTED: u32 = 1;
const FENCED: u32 = 2;
const TAKEN: u32 = 3;

/// Judges the datagram; a request becomes its own reflection, in the frame. Not inlined: one copy serves all
/// headers.
#[inline(never)]
fn believe(context: *mut xdp_md, scratch: &mut Scratch, offset: u32) -> u32 {
    judge(context, scratch, offset).unwrap_or(DOUBTED)
}

#[inline(always)]
fn judge(context: *mut xdp_md, scratch: &mut Scratch, offset: u32) -> Option<u32> {
    let probe = &mut scratch.probe;
    let node: &Node = NODE.get(0)?;
    if node.me == 0 || probe.to != node.me || probe.cluster != node.cluster {
        return None;
    }
    let key = PeerKey { node: probe.from, path: u64::from(probe.path()) };
    // SAFETY: an entry is replaced as a whole, when members change; what is read torn fits no tag.
    let peer: &PeerPath = unsafe { PEERS.get(key) }?;
    if scratch.source.0 != peer.theirs.0
        || scratch.destination.0 != peer.ours.0
        || scratch.source_port != peer.theirs_port
        || scratch.destination_port != peer.ours_port
    {
        return None;
    }
    let ours_key = if probe.tag == tag(probe.signed(), &peer.theirs_keys[0]) {
        &peer.ours_keys[0]
    } else if probe.tag == tag(probe.signed(), &peer.theirs_keys[1]) {
        &peer.ours_keys[1]
    } else {
        return None;
    };
    let answer = match probe.kind() {
        PROBE_KIND_PROBE => {
            fresh(&key, probe)?;
            REFLECTED
        }
        PROBE_KIND_FENCE => {
            fresh(&key, probe)?;
            fence::raise(probe.fence_below);
            FENCED
        }
        kind if kind & PROBE_KIND_REFLECTED != 0 && probe.incarnation == node.incarnation => {
            silence::answered(peer, probe, scratch.now)?;
            return Some(TAKEN);
        }
        _ => return None,
    };
    reflect(probe, node, ours_key, scratch.now);
    let sum = scratch.pseudo
        + u32::from(u16::from(UDP_PROTOCOL).to_be())
        + 2 * u32::from(UDP_LENGTH.to_be())
        + u32::from(scratch.source_port)
        + u32::from(scratch.destination_port)
        + u32::from(checksum::fold_long(words_sum(probe)));
    let sum = !checksum::fold(sum);
    scratch.checksum = if sum == 0 { 0xffff } else { sum };
    // SAFETY: as in `load`.
    let stored =
        unsafe { bpf_xdp_store_bytes(context, offset, (&raw mut *probe).cast(), PROBE_LENGTH as u32) };
    (stored == 0).then_some(answer)
}

/// Newer than all before it on its path: takes it down. Two CPUs that race here may both believe one datagram:
/// then it is reflected twice, which does no harm.
#[inline(always)]
fn fresh(key: &PeerKey, probe: &Probe) -> Option<()> {
    let Some(seen) = PEERS_SEEN.get_ptr_mut(key) else {
        let first = Seen { incarnation: probe.incarnation, sequence: probe.sequence };
        return PEERS_SEEN.insert(key, first, u64::from(BPF_ANY)).ok();
    };
    // SAFETY: elements of a preallocated map stay mapped.
    unsafe {
        let (incarnation, sequence) =
            (read_volatile(&raw const (*seen).incarnation), read_volatile(&raw const (*seen).sequence));
        if probe.incarnation < incarnation || (probe.incarnation == incarnation && probe.sequence <= sequence)
        {
            return None;
        }
        write_volatile(&raw mut (*seen).sequence, probe.sequence);
        write_volatile(&raw mut (*seen).incarnation, probe.incarnation);
    }
    Some(())
}

#[inline(always)]
fn reflect(probe: &mut Probe, node: &Node, key: &[u64; 2], now: u64) {
    probe.head |= Probe::head(PROBE_KIND_REFLECTED, 0);
    (probe.from, probe.to) = (probe.to, probe.from);
    probe.reflected_ns = now;
    if let Some(lease) = LEASE.get_ptr(0) {
        // SAFETY: points into a map that outlives the program. Only told: nothing is decided by it.
        let Lease { deadline_ns, epoch } = unsafe { read_volatile(lease) };
        probe.lease_epoch = epoch;
        probe.lease_remaining_ns = deadline_ns.saturating_sub(now);
    }
    probe.fence = fence::stands();
    let alive = if now < node.alive_until_ns { PROBE_ALIVE } else { 0 };
    let guarded = if node.guarded != 0 { PROBE_GUARDED } else { 0 };
    probe.flags = alive | guarded;
    probe.reserved = 0;
    probe.tag = tag(probe.signed(), key);
}

/// The sum of the payload's 32-bit halves.
#[inline(always)]
fn words_sum(probe: &Probe) -> u64 {
    let mut sum = 0;
    let words = probe.signed();
    let mut i = 0;
    while i < PROBE_SIGNED {
        sum += (words[i] & 0xffff_ffff) + (words[i] >> 32);
        i += 1;
    }
    sum + (probe.tag & 0xffff_ffff) + (probe.tag >> 32)
}

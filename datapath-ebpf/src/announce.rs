//! Announcements made in the kernel (row IP-16): user space hands over a frame for no address yet and a
//! chunk of addresses, and runs this program with BPF_PROG_TEST_RUN. Each address whose gate is open is
//! written into the frame, and a copy of it leaves by the interface.
//!
//! The copies pass tc egress like any other frame. The gate is judged here too, because the egress guard
//! may not be attached to an interface that takes no programs.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_clone_redirect, bpf_ktime_get_boot_ns},
    programs::TcContext,
};
use datapath_common::{
    ANNOUNCE_CHUNK, ANNOUNCED_DROPPED, ANNOUNCED_SENT, ANNOUNCED_SHUT, Address, AnnounceChunk,
};

use crate::{
    checksum,
    frame::Wire,
    gate,
    headers::{Ethernet, V4, V6},
    maps::ANNOUNCE,
};

const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

const ARP_SENDER: usize = 14 + 14;
const ARP_TARGET: usize = 14 + 24;

const IPV6_SOURCE: usize = 14 + 8;
const ICMPV6_CHECKSUM: usize = 14 + 40 + 2;
const ND_TARGET: usize = 14 + 40 + 8;

/// What is the same for all frames of a run.
#[derive(Clone, Copy)]
enum Kind {
    Arp,
    /// The sum that the checksum stands for, while the address is `::`.
    Advertisement(u16),
}

/// How many frames left; `results` of the chunk say which.
#[inline(always)]
pub fn run(ctx: &TcContext) -> u32 {
    let Some(chunk) = ANNOUNCE.get_ptr_mut(0) else { return 0 };
    // SAFETY: an array's element stays mapped; user space touches it only between runs.
    let chunk: &mut AnnounceChunk = unsafe { &mut *chunk };
    let skb = ctx.skb.skb;
    let Some(kind) = kind(skb) else { return 0 };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let mut sent = 0;
    for i in 0..ANNOUNCE_CHUNK {
        if i >= chunk.count as usize {
            break;
        }
        let address = chunk.addresses[i];
        chunk.results[i] = if !gate::speaks(&address, chunk.ifindex, now) {
            ANNOUNCED_SHUT
        } else if write(skb, kind, &address).is_none() {
            return sent;
        // SAFETY: the context is valid; no pointer into the frame is used after this call.
        } else if unsafe { bpf_clone_redirect(skb, chunk.ifindex, 0) } == 0 {
            sent += 1;
            ANNOUNCED_SENT
        } else {
            ANNOUNCED_DROPPED
        };
    }
    sent
}

#[inline(always)]
fn kind(skb: *mut __sk_buff) -> Option<Kind> {
    match u16::from_be(at::<Ethernet>(skb, 0)?.ethertype) {
        ARP => Some(Kind::Arp),
        IPV6 => Some(Kind::Advertisement(!at::<[u16; 1]>(skb, ICMPV6_CHECKSUM)?[0])),
        _ => None,
    }
}

/// Makes the frame that of the address. None when it is too short.
#[inline(always)]
fn write(skb: *mut __sk_buff, kind: Kind, address: &Address) -> Option<()> {
    let a = &address.0;
    match kind {
        Kind::Arp => {
            let v4 = V4::from_octets([a[12], a[13], a[14], a[15]]);
            *at::<V4>(skb, ARP_TARGET)? = v4;
            *at::<V4>(skb, ARP_SENDER)? = v4;
        }
        Kind::Advertisement(sum) => {
            let v6 = V6::from_octets(*a);
            *at::<V6>(skb, ND_TARGET)? = v6;
            *at::<V6>(skb, IPV6_SOURCE)? = v6;
            // It is summed twice: as the source, in the pseudo-header, and as the target.
            let sum = u32::from(sum) + 2 * checksum::sum(&v6.0);
            *at::<[u16; 1]>(skb, ICMPV6_CHECKSUM)? = [!checksum::fold(sum)];
        }
    }
    Some(())
}

/// The bytes at `offset`, or None when the frame is shorter.
#[inline(always)]
fn at<T: Wire>(skb: *mut __sk_buff, offset: usize) -> Option<&'static mut T> {
    // SAFETY: the kernel hands a valid `__sk_buff` to the program.
    let (start, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    if start + offset + size_of::<T>() > end {
        return None;
    }
    // SAFETY: within the frame (checked above, and again by the verifier, which also sees to it that
    // nothing is kept across a call that moves the frame); `T` is valid for any bytes.
    Some(unsafe { &mut *((start + offset) as *mut T) })
}

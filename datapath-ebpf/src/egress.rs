//! Egress guard (row DP-15): while a gate is closed nothing leaves in the name of its address, on
//! whatever interface, tagged or not: no packet, no ARP, no neighbour discovery. Old connections and
//! the kernel's own requests would else pull clients back to a host that no longer owns the address.
//!
//! While it is open, the kernel would also answer for the address on other interfaces, with their hardware
//! addresses ("ARP flux"): what says that the address is at another station than the interface on which it
//! lives is dropped as well. Compared is the hardware address and not the interface, because a frame of a
//! VLAN, bridge or macvlan device leaves through others.
//!
//! Probes for an address that is not claimed yet (ARP with sender 0.0.0.0, solicitations from ::) name
//! it as the target only, and pass.

use aya_ebpf::programs::TcContext;
use datapath_common::Address;

use crate::gate;

const SOURCE_AT: usize = 6;
const ETHERTYPE_AT: usize = 12;
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
const TAG: usize = 4;

const ARP_OPERATION: usize = 6;
const ARP_SENDER: usize = 14;
const ARP_TARGET: usize = 24;
const REPLY: u16 = 2;
const IPV4_SOURCE: usize = 12;
const IPV6_NEXT_HEADER: usize = 6;
const IPV6_SOURCE: usize = 8;
const IPV6_HEADER: usize = 40;
const ICMPV6: u8 = 58;
const ADVERTISEMENT: u8 = 136;
const ADVERTISED: usize = IPV6_HEADER + 8;

/// The frame speaks for an address whose gate is closed.
#[inline(always)]
pub fn forbidden(ctx: &TcContext) -> bool {
    speaks_for_shut(ctx).unwrap_or(false)
}

/// None for a frame too short to name an address.
#[inline(always)]
fn speaks_for_shut(ctx: &TcContext) -> Option<bool> {
    let mut offset = ETHERTYPE_AT;
    let mut ethertype = word(ctx, offset)?;
    for _ in 0..2 {
        if ethertype != VLAN && ethertype != QINQ {
            break;
        }
        offset += TAG;
        ethertype = word(ctx, offset)?;
    }
    let l3 = offset + 2;
    match ethertype {
        IPV4 => Some(gate::shut(&Address::v4(ctx.load(l3 + IPV4_SOURCE).ok()?))),
        ARP => arp(ctx, l3),
        IPV6 => ipv6(ctx, l3),
        _ => Some(false),
    }
}

#[inline(always)]
fn arp(ctx: &TcContext, l3: usize) -> Option<bool> {
    let sender: [u8; 4] = ctx.load(l3 + ARP_SENDER).ok()?;
    let address = Address::v4(sender);
    if gate::shut(&address) {
        return Some(true);
    }
    // A request for another address is only how the kernel resolves, whatever way the answer takes.
    let claims =
        word(ctx, l3 + ARP_OPERATION)? == REPLY || ctx.load::<[u8; 4]>(l3 + ARP_TARGET).ok()? == sender;
    Some(claims && gate::is_elsewhere(&address, ctx.load(SOURCE_AT).ok()?))
}

#[inline(always)]
fn ipv6(ctx: &TcContext, l3: usize) -> Option<bool> {
    if gate::shut(&Address::v6(ctx.load(l3 + IPV6_SOURCE).ok()?)) {
        return Some(true);
    }
    let advertises = ctx.load::<u8>(l3 + IPV6_NEXT_HEADER).ok()? == ICMPV6
        && ctx.load::<u8>(l3 + IPV6_HEADER).ok()? == ADVERTISEMENT;
    if !advertises {
        return Some(false);
    }
    let address = Address::v6(ctx.load(l3 + ADVERTISED).ok()?);
    Some(gate::shut(&address) || gate::is_elsewhere(&address, ctx.load(SOURCE_AT).ok()?))
}

#[inline(always)]
fn word(ctx: &TcContext, offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(ctx.load(offset).ok()?))
}

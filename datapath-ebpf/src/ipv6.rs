//! IPv6: neighbour solicitations, what is addressed to a held address, and all-nodes pings.

use datapath_common::Verdict;

use crate::{
    Outcome, activity, broadcast, checksum, echo,
    frame::{Destination, Frame, Wire},
    gate,
    headers::{V6, Vlans},
    nd, sane,
};

pub const ICMPV6: u8 = 58;
const HOP_LIMIT: u8 = 64;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    pub version: u8,
    class_flow: u8,
    flow: u16,
    pub payload_length: u16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: V6,
    pub destination: V6,
}

// SAFETY: repr(C), bytes and 16-bit words only.
unsafe impl Wire for Ipv6 {}

pub const HEADER: usize = size_of::<Ipv6>();

#[inline(always)]
pub fn handle<const L3: usize>(mut frame: Frame, vlans: Vlans) -> Outcome {
    let ip = frame.at::<Ipv6>(L3)?;
    if ip.version >> 4 != 6 {
        return Ok(Verdict::PassedMalformed);
    }
    let icmp = ip.next_header == ICMPV6;
    if icmp {
        match *frame.at::<u8>(L3 + HEADER)? {
            nd::SOLICITATION => {
                if let Some(verdict) = nd::solicitation::<L3>(&mut frame, vlans)? {
                    return Ok(verdict);
                }
            }
            nd::ADVERTISEMENT => {
                if let Some(verdict) = nd::advertisement::<L3>(&mut frame, vlans)? {
                    return Ok(verdict);
                }
            }
            _ => {}
        }
    }
    let ip = frame.at::<Ipv6>(L3)?;
    let kind = if icmp { echo::kind::<L3, HEADER>(&frame) } else { echo::NO_ECHO };
    let request = kind == echo::REQUEST_V6;
    if let Some(activity) = frame.activity() {
        activity.echo_requests += u64::from(request);
        activity.echo_replies += u64::from(kind == echo::REPLY_V6);
    }
    if ip.destination.is_multicast() {
        return if request && ip.destination == V6::ALL_NODES && vlans == Vlans::NONE {
            broadcast::all_nodes_ping::<L3>(&frame, ip)
        } else {
            Ok(Verdict::Passed)
        };
    }

    let Some(held) = gate::held(&frame, vlans, &ip.destination.key()) else {
        return Ok(Verdict::Passed);
    };
    let Some(interface) = frame.interface() else { return Ok(Verdict::PassedVip) };
    let destination = frame.destination(interface)?;
    if destination == Destination::Others {
        return Ok(Verdict::Passed);
    }
    activity::heard_for(&held, &frame);
    if !gate::open(&held, frame.now) {
        return Ok(if request { Verdict::DroppedClosedEcho } else { Verdict::DroppedClosedOther });
    }
    if ip.source == ip.destination {
        return Ok(Verdict::PassedForeignClaim);
    }
    if !request || destination != Destination::Us {
        return Ok(Verdict::PassedVip);
    }
    let asker = sane::sender(&frame, interface)?;
    echo_is_whole::<L3>(&frame, ip)?;
    echo::turn_v6::<L3>(&frame, |sum| sum)?;
    turn(ip, ip.destination);
    frame.send_to(asker, interface)?;
    Ok(Verdict::AnsweredEcho6)
}

/// The packet lies in the frame as a whole and its source can be answered.
#[inline(always)]
pub fn echo_is_whole<const L3: usize>(frame: &Frame, ip: &Ipv6) -> Result<(), Verdict> {
    let payload = usize::from(u16::from_be(ip.payload_length));
    let sound = payload >= echo::HEADER && L3 + HEADER + payload <= frame.length && sane::host_v6(ip.source);
    if sound { Ok(()) } else { Err(Verdict::PassedMalformed) }
}

/// Sends the packet back, `from` that address.
#[inline(always)]
pub fn turn(ip: &mut Ipv6, from: V6) {
    ip.hop_limit = HOP_LIMIT;
    ip.destination = ip.source;
    ip.source = from;
}

/// The ICMPv6 checksum of a packet whose address changed from `old` to `new`.
#[inline(always)]
pub fn readdressed(checksum: u16, old: V6, new: V6) -> u16 {
    let mut complement = [0; 8];
    let mut i = 0;
    while i < 8 {
        complement[i] = !old.0[i];
        i += 1;
    }
    let sum = u32::from(!checksum) + checksum::sum(&complement) + checksum::sum(&new.0);
    !checksum::fold(sum)
}

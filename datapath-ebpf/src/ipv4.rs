//! IPv4: what is addressed to a held address, and broadcast pings.

use datapath_common::Verdict;

use crate::{
    Outcome, activity, broadcast, checksum, echo,
    frame::{Destination, Frame, Wire},
    gate,
    headers::{Ethernet, Mac, V4, Vlans},
    sane,
};

const ICMP: u8 = 1;
/// Time to live of an answer, as Linux has it.
pub const TTL: u8 = 64;
/// More-fragments flag and fragment offset.
const FRAGMENT: u16 = 0x3fff;
/// Version 4, five words: no options.
const PLAIN: u8 = 0x45;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    version_length: u8,
    service: u8,
    pub total_length: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    pub protocol: u8,
    checksum: u16,
    pub source: V4,
    pub destination: V4,
}

// SAFETY: repr(C), bytes and 16-bit words only.
unsafe impl Wire for Ipv4 {}

pub const HEADER: usize = size_of::<Ipv4>();

/// No options, no fragment.
#[inline(always)]
pub fn is_plain(ip: &Ipv4) -> bool {
    ip.version_length == PLAIN && u16::from_be(ip.fragment) & FRAGMENT == 0
}

#[inline(always)]
pub fn handle<const L3: usize>(mut frame: Frame, vlans: Vlans) -> Outcome {
    let ip = frame.at::<Ipv4>(L3)?;
    if ip.version_length >> 4 != 4 {
        return Ok(Verdict::PassedMalformed);
    }
    let plain = is_plain(ip);
    let kind = if plain && ip.protocol == ICMP { echo::kind::<L3, HEADER>(&frame) } else { echo::NO_ECHO };
    let request = kind == echo::REQUEST_V4;
    if let Some(activity) = frame.activity() {
        activity.echo_requests += u64::from(request);
        activity.echo_replies += u64::from(kind == echo::REPLY_V4);
    }

    let Some(held) = gate::held(&frame, vlans, &ip.destination.key()) else {
        let broadcast = frame.at::<Ethernet>(0)?.destination == Mac::BROADCAST;
        return if request && broadcast && vlans == Vlans::NONE {
            broadcast::subnet_ping::<L3>(&frame, ip)
        } else {
            Ok(Verdict::Passed)
        };
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
    echo::turn_v4::<L3>(&frame)?;
    turn(ip, ip.destination);
    frame.send_to(asker, interface)?;
    Ok(Verdict::AnsweredEcho4)
}

/// The packet lies in the frame as a whole, with room for an echo header, its header checksum holds,
/// and its source can be answered.
#[inline(always)]
pub fn echo_is_whole<const L3: usize>(frame: &Frame, ip: &Ipv4) -> Result<(), Verdict> {
    let total = usize::from(u16::from_be(ip.total_length));
    let words = frame.at::<[u16; HEADER / 2]>(L3)?;
    let sound = total >= HEADER + echo::HEADER
        && L3 + total <= frame.length
        && checksum::fold(checksum::sum(words)) == 0xffff
        && sane::host_v4(frame, ip.source);
    if sound { Ok(()) } else { Err(Verdict::PassedMalformed) }
}

/// Sends the packet back, `from` that address. The header checksum follows the changes.
#[inline(always)]
pub fn turn(ip: &mut Ipv4, from: V4) {
    let life = u16::from_ne_bytes([ip.ttl, ip.protocol]);
    ip.ttl = TTL;
    let renewed = u16::from_ne_bytes([TTL, ip.protocol]);
    let mut sum = checksum::replaced(ip.checksum, life, renewed);
    sum = checksum::replaced(sum, ip.destination.0[0], from.0[0]);
    sum = checksum::replaced(sum, ip.destination.0[1], from.0[1]);
    ip.checksum = sum;
    ip.destination = ip.source;
    ip.source = from;
}

//! Neighbour discovery (RFC 4861): solicitations for held addresses are answered with an advertisement.

use datapath_common::{INTERFACE_ROUTER, Verdict};

use crate::{
    activity, checksum,
    conflict::{self, Kind},
    frame::{Destination, Frame, Wire},
    gate,
    headers::{Ethernet, Mac, V6, Vlans},
    ipv6::{self, ICMPV6, Ipv6},
    sane,
};

pub const SOLICITATION: u8 = 135;
pub const ADVERTISEMENT: u8 = 136;

/// A router would have forwarded with less: the sender is on this link (RFC 4861 section 7.1.1).
const HOP_LIMIT: u8 = 255;
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Options are counted in units of eight bytes; a solicitation with more than these is the kernel's.
const UNITS_MAX: usize = 16;

/// Solicitation and advertisement differ in `kind` and `flags` only.
#[repr(C)]
#[derive(Clone, Copy)]
struct Message {
    kind: u8,
    code: u8,
    checksum: u16,
    flags: u8,
    reserved: [u8; 3],
    target: V6,
}

/// A link-layer address option of an Ethernet (RFC 2464 section 6).
#[repr(C)]
#[derive(Clone, Copy)]
struct LinkLayer {
    kind: u8,
    units: u8,
    mac: Mac,
}

// SAFETY: repr(C), bytes and 16-bit words only.
unsafe impl Wire for Message {}
// SAFETY: as above.
unsafe impl Wire for LinkLayer {}

const MESSAGE: usize = size_of::<Message>();
const UNIT: usize = size_of::<LinkLayer>();
/// An advertisement with its one option.
const ANSWER: usize = MESSAGE + UNIT;

/// The sender speaks for the address, which is ours to look at only if it is held.
#[inline(always)]
fn claimed(frame: &Frame, vlans: Vlans, address: V6, kind: Kind) -> Result<Option<Verdict>, Verdict> {
    let address = address.key();
    let Some(held) = gate::held(frame, vlans, &address) else { return Ok(None) };
    if let Some(interface) = frame.interface() {
        let mac = frame.at::<Ethernet>(0)?.source;
        conflict::report(frame, interface, &held, address, mac, kind);
    }
    Ok(Some(Verdict::PassedForeignClaim))
}

/// Somebody's advertisement: ours to look at only if it speaks for a held address.
#[inline(always)]
pub fn advertisement<const L3: usize>(frame: &mut Frame, vlans: Vlans) -> Result<Option<Verdict>, Verdict> {
    if let Some(activity) = frame.activity() {
        activity.nd += 1;
    }
    let message = frame.at::<Message>(L3 + ipv6::HEADER)?;
    claimed(frame, vlans, message.target, Kind::NdAdvertisement)
}

/// None when the target is not held: then it is like any other packet.
#[inline(always)]
pub fn solicitation<const L3: usize>(frame: &mut Frame, vlans: Vlans) -> Result<Option<Verdict>, Verdict> {
    if let Some(activity) = frame.activity() {
        activity.nd += 1;
    }
    let ip = frame.at::<Ipv6>(L3)?;
    let message = frame.at::<Message>(L3 + ipv6::HEADER)?;
    let target = message.target;
    let asker = ip.source;
    if asker == target {
        return claimed(frame, vlans, target, Kind::Source);
    }
    let Some(held) = gate::held(frame, vlans, &target.key()) else {
        return if asker == V6::ZERO { Ok(None) } else { claimed(frame, vlans, asker, Kind::Source) };
    };
    let Some(interface) = frame.interface() else { return Ok(Some(Verdict::PassedVip)) };
    if frame.destination(interface)? == Destination::Others {
        return Ok(Some(Verdict::Passed));
    }
    activity::heard_for(&held, frame);
    if !gate::open(&held, frame.now) {
        return Ok(Some(Verdict::DroppedClosedNd));
    }

    let probe = asker == V6::ZERO;
    let to_group = ip.destination == target.solicited_node();
    let addressed = to_group || (!probe && ip.destination == target);
    if ip.hop_limit != HOP_LIMIT
        || message.code != 0
        || target.is_multicast()
        || !addressed
        || !(probe || sane::host_v6(asker))
    {
        return Ok(Some(Verdict::PassedMalformed));
    }
    let mut to = sane::sender(frame, interface)?;
    if let Some(told) = options::<L3>(frame, ip)? {
        if probe || !sane::station(told, interface) {
            return Ok(Some(Verdict::PassedMalformed));
        }
        to = told;
    }

    if probe {
        conflict::report(frame, interface, &held, target.key(), to, Kind::NdProbe);
    }
    if !frame.resize(L3 + ipv6::HEADER + ANSWER) {
        return Ok(Some(Verdict::PassedVip));
    }
    let ip = frame.at::<Ipv6>(L3)?;
    ip.payload_length = (ANSWER as u16).to_be();
    ip.source = target;
    ip.destination = if probe { V6::ALL_NODES } else { asker };
    let message = frame.at::<Message>(L3 + ipv6::HEADER)?;
    message.kind = ADVERTISEMENT;
    message.checksum = 0;
    let router = if interface.flags & INTERFACE_ROUTER != 0 { ROUTER } else { 0 };
    message.flags = router | if probe { OVERRIDE } else { SOLICITED | OVERRIDE };
    message.reserved = [0; 3];
    let option = frame.at::<LinkLayer>(L3 + ipv6::HEADER + MESSAGE)?;
    *option = LinkLayer { kind: OPTION_TARGET, units: 1, mac: Mac::of(interface) };
    let sum = pseudo_header(ip) + checksum::sum(frame.at::<[u16; ANSWER / 2]>(L3 + ipv6::HEADER)?);
    frame.at::<Message>(L3 + ipv6::HEADER)?.checksum = !checksum::fold(sum);
    frame.send_to(if probe { Mac::ALL_NODES } else { to }, interface)?;
    Ok(Some(Verdict::AnsweredNd))
}

/// Goes over the whole message once: its checksum must hold, its options have lengths and fill it.
/// Answers the source link-layer address that it names, if any.
#[inline(always)]
fn options<const L3: usize>(frame: &Frame, ip: &Ipv6) -> Result<Option<Mac>, Verdict> {
    let length = usize::from(u16::from_be(ip.payload_length));
    if length < MESSAGE || !(length - MESSAGE).is_multiple_of(UNIT) {
        return Err(Verdict::PassedMalformed);
    }
    let units = (length - MESSAGE) / UNIT;
    if units > UNITS_MAX {
        return Err(Verdict::PassedVip);
    }
    let mut sum = pseudo_header(ip) + checksum::sum(frame.at::<[u16; MESSAGE / 2]>(L3 + ipv6::HEADER)?);
    let mut told = None;
    // Units until the next option begins.
    let mut rest = 0;
    for unit in 0..UNITS_MAX {
        if unit >= units {
            break;
        }
        let offset = L3 + ipv6::HEADER + MESSAGE + unit * UNIT;
        sum += checksum::sum(frame.at::<[u16; UNIT / 2]>(offset)?);
        if rest == 0 {
            let option = frame.at::<LinkLayer>(offset)?;
            if option.units == 0 {
                return Err(Verdict::PassedMalformed);
            }
            rest = option.units;
            if option.kind == OPTION_SOURCE {
                if option.units != 1 {
                    return Err(Verdict::PassedMalformed);
                }
                told = Some(option.mac);
            }
        }
        rest -= 1;
    }
    if rest == 0 && checksum::fold(sum) == 0xffff { Ok(told) } else { Err(Verdict::PassedMalformed) }
}

/// RFC 8200 section 8.1.
#[inline(always)]
fn pseudo_header(ip: &Ipv6) -> u32 {
    checksum::sum(&ip.source.0)
        + checksum::sum(&ip.destination.0)
        + u32::from(ip.payload_length)
        + u32::from(u16::from(ICMPV6).to_be())
}

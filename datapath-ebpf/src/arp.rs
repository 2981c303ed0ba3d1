//! ARP (RFC 826) and its probes (RFC 5227): who-has requests for held addresses are answered.

use datapath_common::Verdict;

use crate::{
    Outcome, activity,
    conflict::{self, Kind},
    frame::{Destination, Frame, Wire},
    gate,
    headers::{Mac, V4, Vlans},
    sane,
};

const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const HARDWARE_ETHERNET: u16 = 1;
const PROTOCOL_IPV4: u16 = 0x0800;
/// Hardware addresses of 6 bytes, protocol addresses of 4.
const SIZES: u16 = 0x0604;

#[repr(C)]
#[derive(Clone, Copy)]
struct Arp {
    hardware: u16,
    protocol: u16,
    sizes: u16,
    operation: u16,
    sender_mac: Mac,
    sender: V4,
    target_mac: Mac,
    target: V4,
}

// SAFETY: repr(C), 16-bit words only.
unsafe impl Wire for Arp {}

/// A packet for somebody else: ours to look at only if its sender speaks for a held address (RFC 5227
/// section 2.4).
#[inline(always)]
fn claimed(frame: &Frame, vlans: Vlans, arp: &Arp, kind: Kind) -> Verdict {
    if arp.sender == V4::ZERO {
        return Verdict::Passed;
    }
    let address = arp.sender.key();
    let Some(held) = gate::held(frame, vlans, &address) else { return Verdict::Passed };
    if let Some(interface) = frame.interface() {
        conflict::report(frame, interface, &held, address, arp.sender_mac, kind);
    }
    Verdict::PassedForeignClaim
}

#[inline(always)]
pub fn handle<const L3: usize>(mut frame: Frame, vlans: Vlans) -> Outcome {
    if let Some(activity) = frame.activity() {
        activity.arp += 1;
    }
    let arp = frame.at::<Arp>(L3)?;
    if u16::from_be(arp.hardware) != HARDWARE_ETHERNET
        || u16::from_be(arp.protocol) != PROTOCOL_IPV4
        || u16::from_be(arp.sizes) != SIZES
    {
        return Ok(Verdict::PassedMalformed);
    }
    if u16::from_be(arp.operation) != REQUEST {
        return Ok(claimed(&frame, vlans, arp, Kind::ArpReply));
    }
    if arp.sender == arp.target {
        return Ok(claimed(&frame, vlans, arp, Kind::ArpAnnouncement)); // RFC 5227 section 3
    }
    let Some(held) = gate::held(&frame, vlans, &arp.target.key()) else {
        return Ok(claimed(&frame, vlans, arp, Kind::Source));
    };
    let Some(interface) = frame.interface() else { return Ok(Verdict::PassedVip) };
    if frame.destination(interface)? == Destination::Others {
        return Ok(Verdict::Passed);
    }
    activity::heard_for(&held, &frame);
    if !gate::open(&held, frame.now) {
        return Ok(Verdict::DroppedClosedArp);
    }
    sane::sender(&frame, interface)?;
    if !sane::station(arp.sender_mac, interface)
        || !(arp.sender == V4::ZERO || sane::host_v4(&frame, arp.sender))
    {
        return Ok(Verdict::PassedMalformed);
    }

    if arp.sender == V4::ZERO {
        let (address, mac) = (arp.target.key(), arp.sender_mac);
        conflict::report(&frame, interface, &held, address, mac, Kind::ArpProbe);
    }
    let asker = arp.sender_mac;
    arp.operation = REPLY.to_be();
    arp.target_mac = asker;
    core::mem::swap(&mut arp.sender, &mut arp.target);
    arp.sender_mac = Mac::of(interface);
    frame.send_to(asker, interface)?;
    Ok(Verdict::AnsweredArp)
}

//! ARP (RFC 826) and its probes (RFC 5227): who-has requests for held addresses are answered.

use datapath_common::Verdict;

use crate::{
    Outcome, activity,
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
        // Somebody's reply: ours to look at only if it speaks for a held address.
        return Ok(match gate::held(&frame, vlans, &arp.sender.key()) {
            Some(_) => Verdict::PassedForeignClaim,
            None => Verdict::Passed,
        });
    }
    let Some(held) = gate::held(&frame, vlans, &arp.target.key()) else {
        return Ok(Verdict::Passed);
    };
    if arp.sender == arp.target {
        return Ok(Verdict::PassedForeignClaim); // an announcement (RFC 5227 section 3)
    }
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

    let asker = arp.sender_mac;
    arp.operation = REPLY.to_be();
    arp.target_mac = asker;
    core::mem::swap(&mut arp.sender, &mut arp.target);
    arp.sender_mac = Mac::of(interface);
    frame.send_to(asker, interface)?;
    Ok(Verdict::AnsweredArp)
}

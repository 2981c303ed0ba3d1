//! Pings to everybody (row DP-4): answered from the node's stationary address, so that each node is a
//! responder to its peers' broadcast ping although kernels ignore them. Limited in rate: many answers
//! to one forged request would make the segment an amplifier.

use aya_ebpf::bindings::BPF_NOEXIST;
use datapath_common::{BroadcastKey, BroadcastRate, INTERFACE_BROADCAST_PING, Interface, Verdict};

use crate::{
    Outcome, echo,
    frame::Frame,
    headers::{Ethernet, Mac, V4, V6},
    ipv4::{self, Ipv4},
    ipv6::{self, Ipv6},
    maps::{BROADCAST_RATES, BROADCASTS},
    sane,
};

const SECOND: u64 = 1_000_000_000;

/// An echo request in a broadcast frame whose destination is no held address.
#[inline(always)]
pub fn subnet_ping<const L3: usize>(frame: &Frame, ip: &mut Ipv4) -> Outcome {
    let Some(interface) = responder(frame) else { return Ok(Verdict::Passed) };
    let from = if ip.destination == V4::BROADCAST {
        V4::from_octets(interface.primary_v4)
    } else {
        let key = BroadcastKey { ifindex: frame.ifindex, broadcast: ip.destination.octets() };
        // SAFETY: four bytes that are replaced as a whole; the map is preallocated.
        match unsafe { BROADCASTS.get(key) } {
            Some(source) => V4::from_octets(source.address),
            None => return Ok(Verdict::Passed),
        }
    };
    if from == V4::ZERO || ip.source == from {
        return Ok(Verdict::Passed);
    }
    let asker = sane::sender(frame, interface)?;
    ipv4::echo_is_whole::<L3>(frame, ip)?;
    if !within_rate(frame, interface) {
        return Ok(Verdict::LimitedBroadcastPing);
    }
    echo::turn_v4::<L3>(frame)?;
    ipv4::turn(ip, from);
    frame.send_to(asker, interface)?;
    Ok(Verdict::AnsweredBroadcastPing4)
}

/// An echo request to ff02::1.
#[inline(always)]
pub fn all_nodes_ping<const L3: usize>(frame: &Frame, ip: &mut Ipv6) -> Outcome {
    let Some(interface) = responder(frame) else { return Ok(Verdict::Passed) };
    if frame.at::<Ethernet>(0)?.destination != Mac::ALL_NODES {
        return Ok(Verdict::Passed);
    }
    let from =
        V6::from_octets(if ip.source.is_link_local() { interface.link_local } else { interface.global_v6 });
    if from == V6::ZERO || ip.source == from {
        return Ok(Verdict::Passed);
    }
    let asker = sane::sender(frame, interface)?;
    ipv6::echo_is_whole::<L3>(frame, ip)?;
    if !within_rate(frame, interface) {
        return Ok(Verdict::LimitedBroadcastPing);
    }
    echo::turn_v6::<L3>(frame, |sum| ipv6::readdressed(sum, V6::ALL_NODES, from))?;
    ipv6::turn(ip, from);
    frame.send_to(asker, interface)?;
    Ok(Verdict::AnsweredAllNodesPing6)
}

/// The interface, if it answers pings to everybody.
#[inline(always)]
fn responder(frame: &Frame) -> Option<&'static Interface> {
    let interface = frame.interface()?;
    (interface.flags & INTERFACE_BROADCAST_PING != 0 && interface.broadcast_pings_per_second > 0)
        .then_some(interface)
}

/// Counts this answer against the present second of the boot clock.
#[inline(always)]
fn within_rate(frame: &Frame, interface: &Interface) -> bool {
    let second = frame.now / SECOND;
    let Some(rate) = BROADCAST_RATES.get_ptr_mut(frame.ifindex) else {
        let first = BroadcastRate { second, answered: 1 };
        return BROADCAST_RATES.insert(frame.ifindex, first, u64::from(BPF_NOEXIST)).is_ok();
    };
    // SAFETY: elements of a preallocated map stay mapped. CPUs may race here: at the turn of a second
    // a few answers more than allowed can get out, which is all that can happen.
    unsafe {
        if (*rate).second != second {
            (*rate).second = second;
            (*rate).answered = 0;
        }
        if (*rate).answered >= u64::from(interface.broadcast_pings_per_second) {
            return false;
        }
        (*rate).answered += 1;
    }
    true
}

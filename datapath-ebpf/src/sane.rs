//! Whom an answer may be sent to. Anything else is left to the kernel, which knows its own rules.

use datapath_common::{BroadcastKey, Interface, Verdict};

use crate::{
    frame::Frame,
    headers::{Ethernet, Mac, V4, V6},
    maps::BROADCASTS,
};

/// A station other than this one.
#[inline(always)]
pub fn station(mac: Mac, interface: &Interface) -> bool {
    !mac.is_group() && !mac.is_zero() && mac != Mac::of(interface)
}

/// The sender on the link, if it is a station that can be answered.
#[inline(always)]
pub fn sender(frame: &Frame, interface: &Interface) -> Result<Mac, Verdict> {
    let source = frame.at::<Ethernet>(0)?.source;
    if station(source, interface) { Ok(source) } else { Err(Verdict::PassedMalformed) }
}

/// Neither "this host", loopback, multicast, reserved nor broadcast (RFC 1122 section 3.2.1.3), nor a
/// broadcast address of the interface.
#[inline(always)]
pub fn host_v4(frame: &Frame, address: V4) -> bool {
    let octets = address.octets();
    let ordinary = octets[0] != 0 && octets[0] != 127 && octets[0] < 224;
    let key = BroadcastKey { ifindex: frame.ifindex, broadcast: octets };
    ordinary && BROADCASTS.get_ptr(key).is_none()
}

/// Neither unspecified, loopback nor multicast.
#[inline(always)]
pub fn host_v6(address: V6) -> bool {
    let a = &address.0;
    let high = a[0] | a[1] | a[2] | a[3] | a[4] | a[5] | a[6];
    let low = u16::from_be(a[7]);
    !address.is_multicast() && !(high == 0 && low <= 1)
}

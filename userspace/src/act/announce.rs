//! Gratuitous ARP and unsolicited neighbour advertisements.

use std::net::IpAddr;

use crate::observe::network::{Link, NetworkError};

/// Tells the segment where the address is now: four gratuitous ARPs (request and reply, each to the
/// VIP's own hardware address and to broadcast), or unsolicited neighbour advertisements with the
/// override flag to ff02::1 (RFC 4861 section 7.2.6).
pub fn announce(_link: &Link, _addresses: &[IpAddr]) -> Result<(), NetworkError> {
    unimplemented!()
}

//! Does anybody else use this address? ARP probe (RFC 5227 section 2.1.1) or neighbour solicitation
//! for duplicate address detection (RFC 4862 section 5.4.2), from a raw socket.

use std::{net::IpAddr, time::Duration};

use super::network::{Link, NetworkError};

/// Sends probes on the link, spread over `wait`, and answers the distinct link-layer addresses, not
/// this host's own, that claim `address` until then. Returns early once one was heard.
pub async fn claims(_link: &Link, _address: IpAddr, _wait: Duration) -> Result<Vec<[u8; 6]>, NetworkError> {
    unimplemented!()
}

//! Frames built from their parts, every byte and checksum computed here from scratch: what the tests of
//! the datapath send, and what they expect back.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A link-layer address.
pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];
pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
/// The smallest Ethernet frame without its check sequence; NICs pad to it.
pub const MINIMUM: usize = 60;

/// A VLAN tag: 0x8100 (802.1Q) or 0x88a8 (802.1ad), and the control field (priority and id).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub protocol: u16,
    pub control: u16,
}

/// One's complement sum (RFC 1071), with the checksum field zero.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A frame with any number of tags, not padded.
pub fn ethernet(to: Mac, from: Mac, tags: &[Tag], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [to, from].concat();
    for tag in tags {
        frame.extend(tag.protocol.to_be_bytes());
        frame.extend(tag.control.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Filled up to the smallest Ethernet frame with a recognisable byte.
pub fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    if frame.len() < MINIMUM {
        frame.resize(MINIMUM, 0xa5);
    }
    frame
}

#[derive(Clone, Copy, Debug)]
pub struct Arp {
    pub hardware: u16,
    pub protocol: u16,
    pub hardware_length: u8,
    pub protocol_length: u8,
    /// 1 request, 2 reply.
    pub operation: u16,
    pub sender_mac: Mac,
    pub sender: Ipv4Addr,
    pub target_mac: Mac,
    pub target: Ipv4Addr,
}

impl Arp {
    pub fn request(sender_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            hardware: 1,
            protocol: ETHERTYPE_IPV4,
            hardware_length: 6,
            protocol_length: 4,
            operation: 1,
            sender_mac,
            sender,
            target_mac: [0; 6],
            target,
        }
    }

    pub fn reply(sender_mac: Mac, sender: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> Self {
        Self { operation: 2, target_mac, ..Self::request(sender_mac, sender, target) }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(28);
        bytes.extend(self.hardware.to_be_bytes());
        bytes.extend(self.protocol.to_be_bytes());
        bytes.extend([self.hardware_length, self.protocol_length]);
        bytes.extend(self.operation.to_be_bytes());
        bytes.extend(self.sender_mac);
        bytes.extend(self.sender.octets());
        bytes.extend(self.target_mac);
        bytes.extend(self.target.octets());
        bytes
    }
}

#[derive(Clone, Debug)]
pub struct V4 {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub service: u8,
    pub id: u16,
    /// Flags and offset: 0x4000 is "don't fragment", 0x2000 "more fragments".
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl V4 {
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            source,
            destination,
            service: 0x10,
            id: 0x1234,
            fragment: 0x4000,
            ttl: 61,
            protocol,
            options: Vec::new(),
            payload,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut bytes = vec![0x40 | (header / 4) as u8, self.service];
        bytes.extend(((header + self.payload.len()) as u16).to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(&self.options);
        let sum = checksum(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

#[derive(Clone, Debug)]
pub struct V6 {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub class_and_flow: u32,
    pub hop_limit: u8,
    pub next_header: u8,
    pub payload: Vec<u8>,
}

impl V6 {
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, payload: Vec<u8>) -> Self {
        Self { source, destination, class_and_flow: 0x0123_4567, hop_limit: 61, next_header, payload }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(40 + self.payload.len());
        bytes.extend((0x6000_0000 | (self.class_and_flow & 0x0fff_ffff)).to_be_bytes());
        bytes.extend((self.payload.len() as u16).to_be_bytes());
        bytes.extend([self.next_header, self.hop_limit]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(&self.payload);
        bytes
    }
}

/// An ICMP message: type, code, the four bytes after the checksum, and the rest.
pub fn icmp(kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest);
    bytes.extend(payload);
    let sum = checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An ICMPv6 message between these addresses, which its checksum covers.
pub fn icmp6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    kind: u8,
    code: u8,
    rest: [u8; 4],
    payload: &[u8],
) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(payload);
    let mut covered = Vec::new();
    covered.extend(source.octets());
    covered.extend(destination.octets());
    covered.extend((message.len() as u32).to_be_bytes());
    covered.extend([0, 0, 0, ICMPV6]);
    covered.extend(&message);
    let sum = checksum(&covered);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Identifier and sequence number of an echo message.
pub fn echo_id(id: u16, sequence: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (id.to_be_bytes(), sequence.to_be_bytes());
    [a, b, c, d]
}

/// A source (1) or target (2) link-layer address option.
pub fn link_layer_option(kind: u8, mac: Mac) -> Vec<u8> {
    let mut option = vec![kind, 1];
    option.extend(mac);
    option
}

/// A neighbour solicitation's message, checksum included.
pub fn solicitation(source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    let body = [&target.octets(), options].concat();
    icmp6(source, destination, 135, 0, [0; 4], &body)
}

/// A neighbour advertisement's message; `flags` are R 0x80, S 0x40, O 0x20.
pub fn advertisement(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    flags: u8,
    target: Ipv6Addr,
    options: &[u8],
) -> Vec<u8> {
    let body = [&target.octets(), options].concat();
    icmp6(source, destination, 136, 0, [flags, 0, 0, 0], &body)
}

/// ff02::1:ff00:0/104 with the address's last 24 bits (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// Where a frame to an IPv6 multicast address goes (RFC 2464 section 7).
pub fn multicast_mac(address: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = address.octets();
    [0x33, 0x33, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071 section 3, and a header seen on a real network.
    #[test]
    fn checksums_are_those_of_the_books() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 0xc0, 0xa8, 0x00, 0x01,
            0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(checksum(&header), 0xb861);
    }
}

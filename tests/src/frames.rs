//! Ethernet frames as a client on the segment sends and sees them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A link-layer address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub const BROADCAST: Self = Self([0xff; 6]);
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// In the identifier of our echo requests.
const IDENTIFIER: u16 = 0x7601;

/// What a frame does with the address it claims as its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    ArpReply,
    /// A gratuitous ARP (RFC 5227: sender and target the same) or an unsolicited advertisement.
    Announcement,
    /// An answer to a neighbour solicitation.
    Advertisement,
    EchoReply,
    /// Anything else that has the address as its source.
    Other,
}

impl Kind {
    /// An answer to a question, in contrast to something the host says of itself.
    pub fn is_answer(self) -> bool {
        matches!(self, Self::ArpReply | Self::Advertisement | Self::EchoReply)
    }
}

/// A use of an address as one's own, seen on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub address: IpAddr,
    pub mac: Mac,
    pub kind: Kind,
}

/// What the frame claims; None where it claims nothing or is no ARP, IPv4 or IPv6.
pub fn claim(frame: &[u8]) -> Option<Claim> {
    let mac = Mac(frame.get(6..12)?.try_into().ok()?);
    let ethertype = u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
    let body = &frame[14..];
    let (address, kind) = match ethertype {
        ETHERTYPE_ARP => claimed_by_arp(body)?,
        ETHERTYPE_IPV4 => claimed_by_ipv4(body)?,
        ETHERTYPE_IPV6 => claimed_by_ipv6(body)?,
        _ => return None,
    };
    Some(Claim { address, mac, kind })
}

fn claimed_by_arp(arp: &[u8]) -> Option<(IpAddr, Kind)> {
    let operation = u16::from_be_bytes(arp.get(6..8)?.try_into().ok()?);
    let sender = v4(arp.get(14..18)?)?;
    let target = v4(arp.get(24..28)?)?;
    // The sender 0.0.0.0 of a probe claims nothing (RFC 5227 section 1.1).
    if sender.is_unspecified() {
        return None;
    }
    let kind = match operation {
        _ if sender == target => Kind::Announcement,
        2 => Kind::ArpReply,
        _ => Kind::Other,
    };
    Some((sender.into(), kind))
}

fn claimed_by_ipv4(ip: &[u8]) -> Option<(IpAddr, Kind)> {
    let header = usize::from(ip.first()? & 0xf) * 4;
    let source = v4(ip.get(12..16)?)?;
    let echo_reply = ip[9] == ICMP && ip.get(header) == Some(&0);
    Some((source.into(), if echo_reply { Kind::EchoReply } else { Kind::Other }))
}

fn claimed_by_ipv6(ip: &[u8]) -> Option<(IpAddr, Kind)> {
    let source = v6(ip.get(8..24)?)?;
    let icmp = ip.get(40..).filter(|_| ip[6] == ICMPV6);
    match icmp.and_then(|icmp| icmp.first()) {
        Some(136) => {
            let icmp = icmp?;
            // The target counts, whatever the source: it is what neighbours learn.
            let solicited = icmp.get(4)? & 0x40 != 0;
            let kind = if solicited { Kind::Advertisement } else { Kind::Announcement };
            Some((v6(icmp.get(8..24)?)?.into(), kind))
        }
        Some(129) => Some((source.into(), Kind::EchoReply)),
        _ if source.is_unspecified() => None,
        _ => Some((source.into(), Kind::Other)),
    }
}

fn v4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

fn v6(bytes: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub mac: Mac,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Asker {
    /// "Who has it?": an ARP request to broadcast, or a neighbour solicitation to the solicited-node
    /// group (RFC 4861 section 4.3).
    pub fn who_has(&self, address: IpAddr) -> Vec<u8> {
        match address {
            IpAddr::V4(target) => {
                let mut frame = self.ethernet(Mac::BROADCAST, ETHERTYPE_ARP);
                frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
                frame.extend(self.mac.0);
                frame.extend(self.v4.octets());
                frame.extend([0; 6]);
                frame.extend(target.octets());
                frame
            }
            IpAddr::V6(target) => {
                let [.., a, b, c] = target.octets();
                let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
                let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
                icmp.extend(target.octets());
                icmp.extend([1, 1]);
                icmp.extend(self.mac.0);
                self.icmpv6(Mac([0x33, 0x33, 0xff, a, b, c]), group, 255, icmp)
            }
        }
    }

    /// An echo request to the address, sent to this host whoever holds the address.
    pub fn echo(&self, host: Mac, address: IpAddr, sequence: u16) -> Vec<u8> {
        let mut icmp = vec![if address.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
        icmp.extend(IDENTIFIER.to_be_bytes());
        icmp.extend(sequence.to_be_bytes());
        icmp.extend(*b"vipd prober");
        match address {
            IpAddr::V4(target) => {
                let sum = checksum(&[&icmp]);
                icmp[2..4].copy_from_slice(&sum.to_be_bytes());
                let length = (20 + icmp.len()) as u16;
                let mut ip = vec![0x45, 0];
                ip.extend(length.to_be_bytes());
                ip.extend([0, 0, 0x40, 0, 64, ICMP, 0, 0]);
                ip.extend(self.v4.octets());
                ip.extend(target.octets());
                let sum = checksum(&[&ip]);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                let mut frame = self.ethernet(host, ETHERTYPE_IPV4);
                frame.extend(ip);
                frame.extend(icmp);
                frame
            }
            IpAddr::V6(target) => self.icmpv6(host, target, 64, icmp),
        }
    }

    fn icmpv6(&self, to: Mac, destination: Ipv6Addr, hops: u8, mut icmp: Vec<u8>) -> Vec<u8> {
        let length = icmp.len() as u16;
        let (source, target) = (self.v6.octets(), destination.octets());
        // The pseudo-header of RFC 8200 section 8.1.
        let pseudo = [0, 0, (length >> 8) as u8, length as u8, 0, 0, 0, ICMPV6];
        let sum = checksum(&[&source, &target, &pseudo, &icmp]);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut frame = self.ethernet(to, ETHERTYPE_IPV6);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([ICMPV6, hops]);
        frame.extend(source);
        frame.extend(target);
        frame.extend(icmp);
        frame
    }

    fn ethernet(&self, to: Mac, ethertype: u16) -> Vec<u8> {
        let mut frame = Vec::with_capacity(128);
        frame.extend(to.0);
        frame.extend(self.mac.0);
        frame.extend(ethertype.to_be_bytes());
        frame
    }
}

/// The Internet checksum (RFC 1071) over the parts one after another; all but the last are even.
fn checksum(parts: &[&[u8]]) -> u16 {
    let pairs = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = pairs.map(|p| u32::from(u16::from_be_bytes([p[0], *p.get(1).unwrap_or(&0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: Asker = Asker {
        mac: Mac([2, 0, 0, 0, 0, 9]),
        v4: Ipv4Addr::new(10, 77, 0, 100),
        v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100),
    };

    #[test]
    fn checksums_of_what_is_sent_come_out_as_zero() {
        let frame = ASKER.echo(Mac::BROADCAST, "10.77.0.50".parse().unwrap(), 7);
        assert_eq!(checksum(&[&frame[14..34]]), 0);
        assert_eq!(checksum(&[&frame[34..]]), 0);
        let frame = ASKER.who_has("fd77::50".parse().unwrap());
        let pseudo = [0, 0, 0, 32, 0, 0, 0, ICMPV6];
        assert_eq!(checksum(&[&frame[22..54], &pseudo, &frame[54..]]), 0);
    }

    #[test]
    fn a_request_claims_the_asker_and_a_reply_the_address() {
        let mut frame = ASKER.who_has("10.77.0.50".parse().unwrap());
        let seen = claim(&frame).unwrap();
        assert_eq!((seen.address, seen.kind), (ASKER.v4.into(), Kind::Other));
        frame[21] = 2;
        assert_eq!(claim(&frame).unwrap().kind, Kind::ArpReply);
        frame.copy_within(28..32, 38);
        assert_eq!(claim(&frame).unwrap().kind, Kind::Announcement);
        frame[28..32].fill(0);
        assert_eq!(claim(&frame), None, "a probe claims nothing");
        for length in 0..frame.len() {
            let _ = claim(&frame[..length]);
        }
    }

    #[test]
    fn an_advertisement_claims_its_target() {
        let target: Ipv6Addr = "fd77::50".parse().unwrap();
        let mut frame = ASKER.who_has(target.into());
        frame[54] = 136;
        frame[58] = 0x60;
        let seen = claim(&frame).unwrap();
        assert_eq!((seen.address, seen.kind), (target.into(), Kind::Advertisement));
        frame[58] = 0x20;
        assert_eq!(claim(&frame).unwrap().kind, Kind::Announcement);
    }
}

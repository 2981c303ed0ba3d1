//! Ethernet frames of address resolution: what is announced and probed, and what counts as a claim.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;
use pnet::packet::{
    MutablePacket, Packet,
    arp::{ArpHardwareTypes, ArpOperation, ArpOperations, ArpPacket, MutableArpPacket},
    ethernet::{EtherType, EtherTypes, EthernetPacket, MutableEthernetPacket},
    icmpv6::{
        Icmpv6Packet, Icmpv6Type, Icmpv6Types, checksum,
        ndp::{
            MutableNdpOptionPacket, MutableNeighborAdvertPacket, MutableNeighborSolicitPacket,
            NdpOptionTypes, NeighborAdvertPacket, NeighborSolicitPacket,
        },
    },
    ip::IpNextHeaderProtocols,
    ipv6::{Ipv6Packet, MutableIpv6Packet},
};

use socket2::SockFilter;

pub(crate) type Mac = [u8; 6];

pub(crate) const BROADCAST: Mac = [0xff; 6];

/// Link-local all-nodes.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ETHERNET: usize = 14;
const ARP: usize = 28;
const IPV6: usize = 40;
/// Header and target of a neighbour solicitation or advertisement.
const ND: usize = 24;
/// The link-layer address option for Ethernet.
const ND_OPTION: usize = 8;

/// R: the sender is a router.
const ND_ROUTER: u8 = 0b1000_0000;

/// O: the receiver replaces the address it has cached (RFC 4861 section 4.4).
const ND_OVERRIDE: u8 = 0b0010_0000;

/// An ARP probe: who has `address`, from nobody (RFC 5227 section 2.1.1).
pub(crate) fn arp_probe(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let nobody = Ipv4Addr::UNSPECIFIED;
    arp(ArpOperations::Request, mac, (mac, nobody), ([0; 6], address))
}

/// One of the four gratuitous ARPs of an address, counted round: a request and a reply, naming as target
/// hardware address first the address's own, then broadcast. Some receivers heed only one of these forms:
/// Linux takes a reply for gratuitous only when both hardware addresses are the same. All go to everybody.
pub(crate) fn gratuitous_arp(mac: Mac, address: Ipv4Addr, form: u32) -> Vec<u8> {
    let (operation, target) = match form % 4 {
        0 => (ArpOperations::Request, mac),
        1 => (ArpOperations::Reply, mac),
        2 => (ArpOperations::Request, BROADCAST),
        _ => (ArpOperations::Reply, BROADCAST),
    };
    arp(operation, mac, (mac, address), (target, address))
}

fn arp(operation: ArpOperation, mac: Mac, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = ethernet(mac, BROADCAST, EtherTypes::Arp, ARP);
    let mut arp = MutableArpPacket::new(&mut frame[ETHERNET..]).expect("made long enough for ARP");
    arp.set_hardware_type(ArpHardwareTypes::Ethernet);
    arp.set_protocol_type(EtherTypes::Ipv4);
    arp.set_hw_addr_len(6);
    arp.set_proto_addr_len(4);
    arp.set_operation(operation);
    arp.set_sender_hw_addr(sender.0.into());
    arp.set_sender_proto_addr(sender.1);
    arp.set_target_hw_addr(target.0.into());
    arp.set_target_proto_addr(target.1);
    frame
}

/// A neighbour solicitation for duplicate address detection: from `::` to the solicited-node group,
/// without a link-layer address (RFC 4862 section 5.4.2).
pub(crate) fn duplicate_address_solicitation(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let (source, group) = (Ipv6Addr::UNSPECIFIED, solicited_node(address));
    nd(mac, source, group, Icmpv6Types::NeighborSolicit, |nd| {
        let mut solicit = MutableNeighborSolicitPacket::new(nd).expect("made long enough for ND");
        solicit.set_target_addr(address);
        ND
    })
}

/// An unsolicited neighbour advertisement to all nodes that overrides what they know (RFC 4861
/// section 7.2.6). `router`: whether this host is one on the interface.
pub(crate) fn unsolicited_advertisement(mac: Mac, address: Ipv6Addr, router: bool) -> Vec<u8> {
    nd(mac, address, ALL_NODES, Icmpv6Types::NeighborAdvert, |nd| {
        let (header, option) = nd.split_at_mut(ND);
        let mut advert = MutableNeighborAdvertPacket::new(header).expect("made long enough for ND");
        advert.set_flags(if router { ND_ROUTER | ND_OVERRIDE } else { ND_OVERRIDE });
        advert.set_target_addr(address);
        let mut option = MutableNdpOptionPacket::new(option).expect("made long enough for the option");
        option.set_option_type(NdpOptionTypes::TargetLLAddr);
        option.set_length(1);
        option.set_data(&mac);
        ND + ND_OPTION
    })
}

/// `fill` writes the body and answers how long the ICMPv6 message is.
fn nd(
    mac: Mac,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    kind: Icmpv6Type,
    fill: impl FnOnce(&mut [u8]) -> usize,
) -> Vec<u8> {
    let mut frame = ethernet(mac, multicast_mac(destination), EtherTypes::Ipv6, IPV6 + ND + ND_OPTION);
    let body = ETHERNET + IPV6;
    let length = fill(&mut frame[body..]);
    frame.truncate(body + length);
    frame[body] = kind.0;
    let sum = {
        let icmp = Icmpv6Packet::new(&frame[body..]).expect("made long enough for ICMPv6");
        checksum(&icmp, &source, &destination)
    };
    frame[body + 2..body + 4].copy_from_slice(&sum.to_be_bytes());
    let mut ip = MutableIpv6Packet::new(&mut frame[ETHERNET..]).expect("made long enough for IPv6");
    ip.set_version(6);
    ip.set_payload_length(length as u16);
    ip.set_next_header(IpNextHeaderProtocols::Icmpv6);
    ip.set_hop_limit(255);
    ip.set_source(source);
    ip.set_destination(destination);
    frame
}

fn ethernet(source: Mac, destination: Mac, kind: EtherType, payload: usize) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET + payload];
    let mut ethernet = MutableEthernetPacket::new(&mut frame).expect("made long enough for Ethernet");
    ethernet.set_source(source.into());
    ethernet.set_destination(destination.into());
    ethernet.set_ethertype(kind);
    debug_assert_eq!(ethernet.payload_mut().len(), payload);
    frame
}

/// RFC 4291 section 2.7.1.
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let o = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(o[13]), u16::from_be_bytes([o[14], o[15]]))
}

/// RFC 2464 section 7.
pub(crate) fn multicast_mac(group: Ipv6Addr) -> Mac {
    let o = group.octets();
    [0x33, 0x33, o[12], o[13], o[14], o[15]]
}

/// Somebody who uses an address, or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub address: IpAddr,
    /// Who: his link-layer address.
    pub mac: Mac,
    /// He only looks whether somebody has it.
    pub probing: bool,
}

/// The address that this frame claims, if it claims one, and who does: the sender of any ARP packet
/// claims the address it is from, or the one that it probes for (RFC 5227 section 2.1.1); a neighbour
/// advertisement claims its target, and so does a solicitation from nobody, which is another host's
/// duplicate address detection (RFC 4862 section 5.4.3).
pub(crate) fn heard(frame: &[u8]) -> Option<Heard> {
    let ethernet = EthernetPacket::new(frame)?;
    match ethernet.get_ethertype() {
        EtherTypes::Arp => arp_claim(ethernet.payload()),
        EtherTypes::Ipv6 => nd_claim(ethernet.payload(), ethernet.get_source().octets()),
        _ => None,
    }
}

fn arp_claim(payload: &[u8]) -> Option<Heard> {
    let arp = ArpPacket::new(payload)?;
    if arp.get_hardware_type() != ArpHardwareTypes::Ethernet
        || arp.get_protocol_type() != EtherTypes::Ipv4
        || (arp.get_hw_addr_len(), arp.get_proto_addr_len()) != (6, 4)
    {
        return None;
    }
    let sender = arp.get_sender_proto_addr();
    let (claimed, probing) = if !sender.is_unspecified() {
        (sender, false)
    } else if arp.get_operation() == ArpOperations::Request {
        (arp.get_target_proto_addr(), true)
    } else {
        return None;
    };
    Some(Heard { address: claimed.into(), mac: arp.get_sender_hw_addr().octets(), probing })
}

fn nd_claim(payload: &[u8], sender: Mac) -> Option<Heard> {
    let ip = Ipv6Packet::new(payload)?;
    // The frame may be longer (padding), never shorter.
    let body = payload.get(IPV6..IPV6 + usize::from(ip.get_payload_length()))?;
    let icmp = Icmpv6Packet::new(body)?;
    // RFC 4861 sections 7.1.1 and 7.1.2: anything else did not come from this link, or is damaged.
    if ip.get_version() != 6
        || ip.get_next_header() != IpNextHeaderProtocols::Icmpv6
        || ip.get_hop_limit() != 255
        || icmp.get_icmpv6_code().0 != 0
        || icmp.get_checksum() != checksum(&icmp, &ip.get_source(), &ip.get_destination())
    {
        return None;
    }
    match icmp.get_icmpv6_type() {
        Icmpv6Types::NeighborAdvert => {
            let address = NeighborAdvertPacket::new(body)?.get_target_addr().into();
            let mac = target_mac(&body[ND..]).unwrap_or(sender);
            Some(Heard { address, mac, probing: false })
        }
        Icmpv6Types::NeighborSolicit if ip.get_source().is_unspecified() => {
            let address = NeighborSolicitPacket::new(body)?.get_target_addr().into();
            Some(Heard { address, mac: sender, probing: true })
        }
        _ => None,
    }
}

/// The target link-layer address among a neighbour advertisement's options.
fn target_mac(mut options: &[u8]) -> Option<Mac> {
    while let [kind, units, ..] = *options {
        let option = options.get(..usize::from(units) * 8).filter(|o| !o.is_empty())?;
        if kind == NdpOptionTypes::TargetLLAddr.0 {
            return option.get(2..8)?.try_into().ok();
        }
        options = &options[option.len()..];
    }
    None
}

/// A socket filter for ARP frames: only those through that may claim one of the addresses; what passes
/// is still to be judged by [`heard`]. A load beyond the end of a frame refuses it.
pub(crate) fn arp_filter(addresses: &[Ipv4Addr]) -> Vec<SockFilter> {
    let among = || addresses.iter().flat_map(|&a| pass_if(u32::from(a)));
    let mut filter = vec![load_word(28)]; // sender protocol address
    filter.extend(among());
    filter.extend([jump_if(0, 1, 0), verdict(0), load_word(38)]); // target protocol address
    filter.extend(among());
    filter.push(verdict(0));
    filter
}

/// Lets everything through.
pub(crate) fn any_filter() -> Vec<SockFilter> {
    vec![verdict(u32::MAX)]
}

/// A socket filter for IPv6: neighbour solicitations and advertisements go on behind it.
fn nd_only() -> Vec<SockFilter> {
    vec![
        load_byte(20), // next header
        jump_if(IpNextHeaderProtocols::Icmpv6.0.into(), 1, 0),
        verdict(0),
        load_byte(54), // type
        jump_if(Icmpv6Types::NeighborAdvert.0.into(), 2, 0),
        jump_if(Icmpv6Types::NeighborSolicit.0.into(), 1, 0),
        verdict(0),
    ]
}

/// A socket filter for IPv6: all of neighbour discovery that may claim an address.
pub(crate) fn any_nd_filter() -> Vec<SockFilter> {
    let mut filter = nd_only();
    filter.push(verdict(u32::MAX));
    filter
}

/// As [`arp_filter`], for neighbour discovery. Only the last four bytes of addresses are compared.
pub(crate) fn nd_filter(addresses: &[Ipv6Addr]) -> Vec<SockFilter> {
    let mut filter = nd_only();
    filter.push(load_word(74)); // end of the target
    filter.extend(addresses.iter().flat_map(|a| {
        let o = a.octets();
        pass_if(u32::from_be_bytes([o[12], o[13], o[14], o[15]]))
    }));
    filter.push(verdict(0));
    filter
}

/// Lets the frame through when the loaded value is this.
fn pass_if(value: u32) -> [SockFilter; 2] {
    [jump_if(value, 0, 1), verdict(u32::MAX)]
}

fn load_word(offset: u32) -> SockFilter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn load_byte(offset: u32) -> SockFilter {
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, offset)
}

/// Skips so many instructions when the loaded value equals `value`, or otherwise.
fn jump_if(value: u32, equal: u8, otherwise: u8) -> SockFilter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, equal, otherwise, value)
}

/// Lets so many bytes of the frame through.
fn verdict(bytes: u32) -> SockFilter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, bytes)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> SockFilter {
    SockFilter::new(code as u16, jt, jf, k)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const US: Mac = [2, 0, 0, 0, 0, 1];
    const THEM: Mac = [2, 0, 0, 0, 0, 2];

    fn v4(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn claim(frame: &[u8]) -> Option<(IpAddr, Mac)> {
        heard(frame).map(|h| (h.address, h.mac))
    }

    fn claimant(frame: &[u8], address: IpAddr) -> Option<Mac> {
        claim(frame).filter(|(claimed, _)| *claimed == address).map(|(_, claimant)| claimant)
    }

    #[test]
    fn probes_are_told_from_claims() {
        let probing = |frame: &[u8]| heard(frame).unwrap().probing;
        assert!(probing(&arp_probe(US, v4("192.0.2.7"))));
        assert!(!probing(&gratuitous_arp(US, v4("192.0.2.7"), 0)));
        assert!(probing(&duplicate_address_solicitation(US, v6("2001:db8::7"))));
        assert!(!probing(&unsolicited_advertisement(US, v6("2001:db8::7"), false)));
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
        digits.chunks(2).map(|c| u8::from_str_radix(&c.iter().collect::<String>(), 16).unwrap()).collect()
    }

    #[test]
    fn the_arp_probe_byte_by_byte() {
        let expected = "ffffffffffff 020000000001 0806 0001 0800 06 04 0001
                        020000000001 00000000 000000000000 c0000207";
        assert_eq!(arp_probe(US, v4("192.0.2.7")), hex(expected));
    }

    #[test]
    fn the_gratuitous_arps_byte_by_byte() {
        let expected = [
            ("0001", "020000000001"),
            ("0002", "020000000001"),
            ("0001", "ffffffffffff"),
            ("0002", "ffffffffffff"),
        ]
        .map(|(operation, target)| {
            hex(&format!(
                "ffffffffffff 020000000001 0806 0001 0800 06 04 {operation}
                 020000000001 c0000207 {target} c0000207"
            ))
        });
        let arps = [0, 1, 2, 3].map(|form| gratuitous_arp(US, v4("192.0.2.7"), form));
        assert_eq!(arps, expected);
        assert_eq!(gratuitous_arp(US, v4("192.0.2.7"), 4), arps[0]);
    }

    #[test]
    fn the_solicitation_byte_by_byte() {
        let frame = duplicate_address_solicitation(US, v6("2001:db8::1:2:3"));
        let expected = "3333ff020003 020000000001 86dd 60000000 0018 3a ff
                        00000000000000000000000000000000 ff0200000000000000000001ff020003
                        87 00 CCCC 00000000 20010db8000000000000000100020003";
        let sum = checksum_of(&frame);
        assert_eq!(frame, hex(&expected.replace("CCCC", &format!("{sum:04x}"))));
    }

    #[test]
    fn the_advertisement_byte_by_byte() {
        let frame = unsolicited_advertisement(US, v6("2001:db8::7"), false);
        let expected = "333300000001 020000000001 86dd 60000000 0020 3a ff
                        20010db8000000000000000000000007 ff020000000000000000000000000001
                        88 00 CCCC 20000000 20010db8000000000000000000000007
                        02 01 020000000001";
        let sum = checksum_of(&frame);
        assert_eq!(frame, hex(&expected.replace("CCCC", &format!("{sum:04x}"))));
    }

    /// RFC 8200 section 8.1, computed here in another way than pnet does.
    fn checksum_of(frame: &[u8]) -> u16 {
        let body = &frame[54..];
        let mut all = frame[22..54].to_vec();
        all.extend((body.len() as u32).to_be_bytes());
        all.extend([0, 0, 0, 58]);
        all.extend(body);
        let at = 40 + 2;
        all[at..at + 2].fill(0);
        let mut sum: u32 = all.chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn claims_on_an_ipv4_address() {
        let address = v4("192.0.2.7");
        let claims = |frame: &[u8]| claimant(frame, address.into());
        let frame = |operation, sender| arp(operation, THEM, (THEM, v4(sender)), (US, address));
        assert_eq!(claims(&frame(ArpOperations::Reply, "192.0.2.7")), Some(THEM));
        assert_eq!(claims(&frame(ArpOperations::Request, "192.0.2.7")), Some(THEM));
        assert_eq!(claims(&arp_probe(THEM, address)), Some(THEM));
        // Somebody looks for it, or answers for another.
        assert_eq!(claims(&frame(ArpOperations::Request, "192.0.2.8")), None);
        assert_eq!(claims(&frame(ArpOperations::Reply, "192.0.2.8")), None);
        assert_eq!(claims(&arp_probe(THEM, v4("192.0.2.8"))), None);
        let mut other_hardware = frame(ArpOperations::Reply, "192.0.2.7");
        other_hardware[15] = 6;
        assert_eq!(claims(&other_hardware), None);
    }

    #[test]
    fn claims_on_an_ipv6_address() {
        let address = v6("2001:db8::7");
        let claims = |frame: &[u8]| claimant(frame, address.into());
        let advert = unsolicited_advertisement(THEM, address, false);
        assert_eq!(claims(&advert), Some(THEM));
        assert_eq!(claims(&duplicate_address_solicitation(THEM, address)), Some(THEM));
        assert_eq!(claims(&unsolicited_advertisement(THEM, v6("2001:db8::8"), false)), None);
        assert_eq!(claims(&duplicate_address_solicitation(THEM, v6("2001:db8::8"))), None);
        // From another link, or damaged.
        let mut forwarded = advert.clone();
        forwarded[21] = 254;
        assert_eq!(claims(&forwarded), None);
        let mut damaged = advert.clone();
        damaged[57] ^= 1;
        assert_eq!(claims(&damaged), None);
        // An ordinary solicitation, from an address, is a question.
        let asked = nd(THEM, v6("2001:db8::9"), solicited_node(address), Icmpv6Types::NeighborSolicit, |b| {
            b[8..24].copy_from_slice(&address.octets());
            ND
        });
        assert_eq!(claims(&asked), None);
    }

    #[test]
    fn truncated_frames_are_no_claims() {
        let (four, six) = (v4("192.0.2.7"), v6("2001:db8::7"));
        for (frame, address) in [
            (arp_probe(THEM, four), IpAddr::V4(four)),
            (unsolicited_advertisement(THEM, six, false), IpAddr::V6(six)),
        ] {
            for length in 0..frame.len() {
                assert_eq!(claimant(&frame[..length], address), None, "{address} cut at {length}");
            }
            let padded: Vec<_> = frame.iter().copied().chain([0; 20]).collect();
            assert_eq!(claimant(&padded, address), Some(THEM));
        }
    }

    proptest! {
        #[test]
        fn random_options_are_survived(options in proptest::collection::vec(any::<u8>(), 0..64)) {
            target_mac(&options);
        }

        #[test]
        fn random_bytes_are_no_claim(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            prop_assert_eq!(claimant(&bytes, v4("192.0.2.7").into()), None);
            prop_assert_eq!(claimant(&bytes, v6("2001:db8::7").into()), None);
        }
    }
}

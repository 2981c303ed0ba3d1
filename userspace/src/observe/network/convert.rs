//! From netlink's messages to ours.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use super::{Assigned, Link};

pub(super) fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: [0; 6],
        admin_up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        kind: None,
        mtu: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            // Other than six bytes: no Ethernet, and nothing that could be announced there.
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().unwrap_or([0; 6]),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Carrier(carrier) => link.carrier = *carrier != 0,
            LinkAttribute::LinkInfo(info) => {
                link.kind = info.iter().find_map(|i| match i {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}

/// None when the message carries no address.
pub(super) fn assigned(message: &AddressMessage) -> Option<Assigned> {
    let mut address = None;
    let mut local = None;
    let mut broadcast = None;
    let mut protocol = None;
    // The header has only the lowest eight of the flags.
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(a) => address = Some(*a),
            AddressAttribute::Local(a) => local = Some(*a),
            AddressAttribute::Broadcast(a) => broadcast = Some(IpAddr::V4(*a)),
            AddressAttribute::Protocol(p) => protocol = Some(u8::from(*p)),
            AddressAttribute::Flags(f) => flags = *f,
            _ => {}
        }
    }
    // On a point-to-point link `address` is the peer's.
    let address = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(Assigned {
        index: message.header.index,
        address,
        broadcast,
        secondary: matches!(address, IpNet::V4(_)) && flags.contains(AddressFlags::Secondary),
        protocol,
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
    })
}

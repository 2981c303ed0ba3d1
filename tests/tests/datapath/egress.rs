//! Row DP-15.

use std::net::{Ipv4Addr, Ipv6Addr};

use datapath_common::Verdict;
use vipd_tests::packets::{
    Arp, BROADCAST, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMPV6, Tag, UDP, V4, V6, advertisement,
    ethernet, link_layer_option, multicast_mac, solicitation, solicited_node,
};

use crate::{
    bench::*,
    fixture::{Fixtures, taggings},
};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn ip4(tags: &[Tag], source: Ipv4Addr) -> Vec<u8> {
    let ip = V4::new(source, CLIENT4, UDP, vec![0; 20]);
    ethernet(CLIENT, US, tags, ETHERTYPE_IPV4, &ip.bytes())
}

fn ip6(tags: &[Tag], ip: &V6) -> Vec<u8> {
    ethernet(CLIENT, US, tags, ETHERTYPE_IPV6, &ip.bytes())
}

fn arp(tags: &[Tag], arp: Arp) -> Vec<u8> {
    ethernet(BROADCAST, US, tags, ETHERTYPE_ARP, &arp.bytes())
}

/// Solicitation, or advertisement with flags.
fn nd(tags: &[Tag], source: Ipv6Addr, destination: Ipv6Addr, message: Vec<u8>) -> Vec<u8> {
    let ip = V6 { hop_limit: 255, ..V6::new(source, destination, ICMPV6, message) };
    ethernet(multicast_mac(destination), US, tags, ETHERTYPE_IPV6, &ip.bytes())
}

pub fn fixtures(f: &mut Fixtures) {
    for (name, tags, ..) in taggings() {
        for (what, frame) in speaking(&tags, VIP4, VIP6) {
            let name = format!("{what}, {name}");
            f.leaving(&name, Gates::Open, frame.clone(), Verdict::Passed);
            for gates in Gates::CLOSED {
                f.leaving(&name, gates, frame.clone(), Verdict::DroppedEgress);
            }
        }
        for (what, frame) in others(&tags) {
            for gates in [Gates::Open, Gates::Expired] {
                f.leaving(&format!("{what}, {name}"), gates, frame.clone(), Verdict::Passed);
            }
        }
    }
    // Wherever the address lives: this may be another interface on the same segment.
    for (what, frame) in speaking(&[], ELSEWHERE4, ELSEWHERE6) {
        f.leaving(&format!("{what}, held elsewhere"), Gates::Expired, frame, Verdict::DroppedEgress);
    }
    // Open, it is for its own interface alone to say where it is; what is only sent from it may go any way.
    let stranger = |mut frame: Vec<u8>| {
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x99]);
        frame
    };
    for (what, frame) in speaking(&[], VIP4, VIP6) {
        let claims =
            what.contains("reply") || what.contains("announcement") || what.contains("advertisement");
        let verdict = if claims { Verdict::DroppedEgress } else { Verdict::Passed };
        f.leaving(&format!("{what}, from another interface"), Gates::Open, stranger(frame), verdict);
    }
    for (what, frame) in speaking(&[], NOT_HELD4, NOT_HELD6) {
        f.leaving(&format!("{what}, not held"), Gates::Expired, frame, Verdict::Passed);
    }
    let short = arp(&[], Arp::request(US, VIP4, CLIENT4))[..14 + 17].to_vec();
    f.leaving("too short to have a source", Gates::Expired, short, Verdict::Passed);
}

/// Everything that speaks in the name of these addresses.
fn speaking(tags: &[Tag], v4: Ipv4Addr, v6: Ipv6Addr) -> Vec<(&'static str, Vec<u8>)> {
    let group = solicited_node(CLIENT6);
    let own = link_layer_option(2, US);
    vec![
        ("IPv4 source", ip4(tags, v4)),
        ("IPv6 source", ip6(tags, &V6::new(v6, CLIENT6, UDP, vec![0; 20]))),
        ("ARP request", arp(tags, Arp::request(US, v4, CLIENT4))),
        ("ARP reply", arp(tags, Arp::reply(US, v4, CLIENT, CLIENT4))),
        ("ARP announcement", arp(tags, Arp::request(US, v4, v4))),
        (
            "solicitation from it",
            nd(tags, v6, group, solicitation(v6, group, CLIENT6, &link_layer_option(1, US))),
        ),
        ("advertisement", nd(tags, v6, CLIENT6, advertisement(v6, CLIENT6, 0x60, v6, &own))),
        ("unsolicited advertisement", nd(tags, v6, ALL_NODES, advertisement(v6, ALL_NODES, 0x20, v6, &own))),
        (
            "advertisement from another source",
            nd(tags, STATION6, ALL_NODES, advertisement(STATION6, ALL_NODES, 0x20, v6, &own)),
        ),
    ]
}

/// What names the addresses without speaking for them.
fn others(tags: &[Tag]) -> Vec<(&'static str, Vec<u8>)> {
    let group = solicited_node(VIP6);
    let unspecified = Ipv6Addr::UNSPECIFIED;
    let source = link_layer_option(1, US);
    vec![
        ("probe for it", arp(tags, Arp::request(US, Ipv4Addr::UNSPECIFIED, VIP4))),
        ("asking for it", arp(tags, Arp::request(US, STATION4, VIP4))),
        ("stationary IPv4 source", ip4(tags, STATION4)),
        (
            "detecting duplicates of it",
            nd(tags, unspecified, group, solicitation(unspecified, group, VIP6, &[])),
        ),
        ("soliciting it", nd(tags, STATION6, group, solicitation(STATION6, group, VIP6, &source))),
        ("stationary IPv6 source", ip6(tags, &V6::new(STATION6, CLIENT6, UDP, vec![0; 20]))),
        ("advertisement of the stationary address", {
            let message = advertisement(STATION6, ALL_NODES, 0x20, STATION6, &link_layer_option(2, US));
            nd(tags, STATION6, ALL_NODES, message)
        }),
        ("something that is neither IP nor ARP", ethernet(CLIENT, US, tags, 0x88cc, &[0; 46])),
    ]
}

//! Row DP-2.

use std::net::Ipv6Addr;

use datapath_common::Verdict;
use vipd_tests::packets::{
    ICMPV6, Mac, Tag, V6, advertisement, icmp6, link_layer_option, multicast_mac, solicitation,
    solicited_node,
};

use crate::{
    bench::*,
    echo6::frame,
    fixture::{Fixtures, taggings},
};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

fn slla(mac: Mac) -> Vec<u8> {
    link_layer_option(1, mac)
}

fn packet(source: Ipv6Addr, destination: Ipv6Addr, message: Vec<u8>) -> V6 {
    V6 { hop_limit: 255, ..V6::new(source, destination, ICMPV6, message) }
}

/// A solicitation as it goes out: to the group or straight to the address.
fn ask(source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> V6 {
    packet(source, destination, solicitation(source, destination, target, options))
}

fn to_group(target: Ipv6Addr, tags: &[Tag], options: &[u8]) -> Vec<u8> {
    let group = solicited_node(target);
    frame(multicast_mac(group), CLIENT, tags, &ask(CLIENT6, group, target, options))
}

fn told(to: Mac, tags: &[Tag], destination: Ipv6Addr, flags: u8, target: Ipv6Addr) -> Vec<u8> {
    let message = advertisement(target, destination, flags, target, &link_layer_option(2, US));
    // The traffic class and flow label are the solicitation's.
    frame(to, US, tags, &packet(target, destination, message))
}

pub fn fixtures(f: &mut Fixtures) {
    for (name, tags, outer, inner) in taggings() {
        let vip = match (outer, inner) {
            (0, 0) => VIP6,
            (7, 0) => TAGGED6,
            _ => STACKED6,
        };
        f.answered(
            &format!("nd: solicitation to the group, {name}"),
            to_group(vip, &tags, &slla(CLIENT)),
            Verdict::AnsweredNd,
            told(CLIENT, &tags, CLIENT6, SOLICITED | OVERRIDE, vip),
            Verdict::DroppedClosedNd,
        );
        for other in [VIP6, TAGGED6, STACKED6].into_iter().filter(|other| *other != vip) {
            f.passed(
                &format!("nd: solicitation for {other}, which lives in another VLAN, {name}"),
                to_group(other, &tags, &slla(CLIENT)),
                Verdict::Passed,
            );
        }
        let group = solicited_node(vip);
        let probe = ask(Ipv6Addr::UNSPECIFIED, group, vip, &[]);
        f.answered(
            &format!("nd: probe (duplicate address detection), {name}"),
            frame(multicast_mac(group), CLIENT, &tags, &probe),
            Verdict::AnsweredNd,
            told(multicast_mac(ALL_NODES), &tags, ALL_NODES, OVERRIDE, vip),
            Verdict::DroppedClosedNd,
        );
    }
    let answer = |to, destination| told(to, &[], destination, SOLICITED | OVERRIDE, VIP6);
    let group = solicited_node(VIP6);
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let cases = [
        ("unicast, with option", frame(US, CLIENT, &[], &ask(CLIENT6, VIP6, VIP6, &slla(CLIENT)))),
        ("unicast, without option", frame(US, CLIENT, &[], &ask(CLIENT6, VIP6, VIP6, &[]))),
        ("to the group, without option", to_group(VIP6, &[], &[])),
        ("option after an unknown one", to_group(VIP6, &[], &[nonce.to_vec(), slla(CLIENT)].concat())),
        (
            "option after a long unknown one",
            to_group(VIP6, &[], &[vec![200, 3], vec![0xee; 22], slla(CLIENT)].concat()),
        ),
        ("the most options taken", to_group(VIP6, &[], &[slla(CLIENT), nonce.repeat(15)].concat())),
        ("padded by the NIC", [to_group(VIP6, &[], &slla(CLIENT)), vec![0xa5; 9]].concat()),
        ("sent by a proxy, answered to the station named", {
            let mut frame = to_group(VIP6, &[], &slla(CLIENT));
            frame[6..12].copy_from_slice(&STRANGER);
            frame
        }),
    ];
    for (name, ask) in cases {
        let name = format!("nd: {name}");
        f.answered(&name, ask, Verdict::AnsweredNd, answer(CLIENT, CLIENT6), Verdict::DroppedClosedNd);
    }
    f.answered(
        "nd: from a link-local address",
        frame(multicast_mac(group), CLIENT, &[], &ask(CLIENT6_LOCAL, group, VIP6, &slla(CLIENT))),
        Verdict::AnsweredNd,
        answer(CLIENT, CLIENT6_LOCAL),
        Verdict::DroppedClosedNd,
    );
    let probe = ask(Ipv6Addr::UNSPECIFIED, group, VIP6, &nonce);
    f.answered(
        "nd: probe with a nonce (RFC 7527)",
        frame(multicast_mac(group), CLIENT, &[], &probe),
        Verdict::AnsweredNd,
        told(multicast_mac(ALL_NODES), &[], ALL_NODES, OVERRIDE, VIP6),
        Verdict::DroppedClosedNd,
    );
    kernels(f);
    malformed(f);
}

/// Not ours to answer, whether or not this node may speak.
fn kernels(f: &mut Fixtures) {
    let group = solicited_node(VIP6);
    let claim = |flags, destination: Ipv6Addr| {
        let message = advertisement(VIP6, destination, flags, VIP6, &link_layer_option(2, CLIENT));
        frame(multicast_mac(ALL_NODES), CLIENT, &[], &packet(VIP6, destination, message))
    };
    let from_vip = ask(VIP6, group, VIP6, &slla(CLIENT));
    let cases = [
        ("an address that is not held", to_group(NOT_HELD6, &[], &slla(CLIENT)), Verdict::Passed),
        ("an address held on another interface", to_group(ELSEWHERE6, &[], &slla(CLIENT)), Verdict::Passed),
        ("a stationary address", to_group(STATION6, &[], &slla(CLIENT)), Verdict::Passed),
        (
            "solicitation that has the VIP as its source",
            frame(multicast_mac(group), CLIENT, &[], &from_vip),
            Verdict::PassedForeignClaim,
        ),
        ("advertisement of the VIP by another", claim(OVERRIDE, ALL_NODES), Verdict::PassedForeignClaim),
        (
            "solicited advertisement of the VIP by another",
            claim(SOLICITED | OVERRIDE, STATION6),
            Verdict::PassedForeignClaim,
        ),
        (
            "advertisement of something else",
            {
                let message = advertisement(CLIENT6, STATION6, SOLICITED, CLIENT6, &[]);
                frame(US, CLIENT, &[], &packet(CLIENT6, STATION6, message))
            },
            Verdict::Passed,
        ),
        (
            "solicitation to another station (promiscuous)",
            frame(STRANGER, CLIENT, &[], &ask(CLIENT6, VIP6, VIP6, &slla(CLIENT))),
            Verdict::Passed,
        ),
    ];
    for (name, frame, verdict) in cases {
        f.passed(&format!("nd: {name}"), frame.clone(), verdict);
        f.push(&format!("nd: {name}, lease expired"), Gates::Expired, frame, verdict, None);
    }
    f.passed(
        "nd: more options than are looked at",
        to_group(VIP6, &[], &[slla(CLIENT), [14, 1, 0, 0, 0, 0, 0, 0].repeat(16)].concat()),
        Verdict::PassedVip,
    );
    // To the VIP, about an address that is not held: any packet to the VIP.
    f.passed(
        "nd: to the VIP about another address",
        frame(US, CLIENT, &[], &ask(CLIENT6, VIP6, NOT_HELD6, &slla(CLIENT))),
        Verdict::PassedVip,
    );
    f.push(
        "nd: to the VIP about another address, lease expired",
        Gates::Expired,
        frame(US, CLIENT, &[], &ask(CLIENT6, VIP6, NOT_HELD6, &slla(CLIENT))),
        Verdict::DroppedClosedOther,
        None,
    );
}

/// RFC 4861 section 7.1.1: silently discarded, which is to say never answered.
fn malformed(f: &mut Fixtures) {
    let group = solicited_node(VIP6);
    let of = |ip: &V6| frame(multicast_mac(ip.destination), CLIENT, &[], ip);
    let plain = || ask(CLIENT6, group, VIP6, &slla(CLIENT));
    let hop = |hop_limit| of(&V6 { hop_limit, ..plain() });
    let mut checksum = to_group(VIP6, &[], &slla(CLIENT));
    checksum[14 + 40 + 2] ^= 1;
    let mut damaged = to_group(VIP6, &[], &slla(CLIENT));
    *damaged.last_mut().unwrap() ^= 1;
    let body = [&VIP6.octets(), slla(CLIENT).as_slice()].concat();
    let code = packet(CLIENT6, group, icmp6(CLIENT6, group, 135, 1, [0; 4], &body));
    let probe = |destination, options: &[u8]| of(&ask(Ipv6Addr::UNSPECIFIED, destination, VIP6, options));
    let source = |source| of(&ask(source, group, VIP6, &slla(CLIENT)));
    let option = |options: &[u8]| of(&ask(CLIENT6, group, VIP6, options));
    let mut own = to_group(VIP6, &[], &slla(CLIENT));
    own[6..12].copy_from_slice(&US);
    let other_group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x1234);
    let cases = [
        ("hop limit 254", hop(254)),
        ("hop limit 64", hop(64)),
        ("hop limit 0", hop(0)),
        ("wrong checksum", checksum),
        ("damaged option", damaged),
        ("code 1", of(&code)),
        ("probe to another group", probe(other_group, &[])),
        ("probe to all nodes", probe(ALL_NODES, &[])),
        ("probe to the address itself", {
            let ip = ask(Ipv6Addr::UNSPECIFIED, VIP6, VIP6, &[]);
            frame(US, CLIENT, &[], &ip)
        }),
        ("probe with a source link-layer option", probe(group, &slla(CLIENT))),
        ("to another group", of(&ask(CLIENT6, other_group, VIP6, &slla(CLIENT)))),
        ("to all nodes", of(&ask(CLIENT6, ALL_NODES, VIP6, &slla(CLIENT)))),
        ("from ::1", source(Ipv6Addr::LOCALHOST)),
        ("from a multicast address", source(ALL_NODES)),
        ("from our own station", own),
        ("option of length 0", option(&[1, 0, 2, 0, 0, 0, 0, 2])),
        ("second option of length 0", option(&[slla(CLIENT), vec![14, 0, 0, 0, 0, 0, 0, 0]].concat())),
        ("option longer than the message", option(&[14, 2, 0, 0, 0, 0, 0, 0])),
        ("source link-layer option of length 2", option(&[[1, 2].as_slice(), &[0; 14]].concat())),
        ("source link-layer address is multicast", option(&slla([0x33, 0x33, 0, 0, 0, 1]))),
        ("source link-layer address is zero", option(&slla([0; 6]))),
        ("source link-layer address is ours", option(&slla(US))),
        ("four bytes of an option", option(&[1, 1, 2, 0])),
        ("payload longer than the frame", {
            let mut frame = to_group(VIP6, &[], &slla(CLIENT));
            frame[18..20].copy_from_slice(&40_u16.to_be_bytes());
            frame
        }),
        ("payload shorter than the message", {
            let mut frame = to_group(VIP6, &[], &slla(CLIENT));
            frame[18..20].copy_from_slice(&23_u16.to_be_bytes());
            frame
        }),
    ];
    for (name, frame) in cases {
        f.passed(&format!("nd: {name}"), frame, Verdict::PassedMalformed);
    }
    // Behind an extension header the message is not looked for: RFC 4861 wants none there.
    let extended = [&[ICMPV6, 0, 1, 4, 0, 0, 0, 0], plain().payload.as_slice()].concat();
    f.passed(
        "nd: behind hop-by-hop options",
        of(&V6 { next_header: 0, payload: extended, ..plain() }),
        Verdict::Passed,
    );
}

/// Flag R where the interface forwards IPv6 (RFC 4861 section 4.4), in both kinds of answer.
pub fn a_router_says_that_it_is_one() -> Result<(), String> {
    const ROUTER: u8 = 0x80;
    let mut bench = bench();
    bench.set(Gates::Open);
    let group = solicited_node(VIP6);
    let probe = ask(Ipv6Addr::UNSPECIFIED, group, VIP6, &[]);
    for router in [true, false] {
        let flag = if router { ROUTER } else { 0 };
        let facts = vipd::act::datapath::InterfaceFacts { router, ..facts(IFINDEX, PINGS_PER_SECOND) };
        bench.describe(&facts);
        let asked = [
            (
                to_group(VIP6, &[], &slla(CLIENT)),
                told(CLIENT, &[], CLIENT6, flag | SOLICITED | OVERRIDE, VIP6),
            ),
            (
                frame(multicast_mac(group), CLIENT, &[], &probe),
                told(multicast_mac(ALL_NODES), &[], ALL_NODES, flag | OVERRIDE, VIP6),
            ),
        ];
        for (question, answer) in asked {
            let outcome = bench.ingress(&question);
            if outcome.frame != answer {
                return Err(format!("router {router}: {:02x?}, expected {answer:02x?}", outcome.frame));
            }
        }
    }
    Ok(())
}

//! Row DP-3, IPv6, and what else comes to a held IPv6 address.

use std::net::Ipv6Addr;

use datapath_common::Verdict;
use vipd_tests::packets::{
    BROADCAST, ETHERTYPE_IPV6, ICMPV6, Mac, TCP, Tag, UDP, V6, echo_id, ethernet, icmp6, padded,
};

use crate::{
    bench::*,
    echo4::payload,
    fixture::{Fixtures, taggings},
};

pub fn frame(to: Mac, from: Mac, tags: &[Tag], ip: &V6) -> Vec<u8> {
    padded(ethernet(to, from, tags, ETHERTYPE_IPV6, &ip.bytes()))
}

pub fn echo(kind: u8, source: Ipv6Addr, destination: Ipv6Addr, length: usize) -> V6 {
    let message = icmp6(source, destination, kind, 0, echo_id(0x4711, 9), &payload(length));
    V6::new(source, destination, ICMPV6, message)
}

fn request(destination: Ipv6Addr) -> V6 {
    echo(128, CLIENT6, destination, 56)
}

/// What comes back: addresses exchanged, hop limit renewed.
pub fn reply(request: &V6, from: Ipv6Addr, length: usize) -> V6 {
    V6 { hop_limit: 64, class_and_flow: request.class_and_flow, ..echo(129, from, request.source, length) }
}

pub fn fixtures(f: &mut Fixtures) {
    for (name, tags, outer, inner) in taggings() {
        let vip = match (outer, inner) {
            (0, 0) => VIP6,
            (7, 0) => TAGGED6,
            _ => STACKED6,
        };
        let ask = request(vip);
        f.answered(
            &format!("echo6: {name}"),
            frame(US, CLIENT, &tags, &ask),
            Verdict::AnsweredEcho6,
            frame(CLIENT, US, &tags, &reply(&ask, vip, 56)),
            Verdict::DroppedClosedEcho,
        );
        for other in [VIP6, TAGGED6, STACKED6].into_iter().filter(|other| *other != vip) {
            f.passed(
                &format!("echo6: to {other}, which lives in another VLAN, {name}"),
                frame(US, CLIENT, &tags, &request(other)),
                Verdict::Passed,
            );
        }
    }
    for length in [0, 1, 2, 55, 1451, 1452, 1472] {
        let ask = echo(128, CLIENT6, VIP6, length);
        f.answered(
            &format!("echo6: {length} bytes"),
            frame(US, CLIENT, &[], &ask),
            Verdict::AnsweredEcho6,
            frame(CLIENT, US, &[], &reply(&ask, VIP6, length)),
            Verdict::DroppedClosedEcho,
        );
    }
    for (name, ask) in [
        ("from a link-local address", echo(128, CLIENT6_LOCAL, VIP6, 56)),
        ("hop limit 1", V6 { hop_limit: 1, ..request(VIP6) }),
        ("hop limit 255", V6 { hop_limit: 255, ..request(VIP6) }),
        ("no flow label", V6 { class_and_flow: 0, ..request(VIP6) }),
    ] {
        f.answered(
            &format!("echo6: {name}"),
            frame(US, CLIENT, &[], &ask),
            Verdict::AnsweredEcho6,
            frame(CLIENT, US, &[], &reply(&ask, VIP6, 56)),
            Verdict::DroppedClosedEcho,
        );
    }
    // A damaged message stays damaged, by as much.
    let mut ask = request(VIP6);
    ask.payload[20] ^= 0x40;
    let mut answer = reply(&ask, VIP6, 56);
    answer.payload[20] ^= 0x40;
    f.answered(
        "echo6: damaged payload",
        frame(US, CLIENT, &[], &ask),
        Verdict::AnsweredEcho6,
        frame(CLIENT, US, &[], &answer),
        Verdict::DroppedClosedEcho,
    );

    kernels(f);
    malformed(f);
}

/// The kernel's while the gate is open.
fn kernels(f: &mut Fixtures) {
    let message = icmp6(CLIENT6, VIP6, 128, 0, echo_id(1, 1), &payload(8));
    let extended = |kind: u8| {
        let header = [&[ICMPV6, 0, 1, 4, 0, 0, 0, 0], message.as_slice()].concat();
        V6::new(CLIENT6, VIP6, kind, header)
    };
    let with = |next_header, payload| V6::new(CLIENT6, VIP6, next_header, payload);
    let code = icmp6(CLIENT6, VIP6, 128, 1, echo_id(1, 1), &payload(8));
    let cases = [
        ("hop-by-hop options before the echo request", extended(0)),
        ("destination options before the echo request", extended(60)),
        ("routing header before the echo request", extended(43)),
        ("fragment header before the echo request", extended(44)),
        ("echo reply", echo(129, CLIENT6, VIP6, 8)),
        ("echo request with code 1", with(ICMPV6, code)),
        ("TCP", with(TCP, payload(20))),
        ("UDP", with(UDP, payload(20))),
        ("no next header", with(59, Vec::new())),
    ];
    for (name, ip) in cases {
        f.passed(&format!("ip6: {name}"), frame(US, CLIENT, &[], &ip), Verdict::PassedVip);
        for gates in Gates::CLOSED {
            let name = format!("ip6: {name}, gate closed ({gates:?})");
            f.push(&name, gates, frame(US, CLIENT, &[], &ip), Verdict::DroppedClosedOther, None);
        }
    }
    f.passed(
        "echo6: to the VIP in a broadcast frame",
        frame(BROADCAST, CLIENT, &[], &request(VIP6)),
        Verdict::PassedVip,
    );
    for (name, to, destination) in [
        ("not held", US, NOT_HELD6),
        ("held on another interface", US, ELSEWHERE6),
        ("stationary", US, STATION6),
        ("held, in a frame to another station", STRANGER, VIP6),
    ] {
        for gates in [Gates::Open, Gates::Expired] {
            let ask = frame(to, CLIENT, &[], &request(destination));
            f.push(&format!("echo6: {name} ({gates:?})"), gates, ask, Verdict::Passed, None);
        }
    }
    f.passed(
        "echo6: from the VIP itself",
        frame(US, CLIENT, &[], &echo(128, VIP6, VIP6, 8)),
        Verdict::PassedForeignClaim,
    );
}

fn malformed(f: &mut Fixtures) {
    let from = |source| frame(US, CLIENT, &[], &echo(128, source, VIP6, 8));
    let mut version = frame(US, CLIENT, &[], &request(VIP6));
    version[14] = 0x50;
    let length = |claimed: u16| {
        let mut frame = frame(US, CLIENT, &[], &request(VIP6));
        frame[18..20].copy_from_slice(&claimed.to_be_bytes());
        frame
    };
    let multicast: Mac = [0x33, 0x33, 0, 0, 0, 1];
    let cases = [
        ("from ::", from(Ipv6Addr::UNSPECIFIED)),
        ("from ::1", from(Ipv6Addr::LOCALHOST)),
        ("from a multicast address", from(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1))),
        ("from a multicast station", frame(US, multicast, &[], &request(VIP6))),
        ("from our own station", frame(US, US, &[], &request(VIP6))),
        ("version 5", version),
        ("longer than the frame", length(65)),
        ("shorter than its header", length(7)),
    ];
    for (name, frame) in cases {
        f.passed(&format!("echo6: {name}"), frame, Verdict::PassedMalformed);
    }
}

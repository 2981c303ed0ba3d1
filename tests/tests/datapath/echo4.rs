//! Row DP-3, IPv4, and what else comes to a held IPv4 address.

use std::net::Ipv4Addr;

use datapath_common::Verdict;
use vipd_tests::packets::{
    BROADCAST, ETHERTYPE_IPV4, ICMP, Mac, TCP, Tag, UDP, V4, echo_id, ethernet, icmp, padded,
};

use crate::{
    bench::*,
    fixture::{Fixtures, taggings},
};

pub fn frame(to: Mac, from: Mac, tags: &[Tag], ip: &V4) -> Vec<u8> {
    padded(ethernet(to, from, tags, ETHERTYPE_IPV4, &ip.bytes()))
}

pub fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + 3) as u8).collect()
}

/// An echo request, or with `kind` 0 the reply, that carries `length` bytes.
fn echo(kind: u8, source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> V4 {
    let message = icmp(kind, 0, echo_id(0x4711, 9), &payload(length));
    V4::new(source, destination, ICMP, message)
}

fn request(destination: Ipv4Addr) -> V4 {
    echo(8, CLIENT4, destination, 56)
}

fn reply(request: &V4, message: Vec<u8>) -> V4 {
    V4 {
        source: request.destination,
        destination: request.source,
        ttl: 64,
        payload: message,
        ..request.clone()
    }
}

pub fn fixtures(f: &mut Fixtures) {
    for (name, tags, outer, inner) in taggings() {
        let vip = match (outer, inner) {
            (0, 0) => VIP4,
            (7, 0) => TAGGED4,
            _ => STACKED4,
        };
        let ask = request(vip);
        let answer = reply(&ask, icmp(0, 0, echo_id(0x4711, 9), &payload(56)));
        f.answered(
            &format!("echo4: {name}"),
            frame(US, CLIENT, &tags, &ask),
            Verdict::AnsweredEcho4,
            frame(CLIENT, US, &tags, &answer),
            Verdict::DroppedClosedEcho,
        );
        for other in [VIP4, TAGGED4, STACKED4].into_iter().filter(|other| *other != vip) {
            f.passed(
                &format!("echo4: to {other}, which lives in another VLAN, {name}"),
                frame(US, CLIENT, &tags, &request(other)),
                Verdict::Passed,
            );
        }
    }
    for length in [0, 1, 2, 55, 1471, 1472] {
        let ask = echo(8, CLIENT4, VIP4, length);
        let answer = reply(&ask, icmp(0, 0, echo_id(0x4711, 9), &payload(length)));
        f.answered(
            &format!("echo4: {length} bytes"),
            frame(US, CLIENT, &[], &ask),
            Verdict::AnsweredEcho4,
            frame(CLIENT, US, &[], &answer),
            Verdict::DroppedClosedEcho,
        );
    }
    for (name, change) in [
        ("time to live 1", (|ip: &mut V4| ip.ttl = 1) as fn(&mut V4)),
        ("time to live 0", |ip| ip.ttl = 0),
        ("time to live 255", |ip| ip.ttl = 255),
        ("time to live 64", |ip| ip.ttl = 64),
        ("may be fragmented", |ip| ip.fragment = 0),
        ("identification 0xffff", |ip| ip.id = 0xffff),
        ("from another network", |ip| ip.source = Ipv4Addr::new(198, 51, 100, 7)),
    ] {
        let mut ask = request(VIP4);
        change(&mut ask);
        let answer = reply(&ask, icmp(0, 0, echo_id(0x4711, 9), &payload(56)));
        f.answered(
            &format!("echo4: {name}"),
            frame(US, CLIENT, &[], &ask),
            Verdict::AnsweredEcho4,
            frame(CLIENT, US, &[], &answer),
            Verdict::DroppedClosedEcho,
        );
    }
    // The reply is all zeros: its checksum must be 0xffff, which no incremental update yields by itself.
    let ask = V4::new(CLIENT4, VIP4, ICMP, icmp(8, 0, [0; 4], &[0; 32]));
    let answer = reply(&ask, icmp(0, 0, [0; 4], &[0; 32]));
    assert_eq!(answer.payload[2..4], [0xff, 0xff]);
    f.answered(
        "echo4: all zeros",
        frame(US, CLIENT, &[], &ask),
        Verdict::AnsweredEcho4,
        frame(CLIENT, US, &[], &answer),
        Verdict::DroppedClosedEcho,
    );
    // A damaged message stays damaged, by as much: the asker sees it.
    let mut ask = request(VIP4);
    ask.payload[20] ^= 0x40;
    let mut message = icmp(0, 0, echo_id(0x4711, 9), &payload(56));
    message[20] ^= 0x40;
    f.answered(
        "echo4: damaged payload",
        frame(US, CLIENT, &[], &ask),
        Verdict::AnsweredEcho4,
        frame(CLIENT, US, &[], &reply(&ask, message)),
        Verdict::DroppedClosedEcho,
    );

    kernels(f);
    malformed(f);
}

/// (name, packet, what it is while the gate is closed): the kernel's while the gate is open.
fn kernels(f: &mut Fixtures) {
    let options = vec![0x94, 0x04, 0, 0]; // router alert
    let with = |protocol, payload| V4 { protocol, payload, ..request(VIP4) };
    let other = Verdict::DroppedClosedOther;
    let cases = [
        ("IP options", V4 { options, ..request(VIP4) }, other),
        ("first fragment", V4 { fragment: 0x2000, ..request(VIP4) }, other),
        ("later fragment", V4 { fragment: 0x2010, ..request(VIP4) }, other),
        ("last fragment", V4 { fragment: 0x0010, ..request(VIP4) }, other),
        ("echo reply", echo(0, CLIENT4, VIP4, 8), other),
        ("echo request with code 1", with(ICMP, icmp(8, 1, echo_id(1, 1), &payload(8))), other),
        ("timestamp request", with(ICMP, icmp(13, 0, echo_id(1, 1), &[0; 12])), other),
        ("TCP", with(TCP, payload(20)), other),
        ("UDP", with(UDP, payload(20)), other),
        ("no payload", with(UDP, Vec::new()), other),
    ];
    for (name, ip, closed) in cases {
        f.passed(&format!("ip4: {name}"), frame(US, CLIENT, &[], &ip), Verdict::PassedVip);
        for gates in Gates::CLOSED {
            let name = format!("ip4: {name}, gate closed ({gates:?})");
            f.push(&name, gates, frame(US, CLIENT, &[], &ip), closed, None);
        }
    }
    let group: Mac = [0x01, 0, 0x5e, 0, 0, 9];
    for (name, to) in [("broadcast", BROADCAST), ("multicast", group)] {
        f.passed(
            &format!("echo4: to the VIP in a {name} frame"),
            frame(to, CLIENT, &[], &request(VIP4)),
            Verdict::PassedVip,
        );
        f.push(
            &format!("echo4: to the VIP in a {name} frame, lease expired"),
            Gates::Expired,
            frame(to, CLIENT, &[], &request(VIP4)),
            Verdict::DroppedClosedEcho,
            None,
        );
    }
    for (name, to, destination) in [
        ("not held", US, NOT_HELD4),
        ("held on another interface", US, ELSEWHERE4),
        ("stationary", US, STATION4),
        ("held, in a frame to another station", STRANGER, VIP4),
    ] {
        for gates in [Gates::Open, Gates::Expired] {
            let ask = frame(to, CLIENT, &[], &request(destination));
            f.push(&format!("echo4: {name} ({gates:?})"), gates, ask, Verdict::Passed, None);
        }
    }
    f.passed(
        "echo4: from the VIP itself",
        frame(US, CLIENT, &[], &echo(8, VIP4, VIP4, 8)),
        Verdict::PassedForeignClaim,
    );
}

fn malformed(f: &mut Fixtures) {
    let from = |source| frame(US, CLIENT, &[], &V4 { source, ..request(VIP4) });
    let mut bad_header = frame(US, CLIENT, &[], &request(VIP4));
    bad_header[14 + 10] ^= 0x01;
    let mut bad_version = frame(US, CLIENT, &[], &request(VIP4));
    bad_version[14] = 0x55;
    let mut too_long = frame(US, CLIENT, &[], &request(VIP4));
    relength(&mut too_long, 28 + 57);
    let mut too_short = frame(US, CLIENT, &[], &request(VIP4));
    relength(&mut too_short, 27);
    let multicast: Mac = [0x01, 0, 0x5e, 0, 0, 1];
    let cases = [
        ("from 0.0.0.0", from(Ipv4Addr::UNSPECIFIED)),
        ("from loopback", from(Ipv4Addr::LOCALHOST)),
        ("from a multicast address", from(Ipv4Addr::new(239, 1, 2, 3))),
        ("from a reserved address", from(Ipv4Addr::new(240, 0, 0, 1))),
        ("from 255.255.255.255", from(Ipv4Addr::BROADCAST)),
        ("from the subnet's broadcast address", from(BROADCAST4)),
        ("from the second subnet's broadcast address", from(BROADCAST4_B)),
        ("from a multicast station", frame(US, multicast, &[], &request(VIP4))),
        ("from the broadcast station", frame(US, BROADCAST, &[], &request(VIP4))),
        ("from our own station", frame(US, US, &[], &request(VIP4))),
        ("from station zero", frame(US, [0; 6], &[], &request(VIP4))),
        ("wrong header checksum", bad_header),
        ("version 5", bad_version),
        ("longer than the frame", too_long),
        ("shorter than its headers", too_short),
    ];
    for (name, frame) in cases {
        f.passed(&format!("echo4: {name}"), frame, Verdict::PassedMalformed);
    }
}

/// Claims another total length, header checksum corrected.
fn relength(frame: &mut [u8], total: u16) {
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[24..26].fill(0);
    let sum = vipd_tests::packets::checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

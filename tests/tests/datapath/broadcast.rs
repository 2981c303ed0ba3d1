//! Row DP-4.

use std::net::{Ipv4Addr, Ipv6Addr};

use datapath_common::Verdict;
use vipd_tests::packets::{BROADCAST, ICMP, Tag, V4, V6, echo_id, icmp, multicast_mac};

use crate::{
    bench::*,
    echo4, echo6,
    fixture::{Fixtures, Hook},
};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn ask4(source: Ipv4Addr, destination: Ipv4Addr) -> V4 {
    V4::new(source, destination, ICMP, icmp(8, 0, echo_id(3, 4), &echo4::payload(56)))
}

fn answer4(ask: &V4, from: Ipv4Addr) -> Vec<u8> {
    let payload = icmp(0, 0, echo_id(3, 4), &echo4::payload(56));
    let ip = V4 { source: from, destination: ask.source, ttl: 64, payload, ..ask.clone() };
    echo4::frame(CLIENT, US, &[], &ip)
}

fn ask6(source: Ipv6Addr) -> V6 {
    echo6::echo(128, source, ALL_NODES, 56)
}

pub fn fixtures(f: &mut Fixtures) {
    // Needs no lease: the address is the node's own.
    let all = [Gates::Open].into_iter().chain(Gates::CLOSED);
    for gates in all {
        for (name, destination, from) in [
            ("the subnet's broadcast address", BROADCAST4, STATION4),
            ("the second subnet's broadcast address", BROADCAST4_B, STATION4_B),
            ("255.255.255.255", Ipv4Addr::BROADCAST, STATION4),
        ] {
            let ask = ask4(CLIENT4, destination);
            f.push(
                &format!("broadcast: ping to {name} ({gates:?})"),
                gates,
                echo4::frame(BROADCAST, CLIENT, &[], &ask),
                Verdict::AnsweredBroadcastPing4,
                Some(answer4(&ask, from)),
            );
        }
        for (name, source, from) in
            [("global", CLIENT6, STATION6), ("link-local", CLIENT6_LOCAL, STATION6_LOCAL)]
        {
            let ask = ask6(source);
            f.push(
                &format!("broadcast: ping to all nodes from a {name} address ({gates:?})"),
                gates,
                echo6::frame(multicast_mac(ALL_NODES), CLIENT, &[], &ask),
                Verdict::AnsweredAllNodesPing6,
                Some(echo6::frame(CLIENT, US, &[], &echo6::reply(&ask, from, 56))),
            );
        }
    }
    passed(f);
}

fn passed(f: &mut Fixtures) {
    let vlan = [Tag { protocol: 0x8100, control: 7 }];
    let four = |to, tags: &[Tag], ip: V4| echo4::frame(to, CLIENT, tags, &ip);
    let six = |to, tags: &[Tag], ip: V6| echo6::frame(to, CLIENT, tags, &ip);
    let group = multicast_mac(ALL_NODES);
    let reply4 = V4 { payload: icmp(0, 0, echo_id(3, 4), &[]), ..ask4(CLIENT4, BROADCAST4) };
    let cases = [
        ("another subnet's broadcast", four(BROADCAST, &[], ask4(CLIENT4, Ipv4Addr::new(10, 7, 0, 255)))),
        ("in a VLAN", four(BROADCAST, &vlan, ask4(CLIENT4, BROADCAST4))),
        ("in a unicast frame", four(US, &[], ask4(CLIENT4, BROADCAST4))),
        ("in a unicast frame, limited broadcast", four(US, &[], ask4(CLIENT4, Ipv4Addr::BROADCAST))),
        ("from our own address", four(BROADCAST, &[], ask4(STATION4, BROADCAST4))),
        ("a fragment", four(BROADCAST, &[], V4 { fragment: 0x2000, ..ask4(CLIENT4, BROADCAST4) })),
        ("with options", four(BROADCAST, &[], V4 { options: vec![1; 4], ..ask4(CLIENT4, BROADCAST4) })),
        ("an echo reply", four(BROADCAST, &[], reply4)),
        ("all nodes, in a VLAN", six(group, &vlan, ask6(CLIENT6))),
        ("all nodes, in a unicast frame", six(US, &[], ask6(CLIENT6))),
        ("all nodes, from our own address", six(group, &[], ask6(STATION6))),
        ("all nodes, an echo reply", six(group, &[], echo6::echo(129, CLIENT6, ALL_NODES, 8))),
        ("all routers", {
            let routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
            six(multicast_mac(routers), &[], echo6::echo(128, CLIENT6, routers, 8))
        }),
    ];
    for (name, frame) in cases {
        f.passed(&format!("broadcast: {name}"), frame, Verdict::Passed);
    }
    let sources = [
        ("0.0.0.0", Ipv4Addr::UNSPECIFIED),
        ("a multicast address", Ipv4Addr::new(224, 0, 0, 1)),
        ("the broadcast address", BROADCAST4),
        ("255.255.255.255", Ipv4Addr::BROADCAST),
        ("loopback", Ipv4Addr::LOCALHOST),
    ];
    for (name, source) in sources {
        f.passed(
            &format!("broadcast: from {name}"),
            four(BROADCAST, &[], ask4(source, BROADCAST4)),
            Verdict::PassedMalformed,
        );
    }
    f.passed(
        "broadcast: all nodes, from ::",
        six(group, &[], ask6(Ipv6Addr::UNSPECIFIED)),
        Verdict::PassedMalformed,
    );
}

/// Allowed are so many a second; the rest is dropped, and the next second starts anew.
pub fn rate_is_limited() -> Result<(), String> {
    const RATE: u64 = 5;
    let mut bench = bench();
    bench.set_interface(RATE as u32);
    let frame = echo4::frame(BROADCAST, CLIENT, &[], &ask4(CLIENT4, BROADCAST4));
    let frame6 = echo6::frame(multicast_mac(ALL_NODES), CLIENT, &[], &ask6(CLIENT6));
    // Earlier tests may have used this second up.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while bench.ingress(&frame).counted != [(Verdict::AnsweredBroadcastPing4, 1)] {
        if std::time::Instant::now() > end {
            return Err("no second began".into());
        }
    }
    let (mut answered, mut limited) = (1, 0);
    // A few milliseconds: at most one turn of the second falls into them.
    for i in 1..200 {
        for (verdict, count) in bench.ingress(if i % 2 == 0 { &frame } else { &frame6 }).counted {
            match verdict {
                Verdict::AnsweredBroadcastPing4 | Verdict::AnsweredAllNodesPing6 => answered += count,
                Verdict::LimitedBroadcastPing => limited += count,
                other => return Err(format!("unexpected {other:?}")),
            }
        }
    }
    bench.set_interface(0);
    let off = [bench.ingress(&frame), bench.ingress(&frame6)];
    bench.set_interface(PINGS_PER_SECOND);
    drop(bench);
    if answered + limited != 200 || !(RATE..=2 * RATE).contains(&answered) {
        return Err(format!("{answered} answered, {limited} limited of 200, {RATE} a second allowed"));
    }
    for outcome in off {
        if outcome.counted != [(Verdict::Passed, 1)] {
            return Err(format!("switched off, but {:?} ({:?})", outcome.counted, Hook::Ingress));
        }
    }
    Ok(())
}

//! Row DP-1.

use std::net::Ipv4Addr;

use datapath_common::Verdict;
use vipd_tests::packets::{Arp, BROADCAST, ETHERTYPE_ARP, Mac, Tag, ethernet, padded};

use crate::{
    bench::*,
    fixture::{Fixtures, taggings},
};

fn frame(to: Mac, from: Mac, tags: &[Tag], arp: Arp) -> Vec<u8> {
    padded(ethernet(to, from, tags, ETHERTYPE_ARP, &arp.bytes()))
}

fn who_has(target: Ipv4Addr) -> Arp {
    Arp::request(CLIENT, CLIENT4, target)
}

pub fn fixtures(f: &mut Fixtures) {
    for (name, tags, outer, inner) in taggings() {
        let vip = match (outer, inner) {
            (0, 0) => VIP4,
            (7, 0) => TAGGED4,
            _ => STACKED4,
        };
        let answer = Arp::reply(US, vip, CLIENT, CLIENT4);
        f.answered(
            &format!("arp: who-has, broadcast, {name}"),
            frame(BROADCAST, CLIENT, &tags, who_has(vip)),
            Verdict::AnsweredArp,
            frame(CLIENT, US, &tags, answer),
            Verdict::DroppedClosedArp,
        );
        for other in [VIP4, TAGGED4, STACKED4].into_iter().filter(|other| *other != vip) {
            f.passed(
                &format!("arp: who-has {other}, which lives in another VLAN, {name}"),
                frame(BROADCAST, CLIENT, &tags, who_has(other)),
                Verdict::Passed,
            );
        }
    }
    f.answered(
        "arp: who-has, unicast (refreshing a neighbour entry)",
        frame(US, CLIENT, &[], who_has(VIP4)),
        Verdict::AnsweredArp,
        frame(CLIENT, US, &[], Arp::reply(US, VIP4, CLIENT, CLIENT4)),
        Verdict::DroppedClosedArp,
    );
    f.answered(
        "arp: probe with sender 0.0.0.0",
        frame(BROADCAST, CLIENT, &[], Arp::request(CLIENT, Ipv4Addr::UNSPECIFIED, VIP4)),
        Verdict::AnsweredArp,
        frame(CLIENT, US, &[], Arp::reply(US, VIP4, CLIENT, Ipv4Addr::UNSPECIFIED)),
        Verdict::DroppedClosedArp,
    );
    f.answered(
        "arp: asked on another's behalf, answered to the sender it names",
        frame(BROADCAST, STRANGER, &[], who_has(VIP4)),
        Verdict::AnsweredArp,
        frame(CLIENT, US, &[], Arp::reply(US, VIP4, CLIENT, CLIENT4)),
        Verdict::DroppedClosedArp,
    );
    let unpadded = |to, from, arp: Arp| ethernet(to, from, &[], ETHERTYPE_ARP, &arp.bytes());
    f.answered(
        "arp: without padding",
        unpadded(BROADCAST, CLIENT, who_has(VIP4)),
        Verdict::AnsweredArp,
        unpadded(CLIENT, US, Arp::reply(US, VIP4, CLIENT, CLIENT4)),
        Verdict::DroppedClosedArp,
    );
    f.answered(
        "arp: target hardware address set to nonsense by the asker",
        frame(BROADCAST, CLIENT, &[], Arp { target_mac: BROADCAST, ..who_has(VIP4) }),
        Verdict::AnsweredArp,
        frame(CLIENT, US, &[], Arp::reply(US, VIP4, CLIENT, CLIENT4)),
        Verdict::DroppedClosedArp,
    );

    kernels(f);
    malformed(f);
}

/// Not ours to answer.
fn kernels(f: &mut Fixtures) {
    let who = |name: &str, verdict, arp| (name.to_owned(), frame(BROADCAST, CLIENT, &[], arp), verdict);
    let cases = [
        who("an address that is not held", Verdict::Passed, who_has(NOT_HELD4)),
        who("an address held on another interface", Verdict::Passed, who_has(ELSEWHERE4)),
        who("a stationary address", Verdict::Passed, who_has(STATION4)),
        who(
            "announcement of the VIP by another (request)",
            Verdict::PassedForeignClaim,
            Arp::request(CLIENT, VIP4, VIP4),
        ),
        who(
            "announcement of the VIP by another (reply)",
            Verdict::PassedForeignClaim,
            Arp::reply(CLIENT, VIP4, BROADCAST, VIP4),
        ),
        who(
            "reply in the name of the VIP",
            Verdict::PassedForeignClaim,
            Arp::reply(CLIENT, VIP4, US, STATION4),
        ),
        who("reply of somebody else", Verdict::Passed, Arp::reply(CLIENT, CLIENT4, US, STATION4)),
        who("reply to the VIP", Verdict::Passed, Arp::reply(CLIENT, CLIENT4, US, VIP4)),
        who("operation 0", Verdict::Passed, Arp { operation: 0, ..who_has(VIP4) }),
        who("reverse ARP (operation 3)", Verdict::Passed, Arp { operation: 3, ..who_has(VIP4) }),
    ];
    for (name, frame, verdict) in cases {
        f.passed(&format!("arp: {name}"), frame.clone(), verdict);
        // Claims of others are theirs to make, whether or not this node may speak.
        f.push(&format!("arp: {name}, lease expired"), Gates::Expired, frame, verdict, None);
    }
    f.passed(
        "arp: who-has, to another station (promiscuous)",
        frame(STRANGER, CLIENT, &[], who_has(VIP4)),
        Verdict::Passed,
    );
    f.push(
        "arp: who-has, to another station, lease expired",
        Gates::Expired,
        frame(STRANGER, CLIENT, &[], who_has(VIP4)),
        Verdict::Passed,
        None,
    );
}

fn malformed(f: &mut Fixtures) {
    let multicast: Mac = [0x01, 0, 0x5e, 0, 0, 1];
    let of = |arp| frame(BROADCAST, CLIENT, &[], arp);
    let cases = [
        ("hardware type is not Ethernet", of(Arp { hardware: 6, ..who_has(VIP4) })),
        ("protocol is not IPv4", of(Arp { protocol: 0x86dd, ..who_has(VIP4) })),
        ("hardware address length 8", of(Arp { hardware_length: 8, ..who_has(VIP4) })),
        ("protocol address length 16", of(Arp { protocol_length: 16, ..who_has(VIP4) })),
        ("sender hardware address is broadcast", of(Arp { sender_mac: BROADCAST, ..who_has(VIP4) })),
        ("sender hardware address is multicast", of(Arp { sender_mac: multicast, ..who_has(VIP4) })),
        ("sender hardware address is zero", of(Arp { sender_mac: [0; 6], ..who_has(VIP4) })),
        ("sender hardware address is ours", of(Arp { sender_mac: US, ..who_has(VIP4) })),
        ("frame from a multicast address", frame(BROADCAST, multicast, &[], who_has(VIP4))),
        ("frame from our own address", frame(BROADCAST, US, &[], who_has(VIP4))),
        ("sender is loopback", of(Arp { sender: Ipv4Addr::LOCALHOST, ..who_has(VIP4) })),
        ("sender is multicast", of(Arp { sender: Ipv4Addr::new(224, 0, 0, 1), ..who_has(VIP4) })),
        ("sender is the broadcast address", of(Arp { sender: Ipv4Addr::BROADCAST, ..who_has(VIP4) })),
        ("sender is the subnet's broadcast address", of(Arp { sender: BROADCAST4, ..who_has(VIP4) })),
        ("sender is of network 0", of(Arp { sender: Ipv4Addr::new(0, 0, 0, 7), ..who_has(VIP4) })),
    ];
    for (name, frame) in cases {
        f.passed(&format!("arp: {name}"), frame, Verdict::PassedMalformed);
    }
}

use std::net::IpAddr;

use anyhow::{Result, ensure};
use vipd_tests::netns::run;

use crate::{
    Tests,
    lab::{Pair, addr, is_from, net, until},
};

pub const TESTS: Tests = &[
    ("gratuitous_arps_byte_by_byte", gratuitous_arps_byte_by_byte),
    ("unsolicited_advertisement_byte_by_byte", unsolicited_advertisement_byte_by_byte),
    ("a_peer_replaces_what_it_knew", a_peer_replaces_what_it_knew),
    ("hundreds_in_one_call", hundreds_in_one_call),
    ("what_tc_egress_drops_is_reported", what_tc_egress_drops_is_reported),
    ("a_link_that_is_down_is_an_error", a_link_that_is_down_is_an_error),
];

fn is_arp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x08, 0x06])
}

/// An ICMPv6 neighbour advertisement.
fn is_advertisement(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(54) == Some(&136)
}

fn gratuitous_arps_byte_by_byte() -> Result<()> {
    let pair = Pair::new()?;
    let (mut capture, mac) = (pair.capture()?, pair.our_mac()?);
    pair.with_link(async |network, link| Ok(network.announce(&link, &[addr("192.0.2.50")])?))?;
    let ours = |frame: &[u8]| is_arp(frame) && is_from(frame, mac);
    let seen = capture.collect(4, ours)?;
    let vip = [192, 0, 2, 50];
    let frame = |operation: u8, target: [u8; 6]| {
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        [&[0xff; 6][..], &mac, &[8, 6], &head, &mac, &vip, &target, &vip].concat()
    };
    assert_eq!(seen, [frame(1, mac), frame(2, mac), frame(1, [0xff; 6]), frame(2, [0xff; 6])]);
    assert_eq!(capture.rest(ours), <[Vec<u8>; 0]>::default());
    Ok(())
}

fn unsolicited_advertisement_byte_by_byte() -> Result<()> {
    let pair = Pair::new()?;
    let (mut capture, mac) = (pair.capture()?, pair.our_mac()?);
    pair.with_link(async |network, link| Ok(network.announce(&link, &[addr("2001:db8::50")])?))?;
    let ours = |frame: &[u8]| is_advertisement(frame) && is_from(frame, mac);
    let seen = capture.collect(1, ours)?;
    let vip = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50];
    let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let sum = &seen[0][56..58];
    let expected = [
        &[0x33, 0x33, 0, 0, 0, 1][..],
        &mac,
        &[0x86, 0xdd],
        &[0x60, 0, 0, 0, 0, 32, 58, 255],
        &vip,
        &all_nodes,
        &[136, 0, sum[0], sum[1], 0x20, 0, 0, 0],
        &vip,
        &[2, 1],
        &mac,
    ]
    .concat();
    assert_eq!(seen[0], expected);
    // That the checksum is right is shown by the peer's kernel in the next test.
    assert_eq!(capture.rest(ours), <[Vec<u8>; 0]>::default());
    Ok(())
}

/// The real receiver: a Linux host that believes the address elsewhere.
fn a_peer_replaces_what_it_knew() -> Result<()> {
    let pair = Pair::new()?;
    let mac = pair.our_mac()?.map(|b| format!("{b:02x}")).join(":");
    for vip in ["192.0.2.50", "2001:db8::50"] {
        pair.peer.ip(&format!("neigh replace {vip} lladdr 02:00:00:00:00:99 dev eth0 nud reachable"))?;
        pair.with_link(async |network, link| Ok(network.announce(&link, &[addr(vip)])?))?;
        until(&format!("{vip} at {mac}"), || Ok(pair.peer.ip(&format!("neigh show {vip}"))?.contains(&mac)))?;
    }
    Ok(())
}

fn hundreds_in_one_call() -> Result<()> {
    let pair = Pair::new()?;
    let (mut capture, mac) = (pair.capture()?, pair.our_mac()?);
    // More frames than one system call takes.
    let vips: Vec<_> = (0..300)
        .map(|n| addr(&format!("10.0.{}.{}", n / 200, 1 + n % 200)))
        .chain((0..100).map(|n| addr(&format!("2001:db8::{:x}", 0x100 + n))))
        .collect();
    pair.with_link(async |network, link| Ok(network.announce(&link, &vips)?))?;
    let ours = |frame: &[u8]| is_from(frame, mac) && (is_arp(frame) || is_advertisement(frame));
    let seen = capture.collect(4 * 300 + 100, ours)?;
    for vip in vips {
        let (copies, at) = if vip.is_ipv4() { (4, 28) } else { (1, 22) };
        let octets = match vip {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        let of_vip = |f: &&Vec<u8>| is_arp(f) == vip.is_ipv4() && f[at..at + octets.len()] == octets[..];
        assert_eq!(seen.iter().filter(of_vip).count(), copies, "{vip}");
    }
    Ok(())
}

/// Announcements pass the place where the egress guard judges them, and a drop there is no success.
fn what_tc_egress_drops_is_reported() -> Result<()> {
    let pair = Pair::new()?;
    let rules = "add table netdev guard
        add chain netdev guard out { type filter hook egress device eth0 priority 0; policy drop; }";
    run(pair.us.command("nft").arg(rules))?;
    pair.with_link(async |network, link| {
        network.add_address(&link, net("192.0.2.50/24")).await?;
        let error =
            network.announce(&link, &[addr("192.0.2.50"), addr("2001:db8::50")]).unwrap_err().to_string();
        assert!(error.contains("5 of 5") && error.contains("192.0.2.50, 2001:db8::50"), "{error}");
        Ok(())
    })
}

fn a_link_that_is_down_is_an_error() -> Result<()> {
    let pair = Pair::new()?;
    pair.us.ip("link set eth0 down")?;
    pair.with_link(async |network, link| {
        let error = network.announce(&link, &[addr("192.0.2.50")]).unwrap_err().to_string();
        ensure!(error.contains("192.0.2.50") && error.contains("eth0"), "{error}");
        Ok(())
    })
}

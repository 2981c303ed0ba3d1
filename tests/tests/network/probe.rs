use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use vipd::observe::{
    network::Network,
    probe::{claims, claims_of},
};
use vipd_tests::netns::{NetNs, veth};

use crate::{
    Tests,
    lab::{Pair, addr, is_from, net, on},
};

pub const TESTS: Tests = &[
    ("a_claimant_is_found_early", a_claimant_is_found_early),
    ("silence_lasts_the_whole_wait", silence_lasts_the_whole_wait),
    ("probes_disturb_nobody", probes_disturb_nobody),
    ("a_simultaneous_arp_probe_is_a_claim", a_simultaneous_arp_probe_is_a_claim),
    ("a_simultaneous_solicitation_is_a_claim", a_simultaneous_solicitation_is_a_claim),
    ("own_interfaces_are_no_claimants", own_interfaces_are_no_claimants),
    ("two_hundred_at_once", two_hundred_at_once),
    ("a_link_that_is_down_is_an_error", a_link_that_is_down_is_an_error),
    ("duplicates_among_sixty_five_thousand", duplicates_among_sixty_five_thousand),
    ("every_address_of_a_set_is_probed_for", every_address_of_a_set_is_probed_for),
    ("a_small_set_of_both_families", a_small_set_of_both_families),
    ("sixteen_claims_are_enough", sixteen_claims_are_enough),
    ("a_large_set_listens_to_every_group", a_large_set_listens_to_every_group),
    ("a_set_on_a_link_that_is_down_is_an_error", a_set_on_a_link_that_is_down_is_an_error),
];

const SHORT: Duration = Duration::from_millis(200);

const LONG: Duration = Duration::from_secs(5);

/// 10.0.0.0 and up, 2001:db8::1:0 and up.
fn set(count: u32) -> impl Iterator<Item = IpAddr> {
    let v4 = (0..count).map(|n| Ipv4Addr::from(0x0a00_0000 + n).into());
    v4.chain((0..count).map(|n| Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(0x1_0000 + n)).into()))
}

fn give_to_peer(pair: &Pair, vips: &[&str]) -> Result<()> {
    let commands: Vec<_> = vips
        .iter()
        .map(|vip| match vip.contains(':') {
            true => format!("addr add {vip}/64 dev eth0 nodad\n"),
            false => format!("addr add {vip}/8 dev eth0\n"),
        })
        .collect();
    pair.peer.ip_batch(&commands.concat())
}

fn duplicates_among_sixty_five_thousand() -> Result<()> {
    let pair = Pair::new()?;
    let taken =
        ["10.0.0.0", "10.0.77.3", "10.0.255.255", "2001:db8::1:0", "2001:db8::1:4d03", "2001:db8::1:ffff"];
    give_to_peer(&pair, &taken)?;
    let mac = pair.peer_mac()?;
    pair.with_link(async |_, link| {
        let found: BTreeSet<_> = claims_of(&link, set(65_536), SHORT).await?.into_iter().collect();
        assert_eq!(found, taken.map(|vip| (addr(vip), mac)).into());
        Ok(())
    })
}

/// Nobody answers: each is asked for three times, or twice in a set of thousands.
fn every_address_of_a_set_is_probed_for() -> Result<()> {
    let pair = Pair::new()?;
    let mac = pair.our_mac()?;
    let probed = |frame: &[u8]| -> Option<IpAddr> {
        if !is_from(frame, mac) {
            return None;
        }
        if frame[12..14] == [8, 6] && frame[28..32] == [0; 4] {
            return Some(Ipv4Addr::from(<[u8; 4]>::try_from(&frame[38..42]).ok()?).into());
        }
        (frame[12..14] == [0x86, 0xdd] && frame[54] == 135 && frame[22..38] == [0; 16])
            .then(|| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[62..78]).unwrap_or_default()).into())
    };
    for (count, probes) in [(600, 3), (3000, 2)] {
        let mut capture = pair.capture()?;
        pair.with_link(async |_, link| {
            assert_eq!(claims_of(&link, set(count), SHORT).await?, []);
            Ok(())
        })?;
        let mut seen: Vec<_> =
            capture.rest(|frame| probed(frame).is_some()).iter().filter_map(|frame| probed(frame)).collect();
        seen.sort_unstable();
        let expected: Vec<_> = set(count).flat_map(|vip| vec![vip; probes]).collect();
        ensure!(seen == expected, "{} of {} probes for {count}", seen.len(), expected.len());
    }
    Ok(())
}

fn a_small_set_of_both_families() -> Result<()> {
    let pair = Pair::new()?;
    give_to_peer(&pair, &["10.0.0.3", "2001:db8::1:5"])?;
    let mac = pair.peer_mac()?;
    pair.with_link(async |_, link| {
        let found: BTreeSet<_> = claims_of(&link, set(10), SHORT).await?.into_iter().collect();
        assert_eq!(found, BTreeSet::from(["10.0.0.3", "2001:db8::1:5"].map(|vip| (addr(vip), mac))));
        Ok(())
    })
}

fn sixteen_claims_are_enough() -> Result<()> {
    let pair = Pair::new()?;
    let taken: Vec<_> = (0..100).map(|n| format!("10.0.3.{n}")).collect();
    give_to_peer(&pair, &taken.iter().map(String::as_str).collect::<Vec<_>>())?;
    pair.with_link(async |_, link| {
        let claims = claims_of(&link, set(5000), Duration::from_secs(3600));
        let found = tokio::time::timeout(crate::lab::DEADLINE, claims).await??;
        assert_eq!(found.len(), 16);
        ensure!(found.iter().all(|(vip, _)| taken.contains(&vip.to_string())), "{found:?}");
        Ok(())
    })
}

/// A veth receives every group anyway: what can be seen is that the device was told to, and that this ends.
fn a_large_set_listens_to_every_group() -> Result<()> {
    let pair = Pair::new()?;
    let told = |times: u32| -> Result<bool> {
        Ok(pair.us.ip("-d link show dev eth0")?.contains(&format!("allmulti {times} ")))
    };
    ensure!(told(0)?);
    std::thread::scope(|scope| {
        let sweep = scope.spawn(|| {
            pair.with_link(async |_, link| Ok(claims_of(&link, set(200), Duration::from_secs(1)).await?))
        });
        crate::lab::until("the device to receive all groups", || told(1))?;
        assert_eq!(sweep.join().expect("no panic")?, []);
        anyhow::Ok(())
    })?;
    crate::lab::until("the device to be as it was", || told(0))
}

fn a_set_on_a_link_that_is_down_is_an_error() -> Result<()> {
    let pair = Pair::new()?;
    pair.us.ip("link set eth0 down")?;
    pair.with_link(async |_, link| {
        let error = claims_of(&link, set(300), SHORT).await.unwrap_err().to_string();
        ensure!(error.contains("600 addresses") && error.contains("eth0"), "{error}");
        Ok(())
    })
}

fn a_claimant_is_found_early() -> Result<()> {
    let pair = Pair::new()?;
    pair.peer.ip("addr add 192.0.2.50/24 dev eth0")?;
    pair.peer.ip("addr add 2001:db8::50/64 dev eth0 nodad")?;
    let mac = pair.peer_mac()?;
    pair.with_link(async |_, link| {
        for vip in ["192.0.2.50", "2001:db8::50"] {
            let start = Instant::now();
            assert_eq!(claims(&link, addr(vip), LONG).await?, [mac], "{vip}");
            assert!(start.elapsed() < LONG / 2, "{vip}: {:?}", start.elapsed());
        }
        Ok(())
    })
}

fn silence_lasts_the_whole_wait() -> Result<()> {
    let pair = Pair::new()?;
    let wait = Duration::from_millis(200);
    pair.with_link(async |_, link| {
        for vip in ["192.0.2.50", "2001:db8::50"] {
            let start = Instant::now();
            assert_eq!(claims(&link, addr(vip), wait).await?, <[[u8; 6]; 0]>::default(), "{vip}");
            assert!(start.elapsed() >= wait, "{vip}: {:?}", start.elapsed());
        }
        Ok(())
    })
}

/// The address's holder and the bystanders keep what they know.
fn probes_disturb_nobody() -> Result<()> {
    let pair = Pair::new()?;
    let mac = pair.our_mac()?;
    let mut capture = pair.capture()?;
    pair.with_link(async |_, link| {
        claims(&link, addr("192.0.2.50"), Duration::from_millis(60)).await?;
        claims(&link, addr("2001:db8::50"), Duration::from_millis(60)).await?;
        Ok(())
    })?;
    let arp = |f: &[u8]| is_from(f, mac) && f[12..14] == [8, 6];
    let nd = |f: &[u8]| is_from(f, mac) && f[12..14] == [0x86, 0xdd] && f[54] == 135;
    let sent = capture.rest(|f| arp(f) || nd(f));
    // RFC 5227 section 1.1: three probes, from nobody; as many solicitations.
    let probes: Vec<_> = sent.iter().filter(|f| arp(f)).collect();
    let solicitations: Vec<_> = sent.iter().filter(|f| nd(f)).collect();
    assert_eq!((probes.len(), solicitations.len()), (3, 3));
    assert!(probes.iter().all(|f| f[20..22] == [0, 1] && f[28..32] == [0; 4]), "{probes:02x?}");
    assert!(solicitations.iter().all(|f| f[22..38] == [0; 16]), "{solicitations:02x?}");
    let known = pair.peer.ip("neigh show")?;
    ensure!(!known.contains("192.0.2.50 ") && !known.contains("2001:db8::50 "), "{known}");
    Ok(())
}

fn a_simultaneous_arp_probe_is_a_claim() -> Result<()> {
    let pair = Pair::new()?;
    let mac = pair.peer_mac()?;
    let mut arping = pair.peer.command("arping");
    arping.args(["-D", "-c", "10", "-w", "10", "-I", "eth0", "192.0.2.50"]).stdout(Stdio::null());
    let mut probing = arping.spawn()?;
    let found = pair.with_link(async |_, link| Ok(claims(&link, addr("192.0.2.50"), LONG).await?));
    // It may have ended already, having heard our probe.
    let _ = probing.kill();
    probing.wait()?;
    assert_eq!(found?, [mac]);
    Ok(())
}

/// Linux would yield to our first solicitation before it sent its own: so the peer is this library, too.
/// Whoever began first hears the other and yields, so that not both give up.
fn a_simultaneous_solicitation_is_a_claim() -> Result<()> {
    let pair = Pair::new()?;
    let macs = (pair.our_mac()?, pair.peer_mac()?);
    let probing = async |network: Network| {
        let link = network.link("eth0").await?;
        Ok(claims(&link, addr("2001:db8::50"), Duration::from_secs(1)).await?)
    };
    let (us, peer) = std::thread::scope(|scope| {
        let peer = scope.spawn(|| on(&pair.peer, probing));
        let us = on(&pair.us, probing);
        (us, peer.join().expect("no panic"))
    });
    let (us, peer) = (us?, peer?);
    ensure!(us == [macs.1] || peer == [macs.0], "{us:02x?} {peer:02x?}");
    Ok(())
}

/// Two of our interfaces on one segment: the other answers for the address as well (Linux does so).
fn own_interfaces_are_no_claimants() -> Result<()> {
    let (us, switch) = (NetNs::new("vipd-us")?, NetNs::new("vipd-sw")?);
    switch.ip("link add br0 type bridge")?;
    switch.ip("link set br0 up")?;
    for n in 0..2 {
        veth(&us, &format!("eth{n}"), &switch, &format!("port{n}"))?;
        switch.ip(&format!("link set port{n} master br0"))?;
    }
    us.ip("addr add 192.0.2.50/24 dev eth1")?;
    us.ip("addr add 2001:db8::50/64 dev eth1 nodad")?;
    let pair = Pair { us, peer: switch };
    // Until the bridge forwards: then a foreign address is found through it.
    pair.peer.ip("addr add 192.0.2.60/24 dev br0")?;
    crate::lab::until("the bridge forwards", || {
        pair.with_link(async |_, link| {
            Ok(!claims(&link, addr("192.0.2.60"), Duration::from_millis(100)).await?.is_empty())
        })
    })?;
    pair.with_link(async |_, link| {
        for vip in ["192.0.2.50", "2001:db8::50"] {
            let found = claims(&link, addr(vip), Duration::from_millis(300)).await?;
            assert_eq!(found, <[[u8; 6]; 0]>::default(), "{vip}");
        }
        Ok(())
    })
}

fn two_hundred_at_once() -> Result<()> {
    let pair = Pair::new()?;
    let taken = ["192.0.2.120", "192.0.2.150", "2001:db8::110", "2001:db8::150"];
    for vip in taken {
        let (prefix, nodad) = if vip.contains(':') { (64, "nodad") } else { (24, "") };
        pair.peer.ip(&format!("addr add {vip}/{prefix} dev eth0 {nodad}"))?;
    }
    pair.with_link(async |_, link| {
        let wait = Duration::from_millis(500);
        let start = Instant::now();
        let probes: Vec<_> = (0..100)
            .flat_map(|n| [format!("192.0.2.{}/24", 100 + n), format!("2001:db8::{:x}/64", 0x100 + n)])
            .map(|text| {
                let (vip, link) = (net(&text).addr(), link.clone());
                tokio::spawn(async move { (vip, claims(&link, vip, wait).await) })
            })
            .collect();
        let mut found = Vec::new();
        for probe in probes {
            let (vip, claims) = probe.await?;
            if !claims?.is_empty() {
                found.push(vip);
            }
        }
        found.sort_unstable();
        assert_eq!(found, taken.map(addr));
        assert!(start.elapsed() < 4 * wait, "{:?}", start.elapsed());
        Ok(())
    })
}

fn a_link_that_is_down_is_an_error() -> Result<()> {
    let pair = Pair::new()?;
    pair.us.ip("link set eth0 down")?;
    pair.with_link(async |_, link| {
        let error = claims(&link, addr("192.0.2.50"), LONG).await.unwrap_err().to_string();
        ensure!(error.contains("192.0.2.50") && error.contains("eth0"), "{error}");
        Ok(())
    })
}

use std::{
    collections::HashSet,
    net::IpAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use vipd::observe::ping::{Ping, Reply};

use crate::{
    Tests,
    lab::{PEER_V4, PEER_V6, Pair, addr, is_echo_request, is_from, net},
};

pub const TESTS: Tests = &[
    ("unicast_from_the_vip", unicast_from_the_vip),
    ("silent_targets_have_not_answered", silent_targets_have_not_answered),
    ("every_try_is_answered_once", every_try_is_answered_once),
    ("excluded_targets_do_not_count", excluded_targets_do_not_count),
    ("link_local_on_the_device", link_local_on_the_device),
    ("broadcast_in_a_silent_network", broadcast_in_a_silent_network),
    ("broadcast_in_an_answering_network", broadcast_in_an_answering_network),
    ("own_addresses_never_count", own_addresses_never_count),
    ("other_pings_are_not_taken_for_ours", other_pings_are_not_taken_for_ours),
    ("what_cannot_be_sent_is_an_error", what_cannot_be_sent_is_an_error),
];

fn ping() -> Ping {
    Ping {
        source: None,
        device: Some("eth0".to_owned()),
        tries: 2,
        wait: Duration::from_millis(150),
        exclude: Vec::new(),
        first_only: false,
    }
}

fn who(replies: &[Reply]) -> HashSet<IpAddr> {
    replies.iter().map(|r| r.from).collect()
}

/// Our host with a VIP of each family, the peer being deaf to group pings unless it is to answer.
fn pair_with_vips(peer_answers: bool) -> Result<Pair> {
    let pair = Pair::new()?;
    pair.with_link(async |network, link| {
        network.add_address(&link, net("192.0.2.50/24")).await?;
        network.add_address(&link, net("2001:db8::50/64")).await?;
        Ok(())
    })?;
    let ignore = if peer_answers { "0" } else { "1" };
    pair.peer.sysctl("ipv4/icmp_echo_ignore_broadcasts", ignore)?;
    pair.peer.sysctl("ipv6/icmp/echo_ignore_multicast", ignore)?;
    Ok(pair)
}

fn unicast_from_the_vip() -> Result<()> {
    let pair = pair_with_vips(false)?;
    let (mut capture, mac) = (pair.capture()?, pair.our_mac()?);
    for (vip, target) in [("192.0.2.50", PEER_V4), ("2001:db8::50", PEER_V6)] {
        let ping = Ping { source: Some(addr(vip)), wait: Duration::from_secs(5), first_only: true, ..ping() };
        let start = Instant::now();
        let replies = pair.with_network(async |_| Ok(ping.targets(&[addr(target)]).await?))?;
        assert_eq!((replies.len(), replies[0].from, replies[0].sequence), (1, addr(target), 1));
        assert!(replies[0].round_trip < Duration::from_secs(1) && start.elapsed() < ping.wait, "{replies:?}");
    }
    let requests = capture.rest(|f| is_from(f, mac) && is_echo_request(f));
    assert_eq!(requests.len(), 2, "{requests:02x?}");
    assert_eq!(requests[0][26..30], [192, 0, 2, 50]);
    assert_eq!(requests[1][22..38], "2001:db8::50".parse::<std::net::Ipv6Addr>()?.octets());
    Ok(())
}

fn silent_targets_have_not_answered() -> Result<()> {
    let pair = pair_with_vips(false)?;
    for (vip, silent, target) in
        [("192.0.2.50", "192.0.2.77", PEER_V4), ("2001:db8::50", "2001:db8::77", PEER_V6)]
    {
        let ping = Ping { source: Some(addr(vip)), ..ping() };
        let (none, one) = pair.with_network(async |_| {
            let start = Instant::now();
            let none = ping.targets(&[addr(silent)]).await?;
            assert!(start.elapsed() >= 2 * ping.wait, "{:?}", start.elapsed());
            Ok((none, ping.targets(&[addr(silent), addr(target)]).await?))
        })?;
        assert_eq!(none, []);
        assert_eq!(who(&one), HashSet::from([addr(target)]));
    }
    Ok(())
}

fn every_try_is_answered_once() -> Result<()> {
    let pair = Pair::new()?;
    pair.peer.ip("addr add 192.0.2.3/24 dev eth0")?;
    let ping = Ping { tries: 3, ..ping() };
    // Named twice is pinged once; both families at once.
    let targets = [PEER_V4, "192.0.2.3", PEER_V4, PEER_V6].map(addr);
    let replies = pair.with_network(async |_| {
        let start = Instant::now();
        let replies = ping.targets(&targets).await?;
        // Nothing is left to wait for after the last answers.
        assert!(start.elapsed() < 3 * ping.wait, "{:?}", start.elapsed());
        Ok(replies)
    })?;
    let mut seen: Vec<_> = replies.iter().map(|r| (r.from, r.sequence)).collect();
    seen.sort_unstable();
    let expected = [addr(PEER_V4), addr("192.0.2.3"), addr(PEER_V6)];
    let expected: Vec<_> = expected.iter().flat_map(|&a| (1..=3).map(move |n| (a, n))).collect();
    assert_eq!(seen, expected);
    Ok(())
}

fn excluded_targets_do_not_count() -> Result<()> {
    let pair = Pair::new()?;
    pair.with_network(async |_| {
        let ping = Ping { exclude: vec![addr(PEER_V4)], ..ping() };
        assert_eq!(ping.targets(&[addr(PEER_V4)]).await?, []);
        assert_eq!(
            who(&ping.targets(&[addr(PEER_V4), addr(PEER_V6)]).await?),
            HashSet::from([addr(PEER_V6)])
        );
        Ok(())
    })
}

fn link_local_on_the_device() -> Result<()> {
    let pair = Pair::new()?;
    let shown = pair.peer.ip("-6 addr show dev eth0 scope link")?;
    let local = shown.split_whitespace().find(|w| w.starts_with("fe80")).unwrap_or_default();
    let local = addr(local.split('/').next().unwrap_or_default());
    pair.with_network(async |_| {
        assert_eq!(who(&ping().targets(&[local]).await?), HashSet::from([local]));
        Ok(())
    })
}

fn broadcast_in_a_silent_network() -> Result<()> {
    let pair = pair_with_vips(false)?;
    let (mut capture, mac) = (pair.capture()?, pair.our_mac()?);
    pair.with_network(async |_| {
        for vip in ["192.0.2.50/24", "2001:db8::50/64"] {
            let ping = Ping { source: Some(net(vip).addr()), ..ping() };
            let start = Instant::now();
            assert_eq!(ping.broadcast(net(vip)).await?, [], "{vip}");
            assert!(start.elapsed() >= 2 * ping.wait, "{:?}", start.elapsed());
        }
        Ok(())
    })?;
    let requests = capture.rest(|f| is_from(f, mac) && is_echo_request(f));
    let to = |destination: &[u8], at: usize| {
        requests.iter().filter(|f| f[at..at + destination.len()] == *destination).count()
    };
    assert_eq!(to(&[192, 0, 2, 255], 30), 2);
    assert_eq!(to(&[255, 255, 255, 255], 30), 2);
    assert_eq!(to(&"ff02::1".parse::<std::net::Ipv6Addr>()?.octets(), 38), 2);
    assert_eq!(requests.len(), 6);
    // From the VIP, in frames to everybody.
    assert!(requests[..4].iter().all(|f| f[26..30] == [192, 0, 2, 50] && f[..6] == [0xff; 6]));
    Ok(())
}

fn broadcast_in_an_answering_network() -> Result<()> {
    let pair = pair_with_vips(true)?;
    pair.with_network(async |_| {
        for vip in ["192.0.2.50/24", "2001:db8::50/64"] {
            let ping = Ping { source: Some(net(vip).addr()), ..ping() };
            let replies = ping.broadcast(net(vip)).await?;
            // Each try once, although an IPv4 host is asked in two ways.
            let mut tries: Vec<_> = replies.iter().map(|r| r.sequence).collect();
            tries.sort_unstable();
            assert_eq!(tries, [1, 2], "{replies:?}");
            assert_eq!(who(&replies).len(), 1);
            let first = Ping { first_only: true, wait: Duration::from_secs(5), ..ping };
            let start = Instant::now();
            assert_eq!(first.broadcast(net(vip)).await?.len(), 1);
            assert!(start.elapsed() < first.wait);
            let from: Vec<_> = who(&replies).into_iter().collect();
            let excluding =
                Ping { exclude: from, first_only: false, wait: Duration::from_millis(100), ..first };
            assert_eq!(excluding.broadcast(net(vip)).await?, []);
        }
        Ok(())
    })
}

fn own_addresses_never_count() -> Result<()> {
    let pair = pair_with_vips(false)?;
    // Our own kernel does answer.
    pair.us.sysctl("ipv4/icmp_echo_ignore_broadcasts", "0")?;
    pair.us.sysctl("ipv6/icmp/echo_ignore_multicast", "0")?;
    pair.with_network(async |_| {
        for vip in ["192.0.2.50/24", "2001:db8::50/64"] {
            let ping = Ping { source: Some(net(vip).addr()), ..ping() };
            assert_eq!(ping.broadcast(net(vip)).await?, [], "{vip}");
        }
        Ok(())
    })
}

fn other_pings_are_not_taken_for_ours() -> Result<()> {
    let pair = Pair::new()?;
    let mut other = pair.us.command("ping");
    let mut other = other.args(["-i", "0.01", "-w", "20", PEER_V4]).stdout(Stdio::null()).spawn()?;
    let result = pair.with_network(async |_| {
        let runs: Vec<_> = (0..20)
            .map(|_| tokio::spawn(async { Ping { tries: 3, ..ping() }.targets(&[addr(PEER_V4)]).await }))
            .collect();
        for run in runs {
            let mut tries: Vec<_> = run.await??.iter().map(|r| r.sequence).collect();
            tries.sort_unstable();
            ensure!(tries == [1, 2, 3], "{tries:?}");
        }
        Ok(())
    });
    let _ = other.kill();
    other.wait()?;
    result
}

fn what_cannot_be_sent_is_an_error() -> Result<()> {
    let pair = Pair::new()?;
    pair.with_network(async |_| {
        let nowhere = Ping { device: Some("nosuch".to_owned()), ..ping() };
        let error = nowhere.targets(&[addr(PEER_V4)]).await.unwrap_err().to_string();
        assert!(error.contains(PEER_V4) && error.contains("nosuch"), "{error}");
        let stranger = Ping { source: Some(addr("192.0.2.99")), ..ping() };
        let error = stranger.targets(&[addr(PEER_V4)]).await.unwrap_err().to_string();
        assert!(error.contains("192.0.2.99"), "{error}");
        let mixed = Ping { source: Some(addr("192.0.2.1")), ..ping() };
        assert!(mixed.targets(&[addr(PEER_V6)]).await.is_err());
        let unreachable = Ping { device: None, ..ping() };
        assert!(unreachable.targets(&[addr("203.0.113.1")]).await.is_err());
        assert!(Ping { device: None, ..ping() }.broadcast(net("192.0.2.0/24")).await.is_err());
        assert_eq!(ping().targets(&[]).await?, []);
        Ok(())
    })
}

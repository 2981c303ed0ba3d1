//! The source address of what our host itself sends to a subnet (row IP-12).

use std::{process::Stdio, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use vipd::{
    core::command::{Command, Effect},
    model::Accept,
};
use vipd_tests::netns::run;

use crate::{
    Tests,
    accept::{WAYS, set},
    executor::executor,
    lab::{PEER_V4, Pair, is_echo_request, is_from, net},
};

pub const TESTS: Tests = &[
    ("it_is_the_vip_and_then_the_primary_again", it_is_the_vip_and_then_the_primary_again),
    ("the_last_one_in_service_wins", the_last_one_in_service_wins),
    ("it_comes_back_when_the_vip_is_gone_already", it_comes_back_when_the_vip_is_gone_already),
    ("metric_and_protocol_stay", metric_and_protocol_stay),
    ("the_same_subnet_elsewhere_stays", the_same_subnet_elsewhere_stays),
    ("a_subnet_of_vips_alone", a_subnet_of_vips_alone),
    ("other_routes_and_ipv6_stay", other_routes_and_ipv6_stay),
    ("a_bounce_renews_it", a_bounce_renews_it),
    ("the_primary_address_goes", the_primary_address_goes),
];

fn source(pair: &Pair, to: &str) -> Result<String> {
    let route = pair.us.ip(&format!("route get {to}"))?;
    let source = route.split_whitespace().skip_while(|word| *word != "src").nth(1);
    Ok(source.with_context(|| route.clone())?.to_owned())
}

/// The source of a ping for which none is named, as the peer sees it.
fn seen(pair: &Pair) -> Result<String> {
    let mac = pair.our_mac()?;
    let mut capture = pair.capture()?;
    run(pair.us.command("ping").args(["-c1", "-W5", PEER_V4]).stdout(Stdio::null()))?;
    let frames = capture.collect(1, |frame| is_from(frame, mac) && is_echo_request(frame))?;
    let ip: [u8; 4] = frames[0][26..30].try_into()?;
    Ok(std::net::Ipv4Addr::from(ip).to_string())
}

fn connected(pair: &Pair) -> Result<String> {
    Ok(pair.us.ip("route show 192.0.2.0/24")?.trim().to_owned())
}

fn it_is_the_vip_and_then_the_primary_again() -> Result<()> {
    let pair = Pair::new()?;
    let before = connected(&pair)?;
    let vip = set("192.0.2.50/24");
    for accept in WAYS {
        pair.with_network(async |network| {
            let (executor, _) = executor(network.clone());
            let (addresses, device) = (Arc::new(vip.clone()), "eth0".to_owned());
            let link = network.link("eth0").await?;
            network.add_addresses(&link, &vip, accept).await?;
            for _ in 0..2 {
                let set = Command::SetSource { addresses: addresses.clone(), device: device.clone() };
                assert_eq!(executor.perform(&set).await, Effect::Done);
                assert_eq!(source(&pair, PEER_V4)?, "192.0.2.50");
            }
            assert_eq!(seen(&pair)?, "192.0.2.50");
            ensure!(
                connected(&pair)?.contains("proto kernel scope link src 192.0.2.50"),
                "{}",
                connected(&pair)?
            );
            for _ in 0..2 {
                let unset = Command::UnsetSource { addresses: addresses.clone(), device: device.clone() };
                assert_eq!(executor.perform(&unset).await, Effect::Done);
                assert_eq!(connected(&pair)?, before);
            }
            assert_eq!(seen(&pair)?, "192.0.2.1");
            network.delete_addresses(&link, &vip, accept).await?;
            assert_eq!(connected(&pair)?, before);
            Ok(())
        })
        .with_context(|| format!("{accept:?}"))?;
    }
    Ok(())
}

fn the_last_one_in_service_wins() -> Result<()> {
    let pair = Pair::new()?;
    let (first, second) = (set("192.0.2.50-192.0.2.52/24"), set("192.0.2.60/24"));
    pair.with_link(async |network, link| {
        network.add_addresses(&link, &first, Accept::Assign).await?;
        network.add_addresses(&link, &second, Accept::Assign).await?;
        network.set_source(&link, &first).await?;
        assert_eq!(source(&pair, PEER_V4)?, "192.0.2.50");
        network.set_source(&link, &second).await?;
        assert_eq!(source(&pair, PEER_V4)?, "192.0.2.60");
        // The newest of those that remain.
        network.unset_source(&link, &second).await?;
        assert_eq!(source(&pair, PEER_V4)?, "192.0.2.50");
        network.set_source(&link, &second).await?;
        network.unset_source(&link, &first).await?;
        assert_eq!(source(&pair, PEER_V4)?, "192.0.2.60");
        network.unset_source(&link, &second).await?;
        assert_eq!(source(&pair, PEER_V4)?, "192.0.2.1");
        // One that is not here any more is none of those that remain.
        network.set_source(&link, &first).await?;
        network.set_source(&link, &second).await?;
        network.delete_addresses(&link, &first, Accept::Assign).await?;
        network.unset_source(&link, &second).await?;
        assert_eq!(source(&pair, PEER_V4)?, "192.0.2.1");
        Ok(())
    })
}

/// The kernel drops a route whose source is deleted: our host would be cut off from its own subnet.
fn it_comes_back_when_the_vip_is_gone_already() -> Result<()> {
    let pair = Pair::new()?;
    let before = connected(&pair)?;
    let vip = set("192.0.2.50/24");
    for another_life in [false, true] {
        pair.with_link(async |network, link| {
            network.add_addresses(&link, &vip, Accept::Assign).await?;
            network.set_source(&link, &vip).await?;
            pair.us.ip("addr del 192.0.2.50/24 dev eth0")?;
            assert_eq!(connected(&pair)?, "", "this kernel keeps it: then this test is about nothing");
            if !another_life {
                network.unset_source(&link, &vip).await?;
            }
            Ok(())
        })?;
        if another_life {
            pair.with_link(async |network, link| Ok(network.unset_source(&link, &vip).await?))?;
        }
        assert_eq!(connected(&pair)?, before, "{another_life}");
        assert_eq!(seen(&pair)?, "192.0.2.1");
    }
    Ok(())
}

/// As NetworkManager makes it: by hand, with a metric, and looking like the kernel's.
fn metric_and_protocol_stay() -> Result<()> {
    let pair = Pair::new()?;
    pair.us.ip_batch(
        "addr del 192.0.2.1/24 dev eth0\n\
         addr add 192.0.2.1/24 brd + dev eth0 noprefixroute\n\
         route add 192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.1 metric 100\n",
    )?;
    let before = connected(&pair)?;
    let vip = set("192.0.2.50/24");
    pair.with_link(async |network, link| {
        network.add_addresses(&link, &vip, Accept::Route).await?;
        network.set_source(&link, &vip).await?;
        let changed = connected(&pair)?;
        assert_eq!(changed, before.replace("src 192.0.2.1", "src 192.0.2.50"));
        network.unset_source(&link, &vip).await?;
        assert_eq!(connected(&pair)?, before);
        network.delete_addresses(&link, &vip, Accept::Route).await?;
        // The route that this process knew is made again as it was.
        network.add_addresses(&link, &vip, Accept::Assign).await?;
        network.set_source(&link, &vip).await?;
        network.delete_addresses(&link, &vip, Accept::Assign).await?;
        network.unset_source(&link, &vip).await?;
        assert!(connected(&pair)?.lines().any(|line| line.trim() == before), "{}", connected(&pair)?);
        Ok(())
    })
}

/// The kernel replaces the first route of a metric, whosever it is.
fn the_same_subnet_elsewhere_stays() -> Result<()> {
    for ours_first in [true, false] {
        let pair = Pair::new()?;
        vipd_tests::netns::veth(&pair.us, "eth1", &pair.peer, "eth1")?;
        pair.us.ip("addr add 192.0.2.7/24 dev eth1")?;
        if !ours_first {
            pair.us.ip("addr del 192.0.2.1/24 dev eth0")?;
            pair.us.ip("addr add 192.0.2.1/24 brd + dev eth0")?;
        }
        let before = connected(&pair)?;
        assert_eq!(before.starts_with("192.0.2.0/24 dev eth0"), ours_first, "{before}");
        let vip = set("192.0.2.50/24");
        pair.with_link(async |network, link| {
            network.add_addresses(&link, &vip, Accept::Route).await?;
            network.set_source(&link, &vip).await?;
            assert_eq!(connected(&pair)?, before.replace("src 192.0.2.1", "src 192.0.2.50"));
            network.unset_source(&link, &vip).await?;
            assert_eq!(connected(&pair)?, before);
            Ok(())
        })?;
    }
    Ok(())
}

fn a_subnet_of_vips_alone() -> Result<()> {
    let pair = Pair::new()?;
    let vips = set("198.51.100.8-198.51.100.11/24");
    let show = || -> Result<String> { Ok(pair.us.ip("route show 198.51.100.0/24")?.trim().to_owned()) };
    for accept in WAYS {
        pair.with_link(async |network, link| {
            network.add_addresses(&link, &vips, accept).await?;
            network.set_source(&link, &vips).await?;
            assert_eq!(source(&pair, "198.51.100.200")?, "198.51.100.8", "{accept:?}");
            network.unset_source(&link, &vips).await?;
            ensure!(!show()?.is_empty(), "the others need it, {accept:?}");
            network.delete_addresses(&link, &vips, accept).await?;
            assert_eq!(show()?, "", "{accept:?}");
            let error = network.set_source(&link, &vips).await.unwrap_err().to_string();
            ensure!(error.contains("198.51.100.0/24") && error.contains("eth0"), "{error}");
            Ok(())
        })?;
    }
    Ok(())
}

fn other_routes_and_ipv6_stay() -> Result<()> {
    let pair = Pair::new()?;
    pair.us.ip_batch(
        "route add default via 192.0.2.2\n\
         route add 203.0.113.0/24 dev eth0 src 192.0.2.1\n\
         route add 192.0.2.128/25 via 192.0.2.2\n",
    )?;
    let all = || -> Result<Vec<String>> {
        let routes = pair.us.ip("-4 route show")? + &pair.us.ip("-6 route show")?;
        let mut lines: Vec<String> = routes.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort();
        Ok(lines)
    };
    let vip = set("192.0.2.50/24 2001:db8::50/64");
    pair.with_link(async |network, link| {
        network.add_addresses(&link, &vip, Accept::Anyip).await?;
        let before = all()?;
        network.set_source(&link, &vip).await?;
        let differ: Vec<_> = all()?.into_iter().filter(|line| !before.contains(line)).collect();
        ensure!(differ.len() == 1 && differ[0].starts_with("192.0.2.0/24 "), "{differ:?}");
        network.unset_source(&link, &vip).await?;
        assert_eq!(all()?, before);
        Ok(())
    })
}

fn a_bounce_renews_it() -> Result<()> {
    let pair = Pair::new()?;
    let vip = set("192.0.2.50/24");
    pair.with_network(async |network| {
        let (executor, _) = executor(network.clone());
        let link = network.link("eth0").await?;
        network.add_addresses(&link, &vip, Accept::Assign).await?;
        network.set_source(&link, &vip).await?;
        for up in [false, true] {
            let set = Command::SetLink { device: "eth0".to_owned(), up };
            assert_eq!(executor.perform(&set).await, Effect::Done);
        }
        assert_eq!(source(&pair, PEER_V4)?, "192.0.2.50");
        network.unset_source(&link, &vip).await?;
        assert_eq!(source(&pair, PEER_V4)?, "192.0.2.1");
        Ok(())
    })
}

/// An administrator renumbers the host: the route stays while the VIP is its source, and the address that
/// remains takes its place.
fn the_primary_address_goes() -> Result<()> {
    let pair = Pair::new()?;
    let vip = set("192.0.2.50/24");
    pair.us.sysctl("ipv4/conf/eth0/promote_secondaries", "1")?;
    pair.us.ip("addr add 192.0.2.9/24 dev eth0")?;
    pair.with_link(async |network, link| {
        network.add_addresses(&link, &vip, Accept::Assign).await?;
        network.set_source(&link, &vip).await?;
        network.delete_address(&link, net("192.0.2.1/24")).await?;
        assert_eq!(source(&pair, PEER_V4)?, "192.0.2.50");
        network.unset_source(&link, &vip).await?;
        assert_eq!(source(&pair, PEER_V4)?, "192.0.2.9");
        network.delete_addresses(&link, &vip, Accept::Assign).await?;
        assert_eq!(source(&pair, PEER_V4)?, "192.0.2.9");
        assert_eq!(connected(&pair)?.lines().count(), 1, "{}", connected(&pair)?);
        Ok(())
    })
}

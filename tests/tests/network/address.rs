use anyhow::{Result, ensure};
use vipd::{act::address::PROTOCOL, observe::network::NetworkError};
use vipd_tests::netns::run;

use crate::{
    Tests,
    lab::{DEADLINE, PEER_V4, PEER_V6, Pair, addr, find, net, output},
};

pub const TESTS: Tests = &[
    ("links_are_read", links_are_read),
    ("ipv4_added_and_deleted", ipv4_added_and_deleted),
    ("ipv6_added_and_deleted", ipv6_added_and_deleted),
    ("peers_see_the_address", peers_see_the_address),
    ("another_prefix_length_is_refused", another_prefix_length_is_refused),
    ("a_point_to_point_prefix_has_no_broadcast", a_point_to_point_prefix_has_no_broadcast),
    ("deleting_the_primary_leaves_the_others", deleting_the_primary_leaves_the_others),
    ("deleting_leaves_the_prefix_route", deleting_leaves_the_prefix_route),
    ("host_route", host_route),
    ("neighbours_are_flushed_unless_configured", neighbours_are_flushed_unless_configured),
    ("route_cache", route_cache),
    ("link_down_and_up", link_down_and_up),
    ("two_hundred_at_once", two_hundred_at_once),
    ("many_dumps_at_once", many_dumps_at_once),
    ("thousands_of_requests_at_once", thousands_of_requests_at_once),
    ("no_such_device", no_such_device),
];

fn links_are_read() -> Result<()> {
    let pair = Pair::new()?;
    let mac = pair.our_mac()?;
    let (link, links) = pair.with_link(async |network, link| Ok((link, network.links().await?)))?;
    assert_eq!((link.name.as_str(), link.kind.as_deref(), link.mtu), ("eth0", Some("veth"), 1500));
    assert!(link.admin_up && link.carrier && !link.loopback);
    assert_eq!(link.mac, mac);
    assert!(links.contains(&link));
    let lo = links.iter().find(|l| l.name == "lo").expect("lo");
    assert!(lo.loopback && lo.admin_up && lo.kind.is_none());
    Ok(())
}

fn ipv4_added_and_deleted() -> Result<()> {
    let pair = Pair::new()?;
    let vip = net("192.0.2.50/24");
    pair.with_link(async |network, link| {
        network.add_address(&link, vip).await?;
        network.add_address(&link, vip).await?;
        let found = find(&network, "192.0.2.50").await?;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].address, found[0].index), (vip, link.index));
        assert_eq!(found[0].protocol, Some(PROTOCOL));
        assert_eq!(found[0].broadcast, Some(addr("192.0.2.255")));
        assert!(found[0].secondary && !found[0].tentative);
        let on = network.addresses_on(link.index).await?;
        assert!(on.contains(&found[0]) && on.iter().all(|a| a.index == link.index), "{on:?}");
        Ok(())
    })?;
    let shown = pair.us.ip("-4 addr show dev eth0")?;
    ensure!(shown.contains("192.0.2.50/24 brd 192.0.2.255 scope global secondary"), "{shown}");
    // The stationary address stays the one that is chosen.
    let route = pair.us.ip("route get 192.0.2.2")?;
    ensure!(route.contains("src 192.0.2.1 "), "{route}");
    pair.with_link(async |network, link| {
        network.delete_address(&link, vip).await?;
        network.delete_address(&link, vip).await?;
        assert_eq!(find(&network, "192.0.2.50").await?, []);
        assert_eq!(find(&network, "192.0.2.1").await?.len(), 1);
        Ok(())
    })
}

fn ipv6_added_and_deleted() -> Result<()> {
    let pair = Pair::new()?;
    let vip = net("2001:db8::50/64");
    pair.with_link(async |network, link| {
        network.add_address(&link, vip).await?;
        // Without detection by the kernel it can be used at once.
        let found = find(&network, "2001:db8::50").await?;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(!found[0].tentative);
        assert_eq!((found[0].address, found[0].protocol), (vip, Some(PROTOCOL)));
        network.add_address(&link, vip).await?;
        Ok(())
    })?;
    let shown = pair.us.ip("-6 addr show dev eth0")?;
    let ours = shown.split("inet6").find(|s| s.contains("2001:db8::50/64")).unwrap_or_default();
    ensure!(ours.contains("nodad") && ours.contains("deprecated"), "{shown}");
    ensure!(ours.contains("valid_lft forever preferred_lft 0sec"), "{shown}");
    let route = pair.us.ip("-6 route get 2001:db8::2")?;
    ensure!(route.contains("src 2001:db8::1 "), "it is never chosen when there is another: {route}");
    pair.with_link(async |network, link| {
        network.delete_address(&link, vip).await?;
        network.delete_address(&link, vip).await?;
        assert_eq!(find(&network, "2001:db8::50").await?, []);
        Ok(())
    })
}

fn peers_see_the_address() -> Result<()> {
    let pair = Pair::new()?;
    pair.with_link(async |network, link| {
        network.add_address(&link, net("192.0.2.50/24")).await?;
        network.add_address(&link, net("2001:db8::50/64")).await?;
        Ok(())
    })?;
    let mac = pair.our_mac()?.map(|b| format!("{b:02x}")).join(":");
    run(pair.peer.command("ping").args(["-c1", "-W5", "192.0.2.50"]))?;
    run(pair.peer.command("ping").args(["-c1", "-W5", "2001:db8::50"]))?;
    let seen = output(pair.peer.command("arping").args(["-c1", "-w5", "-I", "eth0", "192.0.2.50"]))?;
    ensure!(seen.to_lowercase().contains(&mac), "{seen}");
    let seen = output(pair.peer.command("ndisc6").args(["-1", "2001:db8::50", "eth0"]))?;
    ensure!(seen.to_lowercase().contains(&mac), "{seen}");
    // iputils' arping -D fails when somebody has the address.
    let detected =
        pair.peer.command("arping").args(["-D", "-c2", "-w5", "-I", "eth0", "192.0.2.50"]).output()?;
    ensure!(!detected.status.success(), "{detected:?}");
    Ok(())
}

fn another_prefix_length_is_refused() -> Result<()> {
    let pair = Pair::new()?;
    pair.us.ip("addr add 2001:db8::50/80 dev eth0 nodad")?;
    pair.with_link(async |network, link| {
        let error = network.add_address(&link, net("2001:db8::50/64")).await.unwrap_err().to_string();
        assert!(error.contains("2001:db8::50/64") && error.contains("2001:db8::50/80"), "{error}");
        Ok(())
    })
}

fn a_point_to_point_prefix_has_no_broadcast() -> Result<()> {
    let pair = Pair::new()?;
    pair.with_link(async |network, link| {
        for vip in ["198.51.100.1/32", "198.51.100.2/31"] {
            network.add_address(&link, net(vip)).await?;
            let found = find(&network, vip.split('/').next().unwrap()).await?;
            assert_eq!((found.len(), found[0].broadcast), (1, None), "{found:?}");
            network.delete_address(&link, net(vip)).await?;
        }
        Ok(())
    })
}

fn deleting_the_primary_leaves_the_others() -> Result<()> {
    let pair = Pair::new()?;
    for scope in ["all", "eth0"] {
        pair.us.sysctl(&format!("ipv4/conf/{scope}/promote_secondaries"), "0")?;
    }
    pair.with_link(async |network, link| {
        // A subnet of VIPs alone: the first is primary.
        for last in 10..15 {
            network.add_address(&link, net(&format!("198.51.100.{last}/24"))).await?;
        }
        assert!(!find(&network, "198.51.100.10").await?[0].secondary);
        for last in 10..14 {
            network.delete_address(&link, net(&format!("198.51.100.{last}/24"))).await?;
            for other in last + 1..15 {
                let found = find(&network, &format!("198.51.100.{other}")).await?;
                assert_eq!(found.len(), 1, "{other} went with {last}");
                assert_eq!(found[0].protocol, Some(PROTOCOL), "{other}");
            }
        }
        Ok(())
    })?;
    let route = pair.us.ip("route show 198.51.100.0/24")?;
    ensure!(route.contains("src 198.51.100.14"), "{route}");
    Ok(())
}

fn deleting_leaves_the_prefix_route() -> Result<()> {
    let pair = Pair::new()?;
    pair.with_link(async |network, link| {
        for vip in ["192.0.2.50/24", "2001:db8::50/64"] {
            network.add_address(&link, net(vip)).await?;
            network.delete_address(&link, net(vip)).await?;
        }
        Ok(())
    })?;
    run(pair.us.command("ping").args(["-c1", "-W5", PEER_V4]))?;
    run(pair.us.command("ping").args(["-c1", "-W5", PEER_V6]))?;
    Ok(())
}

fn host_route() -> Result<()> {
    let pair = Pair::new()?;
    let locals = |vip: &str| -> Result<bool> {
        let family = if vip.contains(':') { "-6" } else { "-4" };
        Ok(pair.us.ip(&format!("{family} route show table local"))?.contains(&format!("local {vip} ")))
    };
    for vip in ["192.0.2.50", "2001:db8::50"] {
        let prefix = if vip.contains(':') { 64 } else { 24 };
        pair.us.ip(&format!("addr add {vip}/{prefix} dev eth0"))?;
        if vip.contains(':') {
            // The route comes when duplicate address detection is done.
            crate::lab::until("the local route", || locals(vip))?;
        }
        assert!(locals(vip)?, "{vip}");
        pair.with_link(async |network, link| {
            let addresses = net(&format!("{vip}/{prefix}")).into();
            network.delete_host_routes(&link, &addresses).await?;
            network.delete_host_routes(&link, &addresses).await?;
            Ok(())
        })?;
        assert!(!locals(vip)?, "{vip}");
    }
    assert!(locals("192.0.2.1")? && locals("2001:db8::1")?);
    Ok(())
}

fn neighbours_are_flushed_unless_configured() -> Result<()> {
    let pair = Pair::new()?;
    for neighbour in ["192.0.2.9", "2001:db8::9"] {
        pair.us.ip(&format!("neigh add {neighbour} lladdr 02:00:00:00:00:09 dev eth0 nud permanent"))?;
    }
    for target in [PEER_V4, PEER_V6] {
        run(pair.us.command("ping").args(["-c1", "-W5", target]))?;
    }
    let known = pair.us.ip("neigh show dev eth0")?;
    ensure!(known.contains("192.0.2.2 ") && known.contains("2001:db8::2 "), "{known}");
    pair.with_link(async |network, link| Ok(network.flush_neighbours(&link).await?))?;
    let known = pair.us.ip("neigh show dev eth0 nud all")?;
    let usable: Vec<_> = known.lines().filter(|l| l.contains("lladdr") && !l.contains("NOARP")).collect();
    ensure!(usable.len() == 2 && usable.iter().all(|l| l.contains("PERMANENT")), "{known}");
    Ok(())
}

fn route_cache() -> Result<()> {
    Pair::new()?.with_network(async |network| Ok(network.flush_route_cache().await?))
}

fn link_down_and_up() -> Result<()> {
    let pair = Pair::new()?;
    pair.with_link(async |network, link| {
        network.set_link(&link, false).await?;
        assert!(!network.link("eth0").await?.admin_up);
        network.set_link(&link, true).await?;
        assert!(network.link("eth0").await?.admin_up);
        Ok(())
    })?;
    pair.peer.ip("link set eth0 down")?;
    let link = pair.with_link(async |_, link| Ok(link))?;
    assert!(link.admin_up && !link.carrier, "{link:?}");
    Ok(())
}

fn two_hundred_at_once() -> Result<()> {
    let pair = Pair::new()?;
    pair.with_link(async |network, link| {
        let vips: Vec<_> = (0..100)
            .flat_map(|n| [format!("192.0.2.{}/24", 100 + n), format!("2001:db8::{:x}/64", 0x100 + n)])
            .map(|text| net(&text))
            .collect();
        let all = |add: bool| {
            let tasks = vips.iter().map(|&vip| {
                let (network, link) = (network.clone(), link.clone());
                tokio::spawn(async move {
                    if add {
                        network.add_address(&link, vip).await
                    } else {
                        network.delete_address(&link, vip).await
                    }
                })
            });
            tasks.collect::<Vec<_>>()
        };
        for task in all(true) {
            task.await??;
        }
        let there = network.addresses_on(link.index).await?;
        assert_eq!(there.iter().filter(|a| a.protocol == Some(PROTOCOL)).count(), vips.len());
        for task in all(false) {
            task.await??;
        }
        let there = network.addresses_on(link.index).await?;
        assert_eq!(there.iter().filter(|a| a.protocol == Some(PROTOCOL)).count(), 0);
        assert_eq!(find(&network, "192.0.2.1").await?.len(), 1);
        Ok(())
    })
}

/// The kernel refuses a dump while another is running on the same socket: they take turns.
fn many_dumps_at_once() -> Result<()> {
    let pair = Pair::new()?;
    // More than one message of a dump can hold.
    let batch: String =
        (0..400).map(|n| format!("addr add 10.0.{}.{}/32 dev eth0\n", n / 200, 1 + n % 200)).collect();
    pair.us.ip_batch(&batch)?;
    pair.with_network(async |network| {
        let dumps: Vec<_> = (0..50)
            .map(|_| {
                let network = network.clone();
                tokio::spawn(async move { network.addresses().await })
            })
            .collect();
        for dump in dumps {
            assert!(dump.await??.len() >= 400);
        }
        Ok(())
    })
}

/// Far more answers than a socket's buffer holds: none may get lost, or its asker would wait for ever.
fn thousands_of_requests_at_once() -> Result<()> {
    Pair::new()?.with_network(async |network| {
        let requests: Vec<_> = (0..3000)
            .map(|_| {
                let network = network.clone();
                tokio::spawn(async move { network.link("eth0").await })
            })
            .collect();
        for request in requests {
            assert_eq!(tokio::time::timeout(DEADLINE, request).await???.name, "eth0");
        }
        Ok(())
    })
}

fn no_such_device() -> Result<()> {
    Pair::new()?.with_link(async |network, mut link| {
        for name in ["nosuch", "", "a-name-that-is-too-long-for-any-interface"] {
            let error = network.link(name).await.unwrap_err();
            assert!(matches!(&error, NetworkError::NoDevice(n) if n == name), "{name}: {error}");
        }
        // An interface that has gone meanwhile.
        link.index = 4711;
        network.delete_address(&link, net("192.0.2.50/24")).await?;
        network.delete_host_routes(&link, &net("192.0.2.50/24").into()).await?;
        network.flush_neighbours(&link).await?;
        assert_eq!(network.addresses_on(4711).await?, []);
        let error = network.add_address(&link, net("192.0.2.50/24")).await.unwrap_err().to_string();
        assert!(error.contains("192.0.2.50/24") && error.contains("eth0"), "{error}");
        Ok(())
    })
}

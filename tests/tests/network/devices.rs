//! The kinds of interface that carry VIPs, beyond the plain veth of the other tests.

use std::time::Duration;

use anyhow::{Result, ensure};
use vipd::observe::{ping::Ping, probe::claims};
use vipd_tests::netns::run;

use crate::{
    Tests,
    lab::{PEER_V4, PEER_V6, Pair, addr, net, until},
};

pub const TESTS: Tests = &[
    ("bridge", bridge),
    ("macvlan", macvlan),
    ("loopback_has_nobody_to_ask_or_tell", loopback_has_nobody_to_ask_or_tell),
];

fn bridge() -> Result<()> {
    let pair = Pair::new()?;
    pair.us.ip_batch(
        "addr flush dev eth0\n\
         link add br0 type bridge\n\
         link set br0 up\n\
         link set eth0 master br0\n\
         addr add 192.0.2.1/24 brd + dev br0\n\
         addr add 2001:db8::1/64 dev br0 nodad\n",
    )?;
    carries_vips(&pair, "br0", "bridge")
}

fn macvlan() -> Result<()> {
    let pair = Pair::new()?;
    pair.us.ip_batch(
        "addr flush dev eth0\n\
         link add mac0 link eth0 type macvlan mode bridge\n\
         link set mac0 up\n\
         addr add 192.0.2.1/24 brd + dev mac0\n\
         addr add 2001:db8::1/64 dev mac0 nodad\n",
    )?;
    carries_vips(&pair, "mac0", "macvlan")
}

/// All that a VIP needs of its interface.
fn carries_vips(pair: &Pair, name: &str, kind: &str) -> Result<()> {
    // Until a bridge forwards.
    for target in [PEER_V4, PEER_V6] {
        until(&format!("{target} through {name}"), || {
            Ok(pair.us.command("ping").args(["-c1", "-W1", target]).output()?.status.success())
        })?;
    }
    pair.peer.sysctl("ipv4/icmp_echo_ignore_broadcasts", "0")?;
    let peer_mac = pair.peer_mac()?;
    let (free, wait) = (Duration::from_millis(100), Duration::from_secs(5));
    for (vip, peer) in [("192.0.2.50/24", PEER_V4), ("2001:db8::50/64", PEER_V6)] {
        let vip = net(vip);
        pair.peer
            .ip(&format!("neigh replace {} lladdr 02:00:00:00:00:99 dev eth0 nud reachable", vip.addr()))?;
        let mac = pair.with_network(async |network| {
            let link = network.link(name).await?;
            ensure!(link.kind.as_deref() == Some(kind) && link.carrier, "{link:?}");
            ensure!(claims(&link, addr(peer), wait).await? == [peer_mac], "{peer} is the peer's");
            ensure!(claims(&link, vip.addr(), free).await?.is_empty(), "{vip} is free");
            network.add_address(&link, vip).await?;
            network.announce(&link, &[vip.addr()])?;
            let ping = Ping {
                source: Some(vip.addr()),
                device: Some(name.to_owned()),
                tries: 1,
                wait,
                exclude: Vec::new(),
                first_only: true,
            };
            ensure!(ping.broadcast(vip).await?.len() == 1, "somebody answers {vip}");
            ensure!(ping.targets(&[addr(peer)]).await?.len() == 1, "the peer answers {vip}");
            Ok(link.mac)
        })?;
        let mac = mac.map(|b| format!("{b:02x}")).join(":");
        until(&format!("{vip} at {mac}"), || {
            Ok(pair.peer.ip(&format!("neigh show {}", vip.addr()))?.contains(&mac))
        })?;
        run(pair.peer.command("ping").args(["-c1", "-W5", &vip.addr().to_string()]))?;
        pair.with_network(async |network| {
            Ok(network.delete_address(&network.link(name).await?, vip).await?)
        })?;
    }
    Ok(())
}

fn loopback_has_nobody_to_ask_or_tell() -> Result<()> {
    Pair::new()?.with_network(async |network| {
        let lo = network.link("lo").await?;
        for vip in ["192.0.2.50/32", "2001:db8::50/128"] {
            assert_eq!(claims(&lo, net(vip).addr(), Duration::from_secs(60)).await?.len(), 0);
            network.add_address(&lo, net(vip)).await?;
            network.announce(&lo, &[net(vip).addr()])?;
            network.delete_address(&lo, net(vip)).await?;
        }
        Ok(())
    })
}

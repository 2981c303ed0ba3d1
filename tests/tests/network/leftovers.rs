//! What a life of vipd that was killed has left, found by the next one.

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::{Context as _, Result, ensure};
use vipd::{
    act::{
        accept::Placed,
        datapath::{self, Datapath, KernelDatapath, MemoryDatapath},
    },
    config::DatapathConfig,
    daemon::{
        events::EventLog,
        leftovers::{self, Which},
    },
    model::{Accept, Ranges},
    observe::network::Network,
};

use crate::{
    Tests,
    accept::set,
    lab::{Pair, addr, net},
};

pub const TESTS: Tests = &[
    ("all_of_ours_goes_and_nothing_else", all_of_ours_goes_and_nothing_else),
    ("what_the_datapath_holds_stays", what_the_datapath_holds_stays),
    ("a_source_goes_without_its_route", a_source_goes_without_its_route),
    ("tens_of_thousands", tens_of_thousands),
    ("what_is_ours_is_told_by_interface_and_way", what_is_ours_is_told_by_interface_and_way),
];

fn memory() -> Arc<dyn Datapath> {
    Arc::new(MemoryDatapath::new(100_000, "a test".to_owned()))
}

async fn remove(which: Which, network: &Network, datapath: &Arc<dyn Datapath>) -> Result<Vec<String>> {
    let events = EventLog::open(None);
    leftovers::remove(which, network, datapath, &events).await?;
    let (told, _) = events.follow();
    Ok(told.into_iter().map(|event| format!("{}: {}", event.kind, event.message)).collect())
}

/// All addresses and routes, without what changes by itself.
fn configuration(pair: &Pair) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for command in ["-4 route show table all", "-6 route show table all", "-o addr show"] {
        all.extend(pair.us.ip(command)?.lines().map(|line| line.trim().to_owned()));
    }
    all.sort();
    Ok(all)
}

fn all_of_ours_goes_and_nothing_else() -> Result<()> {
    let pair = Pair::new()?;
    vipd_tests::netns::veth(&pair.us, "eth1", &pair.peer, "eth1")?;
    crate::lab::until("IPv6 on eth1", || {
        let shown = pair.us.ip("-6 addr show dev eth1")?;
        Ok(shown.contains("fe80:") && !shown.contains("tentative"))
    })?;
    // Others' addresses, local routes and subnets, in the midst of ours.
    pair.us.ip_batch(
        "addr add 198.51.100.20/24 dev eth1\n\
         addr add 2001:db8:5::20/64 dev eth1 nodad\n\
         route add local 10.9.0.7 dev eth0 table local proto static\n\
         route add local 10.8.0.0/16 dev lo table local\n\
         route add 10.7.0.0/16 dev eth0 proto static scope link\n\
         route add local 2001:db8:6::/64 dev eth0 table local proto static\n",
    )?;
    let before = configuration(&pair)?;
    let assigned = set("192.0.2.50-192.0.2.59/24 198.51.100.50/24 2001:db8::50/64");
    let routed = set("10.9.1.0-10.9.1.99/16 2001:db8:7::5/64");
    let prefixes = set("10.9.2.0-10.9.2.254/16 2001:db8:8::-2001:db8:8::ff/64");
    pair.with_network(async |network| {
        for device in ["eth0", "eth1"] {
            let link = network.link(device).await?;
            network.add_addresses(&link, &assigned, Accept::Assign).await?;
            if device == "eth0" {
                network.add_addresses(&link, &routed, Accept::Route).await?;
                network.add_addresses(&link, &prefixes, Accept::Anyip).await?;
            }
        }
        Ok(())
    })?;
    ensure!(configuration(&pair)?.len() > before.len() + 100, "they are there");
    let told = pair.with_network(async |network| remove(Which::Unguarded, &network, &memory()).await)?;
    assert_eq!(configuration(&pair)?, before);
    assert_eq!(told.len(), 2, "one event for each interface: {told:?}");
    assert!(told.iter().all(|t| t.starts_with("leftover.removed: ")), "{told:?}");
    // Then there is nothing to do.
    let told = pair.with_network(async |network| remove(Which::All, &network, &memory()).await)?;
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(configuration(&pair)?, before);
    // A route to a subnet that a crash left alone.
    pair.us.ip("route add 10.9.0.0/16 dev eth0 proto 118 scope link")?;
    pair.with_network(async |network| remove(Which::Unguarded, &network, &memory()).await)?;
    assert_eq!(configuration(&pair)?, before);
    Ok(())
}

fn what_the_datapath_holds_stays() -> Result<()> {
    let pair = Pair::new()?;
    let pins = PathBuf::from(format!("/sys/fs/bpf/vipd-test-leftovers-{}", std::process::id()));
    let config = DatapathConfig { max_vips: 1024, pin_dir: pins.clone(), ..DatapathConfig::default() };
    let (held, left) = (set("10.9.0.0-10.9.0.127/16"), set("10.9.0.128-10.9.0.255/16"));
    let result = pair.with_link(async |network, link| {
        // One prefix, of which the datapath holds half.
        network.add_addresses(&link, &held.union(&left), Accept::Anyip).await?;
        let datapath: Arc<dyn Datapath> = Arc::new(KernelDatapath::open(&config)?);
        datapath.attach(&datapath::facts("eth0", 0)?)?;
        datapath.program(7, link.index, &held.hosts())?;
        let told = remove(Which::Unguarded, &network, &datapath).await?;
        ensure!(told.len() == 1 && told[0].contains("10.9.0.128-10.9.0.255"), "{told:?}");
        let placed = Placed { index: link.index, accept: Accept::Anyip, addresses: held.hosts() };
        assert_eq!(network.ours().await?, [placed]);
        let programmed = datapath.programmed()?;
        assert_eq!(programmed.iter().map(|p| p.group).collect::<Vec<_>>(), [7]);
        assert_eq!(programmed[0].addresses, held.hosts());
        ensure!(pair.us.ip("route show 10.9.0.0/16")?.contains("proto 118"), "what stays needs its subnet");
        // In no cluster, nothing stays.
        remove(Which::All, &network, &datapath).await?;
        assert_eq!(network.ours().await?, []);
        assert_eq!(pair.us.ip("route show proto 118")?, "");
        Ok(())
    });
    let unloaded = datapath::unload(&pins);
    result?;
    Ok(unloaded?)
}

/// The kernel would drop the subnet's route with the address that is its source.
fn a_source_goes_without_its_route() -> Result<()> {
    let pair = Pair::new()?;
    for accept in crate::accept::WAYS {
        let before = configuration(&pair)?;
        let vip = set("192.0.2.50/24");
        pair.with_link(async |network, link| {
            network.add_addresses(&link, &vip, accept).await?;
            Ok(network.set_source(&link, &vip).await?)
        })?;
        ensure!(pair.us.ip("route get 192.0.2.2")?.contains("src 192.0.2.50"), "{accept:?}");
        pair.with_network(async |network| remove(Which::Unguarded, &network, &memory()).await)?;
        assert_eq!(configuration(&pair)?, before, "{accept:?}");
    }
    Ok(())
}

fn tens_of_thousands() -> Result<()> {
    let pair = Pair::new()?;
    let before = configuration(&pair)?;
    for text in ["10.9.0.0-10.9.255.255/16", "fd00:9::-fd00:9::ffff/64"] {
        for accept in [Accept::Route, Accept::Anyip] {
            let many = set(text);
            pair.with_link(async |network, link| Ok(network.add_addresses(&link, &many, accept).await?))?;
            let elapsed = pair.with_network(async |network| {
                let start = Instant::now();
                remove(Which::Unguarded, &network, &memory()).await?;
                Ok(start.elapsed())
            })?;
            assert_eq!(configuration(&pair)?, before, "{text} {accept:?}");
            eprintln!("{} leftovers of {text} by {accept:?} removed in {elapsed:.1?}", many.count());
        }
    }
    Ok(())
}

fn what_is_ours_is_told_by_interface_and_way() -> Result<()> {
    let pair = Pair::new()?;
    pair.with_link(async |network, link| {
        assert_eq!(network.ours().await?, []);
        let (assigned, routed) = (set("192.0.2.50-192.0.2.52/24 2001:db8::50/64"), set("192.0.2.60/24"));
        let prefixes = set("10.9.0.0-10.9.255.255/16");
        network.add_addresses(&link, &assigned, Accept::Assign).await?;
        network.add_addresses(&link, &routed, Accept::Route).await?;
        network.add_addresses(&link, &prefixes, Accept::Anyip).await?;
        network.add_address(&network.link("lo").await?, net("203.0.113.1/32")).await?;
        let mut ours = network.ours().await?;
        ours.sort_by_key(|p| (p.index, p.accept != Accept::Assign, p.accept != Accept::Route));
        let placed = |index, accept, addresses: Ranges| Placed { index, accept, addresses };
        let lo = network.link("lo").await?.index;
        let expected = [
            placed(lo, Accept::Assign, [addr("203.0.113.1")].into_iter().collect()),
            placed(link.index, Accept::Assign, assigned.hosts()),
            placed(link.index, Accept::Route, routed.hosts()),
            placed(link.index, Accept::Anyip, prefixes.hosts()),
        ];
        assert_eq!(ours, expected);
        // Only these hosts, in whichever way.
        let some = set("192.0.2.51-192.0.2.60/24 10.9.0.0-10.9.127.255/16").hosts();
        network.remove_ours(&link, &some).await?;
        let all: Ranges =
            network.ours().await?.iter().fold(Ranges::default(), |all, p| all.union(&p.addresses));
        let kept = set("192.0.2.50/24 2001:db8::50/64 10.9.128.0-10.9.255.255/16 203.0.113.1/32").hosts();
        assert_eq!(all, kept);
        Ok(())
    })
    .context("ours")
}

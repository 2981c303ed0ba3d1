//! Sets of addresses, accepted in the three ways of row IP-17.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use vipd::{
    act::datapath::{self, Attachment, Datapath as _, KernelDatapath},
    config::DatapathConfig,
    core::command::{Command, Effect, Misplaced, Place, Presence},
    model::{Accept, Addresses},
    observe::{clock, network::Network, ping::Ping},
};
use vipd_tests::netns::{run, veth};

use crate::{
    Tests,
    executor::executor,
    lab::{DEADLINE, PEER_V4, Pair, addr, net, until},
};

pub const TESTS: Tests = &[
    ("a_neighbour_reaches_them", a_neighbour_reaches_them),
    ("xdp_answers_for_unassigned_ipv6", xdp_answers_for_unassigned_ipv6),
    ("arp_by_the_kernel_alone", arp_by_the_kernel_alone),
    ("a_subnet_with_an_address_needs_no_route", a_subnet_with_an_address_needs_no_route),
    ("the_last_one_takes_the_shared_along", the_last_one_takes_the_shared_along),
    ("allmulticast_of_others_stays", allmulticast_of_others_stays),
    ("presence_tells_the_ways_apart", presence_tells_the_ways_apart),
    ("an_unreachable_subnet_is_seen", an_unreachable_subnet_is_seen),
    ("one_way_is_deleted_alone", one_way_is_deleted_alone),
    ("a_wide_prefix_loses_only_what_is_asked", a_wide_prefix_loses_only_what_is_asked),
    ("somebody_elses_route_is_not_taken", somebody_elses_route_is_not_taken),
    ("ours_are_on_two_interfaces_while_they_move", ours_are_on_two_interfaces_while_they_move),
    ("a_dropped_batch_leaves_nothing_under_way", a_dropped_batch_leaves_nothing_under_way),
    ("a_thousand_assigned", a_thousand_assigned),
    ("tens_of_thousands_routed", tens_of_thousands_routed),
    ("one_among_ten_thousand", one_among_ten_thousand),
];

pub const WAYS: [Accept; 3] = [Accept::Assign, Accept::Route, Accept::Anyip];

/// FIRST-LAST/LENGTH, separated by blanks.
pub fn set(text: &str) -> Addresses {
    let mut all = Addresses::default();
    for item in text.split_whitespace() {
        let (range, length) = item.split_once('/').expect("a prefix length");
        let first = range.split('-').next().expect("an address");
        all.insert(net(&format!("{first}/{length}")), range.parse().expect("a range"));
    }
    all
}

fn at(addresses: &Addresses, accept: Accept) -> Place {
    Place { addresses: Arc::new(addresses.clone()), device: "eth0".to_owned(), accept }
}

async fn presence(network: &Network, place: &Place) -> Presence {
    let (executor, _) = executor(network.clone());
    match executor.perform(&Command::ReadAddresses { place: place.clone() }).await {
        Effect::Presence(presence) => presence,
        effect => panic!("{place:?}: {effect:?}"),
    }
}

fn ours(addresses: &Addresses) -> Presence {
    Presence { ours: addresses.clone(), ..Presence::default() }
}

/// Routes with vipd's protocol number.
fn routes(pair: &Pair, table: &str) -> Result<String> {
    let v4 = pair.us.ip(&format!("-4 route show table {table} proto 118"))?;
    Ok(v4 + &pair.us.ip(&format!("-6 route show table {table} proto 118"))?)
}

fn is_allmulti(pair: &Pair) -> Result<bool> {
    Ok(pair.us.ip("link show dev eth0")?.contains("ALLMULTI"))
}

/// A subnet of which our host has no other address, and the peer has one.
const SUBNET_V4: &str = "198.51.100.8-198.51.100.14/24";
const SUBNET_V6: &str = "2001:db8:5::8-2001:db8:5::e/64";

fn with_subnets() -> Result<Pair> {
    let pair = Pair::new()?;
    pair.peer.ip("addr add 198.51.100.200/24 dev eth0")?;
    pair.peer.ip("addr add 2001:db8:5::200/64 dev eth0 nodad")?;
    Ok(pair)
}

/// Neighbour entries in place of the answers that XDP would give.
fn tell_the_peer(pair: &Pair, addresses: &Addresses) -> Result<()> {
    let mac = pair.our_mac()?.map(|b| format!("{b:02x}")).join(":");
    let line = |a: IpNet| format!("neigh replace {} lladdr {mac} dev eth0 nud permanent\n", a.addr());
    pair.peer.ip_batch(&addresses.iter().filter(|a| a.addr().is_ipv6()).map(line).collect::<String>())
}

fn pings(pair: &Pair, address: IpAddr) -> Result<bool> {
    let output = pair.peer.command("ping").args(["-c1", "-W1", &address.to_string()]).output()?;
    Ok(output.status.success())
}

fn a_neighbour_reaches_them() -> Result<()> {
    let pair = with_subnets()?;
    for (text, client) in [(SUBNET_V4, "198.51.100.200"), (SUBNET_V6, "2001:db8:5::200")] {
        let addresses = set(text);
        tell_the_peer(&pair, &addresses)?;
        for accept in WAYS {
            let failed = || format!("{text} by {accept:?}");
            pair.with_link(async |network, link| {
                network.add_addresses(&link, &addresses, accept).await?;
                // Adding again changes nothing.
                network.add_addresses(&link, &addresses, accept).await?;
                assert_eq!(presence(&network, &at(&addresses, accept)).await, ours(&addresses));
                let ping = Ping {
                    source: addresses.first().map(|a| a.addr()),
                    device: Some("eth0".to_owned()),
                    tries: 1,
                    wait: DEADLINE,
                    exclude: Vec::new(),
                    first_only: true,
                };
                let heard = ping.targets(&[addr(client)]).await?;
                ensure!(heard.len() == 1, "nobody answers the virtual address");
                Ok(())
            })
            .with_context(failed)?;
            for address in addresses.iter() {
                ensure!(pings(&pair, address.addr())?, "{address} by {accept:?}");
                conversation(&pair, address.addr(), addr(client), accept).with_context(failed)?;
            }
            pair.with_link(async |network, link| {
                network.delete_addresses(&link, &addresses, accept).await?;
                network.delete_addresses(&link, &addresses, accept).await?;
                assert_eq!(presence(&network, &at(&addresses, accept)).await, Presence::default());
                Ok(())
            })?;
            assert_eq!(routes(&pair, "all")?, "", "{accept:?}");
            let first = addresses.first().context("an address")?.addr();
            ensure!(!pings(&pair, first)?, "{first} is gone, {accept:?}");
        }
    }
    Ok(())
}

/// TCP both ways: to the address, and from it.
fn conversation(pair: &Pair, vip: IpAddr, client: IpAddr, accept: Accept) -> Result<()> {
    // Bound to that address: IPv6 that is not assigned needs IPV6_FREEBIND for that, and only that.
    let freely = vip.is_ipv6() && accept != Accept::Assign;
    pair.us.enter(|| -> Result<()> {
        let refused = bound(vip, false).is_err();
        ensure!(refused == freely, "refused without IPV6_FREEBIND: {refused}");
        Ok(())
    })?;
    let anywhere: IpAddr = if vip.is_ipv6() { IpAddr::from([0; 16]) } else { IpAddr::from([0; 4]) };
    for local in [vip, anywhere] {
        let socket = pair.us.enter(|| bound(local, freely))?;
        socket.listen(1)?;
        let listener = TcpListener::from(socket);
        let to = SocketAddr::new(vip, listener.local_addr()?.port());
        let mut theirs = pair.peer.enter(|| TcpStream::connect_timeout(&to, DEADLINE))?;
        theirs.set_read_timeout(Some(DEADLINE))?;
        let (mut ours, _) = listener.accept()?;
        ours.write_all(b"hello")?;
        drop(ours);
        let mut heard = String::new();
        theirs.read_to_string(&mut heard)?;
        ensure!(heard == "hello" && theirs.peer_addr()? == to, "{heard} from {:?}", theirs.peer_addr());
    }
    let listener = pair.peer.enter(|| TcpListener::bind((client, 0)))?;
    let socket = pair.us.enter(|| bound(vip, freely))?;
    socket.connect_timeout(&listener.local_addr()?.into(), DEADLINE)?;
    let (_, from) = listener.accept()?;
    ensure!(from.ip() == vip, "{vip} is seen as {from}");
    Ok(())
}

fn bound(address: IpAddr, freely: bool) -> Result<Socket> {
    let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if freely {
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&SocketAddr::new(address, 0).into())?;
    Ok(socket)
}

/// The real datapath in generic mode answers solicitations for prefixes; without it nobody does.
fn xdp_answers_for_unassigned_ipv6() -> Result<()> {
    let pair = with_subnets()?;
    let addresses = set(SUBNET_V6);
    let first = addresses.first().context("an address")?.addr();
    let pins = std::path::PathBuf::from(format!("/sys/fs/bpf/vipd-test-accept-{}", std::process::id()));
    let config = DatapathConfig { max_vips: 64, pin_dir: pins.clone(), ..DatapathConfig::default() };
    let result = pair.with_link(async |network, link| {
        network.add_addresses(&link, &addresses, Accept::Anyip).await?;
        ensure!(!pings(&pair, first)?, "the kernel answers solicitations by itself");
        let datapath = KernelDatapath::open(&config)?;
        let attachment = datapath.attach(&datapath::facts("eth0", 0)?)?;
        ensure!(matches!(attachment, Attachment::Generic { .. }), "{attachment:?}");
        datapath.set_lease(1, clock::now().after(Duration::from_secs(600)))?;
        datapath.program(1, link.index, &addresses.hosts())?;
        datapath.open_gate(1, 1, 1)?;
        for address in addresses.iter() {
            // The first packet waits for the answer to the solicitation.
            until(&format!("{address} answers"), || pings(&pair, address.addr()))?;
            conversation(&pair, address.addr(), addr("2001:db8:5::200"), Accept::Anyip)?;
        }
        Ok(())
    });
    let unloaded = datapath::unload(&pins);
    result?;
    Ok(unloaded?)
}

/// What the kernel does with ARP for local routes where there is no XDP: it answers on every interface, and with
/// `arp_ignore` on none.
fn arp_by_the_kernel_alone() -> Result<()> {
    let pair = with_subnets()?;
    vipd_tests::netns::veth(&pair.us, "eth1", &pair.peer, "eth1")?;
    let addresses = set(SUBNET_V4);
    pair.with_link(async |network, link| {
        Ok(network.add_addresses(&link, &addresses, Accept::Anyip).await?)
    })?;
    let answered = |device: &str| -> Result<bool> {
        let args = ["-c1", "-w1", "-D", "-I", device, "198.51.100.9"];
        // iputils' arping -D fails when somebody has the address.
        Ok(!pair.peer.command("arping").args(args).output()?.status.success())
    };
    until("an answer", || answered("eth0"))?;
    until("an answer on the other interface", || answered("eth1"))?;
    pair.us.sysctl("ipv4/conf/all/arp_ignore", "1")?;
    ensure!(!answered("eth0")? && !answered("eth1")?, "arp_ignore looks for assigned addresses only");
    Ok(())
}

fn a_subnet_with_an_address_needs_no_route() -> Result<()> {
    let pair = Pair::new()?;
    let addresses = set("192.0.2.50-192.0.2.60/24 2001:db8::50-2001:db8::60/64");
    tell_the_peer(&pair, &addresses)?;
    for accept in [Accept::Route, Accept::Anyip] {
        pair.with_link(async |network, link| {
            network.add_addresses(&link, &addresses, accept).await?;
            assert_eq!(routes(&pair, "main")?, "");
            assert_eq!(presence(&network, &at(&addresses, accept)).await, ours(&addresses));
            for vip in ["192.0.2.55", "2001:db8::55"] {
                ensure!(pings(&pair, addr(vip))?, "{vip}");
            }
            network.delete_addresses(&link, &addresses, accept).await?;
            Ok(())
        })?;
        run(pair.us.command("ping").args(["-c1", "-W5", PEER_V4]))?;
    }
    Ok(())
}

fn the_last_one_takes_the_shared_along() -> Result<()> {
    let pair = with_subnets()?;
    let (first, second) =
        (set(&format!("{SUBNET_V4} {SUBNET_V6}")), set("198.51.100.50/24 2001:db8:5::50/64"));
    pair.with_link(async |network, link| {
        network.add_addresses(&link, &first, Accept::Anyip).await?;
        network.add_addresses(&link, &second, Accept::Route).await?;
        let shared = routes(&pair, "main")?;
        assert_eq!(shared.lines().count(), 2, "{shared}");
        ensure!(shared.contains("198.51.100.0/24 dev eth0") && shared.contains("2001:db8:5::/64 dev eth0"));
        ensure!(is_allmulti(&pair)?, "solicitations for all addresses are to be heard");
        network.delete_addresses(&link, &first, Accept::Anyip).await?;
        assert_eq!(routes(&pair, "main")?, shared);
        ensure!(is_allmulti(&pair)?, "the second one needs it still");
        network.delete_addresses(&link, &second, Accept::Route).await?;
        assert_eq!(routes(&pair, "all")?, "");
        ensure!(!is_allmulti(&pair)?, "nobody needs it any more");
        Ok(())
    })
}

fn allmulticast_of_others_stays() -> Result<()> {
    let pair = with_subnets()?;
    pair.us.ip("link set eth0 allmulticast on")?;
    let addresses = set(SUBNET_V6);
    pair.with_link(async |network, link| {
        network.add_addresses(&link, &addresses, Accept::Anyip).await?;
        network.delete_addresses(&link, &addresses, Accept::Anyip).await?;
        ensure!(is_allmulti(&pair)?, "an administrator switched it on");
        Ok(())
    })
}

fn presence_tells_the_ways_apart() -> Result<()> {
    let pair = with_subnets()?;
    for text in [SUBNET_V4, SUBNET_V6, "198.51.100.8-198.51.100.40/24", "2001:db8:5::8-2001:db8:5::40/64"] {
        let addresses = set(text);
        pair.with_link(async |network, link| {
            for there in WAYS {
                network.add_addresses(&link, &addresses, there).await?;
                for asked in WAYS {
                    let found = presence(&network, &at(&addresses, asked)).await;
                    if asked == there {
                        assert_eq!(found, ours(&addresses), "{there:?}");
                        continue;
                    }
                    assert_eq!(
                        found.ours.union(&found.foreign),
                        found.ours,
                        "{there:?} as {asked:?}: {found:?}"
                    );
                    // Single addresses among the prefixes are the same in both ways.
                    let places = found.misplaced.iter().map(|m| {
                        assert!(m.ours && m.place.device == "eth0", "{m:?}");
                        &*m.place.addresses
                    });
                    let all = places.fold(found.ours.clone(), |all, one| all.union(one));
                    assert_eq!(all, addresses, "{there:?} as {asked:?}: {found:?}");
                    assert!(found.misplaced.iter().any(|m| m.place.accept == there), "{found:?}");
                }
                let elsewhere = Place { device: "lo".to_owned(), ..at(&addresses, there) };
                let found = presence(&network, &elsewhere).await;
                assert!(found.here().is_empty() && !found.misplaced.is_empty(), "{found:?}");
                network.delete_addresses(&link, &addresses, there).await?;
            }
            // Somebody else's: single routes may be what was asked for, a prefix never is.
            let one = addresses.first().context("an address")?;
            let one = Addresses::from(one);
            let vip = one.first().context("an address")?.addr();
            pair.us.ip(&format!("route add local {vip} dev eth0 table local proto static"))?;
            for asked in [Accept::Route, Accept::Anyip] {
                let found = presence(&network, &at(&one, asked)).await;
                assert_eq!(found, Presence { foreign: one.clone(), ..Presence::default() });
            }
            let misplaced = vec![Misplaced { place: at(&one, Accept::Route), ours: false }];
            let expected = Presence { misplaced, ..Presence::default() };
            assert_eq!(presence(&network, &at(&one, Accept::Assign)).await, expected);
            // Asked for by its device and way, it goes.
            network.delete_addresses(&link, &one, Accept::Route).await?;
            assert_eq!(presence(&network, &at(&one, Accept::Route)).await, Presence::default());
            Ok(())
        })
        .with_context(|| text.to_owned())?;
    }
    Ok(())
}

/// Somebody sets the interface down and up: the kernel forgets the route to the subnet.
fn an_unreachable_subnet_is_seen() -> Result<()> {
    let pair = with_subnets()?;
    for text in ["198.51.100.9/24", SUBNET_V4] {
        let addresses = set(text);
        pair.with_link(async |network, link| {
            let place = at(&addresses, Accept::Anyip);
            network.add_addresses(&link, &addresses, Accept::Anyip).await?;
            pair.us.ip("link set eth0 down")?;
            pair.us.ip("link set eth0 up")?;
            let misplaced = vec![Misplaced { place: place.clone(), ours: true }];
            let expected = Presence { misplaced, ..Presence::default() };
            assert_eq!(presence(&network, &place).await, expected);
            network.add_addresses(&link, &addresses, Accept::Anyip).await?;
            assert_eq!(presence(&network, &place).await, ours(&addresses));
            network.delete_addresses(&link, &addresses, Accept::Anyip).await?;
            Ok(())
        })
        .with_context(|| text.to_owned())?;
    }
    Ok(())
}

/// A change of the way adds the new one first.
fn one_way_is_deleted_alone() -> Result<()> {
    let pair = with_subnets()?;
    for text in [SUBNET_V4, SUBNET_V6, "198.51.100.9/24", "2001:db8:5::9/64"] {
        let addresses = set(text);
        tell_the_peer(&pair, &addresses)?;
        let first = addresses.first().context("an address")?.addr();
        for (old, new) in [
            (Accept::Assign, Accept::Anyip),
            (Accept::Anyip, Accept::Assign),
            (Accept::Route, Accept::Anyip),
            (Accept::Anyip, Accept::Route),
        ] {
            // An IPv4 address has one local route, whoever made it; and a single one is its own prefix.
            let clash = addresses.count() == 1 || (addresses.subnets().all(|s| s.addr().is_ipv4()));
            if clash && (addresses.count() == 1 || new != Accept::Route) {
                continue;
            }
            pair.with_link(async |network, link| {
                network.add_addresses(&link, &addresses, old).await?;
                network.add_addresses(&link, &addresses, new).await?;
                let old_place = presence(&network, &at(&addresses, new)).await;
                for place in old_place.misplaced.iter().map(|m| &m.place) {
                    network.delete_addresses(&link, &place.addresses, place.accept).await?;
                }
                assert_eq!(presence(&network, &at(&addresses, new)).await, ours(&addresses));
                ensure!(pings(&pair, first)?, "{first}");
                network.delete_addresses(&link, &addresses, new).await?;
                Ok(())
            })
            .with_context(|| format!("{text}: {old:?} to {new:?}"))?;
            assert_eq!(routes(&pair, "all")?, "", "{text}: {old:?} to {new:?}");
        }
    }
    Ok(())
}

fn a_wide_prefix_loses_only_what_is_asked() -> Result<()> {
    let pair = with_subnets()?;
    for (wide, hole, rest) in [
        (
            "198.51.100.0-198.51.100.255/24",
            "198.51.100.7/24",
            "198.51.100.0-198.51.100.6/24 198.51.100.8-198.51.100.255/24",
        ),
        (
            "2001:db8:5::-2001:db8:5::ff/64",
            "2001:db8:5::7/64",
            "2001:db8:5::-2001:db8:5::6/64 2001:db8:5::8-2001:db8:5::ff/64",
        ),
    ] {
        pair.with_link(async |network, link| {
            let (wide, hole, rest) = (set(wide), set(hole), set(rest));
            network.add_addresses(&link, &wide, Accept::Anyip).await?;
            network.delete_addresses(&link, &hole, Accept::Anyip).await?;
            assert_eq!(presence(&network, &at(&rest, Accept::Anyip)).await, ours(&rest));
            assert_eq!(presence(&network, &at(&hole, Accept::Anyip)).await, Presence::default());
            network.delete_addresses(&link, &rest, Accept::Anyip).await?;
            Ok(())
        })?;
        assert_eq!(routes(&pair, "all")?, "");
    }
    Ok(())
}

fn somebody_elses_route_is_not_taken() -> Result<()> {
    let pair = with_subnets()?;
    pair.us.ip("route add local 198.51.100.9 dev lo table local proto static")?;
    pair.us.ip("route add 198.51.100.0/24 dev eth0 proto static scope link")?;
    pair.with_link(async |network, link| {
        let addresses = set("198.51.100.9/24");
        let error = network.add_addresses(&link, &addresses, Accept::Route).await.unwrap_err().to_string();
        ensure!(error.contains("198.51.100.9") && error.contains("ip route show table local"), "{error}");
        network.delete_addresses(&link, &addresses, Accept::Route).await?;
        Ok(())
    })?;
    let local = pair.us.ip("route show table local proto static")?;
    ensure!(local.contains("198.51.100.9 dev lo"), "{local}");
    ensure!(pair.us.ip("route show proto static")?.contains("198.51.100.0/24"), "it was there before");
    Ok(())
}

/// The new interface has them before the old one loses them.
fn ours_are_on_two_interfaces_while_they_move() -> Result<()> {
    let pair = with_subnets()?;
    veth(&pair.us, "eth1", &pair.peer, "eth1")?;
    for (text, accept) in [SUBNET_V4, SUBNET_V6].into_iter().flat_map(|t| WAYS.map(|w| (t, w))) {
        pair.with_link(async |network, eth0| {
            let (addresses, eth1) = (set(text), network.link("eth1").await?);
            network.add_addresses(&eth0, &addresses, accept).await?;
            // The second time it is there already.
            for _ in 0..2 {
                network.add_addresses(&eth1, &addresses, accept).await?;
            }
            network.delete_addresses(&eth0, &addresses, accept).await?;
            let there = Place { device: "eth1".to_owned(), ..at(&addresses, accept) };
            assert_eq!(presence(&network, &there).await, ours(&addresses), "{text} {accept:?}");
            network.delete_addresses(&eth1, &addresses, accept).await?;
            assert_eq!(presence(&network, &there).await, Presence::default(), "{text} {accept:?}");
            Ok(())
        })?;
        assert_eq!(routes(&pair, "all")?, "");
    }
    Ok(())
}

/// A sequence that is overtaken is dropped at any step, and its addresses are removed at once.
fn a_dropped_batch_leaves_nothing_under_way() -> Result<()> {
    let pair = Pair::new()?;
    let addresses = set("10.9.0.1-10.9.31.254/16");
    pair.with_link(async |network, link| {
        for accept in [Accept::Route, Accept::Assign] {
            {
                let adding = network.add_addresses(&link, &addresses, accept);
                let some = async {
                    while network.ours().await?.is_empty() {
                        tokio::task::yield_now().await;
                    }
                    anyhow::Ok(())
                };
                tokio::select! {
                    biased;
                    some = some => some?,
                    added = adding => added?,
                }
            }
            network.delete_addresses(&link, &addresses, accept).await?;
            assert_eq!(network.ours().await?, [], "{accept:?}");
        }
        Ok(())
    })?;
    assert_eq!(routes(&pair, "all")?, "");
    Ok(())
}

/// Adds, looks, deletes, and says how long each took.
async fn timed(network: &Network, addresses: &Addresses, accept: Accept) -> Result<()> {
    let link = network.link("eth0").await?;
    let mut last = Instant::now();
    let mut lap = || {
        let lap = last.elapsed();
        last = Instant::now();
        lap
    };
    network.add_addresses(&link, addresses, accept).await?;
    let added = lap();
    let there = presence(network, &at(addresses, accept)).await;
    let looked = lap();
    if there != ours(addresses) {
        bail!("{} of {} are there by {accept:?}", there.ours.count(), addresses.count());
    }
    lap();
    network.delete_addresses(&link, addresses, accept).await?;
    let deleted = lap();
    network.delete_host_routes(&link, addresses).await?;
    let routes = lap();
    ensure!(presence(network, &at(addresses, accept)).await == Presence::default(), "some stayed");
    let count = addresses.count();
    eprintln!(
        "{count} of {addresses} by {accept:?}: added in {added:.1?}, found in {looked:.1?}, deleted in \
         {deleted:.1?}, host routes looked for in {routes:.1?}"
    );
    Ok(())
}

fn a_thousand_assigned() -> Result<()> {
    Pair::new()?.with_network(async |network| {
        timed(&network, &set("10.9.0.1-10.9.3.232/16"), Accept::Assign).await?;
        timed(&network, &set("fd00:9::1-fd00:9::3e8/64"), Accept::Assign).await
    })
}

fn tens_of_thousands_routed() -> Result<()> {
    Pair::new()?.with_network(async |network| {
        for text in ["10.9.0.0-10.9.255.255/16", "fd00:9::-fd00:9::ffff/64", "10.9.0.1-10.9.255.254/16"] {
            for accept in [Accept::Anyip, Accept::Route] {
                timed(&network, &set(text), accept).await?;
            }
        }
        Ok(())
    })
}

/// A check of one address costs no list of all.
fn one_among_ten_thousand() -> Result<()> {
    Pair::new()?.with_link(async |network, link| {
        for (many, one) in
            [("10.9.0.1-10.9.39.16/16", "10.9.20.1/16"), ("fd00:9::1-fd00:9::3e8/64", "fd00:9::100/64")]
        {
            for accept in WAYS {
                let (many, one) = (set(many), set(one));
                network.add_addresses(&link, &many, accept).await?;
                let whole = presence(&network, &at(&many, accept)).await;
                let start = Instant::now();
                for _ in 0..100 {
                    // Of a set in prefixes, one address is there in the right way too.
                    assert_eq!(presence(&network, &at(&one, accept)).await, ours(&one));
                }
                let each = start.elapsed() / 100;
                let start = Instant::now();
                assert_eq!(presence(&network, &at(&many, accept)).await, whole);
                let all = start.elapsed();
                eprintln!("{} by {accept:?}: one looked up in {each:.1?}, all in {all:.1?}", many.count());
                network.delete_addresses(&link, &many, accept).await?;
            }
        }
        Ok(())
    })
}

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use datapath_common::{InterfaceActivity, Lease, Verdict, VipActivity};
use ipnet::IpNet;
use vipd::{
    act::{
        datapath::{Attachment, Datapath, DatapathError, InterfaceFacts, Programmed},
        executor::{Executor, Gates},
    },
    core::{
        command::{Command, Effect, LinkState, Presence},
        time::BootTime,
    },
    model::{Epoch, LeaseEpoch},
    observe::network::Network,
};

use crate::{
    Tests,
    lab::{PEER_V4, Pair, addr, carrier_changes, is_echo_request, is_from, net, until},
};

pub const TESTS: Tests = &[
    ("links", links),
    ("a_bounced_link_keeps_its_configuration", a_bounced_link_keeps_its_configuration),
    ("addresses", addresses),
    ("a_missing_device", a_missing_device),
    ("datapath_and_gates", datapath_and_gates),
    ("duplicates", duplicates),
    ("connectivity", connectivity),
    ("own_addresses_in_a_ping_list_do_not_count", own_addresses_in_a_ping_list_do_not_count),
    ("checks_of_a_subnet_share_their_pings", checks_of_a_subnet_share_their_pings),
    ("anothers_failure_is_not_ours", anothers_failure_is_not_ours),
    ("hundreds_of_duplicate_checks_at_once", hundreds_of_duplicate_checks_at_once),
    ("a_takeover_of_two_hundred", a_takeover_of_two_hundred),
];

/// Remembers what is programmed and which gates are open.
#[derive(Default)]
pub struct Recorder {
    programmed: Mutex<BTreeMap<IpAddr, u32>>,
    open: Mutex<BTreeMap<IpAddr, Epoch>>,
}

impl Gates for Recorder {
    fn open(&self, address: IpAddr, epoch: Epoch) -> Result<(), vipd::act::gatekeeper::GateError> {
        if !self.programmed.lock().unwrap().contains_key(&address) {
            return Err(DatapathError::NotProgrammed(address).into());
        }
        self.open.lock().unwrap().insert(address, epoch);
        Ok(())
    }

    fn close(&self, address: IpAddr) -> Result<(), DatapathError> {
        self.open.lock().unwrap().remove(&address);
        Ok(())
    }
}

impl Datapath for Recorder {
    fn unguarded(&self) -> Option<String> {
        Some("a recorder guards nothing".to_owned())
    }
    fn attach(&self, _: &InterfaceFacts) -> Result<Attachment, DatapathError> {
        unreachable!("the executor does not attach")
    }
    fn guard_egress(&self, _: &InterfaceFacts) -> Result<(), DatapathError> {
        Ok(())
    }

    fn detach(&self, _: u32) -> Result<(), DatapathError> {
        unreachable!("the executor does not detach")
    }
    fn attached(&self) -> Vec<(u32, Attachment)> {
        Vec::new()
    }
    fn program(&self, address: IpAddr, ifindex: u32) -> Result<(), DatapathError> {
        self.programmed.lock().unwrap().insert(address, ifindex);
        Ok(())
    }
    fn unprogram(&self, address: IpAddr) -> Result<(), DatapathError> {
        self.programmed.lock().unwrap().remove(&address);
        Ok(())
    }
    fn open_gate(&self, _: IpAddr, _: LeaseEpoch, _: Epoch) -> Result<(), DatapathError> {
        unreachable!("gates are opened through Gates")
    }
    fn close_gate(&self, _: IpAddr) -> Result<(), DatapathError> {
        unreachable!("gates are closed through Gates")
    }
    fn programmed(&self) -> Result<Vec<Programmed>, DatapathError> {
        Ok(Vec::new())
    }
    fn lease(&self) -> Result<Lease, DatapathError> {
        Ok(Lease::default())
    }
    fn set_lease(&self, _: LeaseEpoch, _: BootTime) -> Result<(), DatapathError> {
        unreachable!("the executor sets no lease")
    }
    fn interface_activity(&self, _: u32) -> Result<InterfaceActivity, DatapathError> {
        Ok(InterfaceActivity::default())
    }
    fn vip_activity(&self, _: IpAddr) -> Result<VipActivity, DatapathError> {
        Ok(VipActivity::default())
    }
    fn verdicts(&self) -> Result<Vec<(Verdict, u64)>, DatapathError> {
        Ok(Vec::new())
    }
}

pub fn executor(network: Network) -> (Executor, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let wait = Duration::from_millis(200);
    (Executor::new(network, recorder.clone(), recorder.clone(), wait), recorder)
}

fn eth0() -> String {
    "eth0".to_owned()
}

fn broadcast_ping(source: &str, wait: Duration) -> Command {
    Command::BroadcastPing { source: net(source), device: eth0(), tries: 2, wait }
}

const VIP: &str = "192.0.2.50/24";

fn links() -> Result<()> {
    let pair = Pair::new()?;
    pair.with_network(async |network| {
        let (executor, _) = executor(network);
        let read = || async { executor.perform(&Command::ReadLink { device: eth0() }).await };
        let set = |up| Command::SetLink { device: eth0(), up };
        assert_eq!(read().await, Effect::Link(LinkState::Up));
        assert_eq!(executor.perform(&set(false)).await, Effect::Done);
        assert_eq!(read().await, Effect::Link(LinkState::Down));
        assert_eq!(executor.perform(&set(true)).await, Effect::Done);
        assert_eq!(read().await, Effect::Link(LinkState::Up));
        pair.peer.ip("link set eth0 down")?;
        assert_eq!(read().await, Effect::Link(LinkState::NoCarrier));
        pair.us.ip("link del eth0")?;
        assert_eq!(read().await, Effect::Link(LinkState::Missing));
        Ok(())
    })
}

/// The kernel forgets routes and IPv6 addresses of an interface that is set down: a host that vipd had
/// cut off from its gateway would be worse than one without a VIP.
fn a_bounced_link_keeps_its_configuration() -> Result<()> {
    let pair = Pair::new()?;
    pair.us.ip_batch(
        "addr add 2001:db8:1::1/64 dev eth0 nodad\n\
         route add default via 192.0.2.2 dev eth0 metric 50\n\
         route add 203.0.113.0/24 dev eth0 src 192.0.2.1\n\
         route add 198.51.100.0/24 via 203.0.113.9 dev eth0 mtu 1400\n\
         route add 10.1.0.0/16 via 192.0.2.2 dev eth0 table 100\n\
         route add default via 2001:db8::2 dev eth0\n\
         route add 2001:db8:f::/48 via fe80::1 dev eth0 metric 77\n",
    )?;
    let configuration = || -> Result<_> {
        let mut lines = Vec::new();
        let commands =
            ["-4 route show table all", "-6 route show table all", "-o -4 addr show", "-o -6 addr show"];
        for command in commands {
            lines.extend(pair.us.ip(command)?.lines().map(|line| line.trim().to_owned()));
        }
        lines.sort();
        Ok(lines)
    };
    let before = configuration()?;
    pair.with_network(async |network| {
        network.add_address(&network.link("eth0").await?, net("2001:db8::50/64")).await?;
        for with_carrier in [true, false] {
            if !with_carrier {
                pair.peer.ip("link set eth0 down")?;
            }
            // Another life: this one would not stop it again so soon.
            let (executor, _) = executor(network.clone());
            let set = async |up| {
                let set = Command::SetLink { device: eth0(), up };
                assert_eq!(executor.perform(&set).await, Effect::Done, "{with_carrier}");
            };
            let bounce = async || {
                set(false).await;
                set(true).await;
            };
            let before = carrier_changes(&pair.us)?;
            // Two sequences that want it at the same time, and one that comes a little late.
            tokio::join!(bounce(), bounce());
            bounce().await;
            let once = if with_carrier { 2 } else { 0 };
            assert_eq!(carrier_changes(&pair.us)? - before, once);
        }
        pair.peer.ip("link set eth0 up")?;
        // A virtual address stays away: it may have been taken out of service while the link was down,
        // and one that is brought back outside the datapath is answered by the kernel, whoever owns it.
        let read = Command::ReadAddress { address: net("2001:db8::50/64"), device: eth0() };
        let (executor, _) = executor(network);
        assert_eq!(executor.perform(&read).await, Effect::Presence(Presence::Absent));
        Ok(())
    })?;
    let mut after = Vec::new();
    let whole = until("the whole configuration", || {
        after = configuration()?;
        Ok(before.iter().all(|line| after.contains(line)))
    });
    whole.with_context(|| format!("before: {before:#?}, after: {after:#?}"))
}

fn addresses() -> Result<()> {
    let pair = Pair::new()?;
    pair.with_network(async |network| {
        let (executor, _) = executor(network);
        for vip in [VIP, "2001:db8::50/64"] {
            let address = net(vip);
            let read = || async { executor.perform(&Command::ReadAddress { address, device: eth0() }).await };
            assert_eq!(read().await, Effect::Presence(Presence::Absent));
            for _ in 0..2 {
                let add = Command::AddAddress { address, device: eth0() };
                assert_eq!(executor.perform(&add).await, Effect::Done);
                assert_eq!(read().await, Effect::Presence(Presence::Present { ours: true }));
            }
            let other = Command::ReadAddress { address, device: "lo".to_owned() };
            let misplaced =
                Presence::Misplaced { device: eth0(), prefix_len: address.prefix_len(), ours: true };
            assert_eq!(executor.perform(&other).await, Effect::Presence(misplaced));
            for command in [
                Command::FlushNeighbours { device: eth0() },
                Command::Announce { address: address.addr(), device: eth0() },
                Command::DeleteAddress { address, device: eth0() },
                Command::DeleteAddress { address, device: eth0() },
                Command::DeleteHostRoute { address: address.addr(), device: eth0() },
                Command::FlushRouteCache,
            ] {
                assert_eq!(executor.perform(&command).await, Effect::Done, "{command:?}");
            }
            assert_eq!(read().await, Effect::Presence(Presence::Absent));
            // Somebody else's.
            pair.us.ip(&format!("addr add {vip} dev eth0"))?;
            assert_eq!(read().await, Effect::Presence(Presence::Present { ours: false }));
            let narrower = net(&format!("{}/{}", address.addr(), address.prefix_len() + 4));
            let read = Command::ReadAddress { address: narrower, device: eth0() };
            let misplaced =
                Presence::Misplaced { device: eth0(), prefix_len: address.prefix_len(), ours: false };
            assert_eq!(executor.perform(&read).await, Effect::Presence(misplaced));
        }
        Ok(())
    })
}

fn a_missing_device() -> Result<()> {
    Pair::new()?.with_network(async |network| {
        let (executor, _) = executor(network);
        let (address, device) = (net(VIP), "nosuch".to_owned());
        let wait = Duration::from_millis(10);
        for command in [
            Command::SetLink { device: device.clone(), up: true },
            Command::AddAddress { address, device: device.clone() },
            Command::ProbeDuplicate { address: address.addr(), device: device.clone() },
            Command::Program { address: address.addr(), device: device.clone() },
            Command::Announce { address: address.addr(), device: device.clone() },
            Command::BroadcastPing { source: address, device: device.clone(), tries: 1, wait },
        ] {
            match executor.perform(&command).await {
                Effect::Failed(reason) => assert!(reason.contains("nosuch"), "{command:?}: {reason}"),
                effect => panic!("{command:?}: {effect:?}"),
            }
        }
        // What is gone already needs no removal.
        for command in [
            Command::DeleteAddress { address, device: device.clone() },
            Command::DeleteHostRoute { address: address.addr(), device: device.clone() },
            Command::FlushNeighbours { device: device.clone() },
        ] {
            assert_eq!(executor.perform(&command).await, Effect::Done, "{command:?}");
        }
        let read = Command::ReadAddress { address, device };
        assert_eq!(executor.perform(&read).await, Effect::Presence(Presence::Absent));
        Ok(())
    })
}

fn datapath_and_gates() -> Result<()> {
    Pair::new()?.with_link(async |network, link| {
        let (executor, recorder) = executor(network);
        let address = addr("192.0.2.50");
        let open = Command::OpenGate { address, epoch: 7 };
        match executor.perform(&open).await {
            Effect::Failed(reason) => assert!(reason.contains("192.0.2.50"), "{reason}"),
            effect => panic!("{effect:?}"),
        }
        assert_eq!(executor.perform(&Command::Program { address, device: eth0() }).await, Effect::Done);
        assert_eq!(*recorder.programmed.lock().unwrap(), BTreeMap::from([(address, link.index)]));
        assert_eq!(executor.perform(&open).await, Effect::Done);
        assert_eq!(*recorder.open.lock().unwrap(), BTreeMap::from([(address, 7)]));
        assert_eq!(executor.perform(&Command::CloseGate { address }).await, Effect::Done);
        assert!(recorder.open.lock().unwrap().is_empty());
        assert_eq!(executor.perform(&Command::Unprogram { address }).await, Effect::Done);
        assert!(recorder.programmed.lock().unwrap().is_empty());
        let (start, duration) = (Instant::now(), Duration::from_millis(30));
        assert_eq!(executor.perform(&Command::Wait { duration }).await, Effect::Done);
        assert!(start.elapsed() >= duration);
        Ok(())
    })
}

fn duplicates() -> Result<()> {
    let pair = Pair::new()?;
    pair.peer.ip("addr add 192.0.2.50/24 dev eth0")?;
    let mac = pair.peer_mac()?.map(|b| format!("{b:02x}")).join(":");
    pair.with_network(async |network| {
        let (executor, _) = executor(network);
        let probe = |address| Command::ProbeDuplicate { address, device: eth0() };
        assert_eq!(executor.perform(&probe(addr("192.0.2.50"))).await, Effect::Claims(vec![mac]));
        assert_eq!(executor.perform(&probe(addr("192.0.2.51"))).await, Effect::Claims(Vec::new()));
        Ok(())
    })
}

fn connectivity() -> Result<()> {
    let pair = Pair::new()?;
    pair.peer.sysctl("ipv4/icmp_echo_ignore_broadcasts", "1")?;
    pair.with_link(async |network, link| {
        network.add_address(&link, net(VIP)).await?;
        let (executor, _) = executor(network);
        let wait = Duration::from_millis(100);
        let list = |targets: &[&str]| Command::PingList {
            source: net(VIP).addr(),
            device: eth0(),
            targets: targets.iter().map(|t| addr(t)).collect(),
            tries: 2,
            wait,
        };
        let answers = Effect::Answers(vec![addr(PEER_V4)]);
        assert_eq!(executor.perform(&list(&[PEER_V4, "192.0.2.77"])).await, answers);
        assert_eq!(executor.perform(&list(&["192.0.2.77"])).await, Effect::Answers(Vec::new()));
        assert_eq!(executor.perform(&list(&[])).await, Effect::Answers(Vec::new()));
        let broadcast = broadcast_ping(VIP, wait);
        assert_eq!(executor.perform(&broadcast).await, Effect::Answers(Vec::new()));
        pair.peer.sysctl("ipv4/icmp_echo_ignore_broadcasts", "0")?;
        // Silence is never handed on.
        assert_eq!(executor.perform(&broadcast).await, answers);
        Ok(())
    })
}

fn own_addresses_in_a_ping_list_do_not_count() -> Result<()> {
    Pair::new()?.with_link(async |network, link| {
        network.add_address(&link, net(VIP)).await?;
        let (executor, _) = executor(network);
        let command = Command::PingList {
            source: net(VIP).addr(),
            device: eth0(),
            targets: vec![addr("192.0.2.1"), net(VIP).addr()],
            tries: 1,
            wait: Duration::from_millis(50),
        };
        assert_eq!(executor.perform(&command).await, Effect::Answers(Vec::new()));
        Ok(())
    })
}

/// Two hundred VIPs that check at once must stay far below what peers answer (50 broadcast pings a
/// second), in a network that answers and in one that does not.
fn checks_of_a_subnet_share_their_pings() -> Result<()> {
    let pair = Pair::new()?;
    let mac = pair.our_mac()?;
    for answering in [true, false] {
        let ignore = if answering { "0" } else { "1" };
        pair.peer.sysctl("ipv4/icmp_echo_ignore_broadcasts", ignore)?;
        let mut capture = pair.capture()?;
        pair.with_link(async |network, link| {
            let vips: Vec<_> = (50..250).map(|last| format!("192.0.2.{last}/24")).collect();
            for vip in &vips {
                network.add_address(&link, net(vip)).await?;
            }
            let (executor, _) = executor(network);
            let start = Instant::now();
            let checks: Vec<_> = vips
                .into_iter()
                .map(|vip| {
                    let executor = executor.clone();
                    let wait = Duration::from_millis(300);
                    tokio::spawn(async move { executor.perform(&broadcast_ping(&vip, wait)).await })
                })
                .collect();
            let expected = Effect::Answers(if answering { vec![addr(PEER_V4)] } else { Vec::new() });
            for check in checks {
                assert_eq!(check.await?, expected);
            }
            assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
            Ok(())
        })?;
        let requests = capture.rest(|f| is_from(f, mac) && is_echo_request(f)).len();
        assert!((1..=8).contains(&requests), "{requests} requests (answering: {answering})");
    }
    Ok(())
}

/// A VIP whose address is gone cannot be pinged from; those who waited for its check make their own.
fn anothers_failure_is_not_ours() -> Result<()> {
    let pair = Pair::new()?;
    pair.peer.sysctl("ipv4/icmp_echo_ignore_broadcasts", "0")?;
    pair.with_link(async |network, link| {
        network.add_address(&link, net(VIP)).await?;
        let (executor, _) = executor(network);
        let wait = Duration::from_millis(300);
        let (gone, here) = (broadcast_ping("192.0.2.99/24", wait), broadcast_ping(VIP, wait));
        let (gone, here) = tokio::join!(executor.perform(&gone), executor.perform(&here));
        assert!(matches!(&gone, Effect::Failed(reason) if reason.contains("192.0.2.99")), "{gone:?}");
        assert_eq!(here, Effect::Answers(vec![addr(PEER_V4)]));
        Ok(())
    })
}

/// So many of each family, from the peer's subnets.
fn vips(each: u32) -> Vec<IpNet> {
    (0..each)
        .flat_map(|n| [format!("192.0.2.{}/24", 100 + n), format!("2001:db8::{:x}/64", 0x100 + n)])
        .map(|text| net(&text))
        .collect()
}

fn hundreds_of_duplicate_checks_at_once() -> Result<()> {
    let pair = Pair::new()?;
    let taken = ["192.0.2.120", "192.0.2.235", "2001:db8::110", "2001:db8::18b"].map(addr);
    for vip in taken {
        let (prefix, nodad) = if vip.is_ipv6() { (64, "nodad") } else { (24, "") };
        pair.peer.ip(&format!("addr add {vip}/{prefix} dev eth0 {nodad}"))?;
    }
    pair.with_network(async |network| {
        let (executor, _) = executor(network);
        let start = Instant::now();
        // More of a family than one socket serves.
        let checks: Vec<_> = vips(140)
            .into_iter()
            .map(|vip| {
                let (executor, address) = (executor.clone(), vip.addr());
                let probe = Command::ProbeDuplicate { address, device: eth0() };
                tokio::spawn(async move { (address, executor.perform(&probe).await) })
            })
            .collect();
        let mut found = Vec::new();
        for check in checks {
            match check.await? {
                (address, Effect::Claims(claims)) if !claims.is_empty() => found.push(address),
                (_, Effect::Claims(_)) => {}
                (address, effect) => panic!("{address}: {effect:?}"),
            }
        }
        let elapsed = start.elapsed();
        found.sort_unstable();
        assert_eq!(found, taken);
        assert!(elapsed < Duration::from_millis(1000), "{elapsed:?} for a wait of 200 ms");
        Ok(())
    })
}

/// What a node does after the death of another, in the order of row IP-6.
fn a_takeover_of_two_hundred() -> Result<()> {
    let pair = Pair::new()?;
    pair.peer.sysctl("ipv4/icmp_echo_ignore_broadcasts", "0")?;
    pair.with_network(async |network| {
        let (executor, recorder) = executor(network);
        let start = Instant::now();
        let restores: Vec<_> = vips(100)
            .into_iter()
            .map(|vip| {
                let executor = executor.clone();
                tokio::spawn(async move {
                    let (address, wait) = (vip.addr(), Duration::from_secs(1));
                    for (command, expected) in [
                        (Command::ReadLink { device: eth0() }, Effect::Link(LinkState::Up)),
                        (
                            Command::ReadAddress { address: vip, device: eth0() },
                            Effect::Presence(Presence::Absent),
                        ),
                        (Command::Program { address, device: eth0() }, Effect::Done),
                        (Command::ProbeDuplicate { address, device: eth0() }, Effect::Claims(Vec::new())),
                        (Command::AddAddress { address: vip, device: eth0() }, Effect::Done),
                        (Command::FlushNeighbours { device: eth0() }, Effect::Done),
                        (Command::OpenGate { address, epoch: 1 }, Effect::Done),
                        (Command::Announce { address, device: eth0() }, Effect::Done),
                    ] {
                        assert_eq!(executor.perform(&command).await, expected, "{command:?}");
                    }
                    let check = Command::BroadcastPing { source: vip, device: eth0(), tries: 3, wait };
                    match executor.perform(&check).await {
                        Effect::Answers(who) => assert_eq!(who.len(), 1, "{vip}"),
                        effect => panic!("{vip}: {effect:?}"),
                    }
                })
            })
            .collect();
        for restore in restores {
            restore.await?;
        }
        let elapsed = start.elapsed();
        assert_eq!(recorder.open.lock().unwrap().len(), 200);
        assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
        Ok(())
    })
}

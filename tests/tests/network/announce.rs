//! Row IP-16: what of announcements arrives at a neighbour, in which order, and when it ends.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::runtime::{Builder, Runtime};
use vipd::{
    act::{
        announce::{Announcer, Plan},
        datapath::{Datapath, KernelDatapath, MemoryDatapath, unload},
    },
    config::{DatapathConfig, DatapathMode},
    model::Ranges,
    observe::{
        clock,
        network::{Link, Network},
    },
};
use vipd_tests::{
    capture::Capture as Recorder,
    frames::Mac,
    netns::{NetNs, run, veth},
};

use crate::{
    Tests,
    lab::{Capture, Pair, addr, is_from, output, until},
};

pub const TESTS: Tests = &[
    ("gratuitous_arps_byte_by_byte", gratuitous_arps_byte_by_byte),
    ("unsolicited_advertisement_byte_by_byte", unsolicited_advertisement_byte_by_byte),
    ("a_router_says_so", a_router_says_so),
    ("a_peer_replaces_what_it_knew", a_peer_replaces_what_it_knew),
    ("hundreds_in_one_call", hundreds_in_one_call),
    ("each_once_before_any_twice_the_busiest_first", each_once_before_any_twice_the_busiest_first),
    ("the_call_returns_after_the_first_round", the_call_returns_after_the_first_round),
    ("several_at_once_share_the_pace", several_at_once_share_the_pace),
    ("bursts_are_repeated", bursts_are_repeated),
    ("a_refresh_ends_with_the_withdrawal", a_refresh_ends_with_the_withdrawal),
    ("a_later_announcement_replaces_the_earlier", a_later_announcement_replaces_the_earlier),
    ("a_returned_carrier_is_announced_to", a_returned_carrier_is_announced_to),
    ("what_tc_egress_drops_is_reported", what_tc_egress_drops_is_reported),
    ("a_link_that_is_down_is_an_error", a_link_that_is_down_is_an_error),
    ("the_kernel_makes_the_same_frames", the_kernel_makes_the_same_frames),
    ("the_kernel_makes_none_for_a_shut_gate", the_kernel_makes_none_for_a_shut_gate),
    ("sixty_five_thousand_arrive", sixty_five_thousand_arrive),
];

/// One frame of each address, and no more.
const ONCE: Plan =
    Plan { count: 1, repeat: 0, repeat_delay: Duration::from_secs(5), refresh: None, pace: 100_000 };

/// The four forms, or one advertisement.
const BURST: Plan = Plan { count: 4, ..ONCE };

/// Whatever of ours announces an address, in the order of arrival.
struct Heard {
    capture: Capture,
    mac: [u8; 6],
}

impl Heard {
    fn new(pair: &Pair) -> Result<Self> {
        Ok(Self { capture: pair.capture()?, mac: pair.our_mac()? })
    }

    /// So many frames.
    fn frames(&mut self, count: usize) -> Result<Vec<Vec<u8>>> {
        let mac = self.mac;
        self.capture.collect(count, |frame| is_from(frame, mac) && announced_by(frame).is_some())
    }

    /// By so many frames.
    fn addresses(&mut self, count: usize) -> Result<Vec<IpAddr>> {
        Ok(self.frames(count)?.iter().filter_map(|frame| announced_by(frame)).collect())
    }

    /// Those that have come, and all until none comes for a while.
    fn rest(&mut self) -> Vec<IpAddr> {
        let mac = self.mac;
        let frames = self.capture.rest(|frame| is_from(frame, mac) && announced_by(frame).is_some());
        frames.iter().filter_map(|frame| announced_by(frame)).collect()
    }
}

/// The address that the frame announces.
fn announced_by(frame: &[u8]) -> Option<IpAddr> {
    if is_arp(frame) && frame.get(28..32) == frame.get(38..42) {
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(&frame[28..32]).ok()?).into())
    } else if is_advertisement(frame) {
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(62..78)?).ok()?).into())
    } else {
        None
    }
}

fn numbered(count: u32) -> Vec<IpAddr> {
    (0..count).map(|n| Ipv4Addr::from(0x0a00_0000 + n).into()).collect()
}

/// Our host, whose tasks go on while the test looks at what comes.
struct Us {
    announcer: Announcer,
    link: Link,
    runtime: Runtime,
}

impl Us {
    fn new(host: &NetNs) -> Result<Self> {
        Self::with(host, Arc::new(MemoryDatapath::new(1, "a test".into())))
    }

    fn with(host: &NetNs, datapath: Arc<dyn Datapath>) -> Result<Self> {
        // Its threads are where they are made.
        let runtime = host.enter(|| Builder::new_multi_thread().worker_threads(1).enable_all().build())?;
        let opened = runtime.spawn(async {
            let network = Network::open()?;
            let link = network.link("eth0").await?;
            anyhow::Ok((network, link))
        });
        let (network, link) = runtime.block_on(opened)??;
        Ok(Self { announcer: Announcer::new(network, datapath), link, runtime })
    }

    /// Returns when the first round has left.
    fn announce(&self, vips: &[IpAddr], plan: Plan) -> Result<()> {
        self.announce_ranked(vips, plan, |_| 0)
    }

    fn announce_ranked(
        &self,
        vips: &[IpAddr],
        plan: Plan,
        rank: impl Fn(IpAddr) -> u64 + Send + Sync + 'static,
    ) -> Result<()> {
        let (announcer, link, vips) = (self.announcer.clone(), self.link.clone(), vips.to_vec());
        let announced = async move { announcer.announce(&link, vips, plan, &rank).await };
        Ok(self.runtime.block_on(self.runtime.spawn(announced))??)
    }
}

fn is_arp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x08, 0x06])
}

/// An ICMPv6 neighbour advertisement.
fn is_advertisement(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(54) == Some(&136)
}

fn gratuitous_arps_byte_by_byte() -> Result<()> {
    let pair = Pair::new()?;
    let (us, mut heard) = (Us::new(&pair.us)?, Heard::new(&pair)?);
    us.announce(&[addr("192.0.2.50")], BURST)?;
    let (mac, vip) = (heard.mac, [192, 0, 2, 50]);
    let frame = |operation: u8, target: [u8; 6]| {
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        [&[0xff; 6][..], &mac, &[8, 6], &head, &mac, &vip, &target, &vip].concat()
    };
    let expected = [frame(1, mac), frame(2, mac), frame(1, [0xff; 6]), frame(2, [0xff; 6])];
    assert_eq!(heard.frames(4)?, expected);
    assert_eq!(heard.rest(), NONE);
    Ok(())
}

/// With these flags.
fn advertisement(mac: [u8; 6], flags: u8, checksum: &[u8]) -> Vec<u8> {
    let vip = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50];
    let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    [
        &[0x33, 0x33, 0, 0, 0, 1][..],
        &mac,
        &[0x86, 0xdd],
        &[0x60, 0, 0, 0, 0, 32, 58, 255],
        &vip,
        &all_nodes,
        &[136, 0, checksum[0], checksum[1], flags, 0, 0, 0],
        &vip,
        &[2, 1],
        &mac,
    ]
    .concat()
}

fn unsolicited_advertisement_byte_by_byte() -> Result<()> {
    let pair = Pair::new()?;
    let (us, mut heard) = (Us::new(&pair.us)?, Heard::new(&pair)?);
    us.announce(&[addr("2001:db8::50")], ONCE)?;
    let seen = heard.frames(1)?;
    // That the checksum is right is shown by the peer's kernel below.
    assert_eq!(seen[0], advertisement(heard.mac, 0x20, &seen[0][56..58]));
    assert_eq!(heard.rest(), NONE);
    Ok(())
}

/// Its neighbours would take it off their list of routers otherwise.
fn a_router_says_so() -> Result<()> {
    let pair = Pair::new()?;
    let (us, mut heard) = (Us::new(&pair.us)?, Heard::new(&pair)?);
    for (forwarding, flags) in [("1", 0xa0), ("0", 0x20)] {
        pair.us.sysctl("ipv6/conf/eth0/forwarding", forwarding)?;
        us.announce(&[addr("2001:db8::50")], ONCE)?;
        let seen = heard.frames(1)?;
        assert_eq!(seen[0], advertisement(heard.mac, flags, &seen[0][56..58]));
    }
    Ok(())
}

/// The real receiver: a Linux host that believes the address elsewhere.
fn a_peer_replaces_what_it_knew() -> Result<()> {
    let pair = Pair::new()?;
    let us = Us::new(&pair.us)?;
    let mac = pair.our_mac()?.map(|b| format!("{b:02x}")).join(":");
    for vip in ["192.0.2.50", "2001:db8::50"] {
        pair.peer.ip(&format!("neigh replace {vip} lladdr 02:00:00:00:00:99 dev eth0 nud reachable"))?;
        us.announce(&[addr(vip)], BURST)?;
        until(&format!("{vip} at {mac}"), || Ok(pair.peer.ip(&format!("neigh show {vip}"))?.contains(&mac)))?;
    }
    Ok(())
}

fn hundreds_in_one_call() -> Result<()> {
    let pair = Pair::new()?;
    let (us, mut heard) = (Us::new(&pair.us)?, Heard::new(&pair)?);
    let v6 = (0..100).map(|n| addr(&format!("2001:db8::{:x}", 0x100 + n)));
    let vips: Vec<_> = numbered(300).into_iter().chain(v6).collect();
    // Two more advertisements follow a second apart: not in this burst.
    us.announce(&vips, Plan { count: 4, ..ONCE })?;
    let seen = heard.addresses(4 * 300 + 100)?;
    us.announcer.withdraw(vips.iter().copied());
    for vip in vips {
        let copies = if vip.is_ipv4() { 4 } else { 1 };
        assert_eq!(seen.iter().filter(|heard| **heard == vip).count(), copies, "{vip}");
    }
    Ok(())
}

/// The last address is the busiest one here.
fn each_once_before_any_twice_the_busiest_first() -> Result<()> {
    let pair = Pair::new()?;
    let (us, mut heard) = (Us::new(&pair.us)?, Heard::new(&pair)?);
    let mut vips: Vec<_> =
        (0..100).map(|n| addr(&format!("2001:db8::{:x}", 0x100 + n))).chain(numbered(100)).collect();
    let rank = |address: IpAddr| match address {
        IpAddr::V4(a) => u64::from(a.octets()[3]) * 2,
        IpAddr::V6(a) => u64::from(a.octets()[15]) * 2 + 1,
    };
    us.announce_ranked(&vips, Plan { count: 2, ..ONCE }, rank)?;
    let seen = heard.frames(300)?;
    us.announcer.withdraw(vips.iter().copied());
    vips.sort_by_key(|vip| std::cmp::Reverse(rank(*vip)));
    let (first, second) = seen.split_at(200);
    let by = |frames: &[Vec<u8>]| frames.iter().filter_map(|f| announced_by(f)).collect::<Vec<_>>();
    assert_eq!(by(first), vips);
    vips.retain(IpAddr::is_ipv4);
    assert_eq!(by(second), vips);
    let operations = |frames: &[Vec<u8>]| -> HashSet<u8> {
        frames.iter().filter(|frame| is_arp(frame)).map(|frame| frame[21]).collect()
    };
    assert_eq!((operations(first), operations(second)), (HashSet::from([1]), HashSet::from([2])));
    Ok(())
}

/// At this pace the second form is due ten seconds later: it is withdrawn before.
fn the_call_returns_after_the_first_round() -> Result<()> {
    let pair = Pair::new()?;
    let (us, mut heard) = (Us::new(&pair.us)?, Heard::new(&pair)?);
    let vips = numbered(10);
    us.announce(&vips, Plan { pace: 1, ..BURST })?;
    us.announcer.withdraw(vips.iter().copied());
    assert_eq!(heard.rest(), vips);
    Ok(())
}

/// Counted: however slow this machine is, so many frames in so much time are the most.
fn several_at_once_share_the_pace() -> Result<()> {
    let pair = Pair::new()?;
    let (us, mut heard) = (Us::new(&pair.us)?, Heard::new(&pair)?);
    let plan = Plan { pace: 2000, ..ONCE };
    let start = Instant::now();
    let announced: Vec<_> = numbered(900)
        .chunks(300)
        .map(|some| {
            let (announcer, link, some) = (us.announcer.clone(), us.link.clone(), some.to_vec());
            us.runtime.spawn(async move { announcer.announce(&link, some, plan, &|_| 0).await })
        })
        .collect();
    for one in announced {
        us.runtime.block_on(one)??;
    }
    let span = start.elapsed() + Duration::from_millis(5);
    let most = 2000.0 * span.as_secs_f64() + 64.0;
    ensure!(900.0 <= most, "900 frames in {span:?}, {most} are the most");
    let seen: HashSet<_> = heard.addresses(900)?.into_iter().collect();
    assert_eq!(seen, numbered(900).into_iter().collect());
    Ok(())
}

fn bursts_are_repeated() -> Result<()> {
    let pair = Pair::new()?;
    let (us, mut heard) = (Us::new(&pair.us)?, Heard::new(&pair)?);
    let (four, six) = (addr("192.0.2.50"), addr("2001:db8::50"));
    let plan = Plan { count: 2, repeat: 2, repeat_delay: Duration::from_millis(30), ..ONCE };
    us.announce(&[four, six], plan)?;
    // Three bursts, and the advertisement that follows the first one a second later.
    let burst = [four, six, four];
    let mut expected = [burst, burst, burst].concat();
    expected.push(six);
    assert_eq!(heard.addresses(10)?, expected);
    assert_eq!(heard.rest(), NONE);
    Ok(())
}

fn a_refresh_ends_with_the_withdrawal() -> Result<()> {
    let pair = Pair::new()?;
    let (us, mut heard) = (Us::new(&pair.us)?, Heard::new(&pair)?);
    let (stays, goes) = (addr("192.0.2.50"), addr("192.0.2.51"));
    us.announce(&[stays, goes], Plan { refresh: Some(Duration::from_millis(20)), ..ONCE })?;
    let both: Vec<_> = [stays, goes].repeat(6);
    assert_eq!(heard.addresses(12)?, both);
    us.announcer.withdraw([goes]);
    // What was on its way already comes first.
    until("only one to be refreshed", || Ok(heard.addresses(6)? == [stays; 6]))?;
    us.announcer.withdraw([stays]);
    heard.rest();
    assert_eq!(heard.rest(), NONE);
    Ok(())
}

fn a_later_announcement_replaces_the_earlier() -> Result<()> {
    let pair = Pair::new()?;
    let (us, mut heard) = (Us::new(&pair.us)?, Heard::new(&pair)?);
    let vip = addr("192.0.2.50");
    us.announce(&[vip], Plan { refresh: Some(Duration::from_millis(20)), ..ONCE })?;
    heard.addresses(3)?;
    us.announce(&[vip], ONCE)?;
    heard.rest();
    assert_eq!(heard.rest(), NONE);
    Ok(())
}

fn a_returned_carrier_is_announced_to() -> Result<()> {
    let pair = Pair::new()?;
    let (us, mut heard) = (Us::new(&pair.us)?, Heard::new(&pair)?);
    let (stays, goes) = (addr("192.0.2.50"), addr("192.0.2.51"));
    us.announce(&[stays, goes], ONCE)?;
    assert_eq!(heard.addresses(2)?, [stays, goes]);
    us.announcer.withdraw([goes]);
    us.announcer.carrier_returned(us.link.index + 1);
    assert_eq!(heard.rest(), NONE);
    for _ in 0..2 {
        us.announcer.carrier_returned(us.link.index);
        assert_eq!(heard.addresses(1)?, [stays]);
    }
    us.announcer.withdraw([stays]);
    us.announcer.carrier_returned(us.link.index);
    assert_eq!(heard.rest(), NONE);
    Ok(())
}

/// Announcements pass the place where the egress guard judges them, and a drop there is no success.
fn what_tc_egress_drops_is_reported() -> Result<()> {
    let pair = Pair::new()?;
    let rules = "add table netdev guard
        add chain netdev guard out { type filter hook egress device eth0 priority 0; policy drop; }";
    run(pair.us.command("nft").arg(rules))?;
    let us = Us::new(&pair.us)?;
    let error = us.announce(&[addr("192.0.2.50"), addr("2001:db8::50")], BURST).unwrap_err().to_string();
    ensure!(error.contains("2 of 2") && error.contains("192.0.2.50, 2001:db8::50"), "{error}");
    let error = us.announce(&numbered(300), BURST).unwrap_err().to_string();
    ensure!(error.contains("300 of 300") && error.contains("10.0.0.7, and 292 more"), "{error}");
    Ok(())
}

fn a_link_that_is_down_is_an_error() -> Result<()> {
    let pair = Pair::new()?;
    pair.us.ip("link set eth0 down")?;
    let error = Us::new(&pair.us)?.announce(&[addr("192.0.2.50")], BURST).unwrap_err().to_string();
    ensure!(error.contains("192.0.2.50") && error.contains("eth0"), "{error}");
    Ok(())
}

const NONE: [IpAddr; 0] = [];

/// Programs of our own, pinned where nobody else does; removed when dropped.
struct Kernel {
    datapath: Arc<KernelDatapath>,
    pins: PathBuf,
}

const GROUP: u64 = 3;
const LEASE_EPOCH: u64 = 7;
const LEASE: Duration = Duration::from_secs(600);

impl Kernel {
    fn new(host: &NetNs, name: &str, max_vips: u32) -> Result<Self> {
        let pins = PathBuf::from(format!("/sys/fs/bpf/vipd-announce-{}-{name}", std::process::id()));
        let config = DatapathConfig {
            mode: DatapathMode::Generic,
            pin_dir: pins.clone(),
            max_vips,
            log_packets: false,
        };
        let datapath = Arc::new(host.enter(|| KernelDatapath::open(&config))?);
        datapath.set_lease(LEASE_EPOCH, clock::now().after(LEASE))?;
        Ok(Self { datapath, pins })
    }

    fn hold(&self, ifindex: u32, vips: &[IpAddr]) -> Result<()> {
        let vips: Ranges = vips.iter().copied().collect();
        self.datapath.program(GROUP, ifindex, &vips)?;
        self.datapath.open_gate(GROUP, LEASE_EPOCH, 1)?;
        Ok(())
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // Nothing can be done about a failure here: the name is unique, so nobody else is hurt.
        let _ = unload(&self.pins);
    }
}

fn the_kernel_makes_the_same_frames() -> Result<()> {
    let pair = Pair::new()?;
    let kernel = Kernel::new(&pair.us, "same", 1024)?;
    pair.us.sysctl("ipv6/conf/eth0/forwarding", "1")?;
    let v6 = (0..100).map(|n| addr(&format!("2001:db8::{:x}:{:x}", 0xfff0 + n % 16, 0xffff - n)));
    let vips: Vec<_> = numbered(200).into_iter().chain(v6).collect();
    let mut heard = Heard::new(&pair)?;
    let mut seen = Vec::new();
    for us in [Us::with(&pair.us, kernel.datapath.clone())?, Us::new(&pair.us)?] {
        kernel.hold(us.link.index, &vips)?;
        us.announce(&vips, BURST)?;
        seen.push(heard.frames(900)?);
        us.announcer.withdraw(vips.iter().copied());
    }
    // In another order: by address family within a chunk.
    seen.iter_mut().for_each(|frames| frames.sort_unstable());
    assert_eq!(seen[0], seen[1]);
    Ok(())
}

/// No egress guard is attached here: it is the program itself that makes none.
fn the_kernel_makes_none_for_a_shut_gate() -> Result<()> {
    let pair = Pair::new()?;
    let kernel = Kernel::new(&pair.us, "shut", 1024)?;
    let us = Us::with(&pair.us, kernel.datapath.clone())?;
    let mut heard = Heard::new(&pair)?;
    let v6 = (0..100).map(|n| addr(&format!("2001:db8::{:x}", 0x100 + n)));
    let vips: Vec<_> = numbered(200).into_iter().chain(v6).collect();
    let open = || kernel.hold(us.link.index, &vips);
    open()?;
    us.announce(&vips, ONCE)?;
    heard.addresses(300)?;

    let shut = |heard: &mut Heard, how: &str| {
        let error = us.announce(&vips, ONCE).unwrap_err().to_string();
        ensure!(error.contains("300 of 300") && error.contains("gate closed"), "{how}: {error}");
        ensure!(heard.rest() == NONE, "{how}");
        Ok(())
    };
    kernel.datapath.close_gate(GROUP)?;
    shut(&mut heard, "inactive")?;
    open()?;
    kernel.datapath.set_lease(LEASE_EPOCH, clock::now())?;
    shut(&mut heard, "run out")?;
    kernel.datapath.set_lease(LEASE_EPOCH + 1, clock::now().after(LEASE))?;
    shut(&mut heard, "another lease")?;
    kernel.datapath.set_lease(LEASE_EPOCH, clock::now().after(LEASE))?;
    kernel.hold(us.link.index + 1, &vips)?;
    shut(&mut heard, "elsewhere")?;
    open()?;
    // Only those that are held.
    let unknown: Vec<_> = (0..50).map(|n| addr(&format!("10.77.0.{n}"))).collect();
    us.announce(&[vips, unknown.clone()].concat(), ONCE)?;
    let seen = heard.addresses(300)?;
    ensure!(seen.iter().all(|address| !unknown.contains(address)));
    assert_eq!(heard.rest(), NONE);
    Ok(())
}

/// Through a bridge, at the default pace: all of them, made by the kernel and sent from user space.
fn sixty_five_thousand_arrive() -> Result<()> {
    const COUNT: u32 = 65_536;
    let (us, switch) = (NetNs::new("vipd-us")?, NetNs::new("vipd-sw")?);
    let peers = [NetNs::new("vipd-peer")?, NetNs::new("vipd-peer")?];
    switch.ip("link add br0 type bridge")?;
    switch.ip("link set br0 up")?;
    for (n, host) in [&us].into_iter().chain(&peers).enumerate() {
        veth(host, "eth0", &switch, &format!("port{n}"))?;
        switch.ip(&format!("link set port{n} master br0"))?;
    }
    until("the bridge forwards", || {
        let ports = output(Command::new("bridge").args(["-n", switch.name(), "link"]))?;
        Ok(ports.matches("state forwarding").count() == 3)
    })?;
    let vips = numbered(COUNT);
    let kernel = Kernel::new(&us, "many", COUNT)?;
    for us in [Us::with(&us, kernel.datapath.clone())?, Us::new(&us)?] {
        kernel.hold(us.link.index, &vips)?;
        let recorders = [Recorder::start(&peers[0], "eth0", Mac::default())?, {
            Recorder::start(&peers[1], "eth0", Mac::default())?
        }];
        recorders.iter().for_each(|recorder| recorder.watch(vips.iter().copied()));
        us.announce(&vips, Plan { count: 1, ..Plan::default() })?;
        us.announcer.withdraw(vips.iter().copied());
        for recorder in &recorders {
            until("all to arrive", || Ok(recorder.look(|seen| seen.records.len()) >= COUNT as usize))?;
            let seen = recorder.timeline();
            let distinct: HashSet<_> = seen.records.iter().map(|record| record.address).collect();
            assert_eq!((seen.records.len(), distinct.len()), (COUNT as usize, COUNT as usize));
        }
    }
    Ok(())
}

//! Row DP-8 and the look-up of row IP-17: tens of thousands of addresses behind one gate.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use datapath_common::{Address, Gate, Page, Vip};
use vipd::{
    act::datapath::{self, Datapath as _, KernelDatapath},
    config::DatapathConfig,
    model::Ranges,
    observe::clock,
};
use vipd_tests::packets::{
    Arp, BROADCAST, ETHERTYPE_ARP, ETHERTYPE_IPV6, ICMPV6, V6, ethernet, link_layer_option, multicast_mac,
    padded, solicitation, solicited_node,
};

use crate::{
    bench::{self, CLIENT, CLIENT4, CLIENT6, IFINDEX, OTHER_IFINDEX, facts},
    live::set,
};

const GROUP: u64 = 11;
const LEASE: std::time::Duration = std::time::Duration::from_secs(600);
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// A datapath of its own, described to the loopback interface and under a valid lease.
struct Scene {
    config: DatapathConfig,
    datapath: KernelDatapath,
    ebpf: Ebpf,
}

impl Scene {
    fn new(name: &str) -> Result<Self> {
        let config = DatapathConfig { pin_dir: bench::pin_dir(name), ..DatapathConfig::default() };
        let datapath = KernelDatapath::open(&config)?;
        datapath.describe(&facts(IFINDEX, 0))?;
        datapath.set_lease(1, clock::now().after(LEASE))?;
        let ebpf = bench::programs(&config.pin_dir);
        Ok(Self { config, datapath, ebpf })
    }

    fn action(&mut self, address: IpAddr) -> Result<u32> {
        action(&mut self.ebpf, address)
    }

    /// What becomes of a question for each of these.
    fn expect(&mut self, addresses: &[IpAddr], action: u32) -> Result<()> {
        for address in addresses {
            let found = self.action(*address)?;
            ensure!(found == action, "{address}: action {found}, expected {action}");
        }
        Ok(())
    }

    fn pin(&self, map: &str) -> std::path::PathBuf {
        self.config.pin_dir.join(format!("v{}", datapath_common::LAYOUT_VERSION)).join(map)
    }

    fn map(&self, name: &str) -> Result<Map> {
        Ok(Map::from_map_data(MapData::from_pin(self.pin(name))?)?)
    }

    /// How many entries lead to addresses: pages, and addresses alone.
    fn entries(&self) -> Result<(usize, usize)> {
        let pages: HashMap<_, Address, Page> = self.map("PAGES")?.try_into()?;
        let vips: HashMap<_, Address, Vip> = self.map("VIPS")?.try_into()?;
        Ok((pages.keys().count(), vips.keys().count()))
    }

    fn gates(&self) -> Result<Vec<Gate>> {
        let gates: Array<_, Gate> = self.map("GATES")?.try_into()?;
        Ok((0..64).map(|index| gates.get(&index, 0)).collect::<Result<_, _>>()?)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = datapath::unload(&self.config.pin_dir);
    }
}

/// ARP or neighbour discovery, as its family has it.
fn question(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(target) => {
            let arp = Arp::request(CLIENT, CLIENT4, target);
            padded(ethernet(BROADCAST, CLIENT, &[], ETHERTYPE_ARP, &arp.bytes()))
        }
        IpAddr::V6(target) => {
            let group = solicited_node(target);
            let message = solicitation(CLIENT6, group, target, &link_layer_option(1, CLIENT));
            let ip = V6 { hop_limit: 255, ..V6::new(CLIENT6, group, ICMPV6, message) };
            ethernet(multicast_mac(group), CLIENT, &[], ETHERTYPE_IPV6, &ip.bytes())
        }
    }
}

fn action(ebpf: &mut Ebpf, address: IpAddr) -> Result<u32> {
    let frame = question(address);
    let mut out = vec![0; 256];
    let options =
        TestRunOptions { data_in: Some(&frame), data_out: Some(&mut out), ..TestRunOptions::default() };
    let xdp: &mut Xdp = ebpf.program_mut("vipd_xdp").context("no program")?.try_into()?;
    Ok(xdp.test_run(options)?.return_value)
}

/// A spread of n of them, first and last included.
fn some(addresses: &Ranges, n: usize) -> Vec<IpAddr> {
    let all: Vec<IpAddr> = addresses.iter().collect();
    // A step that shares no factor with the powers of two.
    let mut chosen: Vec<IpAddr> = (0..n).map(|i| all[i * 7919 % all.len()]).collect();
    chosen.extend([all[0], all[all.len() - 1]]);
    chosen
}

/// 81,920 addresses of both families: opened, shut and moved without a write to any map of addresses (which
/// are frozen: the kernel refuses them), by changes of one gate alone.
pub fn one_gate_moves_them_all() -> Result<()> {
    let mut scene = Scene::new("density")?;
    let addresses = set("10.20.0.0-10.20.255.255")?.union(&set("fd20::-fd20::3fff")?);
    let sample = some(&addresses, 500);
    let strangers: Vec<IpAddr> = ["10.19.255.255", "10.21.0.0", "fd20::4000", "fd1f::"]
        .into_iter()
        .map(|a| a.parse().unwrap())
        .collect();
    scene.datapath.program(GROUP, IFINDEX, &addresses)?;
    ensure!(scene.entries()? == (256 + 64, 0), "{:?}", scene.entries()?);
    let full = scene.datapath.program(GROUP, IFINDEX, &set("10.30.0.1")?);
    ensure!(matches!(full, Err(datapath::DatapathError::Full(81_920))), "{full:?}");

    for map in ["VIPS", "PAGES", "DIRECTORY"] {
        vipd_tests::bpf::freeze(&scene.pin(map))?;
    }
    let shut = scene.gates()?;
    scene.expect(&sample, XDP_DROP)?;
    for epoch in 1..4 {
        scene.datapath.open_gate(GROUP, 1, epoch)?;
        scene.expect(&sample, XDP_TX)?;
        scene.expect(&strangers, XDP_PASS)?;
        scene.datapath.close_gate(GROUP)?;
        scene.expect(&sample, XDP_DROP)?;
        // To another interface, and back.
        scene.datapath.program(GROUP, OTHER_IFINDEX, &addresses)?;
        scene.expect(&sample, XDP_PASS)?;
        scene.datapath.program(GROUP, IFINDEX, &addresses)?;
        scene.expect(&sample, XDP_DROP)?;
    }
    let changed = shut.iter().zip(scene.gates()?).filter(|(before, after)| *before != after).count();
    ensure!(changed <= 1, "{changed} gates were changed");
    ensure!(scene.datapath.unprogram(GROUP, &addresses).is_err(), "the maps were not frozen");
    Ok(())
}

/// They are read as a whole and by use, adopted by the next process, and given up.
pub fn they_are_counted_adopted_and_given_up() -> Result<()> {
    let mut scene = Scene::new("counted")?;
    // Pages, a thin page and addresses alone.
    let addresses = set("10.20.0.0-10.20.99.255")?
        .union(&set("fd20::1-fd20::64")?)
        .union(&(0..200).map(|n| IpAddr::from(Ipv4Addr::new(10, 40, n, 7))).collect());
    scene.datapath.program(GROUP, IFINDEX, &addresses)?;
    ensure!(scene.entries()? == (100, 100 + 200), "{:?}", scene.entries()?);
    scene.datapath.open_gate(GROUP, 1, 1)?;
    let [quiet, busy, busiest]: [IpAddr; 3] = [
        Ipv4Addr::new(10, 20, 3, 4).into(),
        Ipv4Addr::new(10, 40, 9, 7).into(),
        Ipv6Addr::from(0xfd20 << 112 | 9).into(),
    ];
    for (address, times) in [(quiet, 1), (busy, 3), (busiest, 5)] {
        for _ in 0..times {
            scene.expect(&[address], XDP_TX)?;
        }
    }
    let order = vec![(busiest, 5), (busy, 3), (quiet, 1)];
    ensure!(scene.datapath.busiest(GROUP, 3)? == order, "{:?}", scene.datapath.busiest(GROUP, 3)?);
    ensure!(scene.datapath.busiest(GROUP, 1)? == order[..1], "{:?}", scene.datapath.busiest(GROUP, 1)?);
    let all = scene.datapath.busiest(GROUP, usize::MAX)?;
    ensure!(all.len() as u64 == addresses.count() && all[..3] == order, "{} of them", all.len());
    ensure!(
        scene.datapath.group_activity(GROUP)?.packets == 9,
        "{:?}",
        scene.datapath.group_activity(GROUP)?
    );
    ensure!(scene.datapath.busiest(GROUP + 1, 3)?.is_empty(), "nobody has that number");

    let Scene { config, datapath, ebpf } = &mut scene;
    let before = datapath.programmed()?;
    // The lock goes first: one process owns the pins.
    let config = config.clone();
    let next = replace(datapath, &config)?;
    ensure!(next == before && before[0].addresses == addresses, "{next:?}");
    ensure!(datapath.busiest(GROUP, 3)? == order, "{:?}", datapath.busiest(GROUP, 3)?);
    ensure!(action(ebpf, quiet)? == XDP_TX, "not answered after the restart");
    let order = vec![(busiest, 5), (busy, 3), (quiet, 2)];

    let most = addresses.difference(&[quiet, busy, busiest].into_iter().collect());
    scene.datapath.unprogram(GROUP, &most)?;
    ensure!(scene.entries()? == (0, 3), "{:?}", scene.entries()?);
    ensure!(scene.datapath.busiest(GROUP, 9)? == order, "{:?}", scene.datapath.busiest(GROUP, 9)?);
    scene.expect(&[quiet, busy, busiest], XDP_TX)?;
    scene.expect(&some(&most, 300), XDP_PASS)?;
    scene.datapath.unprogram(GROUP, &addresses)?;
    ensure!(scene.entries()? == (0, 0) && scene.datapath.programmed()?.is_empty(), "something is left");
    Ok(())
}

/// As a restart does; answers what the next one finds.
fn replace(datapath: &mut KernelDatapath, config: &DatapathConfig) -> Result<Vec<datapath::Programmed>> {
    // Its own pins meanwhile, so that the old one can be dropped before the new one is opened.
    let spare = DatapathConfig { pin_dir: bench::pin_dir("spare"), max_vips: 1, ..config.clone() };
    drop(std::mem::replace(datapath, KernelDatapath::open(&spare)?));
    drop(std::mem::replace(datapath, KernelDatapath::open(config)?));
    datapath::unload(&spare.pin_dir)?;
    Ok(datapath.programmed()?)
}

/// While its neighbours come and go, so that a page is made and taken apart over and over, an address
/// that is held all the time is answered all the time.
pub fn an_address_is_known_while_pages_come_and_go() -> Result<()> {
    let mut scene = Scene::new("changing")?;
    let address: IpAddr = Ipv4Addr::new(10, 20, 0, 9).into();
    scene.datapath.program(GROUP, IFINDEX, &[address].into_iter().collect())?;
    scene.datapath.open_gate(GROUP, 1, 1)?;
    let neighbours = set("10.20.0.10-10.20.0.200")?;
    let stop = AtomicBool::new(false);
    let Scene { datapath, ebpf, .. } = &mut scene;
    let asked = std::thread::scope(|scope| -> Result<u64> {
        let asker = scope.spawn(|| -> Result<u64> {
            let mut asked = 0;
            while !stop.load(Relaxed) {
                let found = action(ebpf, address)?;
                ensure!(found == XDP_TX, "action {found} after {asked} answers");
                asked += 1;
            }
            Ok(asked)
        });
        let changed = (0..300).try_for_each(|_| {
            datapath.program(GROUP, IFINDEX, &neighbours)?;
            datapath.unprogram(GROUP, &neighbours)
        });
        stop.store(true, Relaxed);
        let asked = asker.join().map_err(|_| anyhow::anyhow!("the asker panicked"))?;
        changed?;
        asked
    })?;
    ensure!(asked > 300, "asked only {asked} times");
    ensure!(scene.entries()? == (0, 1), "{:?}", scene.entries()?);
    Ok(())
}

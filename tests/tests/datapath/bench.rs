//! The loaded programs on the bench: frames go in by BPF_PROG_TEST_RUN, verdicts and bytes come out.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData},
    programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use datapath_common::{Address, InterfaceActivity, Verdict, Vip, VipActivity};
use vipd::{
    act::datapath::{self, Datapath as _, InterfaceFacts, KernelDatapath},
    config::{DatapathConfig, DatapathMode},
    observe::clock,
};
use vipd_tests::packets::Mac;

/// Frames of a test run arrive on the loopback interface, which has this number everywhere.
pub const IFINDEX: u32 = 1;
pub const OTHER_IFINDEX: u32 = 2;
pub const US: Mac = [0x02, 0, 0, 0, 0, 0x01];
pub const CLIENT: Mac = [0x02, 0, 0, 0, 0, 0x02];
pub const STRANGER: Mac = [0x02, 0, 0, 0, 0, 0x03];

pub const CLIENT4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
pub const STATION4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub const BROADCAST4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 255);
/// A second subnet on the same interface.
pub const STATION4_B: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
pub const BROADCAST4_B: Ipv4Addr = Ipv4Addr::new(10, 8, 3, 255);
pub const VIP4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 9);
/// Held, but on another interface.
pub const ELSEWHERE4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 10);
/// Held in VLAN 7, untagged inside.
pub const TAGGED4: Ipv4Addr = Ipv4Addr::new(10, 9, 7, 9);
/// Held in VLAN 9 of service VLAN 8.
pub const STACKED4: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 9);
pub const NOT_HELD4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 11);

pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);
pub const CLIENT6_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
pub const STATION6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
pub const STATION6_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0xab, 0xcdef);
pub const ELSEWHERE6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x10);
pub const TAGGED6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 7, 9);
pub const STACKED6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 8, 9);
pub const NOT_HELD6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x11);

const HELD: [IpAddr; 8] = [
    IpAddr::V4(VIP4),
    IpAddr::V4(ELSEWHERE4),
    IpAddr::V4(TAGGED4),
    IpAddr::V4(STACKED4),
    IpAddr::V6(VIP6),
    IpAddr::V6(ELSEWHERE6),
    IpAddr::V6(TAGGED6),
    IpAddr::V6(STACKED6),
];

const LEASE_EPOCH: u64 = 7;
/// Longer than any test run.
const LEASE: Duration = Duration::from_secs(600);
/// Enough for every fixture; the rate limit has a test of its own.
pub const PINGS_PER_SECOND: u32 = 1_000_000;

/// How the gates stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gates {
    Open,
    /// Opened, but the deadline lies in the past.
    Expired,
    /// Opened, but there never was a lease.
    NoLease,
    /// Opened under an older lease than the present one.
    OldEpoch,
    /// Not opened, under a valid lease.
    Inactive,
}

impl Gates {
    /// Every way to be closed.
    pub const CLOSED: [Self; 4] = [Self::Expired, Self::NoLease, Self::OldEpoch, Self::Inactive];
}

pub struct Bench {
    pub datapath: KernelDatapath,
    ebpf: Ebpf,
}

/// What came out.
#[derive(Debug)]
pub struct Outcome {
    pub action: u32,
    pub frame: Vec<u8>,
    /// Verdicts whose counters rose, and by how much.
    pub counted: Vec<(Verdict, u64)>,
}

/// The one bench: programs and maps are loaded once. Tests take turns.
pub fn bench() -> MutexGuard<'static, Bench> {
    static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();
    // A failed test has left nothing that the next one does not set anew.
    BENCH.get_or_init(|| Mutex::new(Bench::new())).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a test pins: nobody else's.
pub fn pin_dir(name: &str) -> PathBuf {
    format!("/sys/fs/bpf/vipd-test-{}-{name}", std::process::id()).into()
}

pub fn facts(index: u32, pings_per_second: u32) -> InterfaceFacts {
    InterfaceFacts {
        index,
        name: "lo".into(),
        mac: US,
        kind: None,
        broadcast_pings_per_second: pings_per_second,
        stationary_v4: vec![(STATION4, BROADCAST4), (STATION4_B, BROADCAST4_B)],
        link_local: Some(STATION6_LOCAL),
        global_v6: Some(STATION6),
    }
}

impl Bench {
    fn new() -> Self {
        let pin_dir = pin_dir("bench");
        let config = DatapathConfig {
            mode: DatapathMode::Generic,
            pin_dir: pin_dir.clone(),
            max_vips: 64,
            log_packets: false,
        };
        let datapath = KernelDatapath::open(&config).unwrap();
        // The programs once more, for running by hand; the maps are the same, by their pins.
        let mut ebpf = EbpfLoader::new()
            .default_map_pin_directory(pin_dir.join(format!("v{}", datapath_common::LAYOUT_VERSION)))
            .load(datapath::object().unwrap())
            .unwrap();
        let xdp: &mut Xdp = ebpf.program_mut("vipd_xdp").unwrap().try_into().unwrap();
        xdp.load().unwrap();
        let egress: &mut SchedClassifier = ebpf.program_mut("vipd_egress").unwrap().try_into().unwrap();
        egress.load().unwrap();
        let mut bench = Self { datapath, ebpf };
        bench.set_interface(PINGS_PER_SECOND);
        for address in HELD {
            bench.datapath.program(address, IFINDEX).unwrap();
        }
        bench.relocate(IpAddr::V4(ELSEWHERE4), OTHER_IFINDEX, 0, 0);
        bench.relocate(IpAddr::V6(ELSEWHERE6), OTHER_IFINDEX, 0, 0);
        bench.relocate(IpAddr::V4(TAGGED4), IFINDEX, 7, 0);
        bench.relocate(IpAddr::V6(TAGGED6), IFINDEX, 7, 0);
        bench.relocate(IpAddr::V4(STACKED4), IFINDEX, 8, 9);
        bench.relocate(IpAddr::V6(STACKED6), IFINDEX, 8, 9);
        bench
    }

    /// Writes the interface's map entries as `attach` does, without attaching to the host's loopback.
    pub fn set_interface(&mut self, pings_per_second: u32) {
        self.datapath.describe(&facts(IFINDEX, pings_per_second)).unwrap();
    }

    /// The VLAN ids of an address are not the daemon's to set yet: straight into the map.
    fn relocate(&mut self, address: IpAddr, ifindex: u32, vlan_outer: u16, vlan_inner: u16) {
        let key = match address {
            IpAddr::V4(v4) => Address::v4(v4.octets()),
            IpAddr::V6(v6) => Address::v6(v6.octets()),
        };
        let map = self.ebpf.map_mut("VIPS").unwrap();
        let mut vips: HashMap<&mut MapData, Address, Vip> = HashMap::try_from(map).unwrap();
        let vip = vips.get(&key, 0).unwrap();
        vips.insert(key, Vip { ifindex, vlan_outer, vlan_inner, ..vip }, 0).unwrap();
    }

    pub fn set(&mut self, gates: Gates) {
        let now = clock::now();
        let (epoch, deadline) = match gates {
            Gates::Expired => (LEASE_EPOCH, vipd::core::time::BootTime(now.0 - 1)),
            Gates::NoLease => (LEASE_EPOCH, vipd::core::time::BootTime::ZERO),
            Gates::OldEpoch => (LEASE_EPOCH + 1, now.after(LEASE)),
            Gates::Open | Gates::Inactive => (LEASE_EPOCH, now.after(LEASE)),
        };
        self.datapath.set_lease(epoch, deadline).unwrap();
        for address in HELD {
            match gates {
                Gates::Inactive => self.datapath.close_gate(address).unwrap(),
                _ => self.datapath.open_gate(address, LEASE_EPOCH, 1).unwrap(),
            }
        }
    }

    pub fn verdicts(&self) -> Vec<(Verdict, u64)> {
        self.datapath.verdicts().unwrap()
    }

    pub fn activity(&self) -> InterfaceActivity {
        self.datapath.interface_activity(IFINDEX).unwrap()
    }

    pub fn vip_activity(&self, address: IpAddr) -> VipActivity {
        self.datapath.vip_activity(address).unwrap()
    }

    pub fn ingress(&mut self, frame: &[u8]) -> Outcome {
        self.run(frame, |ebpf, options| {
            let xdp: &mut Xdp = ebpf.program_mut("vipd_xdp").unwrap().try_into().unwrap();
            xdp.test_run(options)
        })
    }

    pub fn egress(&mut self, frame: &[u8]) -> Outcome {
        self.run(frame, |ebpf, options| {
            let egress: &mut SchedClassifier = ebpf.program_mut("vipd_egress").unwrap().try_into().unwrap();
            egress.test_run(options)
        })
    }

    fn run(
        &mut self,
        frame: &[u8],
        program: impl FnOnce(
            &mut Ebpf,
            TestRunOptions<'_>,
        ) -> Result<aya::programs::TestRunResult, aya::programs::ProgramError>,
    ) -> Outcome {
        let before = self.verdicts();
        let mut out = vec![0; 4096];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = program(&mut self.ebpf, options).unwrap();
        out.truncate(result.data_size_out as usize);
        let counted = before
            .into_iter()
            .zip(self.verdicts())
            .filter(|((_, before), (_, after))| after != before)
            .map(|((verdict, before), (_, after))| (verdict, after - before))
            .collect();
        Outcome { action: result.return_value, frame: out, counted }
    }

    /// Statics are never dropped: the end of `main` does it.
    pub fn remove_pins() {
        let _ = datapath::unload(&pin_dir("bench"));
    }
}

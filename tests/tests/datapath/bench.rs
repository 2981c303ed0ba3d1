//! The loaded programs on the bench: frames go in by BPF_PROG_TEST_RUN, verdicts and bytes come out.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, RingBuf},
    programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use datapath_common::{
    Gate, InterfaceActivity, MAX_PATHS, PathEvent, PathState, TimedPath, Verdict, VipActivity,
};
use vipd::{
    act::datapath::{self, Datapath as _, InterfaceFacts, KernelDatapath},
    config::{DatapathConfig, DatapathMode},
    model::{Range, Ranges, ResourceId},
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

/// Each a resource of its own, with the neighbours that make a page of it.
struct Held {
    address: IpAddr,
    /// Last bytes of the first and the last neighbour.
    neighbours: (u8, u8),
    ifindex: u32,
    /// Outer and inner VLAN id.
    vlans: (u16, u16),
}

const fn v4(address: Ipv4Addr, first: u8, last: u8, ifindex: u32, vlans: (u16, u16)) -> Held {
    Held { address: IpAddr::V4(address), neighbours: (first, last), ifindex, vlans }
}

const fn v6(address: Ipv6Addr, first: u8, last: u8, ifindex: u32, vlans: (u16, u16)) -> Held {
    Held { address: IpAddr::V6(address), neighbours: (first, last), ifindex, vlans }
}

impl Held {
    fn neighbours(&self) -> Ranges {
        let (first, last) = self.neighbours;
        let at = |n: u8| match self.address {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                IpAddr::from([a, b, c, n])
            }
            IpAddr::V6(v6) => {
                let mut octets = v6.octets();
                octets[15] = n;
                IpAddr::from(octets)
            }
        };
        let all: Ranges = Range::new(at(first), at(last)).into_iter().collect();
        all.difference(&only(self.address))
    }
}

const HELD: [Held; 8] = [
    // In the page of the stations, of ELSEWHERE4 and of NOT_HELD4.
    v4(VIP4, 100, 254, IFINDEX, (0, 0)),
    // VIP4's page: always alone.
    v4(ELSEWHERE4, 20, 20, OTHER_IFINDEX, (0, 0)),
    v4(TAGGED4, 10, 255, IFINDEX, (7, 0)),
    v4(STACKED4, 0, 254, IFINDEX, (8, 9)),
    v6(VIP6, 0, 255, IFINDEX, (0, 0)),
    // In the page of the stations and of NOT_HELD6.
    v6(ELSEWHERE6, 0x70, 0xff, OTHER_IFINDEX, (0, 0)),
    v6(TAGGED6, 0, 0xf0, IFINDEX, (7, 0)),
    v6(STACKED6, 1, 0xff, IFINDEX, (8, 9)),
];

/// How the held addresses are entered in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Alone,
    /// With neighbours enough to be members of pages.
    Pages,
}

impl Form {
    pub const ALL: [Self; 2] = [Self::Alone, Self::Pages];
}

pub fn group(index: usize) -> ResourceId {
    index as ResourceId + 1
}

pub fn only(address: IpAddr) -> Ranges {
    [address].into_iter().collect()
}

/// Whether the address is one that is answered for where the test's frames arrive.
pub fn answered_here(form: Form, address: IpAddr) -> bool {
    HELD.iter()
        .filter(|held| held.ifindex == IFINDEX)
        .any(|held| held.address == address || (form == Form::Pages && held.neighbours().contains(address)))
}

pub const LEASE_EPOCH: u64 = 7;
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
    form: Form,
}

/// What came out.
#[derive(Debug)]
pub struct Outcome {
    pub action: u32,
    pub frame: Vec<u8>,
    /// Verdicts whose counters rose, and by how much.
    pub counted: Vec<(Verdict, u64)>,
}

/// The maps of the prober's side, which are not pinned.
pub struct RawPaths {
    paths: Array<MapData, TimedPath>,
    events: std::cell::RefCell<RingBuf<MapData>>,
}

impl RawPaths {
    pub fn state(&self, node: u64, path: u8) -> Option<PathState> {
        let all = (0..MAX_PATHS).map(|slot| self.paths.get(&slot, 0).unwrap().state);
        all.into_iter().find(|s| s.node == node && s.path == u64::from(path))
    }

    /// What was told of the path, and is told no more.
    pub fn kinds(&self, path: u8) -> Vec<u64> {
        let mut events = self.events.borrow_mut();
        let mut kinds = Vec::new();
        while let Some(item) = events.next() {
            let event: PathEvent = bytemuck::pod_read_unaligned(&item);
            kinds.extend((event.path == u64::from(path)).then_some(event.kind));
        }
        kinds
    }
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
        router: false,
    }
}

/// The programs of a datapath once more, for running by hand; the maps are the same, by their pins.
pub fn programs(pin_dir: &std::path::Path) -> Ebpf {
    let mut ebpf = EbpfLoader::new()
        .default_map_pin_directory(pin_dir.join(format!("v{}", datapath_common::LAYOUT_VERSION)))
        .load(datapath::object().unwrap())
        .unwrap();
    let xdp: &mut Xdp = ebpf.program_mut("vipd_xdp").unwrap().try_into().unwrap();
    xdp.load().unwrap();
    let egress: &mut SchedClassifier = ebpf.program_mut("vipd_egress").unwrap().try_into().unwrap();
    egress.load().unwrap();
    ebpf
}

impl Bench {
    fn new() -> Self {
        let pin_dir = pin_dir("bench");
        let config = DatapathConfig {
            mode: DatapathMode::Generic,
            pin_dir: pin_dir.clone(),
            max_vips: 4096,
            log_packets: false,
        };
        let datapath = KernelDatapath::open(&config).unwrap();
        let ebpf = programs(&pin_dir);
        let mut bench = Self { datapath, ebpf, form: Form::Alone };
        bench.set_interface(PINGS_PER_SECOND);
        for (index, held) in HELD.iter().enumerate() {
            bench.datapath.program(group(index), held.ifindex, &only(held.address)).unwrap();
            bench.tag(group(index), held.vlans);
        }
        bench
    }

    /// Writes the interface's map entries as `attach` does, without attaching to the host's loopback.
    pub fn set_interface(&mut self, pings_per_second: u32) {
        self.describe(&facts(IFINDEX, pings_per_second));
    }

    pub fn describe(&mut self, facts: &InterfaceFacts) {
        self.datapath.describe(facts).unwrap();
    }

    /// The VLAN ids of a resource are not the daemon's to set yet: straight into the map.
    fn tag(&mut self, group: ResourceId, (vlan_outer, vlan_inner): (u16, u16)) {
        let map = self.ebpf.map_mut("GATES").unwrap();
        let mut gates: Array<&mut MapData, Gate> = Array::try_from(map).unwrap();
        let index = (0..gates.len()).find(|index| gates.get(index, 0).unwrap().group == group).unwrap();
        let gate = gates.get(&index, 0).unwrap();
        gates.set(index, Gate { vlan_outer, vlan_inner, ..gate }, 0).unwrap();
    }

    /// The same addresses, entered in another way: what becomes pages and entries again is the datapath's own
    /// decision.
    pub fn enter(&mut self, form: Form) {
        if form == self.form {
            return;
        }
        for (index, held) in HELD.iter().enumerate() {
            match form {
                Form::Pages => self.datapath.program(group(index), held.ifindex, &held.neighbours()).unwrap(),
                Form::Alone => self.datapath.unprogram(group(index), &held.neighbours()).unwrap(),
            }
        }
        self.form = form;
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
        for index in 0..HELD.len() {
            match gates {
                Gates::Inactive => self.datapath.close_gate(group(index)).unwrap(),
                _ => self.datapath.open_gate(group(index), LEASE_EPOCH, 1).unwrap(),
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

    /// Loads the bench's own programs once more: what is not pinned begins anew.
    pub fn renew_programs(&mut self) {
        self.ebpf = programs(&pin_dir("bench"));
    }

    /// What the bench's own programs know of paths.
    pub fn own_probes(&mut self) -> RawPaths {
        let mut take = |name| self.ebpf.take_map(name).unwrap();
        RawPaths {
            paths: Array::try_from(take("PATHS")).unwrap(),
            events: std::cell::RefCell::new(RingBuf::try_from(take("PATH_EVENTS")).unwrap()),
        }
    }

    /// Statics are never dropped: the end of `main` does it.
    pub fn remove_pins() {
        let _ = datapath::unload(&pin_dir("bench"));
    }
}

//! From the object to loaded programs and typed maps; pinned maps are adopted with all they hold.

use std::{collections::BTreeMap, path::Path, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError, MapInfo, MapType, PerCpuArray, PerCpuHashMap},
    programs::{Program, ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use datapath_common::{
    Address, BroadcastKey, BroadcastRate, BroadcastSource, Directory, Gate, Interface, InterfaceActivity,
    Lease, MAX_BROADCASTS, MAX_INTERFACES, MAX_PATHS, Node, PAGE_SIZE, Page, PeerKey, PeerPath,
    VERDICT_COUNT, Vip, VipActivity,
};
use tracing::warn;

use super::{
    DatapathError,
    activity::Records,
    bpffs::{self, failed},
    layout::Key,
    links::{self, text},
    object,
    slots::Slots,
};
use crate::{core::time::BootTime, model::LeaseEpoch, observe::clock};

pub(super) const XDP: &str = "vipd_xdp";
pub(super) const EGRESS: &str = "vipd_egress";
pub(super) const ANNOUNCE: &str = "vipd_announce";
const CLOCK: &str = "vipd_clock";

/// The kernel's clock and ours may differ by this much: what lies between two readings on a busy machine.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// The maps, by what is in them.
pub(super) struct Maps {
    pub(super) vips: HashMap<MapData, Address, Vip>,
    pub(super) pages: HashMap<MapData, Address, Page>,
    pub(super) directory: Array<MapData, Directory>,
    pub(super) gates: Array<MapData, Gate>,
    pub(super) lease: Array<MapData, Lease>,
    pub(super) fence: Array<MapData, u64>,
    pub(super) node: Array<MapData, Node>,
    pub(super) interfaces: HashMap<MapData, u32, Interface>,
    pub(super) broadcasts: HashMap<MapData, BroadcastKey, BroadcastSource>,
    pub(super) broadcast_rates: HashMap<MapData, u32, BroadcastRate>,
    pub(super) interface_activity: PerCpuHashMap<MapData, u32, InterfaceActivity>,
    pub(super) verdicts: PerCpuArray<MapData, u64>,
}

/// A map's dimensions: type, key size, value size, entries.
type Shape = (MapType, usize, usize, u32);

/// The capacities that are not constant.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) max_vips: u32,
    /// Activity slots of one CPU.
    pub(super) slots: u32,
    pub(super) cpus: u32,
}

impl Sizes {
    fn pages(self) -> u32 {
        self.slots / PAGE_SIZE
    }

    fn records(self) -> u32 {
        self.slots.saturating_mul(self.cpus)
    }
}

fn shapes(sizes: Sizes) -> BTreeMap<&'static str, Shape> {
    const U32: usize = size_of::<u32>();
    BTreeMap::from([
        ("VIPS", (MapType::Hash, size_of::<Address>(), size_of::<Vip>(), sizes.max_vips)),
        ("PAGES", (MapType::Hash, size_of::<Address>(), size_of::<Page>(), sizes.pages())),
        ("DIRECTORY", (MapType::Array, U32, size_of::<Directory>(), 1)),
        ("GATES", (MapType::Array, U32, size_of::<Gate>(), sizes.max_vips)),
        ("LEASE", (MapType::Array, U32, size_of::<Lease>(), 1)),
        ("FENCE", (MapType::Array, U32, size_of::<u64>(), 1)),
        ("NODE", (MapType::Array, U32, size_of::<Node>(), 1)),
        ("PEERS", (MapType::Hash, size_of::<PeerKey>(), size_of::<PeerPath>(), MAX_PATHS)),
        ("INTERFACES", (MapType::Hash, U32, size_of::<Interface>(), MAX_INTERFACES)),
        (
            "BROADCASTS",
            (MapType::Hash, size_of::<BroadcastKey>(), size_of::<BroadcastSource>(), MAX_BROADCASTS),
        ),
        ("BROADCAST_RATES", (MapType::Hash, U32, size_of::<BroadcastRate>(), MAX_INTERFACES)),
        ("INTERFACE_ACTIVITY", (MapType::PerCpuHash, U32, size_of::<InterfaceActivity>(), MAX_INTERFACES)),
        ("VIP_ACTIVITY", (MapType::Array, U32, size_of::<VipActivity>(), sizes.records())),
        ("VERDICTS", (MapType::PerCpuArray, U32, size_of::<u64>(), VERDICT_COUNT)),
    ])
}

/// Loads the programs against the maps pinned in `dir`, making and pinning those that are missing.
pub(super) fn load(dir: &Path, sizes: Sizes, log_packets: bool) -> Result<Ebpf, DatapathError> {
    if sizes.max_vips == 0 {
        return Err(failed("load the BPF programs", "datapath.max-vips is 0"));
    }
    let switch = u8::from(log_packets);
    let mut ebpf = EbpfLoader::new()
        .default_map_pin_directory(dir)
        .map_max_entries("VIPS", sizes.max_vips)
        .map_max_entries("PAGES", sizes.pages())
        .map_max_entries("GATES", sizes.max_vips)
        .map_max_entries("VIP_ACTIVITY", sizes.records())
        .override_global("LOG_PACKETS", &switch, true)
        .load(object()?)
        .map_err(|error| failed("load the BPF object", text(error)))?;
    let load = |result: Result<(), ProgramError>, name| {
        result.map_err(|error| failed(format!("load the BPF program {name}"), text(error)))
    };
    load(xdp(&mut ebpf, CLOCK)?.load(), CLOCK)?;
    load(xdp(&mut ebpf, XDP)?.load(), XDP)?;
    let egress: &mut SchedClassifier =
        program(&mut ebpf, EGRESS).map_err(|reason| failed("load the BPF object", reason))?;
    load(egress.load(), EGRESS)?;
    Ok(ebpf)
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, DatapathError> {
    program(ebpf, name).map_err(|reason| failed("load the BPF object", reason))
}

/// A program of the object by its name.
pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or_else(|| format!("it has no program {name}"))?;
    program.try_into().map_err(text)
}

/// Renames the directory when one of its maps has other dimensions than ours, or when there are links
/// and not all of the maps that their programs share: gates and slots are numbered across several maps, so
/// they can only be kept or replaced together. What runs keeps the old maps until its links are given
/// the new programs.
pub(super) fn set_misfits_aside(dir: &Path, sizes: Sizes) -> Result<(), DatapathError> {
    let linked = bpffs::entries(dir).iter().any(|path| links::Pin::parse(path).is_some());
    let misfit = shapes(sizes).into_iter().find(|(name, shape)| {
        let path = dir.join(name);
        if path.exists() { shape_of(&path) != Some(*shape) } else { linked }
    });
    if let Some((map, shape)) = misfit {
        let aside = bpffs::set_aside(dir)?;
        warn!(
            map,
            expected = ?shape,
            pins = %aside.display(),
            "a pinned map does not fit (datapath.max-vips changed?): all maps are made anew"
        );
    }
    Ok(())
}

fn shape_of(path: &Path) -> Option<Shape> {
    let info = MapInfo::from_pin(path).ok()?;
    let (key, value) = (info.key_size() as usize, info.value_size() as usize);
    Some((info.map_type().ok()?, key, value, info.max_entries()))
}

impl Maps {
    /// Takes the maps out of what was loaded, those of the addresses' activity as memory.
    pub(super) fn take(ebpf: &mut Ebpf, sizes: Sizes) -> Result<(Self, Records), DatapathError> {
        let mut find = |name: &str| {
            let missing = || failed(format!("open the BPF map {name}"), "the object has no such map");
            ebpf.take_map(name).ok_or_else(missing)
        };
        let records = records(find("VIP_ACTIVITY")?, sizes.slots, sizes.cpus)?;
        Ok((Self::of(find)?, records))
    }

    /// The maps pinned in a directory of this layout, whatever their capacities.
    pub(super) fn pinned(dir: &Path, cpus: u32) -> Result<(Self, Records), DatapathError> {
        let find = |name: &str| {
            let wrong = |error| failed(format!("open the BPF map {}", dir.join(name).display()), text(error));
            MapData::from_pin(dir.join(name)).and_then(Map::from_map_data).map_err(wrong)
        };
        let activity = find("VIP_ACTIVITY")?;
        let maps = Self::of(find)?;
        let directory = maps.directory.get(&0, 0);
        let directory = directory.map_err(|error| failed("read the directory of the maps", text(error)))?;
        Ok((maps, records(activity, directory.slots, cpus)?))
    }

    fn of(mut find: impl FnMut(&str) -> Result<Map, DatapathError>) -> Result<Self, DatapathError> {
        fn typed<M: TryFrom<Map, Error = MapError>>(map: Map, name: &str) -> Result<M, DatapathError> {
            M::try_from(map).map_err(|error| failed(format!("open the BPF map {name}"), text(error)))
        }
        macro_rules! map {
            ($name:literal) => {
                typed(find($name)?, $name)?
            };
        }
        Ok(Self {
            vips: map!("VIPS"),
            pages: map!("PAGES"),
            directory: map!("DIRECTORY"),
            gates: map!("GATES"),
            lease: map!("LEASE"),
            fence: map!("FENCE"),
            node: map!("NODE"),
            interfaces: map!("INTERFACES"),
            broadcasts: map!("BROADCASTS"),
            broadcast_rates: map!("BROADCAST_RATES"),
            interface_activity: map!("INTERFACE_ACTIVITY"),
            verdicts: map!("VERDICTS"),
        })
    }

    pub(super) fn lease(&self) -> Result<Lease, DatapathError> {
        self.lease.get(&0, 0).map_err(|error| failed("read the lease from its map", text(error)))
    }

    pub(super) fn fence(&self) -> Result<LeaseEpoch, DatapathError> {
        self.fence.get(&0, 0).map_err(|error| failed("read the fence from its map", text(error)))
    }

    /// The programs of these maps reflect for nobody from now on: their fence does not rise any more.
    pub(super) fn reflect_no_more(&mut self) -> Result<(), DatapathError> {
        let nobody = self.node.set(0, Node::default(), 0);
        nobody.map_err(|error| failed("stop reflecting probes", text(error)))
    }

    pub(super) fn gate(&self, index: u32) -> Result<Gate, DatapathError> {
        self.gates.get(&index, 0).map_err(|error| failed(format!("read gate {index}"), text(error)))
    }

    /// What is programmed, as [`Slots::new`] has it.
    pub(super) fn slots(&self, capacity: u32) -> Result<(Slots, Vec<Key>), DatapathError> {
        let wrong = |error| failed("read the maps of addresses", text(error));
        let pages: Result<Vec<_>, MapError> = self.pages.iter().collect();
        let singles: Result<Vec<_>, MapError> = self.vips.iter().collect();
        Slots::new(capacity, pages.map_err(wrong)?, singles.map_err(wrong)?, |index| self.gate(index))
    }
}

fn records(map: Map, slots: u32, cpus: u32) -> Result<Records, DatapathError> {
    let action = "map the activity of addresses into memory";
    let Map::Array(data) = map else { return Err(failed(action, "VIP_ACTIVITY is no array")) };
    Records::map(&data, slots, cpus).map_err(|error| failed(action, error))
}

/// The lease's deadline is compared with the kernel's clock: refuses to go on where this process reads
/// another one (in a time namespace).
pub(super) fn check_clock(ebpf: &mut Ebpf) -> Result<(), DatapathError> {
    let action = "compare the kernel's CLOCK_BOOTTIME with ours";
    let frame = [0_u8; 64];
    let mut out = [0_u8; 64];
    let options =
        TestRunOptions { data_in: Some(&frame), data_out: Some(&mut out), ..TestRunOptions::default() };
    let before = clock::now();
    xdp(ebpf, CLOCK)?.test_run(options).map_err(|error| failed(action, text(error)))?;
    let after = clock::now();
    let word = out.first_chunk().ok_or_else(|| failed(action, "no answer"))?;
    let kernel = BootTime(u64::from_ne_bytes(*word));
    let off = before.since(kernel).max(kernel.since(after));
    if off > CLOCK_TOLERANCE {
        return Err(failed(
            action,
            format!(
                "they differ by {off:?} (this process lives in a time namespace): \
                 a lease could not be enforced; start vipd outside of it"
            ),
        ));
    }
    Ok(())
}

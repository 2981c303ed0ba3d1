//! From the object to loaded programs and typed maps; pinned maps are adopted with all they hold.

use std::{collections::HashMap as StdHashMap, path::Path, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapInfo, MapType, PerCpuArray, PerCpuHashMap},
    programs::{Program, ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use datapath_common::{
    Address, BroadcastKey, BroadcastRate, BroadcastSource, Gate, Interface, InterfaceActivity, Lease,
    MAX_BROADCASTS, MAX_INTERFACES, VERDICT_COUNT, Vip, VipActivity,
};
use tracing::warn;

use super::{
    DatapathError,
    bpffs::{self, failed},
    links::text,
    object,
};
use crate::{core::time::BootTime, observe::clock};

pub(super) const XDP: &str = "vipd_xdp";
pub(super) const EGRESS: &str = "vipd_egress";
pub(super) const ANNOUNCE: &str = "vipd_announce";
const CLOCK: &str = "vipd_clock";

/// The kernel's clock and ours may differ by this much: what lies between two readings on a busy machine.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// The maps, by what is in them.
pub(super) struct Maps {
    pub(super) vips: HashMap<MapData, Address, Vip>,
    pub(super) gates: Array<MapData, Gate>,
    pub(super) lease: Array<MapData, Lease>,
    pub(super) interfaces: HashMap<MapData, u32, Interface>,
    pub(super) broadcasts: HashMap<MapData, BroadcastKey, BroadcastSource>,
    pub(super) broadcast_rates: HashMap<MapData, u32, BroadcastRate>,
    pub(super) interface_activity: PerCpuHashMap<MapData, u32, InterfaceActivity>,
    pub(super) vip_activity: PerCpuArray<MapData, VipActivity>,
    pub(super) verdicts: PerCpuArray<MapData, u64>,
}

/// A map's dimensions: type, key size, value size, entries.
type Shape = (MapType, usize, usize, u32);

fn shapes(max_vips: u32) -> StdHashMap<&'static str, Shape> {
    const U32: usize = size_of::<u32>();
    StdHashMap::from([
        ("VIPS", (MapType::Hash, size_of::<Address>(), size_of::<Vip>(), max_vips)),
        ("GATES", (MapType::Array, U32, size_of::<Gate>(), max_vips)),
        ("LEASE", (MapType::Array, U32, size_of::<Lease>(), 1)),
        ("INTERFACES", (MapType::Hash, U32, size_of::<Interface>(), MAX_INTERFACES)),
        (
            "BROADCASTS",
            (MapType::Hash, size_of::<BroadcastKey>(), size_of::<BroadcastSource>(), MAX_BROADCASTS),
        ),
        ("BROADCAST_RATES", (MapType::Hash, U32, size_of::<BroadcastRate>(), MAX_INTERFACES)),
        ("INTERFACE_ACTIVITY", (MapType::PerCpuHash, U32, size_of::<InterfaceActivity>(), MAX_INTERFACES)),
        ("VIP_ACTIVITY", (MapType::PerCpuArray, U32, size_of::<VipActivity>(), max_vips)),
        ("VERDICTS", (MapType::PerCpuArray, U32, size_of::<u64>(), VERDICT_COUNT)),
    ])
}

/// Loads the programs against the maps pinned in `dir`, making and pinning those that are missing or do
/// not fit.
pub(super) fn load(dir: &Path, max_vips: u32, log_packets: bool) -> Result<Ebpf, DatapathError> {
    if max_vips == 0 {
        return Err(failed("load the BPF programs", "datapath.max-vips is 0"));
    }
    drop_misfits(dir, max_vips)?;
    let switch = u8::from(log_packets);
    let mut ebpf = EbpfLoader::new()
        .default_map_pin_directory(dir)
        .map_max_entries("VIPS", max_vips)
        .map_max_entries("GATES", max_vips)
        .map_max_entries("VIP_ACTIVITY", max_vips)
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

/// Unpins all maps when one of them has other dimensions than ours: gates and slots are numbered across
/// several maps, so they can only be kept or replaced together. What runs keeps the old maps until its
/// links are given the new programs.
fn drop_misfits(dir: &Path, max_vips: u32) -> Result<(), DatapathError> {
    let shapes = shapes(max_vips);
    let misfit = shapes.iter().find(|(name, shape)| {
        let path = dir.join(name);
        path.exists() && shape_of(&path).is_none_or(|found| found != **shape)
    });
    if let Some((name, shape)) = misfit {
        warn!(
            map = name,
            expected = ?shape,
            "a pinned map does not fit (datapath.max-vips changed?): all maps are made anew and programmed again"
        );
        for name in shapes.keys() {
            bpffs::remove(&dir.join(name))?;
        }
    }
    Ok(())
}

fn shape_of(path: &Path) -> Option<Shape> {
    let info = MapInfo::from_pin(path).ok()?;
    let (key, value) = (info.key_size() as usize, info.value_size() as usize);
    Some((info.map_type().ok()?, key, value, info.max_entries()))
}

impl Maps {
    /// Takes the maps out of what was loaded.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            vips: take(ebpf, "VIPS")?,
            gates: take(ebpf, "GATES")?,
            lease: take(ebpf, "LEASE")?,
            interfaces: take(ebpf, "INTERFACES")?,
            broadcasts: take(ebpf, "BROADCASTS")?,
            broadcast_rates: take(ebpf, "BROADCAST_RATES")?,
            interface_activity: take(ebpf, "INTERFACE_ACTIVITY")?,
            vip_activity: take(ebpf, "VIP_ACTIVITY")?,
            verdicts: take(ebpf, "VERDICTS")?,
        })
    }
}

/// Takes one map out of what was loaded.
pub(super) fn take<M>(ebpf: &mut Ebpf, name: &str) -> Result<M, DatapathError>
where
    M: TryFrom<Map, Error = aya::maps::MapError>,
{
    let action = || format!("open the BPF map {name}");
    let map = ebpf.take_map(name).ok_or_else(|| failed(action(), "the object has no such map"))?;
    M::try_from(map).map_err(|error| failed(action(), text(error)))
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

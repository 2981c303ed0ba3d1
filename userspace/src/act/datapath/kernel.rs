//! The datapath in the kernel.

use std::{
    collections::BTreeMap,
    fs::File,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::{maps::MapError, util::nr_cpus};
use datapath_common::{Directory, InterfaceActivity, Lease, Verdict, VipActivity};
use nix::fcntl::Flock;
use tracing::{info, warn};

use super::{
    Attachment, Datapath, DatapathError, Generated, InterfaceFacts, Programmed,
    activity::Records,
    bpffs::{self, failed},
    carry,
    conflicts::ConflictReader,
    generator::Generator,
    layout,
    links::{Links, text},
    loader::{self, Maps},
    numbers::slots_for,
    packet_log::PacketLog,
    probes::Probes,
    slots::{Slots, Step},
};
use crate::{
    config::{DatapathConfig, DatapathMode},
    core::time::BootTime,
    model::{Epoch, LeaseEpoch, Ranges, ResourceId},
};

/// No resource has this number.
const NOBODY: ResourceId = 0;

/// Programs, links and maps in the kernel. Dropping it leaves all of them at work.
pub struct KernelDatapath {
    mode: DatapathMode,
    inner: Mutex<Inner>,
    conflicts: Mutex<Option<ConflictReader>>,
    probes: Arc<Probes>,
    /// Not a part of `inner`: the lease is renewed while frames are made.
    generator: Option<Mutex<Generator>>,
    _log: Option<PacketLog>,
    _lock: Flock<File>,
}

pub(super) struct Inner {
    pub(super) links: Links,
    pub(super) maps: Maps,
    pub(super) slots: Slots,
    pub(super) records: Records,
    pub(super) directory: Directory,
    /// As last written: the map has no other writer.
    pub(super) lease: Lease,
    pub(super) cpus: usize,
    attached: BTreeMap<u32, Attachment>,
    /// Directories of pins whose programs are still at work with maps of their own.
    replaced: Vec<PathBuf>,
}

impl KernelDatapath {
    /// Loads the programs; adopts maps and links that an earlier process has pinned, without any moment
    /// in which they are not at work. Maps of other dimensions are made anew and filled with what the old
    /// ones hold before the new programs take over.
    ///
    /// Where old maps cannot be read (another version) or do not fit into the new ones, the old programs go on
    /// until the first call that gates, lease or interfaces depend on: until then the caller can take the
    /// addresses away that [`Datapath::programmed`] does not name, and the kernel never answers for them unguarded.
    pub fn open(config: &DatapathConfig) -> Result<Self, DatapathError> {
        // Before anything is changed in the kernel.
        super::object()?;
        let cpus = nr_cpus().map_err(|(what, error)| failed(format!("read {what}"), error))?;
        let dir = bpffs::prepare(&config.pin_dir)?;
        let lock = bpffs::lock(&config.pin_dir)?;
        let slots = slots_for(config.max_vips);
        let sizes = loader::Sizes { max_vips: config.max_vips, slots, cpus: cpus as u32 };
        loader::set_misfits_aside(&dir, sizes)?;
        let mut ebpf = loader::load(&dir, sizes, config.log_packets)?;
        loader::check_clock(&mut ebpf)?;
        let log = if config.log_packets {
            let started = PacketLog::start(&mut ebpf);
            started.inspect_err(|error| warn!("no packet log: {error}")).ok()
        } else {
            None
        };
        let conflicts = Mutex::new(Some(ConflictReader::take(&mut ebpf)?));
        let probes = Arc::new(Probes::take(&mut ebpf, &dir)?);
        let generator = Generator::take(&mut ebpf)
            .inspect_err(|error| warn!("the kernel will not make announcements itself: {error}"));
        let generator = generator.ok().map(Mutex::new);
        let (maps, records) = Maps::take(&mut ebpf, sizes)?;
        let (slots, redundant) = maps.slots(config.max_vips)?;
        let lease = maps.lease()?;
        let directory = Directory { slots: sizes.slots, ..Directory::default() };
        let mut inner = Inner {
            links: Links::new(dir.clone(), ebpf),
            maps,
            slots,
            records,
            directory,
            lease,
            cpus,
            attached: BTreeMap::new(),
            replaced: Vec::new(),
        };
        inner.announce(true, true).map_err(|(_, error)| error)?;
        let doubles: Vec<Step> = redundant.into_iter().map(|key| Step::NotAlone { key }).collect();
        inner.carry_out(NOBODY, &doubles)?;
        inner.links.adopt_all(&dir)?;

        let mut whole = true;
        for old in bpffs::other_versions(&config.pin_dir) {
            info!(pins = %old.display(), "taking over from other pins");
            match carry::carry(&mut inner, &old) {
                Ok(()) => {}
                Err(reason) => {
                    whole = false;
                    warn!(
                        pins = %old.display(),
                        "not all that is programmed there can be carried over: its programs go on until \
                         this process takes over, and what is lost is programmed again: {reason}"
                    );
                }
            }
            inner.replaced.push(old);
        }
        if whole {
            inner.take_over()?;
        }
        Ok(Self {
            mode: config.mode,
            inner: Mutex::new(inner),
            conflicts,
            probes,
            generator,
            _log: log,
            _lock: lock,
        })
    }

    /// Tells the programs what they need to know of an interface, without attaching them to it.
    pub fn describe(&self, interface: &InterfaceFacts) -> Result<(), DatapathError> {
        self.inner().write_interface(interface)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held cannot have left more than one map entry unwritten, which the
        // caller's resync repairs; refusing to close gates from then on would be worse.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With no programs at work but ours: what is written from here on holds at once, and everywhere.
    fn ours(&self) -> Result<MutexGuard<'_, Inner>, DatapathError> {
        let mut inner = self.inner();
        inner.take_over()?;
        Ok(inner)
    }
}

impl Inner {
    /// Puts our programs in the place of those of other pins, and removes these.
    fn take_over(&mut self) -> Result<(), DatapathError> {
        while let Some(old) = self.replaced.first().cloned() {
            self.links.adopt_all(&old)?;
            bpffs::remove_dir(&old)?;
            self.replaced.remove(0);
        }
        Ok(())
    }
}

pub(super) fn absent_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}

impl Datapath for KernelDatapath {
    fn unguarded(&self) -> Option<String> {
        None
    }

    fn conflicts(&self) -> Option<ConflictReader> {
        self.conflicts.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn probes(&self) -> Option<Arc<Probes>> {
        Some(self.probes.clone())
    }

    fn attach(&self, interface: &InterfaceFacts) -> Result<Attachment, DatapathError> {
        let mut inner = self.ours()?;
        // First what the programs read, then the programs.
        inner.write_interface(interface)?;
        let attachment = inner.links.attach(interface, self.mode)?;
        if inner.attached.get(&interface.index) != Some(&attachment) {
            info!(interface = %interface.name, index = interface.index, ?attachment, "datapath attached");
        }
        inner.attached.insert(interface.index, attachment.clone());
        Ok(attachment)
    }

    fn guard_egress(&self, interface: &InterfaceFacts) -> Result<(), DatapathError> {
        self.ours()?.links.guard_egress(interface)
    }

    fn detach(&self, ifindex: u32) -> Result<(), DatapathError> {
        let mut inner = self.ours()?;
        inner.links.detach(ifindex)?;
        inner.attached.remove(&ifindex);
        inner.forget_interface(ifindex)
    }

    fn attached(&self) -> Vec<(u32, Attachment)> {
        self.inner().attached.iter().map(|(index, attachment)| (*index, attachment.clone())).collect()
    }

    fn program(&self, group: ResourceId, ifindex: u32, addresses: &Ranges) -> Result<(), DatapathError> {
        self.inner().program(group, ifindex, addresses)
    }

    fn unprogram(&self, group: ResourceId, addresses: &Ranges) -> Result<(), DatapathError> {
        self.inner().unprogram(group, addresses)
    }

    fn open_gate(
        &self,
        group: ResourceId,
        lease_epoch: LeaseEpoch,
        epoch: Epoch,
    ) -> Result<(), DatapathError> {
        let mut inner = self.ours()?;
        let index = inner.slots.gate(group).ok_or(DatapathError::NotProgrammed(group))?;
        inner.open(index, lease_epoch, epoch)
    }

    fn close_gate(&self, group: ResourceId) -> Result<(), DatapathError> {
        let mut inner = self.ours()?;
        match inner.slots.gate(group) {
            Some(index) => inner.close(index),
            None => Ok(()),
        }
    }

    fn announce(
        &self,
        ifindex: u32,
        frame: &[u8],
        addresses: &[IpAddr],
    ) -> Result<Option<Vec<Generated>>, DatapathError> {
        let Some(generator) = &self.generator else { return Ok(None) };
        // A panic meanwhile has left a chunk that the next one overwrites.
        let mut generator = generator.lock().unwrap_or_else(PoisonError::into_inner);
        generator.run(ifindex, frame, addresses).map(Some)
    }

    fn programmed(&self) -> Result<Vec<Programmed>, DatapathError> {
        let inner = self.inner();
        let groups = inner.slots.groups().filter_map(|id| Some((id, inner.slots.gate(id)?)));
        let programmed = groups.map(|(group, index)| {
            let gate = inner.gate(index)?;
            Ok(Programmed {
                group,
                addresses: inner.slots.addresses(group),
                ifindex: gate.ifindex,
                gate_active: gate.active == 1,
                lease_epoch: gate.lease_epoch,
                epoch: gate.epoch,
            })
        });
        programmed.collect()
    }

    fn lease(&self) -> Result<Lease, DatapathError> {
        Ok(self.inner().lease)
    }

    fn set_lease(&self, epoch: LeaseEpoch, deadline: BootTime) -> Result<(), DatapathError> {
        let mut inner = self.ours()?;
        let lease = Lease { deadline_ns: deadline.0, epoch };
        let mut steps = Vec::with_capacity(3);
        if inner.lease.epoch != epoch {
            // The programs may see a value half written: never the old deadline with the new epoch.
            steps.push(Lease { deadline_ns: 0, epoch: inner.lease.epoch });
            steps.push(Lease { deadline_ns: 0, epoch });
        }
        steps.push(lease);
        for step in steps {
            let written = inner.maps.lease.set(0, step, 0);
            written.map_err(|error| failed("write the lease", text(error)))?;
            inner.lease = step;
        }
        Ok(())
    }

    fn interface_activity(&self, ifindex: u32) -> Result<InterfaceActivity, DatapathError> {
        let values = match self.inner().maps.interface_activity.get(&ifindex, 0) {
            Ok(values) => values,
            Err(MapError::KeyNotFound) => return Ok(InterfaceActivity::default()),
            Err(error) => {
                return Err(failed(format!("read the activity of interface {ifindex}"), text(error)));
            }
        };
        Ok(values.iter().fold(InterfaceActivity::default(), |sum, one| InterfaceActivity {
            frames: sum.frames + one.frames,
            bytes: sum.bytes + one.bytes,
            arp: sum.arp + one.arp,
            nd: sum.nd + one.nd,
            echo_requests: sum.echo_requests + one.echo_requests,
            echo_replies: sum.echo_replies + one.echo_replies,
            last_receive_ns: sum.last_receive_ns.max(one.last_receive_ns),
        }))
    }

    fn vip_activity(&self, address: IpAddr) -> Result<VipActivity, DatapathError> {
        let inner = self.inner();
        let slot = inner.slots.slot(layout::key(address));
        Ok(slot.map_or_else(VipActivity::default, |slot| inner.records.read(slot)))
    }

    fn group_activity(&self, group: ResourceId) -> Result<VipActivity, DatapathError> {
        let inner = self.inner();
        let each = inner.slots.slots(group).map(|(_, slot)| inner.records.read(slot));
        Ok(each.fold(VipActivity::default(), |a, b| VipActivity {
            packets: a.packets + b.packets,
            bytes: a.bytes + b.bytes,
            last_receive_ns: a.last_receive_ns.max(b.last_receive_ns),
        }))
    }

    fn busiest(&self, group: ResourceId, limit: usize) -> Result<Vec<(IpAddr, u64)>, DatapathError> {
        let inner = self.inner();
        let heard = inner.slots.slots(group).map(|(key, slot)| (inner.records.read(slot).packets, key));
        let mut heard: Vec<_> = heard.map(|(packets, key)| (std::cmp::Reverse(packets), key)).collect();
        drop(inner);
        if limit < heard.len() {
            // Only those that are asked for are put in order.
            heard.select_nth_unstable(limit);
            heard.truncate(limit);
        }
        heard.sort_unstable();
        Ok(heard.into_iter().map(|(packets, key)| (layout::ip(key), packets.0)).collect())
    }

    fn verdicts(&self) -> Result<Vec<(Verdict, u64)>, DatapathError> {
        let inner = self.inner();
        let mut counts = Vec::with_capacity(Verdict::ALL.len());
        for verdict in Verdict::ALL {
            let values = inner.maps.verdicts.get(&(verdict as u32), 0);
            let values = values.map_err(|error| failed("read the counters", text(error)))?;
            counts.push((verdict, values.iter().sum()));
        }
        Ok(counts)
    }
}

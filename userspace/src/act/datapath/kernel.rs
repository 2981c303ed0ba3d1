//! The datapath in the kernel.

use std::{
    collections::BTreeMap,
    fs::File,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    maps::{MapError, PerCpuValues},
    util::nr_cpus,
};
use datapath_common::{
    BroadcastKey, BroadcastSource, Gate, INTERFACE_BROADCAST_PING, Interface, InterfaceActivity, Lease,
    Verdict, Vip, VipActivity,
};
use nix::fcntl::Flock;
use tracing::{info, warn};

use super::{
    Attachment, Datapath, DatapathError, Generated, InterfaceFacts, Programmed,
    bpffs::{self, failed},
    generator::Generator,
    links::{Links, text},
    loader::{self, Maps},
    packet_log::PacketLog,
    slots::{self, Slots},
};
use crate::{
    config::{DatapathConfig, DatapathMode},
    core::time::BootTime,
    model::{Epoch, LeaseEpoch, Ranges, ResourceId},
};

/// Programs, links and maps in the kernel. Dropping it leaves all of them at work.
pub struct KernelDatapath {
    mode: DatapathMode,
    cpus: usize,
    inner: Mutex<Inner>,
    /// Not a part of `inner`: the lease is renewed while frames are made.
    generator: Option<Mutex<Generator>>,
    _log: Option<PacketLog>,
    _lock: Flock<File>,
}

struct Inner {
    links: Links,
    maps: Maps,
    slots: Slots,
    /// As last written: the map has no other writer.
    lease: Lease,
    attached: BTreeMap<u32, Attachment>,
}

impl KernelDatapath {
    /// Loads the programs; adopts maps and links that an earlier process has pinned, without any moment
    /// in which they are not at work.
    pub fn open(config: &DatapathConfig) -> Result<Self, DatapathError> {
        // Before anything is changed in the kernel.
        super::object()?;
        let cpus = nr_cpus().map_err(|(what, error)| failed(format!("read {what}"), error))?;
        let dir = bpffs::prepare(&config.pin_dir)?;
        let lock = bpffs::lock(&config.pin_dir)?;
        let mut ebpf = loader::load(&dir, config.max_vips, config.log_packets)?;
        loader::check_clock(&mut ebpf)?;
        let log = if config.log_packets {
            let started = PacketLog::start(&mut ebpf);
            started.inspect_err(|error| warn!("no packet log: {error}")).ok()
        } else {
            None
        };
        let generator = Generator::take(&mut ebpf)
            .inspect_err(|error| warn!("the kernel will not make announcements itself: {error}"));
        let maps = Maps::take(&mut ebpf)?;

        let mut links = Links::new(dir.clone(), ebpf);
        links.adopt_all(&dir)?;
        for old in bpffs::other_versions(&config.pin_dir) {
            info!(pins = %old.display(), "replacing the pins of another version");
            links.adopt_all(&old)?;
            bpffs::remove_dir(&old)?;
        }

        let held: Result<Vec<_>, MapError> = maps.vips.iter().collect();
        let held = held.map_err(|error| failed("read the map of addresses", text(error)))?;
        let lease =
            maps.lease.get(&0, 0).map_err(|error| failed("read the lease from its map", text(error)))?;
        let gate = |index| {
            let gate = maps.gates.get(&index, 0);
            gate.map_err(|error| failed(format!("read gate {index}"), text(error)))
        };
        let slots = Slots::new(config.max_vips, held, gate)?;
        let inner = Inner { links, maps, slots, lease, attached: BTreeMap::new() };
        let (inner, generator) = (Mutex::new(inner), generator.ok().map(Mutex::new));
        Ok(Self { mode: config.mode, cpus, inner, generator, _log: log, _lock: lock })
    }

    /// Tells the programs what they need to know of an interface, without attaching them to it.
    pub fn describe(&self, interface: &InterfaceFacts) -> Result<(), DatapathError> {
        self.inner().write_interface(interface, self.cpus)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held cannot have left more than one map entry unwritten, which the
        // caller's resync repairs; refusing to close gates from then on would be worse.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn gate(&self, index: u32) -> Result<Gate, DatapathError> {
        self.maps.gates.get(&index, 0).map_err(|error| failed(format!("read gate {index}"), text(error)))
    }

    fn set_gate(&mut self, index: u32, gate: Gate) -> Result<(), DatapathError> {
        let action = if gate.active == 1 { "open" } else { "close" };
        self.maps.gates.set(index, gate, 0).map_err(|error| {
            failed(format!("{action} the gate of resource number {}", gate.group), text(error))
        })
    }

    fn close(&mut self, index: u32) -> Result<(), DatapathError> {
        // Only this word matters to the programs; the epochs stay for people to read.
        let gate = self.gate(index)?;
        self.set_gate(index, Gate { active: 0, ..gate })
    }

    fn insert(
        &mut self,
        group: ResourceId,
        address: IpAddr,
        gate: u32,
        cpus: usize,
    ) -> Result<(), DatapathError> {
        let wrong = |error: String| failed(format!("program {address}"), error);
        let slot = self.slots.next_slot().ok_or(DatapathError::Full(self.slots.capacity()))?;
        let zero = PerCpuValues::try_from(vec![VipActivity::default(); cpus])
            .map_err(|error| wrong(error.to_string()))?;
        self.maps.vip_activity.set(slot, zero, 0).map_err(|error| wrong(text(error)))?;
        let vip = Vip { gate, slot };
        self.maps.vips.insert(slots::key(address), vip, 0).map_err(|error| wrong(text(error)))?;
        self.slots.insert(group, address, vip);
        Ok(())
    }

    fn activity(&self, slot: u32) -> Result<VipActivity, DatapathError> {
        let values = self.maps.vip_activity.get(&slot, 0);
        let values = values.map_err(|error| failed("read the activity of an address", text(error)))?;
        Ok(values.iter().fold(VipActivity::default(), |sum, one| add(sum, *one)))
    }

    fn write_interface(&mut self, facts: &InterfaceFacts, cpus: usize) -> Result<(), DatapathError> {
        let name = &facts.name;
        let wrong = |error| failed(format!("write the map entries of {name}"), text(error));
        let answers = facts.broadcast_pings_per_second;
        let v6 = |address: Option<std::net::Ipv6Addr>| address.map_or([0; 16], |address| address.octets());
        let interface = Interface {
            mac: facts.mac,
            flags: if answers > 0 { INTERFACE_BROADCAST_PING } else { 0 },
            broadcast_pings_per_second: answers,
            link_local: v6(facts.link_local),
            global_v6: v6(facts.global_v6),
            primary_v4: facts.stationary_v4.first().map_or([0; 4], |(address, _)| address.octets()),
            ..Interface::default()
        };
        self.maps.interfaces.insert(facts.index, interface, 0).map_err(wrong)?;

        let mut wanted = BTreeMap::new();
        for (address, broadcast) in &facts.stationary_v4 {
            // The first address of a subnet is its primary one.
            wanted.entry(broadcast.octets()).or_insert(address.octets());
        }
        self.forget_broadcasts(facts.index, |broadcast| wanted.contains_key(broadcast)).map_err(wrong)?;
        for (broadcast, address) in wanted {
            let key = BroadcastKey { ifindex: facts.index, broadcast };
            self.maps.broadcasts.insert(key, BroadcastSource { address }, 0).map_err(wrong)?;
        }

        match self.maps.interface_activity.get(&facts.index, 0) {
            Ok(_) => Ok(()),
            Err(MapError::KeyNotFound) => {
                let zero = PerCpuValues::try_from(vec![InterfaceActivity::default(); cpus])
                    .map_err(|error| failed(format!("write the map entries of {name}"), error))?;
                self.maps.interface_activity.insert(facts.index, zero, 0).map_err(wrong)
            }
            Err(error) => Err(wrong(error)),
        }
    }

    fn forget_broadcasts(&mut self, ifindex: u32, keep: impl Fn(&[u8; 4]) -> bool) -> Result<(), MapError> {
        let keys: Result<Vec<_>, _> = self.maps.broadcasts.keys().collect();
        for key in keys? {
            if key.ifindex == ifindex && !keep(&key.broadcast) {
                absent_is_fine(self.maps.broadcasts.remove(&key))?;
            }
        }
        Ok(())
    }
}

fn add(a: VipActivity, b: VipActivity) -> VipActivity {
    VipActivity {
        packets: a.packets + b.packets,
        bytes: a.bytes + b.bytes,
        last_receive_ns: a.last_receive_ns.max(b.last_receive_ns),
    }
}

fn absent_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
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

    fn attach(&self, interface: &InterfaceFacts) -> Result<Attachment, DatapathError> {
        let mut inner = self.inner();
        // First what the programs read, then the programs.
        inner.write_interface(interface, self.cpus)?;
        let attachment = inner.links.attach(interface, self.mode)?;
        if inner.attached.get(&interface.index) != Some(&attachment) {
            info!(interface = %interface.name, index = interface.index, ?attachment, "datapath attached");
        }
        inner.attached.insert(interface.index, attachment.clone());
        Ok(attachment)
    }

    fn guard_egress(&self, interface: &InterfaceFacts) -> Result<(), DatapathError> {
        self.inner().links.guard_egress(interface)
    }

    fn detach(&self, ifindex: u32) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        inner.links.detach(ifindex)?;
        inner.attached.remove(&ifindex);
        let wrong = |error| failed(format!("forget interface {ifindex}"), text(error));
        inner.forget_broadcasts(ifindex, |_| false).map_err(wrong)?;
        absent_is_fine(inner.maps.interfaces.remove(&ifindex)).map_err(wrong)?;
        absent_is_fine(inner.maps.broadcast_rates.remove(&ifindex)).map_err(wrong)?;
        absent_is_fine(inner.maps.interface_activity.remove(&ifindex)).map_err(wrong)
    }

    fn attached(&self) -> Vec<(u32, Attachment)> {
        self.inner().attached.iter().map(|(index, attachment)| (*index, attachment.clone())).collect()
    }

    fn program(&self, group: ResourceId, ifindex: u32, addresses: &Ranges) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        let mut new = Vec::new();
        for address in addresses.iter() {
            match inner.slots.vip(address) {
                Some((_, other)) if other != group => return Err(DatapathError::Taken(address, other)),
                Some(_) => {}
                None => new.push(address),
            }
        }
        let full = DatapathError::Full(inner.slots.capacity());
        if new.len() as u64 > inner.slots.free() {
            return Err(full);
        }
        let Some(index) = inner.slots.gate(group) else { return Err(full) };
        let known = inner.slots.group(group).is_some();
        let gate = if known { inner.gate(index)? } else { Gate::default() };
        if !known || gate.ifindex != ifindex {
            // Shut until it is opened there; what the programs compare changes only while it is.
            if known {
                inner.set_gate(index, Gate { active: 0, ..gate })?;
            }
            inner.set_gate(index, Gate { group, ifindex, ..Gate::default() })?;
        }
        for address in new {
            inner.insert(group, address, index, self.cpus)?;
        }
        Ok(())
    }

    fn unprogram(&self, group: ResourceId, addresses: &Ranges) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        let Some(known) = inner.slots.group(group) else { return Ok(()) };
        let (index, gone) = (known.gate, known.addresses.intersection(addresses));
        if gone == known.addresses {
            inner.close(index)?;
        }
        for address in gone.iter() {
            absent_is_fine(inner.maps.vips.remove(&slots::key(address)))
                .map_err(|error| failed(format!("take {address} out"), text(error)))?;
            inner.slots.remove(group, address);
        }
        Ok(())
    }

    fn open_gate(
        &self,
        group: ResourceId,
        lease_epoch: LeaseEpoch,
        epoch: Epoch,
    ) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        let index = inner.slots.group(group).ok_or(DatapathError::NotProgrammed(group))?.gate;
        let old = inner.gate(index)?;
        if old.active != 1 || old.lease_epoch != lease_epoch {
            // The kernel copies a value word by word: the epochs are in place before the gate is active.
            inner.set_gate(index, Gate { active: 0, lease_epoch, epoch, ..old })?;
        }
        inner.set_gate(index, Gate { active: 1, lease_epoch, epoch, ..old })
    }

    fn close_gate(&self, group: ResourceId) -> Result<(), DatapathError> {
        let mut inner = self.inner();
        match inner.slots.group(group).map(|g| g.gate) {
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
        let programmed = inner.slots.groups().map(|(id, group)| {
            let gate = inner.gate(group.gate)?;
            Ok(Programmed {
                group: id,
                addresses: group.addresses.clone(),
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
        let mut inner = self.inner();
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
        match inner.slots.vip(address) {
            Some((vip, _)) => inner.activity(vip.slot),
            None => Ok(VipActivity::default()),
        }
    }

    fn group_activity(&self, group: ResourceId) -> Result<VipActivity, DatapathError> {
        let inner = self.inner();
        let mut sum = VipActivity::default();
        let Some(known) = inner.slots.group(group) else { return Ok(sum) };
        for (vip, _) in known.addresses.iter().filter_map(|address| inner.slots.vip(address)) {
            sum = add(sum, inner.activity(vip.slot)?);
        }
        Ok(sum)
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

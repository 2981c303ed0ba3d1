//! Takes over what the maps of another directory of pins hold, so that programs which are exchanged go on
//! with the same addresses, gates and lease.
//!
//! Carrying twice does no harm: a process that is killed here leaves the old directory, and the next one begins anew.

use std::path::Path;

use aya::maps::MapError;
use datapath_common::LAYOUT_VERSION;

use super::{
    DatapathError,
    bpffs::{self, failed},
    kernel::Inner,
    links::text,
    loader::Maps,
};

/// All of what is pinned there, or the reason why something of it is missing.
pub(super) fn carry(inner: &mut Inner, dir: &Path) -> Result<(), DatapathError> {
    if let Some(version) = bpffs::version(dir)
        && version != LAYOUT_VERSION
    {
        let action = format!("read the maps in {}", dir.display());
        return Err(failed(action, format!("layout {version} is not known to this version of vipd")));
    }
    let (mut old, records) = Maps::pinned(dir, inner.cpus as u32)?;
    // What the old programs promised to a peer from here on would bind them alone.
    old.reflect_no_more()?;
    interfaces(inner, &old).map_err(|error| failed("carry the interfaces' facts over", text(error)))?;
    let lease = old.lease()?;
    inner.maps.lease.set(0, lease, 0).map_err(|error| failed("write the lease", text(error)))?;
    inner.lease = lease;

    raise_fence(inner, &old)?;

    let (slots, _) = old.slots(old.gates.len())?;
    let mut lost = Ok(());
    for group in slots.groups() {
        let Some(index) = slots.gate(group) else { continue };
        let gate = old.gate(index)?;
        if let Err(error) = inner.program(group, gate.ifindex, &slots.addresses(group)) {
            lost = Err(error);
            continue;
        }
        let Some(ours) = inner.slots.gate(group) else { continue };
        for (key, from) in slots.slots(group) {
            if let Some(to) = inner.slots.slot(key) {
                inner.records.copy_from(&records, from, to);
            }
        }
        if gate.active == 1 {
            inner.open(ours, gate.lease_epoch, gate.epoch)?;
        } else {
            inner.set_gate(ours, gate)?;
        }
    }
    // Once more: a program that had looked before it was stopped has ended by now.
    raise_fence(inner, &old)?;
    lost
}

/// The fence is never lowered: what a peer was told once holds for all programs after.
fn raise_fence(inner: &mut Inner, old: &Maps) -> Result<(), DatapathError> {
    let fence = old.fence()?;
    if fence > inner.maps.fence()? {
        inner.maps.fence.set(0, fence, 0).map_err(|error| failed("write the fence", text(error)))?;
    }
    Ok(())
}

fn interfaces(inner: &mut Inner, old: &Maps) -> Result<(), MapError> {
    for entry in old.interfaces.iter() {
        let (ifindex, interface) = entry?;
        inner.maps.interfaces.insert(ifindex, interface, 0)?;
    }
    for entry in old.broadcasts.iter() {
        let (key, source) = entry?;
        inner.maps.broadcasts.insert(key, source, 0)?;
    }
    for entry in old.interface_activity.iter() {
        let (ifindex, values) = entry?;
        inner.maps.interface_activity.insert(ifindex, values, 0)?;
    }
    for verdict in 0..old.verdicts.len().min(inner.maps.verdicts.len()) {
        inner.maps.verdicts.set(verdict, old.verdicts.get(&verdict, 0)?, 0)?;
    }
    Ok(())
}

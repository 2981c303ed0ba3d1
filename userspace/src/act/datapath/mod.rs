//! The BPF programs and maps: load or adopt, attach, program, read.
//!
//! [`open`] is the way in. What it makes stays in the kernel, pinned, when the process dies: gates and
//! lease go on being enforced, and the next process adopts them without an interruption.

mod activity;
mod bpffs;
mod carry;
mod conflicts;
mod describe;
mod detach;
mod facts;
mod generator;
mod interface;
mod kernel;
mod layout;
mod links;
mod loader;
mod memory;
mod numbers;
mod packet_log;
mod probes;
mod program;
mod query;
mod slots;

use std::{path::Path, sync::Arc};

pub use conflicts::{ConflictReader, ForeignClaim};
pub use facts::{facts, router};
pub use interface::*;
pub use kernel::KernelDatapath;
pub use memory::MemoryDatapath;
pub use probes::Probes;
use tracing::{info, warn};

use crate::config::{DatapathConfig, DatapathMode};

/// The object that `cargo xtask build` made; empty in a build without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vipd-datapath.o"));

/// The BPF object that the programs are loaded from, for tests and tools that load it themselves.
pub fn object() -> Result<&'static [u8], DatapathError> {
    if OBJECT.is_empty() {
        return Err(DatapathError::Failed {
            action: "load the BPF programs".into(),
            reason: "this binary was built without the BPF object: run `cargo xtask build`".into(),
        });
    }
    Ok(OBJECT)
}

/// The kernel's datapath, or, where that is switched off or cannot be had, one that only remembers and
/// says why ([`Datapath::unguarded`]).
pub fn open(config: &DatapathConfig) -> Arc<dyn Datapath> {
    let only_remember =
        |reason| Arc::new(MemoryDatapath::new(config.max_vips, reason).replacing(config.pin_dir.clone()));
    if config.mode == DatapathMode::None {
        return only_remember("the datapath is switched off (datapath.mode = \"none\" in node.toml)".into());
    }
    match KernelDatapath::open(config) {
        Ok(datapath) => {
            info!(pins = %config.pin_dir.display(), max_vips = config.max_vips, "BPF datapath loaded");
            Arc::new(datapath)
        }
        Err(error) => {
            let reason = error.to_string();
            warn!("no BPF datapath, the kernel will not enforce the lease: {reason}");
            only_remember(reason)
        }
    }
}

/// Detaches everything that is pinned below `pin_dir`, of any version, and removes the pins. From then
/// on the kernel answers as it would without vipd.
pub fn unload(pin_dir: &Path) -> Result<(), DatapathError> {
    bpffs::remove_all(pin_dir)
}

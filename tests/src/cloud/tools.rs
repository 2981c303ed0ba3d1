//! Where `cargo xtask setup` installed the programs of the cloud tests.

use std::path::PathBuf;

use anyhow::{Result, ensure};

/// The OCF agent that moves addresses in route tables.
pub const AGENT: &str = "/usr/lib/ocf/resource.d/heartbeat/aws-vpc-move-ip";

/// `moto_server` or `aws`, below $VIPD_TOOLS or ~/.cache/vipd-tools.
///
/// # Errors
/// When it is not installed.
pub fn program(name: &str) -> Result<PathBuf> {
    let tools = std::env::var_os("VIPD_TOOLS").map_or_else(
        || {
            let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
            home.join(".cache/vipd-tools")
        },
        PathBuf::from,
    );
    let path = tools.join("cloud/bin").join(name);
    ensure!(path.is_file(), "there is no {}: `cargo xtask setup` installs it", path.display());
    Ok(path)
}

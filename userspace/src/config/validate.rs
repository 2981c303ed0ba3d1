//! What a well-formed node file may still say wrongly.

use std::{collections::BTreeSet, net::SocketAddr};

use super::NodeConfig;
use crate::model::Tag;

/// A value that cannot be used.
pub struct Wrong {
    /// The key and the tables around it, outermost first.
    pub key: Vec<String>,
    pub reason: String,
    pub remedy: String,
}

/// Everything that is wrong with the values.
pub fn validate(config: &NodeConfig) -> Vec<Wrong> {
    let mut found = Vec::new();
    let mut wrong = |key: &[&str], reason: String, remedy: &str| {
        let key = key.iter().map(|k| (*k).to_owned()).collect();
        found.push(Wrong { key, reason, remedy: remedy.to_owned() });
    };
    // Names are shown beside tags and typed on command lines: the same characters serve.
    if config.name.parse::<Tag>().is_err() || config.name == "all" {
        let reason = format!("'{}' is not a valid name", config.name);
        wrong(&["name"], reason, "use 1 to 64 of letters, digits, '.', ':', '_' and '-' ('all' is taken)");
    }
    if let Err((reason, remedy)) = reachable(config.rpc) {
        wrong(&["rpc"], reason, remedy);
    }
    if config.paths.is_empty() {
        wrong(&["paths"], "is empty".into(), "give one UDP address per network, as \"192.0.2.1:7412\"");
    }
    let mut seen = BTreeSet::new();
    for path in &config.paths {
        if let Err((reason, remedy)) = reachable(*path) {
            wrong(&["paths"], reason, remedy);
        }
        if !seen.insert(path) {
            wrong(&["paths"], format!("{path} is there twice"), "each path is another network's address");
        }
    }
    if config.tunables.as_os_str().is_empty() {
        wrong(&["tunables"], "is empty".into(), "name a file, or remove the line");
    }
    if config.control_group.as_deref().is_some_and(str::is_empty) {
        wrong(&["control-group"], "is empty".into(), "name a group, or remove the line");
    }
    const MOST_VIPS: u32 = 1 << 20;
    if !(1..=MOST_VIPS).contains(&config.datapath.max_vips) {
        let reason = format!("{} is out of range", config.datapath.max_vips);
        wrong(&["datapath", "max-vips"], reason, "use 1 to 1048576");
    }
    if !config.datapath.pin_dir.is_absolute() {
        let reason = format!("'{}' is not an absolute path", config.datapath.pin_dir.display());
        wrong(&["datapath", "pin-dir"], reason, "use a directory on a bpffs, as /sys/fs/bpf/vipd");
    }
    for name in config.interface.keys() {
        // IFNAMSIZ is 16 with the terminating zero.
        if name.is_empty() || name.len() > 15 || name.contains(|c: char| c == '/' || c.is_whitespace()) {
            let reason = format!("'{name}' cannot be an interface's name");
            wrong(&["interface", name], reason, "use its name as 'ip link' shows it");
        }
    }
    found
}

/// Can a peer send to this address?
fn reachable(address: SocketAddr) -> Result<(), (String, &'static str)> {
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() {
        return Err((format!("{ip} is no address that peers can reach"), "use this host's own address"));
    }
    if address.port() == 0 {
        return Err(("port 0 is none that peers can know".into(), "use a fixed port, as 7411 or 7412"));
    }
    Ok(())
}

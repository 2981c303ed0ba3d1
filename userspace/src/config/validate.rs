//! What a well-formed node file may still say wrongly.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{Ec2Config, NodeConfig, StoreConfig, StoreKind};
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
    store(&config.store, &mut wrong);
    ec2(&config.ec2, &mut wrong);
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

/// `[store]`: what contradicts itself would otherwise be found out when the state is already elsewhere.
fn store(store: &StoreConfig, wrong: &mut impl FnMut(&[&str], String, &str)) {
    if store.kind == StoreKind::Raft {
        let files = [
            ("prefix", store.prefix.is_some()),
            ("user-file", store.user_file.is_some()),
            ("ca", store.ca.is_some()),
            ("cert", store.cert.is_some()),
            ("key", store.key.is_some()),
            ("endpoints", !store.endpoints.is_empty()),
        ];
        for (key, _) in files.iter().filter(|(_, there)| *there) {
            let reason = "is for etcd, and the store is raft".to_owned();
            wrong(&["store", key], reason, "add kind = \"etcd\", or remove the line");
        }
        return;
    }
    if cfg!(not(feature = "etcd")) {
        let reason = "this vipd was built without etcd".to_owned();
        wrong(&["store", "kind"], reason, "build it with '--features etcd', or use kind = \"raft\"");
    }
    const EXAMPLE: &str = "write one for each member of etcd, as \"http://192.0.2.10:2379\"";
    if store.endpoints.is_empty() {
        wrong(&["store", "endpoints"], "is empty".into(), EXAMPLE);
    }
    let mut seen = BTreeSet::new();
    for endpoint in &store.endpoints {
        if !is_endpoint(endpoint) {
            wrong(&["store", "endpoints"], format!("'{endpoint}' is no http(s)://HOST:PORT"), EXAMPLE);
        }
        if !seen.insert(endpoint) {
            wrong(&["store", "endpoints"], format!("{endpoint} is there twice"), "remove one");
        }
    }
    let secure = store.endpoints.iter().filter(|e| e.starts_with("https://")).count();
    if secure != 0 && secure != store.endpoints.len() {
        wrong(&["store", "endpoints"], "some have TLS and some have not".into(), "use https:// for all");
    }
    for (key, file) in [("ca", &store.ca), ("cert", &store.cert), ("key", &store.key)] {
        if file.is_some() && secure == 0 {
            let reason = "is for TLS, and the endpoints are http://".to_owned();
            wrong(&["store", key], reason, "use https:// endpoints, or remove the line");
        }
    }
    match (&store.cert, &store.key) {
        (Some(_), None) => wrong(&["store", "cert"], "has no key".into(), "add: key = \"FILE\""),
        (None, Some(_)) => wrong(&["store", "key"], "has no certificate".into(), "add: cert = \"FILE\""),
        _ => {}
    }
    let prefix = store.prefix();
    if !prefix.starts_with('/') || prefix.ends_with('/') || prefix.contains(char::is_whitespace) {
        let reason = format!("'{prefix}' is no prefix");
        wrong(&["store", "prefix"], reason, "begin with '/' and end without, as \"/vipd\"");
    }
    if secure != 0 && store.ca.is_none() {
        wrong(&["store", "ca"], "is missing, and the endpoints are https://".into(), "add: ca = \"FILE\"");
    }
}

/// `[ec2]`: a URL that cannot be one would only be found out when an address has to move.
fn ec2(ec2: &Ec2Config, wrong: &mut impl FnMut(&[&str], String, &str)) {
    if cfg!(not(feature = "ec2")) && *ec2 != Ec2Config::default() {
        let reason = "this vipd was built without ec2".to_owned();
        wrong(&["ec2"], reason, "build it with '--features ec2', or remove the section");
    }
    let urls = [
        ("endpoint", &ec2.endpoint, "write for example \"https://ec2.eu-central-1.amazonaws.com\""),
        ("metadata-endpoint", &ec2.metadata_endpoint, "write for example \"http://169.254.169.254\""),
    ];
    for (key, url, remedy) in urls {
        if let Some(url) = url.as_deref().filter(|url| !is_url(url)) {
            wrong(&["ec2", key], format!("'{url}' is no URL of a host"), remedy);
        }
    }
    let is_name = |p: &str| !p.is_empty() && !p.contains(|c: char| c.is_control() || c == ']' || c == '[');
    if let Some(profile) = ec2.profile.as_deref().filter(|p| !is_name(p)) {
        let reason = format!("'{profile}' is no name of a profile");
        wrong(&["ec2", "profile"], reason, "name a section of ~/.aws/config, or remove the line");
    }
}

/// `http(s)://HOST[:PORT][/]`: nothing of a user, no path, no query.
fn is_url(text: &str) -> bool {
    let bare = text.strip_suffix('/').unwrap_or(text);
    let Some((scheme, host)) = bare.split_once("://") else { return false };
    let with_port = match host.rsplit_once(':') {
        // An IPv6 address in brackets has colons of its own.
        Some((_, port)) if !port.contains(']') => bare.to_owned(),
        Some(_) | None => format!("{bare}:80"),
    };
    ["http", "https"].contains(&scheme) && is_endpoint(&with_port)
}

fn is_endpoint(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let Some((host, port)) = rest.and_then(|r| r.rsplit_once(':')) else { return false };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_fits = match bare {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && !host.contains([':', '/', '@', '?', '#'])
                && !host.contains(char::is_whitespace)
        }
    };
    host_fits && port.parse::<u16>().is_ok_and(|p| p != 0)
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

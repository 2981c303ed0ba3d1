//! `[[resource]]`.

use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::{
    parse::{DeclaredFile, PendingAddress},
    read::{At, Reader, set},
};
use crate::model::{
    Accept, Addresses, DeclaredCloud, DeclaredResource, Ec2Eip, Ec2Route, NodeSettings, OnConflict, Policy,
    Range, Switchback, Tag, with_length,
};

/// What is asked of a resource of each kind, beside what all have in common: key, an example, whether it must be there.
type Own = &'static [(&'static str, &'static str, bool)];

const KINDS: [(&str, Own); 3] = [
    (
        "ip",
        &[
            ("addresses", "addresses = [\"192.0.2.10/24\"]", true),
            ("accept", "accept = \"assign\"", false),
            ("on-conflict", "on-conflict = \"defend\"", false),
        ],
    ),
    ("ec2-route", &[("ip", "ip = \"web\"", true), ("region", "region = \"eu-central-1\"", false)]),
    ("ec2-eip", &[("eip", "eip = \"203.0.113.9\"", true), ("region", "region = \"eu-central-1\"", false)]),
];

/// Of all kinds.
const KEYS: [&str; 13] = [
    "tag",
    "kind",
    "nodes",
    "state",
    "switchback",
    "subnets",
    "depends",
    "stickiness",
    "migration-threshold",
    "failure-timeout",
    "failfast",
    "maintenance",
    "connectivity",
];

pub fn resource(reader: &mut Reader, section: &At, file: &mut DeclaredFile) {
    let name = match section.peek("tag") {
        Some(tag) => format!("resource.{tag}"),
        None => section.key.clone(),
    };
    let here = At { key: name.clone(), ..section.clone() };
    let tag = match section.peek("tag") {
        Some(text) => text.parse::<Tag>().ok(),
        None => None,
    };
    // Of a kind that is not known nothing is known.
    let named = section.peek("kind").unwrap_or("ip");
    let own = KINDS.iter().find(|(kind, _)| *kind == named).map(|(_, own)| *own);
    let mut cloud = CloudKeys::default();
    let mut found = DeclaredResource {
        cloud: None,
        addresses: Addresses::default(),
        accept: None,
        in_service: None,
        switchback: Switchback::Intelligent,
        on_conflict: OnConflict::default(),
        monitored: Default::default(),
        depends: None,
        policy: Policy::default(),
        nodes: Default::default(),
    };
    for at in reader.table(section, &name) {
        if is_misplaced(reader, &at, at.own(&name), named, own) {
            continue;
        }
        match at.own(&name) {
            "tag" => {
                reader.parsed::<Tag>(&at, "web");
            }
            "kind" => {
                reader.word(&at, &KINDS.map(|(kind, _)| (kind, ())));
            }
            "ip" => cloud.ip = reader.parsed(&at, "web"),
            "eip" => cloud.eip = reader.parsed(&at, "203.0.113.9"),
            "region" => cloud.region = reader.text(&at).map(str::to_owned),
            "addresses" => addresses(reader, &at, tag.as_ref(), &mut found.addresses, file),
            "nodes" => nodes(reader, &at, named, &mut found),
            "state" => {
                found.in_service = reader.word(&at, &[("in-service", true), ("out-of-service", false)]);
            }
            "accept" => {
                let words = [("assign", Accept::Assign), ("route", Accept::Route), ("anyip", Accept::Anyip)];
                found.accept = reader.word(&at, &words);
            }
            "switchback" => {
                let words = [("intelligent", Switchback::Intelligent), ("automatic", Switchback::Automatic)];
                found.switchback = reader.word(&at, &words).unwrap_or(found.switchback);
            }
            "on-conflict" => {
                let words = [
                    ("report", OnConflict::Report),
                    ("defend", OnConflict::Defend),
                    ("yield", OnConflict::Yield),
                ];
                found.on_conflict = reader.word(&at, &words).unwrap_or(found.on_conflict);
            }
            "subnets" => {
                let nets = reader.parsed_list::<IpNet>(&at, "192.0.2.0/24");
                found.monitored = nets.into_iter().map(|net| net.trunc()).collect();
            }
            "depends" => found.depends = Some(set(reader.parsed_list(&at, "db"))),
            key => policy(reader, &at, key, own, &mut found.policy),
        }
    }
    let nodes = match named {
        "ec2-route" => "nodes = { node-a = { priority = 1 } }",
        _ => "nodes = { node-a = { priority = 1, devices = [\"eth0\"] } }",
    };
    let common = [("tag", "tag = \"web\"", true), ("nodes", nodes, true)];
    for (key, example, needed) in common.iter().chain(own.unwrap_or_default()) {
        if *needed && !section.has(key) {
            reader.missing(&here, key, example);
        }
    }
    found.cloud = cloud.made(named);
    // What is wrong was told; it must not pass for an IP resource.
    let unreadable = named != "ip" && found.cloud.is_none();
    let Some(tag) = tag.filter(|_| !unreadable) else { return };
    if let Some(line) = file.resource_lines.get(&tag) {
        let reason = format!("is there twice, first in line {line}");
        reader.fault(&here, reason, "give each resource a tag of its own");
        return;
    }
    file.resource_lines.insert(tag.clone(), reader.line(section));
    file.declared.resources.insert(tag, found);
}

/// What a resource of EC2 says of itself.
#[derive(Default)]
struct CloudKeys {
    ip: Option<Tag>,
    eip: Option<Ipv4Addr>,
    region: Option<String>,
}

impl CloudKeys {
    /// None where something is missing, and for IP resources.
    fn made(self, kind: &str) -> Option<DeclaredCloud> {
        let Self { ip, eip, region } = self;
        match kind {
            "ec2-route" => Some(DeclaredCloud::Route(Ec2Route { ip: ip?, region })),
            "ec2-eip" => Some(DeclaredCloud::Eip(Ec2Eip { address: eip?, region })),
            _ => None,
        }
    }
}

/// Told, where a key is for resources of another kind.
fn is_misplaced(reader: &mut Reader, at: &At, key: &str, kind: &str, own: Option<Own>) -> bool {
    let has = |all: Own| all.iter().any(|(known, ..)| *known == key);
    let others: Vec<&str> = KINDS.iter().filter(|(_, all)| has(all)).map(|(kind, _)| *kind).collect();
    if own.is_none_or(has) || others.is_empty() {
        return false;
    }
    let kinds: Vec<String> = others.iter().map(|kind| format!("kind = \"{kind}\"")).collect();
    let reason = format!("is for resources with {}, and this one is of the kind {kind}", kinds.join(" or "));
    reader.fault(at, reason, "remove the line, or write that kind");
    true
}

fn policy(reader: &mut Reader, at: &At, key: &str, own: Option<Own>, policy: &mut Policy) {
    match key {
        "stickiness" => policy.stickiness = reader.score(at),
        "migration-threshold" => policy.migration_threshold = reader.threshold(at),
        "failure-timeout" => policy.failure_timeout = reader.seconds(at),
        "failfast" => {
            for one in reader.list(at, "a list, as [\"service\"]") {
                match reader.word(&one, &[("service", true), ("node", false)]) {
                    Some(true) => policy.service_failfast = true,
                    Some(false) => policy.node_failfast = true,
                    None => {}
                }
            }
        }
        "maintenance" => policy.maintenance = reader.boolean(at).unwrap_or_default(),
        "connectivity" => {
            let found = reader.word(at, &[("use", false), ("ignore", true)]);
            policy.ignores_connectivity = found.unwrap_or_default();
        }
        _ => {
            let own = own.unwrap_or_default().iter().map(|(key, ..)| *key);
            reader.unknown(at, &KEYS.into_iter().chain(own).collect::<Vec<_>>());
        }
    }
}

fn addresses(
    reader: &mut Reader,
    at: &At,
    tag: Option<&Tag>,
    found: &mut Addresses,
    file: &mut DeclaredFile,
) {
    let all = reader.list(at, "a list, as [\"192.0.2.10/24\", \"192.0.2.20-192.0.2.29/24\"]");
    if all.is_empty() && at.value.is_array() {
        reader.fault(at, "is empty", "write one address at least");
    }
    let mut literal = Vec::new();
    for one in all {
        let Some(text) = reader.text(&one) else { continue };
        match part(text) {
            Some(part) => literal.push(part),
            None => file.pending.extend(tag.map(|tag| PendingAddress {
                tag: tag.clone(),
                text: text.to_owned(),
                line: reader.line(&one),
                key: one.key.clone(),
            })),
        }
    }
    *found = literal.into_iter().collect();
}

/// `ADDRESS/LEN` or `FIRST-LAST/LEN`, wholly within the subnet. None for what a host has to look at, or tell
/// what is wrong with it.
fn part(text: &str) -> Option<(IpNet, Range)> {
    let (hosts, length) = text.split_once('/')?;
    let range: Range = hosts.parse().ok()?;
    let subnet = with_length(range.first(), length.parse().ok()?)?.trunc();
    (length.bytes().all(|b| b.is_ascii_digit()) && subnet.prefix_len() > 0 && subnet.contains(&range.last()))
        .then_some((subnet, range))
}

/// The interfaces of a route are those of its IP resource.
fn nodes(reader: &mut Reader, section: &At, kind: &str, found: &mut DeclaredResource) {
    let known: &[&str] = match kind {
        "ec2-route" => &["priority", "restore-and-recover"],
        "ec2-eip" => &["priority", "devices", "restore-and-recover"],
        _ => &["priority", "devices", "restore-and-recover", "physical", "source"],
    };
    let needed = [("priority", "priority = 1"), ("devices", "devices = [\"eth0\"]")];
    let needed: Vec<_> = needed.into_iter().filter(|(key, _)| known.contains(key)).collect();
    for node in reader.table(section, &section.key) {
        let name = node.own(&section.key).to_owned();
        let id = reader.node(&node, &name);
        let mut settings = NodeSettings::new(0, Vec::new());
        for at in reader.table(&node, &node.key) {
            let key = at.own(&node.key);
            if kind == "ec2-route" && key == "devices" {
                reader.fault(&at, "is not for routes, which follow their IP resource", "remove it");
                continue;
            }
            match key {
                _ if !known.contains(&key) => reader.unknown(&at, known),
                "priority" => {
                    let number = reader.number(&at, "a number from 1 (best) to 999");
                    settings.priority = number.unwrap_or_default();
                }
                "devices" => settings.devices = reader.parsed_list(&at, "eth0"),
                "restore-and-recover" => settings.restore_and_recover = reader.boolean(&at).unwrap_or(true),
                "physical" => settings.physical = reader.boolean(&at).unwrap_or_default(),
                _ => settings.source = reader.boolean(&at).unwrap_or_default(),
            }
        }
        for (key, example) in &needed {
            if node.value.is_table() && !node.has(key) {
                reader.missing(&node, key, example);
            }
        }
        if let Some(id) = id {
            found.nodes.insert(id, settings);
        }
    }
}

//! `[[resource]]`.

use ipnet::IpNet;

use super::{
    parse::{DeclaredFile, PendingAddress},
    read::{At, Reader, set},
};
use crate::model::{
    Accept, Addresses, DeclaredResource, NodeSettings, OnConflict, Policy, Range, Switchback, Tag,
    with_length,
};

const KEYS: [&str; 15] = [
    "tag",
    "addresses",
    "nodes",
    "state",
    "accept",
    "switchback",
    "on-conflict",
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
    let mut found = DeclaredResource {
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
        match at.own(&name) {
            "tag" => {
                reader.parsed::<Tag>(&at, "web");
            }
            "addresses" => addresses(reader, &at, tag.as_ref(), &mut found.addresses, file),
            "nodes" => nodes(reader, &at, &mut found),
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
            key => policy(reader, &at, key, &mut found.policy),
        }
    }
    for (key, example) in [
        ("tag", "tag = \"web\""),
        ("addresses", "addresses = [\"192.0.2.10/24\"]"),
        ("nodes", "nodes = { node-a = { priority = 1, devices = [\"eth0\"] } }"),
    ] {
        if !section.has(key) {
            reader.missing(&here, key, example);
        }
    }
    let Some(tag) = tag else { return };
    if let Some(line) = file.resource_lines.get(&tag) {
        let reason = format!("is there twice, first in line {line}");
        reader.fault(&here, reason, "give each resource a tag of its own");
        return;
    }
    file.resource_lines.insert(tag.clone(), reader.line(section));
    file.declared.resources.insert(tag, found);
}

fn policy(reader: &mut Reader, at: &At, key: &str, policy: &mut Policy) {
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
        _ => reader.unknown(at, &KEYS),
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

fn nodes(reader: &mut Reader, section: &At, found: &mut DeclaredResource) {
    for node in reader.table(section, &section.key) {
        let name = node.own(&section.key).to_owned();
        let id = reader.node(&node, &name);
        let mut settings = NodeSettings::new(0, Vec::new());
        for at in reader.table(&node, &node.key) {
            match at.own(&node.key) {
                "priority" => {
                    let number = reader.number(&at, "a number from 1 (best) to 999");
                    settings.priority = number.unwrap_or_default();
                }
                "devices" => settings.devices = reader.parsed_list(&at, "eth0"),
                "restore-and-recover" => settings.restore_and_recover = reader.boolean(&at).unwrap_or(true),
                "physical" => settings.physical = reader.boolean(&at).unwrap_or_default(),
                "source" => settings.source = reader.boolean(&at).unwrap_or_default(),
                _ => {
                    reader.unknown(&at, &["priority", "devices", "restore-and-recover", "physical", "source"])
                }
            }
        }
        for (key, example) in [("priority", "priority = 1"), ("devices", "devices = [\"eth0\"]")] {
            if node.value.is_table() && !node.has(key) {
                reader.missing(&node, key, example);
            }
        }
        if let Some(id) = id {
            found.nodes.insert(id, settings);
        }
    }
}

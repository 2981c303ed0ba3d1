//! Text -> what is declared. Addresses that only a host can make sense of (names, subnets that are not said)
//! are left for the daemon.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::{
    super::load::Fault,
    read::{At, Reader, entries, set},
};
use crate::model::{
    Connectivity, Constraint, ConstraintId, Declared, Defaults, MonitoredSubnet, NodeId, OrderKind, Tag,
};

const SECTIONS: [&str; 6] = ["defaults", "connectivity", "subnet", "ping-list", "resource", "constraint"];

/// A file as far as it could be read.
#[derive(Debug, Default)]
pub struct DeclaredFile {
    pub declared: Declared,
    pub pending: Vec<PendingAddress>,
    /// Where each begins, counted from 1.
    pub resource_lines: BTreeMap<Tag, usize>,
    pub constraint_lines: BTreeMap<ConstraintId, usize>,
    /// Nothing may be done while there are any.
    pub faults: Vec<Fault>,
}

/// An address as it was written, which has to be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingAddress {
    pub tag: Tag,
    pub text: String,
    pub line: usize,
    pub key: String,
}

/// `name` is what the file is called in faults; `nodes` are those of the cluster.
pub fn parse(name: &str, text: &str, nodes: &BTreeMap<String, NodeId>) -> DeclaredFile {
    let mut reader = Reader::new(name, text, nodes);
    let document = reader.document();
    let mut file = DeclaredFile::default();
    for at in entries(document.get_ref(), "") {
        match at.key.as_str() {
            "defaults" => file.declared.defaults = Some(defaults(&mut reader, &at)),
            "connectivity" => file.declared.connectivity = Some(connectivity(&mut reader, &at)),
            "subnet" => reader.tables(&at).iter().for_each(|one| subnet(&mut reader, one, &mut file)),
            "ping-list" => reader.tables(&at).iter().for_each(|one| ping_list(&mut reader, one, &mut file)),
            "resource" => {
                for one in reader.tables(&at) {
                    super::resource::resource(&mut reader, &one, &mut file);
                }
            }
            "constraint" => reader.tables(&at).iter().for_each(|one| constraint(&mut reader, one, &mut file)),
            _ => reader.unknown(&at, &SECTIONS),
        }
    }
    let mut faults = reader.faults;
    faults.sort_by_key(|f| f.line);
    file.faults = faults;
    file
}

fn defaults(reader: &mut Reader, section: &At) -> Defaults {
    let mut found = Defaults::default();
    for at in reader.table(section, &section.key) {
        match at.own(&section.key) {
            "stickiness" => found.stickiness = reader.score(&at).unwrap_or_default(),
            "migration-threshold" => found.migration_threshold = reader.threshold(&at).unwrap_or_default(),
            "failure-timeout" => {
                found.failure_timeout = reader.seconds(&at).unwrap_or(found.failure_timeout);
            }
            "maintenance" => found.maintenance = reader.boolean(&at).unwrap_or_default(),
            "two-nodes" => found.two_nodes = reader.two_nodes(&at).unwrap_or_default(),
            _ => reader.unknown(
                &at,
                &["stickiness", "migration-threshold", "failure-timeout", "maintenance", "two-nodes"],
            ),
        }
    }
    found
}

fn connectivity(reader: &mut Reader, section: &At) -> Connectivity {
    let mut found = Connectivity::default();
    for at in reader.table(section, &section.key) {
        match at.own(&section.key) {
            "hosts" => found.hosts = set(reader.parsed_list(&at, "192.0.2.1")),
            "interval" => found.interval = reader.seconds(&at).unwrap_or(found.interval),
            "fall" => found.fall = polls(reader, &at).unwrap_or(found.fall),
            "rise" => found.rise = polls(reader, &at).unwrap_or(found.rise),
            _ => reader.unknown(&at, &["hosts", "interval", "fall", "rise"]),
        }
    }
    found
}

fn polls(reader: &mut Reader, at: &At) -> Option<u16> {
    reader.number(at, "a number of polls from 1 to 1000")
}

fn subnet(reader: &mut Reader, section: &At, file: &mut DeclaredFile) {
    let (mut net, mut found) = (None, MonitoredSubnet::default());
    for at in reader.table(section, &section.key) {
        match at.own(&section.key) {
            "subnet" => net = network(reader, &at),
            "targets" => found.targets = reader.parsed_list(&at, "192.0.2.1"),
            "interval" => found.interval = reader.seconds(&at).unwrap_or(found.interval),
            "fall" => found.fall = polls(reader, &at).unwrap_or(found.fall),
            "rise" => found.rise = polls(reader, &at).unwrap_or(found.rise),
            _ => reader.unknown(&at, &["subnet", "targets", "interval", "fall", "rise"]),
        }
    }
    if !section.has("subnet") {
        reader.missing(section, "subnet", "subnet = \"192.0.2.0/24\"");
    }
    if let Some(net) = net
        && file.declared.subnets.insert(net, found).is_some()
    {
        reader.fault(section, format!("{net} is there twice"), "declare it once");
    }
}

/// Without host bits.
pub fn network(reader: &mut Reader, at: &At) -> Option<IpNet> {
    reader.parsed::<IpNet>(at, "192.0.2.0/24").map(|net| net.trunc())
}

fn ping_list(reader: &mut Reader, section: &At, file: &mut DeclaredFile) {
    let (mut node, mut net, mut list) = (None, None, Vec::<IpAddr>::new());
    for at in reader.table(section, &section.key) {
        match at.own(&section.key) {
            "node" => node = reader.text(&at).and_then(|name| reader.node(&at, name)),
            "subnet" => net = network(reader, &at),
            "addresses" => list = reader.parsed_list(&at, "192.0.2.1"),
            _ => reader.unknown(&at, &["node", "subnet", "addresses"]),
        }
    }
    for (key, example) in [
        ("node", "node = \"node-a\""),
        ("subnet", "subnet = \"192.0.2.0/24\""),
        ("addresses", "addresses = [\"192.0.2.1\"] (or [] for none)"),
    ] {
        if !section.has(key) {
            reader.missing(section, key, example);
        }
    }
    if let (Some(node), Some(net)) = (node, net)
        && file.declared.ping_lists.insert((node, net), list).is_some()
    {
        reader.fault(section, format!("the node has a list for {net} already"), "write one list");
    }
}

/// What a kind of constraint has to say beside its name.
const KINDS: [(&str, &[&str]); 5] = [
    ("location", &["resource", "node", "score"]),
    ("colocation", &["resource", "with", "score"]),
    ("order", &["first", "then"]),
    ("group", &["members"]),
    ("clone", &["members"]),
];

#[derive(Default)]
struct Said {
    tag: Option<Tag>,
    with: Option<Tag>,
    first: Option<Tag>,
    then: Option<Tag>,
    node: Option<NodeId>,
    score: Option<crate::model::Score>,
    optional: bool,
    members: Vec<Tag>,
    per_node: Option<u16>,
}

fn constraint(reader: &mut Reader, section: &At, file: &mut DeclaredFile) {
    let name = match section.peek("id") {
        Some(id) => format!("constraint.{id}"),
        None => section.key.clone(),
    };
    let here = At { key: name.clone(), ..section.clone() };
    let words: Vec<(&str, &str)> = KINDS.iter().map(|(kind, _)| (*kind, *kind)).collect();
    let (mut id, mut kind, mut said) = (None, None, Said::default());
    let needed = section.peek("kind").and_then(|k| KINDS.iter().find(|(kind, _)| *kind == k));
    let needed = needed.map(|(_, keys)| *keys).unwrap_or_default();
    let known: Vec<&str> = ["id", "kind"]
        .iter()
        .chain(needed)
        .copied()
        .chain(match section.peek("kind") {
            Some("order") => vec!["optional"],
            Some("clone") => vec!["per-node"],
            _ => vec![],
        })
        .collect();
    for at in reader.table(section, &name) {
        let key = at.own(&name);
        // Without a kind nothing is known of the others.
        if !known.contains(&key) {
            if !needed.is_empty() {
                reader.unknown(&at, &known);
            }
            continue;
        }
        match key {
            "id" => id = reader.text(&at).map(str::to_owned),
            "kind" => kind = reader.word(&at, &words),
            "resource" => said.tag = reader.parsed(&at, "web"),
            "with" => said.with = reader.parsed(&at, "web"),
            "first" => said.first = reader.parsed(&at, "web"),
            "then" => said.then = reader.parsed(&at, "web"),
            "node" => said.node = reader.text(&at).and_then(|name| reader.node(&at, name)),
            "score" => said.score = reader.score(&at),
            "optional" => said.optional = reader.boolean(&at).unwrap_or_default(),
            "members" => said.members = reader.parsed_list(&at, "web"),
            _ => said.per_node = reader.number(&at, "a number from 1"),
        }
    }
    let examples = [("id", "id = \"apart\""), ("kind", "kind = \"location\"")];
    for (key, example) in examples.into_iter().chain(needed.iter().map(|k| (*k, *k))) {
        if !section.has(key) {
            let example = if example == key { format!("{key} = ...") } else { example.to_owned() };
            reader.missing(&here, key, &example);
        }
    }
    let (Some(id), Some(constraint)) = (id, kind.and_then(|kind| said.made(kind))) else { return };
    file.constraint_lines.entry(id.clone()).or_insert(reader.line(section));
    if file.declared.constraints.insert(id, constraint).is_some() {
        reader.fault(&here, "is there twice", "give each constraint an id of its own");
    }
}

impl Said {
    /// None where something is missing, which was told.
    fn made(self, kind: &str) -> Option<Constraint> {
        let kind_of_order = if self.optional { OrderKind::Optional } else { OrderKind::Mandatory };
        Some(match kind {
            "location" => Constraint::Location { tag: self.tag?, node: self.node?, score: self.score? },
            "colocation" => Constraint::Colocation { tag: self.tag?, with: self.with?, score: self.score? },
            "order" => Constraint::Order { first: self.first?, then: self.then?, kind: kind_of_order },
            "group" => Constraint::Group { members: self.members },
            _ => Constraint::Clone { members: set(self.members), per_node: self.per_node.unwrap_or(1) },
        })
    }
}

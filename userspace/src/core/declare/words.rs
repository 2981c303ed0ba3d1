//! What is declared, as keys and values that people read: also how two configurations are compared.

use std::{collections::BTreeMap, fmt::Display, net::IpAddr, time::Duration};

use crate::model::{
    Accept, Cloud, ClusterState, Connectivity, Constraint, Declared, DeclaredCloud, DeclaredResource,
    Defaults, MonitoredSubnet, NodeSettings, OnConflict, OrderKind, Policy, Switchback, Tag, Threshold,
};

/// Key and value, in the words of the file.
pub(super) type Fields = BTreeMap<String, String>;

/// What it is about, as `resource web`, and all that is said of it.
pub(super) fn flatten(state: &ClusterState, all: &Declared) -> BTreeMap<String, Fields> {
    let mut found = BTreeMap::new();
    if let Some(d) = &all.defaults {
        found.insert("defaults".to_owned(), defaults(d));
    }
    if let Some(c) = &all.connectivity {
        found.insert("connectivity".to_owned(), connectivity(c));
    }
    found.extend(all.subnets.iter().map(|(net, s)| (format!("subnet {net}"), subnet(s))));
    found.extend(all.ping_lists.iter().map(|((node, net), list)| {
        let name = format!("ping-list of {} for {net}", state.node_name(*node));
        (name, fields([("addresses", joined(list))]))
    }));
    found.extend(all.resources.iter().map(|(tag, r)| (format!("resource {tag}"), resource(state, r))));
    found.extend(all.constraints.iter().map(|(id, c)| (format!("constraint {id}"), constraint(state, c))));
    found
}

fn fields<const N: usize>(all: [(&str, String); N]) -> Fields {
    all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn joined<T: Display>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" ")
}

fn resource(state: &ClusterState, r: &DeclaredResource) -> Fields {
    let Policy {
        stickiness,
        migration_threshold,
        failure_timeout,
        service_failfast,
        node_failfast,
        maintenance,
        ignores_connectivity,
    } = &r.policy;
    let default = || "default".to_owned();
    let mut found = of_kind(r);
    found.extend(fields([
        ("state", if r.in_service == Some(false) { "out-of-service" } else { "in-service" }.to_owned()),
        ("switchback", switchback(r.switchback).to_owned()),
        ("subnets", joined(&r.monitored)),
        ("depends", joined(r.depends.iter().flatten().map(Tag::as_str))),
        ("stickiness", stickiness.map_or_else(default, |s| s.to_string())),
        ("migration-threshold", migration_threshold.map_or_else(default, threshold)),
        ("failure-timeout", failure_timeout.map_or_else(default, seconds)),
        ("service-failfast", service_failfast.to_string()),
        ("node-failfast", node_failfast.to_string()),
        ("maintenance", maintenance.to_string()),
        ("connectivity", if *ignores_connectivity { "ignore" } else { "use" }.to_owned()),
    ]));
    found.extend(r.nodes.iter().map(|(id, s)| (format!("on {}", state.node_name(*id)), node(s))));
    found
}

fn of_kind(r: &DeclaredResource) -> Fields {
    let region = |region: Option<&str>| region.unwrap_or("that of its nodes").to_owned();
    match r.cloud.as_ref().map(DeclaredCloud::cloud) {
        None => fields([
            ("kind", "ip".to_owned()),
            ("addresses", addresses(r)),
            ("accept", r.accept.map_or("default", accept).to_owned()),
            ("on-conflict", on_conflict(r.on_conflict).to_owned()),
        ]),
        Some(cloud @ Cloud::Route(route)) => fields([
            ("kind", "ec2-route".to_owned()),
            ("ip", route.ip.to_string()),
            ("region", region(cloud.region())),
        ]),
        Some(cloud @ Cloud::Eip(eip)) => fields([
            ("kind", "ec2-eip".to_owned()),
            ("eip", eip.address.to_string()),
            ("region", region(cloud.region())),
        ]),
    }
}

/// `a route to 'web'`, for sentences.
pub(super) fn what(r: &DeclaredResource) -> String {
    let Some(cloud) = r.cloud.as_ref().map(DeclaredCloud::cloud) else {
        return "an IP resource".to_owned();
    };
    let what = match cloud {
        Cloud::Route(route) => format!("the routes to '{}'", route.ip),
        Cloud::Eip(eip) => format!("the Elastic IP {}", eip.address),
    };
    let region =
        cloud.region().map_or_else(|| " in the region of its nodes".to_owned(), |r| format!(" in {r}"));
    format!("{what}{region}")
}

fn addresses(r: &DeclaredResource) -> String {
    let parts = r.addresses.by_subnet().flat_map(|(net, hosts)| {
        let length = net.prefix_len();
        hosts.ranges().iter().map(move |range| format!("{range}/{length}"))
    });
    joined(parts)
}

fn node(s: &NodeSettings) -> String {
    let NodeSettings { priority, devices, restore_and_recover, physical, source } = s;
    let mut text = format!("priority {priority}");
    if !devices.is_empty() {
        text.push_str(&format!(", {}", devices.join(" ")));
    }
    for (told, word) in [
        (!restore_and_recover, "not restored"),
        (*physical, "its own address"),
        (*source, "source of its route"),
    ] {
        if told {
            text.push_str(", ");
            text.push_str(word);
        }
    }
    text
}

fn defaults(d: &Defaults) -> Fields {
    let Defaults { stickiness, migration_threshold, failure_timeout, maintenance, two_nodes } = d;
    fields([
        ("stickiness", stickiness.to_string()),
        ("migration-threshold", threshold(*migration_threshold)),
        ("failure-timeout", seconds(*failure_timeout)),
        ("maintenance", maintenance.to_string()),
        ("two-nodes", two_nodes.name().to_owned()),
    ])
}

fn connectivity(c: &Connectivity) -> Fields {
    let Connectivity { hosts, interval, fall, rise } = c;
    pace(joined(hosts), "hosts", *interval, *fall, *rise)
}

fn subnet(s: &MonitoredSubnet) -> Fields {
    let MonitoredSubnet { targets, interval, fall, rise } = s;
    pace(joined::<&IpAddr>(targets), "targets", *interval, *fall, *rise)
}

fn pace(list: String, name: &str, interval: Duration, fall: u16, rise: u16) -> Fields {
    fields([
        (name, list),
        ("interval", seconds(interval)),
        ("fall", fall.to_string()),
        ("rise", rise.to_string()),
    ])
}

fn constraint(state: &ClusterState, c: &Constraint) -> Fields {
    match c {
        Constraint::Location { tag, node, score } => fields([
            ("kind", "location".to_owned()),
            ("resource", tag.to_string()),
            ("node", state.node_name(*node)),
            ("score", score.to_string()),
        ]),
        Constraint::Colocation { tag, with, score } => fields([
            ("kind", "colocation".to_owned()),
            ("resource", tag.to_string()),
            ("with", with.to_string()),
            ("score", score.to_string()),
        ]),
        Constraint::Order { first, then, kind } => fields([
            ("kind", "order".to_owned()),
            ("first", first.to_string()),
            ("then", then.to_string()),
            ("optional", (*kind == OrderKind::Optional).to_string()),
        ]),
        Constraint::Group { members } => fields([("kind", "group".to_owned()), ("members", joined(members))]),
        Constraint::Clone { members, per_node } => fields([
            ("kind", "clone".to_owned()),
            ("members", joined(members)),
            ("per-node", per_node.to_string()),
        ]),
    }
}

pub(super) fn accept(way: Accept) -> &'static str {
    match way {
        Accept::Assign => "assign",
        Accept::Route => "route",
        Accept::Anyip => "anyip",
    }
}

fn switchback(s: Switchback) -> &'static str {
    match s {
        Switchback::Intelligent => "intelligent",
        Switchback::Automatic => "automatic",
    }
}

fn on_conflict(c: OnConflict) -> &'static str {
    match c {
        OnConflict::Report => "report",
        OnConflict::Defend => "defend",
        OnConflict::Yield => "yield",
    }
}

fn threshold(t: Threshold) -> String {
    match t {
        Threshold::Unlimited => "unlimited".to_owned(),
        Threshold::Failures(n) => n.to_string(),
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

//! Route tables (row EC2-1).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;
use vipd_ec2::RouteTable;

use super::{
    Ask, Entry,
    judgement::{Finding, Judgement},
};
use crate::model::{Addresses, Ranges};

/// More of one sort are counted, not listed.
const NAMED: usize = 3;

/// Looks at the tables of the VPC: whether every route to one of the addresses leads to the interface.
pub(super) fn judge(tables: &[RouteTable], addresses: &Addresses, vpc: &str, interface: &str) -> Finding {
    let hosts = addresses.hosts();
    let mut seen: BTreeSet<Ipv4Addr> = BTreeSet::new();
    let (mut targets, mut entries, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
    let mut dropped = Vec::new();
    for table in tables {
        let mut here = 0_usize;
        let mut others = Vec::new();
        for route in table.routes.iter().filter(|r| is_of(&hosts, r.destination)) {
            seen.insert(route.destination.addr());
            if route.target == interface {
                here += 1;
                if route.blackhole {
                    dropped.push(format!("{} in {}", route.destination, table.id));
                }
                continue;
            }
            let target = if route.target.is_empty() { "nowhere" } else { &route.target };
            let blackhole = if route.blackhole { " (blackhole)" } else { "" };
            others.push(format!("{} -> {target}{blackhole}", route.destination));
            elsewhere.push(format!("{} in {} leads to {target}", route.destination, table.id));
            entries.push(Entry { table: table.id.clone(), destination: route.destination });
        }
        match (here, others.is_empty()) {
            (0, true) => {}
            (1, true) => targets.push(format!("{}: 1 route leads here", table.id)),
            (n, true) => targets.push(format!("{}: {n} routes lead here", table.id)),
            (n, false) => targets.push(format!("{}: {n} here, {}", table.id, named(&others))),
        }
    }
    let lacking = hosts.iter().filter_map(v4).filter(|a| !seen.contains(a));
    let lacking: Vec<String> = lacking.take(NAMED + 1).map(|a| a.to_string()).collect();
    let none = (!lacking.is_empty()).then(|| {
        format!("no route table of {vpc} has a route to {}: create one, with any target", named(&lacking))
    });
    // Nothing that is written would change it: EC2 does not take the interface for one that works.
    let dropped = (!dropped.is_empty()).then(|| {
        format!(
            "{} leads here, and EC2 calls it a blackhole: is {interface} attached to a running instance?",
            named(&dropped)
        )
    });
    let judgement = match none.or(dropped) {
        Some(what) if seen.is_empty() => Judgement::Nothing { what },
        lacking if entries.is_empty() => Judgement::Right { lacking },
        Some(_) | None => Judgement::Wrong {
            what: named(&elsewhere),
            writes: vec![Ask::ReplaceRoutes { entries, interface: interface.to_owned() }],
        },
    };
    Finding { targets, judgement }
}

/// A route to one of the addresses leads to the interface.
pub(super) fn some_lead(tables: &[RouteTable], addresses: &Addresses, interface: &str) -> bool {
    let hosts = addresses.hosts();
    tables.iter().flat_map(|t| &t.routes).any(|r| r.target == interface && is_of(&hosts, r.destination))
}

/// One of the addresses, and nothing else.
fn is_of(hosts: &Ranges, destination: Ipv4Net) -> bool {
    destination.prefix_len() == 32 && hosts.contains(IpAddr::V4(destination.addr()))
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// `a, b, c and 4 more`
pub(super) fn named(all: &[String]) -> String {
    let first = all[..all.len().min(NAMED)].join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => first,
        1 if all.len() > NAMED => format!("{first} and more"),
        n => format!("{first} and {n} more"),
    }
}

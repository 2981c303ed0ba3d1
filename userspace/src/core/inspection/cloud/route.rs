//! Routes to the addresses of an IP resource.

use std::net::IpAddr;

use ipnet::IpNet;
use vipd_ec2::{Nic, RouteTable};

use super::{CloudFacts, CloudWish, Judge, Whom};
use crate::model::{Addresses, Range, Ranges};

/// Tables, and ranges of addresses, that are named.
const NAMED: usize = 8;

impl Judge<'_> {
    pub(super) fn route(&mut self, addresses: &Addresses) {
        let facts = self.facts;
        if let Some(nic) = facts.nic() {
            self.outside(nic, addresses);
        }
        match (&facts.tables, facts.nic()) {
            (Some(Ok(tables)), Some(nic)) => self.entries(nic, tables, addresses),
            (Some(Err(e)), _) => self.failed(Whom::Api, e),
            (Some(Ok(_)), None) | (None, _) => {}
        }
        for net in &facts.broadcast {
            self.unheard(net);
        }
    }

    /// Checks of the IP resource would fail.
    fn unheard(&mut self, net: &IpNet) {
        let CloudFacts { name, tunables, .. } = self.facts;
        self.verdict.warnings.push(format!(
            "a VPC has no broadcast, across zones least of all, and {net} has no ping list here: checks of its connectivity \
             would fail; name hosts that answer with 'vipctl ping-list add {net} ADDRESS... --node {name}', or write \
             NOBCASTPING=1 in {tunables} of {name}"
        ));
    }

    /// Within the VPC its own route, to the subnet, goes before any other.
    fn outside(&mut self, nic: &Nic, addresses: &Addresses) {
        let hosts = addresses.hosts();
        for cidr in &nic.vpc_cidrs {
            let whole = Range::new(IpAddr::V4(cidr.network()), IpAddr::V4(cidr.broadcast()));
            let block: Ranges = whole.into_iter().collect();
            let inside = hosts.intersection(&block);
            if !inside.is_empty() {
                self.object(format!(
                    "{} within {cidr} of the VPC {}, where its own routes go to the subnet: use addresses that are in no \
                     block of the VPC",
                    are(&inside),
                    nic.vpc
                ));
            }
        }
    }

    /// One has none at least, and will get it somewhere.
    pub(super) fn lacks_entries(&self) -> bool {
        match (&self.arrival.what, &self.facts.tables) {
            (CloudWish::Route { addresses, .. }, Some(Ok(tables))) => !lacking(tables, addresses).is_empty(),
            (CloudWish::Route { .. } | CloudWish::Eip { .. }, _) => false,
        }
    }

    /// Each has an entry in one table at least.
    fn entries(&mut self, nic: &Nic, tables: &[RouteTable], addresses: &Addresses) {
        let lacking = lacking(tables, addresses);
        let Some(first) = lacking.first() else { return };
        let named: Vec<&str> = tables.iter().map(|t| t.id.as_str()).take(NAMED).collect();
        let (table, which) = match named[..] {
            [one] if tables.len() == 1 => (one, String::new()),
            [] => ("TABLE", String::new()),
            _ => (
                "TABLE",
                format!(
                    ", TABLE being that of the subnets whose hosts are to reach it ({})",
                    named.join(", ")
                ),
            ),
        };
        self.object(format!(
            "no route table of the VPC {} has an entry for {}, and vipd makes none: make it with '{}'{which}",
            nic.vpc,
            named_hosts(&lacking),
            self.places.create_route(table, &format!("{first}/32"), &nic.id)
        ));
    }
}

/// Those without an entry in any table.
fn lacking(tables: &[RouteTable], addresses: &Addresses) -> Ranges {
    let destinations = tables.iter().flat_map(|t| &t.routes).map(|r| r.destination);
    let single = destinations.filter(|d| d.prefix_len() == 32).map(|d| IpAddr::V4(d.addr()));
    addresses.hosts().difference(&single.collect())
}

/// `10.0.0.9 is`, `10.0.0.9, 10.0.0.11-10.0.0.15 are`
fn are(hosts: &Ranges) -> String {
    let verb = if hosts.count() == 1 { "is" } else { "are" };
    format!("{} {verb}", named_hosts(hosts))
}

fn named_hosts(hosts: &Ranges) -> String {
    let all = hosts.ranges();
    let mut text: Vec<String> = all.iter().take(NAMED).map(ToString::to_string).collect();
    if all.len() > NAMED {
        text.push(format!("and {} more ranges", all.len() - NAMED));
    }
    text.join(", ")
}

//! What the policy of the node's role has to allow.

use std::net::IpAddr;

use ipnet::Ipv4Net;
use vipd_ec2::{Action, CallError, DryRun};

use super::{CloudArrival, CloudFacts, CloudWish, Judge, Whom};
use crate::model::Addresses;

/// What the API says of a denial is cut there: the rest is for machines, and long.
const ENCODED: &str = "Encoded authorization failure message";

/// What is to be tried out, as far as it is known what it would be about. Nothing when the API answered nothing.
pub fn dry_runs(arrival: &CloudArrival, facts: &CloudFacts) -> Vec<DryRun> {
    if facts.is_unanswered() {
        return Vec::new();
    }
    let mut all = vec![DryRun::DescribeNetworkInterfaces];
    let nics: Vec<&str> = facts
        .devices
        .iter()
        .filter_map(|d| d.nic.as_ref()?.as_ref().ok())
        .map(|nic| nic.id.as_str())
        .collect();
    match &arrival.what {
        CloudWish::Route { addresses, .. } => {
            all.push(DryRun::DescribeRouteTables);
            all.extend(replacements(addresses, facts, &nics));
        }
        CloudWish::Eip { .. } => {
            all.push(DryRun::DescribeAddresses);
            let eip = facts.elastic_ip.as_ref().and_then(|found| found.as_ref().ok()?.as_ref());
            let association = eip.and_then(|e| e.association.as_ref()).map(|a| a.id.clone());
            all.push(DryRun::DisassociateAddress { association });
            if let Some(eip) = eip {
                all.extend(nics.iter().map(|eni| DryRun::AssociateAddress {
                    allocation: eip.allocation.clone(),
                    eni: (*eni).to_owned(),
                }));
            }
        }
    }
    all
}

/// In every table that has one of the entries, for a policy may name tables; where there is none yet, in any.
fn replacements(addresses: &Addresses, facts: &CloudFacts, nics: &[&str]) -> Vec<DryRun> {
    let (Some(Ok(tables)), Some(eni)) = (&facts.tables, nics.first()) else { return Vec::new() };
    let hosts = addresses.hosts();
    let replacement = |table: &str, destination: Ipv4Net| DryRun::ReplaceRoute {
        table: table.to_owned(),
        destination,
        eni: (*eni).to_owned(),
    };
    let ours = |d: Ipv4Net| d.prefix_len() == 32 && hosts.contains(IpAddr::V4(d.addr()));
    let found: Vec<DryRun> = tables
        .iter()
        .filter_map(|t| {
            let destination = t.routes.iter().map(|r| r.destination).find(|d| ours(*d))?;
            Some(replacement(&t.id, destination))
        })
        .collect();
    if !found.is_empty() {
        return found;
    }
    match (tables.first(), hosts.first()) {
        (Some(table), Some(IpAddr::V4(first))) => vec![replacement(&table.id, Ipv4Net::from(first))],
        (_, Some(_) | None) => Vec::new(),
    }
}

impl Judge<'_> {
    /// One objection for each action that is missing.
    pub(super) fn rights(&mut self) {
        let facts = self.facts;
        // It may come into any table.
        let lacking = self.lacks_entries();
        for (probe, answer) in &facts.rights {
            match answer {
                Ok(()) => {}
                Err(e @ CallError::Denied { action, .. }) => {
                    self.deny(*action, e, object(probe).filter(|_| !lacking));
                }
                // Whether it would be allowed was not said.
                Err(e @ (CallError::Missing { .. } | CallError::Refused { .. })) => {
                    self.unchecked(format!("whether {} is permitted: {e}", probe.action()));
                }
                Err(e) => self.failed(Whom::Api, e),
            }
        }
        for (action, denial) in std::mem::take(&mut self.denied) {
            let statement = self.statement(action, &denial.objects);
            self.object(format!("{}: add to the policy of the node's role {statement}", denial.said));
        }
    }

    pub(super) fn deny(&mut self, action: Action, e: &CallError, about: Option<String>) {
        let denial = self.denied.entry(action).or_default();
        if denial.said.is_empty() {
            let said = e.to_string();
            denial.said = said.split(ENCODED).next().unwrap_or_default().trim_end().to_owned();
        }
        denial.objects.extend(about.filter(|a| !denial.objects.contains(a)));
    }

    /// As narrow as EC2 allows: what only lists takes no resources.
    fn statement(&self, action: Action, objects: &[String]) -> String {
        let elastic_ip = || {
            let eip = self.facts.elastic_ip.as_ref().and_then(|found| found.as_ref().ok()?.as_ref());
            let allocation = eip.map_or("*", |e| e.allocation.as_str());
            vec![format!("elastic-ip/{allocation}"), "network-interface/*".to_owned()]
        };
        let resources = match action {
            Action::DescribeRouteTables | Action::DescribeAddresses | Action::DescribeNetworkInterfaces => {
                vec![]
            }
            Action::ReplaceRoute if objects.is_empty() => vec!["route-table/*".to_owned()],
            Action::ReplaceRoute => objects.to_vec(),
            Action::AssociateAddress | Action::DisassociateAddress => elastic_ip(),
        };
        let arns: Vec<String> = resources.iter().map(|r| format!("\"{}\"", self.places.arn(r))).collect();
        let resource = match &arns[..] {
            [] => "\"*\"".to_owned(),
            [one] => one.clone(),
            all => format!("[{}]", all.join(",")),
        };
        format!("{{\"Effect\":\"Allow\",\"Action\":\"{action}\",\"Resource\":{resource}}}")
    }
}

/// What a policy would have to name.
fn object(probe: &DryRun) -> Option<String> {
    match probe {
        DryRun::ReplaceRoute { table, .. } => Some(format!("route-table/{table}")),
        DryRun::DescribeRouteTables
        | DryRun::DescribeAddresses
        | DryRun::DisassociateAddress { .. }
        | DryRun::AssociateAddress { .. }
        | DryRun::DescribeNetworkInterfaces => None,
    }
}

//! What speaks against a resource of EC2 on a node (row EC2-5): from what the node was told by the API and by its
//! metadata service to objections with their remedies. All that is wrong is told at once.

mod compare;
mod eip;
mod remedy;
mod rights;
mod route;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vipd_ec2::{Action, CallError, DryRun, ElasticIp, Identity, InterfaceDetails, Nic, RouteTable};

use self::remedy::Places;
pub use self::{compare::compare, rights::dry_runs};
use crate::model::{Addresses, Cloud, ClusterState, Kind, NodeId, Resource, Tag};

/// What the node might have to do at EC2 then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudArrival {
    pub tag: Tag,
    /// Which interfaces of the node it is about, the best first.
    pub devices: Vec<String>,
    /// None: the node's own.
    pub region: Option<String>,
    pub what: CloudWish,
    /// How many nodes may have it.
    pub nodes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloudWish {
    /// Routes to the addresses of an IP resource.
    Route {
        ip: Tag,
        addresses: Addresses,
    },
    Eip {
        address: Ipv4Addr,
    },
}

impl CloudArrival {
    /// None where there is nothing to be looked at: what it follows is not there.
    pub fn of(resource: &Resource, node: NodeId, after: &ClusterState) -> Option<Self> {
        let cloud = resource.cloud()?;
        let (carrier, what) = match cloud {
            Cloud::Route(route) => {
                let ip = after.resources.get(&route.ip)?;
                let addresses = ip.addresses().clone();
                (ip, CloudWish::Route { ip: route.ip.clone(), addresses })
            }
            Cloud::Eip(eip) => (resource, CloudWish::Eip { address: eip.address }),
        };
        Some(Self {
            tag: resource.tag.clone(),
            devices: carrier.nodes.get(&node)?.devices.clone(),
            region: cloud.region().map(str::to_owned),
            what,
            nodes: resource.nodes.len(),
        })
    }
}

/// The routes that lead to the addresses of an IP resource.
pub fn followers<'a>(ip: &'a Resource, after: &'a ClusterState) -> impl Iterator<Item = &'a Resource> {
    let follows = |r: &&Resource| matches!(&r.kind, Kind::Ec2Route(route) if route.ip == ip.tag);
    ip.parents.iter().filter_map(|tag| after.resources.get(tag)).filter(follows)
}

/// What the node was told. None is what was not asked, because there was nothing to ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudFacts {
    /// Of the node.
    pub name: String,
    pub identity: Result<Identity, CallError>,
    /// In the order of the arrival.
    pub devices: Vec<DeviceFacts>,
    pub tables: Option<Result<Vec<RouteTable>, CallError>>,
    pub elastic_ip: Option<Result<Option<ElasticIp>, CallError>>,
    pub rights: Vec<(DryRun, Result<(), CallError>)>,
    /// Subnets of the addresses whose connectivity this node tests by broadcast pings.
    pub broadcast: Vec<IpNet>,
    /// The file of the node with NOBCASTPING.
    pub tunables: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    pub name: String,
    /// None: there is no such interface.
    pub up: Option<bool>,
    pub nic: Option<Result<Nic, CallError>>,
    pub details: Option<Result<InterfaceDetails, CallError>>,
    pub elastic_ips: Option<Result<Vec<ElasticIp>, CallError>>,
}

impl CloudFacts {
    /// The first network interface of EC2 that is known.
    fn nic(&self) -> Option<&Nic> {
        self.devices.iter().find_map(|d| d.nic.as_ref()?.as_ref().ok())
    }

    /// Another region is asked for than the one that the node is in.
    fn is_elsewhere(&self, arrival: &CloudArrival) -> bool {
        let there = self.identity.as_ref().ok().map(|identity| &identity.region);
        there.is_some_and(|there| arrival.region.as_ref().is_some_and(|asked| asked != there))
    }

    /// Without what the API said: of another region than the node's it says that all is missing, and what would help
    /// there does not help here.
    fn of_the_node_alone(&self) -> Self {
        let devices = self.devices.iter().cloned();
        let devices = devices.map(|d| DeviceFacts { details: None, elastic_ips: None, ..d }).collect();
        Self { devices, tables: None, elastic_ip: None, rights: Vec::new(), ..self.clone() }
    }

    /// Every call of the API came to nothing, so that others would too.
    fn is_unanswered(&self) -> bool {
        let passing = |e: &CallError| e.is_passing();
        let of_devices = self.devices.iter().flat_map(|d| {
            let details = d.details.iter().map(|r| r.as_ref().err());
            details.chain(d.elastic_ips.iter().map(|r| r.as_ref().err()))
        });
        let tables = self.tables.iter().map(|r| r.as_ref().err());
        let eip = self.elastic_ip.iter().map(|r| r.as_ref().err());
        let mut all = of_devices.chain(tables).chain(eip).peekable();
        all.peek().is_some() && all.all(|e| e.is_some_and(passing))
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudVerdict {
    /// Why it cannot be, with the remedy.
    pub objections: Vec<String>,
    /// What could not be looked at.
    pub unchecked: Vec<String>,
    /// What an operator should know.
    pub warnings: Vec<String>,
    pub found: Option<CloudFound>,
}

/// What only the node itself knows of where it is, for all of them to be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudFound {
    pub tag: Tag,
    /// Of routes, which lead to interfaces of their own VPC only.
    pub is_route: bool,
    pub vpc: Option<String>,
    pub region: Option<String>,
    /// `eni-...`
    pub interfaces: Vec<String>,
    /// Of an Elastic IP: the network interface that it is on now.
    pub holder: Option<String>,
    pub elastic_ip: Option<Ipv4Addr>,
    /// How many nodes may have it.
    pub nodes: usize,
}

/// Of whom it was asked: what helps depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Metadata,
    Api,
}

/// Gathers what is to be told.
struct Judge<'a> {
    arrival: &'a CloudArrival,
    facts: &'a CloudFacts,
    places: Places,
    verdict: CloudVerdict,
    /// Calls of the API that nobody answered: what helps is the same for all.
    unanswered: Vec<String>,
    /// What a policy lacks, and what the API said of it.
    denied: BTreeMap<Action, Denial>,
}

#[derive(Default)]
struct Denial {
    said: String,
    /// Which tables, allocations or interfaces it was about, as parts of an ARN.
    objects: Vec<String>,
}

/// All that is to be told of one resource.
pub fn judge(arrival: &CloudArrival, facts: &CloudFacts) -> CloudVerdict {
    let own;
    let facts = if facts.is_elsewhere(arrival) {
        own = facts.of_the_node_alone();
        &own
    } else {
        facts
    };
    let places = Places::new(arrival, facts);
    let mut judge = Judge {
        arrival,
        facts,
        places,
        verdict: CloudVerdict::default(),
        unanswered: Vec::new(),
        denied: BTreeMap::new(),
    };
    judge.place();
    for device in &facts.devices {
        judge.device(device);
    }
    match &arrival.what {
        CloudWish::Route { addresses, .. } => judge.route(addresses),
        CloudWish::Eip { address } => judge.eip(*address),
    }
    judge.rights();
    if !judge.unanswered.is_empty() {
        let text = format!("{}: {}", judge.unanswered.join(", "), judge.places.unreached(Whom::Api));
        judge.unchecked(text);
    }
    judge.verdict.found = Some(judge.found());
    judge.verdict
}

impl Judge<'_> {
    fn object(&mut self, reason: String) {
        if !self.verdict.objections.contains(&reason) {
            self.verdict.objections.push(reason);
        }
    }

    /// A call that brought nothing.
    fn failed(&mut self, whom: Whom, e: &CallError) {
        // The API's calls need the metadata service for the region and the credentials: that it is silent is told.
        if let (Whom::Api, Err(unknown)) = (whom, &self.facts.identity)
            && unknown.is_passing()
            && (e == unknown || matches!(e, CallError::NoCredentials(_)))
        {
            return;
        }
        let text = match e {
            CallError::Silent { .. } | CallError::Unreachable { .. } => {
                let text = e.to_string();
                return match whom {
                    Whom::Metadata => self.unchecked(format!("{text}: {}", self.places.unreached(whom))),
                    Whom::Api if self.unanswered.contains(&text) => {}
                    Whom::Api => self.unanswered.push(text),
                };
            }
            CallError::Throttled { .. } => {
                let text = format!("{e}: the account makes too many calls; try again in a minute");
                return self.unchecked(text);
            }
            CallError::Unavailable { .. } => {
                return self.unchecked(format!("{e}: try again later"));
            }
            CallError::Denied { action, .. } => {
                return self.deny(*action, e, None);
            }
            CallError::Unaccepted { code, .. } => format!("{e}: {}", self.places.accepted(code)),
            CallError::NoCredentials(_) => format!("{e}: {}", self.places.credentials()),
            CallError::Missing { .. }
            | CallError::Refused { .. }
            | CallError::Overtaken(_)
            | CallError::Absent => e.to_string(),
        };
        self.object(text);
    }

    fn unchecked(&mut self, text: String) {
        if !self.verdict.unchecked.contains(&text) {
            self.verdict.unchecked.push(text);
        }
    }

    /// Where the node is.
    fn place(&mut self) {
        match &self.facts.identity {
            Ok(identity) => {
                let there = &identity.region;
                if let Some(asked) = self.arrival.region.as_ref().filter(|asked| *asked != there) {
                    self.object(format!(
                        "region {asked} was asked for, and this instance ({}) is in {there}: leave the region out, and \
                         extend it to nodes of one region only",
                        identity.instance
                    ));
                }
            }
            Err(e) => self.failed(Whom::Metadata, e),
        }
    }

    /// It is there, and EC2 knows it as one of this instance.
    fn device(&mut self, device: &DeviceFacts) {
        let name = &device.name;
        if device.up.is_none() {
            return self.object(format!(
                "there is no interface '{name}' on this node: 'vipctl interfaces' there lists them"
            ));
        }
        match &device.nic {
            None | Some(Ok(_)) => {}
            Some(Err(CallError::Missing { .. })) => {
                return self.object(format!(
                    "{name} is no network interface of EC2 that is attached to this instance: use one that is ('vipctl \
                     interfaces'), or attach one with '{}'",
                    self.places.attach("ENI")
                ));
            }
            // Told of the instance already.
            Some(Err(e)) if e.is_passing() && self.facts.identity.is_err() => {}
            Some(Err(e)) => self.failed(Whom::Metadata, e),
        }
        match &device.details {
            None => {}
            Some(Err(e)) => self.failed(Whom::Api, e),
            Some(Ok(details)) => self.details(name, details),
        }
    }

    fn details(&mut self, name: &str, details: &InterfaceDetails) {
        let eni = &details.id;
        if let Ok(identity) = &self.facts.identity
            && details.instance.as_deref() != Some(identity.instance.as_str())
        {
            let where_it_is = match &details.instance {
                Some(other) => format!("attached to {other}"),
                None => "attached to no instance".to_owned(),
            };
            return self.object(format!(
                "{name} is {eni}, which is {where_it_is} and not to this instance ({}): attach it with '{}'",
                identity.instance,
                self.places.attach(eni)
            ));
        }
        let is_route = matches!(self.arrival.what, CloudWish::Route { .. });
        if is_route && details.source_dest_check {
            self.object(format!(
                "the source/dest check of {name} ({eni}) is on, so that it drops what is sent to addresses that are not \
                 its own: switch it off with '{}'",
                self.places.no_source_dest_check(eni)
            ));
        }
    }

    fn found(&self) -> CloudFound {
        let nics = self.facts.devices.iter().filter_map(|d| d.nic.as_ref()?.as_ref().ok());
        let eip = self.facts.elastic_ip.as_ref().and_then(|found| found.as_ref().ok()?.as_ref());
        let association = eip.and_then(|e| e.association.as_ref());
        CloudFound {
            tag: self.arrival.tag.clone(),
            is_route: matches!(self.arrival.what, CloudWish::Route { .. }),
            vpc: self.facts.nic().map(|nic| nic.vpc.clone()),
            region: self.facts.identity.as_ref().ok().map(|i| i.region.clone()),
            interfaces: nics.map(|nic| nic.id.clone()).collect(),
            holder: association.and_then(|a| a.interface.clone().or(a.instance.clone())),
            elastic_ip: eip.map(|e| e.address),
            nodes: self.arrival.nodes,
        }
    }
}

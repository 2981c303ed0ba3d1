//! What is done at the API of EC2 to bring a resource in service, take it out, check and repair it (rows EC2-1 to
//! EC2-4, EC2-7): state machines that emit one [`Ask`] at a time and are fed its [`Answer`].
//!
//! Invariant: in service is called only what was read back. What the API says of a write counts for nothing: an
//! answer that got lost, or a false one, differs from the truth in no way that could be seen.

mod eip;
mod judgement;
mod kinds;
mod route;
mod sequence;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use ipnet::Ipv4Net;
use vipd_ec2::{CallError, ElasticIp, Nic, RouteTable};

pub use self::sequence::CloudSequence;
use crate::model::{Addresses, Ec2Tunables, Tag};

/// What a sequence works with; read when it begins and kept until it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudContext {
    pub goal: Goal,
    /// None: the one that this host is in.
    pub region: Option<String>,
    /// The interface of this node to which everything is to lead.
    pub device: String,
    /// Its other interfaces that may have an Elastic IP: when it is removed, it is not to be left on one of them.
    pub others: Vec<String>,
    /// Another resource that has the same Elastic IP in service on this node: it is not to be removed.
    pub left_to: Option<Tag>,
    /// False: in service without anything being asked of EC2 (row IP-13).
    pub restore_and_recover: bool,
    /// While nobody else is beside the Elastic IP, a check does not fail for them.
    pub borne: Option<Strangers>,
    /// The interface is taken to have a link (`IP_NOLINKCHECK`).
    pub no_link_check: bool,
    pub tunables: Ec2Tunables,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Every route to one of these addresses leads here.
    Routes(Arc<Addresses>),
    /// The Elastic IP is here, and no other one on the same interface.
    Eip(Ipv4Addr),
}

/// What a sequence is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Restore,
    Remove,
    Quickcheck,
    Recover,
    /// To another interface of this node.
    Switch,
    /// To another set of addresses.
    Amend,
}

/// Something is asked of the metadata service or of the API. Each is answered with one [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// -> `Answer::Nic`
    Nic { device: String },
    /// With `checks` for a periodic check, which nobody waits for -> `Answer::Routes`
    Routes { vpc: String, checks: bool },
    /// -> `Answer::Eip`
    Eip { address: Ipv4Addr },
    /// -> `Answer::Eips`
    EipsOf { interface: String },
    /// All at the same time -> `Answer::Written`, one for each, in their order
    ReplaceRoutes { entries: Vec<Entry>, interface: String },
    /// All at the same time -> `Answer::Written`, one for each, in their order
    Disassociate { associations: Vec<String> },
    /// -> `Answer::Written`, one
    Associate { allocation: String, interface: String },
    /// About so long, so that many who were turned away together do not come back together -> `Answer::Paused`
    Pause { about: Duration },
}

impl Ask {
    /// It changes something, or may have.
    pub fn writes(&self) -> bool {
        match self {
            Self::ReplaceRoutes { .. } | Self::Disassociate { .. } | Self::Associate { .. } => true,
            Self::Nic { .. }
            | Self::Routes { .. }
            | Self::Eip { .. }
            | Self::EipsOf { .. }
            | Self::Pause { .. } => false,
        }
    }
}

/// One route of one table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub table: String,
    pub destination: Ipv4Net,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Nic(Nic),
    Routes(Arc<Vec<RouteTable>>),
    Eip(Option<ElasticIp>),
    Eips(Vec<ElasticIp>),
    Written(Vec<Result<(), CallError>>),
    Paused,
    Failed(CallError),
}

/// What a sequence has learned, for whoever shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudReport {
    /// `eni-...` of this node.
    pub interface: Option<String>,
    /// Where things lead, one line for each route table, or one for an Elastic IP.
    pub targets: Vec<String>,
    /// Whether EC2 said so when it was last asked. Then no targets mean that there is nothing that could lead anywhere.
    pub answered: bool,
    /// Why nothing is known, or what is wrong though it is no failure of this node.
    pub trouble: Option<String>,
    /// It was not where it should be, and this sequence brought it there. Otherwise it was there, or is not.
    pub mended: bool,
    /// Who is beside it and could not be taken off; None where nobody is, or it was not looked.
    pub strangers: Option<Strangers>,
}

/// Other Elastic IPs on the interface of one that is in service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strangers {
    /// `eipassoc-...`
    pub associations: BTreeSet<String>,
    /// That they are there, or why they still are.
    pub why: String,
}

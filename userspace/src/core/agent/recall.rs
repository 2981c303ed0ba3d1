//! What a start makes of what an earlier life of this node noted of its Elastic IPs: no kernel tells of them, and a
//! restart must not wait for an answer of EC2.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    Agent, Here,
    local::{Have, Local},
};
use crate::{
    core::time::BootTime,
    model::{
        Cloud, ClusterState, Ec2Eip, Epoch, Grant, Kind, LeaseEpoch, NodeId, NodeSettings, Phase, Resource,
        Tag,
    },
};

/// Where an Elastic IP may be on account of this node, by one of its resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Footprint {
    pub address: Ipv4Addr,
    /// None: the one that this host is in.
    pub region: Option<String>,
    /// The interface to which it was to be associated last.
    pub device: String,
    /// Others of this host that may have it.
    #[serde(default)]
    pub others: Vec<String>,
}

impl Footprint {
    /// None for what leaves none: no Elastic IP, or one for which EC2 is not asked (row IP-13).
    pub fn of(here: &Here, me: NodeId) -> Option<Self> {
        let settings = here.resource.nodes.get(&me).filter(|s| s.restore_and_recover)?;
        let eip = elastic(&here.resource)?;
        let others = settings.devices.iter().filter(|d| **d != here.device).cloned().collect();
        Some(Self { address: eip.address, region: eip.region.clone(), device: here.device.clone(), others })
    }

    /// All that could be there of a resource.
    fn assumed(resource: &Resource, me: NodeId) -> Option<Self> {
        let devices = &resource.nodes.get(&me)?.devices;
        let (device, others) = devices.split_first()?;
        let eip = elastic(resource)?;
        let (device, others) = (device.clone(), others.to_vec());
        Some(Self { address: eip.address, region: eip.region.clone(), device, others })
    }

    fn is_of(&self, resource: &Resource) -> bool {
        elastic(resource).is_some_and(|eip| (eip.address, &eip.region) == (self.address, &self.region))
    }

    /// What has to go: of the resource as it is now, if it is still about the same. All interfaces are looked at that
    /// may have it, whether or not they are listed any more.
    fn here(&self, tag: &Tag, now: Option<&Resource>, me: NodeId) -> Here {
        let kind = || Kind::Ec2Eip(Ec2Eip { address: self.address, region: self.region.clone() });
        let mut resource = now
            .filter(|r| self.is_of(r))
            .cloned()
            .unwrap_or_else(|| Resource::of_kind(tag.clone(), kind(), []));
        let settings = resource.nodes.entry(me).or_insert_with(|| NodeSettings::new(1, Vec::new()));
        // EC2 was asked then, whatever is to be done now.
        settings.restore_and_recover = true;
        for device in std::iter::once(&self.device).chain(&self.others) {
            if !settings.devices.contains(device) {
                settings.devices.push(device.clone());
            }
        }
        Here {
            resource: Arc::new(resource),
            addresses: Arc::new(IpNet::from(IpAddr::V4(self.address)).into()),
            device: self.device.clone(),
        }
    }
}

fn elastic(resource: &Resource) -> Option<&Ec2Eip> {
    match resource.cloud()? {
        Cloud::Eip(eip) => Some(eip),
        Cloud::Route(_) => None,
    }
}

/// What becomes of an Elastic IP that an earlier life may have associated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// In service here under that grant; the first check tells.
    Serves(Epoch),
    /// The cluster waits for its removal: nothing is said of it before that was tried.
    Leaves,
    /// It is to go, and nobody waits for that.
    Owed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    pub tag: Tag,
    pub here: Here,
    pub fate: Fate,
}

/// Of every Elastic IP that may be on an interface of this node. `noted` has None where a note is there and cannot be
/// read; `held` is the lease epoch of which this node still serves.
pub fn recall(
    me: NodeId,
    held: LeaseEpoch,
    state: &ClusterState,
    noted: &BTreeMap<Tag, Option<Footprint>>,
) -> Vec<Recalled> {
    let granted = |tag: &Tag| state.placements.get(tag)?.grant.filter(|g| g.owner == me);
    let mine = state.resources.keys().filter(|tag| granted(tag).is_some());
    let tags: BTreeSet<&Tag> = mine.chain(noted.keys()).collect();
    let one = |tag: &Tag| {
        let resource = state.resources.get(tag);
        let known = noted.get(tag);
        let assumed = || resource.and_then(|r| Footprint::assumed(r, me));
        let noted = known.and_then(|noted| noted.clone().or_else(assumed));
        let now = resource.filter(|r| elastic(r).is_some());
        let same = now.filter(|r| noted.as_ref().is_none_or(|n| n.is_of(r)));
        let fate = same.zip(granted(tag)).and_then(|(_, grant)| fate(grant, held, state, tag));
        // What EC2 was never asked for is in service all the same, and leaves no note.
        let mut here = match (&noted, fate) {
            (Some(noted), _) => noted.here(tag, now, me),
            (None, Some(_)) => same.map(|r| as_listed(r, me))?,
            (None, None) => return None,
        };
        if let (Some(Fate::Serves(_)), Some(listed)) = (fate, same.and_then(|r| r.nodes.get(&me)))
            && !listed.devices.contains(&here.device)
        {
            // It is to be on one of those that are listed: the first check finds that it is not.
            here.device = listed.devices.first().cloned().unwrap_or_default();
        }
        Some(Recalled { tag: tag.clone(), here, fate: fate.unwrap_or(Fate::Owed) })
    };
    tags.into_iter().filter_map(one).collect()
}

/// None: the grant says nothing of what is here. One that is only starting is made anew.
fn fate(grant: Grant, held: LeaseEpoch, state: &ClusterState, tag: &Tag) -> Option<Fate> {
    match grant.phase {
        Phase::Starting => None,
        Phase::InService if grant.lease_epoch == held => {
            state.placements.get(tag).map(|placement| Fate::Serves(placement.epoch))
        }
        Phase::InService => Some(Fate::Owed),
        Phase::Stopping => Some(Fate::Leaves),
    }
}

/// On the interface that it is brought up on first.
fn as_listed(resource: &Resource, me: NodeId) -> Here {
    let address = elastic(resource).map(|eip| IpNet::from(IpAddr::V4(eip.address)));
    let device = resource.nodes.get(&me).and_then(|s| s.devices.first()).cloned().unwrap_or_default();
    Here { resource: Arc::new(resource.clone()), addresses: Arc::new(address.into_iter().collect()), device }
}

impl Agent {
    /// The same for what [`recall`] found as [`Agent::found`].
    pub fn recalled(&mut self, recalled: Recalled, now: BootTime) {
        let Recalled { tag, here, fate } = recalled;
        match fate {
            Fate::Serves(epoch) => self.found(tag, here, Some(epoch), now),
            Fate::Leaves => self.found(tag, here, None, now),
            Fate::Owed => {
                // Whoever is granted it takes it in any case: as after a removal that EC2 did not answer.
                let reason = "an earlier life of vipd may have left it associated".to_owned();
                self.mark(&tag);
                let have = Have::Unclear { retry_at: now, silent: Some(reason) };
                self.locals.insert(tag, Local::new(have, Some(here)));
            }
        }
    }
}

//! What this node can see of what is declared: its interfaces, its own addresses, and who else has those
//! that are new (rows IP-3 to IP-5).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        Context, Member, Out, Result,
        create::refuse_stationary,
        devices::{self, stationary},
    },
    refuse,
};
use crate::{
    api::ErrorKind,
    config::DeclaredFile,
    core::accept::by_size,
    model::{AcceptBy, Addresses, ClusterState, DeclaredResource, NodeSettings, Ranges, Tag},
    observe::network::{Assigned, Link},
};

#[derive(Default)]
pub(super) struct Seen {
    /// What is wrong on this node.
    pub findings: Vec<String>,
    /// What was not looked at, and where one can.
    pub unchecked: Vec<String>,
}

impl Seen {
    pub fn refuse(&self) -> Result<()> {
        refuse(ErrorKind::Refused, self.findings.clone())
    }
}

/// What this host has.
struct Here<'a> {
    links: &'a [Link],
    assigned: &'a [Assigned],
}

impl Context {
    /// Of what is new or changes, or of everything.
    pub(super) async fn check(
        &self,
        member: &Member,
        state: &ClusterState,
        file: &DeclaredFile,
        everything: bool,
        out: &Out,
    ) -> Result<Seen> {
        let me = member.id;
        let (links, mut assigned) = self.look().await?;
        assigned.extend(self.accepted(member, &links));
        let here = Here { links: &links, assigned: &assigned };
        let mut seen = Seen::default();
        let mut elsewhere: BTreeSet<String> = BTreeSet::new();
        let mut unseen: BTreeSet<&Tag> = BTreeSet::new();
        let mut new: BTreeMap<&str, Ranges> = BTreeMap::new();
        let taken: Ranges =
            state.resources.values().fold(Ranges::default(), |all, r| all.union(&r.addresses().hosts()));
        for (tag, resource) in &file.declared.resources {
            let before = state.resources.get(tag);
            let moved = before.is_none_or(|r| *r.addresses() != resource.addresses);
            let same = |id: &u64, s: &NodeSettings| {
                let before = before.and_then(|r| r.nodes.get(id));
                before.is_some_and(|b| b.devices == s.devices && b.physical == s.physical)
            };
            let concerns = resource.nodes.iter().filter(|(id, s)| everything || moved || !same(id, s));
            elsewhere.extend(concerns.filter(|(id, _)| **id != me).map(|(id, _)| state.node_name(*id)));
            let fresh = resource.addresses.without(&taken);
            let Some(settings) = resource.nodes.get(&me) else {
                if !fresh.is_empty() {
                    unseen.insert(tag);
                }
                continue;
            };
            if !everything && !moved && same(&me, settings) {
                continue;
            }
            let added = before.map_or_else(|| fresh.clone(), |r| fresh.without(&r.addresses().hosts()));
            match self.look_at(&here, state, me, tag, resource, settings, &added) {
                Err(reason) => seen.findings.push(format!("{tag} on {}: {reason}", state.node_name(me))),
                Ok(()) if settings.physical || added.is_empty() => {}
                Ok(()) => {
                    if let Some(device) = settings.devices.first() {
                        let all = new.entry(device).or_default();
                        *all = all.union(&added.hosts());
                    }
                }
            }
        }
        for (device, hosts) in new {
            let Some(link) = links.iter().find(|l| l.name == device) else { continue };
            if let Err(e) = self.refuse_duplicates(link, &hosts, out).await {
                seen.findings.push(e.message);
            }
        }
        seen.unchecked.extend(elsewhere.into_iter().map(|name| {
            format!(
                "not checked from here whether {name} has the interfaces: 'vipctl interfaces' there tells"
            )
        }));
        seen.unchecked.extend(unseen.into_iter().map(|tag| {
            format!(
                "not checked from here whether the addresses of {tag} are in use on the network: apply it on one of its \
                 nodes to have that checked"
            )
        }));
        Ok(seen)
    }

    /// Interfaces, the node's own addresses, and how packets are taken; the reason where one does not do.
    #[expect(clippy::too_many_arguments, reason = "each is a thing of its own to look at")]
    fn look_at(
        &self,
        here: &Here,
        state: &ClusterState,
        me: u64,
        tag: &Tag,
        resource: &DeclaredResource,
        settings: &NodeSettings,
        added: &Addresses,
    ) -> std::result::Result<(), String> {
        if settings.physical {
            return own(here, resource, settings);
        }
        let nets: Vec<_> = resource.addresses.firsts().collect();
        let text = |e: crate::api::ApiError| e.message;
        let devices = devices::choose(here.links, here.assigned, &nets, &settings.devices).map_err(text)?;
        refuse_stationary(state, here.assigned, added, me).map_err(text)?;
        let used: Vec<&Link> = here.links.iter().filter(|l| devices.contains(&l.name)).collect();
        let (accept, by) = match (resource.accept, state.resources.get(tag)) {
            (Some(accept), _) => (accept, AcceptBy::Operator),
            (None, _) => (by_size(&resource.addresses), AcceptBy::Size),
        };
        self.check_xdp(accept, by, &resource.addresses, &used).map_err(text)
    }
}

/// A protected stationary address has to be there, on that interface.
fn own(here: &Here, resource: &DeclaredResource, settings: &NodeSettings) -> std::result::Result<(), String> {
    for address in resource.addresses.iter() {
        let there = stationary(here.assigned, address.addr());
        let device = there.and_then(|a| here.links.iter().find(|l| l.index == a.index));
        match device {
            Some(link) if settings.devices == [link.name.clone()] => {}
            Some(link) => {
                return Err(format!(
                    "{address} is this node's own address on {0}: write devices = [\"{0}\"]",
                    link.name
                ));
            }
            None => {
                return Err(format!(
                    "{address} is no address of this node itself: leave physical out, or let the host have it first"
                ));
            }
        }
    }
    Ok(())
}

//! This node looks at itself before a change is made, asked by itself or by another one.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::super::{
    Context, Member, Out, Result,
    create::refuse_stationary,
    devices::{self, stationary},
};
use crate::{
    api::{ApiError, thousands},
    core::inspection::{Arrival, Findings, Inquiry, Objection, is_granted, is_settled},
    model::{ClusterState, Ranges, Tag},
    observe::network::{Assigned, Link},
};

/// What this host has.
struct Here {
    links: Vec<Link>,
    assigned: Vec<Assigned>,
}

impl Context {
    /// For another node.
    pub async fn inspect(&self, inquiry: &Inquiry) -> Findings {
        // Nobody listens to the steps.
        let (out, _) = mpsc::channel(1);
        let findings = match self.member() {
            Ok(member) => self.inspect_here(&member, inquiry, &out).await,
            Err(e) => Err(e),
        };
        findings.unwrap_or_else(|e| objecting(self.config.name.clone(), e))
    }

    /// # Errors
    /// When this host cannot be looked at.
    pub(super) async fn inspect_here(
        &self,
        member: &Member,
        inquiry: &Inquiry,
        out: &Out,
    ) -> Result<Findings> {
        let (links, mut assigned) = self.look().await?;
        assigned.extend(self.accepted(member, &links));
        let here = Here { links, assigned };
        let state = member.state();
        let mut findings = Findings::default();
        let mut new: BTreeMap<&str, Ranges> = BTreeMap::new();
        for arrival in &inquiry.arrivals {
            if let Err(e) = self.can_have(&here, &state, member, arrival) {
                let about = arrival.tag.to_string();
                findings.objections.push(Objection { about, reason: e.message });
            } else if let Some(device) = arrival.devices.first().filter(|_| !arrival.new.is_empty()) {
                let all = new.entry(device).or_default();
                *all = all.union(&arrival.new);
            }
        }
        for (device, hosts) in new {
            let Some(link) = here.links.iter().find(|l| l.name == device) else { continue };
            match self.look_for_duplicates(link, &hosts, out).await {
                Ok(claims) => findings.claims.extend(claims),
                Err(e) => {
                    findings.objections.push(Objection { about: device.to_owned(), reason: e.message });
                }
            }
        }
        self.inspect_clouds(member, &here.links, &inquiry.clouds, &mut findings).await;
        let left = inquiry.departures.iter().filter(|tag| !is_granted(&state, tag, member.id));
        let busy = inquiry.separations.iter().filter(|tag| !is_settled(&state, tag, member.id));
        findings.objections.extend(left.filter_map(|tag| self.left(tag)));
        findings.objections.extend(busy.filter_map(|tag| self.busy(tag)));
        let macs = here.links.iter().map(|l| l.mac).filter(|mac| *mac != [0; 6]);
        findings.macs = macs.collect();
        Ok(findings)
    }

    /// Interfaces, the host's own addresses, how packets are taken, and room for them.
    fn can_have(&self, here: &Here, state: &ClusterState, member: &Member, a: &Arrival) -> Result<()> {
        if a.physical {
            return own(here, a);
        }
        let nets: Vec<_> = a.addresses.firsts().collect();
        let devices = devices::choose(&here.links, &here.assigned, &nets, &a.devices)?;
        refuse_stationary(state, &here.assigned, &a.addresses, member.id)?;
        let used: Vec<&Link> = here.links.iter().filter(|l| devices.contains(&l.name)).collect();
        self.check_xdp(a.accept, a.accept_by, &a.addresses, &used)?;
        let (count, room) = (a.addresses.count(), u64::from(self.config.datapath.max_vips));
        if count > room {
            return Err(ApiError::refused(format!(
                "it has {} addresses, and the node has room for {}: raise max-vips in its node.toml and restart its vipd",
                thousands(count),
                thousands(room)
            )));
        }
        Ok(())
    }

    /// A removal is under way here, or has failed and left something that is silent. Forgotten, nobody would see it.
    fn left(&self, tag: &Tag) -> Option<Objection> {
        let device = self.in_use.device(tag)?;
        Some(Objection {
            about: tag.to_string(),
            reason: format!(
                "something of it is still on {device}, being removed: 'vipctl events --tag {tag}' there tells why that \
                 takes so long; wait until it is gone, or forget it all the same with --force"
            ),
        })
    }

    /// What it depends on has to stay until it is in service, or gone.
    fn busy(&self, tag: &Tag) -> Option<Objection> {
        let device = self.in_use.device(tag)?;
        Some(Objection {
            about: tag.to_string(),
            reason: format!(
                "it is being started or stopped on {device}, in its turn with what it depends on: wait until 'vipctl \
                 status' shows that this is done"
            ),
        })
    }
}

/// A protected stationary address has to be there, on that interface.
fn own(here: &Here, arrival: &Arrival) -> Result<()> {
    for address in arrival.addresses.iter() {
        let there = stationary(&here.assigned, address.addr());
        let device = there.and_then(|a| here.links.iter().find(|l| l.index == a.index));
        match device {
            Some(link) if arrival.devices == [link.name.clone()] => {}
            Some(link) => {
                return Err(ApiError::refused(format!(
                    "{address} is this node's own address on {0}: write devices = [\"{0}\"]",
                    link.name
                )));
            }
            None => {
                return Err(ApiError::refused(format!(
                    "{address} is no address of this node itself: leave physical out, or let the host have it first"
                )));
            }
        }
    }
    Ok(())
}

/// Of a host that cannot be looked at.
pub(super) fn objecting(about: String, e: ApiError) -> Findings {
    Findings { objections: vec![Objection { about, reason: e.message }], ..Findings::default() }
}

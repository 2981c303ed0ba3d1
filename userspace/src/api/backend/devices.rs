//! Which interfaces may carry an address (row IP-3).
//!
//! Where an address of the same subnet is in service, only that interface is allowed: answers for the
//! rest of the subnet would leave by it anyway. Otherwise every interface that is up is allowed.

use std::{cmp::Reverse, collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{Context, Member, Result, address::Wanted};
use crate::{
    act::address::PROTOCOL,
    api::{Answer, ApiError, InterfaceChoice},
    model::{Accept, Phase, Range, with_length},
    observe::network::{Assigned, Link, NetworkError},
};

/// The interfaces of this host with what speaks for and against each, best first.
pub fn choices(links: &[Link], assigned: &[Assigned], wanted: Option<Wanted>) -> Vec<InterfaceChoice> {
    let subnet = wanted.and_then(|w| subnet_of(assigned, w));
    let bound = |link: &Link| subnet.is_some_and(|s| holds(assigned, link, s));
    let somewhere = links.iter().any(bound);
    let mut ranked: Vec<_> = links
        .iter()
        .map(|link| {
            let (allowed, closeness, reason) = judge(link, assigned, wanted, subnet, somewhere);
            let choice = InterfaceChoice { name: link.name.clone(), allowed, reason };
            ((!allowed, Reverse(closeness), link.index), choice)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, choice)| choice).collect()
}

/// (allowed, how well it fits, why)
fn judge(
    link: &Link,
    assigned: &[Assigned],
    wanted: Option<Wanted>,
    subnet: Option<IpNet>,
    somewhere: bool,
) -> (bool, u16, String) {
    let no = |reason: &str| (false, 0, reason.to_owned());
    if link.loopback {
        return no("loopback: never announced to a network");
    }
    if !link.admin_up {
        return no("is down: 'ip link set' it up first");
    }
    if !link.carrier {
        return no("has no carrier: look at its cable or peer");
    }
    let (Some(wanted), Some(subnet)) = (wanted, subnet.or_else(|| host_net(wanted))) else {
        return (true, 0, "is up".to_owned());
    };
    if holds(assigned, link, subnet) {
        return (true, 1000, format!("an address of {subnet} is in service on it"));
    }
    if somewhere {
        return no(&format!("an address of {subnet} is in service on another interface"));
    }
    let around = on(assigned, link)
        .filter(|a| a.address.contains(&wanted.address))
        .map(|a| a.address)
        .max_by_key(IpNet::prefix_len);
    match around {
        Some(net) => (
            true,
            100 + u16::from(net.prefix_len()),
            format!("its subnet {} contains the address", net.trunc()),
        ),
        None if on(assigned, link).any(|a| same_family(a.address.addr(), wanted.address)) => {
            (true, 2, "is up, with addresses of the same family".to_owned())
        }
        None => (true, 1, "is up".to_owned()),
    }
}

fn host_net(wanted: Option<Wanted>) -> Option<IpNet> {
    wanted.map(|w| IpNet::from(w.address))
}

/// The subnet that is meant: as given, or the narrowest one assigned here around the address.
fn subnet_of(assigned: &[Assigned], wanted: Wanted) -> Option<IpNet> {
    match wanted.prefix {
        Some(prefix) => IpNet::new(wanted.address, prefix).ok().map(|n| n.trunc()),
        None => around(assigned.iter(), wanted.address),
    }
}

/// The host's own addresses say what the subnet is; a virtual one may have been given another length.
fn around<'a>(assigned: impl Iterator<Item = &'a Assigned>, address: IpAddr) -> Option<IpNet> {
    assigned
        .filter(|a| is_subnet(a) && a.address.contains(&address))
        .map(|a| (a.protocol != Some(PROTOCOL), a.address.trunc()))
        .max_by_key(|(stationary, net)| (*stationary, net.prefix_len()))
        .map(|(_, net)| net)
}

/// A host route's worth of prefix says nothing of a subnet.
fn is_subnet(a: &Assigned) -> bool {
    a.address.prefix_len() < a.address.max_prefix_len()
}

fn on<'a>(assigned: &'a [Assigned], link: &Link) -> impl Iterator<Item = &'a Assigned> {
    let index = link.index;
    assigned.iter().filter(move |a| a.index == index)
}

fn holds(assigned: &[Assigned], link: &Link, subnet: IpNet) -> bool {
    on(assigned, link).any(|a| is_subnet(a) && a.address.trunc() == subnet)
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

/// The subnets that this host has addresses of.
pub struct Subnets(BTreeSet<IpNet>);

impl Subnets {
    pub fn new(assigned: &[Assigned]) -> Self {
        Self(assigned.iter().filter(|a| is_subnet(a)).map(|a| a.address.trunc()).collect())
    }

    /// The subnet of a range, as given, or the narrowest one here around it.
    pub fn of(&self, range: Range, prefix: Option<u8>) -> Result<IpNet> {
        let first = range.first();
        if let Some(net) = prefix.and_then(|p| with_length(first, p)) {
            return Ok(net.trunc());
        }
        let around = self.0.iter().filter(|net| net.contains(&first) && net.contains(&range.last()));
        around.max_by_key(|net| net.prefix_len()).copied().ok_or_else(|| {
            let remedy = match range.count() {
                1 => format!("{first}/{} for the address alone", IpNet::from(first).prefix_len()),
                _ => format!("{range}/LEN"),
            };
            ApiError::refused(format!(
                "no subnet of this host contains {range}, so its prefix length is unknown: give it, as {remedy}"
            ))
        })
    }
}

/// The interfaces to use for addresses of these subnets (each with an address of the set): as asked for
/// where that is allowed, else the best one.
///
/// The rule is for the first. The others stand by for it: they take over as a whole when it fails, so an
/// address of the subnet on the first does not speak against them.
pub fn choose(
    links: &[Link],
    assigned: &[Assigned],
    nets: &[IpNet],
    devices: &[String],
) -> Result<Vec<String>> {
    let judged: Vec<(IpNet, Vec<InterfaceChoice>)> = nets
        .iter()
        .map(|net| {
            (
                *net,
                choices(
                    links,
                    assigned,
                    Some(Wanted { address: net.addr(), prefix: Some(net.prefix_len()) }),
                ),
            )
        })
        .collect();
    if let Some((i, twice)) = devices.iter().enumerate().find(|(i, d)| devices[..*i].contains(d)) {
        let place = i + 1;
        return Err(ApiError::usage(format!(
            "interface {twice} is given twice (again as number {place}): give it once"
        )));
    }
    let Some((first, standby)) = devices.split_first() else {
        return best(&judged).map(|name| vec![name]);
    };
    for (net, choices) in &judged {
        refuse_unless_allowed(first, choices, &format!("{} cannot be on {first}", net.addr()))?;
    }
    let states = choices(links, assigned, None);
    for device in standby {
        refuse_unless_allowed(device, &states, &format!("{device} cannot stand by"))?;
    }
    Ok(devices.to_vec())
}

fn refuse_unless_allowed(device: &str, choices: &[InterfaceChoice], no: &str) -> Result<()> {
    match choices.iter().find(|c| c.name == device) {
        Some(c) if c.allowed => Ok(()),
        Some(c) => Err(ApiError::refused(format!("{no}: {}; {}", c.reason, allowed(choices)))),
        None => {
            let e = NetworkError::NoDevice(device.to_owned());
            Err(ApiError::refused(format!("{e}; {}", allowed(choices))))
        }
    }
}

/// The best for the first subnet that the others allow too.
fn best(judged: &[(IpNet, Vec<InterfaceChoice>)]) -> Result<String> {
    let everywhere =
        |name: &str| judged.iter().all(|(_, choices)| choices.iter().any(|c| c.allowed && c.name == name));
    let first = judged.first().map(|(_, choices)| &choices[..]).unwrap_or_default();
    if let Some(best) = first.iter().find(|c| everywhere(&c.name)) {
        return Ok(best.name.clone());
    }
    let why = |(net, choices): &(IpNet, Vec<InterfaceChoice>)| {
        let all: Vec<String> = choices.iter().map(|c| format!("{} {}", c.name, c.reason)).collect();
        format!("no interface can carry {}: {}", net.addr(), all.join("; "))
    };
    let none = judged.iter().find(|(_, choices)| !choices.iter().any(|c| c.allowed));
    Err(ApiError::refused(match none {
        Some(one) => why(one),
        None => {
            let each: Vec<String> = judged
                .iter()
                .map(|(net, choices)| format!("{}: {}", net.trunc(), allowed(choices)))
                .collect();
            format!(
                "no interface can carry all of the subnets ({}): create one resource for each interface",
                each.join("; ")
            )
        }
    }))
}

fn allowed(choices: &[InterfaceChoice]) -> String {
    let names: Vec<&str> = choices.iter().filter(|c| c.allowed).map(|c| c.name.as_str()).collect();
    match names[..] {
        [] => "no interface is allowed, see 'vipctl interfaces'".to_owned(),
        _ => format!("allowed: {}", names.join(", ")),
    }
}

/// The node's own assignment of the address, if it is not one of ours.
pub fn stationary(assigned: &[Assigned], address: IpAddr) -> Option<&Assigned> {
    assigned.iter().find(|a| a.address.addr() == address && a.protocol != Some(PROTOCOL))
}

impl Context {
    pub(super) async fn interfaces(&self, address: Option<IpNet>) -> Result<Answer> {
        let (links, mut assigned) = self.look().await?;
        let member = self.member.borrow().clone();
        if let Some(member) = member {
            assigned.extend(self.accepted(&member, &links));
        }
        // A bare address comes with its full length, which here means: none was given.
        let wanted = address.map(|net| Wanted {
            address: net.addr(),
            prefix: Some(net.prefix_len()).filter(|p| *p < net.max_prefix_len()),
        });
        Ok(Answer::Interfaces(choices(&links, &assigned, wanted)))
    }

    pub(super) async fn look(&self) -> Result<(Vec<Link>, Vec<Assigned>)> {
        let failed = |e: NetworkError| ApiError::failed(e.to_string());
        Ok((self.host.links().await.map_err(failed)?, self.host.addresses().await.map_err(failed)?))
    }
}

impl Context {
    /// One address for each subnet of the resources that are in service here without being assigned: as far
    /// as interfaces are concerned they count like assigned ones.
    pub(super) fn accepted(&self, member: &Member, links: &[Link]) -> Vec<Assigned> {
        let state = member.state();
        let programmed = self.datapath.programmed().unwrap_or_default();
        let mut found = Vec::new();
        for resource in state.resources.values().filter(|r| r.accept() != Accept::Assign) {
            let grant = state.placements.get(&resource.tag).and_then(|p| p.grant);
            if !grant.is_some_and(|g| g.owner == member.id && g.phase == Phase::InService) {
                continue;
            }
            let configured = || {
                let device = resource.nodes.get(&member.id)?.devices.first()?;
                links.iter().find(|l| l.name == *device).map(|l| l.index)
            };
            let there = programmed.iter().find(|p| p.group == resource.id).map(|p| p.ifindex);
            let Some(index) = there.or_else(configured) else { continue };
            found.extend(resource.addresses().firsts().map(|address| Assigned {
                index,
                address,
                broadcast: None,
                secondary: true,
                protocol: Some(PROTOCOL),
                tentative: false,
            }));
        }
        found
    }
}

#[cfg(test)]
mod tests;

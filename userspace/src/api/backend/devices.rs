//! Which interfaces may carry an address (row IP-3).
//!
//! Where an address of the same subnet is in service, only that interface is allowed: answers for the
//! rest of the subnet would leave by it anyway. Otherwise every interface that is up is allowed.

use std::{cmp::Reverse, net::IpAddr};

use ipnet::IpNet;

use super::{Context, Result, address::Wanted};
use crate::{
    act::address::PROTOCOL,
    api::{Answer, ApiError, InterfaceChoice},
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

fn around<'a>(assigned: impl Iterator<Item = &'a Assigned>, address: IpAddr) -> Option<IpNet> {
    assigned
        .filter(|a| is_subnet(a) && a.address.contains(&address))
        .map(|a| a.address.trunc())
        .max_by_key(IpNet::prefix_len)
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

/// The interfaces to use and the full address: as asked for where that is allowed, else the best ones.
pub fn choose(
    links: &[Link],
    assigned: &[Assigned],
    wanted: Wanted,
    devices: &[String],
) -> Result<(Vec<String>, IpNet)> {
    let address = wanted.address;
    let choices = choices(links, assigned, Some(wanted));
    let mut chosen: Vec<String> = Vec::new();
    for device in devices {
        match choices.iter().find(|c| c.name == *device) {
            Some(c) if c.allowed && chosen.contains(device) => {
                return Err(ApiError::usage(format!("interface {device} is given twice: give it once")));
            }
            Some(c) if c.allowed => chosen.push(device.clone()),
            Some(c) => {
                return Err(ApiError::refused(format!(
                    "{address} cannot be on {device}: {}; {}",
                    c.reason,
                    allowed(&choices)
                )));
            }
            None => {
                let e = NetworkError::NoDevice(device.clone());
                return Err(ApiError::refused(format!("{e}; {}", allowed(&choices))));
            }
        }
    }
    if chosen.is_empty() {
        let best = choices.iter().find(|c| c.allowed).ok_or_else(|| {
            let all: Vec<String> = choices.iter().map(|c| format!("{} {}", c.name, c.reason)).collect();
            ApiError::refused(format!("no interface can carry {address}: {}", all.join("; ")))
        })?;
        chosen.push(best.name.clone());
    }
    let first = links.iter().find(|l| l.name == chosen[0]);
    let default = || around(assigned.iter().filter(|a| first.is_some_and(|l| l.index == a.index)), address);
    let prefix = wanted.prefix.or_else(|| default().map(|n| n.prefix_len())).ok_or_else(|| {
        ApiError::refused(format!(
            "no subnet of {} contains {address}, so its prefix length is unknown: give it, as {address}/{} for \
             the address alone",
            chosen[0],
            IpNet::from(address).prefix_len()
        ))
    })?;
    let net = IpNet::new(address, prefix).map_err(|e| ApiError::usage(format!("{address}/{prefix}: {e}")))?;
    Ok((chosen, net))
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
        let (links, assigned) = self.look().await?;
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

#[cfg(test)]
mod tests;

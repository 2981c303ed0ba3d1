//! Which addresses are on this host, and in which way packets for them are accepted.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{connected::reaches, local::is_host};
use crate::{
    act::address::PROTOCOL,
    core::command::{Misplaced, Place, Presence},
    model::{Accept, Addresses, Range, Ranges},
    observe::network::{Assigned, Class, Link, LocalRoute, Network, NetworkError, Snapshot, routes},
};

/// Up to so many addresses are asked for one by one, and not searched for in all that this host has.
const ASKED_SINGLY: u64 = 8;

impl Network {
    /// Which of the addresses are on this host, and where.
    ///
    /// Addresses that are not assigned need a route to their subnet. When it is missing on an interface that
    /// is up (somebody set it down and up), they are misplaced, on the very device and in the very way
    /// asked for: adding them again mends that.
    pub(crate) async fn presence(&self, links: &[Link], place: &Place) -> Result<Presence, NetworkError> {
        let link = links.iter().find(|l| l.name == place.device);
        let asked = match link {
            Some(link) if place.addresses.count() <= ASKED_SINGLY => self.ask(link, place).await?,
            _ => None,
        };
        let mut found = match asked {
            Some(found) => found,
            None => Found::search(&*self.snapshot().await?, link.map(|l| l.index), place),
        };
        if let Some(link) = link.filter(|l| l.admin_up && place.accept != Accept::Assign) {
            let mut unreachable = Addresses::default();
            for (subnet, hosts) in found.ours.by_subnet() {
                if !self.is_reachable(link, subnet, hosts).await? {
                    unreachable = unreachable.union(&place.addresses.within(hosts));
                }
            }
            found.ours = found.ours.without(&unreachable.hosts());
            found.misplaced(link.index, place.accept, true, unreachable);
        }
        Ok(found.presence(links))
    }

    /// Answers the two clear cases: all of each address is as it should be, or nothing of it is there.
    async fn ask(&self, link: &Link, place: &Place) -> Result<Option<Found>, NetworkError> {
        let wanted = Wanted::new(place);
        let mut ours = Vec::new();
        let mut foreign = Vec::new();
        for address in place.addresses.iter() {
            let route = routes::matching(&self.netlink, address.addr()).await?.filter(routes::is_local);
            let route = route.as_ref().and_then(routes::local_route);
            let here = route.is_some_and(|r| r.index == link.index);
            match place.accept {
                Accept::Assign => match (self.assigned(link, address).await?, route) {
                    (Where::Nowhere, None) => {}
                    (Where::Here(by), Some(_)) if here => match by {
                        Some(PROTOCOL) => ours.push(address),
                        _ => foreign.push(address),
                    },
                    _ => return Ok(None),
                },
                Accept::Route | Accept::Anyip => match route {
                    None => {}
                    Some(r) if here && r.protocol == PROTOCOL && wanted.fits(r) => ours.push(address),
                    Some(_) => return Ok(None),
                },
            }
        }
        let (ours, foreign) = (ours.into_iter().collect(), foreign.into_iter().collect());
        Ok(Some(Found { ours, foreign, misplaced: Vec::new() }))
    }

    /// Who put an IPv4 address there is taken from the last list of all addresses: somebody else who deletes
    /// it and adds it again in between goes unnoticed, to whom it makes no difference.
    async fn assigned(&self, link: &Link, address: IpNet) -> Result<Where, NetworkError> {
        match address.addr() {
            IpAddr::V4(ip) => match self.find4(link, ip) {
                None => Ok(Where::Nowhere),
                Some(found) if found != address => Ok(Where::Unclear),
                Some(_) => {
                    let last = self.last_snapshot().await;
                    let mut same = last.iter().flat_map(|s| s.find(address.addr()));
                    let same = same.find(|a| a.index == link.index && a.address == address);
                    Ok(same.map_or(Where::Unclear, |a| Where::Here(a.protocol)))
                }
            },
            IpAddr::V6(ip) => Ok(match self.find6(ip).await? {
                None => Where::Nowhere,
                Some(a) if a.index == link.index && a.address == address => Where::Here(a.protocol),
                Some(_) => Where::Unclear,
            }),
        }
    }

    async fn is_reachable(&self, link: &Link, subnet: IpNet, hosts: &Ranges) -> Result<bool, NetworkError> {
        // The first address of a subnet may stand for all of it.
        let others = Ranges::from_iter([Range::from(subnet)]).difference(hosts);
        if let Some(other) = others.iter().take(2).last() {
            let route = routes::matching(&self.netlink, other).await?;
            let clear =
                |r: &_| routes::is_on_link(r) && routes::oif(r) == Some(link.index) && reaches(r, subnet);
            if route.as_ref().is_some_and(clear) {
                return Ok(true);
            }
        }
        let all = routes::on_link(&self.netlink, link.index, matches!(subnet, IpNet::V6(_))).await?;
        Ok(all.iter().any(|route| reaches(route, subnet)))
    }
}

/// An address, as far as one interface is concerned.
enum Where {
    Nowhere,
    /// With its IFA_PROTO.
    Here(Option<u8>),
    /// Elsewhere, otherwise, or nobody knows by whom.
    Unclear,
}

/// Which local routes are those that the place asks for.
struct Wanted {
    accept: Accept,
    /// Single addresses among the prefixes for [`Accept::Anyip`].
    alone: Ranges,
}

impl Wanted {
    fn new(place: &Place) -> Self {
        let alone = match place.accept {
            Accept::Anyip => {
                let prefixes = place.addresses.hosts().prefixes();
                prefixes.into_iter().filter(|net| is_host(*net)).map(Range::from).collect()
            }
            Accept::Assign | Accept::Route => Ranges::default(),
        };
        Self { accept: place.accept, alone }
    }

    fn fits(&self, route: LocalRoute) -> bool {
        match self.accept {
            Accept::Assign => false,
            Accept::Route => is_host(route.net),
            Accept::Anyip => !is_host(route.net) || self.alone.contains(route.net.addr()),
        }
    }

    /// Those of the addresses that are routed in the way asked for, and the others. Somebody else's prefix
    /// may reach beyond the addresses: it is never what was asked for.
    fn split(&self, class: Class, routed: Ranges) -> (Ranges, Ranges) {
        match (self.accept, class.host) {
            (Accept::Route, true) => (routed, Ranges::default()),
            (Accept::Anyip, false) if class.protocol == PROTOCOL => (routed, Ranges::default()),
            (Accept::Anyip, true) => (routed.intersection(&self.alone), routed.difference(&self.alone)),
            (Accept::Assign, _) | (Accept::Route | Accept::Anyip, false) => (Ranges::default(), routed),
        }
    }
}

#[derive(Default)]
struct Found {
    ours: Addresses,
    foreign: Addresses,
    /// Interface, way, whether ours.
    misplaced: Vec<(u32, Accept, bool, Addresses)>,
}

impl Found {
    fn search(there: &Snapshot, index: Option<u32>, place: &Place) -> Self {
        let (all, hosts, wanted) = (&place.addresses, place.addresses.hosts(), Wanted::new(place));
        let (mut ours, mut foreign) = (Ranges::default(), Ranges::default());
        let mut elsewhere = Vec::new();
        for (class, ranges) in there.routed() {
            let routed = ranges.intersection(&hosts);
            let is_ours = class.protocol == PROTOCOL;
            let (right, wrong) = if Some(class.index) == index {
                wanted.split(*class, routed)
            } else {
                (Ranges::default(), routed)
            };
            let theirs = if is_ours { &mut ours } else { &mut foreign };
            *theirs = theirs.union(&right);
            let accept = if class.host { Accept::Route } else { Accept::Anyip };
            elsewhere.push((class.index, accept, is_ours, all.within(&wrong)));
        }
        let mut found =
            Self { ours: all.within(&ours), foreign: all.within(&foreign), misplaced: Vec::new() };
        let mut assigned = BTreeMap::<_, Vec<IpNet>>::new();
        for (at, is_right) in assigned_among(there, &hosts, index, place) {
            let key = (is_right, at.index, at.protocol == Some(PROTOCOL));
            assigned.entry(key).or_default().push(at.address);
        }
        for ((is_right, index, is_ours), addresses) in assigned {
            let addresses: Addresses = addresses.into_iter().collect();
            match (is_right, is_ours) {
                (true, true) => found.ours = found.ours.union(&addresses),
                (true, false) => found.foreign = found.foreign.union(&addresses),
                (false, _) => elsewhere.push((index, Accept::Assign, is_ours, addresses)),
            }
        }
        for (index, accept, is_ours, addresses) in elsewhere {
            found.misplaced(index, accept, is_ours, addresses);
        }
        found
    }

    fn misplaced(&mut self, index: u32, accept: Accept, ours: bool, addresses: Addresses) {
        if !addresses.is_empty() {
            self.misplaced.push((index, accept, ours, addresses));
        }
    }

    fn presence(self, links: &[Link]) -> Presence {
        let misplaced = self.misplaced.into_iter().map(|(index, accept, ours, addresses)| {
            let name = links.iter().find(|link| link.index == index).map(|link| link.name.clone());
            let device = name.unwrap_or_else(|| format!("interface number {index}"));
            Misplaced { place: Place { addresses: Arc::new(addresses), device, accept }, ours }
        });
        Presence { ours: self.ours, foreign: self.foreign, misplaced: misplaced.collect() }
    }
}

/// Where the hosts are assigned, and whether that is the right place.
fn assigned_among<'a>(
    there: &'a Snapshot,
    hosts: &Ranges,
    index: Option<u32>,
    place: &Place,
) -> Vec<(&'a Assigned, bool)> {
    let is_right = |a: &Assigned| {
        place.accept == Accept::Assign
            && Some(a.index) == index
            && place
                .addresses
                .by_subnet()
                .any(|(net, hosts)| net == a.address.trunc() && hosts.contains(a.address.addr()))
    };
    let all = there.assigned();
    let found: Vec<_> = if hosts.count() < all.len() as u64 {
        hosts.iter().flat_map(|ip| there.find(ip)).collect()
    } else {
        all.iter().filter(|a| hosts.contains(a.address.addr())).collect()
    };
    found.into_iter().map(|a| (a, is_right(a))).collect()
}

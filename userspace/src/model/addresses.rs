//! The addresses of a resource: per subnet, a set of hosts.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Range, Ranges, with_length};

/// One or many virtual addresses, each with its subnet. Never empty in a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Addresses(BTreeMap<IpNet, Ranges>);

impl Addresses {
    /// Whatever of the range lies outside of the subnet is left out.
    pub fn insert(&mut self, subnet: IpNet, range: Range) {
        let subnet = subnet.trunc();
        let inside: Ranges = [range].into_iter().collect();
        let inside = inside.intersection(&[Range::from(subnet)].into_iter().collect());
        if !inside.is_empty() {
            let hosts = self.0.entry(subnet).or_default();
            *hosts = hosts.union(&inside);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many addresses, at most `u64::MAX`.
    pub fn count(&self) -> u64 {
        self.0.values().fold(0, |sum, hosts| sum.saturating_add(hosts.count()))
    }

    pub fn is_single(&self) -> bool {
        self.count() == 1
    }

    /// The lowest address, with the prefix length of its subnet, host bits kept. None only when empty.
    pub fn first(&self) -> Option<IpNet> {
        self.firsts().next()
    }

    /// The lowest address of each subnet, with its prefix length.
    pub fn firsts(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.0.iter().filter_map(|(net, hosts)| with_length(hosts.first()?, net.prefix_len()))
    }

    /// Host bits zero.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.0.keys().copied()
    }

    /// Per subnet (host bits zero).
    pub fn by_subnet(&self) -> impl Iterator<Item = (IpNet, &Ranges)> + '_ {
        self.0.iter().map(|(net, hosts)| (*net, hosts))
    }

    /// Every address with the prefix length of its subnet.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.0.iter().flat_map(|(net, hosts)| {
            let length = net.prefix_len();
            hosts.iter().filter_map(move |ip| with_length(ip, length))
        })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|(net, hosts)| net.contains(&address) && hosts.contains(address))
    }

    /// All hosts, whatever their subnets.
    pub fn hosts(&self) -> Ranges {
        self.0.values().flat_map(|hosts| hosts.ranges().iter().copied()).collect()
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (net, hosts) in &other.0 {
            let mine = all.0.entry(*net).or_default();
            *mine = mine.union(hosts);
        }
        all
    }

    /// Those that are not among the hosts.
    #[must_use]
    pub fn without(&self, hosts: &Ranges) -> Self {
        self.map(|mine| mine.difference(hosts))
    }

    /// Those that are among the hosts.
    #[must_use]
    pub fn within(&self, hosts: &Ranges) -> Self {
        self.map(|mine| mine.intersection(hosts))
    }

    fn map(&self, change: impl Fn(&Ranges) -> Ranges) -> Self {
        let kept = self.0.iter().map(|(net, mine)| (*net, change(mine)));
        Self(kept.filter(|(_, hosts)| !hosts.is_empty()).collect())
    }
}

impl From<IpNet> for Addresses {
    fn from(address: IpNet) -> Self {
        let mut one = Self::default();
        one.insert(address, address.addr().into());
        one
    }
}

impl FromIterator<IpNet> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpNet>>(addresses: I) -> Self {
        let mut by_subnet = BTreeMap::<IpNet, Vec<Range>>::new();
        for address in addresses {
            by_subnet.entry(address.trunc()).or_default().push(address.addr().into());
        }
        Self(by_subnet.into_iter().map(|(net, hosts)| (net, hosts.into())).collect())
    }
}

impl FromIterator<(IpNet, Range)> for Addresses {
    /// As [`insert`](Self::insert) of each, in one go.
    fn from_iter<I: IntoIterator<Item = (IpNet, Range)>>(parts: I) -> Self {
        let mut by_subnet = BTreeMap::<IpNet, Vec<Range>>::new();
        for (subnet, range) in parts {
            by_subnet.entry(subnet.trunc()).or_default().push(range);
        }
        let within = |(net, hosts): (IpNet, Vec<Range>)| {
            let all = Ranges::from(hosts).intersection(&[Range::from(net)].into_iter().collect());
            (net, all)
        };
        Self(by_subnet.into_iter().map(within).filter(|(_, hosts)| !hosts.is_empty()).collect())
    }
}

/// One: `10.0.0.1/24`. Some: `10.0.0.1-10.0.0.9/24`. Many: the first, and how many more.
impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self
            .0
            .iter()
            .flat_map(|(net, hosts)| hosts.ranges().iter().map(move |r| format!("{r}/{}", net.prefix_len())))
            .collect();
        match &ranges[..] {
            [] => f.pad("no address"),
            [one] => f.pad(one),
            [first, rest @ ..] => f.pad(&format!("{first} and {} more ranges", rest.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn every_address_keeps_its_subnet() {
        let all: Addresses =
            ["10.0.0.9/24", "10.0.0.10/24", "fd00::1/64", "10.0.0.200/25"].map(net).into_iter().collect();
        assert_eq!(all.count(), 4);
        let listed: Vec<String> = all.iter().map(|a| a.to_string()).collect();
        assert_eq!(listed, ["10.0.0.9/24", "10.0.0.10/24", "10.0.0.200/25", "fd00::1/64"]);
        assert_eq!(all.first(), Some(net("10.0.0.9/24")));
        assert!(all.contains("10.0.0.200".parse().unwrap()) && !all.contains("10.0.0.11".parse().unwrap()));
        let rest = all.without(&Addresses::from(net("10.0.0.9/24")).hosts());
        assert_eq!(rest.to_string(), "10.0.0.10/24 and 2 more ranges");
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Addresses>(&json).unwrap(), all);
    }

    #[test]
    fn a_range_stays_within_its_subnet() {
        let mut some = Addresses::default();
        some.insert(net("10.0.0.0/24"), "10.0.0.250-10.0.1.5".parse().unwrap());
        assert_eq!(some.to_string(), "10.0.0.250-10.0.0.255/24");
        some.insert(net("10.0.0.0/24"), "10.0.1.1".parse().unwrap());
        assert_eq!(some.count(), 6);
        let at_once: Addresses =
            [(net("10.0.0.0/24"), "10.0.0.250-10.0.1.5".parse().unwrap())].into_iter().collect();
        assert_eq!(at_once, some);
    }
}

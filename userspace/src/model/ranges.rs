//! Sets of addresses as ranges: 65,536 neighbours cost as much as one.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Addresses from `first` to `last`, both included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range {
    first: IpAddr,
    last: IpAddr,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRange {
    #[error("'{0}' is no address and no range of addresses (FIRST-LAST)")]
    Text(String),
    #[error("{0}-{1} mixes IPv4 and IPv6: both ends of a range must be of one family")]
    Families(IpAddr, IpAddr),
    #[error("{0}-{1} ends before it begins: give the lower address first")]
    Order(IpAddr, IpAddr),
}

impl Range {
    /// # Errors
    /// When the ends are of two families or in the wrong order.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, BadRange> {
        if first.is_ipv4() != last.is_ipv4() {
            return Err(BadRange::Families(first, last));
        }
        if first > last {
            return Err(BadRange::Order(first, last));
        }
        Ok(Self { first, last })
    }

    pub fn first(&self) -> IpAddr {
        self.first
    }

    pub fn last(&self) -> IpAddr {
        self.last
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.first <= address && address <= self.last
    }

    /// How many addresses; at most `u128::MAX`, which is one less than all of IPv6.
    pub fn count(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = self.first.is_ipv4();
        (number(self.first)..=number(self.last)).map(move |n| address(n, v4))
    }

    /// The fewest prefixes that make up the range exactly.
    pub fn prefixes(&self) -> Vec<IpNet> {
        match (self.first, self.last) {
            (IpAddr::V4(a), IpAddr::V4(b)) => ipnet::Ipv4Subnets::new(a, b, 0).map(IpNet::V4).collect(),
            (IpAddr::V6(a), IpAddr::V6(b)) => ipnet::Ipv6Subnets::new(a, b, 0).map(IpNet::V6).collect(),
            // Ruled out by `new`.
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Vec::new(),
        }
    }
}

impl From<IpAddr> for Range {
    fn from(address: IpAddr) -> Self {
        Self { first: address, last: address }
    }
}

impl From<IpNet> for Range {
    /// All of the prefix, its first and last address included.
    fn from(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self { first: net.network().into(), last: net.broadcast().into() },
            IpNet::V6(net) => Self { first: net.network().into(), last: net.broadcast().into() },
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return self.first.fmt(f);
        }
        f.pad(&format!("{}-{}", self.first, self.last))
    }
}

impl FromStr for Range {
    type Err = BadRange;
    fn from_str(text: &str) -> Result<Self, BadRange> {
        let one = |s: &str| s.trim().parse::<IpAddr>().map_err(|_| BadRange::Text(text.to_owned()));
        match text.split_once('-') {
            Some((first, last)) => Self::new(one(first)?, one(last)?),
            None => one(text).map(Self::from),
        }
    }
}

impl TryFrom<String> for Range {
    type Error = BadRange;
    fn try_from(text: String) -> Result<Self, BadRange> {
        text.parse()
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.to_string()
    }
}

/// A set of addresses: ranges in rising order that neither overlap nor touch. Equal sets are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Range>", into = "Vec<Range>")]
pub struct Ranges(Vec<Range>);

impl Ranges {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many addresses, at most `u64::MAX`.
    pub fn count(&self) -> u64 {
        let sum = self.0.iter().fold(0_u128, |sum, r| sum.saturating_add(r.count()));
        u64::try_from(sum).unwrap_or(u64::MAX)
    }

    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    pub fn first(&self) -> Option<IpAddr> {
        self.0.first().map(Range::first)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let at = self.0.partition_point(|r| r.last < address);
        self.0.get(at).is_some_and(|r| r.contains(address))
    }

    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.0.iter().flat_map(Range::iter)
    }

    pub fn insert(&mut self, range: Range) {
        self.0.push(range);
        *self = std::mem::take(&mut self.0).into();
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.0.iter().chain(&other.0).copied().collect()
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut i, mut j) = (0, 0);
        let mut both = Vec::new();
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            let (first, last) = (a.first.max(b.first), a.last.min(b.last));
            if first <= last {
                both.push(Range { first, last });
            }
            if a.last <= b.last { i += 1 } else { j += 1 }
        }
        Self(both)
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for range in &self.0 {
            let mut first = Some(range.first);
            let from = other.0.partition_point(|r| r.last < range.first);
            for hole in other.0[from..].iter().take_while(|r| r.first <= range.last) {
                let Some(start) = first else { break };
                if start < hole.first
                    && let Some(last) = before(hole.first)
                {
                    left.push(Range { first: start, last });
                }
                first = after(hole.last).filter(|next| *next <= range.last);
            }
            if let Some(first) = first {
                left.push(Range { first, last: range.last });
            }
        }
        Self(left)
    }

    /// The fewest prefixes that make up the set exactly.
    pub fn prefixes(&self) -> Vec<IpNet> {
        self.0.iter().flat_map(Range::prefixes).collect()
    }
}

impl From<Vec<Range>> for Ranges {
    fn from(mut ranges: Vec<Range>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<Range> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.first <= last.last || after(last.last) == Some(range.first) => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

impl From<Ranges> for Vec<Range> {
    fn from(ranges: Ranges) -> Self {
        ranges.0
    }
}

impl FromIterator<Range> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> Self {
        ranges.into_iter().collect::<Vec<_>>().into()
    }
}

impl FromIterator<IpAddr> for Ranges {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        addresses.into_iter().map(Range::from).collect()
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = self.0.iter().map(Range::to_string).collect();
        f.pad(&text.join(","))
    }
}

/// The prefix with all host bits kept as they are given.
pub fn with_length(address: IpAddr, length: u8) -> Option<IpNet> {
    match address {
        IpAddr::V4(a) => Ipv4Net::new(a, length).ok().map(IpNet::V4),
        IpAddr::V6(a) => Ipv6Net::new(a, length).ok().map(IpNet::V6),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    if v4 {
        // Only numbers between two IPv4 addresses come here: the upper bits are zero.
        Ipv4Addr::from(number as u32).into()
    } else {
        Ipv6Addr::from(number).into()
    }
}

fn after(last: IpAddr) -> Option<IpAddr> {
    match last {
        IpAddr::V4(a) => u32::from(a).checked_add(1).map(|n| Ipv4Addr::from(n).into()),
        IpAddr::V6(a) => u128::from(a).checked_add(1).map(|n| Ipv6Addr::from(n).into()),
    }
}

fn before(first: IpAddr) -> Option<IpAddr> {
    match first {
        IpAddr::V4(a) => u32::from(a).checked_sub(1).map(|n| Ipv4Addr::from(n).into()),
        IpAddr::V6(a) => u128::from(a).checked_sub(1).map(|n| Ipv6Addr::from(n).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> Ranges {
        text.split(',').filter(|t| !t.is_empty()).map(|t| t.parse::<Range>().unwrap()).collect()
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(set("10.0.0.3,10.0.0.1-10.0.0.2,10.0.0.9").to_string(), "10.0.0.1-10.0.0.3,10.0.0.9");
        assert_eq!(set("fd00::2,fd00::1,10.0.0.1").to_string(), "10.0.0.1,fd00::1-fd00::2");
        // The families do not touch each other.
        assert_eq!(set("255.255.255.255,::").ranges().len(), 2);
    }

    #[test]
    fn text_is_checked() {
        assert!("10.0.0.2-10.0.0.1".parse::<Range>().is_err());
        assert!("10.0.0.2-fd00::1".parse::<Range>().is_err());
        assert!("10.0.0".parse::<Range>().is_err());
        assert_eq!("10.0.0.2-10.0.0.2".parse::<Range>().unwrap().to_string(), "10.0.0.2");
    }

    #[test]
    fn prefixes_cover_exactly() {
        let all = set("10.9.0.1-10.9.255.254");
        let prefixes = all.prefixes();
        assert_eq!(prefixes.len(), 30);
        let back: Ranges = prefixes.into_iter().map(Range::from).collect();
        assert_eq!(back, all);
        assert_eq!(set("10.9.0.0-10.9.255.255").prefixes(), ["10.9.0.0/16".parse().unwrap()]);
        assert_eq!(set("fd00::-fd00::ffff").prefixes(), ["fd00::/112".parse().unwrap()]);
    }

    #[test]
    fn all_addresses_of_a_family_are_a_range() {
        let all = set("0.0.0.0-255.255.255.255");
        assert_eq!(all.count(), 1 << 32);
        assert_eq!(all.difference(&set("0.0.0.0,255.255.255.255")).to_string(), "0.0.0.1-255.255.255.254");
    }

    fn small() -> impl Strategy<Value = BTreeSet<u8>> {
        prop::collection::btree_set(0_u8..48, 0..24)
    }

    fn of(hosts: &BTreeSet<u8>) -> Ranges {
        let ip = |n: &u8| if n.is_multiple_of(2) || *n < 24 { IpAddr::from([10, 0, 0, *n]) } else { v6(*n) };
        hosts.iter().map(ip).collect()
    }

    fn v6(n: u8) -> IpAddr {
        Ipv6Addr::from(u128::from(n)).into()
    }

    proptest! {
        #[test]
        fn they_are_sets(a in small(), b in small()) {
            let (x, y) = (of(&a), of(&b));
            prop_assert_eq!(x.union(&y), of(&(&a | &b)));
            prop_assert_eq!(x.intersection(&y), of(&(&a & &b)));
            prop_assert_eq!(x.difference(&y), of(&(&a - &b)));
            prop_assert_eq!(x.count(), a.len() as u64);
            prop_assert_eq!(x.iter().count(), a.len());
            prop_assert!(x.iter().all(|ip| x.contains(ip)));
            prop_assert!(x.difference(&y).iter().all(|ip| !y.contains(ip)));
            let json = serde_json::to_string(&x).unwrap();
            prop_assert_eq!(serde_json::from_str::<Ranges>(&json).unwrap(), x);
        }
    }
}

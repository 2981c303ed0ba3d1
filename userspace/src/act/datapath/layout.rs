//! Which addresses share a page of the map `PAGES` and which stand alone in `VIPS`. Pure.

use std::net::IpAddr;

use datapath_common::{Address, PAGE_SIZE, Page};

use crate::model::{Range, Ranges};

/// A page pays from half its addresses on: its 256 activity slots are then at most twice what they would be
/// alone, which bounds the memory by the number of addresses.
pub(super) const DENSE: u32 = PAGE_SIZE / 2;

/// An address as a number: the order of keys is that of addresses, those of IPv4 in their mapped form.
pub(super) type Key = u128;

/// The number of an address.
pub(super) fn key(address: IpAddr) -> Key {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The address of a number.
pub(super) fn ip(key: Key) -> IpAddr {
    IpAddr::V6(key.into()).to_canonical()
}

/// The key of the maps.
pub(super) fn address(key: Key) -> Address {
    Address(key.to_be_bytes())
}

/// The first address of the page, and which of its addresses this is.
pub(super) fn split(key: Key) -> (Key, u8) {
    (key & !0xff, (key & 0xff) as u8)
}

/// A set of last bytes: which addresses of a page are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Members(pub(super) [u64; 4]);

impl Members {
    pub(super) const ALL: Self = Self([u64::MAX; 4]);

    pub(super) fn one(last: u8) -> Self {
        let mut one = Self::default();
        one.0[usize::from(last / 64)] = 1 << (last % 64);
        one
    }

    fn span(first: u8, last: u8) -> Self {
        (first..=last).map(Self::one).fold(Self::default(), Self::union)
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }

    pub(super) fn contains(self, last: u8) -> bool {
        self.0[usize::from(last / 64)] >> (last % 64) & 1 == 1
    }

    pub(super) fn count(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub(super) fn union(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    pub(super) fn intersection(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    pub(super) fn difference(self, other: Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    pub(super) fn first(self) -> Option<u8> {
        self.iter().next()
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |last| self.contains(*last))
    }

    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

/// The addresses by page, in order. The caller has made sure that they are not too many.
pub(super) fn pages(addresses: &Ranges) -> Vec<(Key, Members)> {
    let mut pages: Vec<(Key, Members)> = Vec::new();
    for range in addresses.ranges() {
        let (first, last) = (key(range.first()), key(range.last()));
        let mut from = first;
        loop {
            let (base, low) = split(from);
            let end = last.min(base | 0xff);
            let part = Members::span(low, split(end).1);
            match pages.last_mut() {
                Some((known, members)) if *known == base => *members = members.union(part),
                _ => pages.push((base, part)),
            }
            if end == last {
                break;
            }
            from = end + 1;
        }
    }
    pages
}

/// The addresses of a page as ranges.
pub(super) fn ranges(base: Key, members: Members) -> Vec<Range> {
    let mut ranges = Vec::new();
    let mut from = 0_u16;
    while from < 256 {
        let held = |n: &u16| members.contains(*n as u8);
        let Some(first) = (from..256).find(held) else { break };
        let end = (first..256).find(|n| !held(n)).unwrap_or(256);
        let address = |n: u16| ip(base | Key::from(n));
        // Of one page: of one family and in order.
        ranges.extend(Range::new(address(first), address(end - 1)).ok());
        from = end;
    }
    ranges
}

/// How a resource's addresses of one page are to be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One entry for all of them.
    Page,
    /// One entry each. Found even where the page belongs to another resource: what a page does not have
    /// as a member is looked up alone.
    Alone,
}

/// `room`: the page is this resource's already, or it is nobody's and there are 256 neighbouring slots for it.
pub(super) fn form(members: u32, room: bool) -> Form {
    if members >= DENSE && room { Form::Page } else { Form::Alone }
}

/// The value of a page's entry.
pub(super) fn page(base: Key, gate: u32, slot: u32, members: Members) -> Page {
    Page { mark: address(base).mark(), gate, slot, members: members.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Ranges {
        text.split(',').map(|t| t.parse::<Range>().unwrap()).collect()
    }

    #[test]
    fn keys_are_reversible() {
        for text in ["10.1.2.3", "fd00::1", "::1", "255.255.255.255"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(ip(key(address)), address);
        }
        assert_eq!(super::address(key("10.1.2.3".parse().unwrap())), Address::v4([10, 1, 2, 3]));
    }

    #[test]
    fn ranges_are_cut_into_pages_and_back() {
        for text in [
            "10.0.0.7",
            "10.0.0.0-10.0.0.255",
            "10.0.0.250-10.0.2.3",
            "10.0.0.1-10.0.0.3,10.0.0.9,10.0.0.255-10.0.1.0,fd00::ff-fd00::100",
            "255.255.255.255,ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            let addresses = set(text);
            let pages = pages(&addresses);
            assert!(pages.windows(2).all(|two| two[0].0 < two[1].0), "{pages:?}");
            assert_eq!(pages.iter().map(|(_, m)| u64::from(m.count())).sum::<u64>(), addresses.count());
            let back: Ranges = pages.iter().flat_map(|(base, members)| ranges(*base, *members)).collect();
            assert_eq!(back, addresses);
        }
    }

    #[test]
    fn a_page_pays_from_half_of_it_on() {
        assert_eq!(form(127, true), Form::Alone);
        assert_eq!(form(128, true), Form::Page);
        assert_eq!(form(256, false), Form::Alone);
    }

    #[test]
    fn bits_are_where_the_programs_look() {
        // Bit n % 64 of word n / 64.
        assert_eq!(Members::one(0).0, [1, 0, 0, 0]);
        assert_eq!(Members::one(63).0, [1 << 63, 0, 0, 0]);
        assert_eq!(Members::one(64).0, [0, 1, 0, 0]);
        assert_eq!(Members::one(255).0, [0, 0, 0, 1 << 63]);
        assert_eq!(Members::span(0, 255), Members::ALL);
        assert_eq!(Members::span(3, 5).iter().collect::<Vec<_>>(), [3, 4, 5]);
    }
}

//! Who used an address when, as the client saw it, and what must never be seen.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::frames::{Kind, Mac};

/// Nanoseconds of CLOCK_REALTIME: what the kernel stamps received frames with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(since.as_nanos() as u64)
    }

    /// How long after `earlier`; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A frame that claimed an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub time: Moment,
    pub address: IpAddr,
    pub mac: Mac,
    pub kind: Kind,
}

/// Frames in the order in which the kernel received them.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    pub records: Vec<Record>,
}

impl Timeline {
    /// What was seen from one moment (inclusive) to another (exclusive).
    pub fn between(&self, from: Moment, to: Moment) -> Self {
        let inside = |r: &&Record| r.time >= from && r.time < to;
        Self { records: self.records.iter().filter(inside).copied().collect() }
    }

    pub fn of(&self, address: IpAddr) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.iter().filter(move |r| r.address == address)
    }

    /// The last frame of any kind by which the host used the address.
    pub fn last_use(&self, address: IpAddr, mac: Mac) -> Option<Record> {
        self.of(address).rfind(|r| r.mac == mac).copied()
    }

    /// The last answer the host gave for the address.
    pub fn last_answer(&self, address: IpAddr, mac: Mac) -> Option<Record> {
        self.of(address).rfind(|r| r.mac == mac && r.kind.is_answer()).copied()
    }

    /// The first answer the host gave for the address.
    pub fn first_answer(&self, address: IpAddr, mac: Mac) -> Option<Record> {
        self.of(address).find(|r| r.mac == mac && r.kind.is_answer()).copied()
    }

    /// The first announcement by the host.
    pub fn first_announcement(&self, address: IpAddr, mac: Mac) -> Option<Record> {
        self.of(address).find(|r| r.mac == mac && r.kind == Kind::Announcement).copied()
    }

    /// The longest time between two answers for the address, whoever gave them.
    pub fn longest_silence(&self, address: IpAddr) -> Duration {
        let answers: Vec<_> = self.of(address).filter(|r| r.kind.is_answer()).collect();
        answers.windows(2).map(|pair| pair[1].time.since(pair[0].time)).max().unwrap_or_default()
    }

    /// Who used the address, one after another.
    pub fn users(&self, address: IpAddr) -> Vec<Mac> {
        let mut users: Vec<Mac> = self.of(address).map(|r| r.mac).collect();
        users.dedup();
        users
    }

    /// Frames that a host sent outside its term. `terms` are the owners one after another, as the
    /// cluster granted them: once the next owner was seen, a frame of an earlier one is a double
    /// answer, and so is any frame of a host that never owned the address.
    pub fn outside_terms(&self, address: IpAddr, terms: &[Mac]) -> Vec<Record> {
        let mut term = 0;
        let mut outside = Vec::new();
        for record in self.of(address) {
            if terms.get(term) == Some(&record.mac) {
                continue;
            }
            // A term may pass without a single frame.
            match terms.iter().skip(term + 1).position(|mac| *mac == record.mac) {
                Some(ahead) => term += 1 + ahead,
                None => outside.push(*record),
            }
        }
        outside
    }

    /// Answers by host, for summaries.
    pub fn answers_by_host(&self) -> BTreeMap<Mac, usize> {
        let mut counts = BTreeMap::new();
        for record in self.records.iter().filter(|r| r.kind.is_answer()) {
            *counts.entry(record.mac).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 50));

    fn mac(name: char) -> Mac {
        Mac([2, 0, 0, 0, 0, name as u8])
    }

    fn timeline(hosts: &str) -> Timeline {
        let record = |(i, name): (usize, char)| Record {
            time: Moment(i as u64 * 1_000_000),
            address: VIP,
            mac: mac(name),
            kind: Kind::ArpReply,
        };
        Timeline { records: hosts.chars().enumerate().map(record).collect() }
    }

    fn outside(hosts: &str, terms: &str) -> usize {
        let terms: Vec<Mac> = terms.chars().map(mac).collect();
        timeline(hosts).outside_terms(VIP, &terms).len()
    }

    #[test]
    fn an_owner_is_silent_once_the_next_one_answered() {
        assert_eq!(outside("aaabbb", "ab"), 0);
        assert_eq!(outside("aaabab", "ab"), 1);
        assert_eq!(outside("aaa", "ab"), 0);
        assert_eq!(outside("aaac", "ab"), 1);
        assert_eq!(outside("", "ab"), 0);
    }

    #[test]
    fn ownership_may_return_when_it_was_granted_again() {
        assert_eq!(outside("aabba", "ab"), 1);
        assert_eq!(outside("aabba", "aba"), 0);
        assert_eq!(outside("aabbabb", "aba"), 2);
        assert_eq!(outside("aac", "abc"), 0, "a term without frames");
    }

    #[test]
    fn silences_are_measured_between_answers() {
        let mut t = timeline("aab");
        t.records[2].time = Moment(50_000_000);
        assert_eq!(t.longest_silence(VIP), Duration::from_millis(49));
        assert_eq!(t.users(VIP), [mac('a'), mac('b')]);
        assert_eq!(t.first_answer(VIP, mac('b')).unwrap().time, Moment(50_000_000));
    }
}

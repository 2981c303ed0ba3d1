//! What to do about another host that claims an address that is in service here (row DP-10, RFC 5227
//! section 2.4, and for IPv6 in the same spirit).

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use super::time::BootTime;
use crate::model::{OnConflict, ResourceId};

/// An address is defended at most once in this time (RFC 5227 section 1.1, DEFEND_INTERVAL).
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Claims are remembered this long for `vipctl status`.
pub const REMEMBERED: Duration = Duration::from_secs(60);

/// Who said what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub address: IpAddr,
    pub mac: [u8; 6],
    pub kind: ClaimKind,
    pub at: BootTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKind {
    ArpReply,
    ArpAnnouncement,
    NdAdvertisement,
    /// The address was the sender of a question for another one.
    Source,
    /// Somebody asks before using the address. The datapath answers, which tells it not to; so this is no
    /// conflict yet.
    Probe,
}

impl ClaimKind {
    pub fn is_claim(self) -> bool {
        self != Self::Probe
    }
}

impl fmt::Display for ClaimKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ArpReply => "answers ARP for",
            Self::ArpAnnouncement => "announces",
            Self::NdAdvertisement => "advertises",
            Self::Source => "sends as",
            Self::Probe => "probes for",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// Tell it, and no more.
    Tell,
    /// Announce the address once.
    Defend,
    /// The resource fails here.
    Yield,
}

/// The conflicts of one address, as far as they are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub group: ResourceId,
    pub last: Claim,
    /// Claims told of; the kernel tells of one a second at most.
    pub count: u64,
    defended: Option<BootTime>,
}

/// What is remembered of conflicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts(BTreeMap<IpAddr, Known>);

impl Conflicts {
    /// Takes a claim down and says what to do.
    pub fn heard(&mut self, group: ResourceId, claim: Claim, policy: OnConflict) -> Response {
        self.forget(claim.at);
        if !claim.kind.is_claim() {
            return Response::Tell;
        }
        let known =
            self.0.entry(claim.address).or_insert(Known { group, last: claim, count: 0, defended: None });
        if known.group != group {
            *known = Known { group, last: claim, count: 0, defended: None };
        }
        known.last = claim;
        known.count += 1;
        match policy {
            OnConflict::Report => Response::Tell,
            OnConflict::Yield => Response::Yield,
            OnConflict::Defend => {
                let lately = known.defended.is_some_and(|t| claim.at.since(t) < DEFEND_INTERVAL);
                if lately {
                    return Response::Tell;
                }
                known.defended = Some(claim.at);
                Response::Defend
            }
        }
    }

    /// Those that are not too old, by address.
    pub fn recent(&self, now: BootTime) -> impl Iterator<Item = (&IpAddr, &Known)> {
        self.0.iter().filter(move |(_, known)| now.since(known.last.at) < REMEMBERED)
    }

    fn forget(&mut self, now: BootTime) {
        self.0.retain(|_, known| now.since(known.last.at) < REMEMBERED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(kind: ClaimKind, seconds: u64) -> Claim {
        let at = BootTime(seconds * 1_000_000_000);
        Claim { address: "10.0.0.9".parse().unwrap(), mac: [2, 0, 0, 0, 0, 9], kind, at }
    }

    #[test]
    fn a_defence_once_in_an_interval() {
        let mut conflicts = Conflicts::default();
        let mut heard = |s| conflicts.heard(1, claim(ClaimKind::ArpReply, s), OnConflict::Defend);
        let said: Vec<Response> = [100, 101, 109, 110, 111, 130].map(&mut heard).into();
        use Response::{Defend, Tell};
        assert_eq!(said, [Defend, Tell, Tell, Defend, Tell, Defend]);
        let (_, known) = conflicts.recent(BootTime(131_000_000_000)).next().unwrap();
        assert_eq!((known.count, known.last.at), (6, BootTime(130_000_000_000)));
    }

    #[test]
    fn the_policy_decides_and_a_probe_is_no_claim() {
        let mut conflicts = Conflicts::default();
        let mut heard = |kind, policy| conflicts.heard(1, claim(kind, 1), policy);
        assert_eq!(heard(ClaimKind::Probe, OnConflict::Yield), Response::Tell);
        assert_eq!(heard(ClaimKind::Probe, OnConflict::Defend), Response::Tell);
        assert_eq!(heard(ClaimKind::NdAdvertisement, OnConflict::Yield), Response::Yield);
        assert_eq!(heard(ClaimKind::Source, OnConflict::Report), Response::Tell);
        assert_eq!(conflicts.recent(BootTime(2_000_000_000)).count(), 1);
    }

    #[test]
    fn old_conflicts_are_forgotten() {
        let mut conflicts = Conflicts::default();
        conflicts.heard(1, claim(ClaimKind::ArpReply, 1), OnConflict::Report);
        assert_eq!(conflicts.recent(BootTime(60_000_000_000)).count(), 1);
        assert_eq!(conflicts.recent(BootTime(61_000_000_001)).count(), 0);
        // The address belongs to another resource by now: what was is not that one's.
        conflicts.heard(2, claim(ClaimKind::ArpReply, 2), OnConflict::Report);
        assert_eq!(conflicts.recent(BootTime(3_000_000_000)).next().unwrap().1.count, 1);
    }
}

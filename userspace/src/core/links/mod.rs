//! What each interface of this host is good for (rows NM-1, NM-5).
//!
//! ```text
//!           lost: at once                     nothing received, peers transmit
//!   Up ----------------------> Missing,      Up ------------------------------> Deaf
//!    ^                         AdminDown,     ^                                   |
//!    | back: at once, but      NoCarrier      |  heard for a while, or nobody     |
//!    | `recovering` for a hold    |           |  transmits any more               |
//!    +----------------------------+           +-----------------------------------+
//! ```
//!
//! Invariant: an interface is deaf only while peers are known to transmit to it. That all are silent is a
//! matter of the nodes, and no reason to leave an interface.

mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::table::{LinkReport, LinkTable};
use super::time::BootTime;
use crate::model::NodeId;

/// What an interface is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkHealth {
    Up,
    AdminDown,
    NoCarrier,
    /// There is no interface of that name.
    Missing,
    /// It has a carrier and hears nothing, although peers transmit.
    Deaf,
    /// It hears, but no polling target of a monitored subnet answers through it.
    Unreachable,
}

/// How patient the verdicts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTiming {
    /// Nothing received for this long although peers transmit: deaf. Frames without a gap of that length,
    /// for that long: heard again.
    pub deaf_after: Duration,
    /// How long an interface that came back is `recovering`.
    pub hold: Duration,
}

/// What is seen of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// None: there is no such interface.
    pub link: Option<Signal>,
    /// None: nobody counts its frames, so that silence can't be told from traffic.
    pub received: Option<Received>,
    /// A peer that transmits on the path of this interface: it says so on another path.
    pub transmitting: Option<NodeId>,
    /// Why no polling target can be reached through it.
    pub unreachable: Option<String>,
}

/// Netlink's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    pub admin_up: bool,
    pub carrier: bool,
}

/// The newest frame; None for none since frames are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    pub last: Option<BootTime>,
}

/// A change of the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub from: LinkHealth,
    pub to: LinkHealth,
}

/// Follows one interface.
#[derive(Clone, Debug)]
pub struct LinkWatch {
    health: LinkHealth,
    since: BootTime,
    why: String,
    /// Until when it is recovering.
    recovering: Option<BootTime>,
    /// Since when peers have transmitted and nothing was received.
    silent_from: Option<BootTime>,
    /// While deaf: since when peers have no longer been known to transmit.
    unknown_from: Option<BootTime>,
    /// While deaf: since when frames have been coming again.
    heard_from: Option<BootTime>,
    seen: BootTime,
}

impl LinkWatch {
    /// As it is found: what is up then is not recovering from anything.
    pub fn new(now: BootTime, sight: &Sight) -> Self {
        let (health, why) = signal(sight).unwrap_or((LinkHealth::Up, String::new()));
        Self {
            health,
            since: now,
            why,
            recovering: None,
            silent_from: None,
            unknown_from: None,
            heard_from: None,
            seen: now,
        }
    }

    pub fn health(&self) -> LinkHealth {
        self.health
    }

    /// Looks at it now; the change of the verdict, if there was one.
    pub fn see(&mut self, now: BootTime, sight: &Sight, timing: &LinkTiming) -> Option<Turn> {
        let gap = now.since(self.seen);
        self.seen = now;
        self.listen(now, gap, sight, timing);
        let (health, why) = self.judge(now, sight, timing);
        self.why = why;
        if self.recovering.is_some_and(|until| now >= until) {
            self.recovering = None;
        }
        if health == self.health {
            return None;
        }
        let turn = Turn { from: self.health, to: health };
        self.health = health;
        self.since = now;
        self.recovering = (health == LinkHealth::Up).then(|| now.after(timing.hold));
        if health != LinkHealth::Deaf {
            (self.unknown_from, self.heard_from) = (None, None);
        }
        // After a change the silence begins anew: a carrier that came back has not been listened to yet.
        self.silent_from = self.silent_from.filter(|_| health == LinkHealth::Deaf);
        Some(turn)
    }

    /// Keeps the times of silence and of sound.
    fn listen(&mut self, now: BootTime, gap: Duration, sight: &Sight, timing: &LinkTiming) {
        let last = sight.received.and_then(|r| r.last);
        let awaited = signal(sight).is_none() && sight.received.is_some() && sight.transmitting.is_some();
        // Who has not looked for a while does not know what peers did meanwhile: the host was stopped.
        let looked = gap < timing.deaf_after / 2;
        self.silent_from = match self.silent_from {
            Some(from) if awaited && looked => Some(last.map_or(from, |l| l.max(from))),
            _ if awaited => Some(now),
            _ => None,
        };
        self.unknown_from = if awaited { None } else { self.unknown_from.or(Some(now)) };
        let fresh = last.filter(|l| now.since(*l) < timing.deaf_after && *l > self.since);
        self.heard_from = fresh.map(|l| self.heard_from.unwrap_or(l));
    }

    fn judge(&self, now: BootTime, sight: &Sight, timing: &LinkTiming) -> (LinkHealth, String) {
        if let Some(lost) = signal(sight) {
            return lost;
        }
        let reached = match self.health {
            LinkHealth::Deaf => {
                let long = |from: Option<BootTime>| from.is_some_and(|t| now.since(t) >= timing.deaf_after);
                long(self.heard_from) || long(self.unknown_from)
            }
            LinkHealth::Up
            | LinkHealth::AdminDown
            | LinkHealth::NoCarrier
            | LinkHealth::Missing
            | LinkHealth::Unreachable => {
                self.silent_from.is_none_or(|from| now.since(from) < timing.deaf_after)
            }
        };
        match &sight.unreachable {
            _ if !reached => {
                let why = "it has a carrier and receives nothing, although peers transmit";
                (LinkHealth::Deaf, why.to_owned())
            }
            Some(why) => (LinkHealth::Unreachable, why.clone()),
            None => (LinkHealth::Up, String::new()),
        }
    }

    /// What to tell of it.
    pub fn report(&self) -> LinkReport {
        LinkReport {
            health: self.health,
            recovering: self.recovering.is_some(),
            since: self.since,
            why: self.why.clone(),
            stationary: Vec::new(),
        }
    }
}

/// What netlink says against it.
fn signal(sight: &Sight) -> Option<(LinkHealth, String)> {
    let (health, why) = match sight.link {
        None => (LinkHealth::Missing, "there is no such interface"),
        Some(Signal { admin_up: false, .. }) => (LinkHealth::AdminDown, "it is switched off"),
        Some(Signal { carrier: false, .. }) => (LinkHealth::NoCarrier, "it has no carrier"),
        Some(Signal { admin_up: true, carrier: true }) => return None,
    };
    Some((health, why.to_owned()))
}

/// A peer as the heartbeats show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerPaths {
    pub node: NodeId,
    /// Per path: when it was heard last.
    pub heard: Vec<Option<BootTime>>,
    /// Per path: it said, when last heard, that it transmits there.
    pub transmits: Vec<bool>,
}

/// A peer that transmits on a path of `interface`, by its own word on a path of another one. `carriers` has
/// the interface of each path of this node, `fresh` is how old that word may be.
pub fn transmitting(
    interface: &str,
    carriers: &[Option<String>],
    peers: &[PeerPaths],
    now: BootTime,
    fresh: Duration,
) -> Option<NodeId> {
    let on = |path: usize| carriers.get(path).and_then(Option::as_deref);
    let sends = |p: &PeerPaths| p.transmits.iter().enumerate().any(|(i, t)| *t && on(i) == Some(interface));
    let speaks = |p: &PeerPaths| {
        p.heard.iter().enumerate().any(|(i, heard)| {
            on(i).is_some_and(|other| other != interface) && heard.is_some_and(|t| now.since(t) < fresh)
        })
    };
    peers.iter().find(|p| sends(p) && speaks(p)).map(|p| p.node)
}

//! What a sequence wants done, and what came of it. The executor is [`crate::act::executor`].

use std::{net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use vipd_ec2::Call;

use super::cloud::{Answer, Ask};
use crate::model::{Accept, Addresses, Epoch, Ranges, ResourceId};

/// One effect on this host. Every command is answered with one [`Effect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// -> `Effect::Link`
    ReadLink { device: String },
    /// -> `Effect::Done`
    SetLink { device: String, up: bool },
    /// -> `Effect::Done`
    Wait { duration: Duration },
    /// -> `Effect::Presence`
    ReadAddresses { place: Place },
    /// ARP probes (RFC 5227) or neighbour solicitations. What this node's own interfaces say does not count
    /// -> `Effect::Claims`
    ProbeDuplicates { addresses: Arc<Addresses>, device: String },
    /// Tell the datapath of the addresses, beside those that it knows. A new resource's gate is closed; a
    /// known one's stays as it is, unless the resource moves to another device: then it is closed
    /// -> `Effect::Done`
    Program { group: ResourceId, addresses: Arc<Addresses>, device: String },
    /// Take the addresses out of the datapath -> `Effect::Done`
    Unprogram { group: ResourceId, addresses: Arc<Addresses> },
    /// Allow answers, under the present lease -> `Effect::Done`
    OpenGate { group: ResourceId, epoch: Epoch },
    /// -> `Effect::Done`
    CloseGate { group: ResourceId },
    /// Makes the kernel accept packets for them, in this way beside others -> `Effect::Done`, also for those
    /// that were there
    AddAddresses { place: Place },
    /// The opposite, of these addresses in this way only, whoever put them there -> `Effect::Done`, also for
    /// those that were not there
    DeleteAddresses { place: Place },
    /// Removes the local host routes left behind, if any; vipd's own and the kernel's -> `Effect::Done`
    DeleteHostRoutes { addresses: Arc<Addresses>, device: String },
    /// -> `Effect::Done`
    FlushRouteCache,
    /// Forget what the device's neighbours were -> `Effect::Done`
    FlushNeighbours { device: String },
    /// The first address of each IPv4 subnet becomes the source of that subnet's route (row IP-12)
    /// -> `Effect::Done`
    SetSource { addresses: Arc<Addresses>, device: String },
    /// The routes of these subnets get the source back that they would have without the addresses
    /// -> `Effect::Done`, also where another one is their source or there is no such route
    UnsetSource { addresses: Arc<Addresses>, device: String },
    /// Gratuitous ARPs or unsolicited advertisements, of each at least one before this is done; more follow
    /// in the background (row IP-16) -> `Effect::Done`
    Announce { addresses: Arc<Addresses>, device: String },
    /// No more announcements in the background -> `Effect::Done`
    Withdraw { addresses: Arc<Addresses> },
    /// Pings all targets at once from the address; the node's own addresses do not count
    /// -> `Effect::Answers`
    PingList { source: IpAddr, device: String, targets: Vec<IpAddr>, tries: u32, wait: Duration },
    /// Broadcast (IPv4) or all-nodes (IPv6) ping from the address; the node's own addresses do not
    /// count -> `Effect::Answers`
    BroadcastPing { source: IpNet, device: String, tries: u32, wait: Duration },
    /// -> `Effect::Cloud`
    Cloud { call: Call, ask: Ask },
}

/// Addresses where they are or should be, and how the kernel accepts packets for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub addresses: Arc<Addresses>,
    pub device: String,
    pub accept: Accept,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Done,
    Link(LinkState),
    Presence(Presence),
    /// Others that use addresses; not necessarily all of them when there are many.
    Claims(Vec<Claim>),
    /// Who answered.
    Answers(Vec<IpAddr>),
    Cloud(Answer),
    /// The effect failed: what was tried and what happened, for an operator to read.
    Failed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    Missing,
    /// Administratively down.
    Down,
    /// Up without carrier.
    NoCarrier,
    Up,
}

/// Somebody else uses an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub address: IpAddr,
    /// Link-layer address, as text.
    pub by: String,
}

/// Which of the addresses asked for are on this host; those mentioned nowhere are absent. Every place is
/// told: after an interrupted move an address is in the right one and misplaced at the same time. The
/// local routes that the kernel makes for its own addresses are no place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// In the right place, put there by vipd.
    pub ours: Addresses,
    /// In the right place, put there by somebody else.
    pub foreign: Addresses,
    /// On another device, with another prefix length, or accepted in another way.
    pub misplaced: Vec<Misplaced>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    pub place: Place,
    pub ours: bool,
}

impl Presence {
    /// In the right place, whoever put it there.
    pub fn here(&self) -> Addresses {
        self.ours.union(&self.foreign)
    }

    /// Those of the wanted addresses that are nowhere on this host.
    pub fn absent(&self, wanted: &Addresses) -> Addresses {
        let mut found = self.here().hosts();
        for misplaced in &self.misplaced {
            found = found.union(&misplaced.place.addresses.hosts());
        }
        wanted.without(&found)
    }

    /// Where vipd put them and they should not be.
    pub fn of_ours(&self) -> impl Iterator<Item = &Place> {
        self.misplaced.iter().filter(|m| m.ours).map(|m| &m.place)
    }

    /// Where somebody else put them and they should not be.
    pub fn of_others(&self) -> impl Iterator<Item = &Place> {
        self.misplaced.iter().filter(|m| !m.ours).map(|m| &m.place)
    }

    /// What is on the device of `place`, accepted in its way; `asked` is the place that was asked for.
    pub fn at(&self, asked: &Place, place: &Place) -> Ranges {
        let same = |other: &Place| other.device == place.device && other.accept == place.accept;
        let here = if same(asked) { self.here().hosts() } else { Ranges::default() };
        let there = self.misplaced.iter().filter(|m| same(&m.place));
        there.fold(here, |all, m| all.union(&m.place.addresses.hosts()))
    }
}

//! A model of a host: its kernel, its datapath and its network, as far as one resource is concerned.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::Ranges;

/// An address somewhere on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) address: IpNet,
    pub(super) device: &'static str,
    /// By a route instead of by assignment.
    pub(super) route: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// And whether vipd put it there.
    pub(super) entries: BTreeMap<Entry, bool>,
    pub(super) programmed: BTreeSet<IpAddr>,
    /// The device of the gate, and whether it is open.
    pub(super) gate: Option<(String, bool)>,
    /// By device and subnet: the source address of its route.
    pub(super) sources: BTreeMap<(String, IpNet), IpAddr>,
    /// A route went with the address that was its source.
    pub(super) route_lost: bool,
    pub(super) announced: BTreeSet<IpAddr>,
    /// Whom the duplicate probe finds elsewhere, and whether pings are answered.
    pub(super) claimed: BTreeSet<IpAddr>,
    pub(super) answered: bool,
    /// Of eth0; eth1 has none.
    pub(super) link: LinkState,
}

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Luck {
    Works,
    Fails,
    /// Does it for the first of its addresses and says that it failed.
    FailsHalfway,
    /// Does it and says that it failed.
    FailsAfterwards,
}

fn ips(addresses: &Addresses) -> Vec<IpAddr> {
    addresses.iter().map(|a| a.addr()).collect()
}

fn known(device: &str) -> &'static str {
    ["eth0", "eth1"].into_iter().find(|d| *d == device).expect("a device of the model")
}

fn entries_of(place: &Place) -> Vec<Entry> {
    let (device, route) = (known(&place.device), place.accept != Accept::Assign);
    place.addresses.iter().map(|address| Entry { address, device, route }).collect()
}

impl Host {
    /// May a client get an answer? Without an entry in the datapath the kernel answers by itself.
    pub(super) fn answers(&self, ip: IpAddr) -> bool {
        if self.programmed.contains(&ip) { self.is_open() } else { self.is_here(ip) }
    }

    pub(super) fn is_open(&self) -> bool {
        self.gate.as_ref().is_some_and(|(_, open)| *open)
    }

    pub(super) fn is_here(&self, ip: IpAddr) -> bool {
        self.entries.keys().any(|e| e.address.addr() == ip)
    }

    pub(super) fn ours(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|(_, ours)| **ours).map(|(entry, _)| entry)
    }

    /// Accepted as the context wants it.
    pub(super) fn in_place(&self, c: &Context) -> bool {
        entries_of(&c.place()).iter().all(|e| self.entries.contains_key(e))
    }

    fn presence(&self, place: &Place) -> Presence {
        let wanted = place.addresses.hosts();
        let home: BTreeSet<Entry> = entries_of(place).into_iter().collect();
        let mut presence = Presence::default();
        let mut elsewhere = BTreeMap::<(&str, bool, bool), Vec<IpNet>>::new();
        for (entry, ours) in &self.entries {
            if !wanted.contains(entry.address.addr()) {
                continue;
            }
            let one = Addresses::from(entry.address);
            match (home.contains(entry), *ours) {
                (true, true) => presence.ours = presence.ours.union(&one),
                (true, false) => presence.foreign = presence.foreign.union(&one),
                (false, ours) => {
                    elsewhere.entry((entry.device, entry.route, ours)).or_default().push(entry.address);
                }
            }
        }
        for ((device, route, ours), addresses) in elsewhere {
            let accept = if route { Accept::Route } else { Accept::Assign };
            let place =
                Place { addresses: Arc::new(addresses.into_iter().collect()), ..place_of(&set(&[]), device) };
            presence.misplaced.push(Misplaced { place: Place { accept, ..place }, ours });
        }
        presence
    }

    fn missing(&self, device: &str) -> bool {
        device == DEVICE && self.link == LinkState::Missing
    }

    fn add(&mut self, place: &Place) -> Effect {
        if self.missing(&place.device) {
            return failed("no such device");
        }
        for entry in entries_of(place) {
            let same = |e: &&Entry| {
                e.address.addr() == entry.address.addr() && e.device == entry.device && e.route == entry.route
            };
            match self.entries.keys().find(same) {
                Some(other) if other.address != entry.address => return failed("another prefix length"),
                Some(_) => {}
                None => {
                    self.entries.insert(entry, true);
                }
            }
        }
        Effect::Done
    }

    fn delete(&mut self, gone: impl Fn(&Entry) -> bool) {
        self.entries.retain(|e, _| !gone(e));
        let entries = &self.entries;
        let here =
            |device: &str, ip: IpAddr| entries.keys().any(|e| e.device == device && e.address.addr() == ip);
        let lost = self.sources.iter().filter(|((device, _), ip)| !here(device, **ip)).count();
        self.route_lost |= lost > 0;
        self.sources.retain(|(device, _), ip| here(device, *ip));
    }

    fn program(&mut self, addresses: &Addresses, device: &str) -> Effect {
        if self.missing(device) {
            return failed("no such device");
        }
        if self.gate.as_ref().is_none_or(|(known, _)| known != device) {
            self.gate = Some((device.to_owned(), false));
        }
        self.programmed.extend(ips(addresses));
        Effect::Done
    }

    pub(super) fn perform(&mut self, command: &Command, luck: Luck) -> Effect {
        match luck {
            Luck::Works => self.works(command),
            Luck::Fails => failed("no luck"),
            Luck::FailsAfterwards => {
                self.works(command);
                failed("no luck, but done")
            }
            Luck::FailsHalfway => {
                if let Some(half) = halve(command) {
                    self.works(&half);
                }
                failed("no luck, and half done")
            }
        }
    }

    fn works(&mut self, command: &Command) -> Effect {
        match command {
            Command::ReadLink { device } if device == DEVICE => return Effect::Link(self.link),
            Command::ReadLink { .. } => return Effect::Link(LinkState::NoCarrier),
            Command::SetLink { .. } if self.link == LinkState::Missing => return failed("missing"),
            Command::SetLink { up, .. } => {
                self.link = if *up { LinkState::Up } else { LinkState::Down };
            }
            Command::ReadAddresses { place } => return Effect::Presence(self.presence(place)),
            Command::ProbeDuplicates { addresses, .. } => {
                let claimed = ips(addresses).into_iter().filter(|ip| self.claimed.contains(ip));
                return Effect::Claims(
                    claimed.map(|address| Claim { address, by: "02::1".into() }).collect(),
                );
            }
            Command::Program { addresses, device, .. } => return self.program(addresses, device),
            Command::Unprogram { addresses, .. } => {
                for ip in ips(addresses) {
                    self.programmed.remove(&ip);
                }
                if self.programmed.is_empty() {
                    self.gate = None;
                }
            }
            Command::OpenGate { .. } => match &mut self.gate {
                Some((_, open)) => *open = true,
                None => return failed("not programmed"),
            },
            Command::CloseGate { .. } => {
                if let Some((_, open)) = &mut self.gate {
                    *open = false;
                }
            }
            Command::AddAddresses { place } => return self.add(place),
            Command::DeleteAddresses { place } => {
                let gone = entries_of(place);
                self.delete(|e| gone.contains(e));
            }
            Command::DeleteHostRoutes { addresses, device } => {
                let hosts: Ranges = addresses.hosts();
                self.delete(|e| e.route && e.device == device && hosts.contains(e.address.addr()));
            }
            Command::SetSource { addresses, device } => {
                if self.missing(device) {
                    return failed("no such device");
                }
                for first in addresses.firsts().filter(|a| a.addr().is_ipv4()) {
                    if !self.is_here(first.addr()) {
                        return failed("no address of this host");
                    }
                    self.sources.insert((device.clone(), first.trunc()), first.addr());
                }
            }
            Command::UnsetSource { addresses, device } => {
                self.sources.retain(|(d, _), ip| d != device || !addresses.contains(*ip));
            }
            Command::Announce { addresses, .. } => self.announced.extend(ips(addresses)),
            Command::Withdraw { addresses } => {
                for ip in ips(addresses) {
                    self.announced.remove(&ip);
                }
            }
            Command::PingList { .. } | Command::BroadcastPing { .. } if self.answered => return somebody(),
            Command::PingList { .. } | Command::BroadcastPing { .. } => return nobody(),
            Command::Cloud { .. } => return Effect::Failed("this host is not in EC2".to_owned()),
            Command::Wait { .. } | Command::FlushRouteCache | Command::FlushNeighbours { .. } => {}
        }
        Effect::Done
    }
}

/// The command for the first of its addresses only; none if it cannot be done halfway.
fn halve(command: &Command) -> Option<Command> {
    let half = |all: &Addresses| all.first().map(|first| Arc::new(Addresses::from(first)));
    let half_place = |p: &Place| Some(Place { addresses: half(&p.addresses)?, ..p.clone() });
    match command {
        Command::AddAddresses { place } => Some(Command::AddAddresses { place: half_place(place)? }),
        Command::DeleteAddresses { place } => Some(Command::DeleteAddresses { place: half_place(place)? }),
        Command::Unprogram { group, addresses } => {
            Some(Command::Unprogram { group: *group, addresses: half(addresses)? })
        }
        Command::Announce { addresses, device } => {
            Some(Command::Announce { addresses: half(addresses)?, device: device.clone() })
        }
        _ => None,
    }
}

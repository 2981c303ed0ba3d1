//! Takes addresses away from where they are (row IP-7), and tells what is left of them.

use std::collections::VecDeque;

use super::{answer, has_ipv4, log::Log};
use crate::{
    core::command::{Command, Effect, Place},
    model::Ranges,
};

/// The names of the notes, by the sequence that clears.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds {
    pub(super) source: &'static str,
    pub(super) address: &'static str,
    pub(super) host_route: &'static str,
    pub(super) route_cache: &'static str,
    pub(super) look: &'static str,
    /// Something of it did not work.
    pub(super) failed: &'static str,
}

/// ```text
///  place --IPv4--> Source -> Address -> HostRoute --> next place
///  no more --> RouteCache --all deleted--> cleared
///                 +--something failed, or nobody knew the places--> Look --> cleared
/// ```
///
/// What fails stops nothing: the rest goes all the same.
#[derive(Clone, Debug)]
pub(super) struct Clear {
    kinds: Kinds,
    at: At,
    rest: VecDeque<Place>,
    /// Where the addresses should be by the resource: what is looked for at the end.
    home: Place,
    /// Host routes of this device are how the addresses are accepted from now on.
    spare: Option<String>,
    /// The places are a guess.
    guess: bool,
    failed: Vec<Place>,
    cleared: Cleared,
}

#[derive(Clone, Debug)]
enum At {
    Source(Place),
    Address(Place),
    HostRoute(Place),
    RouteCache,
    Look,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Cleared {
    /// Still here, or not known to be gone.
    pub(super) left: Ranges,
    /// Why.
    pub(super) reasons: Vec<String>,
    /// Somebody else's, where nobody could look before.
    pub(super) others: Ranges,
}

pub(super) enum Next {
    /// A note for it is in the log.
    Run(Clear, Command),
    Cleared(Cleared),
}

impl Clear {
    /// Of places that a look has found. `spare`: a device whose host routes stay.
    pub(super) fn begin(
        places: impl IntoIterator<Item = Place>,
        home: Place,
        spare: Option<&str>,
        kinds: Kinds,
        log: &mut Log,
    ) -> Next {
        let rest: VecDeque<Place> = places.into_iter().collect();
        if rest.is_empty() {
            return Next::Cleared(Cleared::default());
        }
        let spare = spare.map(str::to_owned);
        Self::new(rest, home, spare, kinds, false).next(log)
    }

    /// Nobody could look: of where the addresses should be, and then it is looked again.
    pub(super) fn guess(home: Place, kinds: Kinds, log: &mut Log) -> Next {
        Self::new([home.clone()].into(), home, None, kinds, true).next(log)
    }

    fn new(rest: VecDeque<Place>, home: Place, spare: Option<String>, kinds: Kinds, guess: bool) -> Self {
        let (failed, cleared) = (Vec::new(), Cleared::default());
        Self { kinds, at: At::RouteCache, rest, home, spare, guess, failed, cleared }
    }

    pub(super) fn step(mut self, effect: Effect, log: &mut Log) -> Next {
        match self.at.clone() {
            At::Source(place) => {
                if let Err(why) = answer::done(effect) {
                    let device = &place.device;
                    log.say(
                        self.kinds.failed,
                        format!("a source address of {device} was not set back: {why}"),
                    );
                }
                self.delete(place, log)
            }
            At::Address(place) => {
                if let Err(why) = answer::done(effect) {
                    self.note(format!(
                        "{} could not be deleted from {}: {why}",
                        place.addresses, place.device
                    ));
                    self.failed.push(place.clone());
                }
                if self.spare.as_ref() == Some(&place.device) {
                    return self.next(log);
                }
                let Place { addresses, device, .. } = place.clone();
                log.say(self.kinds.host_route, format!("delete host routes of {addresses} left on {device}"));
                self.at = At::HostRoute(place);
                Next::Run(self, Command::DeleteHostRoutes { addresses, device })
            }
            At::HostRoute(place) => {
                if let Err(why) = answer::done(effect) {
                    let what = format!("host routes of {} on {}", place.addresses, place.device);
                    self.note(format!("{what} could not be deleted: {why}"));
                    self.cleared.left = self.cleared.left.union(&place.addresses.hosts());
                }
                self.next(log)
            }
            At::RouteCache => {
                if let Err(why) = answer::done(effect) {
                    // Stale routes of this host's own connections: nobody else is told anything wrong.
                    log.say(self.kinds.failed, format!("the route cache was not flushed: {why}"));
                }
                if self.failed.is_empty() && !self.guess {
                    return Next::Cleared(self.cleared);
                }
                let Place { addresses, device, .. } = &self.home;
                log.say(self.kinds.look, format!("what is left of {addresses} on {device}"));
                let command = Command::ReadAddresses { place: self.home.clone() };
                self.at = At::Look;
                Next::Run(self, command)
            }
            At::Look => self.looked(effect),
        }
    }

    fn next(mut self, log: &mut Log) -> Next {
        let Some(place) = self.rest.pop_front() else {
            log.say(self.kinds.route_cache, "flush the route cache");
            self.at = At::RouteCache;
            return Next::Run(self, Command::FlushRouteCache);
        };
        if !has_ipv4(&place.addresses) {
            return self.delete(place, log);
        }
        // Whether or not it was set, or is still wanted: with its source the subnet's route would go too.
        let Place { addresses, device, .. } = place.clone();
        log.say(self.kinds.source, format!("{addresses} are not the source of routes of {device} any more"));
        self.at = At::Source(place);
        Next::Run(self, Command::UnsetSource { addresses, device })
    }

    fn delete(mut self, place: Place, log: &mut Log) -> Next {
        log.say(self.kinds.address, format!("delete {} from {}", place.addresses, place.device));
        self.at = At::Address(place.clone());
        Next::Run(self, Command::DeleteAddresses { place })
    }

    /// A deletion that failed may have done its work, or half of it.
    fn looked(mut self, effect: Effect) -> Next {
        let mut left = Ranges::default();
        match answer::presence(effect) {
            Ok(found) if self.guess => {
                left = found.here().hosts();
                for place in found.of_others() {
                    self.cleared.others = self.cleared.others.union(&place.addresses.hosts());
                }
                for place in found.of_ours() {
                    left = left.union(&place.addresses.hosts());
                }
                if !left.is_empty() && self.cleared.reasons.is_empty() {
                    self.note(format!("{left} are somewhere else on this host"));
                }
            }
            Ok(found) => {
                for place in &self.failed {
                    let there = found.at(&self.home, place).intersection(&place.addresses.hosts());
                    left = left.union(&there);
                }
            }
            Err(why) => {
                self.note(format!("nobody knows what is left of them: {why}"));
                for place in self.failed.iter().chain(self.guess.then_some(&self.home)) {
                    left = left.union(&place.addresses.hosts());
                }
            }
        }
        self.cleared.left = self.cleared.left.union(&left);
        Next::Cleared(self.cleared)
    }

    fn note(&mut self, reason: String) {
        self.cleared.reasons.push(reason);
    }
}

/// The same addresses somewhere else.
pub(super) fn place_on(place: &Place, device: &str) -> Place {
    Place { device: device.to_owned(), ..place.clone() }
}

//! Takes some addresses of a resource out while the others stay in service: their common gate is open.
//!
//! They are answered for, under the lease, until they are gone from this host, and leave the datapath
//! after that: the other way round the kernel would answer for them on its own.

use std::sync::Arc;

use super::super::{
    Context, answer,
    clear::{self, Clear},
    log::Log,
};
use crate::{
    core::command::{Command, Effect, Place},
    model::{Addresses, Ranges},
};

/// The names of the notes, by why they are taken out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds {
    pub(super) withdraw: &'static str,
    pub(super) presence: &'static str,
    pub(super) program: &'static str,
    pub(super) clear: clear::Kinds,
}

/// ```text
///  Withdraw -> Presence -> Clear -> Program (what is gone) -> retired
/// ```
#[derive(Clone, Debug)]
pub(super) struct Retire {
    kinds: Kinds,
    at: At,
    place: Place,
    reasons: Vec<String>,
}

#[derive(Clone, Debug)]
enum At {
    Withdraw,
    Presence,
    Clear(Box<Clear>),
    Program { left: Ranges },
}

pub(super) enum Next {
    /// A note for it is in the log.
    Run(Retire, Command),
    /// What is, or may be, still in service, and why.
    Retired { left: Addresses, reasons: Vec<String> },
}

impl Retire {
    pub(super) fn begin(addresses: Arc<Addresses>, context: &Context, kinds: Kinds, log: &mut Log) -> Next {
        log.say(kinds.withdraw, format!("{addresses} are not announced any more"));
        let place = Place { addresses: addresses.clone(), ..context.place() };
        let retire = Self { kinds, at: At::Withdraw, place, reasons: Vec::new() };
        Next::Run(retire, Command::Withdraw { addresses })
    }

    pub(super) fn step(mut self, effect: Effect, context: &Context, log: &mut Log) -> Next {
        let Place { addresses, device, .. } = &self.place;
        match self.at.clone() {
            At::Withdraw => {
                if let Err(why) = answer::done(effect) {
                    self.reasons.push(format!("announcements of {addresses} were not stopped: {why}"));
                }
                log.say(self.kinds.presence, format!("is {} on {}", self.place.addresses, self.place.device));
                self.at = At::Presence;
                let command = Command::ReadAddresses { place: self.place.clone() };
                Next::Run(self, command)
            }
            At::Presence => {
                let home = self.place.clone();
                let next = match answer::presence(effect) {
                    Ok(found) => {
                        let here = found.here();
                        let here = (!here.is_empty())
                            .then(|| Place { addresses: Arc::new(here), ..self.place.clone() });
                        let places: Vec<Place> = here.into_iter().chain(found.of_ours().cloned()).collect();
                        Clear::begin(places, home, None, self.kinds.clear, log)
                    }
                    Err(why) => {
                        let message = format!(
                            "cannot look for {addresses} on {device}, so they are deleted in any case: {why}"
                        );
                        log.say(self.kinds.presence, message);
                        Clear::guess(home, self.kinds.clear, log)
                    }
                };
                self.clearing(next, context, log)
            }
            At::Clear(clear) => {
                let next = clear.step(effect, log);
                self.clearing(next, context, log)
            }
            At::Program { left } => {
                let mut left = addresses.within(&left);
                if let Err(why) = answer::done(effect) {
                    self.reasons.push(format!("{addresses} cannot be taken out of the datapath: {why}"));
                    left = (**addresses).clone();
                }
                Next::Retired { left, reasons: self.reasons }
            }
        }
    }

    fn clearing(mut self, next: clear::Next, context: &Context, log: &mut Log) -> Next {
        let cleared = match next {
            clear::Next::Run(clear, command) => {
                self.at = At::Clear(Box::new(clear));
                return Next::Run(self, command);
            }
            clear::Next::Cleared(cleared) => cleared,
        };
        if !cleared.left.is_empty() {
            self.reasons.extend(cleared.reasons);
        }
        let gone = Arc::new(self.place.addresses.without(&cleared.left));
        if gone.is_empty() {
            return Next::Retired { left: (*self.place.addresses).clone(), reasons: self.reasons };
        }
        log.say(self.kinds.program, format!("take {gone} out of the datapath"));
        self.at = At::Program { left: cleared.left };
        Next::Run(self, Command::Unprogram { group: context.group, addresses: gone })
    }
}

//! What a bring-up that failed leaves behind: a closed gate, always, and nothing of ours.

use std::sync::Arc;

use super::{
    Cause, Context, Failure, answer,
    clear::{self, Clear, Cleared},
    log::Log,
};
use crate::{
    core::command::{Command, Effect, Place, Presence},
    model::{Addresses, Ranges},
};

/// What the run knows of the addresses' whereabouts; decides what a failure undoes.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// None: not looked yet, or could not look, or too much was moved since.
    pub(super) found: Option<Presence>,
    /// Added now, if only perhaps.
    pub(super) added: Arc<Addresses>,
    pub(super) programmed: bool,
    /// Set now, if only perhaps, also to somebody else's address.
    pub(super) source_set: bool,
}

/// The names of the notes, by the sequence that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds {
    pub(super) gate: &'static str,
    pub(super) withdraw: &'static str,
    pub(super) look: &'static str,
    pub(super) program: &'static str,
    pub(super) clear: clear::Kinds,
}

/// ```text
///  Gate -> Withdraw -> Source (if set) --not looked--> Look --not known--> undone
///                         |                              |
///                         +------------------------------+--> Clear (ours) --> Program (what is gone) --> undone
/// ```
///
/// The gate is closed even if this run never opened it: the addresses may be in service from before.
/// They stay in the datapath unless they are known to be gone, because the kernel would answer on its own.
/// What somebody else put here is not deleted.
#[derive(Clone, Debug)]
pub(super) struct Undo {
    kinds: Kinds,
    at: At,
    /// Why the sequence failed, and what could not be undone.
    reason: String,
    cause: Cause,
    shut: bool,
    known: Known,
}

#[derive(Clone, Debug)]
enum At {
    Gate,
    Withdraw,
    Source,
    Look,
    Clear(Box<Clear>, Presence),
    Program { remain: Ranges },
}

pub(super) enum Next {
    /// A note for it is in the log.
    Run(Undo, Command),
    Undone(Failure),
}

impl Undo {
    pub(super) fn begin(
        (reason, cause): (String, Cause),
        known: Known,
        context: &Context,
        kinds: Kinds,
        log: &mut Log,
    ) -> Next {
        log.say(kinds.gate, format!("{reason}: close the gate of {}", context.addresses));
        let undo = Self { kinds, at: At::Gate, reason, cause, shut: false, known };
        Next::Run(undo, Command::CloseGate { group: context.group })
    }

    pub(super) fn step(mut self, effect: Effect, context: &Context, log: &mut Log) -> Next {
        match self.at.clone() {
            At::Gate => {
                match answer::done(effect) {
                    Ok(()) => self.shut = true,
                    Err(why) => self.also(&format!("its gate cannot be closed: {why}")),
                }
                self.withdraw(context, log)
            }
            At::Withdraw => {
                if let Err(why) = answer::done(effect) {
                    // The guard lets none out while the gate is shut.
                    log.say(self.kinds.withdraw, format!("announcements were not stopped: {why}"));
                }
                if !self.known.source_set {
                    return self.whereabouts(context, log);
                }
                let (addresses, device) = (context.addresses.clone(), context.device.clone());
                let message = format!("{addresses} are not the source of routes of {device} any more");
                log.say(self.kinds.clear.source, message);
                self.at = At::Source;
                Next::Run(self, Command::UnsetSource { addresses, device })
            }
            At::Source => {
                if let Err(why) = answer::done(effect) {
                    self.also(&format!("a source address of {} was not set back: {why}", context.device));
                }
                self.whereabouts(context, log)
            }
            At::Look => match answer::presence(effect) {
                Ok(found) => self.clear(found, context, log),
                Err(why) => {
                    self.also(&format!("nobody knows whether it is on {}: {why}", context.device));
                    let silent = self.shut && self.known.programmed;
                    self.undone(silent)
                }
            },
            At::Clear(clear, found) => {
                let next = clear.step(effect, log);
                self.clearing(next, found, context, log)
            }
            At::Program { remain } => {
                let silent = match answer::done(effect) {
                    // Out of the maps, and not here: nothing is left that could answer.
                    Ok(()) if remain.is_empty() => true,
                    Ok(()) => self.shut && self.known.programmed,
                    Err(why) => {
                        self.also(&format!("it cannot be taken out of the datapath: {why}"));
                        self.shut && (remain.is_empty() || self.known.programmed)
                    }
                };
                self.undone(silent)
            }
        }
    }

    fn withdraw(mut self, context: &Context, log: &mut Log) -> Next {
        let addresses = context.addresses.clone();
        log.say(self.kinds.withdraw, format!("{addresses} are not announced any more"));
        self.at = At::Withdraw;
        Next::Run(self, Command::Withdraw { addresses })
    }

    fn whereabouts(mut self, context: &Context, log: &mut Log) -> Next {
        if let Some(found) = self.known.found.take() {
            return self.clear(found, context, log);
        }
        log.say(self.kinds.look, format!("is {} on {}", context.addresses, context.device));
        self.at = At::Look;
        Next::Run(self, Command::ReadAddresses { place: context.place() })
    }

    fn clear(self, found: Presence, context: &Context, log: &mut Log) -> Next {
        let home = context.place();
        let here = found.ours.union(&self.known.added);
        let here = (!here.is_empty()).then(|| Place { addresses: Arc::new(here), ..home.clone() });
        let places: Vec<Place> = here.into_iter().chain(found.of_ours().cloned()).collect();
        let next = Clear::begin(places, home, None, self.kinds.clear, log);
        self.clearing(next, found, context, log)
    }

    fn clearing(mut self, next: clear::Next, found: Presence, context: &Context, log: &mut Log) -> Next {
        let Cleared { left, reasons, .. } = match next {
            clear::Next::Run(clear, command) => {
                self.at = At::Clear(Box::new(clear), found);
                return Next::Run(self, command);
            }
            clear::Next::Cleared(cleared) => cleared,
        };
        for why in reasons {
            self.also(&why);
        }
        let others = found.of_others().fold(found.foreign.hosts(), |all, p| all.union(&p.addresses.hosts()));
        let remain = left.union(&others);
        let gone = Arc::new(context.addresses.without(&remain));
        if gone.is_empty() {
            let silent = self.shut && self.known.programmed;
            return self.undone(silent);
        }
        log.say(self.kinds.program, format!("take {gone} out of the datapath"));
        self.at = At::Program { remain };
        Next::Run(self, Command::Unprogram { group: context.group, addresses: gone })
    }

    fn also(&mut self, what: &str) {
        self.reason.push_str("; moreover ");
        self.reason.push_str(what);
    }

    fn undone(self, silent: bool) -> Next {
        let Self { reason, cause, .. } = self;
        Next::Undone(Failure { reason, silent, cause, in_service: Addresses::default() })
    }
}

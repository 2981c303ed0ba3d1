//! The middle of a bring-up: what a look at the host found missing is put in its place, and what stood
//! elsewhere is taken away.

use std::{mem, sync::Arc};

use super::{
    Context, answer,
    clear::{self, Clear},
    log::Log,
    survey::{Survey, claimed},
};
use crate::{
    core::command::{Command, Effect, Place},
    model::Addresses,
};

/// ```text
///  Duplicate -> Program -> Unfit -> Address -> Replaced --> admitted
/// ```
/// Programmed before it is added: the kernel never answers on its own.
#[derive(Clone, Debug)]
pub(super) struct Admit {
    at: At,
    survey: Survey,
    program: Arc<Addresses>,
}

#[derive(Clone, Debug)]
enum At {
    Duplicate,
    Program,
    /// Ours that would not let the right ones be added.
    Unfit(Box<Clear>),
    Address,
    /// Ours that the right ones have taken the place of.
    Replaced(Box<Clear>),
}

/// What may have been done when it failed, each with all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reached {
    Nothing,
    Programming,
    Programmed,
    Adding,
}

/// The names of the notes, by the sequence that admits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds {
    pub(super) duplicate: &'static str,
    pub(super) duplicate_skipped: &'static str,
    pub(super) program: &'static str,
    pub(super) address: &'static str,
    pub(super) clear: clear::Kinds,
}

pub(super) enum Next {
    /// A note for it is in the log.
    Run(Box<Admit>, Command),
    Admitted,
    Failed(String, Reached),
}

impl Admit {
    /// `program`: what the datapath shall know beside what it knows already.
    pub(super) fn begin(
        survey: Survey,
        program: Arc<Addresses>,
        context: &Context,
        kinds: Kinds,
        log: &mut Log,
    ) -> Next {
        let admit = Self { at: At::Duplicate, survey, program };
        // What is here was checked before it came here.
        let (absent, device) = (admit.survey.absent.clone(), context.device.clone());
        if absent.is_empty() {
            return admit.program(context, kinds, log);
        }
        if context.tunables.no_unique_check {
            let message = format!("nobody is asked whether {absent} is in use: NOIPUNIQUE=1");
            log.say(kinds.duplicate_skipped, message);
            return admit.program(context, kinds, log);
        }
        log.say(kinds.duplicate, format!("does anybody else use {absent} on {device}"));
        Next::Run(Box::new(admit), Command::ProbeDuplicates { addresses: absent, device })
    }

    pub(super) fn step(mut self, effect: Effect, context: &Context, kinds: Kinds, log: &mut Log) -> Next {
        match mem::replace(&mut self.at, At::Duplicate) {
            At::Duplicate => match claimed(effect, &self.survey.absent, &context.device) {
                Ok(()) => self.program(context, kinds, log),
                Err(reason) => Next::Failed(reason, Reached::Nothing),
            },
            At::Program => match answer::done(effect) {
                Ok(()) => {
                    let unfit = mem::take(&mut self.survey.unfit);
                    let next = Clear::begin(unfit, context.place(), None, kinds.clear, log);
                    self.clearing_unfit(next, context, kinds, log)
                }
                Err(reason) => {
                    let (device, addresses) = (&context.device, &self.program);
                    let reason = format!("the datapath of {device} does not take {addresses}: {reason}");
                    Next::Failed(reason, Reached::Programming)
                }
            },
            At::Unfit(clear) => {
                let next = clear.step(effect, log);
                self.clearing_unfit(next, context, kinds, log)
            }
            At::Address => match answer::done(effect) {
                Ok(()) => self.replace(context, kinds, log),
                Err(reason) => {
                    let (add, device) = (&self.survey.add, &context.device);
                    Next::Failed(format!("cannot add {add} to {device}: {reason}"), Reached::Adding)
                }
            },
            At::Replaced(clear) => {
                let next = clear.step(effect, log);
                self.clearing_replaced(next)
            }
        }
    }

    fn program(mut self, context: &Context, kinds: Kinds, log: &mut Log) -> Next {
        let (addresses, device) = (self.program.clone(), context.device.clone());
        log.say(kinds.program, format!("the datapath of {device} learns of {addresses}"));
        self.at = At::Program;
        Next::Run(Box::new(self), Command::Program { group: context.group, addresses, device })
    }

    fn clearing_unfit(mut self, next: clear::Next, context: &Context, kinds: Kinds, log: &mut Log) -> Next {
        match next {
            clear::Next::Run(clear, command) => {
                self.at = At::Unfit(clear);
                Next::Run(Box::new(self), command)
            }
            clear::Next::Cleared(cleared) if !cleared.left.is_empty() => {
                Next::Failed(cleared.reasons.join("; "), Reached::Programmed)
            }
            clear::Next::Cleared(_) if self.survey.add.is_empty() => self.replace(context, kinds, log),
            clear::Next::Cleared(_) => {
                let place = Place { addresses: self.survey.add.clone(), ..context.place() };
                log.say(kinds.address, format!("add {} to {}", place.addresses, place.device));
                self.at = At::Address;
                Next::Run(Box::new(self), Command::AddAddresses { place })
            }
        }
    }

    /// The right ones are there: what stood elsewhere is not needed any more.
    fn replace(mut self, context: &Context, kinds: Kinds, log: &mut Log) -> Next {
        let places = mem::take(&mut self.survey.replaced);
        let next = Clear::begin(places, context.place(), Some(&context.device), kinds.clear, log);
        self.clearing_replaced(next)
    }

    fn clearing_replaced(mut self, next: clear::Next) -> Next {
        match next {
            clear::Next::Run(clear, command) => {
                self.at = At::Replaced(clear);
                Next::Run(Box::new(self), command)
            }
            clear::Next::Cleared(cleared) if cleared.left.is_empty() => Next::Admitted,
            clear::Next::Cleared(cleared) => Next::Failed(cleared.reasons.join("; "), Reached::Adding),
        }
    }
}

//! The end of a bring-up: the source of the subnets' routes (row IP-12), then connectivity (row IP-10).

use std::sync::Arc;

use super::{
    Cause, Context, answer,
    connectivity::{self, Connectivity, Test},
    log::Log,
};
use crate::{
    core::command::{Command, Effect},
    model::Addresses,
};

#[derive(Clone, Debug)]
pub(super) struct Settle {
    at: At,
    /// Whose subnets are tested.
    tested: Arc<Addresses>,
}

#[derive(Clone, Debug)]
enum At {
    Source,
    Connectivity(Connectivity),
}

/// The names of the notes, by the sequence that settles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds {
    pub(super) source: &'static str,
    pub(super) connectivity: connectivity::Kinds,
}

pub(super) enum Next {
    /// A note for it is in the log.
    Run(Box<Settle>, Command),
    Settled,
    Failed(String, Cause),
}

impl Settle {
    /// With `source` the context's addresses become the source of their subnets' routes.
    pub(super) fn begin(
        source: bool,
        tested: Arc<Addresses>,
        context: &Context,
        kinds: Kinds,
        log: &mut Log,
    ) -> Next {
        let settle = Self { at: At::Source, tested };
        if !source {
            return settle.test(context, kinds, log);
        }
        let (addresses, device) = (context.addresses.clone(), context.device.clone());
        log.say(kinds.source, format!("{addresses} become the source of their subnets' routes on {device}"));
        Next::Run(Box::new(settle), Command::SetSource { addresses, device })
    }

    pub(super) fn step(self, effect: Effect, context: &Context, kinds: Kinds, log: &mut Log) -> Next {
        match self.at {
            At::Source => match answer::done(effect) {
                Ok(()) => self.test(context, kinds, log),
                Err(reason) => {
                    let reason = format!("cannot set the source address on {}: {reason}", context.device);
                    Next::Failed(reason, Cause::Other)
                }
            },
            At::Connectivity(c) => Self::of(c.step(effect, context, log, kinds.connectivity), self.tested),
        }
    }

    fn test(self, context: &Context, kinds: Kinds, log: &mut Log) -> Next {
        Self::of(Connectivity::begin(&self.tested, context, log, kinds.connectivity), self.tested)
    }

    fn of(test: Test, tested: Arc<Addresses>) -> Next {
        match test {
            Test::Run(c, command) => Next::Run(Box::new(Self { at: At::Connectivity(c), tested }), command),
            Test::Connected => Next::Settled,
            Test::Failed(reason) => Next::Failed(reason, Cause::Interface),
        }
    }
}

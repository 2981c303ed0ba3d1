//! amend: exchanges some addresses of a resource while the others stay in service, untouched.
//!
//! What is gone goes first: the cluster may have given it to another resource, and the longer both have
//! it the worse. What is new shares the open gate of the others, so the datapath answers for it as soon as
//! it is programmed: after the duplicate check, and before it is added, as in a restore.

mod retire;

use std::{mem, sync::Arc};

use self::retire::Retire;
use super::{
    Cause, Context, Failure, Input, Step,
    admit::{self, Admit, Reached},
    answer, clear, connectivity, has_ipv4,
    log::Log,
    settle::{self, Settle},
    survey::{Survey, in_the_way},
};
use crate::{
    core::command::{Command, Effect, Place},
    model::Addresses,
};

const ADMIT: admit::Kinds = admit::Kinds {
    duplicate: "amend.duplicate",
    duplicate_skipped: "amend.duplicate-skipped",
    program: "amend.program",
    address: "amend.address",
    clear: GONE.clear,
};

const SETTLE: settle::Kinds = settle::Kinds {
    source: "amend.source",
    connectivity: connectivity::Kinds {
        list: "amend.ping-list",
        broadcast: "amend.broadcast-ping",
        skipped: "amend.connectivity-skipped",
        answered: "amend.connectivity",
    },
};

const GONE: retire::Kinds = retire::Kinds {
    withdraw: "amend.withdraw",
    presence: "amend.gone",
    program: "amend.unprogram",
    clear: clear::Kinds {
        source: "amend.source-back",
        address: "amend.delete",
        host_route: "amend.host-route",
        route_cache: "amend.route-cache",
        look: "amend.look",
        failed: "amend.clear-failed",
    },
};

const UNDO: retire::Kinds = retire::Kinds {
    withdraw: "amend.undo-withdraw",
    presence: "amend.undo-presence",
    program: "amend.undo-program",
    clear: clear::Kinds {
        source: "amend.undo-source-back",
        address: "amend.undo-address",
        host_route: "amend.undo-host-route",
        route_cache: "amend.undo-route-cache",
        look: "amend.undo-look",
        failed: "amend.undo-failed",
    },
};

/// ```text
///  Begin --physical--> failed
///    |--some gone--> Retire --+
///    +------------------------+--disabled--> done
///                             |
///  Presence --all in place--> Settle -> done
///    |
///  Admit -> Announce -> Settle -> done
///
///  a failure once something was programmed: Undo (what is new) -> UndoSource -> failed
/// ```
#[derive(Clone, Debug)]
enum State {
    Begin,
    Retire(Box<Retire>),
    Presence,
    Admit(Box<Admit>),
    Announce,
    Settle(Box<Settle>),
    Undo(Box<Retire>, Cause),
    UndoSource(Cause),
    Ended,
}

#[derive(Clone, Debug)]
pub struct Amend {
    context: Context,
    before: Addresses,
    log: Log,
    state: State,
    /// Of the context's addresses: what is here, what is missing, what stands where it should not.
    survey: Survey,
    /// Those that were not in service before, or are not here: announced and tested.
    new: Arc<Addresses>,
    /// Of what was in service, and is not any more.
    gone: Addresses,
    in_service: Addresses,
    problems: Vec<String>,
}

impl Amend {
    pub fn new(context: Context, before: Addresses) -> Self {
        let gone = before.without(&context.addresses.hosts());
        Self {
            in_service: before.clone(),
            context,
            before,
            log: Log::default(),
            state: State::Begin,
            survey: Survey::default(),
            new: Arc::default(),
            gone,
            problems: Vec::new(),
        }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    pub fn step(&mut self, input: Input) -> Step {
        match mem::replace(&mut self.state, State::Ended) {
            State::Begin => self.begin(),
            State::Retire(retire) => {
                let next = retire.step(input.effect(), &self.context, &mut self.log);
                self.retiring(next)
            }
            State::Presence => self.presence(input.effect()),
            State::Admit(admit) => {
                let next = admit.step(input.effect(), &self.context, ADMIT, &mut self.log);
                self.admitting(next)
            }
            State::Announce => self.announced(input.effect()),
            State::Settle(settle) => {
                let next = settle.step(input.effect(), &self.context, SETTLE, &mut self.log);
                self.settling(next)
            }
            State::Undo(retire, cause) => {
                let next = retire.step(input.effect(), &self.context, &mut self.log);
                self.undoing(next, cause)
            }
            State::UndoSource(cause) => self.undo_source_set(input.effect(), cause),
            State::Ended => self.log.ended("amend.failed"),
        }
    }

    fn begin(&mut self) -> Step {
        let Context { addresses, device, .. } = &self.context;
        if self.context.physical {
            let reason = format!(
                "{addresses} is a stationary address of this host, which vipd does not touch: change it on {device} by hand"
            );
            return self.end("amend.physical", reason, Cause::Other);
        }
        if self.gone.is_empty() {
            return self.look();
        }
        let gone = Arc::new(self.gone.clone());
        let next = Retire::begin(gone, &self.context, GONE, &mut self.log);
        self.retiring(next)
    }

    fn retiring(&mut self, next: retire::Next) -> Step {
        match next {
            retire::Next::Run(retire, command) => {
                self.state = State::Retire(retire);
                self.log.command(command)
            }
            retire::Next::Retired { left, reasons } => {
                self.in_service = self.before.without(&self.gone.hosts()).union(&left);
                self.problems.extend(reasons);
                self.look()
            }
        }
    }

    fn look(&mut self) -> Step {
        let Context { addresses, device, .. } = &self.context;
        if !self.context.restore_and_recover {
            let message = "nothing is put on the network: restore-and-recover is disabled on this node";
            self.log.say("amend.disabled", message);
            return self.finish();
        }
        let message = format!("what of {addresses} is on {device} already");
        self.state = State::Presence;
        let command = Command::ReadAddresses { place: self.context.place() };
        self.log.run(command, "amend.presence", message)
    }

    fn presence(&mut self, effect: Effect) -> Step {
        let Context { addresses, device, .. } = &self.context;
        let found = match answer::presence(effect) {
            Ok(found) => found,
            Err(reason) => {
                return self.fail(format!("cannot look for {addresses} on {device}: {reason}"), Cause::Other);
            }
        };
        let here = found.here().hosts();
        let absent = found.absent(addresses).hosts();
        let served = addresses.within(&self.before.hosts().union(&here)).without(&absent);
        self.in_service = self.in_service.without(&addresses.hosts()).union(&served);
        // What is in place stays as it is, also if somebody has it elsewhere too.
        let missing = addresses.without(&here).hosts();
        let strangers = found.of_others().find(|p| !p.addresses.within(&missing).is_empty());
        if let Some(place) = strangers {
            let reason = in_the_way(place, &self.context);
            return self.fail(reason, Cause::Other);
        }
        let served = self.before.hosts().intersection(&missing);
        let elsewhere =
            found.of_ours().find(|p| p.device != *device && !p.addresses.within(&served).is_empty());
        if let Some(Place { addresses: others, device: other, .. }) = elsewhere {
            let reason = format!(
                "{others} is in service on {other}: the resource must move to {device} before its addresses change"
            );
            return self.fail(reason, Cause::Other);
        }
        self.survey = Survey::new(&found, &self.context);
        let unknown = addresses.without(&self.before.hosts());
        self.new = Arc::new(unknown.union(&self.survey.absent));
        if self.new.is_empty() && self.survey.is_in_place() {
            return self.settle();
        }
        let program = Arc::new(self.new.union(&self.survey.add));
        let survey = self.survey.clone();
        let next = Admit::begin(survey, program, &self.context, ADMIT, &mut self.log);
        self.admitting(next)
    }

    fn admitting(&mut self, next: admit::Next) -> Step {
        match next {
            admit::Next::Run(admit, command) => {
                self.state = State::Admit(admit);
                self.log.command(command)
            }
            admit::Next::Admitted => self.announce(),
            admit::Next::Failed(reason, Reached::Nothing) => self.fail(reason, Cause::Other),
            admit::Next::Failed(reason, _) => self.undo(reason, Cause::Other),
        }
    }

    fn announce(&mut self) -> Step {
        if self.new.is_empty() {
            return self.settle();
        }
        let (addresses, device) = (self.new.clone(), self.context.device.clone());
        self.state = State::Announce;
        let message = format!("tell everybody on {device} that {addresses} is here");
        self.log.run(Command::Announce { addresses, device }, "amend.announce", message)
    }

    fn announced(&mut self, effect: Effect) -> Step {
        match answer::done(effect) {
            Ok(()) => self.settle(),
            Err(reason) => {
                let reason = format!("cannot announce {} on {}: {reason}", self.new, self.context.device);
                self.undo(reason, Cause::Other)
            }
        }
    }

    fn settle(&mut self) -> Step {
        // The first address of a subnet may have changed, or was set back with one that is gone.
        let source = self.context.sets_source() && (has_ipv4(&self.gone) || has_ipv4(&self.new));
        let next = Settle::begin(source, self.new.clone(), &self.context, SETTLE, &mut self.log);
        self.settling(next)
    }

    fn settling(&mut self, next: settle::Next) -> Step {
        match next {
            settle::Next::Run(settle, command) => {
                self.state = State::Settle(settle);
                self.log.command(command)
            }
            settle::Next::Settled => {
                self.in_service = self.in_service.union(&self.context.addresses);
                self.finish()
            }
            settle::Next::Failed(reason, cause) => self.undo(reason, cause),
        }
    }

    fn finish(&mut self) -> Step {
        if self.problems.is_empty() {
            let message = format!("{} is in service on {}", self.context.addresses, self.context.device);
            return self.log.succeed("amend.done", message);
        }
        self.fail("what is no longer the resource's is still here".to_owned(), Cause::Other)
    }

    /// Takes away what this run added. What it replaced stays: in service one way or the other.
    fn undo(&mut self, reason: String, cause: Cause) -> Step {
        self.problems.insert(0, reason);
        if self.survey.absent.is_empty() {
            return self.undo_source(cause);
        }
        let added = self.survey.absent.clone();
        let next = Retire::begin(added, &self.context, UNDO, &mut self.log);
        self.undoing(next, cause)
    }

    fn undoing(&mut self, next: retire::Next, cause: Cause) -> Step {
        match next {
            retire::Next::Run(retire, command) => {
                self.state = State::Undo(retire, cause);
                self.log.command(command)
            }
            retire::Next::Retired { left, reasons } => {
                self.in_service = self.in_service.without(&self.survey.absent.hosts()).union(&left);
                self.problems.extend(reasons);
                self.undo_source(cause)
            }
        }
    }

    /// The routes have their source back from those that were not to be undone.
    fn undo_source(&mut self, cause: Cause) -> Step {
        let stay = self.in_service.within(&self.context.addresses.hosts());
        let stay = Arc::new(stay.without(&self.survey.absent.hosts()));
        if !self.context.source || !has_ipv4(&stay) {
            return self.fail_undone(cause);
        }
        let device = self.context.device.clone();
        self.state = State::UndoSource(cause);
        let message = format!("{stay} become the source of their subnets' routes on {device} again");
        self.log.run(Command::SetSource { addresses: stay, device }, "amend.undo-source", message)
    }

    fn undo_source_set(&mut self, effect: Effect, cause: Cause) -> Step {
        if let Err(why) = answer::done(effect) {
            self.problems.push(format!("the source address of the others is not set: {why}"));
        }
        self.fail_undone(cause)
    }

    fn fail(&mut self, reason: String, cause: Cause) -> Step {
        self.problems.insert(0, reason);
        self.fail_undone(cause)
    }

    fn fail_undone(&mut self, cause: Cause) -> Step {
        let Context { addresses, device, .. } = &self.context;
        let reason = format!(
            "the addresses in service on {device} cannot be made {addresses}: {}; in service: {}",
            self.problems.join("; moreover "),
            self.in_service
        );
        self.end("amend.failed", reason, cause)
    }

    fn end(&mut self, kind: &'static str, reason: String, cause: Cause) -> Step {
        let in_service = self.in_service.clone();
        self.log.fail(kind, Failure { reason, silent: false, cause, in_service })
    }
}

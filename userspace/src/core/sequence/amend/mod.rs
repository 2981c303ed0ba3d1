//! amend: exchanges some addresses of a resource while the others stay in service, untouched.
//!
//! What is gone goes first: the cluster may have given it to another resource, and the longer both have
//! it the worse. What is new shares the open gate of the others, so the datapath answers for it as soon as
//! it is programmed: after the duplicate check, and before it is added, as in a restore.

mod retire;

use std::{mem, sync::Arc};

use self::retire::Retire;
use super::{
    Cause, Context, Failure, Input, Step, answer,
    clear::{self, Clear},
    connectivity::{self, Connectivity, Test},
    has_ipv4,
    log::Log,
    survey::{Survey, claimed},
};
use crate::{
    core::command::{Command, Effect, Place},
    model::Addresses,
};

const CONNECTIVITY: connectivity::Kinds = connectivity::Kinds {
    list: "amend.ping-list",
    broadcast: "amend.broadcast-ping",
    skipped: "amend.connectivity-skipped",
    answered: "amend.connectivity",
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
///  Presence --nothing new--> Source, done
///    |
///  Duplicate -> Program -> Unfit -> Address -> Replaced -> Announce -> Source -> Connectivity -> done
///
///  a failure after Program: Undo (what is new) -> UndoSource -> failed
/// ```
#[derive(Clone, Debug)]
enum State {
    Begin,
    Retire(Box<Retire>),
    Presence,
    Duplicate,
    Program,
    Unfit(Box<Clear>),
    Address,
    Replaced(Box<Clear>),
    Announce,
    Source,
    Connectivity(Connectivity),
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
            State::Duplicate => self.duplicate(input.effect()),
            State::Program => self.programmed(input.effect()),
            State::Unfit(clear) => {
                let next = clear.step(input.effect(), &mut self.log);
                self.clearing_unfit(next)
            }
            State::Address => self.added(input.effect()),
            State::Replaced(clear) => {
                let next = clear.step(input.effect(), &mut self.log);
                self.clearing_replaced(next)
            }
            State::Announce => self.announced(input.effect()),
            State::Source => self.source_set(input.effect()),
            State::Connectivity(c) => {
                let test = c.step(input.effect(), &self.context, &mut self.log, CONNECTIVITY);
                self.tested(test)
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
                self.state = State::Retire(Box::new(retire));
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
            let message =
                format!("nothing is put on the network: restore-and-recover is disabled on this node");
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
            let reason = super::survey::in_the_way(place, &self.context);
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
            return self.set_source();
        }
        self.check_duplicate()
    }

    fn check_duplicate(&mut self) -> Step {
        let (absent, device) = (self.survey.absent.clone(), self.context.device.clone());
        if absent.is_empty() {
            return self.program();
        }
        if self.context.tunables.no_unique_check {
            let message = format!("nobody is asked whether {absent} is in use: NOIPUNIQUE=1");
            self.log.say("amend.duplicate-skipped", message);
            return self.program();
        }
        let message = format!("does anybody else use {absent} on {device}");
        self.state = State::Duplicate;
        let command = Command::ProbeDuplicates { addresses: absent, device };
        self.log.run(command, "amend.duplicate", message)
    }

    fn duplicate(&mut self, effect: Effect) -> Step {
        match claimed(effect, &self.survey.absent, &self.context.device) {
            Ok(()) => self.program(),
            Err(reason) => self.fail(reason, Cause::Other),
        }
    }

    fn program(&mut self) -> Step {
        let Context { device, group, .. } = &self.context;
        let addresses = Arc::new(self.new.union(&self.survey.add));
        let message = format!("the datapath of {device} answers for {addresses} too");
        let command = Command::Program { group: *group, addresses, device: device.clone() };
        self.state = State::Program;
        self.log.run(command, "amend.program", message)
    }

    fn programmed(&mut self, effect: Effect) -> Step {
        if let Err(reason) = answer::done(effect) {
            let (new, device) = (&self.new, &self.context.device);
            return self
                .undo(format!("the datapath of {device} does not take {new}: {reason}"), Cause::Other);
        }
        let unfit = mem::take(&mut self.survey.unfit);
        let next = Clear::begin(unfit, self.context.place(), None, GONE.clear, &mut self.log);
        self.clearing_unfit(next)
    }

    fn clearing_unfit(&mut self, next: clear::Next) -> Step {
        match next {
            clear::Next::Run(clear, command) => {
                self.state = State::Unfit(Box::new(clear));
                self.log.command(command)
            }
            clear::Next::Cleared(cleared) if !cleared.left.is_empty() => {
                self.undo(cleared.reasons.join("; "), Cause::Other)
            }
            clear::Next::Cleared(_) if self.survey.add.is_empty() => self.replace(),
            clear::Next::Cleared(_) => {
                let place = Place { addresses: self.survey.add.clone(), ..self.context.place() };
                let message = format!("add {} to {}", place.addresses, place.device);
                self.state = State::Address;
                self.log.run(Command::AddAddresses { place }, "amend.address", message)
            }
        }
    }

    fn added(&mut self, effect: Effect) -> Step {
        if let Err(reason) = answer::done(effect) {
            let (add, device) = (&self.survey.add, &self.context.device);
            return self.undo(format!("cannot add {add} to {device}: {reason}"), Cause::Other);
        }
        self.replace()
    }

    fn replace(&mut self) -> Step {
        let (places, home) = (mem::take(&mut self.survey.replaced), self.context.place());
        let next = Clear::begin(places, home, Some(&self.context.device), GONE.clear, &mut self.log);
        self.clearing_replaced(next)
    }

    fn clearing_replaced(&mut self, next: clear::Next) -> Step {
        match next {
            clear::Next::Run(clear, command) => {
                self.state = State::Replaced(Box::new(clear));
                self.log.command(command)
            }
            clear::Next::Cleared(cleared) if cleared.left.is_empty() => self.announce(),
            clear::Next::Cleared(cleared) => self.undo(cleared.reasons.join("; "), Cause::Other),
        }
    }

    fn announce(&mut self) -> Step {
        if self.new.is_empty() {
            return self.set_source();
        }
        let (addresses, device) = (self.new.clone(), self.context.device.clone());
        self.state = State::Announce;
        let message = format!("tell everybody on {device} that {addresses} is here");
        self.log.run(Command::Announce { addresses, device }, "amend.announce", message)
    }

    fn announced(&mut self, effect: Effect) -> Step {
        match answer::done(effect) {
            Ok(()) => self.set_source(),
            Err(reason) => {
                let reason = format!("cannot announce {} on {}: {reason}", self.new, self.context.device);
                self.undo(reason, Cause::Other)
            }
        }
    }

    /// The first address of a subnet may have changed, or was set back with one that is gone.
    fn set_source(&mut self) -> Step {
        if !self.context.sets_source() || !(has_ipv4(&self.gone) || has_ipv4(&self.new)) {
            return self.test();
        }
        let (addresses, device) = (self.context.addresses.clone(), self.context.device.clone());
        self.state = State::Source;
        let message = format!("{addresses} become the source of their subnets' routes on {device}");
        self.log.run(Command::SetSource { addresses, device }, "amend.source", message)
    }

    fn source_set(&mut self, effect: Effect) -> Step {
        match answer::done(effect) {
            Ok(()) => self.test(),
            Err(reason) => {
                let reason = format!("cannot set the source address on {}: {reason}", self.context.device);
                self.undo(reason, Cause::Other)
            }
        }
    }

    fn test(&mut self) -> Step {
        let test = Connectivity::begin(&self.new, &self.context, &mut self.log, CONNECTIVITY);
        self.tested(test)
    }

    fn tested(&mut self, test: Test) -> Step {
        match test {
            Test::Run(state, command) => {
                self.state = State::Connectivity(state);
                self.log.command(command)
            }
            Test::Connected => {
                self.in_service = self.in_service.union(&self.context.addresses);
                self.finish()
            }
            Test::Failed(reason) => self.undo(reason, Cause::Interface),
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
                self.state = State::Undo(Box::new(retire), cause);
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

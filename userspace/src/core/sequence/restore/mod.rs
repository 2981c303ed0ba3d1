//! restore (row IP-6): brings the addresses in service, or leaves no trace of having tried.

mod link;

use std::mem;

use self::link::Link;
use super::{
    Cause, Context, Failure, Input, Step, answer,
    clear::{self, Clear},
    connectivity::{self, Connectivity, Test},
    log::Log,
    survey::{Survey, claimed, in_the_way, whereabouts},
    undo::{self, Known, Undo},
};
use crate::core::command::{Command, Effect, Place};

const CONNECTIVITY: connectivity::Kinds = connectivity::Kinds {
    list: "restore.ping-list",
    broadcast: "restore.broadcast-ping",
    skipped: "restore.connectivity-skipped",
    answered: "restore.connectivity",
};

const CLEAR: clear::Kinds = clear::Kinds {
    source: "restore.source-back",
    address: "restore.misplaced",
    host_route: "restore.host-route",
    route_cache: "restore.route-cache",
    look: "restore.look",
    failed: "restore.clear-failed",
};

const UNDO: undo::Kinds = undo::Kinds {
    gate: "restore.undo-gate",
    withdraw: "restore.undo-withdraw",
    look: "restore.undo-look",
    program: "restore.undo-program",
    clear: clear::Kinds {
        source: "restore.undo-source",
        address: "restore.undo-address",
        host_route: "restore.undo-host-route",
        route_cache: "restore.undo-route-cache",
        look: "restore.undo-recheck",
        failed: "restore.undo-failed",
    },
};

/// ```text
///  Begin --physical, disabled--> done
///    |
///  Link (see there)
///    | up
///  Presence --absent--> Duplicate -> Program -> Unfit -> Address -> Replaced -> Neighbours --+
///    |                                                                                       |
///    +----all in place-------------> Program ------------------------------------------------+
///                                                                                            |
///                              done <-- Connectivity <-- Source <-- Announce <-- Gate <------+
///
///  any failure: Undo --> failed
/// ```
#[derive(Clone, Debug)]
enum State {
    Begin,
    Link(Link),
    Presence,
    Duplicate,
    Program,
    /// Ours that would not let the right ones be added.
    Unfit(Box<Clear>),
    Address,
    /// Ours that the right ones have taken the place of.
    Replaced(Box<Clear>),
    Neighbours,
    Gate,
    Announce,
    Source,
    Connectivity(Connectivity),
    Undo(Box<Undo>),
    Ended,
}

#[derive(Clone, Debug)]
pub struct Restore {
    context: Context,
    log: Log,
    state: State,
    survey: Survey,
    known: Known,
}

impl Restore {
    pub fn new(context: Context) -> Self {
        let (survey, known) = (Survey::default(), Known::default());
        Self { context, log: Log::default(), state: State::Begin, survey, known }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    pub fn step(&mut self, input: Input) -> Step {
        match mem::replace(&mut self.state, State::Ended) {
            State::Begin => self.begin(),
            State::Link(link) => {
                let next = link.step(input.effect(), &self.context, &mut self.log);
                self.link(next)
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
            State::Neighbours => self.flushed(input.effect()),
            State::Gate => self.opened(input.effect()),
            State::Announce => self.announced(input.effect()),
            State::Source => self.source_set(input.effect()),
            State::Connectivity(c) => {
                let test = c.step(input.effect(), &self.context, &mut self.log, CONNECTIVITY);
                self.tested(test)
            }
            State::Undo(undo) => {
                let next = undo.step(input.effect(), &self.context, &mut self.log);
                self.undo(next)
            }
            State::Ended => self.log.ended("restore.failed"),
        }
    }

    /// See [`super::Sequence::owed`].
    pub fn owed(&self) -> Option<Command> {
        match &self.state {
            State::Link(link) => link.owed(&self.context),
            State::Begin
            | State::Presence
            | State::Duplicate
            | State::Program
            | State::Unfit(_)
            | State::Address
            | State::Replaced(_)
            | State::Neighbours
            | State::Gate
            | State::Announce
            | State::Source
            | State::Connectivity(_)
            | State::Undo(_)
            | State::Ended => None,
        }
    }

    fn begin(&mut self) -> Step {
        let Context { addresses, device, tunables, .. } = &self.context;
        if self.context.physical {
            let message = format!("{addresses} is a stationary address of this host and stays as it is");
            return self.log.succeed("restore.physical", message);
        }
        if !self.context.restore_and_recover {
            let message = format!(
                "{addresses} is not put on the network: restore-and-recover is disabled on this node"
            );
            return self.log.succeed("restore.disabled", message);
        }
        if tunables.no_link_check {
            self.log.say("restore.link-skipped", format!("{device} is taken to be up: IP_NOLINKCHECK=1"));
            return self.look_for_address();
        }
        let next = Link::begin(&self.context, &mut self.log);
        self.link(next)
    }

    fn link(&mut self, next: link::Next) -> Step {
        match next {
            link::Next::Run(link, command) => {
                self.state = State::Link(link);
                self.log.command(command)
            }
            link::Next::Up => self.look_for_address(),
            link::Next::Failed(reason) => self.fail_because(reason, Cause::Interface),
            link::Next::Missing => {
                let device = &self.context.device;
                let reason = format!(
                    "there is no interface {device} on this host: create it, or name another ('vipctl set TAG devices=...')"
                );
                self.fail_because(reason, Cause::Interface)
            }
        }
    }

    fn look_for_address(&mut self) -> Step {
        let Context { addresses, device, .. } = &self.context;
        let message = format!("is {addresses} on {device} already");
        self.state = State::Presence;
        let command = Command::ReadAddresses { place: self.context.place() };
        self.log.run(command, "restore.presence", message)
    }

    fn presence(&mut self, effect: Effect) -> Step {
        let Context { addresses, device, .. } = &self.context;
        let found = match answer::presence(effect) {
            Ok(found) => found,
            Err(reason) => return self.fail(format!("cannot look for {addresses} on {device}: {reason}")),
        };
        for (present, by) in [(&found.ours, "vipd"), (&found.foreign, "somebody else")] {
            if !present.is_empty() {
                self.log.say("restore.present", format!("{present} is on {device} already, added by {by}"));
            }
        }
        for place in found.of_ours() {
            let message = format!("{} was left by vipd: it is replaced", whereabouts(place));
            self.log.say("restore.leftover", message);
        }
        self.survey = Survey::new(&found, &self.context);
        let refused = found.of_others().next().map(|place| in_the_way(place, &self.context));
        self.known.found = Some(found);
        match refused {
            Some(reason) => self.fail(reason),
            None => self.check_duplicate(),
        }
    }

    /// Of what is nowhere on this host; what is here was checked before it came here.
    fn check_duplicate(&mut self) -> Step {
        let (absent, device) = (self.survey.absent.clone(), self.context.device.clone());
        if absent.is_empty() {
            return self.program();
        }
        if self.context.tunables.no_unique_check {
            let message = format!("nobody is asked whether {absent} is in use: NOIPUNIQUE=1");
            self.log.say("restore.duplicate-skipped", message);
            return self.program();
        }
        let message = format!("does anybody else use {absent} on {device}");
        self.state = State::Duplicate;
        let command = Command::ProbeDuplicates { addresses: absent, device };
        self.log.run(command, "restore.duplicate", message)
    }

    fn duplicate(&mut self, effect: Effect) -> Step {
        match claimed(effect, &self.survey.absent, &self.context.device) {
            Ok(()) => self.program(),
            Err(reason) => self.fail(reason),
        }
    }

    fn program(&mut self) -> Step {
        let Context { addresses, device, group, .. } = &self.context;
        let message = format!("the datapath of {device} learns of {addresses}");
        let command =
            Command::Program { group: *group, addresses: addresses.clone(), device: device.clone() };
        self.state = State::Program;
        self.log.run(command, "restore.program", message)
    }

    fn programmed(&mut self, effect: Effect) -> Step {
        let Context { addresses, device, .. } = &self.context;
        if let Err(reason) = answer::done(effect) {
            return self.fail(format!("the datapath of {device} does not take {addresses}: {reason}"));
        }
        self.known.programmed = true;
        if self.survey.is_in_place() {
            return self.open();
        }
        let unfit = mem::take(&mut self.survey.unfit);
        let next = Clear::begin(unfit, self.context.place(), None, CLEAR, &mut self.log);
        self.clearing_unfit(next)
    }

    fn clearing_unfit(&mut self, next: clear::Next) -> Step {
        match next {
            clear::Next::Run(clear, command) => {
                self.state = State::Unfit(Box::new(clear));
                self.log.command(command)
            }
            clear::Next::Cleared(cleared) if !cleared.left.is_empty() => {
                self.fail(cleared.reasons.join("; "))
            }
            clear::Next::Cleared(_) if self.survey.add.is_empty() => self.replace(),
            clear::Next::Cleared(_) => {
                let place = Place { addresses: self.survey.add.clone(), ..self.context.place() };
                let message = format!("add {} to {}", place.addresses, place.device);
                // Also when it fails: half of it may have happened.
                self.known.added = self.survey.add.clone();
                self.state = State::Address;
                self.log.run(Command::AddAddresses { place }, "restore.address", message)
            }
        }
    }

    fn added(&mut self, effect: Effect) -> Step {
        if let Err(reason) = answer::done(effect) {
            let (add, device) = (&self.survey.add, &self.context.device);
            return self.fail(format!("cannot add {add} to {device}: {reason}"));
        }
        self.replace()
    }

    /// The right ones are there: what stood elsewhere is not needed any more.
    fn replace(&mut self) -> Step {
        let (places, home) = (mem::take(&mut self.survey.replaced), self.context.place());
        let next = Clear::begin(places, home, Some(&self.context.device), CLEAR, &mut self.log);
        self.clearing_replaced(next)
    }

    fn clearing_replaced(&mut self, next: clear::Next) -> Step {
        match next {
            clear::Next::Run(clear, command) => {
                self.state = State::Replaced(Box::new(clear));
                self.log.command(command)
            }
            clear::Next::Cleared(cleared) if !cleared.left.is_empty() => {
                self.fail(cleared.reasons.join("; "))
            }
            clear::Next::Cleared(_) => {
                let device = self.context.device.clone();
                self.state = State::Neighbours;
                let message = format!("forget the neighbours of {device}");
                self.log.run(Command::FlushNeighbours { device }, "restore.neighbours", message)
            }
        }
    }

    fn flushed(&mut self, effect: Effect) -> Step {
        match answer::done(effect) {
            Ok(()) => self.open(),
            Err(reason) => {
                self.fail(format!("cannot flush the neighbour entries of {}: {reason}", self.context.device))
            }
        }
    }

    fn open(&mut self) -> Step {
        let Context { addresses, group, epoch, .. } = &self.context;
        self.state = State::Gate;
        let message = format!("the kernel answers for {addresses} from now on (epoch {epoch})");
        self.log.run(Command::OpenGate { group: *group, epoch: *epoch }, "restore.open-gate", message)
    }

    fn opened(&mut self, effect: Effect) -> Step {
        let (addresses, device) = (self.context.addresses.clone(), self.context.device.clone());
        if let Err(reason) = answer::done(effect) {
            return self.fail(format!("cannot open the gate of {addresses}: {reason}"));
        }
        self.state = State::Announce;
        let message = format!("tell everybody on {device} that {addresses} is here");
        self.log.run(Command::Announce { addresses, device }, "restore.announce", message)
    }

    fn announced(&mut self, effect: Effect) -> Step {
        let (addresses, device) = (self.context.addresses.clone(), self.context.device.clone());
        if let Err(reason) = answer::done(effect) {
            return self.fail(format!("cannot announce {addresses} on {device}: {reason}"));
        }
        if !self.context.sets_source() {
            return self.test();
        }
        self.known.source_set = true;
        self.state = State::Source;
        let message = format!("{addresses} become the source of their subnets' routes on {device}");
        self.log.run(Command::SetSource { addresses, device }, "restore.source", message)
    }

    fn source_set(&mut self, effect: Effect) -> Step {
        match answer::done(effect) {
            Ok(()) => self.test(),
            Err(reason) => {
                self.fail(format!("cannot set the source address on {}: {reason}", self.context.device))
            }
        }
    }

    fn test(&mut self) -> Step {
        let addresses = &self.context.addresses;
        let test = Connectivity::begin(addresses, &self.context, &mut self.log, CONNECTIVITY);
        self.tested(test)
    }

    fn tested(&mut self, test: Test) -> Step {
        match test {
            Test::Run(state, command) => {
                self.state = State::Connectivity(state);
                self.log.command(command)
            }
            Test::Connected => {
                let message = format!("{} is in service on {}", self.context.addresses, self.context.device);
                self.log.succeed("restore.done", message)
            }
            Test::Failed(reason) => self.fail_because(reason, Cause::Interface),
        }
    }

    fn fail(&mut self, reason: String) -> Step {
        self.fail_because(reason, Cause::Other)
    }

    fn fail_because(&mut self, reason: String, cause: Cause) -> Step {
        let why = (reason, cause);
        let next = Undo::begin(why, self.known.clone(), &self.context, UNDO, &mut self.log);
        self.undo(next)
    }

    fn undo(&mut self, next: undo::Next) -> Step {
        match next {
            undo::Next::Run(undo, command) => {
                self.state = State::Undo(Box::new(undo));
                self.log.command(command)
            }
            undo::Next::Undone(failure) => {
                let reason =
                    format!("{} cannot be brought in service: {}", self.context.addresses, failure.reason);
                self.log.fail("restore.failed", Failure { reason, ..failure })
            }
        }
    }
}

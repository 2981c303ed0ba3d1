//! restore (row IP-6): brings the addresses in service, or leaves no trace of having tried.

mod link;

use std::mem;

use self::link::Link;
use super::{
    Cause, Context, Failure, Input, Step,
    admit::{self, Admit, Reached},
    answer, clear, connectivity,
    log::Log,
    settle::{self, Settle},
    survey::{Survey, in_the_way, whereabouts},
    undo::{self, Known, Undo},
};
use crate::core::command::{Command, Effect};

const ADMIT: admit::Kinds = admit::Kinds {
    duplicate: "restore.duplicate",
    duplicate_skipped: "restore.duplicate-skipped",
    program: "restore.program",
    address: "restore.address",
    clear: clear::Kinds {
        source: "restore.source-back",
        address: "restore.misplaced",
        host_route: "restore.host-route",
        route_cache: "restore.route-cache",
        look: "restore.look",
        failed: "restore.clear-failed",
    },
};

const SETTLE: settle::Kinds = settle::Kinds {
    source: "restore.source",
    connectivity: connectivity::Kinds {
        list: "restore.ping-list",
        broadcast: "restore.broadcast-ping",
        skipped: "restore.connectivity-skipped",
        answered: "restore.connectivity",
    },
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
///  Presence -> Admit --something had to be changed--> Neighbours --+
///                |                                                |
///                +----all was in place----------------------------+
///                                                                 |
///                           done <-- Settle <-- Announce <-- Gate <+
///
///  any failure: Undo --> failed
/// ```
#[derive(Clone, Debug)]
enum State {
    Begin,
    Link(Link),
    Presence,
    Admit(Box<Admit>),
    Neighbours,
    Gate,
    Announce,
    Settle(Box<Settle>),
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
            State::Admit(admit) => {
                let next = admit.step(input.effect(), &self.context, ADMIT, &mut self.log);
                self.admitting(next)
            }
            State::Neighbours => self.flushed(input.effect()),
            State::Gate => self.opened(input.effect()),
            State::Announce => self.announced(input.effect()),
            State::Settle(settle) => {
                let next = settle.step(input.effect(), &self.context, SETTLE, &mut self.log);
                self.settling(next)
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
            | State::Admit(_)
            | State::Neighbours
            | State::Gate
            | State::Announce
            | State::Settle(_)
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
            None => self.admit(),
        }
    }

    fn admit(&mut self) -> Step {
        let (survey, all) = (self.survey.clone(), self.context.addresses.clone());
        let next = Admit::begin(survey, all, &self.context, ADMIT, &mut self.log);
        self.admitting(next)
    }

    fn admitting(&mut self, next: admit::Next) -> Step {
        match next {
            admit::Next::Run(admit, command) => {
                self.state = State::Admit(admit);
                self.log.command(command)
            }
            admit::Next::Failed(reason, reached) => {
                self.know(reached);
                self.fail(reason)
            }
            admit::Next::Admitted => {
                self.know(Reached::Adding);
                if self.survey.is_in_place() {
                    return self.open();
                }
                let device = self.context.device.clone();
                self.state = State::Neighbours;
                let message = format!("forget the neighbours of {device}");
                self.log.run(Command::FlushNeighbours { device }, "restore.neighbours", message)
            }
        }
    }

    /// What a failure from now on has to undo.
    fn know(&mut self, reached: Reached) {
        self.known.programmed = reached >= Reached::Programmed;
        if reached >= Reached::Adding {
            // Also when it failed: half of it may have happened.
            self.known.added = self.survey.add.clone();
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
        let source = self.context.sets_source();
        self.known.source_set = source;
        let next = Settle::begin(source, addresses, &self.context, SETTLE, &mut self.log);
        self.settling(next)
    }

    fn settling(&mut self, next: settle::Next) -> Step {
        match next {
            settle::Next::Run(settle, command) => {
                self.state = State::Settle(settle);
                self.log.command(command)
            }
            settle::Next::Settled => {
                let message = format!("{} is in service on {}", self.context.addresses, self.context.device);
                self.log.succeed("restore.done", message)
            }
            settle::Next::Failed(reason, cause) => self.fail_because(reason, cause),
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
                self.state = State::Undo(undo);
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

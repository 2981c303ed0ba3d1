//! switch (row NM-5): moves addresses in service from one interface of this node to another.
//!
//! Clients wait, so the gate opens as early as it can: the new interface has the addresses before the old
//! one has lost them. Nobody is asked for duplicates: this node holds the grant, so no other node of the
//! cluster may answer, and a probe would take longer than all the rest. A stranger on the new interface's
//! segment answers the announcement, and is treated as a foreign claim is (row DP-10).

use std::mem;

use super::{
    Cause, Context, Failure, Input, Step, answer,
    clear::{self, Clear, place_on},
    connectivity,
    log::Log,
    settle::{self, Settle},
    undo::{self, Known, Undo},
};
use crate::core::command::{Command, Effect};

const SETTLE: settle::Kinds = settle::Kinds {
    source: "switch.source",
    connectivity: connectivity::Kinds {
        list: "switch.ping-list",
        broadcast: "switch.broadcast-ping",
        skipped: "switch.connectivity-skipped",
        answered: "switch.connectivity",
    },
};

const CLEAR: clear::Kinds = clear::Kinds {
    source: "switch.source-back",
    address: "switch.old-address",
    host_route: "switch.host-route",
    route_cache: "switch.route-cache",
    look: "switch.look",
    failed: "switch.clear-failed",
};

const UNDO: undo::Kinds = undo::Kinds {
    gate: "switch.undo-gate",
    withdraw: "switch.undo-withdraw",
    look: "switch.undo-look",
    program: "switch.undo-program",
    clear: clear::Kinds {
        source: "switch.undo-source",
        address: "switch.undo-address",
        host_route: "switch.undo-host-route",
        route_cache: "switch.undo-route-cache",
        look: "switch.undo-recheck",
        failed: "switch.undo-failed",
    },
};

/// ```text
///  Begin --physical--> failed
///    |  \--disabled, there already--> done
///  Program (shuts the gate, moves it) -> Address -> Gate -> Announce -> Neighbours
///                                                                           |
///                               done <-- Settle <-- Clear (the old) <-------+
///
///  any failure: Undo (of both interfaces) --> failed
/// ```
#[derive(Clone, Debug)]
enum State {
    Begin,
    Program,
    Address,
    Gate,
    Announce,
    Neighbours,
    Clear(Box<Clear>),
    Settle(Box<Settle>),
    Undo(Box<Undo>),
    Ended,
}

#[derive(Clone, Debug)]
pub struct Switch {
    context: Context,
    from: String,
    log: Log,
    state: State,
    known: Known,
}

impl Switch {
    pub fn new(context: Context, from: String) -> Self {
        Self { context, from, log: Log::default(), state: State::Begin, known: Known::default() }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    pub fn step(&mut self, input: Input) -> Step {
        match mem::replace(&mut self.state, State::Ended) {
            State::Begin => self.begin(),
            State::Program => self.moved(input.effect()),
            State::Address => self.added(input.effect()),
            State::Gate => self.opened(input.effect()),
            State::Announce => self.announced(input.effect()),
            State::Neighbours => self.flushed(input.effect()),
            State::Clear(clear) => {
                let next = clear.step(input.effect(), &mut self.log);
                self.clearing(next)
            }
            State::Settle(settle) => {
                let next = settle.step(input.effect(), &self.context, SETTLE, &mut self.log);
                self.settling(next)
            }
            State::Undo(undo) => {
                let next = undo.step(input.effect(), &self.context, &mut self.log);
                self.undo(next)
            }
            State::Ended => self.log.ended("switch.failed"),
        }
    }

    fn begin(&mut self) -> Step {
        let Context { addresses, device, group, .. } = &self.context;
        let (group, addresses, device, from) = (*group, addresses.clone(), device.clone(), &self.from);
        if self.context.physical {
            let reason = format!(
                "{addresses} is a stationary address of this host and is not moved from {from} to {device}: repair {from} by hand"
            );
            return self.log.fail("switch.physical", Failure::other(reason, false));
        }
        if !self.context.restore_and_recover {
            let message = format!("{addresses} is not moved: restore-and-recover is disabled on this node");
            return self.log.succeed("switch.disabled", message);
        }
        if *from == device {
            return self.log.succeed("switch.done", format!("{addresses} is on {device} already"));
        }
        let message = format!("{addresses} moves from {from} to {device}, its gate closed meanwhile");
        self.state = State::Program;
        self.log.run(Command::Program { group, addresses, device }, "switch.program", message)
    }

    fn moved(&mut self, effect: Effect) -> Step {
        let Context { addresses, device, .. } = &self.context;
        if let Err(reason) = answer::done(effect) {
            return self.fail(format!("the datapath of {device} does not take {addresses}: {reason}"));
        }
        let message = format!("add {addresses} to {device}");
        self.known.programmed = true;
        self.state = State::Address;
        self.log.run(Command::AddAddresses { place: self.context.place() }, "switch.address", message)
    }

    fn added(&mut self, effect: Effect) -> Step {
        let Context { addresses, device, group, epoch, .. } = &self.context;
        if let Err(reason) = answer::done(effect) {
            return self.fail(format!("cannot add {addresses} to {device}: {reason}"));
        }
        self.state = State::Gate;
        let message = format!("the kernel answers for {addresses} on {device} from now on (epoch {epoch})");
        self.log.run(Command::OpenGate { group: *group, epoch: *epoch }, "switch.open-gate", message)
    }

    fn opened(&mut self, effect: Effect) -> Step {
        let (addresses, device) = (self.context.addresses.clone(), self.context.device.clone());
        if let Err(reason) = answer::done(effect) {
            return self.fail(format!("cannot open the gate of {addresses}: {reason}"));
        }
        self.state = State::Announce;
        let message = format!("tell everybody on {device} that {addresses} is here");
        self.log.run(Command::Announce { addresses, device }, "switch.announce", message)
    }

    fn announced(&mut self, effect: Effect) -> Step {
        let Context { addresses, device, .. } = &self.context;
        if let Err(reason) = answer::done(effect) {
            return self.fail(format!("cannot announce {addresses} on {device}: {reason}"));
        }
        let device = device.clone();
        self.state = State::Neighbours;
        let message = format!("forget the neighbours of {device}");
        self.log.run(Command::FlushNeighbours { device }, "switch.neighbours", message)
    }

    fn flushed(&mut self, effect: Effect) -> Step {
        if let Err(reason) = answer::done(effect) {
            let device = &self.context.device;
            return self.fail(format!("cannot flush the neighbour entries of {device}: {reason}"));
        }
        let home = self.context.place();
        let old = place_on(&home, &self.from);
        let next = Clear::begin([old], home, None, CLEAR, &mut self.log);
        self.clearing(next)
    }

    fn clearing(&mut self, next: clear::Next) -> Step {
        match next {
            clear::Next::Run(clear, command) => {
                self.state = State::Clear(clear);
                self.log.command(command)
            }
            clear::Next::Cleared(cleared) if cleared.left.is_empty() => self.settle(),
            clear::Next::Cleared(cleared) => {
                let why = cleared.reasons.join("; ");
                self.fail(format!("it cannot be taken from {}: {why}", self.from))
            }
        }
    }

    fn settle(&mut self) -> Step {
        let source = self.context.sets_source();
        self.known.source_set = source;
        let tested = self.context.addresses.clone();
        let next = Settle::begin(source, tested, &self.context, SETTLE, &mut self.log);
        self.settling(next)
    }

    fn settling(&mut self, next: settle::Next) -> Step {
        match next {
            settle::Next::Run(settle, command) => {
                self.state = State::Settle(settle);
                self.log.command(command)
            }
            settle::Next::Settled => {
                let Context { addresses, device, .. } = &self.context;
                let message = format!("{addresses} is in service on {device}, no longer on {}", self.from);
                self.log.succeed("switch.done", message)
            }
            settle::Next::Failed(reason, cause) => self.fail_because(reason, cause),
        }
    }

    fn fail(&mut self, reason: String) -> Step {
        self.fail_because(reason, Cause::Other)
    }

    /// Whatever is on either interface by now is looked for.
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
                let Context { addresses, device, .. } = &self.context;
                let from = &self.from;
                let reason = format!("{addresses} cannot move from {from} to {device}: {}", failure.reason);
                self.log.fail("switch.failed", Failure { reason, ..failure })
            }
        }
    }
}

//! restore (row IP-6): brings the address in service, or leaves no trace of having tried.

mod undo;

use std::{mem, sync::Arc, time::Duration};

use self::undo::Undo;
use super::{
    Context, Failure, Input, Step, answer,
    connectivity::{Connectivity, Kinds, Test},
    log::Log,
};
use crate::{
    core::command::{Command, Effect, LinkState, Place, Presence},
    model::Addresses,
};

/// Between two looks at a link that was started again.
pub const LINK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

const KINDS: Kinds = Kinds {
    list: "restore.ping-list",
    broadcast: "restore.broadcast-ping",
    skipped: "restore.connectivity-skipped",
    answered: "restore.connectivity",
};

/// ```text
///  Begin --physical, disabled--> done
///    |
///  Link --not up--> LinkStop -> LinkDown -> LinkStart -> LinkRecheck <-> LinkWait
///    | up                                                    | up
///    +<------------------------------------------------------+
///  Presence --absent--> Duplicate -> Program -> Address -> Neighbours --+
///    |                                                                  |
///    +----present-----------------> Program ----------------------------+
///                                                                       |
///                          done <-- Connectivity <-- Announce <-- Gate <+
///
///  any failure: Undo --> failed
/// ```
#[derive(Clone, Debug)]
enum State {
    Begin,
    Link,
    LinkStop,
    LinkDown,
    LinkStart,
    /// Looks left after this one.
    LinkRecheck {
        left: u32,
    },
    LinkWait {
        left: u32,
    },
    Presence,
    Duplicate {
        absent: Arc<Addresses>,
    },
    Program {
        absent: Arc<Addresses>,
    },
    Address {
        absent: Arc<Addresses>,
    },
    Neighbours,
    Gate,
    Announce,
    Connectivity(Connectivity),
    Undo(Undo),
    Ended,
}

/// What this run knows of the addresses' whereabouts; decides what a failure undoes.
#[derive(Clone, Debug, Default)]
struct Known {
    /// None: not looked yet, or could not look.
    found: Option<Presence>,
    /// Added now, if only perhaps.
    added: Option<Arc<Addresses>>,
    programmed: bool,
}

#[derive(Clone, Debug)]
pub struct Restore {
    context: Context,
    log: Log,
    state: State,
    known: Known,
}

impl Restore {
    pub fn new(context: Context) -> Self {
        Self { context, log: Log::default(), state: State::Begin, known: Known::default() }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    pub fn step(&mut self, input: Input) -> Step {
        match mem::replace(&mut self.state, State::Ended) {
            State::Begin => self.begin(),
            State::Link => self.link(input.effect()),
            State::LinkStop => self.link_stopped(input.effect()),
            State::LinkDown => self.link_was_down(input.effect()),
            State::LinkStart => self.link_started(input.effect()),
            State::LinkRecheck { left } => self.link_rechecked(input.effect(), left),
            State::LinkWait { left } => self.link_waited(input.effect(), left),
            State::Presence => self.presence(input.effect()),
            State::Duplicate { absent } => self.duplicate(input.effect(), absent),
            State::Program { absent } => self.programmed(input.effect(), absent),
            State::Address { absent } => self.added(input.effect(), &absent),
            State::Neighbours => self.flushed(input.effect()),
            State::Gate => self.opened(input.effect()),
            State::Announce => self.announced(input.effect()),
            State::Connectivity(c) => {
                let test = c.step(input.effect(), &self.context, &mut self.log, KINDS);
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
        match self.state {
            State::LinkStop | State::LinkDown | State::LinkStart => {
                Some(Command::SetLink { device: self.context.device.clone(), up: true })
            }
            State::Begin
            | State::Link
            | State::LinkRecheck { .. }
            | State::LinkWait { .. }
            | State::Presence
            | State::Duplicate { .. }
            | State::Program { .. }
            | State::Address { .. }
            | State::Neighbours
            | State::Gate
            | State::Announce
            | State::Connectivity(_)
            | State::Undo(_)
            | State::Ended => None,
        }
    }

    fn begin(&mut self) -> Step {
        let Context { addresses: address, device, tunables, .. } = &self.context;
        if self.context.physical {
            let message = format!("{address} is a stationary address of this host and stays as it is");
            return self.log.succeed("restore.physical", message);
        }
        if !self.context.restore_and_recover {
            let message =
                format!("{address} is not put on the network: restore-and-recover is disabled on this node");
            return self.log.succeed("restore.disabled", message);
        }
        if tunables.no_link_check {
            self.log.say("restore.link-skipped", format!("{device} is taken to be up: IP_NOLINKCHECK=1"));
            return self.look_for_address();
        }
        self.state = State::Link;
        let message = format!("is {device} up");
        self.log.run(Command::ReadLink { device: device.clone() }, "restore.link", message)
    }

    fn link(&mut self, effect: Effect) -> Step {
        let device = self.context.device.clone();
        let why = match answer::link(effect) {
            Ok(LinkState::Up) => return self.look_for_address(),
            Ok(LinkState::Missing) => return self.missing(),
            Ok(LinkState::Down) => "down",
            Ok(LinkState::NoCarrier) => "without carrier",
            Err(reason) => return self.fail(format!("cannot look at the link of {device}: {reason}")),
        };
        self.state = State::LinkStop;
        let message = format!("{device} is {why}: stop and start it once");
        self.log.run(Command::SetLink { device, up: false }, "restore.link-stop", message)
    }

    fn link_stopped(&mut self, effect: Effect) -> Step {
        let Context { device, tunables, .. } = &self.context;
        if let Err(reason) = answer::done(effect) {
            self.log.say("restore.link-stop-failed", format!("{device} could not be stopped: {reason}"));
            return self.start_link();
        }
        self.state = State::LinkDown;
        let duration = tunables.link_down_wait;
        let message = format!("leave {device} stopped for {duration:?} (IP_WAIT_LINKDOWN)");
        self.log.run(Command::Wait { duration }, "restore.link-wait", message)
    }

    fn link_was_down(&mut self, effect: Effect) -> Step {
        if let Err(reason) = answer::done(effect) {
            let message = format!("{} is started at once: {reason}", self.context.device);
            self.log.say("restore.link-wait-failed", message);
        }
        self.start_link()
    }

    /// Whatever came of stopping it and of the wait: it must not stay down.
    fn start_link(&mut self) -> Step {
        let device = self.context.device.clone();
        self.state = State::LinkStart;
        let message = format!("start {device}");
        self.log.run(Command::SetLink { device, up: true }, "restore.link-start", message)
    }

    fn link_started(&mut self, effect: Effect) -> Step {
        let Context { device, tunables, .. } = &self.context;
        if let Err(reason) = answer::done(effect) {
            let reason = format!(
                "{device} was stopped and cannot be started again: {reason}; start it by hand ('ip link set {device} up')"
            );
            return self.fail(reason);
        }
        let left = tunables.link_checks.saturating_sub(1);
        self.look_again(left)
    }

    fn look_again(&mut self, left: u32) -> Step {
        self.state = State::LinkRecheck { left };
        let device = self.context.device.clone();
        let message = format!("is {device} up now ({left} more looks)");
        self.log.run(Command::ReadLink { device }, "restore.link-recheck", message)
    }

    fn link_rechecked(&mut self, effect: Effect, left: u32) -> Step {
        let Context { device, tunables, .. } = &self.context;
        let state = match answer::link(effect) {
            Ok(LinkState::Up) => return self.look_for_address(),
            Ok(LinkState::Missing) => return self.missing(),
            Ok(LinkState::Down) => "down",
            Ok(LinkState::NoCarrier) => "without carrier",
            Err(reason) => {
                let reason = format!("cannot look at the link of {device}: {reason}");
                return self.fail(reason);
            }
        };
        if left == 0 {
            let reason = format!(
                "{device} is {state}, also after a stop and start and {} looks (IP_MAX_LINKCHK): check its cable and switch port",
                tunables.link_checks.max(1)
            );
            return self.fail(reason);
        }
        self.state = State::LinkWait { left: left - 1 };
        let message = format!("{device} is {state}: look again in {LINK_CHECK_INTERVAL:?}");
        self.log.run(Command::Wait { duration: LINK_CHECK_INTERVAL }, "restore.link-wait", message)
    }

    fn link_waited(&mut self, effect: Effect, left: u32) -> Step {
        match answer::done(effect) {
            Ok(()) => self.look_again(left),
            Err(reason) => {
                self.fail(format!("cannot wait for the link of {}: {reason}", self.context.device))
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
        let presence = match answer::presence(effect) {
            Ok(presence) => presence,
            Err(reason) => return self.fail(format!("cannot look for {addresses} on {device}: {reason}")),
        };
        let absent = Arc::new(presence.absent(addresses));
        let elsewhere = presence.misplaced.first().map(|m| m.place.clone());
        for (found, by) in [(&presence.ours, "vipd"), (&presence.foreign, "somebody else")] {
            if !found.is_empty() {
                self.log.say("restore.present", format!("{found} is on {device} already, added by {by}"));
            }
        }
        self.known.found = Some(presence);
        if let Some(Place { addresses: found, device: other, .. }) = elsewhere {
            let one = found.first().unwrap_or_default();
            return self.fail(format!(
                "{found} is on {other} already, not on {device} as asked for: remove it there ('ip address del \
                 {one} dev {other}') or change the resource"
            ));
        }
        if absent.is_empty() { self.program(absent) } else { self.check_duplicate(absent) }
    }

    fn check_duplicate(&mut self, absent: Arc<Addresses>) -> Step {
        let device = self.context.device.clone();
        if self.context.tunables.no_unique_check {
            let message = format!("nobody is asked whether {absent} is in use: NOIPUNIQUE=1");
            self.log.say("restore.duplicate-skipped", message);
            return self.program(absent);
        }
        let message = format!("does anybody else use {absent} on {device}");
        self.state = State::Duplicate { absent: absent.clone() };
        let command = Command::ProbeDuplicates { addresses: absent, device };
        self.log.run(command, "restore.duplicate", message)
    }

    fn duplicate(&mut self, effect: Effect, absent: Arc<Addresses>) -> Step {
        let Context { device, .. } = &self.context;
        match answer::claims(effect) {
            Ok(claims) if claims.is_empty() => self.program(absent),
            Ok(claims) => {
                let claims: Vec<String> =
                    claims.into_iter().map(|c| format!("{} by {}", c.address, c.by)).collect();
                self.fail(format!(
                    "in use on {device}: {}: take it away from that host (NOIPUNIQUE=1 switches this check off)",
                    claims.join(", ")
                ))
            }
            Err(reason) => {
                let reason = format!("cannot find out on {device} whether anybody uses {absent}: {reason}");
                self.fail(reason)
            }
        }
    }

    fn program(&mut self, absent: Arc<Addresses>) -> Step {
        let Context { addresses, device, group, .. } = &self.context;
        let message = format!("the datapath of {device} learns of {addresses}, its gate closed");
        let command =
            Command::Program { group: *group, addresses: addresses.clone(), device: device.clone() };
        self.state = State::Program { absent };
        self.log.run(command, "restore.program", message)
    }

    fn programmed(&mut self, effect: Effect, absent: Arc<Addresses>) -> Step {
        let Context { addresses, device, .. } = &self.context;
        if let Err(reason) = answer::done(effect) {
            return self.fail(format!("the datapath of {device} does not take {addresses}: {reason}"));
        }
        self.known.programmed = true;
        if absent.is_empty() {
            return self.open();
        }
        let message = format!("add {absent} to {device}");
        let place = Place { addresses: absent.clone(), ..self.context.place() };
        // Also when it fails: half of it may have happened.
        self.known.added = Some(absent.clone());
        self.state = State::Address { absent };
        self.log.run(Command::AddAddresses { place }, "restore.address", message)
    }

    fn added(&mut self, effect: Effect, absent: &Addresses) -> Step {
        let device = self.context.device.clone();
        if let Err(reason) = answer::done(effect) {
            return self.fail(format!("cannot add {absent} to {device}: {reason}"));
        }
        self.state = State::Neighbours;
        let message = format!("forget the neighbours of {device}");
        self.log.run(Command::FlushNeighbours { device }, "restore.neighbours", message)
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
        if let Err(reason) = answer::done(effect) {
            let Context { addresses, device, .. } = &self.context;
            let reason = format!("cannot announce {addresses} on {device}: {reason}");
            return self.fail(reason);
        }
        let test = Connectivity::begin(&self.context, &mut self.log, KINDS);
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
            Test::Failed(reason) => self.fail(reason),
        }
    }

    fn missing(&mut self) -> Step {
        self.known.found = Some(Presence::default());
        let device = &self.context.device;
        let reason = format!(
            "there is no interface {device} on this host: create it, or name another ('vipctl set TAG devices=...')"
        );
        self.fail(reason)
    }

    fn fail(&mut self, reason: String) -> Step {
        let next = Undo::begin(reason, self.known.clone(), &self.context, &mut self.log);
        self.undo(next)
    }

    fn undo(&mut self, next: undo::Next) -> Step {
        match next {
            undo::Next::Run(undo, command) => {
                self.state = State::Undo(undo);
                self.log.command(command)
            }
            undo::Next::Undone(Failure { reason, silent }) => {
                let reason = format!("{} cannot be brought in service: {reason}", self.context.addresses);
                self.log.fail("restore.failed", Failure { reason, silent })
            }
        }
    }
}

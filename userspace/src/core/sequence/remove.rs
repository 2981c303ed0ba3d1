//! remove (row IP-7): the gate first, so that nothing is answered whatever else fails.

use std::{mem, sync::Arc};

use super::{
    Context, Failure, Input, Step, answer,
    clear::{self, Clear, Cleared},
    log::Log,
    survey::whereabouts,
};
use crate::{
    core::command::{Command, Effect, Place},
    model::{Addresses, Ranges},
};

const CLEAR: clear::Kinds = clear::Kinds {
    source: "remove.source",
    address: "remove.address",
    host_route: "remove.host-route",
    route_cache: "remove.route-cache",
    look: "remove.look",
    failed: "remove.clear-failed",
};

/// ```text
///  Begin --physical--> done
///    |
///  Gate --failed--> failed (may still answer)
///    |
///  Withdraw -> Presence --nothing here--------------------------------+
///                 | some are here, or nobody knows                    |
///               Clear --all gone--------------------------------------+
///                 | some are left                                     |
///              Silence -> Unprogram (the others) -> failed            |
///                                                     done <-- Unprogram
/// ```
///
/// What somebody else put elsewhere is left as it is, in the datapath if it is there.
#[derive(Clone, Debug)]
enum State {
    Begin,
    Gate,
    Withdraw,
    Presence,
    Clear(Box<Clear>),
    /// Makes sure that the datapath knows what could not be removed: its closed gate only counts then.
    Silence(Left),
    Unprogram(Option<Left>),
    Ended,
}

/// What could not be removed.
#[derive(Clone, Debug)]
struct Left {
    addresses: Addresses,
    why: String,
    silent: bool,
}

#[derive(Clone, Debug)]
pub struct Remove {
    context: Context,
    log: Log,
    state: State,
    /// Not for vipd to delete.
    alone: Ranges,
    /// Where something was found, for what cannot be removed.
    device: String,
}

impl Remove {
    pub fn new(context: Context) -> Self {
        let (device, alone) = (context.device.clone(), Ranges::default());
        Self { context, log: Log::default(), state: State::Begin, alone, device }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    pub fn step(&mut self, input: Input) -> Step {
        match mem::replace(&mut self.state, State::Ended) {
            State::Begin => self.begin(),
            State::Gate => self.gate(input.effect()),
            State::Withdraw => self.withdrawn(input.effect()),
            State::Presence => self.presence(input.effect()),
            State::Clear(clear) => {
                let next = clear.step(input.effect(), &mut self.log);
                self.clearing(next)
            }
            State::Silence(left) => self.silenced(input.effect(), left),
            State::Unprogram(left) => self.unprogrammed(input.effect(), left),
            State::Ended => self.log.ended("remove.failed"),
        }
    }

    /// Restore-and-recover is not asked: it may have been disabled while the addresses were in service.
    fn begin(&mut self) -> Step {
        let Context { addresses, group, .. } = &self.context;
        if self.context.physical {
            let message = format!("{addresses} is a stationary address of this host and stays");
            return self.log.succeed("remove.physical", message);
        }
        self.state = State::Gate;
        let message = format!("the kernel stops answering for {addresses}");
        self.log.run(Command::CloseGate { group: *group }, "remove.close-gate", message)
    }

    fn gate(&mut self, effect: Effect) -> Step {
        let addresses = self.context.addresses.clone();
        if let Err(reason) = answer::done(effect) {
            let reason = format!(
                "cannot close the gate of {addresses}: {reason}; this host may answer for it until its lease ends: \
                 look at 'vipctl status' for the state of the datapath"
            );
            return self.log.fail("remove.failed", Failure::other(reason, false));
        }
        self.state = State::Withdraw;
        let message = format!("{addresses} is not announced any more");
        self.log.run(Command::Withdraw { addresses }, "remove.withdraw", message)
    }

    fn withdrawn(&mut self, effect: Effect) -> Step {
        let Context { addresses, device, .. } = &self.context;
        let message = format!("is {addresses} on {device}");
        if let Err(reason) = answer::done(effect) {
            // The guard lets none out while the gate is shut.
            self.log.say("remove.withdraw-failed", format!("announcements were not stopped: {reason}"));
        }
        self.state = State::Presence;
        let command = Command::ReadAddresses { place: self.context.place() };
        self.log.run(command, "remove.presence", message)
    }

    fn presence(&mut self, effect: Effect) -> Step {
        let (home, Context { addresses, device, .. }) = (self.context.place(), &self.context);
        let found = match answer::presence(effect) {
            Ok(found) => found,
            Err(reason) => {
                self.log.say(
                    "remove.presence-unknown",
                    format!(
                        "cannot look for {addresses} on {device}, so it is deleted in any case: {reason}"
                    ),
                );
                let next = Clear::guess(home, CLEAR, &mut self.log);
                return self.clearing(next);
            }
        };
        for place in found.of_others() {
            self.alone = self.alone.union(&place.addresses.hosts());
            let message = format!("{}, put there by somebody else, is left as it is", whereabouts(place));
            self.log.say("remove.left-alone", message);
        }
        let here = found.here();
        let mut places = Vec::new();
        if !here.is_empty() {
            places.push(Place { addresses: Arc::new(here), ..home.clone() });
        }
        for place in found.of_ours() {
            // The resource was changed meanwhile, or a move was broken off.
            self.log.say("remove.misplaced", whereabouts(place));
            places.push(place.clone());
        }
        match places.first() {
            Some(place) => self.device.clone_from(&place.device),
            None => self.log.say("remove.absent", format!("{addresses} is not on this host")),
        }
        let next = Clear::begin(places, home, None, CLEAR, &mut self.log);
        self.clearing(next)
    }

    fn clearing(&mut self, next: clear::Next) -> Step {
        let Cleared { left, reasons, others } = match next {
            clear::Next::Run(clear, command) => {
                self.state = State::Clear(Box::new(clear));
                return self.log.command(command);
            }
            clear::Next::Cleared(cleared) => cleared,
        };
        self.alone = self.alone.union(&others);
        let left = self.context.addresses.within(&left);
        if left.is_empty() {
            for reason in reasons {
                self.log.say("remove.gone", format!("{reason}, and it is gone all the same"));
            }
            return self.take_out(None);
        }
        let (addresses, device) = (Arc::new(left.clone()), self.device.clone());
        self.state = State::Silence(Left { addresses: left, why: reasons.join("; "), silent: false });
        let message =
            format!("{addresses} is still here: make sure that the datapath keeps the kernel silent");
        let command = Command::Program { group: self.context.group, addresses, device };
        self.log.run(command, "remove.silence", message)
    }

    fn silenced(&mut self, effect: Effect, mut left: Left) -> Step {
        match answer::done(effect) {
            Ok(()) => left.silent = true,
            Err(reason) => {
                left.why.push_str("; and the datapath does not take it: ");
                left.why.push_str(&reason);
            }
        }
        self.take_out(Some(left))
    }

    /// Of the datapath, what is known to be gone.
    fn take_out(&mut self, left: Option<Left>) -> Step {
        let stays = left.as_ref().map_or_else(Ranges::default, |l| l.addresses.hosts());
        let gone = Arc::new(self.context.addresses.without(&self.alone.union(&stays)));
        if gone.is_empty() {
            return self.end(left);
        }
        let message = format!("take {gone} out of the datapath");
        self.state = State::Unprogram(left);
        let command = Command::Unprogram { group: self.context.group, addresses: gone };
        self.log.run(command, "remove.unprogram", message)
    }

    fn unprogrammed(&mut self, effect: Effect, left: Option<Left>) -> Step {
        match (answer::done(effect), left) {
            (Ok(()), left) => self.end(left),
            (Err(reason), Some(mut left)) => {
                left.why.push_str("; the others cannot be taken out of the datapath: ");
                left.why.push_str(&reason);
                self.end(Some(left))
            }
            (Err(reason), None) => {
                let reason = format!(
                    "{} is gone from this host, but not from the datapath: {reason}; its gate is closed: \
                     look at 'vipctl status' for the state of the datapath",
                    self.context.addresses
                );
                self.log.fail("remove.failed", Failure::other(reason, true))
            }
        }
    }

    fn end(&mut self, left: Option<Left>) -> Step {
        let Some(Left { addresses, why, silent }) = left else {
            let message = format!("{} is out of service on this host", self.context.addresses);
            return self.log.succeed("remove.done", message);
        };
        let guard = if silent { "; its closed gate keeps the kernel silent" } else { "" };
        let reason = format!(
            "{addresses} could not be removed: {why}{guard}: remove it by hand ('ip address', 'ip route show table local')"
        );
        self.log.fail("remove.failed", Failure::other(reason, silent))
    }
}

//! remove (row IP-7): the gate first, so that nothing is answered whatever else fails.

use std::{collections::VecDeque, mem, sync::Arc};

use super::{Context, Failure, Input, Step, answer, log::Log};
use crate::core::command::{Command, Effect, Misplaced, Place};

/// ```text
///  Begin --physical--> done
///    |
///  Gate --failed--> failed (may still answer)
///    |
///  Presence --absent--------------------------------------------+
///    |  \--somebody else's, elsewhere--> done                   |
///    | present, ours elsewhere, unknown                         |
///  Address -> HostRoute -> RouteCache --all gone--> Unprogram <-+
///                             |                        |
///                             +--still there--+        +--> done
///                                             |
///                 failed (gate closed) <-- Silence
/// ```
#[derive(Clone, Debug)]
enum State {
    Begin,
    Gate,
    Presence,
    Address {
        place: Place,
        /// Where more is to be deleted.
        places: VecDeque<Place>,
        left: Leftover,
    },
    HostRoute {
        places: VecDeque<Place>,
        left: Leftover,
    },
    RouteCache(Leftover),
    /// Makes sure that the datapath knows what could not be removed: its closed gate only counts then.
    Silence(Leftover),
    Unprogram,
    Ended,
}

/// What could not be removed, and the last device from which something was.
#[derive(Clone, Debug, Default)]
struct Leftover {
    device: String,
    reasons: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Remove {
    context: Context,
    log: Log,
    state: State,
}

impl Remove {
    pub fn new(context: Context) -> Self {
        Self { context, log: Log::default(), state: State::Begin }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    pub fn step(&mut self, input: Input) -> Step {
        match mem::replace(&mut self.state, State::Ended) {
            State::Begin => self.begin(),
            State::Gate => self.gate(input.effect()),
            State::Presence => self.presence(input.effect()),
            State::Address { place, places, left } => self.address(input.effect(), place, places, left),
            State::HostRoute { places, left } => self.host_route(input.effect(), places, left),
            State::RouteCache(left) => self.route_cache(input.effect(), left),
            State::Silence(left) => self.silence(input.effect(), &left),
            State::Unprogram => self.unprogram(input.effect()),
            State::Ended => self.log.ended("remove.failed"),
        }
    }

    /// Restore-and-recover is not asked: it may have been disabled while the address was in service.
    fn begin(&mut self) -> Step {
        let Context { addresses: address, group, .. } = &self.context;
        let group = *group;
        if self.context.physical {
            let message = format!("{address} is a stationary address of this host and stays");
            return self.log.succeed("remove.physical", message);
        }
        self.state = State::Gate;
        self.log.run(
            Command::CloseGate { group },
            "remove.close-gate",
            format!("the kernel stops answering for {}", self.context.addresses),
        )
    }

    fn gate(&mut self, effect: Effect) -> Step {
        let Context { addresses: address, device, .. } = &self.context;
        if let Err(reason) = answer::done(effect) {
            let reason = format!(
                "cannot close the gate of {address}: {reason}; this host may answer for it until its lease ends: \
                 look at 'vipctl status' for the state of the datapath"
            );
            return self.log.fail("remove.failed", Failure { reason, silent: false });
        }
        self.state = State::Presence;
        let command = Command::ReadAddresses { place: self.context.place() };
        self.log.run(command, "remove.presence", format!("is {address} on {device}"))
    }

    fn presence(&mut self, effect: Effect) -> Step {
        let Context { addresses: address, device, .. } = &self.context;
        match answer::presence(effect) {
            Ok(presence) => {
                let mut places = VecDeque::new();
                let here = presence.here();
                if !here.is_empty() {
                    places.push_back(Place { addresses: Arc::new(here), ..self.context.place() });
                }
                let mut left_alone = false;
                for Misplaced { place, ours } in presence.misplaced {
                    let Place { addresses, device: other, .. } = &place;
                    if ours {
                        // The interface of the resource was changed meanwhile.
                        let message = format!("{addresses} is not on {device} but on {other}");
                        self.log.say("remove.misplaced", message);
                        places.push_back(place);
                    } else {
                        // Not for vipd to delete. If the datapath knows it, it stays so: silent behind its gate.
                        left_alone = true;
                        let message =
                            format!("{addresses} is on {other}, put there by somebody else: left as it is");
                        self.log.say("remove.left-alone", message);
                    }
                }
                if places.is_empty() && left_alone {
                    return self
                        .log
                        .succeed("remove.done", format!("{address} is out of service on this host"));
                }
                if places.is_empty() {
                    self.log.say("remove.absent", format!("{address} is not on this host"));
                }
                self.delete(places, Leftover::default())
            }
            Err(reason) => {
                self.log.say(
                    "remove.presence-unknown",
                    format!("cannot look for {address} on {device}, so it is deleted in any case: {reason}"),
                );
                let place = self.context.place();
                self.delete([place].into(), Leftover::default())
            }
        }
    }

    fn delete(&mut self, mut places: VecDeque<Place>, left: Leftover) -> Step {
        let Some(place) = places.pop_front() else {
            if left.reasons.is_empty() && left.device.is_empty() {
                return self.take_out();
            }
            self.state = State::RouteCache(left);
            return self.log.run(Command::FlushRouteCache, "remove.route-cache", "flush the route cache");
        };
        let message = format!("delete {} from {}", place.addresses, place.device);
        self.state = State::Address { place: place.clone(), places, left };
        self.log.run(Command::DeleteAddresses { place }, "remove.address", message)
    }

    fn address(&mut self, effect: Effect, place: Place, places: VecDeque<Place>, mut left: Leftover) -> Step {
        let Place { addresses, device, .. } = place;
        left.device.clone_from(&device);
        if let Err(reason) = answer::done(effect) {
            left.reasons.push(format!("{addresses} could not be deleted from {device}: {reason}"));
        }
        let message = format!("delete the host route of {addresses}, if it was left behind");
        self.state = State::HostRoute { places, left };
        self.log.run(Command::DeleteHostRoutes { addresses, device }, "remove.host-route", message)
    }

    fn host_route(&mut self, effect: Effect, places: VecDeque<Place>, mut left: Leftover) -> Step {
        if let Err(reason) = answer::done(effect) {
            left.reasons.push(format!("its host route could not be deleted: {reason}"));
        }
        self.delete(places, left)
    }

    fn route_cache(&mut self, effect: Effect, left: Leftover) -> Step {
        if let Err(reason) = answer::done(effect) {
            // Stale routes of this host's own connections: no reason to call the address in service.
            self.log.say("remove.route-cache-failed", format!("the route cache was not flushed: {reason}"));
        }
        if left.reasons.is_empty() {
            return self.take_out();
        }
        let (addresses, device) = (self.context.addresses.clone(), left.device.clone());
        self.state = State::Silence(left);
        let message =
            format!("{addresses} is still here: make sure that the datapath keeps the kernel silent");
        let command = Command::Program { group: self.context.group, addresses, device };
        self.log.run(command, "remove.silence", message)
    }

    fn silence(&mut self, effect: Effect, left: &Leftover) -> Step {
        let (address, left) = (&self.context.addresses, left.reasons.join("; "));
        let outcome = answer::done(effect);
        let silent = outcome.is_ok();
        let guard = match outcome {
            Ok(()) => "its closed gate keeps the kernel silent".to_owned(),
            Err(reason) => format!("and the datapath does not take it: {reason}"),
        };
        let reason = format!(
            "{address} could not be removed: {left}; {guard}: remove it by hand ('ip address', 'ip route show table local')"
        );
        self.log.fail("remove.failed", Failure { reason, silent })
    }

    fn take_out(&mut self) -> Step {
        let Context { addresses, group, .. } = &self.context;
        self.state = State::Unprogram;
        let message = format!("take {addresses} out of the datapath");
        let command = Command::Unprogram { group: *group, addresses: addresses.clone() };
        self.log.run(command, "remove.unprogram", message)
    }

    fn unprogram(&mut self, effect: Effect) -> Step {
        let address = &self.context.addresses;
        match answer::done(effect) {
            Ok(()) => self.log.succeed("remove.done", format!("{address} is out of service on this host")),
            Err(reason) => {
                let reason = format!(
                    "{address} is gone from this host, but not from the datapath: {reason}; its gate is closed: \
                     look at 'vipctl status' for the state of the datapath"
                );
                self.log.fail("remove.failed", Failure { reason, silent: true })
            }
        }
    }
}

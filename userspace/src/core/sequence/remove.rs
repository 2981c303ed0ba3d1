//! remove (row IP-7): the gate first, so that nothing is answered whatever else fails.

use std::mem;

use super::{Context, Failure, Input, Step, answer, log::Log};
use crate::core::command::{Command, Effect, Presence};

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
        device: String,
    },
    HostRoute(Leftover),
    RouteCache(Leftover),
    /// Makes sure that the datapath knows what could not be removed: its closed gate only counts then.
    Silence(Leftover),
    Unprogram,
    Ended,
}

/// What could not be removed, and from where.
#[derive(Clone, Debug)]
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
            State::Address { device } => self.address(input.effect(), device),
            State::HostRoute(left) => self.host_route(input.effect(), left),
            State::RouteCache(left) => self.route_cache(input.effect(), left),
            State::Silence(left) => self.silence(input.effect(), &left),
            State::Unprogram => self.unprogram(input.effect()),
            State::Ended => self.log.ended("remove.failed"),
        }
    }

    /// Restore-and-recover is not asked: it may have been disabled while the address was in service.
    fn begin(&mut self) -> Step {
        let (address, ip) = (self.context.address, self.context.ip());
        if self.context.physical {
            let message = format!("{address} is a stationary address of this host and stays");
            return self.log.succeed("remove.physical", message);
        }
        self.state = State::Gate;
        self.log.run(
            Command::CloseGate { address: ip },
            "remove.close-gate",
            format!("the kernel stops answering for {ip}"),
        )
    }

    fn gate(&mut self, effect: Effect) -> Step {
        let Context { address, device, .. } = &self.context;
        if let Err(reason) = answer::done(effect) {
            let reason = format!(
                "cannot close the gate of {address}: {reason}; this host may answer for it until its lease ends: \
                 look at 'vipctl status' for the state of the datapath"
            );
            return self.log.fail("remove.failed", Failure { reason, silent: false });
        }
        self.state = State::Presence;
        let command = Command::ReadAddress { address: *address, device: device.clone() };
        self.log.run(command, "remove.presence", format!("is {address} on {device}"))
    }

    fn presence(&mut self, effect: Effect) -> Step {
        let Context { address, device, .. } = &self.context;
        match answer::presence(effect) {
            Ok(Presence::Absent) => {
                self.log.say("remove.absent", format!("{address} is not on this host"));
                self.take_out()
            }
            Ok(Presence::Present { ours: _ }) => {
                let (address, device) = (*address, device.clone());
                self.delete(address, device)
            }
            // The interface of the resource was changed meanwhile.
            Ok(Presence::Misplaced { device: other, prefix_len, ours: true }) => {
                let there = ipnet::IpNet::new(address.addr(), prefix_len).unwrap_or(*address);
                let message = format!("{address} is not on {device} but, as {there}, on {other}");
                self.log.say("remove.misplaced", message);
                self.delete(there, other)
            }
            // Not for vipd to delete. If the datapath knows it, it stays so: silent behind its gate.
            Ok(Presence::Misplaced { device: other, prefix_len, ours: false }) => {
                let message = format!(
                    "{} is on {other} with prefix length {prefix_len}, put there by somebody else: left as it is",
                    address.addr()
                );
                self.log.succeed("remove.left-alone", message)
            }
            Err(reason) => {
                self.log.say(
                    "remove.presence-unknown",
                    format!("cannot look for {address} on {device}, so it is deleted in any case: {reason}"),
                );
                let (address, device) = (*address, device.clone());
                self.delete(address, device)
            }
        }
    }

    fn delete(&mut self, address: ipnet::IpNet, device: String) -> Step {
        self.state = State::Address { device: device.clone() };
        let message = format!("delete {address} from {device}");
        self.log.run(Command::DeleteAddress { address, device }, "remove.address", message)
    }

    fn address(&mut self, effect: Effect, device: String) -> Step {
        let ip = self.context.ip();
        let mut left = Leftover { device: device.clone(), reasons: Vec::new() };
        if let Err(reason) = answer::done(effect) {
            left.reasons.push(format!("the address could not be deleted from {device}: {reason}"));
        }
        self.state = State::HostRoute(left);
        let message = format!("delete the host route of {ip}, if it was left behind");
        self.log.run(Command::DeleteHostRoute { address: ip, device }, "remove.host-route", message)
    }

    fn host_route(&mut self, effect: Effect, mut left: Leftover) -> Step {
        if let Err(reason) = answer::done(effect) {
            left.reasons.push(format!("its host route could not be deleted: {reason}"));
        }
        self.state = State::RouteCache(left);
        self.log.run(Command::FlushRouteCache, "remove.route-cache", "flush the route cache")
    }

    fn route_cache(&mut self, effect: Effect, left: Leftover) -> Step {
        if let Err(reason) = answer::done(effect) {
            // Stale routes of this host's own connections: no reason to call the address in service.
            self.log.say("remove.route-cache-failed", format!("the route cache was not flushed: {reason}"));
        }
        if left.reasons.is_empty() {
            return self.take_out();
        }
        let (address, device) = (self.context.ip(), left.device.clone());
        self.state = State::Silence(left);
        let message = format!("{address} is still here: make sure that the datapath keeps the kernel silent");
        self.log.run(Command::Program { address, device }, "remove.silence", message)
    }

    fn silence(&mut self, effect: Effect, left: &Leftover) -> Step {
        let (address, left) = (self.context.address, left.reasons.join("; "));
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
        let ip = self.context.ip();
        self.state = State::Unprogram;
        self.log.run(
            Command::Unprogram { address: ip },
            "remove.unprogram",
            format!("take {ip} out of the datapath"),
        )
    }

    fn unprogram(&mut self, effect: Effect) -> Step {
        let address = self.context.address;
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

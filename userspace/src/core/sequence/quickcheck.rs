//! quickcheck (row IP-8): periodic, changes nothing.

use std::mem;

use super::{
    Cause, Context, Failure, Input, Step, answer,
    connectivity::{Connectivity, Kinds, Test},
    log::Log,
    survey::whereabouts,
};
use crate::core::command::{Command, Effect, LinkState};

const KINDS: Kinds = Kinds {
    list: "quickcheck.ping-list",
    broadcast: "quickcheck.broadcast-ping",
    skipped: "quickcheck.connectivity-skipped",
    answered: "quickcheck.connectivity",
};

/// ```text
///  Begin --disabled--> done
///    |
///  Presence --present--> Link --up--> Connectivity --connected--> done
///    |                    |  \ physical: done   |
///    +--absent, elsewhere-+-- not up -----------+--> failed
/// ```
#[derive(Clone, Debug)]
enum State {
    Begin,
    Presence,
    Link,
    Connectivity(Connectivity),
    Ended,
}

#[derive(Clone, Debug)]
pub struct Quickcheck {
    context: Context,
    log: Log,
    state: State,
}

impl Quickcheck {
    pub fn new(context: Context) -> Self {
        Self { context, log: Log::routine(), state: State::Begin }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    pub fn step(&mut self, input: Input) -> Step {
        match mem::replace(&mut self.state, State::Ended) {
            State::Begin => self.begin(),
            State::Presence => self.presence(input.effect()),
            State::Link => self.link(input.effect()),
            State::Connectivity(c) => {
                let test = c.step(input.effect(), &self.context, &mut self.log, KINDS);
                self.tested(test)
            }
            State::Ended => self.log.ended("quickcheck.failed"),
        }
    }

    fn begin(&mut self) -> Step {
        let Context { addresses, device, restore_and_recover, .. } = &self.context;
        if !restore_and_recover {
            let message = format!("{addresses} is not checked: restore-and-recover is disabled on this node");
            return self.log.succeed("quickcheck.disabled", message);
        }
        self.state = State::Presence;
        let command = Command::ReadAddresses { place: self.context.place() };
        self.log.run(command, "quickcheck.presence", format!("is {addresses} on {device}"))
    }

    fn presence(&mut self, effect: Effect) -> Step {
        let Context { addresses, device, tunables, .. } = &self.context;
        match answer::presence(effect) {
            Ok(presence) => {
                let missing = addresses.without(&presence.here().hosts());
                let hosts = missing.hosts();
                let mut elsewhere = presence.misplaced.iter().map(|m| &m.place);
                let elsewhere = elsewhere.find(|p| !p.addresses.within(&hosts).is_empty());
                if let Some(place) = elsewhere {
                    let found = whereabouts(place);
                    return self.fail(format!(
                        "{missing} is not on {device} as it should be: this host has {found}"
                    ));
                }
                if !missing.is_empty() {
                    return self.fail(format!("{missing} is no longer on {device}"));
                }
            }
            Err(reason) => return self.fail(format!("cannot look for {addresses} on {device}: {reason}")),
        }
        if tunables.no_link_check {
            self.log.say("quickcheck.link-skipped", format!("{device} is taken to be up: IP_NOLINKCHECK=1"));
            return self.connectivity();
        }
        self.state = State::Link;
        let command = Command::ReadLink { device: device.clone() };
        self.log.run(command, "quickcheck.link", format!("is {device} up"))
    }

    fn link(&mut self, effect: Effect) -> Step {
        let Context { addresses, device, .. } = &self.context;
        let why = match answer::link(effect) {
            Ok(LinkState::Up) => return self.connectivity(),
            Ok(LinkState::Missing) => format!("{device}, which carries {addresses}, does not exist any more"),
            Ok(LinkState::Down) => format!("{device}, which carries {addresses}, was set down"),
            Ok(LinkState::NoCarrier) => format!("{device}, which carries {addresses}, has no carrier"),
            Err(reason) => return self.fail(format!("cannot look at the link of {device}: {reason}")),
        };
        self.fail_because(why, Cause::Interface)
    }

    fn connectivity(&mut self) -> Step {
        if self.context.physical {
            return self.succeed();
        }
        let addresses = &self.context.addresses;
        let test = Connectivity::begin(addresses, &self.context, &mut self.log, KINDS);
        self.tested(test)
    }

    fn tested(&mut self, test: Test) -> Step {
        match test {
            Test::Run(state, command) => {
                self.state = State::Connectivity(state);
                self.log.command(command)
            }
            Test::Connected => self.succeed(),
            Test::Failed(reason) => self.fail_because(reason, Cause::Interface),
        }
    }

    fn succeed(&mut self) -> Step {
        let message = format!("{} is in service on {}", self.context.addresses, self.context.device);
        self.log.succeed("quickcheck.done", message)
    }

    fn fail(&mut self, reason: String) -> Step {
        self.fail_because(reason, Cause::Other)
    }

    /// A check closes nothing.
    fn fail_because(&mut self, reason: String, cause: Cause) -> Step {
        self.log.fail("quickcheck.failed", Failure { cause, ..Failure::other(reason, false) })
    }
}

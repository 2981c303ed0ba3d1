//! Does anybody hear the addresses? (row IP-10) One test for each subnet, from its first address; the
//! node's own answers are left out by who pings.

use std::{collections::VecDeque, net::IpAddr};

use ipnet::IpNet;

use super::{Context, answer, log::Log};
use crate::{
    core::command::{Command, Effect},
    model::Addresses,
};

/// For each subnet:
///
/// ```text
///  begin --list--> PingList --no answer--> BroadcastPing --no answer--> failed
///    |                |     \                |
///    |                |      NOBCASTPING:    +--answer--> connected
///    |                |      failed
///    |                +--answer--> connected
///    +--no list--> BroadcastPing, or with NOBCASTPING: not tested
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connectivity {
    /// The address that pings, with its subnet.
    source: IpNet,
    asked: Asked,
    /// The subnets after this one.
    rest: VecDeque<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    PingList,
    Broadcast { list_failed: bool },
}

/// The names of the notes, by the sequence that asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds {
    pub(super) list: &'static str,
    pub(super) broadcast: &'static str,
    pub(super) skipped: &'static str,
    pub(super) answered: &'static str,
}

pub(super) enum Test {
    /// A note for it is in the log.
    Run(Connectivity, Command),
    /// Every subnet that is tested.
    Connected,
    Failed(String),
}

impl Connectivity {
    /// Of every subnet of the addresses.
    pub(super) fn begin(addresses: &Addresses, context: &Context, log: &mut Log, kinds: Kinds) -> Test {
        if let Some(why) = &context.unreached {
            log.say(kinds.skipped, format!("connectivity of {addresses} is not tested: {why}"));
            return Test::Connected;
        }
        Self::next(addresses.firsts().collect(), context, log, kinds)
    }

    fn next(mut rest: VecDeque<IpNet>, context: &Context, log: &mut Log, kinds: Kinds) -> Test {
        while let Some(source) = rest.pop_front() {
            let targets = list(context, source);
            if !targets.is_empty() {
                return Self { source, asked: Asked::PingList, rest }.ping_list(targets, context, log, kinds);
            }
            if !context.tunables.no_broadcast_ping {
                return Self { source, asked: Asked::Broadcast { list_failed: false }, rest }
                    .broadcast(context, log, kinds);
            }
            let subnet = source.trunc();
            let message = format!(
                "connectivity of {subnet} is not tested: it has no ping list, and no broadcast ping is sent (NOBCASTPING=1, \
                 or nobody but a lost peer would answer)"
            );
            log.say(kinds.skipped, message);
        }
        Test::Connected
    }

    pub(super) fn step(self, effect: Effect, context: &Context, log: &mut Log, kinds: Kinds) -> Test {
        let answered = match answer::answers(effect) {
            Ok(answers) if answers.is_empty() => None,
            Ok(answers) => Some(answers),
            Err(reason) => {
                // It could not even be sent: as telling as no answer.
                log.say(kinds.answered, format!("the ping failed: {reason}"));
                None
            }
        };
        if let Some(answers) = answered {
            let from: Vec<String> = answers.iter().map(ToString::to_string).collect();
            let message = format!("{} is connected: {} answered", self.source.addr(), from.join(", "));
            log.say(kinds.answered, message);
            return Self::next(self.rest, context, log, kinds);
        }
        match self.asked {
            Asked::PingList if context.tunables.no_broadcast_ping => {
                Test::Failed(self.nobody("nobody of the ping list", context))
            }
            Asked::PingList => {
                Self { asked: Asked::Broadcast { list_failed: true }, ..self }.broadcast(context, log, kinds)
            }
            Asked::Broadcast { list_failed: true } => {
                Test::Failed(self.nobody("nobody of the ping list and nobody on the subnet", context))
            }
            Asked::Broadcast { list_failed: false } => {
                Test::Failed(self.nobody("nobody on the subnet", context))
            }
        }
    }

    fn ping_list(self, targets: Vec<IpAddr>, context: &Context, log: &mut Log, kinds: Kinds) -> Test {
        let source = self.source.addr();
        log.say(kinds.list, format!("ping {} of the ping list from {source}", targets.len()));
        let command = Command::PingList {
            source,
            device: context.device.clone(),
            targets,
            tries: context.tunables.ping_tries,
            wait: context.tunables.ping_wait,
        };
        Test::Run(self, command)
    }

    fn broadcast(self, context: &Context, log: &mut Log, kinds: Kinds) -> Test {
        let after = match self.asked {
            Asked::Broadcast { list_failed: true } => " after no answer from the ping list",
            Asked::Broadcast { list_failed: false } | Asked::PingList => "",
        };
        let (device, from) = (&context.device, self.source.addr());
        log.say(kinds.broadcast, format!("ping all hosts on {device} from {from}{after}"));
        let command = Command::BroadcastPing {
            source: self.source,
            device: device.clone(),
            tries: context.tunables.ping_tries,
            wait: context.tunables.ping_wait,
        };
        Test::Run(self, command)
    }

    fn nobody(&self, asked: &str, context: &Context) -> String {
        format!(
            "{asked} answered a ping from {} on {}: check the network there, or change the ping list \
             ('vipctl ping-list') or NOBCASTPING",
            self.source.addr(),
            context.device
        )
    }
}

fn list(context: &Context, source: IpNet) -> Vec<IpAddr> {
    context.ping_lists.get(&source.trunc()).cloned().unwrap_or_default()
}

//! Does anybody hear the address? (row IP-10)

use ipnet::IpNet;

use super::{Context, answer, log::Log};
use crate::core::command::{Command, Effect};

/// ```text
///  begin --list--> PingList --no answer--> BroadcastPing --no answer--> failed
///    |                |     \                |
///    |                |      NOBCASTPING:    +--answer--> connected
///    |                |      failed
///    |                +--answer--> connected
///    +--no list--> BroadcastPing, or with NOBCASTPING: not tested
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Connectivity {
    PingList,
    BroadcastPing { list_failed: bool },
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
    Connected,
    Failed(String),
}

/// The address that pings.
fn source(context: &Context) -> IpNet {
    context.addresses.first().unwrap_or_default()
}

fn list(context: &Context) -> Vec<std::net::IpAddr> {
    context.ping_lists.get(&source(context).trunc()).cloned().unwrap_or_default()
}

impl Connectivity {
    pub(super) fn begin(context: &Context, log: &mut Log, kinds: Kinds) -> Test {
        if !list(context).is_empty() {
            return Self::ping_list(context, log, kinds);
        }
        if context.tunables.no_broadcast_ping {
            log.say(kinds.skipped, "connectivity is not tested: no ping list, and NOBCASTPING=1");
            return Test::Connected;
        }
        Self::broadcast(context, log, kinds, false)
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
            log.say(
                kinds.answered,
                format!("{} is connected: {} answered", source(context).addr(), from.join(", ")),
            );
            return Test::Connected;
        }
        match self {
            Self::PingList if context.tunables.no_broadcast_ping => {
                Test::Failed(Self::nobody(context, true, false))
            }
            Self::PingList => Self::broadcast(context, log, kinds, true),
            Self::BroadcastPing { list_failed } => Test::Failed(Self::nobody(context, list_failed, true)),
        }
    }

    fn ping_list(context: &Context, log: &mut Log, kinds: Kinds) -> Test {
        let targets = list(context);
        log.say(
            kinds.list,
            format!("ping {} of the ping list from {}", targets.len(), source(context).addr()),
        );
        let command = Command::PingList {
            source: source(context).addr(),
            device: context.device.clone(),
            targets,
            tries: context.tunables.ping_tries,
            wait: context.tunables.ping_wait,
        };
        Test::Run(Self::PingList, command)
    }

    fn broadcast(context: &Context, log: &mut Log, kinds: Kinds, list_failed: bool) -> Test {
        let after = if list_failed { " after no answer from the ping list" } else { "" };
        log.say(
            kinds.broadcast,
            format!("ping all hosts on {} from {}{after}", context.device, source(context).addr()),
        );
        let command = Command::BroadcastPing {
            source: source(context),
            device: context.device.clone(),
            tries: context.tunables.ping_tries,
            wait: context.tunables.ping_wait,
        };
        Test::Run(Self::BroadcastPing { list_failed }, command)
    }

    fn nobody(context: &Context, list: bool, broadcast: bool) -> String {
        let asked = match (list, broadcast) {
            (true, true) => "nobody of the ping list and nobody on the subnet",
            (true, false) => "nobody of the ping list",
            (false, true | false) => "nobody on the subnet",
        };
        format!(
            "{asked} answered a ping from {} on {}: check the network there, or change the ping list \
             ('vipctl ping-list') or NOBCASTPING",
            source(context).addr(),
            context.device
        )
    }
}

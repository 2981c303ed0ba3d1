//! Does anybody hear the address? (row IP-10)

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

impl Connectivity {
    pub(super) fn begin(context: &Context, log: &mut Log, kinds: Kinds) -> Test {
        if !context.ping_list.is_empty() {
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
            log.say(kinds.answered, format!("{} is connected: {} answered", context.ip(), from.join(", ")));
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
        let targets = context.ping_list.clone();
        log.say(kinds.list, format!("ping {} of the ping list from {}", targets.len(), context.ip()));
        let command = Command::PingList {
            source: context.ip(),
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
            format!("ping all hosts on {} from {}{after}", context.device, context.ip()),
        );
        let command = Command::BroadcastPing {
            source: context.address,
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
            context.ip(),
            context.device
        )
    }
}

//! Is the device's link up? If not, it is stopped and started once (row IP-6).

use std::time::Duration;

use super::super::{Context, answer, log::Log};
use crate::core::command::{Command, Effect, LinkState};

/// Between two looks at a link that was started again.
const LINK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// ```text
///  Look --not up--> Stop -> Down -> Start -> Recheck <-> Wait
///    | up                                       | up
///    +------------------------------------------+--> up
/// ```
///
/// Others may stop and start the same device at the same time: what counts is that it is up in the end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Link {
    Look,
    Stop,
    Down,
    Start,
    /// Looks left after this one.
    Recheck {
        left: u32,
    },
    Wait {
        left: u32,
    },
}

pub(super) enum Next {
    /// A note for it is in the log.
    Run(Link, Command),
    Up,
    Missing,
    Failed(String),
}

impl Link {
    pub(super) fn begin(context: &Context, log: &mut Log) -> Next {
        let device = context.device.clone();
        log.say("restore.link", format!("is {device} up"));
        Next::Run(Self::Look, Command::ReadLink { device })
    }

    /// The start of a device that was stopped.
    pub(super) fn owed(self, context: &Context) -> Option<Command> {
        match self {
            Self::Stop | Self::Down | Self::Start => {
                Some(Command::SetLink { device: context.device.clone(), up: true })
            }
            Self::Look | Self::Recheck { .. } | Self::Wait { .. } => None,
        }
    }

    pub(super) fn step(self, effect: Effect, context: &Context, log: &mut Log) -> Next {
        let device = context.device.clone();
        match self {
            Self::Look => {
                let why = match answer::link(effect) {
                    Ok(LinkState::Up) => return Next::Up,
                    Ok(LinkState::Missing) => return Next::Missing,
                    Ok(LinkState::Down) => "down",
                    Ok(LinkState::NoCarrier) => "without carrier",
                    Err(reason) => {
                        return Next::Failed(format!("cannot look at the link of {device}: {reason}"));
                    }
                };
                log.say("restore.link-stop", format!("{device} is {why}: stop and start it once"));
                Next::Run(Self::Stop, Command::SetLink { device, up: false })
            }
            Self::Stop => match answer::done(effect) {
                Ok(()) => {
                    let duration = context.tunables.link_down_wait;
                    let message = format!("leave {device} stopped for {duration:?} (IP_WAIT_LINKDOWN)");
                    log.say("restore.link-wait", message);
                    Next::Run(Self::Down, Command::Wait { duration })
                }
                Err(reason) => {
                    log.say("restore.link-stop-failed", format!("{device} could not be stopped: {reason}"));
                    Self::start(device, log)
                }
            },
            Self::Down => {
                if let Err(reason) = answer::done(effect) {
                    log.say("restore.link-wait-failed", format!("{device} is started at once: {reason}"));
                }
                Self::start(device, log)
            }
            Self::Start => match answer::done(effect) {
                Ok(()) => Self::look_again(context.tunables.link_checks.saturating_sub(1), device, log),
                Err(reason) => Next::Failed(format!(
                    "{device} was stopped and cannot be started again: {reason}; start it by hand ('ip link set {device} up')"
                )),
            },
            Self::Recheck { left } => {
                let state = match answer::link(effect) {
                    Ok(LinkState::Up) => return Next::Up,
                    Ok(LinkState::Missing) => return Next::Missing,
                    Ok(LinkState::Down) => "down",
                    Ok(LinkState::NoCarrier) => "without carrier",
                    Err(reason) => {
                        return Next::Failed(format!("cannot look at the link of {device}: {reason}"));
                    }
                };
                let Some(left) = left.checked_sub(1) else {
                    let looks = context.tunables.link_checks.max(1);
                    return Next::Failed(format!(
                        "{device} is {state}, also after a stop and start and {looks} looks (IP_MAX_LINKCHK): \
                         check its cable and switch port"
                    ));
                };
                let duration = LINK_CHECK_INTERVAL;
                log.say("restore.link-wait", format!("{device} is {state}: look again in {duration:?}"));
                Next::Run(Self::Wait { left }, Command::Wait { duration })
            }
            Self::Wait { left } => match answer::done(effect) {
                Ok(()) => Self::look_again(left, device, log),
                Err(reason) => Next::Failed(format!("cannot wait for the link of {device}: {reason}")),
            },
        }
    }

    /// Whatever came of stopping it and of the wait: it must not stay down.
    fn start(device: String, log: &mut Log) -> Next {
        log.say("restore.link-start", format!("start {device}"));
        Next::Run(Self::Start, Command::SetLink { device, up: true })
    }

    fn look_again(left: u32, device: String, log: &mut Log) -> Next {
        log.say("restore.link-recheck", format!("is {device} up now ({left} more looks)"));
        Next::Run(Self::Recheck { left }, Command::ReadLink { device })
    }
}

//! Runs one sequence: performs its commands one by one, tells its steps to the event log, and bounds
//! the whole.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::events::{About, EventLog};
use crate::{
    act::{
        datapath::DatapathError,
        executor::{Executor, Gates},
        gatekeeper::{GateError, Gatekeeper},
    },
    core::{
        command::{Command, Effect},
        sequence::{Cause, Failure, Input, Sequence, Step, StepNote},
    },
    model::{Addresses, Epoch, LeaseEpoch, ResourceId},
};

/// The gates as one grant may use them: its lease epoch is fixed when the sequence begins, so that one
/// overtaken by a deposition opens nothing.
pub struct GrantGates {
    pub keeper: Arc<Gatekeeper>,
    pub lease_epoch: LeaseEpoch,
}

impl Gates for GrantGates {
    fn open(&self, group: ResourceId, epoch: Epoch) -> Result<(), GateError> {
        self.keeper.open(group, self.lease_epoch, epoch)
    }

    fn close(&self, group: ResourceId) -> Result<(), DatapathError> {
        self.keeper.close(group)
    }
}

/// Why a cancelled sequence failed.
pub const OVERTAKEN: &str = "overtaken by another decision";

/// Nothing is known of what the host answers for.
pub fn failure(reason: impl Into<String>) -> Failure {
    Failure { reason: reason.into(), silent: false, cause: Cause::Other, in_service: Addresses::default() }
}

/// Runs the sequence to its end, its limit, or until cancelled; the reason when it did not succeed.
pub async fn run(
    sequence: &mut Sequence,
    executor: &Executor,
    cancel: &CancellationToken,
    about: &About,
    events: &EventLog,
) -> Result<(), Failure> {
    let (name, limit) = (sequence.name(), sequence.limit());
    let steps = async {
        let mut step = sequence.step(Input::Start);
        loop {
            match step {
                Step::Done { result, notes } => {
                    tell(events, about, notes);
                    return result;
                }
                Step::Do { command, notes } => {
                    tell(events, about, notes);
                    step = sequence.step(Input::Effect(perform(executor, &command, cancel).await?));
                }
            }
        }
    };
    let result = match tokio::time::timeout(limit, steps).await {
        Ok(result) => result,
        Err(_) => match sequence.overrun() {
            Step::Done { result, notes } => {
                tell(events, about, notes);
                result
            }
            Step::Do { .. } => Err(failure(format!("{name} goes on after its limit, {limit:?}"))),
        },
    };
    if let Some(command) = sequence.owed()
        && let Effect::Failed(reason) = executor.perform(&command).await
    {
        let kind = "sequence.owed-failed";
        events.warn(about.clone(), kind, format!("{name} was broken off, and {command:?} failed: {reason}"));
    }
    result
}

async fn perform(
    executor: &Executor,
    command: &Command,
    cancel: &CancellationToken,
) -> Result<Effect, Failure> {
    if cancel.is_cancelled() {
        return Err(failure(OVERTAKEN));
    }
    // Waiting and asking may be broken off at any time; what changes this host, or EC2, is seen through.
    match command {
        Command::Cloud { ask, .. } if ask.writes() => Ok(executor.perform(command).await),
        Command::Wait { .. }
        | Command::ProbeDuplicates { .. }
        | Command::PingList { .. }
        | Command::BroadcastPing { .. }
        | Command::Cloud { .. } => tokio::select! {
            () = cancel.cancelled() => Err(failure(OVERTAKEN)),
            effect = executor.perform(command) => Ok(effect),
        },
        Command::ReadLink { .. }
        | Command::SetLink { .. }
        | Command::ReadAddresses { .. }
        | Command::Program { .. }
        | Command::Unprogram { .. }
        | Command::OpenGate { .. }
        | Command::CloseGate { .. }
        | Command::AddAddresses { .. }
        | Command::DeleteAddresses { .. }
        | Command::DeleteHostRoutes { .. }
        | Command::FlushRouteCache
        | Command::FlushNeighbours { .. }
        | Command::SetSource { .. }
        | Command::UnsetSource { .. }
        | Command::Withdraw { .. }
        | Command::Announce { .. } => Ok(executor.perform(command).await),
    }
}

fn tell(events: &EventLog, about: &About, notes: Vec<StepNote>) {
    for note in notes {
        if note.routine {
            tracing::debug!(kind = note.kind, "{}", note.message);
        } else {
            events.record(about.clone(), note.kind, note.message);
        }
    }
}

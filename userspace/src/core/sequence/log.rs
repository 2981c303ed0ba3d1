//! Collects what a sequence has to say until its next step is handed out.

use super::{Failure, Step, StepNote};
use crate::core::command::Command;

#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pending: Vec<StepNote>,
    routine: bool,
}

impl Log {
    /// Of a periodic check: all but failures is routine.
    pub(super) fn routine() -> Self {
        Self { pending: Vec::new(), routine: true }
    }

    pub(super) fn say(&mut self, kind: &'static str, message: impl Into<String>) {
        self.pending.push(StepNote { kind, message: message.into(), routine: self.routine });
    }

    pub(super) fn extend(&mut self, notes: Vec<StepNote>) {
        self.pending.extend(notes);
    }

    pub(super) fn run(&mut self, command: Command, kind: &'static str, message: impl Into<String>) -> Step {
        self.say(kind, message);
        self.command(command)
    }

    /// The command whose note was said already.
    pub(super) fn command(&mut self, command: Command) -> Step {
        Step::Do { command, notes: std::mem::take(&mut self.pending) }
    }

    pub(super) fn succeed(&mut self, kind: &'static str, message: impl Into<String>) -> Step {
        self.say(kind, message);
        Step::Done { result: Ok(()), notes: std::mem::take(&mut self.pending) }
    }

    pub(super) fn fail(&mut self, kind: &'static str, failure: Failure) -> Step {
        self.routine = false;
        self.say(kind, failure.reason.clone());
        Step::Done { result: Err(failure), notes: std::mem::take(&mut self.pending) }
    }

    /// A step after the end: the runner's mistake. The gate's state is not known from here.
    pub(super) fn ended(&mut self, kind: &'static str) -> Step {
        let reason = "the sequence has ended already".to_owned();
        self.fail(kind, Failure::other(reason, false))
    }
}

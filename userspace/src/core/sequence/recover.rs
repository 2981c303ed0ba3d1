//! recover (row IP-9): remove, then restore, on the same node.

use std::mem;

use super::{Context, Failure, Input, Remove, Restore, Step, log::Log};
use crate::core::command::Command;

/// ```text
///  Begin --physical--> failed
///    |  \--disabled--> done
///  Removing --ok--> Restoring --ok--> done
///    |                  |
///    +------failed------+--> failed
/// ```
#[derive(Clone, Debug)]
enum State {
    Begin,
    Removing(Box<Remove>),
    Restoring(Box<Restore>),
    Ended,
}

#[derive(Clone, Debug)]
pub struct Recover {
    context: Context,
    log: Log,
    state: State,
}

impl Recover {
    pub fn new(context: Context) -> Self {
        Self { context, log: Log::default(), state: State::Begin }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    pub fn step(&mut self, input: Input) -> Step {
        match mem::replace(&mut self.state, State::Ended) {
            State::Begin => self.begin(),
            State::Removing(mut remove) => {
                let step = remove.step(input);
                self.removing(remove, step)
            }
            State::Restoring(mut restore) => {
                let step = restore.step(input);
                self.restoring(restore, step)
            }
            State::Ended => self.log.ended("recover.failed"),
        }
    }

    /// See [`super::Sequence::owed`].
    pub fn owed(&self) -> Option<Command> {
        match &self.state {
            State::Restoring(restore) => restore.owed(),
            State::Begin | State::Removing(_) | State::Ended => None,
        }
    }

    fn begin(&mut self) -> Step {
        let Context { addresses, device, .. } = &self.context;
        if self.context.physical {
            let reason = format!(
                "{addresses} is a stationary address of this host, which vipd does not touch: repair it on {device} by hand"
            );
            return self.log.fail("recover.physical", Failure::other(reason, false));
        }
        if !self.context.restore_and_recover {
            let message = format!("{addresses} stays as it is: restore-and-recover is disabled on this node");
            return self.log.succeed("recover.disabled", message);
        }
        self.log.say("recover.remove", format!("take {addresses} from {device} to bring it up again"));
        let mut remove = Box::new(Remove::new(self.context.clone()));
        let step = remove.step(Input::Start);
        self.removing(remove, step)
    }

    fn removing(&mut self, remove: Box<Remove>, step: Step) -> Step {
        match step {
            Step::Do { command, notes } => {
                self.state = State::Removing(remove);
                self.log.extend(notes);
                self.log.command(command)
            }
            Step::Done { result: Ok(()), notes } => {
                self.log.extend(notes);
                let Context { addresses, device, .. } = &self.context;
                self.log.say("recover.restore", format!("bring {addresses} up on {device} again"));
                let mut restore = Box::new(Restore::new(self.context.clone()));
                let step = restore.step(Input::Start);
                self.restoring(restore, step)
            }
            Step::Done { result: Err(failure), notes } => self.fail(failure, notes),
        }
    }

    fn restoring(&mut self, restore: Box<Restore>, step: Step) -> Step {
        match step {
            Step::Do { command, notes } => {
                self.state = State::Restoring(restore);
                self.log.extend(notes);
                self.log.command(command)
            }
            Step::Done { result: Ok(()), notes } => {
                self.log.extend(notes);
                let message =
                    format!("{} is in service on {} again", self.context.addresses, self.context.device);
                self.log.succeed("recover.done", message)
            }
            Step::Done { result: Err(failure), notes } => self.fail(failure, notes),
        }
    }

    fn fail(&mut self, failure: Failure, notes: Vec<super::StepNote>) -> Step {
        self.log.extend(notes);
        let reason = format!("local recovery failed: {}", failure.reason);
        self.log.fail("recover.failed", Failure { reason, ..failure })
    }
}

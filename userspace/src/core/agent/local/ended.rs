//! What follows from how a sequence ended.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        Operation,
        devices::{self, DeviceHealth},
        pace,
    },
    Have, Here, Local, Running, Terms,
};
use crate::{
    core::sequence::{Cause, Failure},
    model::Tag,
};

/// Between two attempts to remove what may still answer.
const REMOVE_RETRY: Duration = Duration::from_secs(2);

/// How long a resource leaves an interface alone on which it could not be brought up.
const AVOIDANCE: Duration = Duration::from_secs(60);

impl Local {
    /// The running sequence has ended. `interval` is the time between two checks.
    pub fn finished(&mut self, tag: &Tag, result: Result<(), Failure>, interval: Duration, mut terms: Terms) {
        let lesson = self.lesson.take();
        let Some(ran) = self.running.take() else { return };
        let device = &ran.target.device;
        let brings_up = matches!(ran.operation, Operation::Restore | Operation::Recover | Operation::Switch);
        let failed_there = |f: &Failure| {
            f.cause == Cause::Interface || devices::health(&terms.devices, device) == DeviceHealth::Failed
        };
        match &result {
            Ok(()) if brings_up => drop(self.avoid.remove(device)),
            Err(f) if brings_up && !ran.cancelled && failed_there(f) => {
                self.avoid.insert(device.clone(), terms.now.after(AVOIDANCE));
            }
            Ok(()) | Err(_) => {}
        }
        self.shun(&mut terms);
        let terms = &terms;
        let now = terms.now;
        let up = |check_at, broken| Have::Up { epoch: ran.epoch, check_at, broken };
        if let (Some(report), Ok(())) = (&lesson, &result) {
            self.standoff.note(ran.operation, report, now, interval);
        }
        let is_cloud = ran.target.resource.cloud().is_some();
        let interval = if is_cloud { self.watch(&ran, interval) } else { interval };
        let next_check = now.after(interval);
        let valid = terms.situation.lease_valid;
        let operation = match ran.operation {
            // Nothing was wrong any more (EC2 answers from copies that lag behind), or what is could not be mended: that
            // was a check, and counts towards no limit of what may be mended.
            Operation::Recover if result.is_ok() && lesson.is_some_and(|l| !l.mended) => {
                Operation::Quickcheck
            }
            operation => operation,
        };
        match (operation, result) {
            (Operation::Remove, Ok(())) => {
                (self.have, self.here, self.failures) = (Have::Down, None, 0);
            }
            (Operation::Remove, Err(failure)) => {
                let pause = if failure.silent { self.pause() } else { REMOVE_RETRY };
                let silent = failure.silent.then_some(failure.reason);
                self.have = Have::Unclear { retry_at: now.after(pause), silent };
            }
            (Operation::Restore | Operation::Recover | Operation::Switch, Ok(())) => {
                match ran.operation {
                    Operation::Restore => self.recoveries = (0, String::new()),
                    Operation::Recover => {
                        let before = self.recoveries.0.max(terms.recoveries);
                        self.recoveries = (before + 1, std::mem::take(&mut self.fault));
                    }
                    Operation::Switch | Operation::Remove | Operation::Quickcheck | Operation::Amend => {}
                }
                (self.failed, self.failures, self.trouble) = (None, 0, None);
                // Those that are in EC2 share what they ask, best at the same time.
                let first = if is_cloud { interval } else { interval.mul_f64(pace::phase(tag)) };
                self.have = up(now.after(first), false);
            }
            (Operation::Quickcheck, Ok(())) => {
                self.failed = None;
                self.have = up(next_check, false);
            }
            (Operation::Quickcheck, Err(_)) if ran.cancelled => self.have = up(now, false),
            // While the kernel keeps this node silent no check can succeed, and none means anything.
            (Operation::Quickcheck, Err(_)) if !valid => self.have = up(next_check, false),
            (Operation::Quickcheck, Err(failure)) => {
                self.fault = failure.reason;
                self.have = up(next_check, true);
            }
            (Operation::Amend, Ok(())) => {
                self.sure = ran.target.addresses.clone();
                self.here = Some(ran.target);
                (self.failures, self.trouble) = (0, None);
            }
            (Operation::Amend, Err(_)) if ran.cancelled => {}
            (Operation::Amend, Err(failure)) => {
                self.amend_at = now.after(self.pause());
                if valid {
                    self.trouble = Some((ran.alterations, failure.reason));
                }
                // Otherwise it was broken off, and nobody knows.
                if !failure.in_service.is_empty() {
                    self.sure = Arc::new(failure.in_service.within(&ran.target.addresses.hosts()));
                    self.here = Some(Here { addresses: Arc::new(failure.in_service), ..ran.target });
                }
            }
            // No node would know more: the next check looks again.
            (Operation::Switch | Operation::Recover, Err(f)) if f.cause == Cause::Unanswered => {
                self.fault = f.reason;
                self.have = up(next_check, false);
            }
            // Half moved: only a recovery, or a removal, makes it whole.
            (Operation::Switch, Err(failure)) => {
                self.fault = failure.reason;
                self.have = up(next_check, true);
            }
            (Operation::Restore | Operation::Recover, Err(failure)) => {
                // It is tried on another interface before the grant is given up.
                let tried = !ran.cancelled && failure.cause != Cause::Overtaken;
                if tried && valid && self.refuge(terms).is_none() {
                    self.failed = Some((ran.epoch, failure.reason));
                }
                self.have = Have::Unclear { retry_at: now, silent: None };
            }
        }
    }

    /// Until the next check of what is in EC2.
    fn watch(&mut self, ran: &Running, interval: Duration) -> Duration {
        // A recovery does not begin it anew: where somebody else takes it away again and again, each taking it back would
        // come a second after the other, for ever.
        let goes_on = matches!(ran.operation, Operation::Quickcheck | Operation::Recover);
        self.checks = if goes_on { self.checks.saturating_add(1) } else { 0 };
        pace::watch(self.checks, interval)
    }

    fn pause(&mut self) -> Duration {
        let pause = pace::patience(self.failures);
        self.failures += 1;
        pause
    }
}

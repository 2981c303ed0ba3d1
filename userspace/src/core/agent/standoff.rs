//! Elastic IPs beside a resource's own that cannot be taken off its interface: it stays in service with them, and they
//! are tried again after longer and longer pauses.

use std::time::Duration;

use super::Operation;
use crate::core::{
    cloud::{CloudReport, Strangers},
    time::BootTime,
};

/// Between two attempts, at the most.
const LONGEST: Duration = Duration::from_secs(3600);

/// Enough for any interval.
const DOUBLINGS: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct Standoff(Option<Attempts>);

#[derive(Debug)]
struct Attempts {
    strangers: Strangers,
    /// In vain, after the first one.
    further: u32,
    again_at: BootTime,
}

impl Standoff {
    /// Those that a check does not call a failure yet.
    pub fn borne(&self, now: BootTime) -> Option<Strangers> {
        let attempts = self.0.as_ref().filter(|a| now < a.again_at)?;
        Some(attempts.strangers.clone())
    }

    /// What a sequence that succeeded has seen. `interval` is the time between two checks.
    pub fn note(&mut self, operation: Operation, report: &CloudReport, now: BootTime, interval: Duration) {
        match (operation, &report.strangers) {
            (Operation::Remove, _) => self.0 = None,
            // They are as they were: nothing was tried.
            (Operation::Quickcheck, Some(_)) => {}
            (_, Some(strangers)) => {
                let same = |a: &Attempts| a.strangers.associations == strangers.associations;
                let further = self.0.take().filter(same).map_or(0, |a| a.further.saturating_add(1));
                let pause = interval.saturating_mul(1 << further.min(DOUBLINGS)).min(LONGEST);
                let strangers = strangers.clone();
                self.0 = Some(Attempts { strangers, further, again_at: now.after(pause) });
            }
            (_, None) if report.answered => self.0 = None,
            (_, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn seen(associations: &[&str]) -> CloudReport {
        let associations = associations.iter().map(|a| (*a).to_owned()).collect();
        let strangers = Strangers { associations, why: "not permitted".to_owned() };
        CloudReport { answered: true, strangers: Some(strangers), ..CloudReport::default() }
    }

    fn pause(standoff: &Standoff, since: BootTime) -> Duration {
        let until = standoff.0.as_ref().map_or(since, |a| a.again_at);
        let seconds = until.since(since);
        if seconds > Duration::ZERO {
            assert!(standoff.borne(since.after(seconds - Duration::from_secs(1))).is_some());
        }
        assert_eq!(standoff.borne(until), None);
        seconds
    }

    #[test]
    fn each_attempt_in_vain_doubles_the_pause_and_others_begin_anew() {
        let (mut standoff, mut now) = (Standoff::default(), BootTime::ZERO);
        let mut attempt = |operation, report: &CloudReport| {
            standoff.note(operation, report, now, INTERVAL);
            let seconds = pause(&standoff, now);
            now = now.after(seconds);
            seconds.as_secs()
        };
        let (one, two) = (seen(&["a"]), seen(&["a", "b"]));
        assert_eq!(attempt(Operation::Restore, &one), 30);
        let pauses: Vec<u64> = (0..9).map(|_| attempt(Operation::Recover, &one)).collect();
        assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        assert_eq!(attempt(Operation::Recover, &two), 30);
        assert_eq!(attempt(Operation::Recover, &two), 60);
        assert_eq!(attempt(Operation::Recover, &one), 30);
    }

    #[test]
    fn silence_changes_nothing_and_that_they_have_gone_ends_it() {
        let gone = CloudReport { answered: true, ..CloudReport::default() };
        for (operation, report, ends) in [
            (Operation::Quickcheck, CloudReport::default(), false),
            (Operation::Quickcheck, seen(&["a"]), false),
            (Operation::Quickcheck, gone.clone(), true),
            (Operation::Recover, gone, true),
            (Operation::Remove, CloudReport::default(), true),
        ] {
            let (mut standoff, now) = (Standoff::default(), BootTime::ZERO);
            standoff.note(Operation::Recover, &seen(&["a"]), now, INTERVAL);
            standoff.note(operation, &report, now, INTERVAL);
            assert_eq!(pause(&standoff, now) == Duration::ZERO, ends, "{operation:?} {report:?}");
        }
    }
}

//! How often and how fast addresses are announced.

use std::{ops::Range, time::Duration};

use crate::model::Tunables;

/// Forms of a gratuitous ARP; what comes after the last begins with the first again.
const FORMS: u32 = 4;

/// MAX_NEIGHBOR_ADVERTISEMENT and RETRANS_TIMER (RFC 4861 section 10): so many unsolicited advertisements
/// tell of a change, so far apart (section 7.2.6).
const ADVERTISEMENTS: u32 = 3;
const ADVERTISEMENT_SPACING: Duration = Duration::from_secs(1);

/// What the operator wants of announcements, from the moment an address is announced first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Frames of an IPv4 address in a burst. An IPv6 address has one in each, and instead of the others
    /// up to two more that follow the first burst, a second apart.
    pub count: u32,
    /// How many more bursts follow the first one.
    pub repeat: u32,
    /// From the end of a burst to the next.
    pub repeat_delay: Duration,
    /// One frame again and again, so far apart, for as long as the address is held.
    pub refresh: Option<Duration>,
    /// Frames in a second on an interface, of all that is announced there.
    pub pace: u32,
}

impl From<&Tunables> for Plan {
    fn from(tunables: &Tunables) -> Self {
        Self {
            count: tunables.announce_count,
            repeat: tunables.announce_repeat,
            repeat_delay: tunables.announce_repeat_delay,
            refresh: Some(tunables.announce_refresh).filter(|every| !every.is_zero()),
            pace: tunables.announce_pace,
        }
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::from(&Tunables::default())
    }
}

/// One time that all addresses are announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Since the end of the step before.
    pub(super) delay: Duration,
    /// Of IPv4 addresses: which forms.
    pub(super) arps: Range<u32>,
}

impl Plan {
    /// All steps one after another; without end when there is a refresh. Each has one advertisement of
    /// every IPv6 address.
    pub(super) fn steps(&self) -> impl Iterator<Item = Step> + Send + use<> {
        let mut bursts = vec![(Duration::ZERO, 0..self.count)];
        bursts.extend((1..self.count.min(ADVERTISEMENTS)).map(|n| (ADVERTISEMENT_SPACING * n, 0..0)));
        bursts.extend((1..=self.repeat).map(|n| (self.repeat_delay * n, 0..self.count)));
        bursts.sort_by_key(|(offset, _)| *offset);
        let mut before = Duration::ZERO;
        let bursts = bursts.into_iter().map(move |(offset, arps)| {
            let delay = offset - before;
            before = offset;
            Step { delay, arps }
        });
        let refresh = self.refresh.into_iter().flat_map(|delay| {
            // Receivers that heed one form only hear from us as well, if more seldom.
            (0..FORMS).cycle().map(move |form| Step { delay, arps: form..form + 1 })
        });
        bursts.chain(refresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn steps(plan: Plan) -> Vec<(Duration, Range<u32>)> {
        plan.steps().take(12).map(|step| (step.delay, step.arps)).collect()
    }

    #[test]
    fn by_default_four_forms_are_sent_twice_and_advertisements_a_second_apart() {
        let expected = [(s(0), 0..4), (s(1), 0..0), (s(1), 0..0), (s(3), 0..4)];
        assert_eq!(steps(Plan::default()), expected);
    }

    #[test]
    fn one_frame_and_nothing_more() {
        let plan = Plan { count: 1, repeat: 0, ..Plan::default() };
        assert_eq!(steps(plan), [(s(0), 0..1)]);
    }

    #[test]
    fn repeats_come_among_the_advertisements() {
        let plan = Plan { count: 2, repeat: 3, repeat_delay: s(2), ..Plan::default() };
        assert_eq!(steps(plan), [(s(0), 0..2), (s(1), 0..0), (s(1), 0..2), (s(2), 0..2), (s(2), 0..2)]);
    }

    #[test]
    fn a_refresh_goes_on_with_one_frame_at_a_time() {
        let plan = Plan { count: 1, repeat: 0, refresh: Some(s(60)), ..Plan::default() };
        let forms: Vec<_> = plan.steps().skip(1).take(6).map(|step| (step.delay, step.arps)).collect();
        let expected = [0, 1, 2, 3, 0, 1].map(|form| (s(60), form..form + 1));
        assert_eq!(forms, expected);
        let off = Tunables { announce_refresh: Duration::ZERO, ..Tunables::default() };
        assert_eq!(Plan::from(&off).refresh, None);
    }
}

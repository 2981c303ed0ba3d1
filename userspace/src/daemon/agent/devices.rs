//! The link monitor's verdicts, as the choice among a resource's interfaces needs them (rows NM-1, NM-5).

use std::collections::BTreeSet;

use crate::core::{
    agent::{DeviceHealth, Devices},
    links::{LinkHealth, LinkReport, LinkTable},
};

/// What each interface of the table is good for; one that is not in it does not exist.
pub(super) fn of(table: &LinkTable) -> Devices {
    let health = |report: &LinkReport| match report.health {
        LinkHealth::Up if report.recovering => DeviceHealth::Recovering,
        LinkHealth::Up => DeviceHealth::Healthy,
        LinkHealth::AdminDown
        | LinkHealth::NoCarrier
        | LinkHealth::Missing
        | LinkHealth::Deaf
        | LinkHealth::Unreachable => DeviceHealth::Failed,
    };
    table.iter().map(|(name, report)| (name.to_owned(), health(report))).collect()
}

/// Interfaces that have failed, or work again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Turns {
    pub failed: BTreeSet<String>,
    pub back: BTreeSet<String>,
}

impl Turns {
    pub(super) fn between(before: &Devices, now: &Devices) -> Self {
        let works = |devices: &Devices, name: &String| {
            devices.get(name).is_some_and(|health| *health != DeviceHealth::Failed)
        };
        let lost = |(one, other)| {
            let all = Devices::keys(one).filter(|name| works(one, name) && !works(other, name));
            all.cloned().collect()
        };
        Self { failed: lost((before, now)), back: lost((now, before)) }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.failed.contains(name) || self.back.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::time::BootTime;

    fn table(links: &[(&str, LinkHealth, bool)]) -> LinkTable {
        let report = |&(name, health, recovering): &(&str, LinkHealth, bool)| {
            let report = LinkReport {
                health,
                recovering,
                since: BootTime::ZERO,
                why: String::new(),
                stationary: vec![],
            };
            (name.to_owned(), report)
        };
        LinkTable::new(links.iter().map(report).collect())
    }

    #[test]
    fn every_verdict_but_up_is_a_failure() {
        use LinkHealth::*;
        let bad = [("a", AdminDown), ("b", NoCarrier), ("c", Missing), ("d", Deaf), ("e", Unreachable)];
        let bad = bad.map(|(name, health)| (name, health, false));
        assert!(of(&table(&bad)).values().all(|h| *h == DeviceHealth::Failed));
        let good = of(&table(&[("a", Up, false), ("b", Up, true)]));
        assert_eq!(good["a"], DeviceHealth::Healthy);
        assert_eq!(good["b"], DeviceHealth::Recovering);
        assert!(of(&LinkTable::default()).is_empty());
    }

    #[test]
    fn only_the_step_between_working_and_not_is_a_turn() {
        use LinkHealth::*;
        let before =
            of(&table(&[("a", Up, false), ("b", Deaf, false), ("c", Up, true), ("d", NoCarrier, false)]));
        let now =
            of(&table(&[("a", NoCarrier, false), ("b", Up, true), ("c", Up, false), ("d", Missing, false)]));
        let turns = Turns::between(&before, &now);
        assert_eq!(turns, Turns { failed: ["a".into()].into(), back: ["b".into()].into() });
        assert!(turns.contains("a") && turns.contains("b") && !turns.contains("c") && !turns.contains("d"));
        // What is no longer in the table is gone; what is new there works.
        assert!(Turns::between(&now, &Devices::new()).failed.contains("b"));
        assert!(Turns::between(&Devices::new(), &now).back.contains("c"));
    }
}

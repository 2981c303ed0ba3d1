//! Which of a resource's interfaces carries it on this node (row NM-5).

use std::collections::BTreeMap;

/// What an interface is good for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceHealth {
    Healthy,
    /// It works again, but not for long yet: good enough where no other works, no reason to go back to it.
    Recovering,
    /// Missing, set down, without carrier, deaf.
    Failed,
}

/// By name. Interfaces that are not mentioned do not exist.
pub type Devices = BTreeMap<String, DeviceHealth>;

pub fn health(devices: &Devices, name: &str) -> DeviceHealth {
    devices.get(name).copied().unwrap_or(DeviceHealth::Failed)
}

/// The interface for a bring-up: the first that is healthy, else the first that is about to be, else the
/// first of all, which the sequence then tries to start. Empty when none is listed.
pub fn choose<'a>(listed: &'a [String], devices: &Devices) -> &'a str {
    let first = |wanted| listed.iter().find(|name| health(devices, name) == wanted);
    first(DeviceHealth::Healthy)
        .or_else(|| first(DeviceHealth::Recovering))
        .or(listed.first())
        .map_or("", String::as_str)
}

/// Where to go from an interface that has failed; None while it works, or where nothing else does.
pub fn refuge<'a>(listed: &'a [String], used: &str, devices: &Devices) -> Option<&'a str> {
    let best = choose(listed, devices);
    (health(devices, used) == DeviceHealth::Failed
        && best != used
        && health(devices, best) != DeviceHealth::Failed)
        .then_some(best)
}

/// A better interface than the one in use that has been healthy for long enough; for resources that
/// return by themselves.
pub fn home<'a>(listed: &'a [String], used: &str, devices: &Devices) -> Option<&'a str> {
    let rank = |name: &str| listed.iter().position(|l| l == name);
    let best = choose(listed, devices);
    let better = rank(best).is_some_and(|b| rank(used).is_none_or(|u| b < u));
    (better && health(devices, best) == DeviceHealth::Healthy).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::{DeviceHealth::*, *};

    fn listed() -> Vec<String> {
        ["a", "b", "c"].map(String::from).to_vec()
    }

    fn devices(health: [DeviceHealth; 3]) -> Devices {
        listed().into_iter().zip(health).collect()
    }

    #[test]
    fn the_first_that_works_is_chosen() {
        let chosen = |health| choose(&listed(), &devices(health)).to_owned();
        assert_eq!(chosen([Healthy, Healthy, Healthy]), "a");
        assert_eq!(chosen([Failed, Healthy, Healthy]), "b");
        assert_eq!(chosen([Recovering, Failed, Healthy]), "c");
        assert_eq!(chosen([Failed, Recovering, Failed]), "b");
        assert_eq!(chosen([Failed, Failed, Failed]), "a");
        assert_eq!(choose(&listed(), &Devices::new()), "a");
        assert_eq!(choose(&[], &Devices::new()), "");
    }

    #[test]
    fn only_a_failed_interface_is_left_and_only_for_one_that_works() {
        let refuge = |used, health| refuge(&listed(), used, &devices(health)).map(str::to_owned);
        assert_eq!(refuge("a", [Failed, Healthy, Healthy]).as_deref(), Some("b"));
        assert_eq!(refuge("a", [Failed, Failed, Recovering]).as_deref(), Some("c"));
        assert_eq!(refuge("a", [Failed, Failed, Failed]), None);
        assert_eq!(refuge("b", [Healthy, Healthy, Healthy]), None);
        assert_eq!(refuge("a", [Recovering, Healthy, Healthy]), None);
        assert_eq!(refuge("gone", [Failed, Healthy, Healthy]).as_deref(), Some("b"), "no longer listed");
    }

    #[test]
    fn home_is_better_and_has_been_healthy_for_a_while() {
        let home = |used, health| home(&listed(), used, &devices(health)).map(str::to_owned);
        assert_eq!(home("b", [Healthy, Healthy, Healthy]).as_deref(), Some("a"));
        assert_eq!(home("b", [Recovering, Healthy, Healthy]), None);
        assert_eq!(home("a", [Healthy, Healthy, Healthy]), None);
        assert_eq!(home("a", [Failed, Healthy, Healthy]), None);
    }
}

//! What netlink says of this host's interfaces, for the choice among a resource's interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    core::{
        agent::{DeviceHealth, Devices},
        time::BootTime,
    },
    observe::network::{Link, Network, NetworkError},
};

/// An interface that came back counts as recovering for this long.
const HOLD: Duration = Duration::from_secs(10);

pub(super) struct DeviceFeed {
    network: Network,
    seen: BTreeMap<String, Seen>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    works: bool,
    /// Since when, unless it has never been otherwise.
    back: Option<BootTime>,
}

impl DeviceFeed {
    pub(super) fn new(network: Network) -> Self {
        Self { network, seen: BTreeMap::new() }
    }

    /// Reads all interfaces. Answers those that work again.
    ///
    /// # Errors
    /// When netlink does not answer; what was known stays.
    pub(super) async fn read_all(&mut self, now: BootTime) -> Result<BTreeSet<String>, NetworkError> {
        let links = self.network.links().await?;
        let first = self.seen.is_empty();
        let mut back = BTreeSet::new();
        for name in self.seen.keys().cloned().collect::<Vec<_>>() {
            if !links.iter().any(|l| l.name == name) {
                self.note(&name, None, now);
            }
        }
        for link in &links {
            if self.note(&link.name, Some(link), now) {
                back.insert(link.name.clone());
            }
        }
        if first {
            // As they are found they are not recovering from anything.
            self.seen.values_mut().for_each(|seen| seen.back = None);
            back.clear();
        }
        Ok(back)
    }

    /// Reads these. Answers those that work again.
    ///
    /// # Errors
    /// When netlink does not answer; what was known stays.
    pub(super) async fn read(
        &mut self,
        names: &BTreeSet<String>,
        now: BootTime,
    ) -> Result<BTreeSet<String>, NetworkError> {
        let mut back = BTreeSet::new();
        for name in names {
            let link = match self.network.link(name).await {
                Ok(link) => Some(link),
                Err(NetworkError::NoDevice(_)) => None,
                Err(error) => return Err(error),
            };
            if self.note(name, link.as_ref(), now) {
                back.insert(name.clone());
            }
        }
        Ok(back)
    }

    fn note(&mut self, name: &str, link: Option<&Link>, now: BootTime) -> bool {
        let works = link.is_some_and(|l| l.admin_up && l.carrier);
        let worked = self.seen.get(name).is_some_and(|s| s.works);
        if works != worked || !self.seen.contains_key(name) {
            self.seen.insert(name.to_owned(), Seen { works, back: works.then_some(now) });
        }
        works && !worked
    }

    pub(super) fn devices(&self, now: BootTime) -> Devices {
        let health = |seen: &Seen| match seen {
            Seen { works: false, .. } => DeviceHealth::Failed,
            Seen { back: Some(since), .. } if now.since(*since) < HOLD => DeviceHealth::Recovering,
            Seen { .. } => DeviceHealth::Healthy,
        };
        self.seen.iter().map(|(name, seen)| (name.clone(), health(seen))).collect()
    }
}

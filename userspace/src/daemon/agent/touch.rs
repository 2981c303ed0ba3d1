//! What changed on this host, gathered while other things were done, and what follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use tokio::sync::broadcast::{self, error::RecvError};

use super::{
    AgentDriver, Loop,
    devices::{self, Turns},
};
use crate::{
    core::time::BootTime,
    daemon::events::About,
    model::{ClusterState, Tag},
    observe::{clock, network::NetworkEvent},
};

/// More addresses than these that changed at once: everything is looked at instead.
const ONE_BY_ONE: usize = 1024;

/// The link monitor hears the same event and has the first word: a check that began at once would only be
/// in the way of a switch. What changed without a verdict (made anew, down and up again) is checked after this.
const FIRST_WORD: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct Touched {
    all: bool,
    /// The link monitor's verdicts have changed.
    pub(super) verdicts: bool,
    /// Netlink spoke of them; when to check what is there.
    links: BTreeMap<String, BootTime>,
    addresses: BTreeSet<IpAddr>,
}

impl Touched {
    pub(super) fn everything() -> Self {
        Self { all: true, verdicts: true, ..Self::default() }
    }

    pub(super) fn note(&mut self, event: Result<NetworkEvent, RecvError>) {
        match event {
            Ok(NetworkEvent::Link { name, .. }) => {
                self.links.entry(name).or_insert_with(|| clock::now().after(FIRST_WORD));
            }
            Ok(NetworkEvent::Address { address, .. }) => drop(self.addresses.insert(address)),
            Ok(NetworkEvent::Resync) | Err(RecvError::Lagged(_)) => self.all = true,
            Err(RecvError::Closed) => {}
        }
    }

    pub(super) fn drain(&mut self, events: &mut broadcast::Receiver<NetworkEvent>) {
        loop {
            match events.try_recv() {
                Ok(event) => self.note(Ok(event)),
                Err(broadcast::error::TryRecvError::Lagged(n)) => self.note(Err(RecvError::Lagged(n))),
                Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => return,
            }
        }
    }

    /// When something of it is to be looked at.
    pub(super) fn due(&self) -> Option<BootTime> {
        self.links.values().min().copied()
    }

    /// What is to be looked at now; the rest stays.
    fn take(&mut self, now: BootTime) -> Self {
        let later = self.links.extract_if(.., |_, due| *due > now).collect();
        std::mem::replace(self, Self { links: later, ..Self::default() })
    }
}

impl AgentDriver {
    /// Tells the agent what changed on this host.
    pub(super) fn touch(&self, l: &mut Loop, touched: &mut Touched, state: &ClusterState) {
        let now = clock::now();
        let Touched { all, verdicts, links, addresses } = touched.take(now);
        let turns = if verdicts { self.follow_links(l) } else { Turns::default() };
        if all || addresses.len() > ONE_BY_ONE {
            l.agent.all_touched(now);
        } else if !(links.is_empty() && addresses.is_empty() && turns == Turns::default()) {
            let changed = |device: &str| links.contains_key(device) || turns.contains(device);
            let of_links = l.agent.in_service().filter(|(_, here)| changed(&here.device));
            let mut tags: BTreeSet<Tag> = of_links.map(|(tag, _)| tag.clone()).collect();
            tags.extend(addresses.iter().filter_map(|a| l.owners.find(*a)).cloned());
            tags.iter().for_each(|tag| l.agent.touched(tag, now));
        }
        for device in turns.back {
            self.carrier_returned(l, device, state);
        }
    }

    fn follow_links(&self, l: &mut Loop) -> Turns {
        let devices = devices::of(&self.links.borrow());
        let turns = Turns::between(&l.devices, &devices);
        l.devices.clone_from(&devices);
        l.agent.set_devices(devices);
        turns
    }

    /// The neighbours of an interface may have learned other ways meanwhile: everything in service there is
    /// announced again (row IP-16).
    fn carrier_returned(&self, l: &Loop, device: String, state: &ClusterState) {
        let serving = l.agent.serving(state, self.situation(clock::now()));
        let there = serving.filter(|(_, here)| here.device == device && here.resource.ip().is_some()).count();
        if there == 0 {
            return;
        }
        let message = format!("{device} works again: {there} resources are announced there");
        self.events.record(About::default(), "interface.returned", message);
        let (announcer, network) = (self.executor.announcer().clone(), self.network.clone());
        tokio::spawn(async move {
            match network.link(&device).await {
                // What has been moved away meanwhile is announced elsewhere, and not here.
                Ok(link) => announcer.carrier_returned(link.index),
                Err(error) => tracing::warn!(%error, "nothing is announced there again"),
            }
        });
    }
}

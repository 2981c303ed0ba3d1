//! What changed on this host, gathered while other things were done, and what follows from it.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use tokio::sync::broadcast::{self, error::RecvError};

use super::{AgentDriver, Loop};
use crate::{
    core::command::{Command, Effect},
    daemon::events::About,
    model::{ClusterState, Tag},
    observe::{clock, network::NetworkEvent},
};

/// More addresses than these that changed at once: everything is looked at instead.
const ONE_BY_ONE: usize = 1024;

#[derive(Default)]
pub(super) struct Touched {
    all: bool,
    links: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Touched {
    pub(super) fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    pub(super) fn note(&mut self, event: Result<NetworkEvent, RecvError>) {
        match event {
            Ok(NetworkEvent::Link { name, .. }) => drop(self.links.insert(name)),
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
}

impl AgentDriver {
    /// Tells the agent what changed on this host. What cannot be read now is read the next time.
    pub(super) async fn touch(&self, l: &mut Loop, touched: &mut Touched, state: &ClusterState) {
        let now = clock::now();
        let Touched { all, links, addresses } = std::mem::take(touched);
        let read = if all {
            l.devices.read_all(now).await
        } else if links.is_empty() {
            Ok(BTreeSet::new())
        } else {
            l.devices.read(&links, now).await
        };
        let back = read.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read this host's interfaces: looking again");
            touched.all = all;
            touched.links.clone_from(&links);
            BTreeSet::new()
        });
        l.agent.set_devices(l.devices.devices(now));
        if all || addresses.len() > ONE_BY_ONE {
            l.agent.all_touched(now);
        } else {
            let of_links = l.agent.in_service().filter(|(_, here)| links.contains(&here.device));
            let mut tags: BTreeSet<Tag> = of_links.map(|(tag, _)| tag.clone()).collect();
            tags.extend(addresses.iter().filter_map(|a| l.owners.find(*a)).cloned());
            tags.iter().for_each(|tag| l.agent.touched(tag, now));
        }
        for device in back {
            self.carrier_returned(l, &device, state);
        }
    }

    /// The neighbours of an interface may have learned other ways meanwhile: everything in service there is
    /// announced again (row IP-16).
    fn carrier_returned(&self, l: &Loop, device: &str, state: &ClusterState) {
        let serving = l.agent.serving(state, self.situation(clock::now()));
        let there: Vec<_> = serving
            .filter(|(_, here)| here.device == device)
            .map(|(tag, here)| (tag.clone(), Arc::clone(&here.addresses)))
            .collect();
        if there.is_empty() {
            return;
        }
        let message = format!("{device} works again: {} resources are announced there", there.len());
        self.events.record(About::default(), "interface.returned", message);
        let (executor, events, device) = (self.executor.clone(), self.events.clone(), device.to_owned());
        tokio::spawn(async move {
            for (tag, addresses) in there {
                let command = Command::Announce { addresses, device: device.clone() };
                if let Effect::Failed(reason) = executor.perform(&command).await {
                    events.warn(About::tag(&tag), "announce.failed", reason);
                }
            }
        });
    }
}

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
    core::{agent::Agent, time::BootTime},
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

/// What is in service on interfaces that have changed.
fn on_changed(agent: &Agent, changed: impl Fn(&str) -> bool) -> BTreeSet<Tag> {
    agent.in_service().filter(|(_, here)| changed(&here.device)).map(|(tag, _)| tag.clone()).collect()
}

impl AgentDriver {
    /// Tells the agent what changed on this host.
    pub(super) fn touch(&self, l: &mut Loop, touched: &mut Touched, state: &ClusterState) {
        let now = clock::now();
        let Touched { all, verdicts, links, addresses } = touched.take(now);
        let turns = if verdicts { self.follow_links(l) } else { Turns::default() };
        // Too much to tell what: events were lost. The verdicts are made anew all the same.
        let all = all || addresses.len() > ONE_BY_ONE;
        if all {
            l.agent.all_touched(now);
        }
        let mut tags = on_changed(&l.agent, |device| links.contains_key(device) || turns.contains(device));
        if !all {
            tags.extend(addresses.iter().filter_map(|a| l.owners.find(*a)).cloned());
        }
        tags.iter().for_each(|tag| l.agent.touched(tag, now));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        core::agent::Here,
        model::{Ec2Eip, Ec2Route, Kind, NodeSettings, Resource},
    };

    #[test]
    fn an_interface_concerns_only_what_is_in_service_on_it() {
        let tag = |name: &str| -> Tag { name.parse().unwrap() };
        let address: ipnet::IpNet = "10.9.0.5/32".parse().unwrap();
        let settings = || [(1, NodeSettings::new(1, vec![]))];
        let route = Kind::Ec2Route(Ec2Route { ip: tag("web"), region: None });
        let eip = Kind::Ec2Eip(Ec2Eip { address: [198, 51, 100, 7].into(), region: None });
        let mut agent = Agent::new(1);
        for (resource, device) in [
            (Resource::new(tag("web"), address, settings()), "eth0"),
            (Resource::of_kind(tag("route"), route, settings()), "eth0"),
            (Resource::of_kind(tag("eip"), eip, settings()), "eth1"),
        ] {
            let (of, device) = (resource.tag.clone(), device.to_owned());
            let here = Here { resource: Arc::new(resource), addresses: Arc::default(), device };
            agent.found(of, here, Some(1), BootTime::ZERO);
        }
        let on = |devices: &[&str]| on_changed(&agent, |device| devices.contains(&device));
        assert_eq!(on(&["eth1"]), [tag("eip")].into());
        assert_eq!(on(&["eth0"]), [tag("route"), tag("web")].into());
        assert_eq!(on(&["eth10", "veth0", "docker0"]), [].into());
    }
}

//! Watches this node's side of the monitored subnets and tells the cluster what is down (rows NM-3, NM-4).
//!
//! A subnet is polled through every interface that may reach it: those with a stationary address of it, from
//! that address, and standby interfaces of its resources, which have no address, by ARP probes and neighbour
//! solicitations. The cluster is told only when something turned up or down.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use tokio::{
    sync::{mpsc, watch},
    time::{Duration, Instant},
};

use super::{
    events::{About, EventLog},
    links::Unreachable,
    poll::{Probe, Through},
    tell::tell,
};
use crate::{
    api::facts::Facts,
    cluster::Store,
    config::Timing,
    core::{
        change::Change,
        links::{LinkHealth, LinkTable},
        subnets::{Answerer, Cause, POLL_WAIT, Poll, Polls, Question, Verdict, judge, question},
        time::BootTime,
    },
    model::{ClusterState, MonitoredSubnet, Node, NodeId, SubnetDown, SubnetLoss},
    observe::{clock, network::Network},
};

pub struct SubnetMonitor {
    pub me: NodeId,
    pub store: Arc<dyn Store>,
    pub network: Network,
    pub links: watch::Receiver<LinkTable>,
    pub facts: watch::Receiver<Facts>,
    pub timing: Timing,
    pub events: EventLog,
    /// Everything decided before this daemon started has been applied.
    pub caught_up: watch::Receiver<bool>,
    pub unreachable: watch::Sender<Unreachable>,
}

/// One monitored subnet here.
struct Watched {
    settings: MonitoredSubnet,
    /// By interface.
    through: BTreeMap<String, Line>,
    /// What was last said of it: none, up, or why it is down.
    said: Option<Result<(), SubnetDown>>,
}

/// A subnet through one interface.
struct Line {
    through: Through,
    polls: Polls,
    due: Instant,
    /// A poll is under way.
    running: bool,
}

struct Finished {
    subnet: IpNet,
    device: String,
    through: Through,
    poll: Poll,
}

impl SubnetMonitor {
    /// Runs until the daemon ends.
    pub async fn run(mut self) {
        let mut view = self.store.view();
        let (done, mut finished) = mpsc::unbounded_channel::<Finished>();
        let (told, mut telling) = mpsc::unbounded_channel::<()>();
        if self.caught_up.wait_for(|c| *c).await.is_err() {
            return;
        }
        let mut watched: BTreeMap<IpNet, Watched> = BTreeMap::new();
        let mut in_flight = false;
        let started = clock::now();
        loop {
            let state = view.borrow_and_update().state.clone();
            let table = self.links.borrow_and_update().clone();
            let now = Instant::now();
            // Nothing is said about subnets before the interfaces were looked at.
            if table.is_known() {
                self.follow(&mut watched, &state, &table, now);
                self.poll_due(&mut watched, &state, &table, (now, started), &done);
                self.tell_turns(&mut watched);
                self.publish_unreachable(&watched);
                in_flight = in_flight || self.report(&watched, &state, &told);
            }
            let lines = watched.values().flat_map(|w| w.through.values());
            let due = lines.filter(|l| !l.running).map(|l| l.due).min();
            let due = due.unwrap_or_else(|| now + Duration::from_secs(3600));
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                changed = self.links.changed() => if changed.is_err() { return },
                Some(f) = finished.recv() => take(&mut watched, f),
                Some(()) = telling.recv() => in_flight = false,
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// Brings what is watched in line with the cluster's wish and this host's interfaces.
    fn follow(
        &self,
        watched: &mut BTreeMap<IpNet, Watched>,
        state: &ClusterState,
        table: &LinkTable,
        now: Instant,
    ) {
        watched.retain(|subnet, _| state.subnets.contains_key(subnet));
        for (subnet, settings) in &state.subnets {
            let w = watched.entry(*subnet).or_insert_with(|| Watched {
                settings: settings.clone(),
                through: BTreeMap::new(),
                said: None,
            });
            if w.settings != *settings {
                w.settings = settings.clone();
                w.through.values_mut().for_each(|line| line.due = now);
            }
            let lines = ways(*subnet, state, self.me, table);
            w.through.retain(|device, line| lines.get(device) == Some(&line.through));
            for (device, through) in lines {
                let line = w.through.entry(device.clone()).or_insert_with(|| Line {
                    through,
                    polls: Polls::default(),
                    due: now,
                    running: false,
                });
                if let Some(reason) = lost(table, &device) {
                    line.polls.take(Poll::Lost { reason }, settings.fall, settings.rise);
                    line.due = now + settings.interval;
                } else if line.polls.found() {
                    line.due = now;
                }
            }
        }
    }

    fn poll_due(
        &self,
        watched: &mut BTreeMap<IpNet, Watched>,
        state: &ClusterState,
        table: &LinkTable,
        (now, started): (Instant, BootTime),
        done: &mpsc::UnboundedSender<Finished>,
    ) {
        // Peers that were not heard yet may be heard soon.
        let early = clock::now().since(started) < self.timing.startup_grace;
        let own: Vec<IpAddr> =
            table.iter().flat_map(|(_, report)| report.stationary.iter().map(IpNet::addr)).collect();
        for (subnet, w) in watched {
            let peers = self.peers(state, subnet);
            let interval = w.settings.interval;
            for (device, line) in w.through.iter_mut().filter(|(_, l)| l.due <= now && !l.running) {
                let question = question(*subnet, &w.settings, &own, &peers);
                if early && question == Question::Nobody {
                    line.due = now + self.timing.heartbeat;
                    continue;
                }
                let probe = Probe {
                    network: self.network.clone(),
                    subnet: *subnet,
                    device: device.clone(),
                    through: line.through.clone(),
                    question,
                    wait: interval.min(POLL_WAIT),
                };
                (line.running, line.due) = (true, now + interval);
                let (subnet, device, through) = (*subnet, device.clone(), line.through.clone());
                let done = done.clone();
                tokio::spawn(async move {
                    let poll = probe.run().await;
                    // The receiver is gone only when the daemon ends.
                    let _ = done.send(Finished { subnet, device, through, poll });
                });
            }
        }
    }

    /// The other nodes. One that has lost its own link to the subnet can't answer, which proves nothing.
    fn peers(&self, state: &ClusterState, subnet: &IpNet) -> Vec<Answerer> {
        let facts = self.facts.borrow();
        let lost = |id| state.subnet_down(id, subnet).is_some_and(|d| d.cause == SubnetLoss::Link);
        let of = |n: &Node| {
            let known = facts.peers.get(&n.id);
            let transmits = |i: usize| known.and_then(|p| p.paths.get(i)).is_some_and(|p| p.transmits);
            let paths = || n.paths.iter().map(SocketAddr::ip).enumerate();
            let mute: Vec<IpAddr> = paths().filter(|(i, _)| !transmits(*i)).map(|(_, ip)| ip).collect();
            let all = paths().map(|(_, ip)| ip).chain([n.rpc.ip()]);
            Answerer {
                alive: known.is_some_and(|p| p.alive) && !lost(n.id),
                witness: n.witness,
                addresses: all.filter(|ip| !mute.contains(ip)).collect(),
            }
        };
        state.nodes.values().filter(|n| n.id != self.me).map(of).collect()
    }

    fn tell_turns(&self, watched: &mut BTreeMap<IpNet, Watched>) {
        for (subnet, w) in watched {
            let Some(is) = w.verdict(*subnet) else { continue };
            let was = w.said.replace(is.clone());
            match (was, is) {
                (None | Some(Ok(())), Err(down)) => {
                    let message = format!("subnet {subnet} is down here: {}", down.reason);
                    self.events.warn(About::default(), "subnet.down", message);
                }
                (Some(Err(_)), Ok(())) => {
                    let message = format!("subnet {subnet} is up here again");
                    self.events.record(About::default(), "subnet.up", message);
                }
                (None, Ok(())) => {
                    let message = format!("subnet {subnet} is up here");
                    self.events.record(About::default(), "subnet.up", message);
                }
                (Some(Ok(())), Ok(())) | (Some(Err(_)), Err(_)) => {}
            }
        }
    }

    /// An interface through which polls fail, and for no subnet succeed, is worth leaving for another.
    fn publish_unreachable(&self, watched: &BTreeMap<IpNet, Watched>) {
        let mut reached = BTreeSet::new();
        let mut failed = Unreachable::new();
        for (subnet, w) in watched {
            for (device, line) in &w.through {
                match line.polls.verdict() {
                    Some(Verdict::Up) => {
                        reached.insert(device.clone());
                    }
                    Some(Verdict::Down { reason, cause: Cause::Silent }) => {
                        failed.entry(device.clone()).or_insert_with(|| format!("{subnet}: {reason}"));
                    }
                    Some(Verdict::Down { cause: Cause::Lost | Cause::Returned, .. }) | None => {}
                }
            }
        }
        failed.retain(|device, _| !reached.contains(device));
        self.unreachable.send_if_modified(|known| {
            let changed = *known != failed;
            *known = failed;
            changed
        });
    }

    /// Tells the cluster where its state says otherwise; whether a proposal is on its way.
    fn report(
        &self,
        watched: &BTreeMap<IpNet, Watched>,
        state: &ClusterState,
        told: &mpsc::UnboundedSender<()>,
    ) -> bool {
        let known = state.subnets_down.get(&self.me).cloned().unwrap_or_default();
        let is = |(subnet, w): (&IpNet, &Watched)| match w.verdict(*subnet) {
            Some(Ok(())) => None,
            Some(Err(down)) => Some((*subnet, down)),
            // What an earlier life said stands until more is known.
            None => Some((*subnet, known.get(subnet)?.clone())),
        };
        let down: BTreeMap<IpNet, SubnetDown> = watched.iter().filter_map(is).collect();
        if down == known {
            return false;
        }
        let change = Change::ReportSubnets { node: self.me, down };
        tell(&self.store, change, "subnets", self.timing.heartbeat, told);
        true
    }
}

impl Watched {
    fn verdict(&self, subnet: IpNet) -> Option<Result<(), SubnetDown>> {
        judge(subnet, self.through.iter().map(|(device, line)| (device.as_str(), line.polls.verdict())))
    }
}

fn take(watched: &mut BTreeMap<IpNet, Watched>, f: Finished) {
    let Some(w) = watched.get_mut(&f.subnet) else { return };
    let Some(line) = w.through.get_mut(&f.device).filter(|l| l.through == f.through) else { return };
    line.running = false;
    // The link was lost while the poll was under way.
    if !line.polls.is_lost() {
        line.polls.take(f.poll, w.settings.fall, w.settings.rise);
    }
}

/// Why no poll can succeed through an interface. That none is answered is for the polls themselves to find.
pub(super) fn lost(table: &LinkTable, device: &str) -> Option<String> {
    match table.health(device)? {
        LinkHealth::Up | LinkHealth::Unreachable => None,
        LinkHealth::AdminDown | LinkHealth::NoCarrier | LinkHealth::Missing | LinkHealth::Deaf => {
            Some(table.get(device).map_or_else(|| "there is no such interface".to_owned(), |r| r.why.clone()))
        }
    }
}

/// The interfaces through which this node may reach a subnet.
fn ways(subnet: IpNet, state: &ClusterState, me: NodeId, table: &LinkTable) -> BTreeMap<String, Through> {
    let mut found = BTreeMap::new();
    for (device, report) in table.iter() {
        let within = |a: &&IpNet| subnet.contains(&a.addr());
        // The one with that very prefix first: it is meant where subnets lie in one another.
        let exact = report.stationary.iter().find(|a| a.trunc() == subnet);
        if let Some(own) = exact.or_else(|| report.stationary.iter().find(within)) {
            found.insert(device.to_owned(), Through::Address(own.addr()));
        }
    }
    for resource in state.resources.values() {
        let Some(settings) = resource.nodes.get(&me) else { continue };
        if resource.addresses().subnets().any(|s| subnet.contains(&s)) {
            for device in &settings.devices {
                found.entry(device.clone()).or_insert(Through::Probe);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::{links::LinkReport, time::BootTime},
        model::{NodeSettings, Resource},
    };

    fn table(all: &[(&str, &[&str], LinkHealth)]) -> LinkTable {
        let report = |(name, stationary, health): &(&str, &[&str], LinkHealth)| {
            let report = LinkReport {
                health: *health,
                recovering: false,
                since: BootTime(0),
                why: "why".into(),
                stationary: stationary.iter().map(|s| s.parse().unwrap()).collect(),
            };
            ((*name).to_owned(), report)
        };
        LinkTable::new(all.iter().map(report).collect())
    }

    #[test]
    fn stationary_addresses_first_and_standby_interfaces_of_the_subnets_resources() {
        let up = LinkHealth::Up;
        let table = table(&[
            ("eth0", &["10.1.2.3/16", "10.1.0.1/24"], up),
            ("eth1", &[], up),
            ("eth2", &["10.1.0.9/32"], up),
            ("eth3", &["10.2.0.1/24"], up),
        ]);
        let mut state = ClusterState::default();
        let address: IpNet = "10.1.0.50/24".parse().unwrap();
        let devices = vec!["eth0".to_owned(), "eth1".to_owned(), "gone".to_owned()];
        let resource = Resource::new("vip".parse().unwrap(), address, [(1, NodeSettings::new(1, devices))]);
        state.resources.insert(resource.tag.clone(), resource);
        let found = ways("10.1.0.0/24".parse().unwrap(), &state, 1, &table);
        let ip = |s: &str| Through::Address(s.parse().unwrap());
        let expected = [
            ("eth0", ip("10.1.0.1")),
            ("eth1", Through::Probe),
            ("eth2", ip("10.1.0.9")),
            ("gone", Through::Probe),
        ];
        assert_eq!(found, expected.map(|(d, t)| (d.to_owned(), t)).into());
        assert_eq!(ways("10.1.0.0/24".parse().unwrap(), &state, 2, &table).len(), 2, "extended elsewhere");
        assert!(ways("10.3.0.0/24".parse().unwrap(), &state, 1, &table).is_empty());
    }

    #[test]
    fn a_poll_through_a_lost_link_is_not_waited_for() {
        for (health, is_lost) in [
            (LinkHealth::Up, false),
            (LinkHealth::Unreachable, false),
            (LinkHealth::Deaf, true),
            (LinkHealth::NoCarrier, true),
            (LinkHealth::AdminDown, true),
        ] {
            assert_eq!(lost(&table(&[("eth0", &[], health)]), "eth0").is_some(), is_lost, "{health:?}");
        }
        assert!(lost(&table(&[]), "eth0").is_some());
    }
}

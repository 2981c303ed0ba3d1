//! Pings the connectivity hosts and tells the cluster which of them this node does not reach (row CL-8).
//!
//! Each host counts for itself, by the same rules as a monitored subnet ([`Polls`]). It is pinged from the
//! node's own addresses only: a virtual address may be elsewhere when the answer comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Duration, Instant},
};

use super::{
    events::{About, EventLog},
    subnets::lost,
    tell::tell,
};
use crate::{
    cluster::Store,
    config::Timing,
    core::{
        change::Change,
        links::LinkTable,
        subnets::{POLL_WAIT, Poll, Polls, Verdict},
    },
    model::{ClusterState, Connectivity, NodeId},
    observe::ping::Ping,
};

pub struct ConnectivityMonitor {
    pub me: NodeId,
    pub store: Arc<dyn Store>,
    pub links: watch::Receiver<LinkTable>,
    pub timing: Timing,
    pub events: EventLog,
    /// Everything decided before this daemon started has been applied.
    pub caught_up: watch::Receiver<bool>,
}

/// One host.
struct Watched {
    polls: Polls,
    due: Instant,
    /// A poll is under way.
    running: bool,
    /// What was last said of it: nothing, or whether it is reached.
    said: Option<bool>,
}

/// From where a host is pinged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    source: IpAddr,
    /// The interface through which it must go; None: as the kernel routes it.
    device: Option<String>,
}

impl ConnectivityMonitor {
    /// Runs until the daemon ends.
    pub async fn run(mut self) {
        let mut view = self.store.view();
        let (done, mut finished) = mpsc::unbounded_channel::<(IpAddr, Poll)>();
        let (told, mut telling) = mpsc::unbounded_channel::<()>();
        if self.caught_up.wait_for(|c| *c).await.is_err() {
            return;
        }
        let mut watched: BTreeMap<IpAddr, Watched> = BTreeMap::new();
        let mut settings = Connectivity::default();
        let mut in_flight = false;
        loop {
            let state = view.borrow_and_update().state.clone();
            let table = self.links.borrow_and_update().clone();
            // Nothing is said about hosts before the interfaces were looked at.
            if table.is_known() {
                let changed = settings != state.connectivity;
                settings.clone_from(&state.connectivity);
                follow(&mut watched, &settings, changed, &table, &done);
                self.tell_turns(&mut watched);
                in_flight = in_flight || self.report(&watched, &state, &told);
            }
            let due = watched.values().filter(|w| !w.running).map(|w| w.due).min();
            let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                changed = self.links.changed() => if changed.is_err() { return },
                Some((host, poll)) = finished.recv() => take(&mut watched, host, poll, &settings),
                Some(()) = telling.recv() => in_flight = false,
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    fn tell_turns(&self, watched: &mut BTreeMap<IpAddr, Watched>) {
        for (host, w) in watched {
            let Some(verdict) = w.polls.verdict() else { continue };
            let reached = *verdict == Verdict::Up;
            if w.said.replace(reached) == Some(reached) {
                continue;
            }
            match verdict {
                Verdict::Up => {
                    let message = format!("connectivity host {host} is reached from here");
                    self.events.record(About::default(), "connectivity.reached", message);
                }
                Verdict::Down { reason, .. } => {
                    let message = format!("connectivity host {host} is not reached from here: {reason}");
                    self.events.warn(About::default(), "connectivity.lost", message);
                }
            }
        }
    }

    /// Tells the cluster where its state says otherwise; whether a proposal is on its way.
    fn report(
        &self,
        watched: &BTreeMap<IpAddr, Watched>,
        state: &ClusterState,
        told: &mpsc::UnboundedSender<()>,
    ) -> bool {
        let known = state.unreached.get(&self.me).cloned().unwrap_or_default();
        let unreached = unreached(watched, &known);
        if unreached == known {
            return false;
        }
        let change = Change::ReportConnectivity { node: self.me, unreached };
        tell(&self.store, change, "connectivity hosts", self.timing.heartbeat, told);
        true
    }
}

/// Hosts that are not reached. What an earlier life said stands until more is known.
fn unreached(watched: &BTreeMap<IpAddr, Watched>, known: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let is = |(host, w): &(&IpAddr, &Watched)| match w.polls.verdict() {
        Some(verdict) => *verdict != Verdict::Up,
        None => known.contains(*host),
    };
    watched.iter().filter(is).map(|(host, _)| *host).collect()
}

/// Brings what is watched in line with the cluster's wish and this host's interfaces, and pings what is due.
fn follow(
    watched: &mut BTreeMap<IpAddr, Watched>,
    settings: &Connectivity,
    changed: bool,
    table: &LinkTable,
    done: &mpsc::UnboundedSender<(IpAddr, Poll)>,
) {
    let now = Instant::now();
    watched.retain(|host, _| settings.hosts.contains(host));
    for host in &settings.hosts {
        let w = watched.entry(*host).or_insert_with(|| Watched {
            polls: Polls::default(),
            due: now,
            running: false,
            said: None,
        });
        if changed {
            w.due = now;
        }
        let ways = match ways(*host, table) {
            Ok(ways) => ways,
            Err(reason) => {
                w.polls.take(Poll::Lost { reason }, settings.fall, settings.rise);
                w.due = now + settings.interval;
                continue;
            }
        };
        if w.polls.found() {
            w.due = now;
        }
        if w.due > now || w.running {
            continue;
        }
        (w.running, w.due) = (true, now + settings.interval);
        let (host, wait, done) = (*host, settings.interval.min(POLL_WAIT), done.clone());
        tokio::spawn(async move {
            let poll = poll(host, ways, wait).await;
            // The receiver is gone only when the daemon ends.
            let _ = done.send((host, poll));
        });
    }
}

fn take(watched: &mut BTreeMap<IpAddr, Watched>, host: IpAddr, poll: Poll, settings: &Connectivity) {
    let Some(w) = watched.get_mut(&host) else { return };
    w.running = false;
    // All its links were lost while the poll was under way.
    if !w.polls.is_lost() {
        w.polls.take(poll, settings.fall, settings.rise);
    }
}

/// Asks the host in all ways at once: one answer suffices. None to ask in: it is this node itself.
pub(super) async fn poll(host: IpAddr, ways: Vec<Way>, wait: Duration) -> Poll {
    if ways.is_empty() {
        return Poll::NobodyToAsk;
    }
    let ping = |way: Way| async move {
        let exclude = vec![way.source];
        let (source, device) = (Some(way.source), way.device);
        Ping { source, device, tries: 1, wait, exclude, first_only: true }.targets(&[host]).await
    };
    let mut reason = format!("no answer from {host}");
    for heard in futures::future::join_all(ways.into_iter().map(ping)).await {
        match heard {
            Ok(replies) if !replies.is_empty() => return Poll::Answered,
            Ok(_) => {}
            Err(error) => reason = error.to_string(),
        }
    }
    Poll::Silent { reason }
}

/// How to ping a host: from the addresses of its own subnet if there are any, else from all, as the kernel
/// routes it. None for one of this node's own addresses, which is always reached. An error, with the reason,
/// while no interface for it works.
pub(super) fn ways(host: IpAddr, table: &LinkTable) -> Result<Vec<Way>, String> {
    let (mut near, mut far, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
    for (device, report) in table.iter() {
        let gone = lost(table, device);
        for own in &report.stationary {
            let source = own.addr();
            if source == host {
                return Ok(Vec::new());
            }
            let is_near = own.contains(&host);
            if !is_near && (source.is_ipv4() != host.is_ipv4() || stays_on_its_link(source)) {
                continue;
            }
            match &gone {
                Some(why) => reasons.push(format!("{device}: {why}")),
                None if is_near => near.push(Way { source, device: Some(device.to_owned()) }),
                None => far.push(Way { source, device: None }),
            }
        }
    }
    let ways = if near.is_empty() { far } else { near };
    if !ways.is_empty() {
        return Ok(ways);
    }
    reasons.dedup();
    let nothing = || format!("no interface has an address from which {host} can be pinged");
    Err(if reasons.is_empty() { nothing() } else { reasons.join("; ") })
}

/// An address from which nothing beyond its link is reached.
fn stays_on_its_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_loopback() || a.is_link_local(),
        IpAddr::V6(a) => a.is_loopback() || a.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        links::{LinkHealth, LinkReport},
        time::BootTime,
    };

    fn table(all: &[(&str, &[&str], LinkHealth)]) -> LinkTable {
        let report = |(name, stationary, health): &(&str, &[&str], LinkHealth)| {
            let report = LinkReport {
                health: *health,
                recovering: false,
                since: BootTime(0),
                why: format!("{name} is lost"),
                stationary: stationary.iter().map(|s| s.parse().unwrap()).collect(),
            };
            ((*name).to_owned(), report)
        };
        LinkTable::new(all.iter().map(report).collect())
    }

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    fn way(source: &str, device: Option<&str>) -> Way {
        Way { source: ip(source), device: device.map(str::to_owned) }
    }

    #[test]
    fn from_its_own_subnet_if_possible_else_from_anywhere() {
        let (up, gone) = (LinkHealth::Up, LinkHealth::NoCarrier);
        let both = |first, second| {
            table(&[
                ("eth0", &["10.1.0.1/24", "fd77::1/64", "fe80::1/64"], first),
                ("eth1", &["10.2.0.1/24"], second),
            ])
        };
        let ways = |host, first, second| ways(ip(host), &both(first, second));
        assert_eq!(ways("10.2.0.9", up, up), Ok(vec![way("10.2.0.1", Some("eth1"))]));
        let far = vec![way("10.1.0.1", None), way("10.2.0.1", None)];
        assert_eq!(ways("192.0.2.1", up, up), Ok(far), "any of the family");
        assert_eq!(ways("192.0.2.1", up, gone), Ok(vec![way("10.1.0.1", None)]));
        assert_eq!(ways("2001:db8::1", up, up), Ok(vec![way("fd77::1", None)]), "nothing link-local");
        assert_eq!(ways("fe80::9", up, up), Ok(vec![way("fe80::1", Some("eth0"))]));
        assert_eq!(ways("10.2.0.9", up, gone), Ok(vec![way("10.1.0.1", None)]), "a router may know");
        assert_eq!(ways("10.2.0.1", gone, gone), Ok(vec![]), "itself");
        let why = ways("192.0.2.1", gone, gone).unwrap_err();
        assert!(why.contains("eth0 is lost") && why.contains("eth1 is lost"), "{why}");
        assert!(ways("2001:db8::1", gone, up).unwrap_err().contains("eth0 is lost"));
        assert!(super::ways(ip("10.9.0.1"), &table(&[])).unwrap_err().contains("10.9.0.1"));
    }

    #[test]
    fn what_is_not_known_yet_stays_as_it_was_said() {
        let host = |polls: &[Poll]| {
            let mut counted = Polls::default();
            polls.iter().for_each(|p| counted.take(p.clone(), 2, 2));
            Watched { polls: counted, due: Instant::now(), running: false, said: None }
        };
        let silent = Poll::Silent { reason: "no answer".into() };
        let watched = BTreeMap::from([
            (ip("10.0.0.1"), host(&[])),
            (ip("10.0.0.2"), host(&[])),
            (ip("10.0.0.3"), host(&[Poll::Answered])),
            (ip("10.0.0.4"), host(std::slice::from_ref(&silent))),
            (ip("10.0.0.5"), host(&[silent.clone(), silent])),
        ]);
        // One that is no longer watched is not mentioned again.
        let known = ["10.0.0.1", "10.0.0.3", "10.0.0.9"].map(ip).into();
        assert_eq!(unreached(&watched, &known), ["10.0.0.1", "10.0.0.5"].map(ip).into());
    }

    #[test]
    fn an_answer_to_a_poll_from_before_a_lost_link_does_not_count() {
        let settings = Connectivity { fall: 1, rise: 1, ..Connectivity::default() };
        let mut polls = Polls::default();
        polls.take(Poll::Lost { reason: "no carrier".into() }, 1, 1);
        let w = Watched { polls, due: Instant::now(), running: true, said: None };
        let mut watched = BTreeMap::from([(ip("10.0.0.1"), w)]);
        take(&mut watched, ip("10.0.0.1"), Poll::Answered, &settings);
        let w = &watched[&ip("10.0.0.1")];
        assert!(!w.running && w.polls.is_lost());
        take(&mut watched, ip("10.0.0.2"), Poll::Answered, &settings);
        assert_eq!(watched.len(), 1, "one that is not watched");
    }
}

//! Five hosts, two networks for heartbeats, and a dozen hierarchies spread over the hosts: every fault takes what
//! it must, as whole hierarchies, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    capture::Capture,
    frames::Mac,
    lab::{Lab, Options, PATIENCE},
    prober::{Prober, Targets},
    timeline::Moment,
};

use crate::{Test, scene::options};

pub const TESTS: &[(&str, Test)] = &[
    ("five::a_fault_moves_whole_hierarchies_and_no_others", every_fault),
    ("five::paths_are_lost_one_by_one", paths_lost),
];

const HOSTS: usize = 5;
const HIERARCHIES: usize = 10;
/// A parent and two children, each an address.
const MEMBERS: [&str; 3] = ["top", "left", "right"];

pub struct Five {
    // The prober and the capture end before the network below them.
    _prober: Prober,
    capture: Capture,
    pub lab: Lab,
    /// Who had each hierarchy, one after another.
    owners: Vec<Vec<usize>>,
}

fn tag(hierarchy: usize, member: usize) -> String {
    format!("{}-{hierarchy}", MEMBERS[member])
}

fn address(hierarchy: usize, member: usize) -> String {
    format!("10.77.0.{}", 120 + hierarchy * MEMBERS.len() + member)
}

fn addresses() -> Vec<IpAddr> {
    let all = (0..HIERARCHIES).flat_map(|h| (0..MEMBERS.len()).map(move |m| address(h, m)));
    all.filter_map(|a| a.parse().ok()).collect()
}

impl Five {
    /// Hierarchy `h` is on host `h % 5`, and goes from there to the next in turn.
    pub fn new(profile: &'static str) -> Result<Self> {
        let lab = Lab::new(&Options { hosts: HOSTS, paths: 2, profile, ..options() })?;
        let capture = lab.capture(&addresses())?;
        let targets = Targets { addresses: addresses(), interval: Duration::from_millis(20) };
        let prober = lab.prober(vec![targets])?;
        lab.form_cluster()?;
        for h in 0..HIERARCHIES {
            let home = lab.host(h % HOSTS);
            let others: Vec<&str> = (1..HOSTS).map(|next| lab.host((h + next) % HOSTS).name()).collect();
            for m in 0..MEMBERS.len() {
                let (address, tag) = (format!("{}/24", address(h, m)), tag(h, m));
                let create = ["create", "ip", &address, "--dev", "eth0", "--tag", &tag, "--no-wait"];
                let mut arguments = create.to_vec();
                others.iter().for_each(|name| arguments.extend(["--extend-to", *name]));
                home.vipctl(&arguments)?.done().map_err(|e| lab.explain(e))?;
            }
            for child in 1..MEMBERS.len() {
                let (parent, child) = (tag(h, 0), tag(h, child));
                home.vipctl(&["depend", &parent, &child])?.done().map_err(|e| lab.explain(e))?;
            }
        }
        let owners = (0..HIERARCHIES).map(|h| vec![h % HOSTS]).collect();
        let five = Self { _prober: prober, capture, lab, owners };
        let all: Vec<usize> = (0..HOSTS).collect();
        five.wait_settled(&all, Moment::default())?;
        Ok(five)
    }

    /// Owner and epoch of every member, as the host sees them; an error while anything is not in service.
    fn places(&self, seen_by: usize) -> Result<BTreeMap<String, (usize, u64)>> {
        let status = self.lab.host(seen_by).status()?;
        let mut places = BTreeMap::new();
        for r in &status.resources {
            ensure!(r.state == "ISP", "{} is {}", r.tag, r.state);
            let owner = r.owner.as_deref().context("no owner")?;
            let host = self.lab.hosts.iter().position(|h| h.name() == owner).context("an unknown owner")?;
            places.insert(r.tag.to_string(), (host, r.epoch));
        }
        ensure!(places.len() == HIERARCHIES * MEMBERS.len(), "{} resources are in service", places.len());
        Ok(places)
    }

    /// Until all is in service on the hosts that work, each hierarchy on one of them, and answered there after
    /// that moment.
    fn wait_settled(&self, works: &[usize], after: Moment) -> Result<BTreeMap<String, (usize, u64)>> {
        let places =
            self.lab.wait(PATIENCE * 2, "every hierarchy is in service on a host that works", || {
                let places = self.places(works[0])?;
                for h in 0..HIERARCHIES {
                    let hosts: BTreeSet<usize> = (0..MEMBERS.len()).map(|m| places[&tag(h, m)].0).collect();
                    ensure!(hosts.len() == 1, "hierarchy {h} is on hosts {hosts:?}");
                    ensure!(hosts.iter().all(|host| works.contains(host)), "hierarchy {h} is on {hosts:?}");
                }
                Ok(places)
            })?;
        for h in 0..HIERARCHIES {
            for m in 0..MEMBERS.len() {
                let host = places[&tag(h, m)].0;
                self.lab.wait_answer(&self.capture, address(h, m).parse()?, host, after)?;
            }
        }
        Ok(places)
    }

    /// The fault befalls one host. What it had goes to hosts that work, all else stays under its grant; then the
    /// host is mended and gets nothing back by itself.
    fn through(
        &mut self,
        host: usize,
        name: &str,
        fault: impl Fn(&Lab) -> Result<()>,
        mend: impl Fn(&Lab) -> Result<()>,
    ) -> Result<()> {
        let witness = (host + 1) % HOSTS;
        let before = self.places(witness).with_context(|| format!("before {name}"))?;
        let from = Moment::now();
        fault(&self.lab)?;
        let works: Vec<usize> = (0..HOSTS).map(|i| (witness + i) % HOSTS).filter(|i| *i != host).collect();
        let after = self.wait_settled(&works, from).with_context(|| name.to_owned())?;
        for (tag, (owner, epoch)) in &before {
            let (now, newer) = after[tag];
            if *owner == host {
                ensure!(now != host && newer > *epoch, "{name}: {tag} is on host {now} under epoch {newer}");
            } else {
                ensure!((now, newer) == (*owner, *epoch), "{name} moved '{tag}' from {owner} to {now}");
            }
        }
        mend(&self.lab)?;
        self.lab.wait_whole().with_context(|| format!("after {name}"))?;
        let mended = self.wait_settled(&works, Moment::now())?;
        ensure!(mended == after, "the return after {name} moved something: {mended:?}, not {after:?}");
        for h in 0..HIERARCHIES {
            self.owners[h].push(after[&tag(h, 0)].0);
        }
        Ok(())
    }

    /// The safety rule, over all that happened.
    fn check_terms(&self) -> Result<()> {
        for h in 0..HIERARCHIES {
            let mut owners = self.owners[h].clone();
            owners.dedup();
            let terms: Vec<Mac> = owners.iter().map(|i| self.lab.host(*i).mac()).collect();
            for m in 0..MEMBERS.len() {
                let address: IpAddr = address(h, m).parse()?;
                let outside = self.capture.look(|timeline| timeline.outside_terms(address, &terms));
                ensure!(
                    outside.is_empty(),
                    "{} frames for {address} outside the terms of hosts {owners:?}, the first: {:?}",
                    outside.len(),
                    outside.first()
                );
            }
        }
        Ok(())
    }
}

fn every_fault() -> Result<()> {
    let mut five = Five::new("default")?;
    five.through(
        0,
        "the kill of a daemon",
        |lab| lab.host(0).sigkill().map(drop),
        |lab| lab.host(0).start(),
    )?;
    five.through(
        1,
        "the freezing of a daemon",
        |lab| lab.host(1).sigstop().map(drop),
        |lab| lab.host(1).sigcont().map(drop),
    )?;
    five.through(2, "the loss of all links", |lab| lab.segment.cut(2), |lab| lab.segment.mend(2))?;
    five.through(3, "a partition", |lab| lab.segment.isolate(3), |lab| lab.segment.heal())?;
    let leader = five.lab.leader(0)?;
    five.through(
        leader,
        "the kill of the leader",
        |lab| lab.host(leader).sigkill().map(drop),
        |lab| lab.host(leader).start(),
    )?;
    five.check_terms()
}

/// As long as every host is heard on one path, nothing is suspected.
fn paths_lost() -> Result<()> {
    let five = Five::new("default")?;
    let before = five.places(0)?;
    let lab = &five.lab;
    for host in 0..HOSTS {
        lab.segment.set_cable(host, 1, false)?;
        let seen_by = (host + 1) % HOSTS;
        lab.wait(PATIENCE, "the loss of the path is seen", || {
            let status = lab.host(seen_by).status()?;
            let node =
                status.nodes.iter().find(|n| n.name == lab.host(host).name()).context("no such node")?;
            ensure!(node.alive, "{} is not heard at all", node.name);
            ensure!(!node.paths[1].up, "its second path seems up");
            Ok(())
        })?;
    }
    for host in 0..HOSTS {
        lab.segment.set_cable(host, 1, true)?;
    }
    lab.wait(PATIENCE, "all paths are up again", || {
        for host in &lab.hosts {
            for node in host.status()?.nodes.iter().filter(|n| n.name != host.name()) {
                ensure!(
                    node.paths.iter().all(|p| p.up),
                    "{} hears {} on {:?}",
                    host.name(),
                    node.name,
                    node.paths
                );
            }
        }
        Ok(())
    })?;
    ensure!(five.places(0)? == before, "the loss of paths moved something");
    five.check_terms()
}

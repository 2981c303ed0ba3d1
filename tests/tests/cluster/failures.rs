//! What docs/failures.md says, on real hosts: restarts, failfast, marks that expire, and nowhere to go (row NM-6).
//! The same table is tested cell by cell, without hosts, in `core::failures`.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use vipd::api::{NodeStatus, ResourceNodeStatus};
use vipd_tests::{
    capture::Capture,
    lab::{Lab, NewIp, PATIENCE},
    prober::{Prober, Targets},
};

use crate::{Test, operator::refused, scene::options};

pub const TESTS: &[(&str, Test)] = &[
    ("failures::restarts_are_spent_and_the_next_failure_moves_the_hierarchy", restarts),
    ("failures::without_a_limit_it_is_mended_in_place_for_ever", unlimited),
    ("failures::service_failfast_gives_up_the_node_until_online", service_failfast),
    ("failures::node_failfast_gives_up_the_node_when_a_start_fails", node_failfast),
    ("failures::a_failure_is_forgiven_in_time_and_it_returns", forgiven),
    ("failures::where_there_is_nowhere_to_go_it_is_mended_in_place", nowhere),
];

/// Tag and address: `app` depends on `ip`; `other` has nothing to do with them.
const MEMBERS: [(&str, &str); 3] = [("ip", "10.77.0.70"), ("app", "10.77.0.71"), ("other", "10.77.0.72")];

struct Trio {
    // The prober and the capture end before the network below them.
    _prober: Prober,
    capture: Capture,
    lab: Lab,
}

impl Trio {
    /// All in service on the first host, the others are successors.
    fn new() -> Result<Self> {
        let lab = Lab::new(&options())?;
        let addresses: Vec<IpAddr> = MEMBERS.iter().map(|(_, a)| a.parse()).collect::<Result<_, _>>()?;
        let capture = lab.capture(&addresses)?;
        let prober = lab.prober(vec![Targets { addresses, interval: Duration::from_millis(10) }])?;
        lab.form_cluster()?;
        for (tag, address) in MEMBERS {
            lab.create_ip(&NewIp { address: &format!("{address}/24"), tag, on: 0, extend_to: &[1, 2] })?;
        }
        lab.host(0).vipctl(&["depend", "app", "ip"])?.done()?;
        Ok(Self { _prober: prober, capture, lab })
    }

    fn run(test: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let trio = Self::new()?;
        test(&trio).map_err(|error| trio.lab.explain(error))
    }

    fn set(&self, tag: &str, settings: &[&str]) -> Result<()> {
        self.lab.host(0).vipctl(&[&["set", tag], settings].concat())?.done().map(drop)
    }

    /// As a foreign process would.
    fn take(&self, tag: &str, host: usize) -> Result<()> {
        self.lab.host(host).delete_address(&format!("{}/24", address(tag)?))
    }

    fn on(&self, tag: &str, host: usize) -> Result<ResourceNodeStatus> {
        let name = self.lab.host(host).name();
        let resource = self.lab.resource(0, tag)?;
        resource.nodes.into_iter().find(|n| n.node == name).context("it is not extended to it")
    }

    /// Until local recovery has put it back for the nth time, and the cluster knows.
    fn wait_mended(&self, tag: &str, host: usize, times: u32) -> Result<()> {
        self.lab.wait(PATIENCE, &format!("{tag} is mended for the {times}th time"), || {
            let failures = self.on(tag, host)?.failures;
            ensure!(failures == times, "{failures} failures are known");
            ensure!(self.lab.host(host).has_address(address(tag)?)?, "the address is not back");
            self.lab.check_in_service(tag, host, 0)
        })
    }

    fn wait_on(&self, tags: &[&str], host: usize) -> Result<()> {
        let what = format!("{tags:?} are in service on {}", self.lab.host(host).name());
        self.lab
            .wait(PATIENCE, &what, || tags.iter().try_for_each(|tag| self.lab.check_in_service(tag, host, 0)))
    }

    /// Until `ip` and `app` are together on another host.
    fn wait_away(&self, from: usize) -> Result<usize> {
        let to = self.lab.wait(PATIENCE, "the hierarchy is elsewhere", || {
            let owner = self.lab.owner(0, "ip")?;
            ensure!(owner != from, "it is still there");
            Ok(owner)
        })?;
        self.wait_on(&["ip", "app"], to)?;
        Ok(to)
    }

    fn node(&self, host: usize) -> Result<NodeStatus> {
        let name = self.lab.host(host).name();
        let status = self.lab.host(0).status()?;
        status.nodes.into_iter().find(|n| n.name == name).context("no such node")
    }

    /// The node holds nothing, says why, and gets nothing.
    fn check_gave_up(&self, host: usize, why: &str) -> Result<()> {
        let name = self.lab.host(host).name();
        self.lab.wait(PATIENCE, &format!("{name} has given up everything"), || {
            let node = self.node(host)?;
            let reason = node.gave_up.context("it did not")?;
            ensure!(reason.contains(why), "another reason: {reason}");
            for (tag, _) in MEMBERS {
                let owner = self.lab.owner(0, tag)?;
                ensure!(owner != host, "{tag} is still there");
                self.lab.check_in_service(tag, owner, 0)?;
            }
            Ok(())
        })?;
        let text = self.lab.host(2).vipctl(&["status"])?.done()?.stdout;
        let remedy = format!("vipctl node online {name}");
        ensure!(text.contains("gave up everything") && text.contains(&remedy), "status is silent: {text}");
        refused(self.lab.host(2), &["in-service", "other", "--on", name], 4, &remedy)
    }

    fn bring_back(&self, host: usize) -> Result<()> {
        let name = self.lab.host(host).name();
        let said = self.lab.host(2).vipctl(&["node", "online", name])?.done()?.stdout;
        ensure!(said.contains("it had given up everything"), "it says: {said}");
        let on = self.on("ip", host)?;
        ensure!(on.failures == 0 && on.reason.is_none(), "not forgiven: {on:?}");
        ensure!(self.node(host)?.gave_up.is_none(), "status still says that it gave up");
        for tag in ["other", "app"] {
            self.lab.host(2).vipctl(&["in-service", tag, "--on", name])?.done()?;
        }
        self.wait_on(&["ip", "app", "other"], host)
    }

    /// No double answers: `owners` had the address, one after another.
    fn check_terms(&self, tag: &str, owners: &[usize]) -> Result<()> {
        let terms: Vec<_> = owners.iter().map(|host| self.lab.host(*host).mac()).collect();
        let address = address(tag)?.parse()?;
        let outside = self.capture.look(|timeline| timeline.outside_terms(address, &terms));
        let users = self.capture.look(|timeline| timeline.users(address));
        ensure!(outside.is_empty(), "{tag}: {} double answers: {:?}", outside.len(), outside.first());
        ensure!(!users.is_empty(), "{tag}: nobody ever answered, so this proves nothing");
        Ok(())
    }
}

fn address(tag: &str) -> Result<&'static str> {
    MEMBERS.iter().find(|(t, _)| *t == tag).map(|(_, a)| *a).context("no such member")
}

fn restarts() -> Result<()> {
    Trio::run(|t| {
        t.set("ip", &["restarts=2"])?;
        for times in 1..=2 {
            t.take("ip", 0)?;
            t.wait_mended("ip", 0, times)?;
        }
        t.take("ip", 0)?;
        let next = t.wait_away(0)?;
        let on = t.on("ip", 0)?;
        ensure!(on.failures == 3 && on.reason.is_some(), "{on:?}");
        t.lab.check_in_service("other", 0, 0).context("it has nothing to do with that")?;
        t.check_terms("ip", &[0, next])?;
        t.check_terms("app", &[0, next])?;
        t.check_terms("other", &[0])
    })
}

fn unlimited() -> Result<()> {
    Trio::run(|t| {
        for times in 1..=5 {
            t.take("other", 0)?;
            t.wait_mended("other", 0, times)?;
        }
        t.lab.host(0).vipctl(&["cleanup", "other"])?.done()?;
        let on = t.on("other", 0)?;
        ensure!(on.failures == 0, "{on:?}");
        t.check_terms("other", &[0])
    })
}

fn service_failfast() -> Result<()> {
    Trio::run(|t| {
        t.set("ip", &["service-failfast=on"])?;
        t.take("ip", 0)?;
        t.check_gave_up(0, "service failfast of 'ip'")?;
        let owners: Vec<usize> = MEMBERS.iter().map(|(tag, _)| t.lab.owner(0, tag)).collect::<Result<_>>()?;
        t.bring_back(0)?;
        for ((tag, _), owner) in MEMBERS.iter().zip(owners) {
            t.check_terms(tag, &[0, owner, 0])?;
        }
        Ok(())
    })
}

/// The second host has no such interface: nothing can be brought up on it.
fn node_failfast() -> Result<()> {
    Trio::run(|t| {
        let second = t.lab.host(1).name();
        t.lab.host(0).vipctl(&["in-service", "other", "--on", second])?.done()?;
        t.wait_on(&["other"], 1)?;
        t.set("ip", &["node-failfast=on"])?;
        t.set("ip", &["devices=eth9", "--node", second])?;
        // Its answer is that of the start that fails.
        let answer = t.lab.host(0).vipctl(&["in-service", "app", "--on", second])?;
        ensure!(!answer.status.success(), "it came in service without an interface: {answer:?}");
        t.check_gave_up(1, "node failfast of 'ip'")?;
        let owner = t.lab.owner(0, "other")?;
        t.set("ip", &["devices=eth0", "--node", second])?;
        t.bring_back(1)?;
        t.check_terms("other", &[0, 1, owner, 1])
    })
}

fn forgiven() -> Result<()> {
    Trio::run(|t| {
        t.set("ip", &["restarts=0", "switchback=automatic", "failure-timeout=4"])?;
        t.set("app", &["failure-timeout=4"])?;
        // What it was created with is an operator's choice.
        t.lab.host(0).vipctl(&["clear", "app"])?.done()?;
        t.take("ip", 0)?;
        let next = t.wait_away(0)?;
        ensure!(t.on("ip", 0)?.reason.is_some(), "it came back with the mark");
        t.wait_on(&["ip", "app"], 0)?;
        let leader = t.lab.leader(0)?;
        let events = t.lab.host(leader).events()?;
        ensure!(events.iter().any(|e| e.kind == "resource.forgiven"), "nobody forgave it");
        t.check_terms("ip", &[0, next, 0])?;
        t.check_terms("app", &[0, next, 0])
    })
}

fn nowhere() -> Result<()> {
    Trio::run(|t| {
        t.set("ip", &["restarts=0"])?;
        for host in [1, 2] {
            t.lab.host(0).vipctl(&["node", "standby", t.lab.host(host).name()])?.done()?;
        }
        for times in 1..=2 {
            t.take("ip", 0)?;
            t.wait_mended("ip", 0, times)?;
        }
        // Now there is somebody.
        t.lab.host(0).vipctl(&["node", "online", t.lab.host(2).name()])?.done()?;
        let next = t.wait_away(0)?;
        ensure!(next == 2, "it is on {next}");
        t.check_terms("ip", &[0, 2])?;
        t.check_terms("app", &[0, 2])
    })
}

//! Hierarchies of resources on real hosts: moved, failed over and broken as one, children before parents when they
//! start and after them when they stop; and the hosts that every node pings (rows CL-7, CL-8, NM-6).

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use vipd::api::Event;
use vipd_tests::{
    capture::Capture,
    lab::{Lab, NewIp, Options, PATIENCE},
    prober::{Prober, Targets},
};

use crate::{
    Test,
    operator::json,
    scene::{V4, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("hierarchies::a_planned_move_stops_top_down_and_starts_bottom_up", planned_move),
    ("hierarchies::all_of_a_killed_owner_start_bottom_up_elsewhere", owner_killed),
    ("hierarchies::a_child_that_fails_takes_its_parents_along", child_fails),
    ("hierarchies::depending_in_service_moves_nothing", depending),
    ("hierarchies::a_host_that_one_node_does_not_reach_moves_its_hierarchies", reach),
];

/// Tag and address: `top` depends on `left` and `right`, both on `base`.
const MEMBERS: [(&str, &str); 4] =
    [("base", "10.77.0.60"), ("left", "10.77.0.61"), ("right", "10.77.0.62"), ("top", "10.77.0.63")];

/// Parent and child.
const EDGES: [(&str, &str); 4] = [("top", "left"), ("top", "right"), ("left", "base"), ("right", "base")];

struct Diamond {
    // The prober and the capture end before the network below them.
    _prober: Prober,
    capture: Capture,
    lab: Lab,
}

impl Diamond {
    /// All in service on the first host, the others are successors.
    fn new() -> Result<Self> {
        let diamond = Self::apart()?;
        for (parent, child) in EDGES {
            diamond.lab.host(0).vipctl(&["depend", parent, child])?.done()?;
        }
        Ok(diamond)
    }

    /// The four, none of which depends on another yet.
    fn apart() -> Result<Self> {
        let lab = Lab::new(&options())?;
        let addresses: Vec<IpAddr> = MEMBERS.iter().map(|(_, a)| a.parse()).collect::<Result<_, _>>()?;
        let capture = lab.capture(&addresses)?;
        let prober = lab.prober(vec![Targets { addresses, interval: Duration::from_millis(10) }])?;
        lab.form_cluster()?;
        for (tag, address) in MEMBERS {
            lab.create_ip(&NewIp { address: &format!("{address}/24"), tag, on: 0, extend_to: &[1, 2] })?;
        }
        Ok(Self { _prober: prober, capture, lab })
    }

    fn wait_on(&self, host: usize, seen_by: usize) -> Result<()> {
        let what = format!("the hierarchy is in service on {}", self.lab.host(host).name());
        self.lab.wait(PATIENCE, &what, || {
            MEMBERS.iter().try_for_each(|(tag, _)| self.lab.check_in_service(tag, host, seen_by))
        })
    }

    /// The newest event so far.
    fn newest(&self, host: usize) -> Result<u64> {
        Ok(self.lab.host(host).events()?.last().map_or(0, |e| e.number))
    }

    /// Each edge's two events of that kind, since a certain event, came in this order; each member has one.
    fn check_order(&self, host: usize, since: u64, kind: &str, children_first: bool) -> Result<()> {
        let events = self.lab.host(host).events()?;
        let of = |tag: &str| -> Result<u64> {
            let is = |e: &&Event| {
                e.number > since && e.kind == kind && e.tag.as_ref().is_some_and(|t| t.to_string() == tag)
            };
            let found: Vec<u64> = events.iter().filter(is).map(|e| e.number).collect();
            ensure!(found.len() == 1, "{kind} of {tag}: one event was expected: {found:?}");
            Ok(found[0])
        };
        for (parent, child) in EDGES {
            let (p, c) = (of(parent)?, of(child)?);
            ensure!((c < p) == children_first, "{kind}: {parent} is event {p} and {child}, below it, {c}");
        }
        Ok(())
    }

    /// No double answers: `owners` had all addresses, one after another.
    fn check_terms(&self, owners: &[usize]) -> Result<()> {
        let terms: Vec<_> = owners.iter().map(|host| self.lab.host(*host).mac()).collect();
        for (tag, address) in MEMBERS {
            let address = address.parse()?;
            let outside = self.capture.look(|timeline| timeline.outside_terms(address, &terms));
            let users = self.capture.look(|timeline| timeline.users(address));
            ensure!(outside.is_empty(), "{tag}: {} double answers: {:?}", outside.len(), outside.first());
            ensure!(!users.is_empty(), "{tag}: nobody ever answered, so this proves nothing");
        }
        Ok(())
    }

    fn explained(&self, test: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        test(self).map_err(|error| self.lab.explain(error))
    }
}

fn planned_move() -> Result<()> {
    Diamond::new()?.explained(|d| {
        let (here, there) = (d.newest(0)?, d.newest(1)?);
        d.lab.host(2).vipctl(&["in-service", "top", "--on", d.lab.host(1).name()])?.done()?;
        d.wait_on(1, 1)?;
        d.check_order(0, here, "resource.removed", false)?;
        d.check_order(1, there, "resource.in-service", true)?;
        d.check_terms(&[0, 1])
    })
}

fn owner_killed() -> Result<()> {
    Diamond::new()?.explained(|d| {
        let since = [d.newest(0)?, d.newest(1)?, d.newest(2)?];
        d.lab.host(0).sigkill()?;
        let next = d.lab.wait(PATIENCE, "another host has it", || {
            let owner = d.lab.owner(1, "top")?;
            ensure!(owner != 0, "it is still with the first");
            Ok(owner)
        })?;
        d.wait_on(next, next)?;
        d.check_order(next, since[next], "resource.in-service", true)?;
        d.check_terms(&[0, next])
    })
}

/// Local recovery would mend a deleted address: none is allowed.
fn child_fails() -> Result<()> {
    Diamond::new()?.explained(|d| {
        d.lab.host(0).vipctl(&["set", "base", "restarts=0"])?.done()?;
        let since = [d.newest(0)?, d.newest(1)?, d.newest(2)?];
        d.lab.host(0).delete_address("10.77.0.60/24")?;
        let next = d.lab.wait(PATIENCE, "another host has it", || {
            let owner = d.lab.owner(1, "base")?;
            ensure!(owner != 0, "it is still with the first");
            Ok(owner)
        })?;
        d.wait_on(next, next)?;
        d.check_order(0, since[0], "resource.removed", false)?;
        d.check_order(next, since[next], "resource.in-service", true)?;
        let recovered =
            d.lab.host(0).events()?.into_iter().find(|e| {
                e.number > since[0] && (e.kind == "recover.failed" || e.kind == "resource.in-service")
            });
        ensure!(recovered.is_none(), "nothing was to be mended there: {recovered:?}");
        d.check_terms(&[0, next])
    })
}

fn depending() -> Result<()> {
    Diamond::apart()?.explained(|d| {
        let since = d.newest(0)?;
        for (parent, child) in EDGES {
            d.lab.host(0).vipctl(&["depend", parent, child])?.done()?;
        }
        d.lab.host(0).vipctl(&["undepend", "top", "right"])?.done()?;
        d.lab.host(0).vipctl(&["depend", "top", "right"])?.done()?;
        // An order that all of this comes before: it is carried out, and nothing else was.
        d.lab
            .host(0)
            .vipctl(&["create", "ip", "10.77.0.64/24", "--dev", "eth0", "--tag", "after"])?
            .done()?;
        MEMBERS.iter().try_for_each(|(tag, _)| d.lab.check_in_service(tag, 0, 0))?;
        let moved = d.lab.host(0).events()?.into_iter().find(|e| {
            let is_after = e.tag.as_ref().is_some_and(|t| t.to_string() == "after");
            let moves = ["resource.removed", "resource.in-service"].contains(&e.kind.as_str());
            e.number > since && moves && !is_after
        });
        ensure!(moved.is_none(), "something moved: {moved:?}");
        d.check_terms(&[0])
    })
}

/// The third host's address on the second network stands for a router that the first host alone cannot reach.
fn reach() -> Result<()> {
    const ROUTER: &str = "10.78.0.3";
    let lab = Lab::new(&Options { paths: 2, ..options() })?;
    lab.form_cluster()?;
    lab.create_ip(&NewIp { address: V4, tag: "web", on: 0, extend_to: &[1, 2] })?;
    lab.create_ip(&NewIp { address: "10.77.0.51/24", tag: "db", on: 0, extend_to: &[1, 2] })?;
    let reached = |host: usize| -> Result<u64> {
        let shown = json(lab.host(1), &["connectivity", "show"])?;
        let nodes = shown["nodes"].as_array().context("no nodes")?;
        let node = nodes.iter().find(|n| n["node"] == lab.host(host).name()).context("no such node")?;
        node["reached"].as_u64().context("no number")
    };
    let told = |host: usize, kind: &str| -> Result<()> {
        lab.wait(PATIENCE, &format!("{} tells {kind}", lab.host(host).name()), || {
            let events = lab.host(host).events()?;
            ensure!(events.iter().any(|e| e.kind == kind && e.message.contains(ROUTER)), "it does not");
            Ok(())
        })
    };
    let test = || -> Result<()> {
        lab.host(0).vipctl(&["set", "db", "connectivity=ignore"])?.done()?;
        lab.host(0).vipctl(&["connectivity", "add", ROUTER, "--interval", "0.3"])?.done()?;
        (0..3).try_for_each(|host| told(host, "connectivity.reached"))?;
        lab.segment.block_on(1, 0, 2)?;
        told(0, "connectivity.lost")?;
        lab.wait(PATIENCE, "web moves to a host that reaches it", || {
            ensure!(reached(0)? == 0 && reached(1)? == 1 && reached(2)? == 1, "not known yet");
            ensure!(lab.owner(1, "web")? != 0, "it is still with the first");
            let owner = lab.owner(1, "web")?;
            lab.check_in_service("web", owner, 1)
        })?;
        lab.check_in_service("db", 0, 1).context("it does not care")?;
        lab.segment.heal()?;
        lab.wait(PATIENCE, "all reach it again", || {
            ensure!(reached(0)? == 1, "the first does not");
            Ok(())
        })?;
        lab.host(0).vipctl(&["connectivity", "remove", ROUTER])?.done()?;
        Ok(())
    };
    test().map_err(|error| lab.explain(error))
}

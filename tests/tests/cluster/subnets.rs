//! Monitored subnets: polled, lost, needed by resources (rows NM-3, NM-4).

use anyhow::{Context, Result, ensure};
use vipd::api::{LinkHealth, SubnetOf, SubnetStatus};
use vipd_tests::{
    lab::{Lab, NewIp, Options, PATIENCE},
    timeline::Moment,
};

use crate::{
    Test,
    scene::{Scene, TAGS, V4, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("subnets::a_lost_subnet_moves_what_needs_it_and_its_return_does_not", lost_and_back),
    ("subnets::a_silent_target_is_a_lost_subnet", silent_target),
    ("subnets::what_can_start_nowhere_stays_and_says_why", nowhere),
    ("subnets::a_standby_interface_without_an_address_keeps_the_subnet_up", standby),
    ("subnets::a_restarted_daemon_reports_anew", restarted),
    ("subnets::monitoring_is_set_shown_and_ended", monitoring),
];

const HEARTBEATS: &str = "10.78.0.0/24";
const CLIENTS: &str = "10.77.0.0/24";

fn two_paths() -> Options {
    Options { paths: 2, ..options() }
}

fn monitor(lab: &Lab, subnet: &str, more: &[&str]) -> Result<()> {
    let quick = ["subnet", "monitor", subnet, "--interval", "0.2"];
    lab.host(0).vipctl(&[&quick[..], more].concat())?.done().map(drop)
}

fn need(lab: &Lab, tag: &str, subnets: &str) -> Result<()> {
    lab.host(0).vipctl(&["set", tag, &format!("subnets={subnets}")])?.done().map(drop)
}

/// A subnet on a host, as another (or the same) sees it.
fn subnet(lab: &Lab, subnet: &str, host: usize, seen_by: usize) -> Result<SubnetStatus> {
    let status = lab.host(seen_by).status()?;
    let is = |s: &SubnetStatus| s.subnet.to_string() == subnet && s.node == lab.host(host).name();
    status.subnets.into_iter().find(is).with_context(|| format!("{subnet} is not monitored"))
}

fn wait_subnet(lab: &Lab, net: &str, host: usize, seen_by: usize, state: &str) -> Result<SubnetStatus> {
    lab.wait(PATIENCE, &format!("{net} is {state} on {}", lab.host(host).name()), || {
        let now = subnet(lab, net, host, seen_by)?;
        ensure!(now.state == state, "it is {now:?}");
        Ok(now)
    })
}

/// The subnet's `up` was found by polls, and not only presumed.
fn wait_polled(lab: &Lab, net: &str) -> Result<()> {
    for host in &lab.hosts {
        lab.wait(PATIENCE, &format!("{} has polled {net}", host.name()), || {
            let told = |e: &vipd::api::Event| e.kind == "subnet.up" && e.message.contains(net);
            ensure!(host.events()?.iter().any(told), "no event");
            Ok(())
        })?;
    }
    Ok(())
}

/// A carrier loss on the subnet's interface counts at once; the address itself is on another one.
fn lost_and_back() -> Result<()> {
    let scene = Scene::new(&two_paths(), 0)?;
    let lab = &scene.lab;
    monitor(lab, HEARTBEATS, &[])?;
    wait_polled(lab, HEARTBEATS)?;
    need(lab, TAGS[0], HEARTBEATS)?;
    let shown = lab.host(1).vipctl(&["show", TAGS[0]])?.done()?.stdout;
    ensure!(shown.contains(HEARTBEATS), "not shown: {shown}");

    lab.segment.set_cable(0, 1, false)?;
    let lost = Moment::now();
    let down = wait_subnet(lab, HEARTBEATS, 0, 2, "down")?;
    ensure!(down.reason.as_ref().is_some_and(|r| r.contains("eth1") && r.contains("carrier")), "{down:?}");
    lab.wait(PATIENCE, "what needs the subnet moves", || lab.check_in_service(TAGS[0], 1, 2))?;
    lab.wait_answer(&scene.capture, "10.77.0.50".parse()?, 1, lost)?;
    lab.check_in_service(TAGS[1], 0, 2).context("what does not need it must stay")?;
    let resource = lab.resource(2, TAGS[0])?;
    let there = resource.nodes.iter().find(|n| n.node == lab.host(0).name());
    let why = there.and_then(|n| n.reason.clone()).unwrap_or_default();
    ensure!(there.is_some_and(|n| n.state == "OSU") && why.contains(HEARTBEATS), "{resource:?}");
    // An operator cannot send it back there.
    let answer = lab.host(1).vipctl(&["in-service", TAGS[0], "--on", lab.host(0).name()])?;
    ensure!(answer.code() == 4 && answer.stderr.contains(HEARTBEATS), "{answer:?}");

    lab.segment.set_cable(0, 1, true)?;
    wait_subnet(lab, HEARTBEATS, 0, 2, "up")?;
    lab.wait_whole()?;
    lab.check_in_service(TAGS[0], 1, 2).context("intelligent switchback: it stays")?;
    lab.host(1).vipctl(&["in-service", TAGS[0], "--on", lab.host(0).name()])?.done()?;
    lab.check_in_service(TAGS[0], 0, 0)?;

    let events = lab.host(0).events()?;
    for kind in ["subnet.down", "subnet.up"] {
        ensure!(events.iter().any(|e| e.kind == kind && e.message.contains(HEARTBEATS)), "no {kind}");
    }
    Ok(())
}

/// The link is as it was, only the target does not answer this host any more.
fn silent_target() -> Result<()> {
    let lab = Lab::new(&two_paths())?;
    lab.form_cluster()?;
    lab.create_ip(&NewIp { address: V4, tag: "web", on: 0, extend_to: &[2, 1] })?;
    // Host 3's address: for host 3 itself that proves nothing, so it asks its peers.
    monitor(&lab, HEARTBEATS, &["--target", "10.78.0.3", "--fall", "4"])?;
    wait_polled(&lab, HEARTBEATS)?;
    need(&lab, "web", HEARTBEATS)?;
    lab.segment.block_on(1, 0, 2)?;
    let down = wait_subnet(&lab, HEARTBEATS, 0, 1, "down")?;
    ensure!(down.reason.as_ref().is_some_and(|r| r.contains("no answer from 10.78.0.3")), "{down:?}");
    ensure!(down.targets == ["10.78.0.3".parse::<std::net::IpAddr>()?], "{down:?}");
    lab.wait(PATIENCE, "the resource moves to a host that reaches the target", || {
        let owner = lab.owner(1, "web")?;
        ensure!(owner != 0, "it is still on the first host");
        lab.check_in_service("web", owner, 1)
    })?;
    for host in [1, 2] {
        let now = subnet(&lab, HEARTBEATS, host, 1)?;
        ensure!(now.state == "up", "the others reach the target, or need not: {now:?}");
    }
    lab.segment.heal()?;
    wait_subnet(&lab, HEARTBEATS, 0, 1, "up")?;
    Ok(())
}

/// All hosts lose the one target.
fn nowhere() -> Result<()> {
    let lab = Lab::new(&options())?;
    lab.form_cluster()?;
    let client = lab.segment.client();
    client.ip("addr add 10.77.0.101/24 dev eth0")?;
    lab.create_ip(&NewIp { address: V4, tag: "web", on: 0, extend_to: &[1, 2] })?;
    monitor(&lab, CLIENTS, &["--target", "10.77.0.101"])?;
    wait_polled(&lab, CLIENTS)?;
    need(&lab, "web", CLIENTS)?;

    client.ip("addr del 10.77.0.101/24 dev eth0")?;
    for host in 0..3 {
        wait_subnet(&lab, CLIENTS, host, 1, "down")?;
    }
    // Nobody is better off.
    lab.check_in_service("web", 0, 1)?;
    lab.host(0).vipctl(&["out-of-service", "web"])?.done()?;
    let answer = lab.host(0).vipctl(&["in-service", "web"])?;
    ensure!(answer.code() == 4 && answer.stderr.contains(CLIENTS), "{answer:?}");

    // Wanted before its subnet was lost, it waits and says why.
    client.ip("addr add 10.77.0.101/24 dev eth0")?;
    for host in 0..3 {
        wait_subnet(&lab, CLIENTS, host, 1, "up")?;
    }
    lab.host(0).vipctl(&["in-service", "web"])?.done()?;
    let owner = lab.owner(1, "web")?;
    client.ip("addr del 10.77.0.101/24 dev eth0")?;
    for host in 0..3 {
        wait_subnet(&lab, CLIENTS, host, 1, "down")?;
    }
    lab.host(owner).sigkill()?;
    let other = (owner + 1) % 3;
    lab.wait(PATIENCE, "it says that it can start nowhere", || {
        let status = lab.host(other).status()?;
        ensure!(
            status.warnings.iter().any(|w| w.contains("web can start on no node") && w.contains(CLIENTS)),
            "{:?}",
            status.warnings
        );
        Ok(())
    })?;
    client.ip("addr add 10.77.0.101/24 dev eth0")?;
    lab.wait(PATIENCE, "it starts as soon as it can", || {
        let owner = lab.owner(other, "web")?;
        lab.check_in_service("web", owner, other)
    })
}

/// The second interface of the same network has no address: it is asked by ARP probes.
fn standby() -> Result<()> {
    let lab = Lab::new(&two_paths())?;
    lab.form_cluster()?;
    let (bridge, host, name) = (lab.segment.bridge(), lab.host(0), lab.host(0).name());
    vipd_tests::netns::veth(bridge, "spare", lab.segment.host(0), "eth5")?;
    bridge.ip("link set spare master br1")?;
    host.vipctl(&["create", "ip", "10.78.0.50/24", "--dev", "eth1", "--tag", "db"])?.done()?;
    host.vipctl(&["out-of-service", "db"])?.done()?;
    host.vipctl(&["set", "db", "devices=eth1,eth5", "--node", name])?.done()?;
    monitor(&lab, HEARTBEATS, &["--target", "10.78.0.2"])?;
    wait_polled(&lab, HEARTBEATS)?;

    lab.segment.set_cable(0, 1, false)?;
    let interface = |name: &str| -> Result<vipd::api::InterfaceStatus> {
        let status = host.status()?;
        status.interfaces.into_iter().find(|i| i.name == name).with_context(|| format!("no {name}"))
    };
    lab.wait(PATIENCE, "the first interface is lost", || {
        ensure!(interface("eth1")?.health == LinkHealth::NoCarrier, "it has its carrier");
        Ok(())
    })?;
    // Polls through the other one are answered: many of them later the subnet is still up.
    lab.wait(PATIENCE, "the other interface was polled again and again", || {
        let lost = interface("eth1")?.health_ms;
        ensure!(lost.is_some_and(|ms| ms >= 4000), "eth1 was lost {lost:?} ms ago");
        Ok(())
    })?;
    let still = subnet(&lab, HEARTBEATS, 0, 1)?;
    ensure!(still.state == "up", "{still:?}");
    monitor(&lab, HEARTBEATS, &["--target", "10.78.0.222"])?;
    let down = wait_subnet(&lab, HEARTBEATS, 0, 1, "down")?;
    ensure!(down.reason.as_ref().is_some_and(|r| r.contains("eth5: no answer from 10.78.0.222")), "{down:?}");
    monitor(&lab, HEARTBEATS, &["--target", "10.78.0.2"])?;
    wait_subnet(&lab, HEARTBEATS, 0, 1, "up")?;
    bridge.ip("link set spare down")?;
    let down = wait_subnet(&lab, HEARTBEATS, 0, 1, "down")?;
    let reason = down.reason.clone().unwrap_or_default();
    ensure!(reason.contains("eth1: ") && reason.contains("eth5: "), "{down:?}");
    bridge.ip("link set spare up")?;
    wait_subnet(&lab, HEARTBEATS, 0, 1, "up").map(drop)
}

/// What the earlier life said stands until the new one knows better.
fn restarted() -> Result<()> {
    let lab = Lab::new(&two_paths())?;
    lab.form_cluster()?;
    monitor(&lab, HEARTBEATS, &[])?;
    wait_polled(&lab, HEARTBEATS)?;
    for (before, after, up) in [("up", "down", false), ("down", "up", true)] {
        wait_subnet(&lab, HEARTBEATS, 1, 0, before)?;
        lab.host(1).sigkill()?;
        lab.segment.set_cable(1, 1, up)?;
        lab.host(1).start()?;
        lab.wait_whole()?;
        wait_subnet(&lab, HEARTBEATS, 1, 0, after)?;
    }
    Ok(())
}

fn monitoring() -> Result<()> {
    let lab = Lab::new(&options())?;
    lab.form_cluster()?;
    let host = lab.host(0);
    let list = || -> Result<Vec<SubnetOf>> {
        let answer = lab.host(1).vipctl(&["--json", "subnet", "list"])?.done()?;
        Ok(serde_json::from_str(&answer.stdout)?)
    };
    ensure!(list()?.is_empty(), "none is monitored");
    lab.create_ip(&NewIp { address: V4, tag: "web", on: 0, extend_to: &[] })?;
    let answer = host.vipctl(&["set", "web", &format!("subnets={CLIENTS}")])?;
    ensure!(answer.code() == 4 && answer.stderr.contains("vipctl subnet monitor"), "{answer:?}");
    monitor(&lab, CLIENTS, &["--target", "10.77.0.100", "--fall", "7"])?;
    host.vipctl(&["subnet", "monitor", CLIENTS, "--rise", "4"])?.done()?;
    need(&lab, "web", CLIENTS)?;
    lab.wait(PATIENCE, "another node shows all of it", || {
        let all = list()?;
        let [one] = &all[..] else { anyhow::bail!("{all:?}") };
        ensure!((one.interval_ms, one.fall, one.rise) == (200, 7, 4), "{one:?}");
        ensure!(one.targets.len() == 1 && one.needed_by.len() == 1 && one.nodes.len() == 3, "{one:?}");
        ensure!(one.nodes.iter().all(|n| n.state == "up"), "{one:?}");
        Ok(())
    })?;
    let text = host.vipctl(&["subnet", "list"])?.done()?.stdout;
    ensure!(text.contains("10.77.0.100") && text.contains("web"), "{text}");
    let answer = host.vipctl(&["subnet", "unmonitor", CLIENTS])?;
    ensure!(answer.code() == 4 && answer.stderr.contains("web"), "{answer:?}");
    host.vipctl(&["set", "web", "subnets="])?.done()?;
    host.vipctl(&["subnet", "unmonitor", CLIENTS])?.done()?;
    ensure!(host.vipctl(&["subnet", "unmonitor", CLIENTS])?.code() == 4, "it is gone already");

    // One that this host has no interface for.
    monitor(&lab, "192.0.2.0/24", &[])?;
    let down = wait_subnet(&lab, "192.0.2.0/24", 0, 1, "down")?;
    ensure!(down.reason.is_some_and(|r| r.contains("no interface")), "no reason");
    host.vipctl(&["subnet", "unmonitor", "192.0.2.0/24"])?.done()?;
    lab.wait(PATIENCE, "nothing is left", || {
        ensure!(list()?.is_empty() && lab.host(1).status()?.subnets.is_empty(), "something is");
        Ok(())
    })
}

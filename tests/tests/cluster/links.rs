//! Interfaces lose their carrier, go deaf, return (rows NM-1, NM-2).

use anyhow::{Context, Result, ensure};
use vipd::api::{InterfaceStatus, LinkHealth};
use vipd_tests::lab::{Lab, NewIp, Options, PATIENCE};

use crate::{
    Test,
    scene::{V4, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("links::a_lost_carrier_is_told_and_its_return_is_held", lost_carrier),
    ("links::an_interface_that_hears_nothing_while_peers_transmit_is_deaf", deaf),
    ("links::nobody_is_deaf_when_all_paths_are_silent", all_silent),
    ("links::stationary_addresses_and_missing_interfaces_are_shown", shown),
];

fn two_paths() -> Options {
    Options { paths: 2, ..options() }
}

/// An interface as its host sees it.
fn interface(lab: &Lab, host: usize, name: &str) -> Result<InterfaceStatus> {
    let status = lab.host(host).status()?;
    status.interfaces.into_iter().find(|i| i.name == name).with_context(|| format!("no {name}"))
}

fn wait_health(lab: &Lab, host: usize, name: &str, health: LinkHealth) -> Result<InterfaceStatus> {
    lab.wait(PATIENCE, &format!("{name} of {} is {health:?}", lab.host(host).name()), || {
        let now = interface(lab, host, name)?;
        ensure!(now.health == health, "it is {:?} ({:?})", now.health, now.health_reason);
        Ok(now)
    })
}

/// Events of a kind whose message begins with the interface's name.
fn told(lab: &Lab, host: usize, kind: &str, name: &str) -> Result<usize> {
    let events = lab.host(host).events()?;
    Ok(events.iter().filter(|e| e.kind == kind && e.message.starts_with(name)).count())
}

fn lost_carrier() -> Result<()> {
    let lab = Lab::new(&two_paths())?;
    lab.form_cluster()?;
    wait_health(&lab, 0, "eth1", LinkHealth::Up)?;
    lab.segment.set_cable(0, 1, false)?;
    let lost = wait_health(&lab, 0, "eth1", LinkHealth::NoCarrier)?;
    ensure!(lost.health_reason.is_some() && lost.health_ms.is_some() && !lost.carrier, "{lost:?}");
    ensure!(told(&lab, 0, "link.down", "eth1")? == 1, "the loss is told once");
    ensure!(interface(&lab, 0, "eth0")?.health == LinkHealth::Up, "eth0 is as it was");
    let text = lab.host(0).vipctl(&["status"])?.done()?.stdout;
    ensure!(text.contains("NO CARRIER"), "not in the text: {text}");

    lab.segment.set_cable(0, 1, true)?;
    wait_health(&lab, 0, "eth1", LinkHealth::Up)?;
    ensure!(told(&lab, 0, "link.up", "eth1")? == 1, "the return is told once");
    lab.wait(PATIENCE, "eth1 is no longer recovering", || {
        let now = interface(&lab, 0, "eth1")?;
        ensure!(now.health == LinkHealth::Up && !now.recovering, "it is {now:?}");
        Ok(())
    })?;

    // Switched off here, it is another verdict.
    lab.segment.host(0).ip("link set eth1 down")?;
    wait_health(&lab, 0, "eth1", LinkHealth::AdminDown)?;
    lab.segment.host(0).ip("link set eth1 up")?;
    wait_health(&lab, 0, "eth1", LinkHealth::Up)?;
    lab.wait_whole()
}

fn deaf() -> Result<()> {
    let lab = Lab::new(&two_paths())?;
    lab.form_cluster()?;
    lab.create_ip(&NewIp { address: V4, tag: "web", on: 0, extend_to: &[1] })?;
    lab.wait(PATIENCE, "both interfaces hear", || {
        for name in ["eth0", "eth1"] {
            ensure!(interface(&lab, 0, name)?.last_receive_ms.is_some(), "{name} heard nothing yet");
        }
        Ok(())
    })?;
    lab.segment.deafen(0, 1)?;
    let deaf = wait_health(&lab, 0, "eth1", LinkHealth::Deaf)?;
    ensure!(deaf.up && deaf.carrier && deaf.health_reason.is_some(), "{deaf:?}");
    ensure!(told(&lab, 0, "link.deaf", "eth1")? == 1, "it is told once");
    let status = lab.host(0).status()?;
    ensure!(status.warnings.iter().any(|w| w.contains("eth1 is deaf")), "{:?}", status.warnings);
    // The others hear it and each other; and all is well on the other path.
    for host in 0..3 {
        ensure!(interface(&lab, host, "eth0")?.health == LinkHealth::Up, "eth0 of {host}");
        ensure!(host == 0 || interface(&lab, host, "eth1")?.health == LinkHealth::Up, "eth1 of {host}");
    }
    lab.wait_whole()?;
    lab.check_in_service("web", 0, 1)?;

    lab.segment.heal()?;
    wait_health(&lab, 0, "eth1", LinkHealth::Up)?;
    ensure!(told(&lab, 0, "link.heard", "eth1")? == 1, "the end is told once");
    Ok(())
}

fn all_silent() -> Result<()> {
    let lab = Lab::new(&two_paths())?;
    lab.form_cluster()?;
    lab.wait(PATIENCE, "both interfaces hear", || {
        for name in ["eth0", "eth1"] {
            ensure!(interface(&lab, 0, name)?.last_receive_ms.is_some(), "{name} heard nothing yet");
        }
        Ok(())
    })?;
    lab.segment.deafen(0, 0)?;
    lab.segment.deafen(0, 1)?;
    // Twice as long as it takes to find one deaf.
    lab.wait(PATIENCE, "both interfaces are silent for long", || {
        for name in ["eth0", "eth1"] {
            let silent = interface(&lab, 0, name)?.last_receive_ms;
            ensure!(silent.is_some_and(|ms| ms >= 6000), "{name} heard something {silent:?} ms ago");
        }
        Ok(())
    })?;
    for name in ["eth0", "eth1"] {
        let now = interface(&lab, 0, name)?;
        ensure!(now.health == LinkHealth::Up, "{name}: {now:?}");
        ensure!(told(&lab, 0, "link.deaf", name)? == 0, "{name} was called deaf");
    }
    lab.segment.heal()?;
    lab.wait_whole()
}

fn shown() -> Result<()> {
    let lab = Lab::new(&options())?;
    lab.form_cluster()?;
    lab.create_ip(&NewIp { address: V4, tag: "web", on: 0, extend_to: &[] })?;
    let now = interface(&lab, 0, "eth0")?;
    let has = |list: &[ipnet::IpNet], address: &str| list.iter().any(|a| a.to_string() == address);
    ensure!(has(&now.stationary, "10.77.0.1/24") && has(&now.stationary, "fd77::1/64"), "{now:?}");
    ensure!(
        has(&now.addresses, V4) && !has(&now.stationary, V4),
        "a virtual address is not stationary: {now:?}"
    );

    // On a node whose interface is taken away after it was extended there.
    let (name, ns) = (lab.host(1).name(), lab.segment.host(1));
    ns.ip("link add eth9 type veth peer name eth9-end")?;
    ns.ip("link set eth9 up")?;
    ns.ip("link set eth9-end up")?;
    ns.ip("addr add 10.77.0.9/24 dev eth9")?;
    lab.wait(PATIENCE, "the interface is known there", || {
        lab.host(0).vipctl(&["extend", "web", "--to", name, "--dev", "eth9"])?.done().map(drop)
    })?;
    ns.ip("link del eth9")?;
    wait_health(&lab, 1, "eth9", LinkHealth::Missing)?;
    ensure!(told(&lab, 1, "link.down", "eth9")? == 1, "it is told once");
    Ok(())
}

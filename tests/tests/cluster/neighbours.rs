//! The ordinary tools of a neighbour see an address exactly while it is in service, in whichever way the
//! kernel accepts packets for it (rows DP-1, DP-2, IP-17).

use anyhow::{Result, ensure};
use vipd_tests::{
    lab::{Lab, PATIENCE},
    timeline::Moment,
};

use crate::{
    Test,
    scene::{Scene, V4, V6, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("neighbours::see_an_assigned_address_while_in_service", assigned),
    ("neighbours::see_a_routed_address_while_in_service", routed),
    ("neighbours::see_an_anyip_address_while_in_service", anyip),
];

fn assigned() -> Result<()> {
    seen_while_in_service("assign")
}

fn routed() -> Result<()> {
    seen_while_in_service("route")
}

fn anyip() -> Result<()> {
    seen_while_in_service("anyip")
}

fn seen_while_in_service(accept: &str) -> Result<()> {
    let scene = Scene::empty(&options())?;
    let lab = &scene.lab;
    check_neighbours_see_nothing(lab)?;
    for (tag, address) in [("web", V4), ("web6", V6)] {
        let create = ["create", "ip", address, "--dev", "eth0", "--tag", tag, "--accept", accept];
        lab.host(0).vipctl(&[&create[..], &["--extend-to", "all"]].concat())?.done()?;
    }
    scene.wait_answers(0, Moment::default())?;
    check_neighbours_see_it(lab)?;
    check_clients_reach_it(lab)?;
    for tag in ["web", "web6"] {
        lab.host(0).vipctl(&["out-of-service", tag])?.done()?;
    }
    check_neighbours_see_nothing(lab)?;
    for tag in ["web", "web6"] {
        lab.host(0).vipctl(&["in-service", tag, "--on", lab.host(1).name()])?.done()?;
    }
    check_neighbours_see_it(lab)?;
    check_clients_reach_it(lab)?;
    for tag in ["web", "web6"] {
        lab.host(0).vipctl(&["delete", tag])?.done()?;
    }
    check_neighbours_see_nothing(lab)?;
    check_nothing_is_left(lab)?;
    scene.check_terms(&[0, 1])
}

/// A duplicate address detection as RFC 5227 asks for it, and a solicitation.
fn neighbours_see(lab: &Lab) -> Result<(bool, bool)> {
    let client = lab.segment.client();
    // Exit status 1: somebody has the address. The prober's own questions have another sender.
    let probe =
        client.command("arping").args(["-D", "-c", "2", "-w", "3", "-I", "eth0", "10.77.0.50"]).output()?;
    let solicited =
        client.command("ndisc6").args(["-1", "-r", "2", "-w", "1000", "fd77::50", "eth0"]).output()?;
    Ok((probe.status.code() == Some(1), solicited.status.success()))
}

fn check_neighbours_see_it(lab: &Lab) -> Result<()> {
    lab.wait(PATIENCE, "a neighbour sees the addresses", || {
        let seen = neighbours_see(lab)?;
        ensure!(seen == (true, true), "arping -D and ndisc6 see {seen:?}");
        Ok(())
    })
}

/// Not polled: it must be so at once.
fn check_neighbours_see_nothing(lab: &Lab) -> Result<()> {
    let seen = neighbours_see(lab)?;
    ensure!(seen == (false, false), "arping -D and ndisc6 see {seen:?} although nobody may answer");
    Ok(())
}

/// A connection, not only an echo: the kernel behind the datapath must accept what is for the address.
fn check_clients_reach_it(lab: &Lab) -> Result<()> {
    let client = lab.segment.client();
    // Larger than one frame, so the kernel has to put the answer together.
    for address in ["10.77.0.50", "fd77::50"] {
        lab.wait(PATIENCE, &format!("{address} answers pings of more than one frame"), || {
            vipd_tests::netns::run(client.command("ping").args(["-c", "1", "-s", "3000", "-W", "2", address]))
                .map(drop)
        })?;
    }
    Ok(())
}

fn check_nothing_is_left(lab: &Lab) -> Result<()> {
    for host in &lab.hosts {
        for family in ["-4", "-6"] {
            let mut ip = host.command("ip")?;
            let output = ip.args([family, "route", "show", "table", "all", "proto", "118"]).output()?;
            let left = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(left.trim().is_empty(), "routes are left on {}:\n{left}", host.name());
        }
        ensure!(!host.has_address("10.77.0.50")? && !host.has_address("fd77::50")?, "an address is left");
    }
    Ok(())
}

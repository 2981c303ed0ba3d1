//! Another host on the segment claims an address that is in service (row DP-10): told, shown, defended or
//! yielded. The claimant is the client, with the announcements that any host would send.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use vipd::observe::network::Network;
use vipd_tests::{
    lab::{Lab, PATIENCE},
    timeline::Moment,
};

use crate::{
    Test,
    scene::{Scene, TAGS, addresses, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("conflicts::a_claim_is_told_and_defended", a_claim_is_told_and_defended),
    ("conflicts::a_claim_is_only_reported", a_claim_is_only_reported),
    ("conflicts::a_yielding_resource_fails_here", a_yielding_resource_fails_here),
    ("conflicts::a_probe_is_told_and_answered", a_probe_is_told_and_answered),
];

/// The client says that the address is its own: gratuitous ARPs or an unsolicited advertisement.
fn claim(lab: &Lab, address: IpAddr) -> Result<()> {
    lab.segment.client().enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let network = Network::open()?;
            let link = network.link("eth0").await?;
            network.announce(&link, &[address])?;
            Ok(())
        })
    })
}

/// Events of the kind about the address on the host.
fn told(lab: &Lab, host: usize, kind: &str, address: IpAddr) -> Result<Vec<String>> {
    let events = lab.host(host).events()?;
    let about = events.into_iter().filter(|e| e.kind == kind && e.address == Some(address));
    Ok(about.map(|e| e.message).collect())
}

fn wait_told(lab: &Lab, host: usize, kind: &str, address: IpAddr) -> Result<String> {
    let what = format!("a '{kind}' about {address} is told");
    lab.wait(PATIENCE, &what, || told(lab, host, kind, address)?.pop().context("it is not"))
}

fn set_policy(lab: &Lab, policy: &str) -> Result<()> {
    let set = |tag| lab.host(0).vipctl(&["set", tag, &format!("on-conflict={policy}")])?.done().map(drop);
    TAGS.into_iter().try_for_each(set)
}

fn a_claim_is_told_and_defended() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let (lab, mac) = (&scene.lab, scene.lab.host(0).mac());
    for address in addresses() {
        let claimed = Moment::now();
        claim(lab, address)?;
        let message = wait_told(lab, 0, "conflict", address)?;
        let client = lab.segment.client_mac().to_string();
        ensure!(message.contains(&client) && message.contains("eth0"), "who and where is missing: {message}");
        lab.wait(PATIENCE, "the address is announced again", || {
            scene.capture.look(|timeline| {
                let mut later = timeline.between(claimed, Moment(u64::MAX)).records.into_iter();
                let defence = later.find(|r| {
                    r.address == address && r.mac == mac && r.kind == vipd_tests::frames::Kind::Announcement
                });
                defence.map(drop).context("it is not")
            })
        })?;
        let status = lab.host(0).status()?;
        let warned = status.warnings.iter().any(|w| w.contains(&address.to_string()) && w.contains(&client));
        ensure!(warned, "no line in status: {:?}", status.warnings);
    }
    for tag in TAGS {
        lab.check_in_service(tag, 0, 0)?;
    }
    Ok(())
}

fn a_claim_is_only_reported() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    set_policy(lab, "report")?;
    for address in addresses() {
        claim(lab, address)?;
        let message = wait_told(lab, 0, "conflict", address)?;
        ensure!(message.contains("on-conflict=report"), "{message}");
    }
    for tag in TAGS {
        lab.check_in_service(tag, 0, 0)?;
    }
    Ok(())
}

fn a_yielding_resource_fails_here() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    set_policy(lab, "yield")?;
    for (tag, address) in TAGS.into_iter().zip(addresses()) {
        claim(lab, address)?;
        lab.wait(PATIENCE, "the resource leaves the host", || {
            let resource = lab.resource(1, tag)?;
            let here = resource.nodes.iter().find(|n| n.node == lab.host(0).name());
            let here = here.context("the host is not listed")?;
            ensure!(here.state == "OSF", "it is {} here", here.state);
            let reason = here.reason.as_deref().unwrap_or_default();
            ensure!(reason.contains(&lab.segment.client_mac().to_string()), "no reason: {reason}");
            Ok(())
        })?;
        lab.wait(PATIENCE, "another host has it", || {
            let owner = lab.owner(1, tag)?;
            ensure!(owner != 0, "still on the first");
            lab.check_in_service(tag, owner, 1)
        })?;
    }
    Ok(())
}

/// Duplicate detection by the client's kernel and by arping: answered, and told as what it is.
fn a_probe_is_told_and_answered() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let (lab, client) = (&scene.lab, scene.lab.segment.client());
    let probe =
        client.command("arping").args(["-D", "-c", "1", "-w", "5", "-I", "eth0", "10.77.0.50"]).output()?;
    ensure!(probe.status.code() == Some(1), "arping -D does not see the address: {probe:?}");
    wait_told(lab, 0, "conflict.probe", "10.77.0.50".parse()?)?;

    client.sysctl("ipv6/conf/eth0/accept_dad", "1")?;
    client.sysctl("ipv6/conf/eth0/dad_transmits", "1")?;
    client.ip("addr add fd77::50/64 dev eth0")?;
    lab.wait(PATIENCE, "the kernel of the client finds the duplicate", || {
        let shown = client.ip("-6 addr show dev eth0 dadfailed")?;
        ensure!(shown.contains("fd77::50"), "it has not");
        Ok(())
    })?;
    wait_told(lab, 0, "conflict.probe", "fd77::50".parse()?)?;
    for address in addresses() {
        let claims = told(lab, 0, "conflict", address)?;
        ensure!(claims.is_empty(), "a probe was taken for a claim: {claims:?}");
    }
    scene.check_terms(&[0])
}

//! Two interfaces a host for the same address: one that fails is replaced on the same node (row NM-5).

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use vipd::api::LinkHealth;
use vipd_tests::{
    frames::{Kind, Mac},
    lab::{Options, PATIENCE},
    timeline::{Moment, Record, Timeline},
};

use crate::{
    Test,
    scene::{Scene, TAGS, V4, V6, addresses, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("standby::the_next_interface_takes_over_and_keeps_the_address", next_interface),
    ("standby::a_deaf_interface_is_left_for_the_next_one", deaf),
    ("standby::routed_addresses_move_in_one_step_as_well", routed),
    ("standby::a_restarted_daemon_knows_the_interface_in_use", restarted),
];

/// Both addresses in service on host 1, each with two interfaces on hosts 1 and 2. What the nodes say to
/// each other goes over a network of its own.
fn scene() -> Result<Scene> {
    scene_with(options(), "assign")
}

fn scene_with(options: Options, accept: &str) -> Result<Scene> {
    let options = Options { paths: 2, rpc_path: 1, ..options };
    let scene = Scene::empty(&options)?;
    let lab = &scene.lab;
    [0, 1].into_iter().try_for_each(|host| lab.segment.plug_standby(host))?;
    for (tag, address) in TAGS.into_iter().zip([V4, V6]) {
        let devices = ["--dev", "eth0", "--dev", "eth2"];
        let create = [&["create", "ip", address, "--tag", tag, "--accept", accept][..], &devices].concat();
        lab.host(0).vipctl(&create)?.done().map_err(|e| lab.explain(e))?;
        let extend = [&["extend", tag, "--to", lab.host(1).name()][..], &devices].concat();
        lab.host(0).vipctl(&extend)?.done().map_err(|e| lab.explain(e))?;
        lab.wait_in_service(tag, 0)?;
    }
    Ok(scene)
}

fn epochs(scene: &Scene, seen_by: usize) -> Result<Vec<u64>> {
    TAGS.into_iter().map(|tag| Ok(scene.lab.resource(seen_by, tag)?.epoch)).collect()
}

/// Until both addresses were answered by this interface after the moment.
fn wait_answered_by(scene: &Scene, mac: Mac, after: Moment) -> Result<()> {
    addresses().into_iter().try_for_each(|address: IpAddr| {
        scene.lab.wait(PATIENCE, &format!("{mac} answers for {address}"), || {
            scene.capture.look(|timeline| {
                let mut all = timeline.of(address);
                let answer = all.find(|r| r.time > after && r.mac == mac && r.kind.is_answer());
                answer.map(drop).context("no answer yet")
            })
        })
    })
}

/// Until the host itself says that both are in service there, on this interface.
fn wait_device(scene: &Scene, host: usize, device: &str) -> Result<()> {
    scene.lab.wait(PATIENCE, &format!("both are on {device}"), || {
        TAGS.into_iter().try_for_each(|tag| {
            scene.lab.check_in_service(tag, host, host)?;
            let used = scene.lab.resource(host, tag)?.device;
            ensure!(used.as_deref() == Some(device), "{tag} is on {used:?}");
            Ok(())
        })
    })
}

fn next_interface() -> Result<()> {
    let scene = scene()?;
    let lab = &scene.lab;
    let (first, second) = (lab.host(0).mac(), lab.segment.standby_mac(0));
    wait_answered_by(&scene, first, Moment::default())?;
    let before = epochs(&scene, 1)?;

    let cut = Moment::now();
    lab.segment.set_carrier(0, false, false)?;
    wait_answered_by(&scene, second, cut)?;
    wait_device(&scene, 0, "eth2")?;
    ensure!(epochs(&scene, 1)? == before, "moved within the node, and yet granted anew");

    lab.segment.set_carrier(0, false, true)?;
    lab.wait(PATIENCE, "eth0 has its carrier again", || {
        let interfaces = lab.host(0).status()?.interfaces;
        let eth0 = interfaces.iter().find(|i| i.name == "eth0").context("no eth0")?;
        ensure!(eth0.carrier, "not yet");
        Ok(())
    })?;
    let back = Moment::now();
    wait_answered_by(&scene, second, back)?;
    wait_device(&scene, 0, "eth2")?;

    let cut = Moment::now();
    lab.segment.set_carrier(0, false, false)?;
    lab.segment.set_carrier(0, true, false)?;
    scene.wait_answers(1, cut)?;
    scene.wait_in_service(1, 2)?;
    ensure!(epochs(&scene, 1)? != before, "on another node under the same grant");
    wait_device(&scene, 1, "eth0")?;
    check_order(&scene, &[first, second, lab.host(1).mac()])
}

/// The addresses are announced on one interface after another: the first two of host 1, the third of
/// host 2. While the gate is open the kernel itself may also answer on another interface of the same host.
fn check_order(scene: &Scene, order: &[Mac; 3]) -> Result<()> {
    let [first, second, other] = *order;
    let told = |r: &Record| r.kind == Kind::Announcement;
    for address in addresses() {
        let mut seen = scene.capture.timeline();
        seen.records.retain(|r| r.address == address);
        let announced = Timeline { records: seen.records.iter().filter(|r| told(r)).copied().collect() };
        let outside = announced.outside_terms(address, order);
        ensure!(outside.is_empty(), "{address}: {} out of turn, first {:?}", outside.len(), outside.first());
        let spare = scene.lab.segment.standby_mac(1);
        for record in &mut seen.records {
            record.mac = if record.mac == second { first } else { record.mac };
            record.mac = if record.mac == spare { other } else { record.mac };
        }
        let outside = seen.outside_terms(address, &[first, other]);
        ensure!(outside.is_empty(), "{address}: two hosts at once: {:?}", outside.first());
    }
    Ok(())
}

fn health(scene: &Scene, name: &str) -> Result<LinkHealth> {
    let interfaces = scene.lab.host(0).status()?.interfaces;
    let found = interfaces.into_iter().find(|i| i.name == name).with_context(|| format!("no {name}"))?;
    Ok(found.health)
}

fn deaf() -> Result<()> {
    // A check that pings in vain would leave the interface as well, and sooner.
    let scene =
        scene_with(Options { tunables: "IP_QUICKCHECK_INTERVAL=3600\n".into(), ..options() }, "assign")?;
    let lab = &scene.lab;
    let (first, second) = (lab.host(0).mac(), lab.segment.standby_mac(0));
    wait_answered_by(&scene, first, Moment::default())?;
    let before = epochs(&scene, 1)?;

    let deafened = Moment::now();
    lab.segment.deafen(0, 0)?;
    wait_device(&scene, 0, "eth2")?;
    wait_answered_by(&scene, second, deafened)?;
    let verdict = health(&scene, "eth0")?;
    ensure!(verdict == LinkHealth::Deaf, "eth0 was left because it was {verdict:?}");
    ensure!(health(&scene, "eth2")? == LinkHealth::Up, "eth2 hears");
    ensure!(epochs(&scene, 1)? == before, "moved within the node, and yet granted anew");

    // It hears again: no reason to go back.
    lab.segment.heal()?;
    lab.wait(PATIENCE, "eth0 is up for good", || {
        let interfaces = lab.host(0).status()?.interfaces;
        let eth0 = interfaces.iter().find(|i| i.name == "eth0").context("no eth0")?;
        ensure!(eth0.health == LinkHealth::Up && !eth0.recovering, "it is {:?}", eth0.health);
        Ok(())
    })?;
    wait_answered_by(&scene, second, Moment::now())?;
    wait_device(&scene, 0, "eth2")?;
    ensure!(epochs(&scene, 1)? == before, "granted anew");
    check_order(&scene, &[first, second, lab.host(1).mac()])
}

/// No recovery, which would ask for duplicates and take ten times as long, but the switch itself.
fn routed() -> Result<()> {
    for accept in ["route", "anyip"] {
        let scene = scene_with(options(), accept)?;
        let lab = &scene.lab;
        wait_answered_by(&scene, lab.host(0).mac(), Moment::default())?;
        let before = epochs(&scene, 1)?;
        let cut = Moment::now();
        lab.segment.set_carrier(0, false, false)?;
        wait_answered_by(&scene, lab.segment.standby_mac(0), cut)?;
        wait_device(&scene, 0, "eth2")?;
        ensure!(epochs(&scene, 1)? == before, "moved within the node, and yet granted anew");
        let done = |kind: &str| -> Result<usize> {
            Ok(lab.host(0).events()?.iter().filter(|e| e.kind == kind).count())
        };
        lab.wait(PATIENCE, "both are switched", || {
            ensure!(done("switch.failed")? == 0, "{accept}: the switch failed");
            ensure!(done("resource.switched")? == TAGS.len(), "not yet");
            Ok(())
        })?;
    }
    Ok(())
}

/// Until the interface has announced both addresses after the moment.
fn wait_announced_by(scene: &Scene, mac: Mac, after: Moment) -> Result<()> {
    addresses().into_iter().try_for_each(|address: IpAddr| {
        scene.lab.wait(PATIENCE, &format!("{mac} announces {address}"), || {
            scene.capture.look(|timeline| {
                let mut all = timeline.of(address);
                let told = all.find(|r| r.time > after && r.mac == mac && r.kind == Kind::Announcement);
                told.map(drop).context("not yet")
            })
        })
    })
}

fn restarted() -> Result<()> {
    let scene = scene()?;
    let lab = &scene.lab;
    let second = lab.segment.standby_mac(0);
    lab.segment.set_carrier(0, false, false)?;
    wait_answered_by(&scene, second, Moment::default())?;
    wait_device(&scene, 0, "eth2")?;
    let before = epochs(&scene, 1)?;
    lab.segment.set_carrier(0, false, true)?;
    lab.host(0).sigkill()?;
    let killed = Moment::now();
    lab.host(0).start()?;
    lab.host(0).wait_up()?;
    lab.wait_whole()?;
    wait_answered_by(&scene, second, killed)?;
    // A carrier may have come back unseen while it was dead.
    wait_announced_by(&scene, second, killed)?;
    wait_device(&scene, 0, "eth2")?;
    ensure!(epochs(&scene, 1)? == before, "a restart is no failover");
    // What it found is what it moves: away from the second interface when that fails.
    let cut = Moment::now();
    lab.segment.set_carrier(0, true, false)?;
    wait_answered_by(&scene, lab.host(0).mac(), cut)?;
    wait_device(&scene, 0, "eth0")?;
    ensure!(epochs(&scene, 1)? == before, "moved within the node, and yet granted anew");
    Ok(())
}

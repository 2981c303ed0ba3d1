//! The owner's daemon dies or freezes; its kernel goes silent by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use vipd_tests::{
    lab::{Options, PATIENCE},
    timeline::Moment,
};

use crate::{
    Test,
    scene::{Scene, TAGS, addresses, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("crashes::sigkill", sigkill),
    ("crashes::sigkill_of_the_owner_with_the_fast_profile", sigkill_fast),
    ("crashes::sigstop_and_the_return_of_the_deposed", sigstop),
    ("crashes::leader_loss_while_a_move_is_under_way", leader_loss),
];

fn sigkill() -> Result<()> {
    // The owner is not the leader here; the next test has the other case.
    let scene = Scene::new(&options(), 1)?;
    let lab = &scene.lab;
    let killed = lab.host(1).sigkill()?;
    scene.wait_answers(0, killed)?;
    scene.wait_in_service(0, 2)?;
    scene.check_silent_within_lease(1, killed)?;
    check_fenced(&scene, 0)?;

    // It comes back as a member and leaves the addresses where they are.
    lab.host(1).start()?;
    lab.wait_whole()?;
    lab.wait(PATIENCE, "the returned host has cleaned up", || {
        ensure!(!lab.host(1).has_address("10.77.0.50")?, "the IPv4 address is still there");
        ensure!(!lab.host(1).has_address("fd77::50")?, "the IPv6 address is still there");
        Ok(())
    })?;
    scene.wait_answers(0, Moment::now())?;
    scene.check_terms(&[1, 0])
}

/// The take-over did not wait for promises: the old owner's kernel, which is alive, was asked.
fn check_fenced(scene: &Scene, leader: usize) -> Result<()> {
    let lab = &scene.lab;
    let told: Vec<String> = [leader, 2]
        .into_iter()
        .map(|i| Ok(lab.host(i).vipctl(&["events"])?.stdout))
        .collect::<Result<_>>()?;
    ensure!(
        told.iter().any(|events| events.contains("its kernel confirmed that it is fenced")),
        "no take-over through the fence:\n{}",
        told.join("\n")
    );
    Ok(())
}

fn sigkill_fast() -> Result<()> {
    let scene = Scene::new(&Options { profile: "fast", ..options() }, 0)?;
    let killed = scene.lab.host(0).sigkill()?;
    let answered = scene.wait_answers(1, killed)?;
    scene.check_silent_within_lease(0, killed)?;
    let took = answered.since(killed);
    // Typically a third of a second, and an election because the owner led; generous for a busy machine.
    ensure!(took < Duration::from_secs(3), "the fast profile took {took:?}");
    scene.check_terms(&[0, 1])
}

fn sigstop() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    let stopped = lab.host(0).sigstop()?;
    scene.wait_answers(1, stopped)?;
    scene.check_silent_within_lease(0, stopped)?;
    scene.wait_in_service(1, 2)?;
    check_fenced(&scene, 1)?;

    // It thaws in the belief that it owns everything, and must find out before it answers.
    lab.host(0).sigcont()?;
    lab.wait_whole()?;
    lab.wait(PATIENCE, "the returned host has cleaned up", || {
        ensure!(!lab.host(0).has_address("10.77.0.50")?, "the IPv4 address is still there");
        ensure!(!lab.host(0).has_address("fd77::50")?, "the IPv6 address is still there");
        lab.check_in_service(TAGS[0], 1, 0)
    })?;
    scene.wait_answers(1, Moment::now())?;
    scene.check_terms(&[0, 1])
}

fn leader_loss() -> Result<()> {
    // The founder leads; the addresses are elsewhere and go to the third.
    let scene = Scene::new(&options(), 1)?;
    let lab = &scene.lab;
    ensure!(lab.leader(2)? == 0, "the founder is expected to lead");
    let target = lab.host(2).name();
    let orders: Vec<_> = TAGS
        .into_iter()
        .map(|tag| Ok(lab.host(1).vipctl_command()?.args(["in-service", tag, "--on", target]).spawn()?))
        .collect::<Result<_>>()?;
    let killed = lab.host(0).sigkill()?;
    for mut order in orders {
        // Whether the order got through before the leader died is open; that it ends is not.
        order.wait()?;
    }
    let owners = lab.wait(PATIENCE, "a new leader has finished or forgotten the move", || {
        let owner = |tag| -> Result<usize> {
            let owner = lab.owner(2, tag)?;
            lab.check_in_service(tag, owner, 2)?;
            lab.check_in_service(tag, owner, owner)?;
            Ok(owner)
        };
        Ok([owner(TAGS[0])?, owner(TAGS[1])?])
    })?;
    ensure!(lab.leader(2)? != 0, "the dead leader still leads");
    for (address, owner) in addresses().into_iter().zip(owners) {
        ensure!(owner == 1 || owner == 2, "{address} went to host {owner}");
        lab.wait_answer(&scene.capture, address, owner, killed)?;
    }
    scene.check_terms(&[1, 2])
}

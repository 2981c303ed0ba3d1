//! Clusters of every size that is meant to be used (row CL-4): two nodes and a witness, three, five and seven.

use std::ops::Range;

use anyhow::{Result, ensure};
use vipd_tests::{
    lab::{Options, PATIENCE},
    timeline::Moment,
};

use crate::{
    Test,
    scene::{Scene, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("sizes::two_and_a_witness", two_and_a_witness),
    ("sizes::three", || every_fault(3)),
    ("sizes::five", || every_fault(5)),
    ("sizes::seven", || every_fault(7)),
];

/// Any one of the three may be lost, one after another.
fn two_and_a_witness() -> Result<()> {
    let scene = Scene::new(&Options { witness: Some(2), ..options() }, 0)?;
    let lab = &scene.lab;
    let outlast = |lost: Moment| Moment(lost.0 + 2 * scene.lease().as_nanos() as u64);
    // The witness, and the node that holds nothing: nobody notices.
    for other in [2, 1] {
        let killed = lab.host(other).sigkill()?;
        scene.wait_answers(0, outlast(killed))?;
        lab.host(other).start()?;
        lab.wait_whole()?;
    }
    scene.check_terms(&[0])?;
    // The owner, cut off from both: the witness makes the other's majority.
    lab.segment.isolate(0)?;
    let isolated = Moment::now();
    scene.wait_answers(1, isolated)?;
    scene.check_silent_within_lease(0, isolated)?;
    lab.segment.heal()?;
    lab.wait_whole()?;
    // The witness and the other node: the owner alone must not go on.
    let killed = lab.host(2).sigkill()?;
    lab.host(0).sigkill()?;
    wait_lease_over(&scene, 1)?;
    scene.check_silent_within_lease(1, killed)?;
    scene.check_quiet(300)?;
    lab.host(2).start()?;
    lab.host(0).start()?;
    lab.wait_whole()?;
    ensure!(lab.host(2).status()?.resources.iter().all(|r| r.owner.as_deref() != Some(lab.host(2).name())));
    scene.wait_answers(1, Moment::now())?;
    scene.check_terms(&[0, 1])
}

fn wait_lease_over(scene: &Scene, host: usize) -> Result<()> {
    scene.lab.wait(PATIENCE, "the lease is over", || {
        ensure!(!scene.lab.host(host).status()?.lease.valid, "it is valid");
        Ok(())
    })
}

/// `size` is odd. Host 0 owns, the others follow in their order.
fn every_fault(size: usize) -> Result<()> {
    let scene = Scene::new(&Options { hosts: size, ..options() }, 0)?;
    let lab = &scene.lab;
    // The owner is killed.
    let killed = lab.host(0).sigkill()?;
    scene.wait_answers(1, killed)?;
    scene.check_silent_within_lease(0, killed)?;
    lab.host(0).start()?;
    lab.wait_whole()?;

    // The largest minority, with the owner in it, is cut off from the rest.
    let minority = (size - 1) / 2;
    let few: Range<usize> = 1..1 + minority;
    let many = || (0..size).filter(|i| !few.contains(i));
    for a in few.clone() {
        many().try_for_each(|b| lab.segment.partition(a, b))?;
    }
    let parted = Moment::now();
    scene.wait_answers(0, parted)?;
    scene.check_silent_within_lease(1, parted)?;
    for host in few.clone() {
        wait_lease_over(&scene, host)?;
    }
    lab.segment.heal()?;
    lab.wait_whole()?;
    scene.wait_answers(0, Moment::now())?;

    // A majority is lost, and the owner is left.
    let lost: Vec<usize> = (size - size.div_ceil(2)..size).collect();
    let mut last = Moment::now();
    for host in &lost {
        last = lab.host(*host).sigkill()?;
    }
    wait_lease_over(&scene, 0)?;
    scene.check_silent_within_lease(0, last)?;
    scene.check_quiet(300)?;
    lost.iter().try_for_each(|host| lab.host(*host).start())?;
    lab.wait_whole()?;
    scene.wait_answers(0, last)?;
    scene.check_terms(&[0, 1, 0])
}

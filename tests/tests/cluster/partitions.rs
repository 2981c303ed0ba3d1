//! The network between the hosts fails while the client's view of them stays, or the owner's own links.

use anyhow::{Result, ensure};
use vipd_tests::{lab::PATIENCE, timeline::Moment};

use crate::{
    Test,
    scene::{Scene, TAGS, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("partitions::the_minority_goes_silent_within_its_lease", minority),
    ("partitions::all_apart_is_silence_until_it_heals", all_apart),
    ("partitions::the_owner_is_not_heard", owner_not_heard),
    ("partitions::the_owner_does_not_hear", owner_does_not_hear),
    ("partitions::the_owner_and_one_other_do_not_hear_each_other", one_pair),
    ("partitions::the_owners_links_are_cut", links_cut),
];

fn minority() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    lab.segment.isolate(0)?;
    let isolated = Moment::now();
    scene.wait_answers(1, isolated)?;
    scene.check_silent_within_lease(0, isolated)?;
    scene.wait_in_service(1, 2)?;
    let status = lab.host(0).status()?;
    ensure!(!status.lease.valid, "the minority believes in its lease: {:?}", status.lease);
    ensure!(status.cluster.is_some_and(|c| !c.quorum), "the minority believes in a quorum");
    // It cannot decide anything.
    let answer = lab.host(0).vipctl(&["out-of-service", TAGS[0]])?;
    ensure!(answer.code() == 5, "exit code 5 (no quorum) expected: {answer:?}");

    lab.segment.heal()?;
    lab.wait_whole()?;
    lab.wait(PATIENCE, "the healed host has cleaned up", || {
        ensure!(!lab.host(0).has_address("10.77.0.50")?, "the address is still there");
        Ok(())
    })?;
    scene.wait_answers(1, Moment::now())?;
    scene.check_terms(&[0, 1])
}

fn all_apart() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        lab.segment.partition(a, b)?;
    }
    let apart = Moment::now();
    lab.wait(PATIENCE, "nobody has a quorum", || {
        for host in &lab.hosts {
            let status = host.status()?;
            ensure!(status.cluster.is_some_and(|c| !c.quorum), "{} has a quorum", host.name());
            ensure!(!status.lease.valid, "{} has a lease", host.name());
        }
        Ok(())
    })?;
    scene.check_silent_within_lease(0, apart)?;
    scene.check_quiet(500)?;

    lab.segment.heal()?;
    lab.wait_whole()?;
    lab.wait(PATIENCE, "both addresses are in service again", || {
        for tag in TAGS {
            let owner = lab.owner(0, tag)?;
            lab.check_in_service(tag, owner, 0)?;
        }
        Ok(())
    })?;
    let owner = lab.owner(0, TAGS[0])?;
    ensure!(lab.owner(0, TAGS[1])? == owner, "both addresses have the same preferences");
    scene.wait_answers(owner, apart)?;
    scene.check_terms(&[0, owner])
}

/// Its frames reach no other host; it hears all of them.
fn owner_not_heard() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    lab.segment.block(0, 1)?;
    lab.segment.block(0, 2)?;
    let blocked = Moment::now();
    scene.wait_answers(1, blocked)?;
    scene.check_silent_within_lease(0, blocked)?;
    lab.segment.heal()?;
    lab.wait_whole()?;
    scene.wait_answers(1, Moment::now())?;
    scene.check_terms(&[0, 1])
}

/// The others hear it, but nothing that they agree to reaches it: its lease cannot be renewed.
fn owner_does_not_hear() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    lab.segment.block(1, 0)?;
    lab.segment.block(2, 0)?;
    let blocked = Moment::now();
    scene.wait_answers(1, blocked)?;
    scene.check_silent_within_lease(0, blocked)?;
    lab.segment.heal()?;
    lab.wait_whole()?;
    scene.wait_answers(1, Moment::now())?;
    scene.check_terms(&[0, 1])
}

/// Both still have a quorum with the third: nothing has to move, and wherever it is, it is once.
fn one_pair() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    lab.segment.partition(0, 1)?;
    let parted = Moment::now();
    // Long enough for every suspicion and every lease of before to have run out.
    let settled = Moment(parted.0 + 2 * scene.lease().as_nanos() as u64);
    scene.wait_answers(0, settled)?;
    lab.segment.heal()?;
    lab.wait_whole()?;
    scene.wait_answers(0, Moment::now())?;
    scene.check_terms(&[0])
}

fn links_cut() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    lab.segment.cut(0)?;
    let cut = Moment::now();
    scene.wait_answers(1, cut)?;
    lab.segment.mend(0)?;
    lab.wait_whole()?;
    lab.wait(PATIENCE, "the returned host has cleaned up", || {
        ensure!(!lab.host(0).has_address("10.77.0.50")?, "the address is still there");
        Ok(())
    })?;
    scene.wait_answers(1, Moment::now())?;
    scene.check_terms(&[0, 1])
}

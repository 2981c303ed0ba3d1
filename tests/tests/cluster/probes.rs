//! What the kernels know of each other, whatever becomes of the daemons (row DP-9).

use anyhow::{Result, ensure};
use vipd::core::time::BootTime;
use vipd::observe::clock;
use vipd_tests::{
    lab::{Host, Options, PATIENCE},
    timeline::Moment,
};

use crate::{
    Test,
    scene::{Scene, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("probes::a_frozen_daemon_is_not_a_silent_host", frozen),
    ("probes::a_cut_path_is_silent", cut_path),
    ("probes::a_cut_off_owner_is_waited_for", cut_off),
];

/// What the host's kernel says of another's on each path: `up`, `silent` or nothing.
fn kernels(host: &Host, of: &str) -> Result<Vec<String>> {
    let status = host.status()?;
    let node = status.nodes.iter().find(|n| n.name == of);
    let paths = node.map(|n| n.paths.clone()).unwrap_or_default();
    Ok(paths.into_iter().map(|p| p.kernel.unwrap_or_default()).collect())
}

fn told(host: &Host, kind: &str, since: BootTime) -> Result<Vec<String>> {
    let events = host.events()?.into_iter().filter(|e| e.kind == kind && e.boot_ns >= since.0);
    Ok(events.map(|e| e.message).collect())
}

/// Probed by all, answered by all, on all paths.
fn wait_known(scene: &Scene) -> Result<()> {
    let lab = &scene.lab;
    lab.wait(PATIENCE, "all kernels answer all others", || {
        for host in &lab.hosts {
            for other in lab.hosts.iter().filter(|o| o.index() != host.index()) {
                let known = kernels(host, other.name())?;
                ensure!(
                    !known.is_empty() && known.iter().all(|k| k == "up"),
                    "{} of {}: {known:?}",
                    host.name(),
                    other.name()
                );
            }
        }
        Ok(())
    })
}

fn frozen() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    wait_known(&scene)?;
    let frozen = clock::now();
    lab.host(2).sigstop()?;
    let name = lab.host(2).name();
    lab.wait(PATIENCE, "the frozen daemon is missed", || {
        ensure!(!told(lab.host(0), "node.unheard", frozen)?.is_empty(), "not yet");
        Ok(())
    })?;
    for host in [0, 1] {
        ensure!(kernels(lab.host(host), name)? == ["up"], "host {host} has lost the frozen one's kernel");
        let silent = told(lab.host(host), "path.silent", frozen)?;
        ensure!(silent.is_empty(), "host {host} was told {silent:?}");
    }
    lab.host(2).sigcont()?;
    lab.wait_whole()
}

fn cut_path() -> Result<()> {
    let scene = Scene::new(&Options { paths: 2, ..options() }, 0)?;
    let lab = &scene.lab;
    wait_known(&scene)?;
    let (name, cut) = (lab.host(1).name(), clock::now());
    lab.segment.block_on(1, 1, 0)?;
    lab.wait(PATIENCE, "the path is silent", || {
        let known = kernels(lab.host(0), name)?;
        ensure!(known == ["up", "silent"], "{known:?}");
        let silent = told(lab.host(0), "path.silent", cut)?;
        ensure!(silent.len() == 1 && silent[0].contains(name), "told {silent:?}");
        Ok(())
    })?;
    lab.segment.heal()?;
    wait_known(&scene)?;
    lab.wait(PATIENCE, "it answers again", || {
        ensure!(!told(lab.host(0), "path.answers", cut)?.is_empty(), "not told");
        Ok(())
    })?;
    // One path less moves nothing.
    scene.wait_answers(0, Moment::now())?;
    scene.check_terms(&[0])
}

/// No kernel that could be asked: the take-over waits for the promises, as ever.
fn cut_off() -> Result<()> {
    let scene = Scene::new(&options(), 0)?;
    let lab = &scene.lab;
    wait_known(&scene)?;
    let from = clock::now();
    lab.segment.isolate(0)?;
    let isolated = Moment::now();
    scene.wait_answers(1, isolated)?;
    scene.check_silent_within_lease(0, isolated)?;
    let mut reasons = told(lab.host(1), "node.silent", from)?;
    reasons.extend(told(lab.host(2), "node.silent", from)?);
    ensure!(
        reasons.iter().any(|r| r.contains("the promises of a majority have run out")),
        "the reasons given: {reasons:?}"
    );
    ensure!(!reasons.iter().any(|r| r.contains("fenced")), "who was asked? {reasons:?}");
    lab.segment.heal()?;
    lab.wait_whole()?;
    scene.wait_answers(1, Moment::now())?;
    scene.check_terms(&[0, 1])
}

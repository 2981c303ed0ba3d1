//! Paths and witnesses.

use anyhow::{Context, Result, ensure};
use vipd_tests::{
    lab::{Options, PATIENCE},
    timeline::Moment,
};

use crate::{
    Test,
    scene::{Scene, TAGS, options},
};

pub const TESTS: &[(&str, Test)] = &[
    ("membership::one_of_two_paths_lost_is_a_warning", one_path_lost),
    ("membership::two_nodes_and_a_witness", witness),
];

fn one_path_lost() -> Result<()> {
    let scene = Scene::new(&Options { paths: 2, ..options() }, 0)?;
    let lab = &scene.lab;
    let lost = Moment::now();
    // The second network alone.
    lab.segment.bridge().ip("link set h1p1 down")?;
    lab.wait(PATIENCE, "the lost path is a warning", || {
        let status = lab.host(1).status()?;
        let name = lab.host(0).name();
        let node = status.nodes.iter().find(|n| n.name == name).context("the owner is unknown")?;
        let up: Vec<bool> = node.paths.iter().map(|p| p.up).collect();
        ensure!(up == [true, false], "paths are up: {up:?}");
        ensure!(status.warnings.iter().any(|w| w.contains("path")), "no warning: {:?}", status.warnings);
        Ok(())
    })?;
    // A lease's worth of time later everything is where it was.
    let later = Moment(lost.0 + 2 * scene.lease().as_nanos() as u64);
    scene.wait_answers(0, later)?;
    scene.wait_in_service(0, 2)?;
    scene.check_terms(&[0])
}

fn witness() -> Result<()> {
    let scene = Scene::new(&Options { witness: Some(2), ..options() }, 0)?;
    let lab = &scene.lab;
    let status = lab.host(0).status()?;
    let node = status.nodes.iter().find(|n| n.name == lab.host(2).name()).context("no witness")?;
    ensure!(node.witness, "not known as a witness");
    let answer = lab.host(0).vipctl(&["extend", TAGS[0], "--to", lab.host(2).name()])?;
    ensure!(answer.code() == 4, "a witness must hold nothing: {answer:?}");
    let killed = lab.host(0).sigkill()?;
    scene.wait_answers(1, killed)?;
    scene.wait_in_service(1, 2)?;
    scene.check_terms(&[0, 1])
}

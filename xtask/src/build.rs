//! `cargo xtask build`: the BPF object, then the binaries that embed it.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    bpf,
    setup::{self, Part},
    shell::{self, cargo, say, target_dir},
};

pub fn run(release: bool) -> Result<()> {
    let bin = packages(&["vipd"], release)?;
    say(&format!("built {} and vipctl", bin.join("vipd").display()));
    Ok(())
}

/// Builds the BPF object, then all binaries of these packages; answers the directory they are in.
pub fn packages(names: &[&str], release: bool) -> Result<PathBuf> {
    setup::ensure(&[Part::Build, Part::Bpf])?;
    let object = bpf::build_object()?;
    say(&format!("built {}", object.display()));
    let mut build = cargo();
    build.args(["build", "--bins"]);
    for name in names {
        build.args(["--package", name]);
    }
    if release {
        build.arg("--release");
    }
    shell::run(&mut build)?;
    Ok(target_dir().join(if release { "release" } else { "debug" }))
}

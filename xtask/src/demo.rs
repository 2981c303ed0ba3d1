//! `cargo xtask demo`: the main job, live.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    build,
    setup::{self, Part},
    shell::is_root,
};

pub fn run() -> Result<()> {
    if !is_root() {
        bail!("the demo makes network namespaces and loads BPF programs: run `cargo xtask demo` as root");
    }
    setup::ensure(&[Part::Bpf, Part::Peers])?;
    let program = build::packages(&["vipd", "vipd-tests"], false)?.join("demo");
    // Replaces this process, so that Ctrl-C reaches the demo alone and it can clean up.
    let error = Command::new(&program).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

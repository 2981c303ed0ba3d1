//! `cargo xtask load --iface X`: the datapath alone.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    build,
    shell::{is_root, say},
};

pub fn run(arguments: &[String]) -> Result<()> {
    if !is_root() && !arguments.iter().any(|a| a == "--help" || a == "-h") {
        bail!("loading BPF programs needs root: run `cargo xtask load` as root");
    }
    let program = build::packages(&["vipd"], false)?.join("vipd-load");
    say(&format!("vipd-load {}", arguments.join(" ")));
    // Replaces this process, so that Ctrl-C and the exit status are its own.
    let error = Command::new(&program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

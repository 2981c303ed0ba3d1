//! `cargo xtask lint`: everything that can be judged without running the code.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    bpf::{self, Compiler},
    layering,
    setup::{self, Part},
    shell::{cargo, root, run as run_program, say, target_dir},
};

/// Longer files have more than one purpose.
const LONGEST_FILE: usize = 600;

type Check = fn() -> Result<()>;

pub fn run() -> Result<()> {
    setup::ensure(&[Part::Build, Part::Lint])?;
    // All are run, so that one round shows everything.
    let checks: [(&str, Check); 6] = [
        ("rustfmt", format),
        ("layering", layering),
        ("file length", lengths),
        ("clippy", clippy),
        ("clippy of the BPF programs", clippy_bpf),
        ("cargo-deny", deny),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = check() {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    say("lint passed");
    Ok(())
}

fn format() -> Result<()> {
    run_program(cargo().args(["fmt", "--all", "--check"]))?;
    run_program(cargo().current_dir(root().join("datapath-ebpf")).args(["fmt", "--check"]))
}

fn clippy() -> Result<()> {
    run_program(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// Clippy must be of the same version as the compiler that has `core` for BPF: rustup's nightly has
/// both, Debian's compiler comes without. There the compiler's own warnings are denied instead.
fn clippy_bpf() -> Result<()> {
    let mut check = match bpf::find_compiler() {
        Ok(Compiler::Nightly) => {
            let mut clippy = Command::new("rustup");
            clippy.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
            clippy.args(["run", "nightly", "cargo", "clippy", "-Z", "build-std=core"]);
            clippy.args(["--release", "--target", bpf::TARGET, "--", "-D", "warnings"]);
            clippy
        }
        Ok(Compiler::Debian { rustc }) => {
            say("no clippy for Debian's BPF compiler: the compiler's own warnings are denied instead");
            let mut check = cargo();
            check.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            check.env("RUSTFLAGS", "-D warnings");
            check.args(["check", "--release", "--target", bpf::TARGET]);
            check
        }
        Err(_) => {
            say("skipped: clippy of the BPF programs (no compiler for BPF: run `cargo xtask setup`)");
            return Ok(());
        }
    };
    check.current_dir(root().join("datapath-ebpf")).env("CARGO_TARGET_DIR", target_dir().join("bpf-build"));
    run_program(&mut check)
}

fn deny() -> Result<()> {
    let program =
        setup::tool("cargo-deny").context("cargo-deny is not installed: run `cargo xtask setup`")?;
    say("skipped: cargo-deny's advisories (they need the network: `cargo deny check advisories`)");
    for manifest in ["Cargo.toml", "datapath-ebpf/Cargo.toml"] {
        // It looks at the crates of all targets; a build has fetched those of its own only.
        let mut fetch = cargo();
        fetch.current_dir(root()).args(["fetch", "--quiet", "--locked", "--manifest-path", manifest]);
        if let Err(error) = run_program(&mut fetch) {
            say(&format!("{error:#}: going on with the crates that are there"));
        }
        let mut deny = Command::new(&program);
        deny.current_dir(root()).args(["--offline", "--all-features", "--config", "deny.toml"]);
        run_program(deny.args([
            "--manifest-path",
            manifest,
            "check",
            "bans",
            "licenses",
            "sources",
            "-A",
            "license-not-encountered",
            "-A",
            "license-exception-not-encountered",
        ]))?;
    }
    Ok(())
}

fn layering() -> Result<()> {
    say("layering of userspace/src");
    let violations = layering::check(&root().join("userspace/src"))?;
    if !violations.is_empty() {
        bail!("imports run back:\n  {}", violations.join("\n  "));
    }
    Ok(())
}

fn lengths() -> Result<()> {
    say(&format!("no file over {LONGEST_FILE} lines"));
    let mut long = Vec::new();
    for top in ["datapath-common", "datapath-ebpf", "userspace", "xtask", "tests"] {
        for file in rust_files(&root().join(top))? {
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let lines = text.lines().count();
            if lines > LONGEST_FILE {
                long.push(format!("{} has {lines} lines", file.strip_prefix(root())?.display()));
            }
        }
    }
    if !long.is_empty() {
        bail!("split these by purpose:\n  {}", long.join("\n  "));
    }
    Ok(())
}

/// All Rust sources below a directory, sorted; `target` is left out.
pub fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

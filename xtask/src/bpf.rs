//! Compiles datapath-ebpf into target/bpf/vipd-datapath.o.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{
    setup::{self, BPF_TARGET, BpfCompiler, DEBIAN_RUSTC},
    shell::{cargo, root, run, target_dir},
};

/// Builds the object and answers where it is.
pub fn build_object() -> Result<PathBuf> {
    let compiler = setup::bpf_compiler().context("no compiler for BPF: run `cargo xtask setup`")?;
    let linker = setup::tool("bpf-linker").context("no bpf-linker: run `cargo xtask setup`")?;
    let mut path = vec![linker.parent().context("bpf-linker has a directory")?.to_path_buf()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));

    let target = target_dir().join("bpf/build");
    let mut build = cargo();
    build.current_dir(root().join("datapath-ebpf"));
    build.env("PATH", std::env::join_paths(path)?).env("CARGO_TARGET_DIR", &target);
    if compiler == BpfCompiler::RustupNightly {
        build = nightly(&build);
    } else {
        build.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
    }
    build.args(["build", "--release", "--target", BPF_TARGET]);
    if compiler == BpfCompiler::RustupNightly {
        build.args(["-Z", "build-std=core"]);
    }
    run(&mut build)?;
    let built = target.join(BPF_TARGET).join("release/vipd-datapath");
    let object = target_dir().join("bpf/vipd-datapath.o");
    std::fs::copy(&built, &object).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(object)
}

/// The same command with rustup's nightly.
fn nightly(build: &std::process::Command) -> std::process::Command {
    let mut command = std::process::Command::new("cargo");
    command.arg("+nightly").env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    for (key, value) in build.get_envs() {
        if let Some(value) = value {
            command.env(key, value);
        }
    }
    if let Some(dir) = build.get_current_dir() {
        command.current_dir(dir);
    }
    command
}

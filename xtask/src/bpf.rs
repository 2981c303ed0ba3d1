//! Compiles datapath-ebpf into target/bpf/vipd-datapath.o.
//!
//! rustup has no prebuilt `core` for BPF: either Debian's compiler, which has one, does it, or rustup's
//! nightly builds `core` along from rust-src.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    setup::{self, BPF_TARGET, BpfCompiler, DEBIAN_RUSTC},
    shell::{cargo, root, run, target_dir},
};

/// Line information lets the verifier quote our source; BTF describes it to bpftool.
const FLAGS: &str = "-Cdebuginfo=2\u{1f}-Clink-arg=--btf";

/// Builds the object where userspace/build.rs looks for it, and answers its path.
pub fn build_object() -> Result<PathBuf> {
    let compiler = setup::bpf_compiler().context(
        "no compiler for BPF: neither Debian's (rustc-web with libstd-rust-web-dev-bpf) nor rustup's nightly \
         with rust-src is here; run `cargo xtask setup`",
    )?;
    let linker = setup::tool("bpf-linker").context(
        "no bpf-linker in PATH, $VIPD_TOOLS/bin or ~/.cache/vipd-tools/bin; run `cargo xtask setup`",
    )?;
    let mut path = vec![linker.parent().context("bpf-linker has a directory")?.to_path_buf()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));

    let mut build = match compiler {
        BpfCompiler::Debian => {
            let mut build = cargo();
            // aya-ebpf uses an unstable feature (inline assembly for BPF).
            build.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1").arg("build");
            build
        }
        BpfCompiler::RustupNightly => {
            let mut build = Command::new("cargo");
            build.args(["+nightly", "build", "-Z", "build-std=core"]);
            build.env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTDOC");
            build
        }
    };
    let target = target_dir().join("bpf-build");
    build
        .args(["--release", "--locked", "--target", BPF_TARGET])
        .current_dir(root().join("datapath-ebpf"))
        .env("PATH", std::env::join_paths(path)?)
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS)
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    run(&mut build)?;

    let object = target_dir().join("bpf/vipd-datapath.o");
    install(&target.join(BPF_TARGET).join("release/vipd-datapath"), &object)?;
    Ok(object)
}

/// Copies only what changed, so that user space is not rebuilt for nothing, and never half a file.
fn install(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let dir = object.parent().context("the object has a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let fresh = built.with_extension("new");
    fs::write(&fresh, bytes).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::rename(&fresh, object).with_context(|| format!("cannot write {}", object.display()))
}

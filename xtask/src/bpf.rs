//! Builds the BPF object with whichever compiler is there.
//!
//! BPF has no prebuilt standard library in rustup, so either Debian's `rustc-web` (which brings `core`
//! for `bpfel-unknown-none`) compiles, or rustup's nightly builds `core` itself from `rust-src`.

use std::{
    env,
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

pub const TARGET: &str = "bpfel-unknown-none";
const LINKER: &str = "bpf-linker";
const OBJECT: &str = "vipd-datapath";

/// A way to compile for BPF.
#[derive(Debug, PartialEq, Eq)]
pub enum Compiler {
    /// Debian's rustc with `core` for BPF beside it, driven by the present cargo.
    Debian { rustc: PathBuf },
    /// rustup's nightly, building `core` from source.
    Nightly,
}

/// The programs that are needed, and where they are.
#[derive(Debug)]
pub struct Toolchain {
    pub compiler: Compiler,
    pub linker: PathBuf,
}

/// Builds `datapath-ebpf` and puts the object where `userspace/build.rs` looks for it; answers its path.
pub fn build_object() -> Result<PathBuf> {
    let toolchain = Toolchain::find()?;
    let root = workspace();
    let target = target_dir(&root);
    let build = target.join("bpf-build");

    let mut cargo = match &toolchain.compiler {
        Compiler::Debian { rustc } => {
            let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            // aya-ebpf uses an unstable feature (inline assembly for BPF).
            cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1").arg("build");
            cargo
        }
        Compiler::Nightly => {
            let mut cargo = Command::new("rustup");
            // The stable cargo that runs us has put its own compiler into the environment.
            cargo.env_remove("RUSTC").env_remove("RUSTDOC").env_remove("CARGO");
            cargo.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"]);
            cargo
        }
    };
    cargo
        .args(["--release", "--locked", "--quiet", "--target", TARGET])
        .current_dir(root.join("datapath-ebpf"))
        .env("CARGO_TARGET_DIR", &build)
        .env("PATH", path_with(toolchain.linker.parent())?)
        // Line information lets the verifier quote our source; BTF describes it to bpftool.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Cdebuginfo=2\u{1f}-Clink-arg=--btf")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTUP_TOOLCHAIN");
    let status = cargo.status().with_context(|| format!("cannot run {cargo:?}"))?;
    if !status.success() {
        bail!("building the BPF object failed ({status}): {cargo:?}");
    }

    let object = target.join("bpf").join(format!("{OBJECT}.o"));
    install(&build.join(TARGET).join("release").join(OBJECT), &object)?;
    Ok(object)
}

/// Copies only what changed, so that user space is not rebuilt for nothing; never half a file.
fn install(built: &Path, object: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let dir = object.parent().context("the object has a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    // Outside the directory that userspace/build.rs watches.
    let fresh = built.with_extension("o.new");
    fs::write(&fresh, bytes).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::rename(&fresh, object).with_context(|| format!("cannot write {}", object.display()))
}

impl Toolchain {
    /// Finds a compiler and the linker; the error names everything that is missing and the remedies.
    pub fn find() -> Result<Self> {
        let compiler = find_compiler();
        let linker = find_linker();
        match (compiler, linker) {
            (Ok(compiler), Some(linker)) => Ok(Self { compiler, linker }),
            (compiler, linker) => {
                let mut text = String::from("the BPF object cannot be built here:");
                if let Err(missing) = compiler {
                    for line in missing {
                        write!(text, "\n  - {line}")?;
                    }
                }
                if linker.is_none() {
                    write!(
                        text,
                        "\n  - {LINKER} is neither in PATH nor in $VIPD_TOOLS/bin nor in ~/.cache/vipd-tools/bin"
                    )?;
                }
                bail!("{text}\nRun `cargo xtask setup`, which installs what is missing.")
            }
        }
    }
}

/// The compiler to use, Debian's first; otherwise what is missing, a line each.
pub fn find_compiler() -> Result<Compiler, Vec<String>> {
    let mut missing = Vec::new();
    let debian = PathBuf::from("/usr/bin/rustc");
    match target_libraries(Command::new(&debian)) {
        Some(true) => return Ok(Compiler::Debian { rustc: debian }),
        Some(false) => missing.push(format!(
            "{} has no core library for {TARGET} (Debian: apt-get install rustc-web libstd-rust-web-dev-bpf)",
            debian.display()
        )),
        None => missing.push(
            "Debian's compiler is not installed (Debian: apt-get install rustc-web libstd-rust-web-dev-bpf)"
                .into(),
        ),
    }
    match nightly_source() {
        Some(true) => return Ok(Compiler::Nightly),
        Some(false) => missing.push(
            "rustup's nightly has no rust-src (rustup component add rust-src --toolchain nightly)".into(),
        ),
        None => missing
            .push("rustup has no nightly (rustup toolchain install nightly --component rust-src)".into()),
    }
    Err(missing)
}

/// Whether this compiler has a prebuilt `core` for BPF; None when it does not run.
fn target_libraries(mut rustc: Command) -> Option<bool> {
    let output = rustc.args(["--print", "target-libdir", "--target", TARGET]).output().ok()?;
    if !output.status.success() {
        return Some(false);
    }
    let dir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let has_core = fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    });
    Some(has_core)
}

/// Whether rustup's nightly has the sources of `core`; None when there is no nightly.
fn nightly_source() -> Option<bool> {
    let output = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--print", "sysroot"])
        .env_remove("RUSTUP_TOOLCHAIN")
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Some(sysroot.join("lib/rustlib/src/rust/library/core").is_dir())
}

/// bpf-linker, in PATH or where setup puts it.
pub fn find_linker() -> Option<PathBuf> {
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/vipd-tools/bin"));
    let tools = env::var_os("VIPD_TOOLS").map(|dir| PathBuf::from(dir).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(tools).chain(home).map(|dir| dir.join(LINKER)).find(|file| file.is_file())
}

fn path_with(first: Option<&Path>) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(first.map(Path::to_path_buf).into_iter().chain(env::split_paths(&path)))
        .context("PATH cannot be extended")
}

fn workspace() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

fn target_dir(root: &Path) -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root.join(dir),
        None => root.join("target"),
    }
}

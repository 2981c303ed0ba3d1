//! `cargo xtask setup`: installs what building and testing need, and names what it cannot install.
//!
//! The other commands call [`ensure`] with the part they need; with everything in place that costs
//! a few milliseconds and touches nothing.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    bpf, python,
    shell::{self, cargo, find_program, is_root, output, say, shown, succeeds},
};

/// Something that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A compiler with `core` for the BPF target, and bpf-linker.
    Bpf,
    /// Programs that the tests, the demo and the benchmarks use.
    Peers,
    /// A server of the EC2 API, the AWS command line and the agent that uses it.
    Cloud,
    /// cargo-deny.
    Lint,
    /// What the build itself calls.
    Build,
}

const BPF_PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];
const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";
const LLVM_PACKAGE: &str = "llvm-22-dev";
const CARGO_DENY: &str = "0.20.2";

/// (program, Debian package). Debian's other `arping` package has another command line.
const PEERS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("arping", "iputils-arping"),
    ("ping", "iputils-ping"),
    ("ndisc6", "ndisc6"),
    ("keepalived", "keepalived"),
    ("tcpdump", "tcpdump"),
    ("nft", "nftables"),
    ("ocf-tester", "resource-agents"),
    ("NetworkManager", "network-manager"),
    ("dbus-daemon", "dbus"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("openssl", "openssl"),
];

/// The OCF agent for EC2's route tables, and what it calls beside the AWS command line.
const AGENT: &str = "/usr/lib/ocf/resource.d/heartbeat/aws-vpc-move-ip";
const AGENT_NEEDS: &[(&str, &str)] = &[("ip", "iproute2"), ("curl", "curl")];

/// etcd-client generates code from its protocol's description.
const PROTOC: &[&str] = &["protobuf-compiler", "libprotobuf-dev"];

pub fn run() -> Result<()> {
    ensure(&[Part::Build, Part::Bpf, Part::Peers, Part::Cloud, Part::Lint])?;
    say("everything is in place");
    Ok(())
}

/// Installs what of these parts is missing. An error names each missing thing and its remedy.
pub fn ensure(parts: &[Part]) -> Result<()> {
    let mut missing = Vec::new();
    for part in parts {
        match part {
            Part::Bpf => compiler(&mut missing)?,
            Part::Peers => peers(&mut missing)?,
            Part::Cloud => cloud(&mut missing)?,
            Part::Lint => deny(&mut missing)?,
            Part::Build => protoc(&mut missing)?,
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("missing on this machine:\n  - {}", missing.join("\n  - "));
}

/// Where programs that setup builds are kept: $VIPD_TOOLS or ~/.cache/vipd-tools.
pub fn tools_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("VIPD_TOOLS") {
        return dir.into();
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    home.join(".cache/vipd-tools")
}

/// bpf-linker or cargo-deny, from the tools directory or PATH.
pub fn tool(name: &str) -> Option<PathBuf> {
    find_program(name, &[tools_dir().join("bin")])
}

fn compiler(missing: &mut Vec<String>) -> Result<()> {
    if bpf::find_compiler().is_err() {
        apt(BPF_PACKAGES, missing)?;
        if let (Err(lines), true) = (bpf::find_compiler(), missing.is_empty()) {
            missing.extend(lines);
        }
    }
    if bpf::find_linker().is_some() || !missing.is_empty() {
        return Ok(());
    }
    if !Path::new(LLVM).join("bin/llvm-config").exists() {
        apt(&[LLVM_PACKAGE], missing)?;
    }
    let mut install = install_command("bpf-linker", BPF_LINKER);
    install.args(["--no-default-features", "--features", "llvm-22"]);
    if Path::new(LLVM).join("bin/llvm-config").exists() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let llvm = std::iter::once(Path::new(LLVM).join("bin")).chain(std::env::split_paths(&path));
        install.env("LLVM_PREFIX", LLVM).env("PATH", std::env::join_paths(llvm)?);
        return shell::run(&mut install).context("bpf-linker could not be built");
    }
    missing.clear();
    missing.push(format!(
        "bpf-linker: install the LLVM 22 development files (Debian: `apt-get install {LLVM_PACKAGE}`), \
         then run `cargo xtask setup` again, or `cargo install bpf-linker`"
    ));
    Ok(())
}

fn peers(missing: &mut Vec<String>) -> Result<()> {
    let lacking: Vec<&str> = PEERS
        .iter()
        .filter(|(program, _)| match *program {
            "arping" => !iputils_arping(),
            other => find_program(other, &[]).is_none(),
        })
        .map(|(_, package)| *package)
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    for (package, service) in [("network-manager", "NetworkManager"), ("etcd-server", "etcd")] {
        if lacking.contains(&package) && is_root() {
            mask(service)?;
        }
    }
    apt(&lacking, missing)
}

fn cloud(missing: &mut Vec<String>) -> Result<()> {
    let mut lacking: Vec<&str> = AGENT_NEEDS
        .iter()
        .filter(|(program, _)| find_program(program, &[]).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !Path::new(AGENT).is_file() {
        lacking.push("resource-agents");
    }
    if !lacking.is_empty() {
        apt(&lacking, missing)?;
    }
    python::ensure(missing)
}

/// The tests start their own, in namespaces. This host has somebody else to look after it, and Debian starts
/// what it installs.
fn mask(service: &str) -> Result<()> {
    let units = Path::new("/etc/systemd/system");
    let unit = units.join(format!("{service}.service"));
    if units.is_dir() && unit.symlink_metadata().is_err() {
        symlink("/dev/null", &unit).with_context(|| format!("cannot mask {}", unit.display()))?;
        say(&format!(
            "{service} is for the tests only and masked (`systemctl unmask {service}` undoes that)"
        ));
    }
    Ok(())
}

fn protoc(missing: &mut Vec<String>) -> Result<()> {
    let there = std::env::var_os("PROTOC").is_some() || find_program("protoc", &[]).is_some();
    if there { Ok(()) } else { apt(PROTOC, missing) }
}

fn iputils_arping() -> bool {
    find_program("arping", &[])
        .and_then(|program| output(Command::new(program).arg("-V")))
        .is_some_and(|version| version.contains("iputils"))
}

fn deny(missing: &mut Vec<String>) -> Result<()> {
    if tool("cargo-deny").is_some() {
        return Ok(());
    }
    let mut install = install_command("cargo-deny", CARGO_DENY);
    if let Err(e) = shell::run(&mut install) {
        missing.push(format!("cargo-deny ({e}): run `{}`", shown(&install)));
    }
    Ok(())
}

fn install_command(name: &str, version: &str) -> Command {
    let mut install = cargo();
    install.args(["install", name, "--version", version, "--locked", "--root"]).arg(tools_dir());
    install
}

/// Installs Debian packages as root; otherwise names the command that would.
pub fn apt(packages: &[&str], missing: &mut Vec<String>) -> Result<()> {
    let command = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    let Some(apt) = find_program("apt-get", &[]) else {
        missing
            .push(format!("{} (names of Debian's packages; there is no apt-get here)", packages.join(", ")));
        return Ok(());
    };
    if !is_root() {
        missing.push(format!("{}: as root run `{command}`", packages.join(", ")));
        return Ok(());
    }
    let install = || {
        let mut install = Command::new(&apt);
        install.env("DEBIAN_FRONTEND", "noninteractive");
        install.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages);
        install
    };
    let listed = packages.iter().all(|p| {
        // Package lists may be empty or old: only then are they fetched again.
        succeeds(Command::new("apt-cache").args(["show", "--quiet", p]))
    });
    if listed && shell::run(&mut install()).is_ok() {
        return Ok(());
    }
    let mut update = Command::new(&apt);
    update.args(["update", "-q"]);
    if let Err(e) = shell::run(&mut update) {
        // One unreachable third-party source must not stop us: the packages may be there all the same.
        say(&format!("{e:#}: going on with what is there"));
    }
    if let Err(e) = shell::run(&mut install()) {
        missing.push(format!("{} ({e:#}): run `apt-get update && {command}`", packages.join(", ")));
    }
    Ok(())
}

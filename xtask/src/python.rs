//! Python programs that the cloud tests use, in an environment of their own below the tools directory: moto, a
//! server of the EC2 API, and the AWS command line.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    setup::{apt, tools_dir},
    shell::{self, shown, succeeds},
};

/// The system's: whichever other Python comes first in PATH changes nothing.
const PYTHON: &str = "/usr/bin/python3";
/// moto's `server` extra would add dozens of packages for other services.
const REQUIREMENTS: &[&str] =
    &["moto==5.2.5", "flask==3.1.3", "flask-cors==6.0.5", "werkzeug==3.1.9", "awscli==1.46.3"];
const PROGRAMS: &[&str] = &["moto_server", "aws"];

/// Installs what is missing, or says in `missing` what could not be.
pub fn ensure(missing: &mut Vec<String>) -> Result<()> {
    let tools = tools_dir();
    let dir = tools.join("cloud");
    if is_complete(&dir) {
        return Ok(());
    }
    fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
    let path = tools.join("cloud.lock");
    let lock = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    // Two that install into one environment at the same time would break it.
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    if is_complete(&dir) {
        return Ok(());
    }
    if !succeeds(Command::new(PYTHON).args(["-c", "import ensurepip, venv"])) {
        let already = missing.len();
        apt(&["python3", "python3-venv"], missing)?;
        if missing.len() > already {
            return Ok(());
        }
    }
    // `--clear` also takes away what an interrupted installation left behind.
    let mut venv = Command::new(PYTHON);
    venv.args(["-m", "venv", "--clear"]).arg(&dir);
    let mut pip = Command::new(dir.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]);
    pip.args(REQUIREMENTS);
    for step in [&mut venv, &mut pip] {
        if let Err(error) = shell::run(step) {
            missing.push(format!(
                "{} ({error:#}): needs python3-venv and a Python package index; then run `cargo xtask setup` again",
                REQUIREMENTS.join(", ")
            ));
            return Ok(());
        }
    }
    let path = stamp(&dir);
    fs::write(&path, wanted()).with_context(|| format!("cannot write {}", path.display()))?;
    if !is_complete(&dir) {
        missing.push(format!("{}: not there after `{}`", PROGRAMS.join(" or "), shown(&pip)));
    }
    Ok(())
}

/// Whether all of it was installed, in these versions and for the Python that is there now.
fn is_complete(dir: &Path) -> bool {
    fs::read_to_string(stamp(dir)).is_ok_and(|found| found == wanted())
        && PROGRAMS.iter().all(|program| dir.join("bin").join(program).is_file())
}

fn stamp(dir: &Path) -> PathBuf {
    dir.join("vipd-requirements.txt")
}

fn wanted() -> String {
    let python = fs::canonicalize(PYTHON).unwrap_or_default();
    format!("# {}\n{}\n", python.display(), REQUIREMENTS.join("\n"))
}

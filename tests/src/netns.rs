//! Network namespaces for tests: made with a unique name, entered by threads or child processes,
//! removed on drop, also when the test panics.

use std::{
    fs::File,
    io::Write,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// A network namespace of this test alone, its loopback up.
pub struct NetNs {
    name: String,
    handle: Arc<File>,
}

impl NetNs {
    /// Makes `PREFIX-PID-N`. Needs root.
    pub fn new(prefix: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        // From here on a failure must not leave the namespace behind.
        let path = PathBuf::from("/run/netns").join(&name);
        let handle = match File::open(&path) {
            Ok(file) => Arc::new(file),
            Err(e) => {
                remove(&name);
                return Err(e).with_context(|| format!("cannot open {}", path.display()));
            }
        };
        let ns = Self { name, handle };
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// As `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs the closure in a new thread inside the namespace and returns what it returned; a panic
    /// inside goes on in the caller. Mounts stay the caller's, so /sys/fs/bpf is shared, and
    /// /sys/class/net shows another namespace: ask netlink instead.
    pub fn enter<T: Send>(&self, closure: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&*self.handle, CloneFlags::CLONE_NEWNET).expect("setns into a namespace of our own");
            closure()
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(self.name.clone());
            match thread.spawn_scoped(scope, inside).expect("spawn a thread").join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// As [`NetNs::enter`], in a thread that goes on by itself; the namespace stays until it has ended.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        closure: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        let handle = Arc::clone(&self.handle);
        let inside = move || {
            setns(&*handle, CloneFlags::CLONE_NEWNET).expect("setns into a namespace of our own");
            closure()
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(inside).context("no thread")
    }

    /// A command whose child runs inside the namespace, with the caller's mounts.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let handle = Arc::clone(&self.handle);
        let enter = move || setns(&*handle, CloneFlags::CLONE_NEWNET).map_err(Into::into);
        // SAFETY: between fork and exec only setns(2) is called, which is async-signal-safe and
        // allocates nothing; the descriptor is owned by the closure.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// `ip ARGS` inside the namespace; its output, or an error with what it said.
    pub fn ip(&self, args: &str) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(args.split_whitespace());
        let output = run(&mut command)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Many commands for `ip`, one on each line, in one process.
    pub fn ip_batch(&self, commands: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        file.write_all(commands.as_bytes()).context("cannot write a temporary file")?;
        run(Command::new("ip").args(["-n", &self.name, "-batch"]).arg(file.path()))?;
        Ok(())
    }

    /// Has nft carry out these rules inside the namespace, all or none; an error has what it said, and the rules.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let mut nft = self.command("nft");
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = nft.spawn().context("cannot run nft")?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(rules.as_bytes()).context("nft does not read its rules")?;
        }
        let output = child.wait_with_output().context("nft was lost")?;
        if !output.status.success() {
            bail!("nft refused the rules: {}\n{rules}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Sets `/proc/sys/net/KEY` (slashes between the parts) inside the namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        // Which namespace's value is meant is decided by the thread that opens the file.
        self.enter(|| std::fs::write(&path, value)).with_context(|| format!("cannot write {value} to {path}"))
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// A veth pair with one end in each namespace, both up. Names are at most 15 characters.
pub fn veth(a: &NetNs, name_a: &str, b: &NetNs, name_b: &str) -> Result<()> {
    a.ip(&format!("link add {name_a} type veth peer name {name_b} netns {}", b.name))?;
    a.ip(&format!("link set {name_a} up"))?;
    b.ip(&format!("link set {name_b} up"))?;
    Ok(())
}

fn remove(name: &str) {
    // Nothing can be done about a failure here: the name is unique, so nobody else is hurt.
    let _ = run(Command::new("ip").args(["netns", "delete", name]));
}

/// Runs to the end; an error names the command and what it wrote.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}): {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs root, as everything in this crate does.
    #[test]
    fn threads_and_children_are_inside_and_the_name_goes_away() {
        let (a, b) = (NetNs::new("vipd-ns").unwrap(), NetNs::new("vipd-ns").unwrap());
        veth(&a, "left", &b, "right").unwrap();
        let inside = || nix::net::if_::if_nametoindex("left");
        assert!(a.enter(inside).is_ok());
        assert!(b.enter(inside).is_err());
        let shown = run(b.command("ip").args(["link", "show", "right"])).unwrap();
        assert!(String::from_utf8_lossy(&shown.stdout).contains("right"));
        b.sysctl("ipv4/icmp_echo_ignore_broadcasts", "0").unwrap();
        let name = a.name().to_owned();
        drop(a);
        assert!(!PathBuf::from("/run/netns").join(name).exists());
    }
}

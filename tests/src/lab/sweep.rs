//! Removes what labs left behind whose process was killed before it could clean up.

use std::path::Path;

/// Namespaces (`vipd-...-PID-N`) and pins (`vipd-lab-PID-N-...`) of processes that are no more.
pub fn sweep() {
    for entry in names("/run/netns") {
        let mut parts = entry.rsplit('-');
        let pid = parts.nth(1).and_then(|pid| pid.parse().ok());
        if entry.starts_with("vipd-") && pid.is_some_and(is_gone) {
            // Somebody else may sweep at the same time: whoever comes second finds nothing.
            let _ = std::process::Command::new("ip").args(["netns", "delete", &entry]).output();
        }
    }
    for entry in names("/sys/fs/bpf") {
        let pid = entry.strip_prefix("vipd-lab-").and_then(|rest| rest.split('-').next()?.parse().ok());
        if pid.is_some_and(is_gone) {
            // As above.
            let _ = std::fs::remove_dir_all(Path::new("/sys/fs/bpf").join(entry));
        }
    }
}

fn is_gone(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

fn names(dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

//! How a node gets out of a cluster.

use std::{fs, path::Path};

use super::{
    durable::{self, DiskError},
    identity::Identity,
    store::OpenStore,
};

/// What is kept of a cluster beside the identity: the log and the state.
const KEPT: [&str; 2] = ["raft", "etcd"];

/// Returns once this node is known to be no part of the cluster any more: its own state says so and nobody counts
/// on its vote, or another node told it.
pub async fn departed(store: &dyn OpenStore) {
    let me = store.identity().node;
    let (mut view, mut leadership, mut expelled) = (store.view(), store.leadership(), store.expelled());
    loop {
        let removed = view.borrow_and_update().state.was_removed(me);
        let votes = leadership.borrow_and_update().voters.contains(&me);
        if *expelled.borrow_and_update() || removed && !votes {
            return;
        }
        let ended = tokio::select! {
            changed = view.changed() => changed.is_err(),
            changed = leadership.changed() => changed.is_err(),
            changed = expelled.changed() => changed.is_err(),
        };
        if ended {
            // The store ends, and with it the question.
            return std::future::pending().await;
        }
    }
}

/// Forgets on disk that this node was in a cluster. The identity goes first: without it nothing else counts.
///
/// # Errors
/// When a file cannot be removed.
pub fn forget(state_dir: &Path) -> Result<(), DiskError> {
    Identity::remove(state_dir)?;
    forget_rest(state_dir)
}

/// What a crash left of a cluster that this node has left.
pub(super) fn forget_rest(state_dir: &Path) -> Result<(), DiskError> {
    for name in KEPT {
        let dir = state_dir.join(name);
        match fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(DiskError::io("remove", &dir)(e));
            }
            _ => {}
        }
    }
    if state_dir.exists() { durable::sync_dir(state_dir) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_cluster_is_left_and_what_outlives_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("raft")).unwrap();
        for name in ["cluster.json", "raft/log", "incarnation", "longest-promise-ns"] {
            fs::write(path(name), "1\n").unwrap();
        }
        forget(dir.path()).unwrap();
        assert!(!path("cluster.json").exists() && !path("raft").exists());
        // They keep what an earlier life promised, to whomever.
        assert!(path("incarnation").exists() && path("longest-promise-ns").exists());
        forget(dir.path()).unwrap();
        forget(&path("never")).unwrap();
    }
}

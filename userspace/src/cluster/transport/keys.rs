//! Connections outlive the key under which they were made only for a while.

use tokio::sync::watch;

use crate::cluster::keyring::Keys;

/// Returns once that is not so of the keys, now or later; never when they cannot change any more.
pub(super) async fn no_longer(keys: &mut watch::Receiver<Keys>, so: impl Fn(&Keys) -> bool) {
    let changed = keys.wait_for(|k| !so(k)).await.is_ok();
    if !changed {
        std::future::pending().await
    }
}

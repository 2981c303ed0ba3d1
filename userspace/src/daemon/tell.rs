//! Telling the cluster what a monitor of this node has found.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use crate::{
    cluster::Store,
    core::change::{Applied, Change},
};

/// Proposes it in the background, once; `told` hears when that is over, whatever became of it. What is still
/// true then has to be told again. `pace`: at least so long lies between two attempts that came to nothing.
pub(super) fn tell(
    store: &Arc<dyn Store>,
    change: Change,
    about: &'static str,
    pace: Duration,
    told: &mpsc::UnboundedSender<()>,
) {
    let (store, told) = (store.clone(), told.clone());
    tokio::spawn(async move {
        match store.propose(change).await {
            Ok(Applied::Done | Applied::Node(_)) => {}
            Ok(Applied::Refused(why)) => {
                tracing::warn!(%why, "what is known of {about} was refused");
                tokio::time::sleep(pace).await;
            }
            Err(error) => {
                tracing::debug!(%error, "what is known of {about} is not committed; it is told again");
                tokio::time::sleep(pace).await;
            }
        }
        // The receiver is gone only when the daemon ends.
        let _ = told.send(());
    });
}

//! The cluster's key changes while the daemon runs.

use std::{sync::Arc, time::Duration};

use super::events::{About, EventLog};
use crate::{
    api::ApiError,
    cluster::{ClusterError, OpenStore, Rotated, follow_key, rotate_key},
};

/// Follows what the cluster decides about its key, as long as the daemon runs.
pub(super) async fn follow(store: Arc<dyn OpenStore>, pace: Duration, events: EventLog) {
    let told = |kind: &'static str, message: String| match kind {
        "key.failed" | "key.missing" => events.warn(About::default(), kind, message),
        _ => events.record(About::default(), kind, message),
    };
    follow_key(store, pace, told).await;
}

/// Changes the key; what to tell the operator.
///
/// # Errors
/// Also when the new key is used and a node has yet to confirm it: then the old one still opens doors.
pub(super) async fn rotate(
    store: &dyn OpenStore,
    to_api: impl Fn(ClusterError) -> ApiError,
) -> Result<String, ApiError> {
    let Rotated { generation, without } = rotate_key(store).await.map_err(to_api)?;
    match without {
        None => Ok(format!(
            "the cluster uses key generation {generation}; the key before it and all earlier tokens are void"
        )),
        Some(names) => Err(ApiError::failed(format!(
            "the cluster uses key generation {generation}, and the key before it is still accepted: {names} has not \
             confirmed the new one; bring it back, and it goes on by itself, or remove it with 'vipctl cluster remove \
             NODE'"
        ))),
    }
}

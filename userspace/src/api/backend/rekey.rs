//! `cluster rotate-key`: done by the daemon.

use super::{Context, Out, Result, progress};
use crate::{api::Answer, model::ClusterState};

impl Context {
    pub(super) async fn cluster_rotate_key(&self, out: &Out) -> Result<Answer> {
        let nodes = self.member()?.state().nodes.len();
        progress(out, format!("handing a new key to {nodes} nodes")).await;
        Ok(Answer::done(self.control.rotate_key().await?))
    }
}

/// What a person should know while a change of the key is not finished.
pub(super) fn warnings(state: &ClusterState) -> Vec<String> {
    let warning = |names: String| {
        format!(
            "the cluster key before generation {} is still accepted: {names} has not confirmed the new one; bring it \
             back, and it goes on by itself, or remove it with 'vipctl cluster remove NODE'",
            state.key.generation
        )
    };
    state.without_key_names().map(warning).into_iter().collect()
}

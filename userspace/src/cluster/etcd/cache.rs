//! What a node remembers of the state on its own disk: so that a daemon which starts while etcd is away knows
//! its peers and sends heartbeats, by which its lease is renewed. It acts on nothing of it before it has caught
//! up. Written when something about the nodes changed, which is rare.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::spawn_blocking;

use super::{log::Log, machine::Image};
use crate::cluster::durable::{self, DiskError};

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("etcd").join("state.json")
}

/// Of an earlier life; empty when there was none.
pub(crate) fn load(state_dir: &Path) -> Result<Image, DiskError> {
    let path = file(state_dir);
    let Some(bytes) = durable::read(&path)? else { return Ok(Image::default()) };
    serde_json::from_slice(&bytes)
        .map_err(|e| DiskError::damaged(&path, 0, format!("not a state ({e}); it can be deleted")))
}

fn save(state_dir: &Path, image: &Image) -> Result<(), DiskError> {
    let path = file(state_dir);
    durable::make_dir(&state_dir.join("etcd"))?;
    let text =
        serde_json::to_vec(image).map_err(|e| DiskError::io("encode", &path)(std::io::Error::other(e)))?;
    durable::replace(&path, &text)
}

/// Runs until the log is dropped.
pub(crate) async fn keep(log: Arc<Log>, state_dir: PathBuf) {
    let mut view = log.view();
    let mut kept = log.image().state.nodes.clone();
    while view.changed().await.is_ok() {
        view.borrow_and_update();
        let image = log.image();
        if image.state.nodes == kept {
            continue;
        }
        kept.clone_from(&image.state.nodes);
        let dir = state_dir.clone();
        match spawn_blocking(move || save(&dir, &image)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!("{e}"),
            Err(e) => tracing::warn!("the state cannot be remembered: {e}"),
        }
    }
}

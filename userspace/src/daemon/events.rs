//! The node's event log: what `vipctl events` shows.

use std::{net::IpAddr, sync::Arc};

use tokio::sync::broadcast;

use crate::{
    api::Event,
    model::{Epoch, Tag},
};

/// What an event is about.
#[derive(Clone, Debug, Default)]
pub struct About {
    pub tag: Option<Tag>,
    pub address: Option<IpAddr>,
    pub epoch: Option<Epoch>,
}

/// Shared, cheap to clone. Keeps the newest events in memory and appends each to the log (tracing).
#[derive(Clone)]
pub struct EventLog {
    _inner: Arc<()>,
}

impl EventLog {
    /// Records that something happened now. `kind` is a stable dotted name.
    pub fn record(&self, _about: About, _kind: &str, _message: impl Into<String>) {
        unimplemented!()
    }

    /// The events kept, oldest first, and a receiver for those to come, without a gap between.
    pub fn follow(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        unimplemented!()
    }
}

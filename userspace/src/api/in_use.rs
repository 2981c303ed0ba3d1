//! Which interface each resource uses on this node, for whoever shows it.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::model::Tag;

/// Shared by its clones. Of resources of which something is, or may be, on this host.
#[derive(Clone, Default)]
pub struct InUse(Arc<RwLock<BTreeMap<Tag, String>>>);

impl InUse {
    pub fn device(&self, tag: &Tag) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(tag).cloned()
    }

    /// None: nothing of it is here any more.
    pub fn set(&self, tag: &Tag, device: Option<&str>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match device {
            Some(device) if all.get(tag).is_some_and(|d| d == device) => {}
            Some(device) => drop(all.insert(tag.clone(), device.to_owned())),
            None => drop(all.remove(tag)),
        }
    }
}

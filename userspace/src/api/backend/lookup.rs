//! Names -> things, with near misses suggested; proposals and what came of them.

use super::{Member, Result};
use crate::{
    api::{ApiError, ErrorKind},
    cluster::StoreError,
    core::change::{Applied, Change, apply, apply_part},
    model::{ClusterState, IpResource, Node, Resource, Tag},
};

/// The resource, or a refusal that names close matches.
pub fn resource<'a>(state: &'a ClusterState, tag: &Tag) -> Result<&'a Resource> {
    state.resources.get(tag).ok_or_else(|| {
        let known = state.resources.keys().map(Tag::as_str);
        ApiError::refused(format!("there is no resource '{tag}': {}", suggest(tag.as_str(), known)))
    })
}

/// The node, or a refusal that names close matches.
pub fn node<'a>(state: &'a ClusterState, name: &str) -> Result<&'a Node> {
    state.node_named(name).ok_or_else(|| {
        let known = state.nodes.values().map(|n| n.name.as_str());
        ApiError::refused(format!("there is no node '{name}': {}", suggest(name, known)))
    })
}

/// A node that can hold addresses.
pub fn holder<'a>(state: &'a ClusterState, name: &str) -> Result<&'a Node> {
    let node = node(state, name)?;
    if node.witness {
        return Err(ApiError::refused(format!(
            "node '{name}' is a witness, which holds no addresses: choose another node"
        )));
    }
    Ok(node)
}

fn suggest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut near: Vec<(usize, &str)> = known.filter_map(|k| closeness(wanted, k).map(|d| (d, k))).collect();
    near.sort_unstable();
    let near: Vec<String> = near.iter().take(3).map(|(_, k)| format!("'{k}'")).collect();
    match near[..] {
        [] => "'vipctl status' lists what there is".to_owned(),
        _ => format!("is {} meant?", near.join(" or ")),
    }
}

/// How far a known name is from the wanted one; None when it is not alike. A part of it is alike too:
/// `10.0.0.9` for `ip-10.0.0.9`.
fn closeness(wanted: &str, known: &str) -> Option<usize> {
    let (a, b) = (wanted.to_ascii_lowercase(), known.to_ascii_lowercase());
    let distance = distance(a.as_bytes(), b.as_bytes());
    if distance <= 1 + a.len() / 5 {
        Some(distance)
    } else if a.len() >= 3 && (b.contains(&a) || a.contains(&b)) {
        Some(100)
    } else {
        None
    }
}

/// Levenshtein's edit distance.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The addresses of a resource, for orders that are about addresses.
pub fn ip(resource: &Resource) -> Result<&IpResource> {
    let (tag, kind) = (&resource.tag, resource.kind.name());
    let no = || {
        ApiError::refused(format!(
            "'{tag}' is no IP resource but of the kind {kind}: it has no addresses of its own"
        ))
    };
    resource.ip().ok_or_else(no)
}

impl Member {
    /// The state with everything that was committed until now: what a change is checked against.
    pub async fn fresh(&self) -> Result<std::sync::Arc<ClusterState>> {
        self.store.barrier().await.map_err(store)?;
        Ok(self.state())
    }

    /// The state as far as it is known here.
    pub fn state(&self) -> std::sync::Arc<ClusterState> {
        self.store.view().borrow().state.clone()
    }

    /// Proposes changes, all of them or none; tried on a copy of the state first, so that a refusal costs the
    /// cluster nothing. Returns once this node has applied them.
    pub async fn propose(&self, changes: Vec<Change>) -> Result<()> {
        tried(&self.state(), &changes)?;
        // One entry: all of them or none, whatever others do meanwhile.
        let change = match <[Change; 1]>::try_from(changes) {
            Ok([one]) => one,
            Err(changes) => Change::Batch { revision: None, changes },
        };
        answered(self.store.propose(change).await.map_err(store)?)?;
        self.store.barrier().await.map_err(store)
    }
}

/// What the changes lead to, one after another.
///
/// # Errors
/// The first refusal.
pub fn tried(state: &ClusterState, changes: &[Change]) -> Result<ClusterState> {
    let mut after = state.clone();
    // Several are one batch.
    let apply = if changes.len() > 1 { apply_part } else { apply };
    for change in changes {
        answered(apply(&mut after, change))?;
    }
    Ok(after)
}

fn answered(applied: Applied) -> Result<()> {
    match applied {
        Applied::Done | Applied::Node(_) => Ok(()),
        Applied::Refused(refusal) => Err(ApiError::refused(refusal.0)),
    }
}

pub fn store(e: StoreError) -> ApiError {
    let kind = match e {
        StoreError::NoQuorum(_) | StoreError::Away(_) => ErrorKind::NoQuorum,
        StoreError::NoCluster | StoreError::Storage(_) | StoreError::Etcd(_) => ErrorKind::Failed,
    };
    let remedy = match e {
        StoreError::NoQuorum(_) => {
            "; nothing can be changed until a majority of the voters is connected: 'vipctl cluster status' shows \
             whom this node hears"
        }
        StoreError::Away(_) => {
            "; nothing can be changed until etcd answers, what is in service stays so: 'vipctl cluster status' shows \
             its members"
        }
        StoreError::NoCluster | StoreError::Storage(_) | StoreError::Etcd(_) => "",
    };
    ApiError::new(kind, format!("{e}{remedy}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn near_misses_are_suggested() {
        let known = ["ip-10.0.0.9", "ip-10.0.0.10", "web"];
        let said = |w: &str| suggest(w, known.into_iter());
        assert_eq!(said("ip-10.0.0.8"), "is 'ip-10.0.0.9' or 'ip-10.0.0.10' meant?");
        assert_eq!(said("WEB"), "is 'web' meant?");
        assert_eq!(said("10.0.0.9"), "is 'ip-10.0.0.9' meant?");
        assert_eq!(said("database"), "'vipctl status' lists what there is");
    }

    proptest! {
        #[test]
        fn distance_is_a_metric(a in "[ab]{0,6}", b in "[ab]{0,6}", c in "[ab]{0,6}") {
            let d = |x: &str, y: &str| distance(x.as_bytes(), y.as_bytes());
            prop_assert_eq!(d(&a, &b), d(&b, &a));
            prop_assert_eq!(d(&a, &b) == 0, a == b);
            prop_assert!(d(&a, &c) <= d(&a, &b) + d(&b, &c));
            prop_assert!(d(&a, &b) >= a.len().abs_diff(b.len()) && d(&a, &b) <= a.len().max(b.len()));
        }
    }
}

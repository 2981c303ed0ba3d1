//! Snapshots: the whole state at an index, so that entries before it need not be kept.

use super::{
    kv::{Compare, Op, Span},
    log::{Log, Shelf, Stored},
    parts::{self, PART},
    propose::unique,
};
use crate::cluster::store::StoreError;

/// A snapshot is taken each time the log has grown by so many entries.
pub(crate) const EVERY: u64 = 1000;

/// The revision of the snapshot's key, if it is there, and what it says.
async fn present(log: &Log) -> Result<Option<(i64, Shelf)>, StoreError> {
    let look = log.kv.read(vec![Span::key(log.keys.snapshot())]).await?;
    let Some(pair) = look.spans.first().and_then(|s| s.first()) else { return Ok(None) };
    let shelf = serde_json::from_slice(&pair.value)
        .map_err(|e| StoreError::Etcd(format!("the snapshot makes no sense here ({e})")))?;
    Ok(Some((pair.revision, shelf)))
}

/// Takes a snapshot of all that is applied here, if it is `every` entries since the last one, and deletes the
/// entries before that one: nodes that are not far behind read on in the log. Answers whether it was taken (another
/// node may be first), and the index at which the next one is due.
pub(crate) async fn take(log: &Log, every: u64) -> Result<(bool, u64), StoreError> {
    let before = present(log).await?;
    let (image, known_from) = {
        let machine = log.machine();
        (machine.now.clone(), machine.known_from)
    };
    let last = before.as_ref().map_or(0, |(_, shelf)| shelf.applied);
    if image.applied < last + every {
        return Ok((false, last + every));
    }
    // Of entries that are kept this node must know which of them refer to parts.
    let keep_after = last.max(known_from);
    let text = serde_json::to_vec(&image).map_err(|e| StoreError::Etcd(e.to_string()))?;
    let mut compares = vec![match &before {
        Some((revision, _)) => Compare::Revision(log.keys.snapshot(), *revision),
        None => Compare::Absent(log.keys.snapshot()),
    }];
    // The cluster may have been founded anew by others.
    compares.extend(log.presumes(0).into_iter().take(1));
    let applied = image.applied;
    let shelf = if text.len() <= PART {
        Shelf { applied, image: Stored::Here(image) }
    } else {
        let parts = parts::write(&*log.kv, &log.keys, unique()?, &text).await?;
        compares.push(parts.present(&log.keys));
        Shelf { applied, image: Stored::Parts(parts) }
    };
    let stored = serde_json::to_vec(&shelf).map_err(|e| StoreError::Etcd(e.to_string()))?;
    let (first, end) = log.keys.entries(0, Some(keep_after + 1));
    let ops = vec![Op::Put(log.keys.snapshot(), stored, None), Op::Delete(first, end)];
    if !log.kv.commit(compares, ops).await? {
        return Ok((false, applied + 1));
    }
    tracing::debug!("snapshot of change {applied}, entries after {keep_after} are kept");
    log.forget_long(keep_after);
    Ok((true, applied + every))
}

/// Deletes parts that nothing refers to: of former snapshots, of deleted entries, of proposals that were given
/// up. Only while no entry is made, for that could refer to them: false when one was. To be called by who took
/// the snapshot.
pub(crate) async fn tidy(log: &Log) -> Result<bool, StoreError> {
    let Some((revision, shelf)) = present(log).await? else { return Ok(true) };
    let snapshot = match shelf.image {
        Stored::Parts(parts) => Some(parts.id),
        Stored::Here(_) => None,
    };
    let head = log.image().applied;
    let long = log.machine().long.clone();
    let used = |id: &str| snapshot.as_deref() == Some(id) || long.values().any(|p| p.id == id);
    let span = Span { keys_only: true, ..Span::range(log.keys.parts(), 0) };
    let look = log.kv.read(vec![span]).await?;
    let mut idle: Vec<&str> =
        look.spans.iter().flatten().filter_map(|p| log.keys.part_id(&p.key)).filter(|id| !used(id)).collect();
    idle.dedup();
    for some in idle.chunks(32) {
        let ops = some.iter().map(|id| {
            let (first, end) = log.keys.parts_of(id);
            Op::Delete(first, end)
        });
        let mut compares = log.presumes(head);
        compares.push(Compare::Revision(log.keys.snapshot(), revision));
        if !log.kv.commit(compares, ops.collect()).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

use openraft::{
    StorageError as Error,
    testing::{StoreBuilder, Suite},
};
use tempfile::TempDir;

use super::*;
use crate::cluster::raft::{log::Log, testing::ping_list};

struct OnDisk;

impl StoreBuilder<Types, Log, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, Log, Machine), Error<u64>> {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::open(dir.path(), watch::Sender::default()).unwrap();
        let log = Log::open(dir.path(), None).unwrap();
        Ok((dir, log, machine))
    }
}

/// What openraft asks of every storage.
#[test]
fn openrafts_own_suite_passes() {
    Suite::test_all(OnDisk).unwrap();
}

fn entry(index: u64, payload: EntryPayload<Types>) -> Entry {
    let log_id = LogId::new(openraft::CommittedLeaderId::new(2, 1), index);
    Entry { log_id, payload }
}

async fn filled(dir: &Path) -> Machine {
    let mut machine = Machine::open(dir, watch::Sender::default()).unwrap();
    let rpc: std::net::SocketAddr = "127.0.0.1:1".parse().unwrap();
    let node = change::NewNode { name: "a".into(), rpc, paths: vec![rpc], witness: false };
    let found = change::Change::Found { name: "lab".into(), node };
    let entries = [
        entry(1, EntryPayload::Blank),
        entry(2, EntryPayload::Normal(found)),
        entry(3, EntryPayload::Normal(ping_list(1, 9))),
    ];
    machine.apply(entries).await.unwrap();
    machine
}

#[tokio::test]
async fn every_change_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let machine = filled(dir.path()).await;
    let view = machine.view.borrow().clone();
    assert_eq!((view.applied, view.state.name.as_str()), (3, "lab"));
    assert_eq!(view.state.ping_lists.len(), 1);
}

#[tokio::test]
async fn a_snapshot_is_read_back_and_damage_to_it_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = filled(dir.path()).await;
    let snapshot = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let again = Machine::open(dir.path(), watch::Sender::default()).unwrap();
    assert_eq!(again.state, machine.state);
    assert_eq!(again.applied, machine.applied);
    assert_eq!(again.snapshot(), snapshot.meta.last_log_id);

    let path = dir.path().join("snapshot");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        for bad in [whole[..at].to_vec(), {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            changed
        }] {
            std::fs::write(&path, bad).unwrap();
            let Err(e) = Machine::open(dir.path(), watch::Sender::default()) else { panic!("byte {at}") };
            assert!(e.to_string().contains("snapshot' is damaged"), "{e}");
        }
    }
}

#[tokio::test]
async fn an_older_snapshot_never_replaces_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = filled(dir.path()).await;
    let mut slow = machine.get_snapshot_builder().await;
    machine.apply([entry(4, EntryPayload::Normal(ping_list(1, 10)))]).await.unwrap();
    let newer = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    slow.build_snapshot().await.unwrap();
    let kept = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(kept.meta, newer.meta);
    let again = Machine::open(dir.path(), watch::Sender::default()).unwrap();
    assert_eq!(again.applied.map(|id| id.index), Some(4));
}

#[tokio::test]
async fn a_snapshot_that_makes_no_sense_is_not_installed() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = filled(dir.path()).await;
    let meta = SnapshotMeta::default();
    let data = Box::new(Cursor::new(b"{}garbage".to_vec()));
    assert!(machine.install_snapshot(&meta, data).await.is_err());
    assert_eq!(machine.view.borrow().applied, 3);
    assert!(!dir.path().join("snapshot").exists());
}

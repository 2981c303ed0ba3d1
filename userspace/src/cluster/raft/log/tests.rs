use openraft::{CommittedLeaderId, EntryPayload, storage::RaftLogStorageExt};

use super::*;

fn id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(|i| Entry { log_id: id(i), payload: EntryPayload::Blank }).collect()
}

#[tokio::test]
async fn vote_and_commit_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), None).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), None);
    log.save_vote(&Vote::new(3, 2)).await.unwrap();
    log.save_vote(&Vote::new_committed(12, 1)).await.unwrap();
    log.blocking_append(entries(0..5)).await.unwrap();
    log.save_committed(Some(id(3))).await.unwrap();
    drop(log);
    let mut log = Log::open(dir.path(), None).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(12, 1)));
    assert_eq!(log.read_committed().await.unwrap(), Some(id(3)));
    assert_eq!(log.try_get_log_entries(1..3).await.unwrap(), entries(1..3));
    assert_eq!(log.try_get_log_entries(3..).await.unwrap(), entries(3..5));
    assert_eq!(log.try_get_log_entries(7..9).await.unwrap(), []);
}

#[tokio::test]
async fn a_damaged_vote_is_reported_and_never_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    Log::open(dir.path(), None).unwrap().save_vote(&Vote::new(3, 2)).await.unwrap();
    let path = dir.path().join("vote");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 4;
        for bad in [&bad[..], &whole[..at]] {
            std::fs::write(&path, bad).unwrap();
            let Err(e) = Log::open(dir.path(), None) else { panic!("byte {at}") };
            assert!(e.to_string().contains("vote' is damaged"), "{e}");
        }
    }
}

#[tokio::test]
async fn a_torn_end_is_cut_off_unless_it_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), None).unwrap();
    log.blocking_append(entries(0..2)).await.unwrap();
    log.blocking_append(entries(2..4)).await.unwrap();
    log.save_committed(Some(id(1))).await.unwrap();
    drop(log);
    let path = dir.path().join("log-0000000000000001");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let mut log = Log::open(dir.path(), None).unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(id(1)));
    log.blocking_append(entries(2..4)).await.unwrap();
    log.save_committed(Some(id(3))).await.unwrap();
    drop(log);
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let Err(e) = Log::open(dir.path(), None) else { panic!("committed entries are gone") };
    assert!(e.to_string().contains("committed entries too, is gone"), "{e}");
    // Unless a snapshot has them.
    let mut log = Log::open(dir.path(), Some(id(3))).unwrap();
    assert_eq!(log.read_committed().await.unwrap(), Some(id(1)));
}

#[tokio::test]
async fn a_torn_note_of_what_is_committed_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), None).unwrap();
    log.blocking_append(entries(0..2)).await.unwrap();
    log.save_committed(Some(id(1))).await.unwrap();
    drop(log);
    let path = dir.path().join("committed");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        std::fs::write(&path, &whole[..at]).unwrap();
        assert_eq!(Log::open(dir.path(), None).unwrap().read_committed().await.unwrap(), None);
    }
}

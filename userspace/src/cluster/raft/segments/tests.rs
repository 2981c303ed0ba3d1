use openraft::{CommittedLeaderId, EntryPayload};
use proptest::prelude::*;

use super::*;
use crate::cluster::raft::testing::ping_list;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(ping_list(1, index as u8)) }
}

fn entries(term: u64, range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(|i| entry(term, i)).collect()
}

/// Term and index of what is found.
fn ids(found: &Found) -> Vec<(u64, u64)> {
    found.entries.iter().map(|e| (e.log_id.leader_id.term, e.log_id.index)).collect()
}

fn reopen(dir: &Path) -> Result<Vec<(u64, u64)>, DiskError> {
    Segments::open(dir).map(|(_, found)| ids(&found))
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    path(dir, number)
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (mut log, found) = Segments::open(dir).unwrap();
    assert!(found.entries.is_empty() && found.purged.is_none());
    log.append(&entries(1, 0..5)).unwrap();
    log.truncate(3).unwrap();
    log.append(&entries(2, 3..6)).unwrap();
    drop(log);
    let wanted = [(1, 0), (1, 1), (1, 2), (2, 3), (2, 4), (2, 5)];
    assert_eq!(reopen(dir).unwrap(), wanted);
    let (mut log, _) = Segments::open(dir).unwrap();
    log.append(&entries(2, 6..7)).unwrap();
    drop(log);
    assert_eq!(reopen(dir).unwrap().len(), 7);
}

#[test]
fn a_torn_write_is_cut_off_wherever_it_was_torn() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (mut log, _) = Segments::open(dir).unwrap();
    log.append(&entries(1, 0..3)).unwrap();
    let before = fs::metadata(segment(dir, 1)).unwrap().len() as usize;
    log.append(&entries(1, 3..5)).unwrap();
    drop(log);
    let whole = fs::read(segment(dir, 1)).unwrap();
    for cut in before..whole.len() {
        // Cut off, or grown without its data.
        for filled in [false, true] {
            let mut torn = whole[..cut].to_vec();
            if filled {
                torn.resize(whole.len(), 0);
            }
            fs::write(segment(dir, 1), &torn).unwrap();
            let (mut log, found) = Segments::open(dir).unwrap();
            assert_eq!(ids(&found), [(1, 0), (1, 1), (1, 2)], "{cut}");
            if cut > before || filled {
                assert_eq!(found.cut, Some((segment(dir, 1), before as u64)));
            }
            log.append(&entries(2, 3..4)).unwrap();
            drop(log);
            assert_eq!(reopen(dir).unwrap(), [(1, 0), (1, 1), (1, 2), (2, 3)], "{cut}");
        }
    }
}

#[test]
fn a_changed_bit_before_the_last_write_is_reported_and_nothing_is_lost_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (mut log, _) = Segments::open(dir).unwrap();
    log.append(&entries(1, 0..2)).unwrap();
    let last = fs::metadata(segment(dir, 1)).unwrap().len() as usize;
    log.append(&entries(1, 2..3)).unwrap();
    drop(log);
    let whole = fs::read(segment(dir, 1)).unwrap();
    for at in 0..last {
        let mut bad = whole.clone();
        bad[at] ^= 0x10;
        fs::write(segment(dir, 1), &bad).unwrap();
        let e = reopen(dir).unwrap_err().to_string();
        assert!(e.contains("log-0000000000000001' is damaged at byte"), "{at}: {e}");
        assert!(e.contains("join the cluster again"), "{at}: {e}");
        assert_eq!(fs::read(segment(dir, 1)).unwrap(), bad, "{at}: left as it is");
    }
}

#[test]
fn only_the_last_segment_may_end_torn() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (mut log, _) = Segments::open(dir).unwrap();
    log.limit = 1;
    log.append(&entries(1, 0..2)).unwrap();
    log.append(&entries(1, 2..4)).unwrap();
    drop(log);
    let first = fs::read(segment(dir, 1)).unwrap();
    fs::write(segment(dir, 1), &first[..first.len() - 1]).unwrap();
    assert!(reopen(dir).unwrap_err().to_string().contains("cut off"));
    fs::write(segment(dir, 1), &first).unwrap();
    assert_eq!(reopen(dir).unwrap().len(), 4);
    // A crash while the next segment was begun.
    for begun in [&b""[..], b"vip", MAGIC] {
        fs::write(segment(dir, 3), begun).unwrap();
        let (mut log, found) = Segments::open(dir).unwrap();
        assert_eq!(found.entries.len(), 4);
        log.append(&entries(1, 4..5)).unwrap();
        drop(log);
        assert_eq!(reopen(dir).unwrap().len(), 5);
    }
    fs::remove_file(segment(dir, 2)).unwrap();
    assert!(reopen(dir).unwrap_err().to_string().contains("before this one is missing"));
}

#[test]
fn purged_segments_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (mut log, _) = Segments::open(dir).unwrap();
    log.limit = 1;
    for i in 0..6 {
        log.append(&[entry(1, i)]).unwrap();
    }
    log.purge(id(1, 2)).unwrap();
    drop(log);
    assert_eq!(list(dir).unwrap(), [4, 5, 6]);
    let (mut log, found) = Segments::open(dir).unwrap();
    assert_eq!(found.purged, Some(id(1, 2)));
    assert_eq!(ids(&found), [(1, 3), (1, 4), (1, 5)]);
    // A snapshot far ahead was installed: the log goes on behind it.
    log.purge(id(3, 100)).unwrap();
    log.append(&[entry(3, 101)]).unwrap();
    drop(log);
    let (_, found) = Segments::open(dir).unwrap();
    assert_eq!((found.purged, ids(&found)), (Some(id(3, 100)), vec![(3, 101)]));
    fs::write(dir.join("purged"), b"nonsense").unwrap();
    assert!(reopen(dir).unwrap_err().to_string().contains("purged' is damaged"));
}

#[test]
fn a_missing_start_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (mut log, _) = Segments::open(dir).unwrap();
    log.limit = 1;
    log.append(&[entry(1, 0)]).unwrap();
    log.append(&[entry(1, 1)]).unwrap();
    drop(log);
    fs::remove_file(segment(dir, 1)).unwrap();
    assert!(reopen(dir).unwrap_err().to_string().contains("entry 1 where 0 should be"));
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64),
    Truncate(u64),
    Purge(u64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..5_u64).prop_map(Step::Append),
        2 => (0..6_u64).prop_map(Step::Truncate),
        1 => (0..8_u64).prop_map(Step::Purge),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Whatever is done, disk and a plain list agree after a restart.
    #[test]
    fn the_disk_agrees_with_a_model(steps in steps(), limit in prop::sample::select(vec![1, 400, 4000])) {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (mut log, _) = Segments::open(dir).unwrap();
        log.limit = limit;
        let mut model: Vec<(u64, u64)> = Vec::new();
        let mut purged: Option<u64> = None;
        let mut term = 1;
        for step in steps {
            let next = model.last().map(|e| e.1).or(purged).map_or(0, |i| i + 1);
            match step {
                Step::Append(n) => {
                    log.append(&entries(term, next..next + n)).unwrap();
                    model.extend((next..next + n).map(|i| (term, i)));
                }
                Step::Truncate(back) => {
                    let from = next.saturating_sub(back).max(purged.map_or(0, |p| p + 1));
                    log.truncate(from).unwrap();
                    model.retain(|e| e.1 < from);
                    term += 1;
                }
                Step::Purge(ahead) => {
                    let upto = purged.map_or(0, |p| p + 1) + ahead;
                    log.purge(id(term, upto)).unwrap();
                    model.retain(|e| e.1 > upto);
                    purged = Some(upto);
                }
                Step::Reopen => {
                    drop(log);
                    let (again, found) = Segments::open(dir).unwrap();
                    log = again;
                    log.limit = limit;
                    prop_assert_eq!(&ids(&found), &model);
                    prop_assert_eq!(found.purged.map(|p| p.index), purged);
                }
            }
        }
        drop(log);
        prop_assert_eq!(reopen(dir).unwrap(), model);
    }
}

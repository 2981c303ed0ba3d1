use std::net::Ipv4Addr;

use super::*;

fn messages(events: &[Event]) -> Vec<&str> {
    events.iter().map(|e| e.message.as_str()).collect()
}

#[test]
fn followers_see_all_without_gap_or_double() {
    let log = EventLog::open(None);
    log.record(About::default(), "a", "one");
    let (kept, mut coming) = log.follow();
    log.record(About::default(), "a", "two");
    assert_eq!(messages(&kept), ["one"]);
    assert_eq!(coming.try_recv().unwrap().message, "two");
    assert!(coming.try_recv().is_err());
}

#[test]
fn many_recorders_at_once_number_without_holes() {
    let log = EventLog::open(None);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| (0..500).for_each(|_| log.record(About::default(), "k", "m")));
        }
    });
    let (kept, _) = log.follow();
    assert_eq!(kept.len(), 2000);
    assert!(kept.windows(2).all(|w| w[1].number == w[0].number + 1 && w[1].boot_ns >= w[0].boot_ns));
}

#[test]
fn the_ring_forgets_the_oldest() {
    let log = EventLog::open(None);
    for n in 0..KEPT + 3 {
        log.record_at(Level::Debug, About::default(), "k", n.to_string());
    }
    let (kept, _) = log.follow();
    assert_eq!(kept.len(), KEPT);
    assert_eq!(kept[0].message, "3");
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(Some(dir.path().into()));
    let about = About {
        tag: Some("ip-x".parse().unwrap()),
        address: Some(Ipv4Addr::LOCALHOST.into()),
        epoch: Some(7),
    };
    log.record(about, "restore.announce", "one");
    let (first, _) = log.follow();
    drop(log);
    let log = EventLog::open(Some(dir.path().into()));
    log.record(About::default(), "k", "two");
    let (kept, _) = log.follow();
    assert_eq!(kept[0], first[0]);
    assert_eq!(messages(&kept), ["one", "two"]);
    assert_eq!(kept[1].number, kept[0].number + 1);
}

#[test]
fn an_unusable_directory_is_an_event() {
    let log = EventLog::open(Some("/dev/null/no".into()));
    let (kept, _) = log.follow();
    assert_eq!(kept[0].kind, "events.no-file");
    assert!(kept[0].message.contains("/dev/null/no/events.jsonl"), "{}", kept[0].message);
}

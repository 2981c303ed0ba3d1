use super::*;
use crate::{
    cluster::{identity::ClusterId, transport::PeerRequest},
    config::StoreKind,
};

fn numbered(generation: KeyGeneration) -> NumberedKey {
    NumberedKey { generation, key: ClusterKey([generation as u8; 32]) }
}

fn offer(follows: KeyGeneration, generation: KeyGeneration) -> KeyOffer {
    KeyOffer { follows, key: numbered(generation) }
}

struct Bench {
    dir: tempfile::TempDir,
    ring: Keyring,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity {
            cluster: "lab".into(),
            id: ClusterId([7; 16]),
            keys: Keys::only(numbered(1)),
            node: 3,
            name: "c".into(),
            stage: Stage::Member,
            store: StoreKind::Raft,
        };
        identity.save(dir.path()).unwrap();
        let ring = Keyring::new(identity, dir.path().into());
        Self { dir, ring }
    }

    /// As after a crash: nothing but the disk is left.
    fn restarted(self) -> Self {
        let identity = Identity::load(self.dir.path()).unwrap().unwrap();
        assert_eq!(identity, self.ring.identity(), "what is published is on disk");
        let ring = Keyring::new(identity, self.dir.path().into());
        Self { ring, ..self }
    }

    fn generations(&self) -> (Option<u64>, u64, Option<u64>) {
        let keys = self.ring.keys().borrow().clone();
        (keys.previous.map(|k| k.generation), keys.current.generation, keys.pending.map(|k| k.generation))
    }

    /// True when it is used now.
    fn start(&self, generation: u64) -> bool {
        self.start_with(generation, &numbered(generation)).unwrap()
    }

    fn start_with(&self, generation: u64, meant: &NumberedKey) -> Result<bool, DiskError> {
        self.ring.alter(|keys| {
            let used = keys.using(generation, &meant.fingerprint());
            let any = used.is_some();
            Ok((used.unwrap_or_else(|| keys.clone()), any))
        })
    }

    fn forget_before(&self, generation: u64) {
        self.ring.alter(|keys| Ok::<_, DiskError>((keys.forgetting_before(generation), ()))).unwrap();
    }
}

#[test]
fn a_key_is_offered_used_and_the_one_before_forgotten_whatever_crashes_between() {
    let bench = Bench::new();
    bench.ring.take(offer(1, 2)).unwrap();
    let bench = bench.restarted();
    assert_eq!(bench.generations(), (None, 1, Some(2)));
    assert!(bench.ring.keys().borrow().accepts(2));
    assert!(bench.start(2));
    let bench = bench.restarted();
    assert_eq!(bench.generations(), (Some(1), 2, None));
    assert!(bench.ring.keys().borrow().accepts(1));
    bench.forget_before(2);
    let bench = bench.restarted();
    assert_eq!(bench.generations(), (None, 2, None));
    assert!(!bench.ring.keys().borrow().accepts(1));
    // Said again, and by a state of before a restart.
    assert!(bench.start(2));
    assert!(bench.start(1));
    bench.forget_before(2);
    bench.forget_before(1);
    assert_eq!(bench.generations(), (None, 2, None));
}

#[test]
fn a_newer_offer_replaces_an_older_one_and_never_the_other_way_round() {
    let bench = Bench::new();
    bench.ring.take(offer(1, 2)).unwrap();
    bench.ring.take(offer(1, 2)).unwrap();
    bench.ring.take(offer(1, 3)).unwrap();
    assert!(bench.ring.take(offer(1, 2)).unwrap_err().contains("a newer key"));
    assert_eq!(bench.generations(), (None, 1, Some(3)));
    let other = NumberedKey { key: ClusterKey([99; 32]), ..numbered(3) };
    assert!(bench.ring.take(KeyOffer { follows: 1, key: other }).is_err(), "a generation is one key");
    assert!(!bench.start(2));
    assert_eq!(bench.generations(), (None, 1, Some(3)), "what is missing changes nothing");
}

#[test]
fn an_offer_that_presumes_another_key_is_refused() {
    let bench = Bench::new();
    for wrong in [offer(2, 3), offer(0, 2), offer(1, 1), offer(1, 0)] {
        let reason = bench.ring.take(wrong).unwrap_err();
        assert!(reason.contains("generation 1"), "{reason}");
    }
    assert_eq!(bench.generations(), (None, 1, None));
}

#[test]
fn a_key_is_used_only_if_it_is_the_one_that_is_meant() {
    let bench = Bench::new();
    bench.ring.take(offer(1, 2)).unwrap();
    assert!(!bench.start_with(2, &numbered(3)).unwrap());
    assert!(!bench.start_with(3, &numbered(2)).unwrap());
    assert_eq!(bench.generations(), (None, 1, Some(2)));
}

#[test]
fn the_next_offer_ends_the_key_before() {
    let bench = Bench::new();
    bench.ring.take(offer(1, 2)).unwrap();
    assert!(bench.start(2));
    bench.ring.take(offer(2, 3)).unwrap();
    assert_eq!(bench.generations(), (None, 2, Some(3)));
}

#[test]
fn the_key_before_is_kept_until_the_present_one_is_everybodys() {
    let bench = Bench::new();
    bench.ring.take(offer(1, 2)).unwrap();
    assert!(bench.start(2));
    // All nodes used the first one, says a state that is older than this node's keys.
    bench.forget_before(1);
    assert_eq!(bench.generations(), (Some(1), 2, None));
}

#[test]
fn what_cannot_be_stored_is_not_used() {
    let mut bench = Bench::new();
    bench.ring.take(offer(1, 2)).unwrap();
    let keys = bench.ring.keys();
    let gone = tempfile::tempdir().unwrap();
    let nowhere = std::mem::replace(&mut bench.dir, gone);
    // Where the directory was is a file now: nothing can be stored there.
    let path = nowhere.path().to_owned();
    drop(nowhere);
    std::fs::write(&path, "").unwrap();
    assert!(bench.start_with(2, &numbered(2)).is_err());
    assert!(bench.ring.take(offer(1, 3)).is_err());
    assert!(!keys.has_changed().unwrap());
    assert_eq!(bench.generations(), (None, 1, Some(2)));
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn keys_are_never_printed() {
    let bench = Bench::new();
    let request = PeerRequest::OfferKey(offer(1, 2));
    let secret = String::from(numbered(2).key);
    for text in [format!("{request:?}"), format!("{:?}", numbered(2)), numbered(2).fingerprint()] {
        assert!(!text.contains(&secret), "{text}");
    }
    assert!(matches!(bench.ring.answer(offer(1, 2)).await, PeerAnswer::Done));
    let PeerAnswer::Failed { reason } = bench.ring.answer(offer(4, 5)).await else { panic!("taken") };
    assert!(reason.contains("offered 5"), "{reason}");
}

#[test]
fn fingerprints_tell_keys_apart() {
    let one = numbered(1).fingerprint();
    assert_eq!(one.len(), 32);
    assert_ne!(one, numbered(2).fingerprint());
    let mut almost = numbered(1);
    almost.key.0[31] ^= 1;
    assert_ne!(one, almost.fingerprint());
}

#[tokio::test]
async fn a_follower_is_waited_for_until_it_has_taken_over_or_ended() {
    let bench = Bench::new();
    bench.ring.settled().await;
    let (mut quick, gone) = (bench.ring.follower(), bench.ring.follower());
    bench.ring.settled().await;
    bench.ring.take(offer(1, 2)).unwrap();
    drop(gone);
    let mut settled = Box::pin(bench.ring.settled());
    assert!(futures_now(&mut settled).is_none(), "it has not looked yet");
    assert!(quick.changed().is_some() && quick.changed().is_none());
    assert!(futures_now(&mut settled).is_none(), "it has only looked");
    quick.taken_over();
    settled.await;
    assert!(bench.start(2));
    assert!(futures_now(&mut Box::pin(bench.ring.settled())).is_none());
    quick.changed();
    quick.taken_over();
    bench.ring.settled().await;
}

/// What the future says when it is asked once.
fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

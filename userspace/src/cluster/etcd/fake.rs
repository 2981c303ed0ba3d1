//! etcd in memory, with the faults that matter.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::kv::{Compare, Event, Kv, KvError, Look, Op, Pair, Span};
use crate::cluster::store::StoreMember;

/// What happens to the next transaction that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It never arrives.
    Lost,
    /// It is carried out, and its answer is lost.
    AnswerLost,
    /// As before, and the handle is cut off from then on.
    AnswerLostAndCut,
    /// It is carried out when the next one was, and its answer is lost.
    Late,
}

#[derive(Default)]
struct Inner {
    revision: i64,
    pairs: BTreeMap<String, (Vec<u8>, i64, Option<i64>)>,
    leases: HashMap<i64, ()>,
    watches: Vec<(String, String, mpsc::Sender<Vec<Event>>)>,
    faults: Vec<Fault>,
    late: Vec<(Vec<Compare>, Vec<Op>)>,
    down: bool,
    /// Watches are taken and tell nothing.
    mute: bool,
}

#[derive(Clone, Default)]
pub(crate) struct FakeKv {
    inner: Arc<Mutex<Inner>>,
    /// This handle alone is cut off.
    cut: Arc<AtomicBool>,
    pub(crate) reads: Arc<AtomicU64>,
    pub(crate) commits: Arc<AtomicU64>,
}

impl FakeKv {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// The same etcd, reached by another way.
    pub(crate) fn another(&self) -> Self {
        Self { cut: Arc::default(), ..self.clone() }
    }

    pub(crate) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    fn away(&self, inner: &Inner) -> Result<(), KvError> {
        let away = inner.down || self.cut.load(Ordering::Relaxed);
        if away { Err(KvError::Failed("nobody is there".into())) } else { Ok(()) }
    }

    pub(crate) fn fail_next(&self, faults: &[Fault]) {
        self.lock().faults = faults.to_vec();
    }

    pub(crate) fn set_down(&self, down: bool) {
        let mut inner = self.lock();
        inner.down = down;
        if down {
            inner.watches.clear();
        }
    }

    /// Watches tell nothing any more, or break.
    pub(crate) fn mute(&self, mute: bool) {
        self.lock().mute = mute;
    }

    pub(crate) fn break_watches(&self) {
        self.lock().watches.clear();
    }

    pub(crate) fn expire(&self, lease: i64) {
        let mut inner = self.lock();
        inner.leases.remove(&lease);
        let gone: Vec<String> =
            inner.pairs.iter().filter(|(_, v)| v.2 == Some(lease)).map(|(k, _)| k.clone()).collect();
        for key in gone {
            inner.delete(&key, None);
        }
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.lock().pairs.keys().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.lock().pairs.clear();
    }

    pub(crate) fn put(&self, key: &str, value: &str) {
        let mut inner = self.lock();
        inner.carry_out(&[], &[Op::Put(key.into(), value.into(), None)]);
    }
}

impl Inner {
    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Value(key, value) => self.pairs.get(key).is_some_and(|p| p.0 == *value),
            Compare::Absent(key) => !self.pairs.contains_key(key),
            Compare::Present(key) => self.pairs.contains_key(key),
            Compare::Revision(key, revision) => self.pairs.get(key).map_or(0, |p| p.1) == *revision,
        }
    }

    fn tell(&mut self, events: &[Event]) {
        if self.mute {
            return;
        }
        self.watches.retain(|(from, to, sender)| {
            let inside = |e: &&Event| {
                let (Event::Put(Pair { key, .. }) | Event::Deleted { key, .. }) = e;
                from <= key && key < to
            };
            let told: Vec<Event> = events.iter().filter(inside).cloned().collect();
            told.is_empty() || sender.try_send(told).is_ok()
        });
    }

    fn delete(&mut self, from: &str, to: Option<&str>) {
        let inside =
            |key: &&String| to.map_or(key.as_str() == from, |to| from <= key.as_str() && key.as_str() < to);
        let gone: Vec<String> = self.pairs.keys().filter(inside).cloned().collect();
        self.revision += 1;
        let revision = self.revision;
        let mut events = vec![];
        for key in gone {
            self.pairs.remove(&key);
            events.push(Event::Deleted { key, revision });
        }
        self.tell(&events);
    }

    fn carry_out(&mut self, compares: &[Compare], ops: &[Op]) -> bool {
        if !compares.iter().all(|c| self.holds(c)) {
            return false;
        }
        self.revision += 1;
        let revision = self.revision;
        let mut events = vec![];
        for op in ops {
            match op {
                Op::Put(key, value, lease) => {
                    assert!(value.len() < 3 << 19, "etcd's limit");
                    self.pairs.insert(key.clone(), (value.clone(), revision, *lease));
                    events.push(Event::Put(Pair { key: key.clone(), value: value.clone(), revision }));
                }
                Op::Delete(from, to) => self.delete(from, Some(to)),
            }
        }
        self.tell(&events);
        true
    }
}

fn down() -> KvError {
    KvError::Failed("nobody is there".into())
}

#[async_trait]
impl Kv for FakeKv {
    async fn read(&self, spans: Vec<Span>) -> Result<Look, KvError> {
        tokio::task::yield_now().await;
        self.reads.fetch_add(1, Ordering::Relaxed);
        let inner = self.lock();
        self.away(&inner)?;
        let spans = spans.iter().map(|span| {
            let inside = |key: &str| match &span.to {
                Some(to) => span.from.as_str() <= key && key < to.as_str(),
                None => span.from == key,
            };
            let limit = if span.limit == 0 { usize::MAX } else { span.limit as usize };
            let found = inner.pairs.iter().filter(|(key, _)| inside(key)).take(limit);
            let value = |v: &Vec<u8>| if span.keys_only { vec![] } else { v.clone() };
            found.map(|(key, v)| Pair { key: key.clone(), value: value(&v.0), revision: v.1 }).collect()
        });
        let spans = spans.collect();
        Ok(Look { revision: inner.revision, spans })
    }

    async fn commit(&self, compares: Vec<Compare>, ops: Vec<Op>) -> Result<bool, KvError> {
        // Others get between.
        tokio::task::yield_now().await;
        self.commits.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.lock();
        self.away(&inner)?;
        let fault = if inner.faults.is_empty() { None } else { Some(inner.faults.remove(0)) };
        match fault {
            None => {
                let done = inner.carry_out(&compares, &ops);
                for (compares, ops) in std::mem::take(&mut inner.late) {
                    inner.carry_out(&compares, &ops);
                }
                Ok(done)
            }
            Some(Fault::Lost) => Err(down()),
            Some(fault @ (Fault::AnswerLost | Fault::AnswerLostAndCut)) => {
                inner.carry_out(&compares, &ops);
                self.cut(fault == Fault::AnswerLostAndCut);
                Err(down())
            }
            Some(Fault::Late) => {
                inner.late.push((compares, ops));
                Err(down())
            }
        }
    }

    async fn watch(&self, from: String, to: String) -> Result<mpsc::Receiver<Vec<Event>>, KvError> {
        let mut inner = self.lock();
        self.away(&inner)?;
        let (sender, receiver) = mpsc::channel(64);
        inner.watches.push((from, to, sender));
        Ok(receiver)
    }

    async fn grant(&self, _: Duration) -> Result<i64, KvError> {
        let mut inner = self.lock();
        self.away(&inner)?;
        inner.revision += 1;
        let lease = inner.revision;
        inner.leases.insert(lease, ());
        Ok(lease)
    }

    async fn keep_alive(&self, lease: i64) -> Result<bool, KvError> {
        let inner = self.lock();
        self.away(&inner)?;
        Ok(inner.leases.contains_key(&lease))
    }

    async fn members(&self) -> Vec<StoreMember> {
        vec![]
    }
}

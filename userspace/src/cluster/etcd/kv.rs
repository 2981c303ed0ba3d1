//! What is asked of etcd, as a trait, so that races, lost answers and broken watches can be made in tests.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::cluster::store::StoreMember;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KvError {
    /// It may have been carried out, or not. Worth another try.
    #[error("{0}")]
    Failed(String),
    /// It was not carried out, and will not be: no permission, no room, a wrong password.
    #[error("{0}")]
    Refused(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    /// Of etcd, when the key was changed last.
    pub(crate) revision: i64,
}

/// Keys from `from` up to `to` (exclusive), in order; `from` alone when there is no `to`.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) from: String,
    pub(crate) to: Option<String>,
    /// 0: all.
    pub(crate) limit: i64,
    pub(crate) keys_only: bool,
}

impl Span {
    pub(crate) fn key(key: String) -> Self {
        Self { from: key, to: None, limit: 0, keys_only: false }
    }

    pub(crate) fn range((from, to): (String, String), limit: i64) -> Self {
        Self { from, to: Some(to), limit, keys_only: false }
    }
}

/// All spans as they were at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) revision: i64,
    pub(crate) spans: Vec<Vec<Pair>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Compare {
    Value(String, Vec<u8>),
    Absent(String),
    Present(String),
    Revision(String, i64),
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// The key goes with the lease, if there is one.
    Put(String, Vec<u8>, Option<i64>),
    Delete(String, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Put(Pair),
    Deleted { key: String, revision: i64 },
}

#[async_trait]
pub(crate) trait Kv: Send + Sync + 'static {
    /// Linearizable: sees all that was committed before it was asked.
    async fn read(&self, spans: Vec<Span>) -> Result<Look, KvError>;

    /// Does all of `ops` if all of `compares` hold, else nothing and answers false. False also when an
    /// earlier try of this same call was carried out and its answer lost: whoever needs to know looks.
    async fn commit(&self, compares: Vec<Compare>, ops: Vec<Op>) -> Result<bool, KvError>;

    /// Tells of changes of the keys from now on, until the watch breaks.
    async fn watch(&self, from: String, to: String) -> Result<mpsc::Receiver<Vec<Event>>, KvError>;

    async fn grant(&self, ttl: Duration) -> Result<i64, KvError>;

    /// Whether the lease is still there, renewed.
    async fn keep_alive(&self, lease: i64) -> Result<bool, KvError>;

    /// The members of etcd that this node was told of.
    async fn members(&self) -> Vec<StoreMember>;
}

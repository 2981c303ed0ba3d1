//! [`Kv`] by etcd-client.
//!
//! One connection for each endpoint and no balancing: one endpoint is preferred until it fails, so that a
//! member which hangs costs one time-out, and the health of each can be told.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use etcd_client as etcd;
use etcd_client::{
    Client, CompareOp, ConnectOptions, DeleteOptions, EventType, GetOptions, PutOptions, WatchOptions,
};
use futures::future::join_all;
use tokio::{
    sync::{OnceCell, mpsc, watch},
    time::timeout,
};

use super::{
    kv::{Compare, Event, Kv, KvError, Look, Op, Pair, Span},
    log::LONGEST_ANSWER,
};
use crate::{
    cluster::store::{StoreError, StoreMember},
    config::StoreConfig,
};

/// How long one member may take. An election among them takes longer: then the next try is answered.
const TRY: Duration = Duration::from_secs(1);

/// For a health check.
const GLANCE: Duration = Duration::from_millis(800);

/// etcd refuses pings that come more often than every five seconds.
const PING: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(2));

/// Batches of events that may wait to be taken.
const QUEUE: usize = 64;

struct Endpoint {
    url: String,
    client: OnceCell<Client>,
}

pub(crate) struct EtcdKv {
    endpoints: Arc<Vec<Endpoint>>,
    options: ConnectOptions,
    /// Rises when another endpoint is preferred; modulo their number it is the endpoint.
    preferred: watch::Sender<usize>,
    /// Tells watches apart in the log.
    watches: AtomicUsize,
}

type Error = (bool, String);

fn read_file(key: &str, path: &Path) -> Result<String, StoreError> {
    std::fs::read_to_string(path).map_err(|e| {
        StoreError::Etcd(format!("cannot read {} (store.{key} in node.toml): {e}", path.display()))
    })
}

fn options(config: &StoreConfig) -> Result<ConnectOptions, StoreError> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(TRY)
        .with_keep_alive(PING.0, PING.1)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true);
    if let Some(path) = &config.user_file {
        let text = read_file("user-file", path)?;
        let (name, password) = text.trim_end_matches(['\r', '\n']).split_once(':').ok_or_else(|| {
            StoreError::Etcd(format!(
                "{} (store.user-file in node.toml) has no line NAME:PASSWORD",
                path.display()
            ))
        })?;
        options = options.with_user(name, password).with_auto_token_refresh(true);
    }
    if config.endpoints.iter().any(|e| e.starts_with("https://")) {
        let mut tls = etcd::TlsOptions::new();
        if let Some(ca) = &config.ca {
            tls = tls.ca_certificate(etcd::Certificate::from_pem(read_file("ca", ca)?));
        }
        if let (Some(cert), Some(key)) = (&config.cert, &config.key) {
            tls = tls.identity(etcd::Identity::from_pem(read_file("cert", cert)?, read_file("key", key)?));
        }
        options = options.with_tls(tls);
    }
    Ok(options)
}

impl EtcdKv {
    /// Connects when it is first needed.
    pub(crate) fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        let endpoint = |url: &String| Endpoint { url: url.clone(), client: OnceCell::new() };
        Ok(Self {
            endpoints: Arc::new(config.endpoints.iter().map(endpoint).collect()),
            options: options(config)?,
            preferred: watch::Sender::default(),
            watches: AtomicUsize::new(0),
        })
    }

    async fn client(&self, endpoint: &Endpoint) -> Result<Client, Error> {
        let connect = || Client::connect([endpoint.url.as_str()], Some(self.options.clone()));
        endpoint.client.get_or_try_init(connect).await.cloned().map_err(explain)
    }

    /// Asks one endpoint after another, the preferred one first, until one has an answer.
    async fn ask<T, F>(&self, request: impl Fn(Client) -> F) -> Result<T, KvError>
    where
        F: Future<Output = Result<T, etcd::Error>>,
    {
        let start = *self.preferred.borrow();
        let mut reasons = Vec::new();
        for at in start..start + self.endpoints.len() {
            let endpoint = &self.endpoints[at % self.endpoints.len()];
            let work = async { request(self.client(endpoint).await?).await.map_err(explain) };
            let (refused, reason) = match timeout(TRY, work).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => (false, format!("no answer within {TRY:?}")),
            };
            if refused {
                return Err(KvError::Refused(reason));
            }
            // Unless somebody else has moved on already.
            self.preferred.send_if_modified(|p| {
                let moved = *p == at;
                if moved {
                    *p = at + 1;
                }
                moved
            });
            reasons.push(format!("{}: {reason}", endpoint.url));
        }
        Err(KvError::Failed(reasons.join("; ")))
    }
}

/// Whether another try is useless, and the reason.
fn explain(error: etcd::Error) -> Error {
    let etcd::Error::GRpcStatus(status) = &error else { return (false, error.to_string()) };
    // gRPC's numbers, which never change: invalid argument, permission denied, resource exhausted,
    // failed precondition, unauthenticated.
    let code = i32::from(status.code());
    let busy = status.message().contains("too many requests") || status.message().contains("not capable");
    let refused = matches!(code, 3 | 7 | 8 | 9 | 16) && !busy;
    let mut reason = status.message().to_owned();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(status);
    while let Some(inner) = cause {
        reason = inner.to_string();
        cause = inner.source();
    }
    (refused, reason)
}

fn pair(kv: &etcd::KeyValue) -> Pair {
    let key = String::from_utf8_lossy(kv.key()).into_owned();
    Pair { key, value: kv.value().to_vec(), revision: kv.mod_revision() }
}

fn get(span: &Span) -> etcd::TxnOp {
    let mut options = GetOptions::new().with_limit(span.limit);
    if let Some(to) = &span.to {
        options = options.with_range(to.as_str());
    }
    if span.keys_only {
        options = options.with_keys_only();
    }
    etcd::TxnOp::get(span.from.as_str(), Some(options))
}

fn compare(compare: &Compare) -> etcd::Compare {
    match compare {
        Compare::Value(key, value) => etcd::Compare::value(key.as_str(), CompareOp::Equal, value.clone()),
        Compare::Absent(key) => etcd::Compare::version(key.as_str(), CompareOp::Equal, 0),
        Compare::Present(key) => etcd::Compare::version(key.as_str(), CompareOp::Greater, 0),
        Compare::Revision(key, revision) => {
            etcd::Compare::mod_revision(key.as_str(), CompareOp::Equal, *revision)
        }
    }
}

fn operation(op: &Op) -> etcd::TxnOp {
    match op {
        Op::Put(key, value, lease) => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease));
            etcd::TxnOp::put(key.as_str(), value.clone(), options)
        }
        Op::Delete(from, to) => {
            etcd::TxnOp::delete(from.as_str(), Some(DeleteOptions::new().with_range(to.as_str())))
        }
    }
}

#[async_trait]
impl Kv for EtcdKv {
    async fn read(&self, spans: Vec<Span>) -> Result<Look, KvError> {
        let txn = etcd::Txn::new().and_then(spans.iter().map(get).collect::<Vec<_>>());
        let answer = self
            .ask(|client| {
                let txn = txn.clone();
                async move { client.kv_client().max_decoding_message_size(LONGEST_ANSWER).txn(txn).await }
            })
            .await?;
        let spans = answer.op_responses().into_iter().map(|response| match response {
            etcd::TxnOpResponse::Get(found) => found.kvs().iter().map(pair).collect(),
            _ => vec![],
        });
        let revision = answer.header().map_or(0, etcd::ResponseHeader::revision);
        Ok(Look { revision, spans: spans.collect() })
    }

    async fn commit(&self, compares: Vec<Compare>, ops: Vec<Op>) -> Result<bool, KvError> {
        let txn = etcd::Txn::new()
            .when(compares.iter().map(compare).collect::<Vec<_>>())
            .and_then(ops.iter().map(operation).collect::<Vec<_>>());
        let answer = self
            .ask(|client| {
                let txn = txn.clone();
                async move { client.kv_client().txn(txn).await }
            })
            .await?;
        Ok(answer.succeeded())
    }

    async fn watch(&self, from: String, to: String) -> Result<mpsc::Receiver<Vec<Event>>, KvError> {
        let mut preferred = self.preferred.subscribe();
        let mut stream = self
            .ask(|client| {
                let options = WatchOptions::new().with_range(to.as_str());
                let from = from.clone();
                async move {
                    let mut client = client.watch_client().max_decoding_message_size(LONGEST_ANSWER);
                    let mut stream = client.watch(from, Some(options)).await?;
                    // The first message says that it has begun.
                    match stream.message().await? {
                        Some(first) if !first.canceled() => Ok(stream),
                        Some(first) => Err(etcd::Error::WatchError(first.cancel_reason().to_owned())),
                        None => Err(etcd::Error::WatchError("it ended at once".into())),
                    }
                }
            })
            .await?;
        preferred.borrow_and_update();
        let number = self.watches.fetch_add(1, Ordering::Relaxed);
        let (events, taken) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = stream.message() => message,
                    // A member that no longer answers might never tell anything any more.
                    _ = preferred.changed() => break,
                    () = events.closed() => break,
                };
                let message = match message {
                    Ok(Some(message)) if !message.canceled() => message,
                    Ok(Some(message)) => {
                        break tracing::debug!("watch {number} ended: {}", message.cancel_reason());
                    }
                    Ok(None) => break tracing::debug!("watch {number} ended"),
                    Err(e) => break tracing::debug!("watch {number} broke: {e}"),
                };
                let told = message.events().iter().filter_map(|event| {
                    let kv = pair(event.kv()?);
                    Some(match event.event_type() {
                        EventType::Put => Event::Put(kv),
                        EventType::Delete => Event::Deleted { key: kv.key, revision: kv.revision },
                    })
                });
                if events.send(told.collect()).await.is_err() {
                    break;
                }
            }
        });
        Ok(taken)
    }

    async fn grant(&self, ttl: Duration) -> Result<i64, KvError> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let answer =
            self.ask(|client| async move { client.lease_client().grant(seconds, None).await }).await?;
        Ok(answer.id())
    }

    async fn keep_alive(&self, lease: i64) -> Result<bool, KvError> {
        self.ask(|client| async move {
            let (mut keeper, mut answers) = client.lease_client().keep_alive(lease).await?;
            keeper.keep_alive().await?;
            Ok(answers.message().await?.is_some_and(|answer| answer.ttl() > 0))
        })
        .await
    }

    async fn members(&self) -> Vec<StoreMember> {
        let look = |endpoint| async move { self.glance(endpoint).await };
        join_all(self.endpoints.iter().map(look)).await
    }
}

impl EtcdKv {
    async fn glance(&self, endpoint: &Endpoint) -> StoreMember {
        let work = async {
            let client = self.client(endpoint).await?;
            client.maintenance_client().status().await.map_err(explain)
        };
        let mut member = StoreMember { endpoint: endpoint.url.clone(), ..StoreMember::default() };
        match timeout(GLANCE, work).await {
            Ok(Ok(status)) => {
                let id = status.header().map_or(0, etcd::ResponseHeader::member_id);
                member.state = match status.leader() {
                    0 => "no leader".to_owned(),
                    leader if leader == id => "leader".to_owned(),
                    _ => "follower".to_owned(),
                };
                member.healthy = status.leader() != 0;
                member.version = status.version().to_owned();
                member.bytes = u64::try_from(status.db_size()).unwrap_or(0);
                member.trouble = status.errors().join(", ");
            }
            Ok(Err((_, reason))) if reason.contains("no leader") => {
                (member.state, member.trouble) = ("no leader".to_owned(), reason);
            }
            Ok(Err((_, reason))) => (member.state, member.trouble) = ("unreachable".to_owned(), reason),
            Err(_) => {
                (member.state, member.trouble) =
                    ("unreachable".to_owned(), format!("no answer within {GLANCE:?}"));
            }
        }
        member
    }
}

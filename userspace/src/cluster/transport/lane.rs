//! One connection to one peer, kept and made again as needed. Many requests may be under way.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream, tcp::OwnedWriteHalf},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, Interval, interval, timeout},
};

use super::{
    frame::{Kind, Message},
    keys::no_longer,
    noise::{self, Credentials, LinkError, Writer},
    quiet::Quiet,
};
use crate::{
    config::Timing,
    model::{KeyGeneration, NodeId},
};

/// How long a peer is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// To connect, handshake included.
    pub(crate) connect: Duration,
    /// For a sign of life while an answer is due.
    pub(crate) silence: Duration,
    /// Before the next attempt, least and most.
    pub(crate) retry: (Duration, Duration),
}

impl Patience {
    /// In the order of Raft's heartbeats: a peer is found again before an election is over.
    pub(crate) fn of(timing: &Timing) -> Self {
        let beat = timing.raft_heartbeat;
        Self {
            connect: (beat * 2).max(Duration::from_millis(100)),
            silence: (beat * 3).max(Duration::from_millis(150)),
            retry: (beat / 4, beat * 2),
        }
    }

    /// Whoever takes long messages may be slow to show that he lives.
    pub(crate) fn for_bulk(self) -> Self {
        Self { silence: self.silence.max(Duration::from_secs(2)), ..self }
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PeerError {
    /// It was not sent.
    #[error("node at {address} cannot be reached: {reason}")]
    Unreachable { address: String, reason: String },
    /// It was sent, and may have been carried out.
    #[error("node at {address} did not answer '{request}': {reason}")]
    Unanswered { address: String, request: &'static str, reason: String },
    #[error("node {0} has no known address")]
    Unknown(NodeId),
}

impl PeerError {
    /// The peer may have done what was asked.
    pub fn maybe_done(&self) -> bool {
        matches!(self, Self::Unanswered { .. })
    }
}

pub(crate) struct Call {
    pub(crate) request: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) answer: oneshot::Sender<Result<Vec<u8>, PeerError>>,
}

/// What a lane needs to know.
#[derive(Clone)]
pub(crate) struct Lane {
    pub(crate) node: NodeId,
    pub(crate) address: String,
    /// This node's own address; unspecified where the kernel may choose.
    pub(crate) from: IpAddr,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) patience: Patience,
    pub(crate) quiet: Arc<Quiet>,
}

/// From the node's own address: a virtual one, which the kernel may prefer, goes elsewhere one day, and while
/// its gate is shut nothing leaves in its name.
async fn connect(from: IpAddr, to: &str) -> io::Result<TcpStream> {
    let to: SocketAddr = to.parse().map_err(io::Error::other)?;
    if from.is_unspecified() || from.is_ipv4() != to.is_ipv4() {
        return TcpStream::connect(to).await;
    }
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// More requests without an answer than any sound peer leaves.
const MOST_WAITING: usize = 1024;

type Waiting = HashMap<u64, Call>;

/// A connection, and under which key it was made.
type Made = (noise::Seal, KeyGeneration);

impl Lane {
    /// Serves until the other end of `calls` is gone.
    pub(crate) async fn run(self, mut calls: mpsc::Receiver<Call>) {
        let mut pause = self.patience.retry.0;
        let mut blocked: Option<(Instant, String)> = None;
        while let Some(first) = calls.recv().await {
            if let Some((until, reason)) = &blocked
                && Instant::now() < *until
            {
                self.refuse(first, reason);
                continue;
            }
            let reason = match timeout(self.patience.connect, self.connect()).await {
                Ok(Ok((stream, made))) => {
                    if blocked.take().is_some() {
                        tracing::info!("node {} at {} is reachable again", self.node, self.address);
                    }
                    pause = self.patience.retry.0;
                    let reason = self.session(stream, made, first, &mut calls).await;
                    tracing::debug!("connection to {} ended: {reason}", self.address);
                    continue;
                }
                Ok(Err(e)) => e.to_string(),
                Err(_) => LinkError::Timeout.to_string(),
            };
            let kind = format!("{} {reason}", self.address);
            let text = format!("node {} at {} cannot be reached: {reason}", self.node, self.address);
            self.quiet.warn(&kind, &text);
            self.refuse(first, &reason);
            // What queued up meanwhile would only fail later.
            while let Ok(call) = calls.try_recv() {
                self.refuse(call, &reason);
            }
            blocked = Some((Instant::now() + pause, reason));
            pause = (pause * 2).min(self.patience.retry.1);
        }
    }

    fn refuse(&self, call: Call, reason: &str) {
        let error = PeerError::Unreachable { address: self.address.clone(), reason: reason.to_owned() };
        // The caller may have given up: then nobody needs to know.
        let _ = call.answer.send(Err(error));
    }

    async fn connect(&self) -> Result<(TcpStream, Made), LinkError> {
        let mut stream = connect(self.from, &self.address).await?;
        stream.set_nodelay(true)?;
        let made = noise::call(&mut stream, &self.credentials, self.node).await?;
        Ok((stream, made))
    }

    /// Carries requests and answers until the connection fails; says why it did.
    async fn session(
        &self,
        stream: TcpStream,
        (seal, generation): Made,
        first: Call,
        calls: &mut mpsc::Receiver<Call>,
    ) -> String {
        let (read, write) = stream.into_split();
        let began = Instant::now();
        let heard = Arc::new(AtomicU64::new(0));
        let (answers, incoming) = mpsc::channel(16);
        let mut reader = seal.reader(read);
        let note = heard.clone();
        let reading = tokio::spawn(async move {
            let since = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            loop {
                let message = reader.receive(|| note.store(since(), Ordering::Relaxed)).await;
                let ended = message.is_err();
                if answers.send(message).await.is_err() || ended {
                    return;
                }
            }
        });
        let mut link = Link {
            lane: self.clone(),
            writer: seal.writer(write),
            waiting: Waiting::new(),
            waiting_since: began,
            next: 0,
            began,
            heard,
            incoming,
            reading,
            tick: interval(self.patience.silence / 4),
        };
        // A short message first proves to the peer that this is no repetition of another's handshake.
        let mut end = match link.ping().await {
            Ok(()) => link.send(first).await.err(),
            Err(e) => {
                self.refuse(first, &e.to_string());
                Some(e)
            }
        };
        let mut keys = self.credentials.keys.clone();
        while end.is_none() {
            end = tokio::select! {
                () = no_longer(&mut keys, |k| k.current.generation == generation) => {
                    // What is under way is answered; what comes goes over a connection under the new key.
                    tokio::spawn(link.drain(generation));
                    return "the cluster's key was changed".into();
                }
                call = calls.recv() => match call {
                    Some(call) => link.send(call).await.err(),
                    None => Some(LinkError::Closed),
                },
                next = link.next() => link.handle(next).await.err(),
            };
        }
        link.close(end)
    }
}

/// What a connection has to deal with.
enum Next {
    Came(Result<Message, LinkError>),
    /// It is time to look whether the peer lives.
    Look,
}

struct Link {
    lane: Lane,
    writer: Writer<OwnedWriteHalf>,
    /// Those whose caller has given up too: their silence tells as much about the peer.
    waiting: Waiting,
    /// When an answer began to be due.
    waiting_since: Instant,
    next: u64,
    began: Instant,
    /// When the peer was heard last, in milliseconds since then.
    heard: Arc<AtomicU64>,
    incoming: mpsc::Receiver<Result<Message, LinkError>>,
    reading: JoinHandle<()>,
    tick: Interval,
}

impl Link {
    /// May be cancelled: nothing is lost.
    async fn next(&mut self) -> Next {
        tokio::select! {
            message = self.incoming.recv() => Next::Came(message.unwrap_or(Err(LinkError::Closed))),
            _ = self.tick.tick() => Next::Look,
        }
    }

    /// Not to be cancelled.
    async fn handle(&mut self, next: Next) -> Result<(), LinkError> {
        match next {
            Next::Came(message) => self.receive(message?),
            Next::Look => {
                let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
                self.check(self.began + heard).await
            }
        }
    }

    /// Waits for the answers that are due, while the key of this connection is accepted.
    async fn drain(mut self, generation: KeyGeneration) {
        let mut keys = self.lane.credentials.keys.clone();
        let mut end = None;
        while end.is_none() && !self.waiting.is_empty() {
            end = tokio::select! {
                () = no_longer(&mut keys, |k| k.accepts(generation)) => Some(LinkError::OldKey),
                next = self.next() => self.handle(next).await.err(),
            };
        }
        self.close(end);
    }

    fn close(mut self, end: Option<LinkError>) -> String {
        self.reading.abort();
        let reason = end.map_or_else(String::new, |e| e.to_string());
        self.fail(&reason);
        reason
    }

    async fn send(&mut self, mut call: Call) -> Result<(), LinkError> {
        if call.answer.is_closed() {
            return Ok(());
        }
        if self.waiting.len() >= MOST_WAITING {
            self.lane.refuse(call, "too many requests wait for it");
            return Err(LinkError::Timeout);
        }
        if self.waiting.is_empty() {
            self.waiting_since = Instant::now();
        }
        self.next += 1;
        let body = std::mem::take(&mut call.body);
        self.waiting.insert(self.next, call);
        let message = Message { kind: Kind::Request, id: self.next, body };
        self.writer.send(&message, self.lane.patience.silence).await
    }

    fn receive(&mut self, message: Message) -> Result<(), LinkError> {
        match message.kind {
            Kind::Answer => {
                if let Some(call) = self.waiting.remove(&message.id) {
                    let _ = call.answer.send(Ok(message.body));
                }
                Ok(())
            }
            Kind::Pong => Ok(()),
            Kind::Request | Kind::Ping => {
                Err(LinkError::Nonsense("a request where an answer belongs".into()))
            }
        }
    }

    /// Asks a silent peer for a sign of life; gives it up when there is none.
    async fn check(&mut self, heard: Instant) -> Result<(), LinkError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let silent = heard.max(self.waiting_since).elapsed();
        if silent >= self.lane.patience.silence {
            return Err(LinkError::Timeout);
        }
        if silent >= self.lane.patience.silence / 4 {
            self.ping().await?;
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), LinkError> {
        let ping = Message { kind: Kind::Ping, id: 0, body: Vec::new() };
        self.writer.send(&ping, self.lane.patience.silence).await
    }

    fn fail(&mut self, reason: &str) {
        for (_, call) in self.waiting.drain() {
            let error = PeerError::Unanswered {
                address: self.lane.address.clone(),
                request: call.request,
                reason: reason.to_owned(),
            };
            let _ = call.answer.send(Err(error));
        }
    }
}

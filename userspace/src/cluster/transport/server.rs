//! The answerer's side: one listener for all peers.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    frame::{Kind, Message},
    keys::no_longer,
    message::{PeerAnswer, PeerRequest, decode},
    noise::{self, Credentials, LinkError},
    quiet::Quiet,
    strangers::{Stranger, Strangers},
};
use crate::model::{KeyGeneration, NodeId};

/// Carries requests out.
#[async_trait]
pub(crate) trait Handler: Send + Sync + 'static {
    /// `from`: what the peer says it is; it has the cluster's key, so it is believed.
    async fn handle(&self, from: NodeId, request: PeerRequest) -> PeerAnswer;
}

/// Connections that may be without proof of the key at a time; peers have room apart.
const STRANGERS: usize = 64;
const PEERS: usize = 256;
/// Requests of one connection that are carried out at a time; beyond that its sender has to wait.
const AT_A_TIME: usize = 64;
/// To prove that one has the key.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// A peer that neither asks nor takes anything for so long is gone.
const IDLE: Duration = Duration::from_secs(120);
const WRITE: Duration = Duration::from_secs(5);
/// Between signs of life while a long message arrives; less than any caller's patience.
const ALIVE: Duration = Duration::from_millis(25);

/// Listens where peers will call, also right after another life of this daemon did.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

/// The connection, who called, and under which key.
type Welcomed = (noise::Seal, NodeId, KeyGeneration);

struct Server<H> {
    credentials: Arc<Credentials>,
    handler: Arc<H>,
    quiet: Quiet,
    strangers: Arc<Strangers>,
    peers: Arc<Semaphore>,
    stop: CancellationToken,
}

/// Serves until `stop` is cancelled; then all connections are closed.
pub(crate) async fn serve<H: Handler>(
    listener: TcpListener,
    credentials: Arc<Credentials>,
    handler: Arc<H>,
    stop: CancellationToken,
) {
    let server = Arc::new(Server {
        credentials,
        handler,
        quiet: Quiet::default(),
        strangers: Arc::default(),
        peers: Arc::new(Semaphore::new(PEERS)),
        stop: stop.clone(),
    });
    stop.run_until_cancelled(server.accept(listener)).await;
}

impl<H: Handler> Server<H> {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let (stranger, full) = self.strangers.enter(STRANGERS);
                    if full {
                        self.quiet
                            .warn("strangers", &format!("many calls without the key, the last by {from}"));
                    }
                    let server = self.clone();
                    tokio::spawn(async move {
                        let out = stranger.out.clone();
                        let connection = server.connection(stream, from.ip(), stranger);
                        let connection = out.run_until_cancelled(connection);
                        server.stop.run_until_cancelled(connection).await;
                    });
                }
                Err(e) => {
                    // Out of descriptors, most likely: others must have the chance to end.
                    self.quiet.warn("accept", &format!("a peer's call could not be taken: {e}"));
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(&self, mut stream: TcpStream, from: IpAddr, stranger: Stranger) {
        let end = match timeout(HANDSHAKE, self.welcome(&mut stream)).await {
            Ok(Ok(welcomed)) => self.session(stream, welcomed, stranger).await,
            Ok(Err(e)) => e,
            Err(_) => LinkError::Timeout,
        };
        match end {
            LinkError::Closed => {}
            e @ LinkError::OldKey => tracing::debug!("connection from {from} ended: {e}"),
            LinkError::Io(e) => tracing::debug!("connection from {from} ended: {e}"),
            e => self.quiet.warn(&format!("{from} {e}"), &format!("connection from {from} refused: {e}")),
        }
    }

    async fn welcome(&self, stream: &mut TcpStream) -> Result<Welcomed, LinkError> {
        stream.set_nodelay(true)?;
        noise::answer(stream, &self.credentials).await
    }

    async fn session(
        &self,
        stream: TcpStream,
        (seal, node, generation): Welcomed,
        stranger: Stranger,
    ) -> LinkError {
        let mut keys = self.credentials.keys.clone();
        let (read, write) = stream.into_split();
        let mut reader = seal.reader(read);
        let mut writer = seal.writer(write);
        let (out, mut queue) = mpsc::channel::<Message>(AT_A_TIME);
        let closed = CancellationToken::new();
        let close = closed.clone();
        tokio::spawn(async move {
            while let Some(message) = queue.recv().await {
                if writer.send(&message, WRITE).await.is_err() {
                    break;
                }
            }
            close.cancel();
        });
        let room = Arc::new(Semaphore::new(AT_A_TIME));
        // Whoever repeats another's handshake cannot seal a first message: only then is it a peer.
        let mut wait = HANDSHAKE;
        let mut stranger = Some(stranger);
        let mut peer = None;
        let mut shown = Instant::now();
        loop {
            // While a long message arrives, whoever sends it sees that it is being taken.
            let alive = || {
                if shown.elapsed() >= ALIVE {
                    shown = Instant::now();
                    // When there is no room, answers are on their way that show the same.
                    let _ = out.try_send(Message { kind: Kind::Pong, id: 0, body: Vec::new() });
                }
            };
            let message = tokio::select! {
                biased;
                () = no_longer(&mut keys, |k| k.lets_in(node, generation)) => return LinkError::OldKey,
                () = closed.cancelled() => return LinkError::Closed,
                message = timeout(wait, reader.receive(alive)) => match message {
                    Ok(Ok(message)) => message,
                    Ok(Err(e)) => return e,
                    Err(_) => return LinkError::Closed,
                },
            };
            wait = IDLE;
            if stranger.take().is_some() {
                peer = self.peers.clone().try_acquire_owned().ok();
            }
            if peer.is_none() {
                return LinkError::Crowded;
            }
            match message.kind {
                Kind::Request => {}
                Kind::Ping => {
                    let pong = Message { kind: Kind::Pong, ..message };
                    if out.send(pong).await.is_err() {
                        return LinkError::Closed;
                    }
                    continue;
                }
                Kind::Answer | Kind::Pong => {
                    return LinkError::Nonsense("an answer where a request belongs".into());
                }
            }
            let Ok(permit) = room.clone().acquire_owned().await else { return LinkError::Closed };
            let (handler, out, stop) = (self.handler.clone(), out.clone(), self.stop.clone());
            tokio::spawn(async move {
                let work = async {
                    let answer = match decode::<PeerRequest>(message.body).await {
                        Ok(request) => handler.handle(node, request).await,
                        Err(e) => {
                            PeerAnswer::Failed { reason: format!("the request makes no sense here: {e}") }
                        }
                    };
                    match serde_json::to_vec(&answer) {
                        Ok(body) => {
                            let answer = Message { kind: Kind::Answer, id: message.id, body };
                            // The connection may be gone: then the caller knows already.
                            let _ = out.send(answer).await;
                        }
                        Err(e) => tracing::error!("an answer to node {node} cannot be encoded: {e}"),
                    }
                };
                stop.run_until_cancelled(work).await;
                drop(permit);
            });
        }
    }
}

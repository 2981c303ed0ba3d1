//! Encrypted, authenticated connections: Noise_NNpsk0 under the cluster's key.
//!
//! ```text
//! caller:   "vipd" | version u8 | cluster id [16] | length u16 | Noise: psk, e, {from, to}
//! answerer: verdict u8 | length u16 | Noise: e, ee
//! then both: length u16 | Noise message, without end
//! ```
//!
//! The clear part exists so that a wrong address, release, cluster or key each get an error that says
//! so. It is bound into the handshake as its prologue.

use std::{io, sync::Arc, time::Duration};

use snow::{Builder, HandshakeState, StatelessTransportState};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    task::yield_now,
    time::timeout,
};

use super::frame::{self, Assembler, FrameError, Message};
use crate::{
    cluster::{
        identity::ClusterId,
        keyring::{Keys, NumberedKey},
        raft::ANY_NODE,
    },
    model::{KeyGeneration, NodeId},
};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const GREETING: &[u8; 4] = b"vipd";
const VERSION: u8 = 1;
/// No handshake message is longer.
const LONGEST_HANDSHAKE: usize = 256;

/// Who is who on a connection that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) id: ClusterId,
    /// As they are now: they may change while connections stand.
    pub(crate) keys: watch::Receiver<Keys>,
    /// This node; [`ANY_NODE`] before it has a number.
    pub(crate) me: NodeId,
}

impl Credentials {
    /// With keys that never change.
    pub(crate) fn fixed(id: ClusterId, keys: Keys, me: NodeId) -> Self {
        Self { id, keys: watch::channel(keys).1, me }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("what answers there is not vipd")]
    NotVipd,
    #[error("the peer runs another release of vipd: use the same on all nodes")]
    Version,
    #[error("the peer is in another cluster")]
    OtherCluster,
    #[error("the cluster keys differ: get a fresh token with 'vipctl cluster token' on a member")]
    WrongKey,
    #[error("it was made under a cluster key that is not accepted any more")]
    OldKey,
    #[error("another node answers there: check the rpc addresses of the nodes")]
    OtherNode,
    #[error("too many connections")]
    Crowded,
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer sent nonsense: {0}")]
    Nonsense(String),
}

impl From<snow::Error> for LinkError {
    fn from(e: snow::Error) -> Self {
        Self::Nonsense(e.to_string())
    }
}

impl From<FrameError> for LinkError {
    fn from(e: FrameError) -> Self {
        Self::Nonsense(e.to_string())
    }
}

/// The answerer's verdict on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Verdict {
    Welcome = 0,
    Version = 1,
    OtherCluster = 2,
    WrongKey = 3,
    OtherNode = 4,
}

fn hello(id: ClusterId) -> Vec<u8> {
    [&GREETING[..], &[VERSION], &id.0].concat()
}

fn handshake(id: ClusterId, key: &NumberedKey, caller: bool) -> Result<HandshakeState, LinkError> {
    let prologue = hello(id);
    let params = PATTERN.parse().map_err(|_| LinkError::Nonsense("unknown Noise pattern".into()))?;
    let builder = Builder::new(params).prologue(&prologue)?.psk(0, &key.key.0)?;
    Ok(if caller { builder.build_initiator()? } else { builder.build_responder()? })
}

/// Calls `to` over a fresh stream, under the cluster's present key; says which that was.
pub(crate) async fn call<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credentials: &Credentials,
    to: NodeId,
) -> Result<(Seal, KeyGeneration), LinkError> {
    let key = credentials.keys.borrow().current.clone();
    let mut noise = handshake(credentials.id, &key, true)?;
    let mut out = hello(credentials.id);
    let mut buffer = [0; LONGEST_HANDSHAKE];
    let who = [credentials.me.to_be_bytes(), to.to_be_bytes()].concat();
    let length = noise.write_message(&who, &mut buffer)?;
    out.extend((length as u16).to_be_bytes());
    out.extend(&buffer[..length]);
    stream.write_all(&out).await?;
    let mut head = [0; 3];
    match stream.read_exact(&mut head).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(LinkError::NotVipd),
        result => result?,
    };
    match head[0] {
        0 => {}
        1 => return Err(LinkError::Version),
        2 => return Err(LinkError::OtherCluster),
        3 => return Err(LinkError::WrongKey),
        4 => return Err(LinkError::OtherNode),
        _ => return Err(LinkError::NotVipd),
    }
    let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
    let message = buffer.get_mut(..length).ok_or(LinkError::NotVipd)?;
    stream.read_exact(message).await?;
    noise.read_message(message, &mut [0; LONGEST_HANDSHAKE]).map_err(|_| LinkError::WrongKey)?;
    Ok((Seal::new(noise.into_stateless_transport_mode()?), key.generation))
}

/// A handshake under a key, and what the caller says.
type Heard<'a> = (HandshakeState, KeyGeneration, &'a [u8]);

/// The state after the caller's message, under the first key that fits it.
fn read_hello<'a>(
    credentials: &Credentials,
    keys: &Keys,
    message: &[u8],
    payload: &'a mut [u8],
) -> Result<Option<Heard<'a>>, LinkError> {
    for key in keys.accepted() {
        let mut noise = handshake(credentials.id, key, false)?;
        if let Ok(length) = noise.read_message(message, payload) {
            return Ok(Some((noise, key.generation, &payload[..length])));
        }
    }
    Ok(None)
}

/// Answers a call; says who called, and under which key. Whoever has no number yet is let in only under a key
/// that tokens are printed for, or will be.
pub(crate) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credentials: &Credentials,
) -> Result<(Seal, NodeId, KeyGeneration), LinkError> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    if !head.starts_with(GREETING) {
        return Err(LinkError::NotVipd);
    }
    if head[4] != VERSION {
        refuse(stream, Verdict::Version).await?;
        return Err(LinkError::Version);
    }
    let mut rest = [0; 18];
    stream.read_exact(&mut rest).await?;
    if rest[..16] != credentials.id.0 {
        refuse(stream, Verdict::OtherCluster).await?;
        return Err(LinkError::OtherCluster);
    }
    let length = usize::from(u16::from_be_bytes([rest[16], rest[17]]));
    let mut buffer = [0; LONGEST_HANDSHAKE];
    let message = buffer.get_mut(..length).ok_or_else(|| LinkError::Nonsense("a long handshake".into()))?;
    stream.read_exact(message).await?;
    let keys = credentials.keys.borrow().clone();
    let mut payload = [0; LONGEST_HANDSHAKE];
    let Some((mut noise, generation, who)) = read_hello(credentials, &keys, message, &mut payload)? else {
        refuse(stream, Verdict::WrongKey).await?;
        return Err(LinkError::WrongKey);
    };
    let number = |at: usize| who.get(at..at + 8)?.try_into().ok().map(NodeId::from_be_bytes);
    let (Some(from), Some(to)) = (number(0), number(8)) else {
        return Err(LinkError::Nonsense("a handshake without node numbers".into()));
    };
    if !keys.lets_in(from, generation) {
        refuse(stream, Verdict::WrongKey).await?;
        return Err(LinkError::WrongKey);
    }
    if to != ANY_NODE && to != credentials.me {
        refuse(stream, Verdict::OtherNode).await?;
        return Err(LinkError::OtherNode);
    }
    let length = noise.write_message(&[], &mut buffer)?;
    let mut out = vec![Verdict::Welcome as u8];
    out.extend((length as u16).to_be_bytes());
    out.extend(&buffer[..length]);
    stream.write_all(&out).await?;
    Ok((Seal::new(noise.into_stateless_transport_mode()?), from, generation))
}

async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, verdict: Verdict) -> Result<(), LinkError> {
    stream.write_all(&[verdict as u8, 0, 0]).await?;
    // So that the verdict arrives although the rest of what was sent is not read.
    Ok(stream.shutdown().await?)
}

/// The keys of an established connection.
#[derive(Clone)]
pub(crate) struct Seal(Arc<StatelessTransportState>);

impl Seal {
    fn new(state: StatelessTransportState) -> Self {
        Self(Arc::new(state))
    }

    pub(crate) fn writer<W>(&self, stream: W) -> Writer<W> {
        Writer { stream, seal: self.clone(), nonce: 0 }
    }

    pub(crate) fn reader<R>(&self, stream: R) -> Reader<R> {
        Reader { stream, seal: self.clone(), nonce: 0, assembler: Assembler::default() }
    }
}

pub(crate) struct Writer<W> {
    stream: W,
    seal: Seal,
    nonce: u64,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Sends one message. `patience` is for each piece of it: a peer that takes nothing for so long
    /// is gone.
    pub(crate) async fn send(&mut self, message: &Message, patience: Duration) -> Result<(), LinkError> {
        let mut out = vec![0; 2 + frame::PIECE + 16];
        for piece in frame::pieces(message)? {
            let length = self.seal.0.write_message(self.nonce, &piece, &mut out[2..])?;
            self.nonce += 1;
            out[..2].copy_from_slice(&(length as u16).to_be_bytes());
            timeout(patience, self.stream.write_all(&out[..2 + length]))
                .await
                .map_err(|_| LinkError::Timeout)??;
            // Sealing is work: others of this thread get their turn between the pieces.
            yield_now().await;
        }
        Ok(())
    }
}

pub(crate) struct Reader<R> {
    stream: R,
    seal: Seal,
    nonce: u64,
    assembler: Assembler,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Waits for a message; calls `heard` for each piece of one. Not to be cancelled.
    pub(crate) async fn receive(&mut self, mut heard: impl FnMut()) -> Result<Message, LinkError> {
        let mut buffer = vec![0; frame::PIECE + 16];
        let mut plain = vec![0; frame::PIECE + 16];
        loop {
            let mut length = [0; 2];
            match self.stream.read_exact(&mut length).await {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(LinkError::Closed),
                result => result?,
            };
            let sealed = &mut buffer[..usize::from(u16::from_be_bytes(length))];
            self.stream.read_exact(sealed).await?;
            let length = self.seal.0.read_message(self.nonce, sealed, &mut plain)?;
            self.nonce += 1;
            heard();
            if let Some(message) = self.assembler.push(&plain[..length])? {
                return Ok(message);
            }
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests;

//! The daemon's end of the local socket: a request a line, answers a line each.

mod access;
mod connection;
mod socket;

use std::{io, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use tokio::{
    net::UnixListener,
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

pub use access::Access;

use self::socket::Claim;
use super::{Answer, Request};

/// Connections served at once; further ones wait.
const CONNECTIONS: usize = 256;

/// Does what is asked.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Sends any number of `Progress` and `Event` to `out` and answers last. When the client goes away
    /// `out` is closed, and the request runs on: half a change is worse than one nobody waits for.
    /// Requests that only watch or wait end when `out` is closed.
    async fn handle(&self, request: Request, out: mpsc::Sender<Answer>) -> Answer;
}

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another vipd serves {0}: stop it first, or give this one another --run-dir")]
    Taken(PathBuf),
    #[error("{0} exists and is not a socket: move it away")]
    NotASocket(PathBuf),
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "control-group '{0}' in node.toml does not exist: create it with 'groupadd --system {0}' or remove the line"
    )]
    NoGroup(String),
}

/// A socket being listened on. Dropping it ends all its connections and removes the socket.
pub struct Server {
    listener: UnixListener,
    access: Access,
    connections: Arc<Semaphore>,
    _claim: Claim,
}

/// Tells when no client is connected.
pub struct Idle(Arc<Semaphore>);

impl Idle {
    /// Returns once nobody is connected, at some moment.
    pub async fn reached(self) {
        // One permit is kept for whoever comes next. An error cannot be: the semaphore is never closed.
        let _ = self.0.acquire_many(CONNECTIONS as u32 - 1).await;
    }
}

impl Server {
    /// Listens on `path`, replacing the socket of a daemon that is gone, never that of one that lives.
    /// `group` names whose members may ask, besides root and the daemon's own user.
    pub fn bind(path: PathBuf, group: Option<&str>) -> Result<Self, BindError> {
        let access = Access::new(group)?;
        let (claim, listener) = Claim::take(path, access.gid())?;
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        Ok(Self { listener, access, connections, _claim: claim })
    }

    pub fn idle(&self) -> Idle {
        Idle(self.connections.clone())
    }

    /// Serves for ever.
    pub async fn serve(self, backend: Arc<dyn Backend>) {
        let permits = self.connections;
        let access = Arc::new(self.access);
        let mut connections = JoinSet::new();
        loop {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (access, backend) = (access.clone(), backend.clone());
                    connections.spawn(async move {
                        let _permit = permit;
                        connection::serve(stream, &access, backend).await;
                    });
                }
                Err(e) => {
                    // Out of descriptors, most likely: existing connections must end first.
                    tracing::warn!("cannot accept a vipctl connection: {e}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

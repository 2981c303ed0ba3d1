//! One client: requests one after another, each answered before the next is read.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Access, Backend};
use crate::api::{Answer, ApiError, ErrorKind, LONGEST_LINE, Request};

/// A client that takes nothing for this long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often it is looked at whether a waiting client is still there.
const PRESENCE: Duration = Duration::from_millis(500);

/// Answers that may wait for a slow client.
const BACKLOG: usize = 256;

pub async fn serve(stream: UnixStream, access: &Arc<Access>, backend: Arc<dyn Backend>) {
    let peer = stream.peer_cred();
    let (read, mut write) = stream.into_split();
    let allowed = match peer {
        Ok(peer) => {
            let access = access.clone();
            // The user database may be a network away.
            tokio::task::spawn_blocking(move || access.allows(peer))
                .await
                .unwrap_or_else(|_| Err("the caller's credentials could not be checked".to_owned()))
        }
        Err(e) => Err(format!("the caller's credentials cannot be read: {e}")),
    };
    if let Err(reason) = allowed {
        tracing::debug!("refused a vipctl connection: {reason}");
        let _ = send(&mut write, &error(ErrorKind::NoPermission, reason)).await;
        return;
    }
    let mut lines = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        let answered = match next_line(&mut lines, &mut line).await {
            Line::End => return,
            Line::TooLong => {
                let message = format!("the request is longer than {LONGEST_LINE} bytes");
                let _ = send(&mut write, &error(ErrorKind::Usage, message)).await;
                return; // where the next request would begin is unknown
            }
            Line::Read => match serde_json::from_slice::<Request>(&line) {
                Ok(request) => answer(request, &mut write, backend.clone()).await,
                Err(e) => {
                    let message = format!(
                        "the request is not understood ({e}): are vipctl and vipd of the same version?"
                    );
                    send(&mut write, &error(ErrorKind::Usage, message)).await
                }
            },
        };
        if answered.is_err() {
            return;
        }
    }
}

fn error(kind: ErrorKind, message: String) -> Answer {
    Answer::Error(ApiError { kind, message })
}

enum Line {
    Read,
    TooLong,
    End,
}

async fn next_line(from: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>) -> Line {
    line.clear();
    match from.take(LONGEST_LINE as u64).read_until(b'\n', line).await {
        Err(_) | Ok(0) => Line::End,
        Ok(n) if line.ends_with(b"\n") || n < LONGEST_LINE => Line::Read,
        Ok(_) => Line::TooLong,
    }
}

/// The client has gone.
struct Gone;

async fn answer(request: Request, to: &mut OwnedWriteHalf, backend: Arc<dyn Backend>) -> Result<(), Gone> {
    let (out, mut interim) = mpsc::channel(BACKLOG);
    // A task of its own: it is not cancelled when the client goes away.
    let mut work = tokio::spawn(async move { backend.handle(request, out).await });
    let mut presence = interval(PRESENCE);
    presence.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let last = loop {
        tokio::select! {
            biased;
            Some(answer) = interim.recv() => send(to, &answer).await?,
            last = &mut work => break last,
            _ = presence.tick() => {
                if hung_up(to.as_ref().as_fd()) {
                    return Err(Gone);
                }
            }
        }
    };
    while let Ok(answer) = interim.try_recv() {
        send(to, &answer).await?;
    }
    let last = last.unwrap_or_else(|_| {
        error(ErrorKind::Failed, "vipd failed while it did this: its log has the reason".to_owned())
    });
    send(to, &last).await
}

/// Both directions are closed at the other end (a client may close only its own and still read).
fn hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok()
        && fds[0].revents().is_some_and(|r| r.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
}

async fn send(to: &mut OwnedWriteHalf, answer: &Answer) -> Result<(), Gone> {
    let mut line = serde_json::to_vec(answer).map_err(|e| {
        tracing::error!("an answer cannot be encoded: {e}");
        Gone
    })?;
    line.push(b'\n');
    match timeout(WRITE_TIMEOUT, to.write_all(&line)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}

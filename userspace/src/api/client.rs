//! The CLI's end of the local socket.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{Answer, ApiError, ErrorKind, Request};

/// How long a question that needs nothing but the daemon itself may remain without an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection to the daemon.
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// `NoPermission` (exit code 3) when there is no daemon or it may not be asked.
    pub fn connect(socket: &Path) -> Result<Self, ApiError> {
        let stream = UnixStream::connect(socket).map_err(|e| no_daemon(socket, &e))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks, hands every line before the last to `each`, and answers the last. `Answer::Error` comes
    /// as the error.
    pub fn ask(&mut self, request: &Request, mut each: impl FnMut(Answer)) -> Result<Answer, ApiError> {
        let mut line =
            serde_json::to_vec(request).map_err(|e| ApiError::failed(format!("cannot encode: {e}")))?;
        line.push(b'\n');
        let patience = request.is_quick().then_some(PATIENCE);
        self.stream
            .get_ref()
            .set_read_timeout(patience)
            .map_err(|e| ApiError::failed(format!("cannot set a time-out: {e}")))?;
        // A daemon that refuses the caller has answered already and closed: its reason is to be read.
        let sent = self.stream.get_mut().write_all(&line);
        loop {
            match self.next()? {
                Some(Answer::Error(e)) => return Err(e),
                Some(answer) if answer.is_final() => return Ok(answer),
                Some(answer) => each(answer),
                None => {
                    let why = sent.err().map_or_else(String::new, |e| format!(" ({e})"));
                    return Err(ApiError::failed(format!(
                        "vipd closed the connection before it answered{why}: look whether it runs, and with \
                         'vipctl status' at what was done, before trying again"
                    )));
                }
            }
        }
    }

    fn next(&mut self) -> Result<Option<Answer>, ApiError> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => Ok(None),
            Ok(_) => serde_json::from_slice(&line).map(Some).map_err(|e| {
                ApiError::failed(format!(
                    "vipd's answer is not understood ({e}): are vipctl and vipd of the same version?"
                ))
            }),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(ApiError::new(
                ErrorKind::NoPermission,
                format!(
                    "vipd does not answer within {PATIENCE:?}: is it stopped (SIGSTOP) or overloaded? See \
                     'journalctl -u vipd'"
                ),
            )),
            Err(e) => Err(ApiError::failed(format!("cannot read vipd's answer: {e}"))),
        }
    }
}

fn no_daemon(socket: &Path, e: &io::Error) -> ApiError {
    let path = socket.display();
    let message = match e.kind() {
        io::ErrorKind::NotFound => format!(
            "no vipd runs here: there is no socket {path}; start it with 'systemctl start vipd', or name its \
             socket with --socket PATH"
        ),
        io::ErrorKind::ConnectionRefused => format!(
            "no vipd runs here: nobody listens on {path}; start it with 'systemctl start vipd', and see \
             'journalctl -u vipd' for why it ended"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "no permission to use {path}: run vipctl as root, or join the group that 'control-group' in \
             node.toml names"
        ),
        _ => format!("cannot connect to vipd on {path}: {e}"),
    };
    ApiError::new(ErrorKind::NoPermission, message)
}

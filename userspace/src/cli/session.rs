//! Asking the daemon, with progress on a terminal.

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    path::PathBuf,
};

use super::output;
use crate::api::{Answer, ApiError, Request, client::Client};

const DEFAULT_SOCKET: &str = "/run/vipd/vipd.sock";

pub struct Session {
    socket: PathBuf,
    pub json: bool,
}

impl Session {
    pub fn new(socket: Option<PathBuf>, json: bool) -> Self {
        Self { socket: socket_path(socket, std::env::var_os("VIPCTL_SOCKET")), json }
    }

    pub fn connect(&self) -> Result<Client, ApiError> {
        Client::connect(&self.socket)
    }

    /// Asks and shows progress where somebody sees it.
    pub fn ask(&self, request: &Request) -> Result<Answer, ApiError> {
        let show = !self.json && io::stderr().is_terminal();
        self.connect()?.ask(request, |interim| {
            if let Answer::Progress(progress) = interim
                && show
            {
                output::note(&format!("... {}", progress.message));
            }
        })
    }

    /// Asks for something to be done and prints what was.
    pub fn order(&self, request: &Request) -> Result<(), ApiError> {
        match self.ask(request)? {
            Answer::Done { message } if self.json => output::json(&serde_json::json!({ "message": message })),
            Answer::Done { message } => {
                output::print(&format!("{message}\n"));
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// An answer of another kind than the request's.
pub fn unexpected(answer: &Answer) -> ApiError {
    ApiError::failed(format!(
        "vipd answered something else ({answer:?}): are vipctl and vipd of the same version?"
    ))
}

fn socket_path(option: Option<PathBuf>, variable: Option<OsString>) -> PathBuf {
    option
        .or_else(|| variable.filter(|v| !v.is_empty()).map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_goes_before_the_variable() {
        let path = |o: Option<&str>, v: Option<&str>| socket_path(o.map(Into::into), v.map(Into::into));
        assert_eq!(path(Some("/a"), Some("/b")), PathBuf::from("/a"));
        assert_eq!(path(None, Some("/b")), PathBuf::from("/b"));
        assert_eq!(path(None, Some("")), PathBuf::from(DEFAULT_SOCKET));
        assert_eq!(path(None, None), PathBuf::from(DEFAULT_SOCKET));
    }
}

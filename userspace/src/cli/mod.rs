//! vipctl: one file per verb, no logic. What is decided is decided by the daemon.

mod args;
mod clear;
mod cluster;
mod connectivity;
mod constraint;
mod create;
mod delete;
mod depend;
mod events;
mod exit;
mod extend;
mod given;
mod in_service;
mod interfaces;
mod list;
mod node;
mod out_of_service;
mod output;
mod parse;
mod ping;
mod ping_list;
mod session;
mod set;
mod show;
mod simulate;
mod status;
mod subnet;
mod table;
mod unextend;

use std::process::ExitCode;

use clap::Parser;

use self::{args::Args, session::Session};
use crate::api::ApiError;

/// Runs vipctl with the process's arguments.
pub fn main() -> ExitCode {
    let json = std::env::args().any(|a| a == "--json");
    let args = match Args::try_parse() {
        Ok(args) => args,
        // Help and version are no errors, and are printed as they are.
        Err(e) if !e.use_stderr() || !json => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { exit::USAGE } else { exit::DONE });
        }
        Err(e) => {
            let text = e.to_string();
            return fail(true, &ApiError::usage(text.trim().trim_start_matches("error: ")));
        }
    };
    let session = Session::new(args.socket, args.json);
    match args.verb.run(&session) {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(e) => fail(session.json, &e),
    }
}

fn fail(json: bool, e: &ApiError) -> ExitCode {
    output::error(json, e);
    ExitCode::from(exit::code(e.kind))
}

//! The only place of vipctl that prints.

use std::io::{self, Write};

use serde::Serialize;

use crate::api::ApiError;

/// Writes to stdout. A reader that has gone (`vipctl ... | head`) ends the program without a word.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if written.is_err() {
        std::process::exit(super::exit::DONE.into());
    }
}

/// A line on stderr, for people.
pub fn note(text: &str) {
    // Nowhere is left to complain to.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// One document.
pub fn json(value: &impl Serialize) -> Result<(), ApiError> {
    let text = serde_json::to_string_pretty(value).map_err(unprintable)?;
    print(&(text + "\n"));
    Ok(())
}

/// One document of a stream, on one line.
pub fn json_line(value: &impl Serialize) -> Result<(), ApiError> {
    let text = serde_json::to_string(value).map_err(unprintable)?;
    print(&(text + "\n"));
    Ok(())
}

fn unprintable(e: serde_json::Error) -> ApiError {
    ApiError::failed(format!("cannot print as JSON: {e}"))
}

pub fn error(json: bool, e: &ApiError) {
    if json {
        note(&serde_json::json!({ "error": e }).to_string());
    } else {
        note(&format!("vipctl: {}", e.message));
    }
}

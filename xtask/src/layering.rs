//! Data flows one way through userspace/src: observe -> core -> act. Imports never run back, and
//! `core` stays pure. Checked on the text, so that it costs no build and cannot be `cfg`ed away.

use std::path::Path;

use anyhow::{Context, Result};

use crate::lint::rust_files;

/// (layer, what it may name of `crate::` beside itself).
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("core", &["model"]),
    ("config", &["model"]),
    ("observe", &["core", "model", "config"]),
    ("act", &["observe", "core", "model", "config"]),
    ("cluster", &["core", "model", "config", "observe::clock"]),
    ("api", &["act", "cluster", "config", "core", "daemon::events", "model", "observe"]),
    ("cli", &["api", "model", "config", "observe"]),
    ("daemon", &["act", "api", "cluster", "config", "core", "model", "observe"]),
];

/// What makes a decision depend on more than its arguments.
const IMPURE: &[&str] = &[
    "tokio",
    "getrandom",
    "nix",
    "socket2",
    "aya",
    "rtnetlink",
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// Every violation as `file:line: reason`.
pub fn check(src: &Path) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for file in rust_files(src)? {
        let inside = file.strip_prefix(src)?;
        let Some(layer) = inside.iter().next().and_then(|l| l.to_str()) else { continue };
        let layer = layer.trim_end_matches(".rs");
        // The binaries and the crate's root tie everything together.
        if ["bin", "lib", "main"].contains(&layer) {
            continue;
        }
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let depth = inside.iter().count() - usize::from(inside.ends_with("mod.rs"));
        for (line, reason) in judge(layer, depth, &text) {
            violations.push(format!("userspace/src/{}:{line}: {reason}", inside.display()));
        }
    }
    Ok(violations)
}

/// Judges one file of a layer; `depth` is how many modules deep it is.
fn judge(layer: &str, depth: usize, text: &str) -> Vec<(usize, String)> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == layer) else {
        return vec![(1, format!("the layer '{layer}' is unknown: add it to xtask/src/layering.rs"))];
    };
    let mut found = Vec::new();
    for (line, path) in paths(text) {
        let supers = path.iter().take_while(|part| *part == "super").count();
        // One more than the depth is what an inline `mod tests` may use.
        if supers > depth {
            found.push((line, "leaves its layer by `super`: say `crate::`".to_owned()));
        }
        let text = path.join("::");
        if path[0] == "crate" && path.len() > 1 {
            let named = path[1..].join("::");
            let may = |one: &str| named == one || named.starts_with(&format!("{one}::"));
            if path[1] != layer && !allowed.iter().any(|one| may(one)) {
                found.push((line, format!("'{layer}' must not use `{text}`")));
            }
        }
        if layer == "core" && IMPURE.iter().any(|i| text == *i || text.starts_with(&format!("{i}::"))) {
            found.push((line, format!("'core' is pure and must not use `{text}`")));
        }
    }
    found
}

/// Every path of the source, `use` groups multiplied out: `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn paths(text: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let starts = matches!(&tokens[at].1, Token::Word(_))
            && matches!(tokens.get(at + 1), Some((_, Token::Separator)))
            && (at == 0 || tokens[at - 1].1 != Token::Separator);
        at = if starts { tree(&tokens, at, &mut Vec::new(), &mut found) } else { at + 1 };
    }
    found
}

/// Reads one use-tree or path from `at`, writes what it names, answers where it ends.
fn tree(
    tokens: &[(usize, Token)],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let before = prefix.len();
    while let Some((line, token)) = tokens.get(at) {
        let more = matches!(tokens.get(at + 1), Some((_, Token::Separator)));
        match token {
            Token::Word(word) => {
                prefix.push(word.clone());
                at += 1;
                if !more {
                    found.push((*line, prefix.clone()));
                    break;
                }
                at += 1;
            }
            Token::Open if prefix.len() > before || before > 0 => {
                at += 1;
                while at < tokens.len() && tokens[at].1 != Token::Close {
                    at = match tokens[at].1 {
                        Token::Word(_) | Token::Open => tree(tokens, at, prefix, found),
                        _ => at + 1,
                    };
                }
                at += 1;
                break;
            }
            // A glob, a turbofish: what stands before it is what is named.
            _ => {
                found.push((*line, prefix.clone()));
                break;
            }
        }
    }
    prefix.truncate(before);
    at
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Separator,
    Open,
    Close,
    Other,
}

/// Words and punctuation with their lines; comments, strings and characters are left out.
fn tokens(text: &str) -> Vec<(usize, Token)> {
    let bytes = text.as_bytes();
    let starts = |at: usize, what: &str| bytes[at..].starts_with(what.as_bytes());
    let find = |at: usize, what: &str| text[at..].find(what).map_or(bytes.len(), |n| at + n);
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let byte = bytes[at];
        let mut end = at + 1;
        let token = if byte.is_ascii_whitespace() {
            None
        } else if starts(at, "//") {
            end = find(at, "\n");
            None
        } else if starts(at, "/*") {
            end = (find(at, "*/") + 2).min(bytes.len());
            None
        } else if byte == b'r' && raw_string(&bytes[at + 1..]).is_some() {
            let hashes = raw_string(&bytes[at + 1..]).unwrap_or(0);
            let close = format!("\"{}", "#".repeat(hashes));
            end = (find(at + 2 + hashes, &close) + close.len()).min(bytes.len());
            None
        } else if byte == b'"' {
            while end < bytes.len() && bytes[end] != b'"' {
                end += 1 + usize::from(bytes[end] == b'\\');
            }
            end = (end + 1).min(bytes.len());
            None
        } else if byte == b'\'' {
            // A character, not a lifetime: it closes after one character or an escape.
            if bytes.get(at + 1) == Some(&b'\\') {
                end = (find(at + 3, "'") + 1).min(bytes.len());
            } else if let Some(c) = text[at + 1..].chars().next()
                && bytes.get(at + 1 + c.len_utf8()) == Some(&b'\'')
            {
                end = at + 2 + c.len_utf8();
            }
            None
        } else if byte.is_ascii_alphabetic() || byte == b'_' {
            while end < bytes.len() && (bytes[end].is_ascii_alphanumeric() || bytes[end] == b'_') {
                end += 1;
            }
            Some(Token::Word(text[at..end].to_owned()))
        } else if starts(at, "::") {
            end = at + 2;
            Some(Token::Separator)
        } else {
            Some(match byte {
                b'{' => Token::Open,
                b'}' => Token::Close,
                _ => Token::Other,
            })
        };
        tokens.extend(token.map(|token| (line, token)));
        line += bytes[at..end].iter().filter(|b| **b == b'\n').count();
        at = end;
    }
    tokens
}

/// The number of `#` where a raw string's quote follows the `r`.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|b| **b == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(layer: &str, text: &str) -> Vec<String> {
        judge(layer, 1, text).into_iter().map(|(line, reason)| format!("{line}: {reason}")).collect()
    }

    #[test]
    fn groups_are_multiplied_out() {
        let found: Vec<String> = paths("use crate::{model::{self, A}, core::time::*};")
            .into_iter()
            .map(|p| p.1.join("::"))
            .collect();
        assert_eq!(found, ["crate::model::self", "crate::model::A", "crate::core::time"]);
    }

    #[test]
    fn imports_that_run_back_are_found() {
        let text = "use crate::{\n    model::Tag,\n    act::{address, announce},\n};\nfn f() { crate::daemon::run() }";
        let expected = [
            "3: 'observe' must not use `crate::act::address`",
            "3: 'observe' must not use `crate::act::announce`",
            "5: 'observe' must not use `crate::daemon::run`",
        ];
        assert_eq!(reasons("observe", text), expected);
        assert!(reasons("cluster", "use crate::observe::clock;").is_empty());
        assert_eq!(reasons("cluster", "use crate::observe::network::Link;").len(), 1);
        assert_eq!(reasons("model", "use super::super::act;").len(), 1);
        assert_eq!(reasons("nonsense", "").len(), 1);
    }

    #[test]
    fn core_is_pure() {
        let text =
            "use std::{net::{IpAddr, UdpSocket}, time::{Duration, Instant}};\nlet x = tokio::spawn(f);";
        let expected = [
            "1: 'core' is pure and must not use `std::net::UdpSocket`",
            "1: 'core' is pure and must not use `std::time::Instant`",
            "2: 'core' is pure and must not use `tokio::spawn`",
        ];
        assert_eq!(reasons("core", text), expected);
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        let text = "//! [`crate::act`]\n/* crate::act::x */ let a = \"crate::act::x\"; let b = r#\"crate::act::\"#;\n\
                    let c = '\"'; fn f<'a>(x: &'a str) { crate::model::Tag }";
        assert!(reasons("core", text).is_empty());
    }
}

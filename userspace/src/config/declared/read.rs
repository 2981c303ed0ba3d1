//! Values of a TOML document, with everything that is wrong in them: one round of editing suffices.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    ops::Range,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::super::load::{Fault, line_of};
use crate::model::{NodeId, Score, Threshold, TwoNodes};

/// What failures are forgotten after, and how often something is polled: as `vipctl` takes them.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

pub struct Reader<'t> {
    path: PathBuf,
    text: &'t str,
    nodes: &'t BTreeMap<String, NodeId>,
    pub faults: Vec<Fault>,
}

/// A value, and how it is called.
#[derive(Clone)]
pub struct At<'a> {
    /// Dotted: `resource.web.switchback`.
    pub key: String,
    pub span: Range<usize>,
    pub value: &'a DeValue<'a>,
}

impl<'t> Reader<'t> {
    pub fn new(name: &str, text: &'t str, nodes: &'t BTreeMap<String, NodeId>) -> Self {
        Self { path: PathBuf::from(name), text, nodes, faults: Vec::new() }
    }

    /// Also what could not be understood as TOML is told, all of it.
    pub fn document(&mut self) -> Spanned<DeTable<'t>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for e in errors {
            let line = e.span().map(|s| line_of(self.text, s.start));
            self.faults.push(Fault {
                path: self.path.clone(),
                line,
                key: String::new(),
                reason: e.message().to_owned(),
                remedy: "write TOML: key = \"value\", one a line".to_owned(),
            });
        }
        table
    }

    pub fn line(&self, at: &At) -> usize {
        line_of(self.text, at.span.start)
    }

    pub fn fault(&mut self, at: &At, reason: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push(Fault {
            path: self.path.clone(),
            line: Some(line_of(self.text, at.span.start)),
            key: at.key.clone(),
            reason: reason.into(),
            remedy: remedy.into(),
        });
    }

    pub fn unknown(&mut self, at: &At, known: &[&str]) {
        let remedy = format!("correct the spelling or remove it; known are {}", known.join(", "));
        self.fault(at, "is no key that is known here", remedy);
    }

    pub fn missing(&mut self, at: &At, key: &str, example: &str) {
        let at = At { key: format!("{}.{key}", at.key), ..at.clone() };
        self.fault(&at, "is missing", format!("add: {example}"));
    }

    fn wrong(&mut self, at: &At, wanted: &str) {
        let found = match at.value {
            DeValue::String(s) => format!("'{s}'"),
            DeValue::Integer(i) => i.as_str().to_owned(),
            other => format!("a {}", other.type_str()),
        };
        self.fault(at, format!("{found} is not valid"), format!("write {wanted}"));
    }

    pub fn table<'a>(&mut self, at: &At<'a>, name: &str) -> Vec<At<'a>> {
        match at.value {
            DeValue::Table(table) => entries(table, name),
            _ => {
                self.wrong(at, "a table of keys and values");
                Vec::new()
            }
        }
    }

    /// `[[name]]`, each as (how it is called, the table).
    pub fn tables<'a>(&mut self, at: &At<'a>) -> Vec<At<'a>> {
        let remedy = format!("[[{}]], once for each", at.key);
        let DeValue::Array(array) = at.value else {
            self.wrong(at, &remedy);
            return Vec::new();
        };
        let all = array.iter().map(|v| At { key: at.key.clone(), span: v.span(), value: v.get_ref() });
        let (tables, others): (Vec<At>, Vec<At>) = all.partition(|at| at.value.is_table());
        for other in others {
            self.wrong(&other, &remedy);
        }
        tables
    }

    pub fn text<'a>(&mut self, at: &At<'a>) -> Option<&'a str> {
        match at.value {
            DeValue::String(s) => Some(s),
            _ => {
                self.wrong(at, "a string, as \"...\"");
                None
            }
        }
    }

    pub fn boolean(&mut self, at: &At) -> Option<bool> {
        let found = at.value.as_bool();
        if found.is_none() {
            self.wrong(at, "true or false");
        }
        found
    }

    pub fn number<T: FromStr>(&mut self, at: &At, wanted: &str) -> Option<T> {
        let found = integer(at.value).and_then(|text| text.parse().ok());
        if found.is_none() {
            self.wrong(at, wanted);
        }
        found
    }

    pub fn word<T: Copy>(&mut self, at: &At, words: &[(&str, T)]) -> Option<T> {
        let found = at.value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.wrong(at, &all.join(" or "));
        }
        found.map(|(_, value)| *value)
    }

    pub fn parsed<T: FromStr<Err: Display>>(&mut self, at: &At, example: &str) -> Option<T> {
        let text = self.text(at)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(e) => {
                self.fault(at, format!("'{text}': {e}"), format!("write for example \"{example}\""));
                None
            }
        }
    }

    /// Each element of an array.
    pub fn list<'a>(&mut self, at: &At<'a>, wanted: &str) -> Vec<At<'a>> {
        let DeValue::Array(array) = at.value else {
            self.wrong(at, wanted);
            return Vec::new();
        };
        array.iter().map(|v| At { key: at.key.clone(), span: v.span(), value: v.get_ref() }).collect()
    }

    /// All that can be read of an array, each once.
    pub fn parsed_list<T: FromStr<Err: Display> + PartialEq>(&mut self, at: &At, example: &str) -> Vec<T> {
        let mut found: Vec<T> = Vec::new();
        for one in self.list(at, &format!("a list, as [\"{example}\"]")) {
            let Some(value) = self.parsed(&one, example) else { continue };
            if found.contains(&value) {
                self.fault(&one, "is there twice", "name it once");
            } else {
                found.push(value);
            }
        }
        found
    }

    pub fn node(&mut self, at: &At, name: &str) -> Option<NodeId> {
        let found = self.nodes.get(name).copied();
        if found.is_none() {
            let all: Vec<&str> = self.nodes.keys().map(String::as_str).collect();
            let remedy = format!(
                "correct the name, or let it join with 'vipctl cluster join' first; there are {}",
                all.join(", ")
            );
            self.fault(at, format!("there is no node '{name}'"), remedy);
        }
        found
    }

    /// A number, or `"INFINITY"`.
    pub fn score(&mut self, at: &At) -> Option<Score> {
        let text = at.value.as_str().or_else(|| integer(at.value));
        let found = text.and_then(|t| t.parse().ok());
        if found.is_none() {
            self.wrong(at, "a number from -999999 to 999999, \"INFINITY\" or \"-INFINITY\"");
        }
        found
    }

    pub fn two_nodes(&mut self, at: &At) -> Option<TwoNodes> {
        let found = at.value.as_str().and_then(TwoNodes::named);
        if found.is_none() {
            self.wrong(at, "\"off\", \"freeze\" or \"tie-breaker\"");
        }
        found
    }

    pub fn threshold(&mut self, at: &At) -> Option<Threshold> {
        let found = match at.value.as_str() {
            Some("unlimited") => Some(Threshold::Unlimited),
            _ => integer(at.value).and_then(|t| t.parse().ok()).filter(|n| *n > 0).map(Threshold::Failures),
        };
        if found.is_none() {
            self.wrong(at, "a number of failures from 1, or \"unlimited\"");
        }
        found
    }

    pub fn seconds(&mut self, at: &At) -> Option<Duration> {
        let text = match at.value {
            DeValue::Float(f) => Some(f.as_str()),
            other => integer(other),
        };
        let found = text.and_then(decimal).filter(|d| *d <= LONGEST);
        if found.is_none() {
            self.wrong(at, "seconds, as 60 or 0.5");
        }
        found
    }
}

/// The entries of a table, called `name.key`.
pub fn entries<'a>(table: &'a DeTable<'a>, name: &str) -> Vec<At<'a>> {
    let dotted = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    let mut all: Vec<At> = table
        .iter()
        .map(|(key, value)| At { key: dotted(key.get_ref()), span: key.span(), value: value.get_ref() })
        .collect();
    all.sort_by_key(|at| at.span.start);
    all
}

impl At<'_> {
    /// The part of the name after that of the table.
    pub fn own<'b>(&'b self, table: &str) -> &'b str {
        self.key.strip_prefix(table).map_or(&self.key, |rest| rest.strip_prefix('.').unwrap_or(rest))
    }
}

impl<'a> At<'a> {
    /// The text of a key of this table, if it is one.
    pub fn peek(&self, key: &str) -> Option<&'a str> {
        self.value.get(key)?.get_ref().as_str()
    }

    pub fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some()
    }
}

/// Digits of a decimal integer.
fn integer<'a>(value: &'a DeValue<'_>) -> Option<&'a str> {
    value.as_integer().filter(|i| i.radix() == 10).map(|i| i.as_str())
}

/// Exactly what is written, to the nanosecond.
fn decimal(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(whole.parse().ok()?, nanos))
}

/// Of an array that is a set.
pub fn set<T: Ord>(all: Vec<T>) -> BTreeSet<T> {
    all.into_iter().collect()
}

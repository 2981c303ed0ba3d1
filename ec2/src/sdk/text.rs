//! Others' texts, made fit for a log line.

use std::error::Error;

/// Encoded authorization messages are kilobytes that only `aws sts decode-authorization-message` can read.
const LONGEST: usize = 300;

/// One line of bounded length.
pub fn line(text: &str) -> String {
    // What follows is of no use to anybody who reads a log.
    let text = text.split("Encoded authorization failure message").next().unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain("...".chars()).collect()
}

/// The innermost reason: `Connection refused (os error 111)`.
pub fn cause(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(|error| line(&error.to_string())).unwrap_or_default()
}

/// All reasons, from the outermost on, without those that only repeat what follows.
pub fn reasons(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    for text in chain(error).map(ToString::to_string) {
        match texts.last_mut() {
            Some(last) if last.ends_with(&text) => {}
            _ => texts.push(text),
        }
    }
    line(&texts.join(": "))
}

pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

pub fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|error| error.downcast_ref())
}

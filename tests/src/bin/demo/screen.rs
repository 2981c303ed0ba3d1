//! How the demo looks: headings, steps, timelines. Colours only on a terminal.

use std::{fmt::Write as _, io::IsTerminal, time::Duration};

pub struct Screen {
    colours: bool,
}

#[derive(Clone, Copy)]
pub enum Ink {
    Title,
    Good,
    Bad,
    Dim,
    Command,
}

impl Screen {
    pub fn new() -> Self {
        Self { colours: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    pub fn ink(&self, ink: Ink, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Title => "1;36",
            Ink::Good => "32",
            Ink::Bad => "1;31",
            Ink::Dim => "2",
            Ink::Command => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A part of the demo.
    pub fn heading(&self, text: &str) {
        println!(
            "\n{}",
            self.ink(
                Ink::Title,
                &format!("━━ {text} {}", "━".repeat(78usize.saturating_sub(text.chars().count())))
            )
        );
        println!();
    }

    /// Something that is so now, and how long it took.
    pub fn done(&self, text: &str, took: Duration) {
        let pad = " ".repeat(66usize.saturating_sub(text.chars().count()));
        let took = self.ink(Ink::Dim, &format!("{:>7.2} s", took.as_secs_f64()));
        println!("  {} {text}{pad}{took}", self.ink(Ink::Good, "✔"));
    }

    /// A line of a timeline: milliseconds since the fault.
    pub fn at(&self, since: Duration, mark: Ink, text: &str) {
        let time = since.as_secs_f64() * 1e3;
        println!("  {time:>8.0} ms  {} {text}", self.ink(mark, "●"));
    }

    /// A sentence.
    pub fn say(&self, text: &str) {
        println!("  {text}");
    }

    /// A command as it is typed, and what it prints, indented.
    pub fn transcript(&self, prompt: &str, command: &str, output: &str) {
        println!("  {} {}", self.ink(Ink::Dim, prompt), self.ink(Ink::Command, command));
        let mut text = String::new();
        for line in output.lines().filter(|line| !line.trim().is_empty()) {
            // A String never refuses to be written to.
            let _ = writeln!(text, "    {line}");
        }
        println!("{text}");
    }
}

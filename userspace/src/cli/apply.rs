//! `vipctl apply`.

use std::{
    fmt::Write,
    io::{self, BufRead, IsTerminal},
};

use clap::Args;

use super::{Session, given, output, session::unexpected};
use crate::api::{Action, Answer, ApiError, Declare, DeclareAim, Planned, Request};

/// Make the cluster as a file says
///
/// The plan is shown first, and on a terminal confirmed. Everything is checked before anything is changed, by each
/// node what concerns it, and then it is changed in one step, all or nothing. It ends when everything that is wanted is in service. What the file does
/// not name stays as it is, unless with --prune.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 done; 1 something did not come in service; 2 the file has mistakes (all are told, with their lines);
4 refused by a check, or the cluster was changed meanwhile; 5 no quorum.

Examples:
  vipctl apply cluster.toml --dry-run
  vipctl apply cluster.toml --prune --yes
  vipctl export | sed s/eth0/eth1/ | vipctl apply -")]
pub struct Apply {
    /// The file ('vipctl export' prints one), '-' for stdin
    file: String,
    /// Check it and show what would be done, and no more
    #[arg(long)]
    dry_run: bool,
    /// Delete what is there and not in the file
    #[arg(long)]
    prune: bool,
    /// Go on although a node that has to check it is down or does not answer
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Return as soon as it is decided, not when all is in service
    #[arg(long)]
    no_wait: bool,
}

impl Apply {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        let (name, text) = given::file(&self.file)?;
        let request = |aim| {
            Request::Declare(Declare {
                name: name.clone(),
                text: text.clone(),
                prune: self.prune,
                force: self.force,
                aim,
            })
        };
        let planned = match session.ask(&request(DeclareAim::Plan))? {
            Answer::Planned(planned) => planned,
            other => return Err(unexpected(&other)),
        };
        if self.dry_run && session.json {
            return output::json(&planned);
        }
        if !session.json {
            output::print(&text_of_plan(&planned));
        }
        if self.dry_run {
            return Ok(());
        }
        let interactive = io::stdin().is_terminal() && io::stderr().is_terminal();
        if !planned.differences.is_empty() && !self.yes && !session.json && interactive && !confirmed()? {
            return Err(ApiError::failed("nothing was changed: it was not confirmed"));
        }
        let aim = DeclareAim::Apply { revision: Some(planned.revision), wait: !self.no_wait };
        match session.ask(&request(aim))? {
            Answer::Done { message } if session.json => {
                output::json(&serde_json::json!({ "message": message, "plan": planned }))
            }
            Answer::Done { message } => {
                output::print(&format!("{message}\n"));
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }
}

fn confirmed() -> Result<bool, ApiError> {
    output::note("Apply this? Type 'yes':");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|e| ApiError::failed(format!("cannot read the answer: {e}; --yes applies without asking")))?;
    Ok(["y", "yes"].contains(&answer.trim()))
}

fn text_of_plan(planned: &Planned) -> String {
    text(planned, Style::new())
}

/// Colours where somebody sees them.
#[derive(Clone, Copy)]
pub struct Style {
    coloured: bool,
}

impl Style {
    pub fn new() -> Self {
        Self { coloured: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn paint(self, code: u8, line: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{line}\x1b[0m") } else { line.to_owned() }
    }
}

const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;

/// The differences, what stops because of them, and what stays.
pub fn text(planned: &Planned, style: Style) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    };
    if planned.differences.is_empty() {
        line("no differences: the cluster is as declared".to_owned());
    }
    for difference in &planned.differences {
        let (sign, colour) = match difference.action {
            Action::Create => ('+', GREEN),
            Action::Change => ('~', YELLOW),
            Action::Delete => ('-', RED),
        };
        line(style.paint(colour, &format!("{sign} {}", difference.what)));
        for detail in &difference.details {
            line(style.paint(colour, &format!("    {detail}")));
        }
    }
    if !planned.starts.is_empty() {
        line(format!("comes in service: {}", planned.starts.join(", ")));
    }
    if !planned.stops.is_empty() {
        line(style.paint(RED, &format!("GOES OUT OF SERVICE: {}", planned.stops.join(", "))));
    }
    if !planned.unmanaged.is_empty() {
        line(format!("not declared, stays as it is (--prune deletes it): {}", planned.unmanaged.join(", ")));
    }
    for finding in &planned.findings {
        line(style.paint(RED, &format!("! {finding}")));
    }
    for note in &planned.notes {
        line(note.clone());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Difference;

    #[test]
    fn a_plan_is_told_in_full_and_loudly() {
        let one = |action, what: &str, details: &[&str]| Difference {
            action,
            what: what.into(),
            details: details.iter().map(|d| (*d).to_owned()).collect(),
        };
        let planned = Planned {
            differences: vec![
                one(Action::Create, "resource a", &["addresses: 10.0.0.1/24"]),
                one(Action::Delete, "resource b", &[]),
            ],
            stops: vec!["b (on node-a)".into()],
            unmanaged: vec!["subnet 10.1.0.0/24".into()],
            ..Planned::default()
        };
        assert_eq!(
            text(&planned, Style { coloured: false }),
            "+ resource a\n    addresses: 10.0.0.1/24\n- resource b\nGOES OUT OF SERVICE: b (on node-a)\n\
             not declared, stays as it is (--prune deletes it): subnet 10.1.0.0/24\n"
        );
        assert!(text(&planned, Style { coloured: true }).contains("\x1b[31mGOES OUT"));
        assert_eq!(
            text(&Planned::default(), Style { coloured: true }),
            "no differences: the cluster is as declared\n"
        );
    }
}

//! `vipctl events`.

use clap::Args;

use super::{Session, output};
use crate::{
    api::{Answer, ApiError, Event, EventFilter, Request},
    model::Tag,
};

/// Show what happened on this node
///
/// The newest 50 events, unless --last says otherwise; 10,000 are kept.
/// With --json one document: the list of events; with --follow as well: one event a line, for ever.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on with those to come, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Of those that happened already only the newest so many; 0 for none
    #[arg(long, value_name = "N", default_value_t = 50)]
    last: usize,
    /// Only of this kind: restore.announce, or restore for all of its steps
    #[arg(long)]
    kind: Option<String>,
    /// Only about this resource
    #[arg(long)]
    tag: Option<Tag>,
}

impl Events {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        let mut all = Vec::new();
        let mut printed = Ok(());
        let filter = EventFilter { last: Some(self.last), kind: self.kind, tag: self.tag };
        session.connect()?.ask(&Request::Events { follow: self.follow, filter }, |interim| {
            let Answer::Event(event) = interim else { return };
            match (session.json, self.follow) {
                (true, true) => printed = output::json_line(&event),
                (true, false) => all.push(event),
                (false, _) => output::print(&text(&event)),
            }
        })?;
        printed?;
        if session.json && !self.follow { output::json(&all) } else { Ok(()) }
    }
}

fn text(e: &Event) -> String {
    let tag = e.tag.as_ref().map_or_else(String::new, |t| format!(" {t}"));
    let epoch = e.epoch.map_or_else(String::new, |n| format!(" (epoch {n})"));
    format!("{} {:<18}{tag}{epoch} {}\n", e.time, e.kind, e.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = Event {
            number: 1,
            time: "2026-01-02T03:04:05.678901Z".into(),
            boot_ns: 5,
            tag: Some("ip-10.0.0.9".parse().unwrap()),
            address: None,
            epoch: Some(3),
            kind: "restore.announce".into(),
            message: "announced on eth0".into(),
        };
        assert_eq!(
            text(&event),
            "2026-01-02T03:04:05.678901Z restore.announce   ip-10.0.0.9 (epoch 3) announced on eth0\n"
        );
    }
}

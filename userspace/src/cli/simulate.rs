//! `vipctl simulate`.

use clap::Args;

use super::{Session, output, session::unexpected, table::Table};
use crate::api::{Answer, ApiError, Foreseen, Request, Supposition};

/// Tell what would move where, without doing it
///
/// The same planner decides as in earnest. Several suppositions hold at once. What this node hears of the others counts as
/// their health; whether an address would come up there is not tried.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl simulate --fail node-a
  vipctl simulate --link node-a:eth0=down
  vipctl simulate --standby node-a --fail node-b")]
pub struct Simulate {
    /// The node is lost
    #[arg(long, value_name = "NODE")]
    fail: Vec<String>,
    /// The node is put on standby
    #[arg(long, value_name = "NODE")]
    standby: Vec<String>,
    /// An interface of the node is lost
    #[arg(long, value_name = "NODE:IF=down", value_parser = link)]
    link: Vec<(String, String)>,
}

fn link(text: &str) -> Result<(String, String), String> {
    let wrong = || "give NODE:INTERFACE=down, as node-a:eth0=down".to_owned();
    let (node, device) = text.strip_suffix("=down").and_then(|t| t.rsplit_once(':')).ok_or_else(wrong)?;
    if node.is_empty() || device.is_empty() {
        return Err(wrong());
    }
    Ok((node.to_owned(), device.to_owned()))
}

impl Simulate {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        let links = self.link.into_iter().map(|(node, device)| Supposition::LinkDown { node, device });
        let suppose = self.fail.into_iter().map(Supposition::Fail);
        let suppose =
            suppose.chain(self.standby.into_iter().map(Supposition::Standby)).chain(links).collect();
        match session.ask(&Request::Simulate { suppose })? {
            Answer::Foreseen(moves) if session.json => output::json(&moves),
            Answer::Foreseen(moves) => {
                output::print(&text(&moves));
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }
}

fn text(moves: &[Foreseen]) -> String {
    if moves.is_empty() {
        return "nothing would move\n".to_owned();
    }
    let mut table = Table::new(["HIERARCHY", "RESOURCE", "FROM", "TO", "WHY"]);
    for m in moves {
        table.row([
            m.hierarchy.to_string(),
            m.tag.to_string(),
            m.from.clone().unwrap_or_default(),
            m.to.clone().unwrap_or_else(|| "NOWHERE".to_owned()),
            m.reason.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_by_node_and_interface() {
        assert_eq!(link("a:eth0=down"), Ok(("a".into(), "eth0".into())));
        assert_eq!(link("a:b:eth0.5=down"), Ok(("a:b".into(), "eth0.5".into())));
        for bad in ["a:eth0", "eth0=down", ":eth0=down", "a:=down", "a:eth0=up"] {
            assert!(link(bad).is_err(), "{bad}");
        }
    }
}

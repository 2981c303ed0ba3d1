//! `vipctl interfaces`.

use clap::Args;
use ipnet::IpNet;

use super::{Session, output, parse, session::unexpected, table::Table};
use crate::api::{Answer, ApiError, InterfaceChoice, Request};

/// Show the interfaces that may carry an address, best first
///
/// Where an address of the same subnet is in service on some interface, only that one is allowed; otherwise every
/// interface that is up.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl interfaces
  vipctl interfaces 192.0.2.10/24")]
pub struct Interfaces {
    #[arg(value_name = "ADDRESS[/LEN]", value_parser = parse::net)]
    address: Option<IpNet>,
}

impl Interfaces {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        match session.ask(&Request::Interfaces { address: self.address })? {
            Answer::Interfaces(choices) if session.json => output::json(&choices),
            Answer::Interfaces(choices) => {
                output::print(&text(&choices));
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }
}

fn text(choices: &[InterfaceChoice]) -> String {
    let mut table = Table::new(["INTERFACE", "ALLOWED", "WHY"]);
    for choice in choices {
        let allowed = if choice.allowed { "yes" } else { "no" };
        table.row([choice.name.clone(), allowed.to_owned(), choice.reason.clone()]);
    }
    table.render()
}

//! The command line as a whole.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::{
    Session, clear, cluster, connectivity, constraint, create, delete, depend, events, extend, in_service,
    interfaces, list, node, out_of_service, ping, ping_list, set, show, simulate, status, subnet, unextend,
};
use crate::api::ApiError;

const AFTER: &str = "\
Exit codes:
  0  done
  1  failed (the reason is on stderr)
  2  wrong usage
  3  no daemon, or no permission to ask it
  4  refused by a check (address in use, validation)
  5  no quorum

Examples:
  vipctl cluster init production
  vipctl create ip 192.0.2.10/24 --extend-to all
  vipctl status
  vipctl in-service ip-192.0.2.10 --on node-b
  vipctl events --follow

'vipctl VERB --help' explains each verb.";

/// Controls vipd: virtual IP addresses that fail over, enforced in the kernel.
#[derive(Debug, Parser)]
#[command(name = "vipctl", version, after_help = AFTER, max_term_width = 100)]
pub struct Args {
    /// The socket of vipd (also in the variable VIPCTL_SOCKET) [default: /run/vipd/vipd.sock]
    #[arg(long, global = true, value_name = "PATH", display_order = 900)]
    pub socket: Option<PathBuf>,
    /// Print one JSON document with the same facts; errors too, on stderr
    #[arg(long, global = true, display_order = 901)]
    pub json: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Status(status::Status),
    Create(create::Create),
    Extend(extend::Extend),
    Unextend(unextend::Unextend),
    Depend(depend::Depend),
    Undepend(depend::Undepend),
    Delete(delete::Delete),
    InService(in_service::InService),
    OutOfService(out_of_service::OutOfService),
    Clear(clear::Clear),
    Cleanup(clear::Cleanup),
    Show(show::Show),
    Simulate(simulate::Simulate),
    Set(set::Set),
    List(list::List),
    PingList(ping_list::PingList),
    Interfaces(interfaces::Interfaces),
    Subnet(subnet::Subnet),
    Connectivity(connectivity::Connectivity),
    Constraint(constraint::Constraint),
    Node(node::Node),
    Cluster(cluster::Cluster),
    Events(events::Events),
    Ping(ping::Ping),
}

impl Verb {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        match self {
            Self::Status(v) => v.run(session),
            Self::Create(v) => v.run(session),
            Self::Extend(v) => v.run(session),
            Self::Unextend(v) => v.run(session),
            Self::Depend(v) => v.run(session),
            Self::Undepend(v) => v.run(session),
            Self::Clear(v) => v.run(session),
            Self::Cleanup(v) => v.run(session),
            Self::Connectivity(v) => v.run(session),
            Self::Constraint(v) => v.run(session),
            Self::Node(v) => v.run(session),
            Self::Delete(v) => v.run(session),
            Self::InService(v) => v.run(session),
            Self::OutOfService(v) => v.run(session),
            Self::Show(v) => v.run(session),
            Self::Simulate(v) => v.run(session),
            Self::Set(v) => v.run(session),
            Self::List(v) => v.run(session),
            Self::PingList(v) => v.run(session),
            Self::Interfaces(v) => v.run(session),
            Self::Subnet(v) => v.run(session),
            Self::Cluster(v) => v.run(session),
            Self::Events(v) => v.run(session),
            Self::Ping(v) => v.run(session),
        }
    }
}

#[cfg(test)]
mod tests;

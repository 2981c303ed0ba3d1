//! `vipctl node`.

use clap::{Args, Subcommand, ValueEnum};

use super::{Session, output, session::unexpected, table::Table};
use crate::api::{Answer, ApiError, NodeOrder, NodeStatus, Request};

/// Show nodes, empty them, work on them
///
/// A node on standby holds nothing: what it has moves to other nodes. A node in maintenance keeps what it has, which
/// is neither checked nor moved, not even when the node is silent, and gets nothing. 'online' also ends that a node
/// gave up everything by itself (failfast).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl node list
  vipctl node standby node-b
  vipctl node online node-b
  vipctl node maintenance node-b on")]
pub struct Node {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the nodes and what they are for
    List,
    /// Move everything away from a node, and nothing to it
    Standby {
        node: String,
        /// Return at once, not when it holds nothing any more
        #[arg(long)]
        no_wait: bool,
    },
    /// Let a node hold resources again
    Online { node: String },
    /// Leave alone what a node holds while somebody works on it
    Maintenance { node: String, switch: Switch },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Node {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        let order = |node, order, wait| session.order(&Request::NodeOrder { node, order, wait });
        match self.action {
            Action::List => match session.ask(&Request::Status)? {
                Answer::Status(s) if session.json => output::json(&s.nodes),
                Answer::Status(s) => {
                    let cautions = s.cluster.iter().flat_map(|c| &c.cautions);
                    let cautions: String = cautions.map(|c| format!("warning: {c}\n")).collect();
                    output::print(&(text(&s.nodes) + &cautions));
                    Ok(())
                }
                other => Err(unexpected(&other)),
            },
            Action::Standby { node, no_wait } => order(node, NodeOrder::Standby, !no_wait),
            Action::Online { node } => order(node, NodeOrder::Online, false),
            Action::Maintenance { node, switch } => {
                order(node, NodeOrder::Maintenance(switch == Switch::On), false)
            }
        }
    }
}

fn text(nodes: &[NodeStatus]) -> String {
    let mut table = Table::new(["NODE", "DUTY", "HOLDS", "WHY"]).right([2]);
    for node in nodes {
        table.row([
            node.name.clone(),
            node.duty(),
            node.resources_in_service.to_string(),
            node.gave_up.clone().unwrap_or_default(),
        ]);
    }
    table.render()
}

//! `vipctl cluster`.

use std::{
    io::{self, BufRead, IsTerminal},
    net::{SocketAddr, ToSocketAddrs},
};

use clap::{Args, Subcommand};

use super::{Session, output, parse, session::unexpected, status};
use crate::api::{Answer, ApiError, Request};

/// The port of 'rpc' in the example configuration.
const DEFAULT_PORT: u16 = 7411;

/// Found a cluster, join or leave one, show it
#[derive(Debug, Args)]
#[command(after_help = "\
A cluster of three:
  node-a# vipctl cluster init production
  node-a# vipctl cluster token
  node-b# vipctl cluster join node-a:7411 --token TOKEN
  node-c# vipctl cluster join node-a:7411 --token TOKEN")]
pub struct Cluster {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Found a cluster of this node alone
    Init { name: String },
    /// Join the cluster of a node
    Join {
        /// The 'rpc' address of any member; without PORT it is 7411
        #[arg(value_name = "ADDRESS[:PORT]")]
        address: String,
        /// What 'vipctl cluster token' printed there; '-' reads it from stdin, unseen by other users of this host
        #[arg(long, value_name = "T")]
        token: String,
    },
    /// Print what another node needs to join: keep it secret
    Token,
    /// Replace the secret that all nodes share, while they run
    ///
    /// Every node must be there. Nothing in service is touched. Afterwards the old key and the tokens that were
    /// printed before open nothing any more. Do it when a token may have been seen by others, and after a node
    /// was removed
    RotateKey,
    /// Go on alone, as the last of two voters, without the other, which is dead
    ///
    /// UNSAFE when it is not dead: two hosts may then answer for one address. Make sure first that it is off, or cut off
    /// from everything. Only on one of the two. What it had is taken over once leases have run out; when it returns it is
    /// taken back in by itself and holds nothing.
    ForceQuorum {
        /// The node that is dead for certain
        #[arg(long, value_name = "NODE", required = true)]
        i_confirm_dead: String,
    },
    /// Take this node out of the cluster
    ///
    /// It must hold nothing, and the others must be able to go on deciding without it. Its vipd goes on running
    /// without a cluster, and can found or join one.
    Leave {
        /// Move what it holds to other nodes first
        #[arg(long = "move")]
        drain: bool,
        /// Without telling the others, which this node does not reach: for one that they have removed
        ///
        /// Everything it may still have is shut and removed.
        #[arg(long, conflicts_with = "drain")]
        forget: bool,
    },
    /// Take another node out of the cluster, for good: one that is dead, or holds nothing
    ///
    /// A host that replaces it joins first, as a node with another name, and takes its place with --replace-by: the
    /// same resources with the same settings, ping lists and location constraints, where it has none of its own. Should a removed node come back,
    /// it is told so and starts over without a cluster.
    Remove {
        node: String,
        /// The node that gets whatever is said of the removed one
        #[arg(long, value_name = "NODE")]
        replace_by: Option<String>,
        /// Although that node is not there to check what it gets
        #[arg(long, requires = "replace_by")]
        force: bool,
    },
    /// Take 'rpc' and 'paths' from node.toml anew, while everything runs
    ///
    /// For a node whose addresses change: give the host the new ones beside the old, write them into node.toml, and
    /// run this there. What the node holds stays in service. All else in node.toml is read anew as well.
    Readdress,
    /// Show the cluster: members, paths, quorum
    Status,
    /// Change what holds for all resources that say nothing else
    ///
    /// stickiness=SCORE, migration-threshold=N|unlimited, restarts=N|unlimited, failure-timeout=SECONDS;
    /// maintenance=on|off, in which nothing is checked, started, stopped or moved anywhere; and
    /// two-nodes=off|freeze|tie-breaker, for two voters without a witness: whether the loss of one is silence, the other
    /// keeps what it has, or goes on alone by itself when it reaches a majority of the connectivity hosts ('vipctl
    /// connectivity'). The tie-breaker is UNSAFE: two nodes cut from one another on every path and on the clients'
    /// network as well, both of which reach the hosts, both go on and answer for the same addresses
    Set {
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = parse::setting)]
        settings: Vec<(String, String)>,
    },
}

impl Cluster {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        match self.action {
            Action::Init { name } => session.order(&Request::ClusterInit { name }),
            Action::Join { address, token } => {
                let address = resolve(&address)?;
                let token = if token == "-" { read_token()? } else { token };
                session.order(&Request::ClusterJoin { address, token })
            }
            Action::RotateKey => session.order(&Request::ClusterRotateKey),
            Action::ForceQuorum { i_confirm_dead: dead } => {
                confirm(&dead)?;
                session.order(&Request::ForceQuorum { dead })
            }
            Action::Leave { forget: true, .. } => session.order(&Request::ClusterForget),
            Action::Leave { drain, .. } => session.order(&Request::ClusterLeave { drain }),
            Action::Remove { node, replace_by, force } => {
                session.order(&Request::ClusterRemove { node, heir: replace_by, force })
            }
            Action::Readdress => session.order(&Request::ClusterReaddress),
            Action::Set { settings } => session.order(&Request::ClusterSet { settings }),
            Action::Token => match session.ask(&Request::ClusterToken)? {
                Answer::Token(token) if session.json => output::json(&serde_json::json!({ "token": token })),
                Answer::Token(token) => {
                    output::print(&format!("{token}\n"));
                    Ok(())
                }
                other => Err(unexpected(&other)),
            },
            Action::Status => match session.ask(&Request::Status)? {
                Answer::Status(s) if session.json => output::json(&serde_json::json!({
                    "cluster": s.cluster, "nodes": s.nodes, "lease": s.lease, "warnings": s.warnings,
                })),
                Answer::Status(s) => {
                    output::print(&status::cluster_text(&s));
                    Ok(())
                }
                other => Err(unexpected(&other)),
            },
        }
    }
}

fn resolve(text: &str) -> Result<SocketAddr, ApiError> {
    let unbracketed = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    // An IPv6 address has colons of its own.
    let bare = unbracketed.parse::<std::net::IpAddr>().is_ok() || !text.contains(':');
    let found = if bare { (unbracketed, DEFAULT_PORT).to_socket_addrs() } else { text.to_socket_addrs() };
    let wrong = |why: String| {
        ApiError::usage(format!(
            "'{text}' {why}: give the rpc address of a member, as 192.0.2.1:{DEFAULT_PORT}"
        ))
    };
    found
        .map_err(|e| wrong(format!("cannot be resolved ({e})")))?
        .next()
        .ok_or_else(|| wrong("has no address".to_owned()))
}

/// A person is asked once more; a script has said it with the option.
fn confirm(dead: &str) -> Result<(), ApiError> {
    output::note(&format!(
        "UNSAFE if '{dead}' is alive: it may go on answering for its addresses while this node takes them over"
    ));
    if !io::stdin().is_terminal() {
        return Ok(());
    }
    output::note("type its name to go on:");
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|e| ApiError::failed(format!("cannot read stdin: {e}")))?;
    if line.trim() == dead { Ok(()) } else { Err(ApiError::refused("nothing was done")) }
}

fn read_token() -> Result<String, ApiError> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        output::note("token:");
    }
    let mut line = String::new();
    stdin
        .lock()
        .read_line(&mut line)
        .map_err(|e| ApiError::failed(format!("cannot read the token from stdin: {e}")))?;
    match line.trim() {
        "" => Err(ApiError::usage("stdin has no token: pipe in what 'vipctl cluster token' printed")),
        token => Ok(token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_port() {
        for (text, expected) in [
            ("192.0.2.1", "192.0.2.1:7411"),
            ("192.0.2.1:5", "192.0.2.1:5"),
            ("2001:db8::1", "[2001:db8::1]:7411"),
            ("[2001:db8::1]", "[2001:db8::1]:7411"),
            ("[2001:db8::1]:5", "[2001:db8::1]:5"),
        ] {
            assert_eq!(resolve(text).unwrap().to_string(), expected);
        }
        assert!(resolve("192.0.2.1:x").is_err() && resolve(":").is_err() && resolve("[").is_err());
    }
}

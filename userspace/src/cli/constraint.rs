//! `vipctl constraint`.

use clap::{Args, Subcommand};

use super::{Session, output, session::unexpected, table::Table};
use crate::{
    api::{Answer, ApiError, ConstraintOf, NewConstraint, Request},
    model::{Score, Tag},
};

/// Show or change where resources may be, with or without each other, and in which order they start
///
/// A resource stands for its whole hierarchy. A score is a number from -999999 to 999999, INFINITY or -INFINITY; more is
/// better, and -INFINITY forbids. Scores decide before priorities.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vipctl constraint add location web node-c -INFINITY
  vipctl constraint add colocation shop web INFINITY
  vipctl constraint add colocation mail web -INFINITY --id apart
  vipctl constraint add order db shop
  vipctl constraint add group ip fs db
  vipctl constraint add clone dns-1 dns-2 dns-3 --per-node 1
  vipctl constraint list
  vipctl constraint remove apart")]
pub struct Constraint {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all constraints
    List,
    /// Add one
    Add {
        #[command(subcommand)]
        what: Add,
        /// Its name [default: made from what it says]
        #[arg(long, global = true, value_name = "ID")]
        id: Option<String>,
    },
    /// Take one back
    Remove { id: String },
}

#[derive(Debug, Subcommand)]
enum Add {
    /// How much a resource likes a node
    Location {
        tag: Tag,
        node: String,
        #[arg(allow_hyphen_values = true)]
        score: Score,
    },
    /// How much a resource likes to be where another is, which is placed first
    Colocation {
        tag: Tag,
        with: Tag,
        #[arg(allow_hyphen_values = true)]
        score: Score,
    },
    /// A resource is in service only while another is
    Order {
        first: Tag,
        then: Tag,
        /// Only where both start, or stop, at the same time
        #[arg(long)]
        optional: bool,
    },
    /// Each depends on the one before it: one hierarchy
    Group {
        #[arg(required = true, num_args = 2.., value_name = "TAG")]
        members: Vec<Tag>,
    },
    /// Instances of one service, spread over the nodes
    Clone {
        #[arg(required = true, num_args = 2.., value_name = "TAG")]
        members: Vec<Tag>,
        /// So many on a node at most
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
        per_node: u16,
    },
}

impl Constraint {
    pub fn run(self, session: &Session) -> Result<(), ApiError> {
        match self.action {
            Action::List => match session.ask(&Request::ConstraintList)? {
                Answer::Constraints(all) if session.json => output::json(&all),
                Answer::Constraints(all) => {
                    output::print(&text(&all));
                    Ok(())
                }
                other => Err(unexpected(&other)),
            },
            Action::Add { what, id } => {
                session.order(&Request::ConstraintAdd { id, constraint: what.into() })
            }
            Action::Remove { id } => session.order(&Request::ConstraintRemove { id }),
        }
    }
}

impl From<Add> for NewConstraint {
    fn from(add: Add) -> Self {
        match add {
            Add::Location { tag, node, score } => Self::Location { tag, node, score },
            Add::Colocation { tag, with, score } => Self::Colocation { tag, with, score },
            Add::Order { first, then, optional } => Self::Order { first, then, optional },
            Add::Group { members } => Self::Group { members },
            Add::Clone { members, per_node } => Self::Clone { members, per_node },
        }
    }
}

fn text(all: &[ConstraintOf]) -> String {
    if all.is_empty() {
        return "there are no constraints: 'vipctl constraint add' makes them\n".to_owned();
    }
    let mut table = Table::new(["ID", "KIND", "MEANS"]);
    for c in all {
        table.row([c.id.clone(), c.kind.clone(), c.says.clone()]);
    }
    table.render()
}

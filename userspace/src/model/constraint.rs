//! Where hierarchies may be, with or without each other, and in which order they start (row CL-7).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{NodeId, Score, Tag};

/// The unique name of a constraint; made from what it says where an operator gives none.
pub type ConstraintId = String;

/// A resource named here stands for its whole hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Constraint {
    /// How much the resource likes the node: minus infinity forbids it. Plus infinity is a very strong
    /// wish, and no more: other nodes stay allowed.
    Location { tag: Tag, node: NodeId, score: Score },
    /// How much the resource likes to be on the node where `with` is. Infinite: there or nowhere; minus
    /// infinite: anywhere but there. `with` is placed first and does not care.
    Colocation { tag: Tag, with: Tag, score: Score },
    /// `then` starts only after `first` is in service, and is stopped before it.
    Order { first: Tag, then: Tag, kind: OrderKind },
    /// Each depends on the one before it, as by `vipctl depend`: one hierarchy.
    Group { members: Vec<Tag> },
    /// Instances of one service: at most `per_node` of them on a node, spread over the nodes before that.
    Clone { members: BTreeSet<Tag>, per_node: u16 },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderKind {
    /// Also when `first` fails or is moved: `then` is stopped and started again.
    #[default]
    Mandatory,
    /// Only where both are started, or stopped, at the same time.
    Optional,
}

impl Constraint {
    /// The resources that it speaks of.
    pub fn tags(&self) -> Vec<&Tag> {
        match self {
            Self::Location { tag, .. } => vec![tag],
            Self::Colocation { tag, with, .. } => vec![tag, with],
            Self::Order { first, then, .. } => vec![first, then],
            Self::Group { members } => members.iter().collect(),
            Self::Clone { members, .. } => members.iter().collect(),
        }
    }
}

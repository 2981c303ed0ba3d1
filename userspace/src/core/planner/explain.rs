//! Why a hierarchy is where it is, and why not elsewhere.

use serde::{Deserialize, Serialize};

use super::{
    Observed, Planner,
    intent::{Intent, Intents},
    unit::Unit,
};
use crate::model::{ClusterState, NodeId, Score, Switchback, Tag};

/// Names, not numbers: for people and for `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What the hierarchy is called by.
    pub root: Tag,
    /// Children before their parents.
    pub members: Vec<Tag>,
    pub owner: Option<String>,
    /// In one line: where it is or goes, and why.
    pub summary: String,
    /// Every node it is extended to, by priority.
    pub nodes: Vec<NodeVerdict>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeVerdict {
    pub node: String,
    pub priority: u16,
    /// It is there.
    pub here: bool,
    /// What keeps it from being started there, the gravest first; empty: nothing.
    pub obstacles: Vec<String>,
    /// How many of the connectivity hosts the node reaches; None where that does not matter.
    pub reached: Option<usize>,
    pub score: Score,
    /// What the score is made of, by constraint.
    pub parts: Vec<(String, Score)>,
}

/// None for a resource that is not there.
pub fn explain(state: &ClusterState, observed: &Observed, tag: &Tag) -> Option<Explanation> {
    let planner = Planner::new(state, observed);
    let intents = Intents::new(&planner);
    let id = planner.units.all.iter().position(|unit| unit.members.contains(tag))?;
    let unit = &planner.units.all[id];
    let owner = planner.owner(unit);
    let mut nodes: Vec<NodeId> = unit.root.nodes.keys().copied().collect();
    nodes.sort_by_key(|n| unit.root.nodes.get(n).map(|s| s.priority));
    Some(Explanation {
        root: unit.root.tag.clone(),
        members: state.bottom_up(&unit.members),
        owner: owner.map(|n| planner.name(n)),
        summary: summary(&planner, unit, &intents.of[id], owner),
        nodes: nodes.into_iter().map(|n| verdict(&planner, &intents, id, n, owner)).collect(),
    })
}

fn verdict(
    planner: &Planner,
    intents: &Intents,
    id: usize,
    node: NodeId,
    owner: Option<NodeId>,
) -> NodeVerdict {
    let unit = &planner.units.all[id];
    let places = &intents.places;
    let obstacles = planner.obstacles(unit, node, places);
    let matters = !unit.root.policy.ignores_connectivity && !planner.state.connectivity.hosts.is_empty();
    NodeVerdict {
        node: planner.name(node),
        priority: unit.root.nodes.get(&node).map_or(0, |s| s.priority),
        here: owner == Some(node),
        obstacles: obstacles.into_iter().map(|o| o.reason).collect(),
        reached: matters.then(|| planner.state.reached_by(node)),
        score: planner.rank_of(unit, node, places).score,
        parts: planner.scores(unit, node, places).collect(),
    }
}

fn summary(planner: &Planner, unit: &Unit, intent: &Intent, owner: Option<NodeId>) -> String {
    let name = |node: &NodeId| planner.name(*node);
    let maintained = planner.state.in_maintenance(unit.root, owner);
    match intent {
        Intent::Idle if maintained => match owner {
            Some(owner) => format!("on {}, in maintenance: nothing is checked or moved", name(&owner)),
            None => "in maintenance: nothing is started".to_owned(),
        },
        Intent::Idle => match owner {
            Some(owner) => format!("it is being stopped on {}", name(&owner)),
            None => "out of service, as an operator ordered".to_owned(),
        },
        Intent::Stay(node) => format!("on {}: {}", name(node), why_it_stays(planner, unit, *node)),
        Intent::Leave { reason, to: Some(to) } => format!("moves to {}: {reason}", name(to)),
        Intent::Leave { reason, to: None } => format!("leaves: {reason}"),
        Intent::Next(node) => format!("goes to {} when it has stopped where it is", name(node)),
        Intent::Start(node) => format!("is given to {}", name(node)),
        Intent::Wait { reason } => format!("waits: {reason}"),
    }
}

fn why_it_stays(planner: &Planner, unit: &Unit, node: NodeId) -> String {
    if unit.members.iter().find_map(|t| planner.choice(t)) == Some(node) {
        return format!(
            "an operator brought it there ('vipctl clear {}' leaves the choice to the cluster)",
            unit.root.tag
        );
    }
    match unit.root.switchback {
        Switchback::Intelligent => {
            "it stays where it is until that fails (intelligent switchback)".to_owned()
        }
        Switchback::Automatic => "no other node is better for it (automatic switchback)".to_owned(),
    }
}

//! Why a hierarchy is where it is, and why not elsewhere.

use serde::{Deserialize, Serialize};

use super::{
    Observed, Planner,
    placement::{Course, Seat},
    units::UnitId,
    words::not_up,
};
use crate::model::{ClusterState, NodeId, Phase, Score, Tag};

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

impl NodeVerdict {
    /// Nothing keeps it from being started there.
    pub fn is_eligible(&self) -> bool {
        self.obstacles.is_empty()
    }

    /// In one line, without the node's name.
    pub fn line(&self) -> String {
        if !self.obstacles.is_empty() {
            return self.obstacles.join("; ");
        }
        let mut words = vec![format!("priority {}", self.priority)];
        words.extend(self.reached.map(|n| format!("reaches {n} connectivity hosts")));
        if !self.parts.is_empty() {
            let parts: Vec<String> =
                self.parts.iter().map(|(what, score)| format!("{what} {score}")).collect();
            words.push(format!("score {} ({})", self.score, parts.join(", ")));
        }
        words.join(", ")
    }
}

/// None for a resource that is not there.
pub fn explain(state: &ClusterState, observed: &Observed, tag: &Tag) -> Option<Explanation> {
    let planner = Planner::new(state, observed);
    let u = planner.units.iter().position(|unit| unit.member(tag).is_some())?;
    Some(planner.explain(u))
}

/// Hierarchies that are to be in service, that nobody has and that no node can have as things are.
pub fn unplaced(state: &ClusterState, observed: &Observed) -> Vec<Explanation> {
    if !state.placements.values().any(|p| p.is_wanted() && p.grant.is_none()) {
        return Vec::new();
    }
    let planner = Planner::new(state, observed);
    let nowhere = |u: &UnitId| {
        let idle = planner.units[*u].is_wanted() && planner.holder(*u).is_none();
        idle && planner.place(*u).is_none() && !planner.frozen(*u)
    };
    (0..planner.units.len()).filter(nowhere).map(|u| planner.explain(u)).collect()
}

impl<'a> Planner<'a> {
    pub(super) fn explain(&self, u: UnitId) -> Explanation {
        let unit = &self.units[u];
        let mut nodes: Vec<NodeId> = unit.nodes().keys().copied().collect();
        nodes.sort_by_key(|id| (unit.nodes().get(id).map(|s| s.priority), *id));
        Explanation {
            root: unit.tag().clone(),
            members: self.state.bottom_up(&unit.members.iter().map(|m| m.tag().clone()).collect()),
            owner: unit.holder().map(|id| self.name(id)),
            summary: self.summary(u),
            nodes: nodes.into_iter().map(|id| self.verdict(u, id)).collect(),
        }
    }

    fn verdict(&self, u: UnitId, id: NodeId) -> NodeVerdict {
        let unit = &self.units[u];
        let here = unit.holder() == Some(id);
        let matters = !unit.root.policy.ignores_connectivity && !self.state.connectivity.hosts.is_empty();
        let stickiness = unit.stickiness(self.state);
        let sticks = (here && stickiness != Score::ZERO).then(|| ("stickiness".to_owned(), stickiness));
        let parts: Vec<(String, Score)> =
            self.wishes(u, id).map(|(by, score)| (by.clone(), score)).chain(sticks).collect();
        let mut hurdles: Vec<_> = self.hurdles(u, id).collect();
        hurdles.sort_by_key(|hurdle| hurdle.force());
        NodeVerdict {
            node: self.name(id),
            priority: unit.nodes().get(&id).map_or(0, |s| s.priority),
            here,
            obstacles: hurdles.iter().map(|hurdle| self.hurdle(hurdle)).collect(),
            reached: matters.then(|| self.reach(unit, id)),
            score: parts.iter().map(|(_, score)| *score).sum(),
            parts,
        }
    }

    fn summary(&self, u: UnitId) -> String {
        let unit = &self.units[u];
        let name = |id: NodeId| self.name(id);
        let holder = unit.holder();
        let Some(Seat { place, course }) = &self.seats[u] else { return String::new() };
        match (course, holder, *place) {
            (Course::Frozen, Some(on), _) => {
                format!("on {}, in maintenance: nothing is checked or moved", name(on))
            }
            (Course::Lost, Some(on), _) => {
                format!("on {}, which is silent: it goes elsewhere once that is proven", name(on))
            }
            (Course::Frozen, None, _) => "in maintenance: nothing is started".to_owned(),
            (Course::Leaves(_) | Course::Free, Some(on), None) if !unit.is_wanted() => {
                format!("it is being stopped on {}", name(on))
            }
            (Course::Leaves(why), Some(on), Some(to)) => {
                format!("moves to {}: {}", name(to), self.why(why, on, Some(to)))
            }
            (Course::Leaves(why), Some(on), None) => {
                format!("leaves {}: {}", name(on), self.why(why, on, None))
            }
            (Course::Stays, Some(on), _) => match self.missing_first(u) {
                Some(order) => format!("leaves {}: {}", name(on), not_up(order)),
                None => format!("on {}: {}", name(on), self.why_it_stays(u, on)),
            },
            (Course::Free, _, None) if !unit.is_wanted() => {
                "out of service, as an operator ordered".to_owned()
            }
            (Course::Free, _, None) => match self.missing_first(u) {
                Some(order) => format!("waits: {}", not_up(order)),
                None => "waits: no node can have it".to_owned(),
            },
            (Course::Free, Some(on), Some(to)) if self.trusted(on) => {
                format!("goes to {} when it has stopped on {}", name(to), name(on))
            }
            (Course::Free, _, Some(to)) => self.why_it_waits(u, to),
            (Course::Lost | Course::Stays | Course::Leaves(_), None, _) => "out of service".to_owned(),
        }
    }

    fn why_it_waits(&self, u: UnitId, to: NodeId) -> String {
        let to = self.name(to);
        if let Some(order) = self.missing_first(u).or_else(|| self.starting_first(u)) {
            return format!(
                "waits to be given to {to}: constraint '{}': '{}' comes first",
                order.id, order.first_tag
            );
        }
        match self.occupant(u) {
            Some(by) => format!("waits to be given to {to}: '{by}' must not be with it and has yet to leave"),
            None => format!("is given to {to}"),
        }
    }

    fn why_it_stays(&self, u: UnitId, on: NodeId) -> String {
        let unit = &self.units[u];
        if unit.members.iter().any(|m| m.phase() == Some(Phase::Starting)) {
            return "it is being started".to_owned();
        }
        if self.choice(unit) == Some(on) {
            return format!(
                "an operator brought it there ('vipctl clear {}' leaves the choice to the cluster)",
                unit.tag()
            );
        }
        if unit.is_automatic() {
            "no other node is better for it (automatic switchback)".to_owned()
        } else {
            "it stays where it is until that fails (intelligent switchback)".to_owned()
        }
    }
}

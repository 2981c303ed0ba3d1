//! How a resource is treated when it fails, and how much it likes where it is (rows CL-7, NM-6).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Score;

/// What is None is as the cluster has it ([`Defaults`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// How much it prefers the node it is on to any other.
    pub stickiness: Option<Score>,
    /// So many failures on a node, also such as local recovery mended, drive it away from there.
    pub migration_threshold: Option<Threshold>,
    /// Failures are forgotten when none came for so long.
    pub failure_timeout: Option<Duration>,
    /// When it fails in service for good on a node, the node gives up everything (service failfast).
    pub service_failfast: bool,
    /// When it fails on a node in any way, also at a start, the node gives up everything (node failfast).
    pub node_failfast: bool,
    /// Neither checked nor moved: an operator works on it.
    pub maintenance: bool,
    /// How many of the connectivity hosts a node reaches does not matter to it (row CL-8).
    pub ignores_connectivity: bool,
}

/// How many failures a node is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Threshold {
    /// As many as local recovery mends.
    #[default]
    Unlimited,
    /// At least 1: the last of them drives the resource away.
    Failures(u32),
}

impl Threshold {
    /// That many failures are too many.
    pub fn is_reached(self, failures: u32) -> bool {
        match self {
            Self::Unlimited => false,
            Self::Failures(limit) => failures >= limit,
        }
    }
}

/// For all resources that say nothing else, and what holds for the cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Defaults {
    pub stickiness: Score,
    pub migration_threshold: Threshold,
    pub failure_timeout: Duration,
    /// Nothing is checked, moved or started anywhere.
    pub maintenance: bool,
    pub two_nodes: TwoNodes,
}

/// What two nodes without a third vote do when they lose one another (row CL-4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TwoNodes {
    /// Neither has a majority: all addresses go silent.
    #[default]
    Off,
    /// Each keeps what it has, and gets nothing of the other's unless an operator says that the other is dead.
    Freeze,
    /// Neither has a majority; the one that reaches the connectivity hosts says by itself that the other is dead.
    TieBreaker,
}

impl TwoNodes {
    /// As operators write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Freeze => "freeze",
            Self::TieBreaker => "tie-breaker",
        }
    }

    /// None for a word that is no policy.
    pub fn named(word: &str) -> Option<Self> {
        [Self::Off, Self::Freeze, Self::TieBreaker].into_iter().find(|p| p.name() == word)
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            stickiness: Score::ZERO,
            migration_threshold: Threshold::Unlimited,
            failure_timeout: Duration::from_secs(60),
            maintenance: false,
            two_nodes: TwoNodes::Off,
        }
    }
}

impl Policy {
    pub fn stickiness(&self, defaults: &Defaults) -> Score {
        self.stickiness.unwrap_or(defaults.stickiness)
    }

    pub fn migration_threshold(&self, defaults: &Defaults) -> Threshold {
        self.migration_threshold.unwrap_or(defaults.migration_threshold)
    }

    pub fn failure_timeout(&self, defaults: &Defaults) -> Duration {
        self.failure_timeout.unwrap_or(defaults.failure_timeout)
    }
}

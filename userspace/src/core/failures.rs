//! docs/failures.md, cell by cell: what it says is what the agents, the planner and the changes do together.

mod world;

use std::net::{IpAddr, Ipv4Addr};

use self::world::{CHILD, ELSEWHERE, Fault, HERE, OTHER, PARENT, SUBNET, World};
use super::{
    agent::{DeviceHealth, Operation},
    change::{
        Change, Duty, Setting,
        tests::{no_answer, tag},
    },
    conflict::{Claim, ClaimKind, Conflicts, Response},
    time::BootTime,
};
use crate::model::{OnConflict, Phase, Threshold};

const DOCUMENT: &str = include_str!("../../../docs/failures.md");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    StartFails,
    Mended,
    MendedTwice,
    RecoveryFails,
    InterfaceFails,
    InterfacesFail,
    SubnetLost,
    Claimed(OnConflict),
    ChildFails,
    StopFailsSilent,
    StopFails,
    DaemonRestarts,
    DaemonDies,
    DaemonFreezes,
    HostDies,
    QuorumLost,
}

/// As the document calls them.
const CONDITIONS: [(Condition, &str); 18] = [
    (Condition::StartFails, "start fails"),
    (Condition::Mended, "check fails, local recovery succeeds"),
    (Condition::MendedTwice, "the same a second time"),
    (Condition::RecoveryFails, "check fails, local recovery fails"),
    (Condition::InterfaceFails, "its interface fails, a standby one works"),
    (Condition::InterfacesFail, "all its interfaces fail"),
    (Condition::SubnetLost, "a monitored subnet is lost"),
    (Condition::Claimed(OnConflict::Report), "another host claims it (`on-conflict=report`)"),
    (Condition::Claimed(OnConflict::Defend), "the same (`on-conflict=defend`)"),
    (Condition::Claimed(OnConflict::Yield), "the same (`on-conflict=yield`)"),
    (Condition::ChildFails, "what it depends on fails for good"),
    (Condition::StopFailsSilent, "stop fails, gate shut"),
    (Condition::StopFails, "stop fails, gate not shut"),
    (Condition::DaemonRestarts, "the daemon is back within the suspicion time"),
    (Condition::DaemonDies, "the daemon dies"),
    (Condition::DaemonFreezes, "the daemon freezes"),
    (Condition::HostDies, "the host dies, or is cut off"),
    (Condition::QuorumLost, "quorum is lost"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Default,
    OneRestart,
    ServiceFailfast,
    NodeFailfast,
}

/// What came of it, in the document's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Stays,
    Mended,
    Switches,
    Moves,
    GivesUp,
    Stops,
    Waits,
    Silent,
}

impl Effect {
    fn word(self) -> &'static str {
        match self {
            Self::Stays => "stays",
            Self::Mended => "mended",
            Self::Switches => "switches",
            Self::Moves => "moves",
            Self::GivesUp => "gives up",
            Self::Stops => "stops",
            Self::Waits => "waits",
            Self::Silent => "silent",
        }
    }
}

/// One cell: a cluster with the policy, in which the condition comes about.
struct Case {
    world: World,
    condition: Condition,
}

impl Case {
    fn new(condition: Condition, policy: Policy, alone: bool, steps: usize) -> Self {
        let mut case = Self { world: World::new(steps), condition };
        let setting = match policy {
            Policy::Default => None,
            Policy::OneRestart => Some(Setting::MigrationThreshold(Some(Threshold::Failures(2)))),
            Policy::ServiceFailfast => Some(Setting::ServiceFailfast(true)),
            Policy::NodeFailfast => Some(Setting::NodeFailfast(true)),
        };
        // What is looked at: the one that the condition speaks of.
        let subject = if condition == Condition::ChildFails { PARENT } else { CHILD };
        if let Some(setting) = setting {
            case.world.order(Change::Set { tag: tag(subject), node: None, setting });
        }
        if alone {
            (2..=3).for_each(|id| case.world.duty(id, Duty::Standby));
        }
        case
    }

    fn fault(&mut self, operation: Operation, once: bool, silent: bool) {
        self.world.faults.push(Fault { operation, once, silent });
    }

    /// A check finds the address gone.
    fn broken(&mut self) {
        self.fault(Operation::Quickcheck, true, false);
        self.world.touch();
    }

    fn happens(&mut self) {
        match self.condition {
            Condition::StartFails => {
                self.world.order(Change::OutOfService { tag: tag(CHILD) });
                self.world.settle();
                self.fault(Operation::Restore, false, false);
                self.world.order(Change::InService { tag: tag(PARENT), on: None, until: None });
            }
            Condition::Mended => self.broken(),
            Condition::MendedTwice => {
                self.broken();
                self.world.settle();
                self.broken();
            }
            Condition::RecoveryFails | Condition::ChildFails => {
                self.broken();
                self.fault(Operation::Recover, false, false);
                self.fault(Operation::Restore, false, false);
            }
            Condition::InterfaceFails => {
                self.world.devices.insert("eth0", DeviceHealth::Failed);
            }
            Condition::InterfacesFail => {
                self.world.devices.values_mut().for_each(|d| *d = DeviceHealth::Failed);
                self.world.touch();
            }
            Condition::SubnetLost => {
                let down = [(SUBNET.parse().unwrap(), no_answer())].into();
                self.world.order(Change::ReportSubnets { node: HERE, down });
            }
            Condition::Claimed(policy) => self.claim(policy),
            Condition::StopFailsSilent | Condition::StopFails => {
                self.fault(Operation::Remove, false, self.condition == Condition::StopFailsSilent);
                self.world.order(Change::InService { tag: tag(PARENT), on: Some(ELSEWHERE), until: None });
            }
            Condition::DaemonRestarts => self.world.restart(false),
            Condition::DaemonDies | Condition::DaemonFreezes | Condition::HostDies => {
                self.world.away.insert(HERE);
            }
            Condition::QuorumLost => self.world.quorum = false,
        }
        self.world.settle();
    }

    /// The conflict watch, and what the daemon makes of its answer.
    fn claim(&mut self, policy: OnConflict) {
        let claim = Claim {
            address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            mac: [2, 0, 0, 0, 0, 9],
            kind: ClaimKind::ArpAnnouncement,
            at: BootTime(1),
        };
        match Conflicts::default().heard(1, claim, policy) {
            Response::Yield => self.world.give_up("another host claims it"),
            Response::Tell | Response::Defend => {}
        }
    }

    /// What brought it about is mended, or comes back.
    fn ends(&mut self) {
        self.world.faults.clear();
        self.world.devices.values_mut().for_each(|d| *d = DeviceHealth::Healthy);
        self.world.quorum = true;
        match self.condition {
            Condition::SubnetLost => {
                self.world.order(Change::ReportSubnets { node: HERE, down: Default::default() });
            }
            Condition::DaemonDies | Condition::HostDies => {
                self.world.restart(self.condition == Condition::HostDies);
            }
            _ => {}
        }
        self.world.away.clear();
        self.world.settle();
    }

    fn effect(&self) -> Effect {
        let owner = self.world.owner(CHILD);
        let of_parent = self.world.owner(PARENT);
        // What depends on something is gone while that is being stopped.
        let stopping = matches!(owner, Some((_, Phase::Stopping))) && of_parent.is_none();
        let one_place = owner.map(|(node, _)| node) == of_parent.map(|(node, _)| node);
        assert!(stopping || one_place, "{:?}: {owner:?}, {of_parent:?}", self.condition);
        if self.world.state.nodes[&HERE].gave_up.is_some() {
            return Effect::GivesUp;
        }
        match owner {
            Some((HERE, Phase::InService)) if !self.world.quorum => Effect::Silent,
            Some((HERE, Phase::InService)) if self.world.did(Operation::Recover) => Effect::Mended,
            Some((HERE, Phase::InService)) if self.world.did(Operation::Switch) => Effect::Switches,
            Some((HERE, Phase::InService)) => {
                let idle = self.world.began.iter().all(|(o, _)| *o == Operation::Quickcheck);
                assert!(idle, "{:?}: {:?}", self.condition, self.world.began);
                Effect::Stays
            }
            Some((HERE, Phase::Stopping)) => Effect::Waits,
            Some((_, Phase::InService)) => Effect::Moves,
            None => Effect::Stops,
            other => panic!("{:?} never comes to rest: {other:?}", self.condition),
        }
    }

    fn others(&self) -> &'static str {
        match self.world.owner(OTHER) {
            Some((HERE, Phase::InService)) if !self.world.quorum => "silent",
            Some((HERE, Phase::InService)) => "stay",
            Some((_, Phase::InService)) => "move",
            other => panic!("{:?}: {other:?}", self.condition),
        }
    }

    /// It can be brought back by the verb that brings it anywhere.
    fn goes_back(mut self) {
        let back = Change::InService { tag: tag(PARENT), on: Some(HERE), until: None };
        self.world.order(back);
        self.world.settle();
        for name in [CHILD, PARENT] {
            assert_eq!(self.world.owner(name), Some((HERE, Phase::InService)), "{:?}", self.condition);
        }
    }
}

/// What comes of it does not depend on how soon the cluster hears of each step.
fn happened(condition: Condition, policy: Policy, alone: bool) -> Case {
    let mut slow = Case::new(condition, policy, alone, 1);
    slow.happens();
    let mut case = Case::new(condition, policy, alone, 20);
    case.happens();
    assert_eq!(slow.effect(), case.effect(), "{condition:?}, {policy:?}, alone: {alone}");
    let marks = |case: &Case| -> Vec<_> {
        let placements = case.world.state.placements.values();
        placements.map(|p| (p.failed.clone(), p.failures.clone())).collect()
    };
    // Of what a node gives up only the first is marked.
    let alike = case.effect() == Effect::GivesUp || marks(&slow) == marks(&case);
    assert!(alike, "{condition:?}, {policy:?}, alone: {alone}");
    case
}

/// What the document says of when the node can have it again.
const BY_ITSELF: &str = "by itself";
const FORGIVEN: &str = "`failure-timeout`, `cleanup`";

fn check_again(condition: Condition, says: &str) {
    let mut case = happened(condition, Policy::Default, false);
    let effect = case.effect();
    case.ends();
    if says == FORGIVEN {
        assert!(!case.world.is_eligible(), "{condition:?}: nothing keeps it from there");
        let mut forgiven = happened(condition, Policy::Default, false);
        forgiven.ends();
        for name in [CHILD, PARENT] {
            forgiven.world.order(Change::Forgive { tag: tag(name), node: HERE });
        }
        assert!(forgiven.world.is_eligible(), "{condition:?}: time does not mend it");
        case.world.order(Change::Cleanup { tag: tag(CHILD), node: None });
    } else {
        assert!(says.starts_with(BY_ITSELF), "{condition:?}: '{says}' says neither");
    }
    assert!(case.world.is_eligible(), "{condition:?}");
    if effect != Effect::Waits {
        case.goes_back();
    }
}

/// Where nobody else can have it, it is started again by itself where the cause and the mark are gone.
fn check_alone(condition: Condition, effect: Effect) {
    if effect != Effect::Stops {
        return;
    }
    let mut case = happened(condition, Policy::OneRestart, true);
    case.ends();
    for name in [CHILD, PARENT] {
        case.world.order(Change::Forgive { tag: tag(name), node: HERE });
    }
    case.world.settle();
    assert_eq!(case.world.owner(PARENT), Some((HERE, Phase::InService)), "{condition:?}");
}

/// Everything is elsewhere until an operator says `online`; then nothing is left of it.
fn check_given_up(condition: Condition, policy: Policy) {
    let mut case = happened(condition, policy, false);
    for name in [CHILD, PARENT, OTHER] {
        assert_eq!(case.world.owner(name), Some((ELSEWHERE, Phase::InService)), "{condition:?}");
    }
    case.ends();
    let back = Change::InService { tag: tag(PARENT), on: Some(HERE), until: None };
    assert!(case.world.is_refused(&back), "{condition:?}");
    for name in [CHILD, PARENT, OTHER] {
        case.world.order(Change::Forgive { tag: tag(name), node: HERE });
    }
    case.world.settle();
    assert!(!case.world.is_eligible(), "{condition:?}: time does not bring it back");
    let mut case = happened(condition, policy, false);
    case.ends();
    case.world.duty(HERE, Duty::Online);
    assert!(case.world.is_eligible(), "{condition:?}");
    case.goes_back();
}

/// The cells of the document's table, by its first column.
fn rows() -> Vec<Vec<&'static str>> {
    let lines = DOCUMENT.lines().skip_while(|l| !l.starts_with("| what happens")).skip(2);
    let lines = lines.take_while(|l| l.starts_with('|'));
    lines.map(|l| l.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_document_is_true() {
    let rows = rows();
    let named: Vec<&str> = rows.iter().map(|r| r[0]).collect();
    assert_eq!(named, CONDITIONS.map(|(_, name)| name), "each condition has its row");
    let mut wrong = Vec::new();
    for ((condition, name), row) in CONDITIONS.into_iter().zip(&rows) {
        let [_, default, restarts, service, node, alone, others, again] = row[..] else {
            panic!("a row has eight cells: {row:?}")
        };
        let mut check = |column: &str, says: &str, is: &str| {
            if says != is {
                wrong.push(format!("{name}, {column}: it says '{says}' and is '{is}'"));
            }
        };
        let columns = [
            ("default", default, Policy::Default),
            ("restarts=1", restarts, Policy::OneRestart),
            ("service-failfast", service, Policy::ServiceFailfast),
            ("node-failfast", node, Policy::NodeFailfast),
        ];
        for (column, says, policy) in columns {
            let effect = happened(condition, policy, false).effect();
            check(column, says, effect.word());
            if effect == Effect::GivesUp {
                check_given_up(condition, policy);
            }
        }
        if matches!(condition, Condition::StopFails | Condition::StopFailsSilent) {
            check("nobody else", alone, "-");
        } else {
            let effect = happened(condition, Policy::OneRestart, true).effect();
            check("nobody else", alone, effect.word());
            check_alone(condition, effect);
        }
        check("others", others, happened(condition, Policy::Default, false).others());
        check_again(condition, again);
    }
    assert!(wrong.is_empty(), "docs/failures.md:\n{}", wrong.join("\n"));
}

/// The document's words are explained in it.
#[test]
fn every_word_is_explained() {
    use Effect::*;
    for effect in [Stays, Mended, Switches, Moves, GivesUp, Stops, Waits, Silent] {
        let entry = format!("- **{}**:", effect.word());
        assert!(DOCUMENT.contains(&entry), "'{entry}' is missing");
    }
}

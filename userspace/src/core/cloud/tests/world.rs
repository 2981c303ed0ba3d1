//! A little EC2, which does what the real one does to a caller, and worse.

use std::{collections::VecDeque, net::Ipv4Addr, sync::Arc, time::Duration};

use vipd_ec2::{Action, Association, CallError, ElasticIp, Nic, Route, RouteTable};

use super::super::{Answer, Ask, CloudReport, CloudSequence};
use crate::core::{
    command::{Command, Effect, LinkState},
    sequence::{Failure, Input, Step, StepNote},
};

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is done, and said so.
    Fine,
    /// Nothing is done, and nobody answers.
    Silent,
    /// It is done, and nobody answers.
    Lost,
    Throttled,
    /// Nothing is done, and success is claimed (of a read: as fine).
    Lie,
    Denied,
    /// The grant has ended.
    Overtaken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// `eni-...` of this host; None: it was detached.
    pub nic: Option<String>,
    /// Of its `eth2`.
    pub standby: Option<String>,
    /// Of its interface.
    pub link: LinkState,
    pub tables: Vec<RouteTable>,
    pub eips: Vec<ElasticIp>,
    associations: u32,
    /// So many looks after a write see what was before it: EC2 answers from copies that lag behind.
    pub lag: u32,
    /// What is seen until then.
    before: Option<(u32, Vec<RouteTable>, Vec<ElasticIp>)>,
}

/// How a run ended, and what it asked for.
#[derive(Debug)]
pub struct Run {
    pub result: Result<(), Failure>,
    pub asked: Vec<Ask>,
    pub notes: Vec<StepNote>,
    pub report: CloudReport,
    /// It never ended by itself, and its limit was said to have passed.
    pub overran: bool,
}

pub const VPC: &str = "vpc-1";

pub fn table(id: &str, routes: &[(&str, &str)]) -> RouteTable {
    let route = |(destination, target): &(&str, &str)| Route {
        destination: destination.parse().unwrap(),
        target: (*target).to_owned(),
        blackhole: false,
    };
    RouteTable { id: id.to_owned(), routes: routes.iter().map(route).collect() }
}

pub fn eip(address: [u8; 4], on: Option<&str>) -> ElasticIp {
    let address = Ipv4Addr::from(address);
    ElasticIp {
        address,
        allocation: format!("eipalloc-{address}"),
        association: on.map(|eni| Association {
            id: format!("eipassoc-{address}-at-first"),
            interface: Some(eni.to_owned()),
            instance: None,
            private_address: None,
        }),
    }
}

impl World {
    pub fn new(tables: Vec<RouteTable>, eips: Vec<ElasticIp>) -> Self {
        let nic = Some("eni-here".to_owned());
        Self { nic, link: LinkState::Up, standby: None, tables, eips, associations: 0, lag: 0, before: None }
    }

    /// Runs to the end; `fates` are for the calls in their order, all others are fine. Pauses take no time; so many
    /// steps are its limit.
    pub fn run(&mut self, sequence: &mut CloudSequence, fates: &[Fate], steps: usize) -> Run {
        let mut fates: VecDeque<Fate> = fates.iter().copied().collect();
        let (mut asked, mut told) = (Vec::new(), Vec::new());
        let mut step = sequence.step(Input::Start);
        loop {
            match step {
                Step::Done { result, notes } => {
                    told.extend(notes);
                    let report = sequence.report().clone();
                    return Run { result, asked, notes: told, report, overran: false };
                }
                Step::Do { command, notes } => {
                    told.extend(notes);
                    let ask = match command {
                        Command::Cloud { ask, .. } => ask,
                        Command::ReadLink { .. } => {
                            step = sequence.step(Input::Effect(Effect::Link(self.link)));
                            continue;
                        }
                        other => panic!("not for EC2: {other:?}"),
                    };
                    asked.push(ask.clone());
                    if asked.len() > steps {
                        let Step::Done { result, notes } = sequence.overrun() else {
                            panic!("it goes on after its limit")
                        };
                        told.extend(notes);
                        let report = sequence.report().clone();
                        return Run { result, asked, notes: told, report, overran: true };
                    }
                    let answer = self.answer(&ask, &mut fates);
                    step = sequence.step(Input::Effect(Effect::Cloud(answer)));
                }
            }
        }
    }

    fn answer(&mut self, ask: &Ask, fates: &mut VecDeque<Fate>) -> Answer {
        let mut fate = || fates.pop_front().unwrap_or(Fate::Fine);
        match ask {
            Ask::Pause { .. } => Answer::Paused,
            Ask::Nic { device } => {
                self.before =
                    self.before.take().filter(|(left, ..)| *left > 0).map(|(n, t, e)| (n - 1, t, e));
                let nic = if device == "eth2" { &self.standby } else { &self.nic };
                match (error(fate(), Action::DescribeNetworkInterfaces), nic) {
                    (Some(error), _) => Answer::Failed(error),
                    (None, Some(id)) => {
                        Answer::Nic(Nic { id: id.clone(), vpc: VPC.to_owned(), vpc_cidrs: Vec::new() })
                    }
                    (None, None) => Answer::Failed(missing(device)),
                }
            }
            Ask::Routes { .. } => match error(fate(), Action::DescribeRouteTables) {
                Some(error) => Answer::Failed(error),
                None => Answer::Routes(Arc::new(self.seen().0.clone())),
            },
            Ask::Eip { address } => match error(fate(), Action::DescribeAddresses) {
                Some(error) => Answer::Failed(error),
                None => Answer::Eip(self.seen().1.iter().find(|e| e.address == *address).cloned()),
            },
            Ask::EipsOf { interface } => match error(fate(), Action::DescribeAddresses) {
                Some(error) => Answer::Failed(error),
                None => Answer::Eips(on(self.seen().1, interface)),
            },
            Ask::ReplaceRoutes { entries, interface } => {
                let each = entries.iter().map(|entry| {
                    self.write(fate(), Action::ReplaceRoute, |world| {
                        let table = world.tables.iter_mut().find(|t| t.id == entry.table);
                        let routes = table.into_iter().flat_map(|t| &mut t.routes);
                        let mut route = routes.filter(|r| r.destination == entry.destination);
                        let route = route.next().ok_or_else(|| missing(&entry.table))?;
                        route.target.clone_from(interface);
                        Ok(())
                    })
                });
                Answer::Written(each.collect())
            }
            Ask::Disassociate { associations } => {
                let each = associations.iter().map(|id| {
                    self.write(fate(), Action::DisassociateAddress, |world| {
                        for eip in &mut world.eips {
                            eip.association.take_if(|a| a.id == *id);
                        }
                        Ok(())
                    })
                });
                Answer::Written(each.collect())
            }
            Ask::Associate { allocation, interface } => {
                let written = self.write(fate(), Action::AssociateAddress, |world| {
                    if !on(&world.eips, interface).is_empty() {
                        return Err(refused("Resource.AlreadyAssociated"));
                    }
                    world.associations += 1;
                    let id = format!("eipassoc-{}", world.associations);
                    let eip = world.eips.iter_mut().find(|e| e.allocation == *allocation);
                    let eip = eip.filter(|e| e.association.is_none());
                    let eip = eip.ok_or_else(|| refused("Resource.AlreadyAssociated"))?;
                    eip.association = Some(Association {
                        id,
                        interface: Some(interface.clone()),
                        instance: None,
                        private_address: None,
                    });
                    Ok(())
                });
                Answer::Written(vec![written])
            }
        }
    }

    fn seen(&self) -> (&Vec<RouteTable>, &Vec<ElasticIp>) {
        self.before.as_ref().map_or((&self.tables, &self.eips), |(_, tables, eips)| (tables, eips))
    }

    fn write(
        &mut self,
        fate: Fate,
        action: Action,
        change: impl FnOnce(&mut Self) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        if self.lag > 0 && self.before.is_none() {
            self.before = Some((self.lag, self.tables.clone(), self.eips.clone()));
        }
        match (fate, error(fate, action)) {
            (Fate::Lost, Some(error)) => change(self).and(Err(error)),
            (Fate::Lie, _) => Ok(()),
            (_, Some(error)) => Err(error),
            (_, None) => change(self),
        }
    }
}

fn on(eips: &[ElasticIp], interface: &str) -> Vec<ElasticIp> {
    let on =
        |e: &&ElasticIp| e.association.as_ref().is_some_and(|a| a.interface.as_deref() == Some(interface));
    eips.iter().filter(on).cloned().collect()
}

fn error(fate: Fate, action: Action) -> Option<CallError> {
    let what = action.to_string();
    match fate {
        Fate::Fine | Fate::Lie => None,
        Fate::Silent | Fate::Lost => Some(CallError::Silent { what, within: Duration::from_secs(5) }),
        Fate::Throttled => Some(CallError::Throttled { what, code: "RequestLimitExceeded".into() }),
        Fate::Denied => {
            Some(CallError::Denied { action, code: "UnauthorizedOperation".into(), message: "no".into() })
        }
        Fate::Overtaken => Some(CallError::Overtaken("it is node b's".into())),
    }
}

fn missing(what: &str) -> CallError {
    CallError::Missing { what: what.to_owned(), code: "NotFound".into(), message: "there is none".into() }
}

fn refused(code: &str) -> CallError {
    CallError::Refused { what: "it".into(), code: code.to_owned(), message: "no".into() }
}

//! One sequence with all that it needs.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use vipd_ec2::Permit;

use super::{
    AgentDriver,
    permit::{Granted, Leaving},
};
use crate::{
    act::{cloud::EipBook, executor::Executor},
    api::in_cloud::{InCloud, Turn},
    core::{
        agent::{Footprint, Here, Operation, Start},
        cloud::{CloudContext, CloudReport, Goal, Verb},
        sequence::{Context, Failure, Sequence},
    },
    daemon::{
        events::{About, EventLog},
        interfaces::Interfaces,
        runner::{self, GrantGates},
    },
    model::{Cloud, ClusterState, NodeId, Phase, Resource, Tag, Tunables},
    observe::clock,
};

pub(super) struct Job {
    tag: Tag,
    about: About,
    device: String,
    operation: Operation,
    sequence: Sequence,
    executor: Executor,
    interfaces: Arc<Interfaces>,
    state: Arc<ClusterState>,
    me: NodeId,
    events: EventLog,
    in_cloud: InCloud,
    eip_book: EipBook,
    /// What it may leave in EC2.
    footprint: Option<Footprint>,
    /// Of the checks that may run at the same time.
    checks: Arc<Semaphore>,
    is_cloud: bool,
}

impl Job {
    pub(super) fn new(
        driver: &AgentDriver,
        start: &Start,
        state: &Arc<ClusterState>,
        tunables: Tunables,
    ) -> Self {
        let cloud = start.target.resource.cloud();
        let (sequence, executor) = match cloud {
            None => on_the_network(driver, start, state, tunables),
            Some(cloud) => in_the_cloud(driver, start, cloud, state, tunables),
        };
        Self {
            tag: start.tag.clone(),
            about: About {
                tag: Some(start.tag.clone()),
                address: start.target.addresses.first().map(|a| a.addr()),
                epoch: Some(start.epoch),
            },
            device: start.target.device.clone(),
            operation: start.operation,
            sequence,
            executor,
            interfaces: driver.interfaces.clone(),
            state: state.clone(),
            me: driver.me,
            events: driver.events.clone(),
            in_cloud: driver.in_cloud.clone(),
            eip_book: driver.eip_book.clone(),
            footprint: Footprint::of(&start.target, driver.me),
            checks: if cloud.is_some() { &driver.cloud_checks } else { &driver.checks }.clone(),
            is_cloud: cloud.is_some(),
        }
    }

    /// How it ended, and what it learned of EC2.
    pub(super) async fn run(
        mut self,
        cancel: &CancellationToken,
    ) -> (Result<(), Failure>, Option<CloudReport>) {
        let result = self.perform(cancel).await;
        (result, self.sequence.cloud_report().cloned())
    }

    async fn perform(&mut self, cancel: &CancellationToken) -> Result<(), Failure> {
        let checks = self.checks.clone();
        let _turn = match self.operation {
            Operation::Restore | Operation::Recover | Operation::Switch => {
                self.guard().await?;
                None
            }
            Operation::Remove | Operation::Amend => None,
            Operation::Quickcheck => tokio::select! {
                () = cancel.cancelled() => return Err(runner::failure(runner::OVERTAKEN)),
                turn = checks.acquire() => turn.ok(),
            },
        };
        self.note().await;
        let Self { sequence, executor, about, events, .. } = &mut *self;
        let result = runner::run(sequence, executor, cancel, about, events).await;
        if result.is_ok() && self.operation == Operation::Remove {
            self.strike().await;
        }
        self.tell(cancel, &result);
        result
    }

    /// Before EC2 is asked to associate: whatever becomes of that and of this daemon, the next life knows of it.
    async fn note(&self) {
        let Some(footprint) = self.footprint.as_ref().filter(|_| self.operation != Operation::Remove) else {
            return;
        };
        if let Err(why) = self.eip_book.note(&self.tag, footprint).await {
            self.events.warn(self.about.clone(), "ec2.not-noted", why);
        }
    }

    /// EC2 said that it is not here.
    async fn strike(&self) {
        // Otherwise nobody asked.
        if self.footprint.is_none() {
            return;
        }
        if let Err(why) = self.eip_book.strike(&self.tag).await {
            self.events.warn(self.about.clone(), "ec2.not-noted", why);
        }
    }

    /// The kernel must guard the interface before an address is put on it.
    async fn guard(&self) -> Result<(), Failure> {
        if self.is_cloud {
            return Ok(());
        }
        let ensured = self.interfaces.ensure(&self.device, &self.state, self.me).await;
        ensured.map_err(|e| runner::failure(e.to_string()))
    }

    /// What was learned of EC2. What is wrong there though it is no failure here is an event once.
    fn tell(&self, cancel: &CancellationToken, result: &Result<(), Failure>) {
        let Some(report) = self.sequence.cloud_report() else { return };
        let asked_nothing = *report == CloudReport::default();
        if result.is_ok() && (self.operation == Operation::Remove || asked_nothing) {
            return self.in_cloud.forget(&self.tag);
        }
        // It was broken off, and says nothing.
        if cancel.is_cancelled() && result.is_err() {
            return;
        }
        match (self.in_cloud.learn(&self.tag, report, clock::now()), result) {
            (Turn::Begins(what), Ok(())) => {
                self.events.warn(self.about.clone(), "ec2.trouble", format!("{what}; it stays in service"));
            }
            (Turn::Ends, Ok(())) => {
                self.events.record(self.about.clone(), "ec2.trouble-ended", "EC2 answers, and all is right");
            }
            // A failure is an event of its own.
            (Turn::Same | Turn::Begins(_) | Turn::Ends, Ok(()) | Err(_)) => {}
        }
    }
}

fn on_the_network(
    driver: &AgentDriver,
    start: &Start,
    state: &ClusterState,
    tunables: Tunables,
) -> (Sequence, Executor) {
    let Start { operation, epoch, lease_epoch, target, was, .. } = start;
    let me = driver.me;
    let Here { resource, addresses, device } = target;
    let of_subnet = |subnet| Some((subnet, state.ping_lists.get(&(me, subnet))?.clone()));
    let settings = resource.nodes.get(&me);
    let context = Context {
        group: resource.id,
        addresses: addresses.clone(),
        accept: resource.accept(),
        source: settings.is_some_and(|s| s.source),
        device: device.clone(),
        epoch: *epoch,
        physical: settings.is_some_and(|s| s.physical),
        restore_and_recover: settings.is_none_or(|s| s.restore_and_recover),
        ping_lists: addresses.subnets().filter_map(of_subnet).collect(),
        unreached: unreached(state, resource, me, *operation),
        tunables,
    };
    let before = was.as_ref().unwrap_or(target);
    let sequence = match operation {
        Operation::Restore => Sequence::restore(context),
        Operation::Remove => Sequence::remove(context),
        Operation::Quickcheck => Sequence::quickcheck(context),
        Operation::Recover => Sequence::recover(context),
        Operation::Switch => Sequence::switch(context, before.device.clone()),
        Operation::Amend => Sequence::amend(context, before.addresses.as_ref().clone()),
    };
    let gates = Arc::new(GrantGates { keeper: driver.keeper.clone(), lease_epoch: *lease_epoch });
    (sequence, driver.executor.with_gates(gates))
}

/// Answers go where the routes lead, and those are turned to this node after it has the addresses.
fn unreached(state: &ClusterState, resource: &Resource, me: NodeId, operation: Operation) -> Option<String> {
    let follows = |tag: &&Tag| {
        let cloud = state.resources.get(tag).and_then(Resource::cloud);
        matches!(cloud, Some(Cloud::Route(route)) if route.ip == resource.tag)
    };
    let route = resource.parents.iter().find(follows)?;
    let grant = state.placements.get(route).and_then(|p| p.grant);
    let leads_here = grant.is_some_and(|g| g.owner == me && g.phase == Phase::InService);
    // It follows to another interface at the same time.
    let turns = operation == Operation::Switch;
    (!leads_here || turns)
        .then(|| format!("answers come back only when '{route}' has turned the routes to here"))
}

fn in_the_cloud(
    driver: &AgentDriver,
    start: &Start,
    cloud: Cloud,
    state: &ClusterState,
    tunables: Tunables,
) -> (Sequence, Executor) {
    let Start { tag, operation, epoch, lease_epoch, target, borne, .. } = start;
    let (me, tag, view) = (driver.me, tag.clone(), driver.store.view());
    let others = target.resource.nodes.get(&me).into_iter().flat_map(|s| &s.devices);
    let context = CloudContext {
        goal: match cloud {
            Cloud::Route(_) => Goal::Routes(target.addresses.clone()),
            Cloud::Eip(eip) => Goal::Eip(eip.address),
        },
        region: cloud.region().map(str::to_owned),
        device: target.device.clone(),
        others: others.filter(|d| **d != target.device).cloned().collect(),
        left_to: heir(state, &tag, cloud, me),
        restore_and_recover: target.resource.nodes.get(&me).is_none_or(|s| s.restore_and_recover),
        borne: borne.clone(),
        no_link_check: tunables.no_link_check,
        tunables: tunables.ec2,
    };
    let verb = verb(*operation);
    let permit: Arc<dyn Permit> = if verb == Verb::Remove {
        let address = match cloud {
            Cloud::Route(_) => None,
            Cloud::Eip(eip) => Some(eip.address),
        };
        Arc::new(Leaving { me, tag, address, view })
    } else {
        let (epoch, lease_epoch, keeper) = (*epoch, *lease_epoch, driver.keeper.clone());
        Arc::new(Granted { me, tag, view, keeper, epoch, lease_epoch })
    };
    (Sequence::cloud(verb, context), driver.executor.with_permit(permit))
}

/// Another resource of this node that is in service with the same Elastic IP, which was given up by this one.
fn heir(state: &ClusterState, tag: &Tag, cloud: Cloud, me: NodeId) -> Option<Tag> {
    let Cloud::Eip(eip) = cloud else { return None };
    let serves = |other: &Tag| {
        let grant = state.placements.get(other).and_then(|p| p.grant);
        grant.is_some_and(|g| g.owner == me && g.phase == Phase::InService)
    };
    let same = |r: &Resource| matches!(r.cloud(), Some(Cloud::Eip(other)) if other.address == eip.address);
    let others = state.resources.iter().filter(|(other, r)| *other != tag && same(r));
    others.map(|(other, _)| other).find(|other| serves(other)).cloned()
}

fn verb(operation: Operation) -> Verb {
    match operation {
        Operation::Restore => Verb::Restore,
        Operation::Remove => Verb::Remove,
        Operation::Quickcheck => Verb::Quickcheck,
        Operation::Recover => Verb::Recover,
        Operation::Switch => Verb::Switch,
        Operation::Amend => Verb::Amend,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Desired, Ec2Route, Grant, Kind, NodeSettings, Placement};

    #[test]
    fn pings_are_answered_only_where_the_routes_lead() {
        let (ip, route): (Tag, Tag) = ("web".parse().unwrap(), "ec2-web".parse().unwrap());
        let nodes = |devices| [(1, NodeSettings::new(1, devices)), (2, NodeSettings::new(2, vec![]))];
        let address: ipnet::IpNet = "10.9.0.5/32".parse().unwrap();
        let mut child = Resource::new(ip.clone(), address, nodes(vec!["eth0".into()]));
        child.parents.insert(route.clone());
        let kind = Kind::Ec2Route(Ec2Route { ip: ip.clone(), region: None });
        let mut state = ClusterState::default();
        state.resources.insert(route.clone(), Resource::of_kind(route.clone(), kind, nodes(vec![])));
        let mut held = |grant: Option<(NodeId, Phase)>, operation| {
            let grant = grant.map(|(owner, phase)| Grant { owner, lease_epoch: 1, phase });
            let placement = Placement { grant, ..Placement::new(Desired::InService { on: None }, 1) };
            state.placements.insert(route.clone(), placement);
            unreached(&state, &child, 1, operation)
        };
        let check = Operation::Quickcheck;
        assert_eq!(held(Some((1, Phase::InService)), check), None);
        assert_eq!(held(Some((1, Phase::InService)), Operation::Recover), None);
        for (grant, operation) in [
            (None, Operation::Restore),
            (Some((1, Phase::Starting)), check),
            (Some((1, Phase::Stopping)), check),
            (Some((2, Phase::InService)), Operation::Restore),
            (Some((1, Phase::InService)), Operation::Switch),
        ] {
            assert!(held(grant, operation).is_some_and(|why| why.contains("'ec2-web'")), "{grant:?}");
        }
        // What nobody follows is tested at once.
        child.parents.clear();
        assert_eq!(unreached(&state, &child, 1, Operation::Restore), None);
    }
}

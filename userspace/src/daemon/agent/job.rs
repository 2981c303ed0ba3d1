//! One sequence with all that it needs.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::AgentDriver;
use crate::{
    act::executor::Executor,
    core::{
        agent::{Here, Operation, Start},
        sequence::{Context, Failure, Sequence},
    },
    daemon::{
        events::{About, EventLog},
        interfaces::Interfaces,
        runner::{self, GrantGates},
    },
    model::{ClusterState, NodeId, Tunables},
};

pub(super) struct Job {
    about: About,
    device: String,
    operation: Operation,
    sequence: Sequence,
    executor: Executor,
    interfaces: Arc<Interfaces>,
    state: Arc<ClusterState>,
    me: NodeId,
    events: EventLog,
    /// Of the checks that may run at the same time.
    checks: Arc<Semaphore>,
}

impl Job {
    pub(super) fn new(
        driver: &AgentDriver,
        start: &Start,
        state: &Arc<ClusterState>,
        tunables: Tunables,
    ) -> Self {
        let Start { operation, epoch, lease_epoch, target, was, .. } = start;
        let (operation, me) = (*operation, driver.me);
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
            tunables,
        };
        let gates = Arc::new(GrantGates { keeper: driver.keeper.clone(), lease_epoch: *lease_epoch });
        let before = was.as_ref().unwrap_or(target);
        Self {
            about: About {
                tag: Some(start.tag.clone()),
                address: addresses.first().map(|a| a.addr()),
                epoch: Some(*epoch),
            },
            device: device.clone(),
            operation,
            sequence: match operation {
                Operation::Restore => Sequence::restore(context),
                Operation::Remove => Sequence::remove(context),
                Operation::Quickcheck => Sequence::quickcheck(context),
                Operation::Recover => Sequence::recover(context),
                Operation::Switch => Sequence::switch(context, before.device.clone()),
                Operation::Amend => Sequence::amend(context, before.addresses.as_ref().clone()),
            },
            executor: driver.executor.with_gates(gates),
            interfaces: driver.interfaces.clone(),
            state: state.clone(),
            me,
            events: driver.events.clone(),
            checks: driver.checks.clone(),
        }
    }

    pub(super) async fn run(self, cancel: &CancellationToken) -> Result<(), Failure> {
        let _turn = match self.operation {
            // The kernel must guard the interface before an address is put on it.
            Operation::Restore | Operation::Recover | Operation::Switch => {
                let ensured = self.interfaces.ensure(&self.device, &self.state, self.me).await;
                ensured.map_err(|e| runner::failure(e.to_string()))?;
                None
            }
            Operation::Remove | Operation::Amend => None,
            Operation::Quickcheck => tokio::select! {
                () = cancel.cancelled() => return Err(runner::failure(runner::OVERTAKEN)),
                turn = self.checks.acquire() => turn.ok(),
            },
        };
        runner::run(self.sequence, &self.executor, cancel, &self.about, &self.events).await
    }
}

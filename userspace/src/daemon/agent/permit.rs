//! Whether this node may still write to EC2 for a resource. Nothing but this keeps an overtaken action from turning
//! a route away from the next owner: no kernel has a part in it.

use std::sync::Arc;

use vipd_ec2::Permit;

use crate::{
    act::gatekeeper::Gatekeeper,
    cluster::Store,
    model::{Epoch, LeaseEpoch, NodeId, Phase, Tag},
    observe::clock,
};

/// The grant under which a sequence runs.
pub(super) struct Granted {
    pub me: NodeId,
    pub tag: Tag,
    pub store: Arc<dyn Store>,
    pub keeper: Arc<Gatekeeper>,
    pub epoch: Epoch,
    pub lease_epoch: LeaseEpoch,
}

impl Permit for Granted {
    /// As far as this node knows: the grant is the present one, and the lease has not run out.
    fn still(&self) -> Result<(), String> {
        let view = self.store.view();
        let state = view.borrow().state.clone();
        let placement = state.placements.get(&self.tag);
        let grant = placement.filter(|p| p.epoch == self.epoch).and_then(|p| p.grant);
        match grant.filter(|g| g.owner == self.me && g.lease_epoch == self.lease_epoch) {
            None => return Err(format!("'{}' is not granted to this node any more", self.tag)),
            Some(grant) if grant.phase == Phase::Stopping => {
                return Err(format!("'{}' is to be stopped on this node", self.tag));
            }
            Some(_) => {}
        }
        let held = self.keeper.held();
        if held.epoch != self.lease_epoch || held.deadline <= clock::now() {
            return Err("the lease of this node has run out".to_owned());
        }
        Ok(())
    }
}

/// A resource is taken out of service: what is undone is named by what was seen of it, so that it cannot be what the
/// next owner made.
pub(super) struct Leaving {
    pub me: NodeId,
    pub tag: Tag,
    pub store: Arc<dyn Store>,
}

impl Permit for Leaving {
    fn still(&self) -> Result<(), String> {
        let view = self.store.view();
        let state = view.borrow().state.clone();
        let owner = state.placements.get(&self.tag).and_then(|p| p.grant).map(|g| g.owner);
        match owner.filter(|owner| *owner != self.me) {
            Some(other) => Err(format!("'{}' is granted to node '{}' now", self.tag, state.node_name(other))),
            None => Ok(()),
        }
    }
}

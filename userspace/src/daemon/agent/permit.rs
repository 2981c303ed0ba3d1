//! Whether this node may still write to EC2 for a resource. Nothing but this keeps an overtaken action from turning
//! a route away from the next owner: no kernel has a part in it.
//!
//! What a permit sees is of one life of the daemon, and so is whoever asks it: the tasks of a life end with it, before
//! another cluster can be joined (`bin/vipd`).

use std::{net::Ipv4Addr, sync::Arc};

use tokio::sync::watch;
use vipd_ec2::Permit;

use crate::{
    act::gatekeeper::Gatekeeper,
    cluster::View,
    model::{Cloud, Epoch, LeaseEpoch, NodeId, Phase, Resource, Tag},
};

/// The grant under which a sequence runs.
pub(super) struct Granted {
    pub me: NodeId,
    pub tag: Tag,
    pub view: watch::Receiver<View>,
    pub keeper: Arc<Gatekeeper>,
    pub epoch: Epoch,
    pub lease_epoch: LeaseEpoch,
}

impl Permit for Granted {
    /// As far as this node knows: the grant is the present one, and the lease holds.
    fn still(&self) -> Result<(), String> {
        let state = self.view.borrow().state.clone();
        let placement = state.placements.get(&self.tag);
        let grant = placement.filter(|p| p.epoch == self.epoch).and_then(|p| p.grant);
        match grant.filter(|g| g.owner == self.me && g.lease_epoch == self.lease_epoch) {
            None => return Err(format!("'{}' is not granted to this node any more", self.tag)),
            Some(grant) if grant.phase == Phase::Stopping => {
                return Err(format!("'{}' is to be stopped on this node", self.tag));
            }
            Some(_) => {}
        }
        self.keeper.confirm(self.lease_epoch)
    }
}

/// A resource is taken out of service: what is undone is named by what was seen of it, so that it cannot be what the
/// next owner made. It is nobody's business whether this node has a lease, or is in a cluster at all.
pub(super) struct Leaving {
    pub me: NodeId,
    pub tag: Tag,
    /// None for what leaves nothing behind.
    pub address: Option<Ipv4Addr>,
    pub view: watch::Receiver<View>,
}

impl Permit for Leaving {
    /// Whoever is granted the same Elastic IP, by whatever resource, does with it what is to be done: taken off before,
    /// it would be nowhere for longer.
    fn still(&self) -> Result<(), String> {
        let state = self.view.borrow().state.clone();
        let same = |r: &Resource| matches!((r.cloud(), self.address), (Some(Cloud::Eip(eip)), Some(address)) if eip.address == address);
        for (tag, _) in state.resources.iter().filter(|(_, r)| same(r)) {
            let Some(grant) = state.placements.get(tag).and_then(|p| p.grant) else { continue };
            if grant.owner != self.me {
                return Err(format!("'{tag}' is granted to node '{}' now", state.node_name(grant.owner)));
            }
            if *tag != self.tag {
                return Err(format!("'{tag}' is granted to this node, with the same address"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        act::datapath::MemoryDatapath,
        model::{ClusterState, Desired, Ec2Eip, Grant, Kind, Placement},
        observe::clock,
    };

    fn tag() -> Tag {
        "ec2-web".parse().unwrap()
    }

    fn view(epoch: Epoch, grant: Option<Grant>) -> View {
        let placement = Placement { grant, ..Placement::new(Desired::InService { on: None }, epoch) };
        let placements = [(tag(), placement)].into();
        View { state: Arc::new(ClusterState { placements, ..ClusterState::default() }), applied: 1 }
    }

    fn to(owner: NodeId, lease_epoch: LeaseEpoch, phase: Phase) -> Option<Grant> {
        Some(Grant { owner, lease_epoch, phase })
    }

    /// A node with lease epoch 4, valid for an hour.
    fn keeper() -> Arc<Gatekeeper> {
        let datapath = MemoryDatapath::new(16, "a test".into());
        let keeper = Gatekeeper::new(Arc::new(datapath)).unwrap();
        keeper.adopt(4).unwrap();
        keeper.extend(4, clock::now().after(Duration::from_secs(3600))).unwrap();
        Arc::new(keeper)
    }

    #[test]
    fn a_grant_permits_writing_under_its_epoch_and_a_valid_lease_only() {
        let (now, seen) = watch::channel(view(7, to(1, 4, Phase::Starting)));
        let keeper = keeper();
        let permit =
            Granted { me: 1, tag: tag(), view: seen, keeper: keeper.clone(), epoch: 7, lease_epoch: 4 };
        assert_eq!(permit.still(), Ok(()));
        for (what, state) in [
            ("another epoch", view(8, to(1, 4, Phase::Starting))),
            ("another owner", view(7, to(2, 4, Phase::Starting))),
            ("nobody's", view(7, None)),
            ("of an earlier lease", view(7, to(1, 3, Phase::InService))),
            ("to be stopped", view(7, to(1, 4, Phase::Stopping))),
        ] {
            now.send_replace(state);
            assert!(permit.still().is_err(), "{what}");
        }
        now.send_replace(view(7, to(1, 4, Phase::InService)));
        assert_eq!(permit.still(), Ok(()));
        keeper.adopt(5).unwrap();
        assert!(permit.still().unwrap_err().contains("deposed"));
    }

    #[test]
    fn a_lease_that_has_run_out_permits_nothing() {
        let (_now, seen) = watch::channel(view(7, to(1, 4, Phase::InService)));
        let keeper = Arc::new(Gatekeeper::new(Arc::new(MemoryDatapath::new(16, "a test".into()))).unwrap());
        keeper.adopt(4).unwrap();
        let permit = Granted { me: 1, tag: tag(), view: seen, keeper, epoch: 7, lease_epoch: 4 };
        assert!(permit.still().unwrap_err().contains("run out"));
    }

    fn eip(last: u8) -> Kind {
        Kind::Ec2Eip(Ec2Eip { address: [198, 51, 100, last].into(), region: None })
    }

    #[test]
    fn who_leaves_undoes_nothing_that_is_anothers() {
        // (resource, last byte of its address, grant)
        let view = |all: &[(&str, u8, Option<Grant>)]| {
            let mut state = ClusterState::default();
            for (name, last, grant) in all {
                let tag: Tag = name.parse().unwrap();
                let placement =
                    Placement { grant: *grant, ..Placement::new(Desired::InService { on: None }, 7) };
                state.resources.insert(tag.clone(), Resource::of_kind(tag.clone(), eip(*last), []));
                state.placements.insert(tag, placement);
            }
            View { state: Arc::new(state), applied: 1 }
        };
        let (now, seen) = watch::channel(view(&[]));
        let address = Some([198, 51, 100, 7].into());
        let permit = Leaving { me: 1, tag: tag(), address, view: seen };
        // Deleted, or this node in no cluster.
        assert_eq!(permit.still(), Ok(()));
        for (what, permitted, state) in [
            ("its own", true, view(&[("ec2-web", 7, to(1, 4, Phase::Stopping))])),
            ("nobody's", true, view(&[("ec2-web", 7, None)])),
            ("another node's", false, view(&[("ec2-web", 7, to(2, 1, Phase::Starting))])),
            ("made anew with another address", true, view(&[("ec2-web", 8, to(2, 1, Phase::InService))])),
            ("another resource's on another node", false, view(&[("ec2-b", 7, to(2, 1, Phase::Starting))])),
            ("another resource's here", false, view(&[("ec2-b", 7, to(1, 4, Phase::Starting))])),
            ("another resource's, which nobody has", true, view(&[("ec2-b", 7, None)])),
        ] {
            now.send_replace(state);
            assert_eq!(permit.still().is_ok(), permitted, "{what}: {:?}", permit.still());
        }
        now.send_replace(view(&[("ec2-web", 7, to(2, 1, Phase::Starting))]));
        assert!(permit.still().unwrap_err().contains("'ec2-web' is granted to node '#2' now"));
    }
}

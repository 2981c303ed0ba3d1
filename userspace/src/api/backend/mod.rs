//! What each request does. One file per topic; all work on the [`Context`] that the daemon fills.

mod address;
mod cloud_status;
mod cluster;
mod connectivity;
mod constraint;
mod create;
mod declare;
mod devices;
mod duplicate;
mod events;
mod extend;
mod foresight;
mod hierarchy;
mod hierarchy_status;
mod host;
mod inspect;
mod lease;
mod lifecycle;
mod list;
mod lookup;
mod membership;
mod node;
mod ping_list;
mod placement;
mod policy;
mod quorum;
mod rekey;
mod select;
mod set;
mod show;
mod status;
mod subnet;
mod trouble;
mod wait;
mod warnings;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use vipd_ec2::Ec2;

pub use self::{
    cluster::ClusterControl,
    host::{Host, NetworkHost},
};
use super::{
    Answer, ApiError, Progress, Request, Selection,
    facts::{ConflictFacts, Facts},
    in_cloud::InCloud,
    in_use::InUse,
    server,
};
use crate::{
    act::datapath::Datapath,
    cluster::{Inspectors, Store},
    config::{NodeConfig, TunablesFile},
    core::links::LinkTable,
    daemon::events::EventLog,
    model::NodeId,
};

/// This node's membership.
#[derive(Clone)]
pub struct Member {
    pub id: NodeId,
    pub store: Arc<dyn Store>,
    /// The other nodes, who check changes on themselves.
    pub peers: Arc<dyn Inspectors>,
}

/// All that requests look at or act upon.
#[derive(Clone)]
pub struct Context {
    pub config: Arc<NodeConfig>,
    pub tunables: TunablesFile,
    pub events: EventLog,
    pub host: Arc<dyn Host>,
    pub datapath: Arc<dyn Datapath>,
    pub facts: watch::Receiver<Facts>,
    pub links: watch::Receiver<LinkTable>,
    /// Which interface each resource uses here.
    pub in_use: InUse,
    /// What the resources in EC2 have learned here.
    pub in_cloud: InCloud,
    pub conflicts: watch::Receiver<Vec<ConflictFacts>>,
    /// None before `cluster init` or `cluster join`.
    pub member: watch::Receiver<Option<Member>>,
    pub control: Arc<dyn ClusterControl>,
    /// For checks before a resource of EC2 is created.
    pub ec2: Arc<dyn Ec2>,
}

/// A request's interim lines.
pub type Out = mpsc::Sender<Answer>;

type Result<T> = std::result::Result<T, ApiError>;

/// The daemon's answers.
pub struct Backend {
    context: Context,
}

impl Backend {
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

#[async_trait]
impl server::Backend for Backend {
    async fn handle(&self, request: Request, out: Out) -> Answer {
        self.context.handle(request, &out).await.unwrap_or_else(Answer::Error)
    }
}

impl Context {
    async fn handle(&self, request: Request, out: &Out) -> Result<Answer> {
        match request {
            Request::Status => self.status(&Selection::default()).await,
            Request::StatusOf(selection) => self.status(&selection).await,
            Request::CreateIp(wanted) => self.create_ip(wanted, out).await,
            Request::CreateEc2Route(wanted) => self.create_ec2_route(wanted, out).await,
            Request::CreateEc2Eip(wanted) => self.create_ec2_eip(wanted, out).await,
            Request::Extend { tag, to, priority, devices, force } => {
                self.extend(&tag, &to, priority, devices, force, out).await
            }
            Request::Unextend { tag, from, force } => self.unextend(&tag, &from, force, out).await,
            Request::Depend { parent, child, force } => self.depend(&parent, &child, force, out).await,
            Request::Undepend { parent, child, force } => self.undepend(&parent, &child, force, out).await,
            Request::Delete { tag, hierarchy, force, wait } => {
                self.delete(&tag, hierarchy, force, wait, out).await
            }
            Request::RemoveAddresses { tag, addresses, wait } => {
                self.remove_addresses(&tag, &addresses, wait, out).await
            }
            Request::Addresses { tag, limit, offset } => self.addresses(tag.as_ref(), limit, offset),
            Request::InService { tag, on, hold, wait } => {
                self.in_service(&tag, on.as_deref(), hold, wait, out).await
            }
            Request::Clear { tag } => self.clear(&tag).await,
            Request::Cleanup { tag, node } => self.cleanup(&tag, node.as_deref()).await,
            Request::ConstraintAdd { id, constraint } => self.constraint_add(id, constraint).await,
            Request::ConstraintRemove { id } => self.constraint_remove(&id).await,
            Request::ConstraintList => self.constraint_list(),
            Request::NodeOrder { node, order, wait } => self.node_order(&node, order, wait, out).await,
            Request::ClusterSet { settings } => self.cluster_set(&settings).await,
            Request::Simulate { suppose } => self.simulate(suppose).await,
            Request::ConnectivityShow => self.connectivity_show(),
            Request::ConnectivityAdd(wanted) => self.connectivity_add(wanted).await,
            Request::ConnectivityRemove { hosts } => self.connectivity_remove(&hosts).await,
            Request::OutOfService { tag, wait } => self.out_of_service(&tag, wait, out).await,
            Request::Show { tag } => self.show(&tag).await,
            Request::Set { tag, node, settings } => self.set(&tag, node.as_deref(), &settings).await,
            Request::PingListShow { subnet, node } => self.ping_list_show(subnet, node.as_deref()),
            Request::PingListAdd { subnet, addresses, node } => {
                self.ping_list_add(subnet, &addresses, node.as_deref()).await
            }
            Request::PingListRemove { subnet, addresses, node } => {
                self.ping_list_remove(subnet, &addresses, node.as_deref()).await
            }
            Request::Export => self.export().await,
            Request::Declare(wanted) => self.declare(wanted, out).await,
            Request::Interfaces { address } => self.interfaces(address).await,
            Request::SubnetList => self.subnet_list(),
            Request::SubnetMonitor(wanted) => self.subnet_monitor(wanted).await,
            Request::SubnetUnmonitor { subnet } => self.subnet_unmonitor(subnet).await,
            Request::ClusterInit { name } => self.cluster_init(&name).await,
            Request::ClusterJoin { address, token } => self.cluster_join(address, &token, out).await,
            Request::ClusterToken => self.cluster_token(),
            Request::ClusterRotateKey => self.cluster_rotate_key(out).await,
            Request::ForceQuorum { dead } => self.force_quorum(&dead, out).await,
            Request::ClusterLeave { drain } => self.cluster_leave(drain, out).await,
            Request::ClusterForget => self.cluster_forget().await,
            Request::ClusterRemove { node, heir, force } => {
                self.cluster_remove(&node, heir.as_deref(), force, out).await
            }
            Request::ClusterReaddress => self.cluster_readdress(out).await,
            Request::Events { follow, filter } => self.events(follow, &filter, out).await,
        }
    }

    fn member(&self) -> Result<Member> {
        self.member.borrow().clone().ok_or_else(|| {
            ApiError::failed(
                "this node is not part of a cluster: found one with 'vipctl cluster init NAME' or join one with \
                 'vipctl cluster join ADDRESS --token T'",
            )
        })
    }
}

/// Tells a client that still listens.
async fn progress(out: &Out, message: impl Into<String>) {
    // An error says that nobody listens any more, which changes nothing here.
    let _ = out.send(Answer::Progress(Progress { message: message.into() })).await;
}

//! Performs the commands of the sequences, one effect each. No decisions here.

mod duplicates;

use std::{fmt::Display, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use vipd_ec2::Permit;

pub use self::duplicates::{NoSiblings, Siblings};
use super::{
    announce::{Announcer, Plan},
    bounce::Bouncer,
    cloud::Cloud,
    datapath::{Attachment, Datapath, DatapathError},
    gatekeeper::GateError,
    network_manager::NetworkManager,
    sharing::Sharing,
};
use crate::{
    core::command::{Command, Effect, LinkState, Place, Presence},
    model::{Accept, Epoch, ResourceId},
    observe::{
        network::{Link, Network, NetworkError},
        ping::{Ping, Reply},
        probe::Prober,
        shared::Freshness,
    },
};

/// An answer from the network this old still says that the network answers. Checks of hundreds of VIPs
/// that are spread over time would otherwise ask more often than peers answer (row DP-4: 50 a second).
const CONNECTIVITY_AGE: Duration = Duration::from_secs(1);

/// Opens and closes the gates of this node's datapath. Quick map operations, never awaiting.
pub trait Gates: Send + Sync {
    /// Allows answers for the resource's addresses, under the lease that the grant belongs to.
    fn open(&self, group: ResourceId, epoch: Epoch) -> Result<(), GateError>;

    /// No error when the resource is unknown.
    fn close(&self, group: ResourceId) -> Result<(), DatapathError>;
}

/// Shared by all sequences of the node; cheap to clone. Work that several sequences want at the same
/// time and that does not depend on which of them asks is done once.
#[derive(Clone)]
pub struct Executor {
    network: Network,
    datapath: Arc<dyn Datapath>,
    gates: Arc<dyn Gates>,
    /// How long a duplicate of an address is waited for.
    duplicate_wait: Duration,
    announcer: Announcer,
    plan: Arc<dyn Fn() -> Plan + Send + Sync>,
    prober: Prober,
    siblings: Arc<dyn Siblings>,
    connectivity: Sharing<Reach>,
    neighbours: Sharing<String>,
    bouncer: Bouncer,
    cloud: Cloud,
}

/// What a connectivity check is about, whoever asks: the source is not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reach {
    List { device: String, targets: Vec<IpAddr>, tries: u32, wait: Duration },
    Subnet { device: String, subnet: IpNet, tries: u32, wait: Duration },
}

impl Executor {
    pub fn new(
        network: Network,
        datapath: Arc<dyn Datapath>,
        gates: Arc<dyn Gates>,
        duplicate_wait: Duration,
    ) -> Self {
        Self {
            bouncer: Bouncer::new(network.clone(), NetworkManager::default()),
            cloud: Cloud::new(Arc::new(vipd_ec2::Absent), network.clone()),
            announcer: Announcer::new(network.clone(), Arc::clone(&datapath)),
            plan: Arc::new(Plan::default),
            network,
            datapath,
            gates,
            duplicate_wait,
            prober: Prober::default(),
            siblings: Arc::new(NoSiblings),
            connectivity: Sharing::default(),
            neighbours: Sharing::default(),
        }
    }

    /// The same executor with another way to stop and start interfaces, which others may use as well.
    pub fn with_bouncer(self, bouncer: Bouncer) -> Self {
        Self { bouncer, ..self }
    }

    /// The same executor, which does not take the probes of these for claims.
    pub fn with_siblings(self, siblings: Arc<dyn Siblings>) -> Self {
        Self { siblings, ..self }
    }

    /// The same executor, with what asks EC2.
    pub fn with_cloud(self, cloud: Cloud) -> Self {
        Self { cloud, ..self }
    }

    /// The same executor, sharing the same work, that writes to EC2 only as long as this holds.
    pub fn with_permit(&self, permit: Arc<dyn Permit>) -> Self {
        Self { cloud: self.cloud.with_permit(permit), ..self.clone() }
    }

    /// The same executor, sharing the same work, with the gates of one grant.
    pub fn with_gates(&self, gates: Arc<dyn Gates>) -> Self {
        Self { gates, ..self.clone() }
    }

    /// The same executor, which asks each time how to announce.
    pub fn announcing_by(&self, plan: impl Fn() -> Plan + Send + Sync + 'static) -> Self {
        Self { plan: Arc::new(plan), ..self.clone() }
    }

    /// What announces this node's addresses: to be told when a carrier comes back.
    pub fn announcer(&self) -> &Announcer {
        &self.announcer
    }

    /// Performs one command. Every failure is an [`Effect::Failed`] with a sentence for an operator.
    pub async fn perform(&self, command: &Command) -> Effect {
        match command {
            Command::ReadLink { device } => self.read_link(device).await,
            Command::SetLink { device, up } => match self.network.link(device).await {
                Ok(link) if *up => done(self.bouncer.start(&link).await),
                Ok(link) => done(self.bouncer.stop(&link).await),
                Err(error) => failed(&error),
            },
            Command::Wait { duration } => {
                tokio::time::sleep(*duration).await;
                Effect::Done
            }
            Command::ReadAddresses { place } => {
                self.presence(place).await.map_or_else(|e| failed(&e), Effect::Presence)
            }
            Command::ProbeDuplicates { addresses, device } => self.probe(addresses, device).await,
            Command::Program { group, addresses, device } => match self.network.link(device).await {
                // Its whole subnet would become local to this host.
                Ok(link) if link.loopback => {
                    Effect::Failed(format!("{device} is a loopback: no network hears {addresses} there"))
                }
                Ok(link) => done(self.datapath.program(*group, link.index, &addresses.hosts())),
                Err(error) => failed(&error),
            },
            Command::Unprogram { group, addresses } => {
                done(self.datapath.unprogram(*group, &addresses.hosts()))
            }
            Command::OpenGate { group, epoch } => done(self.gates.open(*group, *epoch)),
            Command::CloseGate { group } => done(self.gates.close(*group)),
            Command::AddAddresses { place } => self.add(place).await,
            Command::DeleteAddresses { place } => match self.link_if_any(&place.device).await {
                Ok(Some(link)) => {
                    done(self.network.delete_addresses(&link, &place.addresses, place.accept).await)
                }
                Ok(None) => Effect::Done,
                Err(error) => failed(&error),
            },
            Command::DeleteHostRoutes { addresses, device } => match self.link_if_any(device).await {
                Ok(Some(link)) => done(self.network.delete_host_routes(&link, addresses).await),
                Ok(None) => Effect::Done,
                Err(error) => failed(&error),
            },
            Command::SetSource { addresses, device } => match self.network.link(device).await {
                Ok(link) => done(self.network.set_source(&link, addresses).await),
                Err(error) => failed(&error),
            },
            Command::UnsetSource { addresses, device } => match self.link_if_any(device).await {
                Ok(Some(link)) => done(self.network.unset_source(&link, addresses).await),
                Ok(None) => Effect::Done,
                Err(error) => failed(&error),
            },
            Command::FlushRouteCache => done(self.network.flush_route_cache().await),
            Command::FlushNeighbours { device } => {
                let flush = || async { self.flush_neighbours(device).await };
                self.neighbours.of(device).get(flush).await
            }
            Command::Announce { addresses, device } => match self.network.link(device).await {
                Ok(link) => {
                    let rank = |address| self.heard_for(address);
                    let plan = (self.plan)();
                    done(self.announcer.announce(&link, addresses.hosts().iter(), plan, &rank).await)
                }
                Err(error) => failed(&error),
            },
            Command::Withdraw { addresses } => {
                self.announcer.withdraw(addresses.hosts().iter());
                Effect::Done
            }
            Command::PingList { source, device, targets, tries, wait } => {
                let (device, targets) = (device.clone(), targets.clone());
                let reach = Reach::List { device, targets, tries: *tries, wait: *wait };
                self.check(reach, *source).await
            }
            Command::BroadcastPing { source, device, tries, wait } => {
                let (device, subnet) = (device.clone(), source.trunc());
                let reach = Reach::Subnet { device, subnet, tries: *tries, wait: *wait };
                self.check(reach, source.addr()).await
            }
            Command::Cloud { call, ask } => Effect::Cloud(self.cloud.perform(call, ask).await),
        }
    }

    /// Packets to the address that the datapath has seen: who has most is announced first.
    fn heard_for(&self, address: IpAddr) -> u64 {
        self.datapath.vip_activity(address).map_or(0, |activity| activity.packets)
    }

    async fn read_link(&self, device: &str) -> Effect {
        match self.link_if_any(device).await {
            Ok(None) => Effect::Link(LinkState::Missing),
            Ok(Some(link)) if !link.admin_up => Effect::Link(LinkState::Down),
            Ok(Some(link)) if !link.carrier => Effect::Link(LinkState::NoCarrier),
            Ok(Some(_)) => Effect::Link(LinkState::Up),
            Err(error) => failed(&error),
        }
    }

    /// For commands that have nothing to do on an interface that is gone.
    async fn link_if_any(&self, device: &str) -> Result<Option<Link>, NetworkError> {
        match self.network.link(device).await {
            Ok(link) => Ok(Some(link)),
            Err(NetworkError::NoDevice(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn presence(&self, place: &Place) -> Result<Presence, NetworkError> {
        let links = self.network.links().await?;
        self.network.presence(&links, place).await
    }

    async fn add(&self, place: &Place) -> Effect {
        let link = match self.network.link(&place.device).await {
            Ok(link) => link,
            Err(error) => return failed(&error),
        };
        if place.accept != Accept::Assign
            && place.addresses.subnets().any(|subnet| matches!(subnet, IpNet::V6(_)))
            && let Some(reason) = self.without_xdp(link.index)
        {
            return Effect::Failed(format!(
                "{} has no XDP ({reason}), and the kernel alone answers no neighbour solicitation for an IPv6 \
                 address that is not assigned: assign them ('vipctl set TAG accept=assign')",
                link.name
            ));
        }
        done(self.network.add_addresses(&link, &place.addresses, place.accept).await)
    }

    /// Why the datapath does not answer on the interface; None when it does.
    fn without_xdp(&self, ifindex: u32) -> Option<String> {
        match self.datapath.attached().into_iter().find(|(index, _)| *index == ifindex) {
            Some((_, Attachment::Native | Attachment::Generic { .. })) => None,
            Some((_, Attachment::None { reason })) => Some(reason),
            None => Some(self.datapath.unguarded().unwrap_or_else(|| "it is not attached".to_owned())),
        }
    }

    async fn flush_neighbours(&self, device: &str) -> Effect {
        match self.link_if_any(device).await {
            Ok(Some(link)) => done(self.network.flush_neighbours(&link).await),
            Ok(None) => Effect::Done,
            Err(error) => failed(&error),
        }
    }

    /// Answers of a run that another VIP began are taken over. That nobody answered is believed only of
    /// a run that began after this question; a run that failed, perhaps because of the other VIP's own
    /// address, says nothing.
    async fn check(&self, reach: Reach, source: IpAddr) -> Effect {
        let acceptable = |effect: &Effect, freshness| match (effect, freshness) {
            (Effect::Answers(_), Freshness::After) => true,
            (Effect::Answers(who), Freshness::Before(age)) => !who.is_empty() && age <= CONNECTIVITY_AGE,
            _ => false,
        };
        let run = || async { self.reach(&reach, source).await };
        self.connectivity.of(&reach).get_if(acceptable, run).await
    }

    async fn reach(&self, reach: &Reach, source: IpAddr) -> Effect {
        let ping = |device: &String, tries, wait, exclude| Ping {
            source: Some(source),
            device: Some(device.clone()),
            tries,
            wait,
            exclude,
            first_only: true,
        };
        let replies = match reach {
            Reach::List { device, targets, tries, wait } => match self.network.snapshot().await {
                Ok(own) => {
                    let own = targets.iter().copied().filter(|t| own.contains(*t)).collect();
                    ping(device, *tries, *wait, own).targets(targets).await
                }
                Err(error) => Err(error),
            },
            Reach::Subnet { device, subnet, tries, wait } => {
                ping(device, *tries, *wait, Vec::new()).broadcast(*subnet).await
            }
        };
        match replies {
            Ok(replies) => Effect::Answers(distinct(replies)),
            Err(error) => failed(&error),
        }
    }
}

fn distinct(replies: Vec<Reply>) -> Vec<IpAddr> {
    let mut who: Vec<_> = replies.into_iter().map(|reply| reply.from).collect();
    who.sort_unstable();
    who.dedup();
    who
}

fn done<E: Display>(result: Result<(), E>) -> Effect {
    match result {
        Ok(()) => Effect::Done,
        Err(error) => failed(&error),
    }
}

fn failed(error: &impl Display) -> Effect {
    Effect::Failed(error.to_string())
}

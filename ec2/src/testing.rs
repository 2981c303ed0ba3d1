//! A VPC in memory, for tests of whoever uses [`Ec2`]: it answers at once, does what it is told, and fails where a
//! test wants it to. Plain data, so that no variant of the SDK has to be built for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use ipnet::Ipv4Net;

use super::{
    call::{Call, CallError, DryRun, Ec2, Permit},
    types::{Action, Association, ElasticIp, Identity, InterfaceDetails, Nic, RouteTable},
};

type Result<T> = std::result::Result<T, CallError>;

/// What the API knows, the same for all hosts.
#[derive(Clone, Debug, Default)]
pub struct FakeApi {
    pub interfaces: BTreeMap<String, InterfaceDetails>,
    /// By VPC.
    pub tables: BTreeMap<String, Vec<RouteTable>>,
    pub elastic_ips: Vec<ElasticIp>,
    /// Associations that were made.
    pub associated: u32,
}

/// What a host has, and how it fares with the API.
#[derive(Clone, Debug)]
pub struct FakeHost {
    pub identity: Identity,
    /// By link-layer address.
    pub nics: BTreeMap<[u8; 6], Nic>,
    /// Its role lacks these.
    pub denied: BTreeSet<Action>,
    /// How calls end instead, by the name of the method.
    pub failing: BTreeMap<&'static str, CallError>,
    /// These never end, by the name of the method.
    pub hanging: BTreeSet<&'static str>,
    /// What it asked, by the name of the method.
    pub asked: Vec<&'static str>,
}

/// One host's view of the API. Clones share both.
#[derive(Clone)]
pub struct FakeEc2 {
    api: Arc<Mutex<FakeApi>>,
    host: Arc<Mutex<FakeHost>>,
}

impl FakeEc2 {
    /// The host `i-NAME` in `eu-central-1a`, without interfaces.
    pub fn new(name: &str, api: Arc<Mutex<FakeApi>>) -> Self {
        let host = FakeHost {
            identity: Identity {
                instance: format!("i-{name}"),
                region: "eu-central-1".to_owned(),
                zone: "eu-central-1a".to_owned(),
            },
            nics: BTreeMap::new(),
            denied: BTreeSet::new(),
            failing: BTreeMap::new(),
            hanging: BTreeSet::new(),
            asked: Vec::new(),
        };
        Self { api, host: Arc::new(Mutex::new(host)) }
    }

    pub fn api(&self) -> MutexGuard<'_, FakeApi> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn host(&self) -> MutexGuard<'_, FakeHost> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches an interface of `vpc`, whose block is 10.0.0.0/16, without source/dest check.
    pub fn attach(&self, mac: [u8; 6], eni: &str, vpc: &str) {
        let vpc_cidrs = vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16)];
        let nic = Nic { id: eni.to_owned(), vpc: vpc.to_owned(), vpc_cidrs };
        let instance = Some(self.host().identity.instance.clone());
        self.host().nics.insert(mac, nic);
        let details = InterfaceDetails {
            id: eni.to_owned(),
            vpc: vpc.to_owned(),
            instance,
            source_dest_check: false,
            private_addresses: Vec::new(),
        };
        self.api().interfaces.insert(eni.to_owned(), details);
    }

    async fn begin(&self, method: &'static str, action: Option<Action>) -> Result<()> {
        let hangs = {
            let mut host = self.host();
            host.asked.push(method);
            host.hanging.contains(method)
        };
        if hangs {
            pending::<()>().await;
        }
        let host = self.host();
        if let Some(e) = host.failing.get(method) {
            return Err(e.clone());
        }
        match action.filter(|action| host.denied.contains(action)) {
            Some(action) => Err(denied(action)),
            None => Ok(()),
        }
    }
}

fn denied(action: Action) -> CallError {
    CallError::Denied {
        action,
        code: "UnauthorizedOperation".to_owned(),
        message: "You are not authorized to perform this operation.".to_owned(),
    }
}

fn missing(what: &str, code: &str) -> CallError {
    CallError::Missing { what: what.to_owned(), code: code.to_owned(), message: "does not exist".to_owned() }
}

#[async_trait]
impl Ec2 for FakeEc2 {
    async fn identity(&self, _: &Call) -> Result<Identity> {
        self.begin("identity", None).await?;
        Ok(self.host().identity.clone())
    }

    async fn nic(&self, mac: [u8; 6], _: &Call) -> Result<Nic> {
        self.begin("nic", None).await?;
        let found = self.host().nics.get(&mac).cloned();
        found.ok_or_else(|| missing("the interface", "404"))
    }

    async fn describe_interface(&self, eni: &str, _: &Call) -> Result<InterfaceDetails> {
        self.begin("describe_interface", Some(Action::DescribeNetworkInterfaces)).await?;
        let found = self.api().interfaces.get(eni).cloned();
        found.ok_or_else(|| missing(eni, "InvalidNetworkInterfaceID.NotFound"))
    }

    async fn route_tables(&self, vpc: &str, _: &Call) -> Result<Vec<RouteTable>> {
        self.begin("route_tables", Some(Action::DescribeRouteTables)).await?;
        Ok(self.api().tables.get(vpc).cloned().unwrap_or_default())
    }

    async fn replace_route(
        &self,
        table: &str,
        destination: Ipv4Net,
        eni: &str,
        _: &Call,
        permit: Arc<dyn Permit>,
    ) -> Result<()> {
        permit.still().map_err(CallError::Overtaken)?;
        self.begin("replace_route", Some(Action::ReplaceRoute)).await?;
        let mut api = self.api();
        let found = api.tables.values_mut().flatten().find(|t| t.id == table);
        let routes =
            found.map(|t| &mut t.routes).ok_or_else(|| missing(table, "InvalidRouteTableID.NotFound"))?;
        let route = routes.iter_mut().find(|r| r.destination == destination);
        let route = route.ok_or_else(|| missing(table, "InvalidParameterValue"))?;
        (route.target, route.blackhole) = (eni.to_owned(), false);
        Ok(())
    }

    async fn elastic_ip(&self, address: Ipv4Addr, _: &Call) -> Result<Option<ElasticIp>> {
        self.begin("elastic_ip", Some(Action::DescribeAddresses)).await?;
        Ok(self.api().elastic_ips.iter().find(|e| e.address == address).cloned())
    }

    async fn elastic_ips_of(&self, eni: &str, _: &Call) -> Result<Vec<ElasticIp>> {
        self.begin("elastic_ips_of", Some(Action::DescribeAddresses)).await?;
        let on = |e: &&ElasticIp| e.association.as_ref().is_some_and(|a| a.interface.as_deref() == Some(eni));
        Ok(self.api().elastic_ips.iter().filter(on).cloned().collect())
    }

    async fn disassociate(&self, association: &str, _: &Call, permit: Arc<dyn Permit>) -> Result<()> {
        permit.still().map_err(CallError::Overtaken)?;
        self.begin("disassociate", Some(Action::DisassociateAddress)).await?;
        for eip in &mut self.api().elastic_ips {
            eip.association.take_if(|a| a.id == association);
        }
        Ok(())
    }

    async fn associate(&self, allocation: &str, eni: &str, _: &Call, permit: Arc<dyn Permit>) -> Result<()> {
        permit.still().map_err(CallError::Overtaken)?;
        self.begin("associate", Some(Action::AssociateAddress)).await?;
        let mut api = self.api();
        api.associated += 1;
        let id = format!("eipassoc-{}", api.associated);
        let instance = api.interfaces.get(eni).and_then(|i| i.instance.clone());
        let found = api.elastic_ips.iter_mut().find(|e| e.allocation == allocation);
        let eip = found.ok_or_else(|| missing(allocation, "InvalidAllocationID.NotFound"))?;
        if eip.association.is_some() {
            return Err(CallError::Refused {
                what: allocation.to_owned(),
                code: "Resource.AlreadyAssociated".to_owned(),
                message: "it is associated elsewhere".to_owned(),
            });
        }
        let interface = Some(eni.to_owned());
        eip.association = Some(Association { id, interface, instance, private_address: None });
        Ok(())
    }

    async fn may(&self, probe: &DryRun, _: &Call) -> Result<()> {
        self.begin("may", Some(probe.action())).await
    }
}

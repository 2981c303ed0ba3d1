//! A node asks EC2 and its metadata service about what it might have to do there (row EC2-5). What follows from the
//! answers is decided in [`crate::core::inspection::cloud`].

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use futures::future::join_all;
use ipnet::IpNet;
use tokio::{
    sync::{Mutex, OnceCell, Semaphore},
    time::{Instant, timeout_at},
};
use vipd_ec2::{
    Call, CallError, DryRun, Ec2, ElasticIp, Identity, InterfaceDetails, Nic, Purpose, RouteTable,
};

use super::super::{Context, Member};
use crate::{
    core::inspection::{
        Findings, Objection,
        cloud::{CloudArrival, CloudFacts, CloudWish, DeviceFacts, dry_runs, judge},
    },
    observe::network::Link,
};

/// For everything that is asked for one inspection.
const LIMIT: Duration = Duration::from_secs(25);

/// For a node to answer, when it has to ask EC2.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Attempts of a call after the first one: whoever waits for the answer may ask again.
const RETRIES: u32 = 1;

/// Calls under way at the same time: the limits of the API are for a whole account.
const AT_ONCE: usize = 16;

impl Context {
    pub(super) async fn inspect_clouds(
        &self,
        member: &Member,
        links: &[Link],
        arrivals: &[CloudArrival],
        findings: &mut Findings,
    ) {
        let asker = &Asker::new(self.ec2.clone(), LIMIT);
        let asked = arrivals.iter().map(|arrival| async move {
            let facts = self.cloud_facts(member, links, arrival, asker).await;
            (arrival, judge(arrival, &facts))
        });
        for (arrival, verdict) in join_all(asked).await {
            let about = |reason: String| Objection { about: arrival.tag.to_string(), reason };
            findings.objections.extend(verdict.objections.into_iter().map(about));
            findings.unchecked.extend(verdict.unchecked.into_iter().map(about));
            findings.warnings.extend(verdict.warnings.into_iter().map(about));
            findings.clouds.extend(verdict.found);
        }
    }

    /// The metadata service first, then what the API says of what that named, then what would be permitted.
    async fn cloud_facts(
        &self,
        member: &Member,
        links: &[Link],
        arrival: &CloudArrival,
        asker: &Asker,
    ) -> CloudFacts {
        let tunables = self.tunables.read();
        let call = &Call {
            region: arrival.region.clone(),
            attempt_timeout: tunables.ec2.call_timeout.min(LIMIT),
            retries: RETRIES.min(tunables.ec2.max_retry),
            purpose: Purpose::Inquiry,
        };
        let unlooked = tunables.no_link_check;
        let devices = arrival.devices.iter().map(|name| async move {
            let link = links.iter().find(|l| l.name == *name);
            let nic = match link {
                Some(link) => Some(asker.nic(link.mac, call).await),
                None => None,
            };
            let up = link.map(|l| unlooked || (l.admin_up && l.carrier));
            DeviceFacts { name: name.clone(), up, nic, details: None, elastic_ips: None }
        });
        let (identity, devices) = tokio::join!(asker.identity(call), join_all(devices));
        let vpc = devices.iter().find_map(|d| Some(d.nic.as_ref()?.as_ref().ok()?.vpc.clone()));
        let is_eip = matches!(arrival.what, CloudWish::Eip { .. });
        let tables = async {
            match vpc.filter(|_| !is_eip) {
                Some(vpc) => Some(asker.route_tables(&vpc, call).await),
                None => None,
            }
        };
        let elastic_ip = async {
            match arrival.what {
                CloudWish::Eip { address } => Some(asker.elastic_ip(address, call).await),
                CloudWish::Route { .. } => None,
            }
        };
        let described = devices.into_iter().map(|device| async move {
            let Some(Ok(nic)) = &device.nic else { return device };
            let others =
                async { if is_eip { Some(asker.elastic_ips_of(&nic.id, call).await) } else { None } };
            let (details, elastic_ips) = tokio::join!(asker.interface(&nic.id, call), others);
            DeviceFacts { details: Some(details), elastic_ips, ..device }
        });
        let (tables, elastic_ip, devices) = tokio::join!(tables, elastic_ip, join_all(described));
        let state = member.state();
        let nets: Vec<_> = match &arrival.what {
            CloudWish::Route { addresses, .. } => addresses.subnets().collect(),
            CloudWish::Eip { .. } => Vec::new(),
        };
        let by_broadcast =
            |net: &IpNet| !tunables.no_broadcast_ping && !state.ping_lists.contains_key(&(member.id, *net));
        let mut facts = CloudFacts {
            name: state.node_name(member.id),
            identity,
            devices,
            tables,
            elastic_ip,
            rights: Vec::new(),
            broadcast: nets.into_iter().filter(by_broadcast).collect(),
            tunables: self.tunables.path().display().to_string(),
        };
        let tried = dry_runs(arrival, &facts).into_iter().map(|probe| async move {
            let answer = asker.may(&probe, call).await;
            (probe, answer)
        });
        facts.rights = join_all(tried).await;
        facts
    }
}

type Answer<T> = Result<T, CallError>;
type Asked<K, T> = Mutex<BTreeMap<K, Arc<OnceCell<Answer<T>>>>>;

/// Asks each thing once, however many resources it is about, and stops in time.
struct Asker {
    ec2: Arc<dyn Ec2>,
    limit: Duration,
    deadline: Instant,
    permits: Semaphore,
    identities: Asked<Option<String>, Identity>,
    nics: Asked<[u8; 6], Nic>,
    interfaces: Asked<(Option<String>, String), InterfaceDetails>,
    tables: Asked<(Option<String>, String), Vec<RouteTable>>,
    on_interfaces: Asked<(Option<String>, String), Vec<ElasticIp>>,
    rights: Asked<(Option<String>, String), ()>,
}

impl Asker {
    fn new(ec2: Arc<dyn Ec2>, limit: Duration) -> Self {
        Self {
            ec2,
            limit,
            deadline: Instant::now() + limit,
            permits: Semaphore::new(AT_ONCE),
            identities: Mutex::default(),
            nics: Mutex::default(),
            interfaces: Mutex::default(),
            tables: Mutex::default(),
            on_interfaces: Mutex::default(),
            rights: Mutex::default(),
        }
    }

    async fn identity(&self, call: &Call) -> Answer<Identity> {
        let what = "the metadata service";
        self.once(&self.identities, None, what, self.ec2.identity(call)).await
    }

    async fn nic(&self, mac: [u8; 6], call: &Call) -> Answer<Nic> {
        self.once(&self.nics, mac, "the metadata service", self.ec2.nic(mac, call)).await
    }

    async fn interface(&self, eni: &str, call: &Call) -> Answer<InterfaceDetails> {
        let key = (call.region.clone(), eni.to_owned());
        let asked = self.ec2.describe_interface(eni, call);
        self.once(&self.interfaces, key, "DescribeNetworkInterfaces", asked).await
    }

    async fn route_tables(&self, vpc: &str, call: &Call) -> Answer<Vec<RouteTable>> {
        let key = (call.region.clone(), vpc.to_owned());
        self.once(&self.tables, key, "DescribeRouteTables", self.ec2.route_tables(vpc, call)).await
    }

    async fn elastic_ip(&self, address: std::net::Ipv4Addr, call: &Call) -> Answer<Option<ElasticIp>> {
        self.bounded("DescribeAddresses", self.ec2.elastic_ip(address, call)).await
    }

    async fn elastic_ips_of(&self, eni: &str, call: &Call) -> Answer<Vec<ElasticIp>> {
        let key = (call.region.clone(), eni.to_owned());
        let asked = self.ec2.elastic_ips_of(eni, call);
        self.once(&self.on_interfaces, key, "DescribeAddresses", asked).await
    }

    async fn may(&self, probe: &DryRun, call: &Call) -> Answer<()> {
        let key = (call.region.clone(), format!("{probe:?}"));
        let what = format!("a trial of {}", probe.action());
        self.once(&self.rights, key, &what, self.ec2.may(probe, call)).await
    }

    async fn once<K: Ord, T: Clone>(
        &self,
        asked: &Asked<K, T>,
        key: K,
        what: &str,
        call: impl Future<Output = Answer<T>>,
    ) -> Answer<T> {
        let cell = asked.lock().await.entry(key).or_default().clone();
        cell.get_or_init(|| self.bounded(what, call)).await.clone()
    }

    async fn bounded<T>(&self, what: &str, call: impl Future<Output = Answer<T>>) -> Answer<T> {
        let permitted = async {
            let _permit = self.permits.acquire().await;
            call.await
        };
        let late = || CallError::Silent { what: what.to_owned(), within: self.limit };
        timeout_at(self.deadline, permitted).await.unwrap_or_else(|_| Err(late()))
    }
}

#[cfg(test)]
mod tests {
    use vipd_ec2::testing::FakeEc2;

    use super::*;

    fn call() -> Call {
        Call { region: None, attempt_timeout: Duration::from_secs(5), retries: 1, purpose: Purpose::Inquiry }
    }

    #[tokio::test]
    async fn a_call_that_never_ends_is_given_up() {
        let ec2 = FakeEc2::new("a", Arc::default());
        ec2.host().hanging.extend(["elastic_ip", "identity"]);
        let limit = Duration::from_millis(20);
        let asker = Asker::new(Arc::new(ec2), limit);
        let silent = |what: &str| CallError::Silent { what: what.to_owned(), within: limit };
        let call = call();
        let both = tokio::join!(asker.elastic_ip([203, 0, 113, 9].into(), &call), asker.identity(&call));
        assert_eq!(both, (Err(silent("DescribeAddresses")), Err(silent("the metadata service"))));
    }

    #[tokio::test]
    async fn each_thing_is_asked_once() {
        let ec2 = FakeEc2::new("a", Arc::default());
        let asker = Asker::new(Arc::new(ec2.clone()), LIMIT);
        let call = call();
        let twice = tokio::join!(asker.route_tables("vpc-1", &call), asker.route_tables("vpc-1", &call));
        assert_eq!(twice, (Ok(vec![]), Ok(vec![])));
        asker.route_tables("vpc-2", &call).await.unwrap();
        assert_eq!(ec2.host().asked, ["route_tables", "route_tables"]);
    }
}

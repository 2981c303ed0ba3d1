//! A host, a datapath, a store and a control that only remember: for tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use datapath_common::{InterfaceActivity, Lease, Verdict, VipActivity};
use tokio::sync::{mpsc, watch};
use vipd_ec2::testing::FakeEc2;

use super::{ClusterControl, Context, Host, Member, Result};
use crate::{
    act::datapath::{Attachment, Datapath, DatapathError, InterfaceFacts, Programmed},
    api::{
        Answer, Request,
        facts::{Facts, PathFacts, PeerFacts},
        in_cloud::InCloud,
        in_use::InUse,
    },
    cluster::{Inspectors, Leadership, Store, StoreError, View, transport::PeerError},
    config::{NodeConfig, TunablesFile},
    core::{
        change::{Applied, Change, apply},
        inspection::{Findings, Inquiry},
        links::LinkTable,
        time::BootTime,
    },
    daemon::events::EventLog,
    model::{ClusterState, Epoch, LeaseEpoch, Node, NodeId, Ranges, ResourceId, Standing, Word},
    observe::{
        network::{Assigned, Link, NetworkError},
        probe::Heard,
    },
};

#[derive(Clone, Default)]
pub struct FakeHost {
    pub links: Vec<Link>,
    pub assigned: Vec<Assigned>,
    pub names: Vec<(&'static str, Vec<&'static str>)>,
    pub claimed: Vec<IpAddr>,
    pub pingable: Vec<IpAddr>,
    /// Somebody else looks for these, from that link-layer address.
    pub probed: Vec<(IpAddr, [u8; 6])>,
}

pub fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.into(),
        mac: [2, 0, 0, 0, 0, index as u8],
        admin_up: true,
        carrier: true,
        loopback: name == "lo",
        kind: None,
        mtu: 1500,
    }
}

pub fn assigned(index: u32, address: &str) -> Assigned {
    Assigned {
        index,
        address: address.parse().unwrap(),
        broadcast: None,
        secondary: false,
        protocol: None,
        tentative: false,
    }
}

impl FakeHost {
    /// lo, eth0 with 10.0.0.1/24 and fd00::1/64, eth1 with 10.1.0.1/16, eth2 bare.
    pub fn usual() -> Self {
        Self {
            links: vec![link(1, "lo"), link(2, "eth0"), link(3, "eth1"), link(4, "eth2")],
            assigned: vec![
                assigned(1, "127.0.0.1/8"),
                assigned(2, "10.0.0.1/24"),
                assigned(2, "fd00::1/64"),
                assigned(3, "10.1.0.1/16"),
            ],
            ..Self::default()
        }
    }
}

#[async_trait]
impl Host for FakeHost {
    async fn links(&self) -> std::result::Result<Vec<Link>, NetworkError> {
        Ok(self.links.clone())
    }

    async fn addresses(&self) -> std::result::Result<Vec<Assigned>, NetworkError> {
        Ok(self.assigned.clone())
    }

    async fn uses_of(
        &self,
        _: &Link,
        addresses: &[IpAddr],
        _: Duration,
    ) -> std::result::Result<Vec<Heard>, NetworkError> {
        let stranger = [2, 0, 0, 0, 0, 0x99];
        let claimed = self.claimed.iter().map(|a| Heard { address: *a, mac: stranger, probing: false });
        let probed = self.probed.iter().map(|(a, mac)| Heard { address: *a, mac: *mac, probing: true });
        Ok(claimed.chain(probed).filter(|h| addresses.contains(&h.address)).collect())
    }

    async fn answer_pings(
        &self,
        _: &Link,
        addresses: &[IpAddr],
        _: Duration,
    ) -> std::result::Result<BTreeSet<IpAddr>, NetworkError> {
        Ok(addresses.iter().filter(|a| self.pingable.contains(*a)).copied().collect())
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = self.names.iter().find(|(n, _)| *n == name);
        let (_, addresses) = found.ok_or_else(|| io::Error::other("not known"))?;
        Ok(addresses.iter().map(|a| a.parse().unwrap()).collect())
    }
}

/// Applies at once and alone, as a cluster of one.
pub struct FakeStore {
    view: watch::Sender<View>,
    leadership: watch::Sender<Leadership>,
    pub no_quorum: Mutex<bool>,
    pub proposed: Mutex<Vec<Change>>,
}

impl FakeStore {
    pub fn change(&self, change: &Change) -> Applied {
        let mut state = (*self.view.borrow().state).clone();
        let applied = apply(&mut state, change);
        if !matches!(applied, Applied::Refused(_)) {
            self.view.send_modify(|v| {
                v.state = Arc::new(state);
                v.applied += 1;
            });
        }
        applied
    }

    pub fn set_voters(&self, count: NodeId) {
        self.leadership.send_modify(|l| l.voters = (1..=count).collect());
    }

    pub fn state(&self) -> Arc<ClusterState> {
        self.view.borrow().state.clone()
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn propose(&self, change: Change) -> std::result::Result<Applied, StoreError> {
        self.barrier().await?;
        self.proposed.lock().unwrap().push(change.clone());
        Ok(self.change(&change))
    }

    async fn barrier(&self) -> std::result::Result<(), StoreError> {
        if *self.no_quorum.lock().unwrap() {
            return Err(StoreError::NoQuorum("b and c are silent".into()));
        }
        Ok(())
    }

    fn view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    async fn admit(&self, _: NodeId) -> std::result::Result<(), StoreError> {
        Ok(())
    }

    async fn remove(&self, node: NodeId, heir: Option<NodeId>) -> std::result::Result<Applied, StoreError> {
        self.propose(Change::Remove { node, heir }).await
    }

    async fn readdress(
        &self,
        node: NodeId,
        rpc: std::net::SocketAddr,
        paths: Vec<std::net::SocketAddr>,
    ) -> std::result::Result<Applied, StoreError> {
        self.propose(Change::Readdress { node, rpc, paths }).await
    }
}

/// The other nodes: those that are given a host look at it, the rest have nothing to object.
#[derive(Default)]
pub struct FakePeers {
    pub contexts: Mutex<BTreeMap<NodeId, Context>>,
    /// They do not answer.
    pub silent: Mutex<BTreeSet<NodeId>>,
    /// What was asked, in this order.
    pub asked: Mutex<Vec<(NodeId, Inquiry)>>,
}

#[async_trait]
impl Inspectors for FakePeers {
    async fn inspect(
        &self,
        node: NodeId,
        inquiry: Inquiry,
        _: Duration,
    ) -> std::result::Result<Findings, PeerError> {
        self.asked.lock().unwrap().push((node, inquiry.clone()));
        if self.silent.lock().unwrap().contains(&node) {
            let address = format!("10.0.0.{node}:7411");
            return Err(PeerError::Unreachable { address, reason: "nobody listens".into() });
        }
        let context = self.contexts.lock().unwrap().get(&node).cloned();
        match context {
            Some(context) => Ok(context.inspect(&inquiry).await),
            None => Ok(Findings::default()),
        }
    }
}

pub struct FakeControl;

#[async_trait]
impl ClusterControl for FakeControl {
    async fn forget(&self) -> Result<()> {
        Ok(())
    }

    async fn readdress(&self) -> Result<String> {
        Ok("reached elsewhere".to_owned())
    }

    async fn init(&self, name: &str) -> Result<String> {
        Ok(format!("cluster '{name}' is founded"))
    }

    async fn join(&self, address: std::net::SocketAddr, _: &str) -> Result<String> {
        Ok(format!("joined through {address}"))
    }

    fn token(&self) -> Result<String> {
        Ok("secret".into())
    }

    async fn rotate_key(&self) -> Result<String> {
        Ok("the key is another one".into())
    }
}

#[derive(Default)]
pub struct NoDatapath {
    lease: Mutex<Lease>,
}

impl Datapath for NoDatapath {
    fn unguarded(&self) -> Option<String> {
        Some("a test".into())
    }
    fn attach(&self, _: &InterfaceFacts) -> std::result::Result<Attachment, DatapathError> {
        Ok(Attachment::Native)
    }
    fn guard_egress(&self, _: &InterfaceFacts) -> std::result::Result<(), DatapathError> {
        Ok(())
    }
    fn detach(&self, _: u32) -> std::result::Result<(), DatapathError> {
        Ok(())
    }
    fn attached(&self) -> Vec<(u32, Attachment)> {
        vec![(2, Attachment::Generic { reason: "veth".into() })]
    }
    fn program(&self, _: ResourceId, _: u32, _: &Ranges) -> std::result::Result<(), DatapathError> {
        Ok(())
    }
    fn unprogram(&self, _: ResourceId, _: &Ranges) -> std::result::Result<(), DatapathError> {
        Ok(())
    }
    fn open_gate(&self, _: ResourceId, _: LeaseEpoch, _: Epoch) -> std::result::Result<(), DatapathError> {
        Ok(())
    }
    fn close_gate(&self, _: ResourceId) -> std::result::Result<(), DatapathError> {
        Ok(())
    }
    fn programmed(&self) -> std::result::Result<Vec<Programmed>, DatapathError> {
        Ok(vec![Programmed {
            group: 1,
            addresses: ["10.0.0.9".parse::<IpAddr>().unwrap()].into_iter().collect(),
            ifindex: 2,
            gate_active: true,
            lease_epoch: 1,
            epoch: 1,
        }])
    }
    fn lease(&self) -> std::result::Result<Lease, DatapathError> {
        Ok(*self.lease.lock().unwrap())
    }
    fn set_lease(&self, epoch: LeaseEpoch, deadline: BootTime) -> std::result::Result<(), DatapathError> {
        *self.lease.lock().unwrap() = Lease { deadline_ns: deadline.0, epoch };
        Ok(())
    }
    fn interface_activity(&self, _: u32) -> std::result::Result<InterfaceActivity, DatapathError> {
        Ok(InterfaceActivity { frames: 5, last_receive_ns: 1, ..InterfaceActivity::default() })
    }
    fn group_activity(&self, group: ResourceId) -> std::result::Result<VipActivity, DatapathError> {
        Ok(VipActivity { packets: 6 + group, ..VipActivity::default() })
    }
    fn vip_activity(&self, _: IpAddr) -> std::result::Result<VipActivity, DatapathError> {
        Ok(VipActivity { packets: 7, ..VipActivity::default() })
    }
    fn verdicts(&self) -> std::result::Result<Vec<(Verdict, u64)>, DatapathError> {
        Ok(vec![(Verdict::Passed, 3), (Verdict::AnsweredArp, 2), (Verdict::AnsweredNd, 0)])
    }
}

/// A node `a` (1) of the cluster `test` with `b` (2), `c` (3) and the witness `w` (4).
pub struct Bench {
    pub context: Context,
    pub store: Arc<FakeStore>,
    pub peers: Arc<FakePeers>,
    pub facts: watch::Sender<Facts>,
    pub dir: tempfile::TempDir,
}

pub const NODES: [(NodeId, &str, bool); 4] =
    [(1, "a", false), (2, "b", false), (3, "c", false), (4, "w", true)];

impl Bench {
    pub fn new(host: FakeHost) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = "name = \"a\"\nrpc = \"10.0.0.1:7411\"\npaths = [\"10.0.0.1:7412\"]\n";
        let config: NodeConfig = toml::from_str(text).unwrap();
        let mut state = ClusterState { name: "test".into(), last_node: 4, ..ClusterState::default() };
        for (id, name, witness) in NODES {
            let rpc = format!("10.0.0.{id}:7411").parse().unwrap();
            let paths = vec![format!("10.0.0.{id}:7412").parse().unwrap()];
            let node = Node {
                id,
                name: name.into(),
                rpc,
                paths,
                witness,
                lease_epoch: 1,
                standing: Standing::Member,
                standby: false,
                maintenance: false,
                gave_up: None,
                alone: None,
                declared_dead: false,
                declared_by: Word::default(),
            };
            state.nodes.insert(id, node);
        }
        let voters: BTreeSet<NodeId> = NODES.iter().map(|n| n.0).collect();
        let store = Arc::new(FakeStore {
            view: watch::Sender::new(View { state: Arc::new(state), applied: 1 }),
            leadership: watch::Sender::new(Leadership {
                term: 3,
                leader: Some(2),
                voters: voters.clone(),
                configs: vec![voters],
                ..Leadership::default()
            }),
            no_quorum: Mutex::default(),
            proposed: Mutex::default(),
        });
        let (facts, facts_seen) = watch::channel(Facts::default());
        let peers = Arc::new(FakePeers::default());
        let member = Some(Member { id: 1, store: store.clone(), peers: peers.clone() });
        let context = Context {
            config: Arc::new(config),
            tunables: TunablesFile::new(dir.path().join("tunables")),
            events: EventLog::open(None),
            host: Arc::new(host),
            datapath: Arc::new(NoDatapath::default()),
            facts: facts_seen,
            links: watch::Sender::new(LinkTable::default()).subscribe(),
            in_use: InUse::default(),
            in_cloud: InCloud::default(),
            conflicts: watch::Sender::new(Vec::new()).subscribe(),
            member: watch::Sender::new(member).subscribe(),
            control: Arc::new(FakeControl),
            ec2: Arc::new(vipd_ec2::Absent),
        };
        Self { context, store, peers, facts, dir }
    }

    /// The other node asks this EC2 when it has to.
    pub fn let_ask(&self, node: NodeId, ec2: FakeEc2) {
        self.let_look(node, FakeHost::usual());
        let mut contexts = self.peers.contexts.lock().unwrap();
        contexts.get_mut(&node).unwrap().ec2 = Arc::new(ec2);
    }

    /// The other node looks at this host when it is asked; answers what is in use there.
    pub fn let_look(&self, node: NodeId, host: FakeHost) -> InUse {
        let member = Some(Member { id: node, store: self.store.clone(), peers: self.peers.clone() });
        let context = Context {
            host: Arc::new(host),
            in_use: InUse::default(),
            in_cloud: InCloud::default(),
            member: watch::Sender::new(member).subscribe(),
            ..self.context.clone()
        };
        let in_use = context.in_use.clone();
        self.peers.contexts.lock().unwrap().insert(node, context);
        in_use
    }

    /// This node does not hear that one any more.
    pub fn lose(&self, node: NodeId) {
        let path = PathFacts { last_heard: Some(crate::core::time::BootTime(1)), ..PathFacts::default() };
        self.facts.send_modify(|f| {
            f.peers.insert(node, PeerFacts { paths: vec![path], ..PeerFacts::default() });
        });
    }

    /// This node has not heard that one yet.
    pub fn never_heard(&self, node: NodeId) {
        self.facts.send_modify(|f| {
            f.peers.insert(node, PeerFacts::default());
        });
    }

    /// This node's kernel holds a lease for so long from now on.
    pub fn lease_for(&self, duration: std::time::Duration) {
        let deadline = crate::observe::clock::now().after(duration);
        self.context.datapath.set_lease(1, deadline).unwrap();
    }

    /// Asks and collects the interim lines.
    pub async fn ask(&self, request: Request) -> (Vec<Answer>, Answer) {
        let (out, mut interim) = mpsc::channel(64);
        let context = self.context.clone();
        let work = async move { context.handle(request, &out).await.unwrap_or_else(Answer::Error) };
        let collect = async {
            let mut all = vec![];
            while let Some(answer) = interim.recv().await {
                all.push(answer);
            }
            all
        };
        let (answer, all) = tokio::join!(work, collect);
        (all, answer)
    }
}

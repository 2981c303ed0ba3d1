//! Clusters in one process, for tests.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::time::sleep;

use super::{OpenOptions, RaftStore};
use crate::{
    cluster::{
        ClusterError, Inspections, OpenStore, PromiseAnswer, PromiseBook, PromiseQuery, StoreError, Token,
        View, admitted, enroll, init, resume,
    },
    config::{StoreConfig, Timing},
    core::change::{Applied, Change, NewNode},
    model::NodeId,
};

/// A node on a loaded test machine.
pub(crate) fn timing() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        raft_heartbeat: ms(100),
        election: (ms(500), ms(900)),
        ..crate::config::Profile::Default.timing()
    }
}

/// Answers with what it was asked.
pub(crate) struct Book;

impl PromiseBook for Book {
    fn query(&self, query: &PromiseQuery) -> PromiseAnswer {
        PromiseAnswer { remaining_ns: query.node * 1000 + query.below }
    }
}

pub(crate) struct TestNode {
    pub(crate) options: OpenOptions,
    pub(crate) new: NewNode,
    pub(crate) store: Option<Arc<dyn OpenStore>>,
    _dir: TempDir,
}

pub(crate) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl TestNode {
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rpc = free_port();
        Self {
            options: OpenOptions {
                state_dir: dir.path().join("state"),
                timing: timing(),
                store: StoreConfig::default(),
                rpc,
                promises: Arc::new(Book),
                inspections: Inspections::channel().0,
            },
            new: NewNode { name: name.into(), rpc, paths: vec![rpc], witness: false },
            store: None,
            _dir: dir,
        }
    }

    pub(crate) fn store(&self) -> &Arc<dyn OpenStore> {
        self.store.as_ref().expect("the node runs")
    }

    pub(crate) fn raft(&self) -> &RaftStore {
        let store: &dyn std::any::Any = &**self.store();
        store.downcast_ref().expect("it is Raft's")
    }

    pub(crate) fn raft_dir(&self) -> PathBuf {
        self.options.state_dir.join("raft")
    }

    pub(crate) async fn init(&mut self) {
        self.store = Some(init(&self.options, "lab", self.new.clone()).await.unwrap());
    }

    pub(crate) async fn join(&mut self, via: &TestNode) -> Result<(), ClusterError> {
        let token = via.store().token().to_string().parse().unwrap();
        self.store = Some(self.join_at(via.options.rpc, &token).await?);
        Ok(())
    }

    /// After an error nothing of it runs on.
    pub(crate) async fn join_at(
        &self,
        via: SocketAddr,
        token: &Token,
    ) -> Result<Arc<dyn OpenStore>, ClusterError> {
        let store = enroll(&self.options, via, token, self.new.clone()).await?;
        match admitted(&store, via).await {
            Ok(()) => Ok(store),
            Err(e) => {
                store.shutdown().await;
                Err(e)
            }
        }
    }

    /// As a crash would.
    pub(crate) fn kill(&mut self) {
        self.store = None;
    }

    /// Its former life may need a moment to let go of the port and the files.
    pub(crate) async fn start(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match resume(&self.options).await {
                Ok(store) => {
                    self.store = Some(store.expect("it has an identity"));
                    return;
                }
                Err(e) if Instant::now() > deadline => panic!("it does not start: {e}"),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    pub(crate) fn view(&self) -> View {
        self.store().view().borrow().clone()
    }

    pub(crate) async fn set(&self, node: NodeId, last: u8) -> Result<Applied, StoreError> {
        self.store().propose(ping_list(node, last)).await
    }

    /// What [`TestNode::set`] set last, as far as this node knows.
    pub(crate) fn got(&self, node: NodeId) -> Option<u8> {
        let view = self.view();
        let list = view.state.ping_lists.get(&(node, "192.0.2.0/24".parse().unwrap()))?;
        match list.first()? {
            std::net::IpAddr::V4(a) => Some(a.octets()[3]),
            std::net::IpAddr::V6(_) => None,
        }
    }

    pub(crate) fn leads(&self) -> bool {
        self.store.as_ref().is_some_and(|s| s.leadership().borrow().is_me)
    }
}

/// A change that is always allowed for a known node.
pub(crate) fn ping_list(node: NodeId, last: u8) -> Change {
    Change::SetPingList {
        node,
        subnet: "192.0.2.0/24".parse().unwrap(),
        addresses: vec![[192, 0, 2, last].into()],
    }
}

/// Three members.
pub(crate) async fn three() -> [TestNode; 3] {
    let mut nodes = ["a", "b", "c"].map(TestNode::new);
    let [a, b, c] = &mut nodes;
    a.init().await;
    b.join(a).await.unwrap();
    c.join(b).await.unwrap();
    nodes
}

/// Polls until it is so.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

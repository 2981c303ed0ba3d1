use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    cluster::{
        identity::{ClusterId, ClusterKey},
        keyring::Keys,
        promise::{PromiseAnswer, PromiseQuery},
        raft::testing::{eventually, ping_list, timing},
    },
    core::{
        change::{Applied, NewNode},
        inspection::Inquiry,
    },
    model::NodeId,
};

fn credentials(me: NodeId) -> Arc<Credentials> {
    Arc::new(Credentials::fixed(ClusterId([7; 16]), Keys::first(ClusterKey([9; 32])), me))
}

/// Answers promises at once and changes never; counts those.
#[derive(Default)]
struct Fake {
    stuck: AtomicUsize,
}

#[async_trait]
impl Handler for Fake {
    async fn handle(&self, from: NodeId, request: PeerRequest) -> PeerAnswer {
        match request {
            PeerRequest::Promise(q) => {
                PeerAnswer::Promise(PromiseAnswer { remaining_ns: from * 100 + q.below })
            }
            PeerRequest::Reserve(node) => PeerAnswer::Failed { reason: node.name },
            PeerRequest::Propose(_) | PeerRequest::Inspect(_) => {
                self.stuck.fetch_add(1, Ordering::Relaxed);
                std::future::pending().await
            }
            _ => PeerAnswer::Done,
        }
    }
}

struct Answering {
    at: SocketAddr,
    fake: Arc<Fake>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Answering {
    fn start(at: SocketAddr) -> Self {
        let listener = listen(at).unwrap();
        let (at, fake, stop) =
            (listener.local_addr().unwrap(), Arc::<Fake>::default(), CancellationToken::new());
        let task = tokio::spawn(serve(listener, credentials(2), fake.clone(), stop.clone()));
        Self { at, fake, stop, task }
    }

    fn contact(&self) -> Contact {
        Contact { node: 2, address: self.at.to_string() }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn peers() -> Peers {
    Peers::new(credentials(1), std::net::Ipv4Addr::LOCALHOST.into(), &timing(), Handle::current())
}

const PROMISE: PeerRequest = PeerRequest::Promise(PromiseQuery { node: 3, below: 5 });
const LONG: Duration = Duration::from_secs(10);

async fn works(peers: &Peers, to: &Contact) {
    let answer = peers.call(to, &PROMISE, LONG).await.unwrap();
    assert!(matches!(answer, PeerAnswer::Promise(PromiseAnswer { remaining_ns: 105 })), "{answer:?}");
}

#[tokio::test]
async fn what_is_stuck_holds_nothing_up() {
    let server = Answering::start(anywhere());
    let (peers, to) = (peers(), server.contact());
    let change = PeerRequest::Propose(ping_list(1, 1));
    let asked = Instant::now();
    let stuck = (0..20).map(|_| peers.call(&to, &change, Duration::from_millis(600)));
    let stuck = futures::future::join_all(stuck);
    let others = async {
        eventually("all are under way", || server.fake.stuck.load(Ordering::Relaxed) == 20).await;
        works(&peers, &to).await;
        // Over the same connection as the stuck ones.
        let rpc = anywhere();
        let node = NewNode { name: "x".repeat(3 << 20), rpc, paths: vec![], witness: false };
        let answer = peers.call(&to, &PeerRequest::Reserve(node), LONG).await.unwrap();
        assert!(matches!(answer, PeerAnswer::Failed { reason } if reason.len() == 3 << 20));
    };
    let (stuck, ()) = tokio::join!(stuck, others);
    assert!(stuck.iter().all(|r| r.as_ref().is_err_and(PeerError::maybe_done)), "{stuck:?}");
    assert!(asked.elapsed() < LONG);
}

#[tokio::test]
async fn however_much_is_inspected_orders_and_reports_get_through() {
    let server = Answering::start(anywhere());
    let (peers, to) = (peers(), server.contact());
    // More than a connection carries out at a time.
    peers.set_addresses([(2, to.address.clone())].into());
    let inspected = (0..100).map(|_| peers.inspect(2, Inquiry::default(), LONG));
    let inspected = futures::future::join_all(inspected);
    let others = async {
        eventually("many are under way", || server.fake.stuck.load(Ordering::Relaxed) >= 64).await;
        let node = NewNode { name: "x".into(), rpc: anywhere(), paths: vec![], witness: false };
        let answer = peers.call(&to, &PeerRequest::Reserve(node), LONG).await.unwrap();
        assert!(matches!(answer, PeerAnswer::Failed { .. }), "{answer:?}");
        works(&peers, &to).await;
    };
    tokio::select! {
        inspected = inspected => panic!("they were to be stuck: {inspected:?}"),
        () = others => {}
    }
}

#[tokio::test]
async fn a_peer_is_found_again_after_its_restart() {
    let server = Answering::start(anywhere());
    let (peers, to, at) = (peers(), server.contact(), server.at);
    works(&peers, &to).await;
    server.stop().await;
    let asked = Instant::now();
    let error = loop {
        // The end of the old connection may cross the first request.
        match peers.call(&to, &PROMISE, LONG).await {
            Err(e) if !e.maybe_done() => break e,
            other => assert!(other.is_err() && asked.elapsed() < LONG, "{other:?}"),
        }
    };
    assert!(error.to_string().contains(&at.to_string()), "{error}");
    let again = Answering::start(at);
    let asked = Instant::now();
    while let Err(e) = peers.call(&to, &PROMISE, LONG).await {
        assert!(asked.elapsed() < Duration::from_secs(5), "{e}");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    again.stop().await;
}

/// Lets calls in and then never answers anything.
async fn mute(listener: TcpListener) {
    let mut held = Vec::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = noise::answer(&mut stream, &credentials(2)).await;
        held.push(stream);
    }
}

#[tokio::test]
async fn a_silent_peer_is_noticed_long_before_the_caller_gives_up() {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let to = Contact { node: 2, address: listener.local_addr().unwrap().to_string() };
    let task = tokio::spawn(mute(listener));
    let peers = peers();
    let asked = Instant::now();
    let error = peers.call(&to, &PROMISE, LONG).await.unwrap_err();
    assert!(error.maybe_done(), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    task.abort();
}

#[tokio::test]
async fn a_peer_that_does_not_even_greet_is_unreachable() {
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let to = Contact { node: 2, address: listener.local_addr().unwrap().to_string() };
    let asked = Instant::now();
    let error = peers().call(&to, &PROMISE, LONG).await.unwrap_err();
    assert!(!error.maybe_done() && asked.elapsed() < Duration::from_secs(2), "{error}");
}

#[tokio::test]
async fn strangers_hold_nothing_up() {
    let server = Answering::start(anywhere());
    let (peers, to) = (peers(), server.contact());
    // Silent ones, ones that talk nonsense, one after another: more than there is room for.
    let mut held = Vec::new();
    for i in 0..150 {
        let mut stream = TcpStream::connect(server.at).await.unwrap();
        if i % 3 > 0 {
            let garbage = vec![i as u8; i * 10];
            // It may be refused while it is still talking.
            let _ = stream.write_all(&garbage).await;
        }
        held.push(stream);
    }
    works(&peers, &to).await;
    // Those that are still open are closed in time.
    let asked = Instant::now();
    for mut stream in held {
        let mut rest = Vec::new();
        let closed = timeout(LONG, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open after {:?}", asked.elapsed());
    }
    works(&peers, &to).await;
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_that_is_repeated_opens_nothing() {
    let server = Answering::start(anywhere());
    // Take down what a peer sends ...
    let listener = TcpListener::bind(anywhere()).await.unwrap();
    let to = Contact { node: 2, address: listener.local_addr().unwrap().to_string() };
    let peers = peers();
    let (call, heard) = tokio::join!(peers.call(&to, &PROMISE, LONG), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = vec![0; 87];
        stream.read_exact(&mut heard).await.unwrap();
        heard
    });
    assert!(call.is_err());
    // ... and say the same.
    let mut thief = TcpStream::connect(server.at).await.unwrap();
    thief.write_all(&heard).await.unwrap();
    let mut verdict = [0; 3];
    thief.read_exact(&mut verdict).await.unwrap();
    assert_eq!(verdict[0], 0, "so far nobody can tell");
    thief.write_all(&[0, 40]).await.unwrap();
    thief.write_all(&[5; 40]).await.unwrap();
    let mut rest = Vec::new();
    timeout(LONG, thief.read_to_end(&mut rest)).await.expect("closed").ok();
    works(&peers, &server.contact()).await;
}

#[tokio::test]
async fn a_wrong_key_is_refused_on_both_sides() {
    let server = Answering::start(anywhere());
    let wrong = Credentials::fixed(ClusterId([7; 16]), Keys::first(ClusterKey([1; 32])), 1);
    let peers =
        Peers::new(Arc::new(wrong), std::net::Ipv4Addr::LOCALHOST.into(), &timing(), Handle::current());
    let error = peers.call(&server.contact(), &PROMISE, LONG).await.unwrap_err();
    assert!(!error.maybe_done() && error.to_string().contains("keys differ"), "{error}");
}

#[test]
fn requests_and_answers_are_read_back() {
    let request = PeerRequest::Propose(ping_list(u64::MAX, 1));
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::to_string(&serde_json::from_str::<PeerRequest>(&text).unwrap()).unwrap(), text);
    let part = openraft::raft::InstallSnapshotRequest::<crate::cluster::raft::Types> {
        vote: openraft::Vote::new_committed(3, 2),
        meta: openraft::SnapshotMeta::default(),
        offset: 1 << 40,
        data: (0..=255).collect(),
        done: true,
    };
    let text = serde_json::to_string(&PeerRequest::InstallSnapshot(part.clone().into())).unwrap();
    let PeerRequest::InstallSnapshot(again) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
    assert_eq!(openraft::raft::InstallSnapshotRequest::try_from(again).unwrap(), part);
    let answer = PeerAnswer::Applied(Applied::Node(3));
    assert!(serde_json::from_str::<PeerAnswer>(&serde_json::to_string(&answer).unwrap()).is_ok());
}

proptest::proptest! {
    #[test]
    fn decoders_never_panic(text in ".{0,200}", bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = serde_json::from_str::<PeerRequest>(&text);
        let _ = serde_json::from_slice::<PeerRequest>(&bytes);
        let _ = serde_json::from_slice::<PeerAnswer>(&bytes);
    }
}

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

use super::{
    answers::{replaced, throttled},
    call, credentials, once, scripted,
};
use crate::{
    CallError, Ec2, Options, Permit,
    sdk::{Parts, Sdk, clients},
};

/// Holds until it is ended; counts how often it was asked.
#[derive(Default)]
struct Lease {
    ended: Mutex<Option<String>>,
    asked: AtomicUsize,
}

impl Lease {
    fn end(&self) {
        *self.ended.lock().unwrap() = Some("the grant has epoch 8 now, not 7".to_owned());
    }

    fn renew(&self) {
        *self.ended.lock().unwrap() = None;
    }
}

impl Permit for Lease {
    fn still(&self) -> Result<(), String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.ended.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

fn overtaken() -> Result<(), CallError> {
    Err(CallError::Overtaken("the grant has epoch 8 now, not 7".to_owned()))
}

#[tokio::test]
async fn without_a_permit_nothing_is_sent() {
    let (sdk, fake) = scripted([replaced()]);
    let lease = Arc::new(Lease::default());
    lease.end();
    let vip = "10.9.0.1/32".parse().unwrap();
    assert_eq!(sdk.replace_route("rtb-1", vip, "eni-1", &call(), lease.clone()).await, overtaken());
    assert_eq!(sdk.disassociate("eipassoc-1", &call(), lease.clone()).await, overtaken());
    assert_eq!(sdk.associate("eipalloc-1", "eni-1", &call(), lease.clone()).await, overtaken());
    assert_eq!(fake.sent(), 0);
    // Once each: it is not tried again.
    assert_eq!(lease.asked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn no_retry_is_sent_after_the_permit_has_ended() {
    let (sdk, fake) = scripted([throttled(), replaced()]);
    let lease = Arc::new(Lease::default());
    let ends = Arc::clone(&lease);
    // The first attempt has been given to the network when it ends.
    *fake.delay.lock().unwrap() = std::time::Duration::from_millis(20);
    let vip = "10.9.0.1/32".parse().unwrap();
    let call = call();
    let write = sdk.replace_route("rtb-1", vip, "eni-1", &call, lease.clone());
    let end = async {
        while fake.sent() == 0 {
            tokio::task::yield_now().await;
        }
        ends.end();
    };
    let (result, ()) = tokio::join!(write, end);
    assert_eq!(result, overtaken());
    assert_eq!(fake.sent(), 1);
}

#[tokio::test]
async fn a_permit_that_ends_while_it_is_connected_lets_nothing_out() {
    let (sdk, fake) = scripted([replaced()]);
    let lease = Arc::new(Lease::default());
    let ends = Arc::clone(&lease);
    fake.when_connected(move |_| ends.end());
    let vip = "10.9.0.1/32".parse().unwrap();
    assert_eq!(sdk.replace_route("rtb-1", vip, "eni-1", &call(), lease).await, overtaken());
    assert_eq!(fake.sent(), 0);
}

#[tokio::test]
async fn a_permit_that_ended_once_does_not_come_back() {
    let (sdk, fake) = scripted([throttled(), replaced()]);
    let lease = Arc::new(Lease::default());
    let changes = Arc::clone(&lease);
    fake.when_connected(move |attempt| if attempt == 1 { changes.end() } else { changes.renew() });
    let vip = "10.9.0.1/32".parse().unwrap();
    assert_eq!(sdk.replace_route("rtb-1", vip, "eni-1", &call(), lease).await, overtaken());
    assert_eq!(fake.sent(), 0);
}

#[tokio::test]
async fn each_attempt_asks() {
    let (sdk, fake) = scripted([throttled(), throttled(), replaced()]);
    let lease = Arc::new(Lease::default());
    let vip = "10.9.0.1/32".parse().unwrap();
    sdk.replace_route("rtb-1", vip, "eni-1", &call(), lease.clone()).await.unwrap();
    assert_eq!(fake.sent(), 3);
    assert!(lease.asked.load(Ordering::Relaxed) >= 3);
}

/// Holds as often as that.
struct Times(AtomicUsize);

impl Permit for Times {
    fn still(&self) -> Result<(), String> {
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| "ended".to_owned())
    }
}

/// With the HTTP client of the daemon: once connected, the request ends without its body.
#[tokio::test]
async fn the_network_gets_no_whole_request_after_the_permit_has_ended() {
    for (holds, whole) in [(1, false), (100, true)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = Options {
            endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
            ..Options::default()
        };
        let parts = Parts { http: clients::http(), sleep: None, credentials: Some(credentials()) };
        let sdk = Sdk::with(options, parts);
        let received = tokio::spawn(async move { everything(listener.accept().await.unwrap().0).await });
        let vip = "10.9.0.1/32".parse().unwrap();
        let permit = Arc::new(Times(AtomicUsize::new(holds)));
        let result = sdk.replace_route("rtb-1", vip, "eni-1", &once(), permit).await;
        assert_eq!(matches!(result, Err(CallError::Overtaken(_))), !whole, "{result:?}");
        let received = received.await.unwrap();
        assert_eq!(received.contains("Action=ReplaceRoute"), whole, "{received}");
    }
}

/// What comes until the connection is closed, or the request is whole.
async fn everything(mut stream: TcpStream) -> String {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&received).contains("NetworkInterfaceId=eni-1") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8(received).unwrap()
}

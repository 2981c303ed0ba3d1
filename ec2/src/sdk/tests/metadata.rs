use std::time::Duration;

use super::{imds_server::Server, once};
use crate::{Call, CallError, Ec2, Identity, Nic, Options, sdk::Sdk};

const MAC: [u8; 6] = [0x0a, 0, 0, 0, 0, 7];

fn sdk(endpoint: &str) -> Sdk {
    Sdk::new(Options { metadata_endpoint: Some(endpoint.to_owned()), ..Options::default() })
}

#[tokio::test]
async fn who_this_is_is_asked_once() {
    let server = Server::start().await;
    let sdk = sdk(&server.endpoint);
    let expected = Identity {
        instance: "i-0123456789abcdef0".to_owned(),
        region: "eu-central-1".to_owned(),
        zone: "eu-central-1a".to_owned(),
    };
    assert_eq!(sdk.identity(&once()).await, Ok(expected.clone()));
    let asked = server.asked().len();
    assert_eq!(sdk.identity(&once()).await, Ok(expected));
    assert_eq!((server.asked().len(), server.tokens_given()), (asked, 1));
}

#[tokio::test]
async fn the_interface_is_asked_anew_each_time() {
    let server = Server::start().await;
    let sdk = sdk(&server.endpoint);
    let seven = Nic {
        id: "eni-7".to_owned(),
        vpc: "vpc-7".to_owned(),
        vpc_cidrs: vec!["10.0.0.0/16".parse().unwrap(), "10.1.0.0/20".parse().unwrap()],
    };
    assert_eq!(sdk.nic(MAC, &once()).await, Ok(seven.clone()));
    server.set("network/interfaces/macs/0a:00:00:00:00:07/interface-id", 200, "eni-8");
    assert_eq!(sdk.nic(MAC, &once()).await, Ok(Nic { id: "eni-8".to_owned(), ..seven }));
    assert_eq!(server.tokens_given(), 1);
}

#[tokio::test]
async fn an_interface_that_is_not_there_is_missing() {
    let server = Server::start().await;
    let missing = sdk(&server.endpoint).nic([0x0a, 0, 0, 0, 0, 8], &once()).await.unwrap_err();
    assert!(matches!(missing, CallError::Missing { .. }), "{missing:?}");
    let text = missing.to_string();
    assert!(text.contains("0a:00:00:00:00:08") && text.contains("detached"), "{text}");
}

#[tokio::test]
async fn a_token_that_is_not_accepted_any_more_is_replaced() {
    let server = Server::start().await;
    let sdk = sdk(&server.endpoint);
    sdk.nic(MAC, &once()).await.unwrap();
    server.restart();
    sdk.nic(MAC, &once()).await.unwrap();
    assert_eq!(server.tokens_given(), 2);
}

#[tokio::test]
async fn what_passes_is_retried() {
    let server = Server::start().await;
    server.fail(2);
    assert_eq!(
        sdk(&server.endpoint).nic(MAC, &Call { retries: 2, ..once() }).await.map(|nic| nic.id),
        Ok("eni-7".into())
    );
    server.fail(2);
    let failed = sdk(&server.endpoint).nic(MAC, &Call { retries: 1, ..once() }).await.unwrap_err();
    assert!(failed.is_passing(), "{failed:?}");
}

/// The whole takes no longer than one call, however many ask.
#[tokio::test]
async fn many_who_wait_for_the_identity_do_not_wait_for_each_other() {
    let server = Server::start().await;
    server.hang();
    let sdk = std::sync::Arc::new(sdk(&server.endpoint));
    let call = Call { attempt_timeout: Duration::from_millis(200), ..once() };
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (sdk, call) = (std::sync::Arc::clone(&sdk), call.clone());
            tokio::spawn(async move { sdk.identity(&call).await })
        })
        .collect();
    // Here one after the other would be 20 s.
    let all = async {
        for task in tasks {
            assert!(matches!(task.await.unwrap(), Err(CallError::Silent { .. })));
        }
    };
    tokio::time::timeout(Duration::from_secs(15), all).await.unwrap();
}

#[tokio::test]
async fn a_service_that_is_switched_off_says_so() {
    let server = Server::start().await;
    server.refuse_tokens(403);
    let refused = sdk(&server.endpoint).identity(&once()).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused { ref code, .. } if code == "403"), "{refused:?}");
    assert!(refused.to_string().contains("modify-instance-metadata-options"), "{refused}");
}

#[tokio::test]
async fn failures_of_the_service_pass() {
    let server = Server::start().await;
    server.set("instance-id", 500, "");
    let failed = sdk(&server.endpoint).identity(&once()).await.unwrap_err();
    assert!(matches!(failed, CallError::Unavailable { ref code, .. } if code == "500"), "{failed:?}");
    server.set("instance-id", 200, "");
    let empty = sdk(&server.endpoint).identity(&once()).await.unwrap_err();
    assert!(matches!(empty, CallError::Unreachable { .. }), "{empty:?}");
    server.set("network/interfaces/macs/0a:00:00:00:00:07/vpc-ipv4-cidr-blocks", 200, "<html>");
    let garbage = sdk(&server.endpoint).nic(MAC, &once()).await.unwrap_err();
    assert!(matches!(garbage, CallError::Unreachable { .. }), "{garbage:?}");
    server.refuse_tokens(500);
    let without_token = sdk(&server.endpoint).identity(&once()).await.unwrap_err();
    assert!(without_token.is_passing(), "{without_token:?}");
}

#[tokio::test]
async fn silence_is_bounded() {
    let server = Server::start().await;
    server.hang();
    let call = Call { attempt_timeout: Duration::from_millis(50), ..once() };
    let silent = sdk(&server.endpoint).nic(MAC, &call).await.unwrap_err();
    assert!(
        matches!(silent, CallError::Silent { within, .. } if within == call.attempt_timeout),
        "{silent:?}"
    );
}

#[tokio::test]
async fn nobody_there() {
    // Bound and not listened on any more: nobody else gets it while the test runs.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", taken.local_addr().unwrap());
    drop(taken);
    let failed = sdk(&endpoint).identity(&once()).await.unwrap_err();
    let CallError::Unreachable { reason, .. } = &failed else { panic!("{failed:?}") };
    assert!(reason.contains("Connection refused"), "{reason}");
    let no_url = sdk("not a url").identity(&once()).await.unwrap_err();
    assert!(matches!(no_url, CallError::Refused { .. }), "{no_url:?}");
}

use std::{sync::Arc, time::Duration};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use aws_sdk_ec2::config::{SharedAsyncSleep, SharedHttpClient};

use super::{
    answers::tables,
    fake::{Fake, Hurried, Shared},
    imds_server::Server,
    impatient, once,
};
use crate::{
    CallError, Ec2, Options,
    sdk::{Parts, Sdk},
};

type Outcome = fn() -> Option<Result<Credentials, CredentialsError>>;

/// None never answers.
#[derive(Debug)]
struct Source(Outcome);

impl ProvideCredentials for Source {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        match (self.0)() {
            Some(outcome) => future::ProvideCredentials::ready(outcome),
            None => future::ProvideCredentials::new(std::future::pending()),
        }
    }
}

fn with(outcome: Outcome) -> (Sdk, Arc<Fake>) {
    let fake = Fake::new([tables(&[], None)]);
    let parts = Parts {
        http: SharedHttpClient::new(Shared(Arc::clone(&fake))),
        sleep: Some(SharedAsyncSleep::new(Hurried)),
        credentials: Some(SharedCredentialsProvider::new(Source(outcome))),
    };
    let options = Options { endpoint: Some("http://ec2.test".to_owned()), ..Options::default() };
    (Sdk::with(options, parts), fake)
}

#[tokio::test]
async fn none_found() {
    let (sdk, fake) = with(|| Some(Err(CredentialsError::not_loaded("no provider has any"))));
    let error = sdk.route_tables("vpc-1", &once()).await.unwrap_err();
    let CallError::NoCredentials(text) = &error else { panic!("{error:?}") };
    assert!(text.contains("no provider has any"), "{text}");
    assert!(!error.is_passing());
    assert_eq!(fake.sent(), 0);
}

#[tokio::test]
async fn unreadable() {
    let (sdk, _) = with(|| Some(Err(CredentialsError::invalid_configuration("profile 'x' does not exist"))));
    let error = sdk.route_tables("vpc-1", &once()).await.unwrap_err();
    assert!(matches!(error, CallError::NoCredentials(ref text) if text.contains("profile 'x'")), "{error:?}");
}

#[tokio::test]
async fn a_source_that_does_not_answer_is_bounded_by_the_call() {
    let (sdk, fake) = with(|| None);
    let error = sdk.route_tables("vpc-1", &impatient()).await.unwrap_err();
    assert!(matches!(error, CallError::Silent { .. }), "{error:?}");
    assert_eq!(fake.sent(), 0);
    let (sdk, _) = with(|| Some(Err(CredentialsError::provider_timed_out(Duration::from_secs(5)))));
    let error = sdk.route_tables("vpc-1", &once()).await.unwrap_err();
    assert!(matches!(error, CallError::Silent { .. }), "{error:?}");
}

#[tokio::test]
async fn a_source_that_is_not_reached_may_be_next_time() {
    let (sdk, _) = with(|| {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let connection = aws_sdk_ec2::error::ConnectorError::io(refused.into());
        Some(Err(CredentialsError::provider_error(connection)))
    });
    let error = sdk.route_tables("vpc-1", &once()).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn errors_say_nothing_of_the_secrets() {
    let (sdk, fake) =
        with(|| Some(Ok(Credentials::new("AKIDEXAMPLE", "sEcReT", Some("t0ken".into()), None, "test"))));
    fake.script([super::answers::error(
        403,
        "AuthFailure",
        "AWS was not able to validate the provided access credentials",
    )]);
    let error = sdk.route_tables("vpc-1", &once()).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains("sEcReT") && !text.contains("t0ken"), "{text}");
    assert_eq!(fake.sent(), 1);
}

#[tokio::test]
async fn of_the_instance_they_come_from_the_metadata_service_that_was_named() {
    let server = Server::start().await;
    server.set("iam/security-credentials/", 200, "vipd");
    let role = r#"{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIAROLE", "SecretAccessKey": "sEcReT",
        "Token": "t0ken", "LastUpdated": "2020-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z"}"#;
    server.set("iam/security-credentials/vipd", 200, role);
    let options = Options { metadata_endpoint: Some(server.endpoint.clone()), ..Options::default() };
    let found = Sdk::new(options).clients.of_instance().unwrap().provide_credentials().await.unwrap();
    assert_eq!(found.access_key_id(), "ASIAROLE");
    assert!(!format!("{found:?}").contains("sEcReT"));
}

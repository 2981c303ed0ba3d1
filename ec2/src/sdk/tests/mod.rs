//! The SDK against an HTTP client that answers by a script, and against a metadata service on the loopback.

mod answers;
mod classification;
mod credentials;
mod dry_run;
mod fake;
mod imds_server;
mod lanes;
mod metadata;
mod permits;
mod reads;
mod retries;
mod writes;

use std::{sync::Arc, time::Duration};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_ec2::config::{SharedAsyncSleep, SharedHttpClient};

use self::fake::{Answer, Fake, Hurried, Shared};
use super::{Parts, Sdk};
use crate::{Call, Options, Permit, Purpose};

/// With a time-out that no machine under load reaches.
fn call() -> Call {
    Call {
        region: Some("eu-central-1".to_owned()),
        attempt_timeout: Duration::from_secs(60_000),
        retries: 3,
        purpose: Purpose::Service,
    }
}

/// For those that are not answered.
fn impatient() -> Call {
    Call { attempt_timeout: Duration::from_secs(20), ..call() }
}

/// Without retries.
fn once() -> Call {
    Call { retries: 0, ..call() }
}

/// An SDK to which the answers are given one after the other, and what it is asked. Its pauses and time-outs are a
/// hundredth of what they would be.
fn scripted(answers: impl IntoIterator<Item = Answer>) -> (Sdk, Arc<Fake>) {
    let options = Options { endpoint: Some("http://ec2.test".to_owned()), ..Options::default() };
    scripted_with(options, answers)
}

fn scripted_with(options: Options, answers: impl IntoIterator<Item = Answer>) -> (Sdk, Arc<Fake>) {
    let fake = Fake::new(answers);
    let parts = Parts {
        http: SharedHttpClient::new(Shared(Arc::clone(&fake))),
        sleep: Some(SharedAsyncSleep::new(Hurried)),
        credentials: Some(credentials()),
    };
    (Sdk::with(options, parts), fake)
}

fn credentials() -> SharedCredentialsProvider {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some("token".to_owned()), None, "test");
    SharedCredentialsProvider::new(credentials)
}

struct Always;

impl Permit for Always {
    fn still(&self) -> Result<(), String> {
        Ok(())
    }
}

fn permit() -> Arc<dyn Permit> {
    Arc::new(Always)
}

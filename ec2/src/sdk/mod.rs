//! The implementation with Amazon's SDK.

mod api;
mod attempts;
mod classify;
mod clients;
mod convert;
mod dry_run;
mod gate;
mod lanes;
mod metadata;
#[cfg(test)]
mod tests;
mod text;

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ec2::config::{SharedAsyncSleep, SharedHttpClient};

use self::{clients::Clients, lanes::Lanes};
use crate::Options;

/// One per process: connections, credentials and tokens are shared by all calls.
pub struct Sdk {
    clients: Clients,
    lanes: Lanes,
}

/// What tests put in the place of the network, the clock and the credentials. In the daemon, all but the HTTP client
/// is what the SDK brings along.
struct Parts {
    http: SharedHttpClient,
    sleep: Option<SharedAsyncSleep>,
    credentials: Option<SharedCredentialsProvider>,
}

impl Sdk {
    pub fn new(options: Options) -> Self {
        let parts = Parts { http: clients::http(), sleep: None, credentials: None };
        Self::with(options, parts)
    }

    fn with(options: Options, parts: Parts) -> Self {
        Self { clients: Clients::new(options, parts), lanes: Lanes::default() }
    }
}

//! What the host knows of itself: the instance metadata service, with tokens only (IMDSv2).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_config::{
    imds::client::{Builder, Client, error::ImdsError},
    provider_config::ProviderConfig,
};
use aws_sdk_ec2::{
    config::{
        interceptors::InterceptorContext,
        retry::{ClassifyRetry, RetryAction},
    },
    error::ConnectorError,
};
use aws_smithy_runtime_api::client::retries::classifiers::SharedRetryClassifier;
use aws_smithy_types::retry::ErrorKind;
use ipnet::Ipv4Net;
use tokio::sync::OnceCell;

use super::{
    attempts::in_all,
    clients::not_a_url,
    text::{cause, chain, find},
};
use crate::{Call, CallError, Identity, Nic};

/// It is on the same machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The SDK keeps a token that is refused until it ends by itself, by default after 6 hours.
const TOKEN_TTL: Duration = Duration::from_secs(600);

const HOST: &str = "this host's identity";

type Result<T> = std::result::Result<T, CallError>;

pub struct Metadata {
    endpoint: Option<String>,
    config: ProviderConfig,
    identity: OnceCell<Identity>,
    /// The last used one with its token, and the time-out and retries that it was made for.
    client: Mutex<Option<(Duration, u32, Client)>>,
}

impl Metadata {
    pub fn new(endpoint: Option<String>, config: ProviderConfig) -> Self {
        Self { endpoint, config, identity: OnceCell::new(), client: Mutex::default() }
    }

    pub async fn identity(&self, call: &Call) -> Result<Identity> {
        // Those who come while it is asked wait for it, and if it fails, they ask one after the other.
        let identity = self.identity.get_or_try_init(|| self.ask_identity(call));
        bounded(HOST, call, async { identity.await.cloned() }).await
    }

    async fn ask_identity(&self, call: &Call) -> Result<Identity> {
        let what = HOST;
        let none = "the instance metadata service does not know it";
        Ok(Identity {
            instance: self.get("instance-id", what, none, call).await?,
            region: self.get("placement/region", what, none, call).await?,
            zone: self.get("placement/availability-zone", what, none, call).await?,
        })
    }

    pub async fn nic(&self, mac: [u8; 6], call: &Call) -> Result<Nic> {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        let what = format!("the network interface with link-layer address {mac}");
        let none = "this instance has none (any more), says its metadata service: was it detached, \
                    or is the device not an interface of EC2?";
        let field = async |name: &str| {
            self.get(&format!("network/interfaces/macs/{mac}/{name}"), &what, none, call).await
        };
        let ask = async {
            let id = field("interface-id").await?;
            let vpc = field("vpc-id").await?;
            let vpc_cidrs = blocks(&field("vpc-ipv4-cidr-blocks").await?)
                .map_err(|reason| CallError::Unreachable { what: what.clone(), reason })?;
            Ok(Nic { id, vpc, vpc_cidrs })
        };
        bounded(&what, call, ask).await
    }

    /// One item of meta-data, as one trimmed text. `none` says what it means when there is none.
    async fn get(&self, path: &str, what: &str, none: &str, call: &Call) -> Result<String> {
        let path = format!("/latest/meta-data/{path}");
        let mut answer = self.client(call)?.get(path.as_str()).await;
        if matches!(&answer, Err(ImdsError::ErrorResponse(error)) if error.response().status().as_u16() == 401)
        {
            // The token is not accepted any more.
            self.forget();
            answer = self.client(call)?.get(path.as_str()).await;
        }
        match answer {
            Ok(text) if text.as_ref().trim().is_empty() => Err(CallError::Unreachable {
                what: what.to_owned(),
                reason: format!("the metadata service's answer for {path} is empty"),
            }),
            Ok(text) => Ok(text.as_ref().trim().to_owned()),
            Err(error) => Err(failed(&error, what, none, call)),
        }
    }

    fn client(&self, call: &Call) -> Result<Client> {
        let mut last = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref() {
            Some((timeout, retries, client))
                if (*timeout, *retries) == (call.attempt_timeout, call.retries) =>
            {
                Ok(client.clone())
            }
            _ => {
                let client = self
                    .builder()?
                    .connect_timeout(call.attempt_timeout.min(CONNECT_TIMEOUT))
                    .read_timeout(call.attempt_timeout)
                    .operation_attempt_timeout(call.attempt_timeout)
                    .operation_timeout(in_all(call.attempt_timeout, call.retries))
                    .max_attempts(call.retries.saturating_add(1))
                    .retry_classifier(SharedRetryClassifier::new(Passing))
                    .build();
                *last = Some((call.attempt_timeout, call.retries, client.clone()));
                Ok(client)
            }
        }
    }

    fn forget(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// With the SDK's own time-outs: a second for a connection and for an answer, and no retry when there is nobody.
    pub fn for_credentials(&self) -> Result<Client> {
        Ok(self.builder()?.build())
    }

    fn builder(&self) -> Result<Builder> {
        let builder = Client::builder().configure(&self.config).token_ttl(TOKEN_TTL);
        match &self.endpoint {
            None => Ok(builder),
            Some(endpoint) => {
                builder.endpoint(endpoint).map_err(|_| not_a_url("the metadata service", endpoint))
            }
        }
    }
}

/// Several questions may take no longer than one call.
async fn bounded<T>(what: &str, call: &Call, asked: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = tokio::time::timeout(in_all(call.attempt_timeout, call.retries), asked).await;
    answer.unwrap_or_else(|_| Err(CallError::Silent { what: what.to_owned(), within: call.attempt_timeout }))
}

/// What may go better the next time. Unlike the SDK's own, it makes no retry with a token that was refused.
#[derive(Debug)]
struct Passing;

impl ClassifyRetry for Passing {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        if !matches!(context.output_or_error(), Some(Err(_))) {
            return RetryAction::NoActionIndicated;
        }
        match context.response().map(|response| response.status().as_u16()) {
            None => RetryAction::retryable_error(ErrorKind::TransientError),
            Some(429 | 500..) => RetryAction::server_error(),
            Some(_) => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "vipd"
    }
}

fn blocks(text: &str) -> std::result::Result<Vec<Ipv4Net>, String> {
    text.split_whitespace()
        .map(|block| block.parse().map_err(|_| format!("'{block}' is not an IPv4 block")))
        .collect()
}

fn failed(error: &ImdsError, what: &str, none: &str, call: &Call) -> CallError {
    let what = what.to_owned();
    let status = match error {
        ImdsError::ErrorResponse(answer) => Some(answer.response().status().as_u16()),
        _ => None,
    };
    match status {
        Some(404) => CallError::Missing { what, code: "404".to_owned(), message: none.to_owned() },
        Some(429) => CallError::Throttled { what, code: "429".to_owned() },
        // 401 even with a token that was given just now.
        Some(code @ (401 | 500..)) => CallError::Unavailable { what, code: code.to_string() },
        Some(code) => disabled(what, &code.to_string()),
        None if chain(error).any(|error| error.to_string().contains("forbidden")) => disabled(what, "403"),
        None if is_timeout(error) => CallError::Silent { what, within: call.attempt_timeout },
        None => CallError::Unreachable {
            what,
            reason: format!("the instance metadata service is not reached: {}", cause(error)),
        },
    }
}

fn disabled(what: String, code: &str) -> CallError {
    let message = "the instance metadata service refuses to answer: is it enabled, with IMDSv2 \
                   (aws ec2 modify-instance-metadata-options --http-endpoint enabled)?";
    CallError::Refused { what, code: code.to_owned(), message: message.to_owned() }
}

fn is_timeout(error: &ImdsError) -> bool {
    find::<ConnectorError>(error).is_some_and(ConnectorError::is_timeout)
        || chain(error).any(|error| error.to_string().contains("timeout"))
}

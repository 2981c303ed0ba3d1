//! How often and how long one call is tried.

use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use aws_sdk_ec2::{
    config::{
        self,
        interceptors::InterceptorContext,
        retry::{ClassifyRetry, RetryAction, RetryConfig},
        timeout::TimeoutConfig,
    },
    error::ProvideErrorMetadata,
};
use aws_smithy_types::retry::ErrorKind;

use super::{
    classify,
    gate::{Fate, Gate},
};
use crate::{Action, Call, Permit};

/// No pause before a retry is longer: the callers have pauses of their own, which grow further. The SDK's first is up to
/// a second; each further one may be twice as long.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A host that is there accepts a connection within one round trip; this leaves room for a lost SYN or two.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For what happens between attempts; with it, the time-outs of the attempts always come first.
const SLACK: Duration = Duration::from_secs(1);

/// One call with its attempts.
pub struct Attempts {
    pub action: Action,
    /// As errors name it.
    pub what: String,
    pub attempt_timeout: Duration,
    pub fate: Arc<Fate>,
    retries: u32,
    permit: Option<Arc<dyn Permit>>,
}

impl Attempts {
    pub fn new(action: Action, objects: &str, call: &Call, permit: Option<Arc<dyn Permit>>) -> Self {
        Self {
            action,
            what: if objects.is_empty() { action.to_string() } else { format!("{action} ({objects})") },
            attempt_timeout: call.attempt_timeout,
            fate: Arc::default(),
            retries: call.retries,
            permit,
        }
    }

    /// What the SDK is to do differently for this call. `E` is the type of the operation's errors.
    pub fn config<E>(&self) -> config::Builder
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.connect_timeout())
            .operation_attempt_timeout(self.attempt_timeout)
            .operation_timeout(in_all(self.attempt_timeout, self.retries))
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(self.retries.saturating_add(1))
            .with_max_backoff(LONGEST_PAUSE);
        config::Builder::new()
            .timeout_config(timeouts)
            .retry_config(retries)
            .retry_classifier(Passing::<E> { fate: Arc::clone(&self.fate), _errors: PhantomData })
            .interceptor(Gate {
                action: self.action,
                permit: self.permit.clone(),
                fate: Arc::clone(&self.fate),
            })
    }

    pub fn connect_timeout(&self) -> Duration {
        self.attempt_timeout.min(CONNECT_TIMEOUT)
    }
}

/// The longest that a call can take.
pub fn in_all(attempt_timeout: Duration, retries: u32) -> Duration {
    attempt_timeout
        .saturating_mul(retries.saturating_add(1))
        .saturating_add(LONGEST_PAUSE.saturating_mul(retries))
        .saturating_add(SLACK)
}

/// Retries what the SDK does not know to be worth it: an answer that broke off, and EC2's older spelling of codes
/// (`Client.RequestLimitExceeded`).
struct Passing<E> {
    fate: Arc<Fate>,
    _errors: PhantomData<fn() -> E>,
}

impl<E> fmt::Debug for Passing<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passing")
    }
}

impl<E> ClassifyRetry for Passing<E>
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(Err(error)) = context.output_or_error() else { return RetryAction::NoActionIndicated };
        if self.fate.overtaken.get().is_some() {
            return RetryAction::RetryForbidden;
        }
        if self.fate.broken.load(Ordering::Relaxed) {
            return RetryAction::retryable_error(ErrorKind::TransientError);
        }
        let status = context.response().map(|response| response.status().as_u16());
        let code = error
            .as_operation_error()
            .and_then(|error| error.downcast_ref::<E>())
            .and_then(ProvideErrorMetadata::code)
            .unwrap_or_default();
        if classify::is_throttling(code, status) {
            RetryAction::retryable_error(ErrorKind::ThrottlingError)
        } else {
            RetryAction::NoActionIndicated
        }
    }

    fn name(&self) -> &'static str {
        "vipd"
    }
}

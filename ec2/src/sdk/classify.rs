//! From the SDK's errors to ours.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::{
    config::http::HttpResponse,
    error::{ConnectorError, ProvideErrorMetadata, SdkError},
};

use super::{
    attempts::Attempts,
    text::{cause, find, line, reasons},
};
use crate::CallError;

/// More of them than EC2 documents for itself: others may stand in front of it.
const THROTTLING: &[&str] = &[
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// Not permitted.
const DENIED: &[&str] = &["AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation"];

/// It is not known who asks, or he is not let in: no policy changes that.
const UNACCEPTED: &[&str] = &[
    AUTH_FAILURE,
    "Blocked",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "OptInRequired",
    "PendingVerification",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// EC2 says so of those whom it does not know, and of objects that are not theirs.
const AUTH_FAILURE: &str = "AuthFailure";

const UNAVAILABLE: &[&str] =
    &["InternalError", "InternalFailure", "RequestTimeout", "ServiceUnavailable", "Unavailable"];

const TOO_MANY_REQUESTS: u16 = 429;

/// Older endpoints say whose fault it was, too: `Client.RequestLimitExceeded`.
pub fn bare(code: &str) -> &str {
    code.strip_prefix("Client.").or_else(|| code.strip_prefix("Server.")).unwrap_or(code)
}

pub fn is_throttling(code: &str, status: Option<u16>) -> bool {
    THROTTLING.contains(&bare(code)) || status == Some(TOO_MANY_REQUESTS)
}

/// With `DryRun`, this is how EC2 says that it would have been done.
pub fn is_dry_run<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    matches!(error, SdkError::ServiceError(answer) if answer.err().code().map(bare) == Some("DryRunOperation"))
}

impl Attempts {
    /// Why the call brought nothing.
    pub fn failed<E>(&self, error: &SdkError<E, HttpResponse>) -> CallError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        if let Some(why) = self.fate.overtaken.get() {
            return CallError::Overtaken(why.clone());
        }
        let what = self.what.clone();
        match error {
            SdkError::ServiceError(answer) => {
                let error = answer.err();
                let (code, message) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
                self.answered(answer.raw().status().as_u16(), code, message)
            }
            SdkError::TimeoutError(_) => CallError::Silent { what, within: self.attempt_timeout },
            SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => self.not_sent(error),
            _ => CallError::Unreachable {
                what,
                reason: format!("the answer cannot be read: {}", cause(error)),
            },
        }
    }

    fn answered(&self, status: u16, code: &str, message: &str) -> CallError {
        let what = self.what.clone();
        let (code, message) = (bare(code).to_owned(), line(message));
        if is_throttling(&code, Some(status)) {
            let code = if code.is_empty() { status.to_string() } else { code };
            CallError::Throttled { what, code }
        } else if status >= 500 || UNAVAILABLE.contains(&code.as_str()) {
            let code = if code.is_empty() { status.to_string() } else { code };
            CallError::Unavailable { what, code }
        } else if code.is_empty() {
            // EC2 always names a code. A proxy or a captive portal does not.
            let reason = format!("the answer with HTTP status {status} is not one of EC2");
            CallError::Unreachable { what, reason }
        } else if DENIED.contains(&code.as_str()) || is_of_an_object(&code, &message) {
            CallError::Denied { action: self.action, code, message }
        } else if UNACCEPTED.contains(&code.as_str()) {
            CallError::Unaccepted { code, message }
        } else if is_missing(&code, &message) {
            CallError::Missing { what, code, message }
        } else {
            CallError::Refused { what, code, message }
        }
    }

    fn not_sent<E>(&self, error: &SdkError<E, HttpResponse>) -> CallError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        if let Some(error) = find::<CredentialsError>(error) {
            return no_credentials(error);
        }
        let what = self.what.clone();
        match (find::<ConnectorError>(error), error) {
            (Some(connection), _) if connection.is_timeout() => {
                CallError::Silent { what, within: self.connect_timeout() }
            }
            (_, SdkError::ConstructionFailure(_)) => {
                CallError::Refused { what, code: "not a valid request".to_owned(), message: reasons(error) }
            }
            _ => CallError::Unreachable { what, reason: cause(error) },
        }
    }
}

/// `You do not have permission to access the specified resource.`
fn is_of_an_object(code: &str, message: &str) -> bool {
    code == AUTH_FAILURE && message.to_ascii_lowercase().contains("permission")
}

/// EC2 names a missing object in the code, but for a missing route, in which case it has
/// `InvalidParameterValue: There is no route defined for '...' in the route table. Use CreateRoute instead.`
fn is_missing(code: &str, message: &str) -> bool {
    code.ends_with(".NotFound")
        || code == "InvalidParameterValue" && message.to_ascii_lowercase().contains("no route defined")
}

/// A source of credentials that was reached at last or not at all: when it is only not answering, that passes.
fn no_credentials(error: &CredentialsError) -> CallError {
    let what = "the source of the AWS credentials".to_owned();
    match error {
        CredentialsError::ProviderTimedOut(after) => {
            CallError::Silent { what, within: after.timeout_duration() }
        }
        CredentialsError::ProviderError(_) if find::<ConnectorError>(error).is_some() => {
            CallError::Unreachable { what, reason: cause(error) }
        }
        _ => CallError::NoCredentials(reasons(error)),
    }
}

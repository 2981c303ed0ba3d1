//! Nothing is sent without a permit, and no answer counts that broke off.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use aws_sdk_ec2::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{
            AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextMut,
            BeforeTransmitInterceptorContextRef,
        },
    },
    error::BoxError,
};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{Action, Permit};

/// What became of a call, besides what the SDK says of it.
#[derive(Debug, Default)]
pub struct Fate {
    /// Why the permit did not hold. It stays so for the rest of the call, even if the permit held again.
    pub overtaken: OnceLock<String>,
    /// The last answer said "OK" and broke off.
    pub broken: AtomicBool,
}

/// Sees every attempt of one call.
pub struct Gate {
    pub action: Action,
    pub permit: Option<Arc<dyn Permit>>,
    pub fate: Arc<Fate>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("action", &self.action).field("fate", &self.fate).finish_non_exhaustive()
    }
}

fn still(permit: &dyn Permit, fate: &Fate) -> Result<(), BoxError> {
    if let Err(why) = permit.still() {
        // Whoever comes second has found the same.
        let _ = fate.overtaken.set(why);
    }
    match fate.overtaken.get() {
        Some(why) => Err(why.as_str().into()),
        None => Ok(()),
    }
}

impl Intercept for Gate {
    fn name(&self) -> &'static str {
        "vipd"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.fate.broken.store(false, Ordering::Relaxed);
        if let Some(permit) = &self.permit {
            let request = context.request_mut();
            let inner = std::mem::replace(request.body_mut(), SdkBody::taken());
            *request.body_mut() = SdkBody::from_body_1_x(Guarded {
                inner,
                permit: Arc::clone(permit),
                fate: Arc::clone(&self.fate),
            });
        }
        Ok(())
    }

    /// The last thing before the attempt is handed to the HTTP client, after credentials, signature and pauses.
    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.permit.as_ref().map_or(Ok(()), |permit| still(permit.as_ref(), &self.fate))
    }

    /// The SDK takes an answer that is empty, cut off or not EC2's for a short one: with fewer route tables, or for a
    /// success. Of a whole one it is known how it ends.
    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        if !response.status().is_success()
            || is_whole(self.action, response.body().bytes().unwrap_or_default())
        {
            return Ok(());
        }
        self.fate.broken.store(true, Ordering::Relaxed);
        Err(format!("it does not end like a {:?}Response", self.action).into())
    }
}

fn is_whole(action: Action, answer: &[u8]) -> bool {
    answer.trim_ascii_end().ends_with(format!("</{action:?}Response>").as_bytes())
}

/// The body of a request, given away only while the permit holds. The HTTP client asks for it once it is connected,
/// which may be seconds after [`Intercept::read_before_transmit`] when the network has just failed: exactly then the
/// lease runs out as well. A request without its body is none.
struct Guarded {
    inner: SdkBody,
    permit: Arc<dyn Permit>,
    fate: Arc<Fate>,
}

impl Body for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match still(self.permit.as_ref(), &self.fate) {
            Ok(()) => Pin::new(&mut self.inner).poll_frame(cx),
            Err(why) => Poll::Ready(Some(Err(why))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.inner)
    }
}

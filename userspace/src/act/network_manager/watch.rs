//! Waiting for a connection's next state: subscribe first, look, and look again at each signal.

use std::time::Duration;

use futures::StreamExt;
use zbus::{
    Message, MessageStream,
    zvariant::{ObjectPath, OwnedObjectPath},
};

use super::{
    DEACTIVATED, Error,
    bus::{Bus, Object},
    words,
};

/// Between two looks when no signal comes: counts only when one was lost.
const LOOK: Duration = Duration::from_secs(1);

/// How much later than the connection's end the device's reason may arrive.
const LATE: Duration = Duration::from_millis(200);

/// NM_DEVICE_STATE_FAILED.
const FAILED: u32 = 120;

/// Watches connections on one device.
pub(super) struct Watch {
    bus: Bus,
    changes: MessageStream,
    device: OwnedObjectPath,
    /// The best reason so far for a failure.
    reason: Option<&'static str>,
}

impl Watch {
    /// What happens from now on is not missed.
    pub(super) async fn new(bus: &Bus, device: &ObjectPath<'_>) -> Result<Self, Error> {
        let changes = bus.state_changes().await?;
        Ok(Self { bus: bus.clone(), changes, device: device.to_owned().into(), reason: None })
    }

    /// NMActiveConnectionState. What is gone is deactivated.
    pub(super) async fn state(&self, active: &ObjectPath<'_>) -> Result<u32, Error> {
        match self.bus.get(Object::Active(active), "State").await {
            Err(error) if error.is_gone() => Ok(DEACTIVATED),
            state => state,
        }
    }

    /// Returns when it is time to look again.
    pub(super) async fn changed(&mut self, active: &ObjectPath<'_>) {
        match tokio::time::timeout(LOOK, self.changes.next()).await {
            Ok(Some(Ok(message))) => self.note(&message, active),
            // Without a stream the bus is gone, which the next look tells; until then this must not spin.
            Ok(Some(Err(_)) | None) => tokio::time::sleep(LATE).await,
            Err(_) => {}
        }
    }

    /// Why a connection failed, in words.
    pub(super) async fn reason(&mut self, active: &ObjectPath<'_>) -> String {
        while let Ok(Some(Ok(message))) = tokio::time::timeout(LATE, self.changes.next()).await {
            self.note(&message, active);
        }
        self.reason.unwrap_or("NetworkManager gave it up without a reason").to_owned()
    }

    fn note(&mut self, message: &Message, active: &ObjectPath<'_>) {
        let (header, body) = (message.header(), message.body());
        let Some(path) = header.path() else { return };
        if *path == *self.device
            && let Ok((FAILED, _, reason)) = body.deserialize::<(u32, u32, u32)>()
        {
            self.reason = words::device_reason(reason).or(self.reason);
        } else if path == active
            && let Ok((DEACTIVATED, reason)) = body.deserialize::<(u32, u32)>()
        {
            self.reason = self.reason.or_else(|| words::active_reason(reason));
        }
    }
}

//! Why NetworkManager is not the one to stop and start a device, or could not do it.

use std::time::Duration;

use super::Profile;

/// D-Bus errors that say that there is no such object (any more).
const GONE: [&str; 3] = [
    "org.freedesktop.DBus.Error.UnknownObject",
    "org.freedesktop.DBus.Error.UnknownMethod",
    "org.freedesktop.DBus.Error.UnknownInterface",
];

/// Why a device is not stopped and started by NetworkManager.
#[derive(Debug, thiserror::Error)]
pub enum Unmanaged {
    #[error("there is no system bus: {0}")]
    NoBus(String),
    #[error("NetworkManager is not running")]
    NotRunning,
    #[error("NetworkManager does not know {0}")]
    Unknown(String),
    /// Not this host's device, but one of the same name in another network namespace.
    #[error("NetworkManager's {device} has the link-layer address '{theirs}', not '{ours}': another device")]
    Stranger { device: String, theirs: String, ours: String },
    #[error("NetworkManager does not manage {0}")]
    ByConfiguration(String),
    #[error("no connection of NetworkManager is active on {0}")]
    Inactive(String),
    #[error("{0} was configured by somebody else, NetworkManager only shows it")]
    External(String),
    #[error("{device} would be deleted with its connection: NetworkManager made it for '{profile}' ({kind})")]
    Deleted { device: String, profile: String, kind: String },
    /// It may well manage the device.
    #[error(transparent)]
    Failed(Error),
}

/// Why NetworkManager did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no system bus: {0}")]
    NoBus(String),
    #[error("NetworkManager is not running")]
    NotRunning,
    #[error("NetworkManager: cannot {action}: {source}")]
    Call { action: String, source: zbus::Error },
    #[error("NetworkManager: cannot {action}: no answer within {limit:?}")]
    Silent { action: String, limit: Duration },
    #[error("the connection {profile} is still up on {device} after {limit:?}")]
    StillUp { profile: Profile, device: String, limit: Duration },
    #[error(
        "the connection {profile} did not come up on {device}: {reason}; try 'nmcli connection up uuid {}'",
        profile.uuid
    )]
    NotUp { profile: Profile, device: String, reason: String },
}

impl From<Error> for Unmanaged {
    fn from(error: Error) -> Self {
        match error {
            Error::NoBus(reason) => Self::NoBus(reason),
            Error::NotRunning => Self::NotRunning,
            error => Self::Failed(error),
        }
    }
}

impl Error {
    pub(super) fn call(action: &str, source: zbus::Error) -> Self {
        Self::Call { action: action.to_owned(), source }
    }

    pub(super) fn no_bus(self) -> Self {
        match self {
            Self::Call { source, .. } => Self::NoBus(source.to_string()),
            other => other,
        }
    }

    /// Whether the answer was this D-Bus error.
    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Call { source: zbus::Error::MethodError(n, ..), .. } if n.as_str() == name)
    }

    /// Whether the answer was that there is no such object (any more).
    pub(super) fn is_gone(&self) -> bool {
        GONE.iter().any(|name| self.is(name))
    }
}

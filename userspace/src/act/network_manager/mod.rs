//! NetworkManager, where it manages a device: an active connection goes down and comes up again, as
//! `nmcli connection down` and `up` would have it, through NetworkManager's D-Bus interface.
//!
//! The system bus is connected to when a device is to be stopped or started, and only then. Every call
//! and every wait is bounded.

mod bus;
mod error;
mod watch;
mod words;

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use zbus::zvariant::{ObjectPath, OwnedObjectPath};

pub use self::error::{Error, Unmanaged};
use self::{
    bus::{Bus, Object, some},
    watch::Watch,
};
use crate::observe::network::Link;

/// Longest wait for a connection to be down. NetworkManager's dispatcher scripts may delay it.
const DOWN_LIMIT: Duration = Duration::from_secs(15);

/// Longest wait for a connection to be up. DHCP may take longer, but a link is up long before its
/// addresses are, and the sequence that waits here has other things to do.
const UP_LIMIT: Duration = Duration::from_secs(20);

/// NM_ACTIVATION_STATE_FLAG_EXTERNAL: made up by NetworkManager to show what others configured.
const EXTERNAL: u32 = 0x80;

/// The one kind of profile for whose device there is a driver, also where it is a virtual one (veth). For
/// all other virtual devices NetworkManager makes the device itself, and deletes it.
const ETHERNET: &str = "802-3-ethernet";

/// NMActiveConnectionState.
const ACTIVATING: u32 = 1;
const ACTIVATED: u32 = 2;
const DEACTIVATED: u32 = 4;

/// Names of D-Bus errors.
const UNKNOWN_DEVICE: &str = "org.freedesktop.NetworkManager.UnknownDevice";
const NOT_ACTIVE: &str = "org.freedesktop.NetworkManager.ConnectionNotActive";

/// Where NetworkManager is looked for. Costs nothing until it is asked.
#[derive(Clone, Debug, Default)]
pub struct NetworkManager {
    /// None: $DBUS_SYSTEM_BUS_ADDRESS, or the usual system bus.
    address: Option<String>,
}

/// A connection profile of NetworkManager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Survives a restart of NetworkManager, unlike its D-Bus path.
    pub uuid: String,
    /// Its name, for people.
    pub id: String,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' ({})", self.id, self.uuid)
    }
}

/// A device that NetworkManager manages, with the connection that is active there.
#[derive(Debug)]
pub struct Managed {
    bus: Bus,
    device: String,
    path: OwnedObjectPath,
    active: OwnedObjectPath,
    profile: Profile,
}

impl NetworkManager {
    /// On another bus than the system's. `address` as in $DBUS_SYSTEM_BUS_ADDRESS.
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: Some(address.into()) }
    }

    /// The device and its active connection, if NetworkManager can take the one down on the other and
    /// bring it up again.
    pub async fn managed(&self, link: &Link) -> Result<Managed, Unmanaged> {
        let bus = Bus::open(self.address.as_deref()).await?;
        let name = link.name.clone();
        let Some(path) = device_path(&bus, &name).await? else { return Err(Unmanaged::Unknown(name)) };
        let object = Object::Device(&path);
        // A bus knows nothing of network namespaces: its eth0 may be the one outside.
        let theirs: String = bus.get(object, "HwAddress").await?;
        let ours = link.mac_text();
        if !link.is_ethernet() || !theirs.eq_ignore_ascii_case(&ours) {
            return Err(Unmanaged::Stranger { device: name, theirs, ours });
        }
        if !bus.get::<bool>(object, "Managed").await? {
            return Err(Unmanaged::ByConfiguration(name));
        }
        let Some(active) = some(bus.get(object, "ActiveConnection").await?) else {
            return Err(Unmanaged::Inactive(name));
        };
        let object = Object::Active(&active);
        if bus.get::<u32>(object, "StateFlags").await? & EXTERNAL != 0 {
            return Err(Unmanaged::External(name));
        }
        let profile = Profile { uuid: bus.get(object, "Uuid").await?, id: bus.get(object, "Id").await? };
        let kind: String = bus.get(object, "Type").await?;
        // With the device would go its number, the BPF programs on it and its place in a bridge.
        if link.kind.is_some() && kind != ETHERNET {
            return Err(Unmanaged::Deleted { device: name, profile: profile.id, kind });
        }
        Ok(Managed { bus, device: name, path, active, profile })
    }

    /// Activates the profile on the device and waits until it is active; does nothing where it is
    /// already.
    pub async fn up(&self, device: &str, profile: &Profile) -> Result<(), Error> {
        let bus = Bus::open(self.address.as_deref()).await?;
        let not_up = |reason| Error::NotUp { profile: profile.clone(), device: device.to_owned(), reason };
        let Some(path) = device_path(&bus, device).await? else {
            return Err(not_up("NetworkManager does not know the device".to_owned()));
        };
        let mut watch = Watch::new(&bus, &path).await?;
        let active = match active_already(&bus, &path, profile).await? {
            Some(active) => active,
            None => activate(&bus, &path, profile).await?,
        };
        let wait = async {
            loop {
                match watch.state(&active).await? {
                    ACTIVATED => return Ok(()),
                    DEACTIVATED => return Err(not_up(watch.reason(&active).await)),
                    _ => watch.changed(&active).await,
                }
            }
        };
        match tokio::time::timeout(UP_LIMIT, wait).await {
            Ok(result) => result,
            Err(_) => {
                let state = bus.get(Object::Device(&path), "State").await?;
                let state = words::device_state(state);
                Err(not_up(format!("after {UP_LIMIT:?} the device is still {state}")))
            }
        }
    }
}

impl Managed {
    /// What [`NetworkManager::up`] brings up again.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Deactivates the connection, as `nmcli connection down` does, and waits until it is down. The
    /// device stays managed, but NetworkManager does not activate this profile by itself any more until
    /// somebody did so once: who calls this owes an [`NetworkManager::up`], also when this failed.
    ///
    /// `nmcli device disconnect` would keep *all* profiles off the device. That another one may come up
    /// meanwhile does no harm: [`NetworkManager::up`] replaces it.
    pub async fn down(&self) -> Result<(), Error> {
        let Self { bus, device, path, active, profile } = self;
        let mut watch = Watch::new(bus, path).await?;
        let action = format!("take {profile} down on {device}");
        match bus.call::<_, ()>(Object::Manager, "DeactivateConnection", active, &action).await {
            Err(error) if error.is(NOT_ACTIVE) || error.is_gone() => return Ok(()),
            answer => answer?,
        }
        let wait = async {
            while watch.state(active).await? != DEACTIVATED {
                watch.changed(active).await;
            }
            Ok(())
        };
        match tokio::time::timeout(DOWN_LIMIT, wait).await {
            Ok(result) => result,
            Err(_) => {
                let (profile, device) = (profile.clone(), device.clone());
                Err(Error::StillUp { profile, device, limit: DOWN_LIMIT })
            }
        }
    }
}

/// None where NetworkManager does not know the device.
async fn device_path(bus: &Bus, name: &str) -> Result<Option<OwnedObjectPath>, Error> {
    let action = format!("look for {name}");
    match bus.call(Object::Manager, "GetDeviceByIpIface", &name, &action).await {
        Ok(path) => Ok(Some(path)),
        Err(error) if error.is(UNKNOWN_DEVICE) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the profile is active on the device already, or about to be.
async fn active_already(
    bus: &Bus,
    device: &ObjectPath<'_>,
    profile: &Profile,
) -> Result<Option<OwnedObjectPath>, Error> {
    let Some(active) = some(bus.get(Object::Device(device), "ActiveConnection").await?) else {
        return Ok(None);
    };
    let object = Object::Active(&active);
    let look = async {
        let same = bus.get::<String>(object, "Uuid").await? == profile.uuid;
        Ok(same && matches!(bus.get(object, "State").await?, ACTIVATING | ACTIVATED))
    };
    match look.await {
        Ok(same) => Ok(same.then_some(active)),
        // It went away between the questions.
        Err(error) if Error::is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn activate(bus: &Bus, device: &ObjectPath<'_>, profile: &Profile) -> Result<OwnedObjectPath, Error> {
    let action = format!("find the connection {profile}");
    let settings: OwnedObjectPath =
        bus.call(Object::Settings, "GetConnectionByUuid", &profile.uuid, &action).await?;
    let action = format!("activate the connection {profile}");
    let none = ObjectPath::from_static_str_unchecked("/");
    bus.call(Object::Manager, "ActivateConnection", &(settings, device, none), &action).await
}

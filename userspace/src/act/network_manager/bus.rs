//! NetworkManager on the system bus: calls, properties and signals, each within a time limit.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use zbus::{
    Connection, MatchRule, MessageStream,
    connection::Builder,
    message::Type as MessageType,
    names::{BusName, OwnedUniqueName},
    zvariant::{DynamicType, ObjectPath, OwnedObjectPath, OwnedValue, Type},
};

use super::Error;

const NETWORK_MANAGER: &str = "org.freedesktop.NetworkManager";
const NO_OWNER: &str = "org.freedesktop.DBus.Error.NameHasNoOwner";

/// NetworkManager answers in milliseconds. One that does not in this time is stuck.
const ANSWER: Duration = Duration::from_secs(5);

/// Objects of NetworkManager and the interface that is used of each.
#[derive(Clone, Copy, Debug)]
pub(super) enum Object<'a> {
    Manager,
    Settings,
    Device(&'a ObjectPath<'a>),
    /// A profile that is active, or becomes or was so.
    Active(&'a ObjectPath<'a>),
}

impl<'a> Object<'a> {
    fn path(self) -> ObjectPath<'a> {
        match self {
            Object::Manager => ObjectPath::from_static_str_unchecked("/org/freedesktop/NetworkManager"),
            Object::Settings => {
                ObjectPath::from_static_str_unchecked("/org/freedesktop/NetworkManager/Settings")
            }
            Object::Device(path) | Object::Active(path) => path.as_ref(),
        }
    }

    fn interface(self) -> &'static str {
        match self {
            Object::Manager => NETWORK_MANAGER,
            Object::Settings => "org.freedesktop.NetworkManager.Settings",
            Object::Device(_) => "org.freedesktop.NetworkManager.Device",
            Object::Active(_) => "org.freedesktop.NetworkManager.Connection.Active",
        }
    }
}

/// A connection to the bus with a NetworkManager on it.
#[derive(Clone, Debug)]
pub(super) struct Bus {
    connection: Connection,
    /// This very process: after its restart, the objects that are known here are gone.
    owner: OwnedUniqueName,
}

impl Bus {
    /// `address` as in $DBUS_SYSTEM_BUS_ADDRESS; None: what that says, or the usual system bus.
    pub(super) async fn open(address: Option<&str>) -> Result<Self, Error> {
        let open = async {
            let builder = match address {
                Some(address) => Builder::address(address)?,
                None => Builder::system()?,
            };
            builder.build().await
        };
        let connection = within("connect to the system bus", open).await.map_err(Error::no_bus)?;
        // Asking for the owner does not start what is installed and switched off, as a call would.
        let ask = connection.call_method(
            Some("org.freedesktop.DBus"),
            "/org/freedesktop/DBus",
            Some("org.freedesktop.DBus"),
            "GetNameOwner",
            &NETWORK_MANAGER,
        );
        match within("ask the system bus for NetworkManager", ask).await {
            Ok(reply) => {
                let owner = reply.body().deserialize().map_err(|e| Error::call("read its name", e))?;
                Ok(Self { connection, owner })
            }
            Err(error) if error.is(NO_OWNER) => Err(Error::NotRunning),
            Err(error) => Err(error),
        }
    }

    /// `action` completes "cannot ...".
    pub(super) async fn call<B, R>(
        &self,
        object: Object<'_>,
        method: &str,
        body: &B,
        action: &str,
    ) -> Result<R, Error>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        self.invoke(object.path(), object.interface(), method, body, action).await
    }

    pub(super) async fn get<R>(&self, object: Object<'_>, property: &str) -> Result<R, Error>
    where
        R: TryFrom<OwnedValue, Error = zbus::zvariant::Error>,
    {
        let action = format!("read {property} of {}", object.path());
        let body = (object.interface(), property);
        let interface = "org.freedesktop.DBus.Properties";
        let value: OwnedValue = self.invoke(object.path(), interface, "Get", &body, &action).await?;
        R::try_from(value).map_err(|e| Error::call(&action, e.into()))
    }

    /// NetworkManager's signals that tell of a device or an active profile in another state.
    pub(super) async fn state_changes(&self) -> Result<MessageStream, Error> {
        let action = "subscribe to its changes";
        let rule = MatchRule::builder()
            .msg_type(MessageType::Signal)
            .sender(BusName::from(self.owner.as_ref()))
            .and_then(|rule| rule.member("StateChanged"))
            .map_err(|e| Error::call(action, e))?
            .build();
        within(action, MessageStream::for_match_rule(rule, &self.connection, None)).await
    }

    async fn invoke<B, R>(
        &self,
        path: ObjectPath<'_>,
        interface: &str,
        method: &str,
        body: &B,
        action: &str,
    ) -> Result<R, Error>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        let owner = BusName::from(self.owner.as_ref());
        let call = self.connection.call_method(Some(owner), path, Some(interface), method, body);
        let reply = within(action, call).await?;
        reply.body().deserialize().map_err(|e| Error::call(action, e))
    }
}

async fn within<T>(action: &str, work: impl Future<Output = zbus::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER, work).await {
        Ok(result) => result.map_err(|e| Error::call(action, e)),
        Err(_) => Err(Error::Silent { action: action.to_owned(), limit: ANSWER }),
    }
}

/// NetworkManager writes "/" for none.
pub(super) fn some(path: OwnedObjectPath) -> Option<OwnedObjectPath> {
    (path.as_str() != "/").then_some(path)
}

//! Makes the kernel accept packets for sets of addresses, in the three ways of row IP-17.

mod allmulti;
mod connected;
mod local;
mod ours;
mod presence;
mod source;

pub use self::ours::Placed;
use crate::{
    model::{Accept, Addresses},
    observe::network::{Link, Network, NetworkError, routes::Of},
};

impl Network {
    /// It is no error when they are there already. All are tried.
    ///
    /// # Errors
    /// The first address that could not be added; others may have been.
    pub async fn add_addresses(
        &self,
        link: &Link,
        addresses: &Addresses,
        accept: Accept,
    ) -> Result<(), NetworkError> {
        match accept {
            Accept::Assign => self.assign(link, addresses).await,
            Accept::Route => {
                let nets = addresses.hosts().iter().map(Into::into).collect();
                self.add_local(link, addresses, nets).await
            }
            Accept::Anyip => self.add_local(link, addresses, addresses.hosts().prefixes()).await,
        }
    }

    /// In this way only, whoever put them there. It is no error when they are not there. All are tried.
    ///
    /// # Errors
    /// The first address that could not be deleted.
    pub async fn delete_addresses(
        &self,
        link: &Link,
        addresses: &Addresses,
        accept: Accept,
    ) -> Result<(), NetworkError> {
        match accept {
            Accept::Assign => self.unassign(link, addresses).await,
            Accept::Route | Accept::Anyip => {
                let result = self.delete_local(link, &addresses.hosts(), accept, Of::Anybody).await;
                // What other resources share is looked at in any case.
                let tidied = self.tidy().await;
                result.and(tidied)
            }
        }
    }
}

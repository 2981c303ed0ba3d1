//! Makes the kernel accept packets for sets of addresses, in the three ways of row IP-17.

use std::{collections::BTreeMap, sync::Arc};

use super::address::PROTOCOL;
use crate::{
    core::command::{Misplaced, Place, Presence},
    model::{Accept, Addresses},
    observe::network::{Link, Network, NetworkError},
};

impl Network {
    /// # Errors
    /// The first address that could not be added; those before it stay.
    pub async fn add_addresses(
        &self,
        link: &Link,
        addresses: &Addresses,
        _accept: Accept,
    ) -> Result<(), NetworkError> {
        for address in addresses.iter() {
            self.add_address(link, address).await?;
        }
        Ok(())
    }

    /// # Errors
    /// The first address that could not be deleted.
    pub async fn delete_addresses(
        &self,
        link: &Link,
        addresses: &Addresses,
        _accept: Accept,
    ) -> Result<(), NetworkError> {
        for address in addresses.iter() {
            self.delete_address(link, address).await?;
        }
        Ok(())
    }

    /// # Errors
    /// The first route that could not be deleted.
    pub async fn delete_host_routes(&self, link: &Link, addresses: &Addresses) -> Result<(), NetworkError> {
        for address in addresses.iter() {
            self.delete_host_route(link, address.addr()).await?;
        }
        Ok(())
    }

    /// Row IP-12.
    pub async fn set_source(&self, _link: &Link, _addresses: &Addresses) -> Result<(), NetworkError> {
        Ok(())
    }

    /// Row IP-12.
    pub async fn unset_source(&self, _link: &Link, _addresses: &Addresses) -> Result<(), NetworkError> {
        Ok(())
    }

    /// Which of the addresses are on this host, and where.
    pub(crate) async fn presence(&self, links: &[Link], place: &Place) -> Result<Presence, NetworkError> {
        let there = self.snapshot().await?;
        let index = links.iter().find(|l| l.name == place.device).map(|l| l.index);
        let (mut ours, mut foreign) = (Vec::new(), Vec::new());
        let mut misplaced = BTreeMap::<(u32, bool), Vec<_>>::new();
        for address in place.addresses.iter() {
            let mut found: Vec<_> = there.find(address.addr()).collect();
            found.sort_by_key(|a| Some(a.index) != index || a.address != address);
            let Some(assigned) = found.first() else { continue };
            let is_ours = assigned.protocol == Some(PROTOCOL);
            if Some(assigned.index) == index && assigned.address == address {
                if is_ours { ours.push(address) } else { foreign.push(address) }
            } else {
                misplaced.entry((assigned.index, is_ours)).or_default().push(assigned.address);
            }
        }
        let misplaced = misplaced.into_iter().map(|((index, ours), addresses)| {
            let name = links.iter().find(|link| link.index == index).map(|link| link.name.clone());
            let device = name.unwrap_or_else(|| format!("interface number {index}"));
            let addresses = Arc::new(addresses.into_iter().collect());
            Misplaced { place: Place { addresses, device, accept: Accept::Assign }, ours }
        });
        Ok(Presence {
            ours: ours.into_iter().collect(),
            foreign: foreign.into_iter().collect(),
            misplaced: misplaced.collect(),
        })
    }
}

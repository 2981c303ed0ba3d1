//! What a look at the host means for a bring-up.

use std::sync::Arc;

use super::{Context, answer};
use crate::{
    core::command::{Effect, Place, Presence},
    model::{Accept, Addresses},
};

/// Of the context's addresses. What is in the right place is in none of these.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    /// Nowhere on this host: somebody else may use them.
    pub(super) absent: Arc<Addresses>,
    /// Not in the right place: to be added there.
    pub(super) add: Arc<Addresses>,
    /// Ours with another prefix length, which the kernel does not take beside the right one: deleted
    /// before the right one is added.
    pub(super) unfit: Vec<Place>,
    /// Ours on another device, or accepted in another way: deleted after the right one was added, so that
    /// the address is accepted throughout.
    pub(super) replaced: Vec<Place>,
}

impl Survey {
    /// Of a host where nobody else's is in the way.
    pub(super) fn new(found: &Presence, context: &Context) -> Self {
        let home = |p: &&Place| p.device == context.device && p.accept == context.accept;
        let (unfit, replaced): (Vec<&Place>, Vec<&Place>) = found.of_ours().partition(home);
        Self {
            absent: Arc::new(found.absent(&context.addresses)),
            add: Arc::new(context.addresses.without(&found.here().hosts())),
            unfit: unfit.into_iter().cloned().collect(),
            replaced: replaced.into_iter().cloned().collect(),
        }
    }

    /// Nothing is missing, nothing stands where it should not.
    pub(super) fn is_in_place(&self) -> bool {
        self.add.is_empty() && self.unfit.is_empty() && self.replaced.is_empty()
    }
}

/// Where, and in which way.
pub(super) fn whereabouts(place: &Place) -> String {
    let Place { addresses, device, accept } = place;
    let way = match accept {
        Accept::Assign => "",
        Accept::Route => " by local routes",
        Accept::Anyip => " by local prefix routes",
    };
    format!("{addresses} on {device}{way}")
}

/// Somebody else put addresses where they should not be.
pub(super) fn in_the_way(place: &Place, context: &Context) -> String {
    let Place { addresses, device, accept } = place;
    let first = addresses.first().unwrap_or_default();
    let remedy = match accept {
        Accept::Assign => format!("'ip address del {first} dev {device}'"),
        Accept::Route | Accept::Anyip => {
            format!("'ip route del local {} dev {device} table local'", first.addr())
        }
    };
    format!(
        "this host has {} already, put there by somebody else, and not on {} as asked for: remove it there \
         ({remedy}) or change the resource",
        whereabouts(place),
        context.device
    )
}

/// What the duplicate check of these addresses says.
///
/// # Errors
/// Somebody uses one of them, or it could not be found out.
pub(super) fn claimed(effect: Effect, addresses: &Addresses, device: &str) -> Result<(), String> {
    match answer::claims(effect) {
        Ok(claims) if claims.is_empty() => Ok(()),
        Ok(claims) => {
            let claims: Vec<String> =
                claims.into_iter().map(|c| format!("{} by {}", c.address, c.by)).collect();
            Err(format!(
                "in use on {device}: {}: take it away from that host (NOIPUNIQUE=1 switches this check off)",
                claims.join(", ")
            ))
        }
        Err(reason) => Err(format!("cannot find out on {device} whether anybody uses {addresses}: {reason}")),
    }
}

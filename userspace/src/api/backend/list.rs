//! `list`: every address, a page at a time.

use super::{Context, Result, lookup};
use crate::{
    api::{AddressPage, Answer, ListedAddress},
    model::Tag,
};

impl Context {
    pub(super) fn addresses(&self, tag: Option<&Tag>, limit: Option<usize>, offset: usize) -> Result<Answer> {
        let state = self.member()?.state();
        let resources: Vec<_> = match tag {
            Some(tag) => {
                let resource = lookup::resource(&state, tag)?;
                lookup::ip(resource)?;
                vec![resource]
            }
            None => state.resources.values().collect(),
        };
        let total = resources.iter().fold(0_u64, |sum, r| sum.saturating_add(r.addresses().count()));
        let all = resources
            .iter()
            .flat_map(|r| r.addresses().iter().map(|address| ListedAddress { tag: r.tag.clone(), address }));
        let addresses = all.skip(offset).take(limit.unwrap_or(usize::MAX)).collect();
        Ok(Answer::Addresses(AddressPage { total, offset, addresses }))
    }
}

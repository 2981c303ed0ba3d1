//! The file, with the addresses that only a host can make sense of.

use std::collections::BTreeMap;

use super::{
    super::{
        Context, Member, Result, address,
        create::given::{Mistakes, Reading, settle},
        devices::Subnets,
    },
    refuse,
};
use crate::{
    api::{Declare, ErrorKind, Given},
    config::{DeclaredFile, PendingAddress, parse_declared},
    model::{Addresses, ClusterState},
};

impl Context {
    /// Refused with everything that is wrong in it, at its line.
    pub(super) async fn read_declared(
        &self,
        member: &Member,
        state: &ClusterState,
        wanted: &Declare,
    ) -> Result<DeclaredFile> {
        let nodes: BTreeMap<String, u64> = state.nodes.values().map(|n| (n.name.clone(), n.id)).collect();
        let mut file = parse_declared(&wanted.name, &wanted.text, &nodes);
        let mut faults: Vec<(Option<usize>, String)> =
            file.faults.iter().map(|f| (f.line, f.to_string())).collect();
        let (links, mut assigned) = self.look().await?;
        assigned.extend(self.accepted(member, &links));
        let subnets = Subnets::new(&assigned);
        for pending in std::mem::take(&mut file.pending) {
            match self.resolved(&subnets, &pending).await {
                Ok(addresses) => {
                    if let Some(resource) = file.declared.resources.get_mut(&pending.tag) {
                        resource.addresses = resource.addresses.union(&addresses);
                    }
                }
                Err(e) => {
                    let PendingAddress { line, key, .. } = &pending;
                    faults.push((Some(*line), format!("{}:{line}: {key}: {}", wanted.name, e.message)));
                }
            }
        }
        // Those that are written in full, unless they are in use already.
        for (tag, resource) in &file.declared.resources {
            let there = state.resources.get(tag).map(|r| r.addresses().hosts()).unwrap_or_default();
            let line = file.resource_lines.get(tag).copied();
            let new = resource.addresses.without(&there);
            let parts =
                new.by_subnet().flat_map(|(net, hosts)| hosts.ranges().iter().map(move |r| (*r, net)));
            for e in parts.filter_map(|(range, net)| address::check_range(range, net).err()) {
                let at = line.map_or_else(String::new, |line| format!(":{line}"));
                faults.push((line, format!("{}{at}: resource.{tag}.addresses: {}", wanted.name, e.message)));
            }
        }
        faults.sort_by_key(|(line, _)| *line);
        faults.dedup();
        refuse(ErrorKind::Usage, faults.into_iter().map(|(_, text)| text).collect())?;
        Ok(file)
    }

    async fn resolved(&self, subnets: &Subnets, pending: &PendingAddress) -> Result<Addresses> {
        let mut mistakes = Mistakes::default();
        let reading = Reading { netmask: None, each: false };
        let given = [Given::Argument(pending.text.clone())];
        let parts = reading.read(&*self.host, &given, &mut mistakes).await;
        let addresses = settle(&parts, &[], subnets, &mut mistakes);
        mistakes.refuse()?;
        Ok(addresses)
    }
}

//! `create ip --group G` for a G that is there, and `delete TAG --address`: a set grows and shrinks while
//! it is in service.

use std::net::IpAddr;

use super::{
    super::{
        Context, Member, Out, Result, devices,
        lifecycle::{deleted, where_it_is},
        lookup, placement, progress, subnet,
        wait::Verdict,
    },
    Wish,
    given::{Mistakes, Reading},
};
use crate::{
    api::{Answer, ApiError, CreateIp, Given, counted, thousands},
    core::change::Change,
    model::{Addresses, ClusterState, Phase, Placement, Ranges, Resource, Tag},
    observe::network::Link,
};

impl Context {
    pub(super) async fn join_group(
        &self,
        member: &Member,
        state: &ClusterState,
        group: &Tag,
        wanted: &CreateIp,
        wish: Wish,
        out: &Out,
    ) -> Result<Answer> {
        let resource = lookup::resource(state, group)?;
        let settled = [
            (!wanted.devices.is_empty(), "--dev", "devices=IF"),
            (wanted.priority.is_some(), "--priority", "priority=N --node NODE"),
            (wanted.accept.is_some(), "--accept", "accept=assign|route|anyip"),
        ];
        if let Some((_, option, setting)) = settled.iter().find(|(given, ..)| *given) {
            return Err(ApiError::usage(format!(
                "'{group}' is there already, so {option} cannot be given: 'vipctl set {group} {setting}' changes it"
            )));
        }
        if !wanted.extend_to.is_empty() {
            return Err(ApiError::usage(format!(
                "'{group}' is there already, so --extend-to cannot be given: 'vipctl extend {group} --to NODE' does it"
            )));
        }
        let Some(here) = resource.nodes.get(&member.id) else {
            let names: Vec<String> = resource.nodes.keys().map(|id| state.node_name(*id)).collect();
            return Err(ApiError::refused(format!(
                "'{group}' is not extended to this node, which so cannot tell whether its networks are free: do this on \
                 {}",
                names.join(" or ")
            )));
        };
        let new = wish.addresses.without(&resource.addresses().hosts());
        if new.is_empty() {
            let said = format!("{group} has these addresses already: {}", counted(resource.addresses()));
            return self.amended(member, group, said, wanted.wait, out).await;
        }
        super::refuse_owned(state, &new)?;
        let nets: Vec<_> = new.firsts().collect();
        devices::choose(&wish.links, &wish.assigned, &nets, &here.devices)?;
        let grown = resource.addresses().union(&new);
        super::check_count(&grown)?;
        self.check_growth(state, resource, &grown)?;
        let used: Vec<&Link> = wish.links.iter().filter(|l| here.devices.contains(&l.name)).collect();
        let ip = lookup::ip(resource)?;
        self.check_xdp(ip.accept, ip.accept_by, &new, &used)?;
        let change =
            Change::AlterAddresses { tag: group.clone(), add: new.clone(), remove: Ranges::default() };
        let unasked = self.propose_checked(member, state, vec![change], wanted.force, out).await?;
        progress(out, format!("{group} gets {}", counted(&new))).await;
        let said = format!(
            "{group} has {} more: {}, now {} in all{unasked}",
            thousands(new.count()),
            counted(&new),
            thousands(grown.count())
        );
        self.amended(member, group, said, wanted.wait, out).await
    }

    /// `delete TAG --address`.
    pub(in crate::api::backend) async fn remove_addresses(
        &self,
        tag: &Tag,
        given: &[Given],
        wait: bool,
        out: &Out,
    ) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        let resource = lookup::resource(&state, tag)?;
        let mut mistakes = Mistakes::default();
        let reading = Reading { netmask: None, each: false };
        let parts = reading.read(&*self.host, given, &mut mistakes).await;
        mistakes.refuse()?;
        let gone: Ranges = parts.iter().map(|p| p.range).collect();
        let there = resource.addresses();
        let missing = gone.difference(&there.hosts());
        if let Some(first) = missing.ranges().first() {
            let more = match missing.count() - u64::try_from(first.count()).unwrap_or(u64::MAX) {
                0 => String::new(),
                n => format!(" and {} others", thousands(n)),
            };
            return Err(ApiError::refused(format!(
                "{first}{more}: not among the addresses of '{tag}'; 'vipctl list {tag}' lists them"
            )));
        }
        let left: Addresses = there.without(&gone);
        if left.is_empty() {
            return Err(ApiError::refused(format!(
                "'{tag}' would be left without an address: 'vipctl delete {tag}' deletes it as a whole"
            )));
        }
        let change =
            Change::AlterAddresses { tag: tag.clone(), add: Addresses::default(), remove: gone.clone() };
        member.propose(vec![change]).await?;
        let first = gone.first().as_ref().map(IpAddr::to_string).unwrap_or_default();
        progress(out, format!("{tag} gives up {} addresses from {first}", thousands(gone.count()))).await;
        let said = format!("{tag} has {} fewer, and {} left", thousands(gone.count()), counted(&left));
        self.amended(&member, tag, said, wait, out).await
    }

    /// Waits until the owner has in service what the resource has now.
    async fn amended(
        &self,
        member: &Member,
        tag: &Tag,
        said: String,
        wait: bool,
        out: &Out,
    ) -> Result<Answer> {
        if !wait {
            return Ok(Answer::done(said));
        }
        let state = member.state();
        let id = lookup::resource(&state, tag)?.id;
        let ordered = state.placements.get(tag).map_or(0, |p| p.alterations);
        let judge = |state: &ClusterState| match (state.resources.get(tag), state.placements.get(tag)) {
            (Some(resource), Some(p)) if resource.id == id && !p.deleting => {
                judge(state, resource, p, ordered, &said)
            }
            (..) => Verdict::Failed(deleted(tag)),
        };
        self.wait(member, tag, self.limit_of_start(), out, judge).await
    }
}

fn judge(state: &ClusterState, resource: &Resource, p: &Placement, ordered: u64, said: &str) -> Verdict {
    let tag = &resource.tag;
    let Some(grant) = p.grant else {
        // The next owner brings up all addresses.
        let is_coming = p.is_wanted()
            && !placement::failed_everywhere(resource, p)
            && subnet::lacking_everywhere(state, resource).is_none();
        return match is_coming {
            true => Verdict::Pending(where_it_is(state, tag, p)),
            false => Verdict::Done(format!(
                "{said}; {tag} is in service nowhere now, so this takes effect at the next bring-up"
            )),
        };
    };
    let owner = state.node_name(grant.owner);
    match grant.phase {
        Phase::Starting | Phase::Stopping => Verdict::Pending(where_it_is(state, tag, p)),
        Phase::InService if p.amended < ordered => {
            Verdict::Pending(format!("{owner} changes the addresses of {tag}"))
        }
        Phase::InService => match &p.trouble {
            None => Verdict::Done(said.to_owned()),
            Some(reason) => Verdict::Failed(ApiError::failed(format!(
                "'{tag}' is in service without all of its addresses on {owner}: {reason}; the order stands and is \
                 tried again from time to time"
            ))),
        },
    }
}

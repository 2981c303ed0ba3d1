//! What the nodes see of what is declared: their interfaces, their own addresses, and who else has those that are
//! new (rows IP-3 to IP-5, CL-6).

use super::super::{Context, Member, Out, inspect::Verdict, lookup};
use crate::{
    config::DeclaredFile,
    core::{declare::Plan, inspection::Inquiries},
    model::{ClusterState, Ranges},
};

impl Context {
    /// Of what the plan changes; with a file also of all that is declared in it.
    pub(super) async fn check(
        &self,
        member: &Member,
        state: &ClusterState,
        plan: &Plan,
        everything: Option<&DeclaredFile>,
        force: bool,
        out: &Out,
    ) -> super::Result<Verdict> {
        // Tried by the plan already.
        let after = lookup::tried(state, &plan.changes)?;
        let mut inquiries = Inquiries::of_change(state, &after, member.id);
        let declared = everything.into_iter().flat_map(|file| file.declared.resources.keys());
        for resource in declared.filter_map(|tag| after.resources.get(tag)) {
            inquiries.whole(resource, &Ranges::default(), member.id, &after);
        }
        Ok(self.ask_nodes(member, state, &inquiries, force, out).await)
    }
}

//! Every node that a change concerns checks it on itself, before anything is changed (row CL-6).

mod cloud;
mod here;

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;

use super::{Context, Member, Out, Result, duplicate::AT_ONCE, lookup, progress};
use crate::{
    api::{ApiError, facts::PeerFacts},
    cluster::{macs_of, transport::PeerError},
    core::{
        change::Change,
        inspection::{
            Claim, Findings, Inquiries, Inquiry, Mac, Objection,
            cloud::{CloudFound, compare},
            conflicts, is_deposed, unknown_probers,
        },
    },
    model::{ClusterState, NodeId, Tag},
};

/// For a node to answer, beside the time in which it looks for addresses on the network.
const PATIENCE: Duration = Duration::from_secs(4);

/// Resources that are named where a node could not be asked.
const NAMED: usize = 3;

/// What the nodes said.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Against the change: the node, the thing, the reason and the remedy.
    pub objections: Vec<String>,
    /// What was not checked, and that this was accepted.
    pub notes: Vec<String>,
}

impl Verdict {
    /// # Errors
    /// All objections at once.
    pub fn refuse(&self) -> Result<()> {
        match &self.objections[..] {
            [] => Ok(()),
            [one] => Err(ApiError::refused(format!("{one}; nothing was changed"))),
            all => Err(ApiError::refused(format!(
                "{} objections, nothing was changed:\n{}",
                all.len(),
                all.join("\n")
            ))),
        }
    }

    /// `; note; note`
    pub fn said(&self) -> String {
        self.notes.iter().map(|note| format!("; {note}")).collect()
    }
}

/// What came of asking one node.
enum Asked {
    Found(Findings),
    /// It is known to be away: why.
    Away(String),
    /// It should answer and does not.
    Silent(PeerError),
}

impl Context {
    /// Has the changes checked on every node that they concern, and then makes them, all or none. Answers what is to
    /// be told of nodes that were not asked.
    pub(super) async fn propose_checked(
        &self,
        member: &Member,
        state: &ClusterState,
        changes: Vec<Change>,
        force: bool,
        out: &Out,
    ) -> Result<String> {
        let after = lookup::tried(state, &changes)?;
        let inquiries = Inquiries::of_change(state, &after, member.id);
        let verdict = self.ask_nodes(member, state, &inquiries, force, out).await;
        verdict.refuse()?;
        member.propose(changes).await?;
        Ok(verdict.said())
    }

    /// With `force` it does not matter that a node cannot be asked, nor that something is left of what is forgotten.
    pub(super) async fn ask_nodes(
        &self,
        member: &Member,
        state: &ClusterState,
        inquiries: &Inquiries,
        force: bool,
        out: &Out,
    ) -> Verdict {
        let others: Vec<String> =
            inquiries.iter().filter(|(id, _)| *id != member.id).map(|(id, _)| state.node_name(id)).collect();
        if !others.is_empty() {
            progress(out, format!("asking {} to check it", others.join(", "))).await;
        }
        let asked = inquiries.iter().map(|(id, inquiry)| async move {
            (id, inquiry, self.ask_node(member, state, id, inquiry, out).await)
        });
        let mut verdict = Verdict::default();
        let mut claims: BTreeMap<NodeId, Vec<Claim>> = BTreeMap::new();
        let mut macs: BTreeMap<Mac, NodeId> = BTreeMap::new();
        let mut clouds: BTreeMap<NodeId, Vec<CloudFound>> = BTreeMap::new();
        for (id, inquiry, asked) in join_all(asked).await {
            let name = state.node_name(id);
            match asked {
                Asked::Found(findings) => {
                    let told = |o: Objection| format!("{} on {name}: {}", o.about, o.reason);
                    let all = findings.objections.into_iter();
                    let all = all.map(told);
                    if force && inquiry.is_farewell() {
                        verdict.notes.extend(all.map(|o| format!("in spite of this: {o}")));
                    } else {
                        verdict.objections.extend(all);
                    }
                    let unchecked = findings.unchecked.into_iter().map(told);
                    if force {
                        verdict.notes.extend(unchecked.map(|o| format!("not checked: {o}")));
                    } else {
                        let remedy = "or go on without knowing with --force";
                        verdict.objections.extend(unchecked.map(|o| format!("{o}; {remedy}")));
                    }
                    verdict.notes.extend(findings.warnings.into_iter().map(told));
                    clouds.insert(id, findings.clouds);
                    claims.insert(id, findings.claims);
                    macs.extend(findings.macs.into_iter().map(|mac| (mac, id)));
                }
                Asked::Away(why) if force || inquiry.is_farewell() => {
                    verdict.notes.push(format!("node {name} {why}: not checked there"));
                }
                Asked::Away(why) => verdict.objections.push(format!(
                    "node '{name}' {why} and cannot check {}: bring it back first, or go on without its word with --force",
                    subjects(inquiry)
                )),
                Asked::Silent(e) if force => {
                    verdict.notes.push(format!("node {name} did not answer ({e}): not checked there"));
                }
                Asked::Silent(e) => verdict.objections.push(format!(
                    "node '{name}' was asked to check {} and did not answer: {e}; see that its vipd runs and that 'rpc' in \
                     its node.toml can be reached, or go on without its word with --force",
                    subjects(inquiry)
                )),
            }
        }
        if !unknown_probers(&claims, &macs).is_empty() {
            // One that this change does not concern may be checking a change of its own.
            let others = state.nodes.keys().copied().filter(|id| inquiries.of(*id).is_none());
            let heard = others.filter(|id| *id != member.id && self.is_heard(*id));
            macs.extend(macs_of(&*member.peers, heard).await);
            let own = self.host.links().await.unwrap_or_default();
            macs.extend(own.into_iter().filter(|l| !l.loopback).map(|l| (l.mac, member.id)));
        }
        let (apart, warnings) = compare(&clouds, &|id| state.node_name(id));
        verdict.objections.extend(apart);
        verdict.notes.extend(warnings);
        let found = conflicts(&claims, &macs, member.id);
        verdict.objections.extend(self.told(state, member.id, &found));
        verdict
    }

    async fn ask_node(
        &self,
        member: &Member,
        state: &ClusterState,
        node: NodeId,
        inquiry: &Inquiry,
        out: &Out,
    ) -> Asked {
        if node == member.id {
            let found = self.inspect_here(member, inquiry, out).await;
            return Asked::Found(found.unwrap_or_else(|e| here::objecting(self.config.name.clone(), e)));
        }
        if self.is_lost(node) {
            return Asked::Away("is down (not heard by this node)".to_owned());
        }
        // It is taking down what it had, and may not get through with it.
        if is_deposed(state, node) && inquiry.is_farewell() {
            return Asked::Away("is deposed".to_owned());
        }
        let batches = u32::try_from(inquiry.probes().div_ceil(AT_ONCE as u64)).unwrap_or(u32::MAX);
        let cloud = if inquiry.clouds.is_empty() { Duration::ZERO } else { cloud::PATIENCE };
        let patience = PATIENCE + cloud + self.config.profile.timing().duplicate_wait * 4 * batches;
        match member.peers.inspect(node, inquiry.clone(), patience).await {
            Ok(findings) => Asked::Found(findings),
            // It has just been lost.
            Err(_) if !self.is_heard(node) => Asked::Away("is down (not heard by this node)".to_owned()),
            Err(e) => Asked::Silent(e),
        }
    }

    /// It was heard and is not any more. One that was never heard may have joined a moment ago: it is asked.
    fn is_lost(&self, node: NodeId) -> bool {
        let facts = self.facts.borrow();
        let ever = |p: &PeerFacts| p.paths.iter().any(|path| path.last_heard.is_some());
        facts.peers.get(&node).is_some_and(|p| !p.alive && ever(p))
    }

    /// As far as this node knows.
    fn is_heard(&self, node: NodeId) -> bool {
        self.facts.borrow().peers.get(&node).is_none_or(|p| p.alive)
    }
}

/// `a, b, c and 4 more`
fn subjects(inquiry: &Inquiry) -> String {
    let all = inquiry.subjects();
    let named: Vec<&str> = all.iter().take(NAMED).map(|tag: &&Tag| tag.as_str()).collect();
    match all.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        n => format!("{} and {n} more", named.join(", ")),
    }
}

//! `export`, `apply`, `verify`: the configuration as a file (row CL-12). Everything is checked before
//! anything is changed, and what is changed is changed in one step.

mod check;
mod read;
mod settle;

use std::collections::BTreeSet;

use super::{Context, Member, Out, Result, inspect::Verdict, progress, quorum::check_leaves_out};
use crate::{
    api::{Answer, ApiError, Declare, DeclareAim, ErrorKind, Planned},
    config::{DeclaredFile, write_declared},
    core::{
        change::Change,
        declare::{Plan, Problem, Subject, export, plan},
    },
    model::{ClusterState, Tag, TwoNodes},
};

impl Context {
    pub(super) async fn export(&self) -> Result<Answer> {
        let state = self.member()?.fresh().await?;
        let text = write_declared(&export(&state), &|id| state.node_name(id));
        Ok(Answer::Exported(format!(
            "# The configuration of the cluster '{}': 'vipctl apply FILE' makes it so.\n\n{text}",
            state.name
        )))
    }

    pub(super) async fn declare(&self, wanted: Declare, out: &Out) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        if let DeclareAim::Apply { revision: Some(shown), .. } = wanted.aim
            && shown != state.revision
        {
            return Err(overtaken(shown, state.revision));
        }
        let file = self.read_declared(&member, &state, &wanted).await?;
        match wanted.aim {
            DeclareAim::Plan => {
                let plan = self.planned(&state, &file, &wanted)?;
                let seen = self.checked(&member, &state, &plan, wanted.force, out).await?;
                Ok(Answer::Planned(Box::new(shown(&state, plan, seen))))
            }
            DeclareAim::Verify => {
                let mut plan = plan(&state, &file.declared, true);
                // Nothing is about to happen.
                plan.stops.clear();
                plan.starts.clear();
                let mut seen = self.check(&member, &state, &plan, Some(&file), wanted.force, out).await?;
                let problems = plan.problems.iter().map(|p| located(&wanted.name, &file, p));
                seen.objections.extend(problems);
                Ok(Answer::Planned(Box::new(shown(&state, plan, seen))))
            }
            DeclareAim::Apply { wait, .. } => {
                let plan = self.planned(&state, &file, &wanted)?;
                let seen = self.checked(&member, &state, &plan, wanted.force, out).await?;
                self.carry_out(&member, plan, &file, &seen, wait, out).await
            }
        }
    }

    /// Refused with all that is wrong.
    fn planned(&self, state: &ClusterState, file: &DeclaredFile, wanted: &Declare) -> Result<Plan> {
        let plan = plan(state, &file.declared, wanted.prune);
        let all: Vec<String> = plan.problems.iter().map(|p| located(&wanted.name, file, p)).collect();
        refuse(ErrorKind::Refused, all)?;
        Ok(plan)
    }

    /// Refused when something is wrong on a node.
    async fn checked(
        &self,
        member: &Member,
        state: &ClusterState,
        plan: &Plan,
        force: bool,
        out: &Out,
    ) -> Result<Verdict> {
        let seen = self.check(member, state, plan, None, force, out).await?;
        if !seen.objections.is_empty() {
            // An address that somebody else has just declared is in use, too.
            let now = member.fresh().await?.revision;
            if now != state.revision {
                return Err(overtaken(state.revision, now));
            }
        }
        seen.refuse()?;
        Ok(seen)
    }

    async fn carry_out(
        &self,
        member: &Member,
        plan: Plan,
        file: &DeclaredFile,
        seen: &Verdict,
        wait: bool,
        out: &Out,
    ) -> Result<Answer> {
        let count = plan.differences.len();
        let said = match count {
            0 => "the cluster is so already: nothing was changed".to_owned(),
            1 => format!("1 difference is applied{}", seen.said()),
            n => format!("{n} differences are applied{}", seen.said()),
        };
        let asked = file.declared.defaults.as_ref();
        if asked.is_some_and(|d| d.two_nodes == TwoNodes::TieBreaker) {
            check_leaves_out(member)?;
        }
        if !plan.changes.is_empty() {
            let change = Change::Batch { revision: Some(plan.revision), changes: plan.changes };
            member.propose(vec![change]).await?;
            progress(out, said.clone()).await;
        }
        if !wait {
            return Ok(Answer::done(said));
        }
        let declared = |tag: &&Tag| file.declared.resources.contains_key(*tag);
        let served: BTreeSet<Tag> = plan.served.iter().filter(declared).cloned().collect();
        self.settled(member, said, &served, &plan.stops, out).await
    }
}

fn overtaken(seen: u64, now: u64) -> ApiError {
    ApiError::refused(format!(
        "the cluster was changed by somebody else meanwhile (revision {now}, this was for {seen}), and nothing was done: look \
         at the plan again"
    ))
}

/// `FILE:LINE: resource web: reason`.
fn located(name: &str, file: &DeclaredFile, problem: &Problem) -> String {
    let at = |line: Option<&usize>| line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"));
    let reason = &problem.reason;
    match &problem.about {
        Subject::Resource(tag) => format!("{}: resource.{tag}: {reason}", at(file.resource_lines.get(tag))),
        Subject::Constraint(id) => {
            format!("{}: constraint.{id}: {reason}", at(file.constraint_lines.get(id)))
        }
        Subject::Cluster => format!("{name}: {reason}"),
    }
}

/// All of them as one error.
fn refuse(kind: ErrorKind, mut all: Vec<String>) -> Result<()> {
    match all.len() {
        0 => Ok(()),
        1 => Err(ApiError::new(kind, format!("{}; nothing was changed", all.remove(0)))),
        n => Err(ApiError::new(kind, format!("{n} mistakes, nothing was changed:\n{}", all.join("\n")))),
    }
}

fn shown(state: &ClusterState, plan: Plan, seen: Verdict) -> Planned {
    let owner = |tag: &Tag| {
        let grant = state.placements.get(tag).and_then(|p| p.grant);
        grant.map_or_else(|| tag.to_string(), |g| format!("{tag} (on {})", state.node_name(g.owner)))
    };
    Planned {
        revision: plan.revision,
        differences: plan.differences,
        stops: plan.stops.iter().map(owner).collect(),
        starts: plan.starts.iter().map(Tag::to_string).collect(),
        unmanaged: plan.unmanaged,
        findings: seen.objections,
        notes: seen.notes,
    }
}

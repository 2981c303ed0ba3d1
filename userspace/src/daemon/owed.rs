//! Elastic IPs that a membership left on this node, while it is in no cluster: no agent is there to take them off.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vipd_ec2::Permit;

use super::{
    events::{About, EventLog},
    runner,
};
use crate::{
    act::{cloud::EipBook, executor::Executor},
    config::TunablesFile,
    core::{
        agent::{Footprint, patience},
        cloud::{CloudContext, Goal, Verb},
        sequence::{Failure, Sequence},
    },
    model::Tag,
};

/// As long as this node is in no cluster.
#[derive(Clone)]
pub struct Outside(pub CancellationToken);

impl Permit for Outside {
    fn still(&self) -> Result<(), String> {
        // From then on the agent knows better.
        if self.0.is_cancelled() { Err("this node is in a cluster again".to_owned()) } else { Ok(()) }
    }
}

pub struct Debtor {
    pub book: EipBook,
    pub executor: Executor,
    pub tunables: TunablesFile,
    pub events: EventLog,
    pub outside: Outside,
}

impl Debtor {
    /// Ends when nothing is owed any more, or this node is in a cluster.
    pub async fn run(self) {
        let this = Arc::new(self);
        let mut all = JoinSet::new();
        for (tag, noted) in this.book.noted() {
            // What cannot be read was told: nothing here says which address it is.
            if let Some(footprint) = noted {
                all.spawn(this.clone().pay(tag, footprint));
            }
        }
        all.join_all().await;
    }

    async fn pay(self: Arc<Self>, tag: Tag, footprint: Footprint) {
        let about =
            About { tag: Some(tag.clone()), address: Some(footprint.address.into()), ..About::default() };
        let mut failures = 0;
        loop {
            match self.remove(&footprint, &about).await {
                Ok(()) => break,
                Err(_) if self.outside.0.is_cancelled() => return,
                Err(failure) => self.events.warn(about.clone(), "remove.failed", failure.reason),
            }
            tokio::select! {
                () = self.outside.0.cancelled() => return,
                () = tokio::time::sleep(patience(failures)) => failures += 1,
            }
        }
        match self.book.strike(&tag).await {
            Ok(()) => self.events.record(about, "resource.removed", "removed here"),
            Err(why) => self.events.warn(about, "ec2.not-noted", why),
        }
    }

    async fn remove(&self, footprint: &Footprint, about: &About) -> Result<(), Failure> {
        let tunables = self.tunables.read();
        let context = CloudContext {
            goal: Goal::Eip(footprint.address),
            region: footprint.region.clone(),
            device: footprint.device.clone(),
            others: footprint.others.clone(),
            left_to: None,
            restore_and_recover: true,
            borne: None,
            no_link_check: tunables.no_link_check,
            tunables: tunables.ec2,
        };
        let mut sequence = Sequence::cloud(Verb::Remove, context);
        runner::run(&mut sequence, &self.executor, &self.outside.0, about, &self.events).await
    }
}

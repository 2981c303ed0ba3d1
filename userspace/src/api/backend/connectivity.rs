//! `connectivity`: the hosts that every node pings (row CL-8).

use std::{collections::BTreeSet, net::IpAddr};

use super::{Context, Result};
use crate::{
    api::{Answer, ApiError, ConnectivityChange, ConnectivityOf, ReachOf},
    core::change::Change,
    model::{ClusterState, Connectivity},
};

impl Context {
    pub(super) fn connectivity_show(&self) -> Result<Answer> {
        Ok(Answer::Connectivity(of(&self.member()?.state())))
    }

    pub(super) async fn connectivity_add(&self, wanted: ConnectivityChange) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        let now = &state.connectivity;
        let settings = Connectivity {
            hosts: now.hosts.iter().copied().chain(wanted.hosts).collect(),
            interval: wanted.interval.unwrap_or(now.interval),
            fall: wanted.fall.unwrap_or(now.fall),
            rise: wanted.rise.unwrap_or(now.rise),
        };
        let count = settings.hosts.len();
        member.propose(vec![Change::SetConnectivity { settings }]).await?;
        Ok(Answer::done(format!(
            "every node pings {count} hosts; who reaches fewer than another gives its hierarchies away"
        )))
    }

    pub(super) async fn connectivity_remove(&self, hosts: &[IpAddr]) -> Result<Answer> {
        let member = self.member()?;
        let state = member.fresh().await?;
        let gone: BTreeSet<IpAddr> = hosts.iter().copied().collect();
        if let Some(missing) = gone.iter().find(|h| !state.connectivity.hosts.contains(*h)) {
            return Err(ApiError::refused(format!(
                "{missing} is not one of the connectivity hosts: 'vipctl connectivity show' lists them"
            )));
        }
        let mut settings = state.connectivity.clone();
        settings.hosts.retain(|h| !gone.contains(h));
        let count = settings.hosts.len();
        member.propose(vec![Change::SetConnectivity { settings }]).await?;
        Ok(Answer::done(format!("{count} connectivity hosts are left")))
    }
}

pub(super) fn of(state: &ClusterState) -> ConnectivityOf {
    let Connectivity { hosts, interval, fall, rise } = &state.connectivity;
    let reach = |node: &crate::model::Node| ReachOf {
        node: node.name.clone(),
        reached: state.reached_by(node.id),
        lost: state.unreached.get(&node.id).into_iter().flatten().copied().collect(),
    };
    ConnectivityOf {
        hosts: hosts.iter().copied().collect(),
        interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
        fall: *fall,
        rise: *rise,
        nodes: state.nodes.values().filter(|n| !n.witness).map(reach).collect(),
    }
}

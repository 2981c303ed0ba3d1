//! One poll of a monitored subnet through one interface.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use crate::{
    core::subnets::{Poll, Question},
    observe::{network::Network, ping::Ping, probe},
};

/// How a subnet is asked through an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Through {
    /// By pings from this node's own address there.
    Address(IpAddr),
    /// This node has no address there: by ARP probes and neighbour solicitations, which need none.
    Probe,
}

pub(super) struct Probe {
    pub network: Network,
    pub subnet: IpNet,
    pub device: String,
    pub through: Through,
    pub question: Question,
    pub wait: Duration,
}

impl Probe {
    pub(super) async fn run(self) -> Poll {
        let (known, everybody) = match &self.question {
            Question::Targets(targets) => (targets, false),
            Question::Peers(peers) => (peers, true),
            Question::Nobody => return Poll::NobodyToAsk,
        };
        let answered = match self.through {
            Through::Address(source) => self.ping(source, known, everybody).await,
            Through::Probe => {
                // Only hosts of the link itself can be asked without an address.
                let near: Vec<IpAddr> = known.iter().copied().filter(|t| self.subnet.contains(t)).collect();
                if near.is_empty() {
                    return Poll::NobodyToAsk;
                }
                self.probe(&near).await
            }
        };
        match answered {
            Ok(true) => Poll::Answered,
            Ok(false) if everybody => Poll::Silent { reason: "no peer answers".to_owned() },
            Ok(false) => {
                let names: Vec<String> = known.iter().map(IpAddr::to_string).collect();
                Poll::Silent { reason: format!("no answer from {}", names.join(", ")) }
            }
            Err(reason) => Poll::Silent { reason },
        }
    }

    async fn ping(&self, source: IpAddr, known: &[IpAddr], everybody: bool) -> Result<bool, String> {
        let ping = Ping {
            source: Some(source),
            device: Some(self.device.clone()),
            tries: 1,
            wait: self.wait,
            exclude: vec![source],
            first_only: true,
        };
        let heard = ping.targets(known).await;
        if !everybody || matches!(&heard, Ok(replies) if !replies.is_empty()) {
            return heard.map(|replies| !replies.is_empty()).map_err(|e| e.to_string());
        }
        ping.broadcast(self.subnet).await.map(|replies| !replies.is_empty()).map_err(|e| e.to_string())
    }

    async fn probe(&self, near: &[IpAddr]) -> Result<bool, String> {
        let link = self.network.link(&self.device).await.map_err(|e| e.to_string())?;
        let asked = near.iter().map(|target| probe::claims(&link, *target, self.wait));
        let mut failure = None;
        for claims in futures::future::join_all(asked).await {
            match claims {
                Ok(claims) if !claims.is_empty() => return Ok(true),
                Ok(_) => {}
                Err(error) => failure = Some(error.to_string()),
            }
        }
        failure.map_or(Ok(false), Err)
    }
}

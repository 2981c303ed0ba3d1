//! Who leads, out of Raft's metrics.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use openraft::ServerState;
use tokio::{sync::watch, time::sleep};

use super::types::{LogId, RaftMetrics};
use crate::{
    cluster::{store::Leadership, transport::Peers},
    model::NodeId,
};

/// Follows the metrics until Raft ends.
///
/// A leader of openraft goes on leading when it no longer hears from a majority. Here it counts as
/// one only until it was out of touch for `patience`, in which time the others elect another.
pub(crate) async fn follow(
    mut metrics: watch::Receiver<RaftMetrics>,
    leadership: watch::Sender<Leadership>,
    peers: Peers,
    patience: Duration,
) {
    let mut touch = Touch::default();
    let mut fresh = true;
    loop {
        let seen = metrics.borrow_and_update().clone();
        let now = Instant::now();
        if fresh {
            touch.note(&seen, now);
            peers.set_addresses(addresses(&seen));
        }
        let next = judge(&seen, touch.lost(now, patience));
        leadership.send_if_modified(|present| {
            let changed = *present != next;
            if changed {
                log(present, &next, seen.id);
                *present = next;
            }
            changed
        });
        if seen.running_state.is_err() {
            return;
        }
        fresh = tokio::select! {
            changed = metrics.changed() => match changed {
                Ok(()) => true,
                Err(_) => {
                    leadership.send_modify(|l| { l.is_me = false; l.leader = None; });
                    return;
                }
            },
            // Raft tells nothing when it hangs on its disk.
            () = sleep(patience / 4) => false,
        };
    }
}

/// When this leader was last in touch with a majority.
#[derive(Default)]
struct Touch {
    term: u64,
    last: Option<Instant>,
}

impl Touch {
    /// Takes metrics that were made just now.
    fn note(&mut self, seen: &RaftMetrics, now: Instant) {
        if seen.state != ServerState::Leader {
            *self = Self::default();
            return;
        }
        if self.last.is_none() || self.term != seen.current_term {
            // Just elected, by a majority.
            *self = Self { term: seen.current_term, last: Some(now) };
        }
        let ago = seen.millis_since_quorum_ack.map(Duration::from_millis);
        self.last = self.last.max(ago.and_then(|ago| now.checked_sub(ago)));
    }

    fn lost(&self, now: Instant, patience: Duration) -> bool {
        self.last.is_some_and(|last| now.duration_since(last) > patience)
    }
}

fn addresses(seen: &RaftMetrics) -> BTreeMap<NodeId, String> {
    seen.membership_config.nodes().map(|(id, node)| (*id, node.addr.clone())).collect()
}

fn judge(seen: &RaftMetrics, lost: bool) -> Leadership {
    let running = seen.running_state.is_ok();
    let leader = seen.current_leader.filter(|id| running && !(lost && *id == seen.id));
    Leadership {
        term: seen.current_term,
        leader,
        is_me: leader == Some(seen.id) && seen.state == ServerState::Leader,
        voters: seen.membership_config.voter_ids().collect(),
        configs: seen.membership_config.membership().get_joint_config().clone(),
        membership: seen.membership_config.log_id().as_ref().map_or(0, number),
    }
}

/// Memberships in their order: of two, the one that was proposed in a later term is newer, whatever their
/// places in the log. One that a lost leader never committed may stand further down than its successor.
fn number(id: &LogId) -> u64 {
    (id.leader_id.term << 32) | (id.index & 0xffff_ffff)
}

fn log(before: &Leadership, now: &Leadership, me: NodeId) {
    if before.leader != now.leader || before.term != now.term {
        match now.leader {
            Some(id) if id == me => tracing::info!("this node leads in term {}", now.term),
            Some(id) => tracing::info!("node {id} leads in term {}", now.term),
            None => tracing::info!("no leader in term {}", now.term),
        }
    }
    if before.configs != now.configs {
        tracing::info!("voters: {:?}", now.configs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(term: u64, ago: Option<u64>) -> RaftMetrics {
        RaftMetrics {
            current_term: term,
            state: ServerState::Leader,
            current_leader: Some(1),
            millis_since_quorum_ack: ago,
            ..RaftMetrics::new_initial(1)
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_leader_out_of_touch_no_longer_leads() {
        let start = Instant::now() + 1000 * MS;
        let mut touch = Touch::default();
        touch.note(&leader(3, None), start);
        assert!(!touch.lost(start + 100 * MS, 100 * MS), "just elected");
        assert!(touch.lost(start + 101 * MS, 100 * MS), "never confirmed");
        touch.note(&leader(3, Some(20)), start + 150 * MS);
        assert!(!touch.lost(start + 230 * MS, 100 * MS));
        assert!(touch.lost(start + 231 * MS, 100 * MS));
        touch.note(&leader(3, Some(110)), start + 240 * MS);
        assert!(touch.lost(start + 241 * MS, 100 * MS), "nothing new was heard");
        touch.note(&leader(4, None), start + 300 * MS);
        assert!(!touch.lost(start + 301 * MS, 100 * MS), "elected again");
    }

    #[test]
    fn a_later_term_counts_more_than_a_place_further_down() {
        let id = |term, index| number(&LogId::new(openraft::CommittedLeaderId::new(term, 1), index));
        assert!(id(1, 10) < id(1, 11) && id(1, 1000) < id(2, 11));
    }

    #[test]
    fn judges_by_the_metrics() {
        let seen = leader(3, Some(0));
        assert!(judge(&seen, false).is_me);
        assert_eq!(judge(&seen, false).leader, Some(1));
        assert!(!judge(&seen, true).is_me);
        assert_eq!(judge(&seen, true).leader, None);
        let other = RaftMetrics { current_leader: Some(2), state: ServerState::Follower, ..seen.clone() };
        assert_eq!(judge(&other, false).leader, Some(2));
        assert!(!judge(&other, false).is_me);
        let dead = RaftMetrics { running_state: Err(openraft::error::Fatal::Stopped), ..seen };
        assert!(!judge(&dead, false).is_me);
    }
}

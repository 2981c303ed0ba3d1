//! Asks the metadata service and the API what the sequences want to know, and writes what they want written. No
//! decisions here.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use vipd_ec2::{Call, CallError, Ec2, Permit};

use super::super::sharing::Sharing;
use crate::{
    core::cloud::{Answer, Ask},
    observe::network::{Network, NetworkError},
};

/// A check, which nobody waits for, waits such a part of the time that a call may take for others to join it: of many
/// resources that came in service one after another the checks come one after another, too.
const CHECKS_GATHER: u32 = 10;

/// What began at the same time comes within this.
const HURRY_GATHER: Duration = Duration::from_millis(10);

/// While others of this node are still writing routes, whoever reads back waits so long for them to join.
const CROWD_GATHER: Duration = Duration::from_millis(200);

/// Shared by all sequences of the node; cheap to clone.
#[derive(Clone)]
pub struct Cloud {
    ec2: Arc<dyn Ec2>,
    network: Network,
    permit: Arc<dyn Permit>,
    /// All resources on one interface ask which one it is, and the metadata service turns away who asks too much.
    nics: Sharing<Interface, Answer>,
    /// All resources of one VPC look at the same tables.
    tables: Sharing<Tables, Answer>,
    /// Sequences that write routes at the moment.
    writing: Arc<AtomicUsize>,
}

/// How long others are waited for that want to read the same. Who is in a hurry does not wait for who is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Haste {
    Hurry,
    /// Others write: they will want to read it, too.
    Crowd,
    Check,
}

/// Which interface, and how it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Interface {
    device: String,
    attempt_timeout: Duration,
    retries: u32,
}

/// Whose route tables, and how they are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Tables {
    region: Option<String>,
    vpc: String,
    attempt_timeout: Duration,
    retries: u32,
    haste: Haste,
}

/// Counts a sequence that writes, until it ends or is dropped.
struct Writing(Arc<AtomicUsize>);

impl Writing {
    fn begin(writing: &Arc<AtomicUsize>) -> Self {
        writing.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(writing))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Nobody has said that anything may be written.
struct Nobody;

impl Permit for Nobody {
    fn still(&self) -> Result<(), String> {
        Err("nothing was granted to this node".to_owned())
    }
}

impl Cloud {
    pub fn new(ec2: Arc<dyn Ec2>, network: Network) -> Self {
        Self {
            ec2,
            network,
            permit: Arc::new(Nobody),
            nics: Sharing::default(),
            tables: Sharing::default(),
            writing: Arc::default(),
        }
    }

    /// The same, sharing the same work, that writes as long as this holds.
    pub fn with_permit(&self, permit: Arc<dyn Permit>) -> Self {
        Self { permit, ..self.clone() }
    }

    /// A panic below, in a hundred thousand lines of others, says as much as silence does: without any answer the
    /// resource would be nobody's business for the rest of this process' life.
    pub async fn perform(&self, call: &Call, ask: &Ask) -> Answer {
        // Nothing of ours is left half done: what is shared is replaced as a whole, or counted by a guard.
        let answer = AssertUnwindSafe(self.ask(call, ask)).catch_unwind().await;
        answer.unwrap_or_else(|_| {
            Answer::Failed(CallError::Unreachable {
                what: "a call of EC2".to_owned(),
                reason: "vipd failed within itself (a bug): its log has the panic".to_owned(),
            })
        })
    }

    async fn ask(&self, call: &Call, ask: &Ask) -> Answer {
        match ask {
            Ask::Nic { device } => self.nic(call, device).await,
            Ask::Routes { vpc, checks } => self.tables(call, vpc, *checks).await,
            Ask::Eip { address } => answer(self.ec2.elastic_ip(*address, call).await, Answer::Eip),
            Ask::EipsOf { interface } => answer(self.ec2.elastic_ips_of(interface, call).await, Answer::Eips),
            Ask::ReplaceRoutes { entries, interface } => {
                let _writing = Writing::begin(&self.writing);
                let each = entries.iter().map(|e| {
                    let permit = Arc::clone(&self.permit);
                    self.ec2.replace_route(&e.table, e.destination, interface, call, permit)
                });
                Answer::Written(join_all(each).await)
            }
            Ask::Disassociate { associations } => {
                let each = associations
                    .iter()
                    .map(|association| self.ec2.disassociate(association, call, Arc::clone(&self.permit)));
                Answer::Written(join_all(each).await)
            }
            Ask::Associate { allocation, interface } => {
                let permit = Arc::clone(&self.permit);
                let written = self.ec2.associate(allocation, interface, call, permit).await;
                Answer::Written(vec![written])
            }
            Ask::Pause { about } => {
                tokio::time::sleep(jittered(*about)).await;
                Answer::Paused
            }
        }
    }

    /// Of a run that began after this question: an interface that was detached before it is not found.
    async fn nic(&self, call: &Call, device: &str) -> Answer {
        let key = Interface {
            device: device.to_owned(),
            attempt_timeout: call.attempt_timeout,
            retries: call.retries,
        };
        self.nics.gathering(&key, HURRY_GATHER).get(|| self.interface(call, device)).await
    }

    async fn interface(&self, call: &Call, device: &str) -> Answer {
        match self.network.link(device).await {
            Ok(link) => answer(self.ec2.nic(link.mac, call).await, Answer::Nic),
            Err(error @ NetworkError::NoDevice(_)) => Answer::Failed(CallError::Missing {
                what: device.to_owned(),
                code: "no such interface".to_owned(),
                message: error.to_string(),
            }),
            Err(error) => Answer::Failed(CallError::Unreachable {
                what: format!("the interface {device}"),
                reason: error.to_string(),
            }),
        }
    }

    /// Of a run that began after this question: what was written before it is in it.
    async fn tables(&self, call: &Call, vpc: &str, checks: bool) -> Answer {
        let (haste, gather) = if checks {
            (Haste::Check, call.attempt_timeout / CHECKS_GATHER)
        } else if self.writing.load(Ordering::Relaxed) > 0 {
            (Haste::Crowd, CROWD_GATHER)
        } else {
            (Haste::Hurry, HURRY_GATHER)
        };
        let key = Tables {
            region: call.region.clone(),
            vpc: vpc.to_owned(),
            attempt_timeout: call.attempt_timeout,
            retries: call.retries,
            haste,
        };
        let read = || async {
            let tables = self.ec2.route_tables(vpc, call).await;
            answer(tables, |tables| Answer::Routes(Arc::new(tables)))
        };
        self.tables.gathering(&key, gather).get(read).await
    }
}

fn answer<T>(result: Result<T, CallError>, found: impl FnOnce(T) -> Answer) -> Answer {
    result.map_or_else(Answer::Failed, found)
}

/// Between a half and the whole of it.
fn jittered(about: Duration) -> Duration {
    let mut byte = [0_u8];
    // Without randomness all come back together: that is no reason not to come back.
    let _ = getrandom::fill(&mut byte);
    about / 2 + about / 2 * u32::from(byte[0]) / 255
}

#[cfg(test)]
mod tests {
    use vipd_ec2::{Purpose, testing::FakeEc2};

    use super::*;
    use crate::core::cloud::Entry;

    fn call() -> Call {
        Call { region: None, attempt_timeout: Duration::from_secs(5), retries: 1, purpose: Purpose::Service }
    }

    #[tokio::test]
    async fn who_asks_for_the_same_interface_at_the_same_time_asks_once() {
        let ec2 = FakeEc2::new("a", Arc::default());
        ec2.attach([0; 6], "eni-a", "vpc-1");
        let cloud = Cloud::new(Arc::new(ec2.clone()), Network::open().unwrap());
        let call = &call();
        // Its link-layer address is all zeroes.
        let ask = &Ask::Nic { device: "lo".to_owned() };
        let is_found = |answer: &Answer| matches!(answer, Answer::Nic(nic) if nic.id == "eni-a");
        let all = join_all((0..500).map(|_| cloud.perform(call, ask))).await;
        assert!(all.iter().all(is_found), "{all:?}");
        // Those that come too late for the first run share the second.
        assert!(ec2.host().asked.len() <= 2, "{:?}", ec2.host().asked);
        // Whoever asks after it was detached is told so.
        ec2.host().nics.clear();
        let gone = cloud.perform(call, ask).await;
        assert!(matches!(gone, Answer::Failed(CallError::Missing { .. })), "{gone:?}");
    }

    struct Broken;

    impl Permit for Broken {
        fn still(&self) -> Result<(), String> {
            panic!("a bug, for a test")
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_that_says_nothing() {
        let ec2 = FakeEc2::new("a", Arc::default());
        let cloud = Cloud::new(Arc::new(ec2), Network::open().unwrap()).with_permit(Arc::new(Broken));
        let call = &call();
        let entries = vec![Entry { table: "rtb-1".into(), destination: "10.9.0.5/32".parse().unwrap() }];
        let answer = cloud.perform(call, &Ask::ReplaceRoutes { entries, interface: "eni-a".into() }).await;
        let Answer::Failed(error) = &answer else { panic!("{answer:?}") };
        assert!(error.is_passing(), "{error}");
        // Nobody waits for one that writes no more.
        assert_eq!(cloud.writing.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_pause_is_about_as_long_as_asked_for() {
        let about = Duration::from_secs(8);
        let all: Vec<Duration> = (0..100).map(|_| jittered(about)).collect();
        assert!(all.iter().all(|p| (about / 2..=about).contains(p)));
        assert!(all.iter().any(|p| *p != all[0]), "all of them come back together");
    }
}

//! Gratuitous ARP and unsolicited neighbour advertisements (row IP-16): in a burst when an address is
//! taken, again some seconds later, periodically if wanted, and when a carrier comes back.

mod book;
mod frames;
mod pace;
mod plan;

use std::{
    cmp::Reverse,
    collections::HashMap,
    io,
    net::IpAddr,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;
use tracing::debug;

pub use self::plan::Plan;
use self::{
    book::{Book, Job},
    frames::{Look, Round},
    pace::{Lane, Urgent},
    plan::Step,
};
use crate::{
    act::datapath::Datapath,
    observe::network::{Link, Network, NetworkError},
};

/// Sets of this size are announced by frames that the kernel makes. Measured: of a set of 32 a run costs
/// more than sending the frames, of one of 320 less, of thousands two thirds.
const GENERATED_FROM: usize = 256;

/// How often what a full queue dropped is sent again, and what it is given to drain.
const RESENDS: u32 = 5;
const RESEND_PAUSE: Duration = Duration::from_millis(10);

/// Addresses that an error names.
const NAMED: usize = 8;

/// Ranks that are asked for without letting other tasks have a turn.
const RANKS: usize = 1024;

/// Tells the segments where this node's addresses are. One for the whole node, so that all announcements
/// share the pace; cheap to clone.
#[derive(Clone)]
pub struct Announcer(Arc<Inner>);

struct Inner {
    network: Network,
    datapath: Arc<dyn Datapath>,
    /// By interface number.
    lanes: Mutex<HashMap<u32, Arc<Lane>>>,
    /// Locked while a chunk leaves, so that nothing of an address leaves after it was withdrawn.
    book: Mutex<Book>,
}

/// Addresses of which frames were dropped in the first round, and how many frames there were.
type FirstRound = io::Result<(Vec<IpAddr>, usize)>;

impl Announcer {
    /// Needs a tokio runtime whose threads are in the network's namespace when it announces.
    pub fn new(network: Network, datapath: Arc<dyn Datapath>) -> Self {
        let (lanes, book) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { network, datapath, lanes, book }))
    }

    /// Tells the segment that the addresses are here now: gratuitous ARPs (requests and replies, each
    /// naming the VIP's own hardware address or broadcast as its target), or unsolicited neighbour
    /// advertisements with the override flag to ff02::1 (RFC 4861 section 7.2.6).
    ///
    /// Every address is announced once before any is announced twice, those first for which `rank` is
    /// high. Returns when that first round has left; the rest of the plan goes on by itself until the
    /// addresses are withdrawn or announced anew. It is an error when all frames of that round were dropped
    /// on their way out; the plan goes on all the same.
    ///
    /// Where there is no Ethernet (loopback, tunnels) there is nobody to tell, which is no error.
    pub async fn announce(
        &self,
        link: &Link,
        addresses: impl IntoIterator<Item = IpAddr>,
        plan: Plan,
        rank: &(dyn Fn(IpAddr) -> u64 + Sync),
    ) -> Result<(), NetworkError> {
        let addresses: Vec<_> = addresses.into_iter().collect();
        if !link.is_ethernet() {
            self.withdraw(addresses);
            return Ok(());
        }
        let failed = |reason| trying(link, &addresses)(reason);
        let ordered = by_rank(&addresses, rank).await;
        let job = self.0.book().open(&link.name, link.index, ordered, plan);
        let (told, first_round) = oneshot::channel();
        // A task of its own: it goes on when the caller has given up.
        tokio::spawn(Arc::clone(&self.0).run(job, link.clone(), Some(told)));
        // When it was withdrawn meanwhile, there is nothing to say.
        let Ok(outcome) = first_round.await else { return Ok(()) };
        let (dropped, frames) = outcome.map_err(failed)?;
        if !dropped.is_empty() && dropped.len() < frames {
            // Of a large set on a busy host; they are announced again with the next burst.
            let (count, device) = (dropped.len(), &link.name);
            tracing::warn!(
                device,
                "{count} of {frames} addresses could not be announced yet: its queue is full"
            );
            return Ok(());
        }
        all_left(dropped, frames).map_err(trying(link, &addresses))
    }

    /// As [`Announcer::announce`] for what an earlier life of this daemon announced and is in service still:
    /// a carrier may have come back while nobody looked. Returns at once; nobody waits for these frames, so
    /// they let others pass.
    pub fn adopt(&self, link: &Link, addresses: impl IntoIterator<Item = IpAddr>, plan: Plan) {
        if link.is_ethernet() {
            let job = self.0.book().open(&link.name, link.index, addresses.into_iter().collect(), plan);
            tokio::spawn(Arc::clone(&self.0).run(job, link.clone(), None));
        }
    }

    /// One announcement, now: the defence of RFC 5227 section 2.4. What the address is announced by otherwise goes
    /// on.
    ///
    /// Where there is BPF the kernel makes the frame, and only while the gate of the address is open: it may be
    /// given up at this moment.
    ///
    /// # Errors
    /// When the frame was not sent.
    pub fn once(&self, link: &Link, address: IpAddr) -> Result<(), NetworkError> {
        let (look, what) = (Look::of(link), [(0, address)]);
        let sent = match frames::generate(&*self.0.datapath, look, &what) {
            Some(dropped) => Ok(dropped),
            None => frames::send(&self.0.network, look, &what),
        };
        let addresses = [address];
        let failed = trying(link, &addresses);
        match sent {
            Ok(dropped) if dropped.is_empty() => Ok(()),
            Ok(_) => Err(failed(io::Error::other("the frame was dropped on its way out"))),
            Err(error) => Err(failed(error)),
        }
    }

    /// Nothing more is said about these addresses from now on. No error when nothing was.
    pub fn withdraw(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.0.book().close(addresses);
    }

    /// Announces everything anew that is announced on this interface, by its plan from the beginning: a
    /// switch may have forgotten, or learnt otherwise, while there was no carrier. Returns at once.
    pub fn carrier_returned(&self, ifindex: u32) {
        for job in self.0.book().jobs_on(ifindex) {
            job.wake.notify_one();
        }
    }
}

impl Network {
    /// One burst of the addresses, all frames at once, whatever the [`Announcer`] does meanwhile: for few
    /// addresses, as when one is defended.
    ///
    /// The error names the addresses of which frames were dropped on the way out.
    pub fn announce(&self, link: &Link, addresses: &[IpAddr]) -> Result<(), NetworkError> {
        if !link.is_ethernet() {
            return Ok(());
        }
        let mut round = Round::new(addresses, 0..Plan::default().count, true);
        let (mut dropped, mut frames) = (Vec::new(), 0);
        loop {
            let chunk = round.chunk();
            if chunk.is_empty() {
                break;
            }
            frames += chunk.len();
            dropped.extend(frames::send(self, Look::of(link), &chunk).map_err(trying(link, addresses))?);
        }
        all_left(dropped, frames).map_err(trying(link, addresses))
    }
}

/// An error when frames of some addresses were dropped.
fn all_left(mut dropped: Vec<IpAddr>, frames: usize) -> io::Result<()> {
    if dropped.is_empty() {
        return Ok(());
    }
    let count = dropped.len();
    dropped.sort_unstable();
    dropped.dedup();
    let mut names: Vec<_> = dropped.iter().take(NAMED).map(ToString::to_string).collect();
    if dropped.len() > NAMED {
        names.push(format!("and {} more", dropped.len() - NAMED));
    }
    Err(io::Error::other(format!(
        "{count} of {frames} frames were dropped on their way out (is the gate closed, or the transmit queue \
         full?): {}",
        names.join(", ")
    )))
}

fn trying(link: &Link, addresses: &[IpAddr]) -> impl FnOnce(io::Error) -> NetworkError {
    NetworkError::trying(match addresses {
        [one] => format!("announce {one} on {}", link.name),
        many => format!("announce {} addresses on {}", many.len(), link.name),
    })
}

/// The highest rank first; otherwise as they came.
async fn by_rank(addresses: &[IpAddr], rank: &(dyn Fn(IpAddr) -> u64 + Sync)) -> Vec<IpAddr> {
    if let [one] = addresses {
        return vec![*one];
    }
    let mut ranked = Vec::with_capacity(addresses.len());
    for some in addresses.chunks(RANKS) {
        ranked.extend(some.iter().map(|&address| (Reverse(rank(address)), address)));
        tokio::task::yield_now().await;
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, address)| address).collect()
}

impl Inner {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Each change of it is whole before anything could panic.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lane(&self, ifindex: u32) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lanes.entry(ifindex).or_default())
    }

    /// Follows the job's plan until it has no address any more.
    async fn run(
        self: Arc<Self>,
        job: Arc<Job>,
        mut link: Link,
        mut told: Option<oneshot::Sender<FirstRound>>,
    ) {
        'plan: loop {
            for step in job.plan.steps() {
                if told.is_none() {
                    let woken = tokio::time::timeout(step.delay, job.wake.notified()).await.is_ok();
                    if !self.book().is_open(&job) {
                        return;
                    }
                    if woken {
                        continue 'plan;
                    }
                    // Its hardware address may be another one by now.
                    match self.network.link(&job.device).await {
                        Ok(now) if now.index == job.ifindex => link = now,
                        Ok(_) => continue,
                        Err(error) => {
                            debug!("not announcing again: {error}");
                            continue;
                        }
                    }
                }
                self.step(&job, &link, &step, &mut told).await;
            }
            // All is said; until the carrier comes back.
            job.wake.notified().await;
            if !self.book().is_open(&job) {
                return;
            }
        }
    }

    /// Announces all addresses of the job as often as the step says, one form after another.
    async fn step(
        &self,
        job: &Job,
        link: &Link,
        step: &Step,
        told: &mut Option<oneshot::Sender<FirstRound>>,
    ) {
        let lane = self.lane(link.index);
        let look = Look::of(link);
        let Range { start, end } = step.arps;
        let first = Round::new(&job.addresses, start..end.min(start + 1), true);
        let urgent = told.is_some().then(|| lane.urgent());
        let outcome = self.round(job, look, &lane, urgent.as_ref(), first).await;
        let forms = start..end.min(start + 1);
        let outcome = self.resend(job, look, &lane, urgent.as_ref(), &forms, outcome).await;
        drop(urgent);
        match told.take() {
            // The caller may have given up.
            Some(told) => drop(told.send(outcome)),
            None => note(job, &outcome),
        }
        let rest = Round::new(&job.addresses, end.min(start + 1)..end, false);
        note(job, &self.round(job, look, &lane, None, rest).await);
    }

    /// What a full queue dropped is sent again, a few times: every address is to be announced once before the
    /// caller goes on. That all frames were dropped has another reason.
    async fn resend(
        &self,
        job: &Job,
        look: Look<'_>,
        lane: &Lane,
        urgent: Option<&Urgent<'_>>,
        forms: &Range<u32>,
        outcome: FirstRound,
    ) -> FirstRound {
        let (mut dropped, frames) = outcome?;
        for _ in 0..RESENDS {
            if dropped.is_empty() || dropped.len() >= frames {
                break;
            }
            tokio::time::sleep(RESEND_PAUSE).await;
            let again = Round::new(&dropped, forms.clone(), true);
            let (left, _) = self.round(job, look, lane, urgent, again).await?;
            dropped = left;
        }
        Ok((dropped, frames))
    }

    /// Sends these frames, in chunks, at the pace of the plan.
    async fn round(
        &self,
        job: &Job,
        look: Look<'_>,
        lane: &Lane,
        urgent: Option<&Urgent<'_>>,
        mut round: Round<'_>,
    ) -> FirstRound {
        let (mut dropped, mut frames) = (Vec::new(), 0);
        loop {
            let mut chunk = round.chunk();
            if chunk.is_empty() {
                return Ok((dropped, frames));
            }
            lane.turn(chunk.len(), job.plan.pace, urgent).await;
            let book = self.book();
            if !book.is_open(job) {
                return Ok((dropped, frames));
            }
            chunk.retain(|(_, address)| book.belongs(*address, job));
            frames += chunk.len();
            dropped.extend(self.send(job, look, &chunk)?);
        }
    }

    /// Answers the addresses whose frames were dropped. Quick: at most a chunk.
    fn send(&self, job: &Job, look: Look<'_>, what: &[(u32, IpAddr)]) -> io::Result<Vec<IpAddr>> {
        if job.addresses.len() >= GENERATED_FROM
            && let Some(dropped) = frames::generate(&*self.datapath, look, what)
        {
            return Ok(dropped);
        }
        frames::send(&self.network, look, what)
    }
}

/// Later rounds have nobody to tell but whoever reads the log.
fn note(job: &Job, outcome: &FirstRound) {
    match outcome {
        Ok((dropped, frames)) if !dropped.is_empty() => {
            debug!(device = job.device, "{} of {frames} announcements were dropped", dropped.len());
        }
        Ok(_) => {}
        Err(error) => debug!(device = job.device, "announcing again failed: {error}"),
    }
}

//! What this node announces, and which announcement speaks for which address.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use tokio::sync::Notify;

use super::plan::Plan;

/// Addresses that were announced together.
pub(super) struct Job {
    id: u64,
    pub(super) device: String,
    pub(super) ifindex: u32,
    /// The busiest first. Some may belong to a later job by now, or to none.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) plan: Plan,
    /// Woken when it is to begin again, or to end.
    pub(super) wake: Notify,
}

/// Every address belongs to the last job that it was announced by, until it is withdrawn.
#[derive(Default)]
pub(super) struct Book {
    jobs: HashMap<u64, Entry>,
    holder: HashMap<IpAddr, u64>,
    last: u64,
}

struct Entry {
    job: Arc<Job>,
    /// How many addresses still belong to it.
    live: usize,
}

impl Book {
    /// Takes the addresses over from whatever announced them until now.
    pub(super) fn open(
        &mut self,
        device: &str,
        ifindex: u32,
        addresses: Vec<IpAddr>,
        plan: Plan,
    ) -> Arc<Job> {
        self.last += 1;
        let id = self.last;
        let mut live = 0;
        for address in &addresses {
            match self.holder.insert(*address, id) {
                // Named twice.
                Some(old) if old == id => {}
                old => {
                    live += 1;
                    old.into_iter().for_each(|old| self.release(old));
                }
            }
        }
        let job =
            Arc::new(Job { id, device: device.to_owned(), ifindex, addresses, plan, wake: Notify::new() });
        if live > 0 {
            self.jobs.insert(id, Entry { job: Arc::clone(&job), live });
        }
        job
    }

    /// The addresses are announced no more.
    pub(super) fn close(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            if let Some(id) = self.holder.remove(&address) {
                self.release(id);
            }
        }
        // After a large set the memory is given back.
        if self.holder.len() * 8 < self.holder.capacity() {
            self.holder.shrink_to_fit();
        }
    }

    fn release(&mut self, id: u64) {
        let Some(entry) = self.jobs.get_mut(&id) else { return };
        entry.live -= 1;
        if entry.live == 0
            && let Some(entry) = self.jobs.remove(&id)
        {
            entry.job.wake.notify_one();
        }
    }

    /// Whether the job has any address left.
    pub(super) fn is_open(&self, job: &Job) -> bool {
        self.jobs.contains_key(&job.id)
    }

    /// Whether the address is the job's to announce.
    pub(super) fn belongs(&self, address: IpAddr, job: &Job) -> bool {
        self.holder.get(&address) == Some(&job.id)
    }

    pub(super) fn jobs_on(&self, ifindex: u32) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.values().map(|entry| &entry.job).filter(move |job| job.ifindex == ifindex)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn addresses(range: std::ops::Range<u8>) -> Vec<IpAddr> {
        range.map(|last| IpAddr::from([10, 0, 0, last])).collect()
    }

    fn woken(job: &Job) -> bool {
        job.wake.notified().now_or_never().is_some()
    }

    #[test]
    fn an_address_belongs_to_its_last_job() {
        let mut book = Book::default();
        let first = book.open("eth0", 3, addresses(0..4), Plan::default());
        let second = book.open("eth1", 4, addresses(2..6), Plan::default());
        let of = |book: &Book, job: &Job| {
            addresses(0..6).iter().map(|a| u8::from(book.belongs(*a, job))).collect::<Vec<_>>()
        };
        assert_eq!(of(&book, &first), [1, 1, 0, 0, 0, 0]);
        assert_eq!(of(&book, &second), [0, 0, 1, 1, 1, 1]);
        assert_eq!(book.jobs_on(3).count(), 1);
        assert!(!woken(&first));
        book.close(addresses(0..2));
        // It has none left: it is to end.
        assert!(!book.is_open(&first) && woken(&first));
        assert!(book.is_open(&second) && !woken(&second));
        assert_eq!(book.jobs_on(3).count(), 0);
    }

    #[test]
    fn addresses_named_twice_or_never_do_no_harm() {
        let mut book = Book::default();
        let twice = [addresses(0..2), addresses(0..2)].concat();
        let job = book.open("eth0", 3, twice, Plan::default());
        book.close(addresses(1..9));
        assert!(book.is_open(&job));
        book.close(addresses(0..1));
        assert!(!book.is_open(&job));
        let empty = book.open("eth0", 3, Vec::new(), Plan::default());
        assert!(!book.is_open(&empty));
        assert!(book.jobs.is_empty() && book.holder.is_empty());
    }

    #[test]
    fn announcing_again_ends_the_job_before() {
        let mut book = Book::default();
        let first = book.open("eth0", 3, addresses(0..4), Plan::default());
        let second = book.open("eth0", 3, addresses(0..4), Plan::default());
        assert!(!book.is_open(&first) && woken(&first));
        assert!(book.is_open(&second) && !woken(&second));
    }
}

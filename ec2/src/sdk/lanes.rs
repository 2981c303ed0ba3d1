//! How many calls are made at once.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::CallError;

/// EC2 refills what an account may change by some tens of calls a second, and answers within about 100 ms: this many at
/// a time already ask for more than it grants. A call keeps its place during the pauses of its retries, so the more of
/// them are throttled, the fewer are sent. It is also the most connections to EC2 that are open.
const WRITES: usize = 32;

/// Apart from the writes, so that no check waits behind a thousand routes that are being replaced. Reads are shared
/// between resources, so they are few.
const READS: usize = 16;

pub const CONNECTIONS: usize = WRITES + READS;

/// Each lane serves those who wait in the order in which they came.
pub struct Lanes {
    reads: Semaphore,
    writes: Semaphore,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { reads: Semaphore::new(READS), writes: Semaphore::new(WRITES) }
    }
}

impl Lanes {
    /// A place for one call, kept until it is dropped. Waiting for it counts towards no time-out of the call; it ends,
    /// as the calls ahead do.
    pub async fn enter(&self, writes: bool) -> Result<SemaphorePermit<'_>, CallError> {
        let lane = if writes { &self.writes } else { &self.reads };
        lane.acquire().await.map_err(|closed| CallError::Unreachable {
            what: "the EC2 API".to_owned(),
            reason: closed.to_string(),
        })
    }
}

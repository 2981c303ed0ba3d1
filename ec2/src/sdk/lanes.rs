//! How many calls are made at once.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{Call, CallError, Purpose};

/// EC2 refills what an account may change by some tens of calls a second, and answers within about 100 ms: this many at
/// a time already ask for more than it grants. A call keeps its place during the pauses of its retries, so the more of
/// them are throttled, the fewer are sent. It is also the most connections to EC2 that are open.
const WRITES: usize = 32;

/// Apart from the writes, so that no check waits behind a thousand routes that are being replaced. Reads are shared
/// between resources, so they are few.
const READS: usize = 16;

/// What operators ask (creations, `vipctl verify`), apart from the reads that keep resources in service: while EC2 is
/// silent each such call keeps its place for as long as it may take, and there may be any number of operators.
const INQUIRIES: usize = 16;

pub const CONNECTIONS: usize = WRITES + READS + INQUIRIES;

/// Each lane serves those who wait in the order in which they came.
pub struct Lanes {
    reads: Semaphore,
    inquiries: Semaphore,
    writes: Semaphore,
}

/// Where a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Reads,
    Inquiries,
    Writes,
}

impl Lane {
    /// That of a call which changes nothing.
    pub fn of_read(call: &Call) -> Self {
        match call.purpose {
            Purpose::Service => Self::Reads,
            Purpose::Inquiry => Self::Inquiries,
        }
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            reads: Semaphore::new(READS),
            inquiries: Semaphore::new(INQUIRIES),
            writes: Semaphore::new(WRITES),
        }
    }
}

impl Lanes {
    /// A place for one call, kept until it is dropped. Waiting for it counts towards no time-out of the call; it ends,
    /// as the calls ahead do.
    pub async fn enter(&self, lane: Lane) -> Result<SemaphorePermit<'_>, CallError> {
        let lane = match lane {
            Lane::Reads => &self.reads,
            Lane::Inquiries => &self.inquiries,
            Lane::Writes => &self.writes,
        };
        lane.acquire().await.map_err(|closed| CallError::Unreachable {
            what: "the EC2 API".to_owned(),
            reason: closed.to_string(),
        })
    }
}

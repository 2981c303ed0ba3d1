//! Lines that the programs write per frame (`datapath.log-packets`), into this process' log.

use std::{
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use aya::Ebpf;
use aya_log::EbpfLogger;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::{info, warn};

/// How soon the thread notices that it is no longer wanted.
const PATIENCE_MS: u16 = 200;

/// Runs until dropped.
pub(super) struct PacketLog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// aya-log speaks the `log` crate's language; the daemon's log is `tracing`.
struct Forward;

impl log::Log for Forward {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        info!(target: "vipd::packets", "{}", record.args());
    }

    fn flush(&self) {}
}

impl PacketLog {
    pub(super) fn start(ebpf: &mut Ebpf) -> Result<Self, aya_log::Error> {
        let mut logger = EbpfLogger::init_with_logger(ebpf, Forward)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("packet-log".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(logger.as_fd(), PollFlags::POLLIN)];
                match poll(&mut fds, PollTimeout::from(PATIENCE_MS)) {
                    Ok(_) | Err(nix::errno::Errno::EINTR) => logger.flush(),
                    Err(error) => {
                        warn!("packet log ends: {error}");
                        return;
                    }
                }
            }
            logger.flush();
        });
        let thread = thread.inspect_err(|error| warn!("no packet log: {error}")).ok();
        Ok(Self { stop, thread })
    }
}

impl Drop for PacketLog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic, and if it did there is nothing to add.
            let _ = thread.join();
        }
    }
}

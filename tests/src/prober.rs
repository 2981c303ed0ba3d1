//! Asks for addresses without end, so that whoever would answer does.
//!
//! Raw frames, so that no neighbour cache hides anybody: ARP requests go to broadcast, solicitations
//! to their group, and each echo request goes to *every* host by its own link-layer address. A
//! deposed host that still answered would be heard.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use socket2::Socket;

use crate::{
    capture::packet_socket,
    frames::{Asker, Mac},
    netns::NetNs,
};

/// Addresses that are asked for together, and how often.
#[derive(Clone, Debug)]
pub struct Targets {
    pub addresses: Vec<IpAddr>,
    pub interval: Duration,
}

/// A sender thread; it stops when this is dropped.
pub struct Prober {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// `hosts` are the link-layer addresses that echo requests are sent to.
    pub fn start(
        ns: &NetNs,
        interface: &str,
        asker: Asker,
        hosts: Vec<Mac>,
        targets: Vec<Targets>,
    ) -> Result<Self> {
        let socket = packet_socket(ns, interface)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("prober".into())
            .spawn(move || send(&socket, asker, &hosts, &targets, &stopped))
            .context("no thread for the prober")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within its longest pause; a panic inside has been printed already.
            let _ = thread.join();
        }
    }
}

fn send(socket: &Socket, asker: Asker, hosts: &[Mac], targets: &[Targets], stop: &AtomicBool) {
    let mut due = vec![Instant::now(); targets.len()];
    let mut sequence = 0u16;
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        for (group, due) in targets.iter().zip(&mut due).filter(|(_, due)| **due <= now) {
            sequence = sequence.wrapping_add(1);
            for address in &group.addresses {
                // A frame that a cut link refuses is lost like any other.
                let _ = socket.send(&asker.who_has(*address));
                for host in hosts {
                    let _ = socket.send(&asker.echo(*host, *address, sequence));
                }
            }
            *due = now + group.interval;
        }
        let next = due.iter().min().copied().unwrap_or(now + Duration::from_millis(50));
        std::thread::sleep(next.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
    }
}

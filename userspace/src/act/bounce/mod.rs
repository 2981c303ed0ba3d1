//! Stopping and starting an interface: by NetworkManager where it manages the interface, through netlink
//! otherwise. Sequences that want it at the same time share one stop and start.

mod book;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    time::Instant,
};

use self::book::Book;
use super::{
    link::Forgotten,
    network_manager::{NetworkManager, Profile, Unmanaged},
    pages::Pages,
};
use crate::observe::network::{Link, Network, NetworkError};

/// For so long after its start, an interface is not stopped again: those who shared the stop are looking
/// whether its link comes up (restore looks five times, a second apart).
const SETTLING: Duration = Duration::from_secs(10);

/// Longest wait for another sequence to start what it stopped. Its pause is IP_WAIT_LINKDOWN, and
/// NetworkManager takes its time.
const TURN: Duration = Duration::from_secs(45);

/// Why an interface could not be stopped or started.
#[derive(Debug, thiserror::Error)]
pub enum BounceError {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("another sequence stopped {device} and did not start it again within {TURN:?}")]
    Busy { device: String },
}

/// Stops and starts interfaces; cheap to clone, the clones know of each other's.
#[derive(Clone)]
pub struct Bouncer {
    network: Network,
    network_manager: NetworkManager,
    book: Book,
    /// By number.
    devices: Arc<Mutex<HashMap<u32, Arc<Device>>>>,
}

struct Device {
    phase: watch::Sender<Phase>,
    /// Held while the interface is being stopped or started.
    owed: AsyncMutex<Owed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Untouched,
    Stopped,
    Started(Instant),
}

/// What a start has to bring back.
#[derive(Debug, Default, PartialEq, Eq)]
struct Owed {
    /// It was set down through netlink.
    forgotten: Option<Forgotten>,
    /// NetworkManager was asked to take this down. Kept until it is up again, over later stops and starts
    /// too: NetworkManager does not bring it up by itself.
    profile: Option<Profile>,
}

impl Bouncer {
    pub fn new(network: Network, network_manager: NetworkManager) -> Self {
        Self { network, network_manager, book: Book::default(), devices: Arc::default() }
    }

    /// The same, keeping in this directory what is stopped at the moment.
    pub fn with_book(self, dir: PathBuf) -> Self {
        Self { book: Book { pages: Some(Pages::new(dir)) }, ..self }
    }

    /// Starts in the background what an earlier life of this daemon stopped and did not start again.
    /// Once this returns, nothing stops those interfaces before.
    ///
    /// # Errors
    /// When the interfaces of this host cannot be listed.
    pub async fn resume(&self) -> Result<(), NetworkError> {
        for (link, left) in self.book.read(self.network.links().await?) {
            let device = self.device(link.index);
            *device.owed.lock().await = left;
            device.phase.send_replace(Phase::Stopped);
            let this = self.clone();
            tokio::spawn(async move {
                tracing::warn!(device = link.name, "an earlier vipd stopped it: it is started again");
                if let Err(error) = this.start(&link).await {
                    tracing::warn!(device = link.name, %error, "it could not be started again");
                }
            });
        }
        Ok(())
    }

    /// Starts what is stopped at the moment: for a daemon that ends.
    pub async fn settle(&self) {
        let all = self.network.links().await.unwrap_or_default();
        let stopped =
            all.into_iter().filter(|link| *self.device(link.index).phase.borrow() == Phase::Stopped);
        for link in stopped {
            if let Err(error) = self.start(&link).await {
                tracing::warn!(device = link.name, %error, "it was stopped and could not be started again");
            }
        }
    }

    /// Stops the interface. Where another sequence has stopped it already, waits until it is started
    /// again, and that was it: the caller finds out by looking at the link, as it would otherwise.
    pub async fn stop(&self, link: &Link) -> Result<(), BounceError> {
        let device = self.device(link.index);
        let mut owed = device.owed.lock().await;
        let phase = *device.phase.borrow();
        match phase {
            Phase::Stopped => {
                drop(owed);
                let mut phase = device.phase.subscribe();
                let started = phase.wait_for(|phase| *phase != Phase::Stopped);
                match tokio::time::timeout(TURN, started).await {
                    Ok(_) => Ok(()),
                    Err(_) => Err(BounceError::Busy { device: link.name.clone() }),
                }
            }
            Phase::Started(at) if at.elapsed() < SETTLING => Ok(()),
            Phase::Untouched | Phase::Started(_) => {
                // Before anything is done, for those who come while it is done or after it failed: a start
                // is owed in any case.
                device.phase.send_replace(Phase::Stopped);
                self.take_down(link, &mut owed).await
            }
        }
    }

    /// Starts the interface, also when nobody stopped it.
    pub async fn start(&self, link: &Link) -> Result<(), BounceError> {
        let device = self.device(link.index);
        let mut owed = device.owed.lock().await;
        if *device.phase.borrow() != Phase::Stopped {
            // Somebody else ended what they shared.
            return Ok(self.network.set_link(link, true).await?);
        }
        let result = self.bring_up(link, &mut owed).await;
        if owed.profile.is_some() {
            self.book.write(link, &owed);
        } else {
            self.book.strike(link.index);
        }
        device.phase.send_replace(Phase::Started(Instant::now()));
        result
    }

    /// NetworkManager removes all addresses with its connection and brings back its own, so what others
    /// added is gone, virtual addresses in service included: their next quickcheck finds them missing
    /// and recovers them. (Through netlink, the IPv4 ones stay.)
    async fn take_down(&self, link: &Link, owed: &mut Owed) -> Result<(), BounceError> {
        match self.network_manager.managed(link).await {
            Ok(managed) => {
                owed.profile = Some(managed.profile().clone());
                self.book.write(link, owed);
                tracing::info!(device = link.name, profile = %managed.profile(), "NetworkManager stops it");
                match managed.down().await {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        tracing::warn!(device = link.name, %error, "stopped through netlink instead");
                    }
                }
            }
            Err(Unmanaged::Failed(error)) => {
                tracing::warn!(device = link.name, %error, "stopped without NetworkManager");
            }
            Err(reason) => tracing::debug!(device = link.name, %reason, "stopped without NetworkManager"),
        }
        let forgettable = self.network.forgettable(link).await?;
        // What was found when it was still up counts: there may be an older stop without its start.
        owed.forgotten.get_or_insert(forgettable);
        self.book.write(link, owed);
        Ok(self.network.set_link(link, false).await?)
    }

    async fn bring_up(&self, link: &Link, owed: &mut Owed) -> Result<(), BounceError> {
        if let Some(profile) = &owed.profile {
            match self.network_manager.up(&link.name, profile).await {
                Ok(()) => owed.profile = None,
                Err(error) => {
                    tracing::warn!(device = link.name, %error, "started through netlink only");
                }
            }
        }
        // A connection that is up has set its device up: then this changes nothing.
        self.network.set_link(link, true).await?;
        match owed.forgotten.take() {
            Some(forgotten) => Ok(self.network.bring_back(link, forgotten).await?),
            None => Ok(()),
        }
    }

    fn device(&self, index: u32) -> Arc<Device> {
        // The map is whole even when a thread panicked meanwhile.
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let device = devices.entry(index).or_insert_with(|| {
            let phase = watch::Sender::new(Phase::Untouched);
            Arc::new(Device { phase, owed: AsyncMutex::default() })
        });
        Arc::clone(device)
    }
}

//! The two threads of a store.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::runtime::{Builder, Handle, Runtime};

use super::store::StoreError;

/// For what is being written to end. A disk that takes longer is broken.
const WIND_UP: Duration = Duration::from_secs(5);

/// Nothing else the daemon does makes late what runs on them. Dropped, they stop as by a crash.
pub(super) struct Threads(Mutex<Option<Runtime>>);

impl Threads {
    /// # Errors
    /// When there are no more threads to be had.
    pub(super) fn start(name: &str) -> Result<Self, StoreError> {
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build();
        let runtime = runtime.map_err(|e| StoreError::Storage(format!("no threads for {name}: {e}")))?;
        Ok(Self(Mutex::new(Some(runtime))))
    }

    fn take(&self) -> Option<Runtime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Runs something on them to its end.
    ///
    /// # Errors
    /// When it panicked, or they have been ended.
    pub(super) async fn run<F>(&self, work: impl FnOnce(Handle) -> F) -> Result<F::Output, StoreError>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let running = {
            let runtime = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let runtime = runtime.as_ref().ok_or_else(|| StoreError::NoQuorum("vipd is stopping".into()))?;
            runtime.spawn(work(runtime.handle().clone()))
        };
        running.await.map_err(|e| StoreError::Storage(format!("the store did not start: {e}")))
    }

    /// Returns once nothing runs on them any more, and nothing that they wrote is still under way.
    pub(super) async fn end(&self) {
        if let Some(runtime) = self.take() {
            // An error: the daemon's own threads end, and with them the wait.
            let _ = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(WIND_UP)).await;
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    };

    use tokio::sync::oneshot;

    use super::*;

    /// A store that was shut down writes nothing any more: its directory may be removed.
    #[tokio::test]
    async fn what_is_being_written_is_waited_for() {
        let threads = Threads::start("test").unwrap();
        let written = Arc::new(AtomicBool::new(false));
        let (go, gone) = mpsc::channel();
        let w = written.clone();
        let write = move || {
            gone.recv().unwrap();
            w.store(true, Ordering::SeqCst);
        };
        // Nobody waits for it, as where its task is aborted.
        let (begun, begins) = oneshot::channel();
        threads
            .run(|_| async move {
                drop(tokio::task::spawn_blocking(move || {
                    begun.send(()).unwrap();
                    write();
                }));
            })
            .await
            .unwrap();
        begins.await.unwrap();
        let mut end = std::pin::pin!(threads.end());
        // Not a wait for something to happen, but a time in which it may not.
        let ended = tokio::time::timeout(Duration::from_millis(100), &mut end).await;
        assert!(ended.is_err(), "it is not waited for");
        go.send(()).unwrap();
        end.await;
        assert!(written.load(Ordering::SeqCst));
        assert!(threads.run(|_| async {}).await.is_err(), "they have ended");
    }
}

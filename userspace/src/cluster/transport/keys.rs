//! Connections outlive the key under which they were made only for a while.

use tokio::sync::watch;

use crate::cluster::keyring::Keys;

/// Returns once that is not so of the keys, now or later; never when they cannot change any more.
pub(super) async fn no_longer(keys: &mut watch::Receiver<Keys>, so: impl Fn(&Keys) -> bool) {
    let changed = keys.wait_for(|k| !so(k)).await.is_ok();
    if !changed {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use async_trait::async_trait;
    use tokio::{net::TcpListener, runtime::Handle, sync::Semaphore, time::timeout};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        cluster::{
            identity::{ClusterId, ClusterKey},
            keyring::NumberedKey,
            raft::testing::{eventually, timing},
            transport::{Contact, Credentials, Handler, PeerAnswer, PeerError, PeerRequest, Peers, serve},
        },
        model::NodeId,
    };

    const PATIENCE: Duration = Duration::from_secs(10);

    fn numbered(generation: u64) -> NumberedKey {
        NumberedKey { generation, key: ClusterKey([generation as u8; 32]) }
    }

    fn ring(previous: Option<u64>, current: u64, pending: Option<u64>) -> Keys {
        let [previous, pending] = [previous, pending].map(|g| g.map(numbered));
        Keys { current: numbered(current), pending, previous }
    }

    fn credentials(me: NodeId, keys: &watch::Sender<Keys>) -> Arc<Credentials> {
        Arc::new(Credentials { id: ClusterId([7; 16]), keys: keys.subscribe(), me })
    }

    /// Answers `ReadIndex` when it is told to, all else at once.
    struct Slow {
        asked: AtomicUsize,
        go: Semaphore,
    }

    #[async_trait]
    impl Handler for Slow {
        async fn handle(&self, _: NodeId, request: PeerRequest) -> PeerAnswer {
            if matches!(request, PeerRequest::ReadIndex) {
                self.asked.fetch_add(1, Ordering::Relaxed);
                let _go = self.go.acquire().await.expect("it stays open");
                return PeerAnswer::Index(7);
            }
            PeerAnswer::Done
        }
    }

    /// Every step of a change between two nodes: what is under way is answered, whatever is asked next is too, and
    /// who has only the old key is put out.
    #[tokio::test(flavor = "multi_thread")]
    async fn requests_survive_a_change_of_the_key_and_connections_under_the_old_one_do_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = Contact { node: 2, address: listener.local_addr().unwrap().to_string() };
        let from: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let [ours, theirs, stale] = [(); 3].map(|()| watch::Sender::new(ring(None, 1, None)));
        let slow = Arc::new(Slow { asked: AtomicUsize::new(0), go: Semaphore::new(0) });
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, credentials(2, &theirs), slow.clone(), stop.clone()));
        let peers = |keys, me| Peers::new(credentials(me, keys), from.ip(), &timing(), Handle::current());
        let (us, outsider) = (peers(&ours, 1), peers(&stale, 3));
        let quick = |who: Peers| {
            let to = to.clone();
            async move { who.call(&to, &PeerRequest::Applied, PATIENCE).await }
        };
        assert!(matches!(quick(outsider.clone()).await, Ok(PeerAnswer::Done)));
        let under_way = {
            let (us, to) = (us.clone(), to.clone());
            tokio::spawn(async move { us.call(&to, &PeerRequest::ReadIndex, PATIENCE).await })
        };
        eventually("it is under way", || slow.asked.load(Ordering::Relaxed) == 1).await;

        let steps = [
            (ring(None, 1, None), ring(None, 1, Some(2))),
            (ring(None, 1, Some(2)), ring(None, 1, Some(2))),
            (ring(Some(1), 2, None), ring(None, 1, Some(2))),
            (ring(Some(1), 2, None), ring(Some(1), 2, None)),
            (ring(Some(1), 2, None), ring(None, 2, None)),
        ];
        for (mine, other) in steps {
            theirs.send_replace(other);
            ours.send_replace(mine);
            let answer = quick(us.clone()).await;
            assert!(matches!(answer, Ok(PeerAnswer::Done)), "{answer:?}");
        }
        slow.go.add_permits(1);
        let answer = timeout(PATIENCE, under_way).await.unwrap().unwrap();
        assert!(matches!(answer, Ok(PeerAnswer::Index(7))), "{answer:?}");
        assert_eq!(slow.asked.load(Ordering::Relaxed), 1, "asked once");
        ours.send_replace(ring(None, 2, None));
        assert!(matches!(quick(us).await, Ok(PeerAnswer::Done)));

        let shut_out = |e: &PeerError| e.to_string().contains("the cluster keys differ");
        let mut last = quick(outsider.clone()).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !last.as_ref().is_err_and(shut_out) {
            assert!(tokio::time::Instant::now() < deadline, "{last:?}");
            last = quick(outsider.clone()).await;
        }
        stop.cancel();
    }
}

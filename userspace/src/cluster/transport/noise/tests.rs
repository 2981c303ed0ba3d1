use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};

use super::{super::frame::Kind, *};
use crate::cluster::identity::ClusterKey;

fn credentials(me: NodeId) -> Credentials {
    with(me, Keys::first(ClusterKey([9; 32])))
}

fn with(me: NodeId, keys: Keys) -> Credentials {
    Credentials::fixed(ClusterId([7; 16]), keys, me)
}

fn pipe() -> (DuplexStream, DuplexStream) {
    duplex(1 << 20)
}

const PATIENCE: Duration = Duration::from_secs(5);

/// What caller and answerer make of one another.
async fn meet(
    caller: &Credentials,
    to: NodeId,
    answerer: &Credentials,
) -> (Option<LinkError>, Option<LinkError>) {
    let (mut a, mut b) = pipe();
    let (called, answered) = tokio::join!(call(&mut a, caller, to), answer(&mut b, answerer));
    (called.err(), answered.err())
}

async fn connected() -> ((DuplexStream, Seal), (DuplexStream, Seal)) {
    let (mut a, mut b) = pipe();
    let (me, you) = (credentials(1), credentials(2));
    let (called, answered) = tokio::join!(call(&mut a, &me, 2), answer(&mut b, &you));
    let (seal, from, generation) = answered.unwrap();
    assert_eq!((from, generation), (1, 1));
    ((a, called.unwrap().0), (b, seal))
}

#[tokio::test]
async fn members_meet_and_exchange_messages_of_any_length() {
    let ((mut a, seal_a), (mut b, seal_b)) = connected().await;
    let mut writer = seal_a.writer(&mut a);
    let mut reader = seal_b.reader(&mut b);
    for length in [0, 1, 65_000, 65_535, 300_000] {
        let message = Message { kind: Kind::Request, id: length as u64, body: vec![3; length] };
        writer.send(&message, PATIENCE).await.unwrap();
        assert_eq!(reader.receive(|| {}).await.unwrap(), message);
    }
    drop(writer);
    drop(a);
    assert!(matches!(reader.receive(|| {}).await, Err(LinkError::Closed)));
}

#[tokio::test]
async fn whoever_does_not_belong_is_told_why() {
    let (me, you) = (credentials(1), credentials(2));
    assert!(matches!(meet(&me, ANY_NODE, &you).await, (None, None)));
    let wrong = with(1, Keys::first(ClusterKey([8; 32])));
    assert!(matches!(meet(&wrong, 2, &you).await, (Some(LinkError::WrongKey), Some(LinkError::WrongKey))));
    let wrong = Credentials { id: ClusterId([8; 16]), ..me.clone() };
    assert!(matches!(
        meet(&wrong, 2, &you).await,
        (Some(LinkError::OtherCluster), Some(LinkError::OtherCluster))
    ));
    assert!(matches!(meet(&me, 3, &you).await, (Some(LinkError::OtherNode), Some(LinkError::OtherNode))));
}

fn numbered(generation: KeyGeneration) -> NumberedKey {
    NumberedKey { generation, key: ClusterKey([generation as u8; 32]) }
}

/// The one before, the present and the next.
fn ring(previous: Option<u64>, current: u64, pending: Option<u64>) -> Keys {
    Keys { current: numbered(current), pending: pending.map(numbered), previous: previous.map(numbered) }
}

#[tokio::test]
async fn every_accepted_key_lets_a_node_in_and_no_other_does() {
    for answerer in [ring(None, 3, None), ring(None, 3, Some(4)), ring(Some(2), 3, None)] {
        for generation in 1..6 {
            let caller = with(1, Keys::only(numbered(generation)));
            let you = with(2, answerer.clone());
            let (mut a, mut b) = pipe();
            let (called, answered) = tokio::join!(call(&mut a, &caller, 2), answer(&mut b, &you));
            if answerer.accepts(generation) {
                assert_eq!(called.unwrap().1, generation);
                assert_eq!(answered.unwrap().2, generation, "{answerer:?}");
            } else {
                assert!(matches!(called, Err(LinkError::WrongKey)), "{generation} at {answerer:?}");
                assert!(matches!(answered, Err(LinkError::WrongKey)));
            }
        }
    }
}

#[tokio::test]
async fn a_former_token_lets_nobody_in() {
    let you = with(2, ring(Some(2), 3, None));
    for (generation, welcome) in [(2, false), (3, true)] {
        let caller = with(ANY_NODE, Keys::only(numbered(generation)));
        let (called, answered) = meet(&caller, ANY_NODE, &you).await;
        assert_eq!(called.is_none(), welcome, "{called:?}");
        assert_eq!(answered.is_none(), welcome);
    }
    // Printed by a node that knows already that the offered key is used.
    let caller = with(ANY_NODE, Keys::only(numbered(4)));
    assert!(matches!(meet(&caller, ANY_NODE, &with(2, ring(None, 3, Some(4)))).await, (None, None)));
}

#[tokio::test]
async fn another_release_is_told_apart() {
    let (mut a, mut b) = pipe();
    let mut greeting = hello(ClusterId([7; 16]));
    greeting[4] = VERSION + 1;
    a.write_all(&greeting).await.unwrap();
    assert!(matches!(answer(&mut b, &credentials(2)).await, Err(LinkError::Version)));
    let mut verdict = [0; 3];
    a.read_exact(&mut verdict).await.unwrap();
    assert_eq!(verdict[0], Verdict::Version as u8);
}

#[tokio::test]
async fn what_is_no_vipd_is_told_apart() {
    let (mut a, mut b) = pipe();
    a.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(answer(&mut b, &credentials(2)).await, Err(LinkError::NotVipd)));
    let (mut a, mut b) = pipe();
    b.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
    assert!(matches!(call(&mut a, &credentials(1), 2).await, Err(LinkError::NotVipd)));
    let (mut a, b) = pipe();
    drop(b);
    assert!(call(&mut a, &credentials(1), 2).await.is_err());
}

#[tokio::test]
async fn a_changed_repeated_or_missing_message_ends_the_connection() {
    let message = Message { kind: Kind::Request, id: 1, body: b"release the address".to_vec() };
    for harm in 0..3 {
        let ((mut a, seal_a), (mut b, seal_b)) = connected().await;
        seal_a.writer(&mut a).send(&message, PATIENCE).await.unwrap();
        let mut sealed = vec![0; 2 + 13 + message.body.len() + 16];
        b.read_exact(&mut sealed).await.unwrap();
        let (mut forged, mut end) = pipe();
        match harm {
            0 => sealed[20] ^= 1,
            1 => sealed.extend(sealed.clone()),
            _ => sealed[1] -= 1,
        }
        forged.write_all(&sealed).await.unwrap();
        drop(forged);
        let mut reader = seal_b.reader(&mut end);
        let mut result = reader.receive(|| {}).await;
        if harm == 1 {
            assert_eq!(result.unwrap(), message);
            result = reader.receive(|| {}).await;
        }
        assert!(matches!(result, Err(LinkError::Nonsense(_))), "{harm}");
    }
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_given_up() {
    let ((mut a, seal), (_b, _)) = connected().await;
    let message = Message { kind: Kind::Request, id: 1, body: vec![0; 2 << 20] };
    let sent = seal.writer(&mut a).send(&message, Duration::from_millis(50)).await;
    assert!(matches!(sent, Err(LinkError::Timeout)));
}

proptest! {
    #[test]
    fn garbage_never_panics_and_is_never_let_in(bytes in prop::collection::vec(any::<u8>(), 0..400), greet in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut a, mut b) = pipe();
            let mut sent = if greet { hello(ClusterId([7; 16])) } else { Vec::new() };
            sent.extend(&bytes);
            a.write_all(&sent).await.unwrap();
            a.shutdown().await.unwrap();
            assert!(answer(&mut b, &credentials(2)).await.is_err());
            let (mut a, mut b) = pipe();
            b.write_all(&bytes).await.unwrap();
            b.shutdown().await.unwrap();
            assert!(call(&mut a, &credentials(1), 2).await.is_err());
        });
    }

    #[test]
    fn a_handshake_cut_off_anywhere_is_an_error(cut in 0..85_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut a, mut b) = pipe();
            let me = credentials(1);
            // The caller never hears back; what it sent is taken down.
            let calling = call(&mut a, &me, 2);
            let mut sent = vec![0; 21 + 2 + 32 + 16 + 16];
            tokio::select! {
                _ = calling => panic!("nobody answered"),
                read = b.read_exact(&mut sent) => { read.unwrap(); }
            }
            let (mut c, mut d) = pipe();
            c.write_all(&sent[..cut]).await.unwrap();
            c.shutdown().await.unwrap();
            assert!(answer(&mut d, &credentials(2)).await.is_err());
        });
    }
}

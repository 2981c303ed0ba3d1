use std::{
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::api::{ApiError, ErrorKind, Event, LONGEST_LINE, Progress, client::Client};

/// Answers without doing anything; counts the requests that watch and are still running.
#[derive(Default)]
struct Fake {
    watching: AtomicUsize,
    finished: AtomicUsize,
}

#[async_trait]
impl Backend for Fake {
    async fn handle(&self, request: Request, out: mpsc::Sender<Answer>) -> Answer {
        match request {
            Request::ClusterToken => Answer::Token("t".into()),
            Request::Delete { tag, .. } => {
                let _ = out.send(Answer::Progress(Progress { message: "going".into() })).await;
                tokio::task::yield_now().await;
                self.finished.fetch_add(1, Ordering::SeqCst);
                Answer::Done { message: format!("{tag} is gone") }
            }
            Request::Events { .. } => {
                self.watching.fetch_add(1, Ordering::SeqCst);
                for number in 1.. {
                    if out.send(Answer::Event(event(number))).await.is_err() {
                        break;
                    }
                }
                self.watching.fetch_sub(1, Ordering::SeqCst);
                Answer::done("")
            }
            Request::Interfaces { .. } => panic!("on purpose"),
            _ => Answer::Error(ApiError::refused("no")),
        }
    }
}

fn event(number: u64) -> Event {
    Event {
        number,
        time: String::new(),
        boot_ns: 0,
        tag: None,
        address: None,
        epoch: None,
        kind: "k".into(),
        message: String::new(),
    }
}

/// Runs a server in a thread of its own for as long as `test` takes.
fn with_server(test: impl FnOnce(&Path, &Fake)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run").join("vipd.sock");
    let backend = Arc::new(Fake::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(async { Server::bind(path.clone(), None) }).unwrap();
    let task = runtime.spawn(server.serve(backend.clone()));
    test(&path, &backend);
    task.abort();
    assert!(runtime.block_on(task).unwrap_err().is_cancelled());
    assert!(!path.exists(), "the socket is removed at the end");
}

fn lines_of(stream: UnixStream) -> impl Iterator<Item = Answer> {
    BufReader::new(stream).lines().map(|l| serde_json::from_str(&l.unwrap()).unwrap())
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

#[test]
fn requests_are_answered_in_turn_on_one_connection() {
    with_server(|path, _| {
        let mut client = Client::connect(path).unwrap();
        let mut progress = vec![];
        let delete =
            Request::Delete { tag: "ip-x".parse().unwrap(), hierarchy: false, force: false, wait: true };
        let answer = client.ask(&delete, |a| progress.push(a)).unwrap();
        assert_eq!(answer, Answer::done("ip-x is gone"));
        assert_eq!(progress, [Answer::Progress(Progress { message: "going".into() })]);
        assert_eq!(client.ask(&Request::ClusterToken, |_| ()).unwrap(), Answer::Token("t".into()));
        assert_eq!(client.ask(&Request::Status, |_| ()).unwrap_err().kind, ErrorKind::Refused);
    });
}

#[test]
fn only_owner_and_group_may_connect() {
    with_server(|path, _| {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o660);
    });
}

#[test]
fn garbage_is_answered_and_the_connection_goes_on() {
    with_server(|path, _| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream
            .write_all(b"what?\n{\"request\":\"no-such\"}\n\xff\xfe\n\n{\"request\":\"cluster-token\"}\n")
            .unwrap();
        let answers: Vec<Answer> = lines_of(stream).take(5).collect();
        for answer in &answers[..4] {
            assert!(matches!(answer, Answer::Error(e) if e.kind == ErrorKind::Usage), "{answer:?}");
        }
        assert_eq!(answers[4], Answer::Token("t".into()));
    });
}

#[test]
fn an_endless_line_is_cut_off() {
    with_server(|path, _| {
        let mut stream = UnixStream::connect(path).unwrap();
        let _ = stream.write_all(&vec![b'x'; LONGEST_LINE]);
        let mut answers = lines_of(stream);
        assert!(matches!(answers.next(), Some(Answer::Error(e)) if e.message.contains("longer than")));
        assert!(answers.next().is_none(), "closed");
    });
}

#[test]
fn a_client_that_closed_its_half_still_gets_its_answer() {
    with_server(|path, _| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"{\"request\":\"cluster-token\"}").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("token"), "{text}");
    });
}

#[test]
fn followers_run_side_by_side_and_end_with_their_clients() {
    with_server(|path, backend| {
        let mut followers = vec![];
        for _ in 0..3 {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(b"{\"request\":\"events\",\"follow\":true}\n").unwrap();
            followers.push(lines_of(stream));
        }
        for follower in &mut followers {
            let numbers: Vec<u64> = follower
                .take(100)
                .map(|a| match a {
                    Answer::Event(e) => e.number,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
        }
        let mut client = Client::connect(path).unwrap();
        assert!(client.ask(&Request::ClusterToken, |_| ()).is_ok(), "others are served meanwhile");
        drop(followers);
        wait_until("followers end", || backend.watching.load(Ordering::SeqCst) == 0);
    });
}

#[test]
fn a_change_runs_on_when_its_client_goes() {
    with_server(|path, backend| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"{\"request\":\"delete\",\"tag\":\"x\"}\n").unwrap();
        drop(stream);
        wait_until("finished", || backend.finished.load(Ordering::SeqCst) == 1);
    });
}

#[test]
fn a_panic_is_an_error_of_that_request_only() {
    with_server(|path, _| {
        let mut client = Client::connect(path).unwrap();
        let e = client.ask(&Request::Interfaces { address: None }, |_| ()).unwrap_err();
        assert_eq!(e.kind, ErrorKind::Failed);
        assert!(client.ask(&Request::ClusterToken, |_| ()).is_ok());
    });
}

#[tokio::test]
async fn a_living_daemons_socket_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vipd.sock");
    let first = Server::bind(path.clone(), None).unwrap();
    assert!(matches!(Server::bind(path.clone(), None), Err(BindError::Taken(_))));
    std::fs::remove_file(dir.path().join("vipd.sock.lock")).unwrap();
    assert!(matches!(Server::bind(path.clone(), None), Err(BindError::Taken(_))), "without its lock too");
    drop(first);
    assert!(Server::bind(path, None).is_ok());
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_other_files_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vipd.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(Server::bind(path.clone(), None).unwrap());
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Server::bind(path, None), Err(BindError::NotASocket(_))));
}

#[test]
fn no_daemon_is_exit_code_three_with_a_remedy() {
    let e = Client::connect(Path::new("/nonexistent/vipd.sock")).err().unwrap();
    assert_eq!(e.kind, ErrorKind::NoPermission);
    assert!(e.message.contains("systemctl start vipd"), "{}", e.message);
}

//! A metadata service on the loopback.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Answers by path; requests without the current token get 401. Ends with the test's runtime.
pub struct Server {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    items: BTreeMap<String, (u16, String)>,
    token: String,
    tokens_given: usize,
    asked: Vec<String>,
    hangs: bool,
    /// So many requests are answered with 500.
    failures: usize,
    /// Status of the answers to requests for a token.
    token_status: u16,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state =
            Arc::new(Mutex::new(State { token_status: 200, token: "first".to_owned(), ..State::default() }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        let server = Self { endpoint, state };
        for (path, text) in [
            ("instance-id", "i-0123456789abcdef0"),
            ("placement/region", "eu-central-1"),
            ("placement/availability-zone", "eu-central-1a"),
            ("network/interfaces/macs/0a:00:00:00:00:07/interface-id", "eni-7"),
            ("network/interfaces/macs/0a:00:00:00:00:07/vpc-id", "vpc-7\n"),
            ("network/interfaces/macs/0a:00:00:00:00:07/vpc-ipv4-cidr-blocks", "10.0.0.0/16\n10.1.0.0/20"),
        ] {
            server.set(path, 200, text);
        }
        server
    }

    pub fn set(&self, path: &str, status: u16, text: &str) {
        let path = format!("/latest/meta-data/{path}");
        self.state.lock().unwrap().items.insert(path, (status, text.to_owned()));
    }

    /// Forgets the tokens that it gave.
    pub fn restart(&self) {
        self.state.lock().unwrap().token = "second".to_owned();
    }

    pub fn hang(&self) {
        self.state.lock().unwrap().hangs = true;
    }

    pub fn fail(&self, times: usize) {
        self.state.lock().unwrap().failures = times;
    }

    pub fn refuse_tokens(&self, status: u16) {
        self.state.lock().unwrap().token_status = status;
    }

    /// Paths of the requests with a valid token.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }

    pub fn tokens_given(&self) -> usize {
        self.state.lock().unwrap().tokens_given
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let answer = state.lock().unwrap().answer(&head);
    match answer {
        Some(answer) => {
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        None => std::future::pending().await,
    }
}

impl State {
    fn answer(&mut self, head: &str) -> Option<String> {
        if self.hangs {
            return None;
        }
        let (status, body) = self.decide(head);
        let ttl = if status == 200 { "x-aws-ec2-metadata-token-ttl-seconds: 600\r\n" } else { "" };
        let length = body.len();
        Some(format!(
            "HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\n{ttl}connection: close\r\n\r\n{body}"
        ))
    }

    fn decide(&mut self, head: &str) -> (u16, String) {
        let mut words = head.split_whitespace();
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let header = |name: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        if (method, path) == ("PUT", "/latest/api/token") {
            if self.token_status != 200 {
                return (self.token_status, String::new());
            }
            assert!(header("x-aws-ec2-metadata-token-ttl-seconds").is_some(), "{head}");
            self.tokens_given += 1;
            return (200, self.token.clone());
        }
        if header("x-aws-ec2-metadata-token").as_ref() != Some(&self.token) {
            return (401, String::new());
        }
        if self.failures > 0 {
            self.failures -= 1;
            return (500, String::new());
        }
        self.asked.push(path.to_owned());
        self.items.get(path).cloned().unwrap_or((404, "<html>Not Found</html>".to_owned()))
    }
}

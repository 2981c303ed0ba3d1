//! As much of HTTP/1.1 as the cloud's clients and servers speak here, and a server that can break off in every
//! way that a fault needs.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use socket2::SockRef;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::{LocalSet, spawn_local},
};

use crate::netns::NetNs;

/// More is none of ours.
const LONGEST_BODY: usize = 16 << 20;

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

impl Request {
    pub fn new(method: &str, target: &str, body: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        Self { method, target, headers: Vec::new(), body: body.as_bytes().to_vec() }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// For a connection that ends with the answer. All headers stay as they are, for they may be signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            if !["connection", "content-length"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", self.body.len()));
        [head.as_bytes(), &self.body].concat()
    }

    /// Sends it and reads the whole answer. The socket decides which network that is in.
    ///
    /// # Errors
    /// When there is no answer within `patience` at any step, or half of one.
    pub fn exchange(&self, mut socket: std::net::TcpStream, patience: Duration) -> Result<Response> {
        socket.set_read_timeout(Some(patience)).context("no time-out can be set")?;
        socket.set_write_timeout(Some(patience)).context("no time-out can be set")?;
        socket.write_all(&self.to_bytes()).context("the request cannot be sent")?;
        let (mut all, mut part) = (Vec::new(), [0; 16_384]);
        loop {
            let got = socket.read(&mut part).context("the answer did not come")?;
            all.extend_from_slice(&part[..got]);
            if got == 0 || is_whole(&all) {
                return Response::parse(&all);
            }
        }
    }
}

/// moto's server keeps a connection open for some milliseconds after its answer: nobody waits for that.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let length = head(&String::from_utf8_lossy(&answer[..end])).and_then(|(_, headers)| length(&headers));
    matches!(length, Ok(Some(length)) if answer.len() >= end + 4 + length)
}

impl Response {
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Self { status, headers, body: body.into() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// # Errors
    /// When it is not one whole answer.
    pub fn parse(all: &[u8]) -> Result<Self> {
        ensure!(!all.is_empty(), "the connection was closed without an answer");
        let end =
            all.windows(4).position(|four| four == b"\r\n\r\n").context("the answer's head has no end")?;
        let (first, headers) = head(&String::from_utf8_lossy(&all[..end]))?;
        let status = first.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.with_context(|| format!("not an answer: {first}"))?;
        let body = all[end + 4..].to_vec();
        if let Some(length) = length(&headers)? {
            ensure!(body.len() == length, "the answer has {} of {length} bytes", body.len());
        }
        Ok(Self { status, headers, body })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            if !["connection", "content-length"].iter().any(|own| name.eq_ignore_ascii_case(own)) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
        [head.as_bytes(), &self.body].concat()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        412 => "Precondition Failed",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "-",
    }
}

/// The first line and the headers.
fn head(text: &str) -> Result<(String, Vec<(String, String)>)> {
    let mut lines = text.lines();
    let first = lines.next().context("an empty head")?.to_owned();
    let header = |line: &str| {
        let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line}"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    Ok((first, lines.map(header).collect::<Result<_>>()?))
}

fn length(headers: &[(String, String)]) -> Result<Option<usize>> {
    let Some(text) = header(headers, "content-length") else { return Ok(None) };
    let length = text.parse().with_context(|| format!("not a length: {text}"))?;
    ensure!(length <= LONGEST_BODY, "a body of {length} bytes");
    Ok(Some(length))
}

/// What becomes of a request's connection.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The connection stays open for more.
    Answer(Response),
    /// The head promises the whole body; only so many bytes of it come before the connection is closed.
    Cut(Response, usize),
    /// Closed in an orderly way, without an answer.
    Close,
    /// Broken off with a RST.
    Reset,
}

/// Answers requests, many at the same time on one thread. One whose client has gone goes on all the same.
pub trait Handler: 'static {
    fn answer(&self, request: Request, client: IpAddr) -> impl Future<Output = Reply>;
}

/// A server on a thread of its own; it and all its connections end when this is dropped.
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens in that namespace. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn start<H: Handler>(
        ns: &NetNs,
        address: SocketAddr,
        make: impl FnOnce() -> H + Send + 'static,
    ) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, listening) = std::sync::mpsc::channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            // Made on this thread, and so in its namespace.
            let bound = runtime.block_on(TcpListener::bind(address));
            let listener = match bound.and_then(|l| Ok((l.local_addr()?, l))) {
                Ok((address, listener)) => {
                    // Who started us waits for this.
                    let _ = ready.send(Ok(address));
                    listener
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let handler = Rc::new(make());
            let local = LocalSet::new();
            local.spawn_local(accept(listener, handler));
            // An error means that the other end was dropped, which stops us as well.
            let _ = local.block_on(&runtime, stopped);
        };
        let thread = ns.spawn("http", run)?;
        let bound = listening.recv().context("the server's thread died")?;
        let address = bound.with_context(|| format!("nothing can listen at {address}"))?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic inside has been printed already.
            let _ = thread.join();
        }
    }
}

async fn accept<H: Handler>(listener: TcpListener, handler: Rc<H>) {
    loop {
        match listener.accept().await {
            Ok((socket, client)) => {
                let handler = Rc::clone(&handler);
                spawn_local(async move {
                    // The client has broken off or talks nonsense: it sees for itself.
                    let _ = connection(socket, client.ip(), &*handler).await;
                });
            }
            // Too many open files, for instance: room comes when others end.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection<H: Handler>(socket: TcpStream, client: IpAddr, handler: &H) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut socket = BufReader::new(socket);
    while let Some(request) = read_request(&mut socket).await? {
        let last = request.header("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
        match handler.answer(request, client).await {
            Reply::Answer(response) => {
                socket.get_mut().write_all(&response.to_bytes()).await?;
                if last {
                    return Ok(());
                }
            }
            Reply::Cut(response, bytes) => {
                let all = response.to_bytes();
                let sent = all.len() - response.body.len() + bytes.min(response.body.len());
                socket.get_mut().write_all(&all[..sent]).await?;
                return Ok(());
            }
            Reply::Close => return Ok(()),
            Reply::Reset => {
                // With nothing to linger for, closing sends a RST.
                SockRef::from(socket.get_ref()).set_linger(Some(Duration::ZERO))?;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Nothing when the client has no more.
async fn read_request(socket: &mut BufReader<TcpStream>) -> Result<Option<Request>> {
    let mut text = String::new();
    loop {
        let before = text.len();
        if socket.read_line(&mut text).await? == 0 {
            if text.is_empty() {
                return Ok(None);
            }
            bail!("half a request");
        }
        if text[before..].trim().is_empty() {
            break;
        }
    }
    let (first, headers) = head(text.trim_end())?;
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().context("no target")?);
    ensure!(header(&headers, "transfer-encoding").is_none(), "chunks are not understood here");
    let mut body = vec![0; length(&headers)?.unwrap_or(0)];
    socket.read_exact(&mut body).await?;
    Ok(Some(Request { method: method.to_owned(), target: target.to_owned(), headers, body }))
}

/// Passes a request on, over a connection of its own, and waits for the whole answer.
///
/// # Errors
/// When the server cannot be reached or breaks off.
pub async fn forward(to: SocketAddr, request: &Request) -> Result<Response> {
    let mut socket = TcpStream::connect(to).await.with_context(|| format!("cannot reach {to}"))?;
    socket.set_nodelay(true)?;
    socket.write_all(&request.to_bytes()).await?;
    let mut all = Vec::new();
    while socket.read_buf(&mut all).await? > 0 && !is_whole(&all) {}
    Response::parse(&all)
}

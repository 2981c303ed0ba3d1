//! An HTTP client without a network.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_sdk_ec2::{
    config::{AsyncSleep, HttpClient, RuntimeComponents, Sleep, http::HttpRequest},
    error::ConnectorError,
};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
        orchestrator::HttpResponse,
    },
    http::StatusCode,
};
use aws_smithy_types::{body::SdkBody, byte_stream::ByteStream};

#[derive(Clone, Debug)]
pub enum Answer {
    Reply(u16, String),
    /// Taken, and never answered.
    Silence,
    /// Nobody is there to take it.
    Refused,
    /// Taken, and then the connection breaks.
    Reset,
}

type Hook = Box<dyn Fn(usize) + Send + Sync>;

/// Gives its answers one after the other, the last one again and again.
pub struct Fake {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Asked>>,
    /// Called with the number of the attempt (from 1) when it is "connected", before it is sent.
    connected: Mutex<Option<Hook>>,
    attempts: AtomicUsize,
    /// How many are being answered, and the most that there ever were.
    now: AtomicUsize,
    pub most: AtomicUsize,
    pub delay: Mutex<Duration>,
}

/// A request that was sent whole.
#[derive(Clone, Debug)]
pub struct Asked {
    pub body: String,
    pub authorization: String,
    pub connect_timeout: Option<Duration>,
}

impl Asked {
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.body.split('&').any(|pair| pair == format!("{name}={value}"))
    }
}

impl Fake {
    pub fn new(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            asked: Mutex::default(),
            connected: Mutex::default(),
            attempts: AtomicUsize::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            delay: Mutex::default(),
        })
    }

    /// Other answers from now on.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        *self.answers.lock().unwrap() = answers.into_iter().collect();
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How many requests were sent whole.
    pub fn sent(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    pub fn when_connected(&self, hook: impl Fn(usize) + Send + Sync + 'static) {
        *self.connected.lock().unwrap() = Some(Box::new(hook));
    }

    async fn answer(
        &self,
        request: HttpRequest,
        settings: HttpConnectorSettings,
    ) -> Result<HttpResponse, ConnectorError> {
        let number = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(hook) = &*self.connected.lock().unwrap() {
            hook(number);
        }
        let authorization = request.headers().get("authorization").unwrap_or_default().to_owned();
        let body = ByteStream::new(request.into_body()).collect().await;
        let body = body.map_err(|error| ConnectorError::user(error.into()))?.to_vec();
        let answer = {
            let mut answers = self.answers.lock().unwrap();
            if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
        };
        let answer = answer.expect("the script has an answer");
        if !matches!(answer, Answer::Refused) {
            let body = String::from_utf8(body).unwrap();
            let connect_timeout = settings.connect_timeout();
            self.asked.lock().unwrap().push(Asked { body, authorization, connect_timeout });
        }
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let delay = *self.delay.lock().unwrap();
        tokio::time::sleep(delay).await;
        let broken = |kind: std::io::ErrorKind| Err(ConnectorError::io(std::io::Error::from(kind).into()));
        let result = match answer {
            Answer::Reply(status, body) => {
                Ok(HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from(body)))
            }
            Answer::Silence => std::future::pending().await,
            Answer::Refused => broken(std::io::ErrorKind::ConnectionRefused),
            Answer::Reset => broken(std::io::ErrorKind::ConnectionReset),
        };
        self.now.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

/// With the settings of one call.
#[derive(Debug)]
struct Connector(Arc<Fake>, HttpConnectorSettings);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (fake, settings) = (Arc::clone(&self.0), self.1.clone());
        HttpConnectorFuture::new(async move { fake.answer(request, settings).await })
    }
}

/// The orphan rules want a type of ours.
#[derive(Debug)]
pub struct Shared(pub Arc<Fake>);

impl HttpClient for Shared {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector(Arc::clone(&self.0), settings.clone()))
    }
}

/// A hundred times as fast as the clock: no test waits for seconds, and the order of things stays. What is longer than
/// any attempt that a test has time out, and than any pause, never ends: a machine under load must not make a time-out
/// of the whole call.
#[derive(Debug)]
pub struct Hurried;

impl AsyncSleep for Hurried {
    fn sleep(&self, duration: Duration) -> Sleep {
        if duration > Duration::from_secs(20) {
            return Sleep::new(std::future::pending());
        }
        Sleep::new(tokio::time::sleep(duration / 100))
    }
}

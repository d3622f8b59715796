//! One kept-alive HTTP/1.1 connection, opened when it is needed.
//!
//! The connection's own work is done by whoever waits for its answer, in the same task: no
//! other task has to be woken for a request, and nothing outlives its owner.

use std::{
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    client::conn::http1::{self, SendRequest},
    service::Service,
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{client::legacy::connect::HttpConnector, service::TowerToHyperService};

use crate::emulate::{api_key::ApiKey, wire::Target};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The longest answer that is read; one to 10,000 records takes about 1 MB.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// The server, as its URL names it.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    uri: Uri,
    host: HeaderValue,
    /// Path of the URL without a trailing slash: the stage of an API gateway, usually nothing.
    pub(super) base_path: String,
}

impl Endpoint {
    pub(super) fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("--url {url:?} is no URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            bail!("--url {url:?} must begin with http:// or https://");
        }
        let authority = uri.authority().with_context(|| format!("--url {url:?} names no host"))?;
        if authority.as_str().contains('@') {
            bail!("--url must not hold a user name or password");
        }
        if uri.query().is_some() {
            bail!("--url {url:?} must not hold a query");
        }
        let host = HeaderValue::from_str(authority.as_str()).context("the URL's host is no header value")?;
        let base_path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { uri, host, base_path })
    }

    pub(super) fn host(&self) -> &str {
        self.host.to_str().unwrap_or_default()
    }

    fn is_encrypted(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Whether nobody on the way can read what is sent: it is encrypted, or stays on this machine.
    pub(super) fn is_private(&self) -> bool {
        let host = self.uri.host().unwrap_or_default();
        let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
        self.is_encrypted()
            || host.eq_ignore_ascii_case("localhost")
            || address.is_some_and(|address| address.is_loopback())
    }
}

/// Opens connections, encrypted or not.
#[derive(Clone)]
pub(super) enum Connector {
    Plain(TowerToHyperService<HttpConnector>),
    Encrypted(TowerToHyperService<HttpsConnector<HttpConnector>>),
}

impl Connector {
    pub(super) fn new(endpoint: &Endpoint, connect_timeout: Duration) -> anyhow::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect_timeout));
        if !endpoint.is_encrypted() {
            return Ok(Self::Plain(TowerToHyperService::new(tcp)));
        }
        tcp.enforce_http(false);
        // Which cryptography TLS uses is decided once per process, when it starts.
        let tls = HttpsConnectorBuilder::new()
            .with_native_roots()
            .context("this system has no certificates of authorities to trust")?
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self::Encrypted(TowerToHyperService::new(tls)))
    }

    async fn open(&self, uri: &Uri) -> Result<Open, Failure> {
        let cannot = |e: Box<dyn std::error::Error + Send + Sync>| Failure::Connect(chain(&*e));
        match self {
            Self::Plain(tcp) => Open::new(tcp.call(uri.clone()).await.map_err(|e| cannot(e.into()))?).await,
            Self::Encrypted(tls) => Open::new(tls.call(uri.clone()).await.map_err(cannot)?).await,
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no connection; nothing was sent.
    Connect(String),
    /// The connection had been closed before the request was sent; another one will do.
    Stale,
    /// The connection broke; what became of the request is unknown.
    Broken(String),
    Timeout,
}

impl Failure {
    pub(super) const NO_CONNECTION: &str = "no connection";

    /// The same for all failures that a person would call the same.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => Self::NO_CONNECTION,
            Self::Stale | Self::Broken(_) => "connection broken",
            Self::Timeout => "timeout",
        }
    }

    pub(super) fn message(&self) -> &str {
        match self {
            Self::Connect(message) | Self::Broken(message) => message,
            Self::Stale => "the server closed the connection",
            Self::Timeout => "no answer in time",
        }
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

pub(super) struct Connection {
    connector: Connector,
    endpoint: Endpoint,
    api_key: Option<ApiKey>,
    answer_timeout: Duration,
    open: Option<Open>,
}

impl Connection {
    pub(super) fn new(
        connector: Connector,
        endpoint: Endpoint,
        api_key: Option<ApiKey>,
        answer_timeout: Duration,
    ) -> Self {
        Self { connector, endpoint, api_key, answer_timeout, open: None }
    }

    /// Sends one request and reads the whole answer. After a failure the next call opens a new
    /// connection.
    pub(super) async fn exchange(&mut self, target: &Target, body: Bytes) -> Result<Answer, Failure> {
        let was_open = self.open.is_some();
        match self.exchange_once(target, body.clone()).await {
            // An idle server closes connections: that is no failure of this request.
            Err(Failure::Stale) if was_open => self.exchange_once(target, body).await,
            result => result,
        }
    }

    async fn exchange_once(&mut self, target: &Target, body: Bytes) -> Result<Answer, Failure> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let opening = tokio::time::timeout(self.answer_timeout, self.connector.open(&self.endpoint.uri));
                opening.await.unwrap_or(Err(Failure::Timeout))?
            }
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = target.method.clone();
        *request.uri_mut() = target.uri.clone();
        request.headers_mut().insert(header::HOST, self.endpoint.host.clone());
        request.headers_mut().insert(header::CONTENT_TYPE, target.content_type.clone());
        if let Some(key) = &self.api_key {
            request.headers_mut().insert(X_API_KEY, key.header());
        }
        let exchange = tokio::time::timeout(self.answer_timeout, open.exchange(request));
        let answer = exchange.await.unwrap_or(Err(Failure::Timeout))?;
        if !open.is_closed() {
            self.open = Some(open);
        }
        Ok(answer)
    }
}

struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// None once the connection has ended.
    driver: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
}

impl Open {
    async fn new<S>(stream: S) -> Result<Self, Failure>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, driver) = http1::handshake(stream).await.map_err(|e| Failure::Connect(chain(&e)))?;
        Ok(Self { sender, driver: Some(Box::pin(driver)) })
    }

    fn is_closed(&self) -> bool {
        self.driver.is_none() || self.sender.is_closed()
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let (sender, driver) = (&mut self.sender, &mut self.driver);
        let answer = async {
            sender.ready().await.map_err(|_| Failure::Stale)?;
            let response = sender.send_request(request).await.map_err(failure)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|e| Failure::Broken(chain(&*e)))?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        let mut answer = pin!(answer);
        poll_fn(|cx| {
            let result = answer.as_mut().poll(cx);
            if result.is_ready() {
                return result;
            }
            let ended = driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready());
            if ended {
                *driver = None;
            }
            // The driver may just have brought what the answer waits for.
            match answer.as_mut().poll(cx) {
                Poll::Pending if driver.is_none() => {
                    Poll::Ready(Err(Failure::Broken("the server closed the connection".to_owned())))
                }
                result => result,
            }
        })
        .await
    }
}

fn failure(error: hyper::Error) -> Failure {
    if error.is_canceled() { Failure::Stale } else { Failure::Broken(chain(&error)) }
}

/// An error and its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

/// Whether a failure means that nobody listens there, as far as the system's words tell.
pub(super) fn is_refused(failure: &Failure) -> bool {
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused).to_string();
    matches!(failure, Failure::Connect(message) if message.to_lowercase().contains(&refused))
}

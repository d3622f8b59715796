//! A process with all doors and a log in memory, asked without sockets.

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    body::{Body, Bytes},
};
use event_log::MemoryLog;
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use model::{EventLog, Offset, Record, Stop, TopicChange, TopicName, TopicPartition, config::Config};
use serde_json::Value;
use server::{Services, auth::Auth, metrics::Metrics, orchestrator::Handle, router};
use tower::ServiceExt;

/// What Kinesis asks for where any signature will do.
pub(super) const SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=AKID/20261121/us-east-1/kinesis/aws4_request, \
     SignedHeaders=host, Signature=00";

/// Reading the settings each time would be most of the work. Topics stay small, so that an input that
/// asks for many partitions is no slow one.
static CONFIG: LazyLock<Arc<Config>> = LazyLock::new(|| {
    let mut config = Config::defaults();
    config.ingest.max_partitions_per_topic = 32;
    Arc::new(config)
});

/// One input is one run, with a clock of its own that does not wait: whoever has to wait an hour finds
/// it gone.
pub(super) fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime starts").block_on(future);
}

pub(super) struct Door {
    pub(super) log: Arc<MemoryLog>,
    router: Router,
}

#[derive(Debug)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// All doors over a log, and nothing else.
pub(super) fn doors(log: Arc<dyn EventLog>, config: Arc<Config>) -> Router {
    let services = Services {
        log,
        layers: None,
        query: None,
        ingest: true,
        auth: Arc::new(Auth::off()),
        tasks: Handle::default(),
        streams: Arc::new([]),
        metrics: Arc::new(Metrics::new()),
        unattended: Default::default(),
        config,
    };
    router::router(services, Stop::new())
}

impl Door {
    /// Over an empty log.
    pub(super) fn new() -> Self {
        Self::over(Arc::new(MemoryLog::new()))
    }

    pub(super) fn over(log: Arc<MemoryLog>) -> Self {
        Self { router: doors(log.clone(), CONFIG.clone()), log }
    }

    pub(super) async fn create(&self, topic: &str, n_partitions: u32) {
        let create = TopicChange::Create { n_partitions };
        self.log.change_topic(&name(topic), create).await.expect("there is room");
    }

    pub(super) async fn append(&self, topic: &str, partition: u32, records: Vec<Record>) {
        let partition = TopicPartition::new(name(topic), partition);
        self.log.append(&partition, records).await.expect("there is room");
    }

    /// How many records the topic has.
    pub(super) async fn n_records(&self, topic: &str) -> u64 {
        let n_partitions = self.log.describe().await.expect("a log in memory").topics.get(topic).copied().unwrap_or(0);
        let mut n = 0;
        for partition in 0..n_partitions {
            let bounds = self.log.bounds(&TopicPartition::new(name(topic), partition)).await.expect("it is there");
            n += bounds.end.0 - bounds.start.0;
        }
        n
    }

    /// The record that a receipt speaks of.
    pub(super) async fn record(&self, topic: &str, partition: u32, offset: u64) -> Record {
        let partition = TopicPartition::new(name(topic), partition);
        let found = self.log.fetch(&partition, Offset(offset), 1).await;
        let found = found.unwrap_or_else(|e| panic!("{partition} has nothing at {offset}: {e}"));
        let first = found.into_iter().next().unwrap_or_else(|| panic!("{partition} has nothing at {offset}"));
        assert_eq!(first.offset, Offset(offset));
        first.record
    }

    /// None if this is no request at all: hyper would not have let it in.
    pub(super) async fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Option<http::Response<Body>> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).ok()?;
        Some(self.router.clone().oneshot(request).await.expect("the router never fails"))
    }

    pub(super) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Said {
        let response = self.try_ask(method, path, headers, body).await.expect("a request of known parts");
        Said::of(response).await
    }
}

impl Said {
    pub(super) async fn of(response: http::Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("answers are whole").to_bytes();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What Kafka's doors answer instead of what was asked for: a status of the client's, a code that
    /// begins with it, and a text.
    pub(super) fn check_refusal(&self) {
        assert!((400..500).contains(&self.status), "{self:?}");
        let answer = self.json();
        let code = answer["error_code"].as_u64().unwrap_or_else(|| panic!("{self:?} has no code"));
        // The proxy has codes of five digits, and 500 and up for what no client has done.
        assert!(code < 600 && code == u64::from(self.status) || code >= 10_000, "{self:?}");
    }
}

pub(super) fn name(topic: &str) -> TopicName {
    topic.parse().expect("a topic's name")
}

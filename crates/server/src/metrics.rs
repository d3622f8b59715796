//! What `/metrics` shows, in OpenMetrics text: counters that the doors, the views and the
//! driver raise, and gauges that are read from the log, the driver and `/proc` at each scrape.
//!
//! Relies on route templates, view names and task names being few. Topic names are not, so
//! they are capped: what comes after the first `MAX_TOPIC_LABELS` counts as `other`.

mod process;

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    hash::Hash,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use http::{Method, StatusCode};
use model::{EventLog, Scope, TopicName};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry},
};

use crate::orchestrator::{Handle, State, is_level};

/// The media type of [`Metrics::scrape`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Topics with a label of their own; a topic is whatever a producer names.
const MAX_TOPIC_LABELS: usize = 200;
/// Partitions whose offsets are shown at a scrape.
const MAX_PARTITION_LABELS: usize = 1000;
const OTHER: &str = "other";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TopicLabels {
    topic: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PartitionLabels {
    topic: String,
    partition: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TaskLabels {
    task: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FigureLabels {
    task: &'static str,
    figure: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ViewLabels {
    view: String,
    scope: String,
}

/// One per process, passed by value inside an `Arc`.
pub struct Metrics {
    registry: Registry,
    /// Bytes of requests' bodies and of answers to readers held in memory now.
    pub inflight_bytes: Gauge,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabels, Histogram>,
    appended_records: Family<TopicLabels, Counter>,
    appended_bytes: Family<TopicLabels, Counter>,
    consumed_records: Family<TopicLabels, Counter>,
    consumed_bytes: Counter,
    refused: Family<ReasonLabels, Counter>,
    view_seconds: Family<ViewLabels, Histogram>,
    task_runs: Family<TaskLabels, Counter>,
    task_failures: Family<TaskLabels, Counter>,
    task_seconds: Family<TaskLabels, Histogram>,
    task_figures: Family<FigureLabels, Counter>,
    task_levels: Family<FigureLabels, Gauge>,
    topics: Mutex<HashSet<TopicName>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("corkboard");
        let build = [("version", env!("CARGO_PKG_VERSION")), ("profile", PROFILE)];
        registry.register("build", "The running binary", Info::new(build));
        let r = &mut registry;
        Self {
            inflight_bytes: registered(
                r,
                "ingest_inflight_bytes",
                "Bytes of requests' bodies and of answers to readers held in memory",
            ),
            requests: registered(r, "http_requests", "Requests answered"),
            request_seconds: registered_seconds(r, "http_request_seconds", "How long requests took"),
            appended_records: registered(r, "appended_records", "Records on stable storage"),
            appended_bytes: registered(r, "appended_bytes", "Key, value and header bytes on stable storage"),
            consumed_records: registered(r, "consumed_records", "Records returned to consumers over HTTP"),
            consumed_bytes: registered(r, "consumed_bytes", "Key and value bytes returned to consumers over HTTP"),
            refused: registered(r, "refused_requests", "Requests refused, by reason"),
            view_seconds: registered_seconds(r, "view_query_seconds", "How long views took to answer"),
            task_runs: registered(r, "task_runs", "Runs of a task that ended"),
            task_failures: registered(r, "task_failures", "Runs of a task that failed"),
            task_seconds: registered_seconds(r, "task_run_seconds", "How long a task's runs took"),
            task_figures: registered(r, "task_figures", "What a task's runs reported, added up"),
            task_levels: registered(r, "task_levels", "How things stood after a task's last run"),
            topics: Mutex::default(),
            registry,
        }
    }

    /// One request was answered. `route` is the router's template, never the path as asked.
    pub fn request(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let labels =
            RequestLabels { route: route.to_owned(), method: method_label(method), status: status_class(status) };
        self.requests.get_or_create(&labels).inc();
        self.request_seconds.get_or_create(&RouteLabels { route: labels.route }).observe(took.as_secs_f64());
    }

    /// Records of one topic were acknowledged.
    pub fn appended(&self, topic: &TopicName, n_records: u64, size_bytes: u64) {
        let labels = TopicLabels { topic: self.topic_label(topic) };
        self.appended_records.get_or_create(&labels).inc_by(n_records);
        self.appended_bytes.get_or_create(&labels).inc_by(size_bytes);
    }

    /// Records were returned to a consumer.
    pub fn consumed(&self, n_records: &BTreeMap<TopicName, u64>, size_bytes: u64) {
        for (topic, n_records) in n_records {
            let labels = TopicLabels { topic: self.topic_label(topic) };
            self.consumed_records.get_or_create(&labels).inc_by(*n_records);
        }
        self.consumed_bytes.inc_by(size_bytes);
    }

    /// A request was refused; reasons are constants such as `too_large`, `overloaded`.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A view that exists was answered.
    pub fn view_answered(&self, view: &str, scope: Scope, took: Duration) {
        let labels = ViewLabels { view: view.to_owned(), scope: scope.to_string() };
        self.view_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A task's run ended; `report` is None when it failed.
    pub fn task_ran(&self, task: &'static str, report: Option<&model::Report>, took: Duration) {
        let labels = TaskLabels { task };
        self.task_runs.get_or_create(&labels).inc();
        self.task_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        let Some(report) = report else {
            self.task_failures.get_or_create(&labels).inc();
            return;
        };
        for (&figure, &n) in &report.figures {
            let labels = FigureLabels { task, figure };
            if is_level(figure) {
                self.task_levels.get_or_create(&labels).set(gauge(n));
            } else {
                self.task_figures.get_or_create(&labels).inc_by(n);
            }
        }
    }

    /// Everything as OpenMetrics text. A log that cannot be read leaves its gauges out, which
    /// `corkboard_log_up` then says.
    pub async fn scrape(&self, log: &dyn EventLog, tasks: &Handle) -> String {
        let mut now = Registry::with_prefix("corkboard");
        register_log(&mut now, log).await;
        register_tasks(&mut now, tasks);
        let mut process = Registry::with_prefix("process");
        process::register(&mut process);
        let mut out = String::new();
        self.encode(&mut out, &[&now, &process]).expect("writing to a string cannot fail");
        out
    }

    fn encode(&self, out: &mut String, more: &[&Registry]) -> fmt::Result {
        text::encode_registry(out, &self.registry)?;
        for registry in more {
            text::encode_registry(out, registry)?;
        }
        text::encode_eof(out)
    }

    fn topic_label(&self, topic: &TopicName) -> String {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let has_label = topics.contains(topic) || (topics.len() < MAX_TOPIC_LABELS && topics.insert(topic.clone()));
        if has_label { topic.to_string() } else { OTHER.to_owned() }
    }
}

const PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

fn registered<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: Metric + Clone + Default,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn registered_seconds<L>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Histogram>
where
    L: EncodeLabelSet + Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static,
{
    let family = Family::new_with_constructor(seconds as fn() -> Histogram);
    registry.register(name, help, family.clone());
    family
}

async fn register_log(registry: &mut Registry, log: &dyn EventLog) {
    let up: Gauge = registered(registry, "log_up", "1 when the log answers");
    let partitions: Gauge = registered(registry, "log_partitions", "Partitions of all topics");
    let start: Family<PartitionLabels, Gauge> = registered(registry, "log_start_offset", "Log start offset");
    let end: Family<PartitionLabels, Gauge> = registered(registry, "log_end_offset", "Log end offset");
    let Ok(description) = log.describe().await else { return };
    up.set(1);
    for (i, partition) in description.partitions().enumerate() {
        partitions.inc();
        if i >= MAX_PARTITION_LABELS {
            continue;
        }
        // A partition may go away between the two questions; it is then no longer shown.
        let Ok(bounds) = log.bounds(&partition).await else { continue };
        let labels = PartitionLabels { topic: partition.topic.to_string(), partition: partition.partition };
        start.get_or_create(&labels).set(gauge(bounds.start.0));
        end.get_or_create(&labels).set(gauge(bounds.end.0));
    }
}

fn register_tasks(registry: &mut Registry, tasks: &Handle) {
    let running: Family<TaskLabels, Gauge> = registered(registry, "task_running", "1 while the task runs");
    let failing: Family<TaskLabels, Gauge> =
        registered(registry, "task_failing", "Failures of the task since it last succeeded");
    let succeeded: Family<TaskLabels, Gauge<f64, AtomicU64>> = registered(
        registry,
        "task_last_success_timestamp_seconds",
        "When a run of the task last ended well; 0 before the first",
    );
    for status in tasks.statuses() {
        let labels = TaskLabels { task: status.name };
        running.get_or_create(&labels).set(i64::from(status.state == State::Running));
        failing.get_or_create(&labels).set(gauge(status.n_failures_in_a_row));
        let at_ms = status.last_success_ms.unwrap_or_default();
        succeeded.get_or_create(&labels).set(at_ms as f64 / 1000.0);
    }
}

/// Offsets and counts stay far below 2^63.
fn gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// From half a millisecond (one fsync) to five minutes (a batch run).
fn seconds() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
    ])
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => OTHER,
    }
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

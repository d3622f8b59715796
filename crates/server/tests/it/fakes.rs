//! A log and views without an engine: as many records as a test says, and rows that it gives.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use model::{
    Answer, Bounds, Dedup, Ended, EventLog, LogDescription, LogError, LogId, Offset, OffsetRange, Query, QueryError,
    Record, Scope, StoredRecord, StreamDef, TopicChange, TopicName, TopicPartition, ViewDef,
    config::Config,
    query::{Ask, Boundary, RowFormat},
};
use server::{Services, auth::Auth, metrics::Metrics, orchestrator::Handle};
use tokio::sync::watch;

/// Counts records and keeps none.
#[derive(Default)]
pub(crate) struct CountingLog {
    ends: Mutex<BTreeMap<TopicName, Vec<u64>>>,
    moved: watch::Sender<u64>,
}

impl CountingLog {
    pub(crate) fn with(topics: &[(&str, &[u64])]) -> Arc<Self> {
        let ends = topics.iter().map(|(topic, ends)| (topic.parse().expect("a topic name"), ends.to_vec()));
        Arc::new(Self { ends: Mutex::new(ends.collect()), moved: watch::Sender::default() })
    }

    pub(crate) fn grow(&self, topic: &str, partition: usize, n_records: u64) {
        self.ends.lock().expect("no test panics with the lock").get_mut(topic).expect("a topic of this log")
            [partition] += n_records;
        self.moved.send_modify(|n| *n += 1);
    }
}

#[async_trait]
impl EventLog for CountingLog {
    async fn describe(&self) -> Result<LogDescription, LogError> {
        let ends = self.ends.lock().expect("no test panics with the lock");
        let topics = ends.iter().map(|(topic, ends)| (topic.clone(), ends.len() as u32)).collect();
        Ok(LogDescription { id: LogId { epoch: 3, ..LogId::NONE }, topics, ended: Ended::default() })
    }

    async fn change_topic(&self, topic: &TopicName, change: TopicChange) -> Result<(), LogError> {
        let mut ends = self.ends.lock().expect("no test panics with the lock");
        match change {
            TopicChange::Create { .. } if ends.contains_key(topic) => {
                return Err(LogError::TopicExists(topic.clone()));
            }
            TopicChange::Create { n_partitions } | TopicChange::Grow { n_partitions } => {
                ends.entry(topic.clone()).or_default().resize(n_partitions as usize, 0);
            }
            TopicChange::Delete | TopicChange::DeleteUnlessGrown { .. } => drop(ends.remove(topic)),
        }
        Ok(())
    }

    async fn append(&self, partition: &TopicPartition, records: Vec<Record>) -> Result<OffsetRange, LogError> {
        let start = self.bounds(partition).await?.end;
        self.grow(partition.topic.as_str(), partition.partition as usize, records.len() as u64);
        Ok(OffsetRange { partition: partition.clone(), start, end: start.plus(records.len()) })
    }

    async fn fetch(&self, _: &TopicPartition, _: Offset, _: usize) -> Result<Vec<StoredRecord>, LogError> {
        Err(LogError::unavailable("this log counts records and keeps none"))
    }

    async fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        let ends = self.ends.lock().expect("no test panics with the lock");
        let of_topic = ends.get(&partition.topic).ok_or_else(|| LogError::UnknownTopic(partition.topic.clone()))?;
        let end = of_topic.get(partition.partition as usize);
        let end = end.ok_or_else(|| LogError::UnknownPartition(partition.clone()))?;
        Ok(Bounds { start: Offset::ZERO, end: Offset(*end) })
    }

    async fn trim(&self, _: &TopicPartition, _: Offset) -> Result<(), LogError> {
        Ok(())
    }

    fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }
}

/// Views whose JSON rows are given. Batch and speed layer have come as far as they were moved.
pub(crate) struct GivenViews {
    log: Arc<CountingLog>,
    views: Vec<(ViewDef, String)>,
    pub(crate) batch_percent: AtomicU64,
    pub(crate) realtime_percent: AtomicU64,
}

impl GivenViews {
    /// Each view: its name, its chart hint, its rows as a JSON array.
    pub(crate) fn of(log: Arc<CountingLog>, views: &[(&str, &str, &str)]) -> Arc<Self> {
        let views = views.iter().map(|(name, chart, rows)| {
            let title = name.replace('_', " ");
            let text = format!("-- title: {title}\n-- question: What about {title}?\n-- chart: {chart}\nSELECT 1\n");
            (ViewDef::parse(name, &text).expect("a view"), (*rows).to_owned())
        });
        let (batch_percent, realtime_percent) = (AtomicU64::new(60), AtomicU64::new(90));
        Arc::new(Self { log, views: views.collect(), batch_percent, realtime_percent })
    }

    async fn through(&self, percent: u64) -> BTreeMap<TopicPartition, Offset> {
        let mut through = BTreeMap::new();
        for partition in self.log.describe().await.expect("this log answers").partitions() {
            let end = self.log.bounds(&partition).await.expect("a partition of this log").end.0;
            through.insert(partition, Offset(end * percent / 100));
        }
        through
    }
}

#[async_trait]
impl Query for GivenViews {
    fn views(&self) -> Vec<ViewDef> {
        self.views.iter().map(|(view, _)| view.clone()).collect()
    }

    async fn query(&self, ask: &Ask) -> Result<Answer, QueryError> {
        let Some((_, rows)) = self.views.iter().find(|(view, _)| view.name == ask.view) else {
            let known = self.views.iter().map(|(v, _)| v.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(QueryError::UnknownView { name: ask.view.clone(), known });
        };
        if let Some(reason) = rows.strip_prefix("unavailable: ") {
            return Err(QueryError::Unavailable(reason.to_owned()));
        }
        if let Some(cause) = rows.strip_prefix("failed: ") {
            return Err(QueryError::Failed(anyhow::anyhow!("{cause}").context("planning the view")));
        }
        let boundary = Boundary {
            scope: ask.scope,
            batch_through: self.through(self.batch_percent.load(Ordering::Relaxed)).await,
            realtime_through: self.through(self.realtime_percent.load(Ordering::Relaxed)).await,
            tail_through: self.through(100).await,
            batch_age_ms: Some(3 * 3_600_000),
            realtime_age_ms: Some(2100),
            tail_age_ms: (ask.scope != Scope::Batch).then_some(12),
            complete: true,
            dedup: BTreeMap::from([("pin".to_owned(), Dedup::Key)]),
        };
        let body = match ask.format {
            RowFormat::Json => Bytes::from(rows.clone()),
            RowFormat::Csv => Bytes::from_static(b"category,n\r\nart,1\r\n"),
            RowFormat::Arrow => Bytes::from_static(b"\xff\xff\xff\xff"),
        };
        let n_rows = serde_json::from_str::<Vec<serde_json::Value>>(rows).expect("rows are a JSON array").len();
        Ok(Answer { n_rows, body, boundary })
    }
}

pub(crate) fn streams() -> Arc<[StreamDef]> {
    let stream = |name: &str| {
        let text = format!(
            "name = \"{name}\"\ntopics = [\"*.{name}\"]\nkey = [\"ind\"]\nrequired = [\"ind\"]\n[[column]]\nname = \"ind\"\n"
        );
        StreamDef::parse(name, &text, "SELECT ind FROM raw").expect("a stream")
    };
    ["pin", "geo", "user"].into_iter().map(stream).collect()
}

pub(crate) fn services(log: Arc<CountingLog>, query: Option<Arc<dyn Query>>, tasks: Handle) -> Services {
    Services {
        log,
        layers: None,
        query,
        ingest: true,
        auth: Arc::new(Auth::off()),
        tasks,
        streams: streams(),
        metrics: Arc::new(Metrics::new()),
        unattended: Default::default(),
        config: Arc::new(Config::defaults()),
    }
}

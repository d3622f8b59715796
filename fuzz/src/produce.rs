//! Any body of a produce request, in each format, through the whole router: an answer of the door's
//! own kind, and what is stored means what was sent.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use async_trait::async_trait;
use axum::{Router, body::Body};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use model::{
    Bounds, Ended, EventLog, LogDescription, LogError, LogId, Offset, OffsetRange, Record, StoredRecord, TopicChange,
    TopicName, TopicPartition, config::Config,
};
use serde_json::Value;
use tokio::{runtime::Runtime, sync::watch};
use tower::ServiceExt;

use super::door::doors;

const N_PARTITIONS: u32 = 3;

/// Remembers what one request appended.
#[derive(Default)]
struct LastAppends(Mutex<Vec<Record>>);

impl LastAppends {
    fn take(&self) -> Vec<Record> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl EventLog for LastAppends {
    async fn describe(&self) -> Result<LogDescription, LogError> {
        let topic: TopicName = "pin".parse().expect("a name");
        let topics = BTreeMap::from([(topic, N_PARTITIONS)]);
        Ok(LogDescription { id: LogId::NONE, topics, ended: Ended::default() })
    }

    async fn change_topic(&self, topic: &TopicName, _: TopicChange) -> Result<(), LogError> {
        Err(LogError::TopicExists(topic.clone()))
    }

    async fn append(&self, partition: &TopicPartition, records: Vec<Record>) -> Result<OffsetRange, LogError> {
        assert!(partition.partition < N_PARTITIONS && !records.is_empty());
        let (start, end) = (Offset::ZERO, Offset::ZERO.plus(records.len()));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(records);
        Ok(OffsetRange { partition: partition.clone(), start, end })
    }

    async fn fetch(&self, _: &TopicPartition, _: Offset, _: usize) -> Result<Vec<StoredRecord>, LogError> {
        Ok(Vec::new())
    }

    async fn bounds(&self, _: &TopicPartition) -> Result<Bounds, LogError> {
        Ok(Bounds { start: Offset::ZERO, end: Offset::ZERO })
    }

    async fn trim(&self, _: &TopicPartition, _: Offset) -> Result<(), LogError> {
        Ok(())
    }

    fn moved(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }
}

struct Door {
    runtime: Runtime,
    log: Arc<LastAppends>,
    usual: Router,
    strict: Router,
}

/// The fuzzer calls a function without state; building a router each time would be most of the work.
static DOOR: LazyLock<Door> = LazyLock::new(|| {
    let log = Arc::new(LastAppends::default());
    let router = |strict: bool| {
        let mut config = Config::defaults();
        config.ingest.strict = strict;
        doors(log.clone(), Arc::new(config))
    };
    let (usual, strict) = (router(false), router(true));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    Door { runtime, log, usual, strict }
});

const JSON: &str = "application/vnd.kafka.json.v2+json";
const MEDIA_TYPES: [&str; 4] =
    [JSON, "application/vnd.kafka.binary.v2+json", "application/vnd.kafka.avro.v2+json", "application/json"];

pub fn check(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let media_type = MEDIA_TYPES[usize::from(choice & 3)];
    let router = if choice & 4 == 0 { &DOOR.usual } else { &DOOR.strict };
    let request = Request::post("/topics/pin").header("content-type", media_type).body(Body::from(body.to_vec()));
    let request = request.expect("a request of known parts");
    let (status, answer) = DOOR.runtime.block_on(async {
        let response = router.clone().oneshot(request).await.expect("the router never fails");
        let status = response.status();
        (status, response.into_body().collect().await.expect("answers are whole").to_bytes())
    });
    let answer: Value = serde_json::from_slice(&answer).expect("answers are JSON");
    let stored = DOOR.log.take();
    if status != StatusCode::OK {
        assert!([400, 404, 413, 415, 422].contains(&status.as_u16()), "{status}: {answer}");
        assert!(answer["error_code"].is_u64() && stored.is_empty(), "{status}: {answer}");
        return;
    }
    let receipts = answer["offsets"].as_array().expect("receipts");
    assert_eq!(receipts.len(), stored.len());
    if media_type.contains("json.v2") || media_type.ends_with("/json") {
        same_values(body, &receipts.iter().map(|r| r["partition"].as_u64()).collect::<Vec<_>>(), &stored);
    }
}

/// Whether each value that was stored means what serde_json reads in its place; it cannot say for
/// numbers beyond its types.
fn same_values(body: &[u8], partitions: &[Option<u64>], stored: &[Record]) {
    let Ok(mut sent) = serde_json::from_slice::<Value>(body) else { return };
    let mut sent: Vec<Value> =
        sent["records"].as_array_mut().expect("it was stored").iter_mut().map(|r| r["value"].take()).collect();
    // Appends are made partition by partition, in the order in which these appear.
    let mut in_order = Vec::new();
    for (i, partition) in partitions.iter().enumerate() {
        if !partitions[..i].contains(partition) {
            in_order.extend((i..partitions.len()).filter(|j| partitions[*j] == *partition));
        }
    }
    for (i, record) in in_order.into_iter().zip(stored) {
        let value = record.value.as_deref().unwrap_or(b"null");
        if let Ok(value) = serde_json::from_slice::<Value>(value) {
            assert_eq!(value, sent[i].take());
        }
    }
}

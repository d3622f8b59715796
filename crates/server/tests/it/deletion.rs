//! Topics that are deleted, at each door that does so: once the layers have taken what was
//! acknowledged, or not at all.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use event_log::MemoryLog;
use model::{Behind, EventLog, Layers, TopicName};
use serde_json::json;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    harness::JSON,
    kinesis_client::{AMZ_JSON, SIGNATURE},
    meddled::Meddled,
    node::{Node, Said, append, create, partition},
};

const BEHIND: &str = "Behind are landing, which is at 0 of t-0 [0, 1)";
const REFUSED: &str = "Topic t was not deleted: its records would be lost to the views. Behind are landing, which is \
                       at 0 of t-0 [0, 1). Try again in a moment.";

/// Layers that take a topic when a test lets them, as far as it reached when they were asked.
struct Slow {
    log: Arc<MemoryLog>,
    asked: Semaphore,
    lets: Semaphore,
    is_behind: Mutex<bool>,
}

impl Slow {
    fn of(log: &Arc<MemoryLog>) -> Arc<Self> {
        let (asked, lets) = (Semaphore::new(0), Semaphore::new(0));
        Arc::new(Self { log: log.clone(), asked, lets, is_behind: Mutex::new(false) })
    }

    async fn are_asked(&self) {
        self.asked.acquire().await.unwrap().forget();
    }

    fn take(&self) {
        self.lets.add_permits(1);
    }
}

#[async_trait]
impl Layers for Slow {
    async fn take(&self, topic: &TopicName, patience: Duration) -> Result<u64, Behind> {
        assert!(patience <= Duration::from_secs(10), "it waits as long as ingest.delete_timeout_ms says");
        let n_partitions = self.log.describe().await.unwrap().topics.get(topic).copied().unwrap_or_default();
        let mut sum_of_ends = 0;
        for number in 0..n_partitions {
            sum_of_ends += self.log.bounds(&partition(topic.as_str(), number)).await.unwrap().end.0;
        }
        self.asked.add_permits(1);
        self.lets.acquire().await.unwrap().forget();
        if *self.is_behind.lock().unwrap() { Err(Behind(BEHIND.to_owned())) } else { Ok(sum_of_ends) }
    }
}

/// By each door: the status when it was deleted, and what is said when it was not.
const DOORS: [(&str, u16, u16); 3] = [("v3", 204, 409), ("kinesis", 200, 400), ("gateway", 200, 400)];

async fn delete(node: &Node, log: &MemoryLog, door: &str) -> Said {
    match door {
        "v3" => node.delete(&format!("/v3/clusters/{}/topics/t", log.describe().await.unwrap().id.id)).await,
        "gateway" => node.delete("/prod/streams/t").await,
        _ => kinesis(node, "DeleteStream", &json!({ "StreamName": "t" })).await,
    }
}

async fn kinesis(node: &Node, action: &str, body: &serde_json::Value) -> Said {
    let target = format!("Kinesis_20131202.{action}");
    let headers = [("content-type", AMZ_JSON), ("x-amz-target", target.as_str()), ("authorization", SIGNATURE)];
    node.ask("POST", "/", &headers, body.to_string()).await
}

async fn produce(node: &Node) -> Said {
    node.ask("POST", "/topics/t", &[("content-type", JSON)], r#"{"records":[{"value":1}]}"#).await
}

async fn has_topic(log: &MemoryLog) -> bool {
    log.describe().await.unwrap().topics.contains_key("t")
}

#[tokio::test]
async fn a_topic_is_deleted_once_the_layers_have_taken_it() {
    for (door, done, _) in DOORS {
        let log = Arc::new(MemoryLog::new());
        create(&*log, "t", 2).await;
        append(&*log, "t", 0, &["1", "2"]).await;
        append(&*log, "t", 1, &["3"]).await;
        let layers = Slow::of(&log);
        let node = Node::with_layers(&log, layers.clone());
        let deleting = delete(&node, &log, door);
        let meanwhile = async {
            layers.are_asked().await;
            // Nothing more is taken in; who tries again finds it deleted.
            let refused = produce(&node).await;
            assert_eq!((refused.status, refused.json()["error_code"].clone()), (503, json!(50302)), "{refused:?}");
            assert!(refused.body.contains("topic t is being deleted"), "{refused:?}");
            let record = json!({ "StreamName": "t", "PartitionKey": "k", "Data": "eA==" });
            let refused = kinesis(&node, "PutRecord", &record).await;
            assert_eq!((refused.status, &refused.json()["__type"]), (503, &json!("ServiceUnavailableException")));
            assert!(has_topic(&log).await);
            // This was on its way when the deletion began.
            append(&*log, "t", 1, &["4"]).await;
            layers.take();
            layers.are_asked().await;
            assert!(has_topic(&log).await, "{door}: what came since was not taken");
            layers.take();
        };
        let (said, ()) = tokio::join!(deleting, meanwhile);
        assert_eq!(said.status, done, "{door}: {said:?}");
        assert!(!has_topic(&log).await, "{door}");
        let again = produce(&node).await;
        assert_eq!(again.json()["offsets"][0]["error_code"], json!(null), "{door}: a new one is made");
    }
}

#[tokio::test]
async fn a_topic_that_is_not_taken_in_time_stays_as_it_was() {
    for (door, _, refused) in DOORS {
        let log = Arc::new(MemoryLog::new());
        create(&*log, "t", 1).await;
        append(&*log, "t", 0, &["1"]).await;
        let layers = Slow::of(&log);
        let node = Node::with_layers(&log, layers.clone());
        *layers.is_behind.lock().unwrap() = true;
        layers.take();
        let said = delete(&node, &log, door).await;
        assert_eq!(said.status, refused, "{door}: {said:?}");
        let expected = match door {
            "v3" => json!({ "error_code": 409, "message": REFUSED }),
            _ => json!({ "__type": "ResourceInUseException", "message": REFUSED }),
        };
        assert_eq!(said.json(), expected, "{door}");
        assert!(has_topic(&log).await);
        assert_eq!(produce(&node).await.status, 200, "{door}: it is written to as before");
        *layers.is_behind.lock().unwrap() = false;
        layers.take();
        assert!(delete(&node, &log, door).await.status < 300, "{door}");
        assert!(!has_topic(&log).await);
    }
}

/// Whoever deletes it may go away; then it stays, unless the door finishes what it began.
#[tokio::test]
async fn a_deletion_that_nobody_waits_for_any_more_ends_or_is_finished() {
    for (door, stays) in [("v3", true), ("kinesis", false)] {
        let log = Arc::new(MemoryLog::new());
        create(&*log, "t", 1).await;
        let layers = Slow::of(&log);
        let node = Node::with_layers(&log, layers.clone());
        tokio::select! {
            said = delete(&node, &log, door) => panic!("{door}: {said:?}"),
            () = layers.are_asked() => {}
        }
        assert_eq!(produce(&node).await.status, if stays { 200 } else { 503 }, "{door}");
        layers.take();
        if !stays {
            while has_topic(&log).await {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Two at once: one does it, the other finds nothing.
#[tokio::test]
async fn of_two_deletions_one_finds_nothing() {
    let log = Arc::new(MemoryLog::new());
    create(&*log, "t", 1).await;
    let layers = Slow::of(&log);
    let node = Node::with_layers(&log, layers.clone());
    layers.take();
    layers.take();
    let (one, other) = tokio::join!(delete(&node, &log, "v3"), delete(&node, &log, "v3"));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 404]);
    assert_eq!(produce(&node).await.status, 200);
}

/// A retry of what went with its topic is stored, also when whoever deleted it went away meanwhile.
#[tokio::test]
async fn keys_go_with_their_topic_whoever_waits_for_its_deletion() {
    for door in ["v3", "kinesis"] {
        let log = Arc::new(Meddled::new());
        create(&*log, "t", 1).await;
        let node = Node::on(&log, |_| {});
        let headers = [("content-type", JSON), ("idempotency-key", "k")];
        let post = async || node.ask("POST", "/topics/t", &headers, r#"{"records":[{"value":1}]}"#).await;
        assert_eq!(post().await.status, 200, "{door}");
        tokio::select! {
            said = delete(&node, &log.log, door) => panic!("{door}: {said:?}"),
            () = log.has_deleted() => {}
        }
        log.tell();
        let is_stored = async {
            let of_topic = partition("t", 0);
            while !matches!(log.bounds(&of_topic).await, Ok(bounds) if bounds.end > bounds.start) {
                post().await;
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), is_stored).await.unwrap_or_else(|_| panic!("{door}: nothing is stored"));
    }
}

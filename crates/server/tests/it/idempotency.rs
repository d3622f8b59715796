//! Requests with an `Idempotency-Key`: stored once, whatever door they come through, however often,
//! and whatever breaks in between.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use event_log::{EmbeddedLog, MemoryLog};
use model::{
    Bounds, EventLog, LogDescription, LogError, Offset, OffsetRange, Record, StoredRecord, TopicChange, TopicName,
    TopicPartition, config::Config,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    harness::{JSON, Server},
    kinesis_client::{AMZ_JSON, SIGNATURE},
    node::{Node, Said, create},
};

const MARK: &str = "corkboard-idempotency";

async fn kafka(node: &Node, topic: &str, key: &str, values: &[Value]) -> Said {
    let records: Vec<Value> = values.iter().map(|value| json!({ "value": value })).collect();
    produce(node, topic, key, &json!({ "records": records })).await
}

async fn produce(node: &Node, topic: &str, key: &str, body: &Value) -> Said {
    let headers = [("content-type", JSON), ("idempotency-key", key)];
    node.ask("POST", &format!("/topics/{topic}"), &headers, body.to_string()).await
}

async fn kinesis(node: &Node, action: &str, key: &str, body: &Value) -> Said {
    let target = format!("Kinesis_20131202.{action}");
    let headers = [
        ("content-type", AMZ_JSON),
        ("x-amz-target", target.as_str()),
        ("authorization", SIGNATURE),
        ("x-amz-date", "20261121T000000Z"),
        ("idempotency-key", key),
    ];
    node.ask("POST", "/kinesis", &headers, body.to_string()).await
}

async fn put(node: &Node, stream: &str, key: &str, values: &[Value]) -> Said {
    let record = |(i, value): (usize, &Value)| {
        // Another spacing than the Kafka door's.
        let data = serde_json::to_string_pretty(value).unwrap();
        json!({ "PartitionKey": format!("p{i}"), "Data": BASE64_STANDARD.encode(data) })
    };
    let records: Vec<Value> = values.iter().enumerate().map(record).collect();
    kinesis(node, "PutRecords", key, &json!({ "StreamName": stream, "Records": records })).await
}

async fn stored(log: &dyn EventLog, topic: &str) -> Vec<Record> {
    let topic: TopicName = topic.parse().unwrap();
    let mut all = Vec::new();
    for p in 0..log.describe().await.unwrap().topics.get(&topic).copied().unwrap_or(0) {
        let partition = TopicPartition::new(topic.clone(), p);
        let (mut from, end) = {
            let bounds = log.bounds(&partition).await.unwrap();
            (bounds.start, bounds.end)
        };
        while from < end {
            let records = log.fetch(&partition, from, 1 << 20).await.unwrap();
            from = records.last().unwrap().offset.plus(1);
            all.extend(records.into_iter().map(|stored| stored.record));
        }
    }
    all
}

/// How often each value is stored.
async fn counted(log: &dyn EventLog, topic: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in stored(log, topic).await {
        let value: Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
        *counts.entry(value.to_string()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_retry_has_the_same_answer_and_stores_nothing_also_after_a_restart() {
    let log = Arc::new(MemoryLog::new());
    create(&*log, "t", 3).await;
    let node = Node::on(&log, |_| {});
    let records: Vec<Value> = (0..20).map(|i| json!({ "key": format!("k{i}"), "value": i })).collect();
    let body = json!({ "records": records });
    let first = produce(&node, "t", "\"a\"", &body).await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(produce(&node, "t", "a", &body).await, first);
    assert_eq!(produce(&Node::on(&log, |_| {}), "t", "a", &body).await, first);
    assert_eq!(stored(&*log, "t").await.len(), 20);
    // Another key, or none, is another request; so is the same key in another topic.
    assert_ne!(produce(&node, "t", "b", &body).await, first);
    produce(&node, "u", "a", &body).await;
    assert_eq!((stored(&*log, "t").await.len(), stored(&*log, "u").await.len()), (40, 20));
}

#[tokio::test]
async fn a_key_with_another_body_is_refused_as_is_one_that_is_none() {
    let log = Arc::new(MemoryLog::new());
    let node = Node::on(&log, |_| {});
    kafka(&node, "t", "k", &[json!(1)]).await;
    for values in [&[json!(2)][..], &[json!(1), json!(1)]] {
        let said = kafka(&node, "t", "k", values).await;
        let message = "the Idempotency-Key k was used for this topic with another body";
        assert_eq!((said.status, said.json()), (422, json!({ "error_code": 422, "message": message })));
        let said = put(&node, "t", "k", values).await;
        assert_eq!((said.status, &said.json()["__type"]), (400, &json!("InvalidArgumentException")));
    }
    for key in ["", "\"\"", &"k".repeat(256)] {
        let said = kafka(&node, "t", key, &[json!(1)]).await;
        assert!(said.status == 400 && said.body.contains("Idempotency-Key must have 1 to 255"), "{said:?}");
    }
    assert_eq!(stored(&*log, "t").await.len(), 1);
}

#[tokio::test]
async fn an_event_that_comes_through_two_doors_counts_once() {
    let log = Arc::new(MemoryLog::new());
    create(&*log, "t", 2).await;
    let node = Node::on(&log, |_| {});
    let event = json!({ "index": 7, "title": "a  b" });
    let offset = kafka(&node, "t", "event-7", std::slice::from_ref(&event)).await.json()["offsets"][0].clone();
    let said = put(&node, "t", "event-7", std::slice::from_ref(&event)).await.json();
    assert_eq!(said["FailedRecordCount"], 0);
    assert_eq!(said["Records"][0]["ShardId"], format!("shardId-{:012}", offset["partition"].as_u64().unwrap()));
    let one = json!({ "StreamName": "t", "PartitionKey": "x", "Data": BASE64_STANDARD.encode(event.to_string()) });
    let said = kinesis(&node, "PutRecord", "event-7", &one).await.json();
    assert!(said["SequenceNumber"].is_string(), "{said}");
    // And the other way round.
    let first = kinesis(&node, "PutRecord", "event-8", &one).await;
    assert_eq!(kafka(&node, "t", "event-8", &[event]).await.status, 200);
    assert_eq!(kinesis(&Node::on(&log, |_| {}), "PutRecord", "event-8", &one).await, first);
    assert_eq!(stored(&*log, "t").await.len(), 2);
}

#[tokio::test]
async fn every_way_in_knows_keys() {
    let log = Arc::new(MemoryLog::new());
    create(&*log, "t", 2).await;
    let node = Node::on(&log, |_| {});
    let cluster = log.describe().await.unwrap().id.id;
    let v3 = format!("/v3/clusters/{cluster}/topics/t/records");
    let object = |i: i32| json!({ "value": { "type": "JSON", "data": i } }).to_string();
    let entry = |id: &str| json!({ "id": id, "value": { "type": "JSON", "data": id } });
    let batch = json!({ "entries": [entry("x"), entry("y"), { "id": "z", "value": 1 }] }).to_string();
    let pin = json!({
        "category": "c", "index": 1, "unique_id": "u", "title": "t", "description": "d", "poster_name": "p",
        "follower_count": "1", "tag_list": "g", "is_image_or_video": "image", "image_src": "s", "downloaded": 1,
        "save_location": "l"
    });
    for (path, body, topic, n_records) in [
        (v3.clone(), format!("{} {}", object(1), object(2)), "t", 2),
        (format!("{v3}:batch"), batch, "t", 4),
        ("/pin/".to_owned(), pin.to_string(), "Pinterest_data", 1),
    ] {
        let headers = [("content-type", "application/json"), ("idempotency-key", path.as_str())];
        let first = node.ask("POST", &path, &headers, body.clone()).await;
        assert!(first.status < 300, "{first:?}");
        for node in [&node, &Node::on(&log, |_| {})] {
            assert_eq!(node.ask("POST", &path, &headers, body.clone()).await, first);
        }
        assert_eq!(stored(&*log, topic).await.len(), n_records, "{path}");
        let other = node.ask("POST", &path, &headers, body.replace('1', "9").replace("\"x\"", "\"w\"")).await;
        assert_eq!(other.status, 422, "{other:?}");
    }
    let headers = [("content-type", "application/json"), ("idempotency-key", "broken")];
    let said = node.ask("POST", &v3, &headers, format!("{} [", object(1))).await;
    assert_eq!((said.status, stored(&*log, "t").await.len()), (400, 4), "nothing of it is stored: {said:?}");
}

#[tokio::test]
async fn clients_neither_set_nor_see_the_mark() {
    let log = Arc::new(MemoryLog::new());
    let node = Node::on(&log, |_| {});
    let records = json!({ "records": [{ "value": 1, "headers": [{ "name": MARK, "value": "eA==" }] }] });
    let said = produce(&node, "t", "k", &records).await;
    assert_eq!(
        (said.status, said.json()["message"].as_str()),
        (400, Some("records[0].headers: corkboard-idempotency is for the server to set"))
    );
    let records = json!({ "records": [{ "value": 1, "headers": [{ "name": "h", "value": "eA==" }] }] });
    assert_eq!(produce(&node, "t", "k", &records).await.status, 200);
    let said = node.ask("POST", "/topics/t", &[("content-type", JSON)], records.to_string()).await;
    assert_eq!(said.status, 200);
    let names = |record: &Record| record.headers.iter().map(|h| h.key.clone()).collect::<Vec<_>>();
    let stored = stored(&*log, "t").await;
    assert_eq!((names(&stored[0]), names(&stored[1])), (vec!["h".to_owned(), MARK.to_owned()], vec!["h".to_owned()]));
}

#[tokio::test]
async fn while_the_first_is_under_way_the_same_key_waits_for_nothing() {
    let server = Server::start().await;
    server.log.with_topic("t", 1);
    let head = "Content-Type: application/vnd.kafka.json.v2+json\r\nIdempotency-Key: k";
    let request = |value: u32| {
        let body = json!({ "records": [{ "value": value }] }).to_string();
        format!("POST /topics/t HTTP/1.1\r\nHost: localhost\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    server.log.close_gate();
    let mut first = server.connect().await;
    first.send(request(1)).await;
    server.log.append_at_gate().await;
    assert_eq!(server.ask(request(1)).await.status, 409);
    assert_eq!(server.ask(request(2)).await.status, 422);
    // Whoever asked first goes away; what it asked for is done nevertheless.
    drop(first);
    assert_eq!(server.ask(request(1)).await.status, 409);
    server.log.open_gate();
    let reply = loop {
        match server.ask(request(1)).await {
            reply if reply.status == 409 => tokio::task::yield_now().await,
            reply => break reply,
        }
    };
    assert_eq!((reply.status, server.log.values("t", 0)), (200, vec!["1".to_owned()]));
    server.stop.cancel();
}

#[tokio::test]
async fn a_retry_stores_what_a_failed_partition_did_not() {
    let server = Server::start().await;
    server.log.with_topic("t", 2);
    let body = json!({ "records": [{ "value": 0, "partition": 0 }, { "value": 1, "partition": 1 }] }).to_string();
    let request = format!(
        "POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\nIdempotency-Key: k\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for outcome_unknown in [false, true] {
        server.log.fail_next(1, LogError::Unavailable { reason: "test".to_owned(), outcome_unknown });
        let reply = server.ask(&request).await;
        assert_eq!((reply.status, reply.body.contains("50003")), (200, true), "{reply:?}");
    }
    let reply = server.ask(&request).await;
    assert!(reply.status == 200 && !reply.body.contains("50003"), "{reply:?}");
    assert_eq!((server.log.values("t", 0).len(), server.log.values("t", 1).len()), (1, 1));
    server.stop.cancel();
}

#[tokio::test]
async fn keys_are_forgotten_by_age_by_memory_and_with_their_topic() {
    let small = |change: fn(&mut Config)| async move {
        let log = Arc::new(MemoryLog::new());
        let node = Node::on(&log, change);
        for key in ["a", "b", "c", "a"] {
            assert_eq!(kafka(&node, "t", key, &[json!(1)]).await.status, 200);
        }
        let before = stored(&*log, "t").await.len();
        kafka(&Node::on(&log, change), "t", "a", &[json!(1)]).await;
        (before, stored(&*log, "t").await.len() - before)
    };
    assert_eq!(small(|_| {}).await, (3, 0));
    // Two keys fit, "a" is the oldest and goes; it is the latest then, and known after a start.
    assert_eq!(small(|config| config.ingest.idempotency_memory_bytes = 800).await, (4, 0));
    let nothing = |config: &mut Config| config.ingest.idempotency_read_bytes = 0;
    assert_eq!(small(nothing).await, (3, 1));

    let log = Arc::new(MemoryLog::new());
    let node = Node::on(&log, |_| {});
    for _ in 0..2 {
        let first = kafka(&node, "t", "a", &[json!(1)]).await;
        assert_eq!(first.json(), kafka(&node, "t", "a", &[json!(1)]).await.json());
        assert_eq!(stored(&*log, "t").await.len(), 1);
        let cluster = log.describe().await.unwrap().id.id;
        assert_eq!(node.delete(&format!("/v3/clusters/{cluster}/topics/t")).await.status, 204);
    }
}

#[tokio::test]
async fn keys_far_back_in_a_long_partition_are_found_after_a_start() {
    let log = Arc::new(MemoryLog::new());
    create(&*log, "t", 1).await;
    let node = Node::on(&log, |_| {});
    let first = kafka(&node, "t", "far", &[json!("far")]).await;
    let partition = TopicPartition::new("t".parse().unwrap(), 0);
    let many = (0..5000).map(|i| Record::of_value(format!("{i:0200}"))).collect();
    log.append(&partition, many).await.unwrap();
    assert_eq!(kafka(&Node::on(&log, |_| {}), "t", "far", &[json!("far")]).await, first);
    // 5,000 records of 200 bytes lie behind it.
    for (read_bytes, n) in [(1_100_000, 5001), (500_000, 5002)] {
        let node = Node::on(&log, |config| config.ingest.idempotency_read_bytes = read_bytes);
        kafka(&node, "t", "far", &[json!("far")]).await;
        assert_eq!(log.bounds(&partition).await.unwrap().end, Offset(n));
    }
}

/// A log whose appends break off: before they are stored, or after, when nobody hears of it.
struct Breaking<L> {
    log: L,
    /// Of the appends that come, in turn: two bits each.
    plan: AtomicU32,
}

#[async_trait]
impl<L: EventLog> EventLog for Breaking<L> {
    async fn describe(&self) -> Result<LogDescription, LogError> {
        self.log.describe().await
    }

    async fn change_topic(&self, topic: &TopicName, change: TopicChange) -> Result<(), LogError> {
        self.log.change_topic(topic, change).await
    }

    async fn append(&self, partition: &TopicPartition, mut records: Vec<Record>) -> Result<OffsetRange, LogError> {
        if partition.topic.is_internal() {
            return self.log.append(partition, records).await;
        }
        let unknown = || Err(LogError::Unavailable { reason: "broken".to_owned(), outcome_unknown: true });
        match self.plan.fetch_update(Relaxed, Relaxed, |plan| Some(plan >> 2)).unwrap() & 3 {
            1 => unknown(),
            2 => {
                // A torn tail: of a large append what came before is there.
                records.truncate(records.len().div_ceil(2));
                self.log.append(partition, records).await?;
                unknown()
            }
            3 => {
                self.log.append(partition, records).await?;
                unknown()
            }
            _ => self.log.append(partition, records).await,
        }
    }

    async fn fetch(&self, p: &TopicPartition, from: Offset, max_bytes: usize) -> Result<Vec<StoredRecord>, LogError> {
        self.log.fetch(p, from, max_bytes).await
    }

    async fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        self.log.bounds(partition).await
    }

    async fn trim(&self, partition: &TopicPartition, before: Offset) -> Result<(), LogError> {
        self.log.trim(partition, before).await
    }

    fn moved(&self) -> watch::Receiver<u64> {
        self.log.moved()
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The request of this number, through the door of Kafka or of Kinesis, with the log breaking off.
    Send {
        request: usize,
        by_kinesis: bool,
        plan: u32,
    },
    /// A record without a key between the others.
    Unkeyed,
    Restart,
    /// The log itself is opened anew, too.
    Reopen,
    Grow,
}

fn step() -> impl Strategy<Value = Step> {
    let send = (0..4_usize, any::<bool>(), any::<u32>());
    prop_oneof![
        8 => send.prop_map(|(request, by_kinesis, plan)| Step::Send { request, by_kinesis, plan }),
        1 => Just(Step::Unkeyed),
        2 => Just(Step::Restart),
        1 => Just(Step::Reopen),
        1 => Just(Step::Grow),
    ]
}

fn open(dir: &std::path::Path) -> Arc<Breaking<EmbeddedLog>> {
    let config = Config::defaults();
    let log = EmbeddedLog::open(dir, &config.log, config.ingest.max_record_bytes).unwrap();
    Arc::new(Breaking { log, plan: AtomicU32::new(0) })
}

/// Whatever breaks and however often it is sent again: once a request is answered in full, each of
/// its records is stored once, and every later answer is the same.
async fn play(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let topic: TopicName = "t".parse().unwrap();
    log.change_topic(&topic, TopicChange::Create { n_partitions: 2 }).await.unwrap();
    let mut node = Node::on(&log, |_| {});
    let values = |request: usize| (0..=request * 3).map(|i| json!([request, i])).collect::<Vec<_>>();
    let (mut answers, mut n_unkeyed, mut n_partitions) = (BTreeMap::new(), 0, 2);
    let calm = (0..4).flat_map(|request| [false, true].map(|by_kinesis| Step::Send { request, by_kinesis, plan: 0 }));
    for step in steps.into_iter().chain(calm) {
        match step {
            Step::Send { request, by_kinesis, plan } => {
                log.plan.store(plan, Relaxed);
                let (key, values) = (format!("request {request}"), values(request));
                let said = if by_kinesis {
                    put(&node, "t", &key, &values).await
                } else {
                    let record = |(i, value)| json!({ "key": i, "value": value });
                    let records: Vec<Value> = values.iter().enumerate().map(record).collect();
                    produce(&node, "t", &key, &json!({ "records": records })).await
                };
                log.plan.store(0, Relaxed);
                let has_failures =
                    if by_kinesis { said.json()["FailedRecordCount"] != 0 } else { said.body.contains("5000") };
                if said.status == 200 && !has_failures {
                    let first = answers.entry((request, by_kinesis)).or_insert_with(|| said.clone());
                    assert_eq!(*first, said);
                } else {
                    assert!(!answers.contains_key(&(request, by_kinesis)), "{said:?}");
                    assert!(plan != 0, "{said:?}");
                }
            }
            Step::Unkeyed => {
                n_unkeyed += 1;
                let body = json!({ "records": [{ "value": "unkeyed" }] }).to_string();
                node.ask("POST", "/topics/t", &[("content-type", JSON)], body).await;
            }
            Step::Restart => node = Node::on(&log, |_| {}),
            Step::Reopen => {
                drop(node);
                log.log.close().await.unwrap();
                drop(log);
                log = open(dir.path());
                node = Node::on(&log, |_| {});
            }
            Step::Grow => {
                n_partitions += 1;
                log.change_topic(&topic, TopicChange::Grow { n_partitions }).await.unwrap();
            }
        }
        let counts = counted(&*log, "t").await;
        assert!(counts.iter().all(|(value, n)| *n == 1 || value == "\"unkeyed\""), "{counts:?}");
        for (request, _) in answers.keys() {
            assert!(values(*request).iter().all(|value| counts.contains_key(&value.to_string())), "{counts:?}");
        }
    }
    let counts = counted(&*log, "t").await;
    assert_eq!(counts.values().sum::<usize>(), n_unkeyed + (0..4).map(|request| values(request).len()).sum::<usize>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn no_order_of_retries_failures_restarts_and_doors_stores_a_record_twice(
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}

#[tokio::test]
async fn of_the_same_key_sent_many_times_at_once_one_is_stored() {
    let log = Arc::new(MemoryLog::new());
    let node = Node::on(&log, |_| {});
    let sending = (0..50).map(|i| {
        let node = node.clone();
        tokio::spawn(async move {
            if i % 2 == 0 { kafka(&node, "t", "k", &[json!(1)]).await } else { put(&node, "t", "k", &[json!(1)]).await }
        })
    });
    for said in futures::future::join_all(sending).await {
        let status = said.unwrap().status;
        assert!([200, 400, 409, 503].contains(&status), "{status}");
    }
    assert_eq!(stored(&*log, "t").await.len(), 1);
}

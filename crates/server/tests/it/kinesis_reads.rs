//! Iterators and subscriptions: where they begin, how they go on, and when they end.

use std::{sync::Arc, time::Duration};

use event_log::MemoryLog;
use model::{EventLog, Record, Timestamp, TopicChange, TopicPartition};
use serde_json::{Value, json};

use crate::kinesis_client::{AMZ_JSON, Events, Http, Kinesis, records, text};

const SHARD: &str = "shardId-000000000000";

#[tokio::test]
async fn an_iterator_begins_where_its_type_says() {
    let log = Arc::new(MemoryLog::new());
    let name = "a".parse().unwrap();
    log.change_topic(&name, TopicChange::Create { n_partitions: 1 }).await.unwrap();
    let at = |i: i64| 1_700_000_000_000 + i * 1000;
    let record = |i: i64| Record { timestamp: Timestamp(at(i)), ..Record::of_value(i.to_string()) };
    log.append(&TopicPartition::new(name, 0), (0..5).map(record).collect()).await.unwrap();
    let kinesis = Kinesis::over(log, |_| {}).await;
    let first = kinesis.ask("GetRecords", json!({"ShardIterator": kinesis.trim_horizon("a", SHARD).await})).await;
    let numbers: Vec<&Value> = first["Records"].as_array().unwrap().iter().map(|r| &r["SequenceNumber"]).collect();
    assert_eq!(first["Records"][1]["ApproximateArrivalTimestamp"], 1_700_000_001.0);
    let start = kinesis.shards("a").await[0]["SequenceNumberRange"]["StartingSequenceNumber"].clone();
    for (beginning, expected) in [
        (json!({"ShardIteratorType": "TRIM_HORIZON"}), 0),
        (json!({"ShardIteratorType": "LATEST"}), 5),
        (json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": numbers[2]}), 2),
        (json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": numbers[2]}), 3),
        (json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": start}), 0),
        (json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": start}), 0),
        (json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1_700_000_002}), 2),
        (json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1_700_000_002.001}), 3),
        (json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1}), 0),
        (json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1_700_000_009}), 5),
    ] {
        let (data, answer) = kinesis.read_on(kinesis.iterator("a", SHARD, beginning.clone()).await).await;
        assert_eq!(data, (expected..5).map(|i| i.to_string()).collect::<Vec<_>>(), "{beginning}");
        assert_eq!(answer["MillisBehindLatest"], 0);
    }
    let iterator = |more: Value| {
        let mut request = json!({"StreamName": "a", "ShardId": SHARD});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    for (more, message) in [
        (json!({"ShardIteratorType": "LATEST", "StartingSequenceNumber": numbers[2]}), "Must either specify (1)"),
        (json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER"}), "Must either specify (1)"),
        (
            json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "7"}),
            "StartingSequenceNumber 7 used in GetShardIterator on shard shardId-000000000000 in stream a under account 000000000000 is invalid.",
        ),
        (
            json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 9e9}),
            "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis.",
        ),
    ] {
        let (name, found) = kinesis.refusal("GetShardIterator", iterator(more)).await;
        assert_eq!(name, "InvalidArgumentException");
        assert!(found.starts_with(message), "{found}");
    }
}

#[tokio::test]
async fn an_iterator_is_good_any_number_of_times_and_after_a_restart() {
    let log = Arc::new(MemoryLog::new());
    let kinesis = Kinesis::over(log.clone(), |_| {}).await;
    kinesis.create("a", 1).await;
    for i in 0..3 {
        kinesis.put("a", "k", &i.to_string()).await;
    }
    let iterator = kinesis.trim_horizon("a", SHARD).await;
    let page = json!({"ShardIterator": iterator, "Limit": 2});
    let first = kinesis.ask("GetRecords", page.clone()).await;
    assert_eq!(records(&first), ["0", "1"]);
    assert!(first["MillisBehindLatest"].as_i64().unwrap() > 0);
    drop(kinesis);
    let again = Kinesis::over(log, |_| {}).await;
    assert_eq!(records(&again.ask("GetRecords", page).await), ["0", "1"]);
    let (data, _) = again.read_on(text(&first["NextShardIterator"])).await;
    assert_eq!(data, ["2"]);
    // An iterator of a stream that is gone leads nowhere, even if there is one of the same name.
    again.ask("DeleteStream", json!({"StreamName": "a"})).await;
    again.create("a", 1).await;
    assert_eq!(again.refusal("GetRecords", json!({"ShardIterator": iterator})).await.0, "ResourceNotFoundException");
}

#[tokio::test]
async fn an_answer_has_ten_mebibytes_at_most_and_loses_nothing() {
    let kinesis = Kinesis::start().await;
    kinesis.create("a", 1).await;
    let data = "x".repeat(1_000_000);
    for _ in 0..13 {
        kinesis.put("a", "k", &data).await;
    }
    let first = kinesis.ask("GetRecords", json!({"ShardIterator": kinesis.trim_horizon("a", SHARD).await})).await;
    assert_eq!(records(&first).len(), 10);
    let (rest, _) = kinesis.read_on(text(&first["NextShardIterator"])).await;
    assert_eq!(rest.len(), 3);
}

async fn consumer(kinesis: &Kinesis) -> Value {
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/a";
    let register = json!({"StreamARN": arn, "ConsumerName": "c"});
    kinesis.ask("RegisterStreamConsumer", register).await["Consumer"]["ConsumerARN"].take()
}

async fn subscribe(kinesis: &Kinesis, http: Http, consumer: &Value, position: Value) -> Events {
    let body = json!({"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": position});
    let mut events =
        Events::of(kinesis.send(http, kinesis.request("SubscribeToShard", AMZ_JSON, body.to_string())).await);
    assert_eq!(events.event("initial-response").await, json!({}));
    events
}

#[tokio::test]
async fn a_subscriber_is_told_what_comes_until_the_shard_ends() {
    for http in [Http::One, Http::Two] {
        let kinesis = Kinesis::start().await;
        kinesis.create("a", 1).await;
        kinesis.put("a", "k", "0").await;
        let consumer = consumer(&kinesis).await;
        let mut events = subscribe(&kinesis, http, &consumer, json!({"Type": "TRIM_HORIZON"})).await;
        let event = events.event("SubscribeToShardEvent").await;
        assert_eq!((records(&event), &event["MillisBehindLatest"]), (vec!["0".to_owned()], &json!(0)));
        kinesis.put("a", "k", "1").await;
        assert_eq!(records(&events.event("SubscribeToShardEvent").await), ["1"]);
        // Another one goes on after the first event.
        let position = json!({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": event["ContinuationSequenceNumber"]});
        let mut other = subscribe(&kinesis, http, &consumer, position).await;
        assert_eq!(records(&other.event("SubscribeToShardEvent").await), ["1"]);
        // Which ends the first: there is one for each consumer and shard.
        assert!(events.next().await.is_none());
        kinesis.ask("SplitShard", json!({"StreamName": "a", "ShardToSplit": SHARD, "NewStartingHashKey": "9"})).await;
        kinesis.put("a", "k", "2").await;
        let last = other.event("SubscribeToShardEvent").await;
        assert_eq!((records(&last).len(), last.get("ContinuationSequenceNumber")), (0, None));
        assert_eq!(last["ChildShards"].as_array().unwrap().len(), 2);
        assert!(other.next().await.is_none());
    }
}

#[tokio::test]
async fn a_subscription_ends_with_its_stream_and_with_the_server() {
    let kinesis = Kinesis::start().await;
    kinesis.create("a", 1).await;
    let consumer_arn = consumer(&kinesis).await;
    let mut events = subscribe(&kinesis, Http::Two, &consumer_arn, json!({"Type": "LATEST"})).await;
    // Nothing to tell is told, too.
    let event = events.event("SubscribeToShardEvent").await;
    assert_eq!((&event["Records"], &event["MillisBehindLatest"]), (&json!([]), &json!(0)));
    kinesis.ask("DeleteStream", json!({"StreamName": "a", "EnforceConsumerDeletion": true})).await;
    kinesis.create("b", 1).await;
    kinesis.put("b", "k", "wakes").await;
    let (headers, _) = events.next().await.unwrap();
    assert_eq!(headers[0].1, "exception");
    assert_eq!(headers[1].1, "ResourceNotFoundException");
    assert!(events.next().await.is_none());
    kinesis.create("a", 1).await;
    let consumer_arn = consumer(&kinesis).await;
    let mut events = subscribe(&kinesis, Http::One, &consumer_arn, json!({"Type": "LATEST"})).await;
    events.event("SubscribeToShardEvent").await;
    kinesis.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(4), events.next()).await;
    assert!(ended.expect("before the next heartbeat").is_none());
}

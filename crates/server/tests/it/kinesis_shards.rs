//! Shards that are split and merged, while records are put and read.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use event_log::MemoryLog;
use model::{EventLog, TopicChange, TopicName};
use serde_json::{Value, json};

use crate::{
    kinesis_client::{AMZ_JSON, Http, Kinesis, base64, text},
    node::create,
};

fn numbers(shards: &[Value]) -> Vec<String> {
    shards.iter().map(|shard| text(&shard["ShardId"])["shardId-00000000000".len()..].to_owned()).collect()
}

async fn listed(kinesis: &Kinesis, filter: Value) -> Vec<String> {
    let answer = kinesis.ask("ListShards", json!({"StreamName": "a", "ShardFilter": filter})).await;
    numbers(answer["Shards"].as_array().unwrap())
}

#[tokio::test]
async fn a_split_shard_is_read_to_its_end_and_goes_on_in_its_children() {
    let kinesis = Kinesis::start().await;
    kinesis.create("a", 1).await;
    for i in 0..5 {
        kinesis.put("a", &format!("k{i}"), &format!("before {i}")).await;
    }
    let half = "170141183460469231731687303715884105728";
    let split = json!({"StreamName": "a", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": half});
    assert_eq!(kinesis.ask("SplitShard", split.clone()).await, Value::Null);
    for i in 0..5 {
        let (shard, _) = kinesis.put("a", &format!("k{i}"), &format!("after {i}")).await;
        assert_ne!(shard, "shardId-000000000000");
    }
    let (data, last) = kinesis.read_on(kinesis.trim_horizon("a", "shardId-000000000000").await).await;
    assert_eq!(data, (0..5).map(|i| format!("before {i}")).collect::<Vec<_>>());
    assert_eq!(last.get("NextShardIterator"), None);
    let child = |id: u32, start: &str, end: &str| {
        json!({
            "ShardId": format!("shardId-{id:012}"),
            "ParentShards": ["shardId-000000000000"],
            "HashKeyRange": {"StartingHashKey": start, "EndingHashKey": end},
        })
    };
    let max = "340282366920938463463374607431768211455";
    let children = json!([child(1, "0", "170141183460469231731687303715884105727"), child(2, half, max)]);
    assert_eq!(last["ChildShards"], children);
    // At the end already, an iterator says so once more.
    let latest = kinesis.iterator("a", "0", json!({"ShardIteratorType": "LATEST"})).await;
    let (data, last) = kinesis.read_on(latest).await;
    assert_eq!(
        (data.len(), last["ChildShards"].as_array().unwrap().len(), last.get("NextShardIterator")),
        (0, 2, None)
    );
    let mut after = Vec::new();
    for shard in ["1", "2"] {
        let (data, answer) = kinesis.read_on(kinesis.trim_horizon("a", shard).await).await;
        assert!(answer["NextShardIterator"].is_string());
        after.extend(data);
    }
    assert_eq!(after.into_iter().collect::<BTreeSet<_>>(), (0..5).map(|i| format!("after {i}")).collect());
    let shards = kinesis.shards("a").await;
    let range = |i: usize| shards[i]["SequenceNumberRange"].clone();
    assert!(text(&range(0)["EndingSequenceNumber"]) < text(&range(1)["StartingSequenceNumber"]));
    assert_eq!(
        (shards[1]["ParentShardId"].clone(), shards[1].get("AdjacentParentShardId")),
        (json!("shardId-000000000000"), None)
    );
    assert_eq!(kinesis.refusal("SplitShard", split).await.0, "InvalidArgumentException");
}

#[tokio::test]
async fn shards_are_merged_and_counted_anew_and_listed_by_filters() {
    let kinesis = Kinesis::start().await;
    kinesis.create("a", 3).await;
    let merge =
        |first: &str, second: &str| json!({"StreamName": "a", "ShardToMerge": first, "AdjacentShardToMerge": second});
    let (name, message) = kinesis.refusal("MergeShards", merge("shardId-000000000000", "shardId-000000000002")).await;
    assert_eq!(name, "InvalidArgumentException");
    assert_eq!(
        message,
        "Shards shardId-000000000000 and shardId-000000000002 in stream a under account 000000000000 are not an adjacent \
         pair of shards eligible for merging"
    );
    kinesis.ask("MergeShards", merge("shardId-000000000000", "shardId-000000000001")).await;
    let shards = kinesis.shards("a").await;
    assert_eq!(shards[3]["ParentShardId"], "shardId-000000000000");
    assert_eq!(shards[3]["AdjacentParentShardId"], "shardId-000000000001");
    let kind = |kind: &str| json!({"Type": kind});
    assert_eq!(listed(&kinesis, kind("AT_LATEST")).await, ["2", "3"]);
    assert_eq!(listed(&kinesis, kind("FROM_TRIM_HORIZON")).await, ["0", "1", "2", "3"]);
    assert_eq!(listed(&kinesis, kind("AT_TRIM_HORIZON")).await, ["0", "1", "2"]);
    assert_eq!(
        listed(&kinesis, json!({"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000001"})).await,
        ["2", "3"]
    );
    let count = |target: u32| json!({"StreamName": "a", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
    let updated = kinesis.ask("UpdateShardCount", count(4)).await;
    assert_eq!((&updated["CurrentShardCount"], &updated["TargetShardCount"]), (&json!(2), &json!(4)));
    assert_eq!(listed(&kinesis, kind("AT_LATEST")).await.len(), 4);
    for target in [1, 9] {
        assert_eq!(kinesis.refusal("UpdateShardCount", count(target)).await.0, "InvalidArgumentException");
    }
    let mut page = kinesis.ask("ListShards", json!({"StreamName": "a", "MaxResults": 3})).await;
    let mut found = numbers(page["Shards"].as_array().unwrap());
    while let Some(token) = page["NextToken"].as_str() {
        page = kinesis.ask("ListShards", json!({"NextToken": token, "MaxResults": 3})).await;
        found.extend(numbers(page["Shards"].as_array().unwrap()));
    }
    assert_eq!(found, numbers(&kinesis.shards("a").await));
}

/// Walks from the first shards to their children, each after its parents.
async fn read_all(kinesis: &Kinesis, name: &str) -> Vec<String> {
    let mut data = Vec::new();
    for shard in kinesis.shards(name).await {
        let id = text(&shard["ShardId"]);
        let (read, _) = kinesis.read_on(kinesis.trim_horizon(name, &id).await).await;
        data.extend(read);
    }
    data
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_put_while_shards_change_are_each_in_one_shard_below_its_end() {
    let kinesis = Arc::new(Kinesis::start().await);
    kinesis.create("a", 2).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let putting: Vec<_> = (0..4)
        .map(|producer| {
            let (kinesis, is_over) = (kinesis.clone(), is_over.clone());
            tokio::spawn(async move {
                let mut put = Vec::new();
                while !is_over.load(Relaxed) {
                    let data = format!("{producer} {}", put.len());
                    let (shard, number) = kinesis.put("a", &data, &data).await;
                    put.push((shard, number, data));
                }
                put
            })
        })
        .collect();
    for target in [4, 3, 5, 3, 2] {
        let count = json!({"StreamName": "a", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
        kinesis.ask("UpdateShardCount", count).await;
    }
    is_over.store(true, Relaxed);
    let ends: Vec<Option<String>> = kinesis
        .shards("a")
        .await
        .iter()
        .map(|s| s["SequenceNumberRange"]["EndingSequenceNumber"].as_str().map(str::to_owned))
        .collect();
    let mut expected = BTreeSet::new();
    for put in putting {
        for (shard, number, data) in put.await.unwrap() {
            let shard: usize = shard["shardId-".len()..].parse().unwrap();
            assert!(ends[shard].as_ref().is_none_or(|end| number < *end));
            expected.insert(data);
        }
    }
    let read = read_all(&kinesis, "a").await;
    assert_eq!(read.len(), expected.len());
    assert_eq!(read.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[tokio::test]
async fn streams_and_shards_are_the_same_after_a_restart() {
    let log = Arc::new(MemoryLog::new());
    let first = Kinesis::over(log.clone(), |_| {}).await;
    first.create("a", 2).await;
    first.put("a", "k", "1").await;
    let count = json!({"StreamName": "a", "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING"});
    first.ask("UpdateShardCount", count).await;
    first.put("a", "k", "2").await;
    let before = first.ask("DescribeStream", json!({"StreamName": "a"})).await;
    drop(first);
    let second = Kinesis::over(log, |_| {}).await;
    assert_eq!(second.ask("DescribeStream", json!({"StreamName": "a"})).await, before);
    second.put("a", "k", "3").await;
    assert_eq!(read_all(&second, "a").await, ["1", "2", "3"]);
}

#[tokio::test]
async fn two_servers_on_one_log_agree() {
    let log = Arc::new(MemoryLog::new());
    let (one, other) = (Kinesis::over(log.clone(), |_| {}).await, Kinesis::over(log, |_| {}).await);
    one.create("a", 1).await;
    assert_eq!(other.put("a", "k", "1").await.0, "shardId-000000000000");
    let exists = other.refusal("CreateStream", json!({"StreamName": "a", "ShardCount": 1})).await;
    assert_eq!(exists.0, "ResourceInUseException");
    one.ask("SplitShard", json!({"StreamName": "a", "ShardToSplit": "0", "NewStartingHashKey": "9"})).await;
    assert_eq!(other.shards("a").await, one.shards("a").await);
    assert_eq!(other.put("a", "k", "2").await.0, "shardId-000000000002");
    // An iterator of one leads on with the other.
    let iterator = one.trim_horizon("a", "0").await;
    assert_eq!(other.read_on(iterator).await.0, ["1"]);
    other.ask("DeleteStream", json!({"StreamName": "a"})).await;
    assert_eq!(one.refusal("DescribeStream", json!({"StreamName": "a"})).await.0, "ResourceNotFoundException");
    let put = json!({"StreamName": "a", "PartitionKey": "k", "Data": ""});
    assert_eq!(one.refusal("PutRecord", put).await.0, "ResourceNotFoundException");
}

#[tokio::test]
async fn the_kafka_door_knows_the_partitions_that_a_split_made() {
    let kinesis = Kinesis::start().await;
    kinesis.create("a", 1).await;
    kinesis.put("a", "k", "1").await;
    let produce = |partition: u32| {
        let body = format!(r#"{{"records":[{{"value":"{}","partition":{partition}}}]}}"#, base64("x"));
        http::Request::post(format!("http://{}/topics/a", kinesis.addr))
            .header("content-type", crate::harness::BINARY)
            .body(axum::body::Body::from(body))
            .unwrap()
    };
    let send = async |partition| kinesis.send(Http::One, produce(partition)).await.status();
    assert_eq!(send(2).await, 404);
    let split = json!({"StreamName": "a", "ShardToSplit": "0", "NewStartingHashKey": "9"});
    kinesis.ask("SplitShard", split).await;
    assert_eq!(send(2).await, 200);
    assert_eq!(read_all(&kinesis, "a").await, ["1", "x"]);
}

#[tokio::test]
async fn a_stream_whose_topic_another_door_made_anew_with_fewer_partitions_is_put_into_again() {
    let log = Arc::new(MemoryLog::new());
    let kinesis = Kinesis::over(log.clone(), |_| {}).await;
    kinesis.create("a", 4).await;
    let topic: TopicName = "a".parse().unwrap();
    let put = async |key: Option<&str>| {
        let body =
            json!({"StreamName": "a", "PartitionKey": "k", "Data": base64("x"), "ExplicitHashKey": "1".repeat(39)});
        let mut request = kinesis.request("PutRecord", AMZ_JSON, body.to_string());
        if let Some(key) = key {
            request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        }
        kinesis.send(Http::One, request).await.status().as_u16()
    };
    for key in [None, Some("a key")] {
        assert_eq!(put(key).await, 200);
        log.change_topic(&topic, TopicChange::Delete).await.unwrap();
        create(&*log, "a", 1).await;
        // Clients try again by themselves.
        let statuses = [put(key).await, put(key).await];
        assert!(statuses[1] == 200 && [200, 503].contains(&statuses[0]), "{key:?}: {statuses:?}");
        assert_eq!(kinesis.shards("a").await.len(), 1);
        log.change_topic(&topic, TopicChange::Grow { n_partitions: 4 }).await.unwrap();
        kinesis.ask("DeleteStream", json!({"StreamName": "a"})).await;
        kinesis.create("a", 4).await;
    }
}

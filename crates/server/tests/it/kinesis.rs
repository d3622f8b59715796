//! The door of Kinesis: streams, puts, tags, consumers, and what is refused.

use std::sync::Arc;

use event_log::MemoryLog;
use model::{EventLog, LogError, Offset, TopicChange, TopicPartition};
use serde_json::{Value, json};

use crate::{
    harness::{JSON, Server},
    kinesis_client::{AMZ_JSON, Kinesis, SIGNATURE, base64, records, text},
};

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/a";

#[tokio::test]
async fn a_stream_is_described_as_it_was_made() {
    let kinesis = Kinesis::start().await;
    let made = json!({"StreamName": "a", "ShardCount": 2, "Tags": {"k": "v"}, "StreamModeDetails": {"StreamMode": "PROVISIONED"}});
    assert_eq!(kinesis.ask("CreateStream", made.clone()).await, Value::Null);
    let mut answer = kinesis.ask("DescribeStream", json!({"StreamName": "a"})).await;
    let description = &mut answer["StreamDescription"];
    assert!(description["StreamCreationTimestamp"].take().as_f64().unwrap() > 1.7e9);
    for shard in description["Shards"].as_array_mut().unwrap() {
        let number = text(&shard["SequenceNumberRange"].take()["StartingSequenceNumber"]);
        assert_eq!(number.len(), 56);
    }
    let shard = |id: &str, start: &str, end: &str| {
        json!({
            "ShardId": id,
            "HashKeyRange": {"StartingHashKey": start, "EndingHashKey": end},
            "SequenceNumberRange": null,
        })
    };
    let expected = json!({
        "StreamName": "a",
        "StreamARN": ARN,
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": "PROVISIONED"},
        "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": null,
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
        "Shards": [
            shard("shardId-000000000000", "0", "170141183460469231731687303715884105727"),
            shard("shardId-000000000001", "170141183460469231731687303715884105728", "340282366920938463463374607431768211455"),
        ],
        "HasMoreShards": false,
    });
    assert_eq!(*description, expected);
    let answer = kinesis.ask("DescribeStreamSummary", json!({"StreamARN": ARN})).await;
    let summary = &answer["StreamDescriptionSummary"];
    for (member, value) in [("OpenShardCount", 2), ("ConsumerCount", 0), ("MaxRecordSizeInKiB", 1024)] {
        assert_eq!(summary[member], value, "{member}");
    }
    assert_eq!(summary.get("Shards"), None);
    let tags = kinesis.ask("ListTagsForStream", json!({"StreamName": "a"})).await;
    assert_eq!(tags, json!({"Tags": [{"Key": "k", "Value": "v"}], "HasMoreTags": false}));
    let in_use = ("ResourceInUseException", "Stream a under account 000000000000 already exists.");
    let (name, message) = kinesis.refusal("CreateStream", made).await;
    assert_eq!((name.as_str(), message.as_str()), in_use);
    kinesis.ask("DeleteStream", json!({"StreamName": "a"})).await;
    let (name, message) = kinesis.refusal("DescribeStream", json!({"StreamName": "a"})).await;
    let not_found = ("ResourceNotFoundException", "Stream a under account 000000000000 not found.");
    assert_eq!((name.as_str(), message.as_str()), not_found);
    // Made again, it is another stream, whose numbers go on all the same.
    kinesis.create("a", 1).await;
    assert_eq!(kinesis.shards("a").await.len(), 1);
}

#[tokio::test]
async fn streams_are_listed_by_name_in_pages() {
    let kinesis = Kinesis::start().await;
    for name in ["c", "a", "b"] {
        kinesis.create(name, 1).await;
    }
    let answer = kinesis.ask("ListStreams", json!({"Limit": 2})).await;
    assert_eq!((&answer["StreamNames"], &answer["HasMoreStreams"]), (&json!(["a", "b"]), &json!(true)));
    assert_eq!(answer["StreamSummaries"][0]["StreamARN"], ARN);
    let rest = kinesis.ask("ListStreams", json!({"NextToken": answer["NextToken"]})).await;
    assert_eq!((&rest["StreamNames"], rest.get("NextToken")), (&json!(["c"]), None));
    let after = kinesis.ask("ListStreams", json!({"ExclusiveStartStreamName": "b"})).await;
    assert_eq!(after["StreamNames"], json!(["c"]));
    let limits = kinesis.ask("DescribeLimits", json!({})).await;
    assert_eq!((&limits["OpenShardCount"], &limits["OnDemandStreamCount"]), (&json!(3), &json!(0)));
}

/// Another door deletes a topic, and nobody asks for its stream by name.
#[tokio::test]
async fn streams_whose_topic_is_gone_are_not_counted_and_not_kept() {
    let log = Arc::new(MemoryLog::new());
    let kinesis = Kinesis::over(log.clone(), |_| {}).await;
    kinesis.create("gone", 4).await;
    kinesis.create("here", 1).await;
    log.change_topic(&"gone".parse().unwrap(), TopicChange::Delete).await.unwrap();
    assert_eq!(kinesis.ask("DescribeLimits", json!({})).await["OpenShardCount"], 1);
    kinesis.create("new", 2).await;
    assert_eq!(kinesis.ask("DescribeLimits", json!({})).await["OpenShardCount"], 3);
    let streams = TopicPartition::new("__kinesis_streams".parse().unwrap(), 0);
    let commands = log.fetch(&streams, Offset::ZERO, 1 << 20).await.unwrap();
    let deletes = r#"{"Change":{"name":"gone","#.as_bytes();
    let is_deleted = |value: &[u8]| value.starts_with(deletes) && value.ends_with(br#""change":"Delete"}}"#);
    assert!(commands.iter().any(|stored| is_deleted(stored.record.value.as_deref().unwrap())));
}

#[tokio::test]
async fn what_is_put_is_stored_as_if_another_door_had_taken_it() {
    let log = Arc::new(MemoryLog::new());
    let kinesis = Kinesis::over(log.clone(), |_| {}).await;
    kinesis.create("pin", 2).await;
    let (shard, number) = kinesis.put("pin", "partition-1", r#"{"index":1}"#).await;
    assert_eq!(shard, "shardId-000000000001");
    let (_, next) = kinesis.put("pin", "partition-1", "2").await;
    assert!(number < next && number.len() == 56);
    // The hash key goes before the partition key, also at its very ends.
    for (key, shard) in
        [("0", 0), ("170141183460469231731687303715884105728", 1), ("340282366920938463463374607431768211455", 1)]
    {
        let request = json!({"StreamName": "pin", "PartitionKey": "partition-1", "Data": "", "ExplicitHashKey": key});
        assert_eq!(kinesis.ask("PutRecord", request).await["ShardId"], format!("shardId-{shard:012}"), "{key}");
    }
    let partition = TopicPartition::new("pin".parse().unwrap(), 1);
    let stored = log.fetch(&partition, Offset::ZERO, 1 << 20).await.unwrap();
    assert_eq!(stored.len(), 4);
    assert_eq!(stored[0].record.key.as_deref(), Some(&b"partition-1"[..]));
    assert_eq!(stored[0].record.value.as_deref(), Some(&br#"{"index":1}"#[..]));
}

#[tokio::test]
async fn five_hundred_records_are_put_at_once_and_answered_in_order() {
    let kinesis = Kinesis::start().await;
    kinesis.create("a", 4).await;
    let entry = |i: usize| json!({"PartitionKey": format!("k{i}"), "Data": base64(&format!("d{i}"))});
    let all: Vec<Value> = (0..500).map(entry).collect();
    let answer = kinesis.ask("PutRecords", json!({"StreamName": "a", "Records": all})).await;
    assert_eq!((&answer["FailedRecordCount"], &answer["EncryptionType"]), (&json!(0), &json!("NONE")));
    let receipts = answer["Records"].as_array().unwrap();
    assert_eq!(receipts.len(), 500);
    for shard in 0..4 {
        let shard = format!("shardId-{shard:012}");
        let read = kinesis.ask("GetRecords", json!({"ShardIterator": kinesis.trim_horizon("a", &shard).await})).await;
        let of_shard = (0..500).filter(|i| receipts[*i]["ShardId"] == *shard);
        let expected: Vec<(String, Value)> =
            of_shard.map(|i| (format!("d{i}"), receipts[i]["SequenceNumber"].clone())).collect();
        let numbers = read["Records"].as_array().unwrap().iter().map(|record| record["SequenceNumber"].clone());
        assert_eq!(records(&read).into_iter().zip(numbers).collect::<Vec<_>>(), expected);
    }
    let too_many: Vec<Value> = (0..501).map(entry).collect();
    let (name, message) = kinesis.refusal("PutRecords", json!({"StreamName": "a", "Records": too_many})).await;
    assert_eq!(name, "ValidationException");
    assert!(
        message.ends_with("'records' failed to satisfy constraint: Member must have length less than or equal to 500"),
        "{message}"
    );
}

#[tokio::test]
async fn what_a_shard_did_not_store_is_told_for_each_record() {
    let server = Server::start().await;
    server.log.with_topic("a", 2);
    let ask = async |action: &str, body: Value| {
        let body = body.to_string();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: {AMZ_JSON}\r\nX-Amz-Target: Kinesis_20131202.{action}\r\n\
             Authorization: {SIGNATURE}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = server.ask(request).await;
        (reply.status, serde_json::from_str::<Value>(&reply.body).unwrap())
    };
    let unavailable = || LogError::unavailable("for once");
    server.log.fail_next(1, unavailable());
    let entries = json!([
        {"PartitionKey": "x", "Data": "", "ExplicitHashKey": "0"},
        {"PartitionKey": "x", "Data": "", "ExplicitHashKey": "340282366920938463463374607431768211455"},
        {"PartitionKey": "x", "Data": "", "ExplicitHashKey": "1"},
    ]);
    let put = json!({"StreamName": "a", "Records": entries});
    let (status, answer) = ask("PutRecords", put.clone()).await;
    assert_eq!((status, &answer["FailedRecordCount"]), (200, &json!(1)));
    let failed = json!({"ErrorCode": "InternalFailure", "ErrorMessage": "Internal Service Failure."});
    assert_eq!(answer["Records"][1], failed);
    assert_eq!(
        (&answer["Records"][0]["ShardId"], &answer["Records"][2]["ShardId"]),
        (&json!("shardId-000000000000"), &json!("shardId-000000000000"))
    );
    // When nothing is stored, the client tries the whole again by itself.
    server.log.fail_next(0, unavailable());
    server.log.fail_next(1, unavailable());
    let (status, answer) = ask("PutRecords", put).await;
    assert_eq!((status, &answer["__type"]), (503, &json!("ServiceUnavailableException")));
    assert_eq!((server.log.records("a", 0).len(), server.log.records("a", 1).len()), (2, 0));
}

#[tokio::test]
async fn a_topic_of_another_door_is_a_stream_and_a_stream_a_topic() {
    let server = Server::start().await;
    server.log.with_topic("old", 3);
    let get = server.get("/topics").await;
    assert_eq!(get.body, r#"["old"]"#);
    let log = Arc::new(MemoryLog::new());
    let kinesis = Kinesis::over(log, |config| config.ingest.default_partitions = 2).await;
    let produce = http::Request::post(format!("http://{}/topics/made", kinesis.addr))
        .header("content-type", JSON)
        .body(axum::body::Body::from(r#"{"records":[{"key":"k","value":{"a":1},"partition":1}]}"#))
        .unwrap();
    assert_eq!(kinesis.send(crate::kinesis_client::Http::One, produce).await.status(), 200);
    assert_eq!(kinesis.ask("ListStreams", json!({})).await["StreamNames"], json!(["made"]));
    assert_eq!(kinesis.shards("made").await.len(), 2);
    let (data, answer) = kinesis.read_on(kinesis.trim_horizon("made", "shardId-000000000001").await).await;
    assert_eq!(data, [r#"{"a":1}"#]);
    assert_eq!(answer["Records"][0]["PartitionKey"], r#""k""#);
    let topics = http::Request::get(format!("http://{}/topics", kinesis.addr)).body(axum::body::Body::empty()).unwrap();
    let (_, _, body) = crate::kinesis_client::whole(kinesis.send(crate::kinesis_client::Http::One, topics).await).await;
    assert_eq!(body, r#"["made"]"#);
    let internal = json!({"StreamName": "__kinesis_streams"});
    assert_eq!(kinesis.refusal("DescribeStream", internal.clone()).await.0, "ResourceNotFoundException");
    let put = json!({"StreamName": "__kinesis_streams", "PartitionKey": "k", "Data": ""});
    assert_eq!(kinesis.refusal("PutRecord", put).await.0, "ResourceNotFoundException");
}

#[tokio::test]
async fn what_is_wrong_is_said_in_the_words_of_the_service() {
    let kinesis = Kinesis::with(|config| config.ingest.max_partitions_per_topic = 8).await;
    kinesis.create("a", 1).await;
    let one = "1 validation error detected: ";
    for (action, body, name, message) in [
        ("DescribeStream", json!({"StreamName": "x y"}), "ValidationException",
         format!("{one}Value 'x y' at 'streamName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+")),
        ("DescribeStream", json!({}), "ValidationException", format!("{one}Value null at 'streamName' failed to satisfy constraint: Member must not be null")),
        ("DescribeStream", json!({"StreamName": 1}), "SerializationException", "class com.amazon.coral.value.json.numbers.TruncatingBigNumber can not be converted to an String".to_owned()),
        ("PutRecord", json!({"StreamName": "a", "PartitionKey": "", "Data": ""}), "ValidationException",
         format!("{one}Value '' at 'partitionKey' failed to satisfy constraint: Member must have length greater than or equal to 1")),
        ("PutRecord", json!({"StreamName": "none", "PartitionKey": "k", "Data": ""}), "ResourceNotFoundException", "Stream none under account 000000000000 not found.".to_owned()),
        ("PutRecord", json!({"StreamName": "a", "PartitionKey": "k", "Data": "", "ExplicitHashKey": "340282366920938463463374607431768211456"}), "InvalidArgumentException",
         "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was 340282366920938463463374607431768211456".to_owned()),
        ("PutRecord", json!({"StreamName": "a", "PartitionKey": "k", "Data": "", "SequenceNumberForOrdering": "7"}), "InvalidArgumentException",
         "ExclusiveMinimumSequenceNumber 7 used in PutRecord on stream a under account 000000000000 is invalid.".to_owned()),
        ("PutRecords", json!({"StreamName": "a", "Records": [{"PartitionKey": "", "Data": ""}]}), "ValidationException",
         format!("{one}Value '' at 'records.1.member.partitionKey' failed to satisfy constraint: Member must have length greater than or equal to 1")),
        ("PutRecords", json!({"StreamName": "a", "Records": [{"PartitionKey": "k"}]}), "ValidationException", format!("{one}Value null at 'records.1.member.data' failed to satisfy constraint: Member must not be null")),
        ("GetShardIterator", json!({"StreamName": "a", "ShardId": "shardId-000000000007", "ShardIteratorType": "LATEST"}), "ResourceNotFoundException",
         "Shard shardId-000000000007 in stream a under account 000000000000 does not exist".to_owned()),
        ("GetShardIterator", json!({"StreamName": "a", "ShardId": "shardId-000000000000", "ShardIteratorType": "AT_TIMESTAMP"}), "InvalidArgumentException",
         "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no timestamp parameter.".to_owned()),
        ("GetRecords", json!({"ShardIterator": "AAAA"}), "InvalidArgumentException", "Invalid ShardIterator.".to_owned()),
        ("ListShards", json!({}), "InvalidArgumentException", "Either NextToken or StreamName should be provided.".to_owned()),
        ("ListShards", json!({"StreamName": "a", "NextToken": "x"}), "InvalidArgumentException", "NextToken and StreamName cannot be provided together.".to_owned()),
        ("IncreaseStreamRetentionPeriod", json!({"StreamName": "a", "RetentionPeriodHours": 23}), "InvalidArgumentException",
         "Minimum allowed retention period is 24 hours. Requested retention period (23 hours) is too short.".to_owned()),
        ("DecreaseStreamRetentionPeriod", json!({"StreamName": "a", "RetentionPeriodHours": 25}), "InvalidArgumentException",
         "Requested retention period (25 hours) for stream a can not be longer than existing retention period (24 hours). Use IncreaseRetentionPeriod API.".to_owned()),
        ("SplitShard", json!({"StreamName": "a", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "1"}), "InvalidArgumentException",
         "NewStartingHashKey 1 used in SplitShard() on shard shardId-000000000000 in stream a under account 000000000000 is not both greater than one plus the shard's StartingHashKey 0 and less than the shard's EndingHashKey 340282366920938463463374607431768211455.".to_owned()),
        ("CreateStream", json!({"StreamName": "b", "ShardCount": 9}), "LimitExceededException",
         "Stream b would have 9 shards, those closed included; 8 are allowed (ingest.max_partitions_per_topic)".to_owned()),
        ("CreateStream", json!({"StreamName": "__b", "ShardCount": 1}), "InvalidArgumentException", "no stream may be called __b".to_owned()),
        ("Nonsense", json!({}), "UnknownOperationException", String::new()),
    ] {
        let found = kinesis.refusal(action, body.clone()).await;
        assert_eq!(found, (name.to_owned(), message), "{action} {body}");
    }
    let large = "x".repeat((1 << 20) + 1);
    let put = json!({"StreamName": "a", "PartitionKey": "k", "Data": base64(&large)});
    let (name, message) = kinesis.refusal("PutRecord", put).await;
    assert!(
        name == "InvalidArgumentException" && message.contains("1048578 bytes exceeds 1048576"),
        "{name} {message}"
    );
    let (name, _) = kinesis.refusal("PutRecord", json!({"StreamName": "a", "PartitionKey": "k", "Data": "a"})).await;
    assert_eq!(name, "SerializationException");
}

#[tokio::test]
async fn settings_of_a_stream_are_changed_and_told() {
    let kinesis = Kinesis::start().await;
    kinesis.create("a", 1).await;
    let name = || json!({"StreamName": "a"});
    let with = |more: Value| {
        let mut request = name();
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    for hours in [48, 48] {
        kinesis.ask("IncreaseStreamRetentionPeriod", with(json!({"RetentionPeriodHours": hours}))).await;
    }
    kinesis.ask("UpdateStreamMode", json!({"StreamARN": ARN, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}})).await;
    kinesis.ask("UpdateMaxRecordSize", json!({"StreamARN": ARN, "MaxRecordSizeInKiB": 1024})).await;
    let metrics = kinesis
        .ask("EnableEnhancedMonitoring", with(json!({"ShardLevelMetrics": ["IncomingBytes", "OutgoingBytes"]})))
        .await;
    assert_eq!(
        (&metrics["CurrentShardLevelMetrics"], &metrics["DesiredShardLevelMetrics"]),
        (&json!([]), &json!(["IncomingBytes", "OutgoingBytes"]))
    );
    kinesis.ask("DisableEnhancedMonitoring", with(json!({"ShardLevelMetrics": ["IncomingBytes"]}))).await;
    let summary = kinesis.ask("DescribeStreamSummary", name()).await["StreamDescriptionSummary"].take();
    assert_eq!(summary["RetentionPeriodHours"], 48);
    assert_eq!(summary["StreamModeDetails"]["StreamMode"], "ON_DEMAND");
    assert_eq!(summary["EnhancedMonitoring"], json!([{"ShardLevelMetrics": ["OutgoingBytes"]}]));
    kinesis.ask("AddTagsToStream", with(json!({"Tags": {"a": "1", "b": "2"}}))).await;
    kinesis.ask("TagResource", json!({"ResourceARN": ARN, "Tags": {"c": "3"}})).await;
    kinesis.ask("RemoveTagsFromStream", with(json!({"TagKeys": ["a"]}))).await;
    kinesis.ask("UntagResource", json!({"ResourceARN": ARN, "TagKeys": ["none"]})).await;
    let tags = kinesis.ask("ListTagsForResource", json!({"ResourceARN": ARN})).await;
    assert_eq!(tags["Tags"], json!([{"Key": "b", "Value": "2"}, {"Key": "c", "Value": "3"}]));
    let page = kinesis.ask("ListTagsForStream", with(json!({"Limit": 1}))).await;
    assert_eq!((&page["Tags"][0]["Key"], &page["HasMoreTags"]), (&json!("b"), &json!(true)));
}

#[tokio::test]
async fn consumers_are_registered_once_and_keep_a_stream_from_being_deleted() {
    let kinesis = Kinesis::start().await;
    kinesis.create("a", 1).await;
    let register = || json!({"StreamARN": ARN, "ConsumerName": "c", "Tags": {"k": "v"}});
    let consumer = kinesis.ask("RegisterStreamConsumer", register()).await["Consumer"].take();
    assert_eq!((&consumer["ConsumerName"], &consumer["ConsumerStatus"]), (&json!("c"), &json!("ACTIVE")));
    assert_eq!(kinesis.refusal("RegisterStreamConsumer", register()).await.0, "ResourceInUseException");
    let by_arn = json!({"ConsumerARN": consumer["ConsumerARN"]});
    let described = kinesis.ask("DescribeStreamConsumer", by_arn.clone()).await["ConsumerDescription"].take();
    assert_eq!((&described["StreamARN"], &described["ConsumerARN"]), (&json!(ARN), &consumer["ConsumerARN"]));
    let tags = kinesis.ask("ListTagsForResource", json!({"ResourceARN": consumer["ConsumerARN"]})).await;
    assert_eq!(tags["Tags"], json!([{"Key": "k", "Value": "v"}]));
    assert_eq!(kinesis.ask("ListStreamConsumers", json!({"StreamARN": ARN})).await, json!({"Consumers": [consumer]}));
    assert_eq!(kinesis.refusal("DeleteStream", json!({"StreamName": "a"})).await.0, "ResourceInUseException");
    kinesis.ask("DeregisterStreamConsumer", json!({"StreamARN": ARN, "ConsumerName": "c"})).await;
    assert_eq!(kinesis.refusal("DescribeStreamConsumer", by_arn).await.0, "ResourceNotFoundException");
    kinesis.ask("RegisterStreamConsumer", register()).await;
    kinesis.ask("DeleteStream", json!({"StreamName": "a", "EnforceConsumerDeletion": true})).await;
}

#[tokio::test]
async fn with_limits_a_shard_takes_a_thousand_records_a_second() {
    let kinesis = Kinesis::with(|config| config.kinesis.limits = model::config::KinesisLimits::Aws).await;
    kinesis.create("a", 1).await;
    let entries: Vec<Value> =
        (0..500).map(|_| json!({"PartitionKey": "k", "Data": base64(&"x".repeat(4000))})).collect();
    let answer = kinesis.ask("PutRecords", json!({"StreamName": "a", "Records": entries})).await;
    let n_failed = answer["FailedRecordCount"].as_u64().unwrap();
    assert!((1..500).contains(&n_failed), "{n_failed}");
    let failed = answer["Records"].as_array().unwrap().iter().find(|record| record["ErrorCode"].is_string()).unwrap();
    assert_eq!(failed["ErrorCode"], "ProvisionedThroughputExceededException");
    assert_eq!(
        failed["ErrorMessage"],
        "Rate exceeded for shard shardId-000000000000 in stream a under account 000000000000."
    );
    let (data, _) = kinesis.read_on(kinesis.trim_horizon("a", "0").await).await;
    assert_eq!(data.len() as u64, 500 - n_failed);
}

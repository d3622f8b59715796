//! Keys at the door of Kinesis: every action on every stream that a request can name, by name, ARN,
//! consumer or iterator; and that whoever changes something is written down, once.

use std::sync::Arc;

use axum::Router;
use event_log::MemoryLog;
use http::{Request, request::Parts};
use model::{Stop, config::Config};
use serde_json::{Value, json};
use server::{
    guard::policy::{self, Demand},
    router,
};
use tower::ServiceExt;

use crate::{
    auth::{Keys, id_of, routes, signed_call},
    canary::Lines,
    harness::services,
};

/// What each action asks for, and a request that names `{name}`. A table of its own: it is compared
/// with what the server makes of the same names.
const ACTIONS: [(&str, &str, &str); 29] = [
    ("PutRecord", "produce", r#"{"StreamName":"{name}","Data":"eA==","PartitionKey":"k"}"#),
    ("PutRecords", "produce", r#"{"StreamARN":"{arn}","Records":[{"Data":"eA==","PartitionKey":"k"}]}"#),
    (
        "GetShardIterator",
        "consume",
        r#"{"StreamName":"{name}","ShardId":"shardId-000000000000","ShardIteratorType":"LATEST"}"#,
    ),
    ("GetRecords", "consume", r#"{"ShardIterator":"{iterator}"}"#),
    (
        "SubscribeToShard",
        "consume",
        r#"{"ConsumerARN":"{consumer}","ShardId":"shardId-000000000000","StartingPosition":{"Type":"LATEST"}}"#,
    ),
    ("DescribeStream", "describe", r#"{"StreamName":"{name}"}"#),
    ("DescribeStreamSummary", "describe", r#"{"StreamARN":"{arn}"}"#),
    ("ListShards", "describe", r#"{"StreamName":"{name}"}"#),
    ("ListTagsForStream", "describe", r#"{"StreamName":"{name}"}"#),
    ("ListTagsForResource", "describe", r#"{"ResourceARN":"{consumer}"}"#),
    ("ListStreamConsumers", "describe", r#"{"StreamARN":"{arn}"}"#),
    ("DescribeStreamConsumer", "describe", r#"{"ConsumerARN":"{consumer}"}"#),
    ("CreateStream", "admin", r#"{"StreamName":"{name}","ShardCount":1}"#),
    ("AddTagsToStream", "admin", r#"{"StreamName":"{name}","Tags":{"a":"1"}}"#),
    ("RemoveTagsFromStream", "admin", r#"{"StreamName":"{name}","TagKeys":["a"]}"#),
    ("TagResource", "admin", r#"{"ResourceARN":"{arn}","Tags":{"a":"1"}}"#),
    ("UntagResource", "admin", r#"{"ResourceARN":"{consumer}","TagKeys":["a"]}"#),
    ("IncreaseStreamRetentionPeriod", "admin", r#"{"StreamName":"{name}","RetentionPeriodHours":48}"#),
    ("DecreaseStreamRetentionPeriod", "admin", r#"{"StreamARN":"{arn}","RetentionPeriodHours":24}"#),
    ("EnableEnhancedMonitoring", "admin", r#"{"StreamName":"{name}","ShardLevelMetrics":["ALL"]}"#),
    ("DisableEnhancedMonitoring", "admin", r#"{"StreamName":"{name}","ShardLevelMetrics":["ALL"]}"#),
    ("UpdateStreamMode", "admin", r#"{"StreamARN":"{arn}","StreamModeDetails":{"StreamMode":"PROVISIONED"}}"#),
    ("UpdateMaxRecordSize", "admin", r#"{"StreamARN":"{arn}","MaxRecordSizeInKiB":1024}"#),
    ("RegisterStreamConsumer", "admin", r#"{"StreamARN":"{arn}","ConsumerName":"d"}"#),
    ("DeregisterStreamConsumer", "admin", r#"{"ConsumerARN":"{consumer}"}"#),
    (
        "SplitShard",
        "admin",
        r#"{"StreamName":"{name}","ShardToSplit":"shardId-000000000000","NewStartingHashKey":"9"}"#,
    ),
    (
        "MergeShards",
        "admin",
        r#"{"StreamName":"{name}","ShardToMerge":"shardId-000000000001","AdjacentShardToMerge":"shardId-000000000002"}"#,
    ),
    ("UpdateShardCount", "admin", r#"{"StreamName":"{name}","TargetShardCount":2,"ScalingType":"UNIFORM_SCALING"}"#),
    ("DeleteStream", "admin", r#"{"StreamName":"{name}","EnforceConsumerDeletion":true}"#),
];

struct Door {
    router: Router,
    keys: Keys,
}

impl Door {
    fn of(keys: Keys) -> Self {
        let mut config = Config::defaults();
        config.auth = keys.config();
        Self { router: router::router(services(Arc::new(MemoryLog::new()), config), Stop::new()), keys }
    }

    fn signed(&self, key: &str, action: &str, body: &str) -> Parts {
        signed_call(action, id_of(key), &self.keys.signing_secret(id_of(key)), body)
    }

    /// Status and answer; of a subscription the status alone.
    async fn send(&self, head: Parts, body: &str) -> (u16, Value) {
        let request = Request::from_parts(head, axum::body::Body::from(body.to_owned()));
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        if head.headers.get("content-type").is_some_and(|found| found == "application/vnd.amazon.eventstream") {
            return (head.status.as_u16(), Value::Null);
        }
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (head.status.as_u16(), serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn ask(&self, key: &str, action: &str, body: &str) -> (u16, Value) {
        self.send(self.signed(key, action, body), body).await
    }
}

fn arn(name: &str) -> String {
    format!("arn:aws:kinesis:eu-west-1:000000000000:stream/{name}")
}

#[tokio::test]
async fn every_action_needs_its_own_permission_on_the_stream_that_it_names() {
    let kinds = ["produce", "consume", "describe", "admin"];
    let mut keys = Keys::new();
    let root = keys.add(&["produce,consume,describe,admin:*"], None);
    let granted = kinds.map(|kind| keys.add(&[&format!("{kind}:mine*")], None));
    // Everything but this on it, and this on another one.
    let others = kinds.map(|kind| {
        let rest: Vec<&str> = kinds.into_iter().filter(|other| *other != kind).collect();
        keys.add(&[&format!("{}:*", rest.join(",")), &format!("{kind}:other")], None)
    });
    let door = Door::of(keys);
    let mut places = Vec::new();
    for name in ["mine.a", "theirs"] {
        let made = door.ask(&root, "CreateStream", &json!({"StreamName": name, "ShardCount": 2}).to_string()).await;
        assert_eq!(made.0, 200, "{made:?}");
        let consumer = json!({"StreamARN": arn(name), "ConsumerName": "c"}).to_string();
        let (_, registered) = door.ask(&root, "RegisterStreamConsumer", &consumer).await;
        let from = json!({"StreamName": name, "ShardId": "0", "ShardIteratorType": "LATEST"}).to_string();
        let (_, iterator) = door.ask(&root, "GetShardIterator", &from).await;
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
        places.push((name, text(&registered["Consumer"]["ConsumerARN"]), text(&iterator["ShardIterator"])));
    }
    let body = |template: &str, (name, consumer, iterator): &(&str, String, String)| {
        let text = template.replace("{name}", name).replace("{arn}", &arn(name));
        text.replace("{consumer}", consumer).replace("{iterator}", iterator)
    };
    let is_denied = |(status, said): &(u16, Value)| {
        assert!(*status != 403 && said["__type"] != "UnknownOperationException", "{status} {said}");
        said["__type"] == "AccessDeniedException"
    };
    for (action, kind, template) in ACTIONS {
        let of_kind = kinds.iter().position(|known| *known == kind).unwrap();
        let (mine, theirs) = (body(template, &places[0]), body(template, &places[1]));
        for (key, body) in [(&others[of_kind], &mine), (&granted[of_kind], &theirs)] {
            let said = door.ask(key, action, body).await;
            assert!(is_denied(&said), "{action} {body}: {said:?}");
        }
        for (i, key) in granted.iter().enumerate().filter(|(i, _)| *i != of_kind) {
            let said = door.ask(key, action, &mine).await;
            assert!(is_denied(&said), "{action} with {}: {said:?}", kinds[i]);
        }
        let said = door.ask(&granted[of_kind], action, &mine).await;
        assert!(!is_denied(&said), "{action}: {said:?}");
    }
    // What was refused was not done: the other stream is as it was made, its record never put.
    let (_, theirs) = door.ask(&root, "DescribeStreamSummary", r#"{"StreamName":"theirs"}"#).await;
    let theirs = &theirs["StreamDescriptionSummary"];
    assert_eq!((&theirs["OpenShardCount"], &theirs["ConsumerCount"]), (&json!(2), &json!(1)), "{theirs}");
    let (_, read) = door.ask(&root, "GetRecords", &body(r#"{"ShardIterator":"{iterator}"}"#, &places[1])).await;
    assert_eq!(read["Records"], json!([]));
    for (action, kind) in [("ListStreams", 2), ("DescribeLimits", 2)] {
        for (i, key) in granted.iter().enumerate() {
            assert_eq!(is_denied(&door.ask(key, action, "{}").await), i != kind, "{action} with {}", kinds[i]);
        }
    }
    let (_, listed) = door.ask(&granted[2], "ListStreams", "{}").await;
    assert_eq!(listed["StreamNames"], json!([]), "mine is deleted, and theirs is not shown");
}

/// The path names one stream, the iterator that comes in a header another.
#[tokio::test]
async fn an_iterator_behind_the_gateway_reads_no_other_stream() {
    let mut keys = Keys::new();
    let (root, mine) =
        (keys.add(&["produce,consume,describe,admin:*"], None), keys.add(&["consume,admin:mine*"], None));
    let door = Door::of(keys);
    for name in ["mine", "theirs"] {
        door.ask(&root, "CreateStream", &json!({"StreamName": name, "ShardCount": 1}).to_string()).await;
    }
    let gateway = async |method: &str, path: &str, key: &str, iterator: &str| {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("x-api-key", key).header("shard-iterator", iterator);
        door.send(request.body(()).unwrap().into_parts().0, "").await
    };
    let from = "/dev/streams/theirs/sharditerator?shard-id=0";
    let (status, iterator) = gateway("GET", from, &root, "").await;
    let iterator = iterator["ShardIterator"].as_str().unwrap();
    assert_eq!(status, 200);
    assert_eq!(gateway("GET", "/dev/streams/theirs/records", &root, iterator).await.0, 200);
    let (status, said) = gateway("GET", "/dev/streams/mine/records", &mine, iterator).await;
    assert_eq!((status, &said["__type"]), (400, &json!("AccessDeniedException")), "{said}");
    for (method, path) in [
        ("GET", "/dev/streams/theirs/records"),
        ("GET", from),
        ("DELETE", "/dev/streams/theirs"),
        ("PUT", "/dev/streams/mine/record"),
    ] {
        assert_eq!(gateway(method, path, &mine, iterator).await, (403, json!({"message": "Forbidden"})), "{path}");
    }
    assert_eq!(gateway("DELETE", "/dev/streams/mine", &mine, "").await.0, 200);
}

#[tokio::test]
async fn a_removed_or_expired_key_signs_nothing_any_more() {
    let mut keys = Keys::new();
    let (goes, ends, stays) =
        (keys.add(&["describe:*"], None), keys.add(&["describe:*"], None), keys.add(&["describe:*"], None));
    let secrets = [&goes, &ends, &stays].map(|key| keys.signing_secret(id_of(key)));
    keys.file.keys[1].expires = Some("2020-01-01T00:00:00Z".to_owned());
    keys.file.remove(id_of(&goes)).unwrap();
    keys.write();
    let door = Door::of(keys);
    for (key, secret, found) in [
        (&goes, &secrets[0], Some("UnrecognizedClientException")),
        (&ends, &secrets[1], Some("UnrecognizedClientException")),
        (&stays, &secrets[0], Some("InvalidSignatureException")),
        (&stays, &secrets[2], None),
    ] {
        let (_, said) = door.send(signed_call("ListStreams", id_of(key), secret, "{}"), "{}").await;
        assert_eq!(said["__type"].as_str(), found, "{said}");
    }
}

#[tokio::test]
async fn whoever_changes_something_is_written_down_once() {
    let lines = Lines::default();
    let _logging = lines.collect();
    let mut keys = Keys::new();
    let admin = keys.add(&["admin,produce,describe:*", "tasks:*"], None);
    let nobody = keys.add(&["describe:*"], None);
    let door = Door::of(keys);
    let audited = || -> Vec<String> {
        lines.take().lines().filter(|line| line.contains(" audit: ")).map(str::to_owned).collect()
    };
    let places = ("a".to_owned(), arn("a"), format!("{}/consumer/c:1", arn("a")));
    for (action, kind, template) in ACTIONS {
        let body = template.replace("{name}", &places.0).replace("{arn}", &places.1).replace("{consumer}", &places.2);
        let (status, _) = door.ask(&admin, action, &body).await;
        let found = audited();
        assert_eq!(found.len(), usize::from(kind == "admin"), "{action}: {found:?}");
        for line in found {
            for part in [id_of(&admin), action, &format!("status={status}"), "a"] {
                assert!(line.contains(part), "{part} is not in {line}");
            }
        }
        // What is refused for want of a permission is counted, so that nobody can fill the log with it.
        door.ask(&nobody, action, &body).await;
        assert_eq!(audited(), Vec::<String>::new(), "{action}");
    }
    for (method, template) in routes() {
        let Some((Demand::May(action, _), _)) = policy::demand(&method, &template) else { continue };
        let segment = |part: &str| if part.starts_with('{') { "0".to_owned() } else { part.to_owned() };
        let path = template.split('/').map(segment).collect::<Vec<_>>().join("/");
        let request = Request::builder().method(method.as_str()).uri(&path).header("host", "localhost");
        let request = request.header("x-api-key", &admin).body(()).unwrap();
        door.send(request.into_parts().0, "").await;
        let changes = method != "GET" && ["admin", "tasks"].contains(&action.to_string().as_str());
        let found = audited();
        assert_eq!(found.len(), usize::from(changes), "{method} {template}: {found:?}");
        assert!(found.iter().all(|line| line.contains(id_of(&admin)) && line.contains(&template)), "{found:?}");
    }
}

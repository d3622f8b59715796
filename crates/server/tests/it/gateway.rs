//! The gateway's own resources, `/streams…`: what never reaches Kinesis is answered in the gateway's
//! words. (What the mapping templates make of requests is tested where they are.)

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use event_log::MemoryLog;
use serde_json::{Value, json};

use crate::{
    harness::{Reply, Server},
    node::Node,
};

async fn put(server: &Server, path: &str, body: &str) -> Reply {
    let head = format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    server.ask(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await
}

#[tokio::test]
async fn paths_and_methods_that_are_no_resource_miss_a_token() {
    let server = Server::start().await;
    for (method, path) in [
        ("GET", "/streams/"),
        ("GET", "/streams/a/"),
        ("GET", "/streams/a/nothing"),
        ("GET", "/dev/streams/a/record/x"),
        ("POST", "/streams"),
        ("PATCH", "/streams/a"),
        ("POST", "/streams/a/record"),
        ("GET", "/prod/streams/a/record"),
        ("GET", "/prod/nothing"),
        ("GET", "/test"),
    ] {
        let reply = server.ask(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let answer = (reply.status, reply.body.as_str());
        assert_eq!(answer, (403, r#"{"message":"Missing Authentication Token"}"#), "{method} {path}");
        assert_eq!(reply.headers["x-amzn-errortype"], "MissingAuthenticationTokenException");
    }
}

/// A posting script's day: makes its stream, puts a row as it does, and someone reads it.
#[tokio::test]
async fn behind_the_gateway_is_kinesis() {
    let log = Arc::new(MemoryLog::new());
    let node = Node::on(&log, |_| {});
    let json = [("content-type", "application/json")];
    let at = |rest: &str| format!("/test/streams/streaming-0a3-geo{rest}");
    assert_eq!(node.ask("POST", &at(""), &json, "").await.status, 200);
    assert_eq!(node.get("/test/streams").await.json()["StreamNames"], json!(["streaming-0a3-geo"]));
    let stream = node.get(&at("")).await.json();
    assert_eq!(stream["StreamDescription"]["Shards"].as_array().map(Vec::len), Some(5), "{stream}");
    let row = r#"{"StreamName": "{self.stream_name}", "Data": {"ind": 497, "country": "Albania"}, "PartitionKey": "partition-1"}"#;
    let put = node.ask("PUT", &at("/record"), &json, row).await;
    assert_eq!((put.status, put.media_type.as_str()), (200, "application/json"), "{put:?}");
    let shard = put.json()["ShardId"].as_str().unwrap().to_owned();
    assert!(put.json()["SequenceNumber"].as_str().is_some_and(|number| number.len() == 56), "{put:?}");
    let rows = r#"{"records":[{"data":"some data","partition-key":"partition-1"},{"data":{"ind": 1},"partition-key":"partition-1"}]}"#;
    assert_eq!(node.ask("PUT", &at("/records"), &json, rows).await.json()["FailedRecordCount"], 0);
    let iterator = node.get(&at(&format!("/sharditerator?shard-id={shard}"))).await.json();
    let iterator = iterator["ShardIterator"].as_str().unwrap();
    let read = node.ask("GET", &at("/records"), &[("shard-iterator", iterator)], "").await.json();
    let data = |record: &Value| BASE64_STANDARD.decode(record["Data"].as_str().unwrap()).unwrap();
    let data: Vec<Vec<u8>> = read["Records"].as_array().unwrap().iter().map(data).collect();
    assert_eq!(data, [&br#"{"ind":497,"country":"Albania"}"#[..], b"some data", br#"{"ind":1}"#]);
    let again = node.ask("POST", &at(""), &json, "{}").await;
    assert_eq!((again.status, again.json()["__type"].as_str()), (400, Some("ResourceInUseException")));
    let missing = node.ask("PUT", "/streams/none/record", &json, r#"{"Data":1,"PartitionKey":"a"}"#).await;
    assert_eq!((missing.status, missing.json()["__type"].as_str()), (400, Some("ResourceNotFoundException")));
    assert_eq!(missing.media_type, "application/json");
    let keyless = node.ask("PUT", &at("/record"), &json, r#"{"Data":1}"#).await;
    assert_eq!((keyless.status, keyless.json()["__type"].as_str()), (400, Some("ValidationException")));
    assert_eq!(node.delete(&at("")).await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_mapped_is_refused_and_holds_no_room() {
    let server = Server::with(|config| config.ingest.max_body_bytes = 4 << 20).await;
    let deep = format!(r#"{{"Data":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let many = format!(r#"{{"records":[{}]}}"#, vec!["{}"; 1_000_000].join(","));
    for (path, status, words, body) in [
        ("/streams/a/record", 400, "Could not parse request body into json", ""),
        ("/dev/streams/a/record", 400, "line 1 column", "ind=1"),
        ("/streams/a/record", 400, "ingest.max_json_depth", &deep),
        ("/streams/a/records", 400, "more than 500", &many),
        ("/streams/a/record", 413, "ingest.max_body_bytes", &"x".repeat(5 << 20)),
        ("/streams/%ff/record", 400, "UTF-8", "{}"),
    ] {
        let reply = put(&server, path, body).await;
        assert_eq!(reply.status, status, "{path}: {:.200}", reply.body);
        assert!(reply.body.contains(words) && reply.body.len() < 300, "{path}: {:.400}", reply.body);
        assert_eq!(reply.headers["content-type"], "application/json");
    }
    let gzip = "PUT /streams/a/record HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n";
    assert_eq!(server.ask(gzip).await.status, 415);
    let foreign = "PUT /streams/a/record HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.test\r\n";
    assert_eq!(server.ask(format!("{foreign}Content-Length: 2\r\n\r\n{{}}")).await.status, 403);
    assert!(server.get("/metrics").await.body.contains("corkboard_ingest_inflight_bytes 0\n"));
}

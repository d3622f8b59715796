//! Consumers over HTTP: what they are told, and that no record is lost or read by two at once,
//! whichever process they ask and whatever becomes of it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Body;
use event_log::{EmbeddedLog, MemoryLog};
use http_body_util::BodyExt;
use model::{EventLog, Offset, Record, config::Config};
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    meddled::Meddled,
    node::{KAFKA_V2, Node, Said, append, create, partition},
};

const JSON: &str = "application/vnd.kafka.json.v2+json";
const BINARY: &str = "application/vnd.kafka.binary.v2+json";

/// A log with the topic `a` of so many partitions.
async fn log_with(n_partitions: u32) -> Arc<MemoryLog> {
    let log = Arc::new(MemoryLog::new());
    create(&*log, "a", n_partitions).await;
    log
}

/// Creates an instance of the group `g` that begins at the beginning, and subscribes it to `a`.
async fn subscribe(node: &Node, name: &str, more: &str) {
    let body = format!(r#"{{"name":"{name}","format":"json","auto.offset.reset":"earliest"{more}}}"#);
    let said = node.post("/consumers/g", &body).await;
    assert_eq!(said.status, 200, "{said:?}");
    let said = node.post(&at(name, "/subscription"), r#"{"topics":["a"]}"#).await;
    assert_eq!(said.status, 204, "{said:?}");
}

fn at(name: &str, rest: &str) -> String {
    format!("/consumers/g/instances/{name}{rest}")
}

/// The values that a read returns.
async fn read(node: &Node, name: &str) -> Vec<i64> {
    let said = node.get(&at(name, "/records?timeout=1")).await;
    assert_eq!(said.status, 200, "{said:?}");
    said.json().as_array().unwrap().iter().map(|r| r["value"].as_i64().unwrap()).collect()
}

async fn committed(node: &Node, name: &str) -> Value {
    let asked = r#"{"partitions":[{"topic":"a","partition":0}]}"#;
    let said = node.ask("GET", &at(name, "/offsets"), &[("content-type", KAFKA_V2)], asked).await;
    assert_eq!(said.status, 200, "{said:?}");
    said.json()["offsets"].clone()
}

fn offsets(offset: u64) -> Value {
    json!([{ "topic": "a", "partition": 0, "offset": offset, "metadata": "" }])
}

#[tokio::test]
async fn a_consumer_s_life_as_its_client_sees_it() {
    let log = log_with(1).await;
    let node = Node::on(&log, |_| {});
    let said = node.post("/consumers/my%20g", r#"{"name":"c/1","format":"json"}"#).await;
    let base_uri = "http://localhost:8082/consumers/my%20g/instances/c%2F1";
    assert_eq!(said.body, format!(r#"{{"instance_id":"c/1","base_uri":"{base_uri}"}}"#));
    assert_eq!((said.status, said.media_type.as_str()), (200, KAFKA_V2));
    assert_eq!(node.delete("/consumers/my%20g/instances/c%2F1").await.status, 204);

    subscribe(&node, "c", r#","auto.commit.enable":"false""#).await;
    assert_eq!(node.get(&at("c", "/subscription")).await.body, r#"{"topics":["a"]}"#);
    assert_eq!(node.get(&at("c", "/assignments")).await.body, r#"{"partitions":[{"topic":"a","partition":0}]}"#);
    let record = Record { key: Some("\"k\"".into()), ..Record::of_value(r#"{"b":2.50}"#) };
    log.append(&partition("a", 0), vec![record, Record { value: None, ..Record::of_value("") }]).await.unwrap();
    let said = node.ask("GET", &at("c", "/records"), &[("accept", JSON)], Body::empty()).await;
    let first = r#"{"topic":"a","key":"k","value":{"b":2.50},"partition":0,"offset":0}"#;
    let second = r#"{"topic":"a","key":null,"value":null,"partition":0,"offset":1}"#;
    assert_eq!(said.body, format!("[{first},{second}]"));
    assert_eq!((said.status, said.media_type.as_str()), (200, JSON));
    assert_eq!(committed(&node, "c").await, json!([]));

    let said = node.post(&at("c", "/offsets"), r#"{"offsets":[{"topic":"a","partition":0,"offset":0}]}"#).await;
    assert_eq!((said.status, said.body.as_str()), (200, "[]"));
    assert_eq!(committed(&node, "c").await, offsets(1));
    assert_eq!(node.post(&at("c", "/offsets"), "").await.body, "[]");
    assert_eq!(committed(&node, "c").await, offsets(2));
    for (rest, body, first) in [
        ("/positions", r#"{"offsets":[{"topic":"a","partition":0,"offset":1,"metadata":"m"}]}"#, Some(1)),
        ("/positions/beginning", r#"{"partitions":[{"topic":"a","partition":0}]}"#, Some(0)),
        ("/positions/end", r#"{"partitions":[]}"#, None),
        ("/positions", r#"{"timestamps":[{"topic":"a","partition":0,"timestamp":"2000-01-01T00:00:00Z"}]}"#, Some(0)),
        ("/positions", r#"{"timestamps":[{"topic":"a","partition":0,"timestamp":"2999-01-01T00:00:00Z"}]}"#, None),
    ] {
        assert_eq!(node.post(&at("c", rest), body).await.status, 204, "{body}");
        let said = node.get(&at("c", "/records?timeout=1")).await;
        let offset = said.json().as_array().unwrap().first().and_then(|r| r["offset"].as_i64());
        assert_eq!(offset, first, "{body}");
    }
    assert_eq!(node.delete(&at("c", "/subscription")).await.status, 204);
    assert_eq!(node.get(&at("c", "/subscription")).await.body, r#"{"topics":[]}"#);
    let chosen = r#"{"partitions":[{"topic":"a","partition":0}]}"#;
    assert_eq!(node.post(&at("c", "/assignments"), chosen).await.status, 204);
    assert_eq!(node.get(&at("c", "/assignments")).await.body, chosen);
    assert_eq!(node.get(&at("c", "/records?timeout=1")).await.body, "[]", "all of it is committed");
    assert_eq!(node.delete(&at("c", "")).await.status, 204);
    assert_eq!(node.delete(&at("c", "")).await.status, 404);
    assert_eq!(node.get("/topics").await.body, r#"["a"]"#, "what the groups agreed on is nobody's topic");
}

#[tokio::test]
async fn binary_is_the_usual_format() {
    let log = log_with(1).await;
    let node = Node::on(&log, |_| {});
    let said = node.post("/consumers/g", "").await;
    let name = said.json()["instance_id"].as_str().unwrap().to_owned();
    assert!(name.starts_with("rest-consumer-"), "{name}");
    node.post(&at(&name, "/subscription"), r#"{"topics":["a"]}"#).await;
    assert_eq!(node.get(&at(&name, "/records?timeout=1")).await.body, "[]");
    let record = Record { key: Some("k".into()), ..Record::of_value(&b"\xff\xef"[..]) };
    log.append(&partition("a", 0), vec![record]).await.unwrap();
    let said = node.ask("GET", &at(&name, "/records"), &[("accept", KAFKA_V2)], Body::empty()).await;
    assert_eq!(said.body, r#"[{"topic":"a","key":"aw==","value":"/+8=","partition":0,"offset":0}]"#);
    assert_eq!(said.media_type, KAFKA_V2);
}

fn is(said: &Said, status: u16, code: u32, message: &str) {
    let expected = json!({ "error_code": code, "message": message });
    assert_eq!((said.status, said.json()), (status, expected), "{said:?}");
}

const NO_INSTANCE: &str = "Consumer instance not found.";
const EXCLUSIVE: &str = "Illegal state: Subscription to topics, partitions and pattern are mutually exclusive";

#[tokio::test]
async fn every_error_has_its_code_and_its_words() {
    let log = log_with(1).await;
    let node = Node::on(&log, |config| config.consumers.max_topics_per_subscription = 2);
    let constraint = "Invalid consumer configuration. It does not abide by the constraints: Invalid value -2 for \
                      configuration fetch.min.bytes: Value must be between -1 and 10000000";
    let reset = "Invalid consumer configuration: Invalid value first for configuration auto.offset.reset: String must \
                 be one of: latest, earliest, none";
    let commit = "Invalid consumer configuration: Invalid value x for configuration enable.auto.commit: Expected value \
                  to be either true or false";
    let avro =
        "Invalid consumer configuration: this server has no schema registry, so it does not take the avro format";
    for (body, status, code, message) in [
        (r#"{"format":"xml"}"#, 422, 422, "Invalid format type."),
        (r#"{"format":"string"}"#, 422, 422, "Invalid format type."),
        (r#"{"format":"avro"}"#, 422, 42204, avro),
        (r#"{"x":1}"#, 422, 422, "Unrecognized field: x"),
        (r#"{"auto.offset.reset":"first"}"#, 422, 42204, reset),
        (r#"{"auto.commit.enable":"x"}"#, 422, 42204, commit),
        (r#"{"fetch.min.bytes":-2}"#, 422, 40001, constraint),
        (r#"{"fetch.min.bytes":"x"}"#, 400, 400, "fetch.min.bytes: not a whole number at line 1 column 23"),
        (r#"{"name":["c"]}"#, 400, 400, "name: invalid type: sequence, expected a string at line 1 column 8"),
        ("{", 400, 400, "EOF while parsing an object at line 1 column 1"),
        (
            r#"{"name":""}"#,
            422,
            42204,
            "Invalid consumer configuration: the name of the instance has 0 bytes, 1 to 249 are allowed",
        ),
    ] {
        is(&node.post("/consumers/g", body).await, status, code, message);
    }
    assert_eq!(node.ask("POST", "/consumers/g", &[("content-type", "text/plain")], "{}").await.status, 415);
    assert_eq!(node.ask("POST", "/consumers/g", &[], "{}").await.status, 415);
    for method in ["GET", "POST", "DELETE"] {
        let said = node.ask(method, &at("c", "/subscription"), &[], Body::empty()).await;
        is(&said, 404, 40403, NO_INSTANCE);
    }
    is(&node.get(&at("c", "/records")).await, 404, 40403, NO_INSTANCE);
    is(&node.post(&at("c", "/offsets"), "").await, 404, 40403, NO_INSTANCE);

    subscribe(&node, "c", "").await;
    let exists = "Consumer with specified consumer ID already exists in the specified consumer group.";
    is(&node.post("/consumers/g", r#"{"id":"c","name":"d"}"#).await, 409, 40902, exists);
    let unassigned = "Illegal state: No current assignment for partition b-0";
    let named = |offset: i64| format!(r#"{{"offsets":[{{"topic":"b","partition":0,"offset":{offset}}}]}}"#);
    let negative = "offsets[0].offset must be greater than or equal to 0 (was -1)";
    let b = r#"{"partitions":[{"topic":"b","partition":0}]}"#.to_owned();
    let minus = r#"{"partitions":[{"topic":"b","partition":-1}]}"#.to_owned();
    let minus_text = "partitions[0].partition must be greater than or equal to 0 (was -1)";
    let no_body = "the request body must not be null (was null)";
    let not_a_time = r#"{"timestamps":[{"topic":"a","partition":0,"timestamp":"x"}]}"#.to_owned();
    let not_a_time_text = "timestamps[0].timestamp is not an RFC 3339 time (was \"x\")";
    for (rest, body, status, code, message) in [
        ("/subscription", r#"{"topic_pattern":"a.*"}"#.to_owned(), 409, 40903, EXCLUSIVE),
        ("/subscription", r#"{"topics":["a"],"topic_pattern":"a.*"}"#.to_owned(), 409, 40903, EXCLUSIVE),
        ("/subscription", "{}".to_owned(), 422, 422, "topics must not be null (was null)"),
        ("/subscription", String::new(), 422, 422, no_body),
        ("/subscription", r#"{"topics":["__consumers"]}"#.to_owned(), 400, 40002, "topic __consumers is internal"),
        (
            "/subscription",
            r#"{"topics":["a","b","c"]}"#.to_owned(),
            422,
            42204,
            "Invalid consumer configuration: topics has 3 names, 2 are allowed (consumers.max_topics_per_subscription)",
        ),
        ("/assignments", b.clone(), 409, 40903, EXCLUSIVE),
        ("/assignments", minus, 422, 422, minus_text),
        ("/positions", named(0), 409, 40903, unassigned),
        ("/positions", named(-1), 422, 422, negative),
        ("/positions", not_a_time, 400, 400, not_a_time_text),
        ("/positions/beginning", b.clone(), 409, 40903, unassigned),
        ("/positions/end", b.clone(), 409, 40903, unassigned),
        ("/positions/end", String::new(), 422, 422, no_body),
        ("/offsets", named(-1), 422, 422, negative),
        ("/offsets", b.clone(), 422, 422, "Unrecognized field: partitions"),
        ("/offsets", "{}".to_owned(), 422, 422, "offsets must not be null (was null)"),
    ] {
        is(&node.post(&at("c", rest), &body).await, status, code, message);
    }
    is(&node.get(&at("c", "/offsets")).await, 404, 40402, "Partition not found.");
    is(&node.get(&at("c", "/records?timeout=x")).await, 400, 400, "timeout is not a whole number (was x)");
    is(&node.get("/consumers/g/nothing").await, 404, 404, "HTTP 404 Not Found");
    is(&node.get("/consumers/g").await, 405, 405, "HTTP 405 Method Not Allowed");
    let origin = [("origin", "http://elsewhere.example"), ("content-type", KAFKA_V2)];
    assert_eq!(node.ask("POST", "/consumers/g", &origin, "{}").await.status, 403);
    assert_eq!(node.ask("GET", &at("c", "/records"), &origin, Body::empty()).await.status, 403);
    let long = "[".repeat(10_000);
    node.post("/consumers/other", r#"{"name":"p"}"#).await;
    let said =
        node.post("/consumers/other/instances/p/subscription", &json!({ "topic_pattern": long }).to_string()).await;
    assert_eq!(said.json()["error_code"], 422);
}

#[tokio::test]
async fn what_is_accepted_has_to_be_the_instance_s_format() {
    let log = log_with(1).await;
    let mismatch = "The requested embedded data format does not match the deserializer for this consumer instance";
    let plain = "application/json";
    let avro = "application/vnd.kafka.avro.v2+json";
    for (strict, format, accept, answer) in [
        (false, "json", JSON, Ok(JSON)),
        (false, "json", "*/*", Ok(JSON)),
        (false, "json", "", Ok(JSON)),
        (false, "json", plain, Ok(plain)),
        (false, "json", "text/html;q=0.9, application/vnd.kafka.json.v2+json;q=0.8, */*;q=0.1", Ok(JSON)),
        (false, "json", KAFKA_V2, Err(40601)),
        (false, "json", BINARY, Err(40601)),
        (false, "json", "application/vnd.kafka.v2+json, application/vnd.kafka+json, application/json", Ok(plain)),
        (false, "json", "application/vnd.kafka.json.v2+json;q=0", Err(406)),
        (false, "json", avro, Err(40601)),
        (false, "json", "text/html", Err(406)),
        (false, "binary", BINARY, Ok(BINARY)),
        (false, "binary", KAFKA_V2, Ok(KAFKA_V2)),
        (false, "binary", JSON, Err(40601)),
        (true, "json", "*/*", Err(40601)),
        (true, "json", "", Err(40601)),
        (true, "json", plain, Err(406)),
        (true, "json", JSON, Ok(JSON)),
        (true, "binary", "", Ok(KAFKA_V2)),
    ] {
        let node = Node::on(&log, |config| config.ingest.strict = strict);
        let name =
            node.post("/consumers/g", &json!({ "format": format }).to_string()).await.json()["instance_id"].clone();
        let headers: Vec<_> = [("accept", accept)].into_iter().filter(|(_, accept)| !accept.is_empty()).collect();
        let said = node.ask("GET", &at(name.as_str().unwrap(), "/records?timeout=1"), &headers, Body::empty()).await;
        match answer {
            Ok(media_type) => assert_eq!((said.status, said.media_type.as_str()), (200, media_type), "{accept}"),
            Err(40601) => is(&said, 406, 40601, mismatch),
            Err(code) => is(&said, 406, code, "HTTP 406 Not Acceptable"),
        }
    }
}

/// What redpanda's issue 9849 lists, as Confluent's proxy has it.
#[tokio::test]
async fn offsets_of_what_was_not_read_or_is_not_there() {
    let log = log_with(1).await;
    let node = Node::on(&log, |_| {});
    node.post("/consumers/g", r#"{"name":"c","format":"json"}"#).await;
    let unknown = r#"{"partitions":[{"topic":"nowhere","partition":0}]}"#;
    let offsets_of = |body: &'static str| {
        let node = node.clone();
        async move { node.ask("GET", &at("c", "/offsets"), &[("content-type", KAFKA_V2)], body).await.body }
    };
    assert_eq!(offsets_of(unknown).await, r#"{"offsets":[]}"#);
    assert_eq!(committed(&node, "c").await, json!([]));
    let said = node.post(&at("c", "/offsets"), r#"{"partitions":[{"topic":"a","partition":0,"offset":0}]}"#).await;
    assert_eq!(said.status, 422);
    let said = node.post(&at("c", "/offsets"), r#"{"offsets":[{"topic":"nowhere","partition":0,"offset":0}]}"#).await;
    assert_eq!(said.status, 200);
    assert_eq!(
        offsets_of(unknown).await,
        r#"{"offsets":[{"topic":"nowhere","partition":0,"offset":1,"metadata":""}]}"#
    );
}

#[tokio::test]
async fn a_record_that_is_not_json_is_told_and_can_be_passed_over() {
    let log = log_with(1).await;
    append(&*log, "a", 0, &["1", "{", "3"]).await;
    let node = Node::on(&log, |_| {});
    subscribe(&node, "c", "").await;
    assert_eq!(read(&node, "c").await, [1]);
    for _ in 0..2 {
        let said = node.get(&at("c", "/records?timeout=1")).await;
        let told = "Error deserializing key/value for partition a-0 at offset 1. If needed, please seek past the record \
                    to continue consumption. The value is not JSON.";
        is(&said, 408, 40801, told);
    }
    node.post(&at("c", "/positions"), r#"{"offsets":[{"topic":"a","partition":0,"offset":2}]}"#).await;
    assert_eq!(read(&node, "c").await, [3]);
}

#[tokio::test]
async fn an_answer_is_no_larger_than_asked_unless_one_record_is() {
    let log = log_with(1).await;
    let node = Node::on(&log, |_| {});
    append(&*log, "a", 0, &["10", "11", "12", "123456789", "13"]).await;
    subscribe(&node, "c", "").await;
    let read = |max_bytes: u32| {
        let node = node.clone();
        async move {
            let said = node.get(&at("c", &format!("/records?timeout=1&max_bytes={max_bytes}"))).await;
            said.json().as_array().unwrap().iter().map(|r| r["value"].as_i64().unwrap()).collect::<Vec<_>>()
        }
    };
    assert_eq!(read(5).await, [10, 11]);
    assert_eq!(read(2).await, [12]);
    assert_eq!(read(5).await, [123_456_789]);
    assert_eq!(read(0).await, [13]);
}

#[tokio::test]
async fn a_read_waits_for_records_and_no_longer() {
    let log = log_with(2).await;
    let node = Node::on(&log, |_| {});
    subscribe(&node, "c", r#","consumer.request.timeout.ms":15000"#).await;
    assert_eq!(read(&node, "c").await, [0_i64; 0]);
    let reading = {
        let node = node.clone();
        tokio::spawn(async move { (node.get(&at("c", "/records")).await, Instant::now()) })
    };
    while !reading.is_finished() {
        append(&*log, "a", 1, &["7"]).await;
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (said, _) = reading.await.unwrap();
    assert_eq!(said.json()[0]["value"], 7);
    // It waits for as much as it was told to, and returns what there is in the end.
    node.delete(&at("c", "")).await;
    append(&*log, "a", 1, &["8"]).await;
    subscribe(&node, "c", r#","fetch.min.bytes":1000000,"consumer.request.timeout.ms":"200""#).await;
    let began = Instant::now();
    let said = node.get(&at("c", "/records?timeout=9999")).await;
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(!said.json().as_array().unwrap().is_empty());
}

#[tokio::test]
async fn any_process_goes_on_where_another_stopped() {
    let log = log_with(1).await;
    let values: Vec<String> = (0..100).map(|i| i.to_string()).collect();
    append(&*log, "a", 0, &values.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let nodes = [Node::on(&log, |_| {}), Node::on(&log, |_| {})];
    subscribe(&nodes[0], "c", r#","auto.commit.enable":false"#).await;
    let mut got = Vec::new();
    for i in 0.. {
        let said = nodes[i % 2].get(&at("c", "/records?timeout=1&max_bytes=20")).await;
        let values = said.json();
        let values = values.as_array().unwrap();
        if values.is_empty() {
            break;
        }
        got.extend(values.iter().map(|r| r["value"].as_i64().unwrap()));
    }
    assert_eq!(got, (0..100).collect::<Vec<_>>());
    nodes[1].post(&at("c", "/offsets"), "").await;
    assert_eq!(committed(&nodes[0], "c").await, offsets(100));
}

#[tokio::test]
async fn what_is_asked_for_again_is_committed() {
    let log = log_with(1).await;
    append(&*log, "a", 0, &["1", "2"]).await;
    let node = Node::on(&log, |_| {});
    subscribe(&node, "c", "").await;
    assert_eq!(read(&node, "c").await, [1, 2]);
    let before = committed(&node, "c").await;
    assert!(before == json!([]) || before == offsets(0), "nobody knows yet whether it arrived: {before}");
    assert_eq!(read(&node, "c").await, [0_i64; 0]);
    assert_eq!(committed(&node, "c").await, offsets(2));
}

#[tokio::test]
async fn an_answer_that_did_not_leave_whole_is_returned_again() {
    let log = log_with(1).await;
    let value = format!("\"{}\"", "x".repeat(100_000));
    append(&*log, "a", 0, &[&value, &value]).await;
    let node = Node::on(&log, |_| {});
    subscribe(&node, "c", "").await;
    let services = crate::harness::services(log.clone(), Config::defaults());
    let router = server::router::router(services, model::Stop::new());
    for n_pieces in [0, 1] {
        let request = http::Request::get(at("c", "/records?timeout=1")).body(Body::empty()).unwrap();
        let mut body = router.clone().oneshot(request).await.unwrap().into_body();
        for _ in 0..n_pieces {
            assert!(body.frame().await.unwrap().unwrap().into_data().unwrap().len() < 100_000);
        }
        drop(body);
        // What is given back is written down behind the client's back.
        let mut n_tries = 0;
        while node.get(&at("c", "/records?timeout=1")).await.json().as_array().unwrap().len() < 2 {
            n_tries += 1;
            assert!(n_tries < 100, "they are returned again");
        }
        let back = r#"{"partitions":[]}"#;
        assert_eq!(node.post(&at("c", "/positions/beginning"), back).await.status, 204);
    }
}

#[tokio::test]
async fn members_share_partitions_and_never_read_the_same_one() {
    let log = log_with(4).await;
    let nodes = [Node::on(&log, |_| {}), Node::on(&log, |_| {})];
    subscribe(&nodes[0], "c1", "").await;
    let owned = |node: &Node, name: &'static str| {
        let node = node.clone();
        async move { node.get(&at(name, "/assignments")).await.json()["partitions"].as_array().unwrap().len() }
    };
    assert_eq!(owned(&nodes[1], "c1").await, 4);
    for p in 0..4 {
        append(&*log, "a", p, &["1"]).await;
    }
    assert_eq!(read(&nodes[0], "c1").await.len(), 4);
    subscribe(&nodes[1], "c2", "").await;
    assert_eq!((owned(&nodes[0], "c1").await, owned(&nodes[0], "c2").await), (4, 0), "c1 has records in work");
    assert_eq!(read(&nodes[1], "c2").await, [0_i64; 0]);
    assert_eq!(read(&nodes[0], "c1").await, [0_i64; 0], "what it has read is committed when it asks again");
    assert_eq!((owned(&nodes[0], "c1").await, owned(&nodes[0], "c2").await), (2, 2));
    for p in 0..4 {
        append(&*log, "a", p, &["2"]).await;
    }
    assert_eq!((read(&nodes[0], "c1").await.len(), read(&nodes[1], "c2").await.len()), (2, 2));
    // What the other one reads is not c1's to commit.
    let theirs = nodes[0].get(&at("c2", "/assignments")).await.json()["partitions"][0]["partition"].clone();
    let body = json!({ "offsets": [{ "topic": "a", "partition": theirs, "offset": 0 }] }).to_string();
    let said = nodes[0].post(&at("c1", "/offsets"), &body).await;
    assert_eq!((said.status, said.json()["error_code"].as_u64()), (409, Some(40903)));
    assert_eq!(nodes[0].delete(&at("c2", "")).await.status, 204);
    assert_eq!(owned(&nodes[0], "c1").await, 4);
}

#[tokio::test]
async fn when_a_member_dies_another_takes_over_after_its_lease() {
    let log = log_with(2).await;
    for p in 0..2 {
        append(&*log, "a", p, &["1", "2", "3"]).await;
    }
    let short = |config: &mut Config| config.consumers.lease_ms = 200;
    let nodes = [Node::on(&log, short), Node::on(&log, short)];
    subscribe(&nodes[0], "dies", r#","auto.commit.enable":"false""#).await;
    assert_eq!(read(&nodes[0], "dies").await.len(), 6);
    let body = r#"{"offsets":[{"topic":"a","partition":0,"offset":0}]}"#;
    assert_eq!(nodes[0].post(&at("dies", "/offsets"), body).await.status, 200);
    subscribe(&nodes[1], "lives", r#","auto.commit.enable":"false","consumer.request.timeout.ms":20000"#).await;
    let began = Instant::now();
    let said = nodes[1].get(&at("lives", "/records")).await;
    assert!(began.elapsed() >= Duration::from_millis(150), "the lease is kept");
    let got: Vec<_> =
        said.json().as_array().unwrap().iter().map(|r| (r["partition"].clone(), r["offset"].clone())).collect();
    let expected: BTreeSet<(u64, u64)> = [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)].into();
    let got: BTreeSet<(u64, u64)> = got.iter().map(|(p, o)| (p.as_u64().unwrap(), o.as_u64().unwrap())).collect();
    assert_eq!(got, expected);
    // Who comes back finds that others have gone on.
    for body in [body, ""] {
        let said = nodes[0].post(&at("dies", "/offsets"), body).await;
        assert_eq!((said.status, said.json()["error_code"].as_u64()), (409, Some(40903)), "{said:?}");
    }
    assert_eq!(read(&nodes[0], "dies").await, [0_i64; 0]);
    assert_eq!(read(&nodes[1], "lives").await, [0_i64; 0]);
    let said = nodes[0].get(&at("dies", "/assignments")).await;
    assert_eq!(said.json()["partitions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_restart_loses_neither_instances_nor_records() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Arc::new(EmbeddedLog::open(dir.path(), &Config::defaults().log, 1 << 20).unwrap());
    let log = open();
    create(&*log, "a", 1).await;
    append(&*log, "a", 0, &["1", "2", "3", "4"]).await;
    let node = Node::on(&log, |_| {});
    subscribe(&node, "c", r#","auto.commit.enable":"false""#).await;
    let some = || async { node.get(&at("c", "/records?timeout=1&max_bytes=1")).await.json()[0]["value"].clone() };
    assert_eq!(some().await, 1);
    assert_eq!(some().await, 2);
    log.close().await.unwrap();
    drop((node, log));
    // In order: every answer had left.
    let log = open();
    let node = Node::on(&log, |_| {});
    let said = node.get(&at("c", "/records?timeout=1&max_bytes=1")).await;
    assert_eq!(said.json()[0]["value"], 3);
    drop((node, log));
    // Not in order: the last one may not have.
    let log = open();
    let node = Node::on(&log, |_| {});
    assert_eq!(read(&node, "c").await, [3, 4]);
    node.post(&at("c", "/offsets"), "").await;
    assert_eq!(committed(&node, "c").await, offsets(4));
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_pattern_takes_the_topics_that_come_but_no_internal_ones() {
    let log = log_with(1).await;
    let node = Node::on(&log, |_| {});
    node.post("/consumers/g", r#"{"name":"c","format":"json","auto.offset.reset":"earliest"}"#).await;
    assert_eq!(node.post(&at("c", "/subscription"), r#"{"topic_pattern":"(a|b.*|.*consumers)"}"#).await.status, 204);
    assert_eq!(node.get(&at("c", "/subscription")).await.body, r#"{"topics":["a"]}"#);
    create(&*log, "bb", 1).await;
    create(&*log, "xa", 1).await;
    append(&*log, "bb", 0, &["5"]).await;
    assert_eq!(read(&node, "c").await, [5]);
    assert_eq!(node.get(&at("c", "/subscription")).await.body, r#"{"topics":["a","bb"]}"#);
}

#[tokio::test]
async fn there_are_only_so_many_groups_and_instances() {
    let log = log_with(1).await;
    let node = Node::on(&log, |config| {
        config.consumers.max_groups = 1;
        config.consumers.max_instances_per_group = 2;
        config.consumers.max_partitions_per_group = 1;
    });
    for name in ["c", "d"] {
        assert_eq!(node.post("/consumers/g", &json!({ "name": name }).to_string()).await.status, 200);
    }
    let full = "Invalid consumer configuration: the group has 2 instances already (consumers.max_instances_per_group)";
    is(&node.post("/consumers/g", "{}").await, 422, 42204, full);
    let full = "Invalid consumer configuration: there are 1 groups already (consumers.max_groups)";
    is(&node.post("/consumers/h", "{}").await, 422, 42204, full);
    let commit = |topic: &str| json!({ "offsets": [{ "topic": topic, "partition": 0, "offset": 0 }] }).to_string();
    assert_eq!(node.post(&at("c", "/offsets"), &commit("x")).await.status, 200);
    let full =
        "Invalid consumer configuration: the group has committed 1 partitions (consumers.max_partitions_per_group)";
    is(&node.post(&at("c", "/offsets"), &commit("y")).await, 422, 42204, full);
    assert_eq!(node.post(&at("d", "/offsets"), &commit("x")).await.status, 200);
}

#[tokio::test]
async fn producers_cannot_write_to_internal_topics() {
    let log = log_with(1).await;
    let node = Node::on(&log, |_| {});
    node.post("/consumers/g", "").await;
    for topic in ["__consumers", "__new"] {
        let said = node
            .ask("POST", &format!("/topics/{topic}"), &[("content-type", JSON)], r#"{"records":[{"value":1}]}"#)
            .await;
        is(&said, 400, 40002, &format!("topic {topic} is internal: nobody else writes there"));
        assert_eq!(node.get(&format!("/topics/{topic}")).await.status, 404);
    }
}

/// A member's turn: who, on which process, and what it does.
fn turns() -> impl Strategy<Value = Vec<(usize, usize, u8)>> {
    prop::collection::vec((0..3_usize, 0..2_usize, 0..10_u8), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Members come, read by any process, and go; what they read is committed when they ask again.
    #[test]
    fn every_record_is_returned_once_to_a_group_in_order(turns in turns()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let log = log_with(3).await;
            let mut nodes = [Node::on(&log, |_| {}), Node::on(&log, |_| {})];
            let (mut got, mut members, mut n_sent) = (Vec::new(), BTreeSet::new(), 0);
            for (member, node, what) in turns {
                let name = ["x", "y", "z"][member];
                match what {
                    0..3 if members.insert(name) => subscribe(&nodes[node], name, "").await,
                    3 if members.remove(name) => assert_eq!(nodes[node].delete(&at(name, "")).await.status, 204),
                    4 => nodes[node] = Node::on(&log, |_| {}),
                    5..7 => {
                        append(&*log, "a", n_sent % 3, &[&n_sent.to_string()]).await;
                        n_sent += 1;
                    }
                    _ if members.contains(name) => got.extend(read(&nodes[node], name).await),
                    _ => {}
                }
            }
            for name in ["x", "y", "z"] {
                if members.remove(name) {
                    nodes[0].delete(&at(name, "")).await;
                }
            }
            subscribe(&nodes[1], "last", "").await;
            got.extend(read(&nodes[1], "last").await);
            for p in 0..3 {
                let of_partition: Vec<i64> = got.iter().copied().filter(|value| value % 3 == p).collect();
                let sent: Vec<i64> = (0..i64::from(n_sent)).filter(|value| value % 3 == p).collect();
                assert_eq!(of_partition, sent, "partition {p}");
            }
        });
    }
}

#[tokio::test]
async fn an_array_is_no_object_and_a_whole_number_may_have_a_point() {
    let node = Node::on(&log_with(2).await, |_| {});
    for body in ["[null, null]", "[]", "[\"one\"]"] {
        assert_eq!(node.post("/consumers/g", body).await.status, 400, "{body}");
    }
    subscribe(&node, "one", r#","fetch.min.bytes":1.0,"consumer.request.timeout.ms":"20""#).await;
    assert_eq!(node.delete(&at("one", "/subscription")).await.status, 204);
    for (path, body, status) in [
        ("/subscription", r#"[["a"], null]"#, 400),
        ("/assignments", r#"[[{"topic":"a","partition":0}]]"#, 400),
        ("/assignments", r#"{"partitions":[["a",0]]}"#, 400),
        ("/assignments", r#"{"partitions":[{"topic":"a","partition":0.5}]}"#, 400),
        ("/assignments", r#"{"partitions":[{"topic":"a","partition":1e300}]}"#, 400),
        ("/assignments", r#"{"partitions":[{"topic":"a","partition":1.0}]}"#, 204),
        ("/positions", "[null, null]", 400),
        ("/positions", r#"{"offsets":[["a",1,0]]}"#, 400),
        ("/positions", r#"{"offsets":[{"topic":"a","partition":1.0,"offset":0.0}]}"#, 204),
        ("/offsets", r#"{"offsets":[["a",1,0]]}"#, 400),
        ("/offsets", r#"{"offsets":[{"topic":"a","partition":1,"offset":2.0}]}"#, 200),
    ] {
        let said = node.post(&at("one", path), body).await;
        assert_eq!(said.status, status, "{path} {body}: {said:?}");
    }
}

#[tokio::test]
async fn a_time_is_found_though_the_log_is_trimmed_meanwhile() {
    for (time, expected) in [("1970-01-01T00:00:00Z", vec![8, 9]), ("2999-01-01T00:00:00Z", vec![])] {
        let log = Arc::new(Meddled::new());
        create(&*log, "a", 1).await;
        append(&*log, "a", 0, &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]).await;
        let node = Node::on(&log, |_| {});
        subscribe(&node, "one", "").await;
        log.trim_on_read(partition("a", 0), Offset(8));
        let seek = format!(r#"{{"timestamps":[{{"topic":"a","partition":0,"timestamp":"{time}"}}]}}"#);
        let said = node.post(&at("one", "/positions"), &seek).await;
        assert_eq!(said.status, 204, "{said:?}");
        assert_eq!(read(&node, "one").await, expected, "{time}");
    }
}

#[tokio::test]
async fn refusals_are_counted() {
    let node = Node::on(&log_with(1).await, |_| {});
    assert_eq!(node.post("/consumers/g", "[]").await.status, 400);
    assert_eq!(node.get(&at("nobody", "/records")).await.status, 404);
    let metrics = node.get("/metrics").await.body;
    let n_refused: u64 = metrics
        .lines()
        .filter(|line| line.starts_with("corkboard_refused_requests_total"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum();
    assert_eq!(n_refused, 2, "{metrics}");
}

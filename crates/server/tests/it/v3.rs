//! Version 3 of the Kafka REST door: the cluster as objects, and records in a stream.

use std::{collections::BTreeSet, sync::Arc};

use axum::body::Body;
use event_log::MemoryLog;
use futures::StreamExt;
use model::EventLog;
use serde_json::{Value, json};

use crate::{
    harness::{Server, TestLog},
    node::{Node, Said, append, create, partition},
};

const PLAIN: &str = "application/json";

async fn log_with(topic: &str, n_partitions: u32) -> (Arc<MemoryLog>, String) {
    let log = Arc::new(MemoryLog::new());
    create(&*log, topic, n_partitions).await;
    let id = log.describe().await.unwrap().id.id;
    (log, format!("/v3/clusters/{id}"))
}

async fn ask(node: &Node, method: &str, path: &str, body: &Value) -> Said {
    node.ask(method, path, &[("content-type", PLAIN)], body.to_string()).await
}

fn is(said: &Said, status: u16, code: u32, message: &str) {
    let expected = json!({ "error_code": code, "message": message });
    assert_eq!((said.status, said.json(), said.media_type.as_str()), (status, expected, PLAIN), "{said:?}");
}

#[tokio::test]
async fn the_cluster_and_its_topics_are_objects_with_links() {
    let (log, cluster) = log_with("a", 2).await;
    create(&*log, "__hidden", 1).await;
    let node = Node::on(&log, |_| {});
    let base = format!("http://localhost:8082{cluster}");
    let id = cluster.rsplit('/').next().unwrap();

    let said = node.get("/v3/clusters").await;
    assert_eq!((said.status, said.media_type.as_str()), (200, PLAIN));
    let list = said.json();
    assert_eq!(list["kind"], "KafkaClusterList");
    assert_eq!(list["metadata"], json!({ "self": "http://localhost:8082/v3/clusters", "next": null }));
    assert_eq!(list["data"][0], node.get(&cluster).await.json());
    let one = &list["data"][0];
    assert_eq!(
        (&one["cluster_id"], &one["metadata"]["resource_name"]),
        (&json!(id), &json!(format!("crn:///kafka={id}")))
    );
    assert_eq!(one["topics"], json!({ "related": format!("{base}/topics") }));
    assert_eq!(node.get(&format!("{cluster}/brokers")).await.json()["data"][0]["broker_id"], 1);

    let topics = node.get(&format!("{cluster}/topics")).await.json();
    assert_eq!((topics["kind"].clone(), topics["data"].as_array().unwrap().len()), (json!("KafkaTopicList"), 1));
    assert_eq!(
        topics["data"][0],
        json!({
            "kind": "KafkaTopic",
            "metadata": { "self": format!("{base}/topics/a"), "resource_name": format!("crn:///kafka={id}/topic=a") },
            "cluster_id": id,
            "topic_name": "a",
            "is_internal": false,
            "replication_factor": 1,
            "partitions_count": 2,
            "partitions": { "related": format!("{base}/topics/a/partitions") },
            "configs": { "related": format!("{base}/topics/a/configs") },
            "partition_reassignments": { "related": format!("{base}/topics/a/partitions/-/reassignment") },
        })
    );
    let partitions = node.get(&format!("{cluster}/topics/a/partitions")).await.json();
    assert_eq!(partitions["data"][1], node.get(&format!("{cluster}/topics/a/partitions/1")).await.json());
    assert_eq!(partitions["data"][1]["partition_id"], 1);
    let configs = node.get(&format!("{cluster}/topics/a/configs")).await.json();
    let retention = node.get(&format!("{cluster}/topics/a/configs/retention.ms")).await.json();
    assert!(configs["data"].as_array().unwrap().contains(&retention));
    assert_eq!((&retention["value"], &retention["is_read_only"]), (&json!("604800000"), &json!(true)));
}

#[tokio::test]
async fn topics_are_made_enlarged_and_deleted() {
    let (log, cluster) = log_with("a", 2).await;
    let node = Node::on(&log, |config| config.ingest.max_partitions_per_topic = 5);
    let topics = format!("{cluster}/topics");
    let wanted = json!({
        "topic_name": "t", "partitions_count": 3, "replication_factor": 1, "validate_only": true,
        "configs": [{ "name": "cleanup.policy", "value": "delete" }],
    });
    let said = ask(&node, "POST", &topics, &wanted).await;
    assert_eq!((said.status, said.json()["partitions_count"].clone()), (200, json!(3)));
    assert_eq!(node.get(&format!("{topics}/t")).await.status, 404);
    let wanted = json!({ "topic_name": "t", "replicas_assignments": { "0": [1], "1": [1] } });
    let said = ask(&node, "POST", &topics, &wanted).await;
    assert_eq!((said.status, said.location.clone()), (201, format!("http://localhost:8082{topics}/t")));
    assert_eq!(node.get(&format!("{topics}/t")).await.json(), said.json());
    assert_eq!(said.json()["partitions_count"], 2);

    let exists = "Topic 't' already exists.";
    is(&ask(&node, "POST", &topics, &json!({ "topic_name": "t" })).await, 400, 40002, exists);
    for (wanted, status, code, message) in [
        (json!({ "topic_name": "a b" }), 422, 42206, "Payload error. Invalid topic name."),
        (json!({ "topic_name": "__x" }), 400, 40002, "topic __x is internal: nobody else writes there"),
        (json!({ "topic_name": "u", "x": 1 }), 422, 422, "Unrecognized field: x"),
        (
            json!({ "topic_name": "u", "partitions_count": 0 }),
            400,
            40002,
            "Number of partitions was set to an invalid non-positive value.",
        ),
        (
            json!({ "topic_name": "u", "partitions_count": 6 }),
            400,
            40002,
            "a topic of 6 partitions is too large, 5 are allowed (ingest.max_partitions_per_topic)",
        ),
        (
            json!({ "topic_name": "u", "partitions_count": "x" }),
            400,
            400,
            "partitions_count: invalid type: string \"x\", expected i64 at line 1 column 23",
        ),
        (
            json!({ "topic_name": "u", "replication_factor": 3 }),
            400,
            40002,
            "Replication factor: 3 larger than available brokers: 1.",
        ),
        (
            json!({ "topic_name": "u", "configs": [{ "name": "cleanup.policy", "value": "compact" }] }),
            400,
            40002,
            "Invalid value compact for configuration cleanup.policy: it is delete for all topics, a setting of the server",
        ),
        (
            json!({ "topic_name": "u", "configs": [{ "name": "x", "value": "1" }] }),
            404,
            404,
            "Config x of topic u cannot be found.",
        ),
    ] {
        is(&ask(&node, "POST", &topics, &wanted).await, status, code, message);
    }
    is(
        &node.ask("POST", &topics, &[("content-type", PLAIN)], "").await,
        422,
        42206,
        "Payload error. Request body is empty. Data is required.",
    );
    assert_eq!(node.ask("POST", &topics, &[], "{}").await.status, 415);
    assert_eq!(
        node.ask("POST", &topics, &[("content-type", PLAIN), ("origin", "http://elsewhere.example")], "{}")
            .await
            .status,
        403
    );

    let t = format!("{topics}/t");
    for (n, message) in [
        (2, "Topic already has 2 partitions."),
        (1, "Topic currently has 2 partitions, which is higher than the requested 1."),
    ] {
        is(&ask(&node, "PATCH", &t, &json!({ "partitions_count": n })).await, 400, 40002, message);
    }
    let said = ask(&node, "PATCH", &t, &json!({ "partitions_count": 4 })).await;
    assert_eq!((said.status, said.json()["partitions_count"].clone()), (200, json!(4)));
    assert_eq!(log.describe().await.unwrap().topics["t"], 4);
    let record = json!({ "partition_id": 3, "value": { "type": "STRING", "data": "x" } });
    assert_eq!(ask(&node, "POST", &format!("{t}/records"), &record).await.json()["partition_id"], 3);

    for (asked, status) in [
        (
            json!({ "data": [{ "name": "retention.ms", "value": "604800000" }, { "name": "segment.bytes", "operation": "DELETE" }] }),
            204,
        ),
        (json!({ "data": [{ "name": "retention.ms", "value": "1" }] }), 400),
        (json!({ "data": [{ "name": "nothing", "value": "1" }] }), 404),
    ] {
        assert_eq!(ask(&node, "POST", &format!("{t}/configs:alter"), &asked).await.status, status, "{asked}");
    }
    assert_eq!(node.delete(&t).await.status, 204);
    let gone = "This server does not host this topic-partition.";
    is(&node.delete(&t).await, 404, 40403, gone);
    is(&node.get(&t).await, 404, 40403, gone);
    is(&node.get(&format!("{topics}/a/partitions/2")).await, 404, 40402, "Partition not found.");
    is(&node.get("/v3/clusters/x/topics").await, 404, 404, "Cluster x cannot be found.");
}

#[tokio::test]
async fn a_group_shows_how_far_it_is_behind() {
    let (log, cluster) = log_with("a", 2).await;
    append(&*log, "a", 0, &["1", "2", "3"]).await;
    append(&*log, "a", 1, &["1", "2"]).await;
    let node = Node::on(&log, |_| {});
    node.post("/consumers/g", r#"{"name":"c"}"#).await;
    let groups = format!("{cluster}/consumer-groups");
    let said = node.get(&format!("{groups}/g/lag-summary")).await;
    is(&said, 404, 404, "Consumer lag summary of group g cannot be found.");
    node.post("/consumers/g/instances/c/subscription", r#"{"topics":["a"]}"#).await;
    let committed = json!({ "offsets": [
        { "topic": "a", "partition": 0, "offset": 0 }, { "topic": "a", "partition": 1, "offset": 0 },
        { "topic": "gone", "partition": 0, "offset": 0 },
    ] });
    assert_eq!(node.post("/consumers/g/instances/c/offsets", &committed.to_string()).await.status, 200);

    let listed = node.get(&groups).await.json();
    assert_eq!(listed["data"][0], node.get(&format!("{groups}/g")).await.json());
    assert_eq!(
        (&listed["data"][0]["state"], &listed["data"][0]["kind"]),
        (&json!("STABLE"), &json!("KafkaConsumerGroup"))
    );
    assert_eq!(node.get(&format!("{groups}/g/consumers")).await.json()["data"][0]["consumer_id"], "c");
    let lags = node.get(&format!("{groups}/g/lags")).await.json();
    let told: Vec<_> = lags["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lag| {
            (
                lag["current_offset"].clone(),
                lag["log_end_offset"].clone(),
                lag["lag"].clone(),
                lag["consumer_id"].clone(),
            )
        })
        .collect();
    assert_eq!(told, [(json!(1), json!(3), json!(2), json!("c")), (json!(1), json!(2), json!(1), json!("c"))]);
    let summary = node.get(&format!("{groups}/g/lag-summary")).await.json();
    assert_eq!(
        (&summary["max_lag"], &summary["total_lag"], &summary["max_lag_partition_id"]),
        (&json!(2), &json!(3), &json!(0))
    );
    is(&node.get(&format!("{groups}/h")).await, 404, 404, "Consumer group h cannot be found.");
}

/// The links in an object and in all that it has.
fn links(value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => {
            let of_member = |(name, value): (&String, &Value)| match (name.as_str(), value) {
                ("self" | "related", Value::String(link)) => vec![link.clone()],
                (_, value) => links(value),
            };
            members.iter().flat_map(of_member).collect()
        }
        Value::Array(items) => items.iter().flat_map(links).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn every_link_leads_to_what_it_names() {
    let (log, cluster) = log_with("a", 2).await;
    let node = Node::on(&log, |_| {});
    node.post("/consumers/g", r#"{"name":"c"}"#).await;
    node.post("/consumers/g/instances/c/subscription", r#"{"topics":["a"]}"#).await;
    let offset = |p: u32| json!({ "topic": "a", "partition": p, "offset": 0 });
    let committed = json!({ "offsets": [offset(0), offset(1)] });
    append(&*log, "a", 0, &["1"]).await;
    append(&*log, "a", 1, &["1"]).await;
    assert_eq!(node.post("/consumers/g/instances/c/offsets", &committed.to_string()).await.status, 200);

    let (mut seen, mut to_see) = (BTreeSet::new(), vec!["/v3/clusters".to_owned()]);
    while let Some(path) = to_see.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let said = node.get(&path).await;
        if let Some(p) = path.strip_suffix("/reassignment").filter(|rest| !rest.ends_with('-')) {
            let p = p.rsplit('/').next().unwrap();
            is(&said, 404, 404, &format!("Reassignment of partition {p} of topic a cannot be found."));
            continue;
        }
        assert_eq!((said.status, said.media_type.as_str()), (200, PLAIN), "{path}: {said:?}");
        let object = said.json();
        assert_eq!(object["metadata"]["self"], format!("http://localhost:8082{path}"));
        to_see.extend(links(&object).iter().map(|link| link.replace("http://localhost:8082", "")));
    }
    let at = |path: &str| format!("{cluster}{path}");
    for path in [
        "/acls",
        "/broker-configs",
        "/brokers/1",
        "/topics/-/partitions/-/reassignment",
        "/topics/a/partitions/-/reassignment",
        "/topics/a/partitions/1/replicas/1",
        "/consumer-groups/g/consumers/c/assignments/a/partitions/0",
        "/consumer-groups/g/lags/a/partitions/1",
        "/consumer-groups/g/lag-summary",
    ] {
        assert!(seen.contains(&at(path)), "nothing leads to {path}");
    }
    let replica = node.get(&at("/topics/a/partitions/1/replicas")).await.json()["data"][0].clone();
    assert_eq!(
        (&replica["broker_id"], &replica["is_leader"], &replica["is_in_sync"]),
        (&json!(1), &json!(true), &json!(true))
    );
    let assigned = node.get(&at("/consumer-groups/g/consumers/c/assignments")).await.json();
    assert_eq!((assigned["data"].as_array().unwrap().len(), &assigned["data"][1]["partition_id"]), (2, &json!(1)));
    for (path, code, message) in [
        ("/brokers/2", 404, "Broker 2 cannot be found."),
        ("/topics/a/partitions/0/replicas/2", 404, "Replica 2 cannot be found."),
        ("/topics/a/partitions/2/replicas", 40402, "Partition not found."),
        ("/topics/b/partitions/-/reassignment", 40403, "This server does not host this topic-partition."),
        ("/consumer-groups/h/consumers/c", 404, "Consumer group h cannot be found."),
        ("/consumer-groups/g/consumers/d", 404, "Consumer d cannot be found."),
        ("/consumer-groups/g/consumers/d/assignments", 404, "Consumer d cannot be found."),
        (
            "/consumer-groups/g/consumers/c/assignments/a/partitions/2",
            404,
            "Assignment of partition 2 of topic a cannot be found.",
        ),
        ("/consumer-groups/g/lags/b/partitions/0", 404, "Consumer lag of partition 0 of topic b cannot be found."),
    ] {
        is(&node.get(&at(path)).await, 404, code, message);
    }
}

/// The receipts of a stream.
fn receipts(said: &Said) -> Vec<Value> {
    assert_eq!((said.status, said.media_type.as_str()), (200, PLAIN), "{said:?}");
    said.body.split_terminator("\r\n").map(|receipt| serde_json::from_str(receipt).unwrap()).collect()
}

#[tokio::test]
async fn a_stream_gets_a_receipt_for_every_record_in_order() {
    let (log, cluster) = log_with("a", 2).await;
    let node = Node::on(&log, |_| {});
    let records = format!("{cluster}/topics/a/records");
    let body = concat!(
        r#"{"partition_id":1,"headers":[{"name":"h","value":"aGk="}],"key":{"type":"BINARY","data":"Zm9v"},"value":{"type":"JSON","data":{"a": 1}},"timestamp":"2021-02-05T19:14:42Z"}"#,
        r#"{"partition_id":1,"value":{"type":"BINARY","data":1}}"#,
        "\n",
        r#"{"partition_id":1,"key":{"type":"string","data":"é\n"},"value":{"type":"STRING","data":null}} {"partition_id":0}"#,
    );
    let said = node.ask("POST", &records, &[("content-type", "application/json; charset=utf-8")], body).await;
    let told = receipts(&said);
    let id = cluster.rsplit('/').next().unwrap();
    assert_eq!(
        told[0],
        json!({
            "error_code": 200, "cluster_id": id, "topic_name": "a", "partition_id": 1, "offset": 0,
            "timestamp": "2021-02-05T19:14:42Z", "key": { "type": "BINARY", "size": 3 },
            "value": { "type": "JSON", "size": 7 },
        })
    );
    assert_eq!(told[1], json!({ "error_code": 400, "message": "Bad Request: data=1 is not a base64 string." }));
    assert_eq!(
        (&told[2]["offset"], &told[2]["key"], &told[2]["value"]),
        (&json!(1), &json!({ "type": "STRING", "size": 3 }), &json!({ "type": "STRING", "size": 0 }))
    );
    assert_eq!((told.len(), &told[3]["partition_id"], told[3].get("value")), (4, &json!(0), None));
    let stored = log.fetch(&partition("a", 1), model::Offset(0), 1 << 20).await.unwrap();
    assert_eq!(stored[0].record.value.as_deref(), Some(&br#"{"a":1}"#[..]));
    assert_eq!(stored[0].record.headers[0].value.as_deref(), Some(&b"hi"[..]));
    assert_eq!((stored[1].record.key.as_deref(), &stored[1].record.value), (Some("é\n".as_bytes()), &None));
}

#[tokio::test]
async fn what_is_wrong_in_a_stream_is_told_in_its_place() {
    let (log, cluster) = log_with("a", 1).await;
    let node = Node::on(&log, |config| {
        config.ingest.max_record_bytes = 20;
        config.ingest.max_body_bytes = 200;
    });
    let records = format!("{cluster}/topics/a/records");
    let ok = r#"{"value":{"type":"JSON","data":1}}"#;
    let large = format!(r#"{{"value":{{"type":"STRING","data":"{}"}}}}"#, "x".repeat(30));
    let huge = format!(r#"{{"value":{{"type":"STRING","data":"{}"}}}}"#, "x".repeat(300));
    let schema = "Error: 42205 : Invalid schema: this server has no schema registry, so";
    for (wrong, code, message, goes_on) in [
        (r#"{"x":1}"#, 422, "Unrecognized field: x".to_owned(), true),
        (r#"{"id":"1"}"#, 422, "Unrecognized field: id".to_owned(), true),
        (r#"{"partition_id":1}"#, 404, "Error: 40402 : Partition not found.".to_owned(), true),
        (r#"{"partition_id":-1}"#, 422, "partition_id must be greater than or equal to 0 (was -1)".to_owned(), true),
        (
            r#"{"value":{"type":"AVRO","data":1}}"#,
            422,
            format!("{schema} it does not take the type AVRO; the types BINARY, JSON and STRING need none"),
            true,
        ),
        (
            r#"{"value":{"data":1}}"#,
            422,
            format!("{schema} value.type has to be given; the types BINARY, JSON and STRING need none"),
            true,
        ),
        (r#"{"value":{"type":"XML","data":1}}"#, 400, "type XML is none of BINARY, JSON, STRING".to_owned(), true),
        (r#"{"value":{"type":"STRING","data":1}}"#, 400, "Bad Request: data=1 is not a string.".to_owned(), true),
        (
            r#"{"value":{"type":"BINARY","data":"x"}}"#,
            400,
            "Bad Request: data=\"x\" is not a valid base64 string.".to_owned(),
            true,
        ),
        (r#"{"timestamp":"x"}"#, 400, "timestamp is not an RFC 3339 time (was \"x\")".to_owned(), true),
        (
            r#"{"timestamp":253402300800000}"#,
            400,
            "timestamp is not an RFC 3339 time (was 253402300800000)".to_owned(),
            true,
        ),
        (r#"{"headers":1}"#, 400, "headers: invalid type: integer `1`, expected a sequence".to_owned(), true),
        (r#"{"value":}"#, 400, "value: expected value at line 1 column 10".to_owned(), false),
        (r#"[1]"#, 400, "an object was expected: {\"value\": …}".to_owned(), false),
        (r#"{"value":"#, 400, "the body ends within an object".to_owned(), false),
        (&large, 413, "the record has 30 bytes, 20 are allowed (ingest.max_record_bytes)".to_owned(), false),
        (&huge, 413, "an object is larger than 200 bytes (ingest.max_body_bytes)".to_owned(), false),
    ] {
        let after = if wrong.ends_with(':') { "" } else { ok };
        let said = node.ask("POST", &records, &[("content-type", PLAIN)], format!("{ok}{wrong}{after}")).await;
        let told = receipts(&said);
        assert_eq!(told[0]["error_code"], 200, "{wrong}");
        assert_eq!(told[1], json!({ "error_code": code, "message": message }), "{wrong}");
        assert_eq!(told.len(), if goes_on { 3 } else { 2 }, "{wrong}");
    }
    for body in ["", " \r\n"] {
        let said = node.ask("POST", &records, &[("content-type", PLAIN)], body).await;
        is(&said, 422, 42206, "Payload error. Request body is empty. Data is required.");
    }
    let node = Node::on(&log, |config| config.ingest.auto_create_topics = false);
    let said = node.ask("POST", &format!("{cluster}/topics/b/records"), &[("content-type", PLAIN)], ok).await;
    is(&said, 404, 40403, "This server does not host this topic-partition.");
    assert_eq!(node.ask("POST", &records, &[("content-type", "text/plain")], ok).await.status, 415);
}

/// The log of the harness, as version 3 calls it.
const NO_CLUSTER: &str = "/v3/clusters/00000000-0000-0000-0000-000000000000";
const OBJECT: &str = r#"{"value":{"type":"JSON","data":1}}"#;

/// The head of a stream to topic `a`, whose body `framing` announces.
fn stream_head(framing: &str) -> String {
    format!(
        "POST {NO_CLUSTER}/topics/a/records HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         {framing}\r\n\r\n"
    )
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

#[tokio::test]
async fn receipts_come_while_the_stream_goes_on() {
    let server = Server::start().await;
    server.log.with_topic("a", 1);
    let mut client = server.connect().await;
    client.send(stream_head("Transfer-Encoding: chunked")).await;
    let object = OBJECT;
    client.send(chunk(object)).await;
    assert_eq!(client.head().await.status, 200);
    client.until("\"offset\":0,").await;
    // In two pieces.
    let (first, second) = object.split_at(10);
    client.send(chunk(first)).await;
    client.send(chunk(second)).await;
    client.until("\"offset\":1,").await;
    client.send("0\r\n\r\n").await;
    client.until("\r\n0\r\n\r\n").await;
    assert_eq!(server.log.values("a", 0), ["1", "1"]);
    // The same connection serves the next request.
    client.send("GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.reply().await.body, r#"["a"]"#);
}

#[tokio::test]
async fn a_receipt_waits_for_its_own_record_alone() {
    let server = Server::start().await;
    server.log.with_topic("a", 1);
    server.log.close_gate();
    let mut client = server.connect().await;
    client.send(stream_head("Transfer-Encoding: chunked") + &chunk(OBJECT)).await;
    assert_eq!(client.head().await.status, 200);
    server.log.append_at_gate().await;
    // Comes while the first is being stored.
    client.send(chunk(OBJECT)).await;
    tokio::task::yield_now().await;
    assert!(client.has_nothing());
    server.log.let_one_through();
    client.until("\"offset\":0,").await;
    client.until("}\r\n\r\n").await;
    server.log.append_at_gate().await;
    assert!(client.has_nothing());
    client.send("0\r\n\r\n").await;
    server.log.let_one_through();
    client.until("\"offset\":1,").await;
    client.until("\r\n0\r\n\r\n").await;
    assert_eq!((server.log.n_arrived(), server.log.values("a", 0)), (0, vec!["1".to_owned(), "1".to_owned()]));
}

#[tokio::test]
async fn what_has_come_together_is_stored_together_and_answered_in_one_piece() {
    const N_OBJECTS: usize = 600;
    let server = Server::start().await;
    server.log.with_topic("a", 2);
    server.log.close_gate();
    server.log.open_gate();
    let object = |n: usize| format!(r#"{{"partition_id":{},"value":{{"type":"JSON","data":"{n:060}"}}}}"#, n % 2);
    let body: String = (0..N_OBJECTS).map(object).collect();
    let whole = stream_head(&format!("Content-Length: {}", body.len())) + &body;
    let chunked = stream_head("Transfer-Encoding: chunked") + &chunk(&body) + "0\r\n\r\n";
    for (round, request) in [whole, chunked].into_iter().enumerate() {
        let reply = server.ask(request).await;
        assert_eq!(reply.status, 200);
        let told: Vec<Value> = reply.body.lines().map(|receipt| serde_json::from_str(receipt).unwrap()).collect();
        let places: Vec<_> = told.iter().map(|t| (t["partition_id"].clone(), t["offset"].clone())).collect();
        let expected = |n: usize| (json!(n % 2), json!(round * N_OBJECTS / 2 + n / 2));
        assert_eq!(places, (0..N_OBJECTS).map(expected).collect::<Vec<_>>());
        assert_eq!(server.log.n_arrived(), 2 * (round + 1), "one append to each partition");
    }
}

#[tokio::test]
async fn who_sends_without_a_pause_has_receipts_all_the_same() {
    let log = TestLog::new();
    log.with_topic("a", 1);
    log.close_gate();
    log.open_gate();
    let node = Node::on(&log, |_| {});
    let records = format!("{NO_CLUSTER}/topics/a/records");
    let pieces = futures::stream::iter(vec![Ok::<_, std::convert::Infallible>(OBJECT); 640]);
    let said = node.ask("POST", &records, &[("content-type", PLAIN)], Body::from_stream(pieces)).await;
    assert_eq!((receipts(&said).len(), log.n_arrived()), (640, 10));
    // Many small objects are not all in memory at once, either.
    let said = node.ask("POST", &records, &[("content-type", PLAIN)], "{}".repeat(2500)).await;
    let offsets: Vec<_> = receipts(&said).iter().map(|receipt| receipt["offset"].clone()).collect();
    assert_eq!(offsets, (640..3140).map(Value::from).collect::<Vec<_>>());
    assert_eq!(log.n_arrived(), 13);
}

#[tokio::test]
async fn what_came_whole_is_stored_though_the_body_breaks_off_behind_it() {
    let (log, cluster) = log_with("a", 1).await;
    let node = Node::on(&log, |_| {});
    let pieces = [Ok(OBJECT), Ok(OBJECT), Err(std::io::Error::other("gone"))];
    let body = Body::from_stream(futures::stream::iter(pieces));
    let said = node.ask("POST", &format!("{cluster}/topics/a/records"), &[("content-type", PLAIN)], body).await;
    let told = receipts(&said);
    assert_eq!((told.len(), &told[0]["offset"], &told[1]["offset"]), (3, &json!(0), &json!(1)));
    assert_eq!(told[2], json!({ "error_code": 400, "message": "the request body broke off: gone" }));
}

#[tokio::test]
async fn small_objects_are_paid_for_with_what_they_weigh() {
    let (log, cluster) = log_with("a", 1).await;
    let node = Node::on(&log, |config| config.ingest.max_inflight_bytes = 100_000);
    let records = format!("{cluster}/topics/a/records");
    let full = "too many bytes are in flight (ingest.max_inflight_bytes); nothing was accepted, try again";
    for (n_objects, n_stored) in [(100, 100), (1000, 0)] {
        let said = node.ask("POST", &records, &[("content-type", PLAIN)], "{}".repeat(n_objects)).await;
        let told = receipts(&said);
        let stored = told.iter().filter(|receipt| receipt["error_code"] == 200).count();
        assert_eq!(stored, n_stored, "{told:?}");
        if n_stored == 0 {
            assert_eq!(told, [json!({ "error_code": 503, "message": full })]);
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_too_large_ends_with_its_receipt_and_its_connection() {
    let server = Server::with(|config| config.ingest.max_body_bytes = 1000).await;
    server.log.with_topic("a", 1);
    let mut client = server.connect().await;
    let body = format!(r#"{OBJECT}{{"value":"{}"#, "x".repeat(2000));
    client.send(stream_head("Content-Length: 100000") + &body).await;
    assert_eq!(client.head().await.status, 200);
    let rest = client.rest().await;
    assert!(rest.contains("\"offset\":0,") && rest.contains("\"error_code\":413"), "{rest}");
}

#[tokio::test]
async fn space_before_and_between_objects_takes_no_room() {
    let (log, cluster) = log_with("a", 1).await;
    let node = Node::on(&log, |config| {
        config.ingest.max_body_bytes = 1 << 20;
        config.ingest.max_inflight_bytes = 8 << 20;
    });
    let object = json!({ "value": { "type": "JSON", "data": 1 } }).to_string();
    let space = || vec![" ".repeat(64 << 10); 400];
    let pieces = [space(), vec![object.clone()], space(), vec![object]].concat();
    let body = futures::stream::iter(pieces).then(async |piece| {
        // As from a connection: not all at once.
        tokio::task::yield_now().await;
        Ok::<_, std::convert::Infallible>(piece)
    });
    let path = format!("{cluster}/topics/a/records");
    let said = node.ask("POST", &path, &[("content-type", PLAIN)], Body::from_stream(body)).await;
    let codes: Vec<Value> = receipts(&said).into_iter().map(|receipt| receipt["error_code"].clone()).collect();
    assert_eq!((said.status, codes), (200, vec![json!(200), json!(200)]), "{said:?}");
}

#[tokio::test]
async fn a_batch_says_of_each_entry_by_its_name() {
    let (log, cluster) = log_with("a", 1).await;
    let node = Node::on(&log, |config| config.ingest.max_batch_entries = 3);
    let batch = format!("{cluster}/topics/a/records:batch");
    let entry = |id: &str, value: Value| json!({ "id": id, "value": value });
    let good = json!({ "type": "STRING", "data": "x" });
    let asked = json!({ "entries": [entry("1", good.clone()), entry("2", json!({ "type": "BINARY", "data": 1 })), entry("3", good.clone())] });
    let said = ask(&node, "POST", &batch, &asked).await;
    assert_eq!(said.status, 207, "{said:?}");
    let told = said.json();
    let failure = json!({ "id": "2", "error_code": 400, "message": "Bad Request: data=1 is not a base64 string." });
    assert_eq!(told["failures"], json!([failure]));
    let stored: Vec<_> =
        told["successes"].as_array().unwrap().iter().map(|s| (s["id"].clone(), s["offset"].clone())).collect();
    assert_eq!(stored, [(json!("1"), json!(0)), (json!("3"), json!(1))]);
    let long = "x".repeat(81);
    for (entries, message) in [
        (json!([]), "Empty batch"),
        (json!([entry("1", good.clone()), entry("1", good.clone())]), "Non-distinct identifiers"),
        (json!([entry("", good.clone())]), "Invalid identifier: entries[0].id must have 1 to 80 characters"),
        (json!([entry(&long, good.clone())]), "Invalid identifier: entries[0].id must have 1 to 80 characters"),
        (json!([1]), "Invalid identifier: entries[0].id must have 1 to 80 characters"),
        (json!([1, 2, 3, 4]), "Too many entries in batch: 4, 3 are allowed (ingest.max_batch_entries)"),
    ] {
        is(&ask(&node, "POST", &batch, &json!({ "entries": entries })).await, 422, 42208, message);
    }
    is(&ask(&node, "POST", &batch, &json!({ "x": 1 })).await, 422, 422, "Unrecognized field: x");
}

#[tokio::test]
async fn a_stream_and_a_read_that_wait_end_when_the_server_stops() {
    let server = Server::start().await;
    server.log.with_topic("a", 1);
    let mut client = server.connect().await;
    client.send(stream_head("Content-Length: 1000") + OBJECT).await;
    client.until("\"offset\":0,").await;
    server.stop.cancel();
    client.until(r#"{"error_code":503,"message":"the server is stopping; nothing more is stored"}"#).await;
    server.stopped().await;

    let (log, _) = log_with("a", 1).await;
    let stop = model::Stop::new();
    let node = Node::stopped_by(&log, &stop);
    node.post("/consumers/g", r#"{"name":"c","consumer.request.timeout.ms":30000}"#).await;
    node.post("/consumers/g/instances/c/subscription", r#"{"topics":["a"]}"#).await;
    let waiting = tokio::spawn(async move { node.get("/consumers/g/instances/c/records").await });
    tokio::task::yield_now().await;
    stop.cancel();
    assert_eq!(waiting.await.unwrap().body, "[]");
}

#[tokio::test]
async fn objects_are_objects_and_what_is_unknown_is_no_operation() {
    let (log, cluster) = log_with("a", 1).await;
    let node = Node::on(&log, |_| {});
    let (topics, alter) = (format!("{cluster}/topics"), format!("{cluster}/topics/a/configs:alter"));
    for (path, body, status) in [
        (&alter, json!({ "data": [{ "name": "retention.ms", "operation": "AAA" }] }), 400),
        (&alter, json!({ "data": [["retention.ms", null, null]] }), 400),
        (&alter, json!([[]]), 400),
        (&alter, json!({ "data": [{ "name": "retention.ms", "value": "1", "operation": "DELETE" }] }), 204),
        (&alter, json!({ "data": [{ "name": "retention.ms", "value": "604800000", "operation": "SET" }] }), 204),
        (&topics, json!(["t"]), 400),
        (&topics, json!({ "topic_name": "t", "partitions_count": 1.5 }), 400),
        (&topics, json!({ "topic_name": "t", "partitions_count": 3.0, "replication_factor": 1.0 }), 201),
    ] {
        let said = ask(&node, "POST", path, &body).await;
        assert_eq!(said.status, status, "{path} {body}: {said:?}");
    }
    assert_eq!(node.get(&format!("{topics}/t")).await.json()["partitions_count"], 3);
    let records = format!("{topics}/t/records");
    for (body, code) in [
        (json!({ "partition_id": 2.0, "value": { "type": "JSON", "data": 1 }, "timestamp": 7.0 }), 200),
        (json!({ "partition_id": 0.5, "value": { "type": "JSON", "data": 1 } }), 400),
        (json!({ "value": ["JSON", 1] }), 400),
        (json!({ "headers": [["h", null]], "value": { "type": "JSON", "data": 1 } }), 400),
    ] {
        let said = ask(&node, "POST", &records, &body).await;
        assert_eq!(said.json()["error_code"], code, "{body}: {said:?}");
    }
}

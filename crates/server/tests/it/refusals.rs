//! Rows of the protocols' tables of errors that belong to no other subject: status, code and words. And
//! that a request which is refused as a whole has left nothing behind.

use std::sync::Arc;

use event_log::MemoryLog;
use http::{Request, request::Parts};
use model::{EventLog, LogError, Offset, OffsetRange};
use serde_json::{Value, json};

use crate::{
    auth::{Keys, hex, id_of, mac, sha},
    harness::{JSON, Server},
    kinesis_client::{AMZ_JSON, base64},
    node::{Node, create, partition},
};

/// A client that takes a number of twelve digits for its key, which then is its account.
const ACCOUNT: &str = "AWS4-HMAC-SHA256 Credential=123456789012/20261121/us-east-1/kinesis/aws4_request, \
     SignedHeaders=host, Signature=00";

async fn ask(node: &Node, action: &str, body: &Value) -> (u16, String, String) {
    let target = format!("Kinesis_20131202.{action}");
    let headers = [("content-type", AMZ_JSON), ("x-amz-target", &target), ("authorization", ACCOUNT)];
    let said = node.ask("POST", "/", &headers, body.to_string()).await;
    let answer: Value = serde_json::from_str(&said.body).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let message = if answer["message"].is_null() { &answer["Message"] } else { &answer["message"] };
    (said.status, text(&answer["__type"]), text(message))
}

#[tokio::test]
async fn kinesis_names_the_account_that_asks() {
    let node = Node::on(&Arc::new(MemoryLog::new()), |_| {});
    for (action, body, status, name, message) in [
        ("CreateStream", json!({"StreamName": "a", "ShardCount": 1}), 200, "", ""),
        (
            "CreateStream",
            json!({"StreamName": "a", "ShardCount": 1}),
            400,
            "ResourceInUseException",
            "Stream a under account 123456789012 already exists.",
        ),
        (
            "DeleteStream",
            json!({"StreamName": "none"}),
            400,
            "ResourceNotFoundException",
            "Stream none under account 123456789012 not found.",
        ),
        ("IncreaseStreamRetentionPeriod", json!({"StreamName": "a", "RetentionPeriodHours": 48}), 200, "", ""),
        (
            "IncreaseStreamRetentionPeriod",
            json!({"StreamName": "a", "RetentionPeriodHours": 30}),
            400,
            "InvalidArgumentException",
            "Requested retention period (30 hours) for stream a can not be shorter than existing retention period \
             (48 hours). Use DecreaseRetentionPeriod API.",
        ),
    ] {
        let said = ask(&node, action, &body).await;
        assert_eq!((said.0, said.1.as_str(), said.2.as_str()), (status, name, message), "{action} {body}");
    }
}

/// What other servers of this protocol have stored as something else, or in part.
#[tokio::test]
async fn a_put_that_is_wrong_in_one_record_stores_none_of_them() {
    let log = Arc::new(MemoryLog::new());
    create(&*log, "a", 1).await;
    let node = Node::on(&log, |_| {});
    let (right, large) = (json!({"PartitionKey": "k", "Data": "eA=="}), base64(&"x".repeat((1 << 20) + 1)));
    for (member, value) in [
        ("Data", json!(1234)),
        ("Data", json!(12345)),
        ("Data", json!(true)),
        ("Data", json!({})),
        ("Data", json!([])),
        ("Data", json!(null)),
        ("Data", json!("a")),
        ("Data", json!("!!!!")),
        ("Data", json!(large)),
        ("PartitionKey", json!("")),
        ("PartitionKey", json!(1)),
        ("PartitionKey", json!(null)),
        ("PartitionKey", json!("k".repeat(257))),
        ("ExplicitHashKey", json!("abc")),
        ("ExplicitHashKey", json!("-1")),
        ("ExplicitHashKey", json!("01")),
        ("ExplicitHashKey", json!("340282366920938463463374607431768211456")),
    ] {
        let mut wrong = right.clone();
        wrong[member] = value.clone();
        let mut alone = wrong.clone();
        alone["StreamName"] = json!("a");
        for (action, body) in [
            ("PutRecord", alone),
            ("PutRecords", json!({"StreamName": "a", "Records": [right.clone(), wrong, right.clone()]})),
        ] {
            let (status, name, message) = ask(&node, action, &body).await;
            let names = ["ValidationException", "InvalidArgumentException", "SerializationException"];
            assert!(status == 400 && names.contains(&name.as_str()), "{action} {member}: {status} {name} {message}");
            assert!(message.len() < 1000, "{action} {member}");
        }
    }
    let most = json!({"PartitionKey": "k", "Data": base64(&"x".repeat(1_000_000))});
    let (status, name, message) =
        ask(&node, "PutRecords", &json!({"StreamName": "a", "Records": vec![most; 11]})).await;
    let expected = (400, "InvalidArgumentException", "Records size exceeds 10 MB limit");
    assert_eq!((status, name.as_str(), message.as_str()), expected);
    assert_eq!(log.bounds(&partition("a", 0)).await.unwrap().end, Offset(0));
    assert_eq!(ask(&node, "PutRecords", &json!({"StreamName": "a", "Records": [right]})).await.0, 200);
}

#[tokio::test]
async fn kinesis_says_what_it_cannot_take_and_what_broke_here() {
    let node = Node::on(&Arc::new(MemoryLog::new()), |config| config.ingest.max_body_bytes = 100);
    let (status, name, message) = ask(&node, "CreateStream", &json!({"StreamName": "x".repeat(100)})).await;
    assert_eq!((status, name.as_str()), (413, "RequestEntityTooLargeException"));
    assert!(message.contains("ingest.max_body_bytes"), "{message}");

    let server = Server::start().await;
    server.log.with_topic("a", 1);
    let body = r#"{"StreamName":"a","Data":"eA==","PartitionKey":"k"}"#;
    let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: {AMZ_JSON}\r\n");
    let put = format!("{head}X-Amz-Target: Kinesis_20131202.PutRecord\r\nContent-Length: {}\r\n", body.len());
    let range = OffsetRange { partition: partition("a", 0), start: Offset(0), end: Offset(1) };
    let signed = format!("{put}Authorization: {ACCOUNT}\r\n\r\n{body}");
    assert_eq!(server.ask(&signed).await.status, 200);
    server.log.fail_next(0, LogError::Corrupt { range, reason: "a bit flipped".to_owned() });
    let reply = server.ask(&signed).await;
    assert!(reply.status == 500 && reply.body.starts_with(r#"{"__type":"InternalFailure""#), "{reply:?}");
    let in_query = put.replace("POST / ", "POST /?X-Amz-Algorithm=AWS4-HMAC-SHA256 ");
    for (request, name, message) in [
        (format!("{put}\r\n{body}"), "MissingAuthenticationTokenException", "Missing Authentication Token"),
        (
            format!("{in_query}Authorization: {ACCOUNT}\r\n\r\n{body}"),
            "InvalidSignatureException",
            "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
        ),
    ] {
        let reply = server.ask(request).await;
        assert_eq!((reply.status, reply.body), (400, json!({"__type": name, "message": message}).to_string()));
    }
}

#[tokio::test]
async fn kafka_rest_says_what_broke_here_and_goes_on() {
    let server = Server::start().await;
    let body = r#"{"records":[{"value":1}]}"#;
    for path in ["/topics/panics", "/prod/topics/panics"] {
        let reply = server.post(path, JSON, body).await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (500, r#"{"error_code":500,"message":"Internal Server Error"}"#)
        );
    }
    assert_eq!(server.produce("pin", body).await.status, 200);
}

#[tokio::test]
async fn an_instance_with_assignments_cannot_subscribe() {
    let log = Arc::new(MemoryLog::new());
    create(&*log, "a", 1).await;
    let node = Node::on(&log, |_| {});
    node.post("/consumers/g", r#"{"name":"c"}"#).await;
    let at = |rest: &str| format!("/consumers/g/instances/c{rest}");
    let assigned = r#"{"partitions":[{"topic":"a","partition":0}]}"#;
    assert_eq!(node.post(&at("/assignments"), assigned).await.status, 204);
    for body in [r#"{"topics":["a"]}"#, r#"{"topic_pattern":"a.*"}"#] {
        let said = node.post(&at("/subscription"), body).await;
        let message = "Illegal state: Subscription to topics, partitions and pattern are mutually exclusive";
        assert_eq!((said.status, said.json()), (409, json!({"error_code": 40903, "message": message})), "{body}");
    }
}

/// A body that will not be taken is not asked for.
#[tokio::test]
async fn who_asks_before_sending_a_body_is_answered_at_once() {
    let server = Server::with(|config| config.ingest.max_body_bytes = 500).await;
    let body = r#"{"records":[{"value":1}]}"#;
    let head = |more: &str, length: usize| {
        format!(
            "POST /topics/pin HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\nExpect: 100-continue\r\n\
             Content-Length: {length}\r\n{more}\r\n"
        )
    };
    for (more, length, status) in
        [("", 501, 413), ("Content-Encoding: gzip\r\n", 25, 415), ("Origin: null\r\n", 25, 403)]
    {
        let mut client = server.connect().await;
        client.send(head(more, length)).await;
        assert_eq!(client.reply().await.status, status, "{more}{length}");
    }
    let mut client = server.connect().await;
    client.send(head("", body.len())).await;
    client.until("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send(body).await;
    assert_eq!(client.reply().await.status, 200);
}

/// The same request as `auth::signed_call` makes, with its credentials in the query.
fn presigned(id: &str, secret: &str, seconds: u32, body: &str) -> Parts {
    let time = chrono::Utc::now().format("%Y%m%dT%H%M%SZ").to_string();
    let scope = format!("{}/eu-west-1/kinesis/aws4_request", &time[..8]);
    let target = "Kinesis_20131202.ListStreams";
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date={time}&X-Amz-Expires={seconds}\
         &X-Amz-SignedHeaders=host%3Bx-amz-target",
        format!("{id}/{scope}").replace('/', "%2F")
    );
    let request =
        format!("POST\n/\n{query}\nhost:localhost:8082\nx-amz-target:{target}\n\nhost;x-amz-target\n{}", sha(body));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha(&request));
    let key = scope.split('/').fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part));
    let uri = format!("/?{query}&X-Amz-Signature={}", hex(&mac(&key, &text)));
    let request = Request::post(uri).header("host", "localhost:8082").header("content-type", AMZ_JSON);
    request.header("x-amz-target", target).body(()).unwrap().into_parts().0
}

#[tokio::test]
async fn credentials_in_a_query_are_taken_where_the_settings_say_so() {
    let mut keys = Keys::new();
    let key = keys.add(&["describe:*"], None);
    let (id, secret) = (id_of(&key).to_owned(), keys.signing_secret(id_of(&key)));
    for (takes, seconds, body, sent, found) in [
        (true, 60, "{}", "{}", None),
        (true, 60, "{}", "{ }", Some("InvalidSignatureException")),
        (true, 604_801, "{}", "{}", Some("IncompleteSignatureException")),
        (false, 60, "{}", "{}", Some("InvalidSignatureException")),
    ] {
        let node = Node::on(&Arc::new(MemoryLog::new()), |config| {
            config.auth = keys.config();
            config.auth.presigned = takes;
        });
        let head = presigned(&id, &secret, seconds, body);
        let headers = [("content-type", AMZ_JSON), ("x-amz-target", "Kinesis_20131202.ListStreams")];
        let path = head.uri.to_string();
        let said = node.ask("POST", &path, &headers, sent).await;
        assert_eq!(said.json()["__type"].as_str(), found, "{takes} {seconds} {said:?}");
        assert!(takes || said.body.contains("auth.presigned"), "{said:?}");
        // Such a URL opens no other door, and is worth nothing with a key beside it.
        assert_eq!(node.as_asked("GET", &format!("/topics{path}"), &[]).await.0, 401);
    }
}

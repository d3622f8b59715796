//! What holds at each door alike, of whatever protocol: names stay names, compressed and deep bodies
//! are refused, and pages of other sites neither bring nor read nor move anything.

use std::sync::Arc;

use event_log::MemoryLog;
use model::EventLog;
use serde_json::{Value, json};

use crate::{
    auth::{Keys, routes},
    harness::{BINARY, JSON, Server},
    kinesis_client::{AMZ_CBOR, AMZ_JSON, SIGNATURE},
    node::{KAFKA_V2, Node, Said, create},
};

const PLAIN: &str = "application/json";

/// A way in: method, path (`{name}` a topic's or stream's), media type, target, body.
struct Way {
    method: &'static str,
    path: &'static str,
    media_type: &'static str,
    action: &'static str,
    body: String,
}

impl Way {
    fn all() -> Vec<Self> {
        let way = |method, path, media_type, action, body: Value| Self {
            method,
            path,
            media_type,
            action,
            body: body.to_string(),
        };
        let named = |more: Value| {
            let mut body = json!({"StreamName": "{name}"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        vec![
            way("POST", "/topics/{name}", JSON, "", json!({"records": [{"value": 1}]})),
            way("POST", "/dev/topics/{name}/partitions/0", BINARY, "", json!({"records": [{"value": "eA=="}]})),
            way("POST", "/v3/clusters/{cluster}/topics", PLAIN, "", json!({"topic_name": "{name}"})),
            way(
                "POST",
                "/v3/clusters/{cluster}/topics/{name}/records",
                PLAIN,
                "",
                json!({"value": {"type": "JSON", "data": 1}}),
            ),
            way(
                "POST",
                "/v3/clusters/{cluster}/topics/{name}/records:batch",
                PLAIN,
                "",
                json!({"entries": [{"id": "1", "value": {"type": "JSON", "data": 1}}]}),
            ),
            way("POST", "/", AMZ_JSON, "CreateStream", named(json!({"ShardCount": 1}))),
            way("POST", "/", AMZ_JSON, "PutRecord", named(json!({"Data": "eA==", "PartitionKey": "k"}))),
            way(
                "POST",
                "/",
                AMZ_JSON,
                "PutRecords",
                named(json!({"Records": [{"Data": "eA==", "PartitionKey": "k"}]})),
            ),
            way("POST", "/", AMZ_JSON, "DeleteStream", named(json!({}))),
            way("POST", "/test/streams/{name}", PLAIN, "", json!({"ShardCount": 1})),
            way("PUT", "/streams/{name}/record", PLAIN, "", json!({"Data": 1, "PartitionKey": "k"})),
            way("PUT", "/streams/{name}/records", PLAIN, "", json!({"records": [{"data": 1, "partition-key": "k"}]})),
            way("POST", "/consumers/g/instances/c/subscription", KAFKA_V2, "", json!({"topics": ["{name}"]})),
            way(
                "POST",
                "/consumers/g/instances/c/assignments",
                KAFKA_V2,
                "",
                json!({"partitions": [{"topic": "{name}", "partition": 0}]}),
            ),
        ]
    }

    async fn ask(&self, node: &Node, cluster: &str, name: &str, more: &[(&str, &str)], body: String) -> Said {
        let in_path: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = self.path.replace("{cluster}", cluster).replace("{name}", &in_path);
        let target = format!("Kinesis_20131202.{}", self.action);
        let mut headers = vec![("content-type", self.media_type)];
        if !self.action.is_empty() {
            headers.extend([("x-amz-target", target.as_str()), ("authorization", SIGNATURE)]);
        }
        headers.extend(more);
        node.ask(self.method, &path, &headers, body).await
    }

    fn body_with(&self, name: &str) -> String {
        let quoted = Value::from(name).to_string();
        self.body.replace("{name}", &quoted[1..quoted.len() - 1])
    }
}

/// A log with the topic `a` and an instance that may subscribe; and the cluster's id.
async fn node() -> (Arc<MemoryLog>, Node, String) {
    let log = Arc::new(MemoryLog::new());
    create(&*log, "a", 1).await;
    let node = Node::on(&log, |_| {});
    assert_eq!(node.post("/consumers/g", r#"{"name":"c","format":"json"}"#).await.status, 200);
    let cluster = log.describe().await.unwrap().id.id.to_string();
    (log, node, cluster)
}

/// Whether anything was stored under any name but those that are known.
async fn topics(log: &MemoryLog) -> Vec<String> {
    let topics = log.describe().await.unwrap().topics;
    topics.keys().map(ToString::to_string).filter(|name| !name.starts_with("__")).collect()
}

#[tokio::test]
async fn a_name_is_letters_digits_and_little_else_at_every_door() {
    let (log, node, cluster) = node().await;
    let long = "x".repeat(250);
    for way in Way::all() {
        for name in [
            ".",
            "..",
            "../../etc/passwd",
            "a/b",
            "a\\b",
            "/etc",
            "a\0b",
            "a\r\nb",
            "a b",
            " a",
            "ü",
            "а",
            "a%2fb",
            "<script>",
            "a:b",
            "a+b",
            "\u{202e}a",
            "__consumers",
            "__kinesis_streams",
            "__new",
            &long,
        ] {
            let said = way.ask(&node, &cluster, name, &[], way.body_with(name)).await;
            let (method, path, action) = (way.method, way.path, way.action);
            // A stream and a batch of version 3 tell what is wrong with each record, inside an answer of 200.
            let is_told = said.status == 200 && said.body.contains(r#""error_code":4"#)
                || said.status == 207 && said.body.contains(r#""successes":[]"#)
                || (400..500).contains(&said.status);
            assert!(is_told, "{method} {path} {action} {name:?}: {said:?}");
            assert!(said.body.len() < 2000 && !said.body.contains('\0'), "{path} {action} {name:?}: {said:?}");
            assert_eq!(topics(&log).await, ["a"], "{method} {path} {action} {name:?}");
        }
    }
    for name in ["a.b", "A_b-1", "-lead", "_one", "CON"] {
        let said = Way::all()[0].ask(&node, &cluster, name, &[], Way::all()[0].body_with(name)).await;
        assert_eq!(said.status, 200, "{name}: {said:?}");
    }
}

#[tokio::test]
async fn a_compressed_body_is_refused_at_every_door() {
    let (log, node, cluster) = node().await;
    let mut ways = Way::all();
    ways.push(Way { method: "POST", path: "/pin/", media_type: PLAIN, action: "", body: "{}".to_owned() });
    for way in ways {
        for encoding in ["gzip", "deflate", "br", "zstd", "aws-chunked", "identity, gzip"] {
            let said = way.ask(&node, &cluster, "a", &[("content-encoding", encoding)], way.body_with("a")).await;
            let refused = said.status == 415 || !way.action.is_empty() && said.body.contains("SerializationException");
            assert!(refused, "{} {} {encoding}: {said:?}", way.path, way.action);
        }
    }
    assert_eq!(log.bounds(&crate::node::partition("a", 0)).await.unwrap().end.0, 0);
}

#[tokio::test]
async fn depth_exhausts_no_stack_at_any_door() {
    let (log, node, cluster) = node().await;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut ways = Way::all();
    ways.push(Way { method: "POST", path: "/pin/", media_type: PLAIN, action: "", body: "{}".to_owned() });
    ways.push(Way { method: "POST", path: "/consumers/g", media_type: KAFKA_V2, action: "", body: "{}".to_owned() });
    for way in &ways {
        let within = way.body_with("a").replacen('{', &format!("{{\"x\":{deep},"), 1).replace(",}", "}");
        for body in [deep.clone(), "[".repeat(100_000), "{\"a\":".repeat(100_000), within.clone()] {
            let may_be_passed_over = body == within;
            let said = way.ask(&node, &cluster, "a", &[], body).await;
            let is_refused = (400..500).contains(&said.status) || said.body.contains(r#""error_code":4"#);
            assert!(is_refused || may_be_passed_over, "{} {}: {said:?}", way.path, way.action);
            assert!(said.status < 500 && said.body.len() < 2000, "{} {}: {said:?}", way.path, way.action);
        }
    }
    // Arrays of arrays, maps of maps, tags of tags; with lengths and without.
    for byte in [0x81, 0xa1, 0xc1, 0x9f, 0xbf, 0x5f, 0xff] {
        for action in ["PutRecord", "PutRecords", "CreateStream"] {
            let target = format!("Kinesis_20131202.{action}");
            let headers = [("content-type", AMZ_CBOR), ("x-amz-target", target.as_str()), ("authorization", SIGNATURE)];
            let request = node.raw("POST", "/", &headers, vec![byte; 200_000]).await;
            assert_eq!(request, 400, "{byte:x} {action}");
        }
    }
    assert_eq!(topics(&log).await, ["a"]);
}

/// A page that re-bound its own name to this address looks at this server as at its own site, and
/// browsers bring no `Origin` then; nor do they for pictures. (What brings something has one.)
#[tokio::test]
async fn pages_of_other_sites_see_nothing_and_move_no_consumer() {
    let (_, node, cluster) = node().await;
    let looks: Vec<String> = routes().into_iter().filter(|(method, _)| method == "GET").map(|(_, path)| path).collect();
    // These tell nobody anything, or are scraped by whatever name; the page of `/` asks by itself.
    let is_open = |path: &str| ["/healthz", "/readyz", "/metrics", "/"].contains(&path);
    let mut n_routes = 0;
    for template in looks.iter().filter(|path| !is_open(path)) {
        let path = template.replace("{cluster}", &cluster);
        let segment = |part: &str| if part.starts_with('{') { "0".to_owned() } else { part.to_owned() };
        let path = path.split('/').map(segment).collect::<Vec<_>>().join("/");
        for stage in ["", "/prod"] {
            if !stage.is_empty() && !path.starts_with("/topics") && !path.starts_with("/streams") {
                continue;
            }
            for method in ["GET", "HEAD"] {
                for headers in [
                    [("host", "evil.example:8082"), ("x", "")],
                    [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
                    [("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")],
                ] {
                    let site_alone = headers[0].0 == "sec-fetch-site";
                    // The files of the dashboard, and answers that no script of others can read.
                    if site_alone && !gates(&path) {
                        continue;
                    }
                    let said = node.as_asked(method, &format!("{stage}{path}"), &headers).await;
                    assert!([403, 421].contains(&said.0), "{method} {stage}{path} {headers:?}: {said:?}");
                    assert!(!said.1.contains("\"a\""), "{path}: {said:?}");
                    n_routes += 1;
                }
                for headers in [
                    [("host", "127.0.0.1:8082"), ("sec-fetch-site", "same-origin")],
                    [("host", "localhost"), ("sec-fetch-site", "none")],
                    [("host", "[::1]:1"), ("x", "")],
                    [("x", ""), ("x", "")],
                ] {
                    if !gates(&path) && headers[0].0 != "host" {
                        continue;
                    }
                    let said = node.as_asked(method, &format!("{stage}{path}"), &headers).await;
                    assert!(![403, 421].contains(&said.0), "{method} {stage}{path} {headers:?}: {said:?}");
                }
            }
        }
    }
    assert!(n_routes > 100, "{n_routes}");
    let said = node.as_asked("GET", "/topics", &[("host", "evil.example")]).await.1;
    assert_eq!(
        said,
        r#"{"error_code":40301,"message":"this server is not called \"evil.example\"; server.allowed_hosts lists its names"}"#
    );
    let said = node.as_asked("GET", "/streams", &[("sec-fetch-site", "cross-site")]).await.1;
    assert_eq!(said, r#"{"message":"pages of other sites may not ask for this"}"#);
}

/// Whether records and what is known of them lie behind the path.
fn gates(path: &str) -> bool {
    ["/topics", "/consumers", "/v3", "/streams", "/brokers"].iter().any(|door| path.starts_with(door))
}

/// Whoever has a key is no page, and calls the server as others call it.
#[tokio::test]
async fn with_keys_doors_are_reached_by_any_name_but_from_no_other_site() {
    let mut keys = Keys::new();
    let key = keys.add(&["describe:*"], None);
    let node = Node::on(&Arc::new(MemoryLog::new()), |config| config.auth = keys.config());
    for (headers, status) in [
        ([("x-api-key", key.as_str()), ("host", "corkboard.internal:8082")], 200),
        ([("x-api-key", &key), ("sec-fetch-site", "cross-site")], 403),
        ([("x-api-key", "A.b"), ("sec-fetch-site", "cross-site")], 401),
    ] {
        assert_eq!(node.as_asked("GET", "/topics", &headers).await.0, status, "{headers:?}");
    }
}

#[tokio::test]
async fn names_that_the_settings_allow_are_taken_at_the_doors() {
    let server = Server::with(|config| config.server.allowed_hosts = vec!["cork.example".to_owned()]).await;
    for (host, status) in [("Cork.Example:443", 200), ("evil.example", 403)] {
        let reply = server.ask(format!("GET /topics HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(reply.status, status, "{host}: {}", reply.body);
    }
    let reply = server.ask("GET http://evil.example/topics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(reply.status, 403, "{}", reply.body);
}

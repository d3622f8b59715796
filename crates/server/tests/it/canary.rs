//! What the log, the metrics and error texts never hold: anything that lets its finder in. Every
//! credential here is a text that is found nowhere else, and everything is logged that there is to log.
//! And that nobody can write lines of their own into the log.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use event_log::MemoryLog;
use http::{Request, request::Parts};
use hyper_util::rt::{TokioExecutor, TokioIo};
use server::auth::Auth;
use tokio::net::TcpStream;
use tracing::{Dispatch, dispatcher::DefaultGuard};

use crate::{
    auth::{Keys, ask, ask_with, id_of, signed_call},
    harness::{JSON, Server},
    kinesis_client::whole_of,
    node::Node,
};

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// While it lives, lines are collected.
pub(crate) struct Collecting {
    _default: DefaultGuard,
    _beside: Dispatch,
}

impl Collecting {
    fn by(subscriber: impl Into<Dispatch>) -> Self {
        // While there is one alone, whichever thread comes to a line first decides by what it has itself
        // whether anybody wants it: tests beside this one have nothing, and the line would be lost here.
        let beside = Dispatch::new(tracing_subscriber::registry());
        Self { _default: tracing::dispatcher::set_default(&subscriber.into()), _beside: beside }
    }
}

impl Lines {
    /// As text, at every level.
    pub(crate) fn collect(&self) -> Collecting {
        let writer = self.clone();
        let lines = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
        Collecting::by(lines.with_writer(move || writer.clone()).with_ansi(false).finish())
    }

    fn collect_json(&self) -> Collecting {
        let writer = self.clone();
        let lines = tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE);
        Collecting::by(lines.with_writer(move || writer.clone()).finish())
    }

    /// What came since the last call.
    pub(crate) fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

/// The bytes of a request whose head was made elsewhere.
fn bytes_of(head: &Parts, body: &str) -> String {
    let headers: String =
        head.headers.iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap())).collect();
    format!("{} {} HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n{body}", head.method, head.uri, body.len())
}

async fn over_http2(server: &Server, headers: &[(&str, &str)]) -> String {
    let socket = TokioIo::new(TcpStream::connect(server.addr).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), socket).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::post("http://localhost/topics/b").header("content-type", JSON);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = sender.send_request(request.body(Body::from("{")).unwrap()).await.unwrap();
    whole_of(answer).await
}

#[tokio::test]
async fn no_credential_is_logged_measured_or_repeated() {
    let lines = Lines::default();
    let logging = lines.collect();
    let mut keys = Keys::new();
    let key = keys.add(&["produce,consume,admin:a,panics", "tasks:batch", "describe:*"], None);
    let (id, secret) = key.split_once('.').unwrap();
    let signing_secret = keys.signing_secret(id);
    let server_secret = std::fs::read_to_string(keys.config().secret_file).unwrap().trim().to_owned();
    let server = keys.server().await;
    let wrong = format!("{id}.canary-of-a-wrong-key");
    let basic = BASE64_STANDARD.encode(format!("{id}:{secret}"));
    let good = signed_call("CreateStream", id, &signing_secret, r#"{"StreamName":"a","ShardCount":1}"#);
    let signature = good.headers["authorization"].to_str().unwrap().rsplit_once("Signature=").unwrap().1.to_owned();
    let mut said = String::new();

    for (method, path) in [
        ("POST", "/topics/a"),
        ("POST", "/topics/panics"),
        ("POST", "/topics/b"),
        ("GET", "/topics/a"),
        ("GET", "/metrics"),
        ("POST", "/api/tasks/batch/run"),
        ("POST", "/v3/clusters/x/topics/a/records"),
        ("POST", "/consumers/g"),
        ("GET", "/dev/streams/a"),
        ("POST", "/streams/a"),
        ("POST", "/pin/"),
        ("BREW", "/nothing"),
        ("POST", "/topics/a?x-api-key=canary-in-a-query"),
        ("GET", "/api/views/a?key=canary-in-a-query"),
    ] {
        for header in [
            format!("x-api-key: {key}\r\n"),
            format!("x-api-key: {wrong}\r\n"),
            format!("Authorization: Bearer {key}\r\n"),
            format!("Authorization: Basic {basic}\r\n"),
            format!("Authorization: Digest {key}\r\n"),
            format!("x-api-key: {key}\r\nx-api-key: {key}\r\n"),
            format!("Authorization: Bearer {wrong}\r\nCookie: session=canary-in-a-cookie\r\n"),
            format!("Proxy-Authorization: Basic {basic}\r\n"),
        ] {
            said += &ask(&server, method, path, &header).await.body;
        }
    }
    let with = |head: &Parts, name: &'static str, value: &str| {
        let mut head = head.clone();
        head.headers.insert(name, value.parse().unwrap());
        head
    };
    let unknown = signed_call("CreateStream", "CORKNOBODY", &signing_secret, "{}");
    let presigned = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=canary-in-a-url&X-Amz-Date=20260101T000000Z\
                     &X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=canary-in-a-url&X-Amz-Security-Token=canary-in-a-url";
    let mut in_query = signed_call("ListStreams", id, &signing_secret, "{}");
    in_query.uri = presigned.parse().unwrap();
    in_query.headers.remove("authorization");
    for (head, body) in [
        (&good, r#"{"StreamName":"a","ShardCount":1}"#),
        (&good, "{}"),
        (&unknown, "{}"),
        (&with(&good, "x-amz-security-token", "canary-of-a-session"), "{}"),
        (&with(&good, "x-amz-content-sha256", "UNSIGNED-PAYLOAD"), "{}"),
        (&with(&good, "authorization", "AWS4-HMAC-SHA256 Credential=canary-of-a-scope, canary-of-a-part"), "{}"),
        (&with(&good, "authorization", &format!("Bearer {key}")), "{}"),
        (&in_query, "{}"),
        (&with(&in_query, "x-api-key", &key), "{}"),
    ] {
        said += &server.ask(bytes_of(head, body)).await.body;
    }
    for headers in [
        [("x-api-key", key.as_str()), ("cookie", "canary-in-a-cookie")],
        [("x-api-key", &wrong), ("cookie", "canary-in-a-cookie")],
        [("authorization", &format!("Bearer {key}")), ("x-amz-security-token", "canary-of-a-session")],
    ] {
        said += &over_http2(&server, &headers).await;
    }
    // A connection that is no HTTP, with a key in what was sent.
    let mut broken = server.connect().await;
    broken.send(format!("POST /topics/a HTTP/1.1\r\nx-api-key: {key}\r\nbad header\r\n\r\n")).await;
    said += &broken.rest().await;
    said += &ask_with(&server, "GET", "/metrics", &key).await.body;
    // The file of keys, read again, unreadable, and what the program would say of what it holds.
    keys.file.remove(id).unwrap();
    keys.write();
    let auth = Auth::open(&keys.config()).unwrap();
    std::fs::write(keys.config().keys_file, format!("[[key]]\nid = \"{key}\"\nhash = {secret}")).unwrap();
    said += &format!("{:?}", Auth::open(&keys.config()).err());
    std::fs::write(keys.config().secret_file, format!("{signing_secret}\n")).unwrap();
    said += &format!("{:?}", Auth::open(&keys.config()).err());
    said += &format!("{:?}", auth.signed(&good, b"{}", true));
    drop(logging);

    let log = lines.take();
    for seen in ["a request was refused", "panicked", "h2::"] {
        assert!(log.contains(seen), "{seen} was not logged, so that little can be said of what is");
    }
    assert!(said.contains("error_code") && said.contains("InvalidSignatureException") && said.contains("# EOF"));
    for (what, text) in [("the log", &log), ("an answer", &said)] {
        for canary in [secret, &signing_secret, &server_secret, &signature, &basic, "canary-"] {
            let at = text.find(canary);
            let around = at.map(|at| text[..at].lines().last().unwrap_or_default());
            assert!(at.is_none(), "{what} has {canary:?} after {around:?}");
        }
    }
}

/// Text that would begin lines of its own, colour them, or hide what stands there.
const HOSTILE: [&str; 6] =
    ["\r\n2026-01-01T00:00:00Z  INFO forged", "\u{1b}[2J", "\u{9b}31m", "\u{202e}", "\0", "\u{85}forged"];

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// In every place where a client's text may come to be logged.
async fn ask_with_hostile_texts() {
    let mut keys = Keys::new();
    let key = keys.add(&["produce,consume,describe,admin:*", "tasks:*"], None);
    let open = Server::start().await;
    let guarded = keys.server().await;
    for text in HOSTILE {
        let in_json = serde_json::Value::from(text).to_string();
        let in_path = escaped(text);
        for server in [&open, &guarded] {
            for (method, path) in [
                ("POST", format!("/topics/{in_path}")),
                ("POST", format!("/api/tasks/{in_path}/run")),
                ("DELETE", format!("/v3/clusters/x/topics/{in_path}")),
                ("DELETE", format!("/streams/{in_path}")),
                ("GET", format!("/consumers/{in_path}/instances/{in_path}/records")),
                ("GET", format!("/api/views/{in_path}")),
                ("POST", format!("/{in_path}/topics/panics")),
            ] {
                ask_with(server, method, &path, &key).await;
            }
            // What may stand in a header, if not all of it may.
            let in_header: Vec<u8> = text.bytes().filter(|byte| *byte >= b' ' && *byte != 0x7f).collect();
            for path in ["/topics/panics", "/topics/a", "/nothing"] {
                let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {key}\r\nX-Request-Id: ");
                let rest = format!(
                    "\r\nContent-Type: {JSON}\r\nContent-Length: 28\r\n\r\n{{\"records\":[{{\"value\":1}}]}}   "
                );
                let request = [head.as_bytes(), &in_header, b"\r\nUser-Agent: ", &in_header, rest.as_bytes()].concat();
                let mut client = server.connect().await;
                client.send(request).await;
                assert!(client.head_bytes().await.starts_with(b"HTTP/1.1 "));
            }
        }
        let body = format!(r#"{{"StreamName":{in_json},"ShardCount":1}}"#);
        for action in ["CreateStream", "Drop"] {
            let head = signed_call(action, id_of(&key), &keys.signing_secret(id_of(&key)), &body);
            guarded.ask(bytes_of(&head, &body)).await;
        }
        let made = format!(r#"{{"name":{in_json},"format":{in_json}}}"#);
        open.post("/consumers/g", "application/vnd.kafka.v2+json", made).await;
    }
}

#[tokio::test]
async fn nobody_writes_lines_of_their_own_into_the_log() {
    let lines = Lines::default();
    for as_json in [false, true] {
        let logging = if as_json { lines.collect_json() } else { lines.collect() };
        ask_with_hostile_texts().await;
        drop(logging);
        let log = lines.take();
        assert!(log.contains("panicked") && log.contains("audit"), "{log:.2000}");
        for line in log.lines() {
            assert!(line.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{line:?}");
            if as_json {
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
            } else {
                assert!(line.starts_with("20") && !line.starts_with("2026-01-01"), "{line}");
            }
        }
    }
}

#[tokio::test]
async fn guesses_do_not_fill_the_log() {
    let lines = Lines::default();
    let _logging = lines.collect();
    let keys = Keys::new();
    let node = Node::on(&Arc::new(MemoryLog::new()), |config| config.auth = keys.config());
    for i in 0..500 {
        let wrong = format!("CORKA.{i}");
        assert!([401, 429].contains(&node.as_asked("GET", "/topics", &[("x-api-key", &wrong)]).await.0));
    }
    let n_lines = lines.take().lines().filter(|line| line.contains("a request was refused")).count();
    // One in ten seconds.
    assert!((1..10).contains(&n_lines), "{n_lines}");
}

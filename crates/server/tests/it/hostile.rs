//! Requests that no honest client sends: each is refused by its own status, reaches no handler
//! that it should not, leaves nothing behind, and the next client is served.
//!
//! Requests that hide in others, heads without end and slow ones are in `listener`; pages of other
//! sites in `api`.

use crate::harness::{JSON, Server, post};

const RECORD: &str = r#"{"records":[{"value":1}]}"#;

#[tokio::test]
async fn compressed_bodies_are_refused_unread() {
    let server = Server::start().await;
    for encoding in ["gzip", "x-gzip", "deflate", "br", "zstd", "compress", "gzip, gzip", "identity, gzip", ""] {
        let head = format!("POST /topics/pin HTTP/1.1\r\nContent-Type: {JSON}\r\nContent-Encoding: {encoding}\r\n");
        let reply = server.ask(format!("{head}Content-Length: 1000000000\r\n\r\n")).await;
        assert_eq!(reply.status, 415, "{encoding}");
    }
    let head = format!("POST /topics/pin HTTP/1.1\r\nContent-Type: {JSON}\r\nContent-Encoding: Identity\r\n");
    let reply = server.ask(format!("{head}Content-Length: {}\r\n\r\n{RECORD}", RECORD.len())).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn json_that_is_made_to_be_heavy_is_refused_or_stored_as_it_is() {
    let server = Server::start().await;
    let of_value = |value: &str| format!(r#"{{"records":[{{"value":{value}}}]}}"#);
    let repeated = |n: usize, one: &str| vec![one; n].join(",");
    for (what, status, body) in [
        ("a number of ten million digits", 413, of_value(&"9".repeat(10 << 20))),
        ("a string of ten million letters", 413, of_value(&format!("\"{}\"", "x".repeat(10 << 20)))),
        ("a string of a million escapes", 200, of_value(&format!("\"{}\"", r"\u0041".repeat(1_000_000)))),
        ("an object of 100,000 fields", 200, of_value(&format!("{{{}}}", repeated(100_000, r#""k":1"#)))),
        ("an object of a million fields", 413, of_value(&format!("{{{}}}", repeated(1_000_000, r#""k":1"#)))),
        ("a million records", 413, format!(r#"{{"records":[{}]}}"#, repeated(1_000_000, "{}"))),
        ("a record of a million keys", 200, format!(r#"{{"records":[{{{}}}]}}"#, repeated(1_000_000, r#""key":1"#))),
        ("a million unknown fields", 422, format!("{{{}}}", repeated(1_000_000, r#""a":1"#))),
        ("a million schemas", 200, format!("{{{},{}", repeated(1_000_000, r#""key_schema":1"#), &RECORD[1..])),
        (
            "a million headers",
            413,
            format!(r#"{{"records":[{{"headers":[{}]}}]}}"#, repeated(300_000, r#"{"name":"abcd"}"#)),
        ),
        ("a byte order mark", 400, format!("\u{feff}{RECORD}")),
        ("another encoding", 400, RECORD.chars().flat_map(|c| [c, '\0']).collect()),
        ("a number beyond any float", 200, of_value("1e999999999")),
        ("no number", 400, of_value("NaN")),
        ("no number either", 400, of_value("-Infinity")),
        ("a bare control character", 400, of_value("\"\u{1}\"")),
        ("a partition beyond any integer", 400, r#"{"records":[{"value":1,"partition":1e400}]}"#.to_owned()),
        ("a partition beyond all partitions", 404, r#"{"records":[{"value":1,"partition":4294967296}]}"#.to_owned()),
        ("a time beyond the calendar", 400, r#"{"records":[{"value":1,"timestamp":99999999999999999999}]}"#.to_owned()),
        ("a time before all", 400, r#"{"records":[{"value":1,"timestamp":-1}]}"#.to_owned()),
    ] {
        let reply = server.produce("pin", body).await;
        assert_eq!(reply.status, status, "{what}: {:.300}", reply.body);
        assert!(reply.body.len() < 1000, "{what}: an answer of {} bytes", reply.body.len());
    }
    assert!(server.get("/metrics").await.body.contains("corkboard_ingest_inflight_bytes 0\n"));
}

#[tokio::test]
async fn names_never_leave_their_place() {
    let server = Server::start().await;
    let long = "x".repeat(250);
    for name in [
        "..",
        ".",
        "%2e%2e",
        "%2e%2e%2f",
        "..%2f..%2fetc%2fpasswd",
        "a%2fb",
        "a%5Cb",
        "a%00b",
        "a%0d%0ab",
        "%c3%bc",
        "%ff",
        "a%20b",
        "a%3Cscript%3E",
        "a:b",
        "a+b",
        "a%25b",
        &long,
    ] {
        let reply = server.produce(name, RECORD).await;
        assert!([400, 404].contains(&reply.status), "{name}: {}", reply.status);
        assert!(reply.body.starts_with(r#"{"error_code":4"#) && !reply.body.contains('\r'), "{name}: {}", reply.body);
    }
    for path in [
        "/topics/../metrics",
        "/topics//x",
        "/topics/a/../../etc",
        "/assets/../Cargo.toml",
        "/assets/%2e%2e%2fapi.rs",
        "/assets/",
        "/assets",
        "/assets/app.js.map",
        "//metrics",
        "/api/../metrics",
    ] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    assert!(server.log.topic_names().is_empty());
    for name in ["-lead", "_internal", "CON", "a..b", "con.txt", &long[1..]] {
        assert_eq!(server.produce(name, RECORD).await.status, 200, "{name}");
    }
    assert_eq!(server.log.topic_names().len(), 6);
}

#[tokio::test]
async fn what_is_asked_makes_no_labels() {
    let server = Server::start().await;
    let series = |metrics: &str| metrics.lines().filter(|l| l.starts_with("corkboard_http_request")).count();
    server.get("/nothing").await;
    server.produce(".", RECORD).await;
    server.ask("BREW /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    server.get("/metrics").await;
    let before = series(&server.get("/metrics").await.body);
    let mut client = server.connect().await;
    for i in 0..2000 {
        client.send(format!("M{i} /nothing/{i} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        client.send(format!("GET /api/views/v{i} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        client.send(post(&format!("/topics/t{i}%20"), JSON, RECORD)).await;
        for _ in 0..3 {
            assert!(client.reply().await.status >= 400);
        }
    }
    let after = series(&server.get("/metrics").await.body);
    // The route of views was new; each route has a histogram and a counter per kind of answer.
    assert!(after < before + 25, "{before} series became {after}");
}

#[tokio::test]
async fn bytes_that_are_no_http_are_an_error_of_their_connection_alone() {
    let server = Server::start().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\x00: b\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x00\r\n\r\n",
        b"POST /topics/pin HTTP/1.1\nContent-Length: 0 \x7f\n\n",
    ] {
        let mut client = server.connect().await;
        client.send(bytes).await;
        let answer = client.rest().await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{bytes:?}: {answer}");
    }
    assert_eq!(server.produce("pin", RECORD).await.status, 200);
}

//! Connections: limits, times, how they end, and that a request is never more than one.

use std::{fs, time::Duration};

use futures::future;
use model::config::{AuthMode, Config};
use server::listener;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    auth::Keys,
    harness::{JSON, Server, post},
};

const RECORD: &str = r#"{"records":[{"value":1}]}"#;

/// Long enough that only a failing test meets it.
const NEVER_MS: u64 = 3_600_000;

/// Short, and yet long enough for a client that has to be quicker on a busy machine.
const SOON_MS: u64 = 400;

#[tokio::test]
async fn a_connection_that_sends_no_whole_head_is_closed_without_an_answer() {
    for sent in ["", "G", "POST /topics/pin HTTP/1.1\r\nHost: lo"] {
        let server = Server::with(|config| {
            config.server.header_timeout_ms = 50;
            config.server.idle_timeout_ms = NEVER_MS;
        })
        .await;
        let mut client = server.connect().await;
        client.send(sent).await;
        assert_eq!(client.rest().await, "", "{sent:?}");
    }
}

#[tokio::test]
async fn a_head_may_not_take_longer_on_a_kept_connection_either() {
    let server = Server::with(|config| {
        config.server.header_timeout_ms = SOON_MS;
        config.server.idle_timeout_ms = NEVER_MS;
    })
    .await;
    let mut client = server.connect().await;
    client.send(post("/topics/pin", JSON, RECORD)).await;
    assert_eq!(client.reply().await.status, 200);
    // By the time a silent connection is closed this one has idled as long, and is still there.
    assert_eq!(server.connect().await.rest().await, "");
    client.send(post("/topics/pin", JSON, RECORD)).await;
    assert_eq!(client.reply().await.status, 200);
    client.send("POST /topics/pin HTTP/1.1\r\n").await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let server = Server::with(|config| {
        config.server.header_timeout_ms = NEVER_MS;
        config.server.idle_timeout_ms = 50;
    })
    .await;
    let mut client = server.connect().await;
    client.send(post("/topics/pin", JSON, RECORD)).await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_slow_answer_is_not_an_idle_connection() {
    let server = Server::with(|config| {
        config.server.header_timeout_ms = SOON_MS;
        config.server.idle_timeout_ms = SOON_MS;
    })
    .await;
    server.log.close_gate();
    let mut client = server.connect().await;
    client.send(post("/topics/pin", JSON, RECORD)).await;
    server.log.append_at_gate().await;
    assert_eq!(server.connect().await.rest().await, "");
    server.log.open_gate();
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_cut_off() {
    let server = Server::with(|config| {
        config.server.header_timeout_ms = 50;
        config.server.idle_timeout_ms = 50;
    })
    .await;
    // Answers that soon fill what lies between the two.
    server.log.with_topic("pin", 5000);
    let requests = "GET /topics/pin HTTP/1.1\r\n\r\n".repeat(100);
    server.connect().await.send_until_cut_off(requests).await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_answered_with_408() {
    let server = Server::with(|config| config.server.body_timeout_ms = 50).await;
    let mut client = server.connect().await;
    let whole = post("/topics/pin", JSON, RECORD);
    client.send(&whole[..whole.len() - 1]).await;
    let reply = client.reply().await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (408, r#"{"error_code":408,"message":"the request body did not arrive in time (server.body_timeout_ms)"}"#)
    );
    assert_eq!(reply.headers["connection"], "close");
    assert!(server.log.topic_names().is_empty());
}

#[tokio::test]
async fn a_body_that_arrives_too_slowly_is_answered_with_408() {
    let server = Server::with(|config| {
        config.server.body_timeout_ms = NEVER_MS;
        config.server.min_rate_grace_ms = 50;
    })
    .await;
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let mut client = server.connect().await;
        let head = format!("POST /topics/pin HTTP/1.1\r\nContent-Type: {JSON}\r\n{framing}\r\n\r\n");
        // As long as bytes come at all: each buys a thousandth of a second.
        let sent = if framing.starts_with('C') { "{".to_owned() } else { "1\r\n{\r\n".to_owned() };
        client.send(head + &sent).await;
        let reply = client.reply().await;
        let message = "the request body arrives too slowly (server.min_bytes_per_second)";
        assert_eq!((reply.status, reply.body), (408, format!(r#"{{"error_code":408,"message":"{message}"}}"#)));
        assert_eq!(reply.headers["connection"], "close");
    }
    assert!(server.log.topic_names().is_empty());
}

/// Long answers, of which the client takes a few bytes whenever there are any.
#[tokio::test]
async fn a_client_that_takes_answers_too_slowly_is_cut_off() {
    let server = Server::with(|config| {
        config.server.header_timeout_ms = NEVER_MS;
        config.server.idle_timeout_ms = NEVER_MS;
        config.server.min_rate_grace_ms = 50;
        config.server.min_bytes_per_second = 1 << 40;
    })
    .await;
    server.log.with_topic("pin", 5000);
    let mut client = server.connect().await;
    client.send("GET /topics/pin HTTP/1.1\r\n\r\n".repeat(50)).await;
    client.nibble_until_cut_off().await;
}

#[tokio::test]
async fn heads_have_limits() {
    let server = Server::with(|config| {
        config.server.max_header_bytes = 16384;
        config.server.max_headers = 16;
    })
    .await;
    let many: String = (0..17).map(|i| format!("x-{i}: 1\r\n")).collect();
    for (head, status) in [
        (format!("GET /topics HTTP/1.1\r\n{many}\r\n"), 431),
        (format!("GET /topics HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(16384)), 431),
        // Longer than any buffer between the two: the rest must not destroy the answer.
        (format!("GET /topics HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(8 << 20)), 431),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(16384)), 431),
        (format!("GET /topics HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(8192)), 200),
    ] {
        assert_eq!(server.ask(&head).await.status, status, "{:.60}", head);
    }
}

#[tokio::test]
async fn further_connections_wait_while_all_are_being_answered() {
    let server = Server::with(|config| config.server.max_connections = 1).await;
    server.log.close_gate();
    let mut first = server.connect().await;
    first.send(post("/topics/pin", JSON, RECORD)).await;
    server.log.append_at_gate().await;
    let mut second = server.connect().await;
    second.send(post("/topics/pin", JSON, RECORD)).await;
    assert!(second.has_nothing());
    server.log.open_gate();
    assert_eq!(first.reply().await.status, 200);
    assert_eq!(second.reply().await.status, 200);
    // Its place was needed, and it had its answer.
    assert_eq!(first.rest().await, "");
}

#[tokio::test]
async fn those_who_only_wait_keep_nobody_out() {
    let server = Server::with(|config| {
        config.server.max_connections = 3;
        config.server.header_timeout_ms = NEVER_MS;
        config.server.idle_timeout_ms = NEVER_MS;
    })
    .await;
    let (mut silent, mut half, mut kept) = (server.connect().await, server.connect().await, server.connect().await);
    half.send("POST /topics/pin HTTP/1.1\r\n").await;
    kept.send(post("/topics/pin", JSON, RECORD)).await;
    assert_eq!(kept.reply().await.status, 200);
    // Each newcomer takes the place of whoever has waited the longest.
    let mut newcomers = Vec::new();
    for _ in 0..3 {
        let mut newcomer = server.connect().await;
        newcomer.send(post("/topics/pin", JSON, RECORD)).await;
        assert_eq!(newcomer.reply().await.status, 200);
        newcomers.push(newcomer);
    }
    for gone in [&mut silent, &mut half, &mut kept] {
        assert_eq!(gone.rest().await, "");
    }
    for newcomer in &mut newcomers {
        newcomer.send(post("/topics/pin", JSON, RECORD)).await;
        assert_eq!(newcomer.reply().await.status, 200);
    }
}

#[tokio::test]
async fn requests_may_be_pipelined() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.send(post("/topics/pin", JSON, RECORD).repeat(3)).await;
    for offset in 0..3 {
        let reply = client.reply().await;
        assert!(reply.body.contains(&format!(r#""offset":{offset},"#)), "{}", reply.body);
    }
}

#[tokio::test]
async fn an_answer_says_whether_another_can_follow_it() {
    let keys = Keys::new();
    let server = keys.server().await;
    for path in ["/topics/pin", "/nowhere", "/dev/nowhere", "/pin"] {
        let mut client = server.connect().await;
        for _ in 0..2 {
            // More than one read takes, and nobody wants it.
            client.send(post(path, JSON, "x".repeat(60_000))).await;
            assert_eq!(client.reply().await.headers.get("connection"), None, "{path}");
        }
        for rest in
            ["Content-Length: 10\r\n\r\nx", "Content-Length: 100000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"]
        {
            let mut client = server.connect().await;
            client.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{rest}")).await;
            assert_eq!(client.reply().await.headers["connection"], "close", "{path} {rest}");
            assert_eq!(client.rest().await, "", "{path} {rest}");
        }
    }
}

#[tokio::test]
async fn stopping_lets_requests_under_way_finish_and_closes_the_rest() {
    let server = Server::with(|config| config.server.drain_timeout_ms = NEVER_MS).await;
    server.log.close_gate();
    let (mut idle, mut busy) = (server.connect().await, server.connect().await);
    idle.send("GET /topics HTTP/1.1\r\n\r\n").await;
    assert_eq!(idle.reply().await.status, 200);
    busy.send(post("/topics/pin", JSON, RECORD)).await;
    server.log.append_at_gate().await;
    server.stop.cancel();
    assert_eq!(idle.rest().await, "");
    server.log.open_gate();
    let reply = busy.reply().await;
    assert_eq!((reply.status, reply.headers["connection"].as_str()), (200, "close"));
    let addr = server.addr;
    server.stopped().await;
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn stopping_waits_for_nobody_who_has_an_answer() {
    let server = Server::with(|config| {
        config.server.header_timeout_ms = NEVER_MS;
        config.server.drain_timeout_ms = NEVER_MS;
    })
    .await;
    let mut client = server.connect().await;
    // Refused without a look at the body, which came along.
    client.send(post("/topics/pin", "text/plain", RECORD)).await;
    assert_eq!(client.reply().await.status, 415);
    server.stop.cancel();
    server.stopped().await;
}

#[tokio::test]
async fn stopping_cuts_off_what_takes_too_long() {
    let server = Server::with(|config| config.server.drain_timeout_ms = 50).await;
    server.log.close_gate();
    let mut client = server.connect().await;
    client.send(post("/topics/pin", JSON, RECORD)).await;
    server.log.append_at_gate().await;
    server.stop.cancel();
    assert_eq!(client.rest().await, "");
    server.stopped().await;
}

/// A second request that hides in the first, for a proxy that counts bytes in another way,
/// must reach no handler.
#[tokio::test]
async fn no_request_hides_in_another() {
    let hidden = String::from_utf8(post("/topics/hidden", JSON, RECORD)).unwrap();
    let visible = "POST /topics/visible HTTP/1.1\r\nHost: a\r\nContent-Type: application/vnd.kafka.json.v2+json\r\n";
    let n = hidden.len();
    for (what, request) in [
        (
            "length, then chunked",
            format!("{visible}Content-Length: {n}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunked, then length",
            format!("{visible}Transfer-Encoding: chunked\r\nContent-Length: {n}\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        ("two lengths", format!("{visible}Content-Length: 0\r\nContent-Length: {n}\r\n\r\n{hidden}")),
        ("two lengths in one", format!("{visible}Content-Length: 0, {n}\r\n\r\n{hidden}")),
        ("a length with a sign", format!("{visible}Content-Length: +0\r\n\r\n{hidden}")),
        ("a length in hexadecimal", format!("{visible}Content-Length: 0x0\r\n\r\n{hidden}")),
        ("a negative length", format!("{visible}Content-Length: -1\r\n\r\n{hidden}")),
        ("an unknown encoding", format!("{visible}Transfer-Encoding: xchunked\r\n\r\n{hidden}")),
        ("chunked, but not last", format!("{visible}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}")),
        (
            "chunked with a control character",
            format!("{visible}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        ("a space before the colon", format!("{visible}Content-Length : {n}\r\n\r\n{hidden}")),
        ("a folded line", format!("{visible}X: a\r\n Content-Length: {n}\r\n\r\n{hidden}")),
        ("a negative chunk", format!("{visible}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{hidden}")),
        (
            "a chunk size that overflows",
            format!("{visible}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n{hidden}"),
        ),
        ("a chunk that ends in a bare line feed", format!("{visible}Transfer-Encoding: chunked\r\n\r\n0\n\n{hidden}")),
        (
            "a line feed in a chunk's extension",
            format!("{visible}Transfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n{hidden}"),
        ),
        ("a bare carriage return", format!("{visible}X: a\rContent-Length: 0\r\n\r\n{hidden}")),
        ("no colon", format!("{visible}Content-Length {n}\r\n\r\n{hidden}")),
        (
            "chunked in HTTP/1.0",
            format!("{}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}", visible.replace("HTTP/1.1", "HTTP/1.0")),
        ),
        ("a chunk size with junk", format!("{visible}Transfer-Encoding: chunked\r\n\r\n0g\r\n\r\n{hidden}")),
    ] {
        let server = Server::start().await;
        let mut client = server.connect().await;
        client.send(&request).await;
        let answers = client.rest().await;
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{what}: {answers}");
        assert!(answers.starts_with("HTTP/1.1 4"), "{what}: {answers}");
        assert!(server.log.topic_names().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_chunk_extension_without_end_is_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let head = "POST /topics/pin HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}1;{}", "x".repeat(1 << 20))).await;
    assert!(client.reply().await.status >= 400);
}

#[tokio::test]
async fn an_address_that_cannot_be_served_is_refused_with_advice() {
    let at = |addr: &str| {
        let mut config = Config::defaults();
        config.server.listen = addr.parse().unwrap();
        config
    };
    let (mut with_keys, mut with_tls) = (at("192.0.2.1:8082"), at("[::]:8082"));
    with_keys.auth.mode = AuthMode::Keys;
    (with_tls.server.tls_cert_file, with_tls.server.tls_key_file) = ("cert.pem".to_owned(), "key.pem".to_owned());
    for (config, missing) in
        [(at("0.0.0.0:8082"), "no authentication and no TLS"), (with_keys, "no TLS"), (with_tls, "no authentication:")]
    {
        let error = listener::bind(&config).await.unwrap_err().to_string();
        assert!(error.contains(&config.server.listen.to_string()) && error.contains(missing), "{error}");
        for advice in ["auth.mode = \"keys\"", "server.tls_cert_file", "--listen 127.0.0.1:8082"] {
            assert!(error.contains(advice), "{error}");
        }
    }
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap();
    let addr = taken.local_addr().unwrap();
    let error = listener::bind(&at(&addr.to_string())).await.unwrap_err().to_string();
    assert!(error.contains(&addr.to_string()) && error.contains("--listen 127.0.0.1:0"), "{error}");
}

/// Who finds the queue of those that wait full is not told, and tries again after a second.
#[tokio::test]
async fn a_crowd_that_connects_at_once_is_queued() {
    let mut config = Config::defaults();
    config.server.listen = "127.0.0.1:0".parse().unwrap();
    let listener = listener::bind(&config).await.unwrap();
    let most = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let n_connections = most.trim().parse::<usize>().unwrap().min(1000);
    let address = listener.local_addr().unwrap();
    // Nobody accepts them.
    let crowd = future::try_join_all((0..n_connections).map(|_| TcpStream::connect(address)));
    let queued = timeout(Duration::from_secs(30), crowd).await.expect("all are queued").unwrap();
    assert_eq!(queued.len(), n_connections);
}

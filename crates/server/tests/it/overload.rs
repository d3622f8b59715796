//! More than there is room for: what is refused is refused before it is accepted, what is
//! accepted is kept, and nobody holds the room of others by promises alone.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::task::JoinSet;

use crate::harness::{JSON, Server, post};

const RECORD: &str = r#"{"records":[{"value":1}]}"#;

/// More than one record weighs in memory beside its text.
const BODY_BYTES: usize = 400;

/// One record, padded to `BODY_BYTES`.
fn body(text: &str) -> String {
    format!(r#"{{"records":[{{"value":"{text:<0$}"}}]}}"#, BODY_BYTES - 26)
}

/// Each sends its records one by one, and again what was refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_was_not_accepted_and_what_is_accepted_is_kept() {
    const N_CLIENTS: usize = 64;
    const N_EACH: usize = 20;
    let room_for = N_CLIENTS / 8;
    let server = Server::with(|config| {
        config.ingest.max_body_bytes = BODY_BYTES;
        config.ingest.max_inflight_bytes = room_for * BODY_BYTES;
    })
    .await;
    // As many as there is room for stand at the gate, so that all others are refused.
    server.log.close_gate();
    let server = Arc::new(server);
    let n_refused = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for i in 0..N_CLIENTS {
        let (server, n_refused) = (server.clone(), n_refused.clone());
        clients.spawn(async move {
            let mut connection = server.connect().await;
            for n in 0..N_EACH {
                let body = body(&format!("{i} {n}"));
                loop {
                    connection.send(post("/topics/pin", JSON, &body)).await;
                    let reply = connection.reply().await;
                    if reply.status == 200 {
                        break;
                    }
                    assert_eq!((reply.status, reply.headers["retry-after"].as_str()), (503, "1"), "{}", reply.body);
                    n_refused.fetch_add(1, Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    for _ in 0..room_for {
        server.log.append_at_gate().await;
    }
    while n_refused.load(Relaxed) < N_CLIENTS {
        tokio::task::yield_now().await;
    }
    server.log.open_gate();
    clients.join_all().await;
    let mut values = server.log.values("pin", 0);
    assert_eq!(values.len(), N_CLIENTS * N_EACH);
    values.sort_unstable();
    values.dedup();
    assert_eq!(values.len(), N_CLIENTS * N_EACH, "a refused record was stored");
    assert_eq!(inflight_bytes(&server).await, 0);
}

#[tokio::test]
async fn a_connection_outlives_the_refusal_of_a_small_body() {
    /// More than one read takes.
    const BODY_BYTES: usize = 60_000;
    let body = |text: &str| format!(r#"{{"records":[{{"value":"{text:<0$}"}}]}}"#, BODY_BYTES - 26);
    let server = Server::with(|config| {
        config.ingest.max_body_bytes = BODY_BYTES;
        config.ingest.max_inflight_bytes = BODY_BYTES;
    })
    .await;
    server.log.close_gate();
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    first.send(post("/topics/pin", JSON, body("first"))).await;
    server.log.append_at_gate().await;
    for _ in 0..3 {
        second.send(post("/topics/pin", JSON, body("second"))).await;
        let reply = second.reply().await;
        assert_eq!((reply.status, reply.headers.get("connection")), (503, None));
    }
    server.log.open_gate();
    assert_eq!(first.reply().await.status, 200);
    second.send(post("/topics/pin", JSON, body("second"))).await;
    assert_eq!(second.reply().await.status, 200);
}

#[tokio::test]
async fn announcing_much_and_sending_little_takes_no_room_from_others() {
    let server = Server::with(|config| {
        config.ingest.max_body_bytes = 16 << 20;
        config.ingest.max_inflight_bytes = 16 << 20;
    })
    .await;
    let head = format!("POST /topics/pin HTTP/1.1\r\nContent-Type: {JSON}\r\nContent-Length: {}\r\n\r\n", 15 << 20);
    let mut liars = Vec::new();
    for _ in 0..8 {
        let mut liar = server.connect().await;
        liar.send(head.clone() + RECORD).await;
        liars.push(liar);
    }
    let large = format!(r#"{{"records":[{{"value":"{}"}}]}}"#, "x".repeat(1_000_000));
    for body in [RECORD, &large] {
        let reply = server.produce("pin", body).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    assert!(liars.iter().all(|liar| liar.has_nothing()));
}

/// What is read of a body, and held on to, is paid for until all is done, at doors that keep no record of it, too.
#[tokio::test]
async fn a_body_is_paid_for_until_it_is_answered() {
    let cluster = "/v3/clusters/00000000-0000-0000-0000-000000000000";
    let batch = r#"{"entries":[{"id":"1","value":{"type":"JSON","data":1}}]}"#;
    for (path, media_type, body) in [
        ("/topics/pin".to_owned(), JSON, RECORD),
        (format!("{cluster}/topics/pin/records:batch"), "application/json", batch),
        ("/consumers/readers".to_owned(), "application/vnd.kafka.v2+json", r#"{"name":"one"}"#),
    ] {
        let server = Server::start().await;
        server.log.with_topic("pin", 1);
        server.log.close_gate();
        let mut client = server.connect().await;
        client.send(post(&path, media_type, format!("{body:<10000}"))).await;
        server.log.append_at_gate().await;
        assert!(inflight_bytes(&server).await >= 10_000, "{path}");
        server.log.open_gate();
        assert!(client.reply().await.status < 300, "{path}");
        assert_eq!(inflight_bytes(&server).await, 0, "{path}");
    }
}

async fn inflight_bytes(server: &Server) -> usize {
    let metrics = server.get("/metrics").await.body;
    let held = metrics.lines().find_map(|line| line.strip_prefix("corkboard_ingest_inflight_bytes "));
    held.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_large_body_is_paid_for_as_it_grows() {
    let server = Server::with(|config| {
        config.ingest.max_body_bytes = 1 << 20;
        config.ingest.max_inflight_bytes = (1 << 20) + 1000;
    })
    .await;
    let body = format!(r#"{{"records":[{{"value":"{}"}}]}}"#, "x".repeat(900_000));
    let whole = post("/topics/pin", JSON, body);
    let mut large = server.connect().await;
    large.send(&whole[..800_000]).await;
    while inflight_bytes(&server).await < 700_000 {}
    // What has come of it leaves no room for a second one, and enough for a small one.
    let mut second = server.connect().await;
    second.send(format!("POST /topics/pin HTTP/1.1\r\nContent-Type: {JSON}\r\nContent-Length: 700000\r\n\r\n")).await;
    let reply = second.reply().await;
    assert_eq!((reply.status, reply.headers["connection"].as_str()), (503, "close"));
    assert_eq!(server.produce("pin", RECORD).await.status, 200);
    large.send(&whole[800_000..]).await;
    assert_eq!(large.reply().await.status, 200);
}

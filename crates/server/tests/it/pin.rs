//! The door that takes one pin at a time, beside what FastAPI and Pydantic answered to the same bodies
//! (`tests/reference/fastapi_pin.py`).

use serde::Deserialize;
use serde_json::Value;

use crate::harness::Server;

const TOPIC: &str = "Pinterest_data";

#[derive(Deserialize)]
struct Case {
    content_type: Option<String>,
    body: String,
    status: u16,
    answer: String,
    stored: Option<String>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("fixtures/fastapi_pin.json")).unwrap()
}

fn right() -> String {
    cases().swap_remove(0).body
}

#[tokio::test]
async fn every_body_is_answered_and_stored_as_by_the_original_program() {
    let server = Server::start().await;
    server.log.with_topic(TOPIC, 1);
    let (mut n_stored, mut misfits) = (0, Vec::new());
    for case in cases() {
        let content_type = case.content_type.iter().map(|name| format!("Content-Type: {name}\r\n")).collect::<String>();
        let (body, length) = (&case.body, case.body.len());
        let request =
            format!("POST /pin/ HTTP/1.1\r\nHost: localhost\r\n{content_type}Content-Length: {length}\r\n\r\n{body}");
        let reply = server.ask(request).await;
        assert_eq!(reply.headers["content-type"], "application/json");
        let is_as_expected = if let Some(stored) = case.stored {
            n_stored += 1;
            reply.body == case.answer && server.log.values(TOPIC, 0).last() == Some(&stored)
        } else {
            let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            json(&reply.body) == json(&case.answer)
        };
        if reply.status != case.status || !is_as_expected || server.log.values(TOPIC, 0).len() != n_stored {
            misfits.push(format!("{body}\n  {} {}\n  {} {}", case.status, case.answer, reply.status, reply.body));
        }
    }
    assert!(misfits.is_empty(), "{}", misfits.join("\n"));
    assert!(n_stored > 20);
}

#[tokio::test]
async fn other_paths_and_methods_are_answered_as_starlette_does() {
    let server = Server::start().await;
    let reply = server.post("/pin?x=1", "application/json", right()).await;
    assert_eq!((reply.status, reply.headers["location"].as_str()), (307, "/pin/?x=1"));
    let reply = server.get("/pin/").await;
    assert_eq!((reply.status, reply.body.as_str()), (405, r#"{"detail":"Method Not Allowed"}"#));
    assert_eq!(reply.headers["allow"], "POST");
    assert!(server.log.topic_names().is_empty());
}

#[tokio::test]
async fn limits_are_those_of_all_doors() {
    let server = Server::with(|config| {
        config.ingest.max_record_bytes = 100;
        config.ingest.max_body_bytes = 1000;
    })
    .await;
    let reply = server.post("/pin/", "application/json", right()).await;
    assert_eq!(reply.status, 413);
    assert!(reply.body.contains("ingest.max_record_bytes"), "{}", reply.body);
    let reply = server.post("/pin/", "application/json", format!("{{\"a\": \"{}", "x".repeat(900))).await;
    assert!(reply.status == 422 && reply.body.len() < 500, "{}", reply.body);
    let foreign = format!(
        "POST /pin/ HTTP/1.1\r\nHost: localhost\r\nOrigin: https://elsewhere.example\r\nContent-Length: {}\r\n\r\n{}",
        right().len(),
        right()
    );
    let reply = server.ask(foreign).await;
    assert_eq!(reply.status, 403, "{}", reply.body);
    let reply = server.post("/pin/", "application/json", vec![b' '; 1001]).await;
    assert_eq!(reply.status, 413);
    assert!(server.log.topic_names().is_empty());
}

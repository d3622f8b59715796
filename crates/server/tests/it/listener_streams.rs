//! Connections of HTTP/2 keep the limits of the others.

use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use crate::harness::{JSON, Server};

const RECORD: &str = r#"{"records":[{"value":1}]}"#;
/// No test waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough that only a failing test meets it.
const NEVER_MS: u64 = 3_600_000;

struct Client {
    sender: SendRequest<Body>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Client {
    async fn of(server: &Server) -> Self {
        let socket = TokioIo::new(TcpStream::connect(server.addr).await.unwrap());
        let (sender, connection) = http2::handshake(TokioExecutor::new(), socket).await.unwrap();
        Self { sender, connection: tokio::spawn(connection) }
    }

    fn send(&mut self, request: Request<Body>) -> JoinHandle<hyper::Result<Response<Incoming>>> {
        tokio::spawn(self.sender.send_request(request))
    }

    async fn status(&mut self, request: Request<Body>) -> u16 {
        answered(self.send(request)).await.status().as_u16()
    }

    async fn closed(self) {
        let _ = timeout(PATIENCE, self.connection).await.expect("the server closes the connection");
    }
}

async fn answered(answer: JoinHandle<hyper::Result<Response<Incoming>>>) -> Response<Incoming> {
    timeout(PATIENCE, answer).await.expect("the server answers").unwrap().unwrap()
}

fn produce() -> Request<Body> {
    Request::post("http://localhost/topics/pin").header("content-type", JSON).body(Body::from(RECORD)).unwrap()
}

fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://localhost{path}")).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn requests_of_one_connection_are_answered_beside_each_other() {
    let server = Server::start().await;
    let mut client = Client::of(&server).await;
    server.log.close_gate();
    let waiting: Vec<_> = (0..5).map(|_| client.send(produce())).collect();
    for _ in 0..5 {
        server.log.append_at_gate().await;
    }
    assert_eq!(client.status(get("/topics")).await, 200);
    server.log.open_gate();
    for answer in waiting {
        assert_eq!(answered(answer).await.status(), 200);
    }
    assert_eq!(server.log.records("pin", 0).len(), 5);
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_and_one_with_is_not() {
    let server = Server::with(|config| {
        config.server.header_timeout_ms = 50;
        config.server.idle_timeout_ms = 50;
    })
    .await;
    // Nothing after the preface.
    Client::of(&server).await.closed().await;
    let mut busy = Client::of(&server).await;
    server.log.close_gate();
    let waiting = busy.send(produce());
    server.log.append_at_gate().await;
    let mut idle = Client::of(&server).await;
    assert_eq!(idle.status(get("/topics")).await, 200);
    idle.closed().await;
    server.log.open_gate();
    assert_eq!(answered(waiting).await.status(), 200);
    busy.closed().await;
}

#[tokio::test]
async fn a_client_that_takes_no_answer_is_cut_off() {
    let server = Server::with(|config| {
        config.server.header_timeout_ms = NEVER_MS;
        config.server.idle_timeout_ms = 50;
    })
    .await;
    server.log.with_topic("pin", 50_000);
    let mut client = Client::of(&server).await;
    // More than the windows of the two take.
    let answers: Vec<_> = (0..4).map(|_| client.send(get("/topics/pin"))).collect();
    for answer in answers {
        let answer = answered(answer).await;
        let mut body = answer.into_body();
        // Looked at and not read.
        let _ = timeout(PATIENCE, body.frame()).await.expect("a first piece");
        std::mem::forget(body);
    }
    client.closed().await;
}

#[tokio::test]
async fn a_long_answer_arrives_whole() {
    let server = Server::start().await;
    server.log.with_topic("pin", 50_000);
    let mut client = Client::of(&server).await;
    let answers: Vec<_> = (0..3).map(|_| client.send(get("/topics/pin"))).collect();
    let mut lengths = Vec::new();
    for answer in answers {
        let answer = answered(answer).await;
        let announced: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), announced);
        lengths.push(body.len());
    }
    assert!(lengths[0] > 1 << 20 && lengths.iter().all(|n| *n == lengths[0]), "{lengths:?}");
}

#[tokio::test]
async fn stopping_lets_streams_under_way_finish() {
    let server = Server::with(|config| config.server.drain_timeout_ms = NEVER_MS).await;
    let (mut idle, mut busy) = (Client::of(&server).await, Client::of(&server).await);
    assert_eq!(idle.status(get("/topics")).await, 200);
    server.log.close_gate();
    let waiting = busy.send(produce());
    server.log.append_at_gate().await;
    server.stop.cancel();
    idle.closed().await;
    server.log.open_gate();
    assert_eq!(answered(waiting).await.status(), 200);
    busy.closed().await;
    server.stopped().await;
}

#[tokio::test]
async fn who_is_being_answered_keeps_the_place_and_who_waits_gives_way() {
    let server = Server::with(|config| {
        config.server.max_connections = 1;
        config.server.idle_timeout_ms = NEVER_MS;
    })
    .await;
    server.log.close_gate();
    let mut first = Client::of(&server).await;
    let waiting = first.send(produce());
    server.log.append_at_gate().await;
    let second = {
        let addr = server.addr;
        tokio::spawn(async move { TcpStream::connect(addr).await.unwrap() })
    };
    server.log.open_gate();
    assert_eq!(answered(waiting).await.status(), 200);
    drop(second.await.unwrap());
    first.closed().await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_answered_with_408() {
    let server = Server::with(|config| config.server.body_timeout_ms = 50).await;
    let mut client = Client::of(&server).await;
    let never = futures::stream::pending::<Result<axum::body::Bytes, std::convert::Infallible>>();
    let request = Request::post("http://localhost/topics/pin").header("content-type", JSON);
    assert_eq!(client.status(request.body(Body::from_stream(never)).unwrap()).await, 408);
    // Only that stream is over.
    assert_eq!(client.status(produce()).await, 200);
}

//! A server over a log in memory, and a client that speaks Kinesis to it: over HTTP/1.1 or HTTP/2,
//! by JSON or by bytes that a test has written itself.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use event_log::MemoryLog;
use futures::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::{Stop, config::Config};
use serde_json::{Value, json};
use server::{listener, router};
use tokio::{net::TcpStream, time::timeout};

use crate::harness::services;

/// No test waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where authentication is off, a signature must be there and may be any.
pub(crate) const SIGNATURE: &str = "AWS4-HMAC-SHA256 Credential=AKID/20261121/us-east-1/kinesis/aws4_request, \
     SignedHeaders=host, Signature=00";

pub(crate) const AMZ_JSON: &str = "application/x-amz-json-1.1";
pub(crate) const AMZ_CBOR: &str = "application/x-amz-cbor-1.1";

pub(crate) struct Kinesis {
    pub(crate) addr: SocketAddr,
    pub(crate) stop: Stop,
}

impl Drop for Kinesis {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Http {
    One,
    Two,
}

impl Kinesis {
    pub(crate) async fn start() -> Self {
        Self::over(Arc::new(MemoryLog::new()), |_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::over(Arc::new(MemoryLog::new()), change).await
    }

    pub(crate) async fn over(log: Arc<MemoryLog>, change: impl FnOnce(&mut Config)) -> Self {
        let (mut config, stop) = (Config::defaults(), Stop::new());
        change(&mut config);
        let router = router::router(services(log, config.clone()), stop.clone());
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        let port = listener::bind(&config).await.unwrap();
        let addr = port.local_addr().unwrap();
        tokio::spawn({
            let stop = stop.clone();
            async move { listener::serve(port, router, &config.server, stop).await }
        });
        Self { addr, stop }
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(&self, http: Http, request: Request<Body>) -> Response<Incoming> {
        let socket = TokioIo::new(TcpStream::connect(self.addr).await.unwrap());
        let answering = async {
            match http {
                Http::One => {
                    let (mut sender, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
                    tokio::spawn(connection);
                    sender.send_request(request).await.unwrap()
                }
                Http::Two => {
                    let (mut sender, connection) =
                        hyper::client::conn::http2::handshake(TokioExecutor::new(), socket).await.unwrap();
                    tokio::spawn(connection);
                    sender.send_request(request).await.unwrap()
                }
            }
        };
        timeout(PATIENCE, answering).await.expect("the server answers")
    }

    pub(crate) fn request(&self, action: &str, media_type: &str, body: impl Into<Body>) -> Request<Body> {
        Request::post(format!("http://{}/", self.addr))
            .header("host", self.addr.to_string())
            .header("content-type", media_type)
            .header("x-amz-target", format!("Kinesis_20131202.{action}"))
            .header("authorization", SIGNATURE)
            .body(body.into())
            .unwrap()
    }

    /// The answer in whole.
    pub(crate) async fn post(
        &self,
        action: &str,
        media_type: &str,
        body: impl Into<Body>,
    ) -> (StatusCode, HeaderMap, Bytes) {
        whole(self.send(Http::One, self.request(action, media_type, body)).await).await
    }

    /// By JSON; an empty answer is null.
    pub(crate) async fn try_ask(&self, action: &str, body: &Value) -> (u16, Value) {
        let (status, _, body) = self.post(action, AMZ_JSON, body.to_string()).await;
        let value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        (status.as_u16(), value)
    }

    pub(crate) async fn ask(&self, action: &str, body: Value) -> Value {
        let (status, answer) = self.try_ask(action, &body).await;
        assert_eq!(status, 200, "{action} {body}: {answer}");
        answer
    }

    /// The name of the exception and its message.
    pub(crate) async fn refusal(&self, action: &str, body: Value) -> (String, String) {
        let (status, answer) = self.try_ask(action, &body).await;
        assert_eq!(status, 400, "{action} {body}: {answer}");
        let message = answer["message"].as_str().or(answer["Message"].as_str()).unwrap_or_default();
        (answer["__type"].as_str().unwrap().to_owned(), message.to_owned())
    }

    pub(crate) async fn create(&self, name: &str, n_shards: u32) {
        self.ask("CreateStream", json!({"StreamName": name, "ShardCount": n_shards})).await;
    }

    /// Returns the shard and the sequence number.
    pub(crate) async fn put(&self, name: &str, key: &str, data: &str) -> (String, String) {
        let answer =
            self.ask("PutRecord", json!({"StreamName": name, "PartitionKey": key, "Data": base64(data)})).await;
        (text(&answer["ShardId"]), text(&answer["SequenceNumber"]))
    }

    pub(crate) async fn iterator(&self, name: &str, shard: &str, more: Value) -> String {
        let mut request = json!({"StreamName": name, "ShardId": shard});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        text(&self.ask("GetShardIterator", request).await["ShardIterator"])
    }

    pub(crate) async fn trim_horizon(&self, name: &str, shard: &str) -> String {
        self.iterator(name, shard, json!({"ShardIteratorType": "TRIM_HORIZON"})).await
    }

    /// The data from an iterator on, and the last answer: at the tip, or at the end of the shard.
    pub(crate) async fn read_on(&self, mut iterator: String) -> (Vec<String>, Value) {
        let mut data = Vec::new();
        loop {
            let answer = self.ask("GetRecords", json!({"ShardIterator": iterator})).await;
            data.extend(records(&answer));
            match answer["NextShardIterator"].as_str() {
                Some(next) if answer["MillisBehindLatest"] != 0 => iterator = next.to_owned(),
                _ => return (data, answer),
            }
        }
    }

    pub(crate) async fn shards(&self, name: &str) -> Vec<Value> {
        self.ask("ListShards", json!({"StreamName": name})).await["Shards"].as_array().unwrap().clone()
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is a text")).to_owned()
}

pub(crate) fn base64(data: &str) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(data)
}

fn decoded(data: &Value) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    String::from_utf8(BASE64_STANDARD.decode(data.as_str().unwrap()).unwrap()).unwrap()
}

/// The data of the records of an answer or an event.
pub(crate) fn records(answer: &Value) -> Vec<String> {
    answer["Records"].as_array().unwrap().iter().map(|record| decoded(&record["Data"])).collect()
}

pub(crate) async fn whole(response: Response<Incoming>) -> (StatusCode, HeaderMap, Bytes) {
    let (head, body) = response.into_parts();
    let body = timeout(PATIENCE, body.collect()).await.expect("the answer ends").unwrap().to_bytes();
    (head.status, head.headers, body)
}

/// The answer's body as text.
pub(crate) async fn whole_of(response: Response<Incoming>) -> String {
    String::from_utf8(whole(response).await.2.to_vec()).unwrap()
}

/// The messages of an event stream.
pub(crate) struct Events {
    body: http_body_util::BodyDataStream<Incoming>,
    received: Vec<u8>,
}

impl Events {
    pub(crate) fn of(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/vnd.amazon.eventstream");
        Self { body: response.into_body().into_data_stream(), received: Vec::new() }
    }

    /// The next one's headers and payload; None at the end. Checksums must be right.
    pub(crate) async fn next(&mut self) -> Option<(Vec<(String, String)>, Bytes)> {
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap());
        while self.received.len() < 12 || self.received.len() < number(&self.received) as usize {
            match timeout(PATIENCE, self.body.next()).await.expect("an event comes") {
                Some(data) => self.received.extend_from_slice(&data.unwrap()),
                None => {
                    assert!(self.received.is_empty(), "the answer ends within a message");
                    return None;
                }
            }
        }
        let rest = self.received.split_off(number(&self.received) as usize);
        let message = std::mem::replace(&mut self.received, rest);
        assert_eq!(number(&message[8..]), crc32fast::hash(&message[..8]));
        let end = message.len() - 4;
        assert_eq!(number(&message[end..]), crc32fast::hash(&message[..end]));
        let (mut headers, payload) = message[12..end].split_at(number(&message[4..]) as usize);
        let mut take = |n: usize| {
            let (taken, rest) = headers.split_at(n);
            headers = rest;
            taken
        };
        let mut found = Vec::new();
        while found.len() < 3 {
            let n_name = take(1)[0].into();
            let name = String::from_utf8(take(n_name).to_vec()).unwrap();
            assert_eq!(take(1), [7]);
            let n_value = take(2);
            let n_value = u16::from_be_bytes([n_value[0], n_value[1]]).into();
            found.push((name, String::from_utf8(take(n_value).to_vec()).unwrap()));
        }
        Some((found, Bytes::copy_from_slice(payload)))
    }

    /// The payload of the next event of this type, by JSON.
    pub(crate) async fn event(&mut self, kind: &str) -> Value {
        let (headers, payload) = self.next().await.expect("an event");
        let expected = [(":message-type", "event"), (":event-type", kind), (":content-type", AMZ_JSON)];
        assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        serde_json::from_slice(&payload).unwrap()
    }
}

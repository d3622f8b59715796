//! The emulator against a server that writes down what arrives and answers as it is told.

#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use corkboard::emulate::{
    EmulateArgs, Live, Summary, api_key::ApiKey, draws::DrawOrder, run, tables::Table, wire::Format,
};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use model::Stop;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

#[derive(Clone, Debug)]
struct Arrived {
    method: String,
    path: String,
    content_type: String,
    api_key: Option<String>,
    body: Value,
    /// Which connection brought it, counted from 0.
    connection: usize,
}

impl Arrived {
    /// `pin`, `geo` or `user`, from the topic.
    fn table(&self) -> &str {
        self.path.rsplit('.').next().unwrap()
    }

    /// Keys of the rows.
    fn rows(&self) -> Vec<u64> {
        let records = self.body["records"].as_array().unwrap();
        records.iter().map(|r| key(&r["value"])).collect()
    }
}

fn key(row: &Value) -> u64 {
    row.get("index").or_else(|| row.get("ind")).and_then(Value::as_u64).unwrap()
}

type Answers = dyn Fn(usize, &Arrived) -> Response<Full<Bytes>> + Send + Sync;

/// Answers the n-th request, counted from 0, with `answers(n, request)`.
struct Server {
    address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(answers: impl Fn(usize, &Arrived) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let accepting = tokio::spawn(accept(listener, arrived.clone(), Arc::new(answers)));
        Self { address, arrived, accepting }
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    fn options(&self) -> EmulateArgs {
        EmulateArgs { backoff_ms: 0, ..EmulateArgs::new(&format!("http://{}/test", self.address), "0a3") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, arrived: Arc<Mutex<Vec<Arrived>>>, answers: Arc<Answers>) {
    for connection in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        let (arrived, answers) = (arrived.clone(), answers.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (arrived, answers) = (arrived.clone(), answers.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let request = Arrived {
                    method: head.method.to_string(),
                    path: head.uri.path().to_owned(),
                    content_type: head.headers["content-type"].to_str().unwrap().to_owned(),
                    api_key: head.headers.get("x-api-key").map(|key| key.to_str().unwrap().to_owned()),
                    body: serde_json::from_slice(&body).unwrap(),
                    connection,
                };
                let n = {
                    let mut arrived = arrived.lock().unwrap();
                    arrived.push(request.clone());
                    arrived.len() - 1
                };
                Ok::<_, Infallible>(answers(n, &request))
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn answer(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

/// As Kafka REST answers when it took everything.
fn taken(request: &Arrived) -> Response<Full<Bytes>> {
    let n = request.body["records"].as_array().map_or(1, Vec::len);
    let receipts = vec![r#"{"partition":0,"offset":1,"error_code":null,"error":null}"#; n].join(",");
    answer(200, format!(r#"{{"offsets":[{receipts}],"key_schema_id":null,"value_schema_id":null}}"#))
}

async fn finish(options: EmulateArgs) -> (Summary, Arc<Live>) {
    let live = Arc::new(Live::default());
    let summary = run(options, Stop::new(), live.clone()).await.unwrap();
    (summary, live)
}

#[tokio::test]
async fn one_connection_posts_pin_geo_user_strictly_in_the_seeds_order() {
    let server = Server::start(|_, request| taken(request)).await;
    let (summary, live) = finish(EmulateArgs { count: 20, ..server.options() }).await;

    let arrived = server.arrived();
    let seen: Vec<(&str, Vec<u64>)> = arrived.iter().map(|a| (a.table(), a.rows())).collect();
    let drawn = [
        7528, 2863, 5730, 8304, 8731, 1313, 4315, 10794, 5494, 5069, 2923, 3089, 6063, 3454, 7554, 6145, 10625, 2959,
        9875, 2418,
    ];
    let expected: Vec<(&str, Vec<u64>)> =
        drawn.iter().flat_map(|row| ["pin", "geo", "user"].map(|table| (table, vec![*row]))).collect();
    assert_eq!(seen, expected);
    assert!(arrived.iter().all(|a| a.connection == 0 && a.method == "POST"));
    assert_eq!(arrived[1].path, "/test/topics/0a3.geo");
    assert_eq!(arrived[0].content_type, "application/vnd.kafka.json.v2+json");
    assert_eq!((summary.posts, summary.records, summary.requests, summary.retries), (20, 60, 60, 0));
    assert_eq!(summary.n_errors(), 0);
    assert_eq!(live.counters().posts, 20);
    assert!(live.take_notices().is_empty());
}

#[tokio::test]
async fn many_connections_post_each_drawn_row_once() {
    let server = Server::start(|_, request| taken(request)).await;
    let options =
        EmulateArgs { count: 200, connections: 8, batch: 7, draws: DrawOrder::Sequential, ..server.options() };
    let (summary, _) = finish(options).await;

    for table in ["pin", "geo", "user"] {
        let requests = server.arrived().into_iter().filter(|a| a.table() == table);
        let mut rows: Vec<u64> = requests.flat_map(|a| a.rows()).collect();
        rows.sort_unstable();
        assert_eq!(rows, (0..200).collect::<Vec<_>>(), "{table}");
    }
    assert_eq!((summary.posts, summary.records, summary.requests), (200, 600, 3 * 29));
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_nothing_is_lost() {
    let server = Server::start(|n, request| match n {
        0 => Response::builder().status(503).header("retry-after", "0").body(Full::default()).unwrap(),
        1 => answer(429, ""),
        4 => Response::builder().status(500).header("connection", "close").body(Full::default()).unwrap(),
        _ => taken(request),
    })
    .await;
    let (summary, live) = finish(EmulateArgs { count: 2, ..server.options() }).await;

    let tables: Vec<String> = server.arrived().iter().map(|a| a.table().to_owned()).collect();
    assert_eq!(tables, ["pin", "pin", "pin", "geo", "user", "user", "pin", "geo", "user"]);
    assert_eq!((summary.posts, summary.records, summary.requests, summary.retries), (2, 6, 9, 3));
    assert_eq!(summary.n_errors(), 0);
    assert_eq!(live.counters().retries, 3);
}

#[tokio::test]
async fn retry_after_goes_before_the_backoff() {
    let server = Server::start(|n, request| match n {
        0 => Response::builder().status(503).header("retry-after", "0").body(Full::default()).unwrap(),
        _ => taken(request),
    })
    .await;
    // The backoff alone would last longer than any test may.
    let options = EmulateArgs { count: 1, backoff_ms: 3_600_000, ..server.options() };
    let (summary, _) = finish(options).await;
    assert_eq!((summary.posts, summary.retries), (1, 1));
}

#[tokio::test]
async fn only_the_refused_records_of_a_request_are_sent_again() {
    let server = Server::start(|n, request| match n {
        0 => answer(
            200,
            r#"{"offsets":[{"partition":0,"offset":1,"error_code":null,"error":null},
                {"partition":null,"offset":null,"error_code":50003,"error":"later"},
                {"partition":null,"offset":null,"error_code":50002,"error":"never"}]}"#,
        ),
        _ => taken(request),
    })
    .await;
    let options = EmulateArgs { count: 3, batch: 3, tables: Some(vec![Table::Pin]), ..server.options() };
    let (summary, live) = finish(options).await;

    let rows: VecDeque<Vec<u64>> = server.arrived().iter().map(Arrived::rows).collect();
    assert_eq!(rows, [vec![7528, 2863, 5730], vec![2863]]);
    assert_eq!((summary.posts, summary.records, summary.retries), (0, 2, 1));
    assert_eq!(summary.errors, [("error code 50002".to_owned(), 1)].into());
    assert_eq!(live.take_notices(), ["error code 50002: never"]);
}

#[tokio::test]
async fn a_final_refusal_is_counted_and_shown_once() {
    let server = Server::start(|n, request| match n {
        0..=2 => answer(422, r#"{"error_code":422,"message":"Unrecognized field: ind"}"#),
        _ => taken(request),
    })
    .await;
    let (summary, live) = finish(EmulateArgs { count: 2, ..server.options() }).await;
    assert_eq!((summary.posts, summary.records, summary.requests, summary.retries), (1, 3, 6, 0));
    assert_eq!(summary.errors, [("HTTP 422".to_owned(), 3)].into());
    assert_eq!(live.take_notices(), ["HTTP 422: Unrecognized field: ind"]);
}

#[tokio::test]
async fn retries_have_a_limit() {
    let server = Server::start(|_, _| answer(503, r#"{"message":"full"}"#)).await;
    let options = EmulateArgs { count: 1, retries: 2, tables: Some(vec![Table::Geo]), ..server.options() };
    let (summary, live) = finish(options).await;
    assert_eq!((summary.records, summary.requests, summary.retries), (0, 3, 2));
    assert_eq!(summary.errors, [("HTTP 503".to_owned(), 1)].into());
    assert_eq!(live.take_notices(), ["HTTP 503: full"]);
}

#[tokio::test]
async fn a_stop_finishes_the_post_under_way_and_begins_no_other() {
    let stop = Stop::new();
    let stopper = stop.clone();
    let server = Server::start(move |n, request| {
        if n == 9 {
            stopper.cancel();
        }
        taken(request)
    })
    .await;
    let live = Arc::new(Live::default());
    let summary = run(server.options(), stop, live).await.unwrap();

    // The tenth request is the fourth post's pin: its geo and user still follow.
    let tables: Vec<String> = server.arrived().iter().map(|a| a.table().to_owned()).collect();
    assert_eq!(tables, ["pin", "geo", "user"].repeat(4));
    assert_eq!((summary.posts, summary.records, summary.n_errors()), (4, 12, 0));
}

#[tokio::test]
async fn a_stop_ends_a_wait_for_a_later_post() {
    let stop = Stop::new();
    let stopper = stop.clone();
    let server = Server::start(move |n, request| {
        if n == 2 {
            stopper.cancel();
        }
        taken(request)
    })
    .await;
    // The second post would be due in an hour and more.
    let options = EmulateArgs { rate: 0.0001, ..server.options() };
    let summary = run(options, stop, Arc::new(Live::default())).await.unwrap();
    assert_eq!((summary.posts, summary.records), (1, 3));
}

#[tokio::test]
async fn connections_that_the_server_closes_are_opened_again() {
    let server = Server::start(|_, request| {
        let mut response = taken(request);
        response.headers_mut().insert("connection", "close".parse().unwrap());
        response
    })
    .await;
    let (summary, _) = finish(EmulateArgs { count: 3, ..server.options() }).await;
    assert_eq!((summary.posts, summary.requests, summary.retries), (3, 9, 0));
    assert_eq!(server.arrived().iter().map(|a| a.connection).collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
}

/// Answers one request per connection and closes it without a word, as an idle server does.
async fn answer_once_per_connection(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while stream.read_line(&mut line).await.unwrap() > 2 {
            length = line.strip_prefix("content-length: ").map_or(length, |n| n.trim().parse().unwrap());
            line.clear();
        }
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    }
}

#[tokio::test]
async fn connections_that_end_without_a_word_lose_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(answer_once_per_connection(listener));
    let (summary, _) = finish(EmulateArgs { count: 20, backoff_ms: 0, ..EmulateArgs::new(&url, "0a3") }).await;
    assert_eq!((summary.posts, summary.records, summary.n_errors()), (20, 60, 0));
    server.abort();
}

#[tokio::test]
async fn where_nothing_listens_the_error_says_what_to_do() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let options =
        EmulateArgs { retries: 1, backoff_ms: 0, count: 5, ..EmulateArgs::new(&format!("http://{address}"), "0a3") };
    let live = Arc::new(Live::default());
    let error = run(options, Stop::new(), live.clone()).await.unwrap_err().to_string();
    assert_eq!(error, format!("nothing listens on {address}: start `corkboard up` first"));
    let expected = format!("nothing listens on {address}: start `corkboard up` first (trying up to 1 more times)");
    assert_eq!(live.take_notices(), [expected]);
    assert_eq!(live.counters().requests, 2);
}

#[tokio::test]
async fn every_format_reaches_its_own_door() {
    for (format, tables, expected) in [
        (Format::KinesisGateway, None, "PUT /test/streams/streaming-0a3-pin/record application/json"),
        (Format::Fastapi, Some(vec![Table::Pin]), "POST /test/pin/ application/json"),
    ] {
        let server =
            Server::start(|_, _| answer(200, r#"{"SequenceNumber":"1","ShardId":"shardId-000000000000"}"#)).await;
        let (summary, _) = finish(EmulateArgs { count: 1, format, tables, ..server.options() }).await;
        let first = &server.arrived()[0];
        assert_eq!(format!("{} {} {}", first.method, first.path, first.content_type), expected);
        let row = if format == Format::Fastapi { &first.body } else { &first.body["Data"] };
        assert_eq!(key(row), 7_528);
        assert_eq!((summary.posts, summary.n_errors()), (1, 0));
    }
}

#[tokio::test]
async fn a_key_comes_with_every_request_and_never_in_the_open() {
    let server = Server::start(|_, request| taken(request)).await;
    let api_key = Some(ApiKey::new("CORKA.canary").unwrap());
    let options = EmulateArgs { count: 2, api_key: api_key.clone(), ..server.options() };
    assert!(!format!("{options:?}").contains("canary"));
    let (summary, _) = finish(options).await;
    assert_eq!((summary.posts, server.arrived().len()), (2, 6));
    assert!(server.arrived().iter().all(|request| request.api_key.as_deref() == Some("CORKA.canary")));
    finish(EmulateArgs { count: 1, ..server.options() }).await;
    assert!(server.arrived()[6..].iter().all(|request| request.api_key.is_none()));

    let options = EmulateArgs { count: 1, api_key, ..EmulateArgs::new("http://192.0.2.1", "0a3") };
    let error = run(options, Stop::new(), Arc::new(Live::default())).await.unwrap_err().to_string();
    assert!(error.contains("https://") && error.contains("CORKBOARD_API_KEY") && !error.contains("canary"), "{error}");
}

#[tokio::test]
async fn options_that_contradict_each_other_are_refused_before_anything_is_sent() {
    let server = Server::start(|_, request| taken(request)).await;
    for options in [
        EmulateArgs { pace: corkboard::emulate::Pace::Seeds, rate: 5.0, ..server.options() },
        EmulateArgs { rate: -1.0, ..server.options() },
        EmulateArgs { url: "ftp://127.0.0.1".to_owned(), ..server.options() },
        EmulateArgs { url: "127.0.0.1:8082".to_owned(), ..server.options() },
        EmulateArgs { format: Format::Fastapi, batch: 2, ..server.options() },
        EmulateArgs { user_id: "a b".to_owned(), ..server.options() },
    ] {
        assert!(run(options.clone(), Stop::new(), Arc::new(Live::default())).await.is_err(), "{options:?}");
    }
    assert!(server.arrived().is_empty());
}

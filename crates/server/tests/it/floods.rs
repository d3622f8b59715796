//! HTTP/2 by hand, as no client library sends it: floods of frames that cost their sender nothing, and
//! requests that would be two for someone else. The connection ends, or goes nowhere; others are served.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::Server;

/// No test waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);
const NEVER_MS: u64 = 3_600_000;
const RECORD: &str = r#"{"records":[{"value":1}]}"#;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PROTOCOL_ERROR: u8 = 1;
const ENHANCE_YOUR_CALM: u8 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Literal fields, without an index and without Huffman's code. Names and values are short.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn head(method: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let first = [(":method", method), (":scheme", "http"), (":path", "/topics/pin"), (":authority", "localhost")];
    fields(&[&first[..], more].concat())
}

struct Peer(TcpStream);

impl Peer {
    async fn of(server: &Server) -> Self {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut peer = Self(stream);
        assert!(peer.send(&frame(SETTINGS, 0, 0, &[])).await);
        peer
    }

    /// Whether the connection takes it.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        timeout(PATIENCE, self.0.write_all(bytes)).await.expect("the server reads or closes").is_ok()
    }

    /// Kind, flags, stream and payload; None at the end.
    async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut begin = [0; 9];
        let reading = async {
            self.0.read_exact(&mut begin).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, begin[0], begin[1], begin[2]]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([begin[5], begin[6], begin[7], begin[8]]);
            Some((begin[3], begin[4], stream, payload))
        };
        timeout(PATIENCE, reading).await.expect("the server answers or closes")
    }

    /// Kinds and flags of what comes up to the answer to a ping: all that was sent before is seen by then.
    async fn until_pong(&mut self) -> Vec<(u8, u8)> {
        assert!(self.send(&frame(PING, 0, 0, &[0; 8])).await);
        let mut seen = Vec::new();
        loop {
            match self.next().await.expect("the connection goes on") {
                (PING, ..) => return seen,
                (kind, flags, ..) => seen.push((kind, flags)),
            }
        }
    }

    /// The code with which the server ends the connection, if it says one, or the stream.
    async fn code(mut self, kind: u8) -> Option<u8> {
        while let Some((found, _, _, payload)) = self.next().await {
            if found == kind && (kind != GOAWAY || payload[7] != 0) {
                return payload.get(if kind == GOAWAY { 7 } else { 3 }).copied();
            }
        }
        None
    }

    /// Sends the same over and over, and reads what comes meanwhile; returns how many bytes were taken.
    async fn flood(self, bytes: &[u8]) -> usize {
        let (mut reading, mut writing) = self.0.into_split();
        let drain = tokio::spawn(async move {
            let mut buffer = [0; 65536];
            while reading.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
        });
        let mut n_bytes = 0;
        let sending = async {
            while writing.write_all(bytes).await.is_ok() {
                n_bytes += bytes.len();
            }
        };
        timeout(PATIENCE, sending).await.expect("the server ends the connection");
        drain.abort();
        n_bytes
    }
}

async fn serves_others(server: &Server) {
    let began = Instant::now();
    assert_eq!(server.produce("others", RECORD).await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// CVE-2023-44487: streams that are given up as soon as they begin.
#[tokio::test]
async fn streams_that_are_given_up_at_once_end_the_connection() {
    let server = Server::start().await;
    let block = head("POST", &[("content-type", "application/json"), ("content-length", "26")]);
    let begin = |stream: u32| frame(HEADERS, END_HEADERS, stream, &block);
    let give_up = |stream: u32| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    // Before the server has looked at any of them.
    let mut peer = Peer::of(&server).await;
    let many: Vec<u8> = (0..100).flat_map(|i| [begin(2 * i + 1), give_up(2 * i + 1)].concat()).collect();
    peer.send(&many).await;
    assert_eq!(peer.code(GOAWAY).await, Some(ENHANCE_YOUR_CALM));
    // Each of them once the server has begun with it, and is waiting for its body.
    let mut peer = Peer::of(&server).await;
    let mut n_streams = 0;
    'flood: while n_streams < 3000 {
        let stream = 2 * n_streams + 1;
        peer.send(&[begin(stream), frame(PING, 0, 0, &[0; 8])].concat()).await;
        loop {
            match peer.next().await {
                Some((PING, 1, ..)) => break,
                Some((GOAWAY, ..)) | None => break 'flood,
                Some(_) => {}
            }
        }
        peer.send(&give_up(stream)).await;
        n_streams += 1;
    }
    assert!((900..3000).contains(&n_streams), "{n_streams} streams were taken");
    serves_others(&server).await;
    assert_eq!(server.log.topic_names(), ["others"]);
}

/// CVE-2024-27316: a head that never ends, with fields and without.
#[tokio::test]
async fn a_head_without_end_ends_the_connection() {
    let server = Server::start().await;
    for piece in [fields(&[("x", "0123456789")]).repeat(500), Vec::new()] {
        let mut peer = Peer::of(&server).await;
        assert!(peer.send(&frame(HEADERS, END_STREAM, 1, &head("GET", &[]))).await);
        let more = frame(CONTINUATION, 0, 1, &piece);
        let n_bytes = peer.flood(&more).await;
        assert!(n_bytes < 128 << 20, "{n_bytes} bytes of one head were taken");
    }
    serves_others(&server).await;
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_no_request() {
    let server = Server::with(|config| config.server.max_header_bytes = 16384).await;
    let mut peer = Peer::of(&server).await;
    let value = "v".repeat(120);
    let many: Vec<(String, &str)> = (0..200).map(|i| (format!("x-{i}"), value.as_str())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let block = head("GET", &many);
    let (first, rest) = block.split_at(16000);
    assert!(peer.send(&frame(HEADERS, END_STREAM, 1, first)).await);
    assert!(peer.send(&frame(CONTINUATION, END_HEADERS, 1, rest)).await);
    loop {
        match peer.next().await {
            Some((HEADERS, _, 1, block)) => {
                // 431 has no index of its own: it stands there as it is, by Huffman's code or not.
                assert!(!block.starts_with(&[0x88]), "it was answered with 200");
                break;
            }
            Some((RST_STREAM | GOAWAY, ..)) | None => break,
            Some(_) => {}
        }
    }
    serves_others(&server).await;
}

/// What keeps a connection busy without a request is no reason to keep it.
#[tokio::test]
async fn frames_that_ask_for_nothing_hold_no_place() {
    let server = Server::with(|config| {
        config.server.header_timeout_ms = 300;
        config.server.idle_timeout_ms = 300;
        config.server.body_timeout_ms = NEVER_MS;
    })
    .await;
    for flood in [
        frame(PING, 0, 0, &[7; 8]),
        frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]),
        frame(8, 0, 0, &1_u32.to_be_bytes()),
        frame(2, 0, 9, &[0, 0, 0, 1, 9]),
        frame(0xbb, 0, 0, &[0; 64]),
    ] {
        Peer::of(&server).await.flood(&flood.repeat(20)).await;
    }
    serves_others(&server).await;
}

/// A body of frames without a byte is a body that does not arrive.
#[tokio::test]
async fn a_body_of_empty_frames_is_too_slow() {
    let server = Server::with(|config| {
        config.server.min_rate_grace_ms = 100;
        config.server.body_timeout_ms = NEVER_MS;
        config.server.header_timeout_ms = 300;
        config.server.idle_timeout_ms = 300;
    })
    .await;
    let mut peer = Peer::of(&server).await;
    let head = head("POST", &[("content-type", "application/json"), ("content-length", "26")]);
    assert!(peer.send(&frame(HEADERS, END_HEADERS, 1, &head)).await);
    peer.flood(&frame(DATA, 0, 1, &[]).repeat(20)).await;
    serves_others(&server).await;
    assert_eq!(server.log.topic_names(), ["others"]);
}

#[tokio::test]
async fn a_window_that_stays_closed_is_a_reader_that_takes_nothing() {
    let server = Server::with(|config| {
        config.server.header_timeout_ms = NEVER_MS;
        config.server.idle_timeout_ms = 200;
        config.server.min_rate_grace_ms = 200;
    })
    .await;
    let mut peer = Peer::of(&server).await;
    // The initial window of streams is nothing.
    assert!(peer.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await);
    assert!(peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET", &[]))).await);
    while peer.next().await.is_some() {}
    serves_others(&server).await;
}

/// Some clients take an answer for lost that comes, with a reset, while they send a body that nobody reads.
#[tokio::test]
async fn an_answer_waits_a_moment_for_a_body_that_nobody_reads() {
    let server = Server::start().await;
    let mut peer = Peer::of(&server).await;
    let head = head("POST", &[("content-type", "text/html"), ("content-length", "1")]);
    // How long a moment is on a busy machine, nobody knows: one try has to succeed.
    for stream in (1..40).step_by(2) {
        assert!(peer.send(&frame(HEADERS, END_HEADERS, stream, &head)).await);
        let mut seen = peer.until_pong().await;
        assert!(peer.send(&frame(DATA, END_STREAM, stream, b"x")).await);
        let is_last = |(kind, flags): &(u8, u8)| [DATA, HEADERS].contains(kind) && flags & END_STREAM != 0;
        while !seen.iter().any(is_last) {
            let (kind, flags, ..) = peer.next().await.expect("the connection goes on");
            seen.push((kind, flags));
        }
        seen.extend(peer.until_pong().await);
        if !seen.iter().any(|(kind, _)| *kind == RST_STREAM) {
            return;
        }
    }
    panic!("each answer came with a reset");
}

/// What a proxy would turn into two requests, or into one of another length.
#[tokio::test]
async fn no_request_hides_in_another_of_http_2() {
    for (what, more, body) in [
        ("transfer-encoding", vec![("transfer-encoding", "chunked")], RECORD.to_owned()),
        ("connection", vec![("connection", "keep-alive")], RECORD.to_owned()),
        ("upgrade", vec![("upgrade", "h2c")], RECORD.to_owned()),
        ("a shorter length", vec![("content-length", "5")], RECORD.to_owned()),
        ("a longer length", vec![("content-length", "500")], RECORD.to_owned()),
        ("two lengths", vec![("content-length", "25"), ("content-length", "5")], RECORD.to_owned()),
        ("a length with a sign", vec![("content-length", "+25")], RECORD.to_owned()),
        ("a line break in a value", vec![("x", "a\r\nContent-Length: 0")], RECORD.to_owned()),
        ("a line break in a name", vec![("x\r\ny", "a")], RECORD.to_owned()),
        ("a name in capitals", vec![("X-A", "a")], RECORD.to_owned()),
        ("a second path", vec![(":path", "/topics/hidden")], RECORD.to_owned()),
        ("an unknown pseudo field", vec![(":path2", "/topics/hidden")], RECORD.to_owned()),
    ] {
        let server = Server::start().await;
        let mut peer = Peer::of(&server).await;
        let block = head("POST", &[&[("content-type", "application/json")], &more[..]].concat());
        let request = [frame(HEADERS, END_HEADERS, 1, &block), frame(DATA, END_STREAM, 1, body.as_bytes())].concat();
        peer.send(&request).await;
        let ended = loop {
            match peer.next().await {
                Some((HEADERS, _, 1, block)) => break !block.starts_with(&[0x88]),
                Some((RST_STREAM, _, 1, code)) => break code[3] == PROTOCOL_ERROR,
                Some((GOAWAY, ..)) | None => break true,
                Some(_) => {}
            }
        };
        assert!(ended, "{what} was answered as if nothing were wrong");
        assert!(server.log.topic_names().is_empty(), "{what}");
    }
}

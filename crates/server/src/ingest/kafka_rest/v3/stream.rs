//! `POST …/records`: JSON objects one after the other, a receipt for each as soon as its record is
//! on stable storage. What has arrived is a stretch: stored with one append to each partition, and
//! its receipts are one piece of the answer. Nothing more is read until they were taken, so that
//! memory is bounded by the largest object and a stretch.
//!
//! An object whose content is wrong gets its receipt and the stream goes on. After what is no JSON
//! object, or is too large, nothing that follows could be trusted: the stream ends with a receipt,
//! as it does when the server stops.
//!
//! With a key (`Idempotency-Key`) the objects are one request: they are stored once all have arrived.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    response::Response,
};
use bytes::{Buf, Bytes, BytesMut};
use futures::{FutureExt, StreamExt, stream};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame};
use model::Timestamp;
use tokio::{
    task::yield_now,
    time::{Instant, timeout_at},
};

use super::{
    PLAIN_JSON,
    batch::Receipted,
    check_media_type,
    entry::{self, Entry, RECEIPT_BYTES, Receipts},
    said,
};
use crate::{
    error::KafkaError,
    ingest::{
        Doors, Permit,
        append::Addressed,
        body::is_plain,
        idempotency::{Door, Once},
        json::plain_len,
        kafka_rest::json_response,
        topics::Topic,
    },
};

/// So much is collected before it is stored, if it is there already, in so many pieces at most: who
/// sends without a pause waits for no more of it.
const STRETCH_BYTES: usize = 1 << 20;
const STRETCH_PIECES: usize = 64;
/// Of these so many at most are stored at once; and what one weighs meanwhile beside its bytes.
const STRETCH_OBJECTS: usize = 1000;
const OBJECT_BYTES: usize =
    size_of::<Bytes>() + size_of::<Result<Entry<'_>, KafkaError>>() + size_of::<Addressed>() + RECEIPT_BYTES;
const SEPARATOR: &str = "\r\n";

pub(super) async fn produce(
    State(doors): State<Arc<Doors>>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    match Producing::begin(doors.clone(), path, request).await {
        Ok(Begun::Whole(receipts)) => json_response(PLAIN_JSON, receipts),
        Ok(Begun::Streaming(mut producing)) => {
            let first = if producing.has_all() { producing.next_receipts().await } else { None };
            if producing.is_done() {
                return json_response(PLAIN_JSON, first.unwrap_or_default());
            }
            let rest = stream::unfold(producing, |mut producing| async {
                let receipts = producing.next_receipts().await?;
                Some((receipts, producing))
            });
            let receipts = stream::iter(first).chain(rest).map(|receipts| Ok::<_, Infallible>(Bytes::from(receipts)));
            json_response(PLAIN_JSON, Body::from_stream(receipts))
        }
        Err(error) => {
            doors.services.metrics.refused(error.reason);
            said(Err(error))
        }
    }
}

enum Begun {
    /// The receipts of a request with a key.
    Whole(String),
    Streaming(Producing),
}

/// A stream under way.
struct Producing {
    doors: Arc<Doors>,
    cluster: String,
    topic: Arc<Topic>,
    body: Body,
    ends_at: Instant,
    objects: Objects,
    permit: Permit,
    /// How the body ended, once it did.
    end: Option<Result<(), KafkaError>>,
    /// What is wrong was said.
    has_failed: bool,
}

impl Producing {
    /// What can be said before anything is stored has a status of its own.
    async fn begin(
        doors: Arc<Doors>,
        path: Result<Path<(String, String)>, PathRejection>,
        request: Request,
    ) -> Result<Begun, KafkaError> {
        let Path((cluster, topic)) = path.map_err(|_| KafkaError::not_found())?;
        let (mut head, body) = request.into_parts();
        doors.check_origin(&mut head).await?;
        check_media_type(&head.headers)?;
        if !is_plain(&head.headers) {
            return Err(KafkaError::unsupported_media_type());
        }
        doors.check_cluster(&cluster).await?;
        let topic = doors.topic_to_fill(&topic).await?;
        if let Some(once) = Once::of(&head.headers, Door::Kafka, Timestamp::now())? {
            let (body, mut permit) = doors.bodies.read(&head.headers, body).await?;
            return Ok(Begun::Whole(doors.produce_once(&cluster, &topic, &body, &mut permit, &once).await?));
        }
        let objects = Objects::new(doors.services.config.ingest.max_body_bytes);
        let permit = doors.bodies.permit().ok_or_else(|| KafkaError::overloaded().closing())?;
        let ends_at = Instant::now() + Duration::from_millis(doors.services.config.ingest.max_stream_ms);
        let (end, has_failed) = (None, false);
        let mut producing = Self { doors, cluster, topic, body, ends_at, objects, permit, end, has_failed };
        while producing.objects.is_blank() {
            match producing.end {
                None => producing.receive().await,
                Some(Ok(())) => return Err(KafkaError::payload_error("Request body is empty. Data is required.")),
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(Begun::Streaming(producing))
    }

    fn has_all(&self) -> bool {
        matches!(self.end, Some(Ok(())))
    }

    fn is_done(&self) -> bool {
        self.has_failed || self.has_all() && self.objects.is_blank()
    }

    /// The receipts for a stretch; None when that was all.
    async fn next_receipts(&mut self) -> Option<String> {
        while !self.is_done() {
            let (objects, problem) = self.objects.take_whole(STRETCH_OBJECTS);
            let mut receipts = String::with_capacity(objects.len() * RECEIPT_BYTES);
            let mut problem = self.store(&objects, &mut receipts).await.or(problem);
            if problem.is_none() && objects.is_empty() {
                problem = match self.end.clone() {
                    None => {
                        self.receive().await;
                        continue;
                    }
                    Some(Ok(())) => Some(KafkaError::bad_request("the body ends within an object")),
                    Some(Err(error)) => Some(error),
                };
            }
            self.give_room_back();
            if let Some(problem) = problem {
                self.has_failed = true;
                self.doors.services.metrics.refused(problem.reason);
                entry::write_failure(&mut receipts, None, &problem);
                receipts.push_str(SEPARATOR);
            }
            return Some(receipts);
        }
        None
    }

    /// Of what was stored; what has begun to arrive stays paid for.
    fn give_room_back(&mut self) {
        if let Some(mut permit) = self.doors.bodies.permit()
            && permit.grow(self.objects.len())
        {
            self.permit = permit;
        }
    }

    /// Stores the objects' records, and writes a receipt for each. What it returns ends the stream.
    async fn store(&mut self, objects: &[Bytes], out: &mut String) -> Option<KafkaError> {
        if !self.permit.grow(objects.len() * OBJECT_BYTES) {
            return Some(KafkaError::overloaded());
        }
        let (mut entries, mut end) = (Vec::with_capacity(objects.len()), None);
        let now = Timestamp::now();
        for object in objects {
            let read = entry::read(object, false, &self.doors.services.config.ingest, now);
            match read {
                Err(e) if e.status == http::StatusCode::PAYLOAD_TOO_LARGE || !is_json(object) => {
                    end = Some(e);
                    break;
                }
                read => entries.push(read),
            }
        }
        let mut receipts = Receipts::new(&self.cluster, &self.topic.name);
        let tell = |_, receipt: Receipted<'_>| {
            receipt.write(out, &mut receipts, None);
            out.push_str(SEPARATOR);
        };
        self.doors.store_entries(&self.topic, entries, None, tell).await.err().or(end)
    }

    /// Waits until more has come, or the body ends, and takes with it what comes at the same time.
    async fn receive(&mut self) {
        // Space between objects is let go of: a client may send nothing else, to stay connected.
        self.objects.skip_blank();
        if self.objects.len() == 0 {
            self.give_room_back();
        }
        let idle = Duration::from_millis(self.doors.services.config.server.body_timeout_ms);
        let deadline = self.ends_at.min(Instant::now() + idle);
        let stop = self.doors.stop.clone();
        let frame = stop.run_until_cancelled(timeout_at(deadline, self.body.frame())).await;
        let frame = frame.ok_or_else(KafkaError::stopping);
        let mut frame = match frame.and_then(|frame| frame.map_err(|_| KafkaError::body_timeout())) {
            Ok(frame) => frame,
            Err(error) => {
                self.end = Some(Err(error));
                return;
            }
        };
        for n_pieces in 1.. {
            self.end = self.take(frame);
            if self.end.is_some() || self.objects.len() >= STRETCH_BYTES || n_pieces == STRETCH_PIECES {
                return;
            }
            let Some(next) = self.frame_at_hand().await else { return };
            frame = next;
        }
    }

    /// Adds a piece of the body; what it returns is the end.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, axum::Error>>) -> Option<Result<(), KafkaError>> {
        let received = match frame {
            None => return Some(Ok(())),
            Some(Ok(received)) => received,
            Some(Err(e)) => return Some(Err(KafkaError::bad_request(format!("the request body broke off: {e}")))),
        };
        if let Ok(data) = received.into_data() {
            if !self.permit.grow(data.len()) {
                return Some(Err(KafkaError::overloaded()));
            }
            self.objects.add(&data);
        }
        self.body.is_end_stream().then_some(Ok(()))
    }

    /// What is next in the body if it is there, or lies in the socket: the connection looks there only
    /// while nobody else runs in its task.
    async fn frame_at_hand(&mut self) -> Option<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(frame) = self.body.frame().now_or_never() {
            return Some(frame);
        }
        yield_now().await;
        self.body.frame().now_or_never()
    }
}

impl Doors {
    /// A stream with a key: stored as a whole, or not at all if something in it is no object.
    async fn produce_once(
        &self,
        cluster: &str,
        topic: &Topic,
        body: &Bytes,
        permit: &mut Permit,
        once: &Once,
    ) -> Result<String, KafkaError> {
        let config = &self.services.config.ingest;
        let mut objects = Objects::new(config.max_body_bytes);
        // Objects keep a copy of the body.
        if !permit.grow(body.len()) {
            return Err(KafkaError::overloaded());
        }
        objects.add(body);
        let (whole, problem) = objects.take_whole(usize::MAX);
        if let Some(problem) = problem {
            return Err(problem);
        }
        if !objects.is_blank() {
            return Err(KafkaError::bad_request("the body ends within an object"));
        }
        if whole.is_empty() {
            return Err(KafkaError::payload_error("Request body is empty. Data is required."));
        }
        let limit = config.max_records_per_request;
        if whole.len() > limit {
            let message = format!("the request has more than {limit} records (ingest.max_records_per_request)");
            return Err(KafkaError::too_large(message));
        }
        if !permit.grow(once.overhead_bytes(whole.len())) {
            return Err(KafkaError::overloaded());
        }
        let read = whole.iter().map(|object| match entry::read(object, false, config, once.now()) {
            Err(e) if !is_json(object) => Err(e),
            read => Ok(read),
        });
        let entries = read.collect::<Result<_, KafkaError>>()?;
        let (mut out, mut receipts) = (String::new(), Receipts::new(cluster, &topic.name));
        let tell = |_, receipt: Receipted<'_>| {
            receipt.write(&mut out, &mut receipts, None);
            out.push_str(SEPARATOR);
        };
        self.store_entries(topic, entries, Some(once), tell).await?;
        Ok(out)
    }
}

fn is_json(object: &Bytes) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(object).is_ok()
}

/// Finds the objects in what arrives: where each ends, without reading it twice.
struct Objects {
    buffer: BytesMut,
    max_bytes: usize,
    /// Of the object at the beginning of the buffer: how far it was looked at, and what was found.
    at: usize,
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Objects {
    fn new(max_bytes: usize) -> Self {
        Self { buffer: BytesMut::new(), max_bytes, at: 0, depth: 0, in_string: false, is_escaped: false }
    }

    fn len(&self) -> usize {
        self.buffer.len()
    }

    fn is_blank(&self) -> bool {
        self.buffer.iter().all(u8::is_ascii_whitespace)
    }

    fn add(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// Takes away what stands before the next object.
    fn skip_blank(&mut self) {
        if self.depth == 0 {
            let n_blank = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.buffer.advance(n_blank);
        }
    }

    /// The objects that are there whole, `limit` of them at most, and what is wrong behind them.
    fn take_whole(&mut self, limit: usize) -> (Vec<Bytes>, Option<KafkaError>) {
        let mut objects = Vec::new();
        while objects.len() < limit {
            match self.next() {
                Ok(Some(object)) => objects.push(object),
                Ok(None) => break,
                Err(e) => return (objects, Some(e)),
            }
        }
        (objects, None)
    }

    fn next(&mut self) -> Result<Option<Bytes>, KafkaError> {
        self.skip_blank();
        if self.depth == 0 {
            match self.buffer.first() {
                None => return Ok(None),
                Some(b'{') => (self.at, self.depth) = (1, 1),
                Some(_) => return Err(KafkaError::bad_request("an object was expected: {\"value\": …}")),
            }
        }
        loop {
            if self.in_string && !self.is_escaped {
                self.at += plain_len(&self.buffer[self.at..]);
            }
            let Some(byte) = self.buffer.get(self.at) else { break };
            self.at += 1;
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_string => self.is_escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
            if self.depth == 0 {
                let object = self.buffer.split_to(self.at).freeze();
                return self.check_size(object.len()).map(|()| Some(object));
            }
        }
        self.check_size(self.buffer.len()).map(|()| None)
    }

    fn check_size(&self, n_bytes: usize) -> Result<(), KafkaError> {
        let limit = self.max_bytes;
        if n_bytes <= limit {
            return Ok(());
        }
        Err(KafkaError::too_large(format!("an object is larger than {limit} bytes (ingest.max_body_bytes)")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn objects_are_found_however_they_arrive(
            texts in prop::collection::vec(any::<String>(), 0..6),
            pieces in prop::collection::vec(1..20_usize, 1..40),
        ) {
            let sent: Vec<String> = texts
                .iter()
                .map(|text| serde_json::json!({ "value": { "data": [text, { "a\"}": text }] } }).to_string())
                .collect();
            let body = sent.join(" \n");
            let (mut objects, mut found, mut rest) = (Objects::new(1 << 20), Vec::new(), body.as_bytes());
            for n in pieces.iter().cycle() {
                let (piece, later) = rest.split_at((*n).min(rest.len()));
                objects.add(piece);
                let (whole, problem) = objects.take_whole(usize::MAX);
                prop_assert!(problem.is_none());
                found.extend(whole);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(objects.is_blank());
            prop_assert_eq!(found, sent.into_iter().map(Bytes::from).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_no_object_or_too_large_is_said_after_what_was_whole() {
        for (text, n_whole, code) in [
            ("{}{} 1", 2, Some(400)),
            ("[{}]", 0, Some(400)),
            ("{\"a\":1}{\"a\":\"xxxxxxxxxxxx", 1, Some(413)),
            ("{\"a\":\"xxxxxxxxxxxxxxxxx\"}", 0, Some(413)),
            ("{\"a\":\"}\\\"\"", 0, None),
            (" \r\n", 0, None),
        ] {
            let mut objects = Objects::new(16);
            objects.add(text.as_bytes());
            let (whole, problem) = objects.take_whole(usize::MAX);
            assert_eq!((whole.len(), problem.map(|p| p.code)), (n_whole, code), "{text}");
        }
    }
}

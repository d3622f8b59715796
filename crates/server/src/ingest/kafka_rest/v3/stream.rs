//! `POST …/records`: JSON objects one after the other, a receipt for each as soon as its record is
//! on stable storage. What has arrived is stored with one append; nothing more is read until its
//! receipts were taken, so that memory is bounded by the largest object and a piece of the body.
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
use futures::{FutureExt, stream};
use http_body_util::BodyExt;
use model::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::{PLAIN_JSON, batch::Receipted, check_media_type, entry, said};
use crate::{
    error::KafkaError,
    ingest::{
        Doors, Permit,
        body::is_plain,
        idempotency::{Door, Once},
        kafka_rest::json_response,
        topics::Topic,
    },
};

/// So much is collected before it is stored, if it is there already.
const COLLECT_BYTES: usize = 1 << 20;
const SEPARATOR: &str = "\r\n";

pub(super) async fn produce(
    State(doors): State<Arc<Doors>>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    match Producing::begin(doors.clone(), path, request).await {
        Ok(Begun::Whole(receipts)) => json_response(PLAIN_JSON, receipts),
        Ok(Begun::Streaming(producing)) => {
            let receipts = stream::unfold(producing, |mut producing| async {
                let receipts = producing.next_receipts().await?;
                Some((Ok::<_, Infallible>(Bytes::from(receipts)), producing))
            });
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
    has_ended: bool,
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
        let cluster = doors.cluster(&cluster, doors.base(&head)).await?.id;
        let topic = doors.topic_to_fill(&topic).await?;
        if let Some(once) = Once::of(&head.headers, Door::Kafka, Timestamp::now())? {
            let (body, mut permit) = doors.bodies.read(&head.headers, body).await?.into_parts();
            return Ok(Begun::Whole(doors.produce_once(&cluster, &topic, &body, &mut permit, &once).await?));
        }
        let objects = Objects::new(doors.services.config.ingest.max_body_bytes);
        let permit = doors.bodies.permit().ok_or_else(KafkaError::overloaded)?;
        let ends_at = Instant::now() + Duration::from_millis(doors.services.config.ingest.max_stream_ms);
        let mut producing = Self { doors, cluster, topic, body, ends_at, objects, permit, has_ended: false };
        while producing.objects.is_blank() {
            if !producing.receive().await? {
                return Err(KafkaError::payload_error("Request body is empty. Data is required."));
            }
        }
        Ok(Begun::Streaming(producing))
    }

    /// The receipts for what has arrived; None when that was all.
    async fn next_receipts(&mut self) -> Option<String> {
        while !self.has_ended {
            let (objects, problem) = self.objects.take_whole();
            let mut receipts = String::new();
            let mut problem = self.store(&objects, &mut receipts).await.or(problem);
            if problem.is_none() && objects.is_empty() {
                problem = match self.receive().await {
                    Ok(true) => continue,
                    Ok(false) if self.objects.is_blank() => return None,
                    Ok(false) => Some(KafkaError::bad_request("the body ends within an object")),
                    Err(e) => Some(e),
                };
            }
            self.give_room_back();
            if let Some(problem) = problem {
                self.has_ended = true;
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
        let (mut entries, mut end) = (Vec::with_capacity(objects.len()), None);
        for object in objects {
            let read = entry::read(object, false, &self.doors.services.config.ingest, Timestamp::now());
            match read {
                Err(e) if e.status == http::StatusCode::PAYLOAD_TOO_LARGE || !is_json(object) => {
                    end = Some(e);
                    break;
                }
                read => entries.push(read),
            }
        }
        let tell = |_, receipt: Receipted<'_>| {
            receipt.write(out, &self.cluster, &self.topic);
            out.push_str(SEPARATOR);
        };
        self.doors.store_entries(&self.topic, entries, None, tell).await.err().or(end)
    }

    /// Whether more has come; what comes at the same time is taken with it.
    async fn receive(&mut self) -> Result<bool, KafkaError> {
        // Space between objects is let go of: a client may send nothing else, to stay connected.
        self.objects.skip_blank();
        if self.objects.len() == 0 {
            self.give_room_back();
        }
        let idle = Duration::from_millis(self.doors.services.config.server.body_timeout_ms);
        let deadline = self.ends_at.min(Instant::now() + idle);
        let stop = self.doors.stop.clone();
        let frame = stop.run_until_cancelled(timeout_at(deadline, self.body.frame())).await;
        let mut frame = frame.ok_or_else(KafkaError::stopping)?.map_err(|_| KafkaError::body_timeout())?;
        loop {
            let Some(received) = frame else { return Ok(false) };
            let received = received.map_err(|e| KafkaError::bad_request(format!("the request body broke off: {e}")))?;
            if let Ok(data) = received.into_data() {
                if !self.permit.grow(data.len()) {
                    return Err(KafkaError::overloaded());
                }
                self.objects.add(&data);
            }
            if self.objects.len() >= COLLECT_BYTES {
                return Ok(true);
            }
            // The end of the body is met again by the next question.
            match self.body.frame().now_or_never() {
                Some(Some(more)) => frame = Some(more),
                Some(None) | None => return Ok(true),
            }
        }
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
        let (whole, problem) = objects.take_whole();
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
        let read = |object: &Bytes| match entry::read(object, false, config, once.now()) {
            Err(e) if !is_json(object) => Err(e),
            read => Ok(read),
        };
        let entries = whole.iter().map(read).collect::<Result<_, KafkaError>>()?;
        let mut receipts = String::new();
        let tell = |_, receipt: Receipted<'_>| {
            receipt.write(&mut receipts, cluster, topic);
            receipts.push_str(SEPARATOR);
        };
        self.store_entries(topic, entries, Some(once), tell).await?;
        Ok(receipts)
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

    /// All objects that are there whole, and what is wrong behind them.
    fn take_whole(&mut self) -> (Vec<Bytes>, Option<KafkaError>) {
        let mut objects = Vec::new();
        loop {
            match self.next() {
                Ok(Some(object)) => objects.push(object),
                Ok(None) => return (objects, None),
                Err(e) => return (objects, Some(e)),
            }
        }
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
        while let Some(byte) = self.buffer.get(self.at) {
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
                let (whole, problem) = objects.take_whole();
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
            let (whole, problem) = objects.take_whole();
            assert_eq!((whole.len(), problem.map(|p| p.code)), (n_whole, code), "{text}");
        }
    }
}

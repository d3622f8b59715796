//! The door of Confluent's Kafka REST Proxy, version 2: produce and metadata, with its media
//! types, texts and codes.
//!
//! Beside it, unless `ingest.strict` is set: plain `application/json`, and `headers` and
//! `timestamp` per record. An answer of 200 means that at least one record is stored; Confluent
//! says 200 even when none is, and producers that look no further would lose them.

mod consumers;
mod links;
mod media;
mod metadata;
mod records;
mod v3;

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderValue, header};
use model::Timestamp;

use super::{
    Doors,
    append::{self, Addressed, Appended},
    idempotency::{Door, Once},
};
use crate::error::{KafkaError, record_error_code};
use media::Format;

pub(super) fn routes() -> Router<Arc<Doors>> {
    Router::new()
        .route("/brokers", get(metadata::brokers))
        .route("/topics", get(metadata::topics))
        .route("/topics/{topic}", get(metadata::topic).post(produce))
        .route("/topics/{topic}/partitions", get(metadata::partitions))
        .route("/topics/{topic}/partitions/{partition}", get(metadata::partition).post(produce_to_partition))
        .route("/topics/{topic}/partitions/{partition}/offsets", get(metadata::offsets))
        .merge(consumers::routes())
        .merge(v3::routes())
}

async fn produce(
    State(doors): State<Arc<Doors>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    match path {
        Ok(Path(topic)) => doors.produce(&topic, None, request).await,
        Err(_) => KafkaError::not_found().into_response(),
    }
}

async fn produce_to_partition(
    State(doors): State<Arc<Doors>>,
    path: Result<Path<(String, i64)>, PathRejection>,
    request: Request,
) -> Response {
    match path {
        Ok(Path((topic, partition))) => doors.produce(&topic, Some(partition), request).await,
        Err(_) => KafkaError::not_found().into_response(),
    }
}

impl Doors {
    async fn produce(&self, topic: &str, partition: Option<i64>, request: Request) -> Response {
        let answer_type = media::answer_type(request.headers());
        match self.try_produce(topic, partition, request).await {
            Ok(answer) => json_response(answer_type, answer),
            Err(error) => {
                self.services.metrics.refused(error.reason);
                refusal(answer_type, error)
            }
        }
    }

    async fn try_produce(&self, topic: &str, partition: Option<i64>, request: Request) -> Result<String, KafkaError> {
        let config = &self.services.config.ingest;
        let (mut head, body) = request.into_parts();
        self.check_origin(&mut head).await?;
        let format = Format::of(&head.headers, config.strict).ok_or_else(KafkaError::unsupported_media_type)?;
        // Paid for until the records are in the log.
        let mut body = self.bodies.read(&head.headers, body).await?;
        let mut records = records::read(&body, format, config)?;
        let once = Once::of(&head.headers, Door::Kafka, Timestamp::now())?;
        let marks_bytes = once.as_ref().map_or(0, |once| once.overhead_bytes(records.len()));
        // Many tiny records weigh more than their text.
        let more_bytes = append::overhead_bytes(&records).saturating_sub(body.len()) + marks_bytes;
        if !body.grow(more_bytes) {
            return Err(KafkaError::overloaded());
        }
        let highest = address(&mut records, partition)?;
        Ok(receipts(&self.store(topic, highest, records, once.as_ref()).await?))
    }
}

/// A record's own partition goes before that of the path. Returns the highest that is named, used
/// or not: it has to exist.
fn address(records: &mut [Addressed], of_path: Option<i64>) -> Result<Option<u32>, KafkaError> {
    let of_path = of_path.map(|p| u32::try_from(p).map_err(|_| KafkaError::partition_not_found())).transpose()?;
    let mut highest = of_path;
    for record in records {
        highest = highest.max(record.partition);
        record.partition = record.partition.or(of_path);
    }
    Ok(highest)
}

fn receipts(appended: &Appended) -> String {
    /// About as long as one receipt with an offset of ten digits.
    const RECEIPT_BYTES: usize = 64;
    let mut out = String::with_capacity((appended.n_records() + 2) * RECEIPT_BYTES);
    out.push_str(r#"{"offsets":["#);
    for (i, outcome) in appended.outcomes().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let written = match outcome {
            Ok((partition, offset)) => {
                write!(out, r#"{{"partition":{partition},"offset":{offset},"error_code":null,"error":null}}"#)
            }
            Err(error) => {
                let code = record_error_code(error);
                let text = serde_json::Value::from(error.to_string());
                write!(out, r#"{{"partition":null,"offset":null,"error_code":{code},"error":{text}}}"#)
            }
        };
        written.expect("writing to a string cannot fail");
    }
    out.push_str(r#"],"key_schema_id":null,"value_schema_id":null}"#);
    out
}

fn json_response(media_type: HeaderValue, json: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, media_type)], json.into()).into_response()
}

/// The answer to a GET, in the media type that was asked for.
fn answered(headers: &HeaderMap, answer: Result<String, KafkaError>) -> Response {
    let media_type = media::answer_type(headers);
    match answer {
        Ok(json) => json_response(media_type, json),
        Err(error) => refusal(media_type, error),
    }
}

fn refusal(media_type: HeaderValue, error: KafkaError) -> Response {
    let mut response = error.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

//! `/streams…`: the resources that people make in an API Gateway before Kinesis, each with the
//! mapping template that stands behind it (`templates`). A stage may stand before them all.

mod templates;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, RawQuery, Request, State, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use model::Timestamp;

use super::{
    Doors,
    idempotency::{Door, Once},
    kinesis::Call,
};
use crate::{auth::Caller, error::KafkaError, gateway};
use templates::Unreadable;

type Stream = Result<Path<String>, PathRejection>;

pub(super) fn routes() -> Router<Arc<Doors>> {
    Router::new()
        .route("/streams", get(list))
        .route("/streams/{stream}", get(describe).post(create).delete(delete))
        .route("/streams/{stream}/record", put(put_record))
        .route("/streams/{stream}/records", get(get_records).put(put_records))
        .route("/streams/{stream}/sharditerator", get(shard_iterator))
}

async fn list(State(doors): State<Arc<Doors>>, request: Request) -> Response {
    doors.answer_stream(None, request, |_, _| Ok(templates::list())).await
}

async fn describe(State(doors): State<Arc<Doors>>, stream: Stream, request: Request) -> Response {
    doors.answer_stream(Some(stream), request, |stream, _| Ok(templates::describe(stream))).await
}

async fn delete(State(doors): State<Arc<Doors>>, stream: Stream, request: Request) -> Response {
    doors.answer_stream(Some(stream), request, |stream, _| Ok(templates::delete(stream))).await
}

async fn create(State(doors): State<Arc<Doors>>, stream: Stream, request: Request) -> Response {
    doors.answer_stream(Some(stream), request, templates::create).await
}

async fn put_record(State(doors): State<Arc<Doors>>, stream: Stream, request: Request) -> Response {
    let max_depth = doors.services.config.ingest.max_json_depth;
    doors.answer_stream(Some(stream), request, |stream, body| templates::put_record(stream, body, max_depth)).await
}

async fn put_records(State(doors): State<Arc<Doors>>, stream: Stream, request: Request) -> Response {
    let max_depth = doors.services.config.ingest.max_json_depth;
    doors.answer_stream(Some(stream), request, |stream, body| templates::put_records(stream, body, max_depth)).await
}

async fn shard_iterator(
    State(doors): State<Arc<Doors>>,
    stream: Stream,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let shard = parameter(query.as_deref().unwrap_or_default(), "shard-id");
    doors.answer_stream(Some(stream), request, |stream, _| Ok(templates::shard_iterator(stream, &shard))).await
}

async fn get_records(
    State(doors): State<Arc<Doors>>,
    stream: Stream,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let iterator = headers.get("shard-iterator").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    doors.answer_stream(Some(stream), request, |_, _| Ok(templates::get_records(&iterator))).await
}

/// Empty where the query has none. Shard ids have nothing to escape.
fn parameter(query: &str, name: &str) -> String {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).next().unwrap_or_default()
}

impl Doors {
    async fn answer_stream(
        self: &Arc<Self>,
        stream: Option<Stream>,
        request: Request,
        map: impl for<'b> FnOnce(&'b str, &'b Bytes) -> Result<Call<'b>, Unreadable>,
    ) -> Response {
        let stream = match stream.transpose() {
            Ok(stream) => stream.map(|Path(stream)| stream).unwrap_or_default(),
            // What is no UTF-8 is no stream's name.
            Err(_) => return gateway::message(StatusCode::BAD_REQUEST, BAD_REQUEST, "the stream's name is not UTF-8"),
        };
        let (mut head, body) = request.into_parts();
        let read = match self.check_origin(&mut head).await {
            Ok(()) => self.bodies.read(&head.headers, body).await,
            Err(error) => Err(error),
        };
        let (body, mut permit) = match read {
            Ok(body) => body.into_parts(),
            Err(error) => return self.refuse(&error),
        };
        // What has to be written anew is no longer than it was.
        if !permit.grow(body.len()) {
            return self.refuse(&KafkaError::overloaded());
        }
        let call = match map(&stream, &body) {
            Ok(call) => call,
            Err(Unreadable(text)) => {
                self.services.metrics.refused("malformed");
                return gateway::message(StatusCode::BAD_REQUEST, BAD_REQUEST, &text);
            }
        };
        let caller = Caller::of(&head.extensions, &self.services.auth);
        // The permission for the stream in the path was asked for before; what else a body names, such as
        // an iterator, the door itself looks at.
        let once = match Once::of(&head.headers, Door::Kinesis, Timestamp::now()) {
            Ok(once) => once,
            Err(error) => return self.refuse(&error),
        };
        self.call_kinesis(caller, call, &body, permit, once.as_ref()).await
    }

    fn refuse(&self, error: &KafkaError) -> Response {
        self.services.metrics.refused(error.reason);
        let kafka = error.clone().into_response();
        let mut response = gateway::message(error.status, error_type(error.status), &error.message);
        if let Some(value) = kafka.headers().get(header::RETRY_AFTER) {
            response.headers_mut().insert(header::RETRY_AFTER, value.clone());
        }
        response
    }
}

const BAD_REQUEST: &str = "BadRequestException";

fn error_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "RequestTooLargeException",
        StatusCode::FORBIDDEN => "ForbiddenException",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableException",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaTypeException",
        _ => BAD_REQUEST,
    }
}

//! The door of Kinesis Data Streams: `X-Amz-Target` names the action, JSON 1.1 or CBOR 1.1 carries
//! it, on whatever path. A stream is a topic, a shard a partition, a sequence number an offset.
//!
//! What is put here is stored as if another door had taken it: the partition key is the record's
//! key, the data its value.

mod auth;
mod cbor;
mod consumers;
mod error;
mod event;
mod fields;
mod hash;
mod iterator;
mod limits;
mod manage;
mod names;
mod put;
mod put_body;
mod read;
mod sequence;
mod service;
mod shards;
mod stream;
mod streams;
mod subscribe;
mod tags;
mod value;
mod writer;

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts};
use model::Timestamp;
use uuid::Uuid;

use self::{
    auth::Audited,
    error::KinesisError,
    fields::Fields,
    names::Caller,
    value::Value,
    writer::{Format, Writer, written},
};
pub(super) use self::{
    put_body::{Data, Entries, Entry, MAX_ENTRIES, PutBody},
    service::Kinesis,
};
use super::{
    Doors, Permit,
    idempotency::{Door, Once},
    paid_body::PaidBody,
};
use crate::{
    auth::{Action, AskedUri},
    error::KafkaError,
};

/// Where requests of this door are sent to, whatever path they asked for.
const PATH: &str = "/kinesis";
const SERVICE: &str = "Kinesis_20131202";

const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const ID_2: HeaderName = HeaderName::from_static("x-amz-id-2");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const EXPOSED: HeaderValue =
    HeaderValue::from_static("x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date");
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("172800");
/// Of a request that is read as a tree; and what its tree weighs at most, in times of its text.
const MAX_TREE_BYTES: usize = 256 << 10;
const TREE_WEIGHT: usize = 32;

/// Sends what is for this door to its route. Decided before anything else, since any path will do.
pub fn addressed(mut request: Request) -> Request {
    if is_for_kinesis(&request) {
        let asked = std::mem::replace(request.uri_mut(), Uri::from_static(PATH));
        // Who is asked decides what pages may do.
        let mut parts = Uri::from_static(PATH).into_parts();
        (parts.scheme, parts.authority) = (asked.scheme().cloned(), asked.authority().cloned());
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        request.extensions_mut().insert(AskedUri(asked));
    }
    request
}

fn is_for_kinesis(request: &Request) -> bool {
    let headers = request.headers();
    if headers.contains_key(TARGET) {
        return true;
    }
    let has = |name: HeaderName, part: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains(part))
    };
    match *request.method() {
        // What a browser asks before it sends the header.
        Method::OPTIONS => has(header::ACCESS_CONTROL_REQUEST_HEADERS, "x-amz-target"),
        Method::POST => request.uri().path() == "/" && has(header::CONTENT_TYPE, "application/x-amz-"),
        _ => false,
    }
}

pub(super) fn routes() -> Router<Arc<Doors>> {
    Router::new().route(PATH, any(take))
}

/// What somebody asks for who does not speak the protocol itself.
pub(super) enum Call<'b> {
    PutRecord(PutBody<'b>),
    PutRecords(PutBody<'b>),
    /// Another action, and its body in JSON.
    Other(&'static str, String),
}

impl Call<'_> {
    pub(super) fn action(&self) -> &'static str {
        match self {
            Self::PutRecord(_) => "PutRecord",
            Self::PutRecords(_) => "PutRecords",
            Self::Other(action, _) => action,
        }
    }
}

/// A request whose members are looked at one by one.
struct Ask {
    caller: Caller,
    format: Format,
    value: Value,
}

impl Ask {
    fn fields(&self) -> Fields<'_> {
        Fields::of(&self.value)
    }

    fn whole(&self, write: impl FnOnce(&mut Writer)) -> Reply {
        Reply::Whole(written(self.format, write))
    }
}

enum Reply {
    Empty,
    Whole(Vec<u8>),
    /// Large, and paid for until it is sent.
    Paid(Vec<u8>, Permit),
    Events(Body),
}

impl Reply {
    fn into_response(self, media_type: HeaderValue) -> Response {
        let (media_type, body) = match self {
            Self::Empty => (media_type, Body::empty()),
            Self::Whole(body) => (media_type, body.into()),
            Self::Paid(body, permit) => (media_type, Body::new(PaidBody::new(body, permit))),
            Self::Events(events) => (HeaderValue::from_static(event::MEDIA_TYPE), events),
        };
        ([(header::CONTENT_TYPE, media_type)], body).into_response()
    }
}

/// Why a request was not answered: an exception of the service, or nothing that it would look at.
enum Refusal {
    Exception(Format, KinesisError),
    /// An XML element without more, or with a message.
    Xml(StatusCode, &'static str, Option<&'static str>),
}

async fn take(State(doors): State<Arc<Doors>>, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let has_origin = head.headers.contains_key(header::ORIGIN);
    let mut response = match doors.check_origin(&mut head).await {
        // Nobody may know that the visitor's browser reaches this server.
        Err(error) => refused(&doors, Refusal::Exception(Format::Json, error.into())),
        Ok(()) if has_origin && head.method == Method::OPTIONS => preflight(&head.headers),
        Ok(()) => {
            let mut response = doors.answer(&head, body).await.unwrap_or_else(|refusal| refused(&doors, refusal));
            if has_origin {
                let headers = response.headers_mut();
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
                headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            }
            response
        }
    };
    let id = Uuid::new_v4();
    let headers = response.headers_mut();
    let mut text = Uuid::encode_buffer();
    headers.insert(REQUEST_ID, HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).expect("hexadecimal"));
    headers.insert(ID_2, extended_id(id));
    response
}

/// 72 bytes in base64, as the service has them; they say no more than the request's id.
fn extended_id(id: Uuid) -> HeaderValue {
    let mut bytes = [0; 72];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = id.as_bytes()[i % 16].wrapping_mul(2 * (i / 16) as u8 + 1);
    }
    HeaderValue::try_from(BASE64_STANDARD.encode(bytes)).expect("base64 may stand in a header")
}

fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::OK.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    for (given, allowed) in [
        (header::ACCESS_CONTROL_REQUEST_HEADERS, header::ACCESS_CONTROL_ALLOW_HEADERS),
        (header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_ALLOW_METHODS),
    ] {
        if let Some(value) = asked.get(given) {
            headers.insert(allowed, value.clone());
        }
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
    response
}

fn refused(doors: &Doors, refusal: Refusal) -> Response {
    match refusal {
        Refusal::Exception(format, error) => {
            doors.services.metrics.refused(error.name);
            let body = written(format, |writer| {
                writer.text("__type", error.name);
                // Both spellings are in use; clients take either.
                let member = if error.name == "SerializationException" { "Message" } else { "message" };
                if !error.message.is_empty() {
                    writer.text(member, &error.message);
                }
            });
            let mut response = (error.status, [(header::CONTENT_TYPE, format.media_type())], body).into_response();
            response.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(error.name));
            response
        }
        Refusal::Xml(status, name, message) => {
            doors.services.metrics.refused(name);
            let body = match message {
                None => format!("<{name}/>\n"),
                Some(message) => format!("<{name}>\n  <Message>{message}</Message>\n</{name}>\n"),
            };
            (status, body).into_response()
        }
    }
}

impl Doors {
    async fn answer(self: &Arc<Self>, head: &Parts, body: Body) -> Result<Response, Refusal> {
        const UNDETERMINED: &str = "Unable to determine service/operation name to be authorized";
        if head.method != Method::POST {
            return Err(Refusal::Xml(StatusCode::FORBIDDEN, "AccessDeniedException", Some(UNDETERMINED)));
        }
        let target = head.headers.get(TARGET).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(format) = format_of(&head.headers) else {
            return Err(match target.split_once('.') {
                Some(_) => Refusal::Xml(StatusCode::NOT_FOUND, "UnknownOperationException", None),
                None => Refusal::Xml(StatusCode::FORBIDDEN, "AccessDeniedException", Some(UNDETERMINED)),
            });
        };
        let action = target.split_once('.').filter(|(service, _)| *service == SERVICE).map(|(_, action)| action);
        let reply = match action {
            Some(action) => self.act(head, format, action, body).await,
            None => Err(KinesisError::unknown_operation()),
        };
        match reply {
            Ok(reply) => Ok(reply.into_response(format.media_type())),
            Err(error) => Err(Refusal::Exception(format, error)),
        }
    }

    async fn act(
        self: &Arc<Self>,
        head: &Parts,
        format: Format,
        action: &str,
        body: Body,
    ) -> Result<Reply, KinesisError> {
        // Held until the records are in the log.
        let (body, mut permit) = self.bodies.read(&head.headers, body).await?.into_parts();
        let caller = self.caller(head, action, &body)?;
        let audited = Audited::of(&caller, action, format, &body);
        let once = Once::of(&head.headers, Door::Kinesis, Timestamp::now())?;
        let reply = self.perform(caller, format, action, &body, &mut permit, once.as_ref()).await;
        if let Some(audited) = audited {
            audited.say(&reply);
        }
        reply
    }

    /// The answer, in JSON, to a call whose parts lie in `body`; who calls is known.
    pub(super) async fn call_kinesis(
        self: &Arc<Self>,
        who: crate::auth::Caller,
        call: Call<'_>,
        body: &Bytes,
        mut permit: Permit,
        once: Option<&Once>,
    ) -> Response {
        let caller = Caller::new(who, Action::of_kinesis(call.action()));
        let reply = match call {
            Call::PutRecord(put) => self.put_record(&caller, Format::Json, body, &put, &mut permit, once).await,
            Call::PutRecords(put) => self.put_records(&caller, Format::Json, body, &put, &mut permit, once).await,
            Call::Other(action, body) => {
                self.perform(caller, Format::Json, action, &body.into(), &mut permit, once).await
            }
        };
        let media_type = HeaderValue::from_static("application/json");
        match reply {
            Ok(reply) => reply.into_response(media_type),
            Err(error) => {
                let mut response = refused(self, Refusal::Exception(Format::Json, error));
                response.headers_mut().insert(header::CONTENT_TYPE, media_type);
                response
            }
        }
    }

    /// Does what a request asks for, whoever brought it here; `permit` has paid for the body, and a put
    /// is done `once` if it has a key.
    async fn perform(
        self: &Arc<Self>,
        caller: Caller,
        format: Format,
        action: &str,
        body: &Bytes,
        permit: &mut Permit,
        once: Option<&Once>,
    ) -> Result<Reply, KinesisError> {
        match action {
            "PutRecord" => {
                let put = PutBody::parse(format, body)?;
                return self.put_record(&caller, format, body, &put, permit, once).await;
            }
            "PutRecords" => {
                let put = PutBody::parse(format, body)?;
                return self.put_records(&caller, format, body, &put, permit, once).await;
            }
            _ => {}
        }
        if body.len() > MAX_TREE_BYTES {
            return Err(KinesisError::serialization("the request is larger than any of its action"));
        }
        if !permit.grow(body.len() * TREE_WEIGHT) {
            return Err(KafkaError::overloaded().into());
        }
        let value = Value::parse(format, body);
        let value = value.ok_or_else(|| KinesisError::serialization("the body is no map of its content type"))?;
        let ask = &Ask { caller, format, value };
        match action {
            "CreateStream" => self.create_stream(ask).await,
            "DeleteStream" => self.delete_stream(ask).await,
            "DescribeStream" => self.describe_stream(ask).await,
            "DescribeStreamSummary" => self.describe_stream_summary(ask).await,
            "ListStreams" => self.list_streams(ask).await,
            "DescribeLimits" => self.describe_limits(ask).await,
            "IncreaseStreamRetentionPeriod" => self.set_retention(ask, true).await,
            "DecreaseStreamRetentionPeriod" => self.set_retention(ask, false).await,
            "UpdateStreamMode" => self.update_stream_mode(ask).await,
            "UpdateMaxRecordSize" => self.update_max_record_size(ask).await,
            "EnableEnhancedMonitoring" => self.set_monitoring(ask, true).await,
            "DisableEnhancedMonitoring" => self.set_monitoring(ask, false).await,
            "ListShards" => self.list_shards(ask).await,
            "SplitShard" => self.split_shard(ask).await,
            "MergeShards" => self.merge_shards(ask).await,
            "UpdateShardCount" => self.update_shard_count(ask).await,
            "GetShardIterator" => self.get_shard_iterator(ask).await,
            "GetRecords" => self.get_records(ask).await,
            "AddTagsToStream" => self.add_tags(ask).await,
            "RemoveTagsFromStream" => self.remove_tags(ask).await,
            "ListTagsForStream" => self.list_tags(ask).await,
            "TagResource" => self.tag_resource(ask).await,
            "UntagResource" => self.untag_resource(ask).await,
            "ListTagsForResource" => self.list_tags_for_resource(ask).await,
            "RegisterStreamConsumer" => self.register_consumer(ask).await,
            "DeregisterStreamConsumer" => self.deregister_consumer(ask).await,
            "DescribeStreamConsumer" => self.describe_consumer(ask).await,
            "ListStreamConsumers" => self.list_consumers(ask).await,
            "SubscribeToShard" => self.subscribe(ask).await,
            _ => Err(KinesisError::unknown_operation()),
        }
    }
}

fn format_of(headers: &HeaderMap) -> Option<Format> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    match content_type.split(';').next().unwrap_or_default().trim() {
        "application/x-amz-json-1.1" => Some(Format::Json),
        "application/x-amz-cbor-1.1" => Some(Format::Cbor),
        _ => None,
    }
}

//! What a producer is told when its request fails: Kafka REST bodies with Confluent's codes and
//! texts. (What `/api` says is `api::Problem`.)
//!
//! Meanings come in as `model::LogError`; only this file knows which code says what.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use model::LogError;

/// The media type of every answer of the Kafka REST door.
pub const KAFKA_JSON: HeaderValue = HeaderValue::from_static("application/vnd.kafka.v2+json");

/// Seconds after which a producer that was turned away for want of room may try again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An error of the Kafka REST door: the code is the status, or the status and two digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaError {
    pub status: StatusCode,
    pub code: u32,
    pub message: Cow<'static, str>,
    /// What `/metrics` counts it under.
    pub reason: &'static str,
}

impl KafkaError {
    fn new(status: StatusCode, code: u32, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), reason }
    }

    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 400, "malformed", message)
    }

    pub fn not_base64(data: &str) -> Self {
        Self::bad_request(format!("Bad Request: data={data} is not a base64 string."))
    }

    pub fn invalid_base64(data: &str) -> Self {
        Self::bad_request(format!("Bad Request: data={data} is not a valid base64 string."))
    }

    /// Invalid names and exhausted limits, as Kafka's own checks say it.
    pub fn invalid_topic(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 40002, "invalid_topic", message)
    }

    pub fn unrecognized_field(name: &str) -> Self {
        Self::unprocessable(422, format!("Unrecognized field: {name}"))
    }

    pub fn unprocessable(code: u32, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, "invalid", message)
    }

    /// A page of another site, in a browser that reaches this server.
    pub fn foreign_page() -> Self {
        Self::foreign("pages of other sites may not produce here")
    }

    /// The same, for the reason that is given.
    pub fn foreign(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, 40301, "foreign_page", message)
    }

    /// A caller who is not let in: 401, 403 or 429.
    pub fn refused(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status, u32::from(status.as_u16()) * 100 + 1, "refused", message)
    }

    /// The caller's key lacks a permission for what stands in the body.
    pub fn forbidden(permission: impl std::fmt::Display, name: &str) -> Self {
        Self::refused(StatusCode::FORBIDDEN, format!("Not authorized: this key lacks {permission} on {name:?}"))
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, 404, "not_found", "HTTP 404 Not Found")
    }

    pub fn topic_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, 40401, "unknown_topic", "Topic not found.")
    }

    pub fn partition_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, 40402, "unknown_partition", "Partition not found.")
    }

    pub fn topic_exists(name: &str) -> Self {
        Self::invalid_topic(format!("Topic '{name}' already exists."))
    }

    pub fn payload_error(what: &str) -> Self {
        Self::unprocessable(42206, format!("Payload error. {what}"))
    }

    /// Of a setting that is not there, or of something else that has a name.
    pub fn nothing_called(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, 404, "not_found", format!("{what} cannot be found."))
    }

    /// What Confluent's proxy has answered to a GET of an unknown topic since version 6.
    pub fn not_hosted() -> Self {
        Self::new(StatusCode::NOT_FOUND, 40403, "unknown_topic", "This server does not host this topic-partition.")
    }

    /// Nothing is committed, or it was trimmed, and the instance does not say where to begin.
    pub fn no_offset(partition: &model::TopicPartition) -> Self {
        let message = format!("Undefined offset with no reset policy for partitions: [{partition}]");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, 50002, "no_offset", message)
    }

    /// Unknown, or not asked anything for longer than `consumers.instance_retention_ms`.
    pub fn instance_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, 40403, "unknown_instance", "Consumer instance not found.")
    }

    pub fn not_acceptable() -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, 406, "accept", "HTTP 406 Not Acceptable")
    }

    pub fn format_mismatch() -> Self {
        let message = "The requested embedded data format does not match the deserializer for this consumer instance";
        Self::new(StatusCode::NOT_ACCEPTABLE, 40601, "format", message)
    }

    /// A record that is not what its reader asked for.
    pub fn not_serializable(message: String) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, 40801, "serialization", message)
    }

    pub fn instance_exists() -> Self {
        let message = "Consumer with specified consumer ID already exists in the specified consumer group.";
        Self::new(StatusCode::CONFLICT, 40902, "instance_exists", message)
    }

    /// Layers have not come to the end of a topic that is to be deleted; nothing was done.
    pub fn topic_in_use(message: String) -> Self {
        Self::new(StatusCode::CONFLICT, 409, "topic_in_use", message)
    }

    /// The first request with this key is under way; what it did is for a later try to learn.
    pub fn key_in_use(key: &str) -> Self {
        let message = format!("a request with the Idempotency-Key {key} is under way, try again when it is done");
        Self::new(StatusCode::CONFLICT, 409, "key_in_use", message)
    }

    pub fn key_reused(key: &str) -> Self {
        let message = format!("the Idempotency-Key {key} was used for this topic with another body");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, 422, "key_reused", message)
    }

    /// Whether it is about the key of a request, which is wrong as a whole.
    pub(crate) fn is_of_key(&self) -> bool {
        matches!(self.reason, "key_in_use" | "key_reused")
    }

    pub fn illegal_state(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, 40903, "illegal_state", format!("Illegal state: {what}"))
    }

    pub fn invalid_consumer(what: impl std::fmt::Display) -> Self {
        Self::unprocessable(42204, format!("Invalid consumer configuration: {what}"))
    }

    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, 405, "method", "HTTP 405 Method Not Allowed")
    }

    pub fn body_timeout() -> Self {
        let message = "the request body did not arrive in time (server.body_timeout_ms)";
        Self::new(StatusCode::REQUEST_TIMEOUT, 408, "body_timeout", message)
    }

    pub fn body_too_slow() -> Self {
        let message = "the request body arrives too slowly (server.min_bytes_per_second)";
        Self::new(StatusCode::REQUEST_TIMEOUT, 408, "body_too_slow", message)
    }

    pub fn body_too_large(limit_bytes: usize) -> Self {
        let message = format!("the request body is larger than {limit_bytes} bytes (ingest.max_body_bytes)");
        Self::too_large(message)
    }

    pub fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, 413, "too_large", message)
    }

    pub fn unsupported_media_type() -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, 415, "media_type", "HTTP 415 Unsupported Media Type")
    }

    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, 500, "internal", "Internal Server Error")
    }

    /// What has no receipt was not stored.
    pub fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, 503, "stopping", "the server is stopping; nothing more is stored")
    }

    /// Bodies in flight leave no room; nothing was accepted.
    pub fn overloaded() -> Self {
        let message = "too many bytes are in flight (ingest.max_inflight_bytes); nothing was accepted, try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, 503, "overloaded", message)
    }

    /// The log refused a whole request.
    pub fn of_log(error: &LogError) -> Self {
        match error {
            LogError::UnknownTopic(_) => Self::topic_not_found(),
            LogError::UnknownPartition(_) => Self::partition_not_found(),
            LogError::TopicExists(_)
            | LogError::FewerPartitions { .. }
            | LogError::InvalidTopic(_)
            | LogError::LimitExceeded { .. } => Self::invalid_topic(error.to_string()),
            LogError::TopicGrew(_) => Self::topic_in_use(error.to_string()),
            LogError::TooLarge { .. } => Self::too_large(error.to_string()),
            LogError::Unavailable { outcome_unknown: false, .. } => Self::unavailable(error.to_string()),
            LogError::Unavailable { outcome_unknown: true, .. } => {
                Self::unavailable(format!("{error}; whether the records were stored is not known"))
            }
            LogError::OutOfRange { .. } | LogError::Corrupt { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, 50002, "log_error", error.to_string())
            }
        }
    }

    fn unavailable(message: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, 50302, "unavailable", message)
    }
}

/// The code of one record that was not stored, inside an answer of 200: retriable or not.
pub fn record_error_code(error: &LogError) -> u32 {
    match error {
        LogError::Unavailable { .. } => 50003,
        _ => 50002,
    }
}

impl IntoResponse for KafkaError {
    fn into_response(self) -> Response {
        let message = serde_json::Value::from(self.message.as_ref());
        let body = format!(r#"{{"error_code":{},"message":{message}}}"#, self.code);
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, KAFKA_JSON);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

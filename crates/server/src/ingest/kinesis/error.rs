//! What a Kinesis client is told when its request fails, in the service's names and words.

use std::borrow::Cow;

use http::StatusCode;
use model::LogError;

use crate::{
    auth::{Exceeded, SignatureError},
    error::KafkaError,
};

/// An exception of the service; the name is what clients branch on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KinesisError {
    pub(super) status: StatusCode,
    pub(super) name: &'static str,
    pub(super) message: Cow<'static, str>,
}

impl KinesisError {
    pub(super) const ACCESS_DENIED: &str = "AccessDeniedException";

    fn new(name: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, name, message: message.into() }
    }

    pub(super) fn invalid_argument(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new("InvalidArgumentException", message)
    }

    pub(super) fn validation(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new("ValidationException", message)
    }

    /// The body is no text of its format, or a member has another type.
    pub(super) fn serialization(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new("SerializationException", message)
    }

    pub(super) fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new("ResourceNotFoundException", message)
    }

    pub(super) fn in_use(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new("ResourceInUseException", message)
    }

    pub(super) fn limit_exceeded(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new("LimitExceededException", message)
    }

    pub(super) fn expired_iterator(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new("ExpiredIteratorException", message)
    }

    pub(super) fn expired_next_token(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new("ExpiredNextTokenException", message)
    }

    pub(super) fn throttled(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new("ProvisionedThroughputExceededException", message)
    }

    pub(super) fn access_denied(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Self::ACCESS_DENIED, message)
    }

    pub(super) fn of_signature(error: &SignatureError) -> Self {
        Self::new(error.kinesis_type(), error.to_string())
    }

    /// The usage plan of the caller's key has no room.
    pub(super) fn exceeded(exceeded: Exceeded) -> Self {
        match exceeded {
            Exceeded::Rate { .. } => Self::new("ThrottlingException", "Rate exceeded"),
            Exceeded::Quota { .. } => Self::limit_exceeded("The quota of this key's usage plan is used up."),
        }
    }

    /// The stream is not what it was when the request came: clients try again by themselves.
    pub(super) fn changed(name: &str) -> Self {
        let message = format!("The shards of stream {name} have changed; try again.");
        Self { status: StatusCode::SERVICE_UNAVAILABLE, ..Self::new("ServiceUnavailableException", message) }
    }

    pub(super) fn unknown_operation() -> Self {
        Self::new("UnknownOperationException", "")
    }

    pub(super) fn internal() -> Self {
        let message = "Internal Service Failure.";
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, ..Self::new("InternalFailure", message) }
    }

    /// The log refused; that the topic is unknown is for the caller to explain.
    pub(super) fn of_log(error: &LogError) -> Self {
        match error {
            LogError::TooLarge { .. } => Self::invalid_argument(error.to_string()),
            LogError::LimitExceeded { .. } | LogError::InvalidTopic(_) => Self::limit_exceeded(error.to_string()),
            LogError::UnknownTopic(_) | LogError::UnknownPartition(_) => Self::not_found(error.to_string()),
            // Clients try both again by themselves.
            LogError::Unavailable { .. } => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                ..Self::new("ServiceUnavailableException", error.to_string())
            },
            _ => Self { message: error.to_string().into(), ..Self::internal() },
        }
    }
}

impl KinesisError {
    /// What clients try again by themselves, and what they do not.
    fn of_key(error: KafkaError) -> Self {
        if error.status == StatusCode::CONFLICT {
            let unavailable = Self::new("ServiceUnavailableException", error.message);
            return Self { status: StatusCode::SERVICE_UNAVAILABLE, ..unavailable };
        }
        Self::invalid_argument(error.message)
    }
}

/// What the doors share, their bodies' limits above all, is said in the words of the first door.
impl From<KafkaError> for KinesisError {
    fn from(error: KafkaError) -> Self {
        let name = match error.status {
            _ if error.reason == "invalid_topic" => "LimitExceededException",
            _ if error.reason == "topic_in_use" => return Self::in_use(error.message),
            _ if ["unknown_topic", "unknown_partition"].contains(&error.reason) => {
                return Self::not_found(error.message);
            }
            StatusCode::FORBIDDEN => Self::ACCESS_DENIED,
            StatusCode::REQUEST_TIMEOUT => "RequestTimeoutException",
            StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLargeException",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableException",
            StatusCode::INTERNAL_SERVER_ERROR => "InternalFailure",
            _ if error.is_of_key() => return Self::of_key(error),
            _ => "SerializationException",
        };
        Self { status: error.status, ..Self::new(name, error.message) }
    }
}

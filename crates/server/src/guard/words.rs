//! What a request is told that is not let in, in the words of the protocol it speaks.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{Extensions, HeaderValue, StatusCode, Uri, header};
use serde_json::json;

use crate::{
    api::Problem,
    auth::{Exceeded, Refused},
    error::KafkaError,
    gateway,
};

/// Browsers ask people for id and key; other clients know from it what is missing.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"Corkboard\", charset=\"UTF-8\"");
/// A minute, in which wrong keys are counted.
const FAILURES_PASS_SECONDS: u64 = 60;

#[derive(Clone, Copy)]
pub(super) enum Words {
    Gateway,
    Kafka,
    FastApi,
    Api,
}

impl Words {
    pub(super) fn of(uri: &Uri, extensions: &Extensions) -> Self {
        if gateway::is_asked(uri, extensions) {
            return Self::Gateway;
        }
        match gateway::first_segment(uri.path()) {
            Some("topics" | "brokers" | "consumers" | "v3") => Self::Kafka,
            Some("pin") => Self::FastApi,
            _ => Self::Api,
        }
    }

    /// `what` is the permission that the caller lacks, where that is the reason.
    pub(super) fn say(self, refused: Refused, what: &str) -> Response {
        let status = self.status(refused);
        let text = text(refused, what);
        let mut response = match self {
            Self::Gateway => gateway::refusal(status, refused),
            Self::Kafka => KafkaError::refused(status, text).into_response(),
            Self::FastApi => (status, Json(json!({ "detail": text }))).into_response(),
            Self::Api => Problem::new(status, text).into_response(),
        };
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        if let Some(seconds) = retry_after_seconds(refused) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn status(self, refused: Refused) -> StatusCode {
        match refused {
            // As an API Gateway has it.
            Refused::NoKey | Refused::BadKey if matches!(self, Self::Gateway) => StatusCode::FORBIDDEN,
            Refused::NoKey | Refused::BadKey => StatusCode::UNAUTHORIZED,
            Refused::Forbidden => StatusCode::FORBIDDEN,
            Refused::TooManyFailures | Refused::Exceeded(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

fn text(refused: Refused, what: &str) -> String {
    match refused {
        Refused::NoKey => "Authentication failed: the request brings no key (x-api-key, or Authorization)".to_owned(),
        Refused::BadKey => "Authentication failed: the key is not valid".to_owned(),
        Refused::TooManyFailures => "too many requests with wrong keys came from this address".to_owned(),
        Refused::Forbidden => format!("Not authorized: this key lacks {what}"),
        Refused::Exceeded(Exceeded::Rate { .. }) => "the rate of this key's usage plan is exceeded".to_owned(),
        Refused::Exceeded(Exceeded::Quota { .. }) => "the quota of this key's usage plan is used up".to_owned(),
    }
}

fn retry_after_seconds(refused: Refused) -> Option<u64> {
    match refused {
        Refused::TooManyFailures => Some(FAILURES_PASS_SECONDS),
        Refused::Exceeded(Exceeded::Rate { retry_after_seconds } | Exceeded::Quota { retry_after_seconds }) => {
            Some(retry_after_seconds)
        }
        Refused::NoKey | Refused::BadKey | Refused::Forbidden => None,
    }
}

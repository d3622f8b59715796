//! What went wrong, as JSON: `{"error": "…"}`, and `"field"` where one part of the request is
//! to blame.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use model::{LogError, QueryError};
use serde::Serialize;

use super::DATA_HEADERS;

#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    field: Option<&'static str>,
    error: String,
}

/// Seconds after which a client may ask again what is unavailable now.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl Problem {
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, field: None, error: error.into() }
    }

    /// What is wrong, for those who say it in other words.
    pub fn into_text(self) -> String {
        self.error
    }

    /// The part of the request that is to blame: a path segment, parameter or header.
    #[must_use]
    pub fn at(mut self, field: &'static str) -> Self {
        self.field = Some(field);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            field: Option<&'static str>,
        }
        let body = Json(Body { error: self.error, field: self.field });
        let mut response = (self.status, DATA_HEADERS, body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::UnknownView { .. } => Self::new(StatusCode::NOT_FOUND, error.to_string()).at("view"),
            QueryError::Unavailable(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            // The chain of causes is for the person who wrote the view.
            QueryError::Failed(cause) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{cause:#}")),
        }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        let status = match error {
            LogError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

//! The page that people look at.

use axum::{
    Router,
    response::{IntoResponse, Response},
};

use crate::Services;

pub fn routes() -> Router<Services> {
    Router::new()
}

/// The page itself; whether `GET /` shows it, the router decides by `Accept`.
pub fn index() -> Response {
    "Corkboard".into_response()
}

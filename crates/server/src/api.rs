//! What programs ask: the views, the tasks, the log, and `/metrics`.

use axum::Router;

use crate::Services;

pub fn routes() -> Router<Services> {
    Router::new()
}

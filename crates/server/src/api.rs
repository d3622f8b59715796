//! What programs ask: the views, the tasks, the log, and `/metrics`.
//!
//! A route that browsers may reach says what it demands of a request in its arguments:
//! [`KnownHost`] to look, [`SameOrigin`] to change something. `/metrics` demands nothing: it
//! shows numbers only, and whoever scrapes it calls this server by names of their own.

mod guard;
mod problem;

mod log;
mod tasks;
mod views;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::header;

pub use self::{
    guard::{KnownHost, SameOrigin, check_look},
    problem::Problem,
};
use crate::{Services, metrics};

pub fn routes() -> Router<Services> {
    Router::new()
        .route("/api/views", get(views::list))
        .route("/api/views/{name}", get(views::answer))
        .route("/api/tasks", get(tasks::list))
        .route("/api/tasks/{name}/run", post(tasks::run_now))
        .route("/api/log", get(log::describe))
        .route("/metrics", get(scrape))
}

async fn scrape(State(services): State<Services>) -> Response {
    let text = services.metrics.scrape(&*services.log, &services.tasks).await;
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// The headers of every answer here: data of this moment, for this site's own pages, and
/// never anything but what its media type says.
const DATA_HEADERS: [(header::HeaderName, &str); 3] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

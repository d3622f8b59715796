//! `GET /api/tasks` and `POST /api/tasks/{name}/run`.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use model::Timestamp;
use serde::Serialize;

use super::{DATA_HEADERS, KnownHost, Problem, SameOrigin};
use crate::{
    Services,
    auth::{Action, Caller},
    orchestrator::{RunNowError, TaskStatus},
};

#[derive(Serialize)]
struct Tasks {
    /// The server's clock, so that ages come out right in a browser whose clock is wrong.
    at_ms: i64,
    tasks: Vec<TaskStatus>,
}

/// Those that the caller may start.
pub(super) async fn list(_: KnownHost, caller: Caller, State(services): State<Services>) -> Response {
    let tasks = services.tasks.statuses().into_iter().filter(|task| caller.may(Action::Tasks, task.name)).collect();
    let tasks = Tasks { at_ms: Timestamp::now().0, tasks };
    (DATA_HEADERS, Json(tasks)).into_response()
}

#[derive(Serialize)]
struct Queued {
    task: String,
    queued: bool,
}

pub(super) async fn run_now(
    _: SameOrigin,
    State(services): State<Services>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    services.tasks.run_now(&name).map_err(|error| {
        let status = match error {
            RunNowError::UnknownTask { .. } => StatusCode::NOT_FOUND,
            RunNowError::Stopped { .. } => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, error.to_string()).at("task")
    })?;
    tracing::info!(task = name, "a run was asked for over HTTP");
    Ok((StatusCode::ACCEPTED, DATA_HEADERS, Json(Queued { task: name, queued: true })).into_response())
}

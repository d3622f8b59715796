//! `GET /api/log`: which log this is, and how far each partition goes.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use model::{Bounds, LogId, Timestamp, TopicName};
use serde::Serialize;

use super::{DATA_HEADERS, KnownHost, Problem};
use crate::{
    Services,
    auth::{Action, Caller},
};

#[derive(Serialize)]
struct Log {
    #[serde(flatten)]
    id: LogId,
    /// When the bounds were read: two answers give a rate.
    at_ms: i64,
    partitions: Vec<Partition>,
}

#[derive(Serialize)]
struct Partition {
    topic: TopicName,
    partition: u32,
    /// The stream that the topic belongs to; null when none takes it.
    stream: Option<String>,
    #[serde(flatten)]
    bounds: Bounds,
}

/// The topics that the caller may not see are left out.
pub(super) async fn describe(
    _: KnownHost,
    caller: Caller,
    State(services): State<Services>,
) -> Result<Response, Problem> {
    let description = services.log.describe().await?;
    let mut partitions = Vec::new();
    let seen = |topic: &TopicName| !topic.is_internal() && caller.may(Action::Describe, topic.as_str());
    for partition in description.partitions().filter(|p| seen(&p.topic)) {
        let bounds = match services.log.bounds(&partition).await {
            // Deleted since the topics were asked for.
            Err(e) if e.is_gone() => continue,
            bounds => bounds?,
        };
        let stream = services.streams.iter().find(|s| s.takes(partition.topic.as_str()));
        let stream = stream.map(|s| s.name.clone());
        partitions.push(Partition { topic: partition.topic, partition: partition.partition, stream, bounds });
    }
    let log = Log { id: description.id, at_ms: Timestamp::now().0, partitions };
    Ok((DATA_HEADERS, Json(log)).into_response())
}

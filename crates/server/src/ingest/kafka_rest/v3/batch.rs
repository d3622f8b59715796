//! `POST …/records:batch`: a few entries with names of their own; what became of each is said by its
//! name. Beside it, how the entries of version 3 are stored.

use std::{borrow::Cow, collections::HashSet, sync::Arc};

use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    response::Response,
};
use bytes::Bytes;
use http::StatusCode;
use model::{Offset, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    PLAIN_JSON,
    entry::{self, Entry, RECEIPT_BYTES, Receipt, Receipts, write_failure},
    said,
};
use crate::{
    error::KafkaError,
    ingest::{
        Doors,
        idempotency::{Door, Once},
        json::Text,
        kafka_rest::{consumers::parse, json_response},
        topics::Topic,
    },
};

const MAX_ID_CHARS: usize = 80;
const BEGIN: &str = r#"{"successes":["#;

pub(super) async fn produce(
    State(doors): State<Arc<Doors>>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    match doors.produce_batch(path, request).await {
        Ok(answer) => {
            let mut response = json_response(PLAIN_JSON, answer);
            *response.status_mut() = StatusCode::MULTI_STATUS;
            response
        }
        Err(error) => {
            doors.services.metrics.refused(error.reason);
            said(Err(error))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchRequest<'a> {
    #[serde(borrow)]
    entries: Vec<&'a RawValue>,
}

/// Only the name: what else is wrong with an entry is said under it.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
}

fn batch_error(message: impl Into<Cow<'static, str>>) -> KafkaError {
    KafkaError::unprocessable(42208, message)
}

fn check_count(n_entries: usize, limit: usize) -> Result<(), KafkaError> {
    match n_entries {
        0 => Err(batch_error("Empty batch")),
        n if n > limit => {
            let message = format!("Too many entries in batch: {n}, {limit} are allowed (ingest.max_batch_entries)");
            Err(batch_error(message))
        }
        _ => Ok(()),
    }
}

/// The names of the entries, each once.
fn ids<'o>(
    objects: &'o [Bytes],
    entries: &mut [Result<Entry<'o>, KafkaError>],
) -> Result<Vec<Cow<'o, str>>, KafkaError> {
    let mut ids = Vec::with_capacity(entries.len());
    for (i, (object, entry)) in objects.iter().zip(entries).enumerate() {
        let id = match entry {
            Ok(entry) => entry.id.take(),
            Err(_) => serde_json::from_slice(object).ok().and_then(|Named { id }| id).map(|Text(id)| id),
        };
        let id = id.unwrap_or_default();
        if !(1..=MAX_ID_CHARS).contains(&id.chars().count()) {
            let message = format!("Invalid identifier: entries[{i}].id must have 1 to {MAX_ID_CHARS} characters");
            return Err(batch_error(message));
        }
        ids.push(id);
    }
    let distinct: HashSet<&str> = ids.iter().map(|id| &**id).collect();
    if distinct.len() < ids.len() { Err(batch_error("Non-distinct identifiers")) } else { Ok(ids) }
}

/// What became of an entry.
pub(super) enum Receipted<'e> {
    Stored(&'e Receipt, (u32, Offset)),
    NotStored(&'e KafkaError),
}

impl Receipted<'_> {
    pub(super) fn write(&self, out: &mut String, receipts: &mut Receipts, id: Option<&str>) {
        match self {
            Self::Stored(receipt, place) => receipts.write(out, id, receipt, *place),
            Self::NotStored(error) => write_failure(out, id, error),
        }
    }
}

impl Doors {
    /// The topic that records are to be brought to, created if it may be.
    pub(super) async fn topic_to_fill(&self, name: &str) -> Result<Arc<Topic>, KafkaError> {
        let topic = self.topics.find_or_create(name, None).await;
        // What version 3 calls a topic that is not there.
        topic.map_err(|e| if e.code == KafkaError::topic_not_found().code { KafkaError::not_hosted() } else { e })
    }

    /// Stores what could be read, and tells of each entry in its order what became of it. An error is
    /// about the key of the request.
    pub(super) async fn store_entries(
        &self,
        topic: &Topic,
        entries: Vec<Result<Entry<'_>, KafkaError>>,
        once: Option<&Once>,
        mut tell: impl FnMut(usize, Receipted<'_>),
    ) -> Result<(), KafkaError> {
        let mut records = Vec::with_capacity(entries.len());
        let mut receipts: Vec<Result<Receipt, KafkaError>> = entries
            .into_iter()
            .map(|entry| {
                let entry = entry?;
                if entry.addressed.partition.is_some_and(|partition| partition >= topic.n_partitions) {
                    return Err(KafkaError::partition_not_found());
                }
                let (addressed, receipt) = entry.split();
                records.push(addressed);
                Ok(receipt)
            })
            .collect();
        if records.is_empty() {
            for (i, receipt) in receipts.iter().enumerate() {
                let Err(error) = receipt else { continue };
                tell(i, Receipted::NotStored(error));
            }
            return Ok(());
        }
        let stored = self.store(topic.name.as_str(), None, records, once).await;
        match (&stored, once) {
            (Err(e), _) if e.is_of_key() => return Err(e.clone()),
            (Ok(appended), Some(once)) => {
                let at = appended.at().unwrap_or(once.now());
                receipts.iter_mut().flatten().for_each(|receipt| receipt.came_first_at(once.now(), at));
            }
            _ => {}
        }
        let mut outcomes = stored.as_ref().ok().map(|appended| appended.outcomes());
        for (i, receipt) in receipts.iter().enumerate() {
            let receipt = match receipt {
                Ok(receipt) => receipt,
                Err(error) => {
                    tell(i, Receipted::NotStored(error));
                    continue;
                }
            };
            let outcome = outcomes.as_mut().and_then(Iterator::next);
            match (outcome, &stored) {
                (Some(Ok(place)), _) => tell(i, Receipted::Stored(receipt, place)),
                (Some(Err(error)), _) => tell(i, Receipted::NotStored(&KafkaError::of_log(error))),
                (None, Err(error)) => tell(i, Receipted::NotStored(error)),
                (None, Ok(_)) => tell(i, Receipted::NotStored(&KafkaError::internal())),
            }
        }
        Ok(())
    }

    async fn produce_batch(
        &self,
        path: Result<Path<(String, String)>, PathRejection>,
        request: Request,
    ) -> Result<String, KafkaError> {
        let Path((cluster, topic)) = path.map_err(|_| KafkaError::not_found())?;
        let (head, body) = self.plain_body(request).await?;
        self.check_cluster(&cluster).await?;
        let config = &self.services.config.ingest;
        let asked: BatchRequest<'_> = parse(&body)?;
        check_count(asked.entries.len(), config.max_batch_entries)?;
        let once = Once::of(&head.headers, Door::Kafka, Timestamp::now())?;
        let now = once.as_ref().map_or_else(Timestamp::now, Once::now);
        let objects: Vec<Bytes> = asked.entries.iter().map(|raw| body.slice_ref(raw.get().as_bytes())).collect();
        let mut entries: Vec<_> = objects.iter().map(|object| entry::read(object, true, config, now)).collect();
        let ids = ids(&objects, &mut entries)?;
        let topic = self.topic_to_fill(&topic).await?;
        let (mut answer, mut failures) = (String::with_capacity(entries.len() * RECEIPT_BYTES + 40), String::new());
        answer.push_str(BEGIN);
        let mut receipts = Receipts::new(&cluster, &topic.name);
        self.store_entries(&topic, entries, once.as_ref(), |i, receipt| {
            let (out, begin) = match receipt {
                Receipted::Stored(..) => (&mut answer, BEGIN),
                Receipted::NotStored(_) => (&mut failures, ""),
            };
            if out.len() > begin.len() {
                out.push(',');
            }
            receipt.write(out, &mut receipts, Some(&ids[i]));
        })
        .await?;
        for part in [r#"],"failures":["#, &failures, "]}"] {
            answer.push_str(part);
        }
        Ok(answer)
    }
}

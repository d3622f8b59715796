//! `POST …/records:batch`: a few entries with names of their own; what became of each is said by its
//! name. Beside it, how the entries of version 3 are stored.

use std::{borrow::Cow, collections::HashSet, fmt::Write, sync::Arc};

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
    entry::{self, Entry, Receipt, write_failure},
    said,
};
use crate::{
    error::KafkaError,
    ingest::{
        Doors,
        idempotency::{Door, Once},
        kafka_rest::{consumers::parse, json_response},
        topics::Topic,
    },
};

const MAX_ID_CHARS: usize = 80;

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
    id: Option<Cow<'a, str>>,
}

fn batch_error(message: impl Into<Cow<'static, str>>) -> KafkaError {
    KafkaError::unprocessable(42208, message)
}

/// The names of the entries, each once.
fn ids(entries: &[&RawValue], limit: usize) -> Result<Vec<String>, KafkaError> {
    match entries.len() {
        0 => return Err(batch_error("Empty batch")),
        n if n > limit => {
            let message = format!("Too many entries in batch: {n}, {limit} are allowed (ingest.max_batch_entries)");
            return Err(batch_error(message));
        }
        _ => {}
    }
    let mut ids = Vec::with_capacity(entries.len());
    for (i, raw) in entries.iter().enumerate() {
        let named: Result<Named<'_>, _> = serde_json::from_str(raw.get());
        let id = named.ok().and_then(|named| named.id).unwrap_or_default();
        if !(1..=MAX_ID_CHARS).contains(&id.chars().count()) {
            let message = format!("Invalid identifier: entries[{i}].id must have 1 to {MAX_ID_CHARS} characters");
            return Err(batch_error(message));
        }
        ids.push(id.into_owned());
    }
    let distinct: HashSet<&String> = ids.iter().collect();
    if distinct.len() < ids.len() { Err(batch_error("Non-distinct identifiers")) } else { Ok(ids) }
}

/// What became of an entry.
pub(super) enum Receipted<'e> {
    Stored(&'e Receipt, u32, Offset),
    NotStored(Option<&'e Receipt>, &'e KafkaError),
}

impl Receipted<'_> {
    pub(super) fn write(&self, out: &mut String, cluster: &str, topic: &Topic) {
        match self {
            Self::Stored(receipt, partition, offset) => receipt.write(out, cluster, &topic.name, *partition, *offset),
            Self::NotStored(Some(receipt), error) => receipt.write_failure(out, error),
            Self::NotStored(None, error) => write_failure(out, None, error),
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
        entries: Vec<Result<Entry, KafkaError>>,
        once: Option<&Once>,
        mut tell: impl FnMut(usize, Receipted<'_>),
    ) -> Result<(), KafkaError> {
        let mut records = Vec::with_capacity(entries.len());
        let has_partition = |entry: Entry| match entry.addressed.partition {
            Some(partition) if partition >= topic.n_partitions => Err(KafkaError::partition_not_found()),
            _ => Ok(entry),
        };
        let mut receipts: Vec<Result<Receipt, KafkaError>> = entries
            .into_iter()
            .map(|entry| {
                let (addressed, receipt) = entry.and_then(has_partition)?.split();
                records.push(addressed);
                Ok(receipt)
            })
            .collect();
        if records.is_empty() {
            for (i, receipt) in receipts.iter().enumerate() {
                let Err(error) = receipt else { continue };
                tell(i, Receipted::NotStored(None, error));
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
                    tell(i, Receipted::NotStored(None, error));
                    continue;
                }
            };
            let outcome = outcomes.as_mut().and_then(Iterator::next);
            match (outcome, &stored) {
                (Some(Ok((partition, offset))), _) => tell(i, Receipted::Stored(receipt, partition, offset)),
                (Some(Err(error)), _) => tell(i, Receipted::NotStored(Some(receipt), &KafkaError::of_log(error))),
                (None, Err(error)) => tell(i, Receipted::NotStored(Some(receipt), error)),
                (None, Ok(_)) => tell(i, Receipted::NotStored(Some(receipt), &KafkaError::internal())),
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
        let cluster = self.cluster(&cluster, self.base(&head)).await?;
        let config = &self.services.config.ingest;
        let asked: BatchRequest<'_> = parse(&body)?;
        let ids = ids(&asked.entries, config.max_batch_entries)?;
        let topic = self.topic_to_fill(&topic).await?;
        let once = Once::of(&head.headers, Door::Kafka, Timestamp::now())?;
        let now = once.as_ref().map_or_else(Timestamp::now, Once::now);
        let object = |raw: &&RawValue| body.slice_ref(raw.get().as_bytes());
        let objects: Vec<Bytes> = asked.entries.iter().map(object).collect();
        let entries = objects.iter().map(|object| entry::read(object, true, config, now)).collect();
        let (mut successes, mut failures) = (String::new(), String::new());
        self.store_entries(&topic, entries, once.as_ref(), |i, receipt| {
            let out = if matches!(receipt, Receipted::Stored(..)) { &mut successes } else { &mut failures };
            if !out.is_empty() {
                out.push(',');
            }
            match receipt {
                // Its name was read, whatever else could not be.
                Receipted::NotStored(None, error) => write_failure(out, Some(&ids[i]), error),
                receipt => receipt.write(out, &cluster.id, &topic),
            }
        })
        .await?;
        let mut answer = String::with_capacity(successes.len() + failures.len() + 40);
        write!(answer, r#"{{"successes":[{successes}],"failures":[{failures}]}}"#)
            .expect("writing to a string cannot fail");
        Ok(answer)
    }
}

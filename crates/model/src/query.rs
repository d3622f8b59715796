//! Asking for a view, as the server and the command line see it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;

use crate::{
    position::{Offset, TopicPartition},
    view::{Scope, ViewDef},
};

/// Answers views. Formats are encoded behind this trait, so that its callers need no Arrow.
#[async_trait]
pub trait Query: Send + Sync {
    /// The definitions that can be asked for, in the order in which people should see them.
    fn views(&self) -> Vec<ViewDef>;

    /// One view's rows in one scope, with the boundary they were taken at. Every record
    /// acknowledged before the call is in the merged answer, within the tail's byte limit.
    async fn query(&self, ask: &Ask) -> Result<Answer, QueryError>;
}

#[derive(Clone, Debug)]
pub struct Ask {
    pub view: String,
    pub scope: Scope,
    pub format: RowFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFormat {
    /// A JSON array of objects, columns in order, absent values as `null`.
    Json,
    /// RFC 4180 with a header line; text cells that a spreadsheet would run are prefixed `'`.
    Csv,
    /// One Arrow IPC stream.
    Arrow,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub n_rows: usize,
    pub body: Bytes,
    pub boundary: Boundary,
}

/// Where the three layers met for one answer. Offsets are the next ones to read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Boundary {
    pub scope: Scope,
    /// The batch tables hold every record below.
    pub batch_through: BTreeMap<TopicPartition, Offset>,
    /// The real-time tables hold the records from `batch_through` to below this.
    pub realtime_through: BTreeMap<TopicPartition, Offset>,
    /// The tail of the log was read from `realtime_through` to below this.
    pub tail_through: BTreeMap<TopicPartition, Offset>,
    /// Milliseconds since the batch tables last took records in; null before the first run.
    pub batch_age_ms: Option<u64>,
    /// The same for the real-time tables.
    pub realtime_age_ms: Option<u64>,
    /// Milliseconds since the log end offsets were read.
    pub tail_age_ms: Option<u64>,
    /// False when the tail was longer than its byte limit: the answer then ends at
    /// `tail_through`, short of the log end offset.
    pub complete: bool,
    /// How rows of one key were counted: `off`, `exact` or `key` per stream.
    pub dedup: BTreeMap<String, crate::stream::Dedup>,
}

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("there is no view {name:?}; there are: {known}")]
    UnknownView { name: String, known: String },
    #[error("the answer is not available: {0}")]
    Unavailable(String),
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

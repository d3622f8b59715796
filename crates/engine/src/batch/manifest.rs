//! What a batch run did, kept beside the tables: enough to say where its numbers come from
//! and to compute them again.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use model::{Dedup, Offset, OffsetRange, Timestamp, TopicPartition};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, path::Path};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::table::Tables;

const FOLDER: &str = "manifests/";
const FORMAT: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// Sorts by time: `<milliseconds>-<random>`.
    pub run: String,
    /// The version of the program.
    pub version: String,
    /// The log that the landing objects belong to; all zeros for a folder of another program.
    pub log: Uuid,
    pub started_ms: i64,
    pub finished_ms: i64,
    pub seconds: f64,
    pub streams: BTreeMap<String, StreamRun>,
    pub views: BTreeMap<String, ViewRun>,
    /// Objects and ranges passed over, with the reason.
    pub skipped: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StreamRun {
    /// The hash of the cleaning definition.
    pub definition: String,
    pub dedup: Dedup,
    /// Whether everything was computed anew.
    pub whole: bool,
    /// What this run took in.
    pub ranges: Vec<OffsetRange>,
    pub n_objects: u64,
    pub n_records: u64,
    pub n_rows: u64,
    pub n_rejects: u64,
    /// Values that could not be read, by column.
    pub lost: BTreeMap<String, u64>,
    /// Where the stream's table goes on.
    pub through: BTreeMap<TopicPartition, Offset>,
    pub table_version: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ViewRun {
    /// The hash of the view's text and of what decides its input rows.
    pub definition: String,
    pub n_rows: u64,
    pub table_version: u64,
}

impl Manifest {
    pub fn begin(log: Uuid) -> Self {
        let now = Timestamp::now().0;
        let tag = Uuid::new_v4().simple().to_string();
        Self {
            format: FORMAT,
            run: format!("{now:014}-{}", &tag[..8]),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            log,
            started_ms: now,
            finished_ms: now,
            seconds: 0.0,
            streams: BTreeMap::new(),
            views: BTreeMap::new(),
            skipped: Vec::new(),
        }
    }

    /// Where the batch tables go on, over all streams.
    pub fn through(&self) -> BTreeMap<TopicPartition, Offset> {
        self.streams.values().flat_map(|s| s.through.clone()).collect()
    }

    /// Milliseconds since the run began: how old its answers may be.
    pub fn age_ms(&self) -> u64 {
        u64::try_from(Timestamp::now().0 - self.started_ms).unwrap_or_default()
    }

    pub async fn write(&self, tables: &Tables) -> Result<()> {
        let path = Path::from(format!("{}.json", self.run));
        let text = serde_json::to_vec_pretty(self)?;
        tables.objects(FOLDER)?.put_opts(&path, text.into(), PutMode::Create.into()).await.context("the manifest")?;
        Ok(())
    }
}

/// The names of all manifests, oldest first.
async fn names(tables: &Tables) -> Result<Vec<Path>> {
    let metas: Vec<_> = tables.objects(FOLDER)?.list(None).try_collect().await.context("the manifests")?;
    let mut names: Vec<Path> = metas.into_iter().map(|m| m.location).collect();
    names.retain(|n| n.as_ref().ends_with(".json"));
    names.sort();
    Ok(names)
}

/// The manifest of the last run that changed anything.
pub async fn latest(tables: &Tables) -> Result<Option<Manifest>> {
    let Some(name) = names(tables).await?.pop() else { return Ok(None) };
    let bytes = tables.objects(FOLDER)?.get(&name).await?.bytes().await?;
    let manifest: Manifest = serde_json::from_slice(&bytes).with_context(|| {
        format!("{}{FOLDER}{name} cannot be read: move it away and run `corkboard batch run`", tables.url())
    })?;
    Ok(Some(manifest))
}

/// Deletes all but the newest; returns how many.
pub async fn prune(tables: &Tables, n_kept: usize) -> Result<u64> {
    let mut names = names(tables).await?;
    names.truncate(names.len().saturating_sub(n_kept));
    for name in &names {
        tables.objects(FOLDER)?.delete(name).await?;
    }
    Ok(names.len() as u64)
}

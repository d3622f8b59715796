//! `corkboard.json` at the root of a landing folder: which log its offsets belong to. Without
//! it, objects of two logs could stand in one row of offsets, and nobody would see it.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use futures::TryStreamExt;
use model::{LogId, Offset, TopicPartition};
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, path::Path};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::objects::{MARKER as KEY, TOPICS_DIR};

const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    format: u32,
    /// The log's id. Not its epoch: that changes with every unclean start.
    pub log: Uuid,
    /// Where landing begins in a partition whose earlier records are lost. Only people write
    /// this: it is their word that the gap is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub begin_at: BTreeMap<TopicPartition, Offset>,
}

/// The marker of a landing folder that `log` may be landed into, and whether the folder is
/// new: then the marker was written just now.
pub async fn admit(store: &dyn ObjectStore, log: LogId) -> anyhow::Result<(Marker, bool)> {
    let (marker, created) = match read(store).await? {
        Some(marker) => (marker, false),
        None => create(store, log).await?,
    };
    if marker.log != log.id {
        bail!(
            "the landing folder belongs to log {} ({KEY} says so), and this is log {}: choose another \
             landing folder, or start with the log that this one belongs to",
            marker.log,
            log.id
        );
    }
    Ok((marker, created))
}

/// The marker, if there is one.
pub async fn read(store: &dyn ObjectStore) -> anyhow::Result<Option<Marker>> {
    let bytes = match store.get(&Path::from(KEY)).await {
        Err(Error::NotFound { .. }) => return Ok(None),
        got => got.with_context(|| format!("{KEY} of the landing folder cannot be read"))?.bytes().await?,
    };
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let damaged = || format!("{KEY} of the landing folder is damaged: restore it from a backup");
    let version: Version = serde_json::from_slice(&bytes).with_context(damaged)?;
    if version.format > FORMAT {
        bail!(
            "the landing folder has format {}, this program knows {FORMAT}: use the version that wrote it, or a later one",
            version.format
        );
    }
    Ok(Some(serde_json::from_slice(&bytes).with_context(damaged)?))
}

async fn create(store: &dyn ObjectStore, log: LogId) -> anyhow::Result<(Marker, bool)> {
    if let Some(object) = store.list(Some(&Path::from(TOPICS_DIR))).try_next().await? {
        bail!(
            "the landing folder holds {} but no {KEY}: some other program wrote it, and its offsets may be \
             those of another log; choose an empty folder",
            object.location
        );
    }
    let marker = Marker { format: FORMAT, log: log.id, begin_at: BTreeMap::new() };
    let mut text = serde_json::to_vec_pretty(&marker).expect("a marker is plain data");
    text.push(b'\n');
    match store.put_opts(&Path::from(KEY), text.into(), PutMode::Create.into()).await {
        Ok(_) => Ok((marker, true)),
        // Another process was quicker.
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
            let marker = read(store).await?.with_context(|| format!("{KEY} came and went while it was created"))?;
            Ok((marker, false))
        }
        Err(e) => Err(e).with_context(|| format!("{KEY} cannot be written to the landing folder")),
    }
}

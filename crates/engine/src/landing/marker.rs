//! `corkboard.json` at the root of a landing folder: which log its offsets belong to. Without
//! it, objects of two logs could stand in one row of offsets, and nobody would see it.
//!
//! Once it is there only people write it. Where landing went on after a deletion it notes beside it,
//! in objects of their own, `after_deletion/<log>/<partition>@<offset>.json`: whoever notes two
//! things at a time, or while a person writes, takes nothing away.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use futures::TryStreamExt;
use model::{LogId, Offset, TopicPartition};
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, path::Path};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::objects::{AFTER_DELETION, MARKER as KEY, TOPICS_DIR};

const FORMAT: u32 = 1;
/// Of the names of notes.
const EXTENSION: &str = ".json";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    format: u32,
    /// The log's id. Not its epoch: that changes with every unclean start.
    pub log: Uuid,
    /// Where landing begins in a partition whose earlier records are lost. Only people write
    /// this: it is their word that the gap is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub begin_at: BTreeMap<TopicPartition, Offset>,
    /// Where landing went on after a topic was deleted before all of it was landed, and created again:
    /// the log says that nobody has those records any more. Landing once noted it here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub after_deletion: BTreeMap<TopicPartition, BTreeSet<Offset>>,
}

impl Marker {
    /// Whether it is known that no object holds what comes before this offset of a partition.
    pub fn knows_hole_before(&self, partition: &TopicPartition, offset: Offset) -> bool {
        let is_after_deletion = self.after_deletion.get(partition).is_some_and(|known| known.contains(&offset));
        is_after_deletion || self.begin_at.get(partition) == Some(&offset)
    }
}

/// The marker of a landing folder that `log` may be landed into, and whether the folder is
/// new: then the marker was written just now.
pub async fn admit(store: &dyn ObjectStore, log: LogId) -> anyhow::Result<(Marker, bool)> {
    let (marker, created) = match read_alone(store).await? {
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

/// The marker, if there is one, with all that is known of holes.
pub async fn read(store: &dyn ObjectStore) -> anyhow::Result<Option<Marker>> {
    let Some(mut marker) = read_alone(store).await? else { return Ok(None) };
    let mut notes = store.list(Some(&notes_of(marker.log)));
    while let Some(note) = notes.try_next().await.with_context(|| format!("{AFTER_DELETION} cannot be listed"))? {
        // What is no note of ours says nothing: a hole that is not known of is waited at.
        if let Some((partition, at)) = note.location.filename().and_then(parse_note) {
            marker.after_deletion.entry(partition).or_default().insert(at);
        }
    }
    Ok(Some(marker))
}

/// The marker without what is noted beside it.
pub(super) async fn read_alone(store: &dyn ObjectStore) -> anyhow::Result<Option<Marker>> {
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

/// Notes where landing goes on after a deletion, in a folder that was admitted by this marker; whether
/// that was not known before.
pub async fn note_deletion(
    store: &dyn ObjectStore,
    marker: &Marker,
    partition: &TopicPartition,
    at: Offset,
) -> anyhow::Result<bool> {
    if marker.after_deletion.get(partition).is_some_and(|known| known.contains(&at)) {
        return Ok(false);
    }
    let key = notes_of(marker.log).join(format!("{partition}@{at}{EXTENSION}"));
    let text = json!({"partition": partition, "begin": at}).to_string();
    match store.put_opts(&key, text.into(), PutMode::Create.into()).await {
        Ok(_) => Ok(true),
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
        Err(e) => Err(e).with_context(|| format!("{key} cannot be written to the landing folder")),
    }
}

fn notes_of(log: Uuid) -> Path {
    Path::from(AFTER_DELETION).join(log.to_string())
}

fn parse_note(name: &str) -> Option<(TopicPartition, Offset)> {
    let (partition, at) = name.strip_suffix(EXTENSION)?.rsplit_once('@')?;
    Some((partition.parse().ok()?, Offset(at.parse().ok()?)))
}

fn text_of(marker: &Marker) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(marker).expect("a marker is plain data");
    text.push(b'\n');
    text
}

async fn create(store: &dyn ObjectStore, log: LogId) -> anyhow::Result<(Marker, bool)> {
    if let Some(object) = store.list(Some(&Path::from(TOPICS_DIR))).try_next().await? {
        bail!(
            "the landing folder holds {} but no {KEY}: some other program wrote it, and its offsets may be \
             those of another log; choose an empty folder",
            object.location
        );
    }
    let (begin_at, after_deletion) = (BTreeMap::new(), BTreeMap::new());
    let marker = Marker { format: FORMAT, log: log.id, begin_at, after_deletion };
    match store.put_opts(&Path::from(KEY), text_of(&marker).into(), PutMode::Create.into()).await {
        Ok(_) => Ok((marker, true)),
        // Another process was quicker.
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
            let marker =
                read_alone(store).await?.with_context(|| format!("{KEY} came and went while it was created"))?;
            Ok((marker, false))
        }
        Err(e) => Err(e).with_context(|| format!("{KEY} cannot be written to the landing folder")),
    }
}

//! `meta.json`: the log's identity and its topics, replaced as a whole and atomically. A topic
//! exists when it stands here; whether the last close was orderly stands here too.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use model::{LogId, TopicName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    embedded::OpenError,
    fs::{self, FileSystem},
};

pub(crate) const FILE_NAME: &str = "meta.json";
/// What this version writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) format_version: u32,
    pub(crate) id: Uuid,
    /// Grows with every start after a close that was not orderly.
    pub(crate) epoch: u32,
    /// Whether the last process closed the log.
    pub(crate) closed: bool,
    pub(crate) topics: BTreeMap<TopicName, u32>,
}

/// All that is sure to be readable in a file of any version.
#[derive(Deserialize)]
struct AnyVersion {
    format_version: u32,
}

impl Meta {
    pub(crate) fn new_log() -> Self {
        Self { format_version: FORMAT_VERSION, id: Uuid::new_v4(), epoch: 0, closed: true, topics: BTreeMap::new() }
    }

    pub(crate) fn log_id(&self) -> LogId {
        LogId { id: self.id, epoch: self.epoch }
    }

    /// `None` where no log was made yet.
    pub(crate) fn read(fs: &dyn FileSystem, dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = path(dir);
        let text = match fs::read(fs, &path) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            Err(source) => return Err(OpenError::Io { what: format!("cannot read {}", path.display()), source }),
        };
        let damaged = |e: serde_json::Error| OpenError::DamagedMeta { path: path.clone(), problem: e.to_string() };
        let AnyVersion { format_version } = serde_json::from_slice(&text).map_err(damaged)?;
        if format_version > FORMAT_VERSION {
            return Err(OpenError::NewerFormat { dir: dir.to_owned(), found: format_version });
        }
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    pub(crate) fn write(&self, fs: &dyn FileSystem, dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        fs::write_atomically(fs, &path(dir), &text)
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

//! `meta.json`: the log's identity and its topics, replaced as a whole and atomically. A topic
//! exists when it stands here; whether the last close was orderly stands here too.
//!
//! One digit that changed on the disk could hide partitions or make another log of this one; hence
//! a checksum.

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

/// What stands in the file.
#[derive(Serialize, Deserialize)]
struct Sealed {
    #[serde(flatten)]
    meta: Meta,
    /// CRC-32C of the rest as compact JSON; folders of before it was introduced have none.
    #[serde(default)]
    checksum: Option<u32>,
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
        let damaged = |problem: String| OpenError::DamagedMeta { path: path.clone(), problem };
        let no_meta = |e: serde_json::Error| damaged(e.to_string());
        let AnyVersion { format_version } = serde_json::from_slice(&text).map_err(no_meta)?;
        if format_version > FORMAT_VERSION {
            return Err(OpenError::NewerFormat { dir: dir.to_owned(), found: format_version });
        }
        let Sealed { meta, checksum } = serde_json::from_slice(&text).map_err(no_meta)?;
        let actual = meta.checksum().map_err(no_meta)?;
        match checksum {
            Some(written) if written != actual => Err(damaged(format!("its checksum is {actual}, not {written}"))),
            _ => Ok(Some(meta)),
        }
    }

    pub(crate) fn write(&self, fs: &dyn FileSystem, dir: &Path) -> io::Result<()> {
        let sealed = Sealed { meta: self.clone(), checksum: Some(self.checksum()?) };
        let mut text = serde_json::to_vec_pretty(&sealed)?;
        text.push(b'\n');
        fs::write_atomically(fs, &path(dir), &text)
    }

    fn checksum(&self) -> serde_json::Result<u32> {
        Ok(crc32c::crc32c(&serde_json::to_vec(self)?))
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

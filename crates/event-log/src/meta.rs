//! `meta.json`: the log's identity and its topics, replaced as a whole and atomically. A topic
//! exists when it stands here, and is deleted when it does not any more; where the offsets of
//! deleted partitions ended, and whether the last close was orderly, stands here too.
//!
//! One digit that changed on the disk could hide partitions or make another log of this one; hence
//! a checksum.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{Ended, LogError, LogId, Offset, TopicName, TopicPartition};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    embedded::OpenError,
    fs::{self, FileSystem},
    topics::end_at,
};

pub(crate) const FILE_NAME: &str = "meta.json";
/// What this version writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 2;
/// Deleted partitions that are remembered, in all: each makes every change of a topic write more.
const MAX_ENDED: usize = 100_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) format_version: u32,
    pub(crate) id: Uuid,
    /// Grows with every start after a close that was not orderly.
    pub(crate) epoch: u32,
    /// Whether the last process closed the log.
    pub(crate) closed: bool,
    pub(crate) topics: BTreeMap<TopicName, u32>,
    /// See `LogDescription`. Version 1 has none of it.
    #[serde(default, skip_serializing_if = "has_nothing")]
    pub(crate) ended: Ended,
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
        let (topics, ended) = Default::default();
        Self { format_version: FORMAT_VERSION, id: Uuid::new_v4(), epoch: 0, closed: true, topics, ended }
    }

    pub(crate) fn log_id(&self) -> LogId {
        LogId { id: self.id, epoch: self.epoch }
    }

    /// Whether the partition exists.
    pub(crate) fn holds(&self, id: &TopicPartition) -> bool {
        self.topics.get(&id.topic).is_some_and(|n_partitions| id.partition < *n_partitions)
    }

    /// Where the offsets of the partition ended when it was deleted last, if it ever was.
    pub(crate) fn ended(&self, id: &TopicPartition) -> Option<Offset> {
        self.ended.get(&id.topic)?.get(id.partition as usize).copied()
    }

    /// The first offset that the partition, as it is or would be now, may give to a record.
    pub(crate) fn begin(&self, id: &TopicPartition) -> Offset {
        self.ended(id).unwrap_or_default()
    }

    /// The same with so many partitions in the topic.
    pub(crate) fn with_topic(&self, topic: &TopicName, n_partitions: u32) -> Self {
        let mut after = self.clone();
        after.topics.insert(topic.clone(), n_partitions);
        after
    }

    /// The same without the topic, whose partitions end there. Those beyond, which an earlier life of
    /// the topic had, stay remembered.
    pub(crate) fn without_topic(&self, topic: &TopicName, ends: &[Offset]) -> Result<Self, LogError> {
        let mut after = self.clone();
        after.topics.remove(topic);
        end_at(Arc::make_mut(&mut after.ended).entry(topic.clone()).or_default(), ends);
        let n_ended: usize = after.ended.values().map(Vec::len).sum();
        if n_ended > MAX_ENDED {
            let what = "number of deleted partitions to be remembered";
            return Err(LogError::LimitExceeded { what, actual: n_ended as u64, limit: MAX_ENDED as u64 });
        }
        Ok(after)
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
        self.write_beside(fs, dir)?;
        Self::put_in_place(fs, dir)
    }

    /// The first half of a write: if it fails, nothing has changed.
    pub(crate) fn write_beside(&self, fs: &dyn FileSystem, dir: &Path) -> io::Result<()> {
        let sealed = Sealed { meta: self.clone(), checksum: Some(self.checksum()?) };
        let mut text = serde_json::to_vec_pretty(&sealed)?;
        text.push(b'\n');
        fs::write_beside(fs, &path(dir), &text)
    }

    /// The second half: if it fails, either may stand there.
    pub(crate) fn put_in_place(fs: &dyn FileSystem, dir: &Path) -> io::Result<()> {
        fs::put_in_place(fs, &path(dir))
    }

    fn checksum(&self) -> serde_json::Result<u32> {
        Ok(crc32c::crc32c(&serde_json::to_vec(self)?))
    }
}

fn has_nothing(ended: &Ended) -> bool {
    ended.is_empty()
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn ends_of_all_lives_are_remembered_within_bounds() {
        let topic: TopicName = "t".parse().unwrap();
        let ended = |meta: &Meta, p| meta.ended(&TopicPartition::new(topic.clone(), p)).map(|offset| offset.0);
        let meta = Meta::new_log().with_topic(&topic, 3).without_topic(&topic, &[5, 0, 7].map(Offset)).unwrap();
        let meta = meta.with_topic(&topic, 1).without_topic(&topic, &[9].map(Offset)).unwrap();
        assert_eq!([0, 1, 2, 3].map(|p| ended(&meta, p)), [Some(9), Some(0), Some(7), None]);

        let other: TopicName = "u".parse().unwrap();
        let most = vec![Offset::ZERO; MAX_ENDED - 3];
        assert!(meta.without_topic(&other, &most).is_ok());
        let refused = meta.without_topic(&other, &vec![Offset::ZERO; MAX_ENDED - 2]);
        assert!(matches!(refused, Err(LogError::LimitExceeded { .. })), "{refused:?}");
    }
}

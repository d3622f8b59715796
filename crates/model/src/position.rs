//! Where a record is: topic, partition, offset; and how far a reader has come.
//!
//! Ranges are half-open, `[start, end)`; a committed offset is the next one to read.

use std::{borrow::Borrow, collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A topic's name: 1 to 249 of `A-Z a-z 0-9 . _ -`, neither `.` nor `..`, so that it can
/// stand in a path, a key and a label as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(Arc<str>);

impl TopicName {
    pub const MAX_LEN: usize = 249;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it holds what the program remembers for itself: nobody else writes there, no layer
    /// takes it, and retention passes it by.
    pub fn is_internal(&self) -> bool {
        self.0.starts_with(INTERNAL_PREFIX)
    }
}

/// With what the names of internal topics begin.
pub const INTERNAL_PREFIX: &str = "__";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("topic name {0:?} is not allowed: use 1 to 249 of the characters A-Z a-z 0-9 . _ - (and neither '.' nor '..')")]
pub struct InvalidTopicName(pub String);

impl FromStr for TopicName {
    type Err = InvalidTopicName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let length_is_right = (1..=Self::MAX_LEN).contains(&name.len());
        if length_is_right && name != "." && name != ".." && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidTopicName(name.chars().take(Self::MAX_LEN + 1).collect()))
        }
    }
}

impl TryFrom<String> for TopicName {
    type Error = InvalidTopicName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<TopicName> for String {
    fn from(name: TopicName) -> Self {
        name.0.to_string()
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One partition of a topic; written `<topic>-<partition>`, as Kafka names its folders.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: TopicName,
    pub partition: u32,
}

impl TopicPartition {
    pub fn new(topic: TopicName, partition: u32) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not <topic>-<partition>")]
pub struct InvalidTopicPartition(String);

impl FromStr for TopicPartition {
    type Err = InvalidTopicPartition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidTopicPartition(text.to_owned());
        let (topic, digits) = text.rsplit_once('-').ok_or_else(invalid)?;
        let partition: u32 = digits.parse().map_err(|_| invalid())?;
        // One spelling only: no sign, no leading zeros.
        if partition.to_string() != digits {
            return Err(invalid());
        }
        Ok(Self::new(topic.parse().map_err(|_| invalid())?, partition))
    }
}

impl Serialize for TopicPartition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TopicPartition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The number of a record in its partition, dense from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    pub const ZERO: Self = Self(0);

    #[must_use]
    pub fn plus(self, n_records: usize) -> Self {
        Self(self.0 + n_records as u64)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a partition holds and shows: `start` is the log start offset, `end` the log end
/// offset, below which every record is on stable storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    pub start: Offset,
    pub end: Offset,
}

/// `[start, end)` of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRange {
    pub partition: TopicPartition,
    pub start: Offset,
    pub end: Offset,
}

impl OffsetRange {
    pub fn n_records(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }
}

/// Which log an offset belongs to. `id` is drawn when the log is created; `epoch` grows
/// with every start that had to cut or re-scan, so that a writer of the past is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    pub id: Uuid,
    pub epoch: u32,
}

impl LogId {
    /// The id of a landing folder that no log of ours wrote.
    pub const NONE: Self = Self { id: Uuid::nil(), epoch: 0 };
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.epoch)
    }
}

/// How far a reader has come: the next offset to read of each partition, in one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub log: LogId,
    pub next: BTreeMap<TopicPartition, Offset>,
}

impl Checkpoint {
    pub fn start_of(log: LogId) -> Self {
        Self { log, next: BTreeMap::new() }
    }

    /// The next offset to read; 0 for a partition not seen yet.
    pub fn next_of(&self, partition: &TopicPartition) -> Offset {
        self.next.get(partition).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_that_could_leave_their_folder_are_refused() {
        for name in ["", ".", "..", "a/b", "a\\b", "a b", "ü", "a\0", "a\n", "%2e", &"x".repeat(250)] {
            assert!(name.parse::<TopicName>().is_err(), "{name:?}");
        }
        for name in ["pin", "0a3.pin", "streaming-0a3-pin", "...", "_x", &"x".repeat(249)] {
            assert!(name.parse::<TopicName>().is_ok(), "{name:?}");
        }
    }

    #[test]
    fn two_underscores_make_a_topic_internal() {
        for (name, expected) in [("__groups", true), ("__", true), ("_groups", false), ("a__b", false)] {
            assert_eq!(name.parse::<TopicName>().expect(name).is_internal(), expected, "{name}");
        }
    }

    #[test]
    fn a_partition_reads_back_as_written() {
        for text in ["pin-0", "a-b-12", "-1-0"] {
            assert_eq!(text.parse::<TopicPartition>().expect(text).to_string(), text);
        }
        for text in ["pin", "pin-", "pin--", "pin-01", "pin-+1", "-0", "pin-4294967296"] {
            assert!(text.parse::<TopicPartition>().is_err(), "{text}");
        }
    }
}

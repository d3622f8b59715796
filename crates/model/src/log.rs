//! The durable partitioned log, as every other crate sees it.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    position::{Bounds, InvalidTopicName, LogId, Offset, OffsetRange, TopicName, TopicPartition},
    record::{Record, StoredRecord},
};

/// A log of topics and partitions. Every implementation runs `event_log::conformance`.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// The log's identity, its topics with their numbers of partitions, and where deleted ones ended.
    async fn describe(&self) -> Result<LogDescription, LogError>;

    /// Creates a topic, adds partitions to it, or deletes it, durably and as one step. A topic that
    /// is created again goes on with the offsets where it ended, so that no offset ever names two
    /// records.
    async fn change_topic(&self, topic: &TopicName, change: TopicChange) -> Result<(), LogError>;

    /// Appends all records next to each other, in order; when it returns they are on stable
    /// storage, and a reader sees them. An error other than `Unavailable` means that none was
    /// appended. `Unavailable` with `outcome_unknown` may still show up later. An append that meets
    /// the topic's deletion is stored before it, or refused as `UnknownTopic`.
    async fn append(&self, partition: &TopicPartition, records: Vec<Record>) -> Result<OffsetRange, LogError>;

    /// Records from `from` on, at most about `max_bytes` of them but at least one; empty at
    /// the log end offset; `OutOfRange` below the log start offset or above the end.
    async fn fetch(
        &self,
        partition: &TopicPartition,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Vec<StoredRecord>, LogError>;

    /// The log start and log end offset.
    async fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError>;

    /// Allows the log to forget what lies below `before`; the log start offset rises to at
    /// most `before`, and never falls.
    async fn trim(&self, partition: &TopicPartition, before: Offset) -> Result<(), LogError>;

    /// A number that changes whenever anything became readable or a topic changed. A wake-up, no
    /// data (I2).
    fn moved(&self) -> watch::Receiver<u64>;
}

/// What may become of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicChange {
    /// `TopicExists` if it is there already.
    Create { n_partitions: u32 },
    /// Nothing happens if it has so many already; `FewerPartitions` if it has more.
    Grow { n_partitions: u32 },
    /// With all its records, whether a layer has taken them or not.
    Delete,
    /// The same, as long as the log end offsets of its partitions still add up to this: who has seen
    /// to it that all below them is taken loses nothing that came since. `TopicGrew` otherwise.
    DeleteUnlessGrown { sum_of_ends: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDescription {
    pub id: LogId,
    pub topics: BTreeMap<TopicName, u32>,
    /// Of topics that were ever deleted, created again or not: per partition, where its offsets ended
    /// when it was deleted last.
    pub ended: Ended,
}

pub type Ended = Arc<BTreeMap<TopicName, Vec<Offset>>>;

impl LogDescription {
    /// Every partition of every topic, in order.
    pub fn partitions(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.topics.iter().flat_map(|(topic, n)| (0..*n).map(|p| TopicPartition::new(topic.clone(), p)))
    }

    /// Every partition that once had records and is there no more.
    pub fn deleted(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.ended.iter().flat_map(|(topic, ends)| {
            let n_partitions = self.topics.get(topic).copied().unwrap_or_default();
            let gone = (0..).zip(ends).filter(move |(p, end)| *p >= n_partitions && **end > Offset::ZERO);
            gone.map(|(p, _)| TopicPartition::new(topic.clone(), p))
        })
    }

    /// The first offset of a partition's present life: what came before went when its topic was deleted.
    pub fn begin(&self, partition: &TopicPartition) -> Offset {
        let ends = self.ended.get(&partition.topic);
        ends.and_then(|ends| ends.get(partition.partition as usize)).copied().unwrap_or_default()
    }
}

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("topic {0} does not exist")]
    UnknownTopic(TopicName),
    #[error("partition {0} does not exist")]
    UnknownPartition(TopicPartition),
    #[error("topic {0} exists already")]
    TopicExists(TopicName),
    /// More was appended to it, or a partition added, since its ends were asked for.
    #[error("topic {0} has grown meanwhile")]
    TopicGrew(TopicName),
    #[error("topic {topic} has {actual} partitions and cannot have {asked}: partitions are only added")]
    FewerPartitions { topic: TopicName, actual: u32, asked: u32 },
    #[error(transparent)]
    InvalidTopic(#[from] InvalidTopicName),
    #[error("{what} is {actual}, allowed are {limit}")]
    LimitExceeded { what: &'static str, actual: u64, limit: u64 },
    #[error("offset {asked} of {partition} is out of range: it holds [{}, {})", bounds.start, bounds.end)]
    OutOfRange { partition: TopicPartition, asked: Offset, bounds: Bounds },
    #[error("a record of {actual_bytes} bytes is larger than the limit of {limit_bytes} bytes")]
    TooLarge { actual_bytes: usize, limit_bytes: usize },
    /// The log cannot serve this now; a later try may succeed.
    #[error("the log is unavailable: {reason}")]
    Unavailable { reason: String, outcome_unknown: bool },
    /// Bytes on disk are not what was written; what the range held is lost or quarantined.
    #[error("{} [{}, {}) is corrupt: {reason}", range.partition, range.start, range.end)]
    Corrupt { range: OffsetRange, reason: String },
}

impl LogError {
    /// Whether the topic, or this partition of it, is there no more: it was deleted, which is no trouble
    /// to whoever follows it.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::UnknownTopic(_) | Self::UnknownPartition(_))
    }

    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), outcome_unknown: false }
    }
}

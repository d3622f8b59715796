//! Logs in temporary folders, with settings small enough to meet every limit.

use std::{path::Path, sync::Arc};

use event_log::{
    EmbeddedLog, OpenError,
    fs::FileSystem,
    inspect::{self, Depth, PartitionReport},
};
use model::{
    Bounds, EventLog, LogError, Offset, OffsetRange, Record, StoredRecord, Timestamp, TopicChange, TopicPartition,
    config::{Config, LogConfig},
};

pub(crate) const MAX_RECORD_BYTES: usize = 4096;

/// Segments of 16 KiB, an index entry for every KiB.
pub(crate) fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 16 << 10,
        index_interval_bytes: 1 << 10,
        mark_interval_bytes: 8 << 10,
        max_group_bytes: 8 << 10,
        max_queue_bytes: 1 << 20,
        max_open_files: 8,
        retention_ms: 0,
        retention_bytes: 0,
    }
}

pub(crate) fn default_config() -> LogConfig {
    Config::defaults().log
}

pub(crate) fn open(dir: &Path) -> EmbeddedLog {
    EmbeddedLog::open(dir, &small(), MAX_RECORD_BYTES).unwrap()
}

pub(crate) fn open_on(fs: Arc<dyn FileSystem>, dir: &Path) -> Result<EmbeddedLog, OpenError> {
    EmbeddedLog::open_on(fs, dir, &small(), MAX_RECORD_BYTES)
}

pub(crate) fn partition(text: &str) -> TopicPartition {
    text.parse().unwrap()
}

pub(crate) async fn create(log: &dyn EventLog, topic: &str, n_partitions: u32) -> Result<(), LogError> {
    log.change_topic(&topic.parse().unwrap(), TopicChange::Create { n_partitions }).await
}

/// The topic `t` with one partition.
pub(crate) async fn create_t(log: &dyn EventLog) -> TopicPartition {
    create(log, "t", 1).await.unwrap();
    partition("t-0")
}

/// A record that can be recomputed from its number.
pub(crate) fn record(n: u64) -> Record {
    let text = format!("{n}:").repeat(1 + (n % 13) as usize * 3);
    Record { value: Some(text.into()), timestamp: Timestamp(1_700_000_000_000 + n as i64), ..Record::default() }
}

pub(crate) fn records(numbers: std::ops::Range<u64>) -> Vec<Record> {
    numbers.map(record).collect()
}

/// Appends `record(end)` and so on, in appends of `n`, until the partition ends at `until`.
pub(crate) async fn fill(log: &dyn EventLog, partition: &TopicPartition, n: u64, until: u64) {
    let mut end = log.bounds(partition).await.unwrap().end.0;
    while end < until {
        let range = log.append(partition, records(end..(end + n).min(until))).await.unwrap();
        assert_eq!(range.start, Offset(end));
        end = range.end.0;
    }
}

pub(crate) fn range(partition: &TopicPartition, start: u64, end: u64) -> OffsetRange {
    OffsetRange { partition: partition.clone(), start: Offset(start), end: Offset(end) }
}

/// What stands in one partition's folder.
pub(crate) fn describe_partition(dir: &Path, id: &TopicPartition, depth: Depth) -> PartitionReport {
    let mut report = inspect::describe(dir, depth).unwrap();
    let at = report.partitions.iter().position(|p| p.partition == *id).unwrap();
    report.partitions.swap_remove(at)
}

/// What reading a partition from end to end came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) records: Vec<StoredRecord>,
    /// Ranges that were named as corrupt instead of being read.
    pub(crate) corrupt: Vec<(u64, u64)>,
}

/// Reads everything, stepping over what is named as corrupt. Panics at a gap, an overlap or any
/// other error.
pub(crate) async fn read_over_damage(log: &dyn EventLog, partition: &TopicPartition) -> Reading {
    let Bounds { start, end } = log.bounds(partition).await.unwrap();
    let (mut next, mut reading) = (start, Reading::default());
    while next < end {
        match log.fetch(partition, next, 20_000).await {
            Ok(records) => {
                assert!(!records.is_empty(), "nothing at {next} below the end {end}");
                for stored in records {
                    assert_eq!(stored.offset, next);
                    next = next.plus(1);
                    reading.records.push(stored);
                }
            }
            Err(LogError::Corrupt { range, .. }) => {
                assert!(range.start <= next && next < range.end, "{range:?} does not hold {next}");
                reading.corrupt.push((next.0, range.end.0));
                next = range.end;
            }
            Err(e) => panic!("at {next}: {e}"),
        }
    }
    assert_eq!(next, end);
    reading
}

/// Reads everything; all of it must be `record(offset)`.
pub(crate) async fn check_all(log: &dyn EventLog, partition: &TopicPartition) -> Bounds {
    let reading = read_over_damage(log, partition).await;
    assert_eq!(reading.corrupt, []);
    check_content(&reading);
    log.bounds(partition).await.unwrap()
}

pub(crate) fn check_content(reading: &Reading) {
    for stored in &reading.records {
        assert_eq!(stored.record, record(stored.offset.0), "at {}", stored.offset);
    }
}

//! Where micro-batches go: rows and the offsets they cover, committed in one transaction (I3).

pub mod conformance;
pub mod delta;
pub mod memory;

use async_trait::async_trait;
use datafusion::arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute,
    datatypes::{Int32Type, Int64Type},
};
use model::{Checkpoint, OffsetRange, TopicPartition};

pub use crate::table::{CommitError, Committed};
pub use delta::DeltaSink;
pub use memory::MemorySink;

/// Rows and the ranges of offsets that they are all the rows of. A range may have no rows.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    pub ranges: Vec<OffsetRange>,
    /// With the position columns of `decode::POSITION`.
    pub rows: RecordBatch,
}

/// Keeps rows. Every implementation runs `sink::conformance`.
#[async_trait]
pub trait Sink: Send {
    /// The next offsets that the sink takes in; a partition it has never seen is missing, and
    /// its first range may start anywhere.
    async fn checkpoint(&mut self, partitions: &[TopicPartition]) -> anyhow::Result<Checkpoint>;

    /// Keeps the rows and moves the checkpoint to the ranges' ends, both or neither. Ranges
    /// that all lie behind the checkpoint are a no-op; a gap or an overlap is an error.
    async fn commit(&mut self, batch: MicroBatch) -> Result<Committed, CommitError>;
}

impl MicroBatch {
    /// What of this batch lies at or above the checkpoint; None if nothing does.
    #[must_use]
    pub fn beyond(&self, checkpoint: &Checkpoint) -> Option<Self> {
        let mut ranges = Vec::new();
        let mut is_cut = false;
        for range in &self.ranges {
            let next = checkpoint.next.get(&range.partition).copied().unwrap_or(range.start);
            let start = range.start.max(next);
            is_cut |= start != range.start;
            if start < range.end {
                ranges.push(OffsetRange { start, ..range.clone() });
            }
        }
        if ranges.is_empty() {
            return None;
        }
        let rows = if is_cut { keep_at_or_above(&self.rows, checkpoint) } else { self.rows.clone() };
        Some(Self { ranges, rows })
    }
}

/// The rows whose offset is not below the checkpoint of their partition.
pub fn keep_at_or_above(rows: &RecordBatch, checkpoint: &Checkpoint) -> RecordBatch {
    let is_kept: BooleanArray = positions(rows)
        .map(|(topic, partition, offset)| {
            let next = checkpoint
                .next
                .iter()
                .find(|(p, _)| p.partition == partition && p.topic.as_str() == topic)
                .map_or(0, |(_, next)| next.0);
            Some(offset >= next)
        })
        .collect();
    compute::filter_record_batch(rows, &is_kept).expect("the mask has a value per row")
}

/// Topic, partition and offset of each row.
fn positions(rows: &RecordBatch) -> impl Iterator<Item = (&str, u32, u64)> {
    let column = |name: &str| rows.column_by_name(name).expect("rows carry their positions");
    let topics = column("_topic").as_string_view();
    let partitions = column("_partition").as_primitive::<Int32Type>();
    let offsets = column("_offset").as_primitive::<Int64Type>();
    debug_assert_eq!(topics.null_count(), 0);
    (0..rows.num_rows()).map(move |i| (topics.value(i), partitions.value(i) as u32, offsets.value(i) as u64))
}

//! Records of one partition by offset, fetched ahead in chunks.

use std::collections::VecDeque;

use anyhow::bail;
use model::{EventLog, Offset, Record, StoredRecord, TopicPartition};

/// Bytes of records asked of the log at a time.
const FETCH_BYTES: usize = 1 << 20;

/// Reads a partition below a fixed end.
pub(super) struct Reader<'a> {
    log: &'a dyn EventLog,
    partition: &'a TopicPartition,
    end: Offset,
    fetched: VecDeque<StoredRecord>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(log: &'a dyn EventLog, partition: &'a TopicPartition, end: Offset) -> Self {
        Self { log, partition, end, fetched: VecDeque::new() }
    }

    /// The record at `offset`; `None` at the end. Cheap for rising offsets.
    pub(super) async fn at(&mut self, offset: Offset) -> anyhow::Result<Option<&Record>> {
        if offset >= self.end {
            return Ok(None);
        }
        while self.fetched.front().is_some_and(|first| first.offset < offset) {
            self.fetched.pop_front();
        }
        if self.fetched.front().is_none_or(|first| first.offset != offset) {
            self.fetched = self.log.fetch(self.partition, offset, FETCH_BYTES).await?.into();
        }
        match self.fetched.front() {
            Some(first) if first.offset == offset => Ok(Some(&first.record)),
            // A landing object's lines give the offsets by their number: no hole can be landed.
            other => bail!(
                "the log of {} gives {} where the record at offset {offset} was asked for, below its end {}",
                self.partition,
                other.map_or_else(|| "nothing".to_owned(), |first| format!("offset {}", first.offset)),
                self.end
            ),
        }
    }
}

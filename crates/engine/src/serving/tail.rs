//! The tail of one stream: what the log holds beyond the tables, cleaned on the spot. Cleaned
//! pieces are kept until a table has them, so that each record is cleaned once and not once
//! per question; the log stays the truth, and a piece that does not fit is read anew.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use anyhow::Result;
use datafusion::arrow::array::RecordBatch;
use model::{Checkpoint, EventLog, LogId, Offset, OffsetRange, TopicPartition};

use crate::{
    cleaning::{Cleaning, rejects_batch},
    decode::Decoder,
    landing::line,
    sink::keep_at_or_above,
};

/// A last piece smaller than this is cleaned again with what follows it, so that questions
/// that come often do not leave a great many small ones.
const SMALL_PIECE_BYTES: usize = 64 << 10;
/// Bytes of the log read and cleaned at a time.
const PIECE_BYTES: usize = 4 << 20;

pub struct Tail {
    cleaning: Arc<Cleaning>,
    max_bytes: usize,
    partitions: BTreeMap<TopicPartition, VecDeque<Piece>>,
}

/// Cleaned records of one range of offsets.
struct Piece {
    range: OffsetRange,
    /// Bytes of its records.
    n_bytes: usize,
    /// Bytes that it takes in memory.
    size_bytes: usize,
    rows: RecordBatch,
    rejects: RecordBatch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    Rows,
    Rejects,
}

pub struct Read {
    pub batches: Vec<RecordBatch>,
    pub through: Offset,
    /// Whether `through` is the log end offset.
    pub is_complete: bool,
}

impl Tail {
    pub fn new(cleaning: Arc<Cleaning>, max_bytes: usize) -> Self {
        Self { cleaning, max_bytes, partitions: BTreeMap::new() }
    }

    /// The cleaned records of a partition from `from` to the log end offset, as far as the
    /// byte limit allows.
    pub async fn read(
        &mut self,
        log: &dyn EventLog,
        partition: &TopicPartition,
        from: Offset,
        want: Want,
    ) -> Result<Read> {
        let end = log.bounds(partition).await?.end;
        self.forget_below(partition, from);
        let mut through = self.pieces(partition).back().map_or(from, |p| p.range.end);
        if through < end
            && let Some(small) = self.pieces(partition).pop_back_if(|p| p.n_bytes < SMALL_PIECE_BYTES)
        {
            through = small.range.start.max(from);
        }
        while through < end && self.size_bytes() < self.max_bytes {
            let Some(piece) = self.clean(log, partition, through, end).await? else { break };
            through = piece.range.end;
            self.pieces(partition).push_back(piece);
        }
        let mut batches = Vec::new();
        for piece in self.pieces(partition).iter() {
            let batch = if want == Want::Rows { &piece.rows } else { &piece.rejects };
            if piece.range.start >= from {
                batches.push(batch.clone());
            } else {
                let next = BTreeMap::from([(partition.clone(), from)]);
                batches.push(keep_at_or_above(batch, &Checkpoint { log: LogId::NONE, next }));
            }
        }
        Ok(Read { batches, through, is_complete: through >= end })
    }

    /// Rows from `from` on and below `end`, cleaned anew and not kept, and the offset after them; None
    /// if there is nothing more.
    pub async fn rows_between(
        &self,
        log: &dyn EventLog,
        partition: &TopicPartition,
        from: Offset,
        end: Offset,
    ) -> Result<Option<(RecordBatch, Offset)>> {
        if from >= end {
            return Ok(None);
        }
        let piece = self.clean(log, partition, from, end).await?;
        Ok(piece.map(|piece| (piece.rows, piece.range.end)))
    }

    async fn clean(
        &self,
        log: &dyn EventLog,
        partition: &TopicPartition,
        from: Offset,
        end: Offset,
    ) -> Result<Option<Piece>> {
        let records = log.fetch(partition, from, PIECE_BYTES).await?;
        let mut decoder = Decoder::new(self.cleaning.stream());
        let mut next = from;
        // What was appended after `end` was read belongs to a later question.
        for stored in records.iter().filter(|r| r.offset < end) {
            decoder.push(partition, stored.offset, &line::canonical(&stored.record));
            next = stored.offset.plus(1);
        }
        if next == from {
            return Ok(None);
        }
        let n_bytes = decoder.size_bytes();
        let cleaned = self.cleaning.apply(decoder.finish())?;
        let range = OffsetRange { partition: partition.clone(), start: from, end: next };
        let (rows, rejects) = (cleaned.rows, rejects_batch(&cleaned.rejects));
        let size_bytes = rows.get_array_memory_size() + rejects.get_array_memory_size();
        Ok(Some(Piece { range, n_bytes, size_bytes, rows, rejects }))
    }

    /// Lets go of partitions that are there no more: their pieces would take the others' room for good.
    pub fn keep(&mut self, is_there: impl Fn(&TopicPartition) -> bool) {
        self.partitions.retain(|partition, _| is_there(partition));
    }

    /// Lets go of the pieces that a table has. Rows and rejects have tables of their own, so
    /// a question for the one may let go of what the other reads again.
    fn forget_below(&mut self, partition: &TopicPartition, from: Offset) {
        let pieces = self.pieces(partition);
        while pieces.front().is_some_and(|p| p.range.end <= from) {
            pieces.pop_front();
        }
        if pieces.front().is_some_and(|p| p.range.start > from) {
            pieces.clear();
        }
    }

    fn pieces(&mut self, partition: &TopicPartition) -> &mut VecDeque<Piece> {
        self.partitions.entry(partition.clone()).or_default()
    }

    fn size_bytes(&self) -> usize {
        self.partitions.values().flatten().map(|p| p.size_bytes).sum()
    }
}

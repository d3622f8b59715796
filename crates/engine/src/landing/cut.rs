//! Where one landing object ends and the next begins. It depends on the records alone, so
//! that a lander that starts at the same offset cuts in the same places, today and after a
//! crash; only what is not cut yet may be flushed by the clock.

use bytes::Bytes;
use model::{Offset, Record, Timestamp, config::LandingConfig};
use object_store::{PutPayload, PutPayloadMut};

/// Bytes per block of an open object.
const BLOCK_BYTES: usize = 1 << 20;

/// An object that is being filled.
pub(super) struct Open<'a> {
    config: &'a LandingConfig,
    start: Offset,
    n_records: usize,
    first: Timestamp,
    lines: PutPayloadMut,
}

impl<'a> Open<'a> {
    pub(super) fn at(start: Offset, config: &'a LandingConfig) -> Self {
        let lines = PutPayloadMut::new().with_block_size(BLOCK_BYTES);
        Self { config, start, n_records: 0, first: Timestamp::default(), lines }
    }

    /// The offset of the record that comes next.
    pub(super) fn next(&self) -> Offset {
        self.start.plus(self.n_records)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.n_records == 0
    }

    /// Takes the record in, unless it begins the next object.
    pub(super) fn take(&mut self, record: &Record, line: &Bytes) -> bool {
        if self.n_records == 0 {
            self.first = record.timestamp;
        } else if self.is_over_before(record.timestamp, line.len() + 1) {
            return false;
        }
        self.lines.extend_from_slice(line);
        self.lines.extend_from_slice(b"\n");
        self.n_records += 1;
        true
    }

    fn is_over_before(&self, timestamp: Timestamp, line_bytes: usize) -> bool {
        let span_ms = timestamp.0.saturating_sub(self.first.0);
        let is_late = u64::try_from(span_ms).is_ok_and(|span| span >= self.config.rotate_interval_ms);
        is_late || self.lines.content_length() + line_bytes > self.config.max_object_bytes
    }

    pub(super) fn is_full(&self) -> bool {
        self.n_records >= self.config.flush_size
    }

    pub(super) fn close(self) -> Closed {
        Closed { start: self.start, n_records: self.n_records, lines: self.lines.freeze() }
    }
}

/// An object ready to be written.
pub(super) struct Closed {
    pub(super) start: Offset,
    pub(super) n_records: usize,
    pub(super) lines: PutPayload,
}

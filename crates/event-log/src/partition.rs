//! What readers see of a partition: its bounds, its segments, and the records in them.
//!
//! Only the partition's writer changes any of this, and only after the bytes are on stable
//! storage; a reader takes no lock for longer than a look at the map of segments.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use model::{Bounds, LogError, Offset, OffsetRange, StoredRecord, TopicPartition};

use crate::{
    files::Files,
    format::{self, Damage},
    quarantine::{Quarantine, Quarantined},
    segment::Segment,
    walk::{Found, Walk},
};

pub(crate) struct Partition {
    pub(crate) id: TopicPartition,
    pub(crate) dir: PathBuf,
    pub(crate) files: Arc<Files>,
    pub(crate) index_interval_bytes: u64,
    pub(crate) quarantine: Quarantine,
    start: AtomicU64,
    end: AtomicU64,
    is_deleted: AtomicBool,
    segments: RwLock<BTreeMap<Offset, Arc<Segment>>>,
}

/// One look at the records from an offset on.
enum Looked {
    Records(Vec<StoredRecord>),
    /// The segment's file went away: it was trimmed since we looked at the map.
    Gone,
}

impl Partition {
    pub(crate) fn new(
        id: TopicPartition,
        dir: PathBuf,
        files: Arc<Files>,
        index_interval_bytes: u64,
        quarantine: Quarantine,
    ) -> Self {
        let (start, end, is_deleted, segments) = Default::default();
        Self { id, dir, files, index_interval_bytes, quarantine, start, end, is_deleted, segments }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        // The end first: a trim between the two must not show a start above the end.
        let end = self.end();
        Bounds { start: Offset(self.start.load(Ordering::Acquire)).min(end), end }
    }

    pub(crate) fn end(&self) -> Offset {
        Offset(self.end.load(Ordering::Acquire))
    }

    /// The records below are on stable storage, and `Segment::publish` was called for them.
    pub(crate) fn publish_end(&self, end: Offset) {
        self.end.store(end.0, Ordering::Release);
    }

    pub(crate) fn publish_start(&self, start: Offset) {
        self.start.store(start.0, Ordering::Release);
    }

    pub(crate) fn add_segment(&self, segment: Arc<Segment>) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(segment.base, segment);
    }

    pub(crate) fn remove_segment(&self, base: Offset) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).remove(&base);
    }

    /// All segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The segment that holds `offset` if any does, and where the next one begins.
    fn segment_of(&self, offset: Offset) -> (Option<Arc<Segment>>, Option<Offset>) {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let holding = segments.range(..=offset).next_back().map(|(_, s)| Arc::clone(s));
        let next = segments.range(offset.plus(1)..).next().map(|(base, _)| *base);
        (holding, next)
    }

    /// The topic is deleted; the files go next. Who reads on from before that hears of it.
    pub(crate) fn end_with_topic(&self) {
        self.is_deleted.store(true, Ordering::Release);
        self.quarantine.end();
    }

    /// Blocks. The contract is that of `EventLog::fetch`.
    pub(crate) fn fetch(&self, from: Offset, max_bytes: usize) -> Result<Vec<StoredRecord>, LogError> {
        let fetched = self.fetch_from_segments(from, max_bytes);
        if !self.is_deleted.load(Ordering::Acquire) {
            return fetched;
        }
        // Opened while they were deleted.
        self.files.forget_in(&self.dir);
        fetched.map_err(|_| LogError::UnknownTopic(self.id.topic.clone()))
    }

    fn fetch_from_segments(&self, from: Offset, max_bytes: usize) -> Result<Vec<StoredRecord>, LogError> {
        loop {
            let bounds = self.bounds();
            if from < bounds.start || from > bounds.end {
                return Err(LogError::OutOfRange { partition: self.id.clone(), asked: from, bounds });
            }
            if from == bounds.end {
                return Ok(Vec::new());
            }
            match self.look(from, bounds.end, max_bytes)? {
                Looked::Records(records) => return Ok(records),
                Looked::Gone if self.bounds().start > from => {}
                Looked::Gone => return Err(self.corrupt(from, bounds.end, "its segment is missing")),
            }
        }
    }

    fn look(&self, from: Offset, end: Offset, max_bytes: usize) -> Result<Looked, LogError> {
        let (segment, next_base) = self.segment_of(from);
        let segment_end = next_base.unwrap_or(end).min(end);
        let Some(segment) = segment else {
            if self.bounds().start > from {
                return Ok(Looked::Gone);
            }
            return Err(self.corrupt(from, segment_end, "the segment before the first one is missing"));
        };
        let read_error = |e: io::Error| LogError::unavailable(format!("cannot read {}: {e}", segment.path.display()));
        let file = match self.files.get(&segment.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Looked::Gone),
            opened => opened.map_err(read_error)?,
        };
        let window_bytes = (max_bytes as u64).saturating_add(2 * self.index_interval_bytes);
        if self.bounds().start > from {
            // Opened, it may be, while it was deleted.
            self.files.forget(&segment.path);
        }
        let mut walk = segment.walk_to(&self.files, &*file, from, window_bytes).map_err(read_error)?;
        self.collect(&mut walk, from, segment_end, max_bytes, read_error).map(Looked::Records)
    }

    fn collect(
        &self,
        walk: &mut Walk<'_>,
        from: Offset,
        segment_end: Offset,
        max_bytes: usize,
        read_error: impl Fn(io::Error) -> LogError,
    ) -> Result<Vec<StoredRecord>, LogError> {
        let (mut records, mut n_bytes) = (Vec::new(), 0usize);
        loop {
            let hole_start = walk.expected();
            let reason = match walk.next().map_err(&read_error)? {
                Found::Batch(batch) if batch.header.next() <= from => continue,
                Found::Batch(batch) => match format::decode(&batch.header, &batch.bytes) {
                    Ok(decoded) => {
                        for record in decoded.into_iter().filter(|d| d.stored.offset >= from) {
                            if !records.is_empty() && n_bytes + record.size_bytes > max_bytes {
                                return Ok(records);
                            }
                            n_bytes += record.size_bytes;
                            records.push(record.stored);
                        }
                        if n_bytes >= max_bytes || walk.expected() >= segment_end {
                            return Ok(records);
                        }
                        continue;
                    }
                    Err(Damage(reason)) => {
                        if records.is_empty() {
                            return Err(self.corrupt(hole_start, batch.header.next(), &reason));
                        }
                        return Ok(records);
                    }
                },
                Found::End => "the segment ends too early".to_owned(),
                Found::Damaged(Damage(reason)) => reason,
            };
            if !records.is_empty() {
                return Ok(records);
            }
            let hole_end = if walk.skip_damage().map_err(&read_error)? { walk.expected() } else { segment_end };
            let error = self.corrupt(hole_start, hole_end.min(segment_end), &reason);
            if from < hole_end {
                return Err(error);
            }
        }
    }

    /// Quarantines the range and gives the error that names it.
    pub(crate) fn corrupt(&self, start: Offset, end: Offset, reason: &str) -> LogError {
        self.quarantine.add(&self.id, Quarantined { start, end, reason: reason.to_owned() });
        let range = OffsetRange { partition: self.id.clone(), start, end };
        LogError::Corrupt { range, reason: reason.to_owned() }
    }
}

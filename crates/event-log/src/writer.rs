//! The one owner of what changes in a partition: it writes group commits, rolls, trims, retains.
//!
//! A group is written, synced, published, marked and then acknowledged, in that order. After a
//! failed write or sync nothing is acknowledged until the segment was cut back to its durable
//! end, opened anew and read again from the device: a page that could not be written may look
//! clean in memory. All calls block.

use std::{
    io::{self, ErrorKind, IoSlice},
    path::Path,
    sync::Arc,
};

use model::{LogError, Offset, OffsetRange, Timestamp, config::LogConfig};
use tokio::sync::{oneshot, watch};

use crate::{
    format::EncodedBatch,
    mark::{Mark, MarkFile},
    partition::Partition,
    segment::{IndexBuilder, MAX_SEGMENT_BYTES, Segment, WALK_WINDOW_BYTES},
    walk::{Found, Walk},
};

/// A segment grows by as much as it holds, within these bounds: blocks allocated ahead make
/// `fdatasync` cheap, and a small topic stays small.
const MIN_AHEAD_BYTES: u64 = 256 << 10;
const MAX_AHEAD_BYTES: u64 = 16 << 20;
/// A group no larger than this takes zeros along, for the blocks behind it: a file system has to note
/// when allocated blocks are written for the first time, and that note is most of what syncing a
/// small group costs. Larger groups would pay more for the zeros than they save.
const SMALL_GROUP_BYTES: u64 = 16 << 10;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Records that wait to be written, already encoded, at most `segment_bytes` of them.
pub(crate) struct Append {
    pub(crate) batches: Vec<EncodedBatch>,
    pub(crate) n_records: usize,
    pub(crate) size_bytes: usize,
    pub(crate) reply: AppendReply,
}

type AppendReply = oneshot::Sender<Result<OffsetRange, LogError>>;

pub(crate) struct Replies(Vec<(AppendReply, Result<OffsetRange, LogError>)>);

impl Replies {
    pub(crate) fn send(self) {
        for (reply, result) in self.0 {
            // A caller that no longer waits has its records appended all the same.
            let _ = reply.send(result);
        }
    }
}

/// What retention deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    pub n_deleted_segments: u64,
    pub deleted_bytes: u64,
}

pub(crate) struct Writer {
    partition: Arc<Partition>,
    config: Arc<LogConfig>,
    moved: watch::Sender<u64>,
    marks: MarkFile,
    /// The log start offset.
    start: Offset,
    /// The log end offset: everything below is on stable storage.
    next: Offset,
    active: Option<Active>,
    /// Why `active` must be opened anew before anything is written to it.
    failure: Option<String>,
    synced_mark: Mark,
    mark_is_failing: bool,
}

/// The segment that grows.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    /// Bytes that are on stable storage; the next batch goes there.
    pub(crate) written: u64,
    pub(crate) allocated: u64,
    /// Up to here blocks have been written, if only with zeros.
    pub(crate) zeroed: u64,
    pub(crate) group: u32,
    pub(crate) index: IndexBuilder,
    pub(crate) n_index_entries: usize,
}

/// Why a group was not committed.
struct Failure {
    reason: String,
    outcome_unknown: bool,
}

/// Nothing was written, and no harm is done.
fn refused(what: &str, path: &Path) -> impl Fn(io::Error) -> Failure {
    move |e| Failure { reason: format!("cannot {what} {}: {e}", path.display()), outcome_unknown: false }
}

impl Writer {
    /// Goes on after `mark`, which recovery made sure of; `active` has room or is `None`.
    pub(crate) fn new(
        partition: Arc<Partition>,
        config: Arc<LogConfig>,
        moved: watch::Sender<u64>,
        marks: MarkFile,
        mark: Mark,
        active: Option<Active>,
    ) -> Self {
        let (start, next) = (mark.start, mark.end);
        let (failure, mark_is_failing) = Default::default();
        Self { partition, config, moved, marks, start, next, active, failure, synced_mark: mark, mark_is_failing }
    }

    /// Commits the group; the replies say what became of each append.
    pub(crate) fn append(&mut self, mut group: Vec<Append>) -> Replies {
        let mut start = self.next;
        let outcome = self.write_group(&mut group);
        if start < self.next {
            self.moved.send_modify(|n| *n += 1);
        }
        let reply = |append: Append| {
            let end = start.plus(append.n_records);
            let result = match &outcome {
                _ if end <= self.next => Ok(OffsetRange { partition: self.partition.id.clone(), start, end }),
                Err(Failure { reason, outcome_unknown }) => {
                    Err(LogError::Unavailable { reason: reason.clone(), outcome_unknown: *outcome_unknown })
                }
                Ok(()) => unreachable!("a committed group reaches up to its last append"),
            };
            start = end;
            (append.reply, result)
        };
        Replies(group.into_iter().map(reply).collect())
    }

    fn write_group(&mut self, mut rest: &mut [Append]) -> Result<(), Failure> {
        self.make_ready()?;
        while !rest.is_empty() {
            let n_fitting = self.n_fitting(rest);
            if n_fitting == 0 {
                self.roll()?;
                continue;
            }
            let (run, later) = rest.split_at_mut(n_fitting);
            self.write_run(run)?;
            rest = later;
        }
        Ok(())
    }

    /// How many of the appends the active segment has room for: an append is never split over
    /// two segments, so that it is there as a whole or not at all.
    fn n_fitting(&self, appends: &[Append]) -> usize {
        let Some(active) = &self.active else { return 0 };
        let limit = self.config.segment_bytes.min(MAX_SEGMENT_BYTES);
        let (mut bytes, mut last_delta) = (active.written, self.next.0 - active.segment.base.0);
        let fits = appends.iter().take_while(|append| {
            bytes += append.size_bytes as u64;
            last_delta += append.n_records as u64;
            bytes <= limit && last_delta <= i32::MAX as u64
        });
        let n_fitting = fits.count();
        if active.written == 0 { n_fitting.max(1) } else { n_fitting }
    }

    fn write_run(&mut self, run: &mut [Append]) -> Result<(), Failure> {
        let active = self.active.as_mut().expect("a run goes to the active segment");
        let path = active.segment.path.clone();
        let group = active.group.wrapping_add(1).max(1);
        let mut next = self.next;
        let mut n_bytes = 0;
        for batch in run.iter_mut().flat_map(|a| &mut a.batches) {
            batch.place(next, group);
            next = next.plus(batch.n_records());
            n_bytes += batch.bytes().len() as u64;
        }
        let file = self.partition.files.get(&path).map_err(refused("open", &path))?;
        let needed = active.written + n_bytes;
        if needed > active.allocated {
            let ahead = needed + needed.clamp(MIN_AHEAD_BYTES, MAX_AHEAD_BYTES);
            let ahead = ahead.min(self.config.segment_bytes).max(needed);
            active.allocated = match file.allocate(ahead) {
                Err(e) if e.kind() == ErrorKind::StorageFull => file.allocate(needed).map(|()| needed),
                allocated => allocated.map(|()| ahead),
            }
            .map_err(refused("enlarge", &path))?;
        }
        let batches = || run.iter().flat_map(|a| &a.batches);
        let mut parts: Vec<IoSlice<'_>> = batches().map(|b| IoSlice::new(b.bytes())).collect();
        if n_bytes <= SMALL_GROUP_BYTES && needed > active.zeroed {
            let n_zeros = (ZEROS.len() as u64).min(active.allocated - needed);
            parts.push(IoSlice::new(&ZEROS[..n_zeros as usize]));
            active.zeroed = needed + n_zeros;
        }
        if let Err(e) = file.write_at(&mut parts, active.written).and_then(|()| file.sync_data()) {
            let reason = format!("cannot write {}: {e}", path.display());
            tracing::error!(partition = %self.partition.id, "{reason}; the appends that waited for it were refused");
            self.failure = Some(reason.clone());
            return Err(Failure { reason, outcome_unknown: true });
        }
        active.group = group;
        self.committed(batches(), next, needed);
        Ok(())
    }

    /// The batches up to `next` are on stable storage, which readers may know from here on.
    fn committed<'b>(&mut self, batches: impl Iterator<Item = &'b EncodedBatch>, next: Offset, written: u64) {
        let active = self.active.as_mut().expect("a run goes to the active segment");
        let (mut position, mut offset) = (active.written, self.next);
        for batch in batches {
            offset = offset.plus(batch.n_records());
            if let Some(entry) = active.index.add(position, batch.bytes().len(), offset) {
                // A hint that could not be written makes reads slower, nothing else.
                if active.segment.add_index_entry(&self.partition.files, active.n_index_entries, entry).is_ok() {
                    active.n_index_entries += 1;
                }
            }
            position += batch.bytes().len() as u64;
        }
        debug_assert!((position, offset) == (written, next));
        active.written = written;
        active.segment.publish(written);
        self.next = next;
        self.partition.publish_end(next);
        let mark = self.mark();
        let unsynced = mark.segment != self.synced_mark.segment
            || mark.position >= self.synced_mark.position + self.config.mark_interval_bytes;
        let marked = if unsynced { self.write_mark_synced(mark) } else { self.marks.write(&mark).map(drop) };
        if let Err(e) = &marked
            && !self.mark_is_failing
        {
            tracing::warn!(partition = %self.partition.id, "cannot write the durable mark; a start will read more: {e}");
        }
        self.mark_is_failing = marked.is_err();
    }

    fn mark(&self) -> Mark {
        let (segment, position, group) =
            self.active.as_ref().map_or((self.next, 0, 0), |a| (a.segment.base, a.written, a.group));
        Mark { start: self.start, segment, position, end: self.next, group }
    }

    fn write_mark_synced(&mut self, mark: Mark) -> io::Result<()> {
        self.marks.write_synced(&mark)?;
        self.synced_mark = mark;
        Ok(())
    }

    /// Opens what failed anew, and sees that there is an active segment.
    fn make_ready(&mut self) -> Result<(), Failure> {
        if let Some(failure) = &self.failure {
            let failure = failure.clone();
            self.reopen().map_err(|e| Failure {
                reason: format!("{failure}; opening it anew failed too: {e}"),
                outcome_unknown: false,
            })?;
            self.failure = None;
            tracing::info!(partition = %self.partition.id, "partition {} takes appends again", self.partition.id);
        }
        if self.active.is_none() { self.begin_segment() } else { Ok(()) }
    }

    /// Cuts the segment back to its durable end and reads it from the device from the last
    /// synced mark on; it is not written to any more.
    fn reopen(&mut self) -> io::Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        let segment = Arc::clone(&active.segment);
        let written = active.written;
        self.partition.files.forget(&segment.path);
        let file = self.partition.files.get(&segment.path)?;
        file.truncate(written)?;
        file.sync_data()?;
        file.forget_cache()?;
        let (position, offset) = if self.synced_mark.segment == segment.base {
            (self.synced_mark.position, self.synced_mark.end)
        } else {
            (0, segment.base)
        };
        let mut walk = Walk::new(&*file, position, offset, written, WALK_WINDOW_BYTES);
        loop {
            let hole_start = walk.expected();
            match walk.next()? {
                Found::Batch(_) => {}
                Found::End => break,
                Found::Damaged(damage) => {
                    let more = walk.skip_damage()?;
                    let hole_end = if more { walk.expected() } else { self.next };
                    self.partition.corrupt(hole_start, hole_end, &damage.0);
                    if !more {
                        break;
                    }
                }
            }
        }
        self.active = None;
        Ok(())
    }

    fn roll(&mut self) -> Result<(), Failure> {
        self.seal().map_err(|(path, e)| {
            let reason = format!("cannot close {path}: {e}");
            self.failure = Some(reason.clone());
            Failure { reason, outcome_unknown: false }
        })?;
        self.begin_segment()
    }

    /// Ends the active segment at its real size.
    fn seal(&mut self) -> Result<(), (String, io::Error)> {
        let Some(active) = &self.active else { return Ok(()) };
        let path = &active.segment.path;
        let sealed = self.partition.files.get(path).and_then(|file| {
            file.truncate(active.written)?;
            file.sync_data()
        });
        sealed.map_err(|e| (path.display().to_string(), e))?;
        self.active = None;
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<(), Failure> {
        let (dir, files) = (&self.partition.dir, &self.partition.files);
        let segment = Arc::new(Segment::new(dir, self.next, 0, self.partition.index_interval_bytes));
        segment.set_index(Vec::new());
        let created = files.create(&segment.path).and_then(|file| {
            file.truncate(0)?;
            segment.write_index(files, &[])?;
            files.fs.sync_dir(dir)
        });
        if let Err(e) = created {
            // A name whose sync failed is not trusted: the next try makes it again.
            files.forget(&segment.path);
            let _ = files.fs.unlink(&segment.path);
            return Err(refused("create", &segment.path)(e));
        }
        self.partition.add_segment(Arc::clone(&segment));
        let index = IndexBuilder::new(segment.base, self.partition.index_interval_bytes);
        self.active =
            Some(Active { segment, written: 0, allocated: 0, zeroed: 0, group: 0, index, n_index_entries: 0 });
        Ok(())
    }

    /// Raises the log start offset, durably, and deletes the segments that lie below it.
    pub(crate) fn trim(&mut self, before: Offset) -> Result<Retained, LogError> {
        let before = before.min(self.next);
        if before > self.start {
            let mark = Mark { start: before, ..self.mark() };
            self.write_mark_synced(mark)
                .map_err(|e| LogError::unavailable(format!("cannot write the mark of {}: {e}", self.partition.id)))?;
            self.start = before;
            self.partition.publish_start(before);
        }
        Ok(self.delete_below_start())
    }

    fn delete_below_start(&self) -> Retained {
        let mut retained = Retained::default();
        let segments = self.partition.segments();
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
            if next.base > self.start {
                break;
            }
            self.partition.remove_segment(segment.base);
            let files = &self.partition.files;
            let _ = files.fs.unlink(&segment.index_path());
            let unlinked = files.fs.unlink(&segment.path);
            // Not before: a reader could open them anew meanwhile.
            files.forget(&segment.index_path());
            files.forget(&segment.path);
            match unlinked {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    // The next start deletes it: it lies below the log start offset.
                    tracing::warn!(partition = %self.partition.id, "cannot delete {}: {e}", segment.path.display());
                }
                _ => {
                    retained.n_deleted_segments += 1;
                    retained.deleted_bytes += segment.readable_bytes();
                }
            }
        }
        if retained.n_deleted_segments > 0
            && let Err(e) = self.partition.files.fs.sync_dir(&self.partition.dir)
        {
            tracing::warn!(partition = %self.partition.id, "cannot sync {}: {e}", self.partition.dir.display());
        }
        retained
    }

    /// Deletes whole segments, oldest first, that were written to for the last time more than
    /// `retention_ms` before `now` or make the partition larger than `retention_bytes`, and
    /// that lie below `floor`. The segment that grows stays.
    pub(crate) fn retain(&mut self, floor: Offset, now: Timestamp) -> Result<Retained, LogError> {
        let segments = self.partition.segments();
        let mut size_bytes: u64 = segments.iter().map(|s| s.readable_bytes()).sum();
        let mut before = self.start;
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
            let is_too_large = self.config.retention_bytes > 0 && size_bytes > self.config.retention_bytes;
            if next.base > floor || !(is_too_large || self.is_too_old(segment, now)) {
                break;
            }
            size_bytes -= segment.readable_bytes();
            before = next.base;
        }
        self.trim(before)
    }

    fn is_too_old(&self, segment: &Segment, now: Timestamp) -> bool {
        if self.config.retention_ms == 0 {
            return false;
        }
        let modified = self.partition.files.get(&segment.path).and_then(|f| f.modified());
        // A file that is gone or cannot be looked at is not held back, nor is it a reason to delete.
        modified.is_ok_and(|m| now.0.saturating_sub(m.0) > i64::try_from(self.config.retention_ms).unwrap_or(i64::MAX))
    }

    /// Ends the active segment and makes the mark durable: the next start has nothing to read.
    pub(crate) fn close(&mut self) -> Result<(), LogError> {
        let failed = |e: String| LogError::unavailable(format!("cannot close {}: {e}", self.partition.id));
        if let Some(failure) = &self.failure {
            return Err(failed(failure.clone()));
        }
        let mark = self.mark();
        self.seal().map_err(|(path, e)| LogError::unavailable(format!("cannot close {path}: {e}")))?;
        if mark == Mark::default() {
            return Ok(()); // nothing was ever written here
        }
        self.write_mark_synced(mark)
            .map_err(|e| LogError::unavailable(format!("cannot write the mark of {}: {e}", self.partition.id)))
    }
}

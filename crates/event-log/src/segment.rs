//! A segment: a file of batches named by the offset of its first record, and beside it a sparse
//! index in Kafka's layout (last offset of a batch less the segment's base, and the batch's
//! position; four bytes each).
//!
//! The index is a hint. What it points at is verified, and without it reads are only slower.

use std::{
    io::{self, ErrorKind, IoSlice},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use model::Offset;

use crate::{
    files::Files,
    fs::{self, File},
    walk::{Found, Walk},
};

pub(crate) const LOG_EXTENSION: &str = "log";
pub(crate) const INDEX_EXTENSION: &str = "index";
/// An index entry's position has 32 bits, and Kafka reads them as signed.
pub(crate) const MAX_SEGMENT_BYTES: u64 = i32::MAX as u64;
const ENTRY_BYTES: usize = 8;
/// How much a walk from the beginning reads at a time.
pub(crate) const WALK_WINDOW_BYTES: u64 = 1 << 20;

pub(crate) struct Segment {
    pub(crate) base: Offset,
    pub(crate) path: PathBuf,
    index_interval_bytes: u64,
    readable_bytes: AtomicU64,
    index: Mutex<Option<Vec<IndexEntry>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// The last offset of the batch, less the segment's base.
    pub(crate) last_delta: u32,
    pub(crate) position: u32,
}

impl IndexEntry {
    fn encode(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..4].copy_from_slice(&self.last_delta.to_be_bytes());
        bytes[4..].copy_from_slice(&self.position.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        let field = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        Self { last_delta: field(0), position: field(4) }
    }
}

/// `00000000000000000042.log` for 42.
pub(crate) fn file_name(base: Offset, extension: &str) -> String {
    format!("{:020}.{extension}", base.0)
}

/// The base offset in a segment's file name.
pub(crate) fn base_of(name: &str, extension: &str) -> Option<Offset> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    if all_digits { digits.parse().ok().map(Offset) } else { None }
}

impl Segment {
    pub(crate) fn new(dir: &Path, base: Offset, readable_bytes: u64, index_interval_bytes: u64) -> Self {
        Self {
            base,
            path: dir.join(file_name(base, LOG_EXTENSION)),
            index_interval_bytes,
            readable_bytes: AtomicU64::new(readable_bytes),
            index: Mutex::new(None),
        }
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.path.with_extension(INDEX_EXTENSION)
    }

    /// Bytes that readers may see: those on stable storage.
    pub(crate) fn readable_bytes(&self) -> u64 {
        self.readable_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn publish(&self, readable_bytes: u64) {
        self.readable_bytes.store(readable_bytes, Ordering::Release);
    }

    /// A walk from a place at or before the batch that holds `from`.
    pub(crate) fn walk_to<'a>(
        &self,
        files: &Files,
        file: &'a dyn File,
        from: Offset,
        window_bytes: u64,
    ) -> io::Result<Walk<'a>> {
        let limit = self.readable_bytes();
        for anchor in self.anchors_up_to(files, from)? {
            let last = self.base.plus(anchor.last_delta as usize);
            if let Some(walk) = Walk::anchored(file, u64::from(anchor.position), last, limit, window_bytes)? {
                return Ok(walk);
            }
        }
        Ok(Walk::new(file, 0, self.base, limit, window_bytes))
    }

    /// Index entries whose batch begins at or before `from`, nearest first.
    fn anchors_up_to(&self, files: &Files, from: Offset) -> io::Result<Vec<IndexEntry>> {
        let mut guard = self.lock();
        let index = match &mut *guard {
            Some(index) => index,
            unknown => unknown.insert(self.read_or_build_index(files)?),
        };
        let delta = from.0 - self.base.0;
        let n = index.partition_point(|e| u64::from(e.last_delta) <= delta);
        Ok(index[..n].iter().rev().copied().collect())
    }

    /// The index on disk, or if it is short of the segment one made from the batches.
    pub(crate) fn read_or_build_index(&self, files: &Files) -> io::Result<Vec<IndexEntry>> {
        let limit = self.readable_bytes();
        let index = self.read_index(files, limit)?;
        // Entries come one interval and one batch apart; a much longer gap means a lost tail.
        let covered = index.last().map_or(0, |e| u64::from(e.position));
        if limit.saturating_sub(covered) <= 4 * self.index_interval_bytes {
            return Ok(index);
        }
        let file = files.get(&self.path)?;
        let mut walk = Walk::new(&*file, 0, self.base, limit, WALK_WINDOW_BYTES);
        let mut builder = IndexBuilder::new(self.base, self.index_interval_bytes);
        let mut built = Vec::new();
        loop {
            match walk.next()? {
                Found::Batch(batch) => {
                    built.extend(builder.add(batch.position, batch.header.size_bytes, batch.header.next()))
                }
                Found::Damaged(_) if walk.skip_damage()? => {}
                Found::End | Found::Damaged(_) => return Ok(if built.len() > index.len() { built } else { index }),
            }
        }
    }

    /// The entries on disk that can be true for the first `limit` bytes.
    fn read_index(&self, files: &Files, limit: u64) -> io::Result<Vec<IndexEntry>> {
        let content = fs::read(&*files.fs, &self.index_path())?.unwrap_or_default();
        let mut index: Vec<IndexEntry> = Vec::new();
        for entry in content.chunks_exact(ENTRY_BYTES).map(IndexEntry::decode) {
            let grows = index.last().is_none_or(|l| entry.last_delta > l.last_delta && entry.position > l.position);
            if !grows || u64::from(entry.position) >= limit {
                break;
            }
            index.push(entry);
        }
        Ok(index)
    }

    /// Replaces what readers know of the index.
    pub(crate) fn set_index(&self, index: Vec<IndexEntry>) {
        *self.lock() = Some(index);
    }

    /// Adds an entry for readers, and to the file as number `n`.
    pub(crate) fn add_index_entry(&self, files: &Files, n: usize, entry: IndexEntry) -> io::Result<()> {
        if let Some(index) = &mut *self.lock() {
            index.push(entry);
        }
        let path = self.index_path();
        let file = match files.get(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => files.create(&path)?,
            opened => opened?,
        };
        file.write_at(&mut [IoSlice::new(&entry.encode())], (n * ENTRY_BYTES) as u64)
    }

    /// Makes the index file hold these entries and no more.
    pub(crate) fn write_index(&self, files: &Files, index: &[IndexEntry]) -> io::Result<()> {
        let content: Vec<u8> = index.iter().flat_map(|e| e.encode()).collect();
        let file = files.create(&self.index_path())?;
        file.truncate(0)?;
        file.write_at(&mut [IoSlice::new(&content)], 0)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<IndexEntry>>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says which batches get an index entry.
pub(crate) struct IndexBuilder {
    base: Offset,
    interval_bytes: u64,
    bytes_since_entry: u64,
}

impl IndexBuilder {
    pub(crate) fn new(base: Offset, interval_bytes: u64) -> Self {
        Self { base, interval_bytes, bytes_since_entry: 0 }
    }

    /// The entry for the batch at `position` that ends before `next`, if it is to have one.
    pub(crate) fn add(&mut self, position: u64, size_bytes: usize, next: Offset) -> Option<IndexEntry> {
        let due = self.bytes_since_entry >= self.interval_bytes;
        self.bytes_since_entry = if due { 0 } else { self.bytes_since_entry } + size_bytes as u64;
        let last_delta = u32::try_from(next.0 - 1 - self.base.0).ok()?;
        let position = u32::try_from(position).ok()?;
        due.then_some(IndexEntry { last_delta, position })
    }
}

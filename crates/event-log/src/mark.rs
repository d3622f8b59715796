//! The durable mark of a partition: what is known to be on stable storage, and the log start
//! offset. Two slots in the file `mark`, written in turn, so that one is always whole.
//!
//! It is written after each group commit and synced now and then, never before the data it
//! covers is synced: what stands in it is true, and after a crash of the process alone also
//! complete. After a power cut it may be older; recovery reads on from there.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use model::Offset;
use serde::Serialize;

use crate::{
    files::Files,
    fs::{self, File, FileSystem},
};

pub(crate) const FILE_NAME: &str = "mark";
const MAGIC: &[u8; 8] = b"CORKMRK1";
const CRC_AT: usize = 56;
const SLOT_BYTES: usize = CRC_AT + 4;
/// Each slot in a block of its own.
const SLOT_STRIDE: usize = 4096;

/// `[start, end)` is held; `end` stands at byte `position` of the segment that begins with
/// offset `segment`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mark {
    pub start: Offset,
    pub segment: Offset,
    pub position: u64,
    pub end: Offset,
    /// The last group commit in that segment.
    pub group: u32,
}

impl Mark {
    /// Of a partition that begins there and holds nothing.
    pub(crate) fn at(begin: Offset) -> Self {
        Self { start: begin, segment: begin, position: 0, end: begin, group: 0 }
    }

    fn encode(&self, sequence: u64) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(MAGIC);
        let fields = [sequence, self.start.0, self.segment.0, self.position, self.end.0, u64::from(self.group)];
        for (field, place) in fields.iter().zip(slot[8..CRC_AT].chunks_exact_mut(8)) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        let crc = crc32c::crc32c(&slot[..CRC_AT]);
        slot[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
        slot
    }

    fn decode(slot: &[u8]) -> Option<(u64, Self)> {
        let slot: &[u8; SLOT_BYTES] = slot.get(..SLOT_BYTES)?.try_into().ok()?;
        if slot[..8] != *MAGIC || crc32c::crc32c(&slot[..CRC_AT]).to_be_bytes() != slot[CRC_AT..] {
            return None;
        }
        let field = |i: usize| u64::from_be_bytes(slot[i..i + 8].try_into().expect("eight bytes"));
        let mark = Self {
            start: Offset(field(16)),
            segment: Offset(field(24)),
            position: field(32),
            end: Offset(field(40)),
            group: u32::try_from(field(48)).ok()?,
        };
        Some((field(8), mark))
    }
}

/// The newest whole slot and its sequence number.
pub(crate) fn read(fs: &dyn FileSystem, dir: &Path) -> io::Result<Option<(u64, Mark)>> {
    let content = fs::read(fs, &dir.join(FILE_NAME))?.unwrap_or_default();
    let slots = [0, SLOT_STRIDE].into_iter().filter_map(|at| Mark::decode(content.get(at..)?));
    Ok(slots.max_by_key(|(sequence, _)| *sequence))
}

pub(crate) struct MarkFile {
    path: PathBuf,
    files: Arc<Files>,
    sequence: u64,
}

impl MarkFile {
    /// Goes on after the slot with `sequence`.
    pub(crate) fn new(dir: &Path, files: Arc<Files>, sequence: u64) -> Self {
        Self { path: dir.join(FILE_NAME), files, sequence }
    }

    pub(crate) fn write(&mut self, mark: &Mark) -> io::Result<Arc<dyn File>> {
        let file = self.files.get(&self.path).or_else(|e| match e.kind() {
            io::ErrorKind::NotFound => self.create(),
            _ => Err(e),
        })?;
        // A slot counts as used even if its write fails: it may be half written.
        self.sequence += 1;
        let position = (self.sequence % 2) * SLOT_STRIDE as u64;
        file.write_at(&mut [IoSlice::new(&mark.encode(self.sequence))], position)?;
        Ok(file)
    }

    pub(crate) fn write_synced(&mut self, mark: &Mark) -> io::Result<()> {
        self.write(mark)?.sync_data()
    }

    fn create(&self) -> io::Result<Arc<dyn File>> {
        let file = self.files.create(&self.path)?;
        let dir = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        if let Err(e) = self.files.fs.sync_dir(dir) {
            // A name whose sync failed is not trusted: the next try makes it again.
            self.files.forget(&self.path);
            let _ = self.files.fs.unlink(&self.path);
            return Err(e);
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fs::{Access, Disk};

    #[test]
    fn a_half_written_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let files = Arc::new(Files::new(Arc::new(Disk), Access::Write, 4));
        let mut marks = MarkFile::new(dir.path(), files, 0);
        let mark = |end| Mark { end: Offset(end), ..Mark::default() };
        assert_eq!(read(&Disk, dir.path()).unwrap(), None);
        for end in 1..=3 {
            marks.write(&mark(end)).unwrap();
            assert_eq!(read(&Disk, dir.path()).unwrap(), Some((end, mark(end))));
        }
        let path = dir.path().join(FILE_NAME);
        let whole = std::fs::read(&path).unwrap();
        for byte in 0..SLOT_BYTES {
            let mut torn = whole.clone();
            torn[SLOT_STRIDE + byte] ^= 1;
            std::fs::write(&path, torn).unwrap();
            assert_eq!(read(&Disk, dir.path()).unwrap(), Some((2, mark(2))), "byte {byte}");
        }
    }
}

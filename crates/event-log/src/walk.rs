//! From batch to batch through a segment's file, trusting nothing: each must carry the offset
//! that its predecessor leads to, and its checksum.
//!
//! Fetching, recovery, index building and inspection all read segments through this.

use std::io;

use bytes::Bytes;
use model::Offset;

use crate::{
    format::{BatchHeader, Damage, HEADER_BYTES, MAGIC, MAGIC_AT, claimed_group},
    fs::File,
};

/// How much a search through damaged bytes reads at a time.
const SEARCH_BYTES: u64 = 1 << 20;

#[derive(Clone)]
pub(crate) struct Walk<'a> {
    file: &'a dyn File,
    position: u64,
    limit: u64,
    expected: Offset,
    window_bytes: u64,
    window: Bytes,
    window_position: u64,
}

pub(crate) struct Batch {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
    pub(crate) bytes: Bytes,
}

pub(crate) enum Found {
    Batch(Batch),
    /// Every byte below the limit was a batch.
    End,
    /// What stands at `position` is not the batch that begins at `expected`.
    Damaged(Damage),
}

impl<'a> Walk<'a> {
    /// From `position`, where the batch that begins at offset `expected` should be, up to
    /// `limit`; reads about `window_bytes` at a time.
    pub(crate) fn new(file: &'a dyn File, position: u64, expected: Offset, limit: u64, window_bytes: u64) -> Self {
        let window_bytes = window_bytes.max(HEADER_BYTES as u64);
        Self { file, position, limit, expected, window_bytes, window: Bytes::new(), window_position: position }
    }

    /// From `position`, if a whole batch stands there that ends with `last`.
    pub(crate) fn anchored(
        file: &'a dyn File,
        position: u64,
        last: Offset,
        limit: u64,
        window_bytes: u64,
    ) -> io::Result<Option<Self>> {
        let mut walk = Self::new(file, position, Offset::ZERO, limit, window_bytes);
        match walk.whole_batch(position)? {
            Ok(batch) if batch.header.next() == last.plus(1) => {
                walk.expected = batch.header.base;
                Ok(Some(walk))
            }
            _ => Ok(None),
        }
    }

    /// Where the next batch begins.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The offset that the next batch must begin with.
    pub(crate) fn expected(&self) -> Offset {
        self.expected
    }

    /// Steps over the next batch, or stays.
    pub(crate) fn next(&mut self) -> io::Result<Found> {
        if self.position >= self.limit {
            return Ok(Found::End);
        }
        match self.whole_batch(self.position)? {
            Ok(batch) if batch.header.base != self.expected => Ok(Found::Damaged(Damage(format!(
                "the batch at byte {} begins with offset {} instead of {}",
                self.position, batch.header.base, self.expected
            )))),
            Ok(batch) => {
                self.position += batch.header.size_bytes as u64;
                self.expected = batch.header.next();
                Ok(Found::Batch(batch))
            }
            Err(Damage(reason)) => Ok(Found::Damaged(Damage(format!("at byte {}: {reason}", self.position)))),
        }
    }

    /// From a damaged place to the next whole batch, if there is one: where the damaged header
    /// says, or else the first found by looking at every byte.
    pub(crate) fn skip_damage(&mut self) -> io::Result<bool> {
        if let Some(size_bytes) = self.claimed_size()? {
            let position = self.position + size_bytes;
            if let Ok(batch) = self.whole_batch(position)?
                && self.is_where_it_says(&batch)?
            {
                self.go_to(&batch);
                return Ok(true);
            }
        }
        let mut from = self.position + 1;
        while from + (HEADER_BYTES as u64) <= self.limit {
            let piece = self.read(from, SEARCH_BYTES.min(self.limit - from))?;
            for at in places_of_magic(&piece) {
                if let Ok(batch) = self.whole_batch(from + (at - MAGIC_AT) as u64)?
                    && self.is_where_it_says(&batch)?
                {
                    self.go_to(&batch);
                    return Ok(true);
                }
            }
            if piece.len() <= MAGIC_AT {
                break;
            }
            from += (piece.len() - MAGIC_AT) as u64;
        }
        Ok(false)
    }

    /// Whether a batch found behind damage may be believed its offset, which lies outside of its
    /// checksum: what was skipped has room for the offsets that are missed, as every record takes a
    /// byte at least, and the batch after it, if it is whole, goes on from there. Where none is missed
    /// (what was skipped held none, or copies of earlier ones), the next has to be whole.
    fn is_where_it_says(&mut self, batch: &Batch) -> io::Result<bool> {
        let Some(n_missed) = batch.header.base.0.checked_sub(self.expected.0) else { return Ok(false) };
        if n_missed > batch.position - self.position {
            return Ok(false);
        }
        let next = self.whole_batch(batch.position + batch.header.size_bytes as u64)?;
        Ok(next.map_or(n_missed > 0, |next| next.header.base == batch.header.next()))
    }

    /// The group that the batch at `position` claims to belong to; 0 where nothing was written.
    pub(crate) fn claimed_group(&mut self) -> io::Result<u32> {
        let header = self.bytes_at(self.position, HEADER_BYTES as u64)?;
        Ok(if header.len() < HEADER_BYTES { 0 } else { claimed_group(&header) })
    }

    fn go_to(&mut self, batch: &Batch) {
        self.position = batch.position;
        self.expected = batch.header.base;
    }

    fn claimed_size(&mut self) -> io::Result<Option<u64>> {
        let header = self.bytes_at(self.position, HEADER_BYTES as u64)?;
        if header.len() < HEADER_BYTES {
            return Ok(None);
        }
        Ok(BatchHeader::read(&header).ok().map(|h| h.size_bytes as u64))
    }

    fn whole_batch(&mut self, position: u64) -> io::Result<Result<Batch, Damage>> {
        let header_bytes = self.bytes_at(position, HEADER_BYTES as u64)?;
        if header_bytes.len() < HEADER_BYTES {
            return Ok(Err(Damage(format!("{} bytes are too few for a batch", header_bytes.len()))));
        }
        let header = match BatchHeader::read(&header_bytes) {
            Ok(header) => header,
            Err(damage) => return Ok(Err(damage)),
        };
        let size_bytes = header.size_bytes as u64;
        if size_bytes > self.limit.saturating_sub(position) {
            return Ok(Err(Damage(format!("a batch of {size_bytes} bytes would leave the file"))));
        }
        let bytes = self.bytes_at(position, size_bytes)?;
        if bytes.len() < header.size_bytes {
            return Ok(Err(Damage(format!("of a batch of {size_bytes} bytes {} are there", bytes.len()))));
        }
        Ok(header.verify(&bytes).map(|()| Batch { position, header, bytes }))
    }

    /// `n_bytes` at `position`, or as many as lie below the limit and in the file.
    fn bytes_at(&mut self, position: u64, n_bytes: u64) -> io::Result<Bytes> {
        let end = (position + n_bytes).min(self.limit);
        let window_end = self.window_position + self.window.len() as u64;
        if position < self.window_position || end > window_end {
            let wanted = n_bytes.max(self.window_bytes).min(self.limit.saturating_sub(position));
            self.window = self.read(position, wanted)?;
            self.window_position = position;
        }
        let from = (position - self.window_position) as usize;
        let to = (end.saturating_sub(self.window_position) as usize).clamp(from, self.window.len().max(from));
        Ok(if to > self.window.len() { Bytes::new() } else { self.window.slice(from..to) })
    }

    fn read(&self, position: u64, n_bytes: u64) -> io::Result<Bytes> {
        let mut buffer = vec![0; n_bytes as usize];
        let n_read = self.file.read_at(&mut buffer, position)?;
        buffer.truncate(n_read);
        Ok(buffer.into())
    }
}

/// Where a batch's magic may stand. Most of what is searched is zeros allocated ahead, which
/// `contains` passes over quickly.
fn places_of_magic(piece: &[u8]) -> impl Iterator<Item = usize> {
    const STRETCH_BYTES: usize = 4096;
    let stretches = piece.chunks(STRETCH_BYTES).enumerate().filter(|(_, stretch)| stretch.contains(&MAGIC));
    let places = stretches.flat_map(|(n, stretch)| {
        let magics = stretch.iter().enumerate().filter(|(_, byte)| **byte == MAGIC);
        magics.map(move |(i, _)| n * STRETCH_BYTES + i)
    });
    places.filter(|at| *at >= MAGIC_AT)
}

//! A set of hashes that outgrows memory: sorted runs in files, and in memory a filter that says of
//! most other hashes that they are not there.
//!
//! The files have no names, so they end with the process.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Hashes in memory before they become a run.
const RUN_HASHES: usize = 1 << 19;
/// Runs of about one size before they become one.
const FAN_IN: usize = 8;
/// Hashes read from a file at a time: a page.
const BLOCK: usize = 512;
const HASH_BYTES: usize = size_of::<u64>();
/// Blocks of a run read at a time when runs are merged.
const BLOCKS_AHEAD: usize = 64;

pub struct Known {
    folder: PathBuf,
    /// Sorted; those that are in no run.
    recent: Vec<u64>,
    /// The longest first.
    runs: Vec<Run>,
    max_recent: usize,
}

/// Sorted hashes in a file.
struct Run {
    file: File,
    n_hashes: usize,
    /// The first hash of each block.
    fences: Vec<u64>,
    filter: Filter,
}

/// Words of 64 bits, of which each hash sets four in one: some eleven bits per hash, and of a hundred
/// others one or two seem to be there.
struct Filter(Vec<u64>);

impl Known {
    /// An empty set whose files will lie in a folder.
    pub fn within(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), recent: Vec::new(), runs: Vec::new(), max_recent: RUN_HASHES }
    }

    /// Bytes that it takes in memory.
    pub fn size_bytes(&self) -> usize {
        let of_run = |run: &Run| HASH_BYTES * (run.fences.capacity() + run.filter.0.capacity());
        HASH_BYTES * self.recent.capacity() + self.runs.iter().map(of_run).sum::<usize>()
    }

    pub fn has(&self, hash: u64) -> Result<bool> {
        if self.recent.binary_search(&hash).is_ok() {
            return Ok(true);
        }
        for run in &self.runs {
            if run.has(hash).context("names of earlier rows, in the spill folder")? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub fn add(&mut self, hashes: impl IntoIterator<Item = u64>) -> Result<()> {
        self.recent.extend(hashes);
        // Finds that a part of it is sorted already.
        self.recent.sort();
        self.recent.dedup();
        if self.recent.len() >= self.max_recent {
            let run = Run::write(&self.folder, self.recent.len(), self.recent.iter().map(|hash| Ok(*hash)));
            self.runs.push(run.with_context(|| format!("the spill folder {}", self.folder.display()))?);
            self.recent = Vec::new();
            self.merge().with_context(|| format!("the spill folder {}", self.folder.display()))?;
        }
        Ok(())
    }

    /// Makes one run of the last ones as long as they are of about one size and many.
    fn merge(&mut self) -> std::io::Result<()> {
        while let Some(n_alike) = self.n_alike() {
            let alike = &self.runs[self.runs.len() - n_alike..];
            let n_hashes = alike.iter().map(|run| run.n_hashes).sum();
            let merged = Run::write(&self.folder, n_hashes, Merging::of(alike)?)?;
            self.runs.truncate(self.runs.len() - n_alike);
            self.runs.push(merged);
        }
        Ok(())
    }

    /// How many of the last runs are merged now, if any.
    fn n_alike(&self) -> Option<usize> {
        let last = self.runs.last()?.n_hashes;
        let n_alike = self.runs.iter().rev().take_while(|run| run.n_hashes < last * FAN_IN / 2).count();
        (n_alike >= FAN_IN).then_some(n_alike)
    }
}

impl Run {
    fn write(
        folder: &Path,
        at_most: usize,
        hashes: impl Iterator<Item = std::io::Result<u64>>,
    ) -> std::io::Result<Self> {
        let mut file = BufWriter::with_capacity(BLOCKS_AHEAD * BLOCK * HASH_BYTES, tempfile::tempfile_in(folder)?);
        let (mut n_hashes, mut fences) = (0, Vec::with_capacity(at_most / BLOCK + 1));
        let mut filter = Filter::for_hashes(at_most);
        for hash in hashes {
            let hash = hash?;
            if n_hashes % BLOCK == 0 {
                fences.push(hash);
            }
            n_hashes += 1;
            filter.add(hash);
            file.write_all(&hash.to_le_bytes())?;
        }
        Ok(Self { file: file.into_inner()?, n_hashes, fences, filter })
    }

    fn has(&self, hash: u64) -> std::io::Result<bool> {
        if !self.filter.may_have(hash) {
            return Ok(false);
        }
        let Some(block) = self.fences.partition_point(|first| *first <= hash).checked_sub(1) else { return Ok(false) };
        let mut bytes = [0; BLOCK * HASH_BYTES];
        let block = self.read(block * BLOCK, &mut bytes)?;
        Ok(block.binary_search_by(|bytes| u64::from_le_bytes(*bytes).cmp(&hash)).is_ok())
    }

    /// Hashes from the `from`-th on, as many as there is room for.
    fn read<'b>(&self, from: usize, room: &'b mut [u8]) -> std::io::Result<&'b [[u8; HASH_BYTES]]> {
        let n_bytes = room.len().min((self.n_hashes - from) * HASH_BYTES);
        self.file.read_exact_at(&mut room[..n_bytes], (from * HASH_BYTES) as u64)?;
        Ok(room[..n_bytes].as_chunks().0)
    }
}

impl Filter {
    fn for_hashes(n: usize) -> Self {
        Self(vec![0; n / 6 + 1])
    }

    fn add(&mut self, hash: u64) {
        let at = self.word_of(hash);
        self.0[at] |= bits_of(hash);
    }

    fn may_have(&self, hash: u64) -> bool {
        let bits = bits_of(hash);
        self.0[self.word_of(hash)] & bits == bits
    }

    /// By the hash's high bits, and its bits in the word by its low ones.
    fn word_of(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.0.len() as u128) >> 64) as usize
    }
}

fn bits_of(hash: u64) -> u64 {
    [0, 6, 12, 18].into_iter().fold(0, |bits, shift| bits | 1 << (hash >> shift & 63))
}

/// The hashes of some runs in order, each once.
struct Merging<'r> {
    runs: Vec<Ahead<'r>>,
    next: BinaryHeap<Reverse<(u64, usize)>>,
    last: Option<u64>,
}

/// A run read from its start on, some blocks at a time.
struct Ahead<'r> {
    run: &'r Run,
    read: usize,
    hashes: std::vec::IntoIter<u64>,
}

impl<'r> Merging<'r> {
    fn of(runs: &'r [Run]) -> std::io::Result<Self> {
        let runs = runs.iter().map(|run| Ahead { run, read: 0, hashes: Vec::new().into_iter() }).collect();
        let mut merging = Self { runs, next: BinaryHeap::new(), last: None };
        for nth in 0..merging.runs.len() {
            merging.push(nth)?;
        }
        Ok(merging)
    }

    fn push(&mut self, nth: usize) -> std::io::Result<()> {
        if let Some(hash) = self.runs[nth].next()? {
            self.next.push(Reverse((hash, nth)));
        }
        Ok(())
    }
}

impl Ahead<'_> {
    fn next(&mut self) -> std::io::Result<Option<u64>> {
        if self.hashes.as_slice().is_empty() && self.read < self.run.n_hashes {
            let mut bytes = vec![0; BLOCKS_AHEAD * BLOCK * HASH_BYTES];
            let hashes = self.run.read(self.read, &mut bytes)?;
            self.read += hashes.len();
            self.hashes = hashes.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect::<Vec<_>>().into_iter();
        }
        Ok(self.hashes.next())
    }
}

impl Iterator for Merging<'_> {
    type Item = std::io::Result<u64>;

    fn next(&mut self) -> Option<std::io::Result<u64>> {
        while let Some(Reverse((hash, nth))) = self.next.pop() {
            if let Err(e) = self.push(nth) {
                return Some(Err(e));
            }
            if self.last.replace(hash) != Some(hash) {
                return Some(Ok(hash));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_that_was_added_is_there_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        // Neighbours, so that filters cannot tell them apart by their high bits.
        let strategy = prop::collection::vec(prop::collection::vec(0..20_000_u64, 0..3_000), 1..40);
        proptest!(ProptestConfig::with_cases(24), |(added in strategy, spread in prop_oneof![Just(1), Just(u64::MAX / 20_000)])| {
            let mut known = Known { max_recent: 700, ..Known::within(folder.path()) };
            let mut expected = BTreeSet::new();
            for hashes in added {
                expected.extend(hashes.iter().map(|hash| hash * spread));
                known.add(hashes.into_iter().map(|hash| hash * spread)).expect("readable");
            }
            prop_assert!(known.runs.len() <= 3 * FAN_IN, "{} runs", known.runs.len());
            for hash in (0..20_000).map(|hash| hash * spread) {
                prop_assert_eq!(known.has(hash).expect("readable"), expected.contains(&hash));
            }
        });
    }

    #[test]
    fn in_memory_a_hash_takes_a_bit_more_than_a_byte() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut known = Known::within(folder.path());
        let n = 5_000_000_u64;
        let hash = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for first in (0..n).step_by(100_000) {
            known.add((first..first + 100_000).map(hash)).expect("readable");
        }
        assert!(known.size_bytes() < n as usize * 3 / 2 + RUN_HASHES * HASH_BYTES * 2, "{} bytes", known.size_bytes());
        assert!((0..n).step_by(997).all(|i| known.has(hash(i)).expect("readable")));
        let n_passed = (n..n + 100_000).filter(|i| known.runs.iter().any(|run| run.filter.may_have(hash(*i)))).count();
        assert!(n_passed < 15_000, "filters let {n_passed} of 100,000 pass");
        assert!(!(n..n + 100_000).any(|i| known.has(hash(i)).expect("readable")));
    }
}

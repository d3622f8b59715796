//! A set of hashes, or of what is said under them, that outgrows memory: sorted runs in files, and in
//! memory a filter that says of most other hashes that they are not there.
//!
//! The files have no names, so they end with the process.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::filter::Filter;

/// Entries in memory before they become a run.
const RUN_ENTRIES: usize = 1 << 19;
/// Runs of about one size before they become one.
const FAN_IN: usize = 8;
/// Bytes read from a file at a time: a page.
const BLOCK_BYTES: usize = 4096;
const HASH_BYTES: usize = size_of::<u64>();
/// Blocks of a run read at a time when runs are merged; of the small runs of tests few, so that they take
/// several reads as well.
const BLOCKS_AHEAD: usize = if cfg!(test) { 2 } else { 64 };

/// Entries of so many numbers, of which the first is the hash that they are looked for by.
pub struct Known<const N: usize> {
    folder: PathBuf,
    /// Sorted; those that are in no run.
    recent: Vec<[u64; N]>,
    filter_of_recent: Filter,
    /// The longest first.
    runs: Vec<Run<N>>,
    max_recent: usize,
}

/// What is said under a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Nothing,
    Only(u64),
    Several,
}

/// Sorted entries in a file.
struct Run<const N: usize> {
    file: File,
    n_entries: usize,
    /// The first hash of each block.
    fences: Vec<u64>,
    filter: Filter,
}

impl<const N: usize> Known<N> {
    /// An empty set whose files will lie in a folder.
    pub fn within(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            recent: Vec::new(),
            filter_of_recent: Filter::for_hashes(0),
            runs: Vec::new(),
            max_recent: RUN_ENTRIES,
        }
    }

    /// Bytes that it takes in memory.
    pub fn size_bytes(&self) -> usize {
        let of_run = |run: &Run<N>| HASH_BYTES * run.fences.capacity() + run.filter.size_bytes();
        let of_recent = size_of::<[u64; N]>() * self.recent.capacity() + self.filter_of_recent.size_bytes();
        of_recent + self.runs.iter().map(of_run).sum::<usize>()
    }

    /// Which hashes may be there; almost all others are not. Filter by filter, since each look is a
    /// wait for memory, and so one look need not wait for the one before.
    pub fn may_have(&self, hashes: &[u64]) -> Vec<bool> {
        let mut may = vec![false; hashes.len()];
        for filter in self.runs.iter().map(|run| &run.filter).chain([&self.filter_of_recent]) {
            for (may, hash) in may.iter_mut().zip(hashes) {
                *may |= filter.may_have(*hash);
            }
        }
        may
    }

    /// Which hashes are there.
    pub fn have(&self, hashes: &[u64]) -> Result<Vec<bool>> {
        let may = self.may_have(hashes);
        hashes.iter().zip(may).map(|(hash, may)| Ok(may && self.has(*hash)?)).collect()
    }

    pub fn has(&self, hash: u64) -> Result<bool> {
        let mut has = false;
        self.look(hash, &mut |_| {
            has = true;
            false
        })?;
        Ok(has)
    }

    /// Shows the entries of a hash until one says that no more are wanted.
    fn look(&self, hash: u64, show: &mut impl FnMut(&[u64; N]) -> bool) -> Result<()> {
        let first = self.recent.partition_point(|entry| entry[0] < hash);
        if !self.recent[first..].iter().take_while(|entry| entry[0] == hash).all(&mut *show) {
            return Ok(());
        }
        for run in &self.runs {
            if !run.look(hash, show).context("names of earlier rows, in the spill folder")? {
                return Ok(());
            }
        }
        Ok(())
    }

    pub fn add(&mut self, entries: impl IntoIterator<Item = [u64; N]>) -> Result<()> {
        if self.recent.is_empty() {
            self.filter_of_recent = Filter::for_hashes(self.max_recent);
        }
        for entry in entries {
            self.filter_of_recent.add(entry[0]);
            self.recent.push(entry);
        }
        // Finds that a part of it is sorted already.
        self.recent.sort();
        self.recent.dedup();
        if self.recent.len() >= self.max_recent {
            let run = Run::write(&self.folder, self.recent.len(), self.recent.iter().map(|entry| Ok(*entry)));
            self.runs.push(run.with_context(|| format!("the spill folder {}", self.folder.display()))?);
            (self.recent, self.filter_of_recent) = (Vec::new(), Filter::for_hashes(0));
            self.merge().with_context(|| format!("the spill folder {}", self.folder.display()))?;
        }
        Ok(())
    }

    /// Makes one run of the last ones as long as they are of about one size and many.
    fn merge(&mut self) -> io::Result<()> {
        while let Some(n_alike) = self.n_alike() {
            let alike = &self.runs[self.runs.len() - n_alike..];
            let n_entries = alike.iter().map(|run| run.n_entries).sum();
            let merged = Run::write(&self.folder, n_entries, Merging::of(alike)?)?;
            self.runs.truncate(self.runs.len() - n_alike);
            self.runs.push(merged);
        }
        Ok(())
    }

    /// How many of the last runs are merged now, if any.
    fn n_alike(&self) -> Option<usize> {
        let last = self.runs.last()?.n_entries;
        let n_alike = self.runs.iter().rev().take_while(|run| run.n_entries < last * FAN_IN / 2).count();
        (n_alike >= FAN_IN).then_some(n_alike)
    }
}

impl Known<2> {
    /// What is said under a hash, by the second number.
    pub fn said(&self, hash: u64) -> Result<Said> {
        let mut said = Said::Nothing;
        self.look(hash, &mut |[_, says]| {
            said = match said {
                Said::Only(other) if other != *says => Said::Several,
                _ => Said::Only(*says),
            };
            said != Said::Several
        })?;
        Ok(said)
    }
}

impl<const N: usize> Run<N> {
    const BLOCK: usize = BLOCK_BYTES / HASH_BYTES / N;

    fn write(folder: &Path, at_most: usize, entries: impl Iterator<Item = io::Result<[u64; N]>>) -> io::Result<Self> {
        let mut file = BufWriter::with_capacity(BLOCKS_AHEAD * BLOCK_BYTES, tempfile::tempfile_in(folder)?);
        let (mut n_entries, mut fences) = (0, Vec::with_capacity(at_most / Self::BLOCK + 1));
        let mut filter = Filter::for_hashes(at_most);
        for entry in entries {
            let entry = entry?;
            if n_entries % Self::BLOCK == 0 {
                fences.push(entry[0]);
            }
            n_entries += 1;
            filter.add(entry[0]);
            for number in entry {
                file.write_all(&number.to_le_bytes())?;
            }
        }
        Ok(Self { file: file.into_inner()?, n_entries, fences, filter })
    }

    /// Whether more are wanted.
    fn look(&self, hash: u64, show: &mut impl FnMut(&[u64; N]) -> bool) -> io::Result<bool> {
        if !self.filter.may_have(hash) {
            return Ok(true);
        }
        // Its first entry may be the last of the block before.
        let first = self.fences.partition_point(|first| *first < hash).saturating_sub(1);
        let mut room = [0; BLOCK_BYTES];
        for (block, _) in self.fences.iter().enumerate().skip(first).take_while(|(_, fence)| **fence <= hash) {
            for entry in self.read(block * Self::BLOCK, &mut room)? {
                if entry[0] == hash && !show(&entry) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Entries from the `from`-th on, as many as there is room for.
    fn read<'b>(&self, from: usize, room: &'b mut [u8]) -> io::Result<impl Iterator<Item = [u64; N]> + use<'b, N>> {
        let entry_bytes = N * HASH_BYTES;
        let n_bytes = (room.len() / entry_bytes).min(self.n_entries - from) * entry_bytes;
        self.file.read_exact_at(&mut room[..n_bytes], (from * entry_bytes) as u64)?;
        let numbers = room[..n_bytes].as_chunks::<HASH_BYTES>().0;
        Ok(numbers.chunks_exact(N).map(|numbers| std::array::from_fn(|nth| u64::from_le_bytes(numbers[nth]))))
    }
}

/// The entries of some runs in order, each once.
struct Merging<'r, const N: usize> {
    runs: Vec<Ahead<'r, N>>,
    next: BinaryHeap<Reverse<([u64; N], usize)>>,
    last: Option<[u64; N]>,
}

/// A run read from its start on, some blocks at a time.
struct Ahead<'r, const N: usize> {
    run: &'r Run<N>,
    read: usize,
    entries: std::vec::IntoIter<[u64; N]>,
}

impl<'r, const N: usize> Merging<'r, N> {
    fn of(runs: &'r [Run<N>]) -> io::Result<Self> {
        let runs = runs.iter().map(|run| Ahead { run, read: 0, entries: Vec::new().into_iter() }).collect();
        let mut merging = Self { runs, next: BinaryHeap::new(), last: None };
        for nth in 0..merging.runs.len() {
            merging.push(nth)?;
        }
        Ok(merging)
    }

    fn push(&mut self, nth: usize) -> io::Result<()> {
        if let Some(entry) = self.runs[nth].next()? {
            self.next.push(Reverse((entry, nth)));
        }
        Ok(())
    }
}

impl<const N: usize> Ahead<'_, N> {
    fn next(&mut self) -> io::Result<Option<[u64; N]>> {
        if self.entries.as_slice().is_empty() && self.read < self.run.n_entries {
            let mut room = vec![0; BLOCKS_AHEAD * BLOCK_BYTES];
            let entries: Vec<[u64; N]> = self.run.read(self.read, &mut room)?.collect();
            self.read += entries.len();
            self.entries = entries.into_iter();
        }
        Ok(self.entries.next())
    }
}

impl<const N: usize> Iterator for Merging<'_, N> {
    type Item = io::Result<[u64; N]>;

    fn next(&mut self) -> Option<io::Result<[u64; N]>> {
        while let Some(Reverse((entry, nth))) = self.next.pop() {
            if let Err(e) = self.push(nth) {
                return Some(Err(e));
            }
            if self.last.replace(entry) != Some(entry) {
                return Some(Ok(entry));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

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
                known.add(hashes.into_iter().map(|hash| [hash * spread])).expect("readable");
            }
            prop_assert!(known.runs.len() <= 3 * FAN_IN, "{} runs", known.runs.len());
            let hashes: Vec<u64> = (0..20_000).map(|hash| hash * spread).collect();
            for (hash, may) in hashes.iter().zip(known.may_have(&hashes)) {
                prop_assert_eq!(known.has(*hash).expect("readable"), expected.contains(hash));
                prop_assert!(may || !expected.contains(hash));
            }
        });
    }

    #[test]
    fn what_is_said_under_a_hash_is_told_whatever_runs_and_blocks_it_lies_in() {
        let folder = tempfile::tempdir().expect("a folder");
        // A hash that has more entries than a block.
        let many = (0..2_000).map(|says| [7, says]);
        let few = prop::collection::vec(((0..300_u64).prop_map(|n| n * n), 0..3_u64), 0..3_000);
        proptest!(ProptestConfig::with_cases(24), |(added in prop::collection::vec(few, 1..12), has_many in any::<bool>())| {
            let mut known = Known { max_recent: 700, ..Known::<2>::within(folder.path()) };
            let mut expected: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
            let mut add = |entries: Vec<[u64; 2]>| {
                for [hash, says] in &entries {
                    expected.entry(*hash).or_default().insert(*says);
                }
                known.add(entries).expect("readable");
            };
            if has_many {
                add(many.clone().collect());
            }
            for entries in added {
                add(entries.into_iter().map(|(hash, says)| [hash, says]).collect());
            }
            for hash in (0..300).flat_map(|n| [n * n, n * n + 1]) {
                let said = known.said(hash).expect("readable");
                let all: Vec<u64> = expected.get(&hash).into_iter().flatten().copied().collect();
                prop_assert_eq!(said, match all[..] {
                    [] => Said::Nothing,
                    [says] => Said::Only(says),
                    _ => Said::Several,
                });
                prop_assert_eq!(known.has(hash).expect("readable"), said != Said::Nothing);
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
            known.add((first..first + 100_000).map(|i| [hash(i)])).expect("readable");
        }
        assert!(known.size_bytes() < n as usize * 3 / 2 + RUN_ENTRIES * HASH_BYTES * 2, "{} bytes", known.size_bytes());
        assert!((0..n).step_by(997).all(|i| known.has(hash(i)).expect("readable")));
        let others: Vec<u64> = (n..n + 100_000).map(hash).collect();
        let n_passed = known.may_have(&others).into_iter().filter(|may| *may).count();
        assert!(n_passed < 15_000, "filters let {n_passed} of 100,000 pass");
        assert!(!(n..n + 100_000).any(|i| known.has(hash(i)).expect("readable")));
    }
}

//! Rows kept in memory, found by their join key.

use std::sync::Arc;

use anyhow::Result;
use datafusion::arrow::{
    array::{ArrayRef, AsArray, RecordBatch},
    compute::{self, interleave_record_batch},
};

use super::{ByHash, sorted::Sorted};
use crate::identity::NameHasher;

/// What is kept of a row by its join key: hash, spot, and the map's own.
const BYTES_PER_KEY: usize = 40;
/// A batch of fewer rows is small, and so many small ones become one.
const SMALL_ROWS: usize = 4096;
const MAX_SMALL: usize = 64;

#[derive(Default)]
pub struct Held {
    spots: ByHash<Spots>,
    rows: Vec<RecordBatch>,
    n_bytes: usize,
}

/// The same once no more come.
pub struct Kept {
    spots: Sorted<Spot>,
    rows: Vec<RecordBatch>,
    n_bytes: usize,
}

/// Which row of which batch.
type Spot = (u32, u32);

/// Almost every key has one row.
enum Spots {
    One(Spot),
    Many(Vec<Spot>),
}

impl Spots {
    fn as_slice(&self) -> &[Spot] {
        match self {
            Self::One(spot) => std::slice::from_ref(spot),
            Self::Many(spots) => spots,
        }
    }

    fn push(&mut self, spot: Spot) {
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, spot]),
            Self::Many(spots) => spots.push(spot),
        }
    }
}

impl Held {
    pub fn size_bytes(&self) -> usize {
        self.n_bytes + self.spots.capacity() * BYTES_PER_KEY
    }

    /// Keeps rows, whose join key is a column of theirs.
    pub fn hold(&mut self, hasher: &NameHasher, rows: RecordBatch, join: &str) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.n_bytes += rows.get_array_memory_size();
        self.place(hasher, rows, join)?;
        let n_small = self.rows.iter().rev().take_while(|b| b.num_rows() < SMALL_ROWS).count();
        if n_small >= MAX_SMALL {
            self.join_small(hasher, join, self.rows.len() - n_small)?;
        }
        Ok(())
    }

    /// The rows that have one of the keys.
    pub fn of<'k>(&self, keys: impl Iterator<Item = &'k u64>) -> Result<Option<RecordBatch>> {
        at(&self.rows, keys.filter_map(|key| self.spots.get(key)).flat_map(Spots::as_slice).copied())
    }

    pub fn keep(self) -> Kept {
        let spots = self.spots.iter().flat_map(|(key, spots)| spots.as_slice().iter().map(|spot| (*key, *spot)));
        Kept { spots: Sorted::of(spots), rows: self.rows, n_bytes: self.n_bytes }
    }

    fn place(&mut self, hasher: &NameHasher, rows: RecordBatch, join: &str) -> Result<()> {
        let batch = self.rows.len() as u32;
        for (row, key) in hasher.short_hashes(&rows, &[join])?.into_iter().enumerate() {
            let spot = (batch, row as u32);
            self.spots.entry(key).and_modify(|spots| spots.push(spot)).or_insert(Spots::One(spot));
        }
        self.rows.push(rows);
        Ok(())
    }

    /// Makes one batch of those from `first` on: questions that come often leave many small ones.
    fn join_small(&mut self, hasher: &NameHasher, join: &str, first: usize) -> Result<()> {
        let small = self.rows.split_off(first);
        let one = compute::concat_batches(small[0].schema_ref(), &small)?;
        let is_before = |spot: &Spot| (spot.0 as usize) < first;
        for key in hasher.short_hashes(&one, &[join])? {
            match self.spots.get_mut(&key) {
                Some(Spots::Many(spots)) => spots.retain(is_before),
                Some(Spots::One(spot)) if !is_before(spot) => drop(self.spots.remove(&key)),
                _ => {}
            }
        }
        self.place(hasher, one, join)
    }
}

impl Kept {
    pub fn size_bytes(&self) -> usize {
        self.n_bytes + self.spots.size_bytes()
    }

    pub fn keys(&self) -> impl Iterator<Item = u64> + '_ {
        self.spots.iter().map(|(key, _)| key)
    }

    /// The rows that have one of the keys.
    pub fn of<'k>(&self, keys: impl Iterator<Item = &'k u64>) -> Result<Option<RecordBatch>> {
        at(&self.rows, keys.flat_map(|key| self.spots.of_hash(*key)))
    }
}

fn at(rows: &[RecordBatch], spots: impl Iterator<Item = Spot>) -> Result<Option<RecordBatch>> {
    let spots: Vec<(usize, usize)> = spots.map(|(batch, row)| (batch as usize, row as usize)).collect();
    if spots.is_empty() {
        return Ok(None);
    }
    let batches: Vec<&RecordBatch> = rows.iter().collect();
    Ok(Some(interleave_record_batch(&batches, &spots)?))
}

/// Rows that no longer hold on to the text of others.
pub fn let_go(rows: &RecordBatch) -> Result<RecordBatch> {
    let columns = rows.columns().iter().map(|column| match column.as_string_view_opt() {
        Some(texts) => Arc::new(texts.gc()) as ArrayRef,
        None => column.clone(),
    });
    Ok(RecordBatch::try_new(rows.schema(), columns.collect())?)
}

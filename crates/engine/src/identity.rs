//! What makes a row itself: its place in the log, and a hash of the columns that name it.
//!
//! Hashes have 128 bits under keys that are drawn anew by every process, so that nobody can
//! make two names collide, and are therefore taken for the names themselves. They are never
//! stored.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, BuildHasherDefault, Hasher},
};

use anyhow::{Context, Result};
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, RecordBatch},
        compute,
        datatypes::{DataType, Int32Type, Int64Type},
        row::{RowConverter, Rows, SortField},
    },
    common::hash_utils::QualityRandomState,
};
use model::{Offset, TopicPartition};
use uuid::Uuid;

/// The hash of a row's name.
pub type NameHash = u128;

/// A map by hashes that needs no further hashing.
pub type ByName<V> = HashMap<NameHash, V, BuildHasherDefault<Unhashed>>;

/// Where a row comes from: a partition, by its number in `Sources`, an offset, and which row
/// of the record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    source: u32,
    nth: u32,
    offset: u64,
}

impl Place {
    /// The number of its partition.
    pub fn source(self) -> usize {
        self.source as usize
    }

    pub fn offset(self) -> u64 {
        self.offset
    }
}

/// The partitions that places are in.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    names: Vec<(String, i32)>,
}

/// The names whose hashes leave `rest` when divided by `divisor`: what does not fit in memory as a
/// whole is done share by share.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    rest: u64,
    divisor: u64,
}

/// The keys of one set of hashes: only hashes under the same keys are compared.
#[derive(Clone, Debug)]
pub struct NameHasher {
    states: [QualityRandomState; 2],
}

impl Default for NameHasher {
    fn default() -> Self {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        // Two bits of a version are known in each half; the rest is drawn.
        let (more_high, more_low) = Uuid::new_v4().as_u64_pair();
        Self {
            states: [high ^ more_low.rotate_left(17), low ^ more_high.rotate_left(31)]
                .map(QualityRandomState::with_seed),
        }
    }
}

impl NameHasher {
    /// A hash per row of the named columns.
    pub fn hash(&self, rows: &RecordBatch, columns: &[&str]) -> Result<Vec<NameHash>> {
        self.hash_columns(&named(rows, columns)?)
    }

    /// The first 64 bits of it, where half the memory is worth a chance: of a million new names one is
    /// taken for one of a billion known ones once in eighteen thousand times.
    pub fn short_hashes(&self, rows: &RecordBatch, columns: &[&str]) -> Result<Vec<u64>> {
        let names = encoded(&named(rows, columns)?)?;
        Ok(names.iter().map(|name| self.states[0].hash_one(name.as_ref())).collect())
    }

    /// A hash per row. Text hashes the same in whatever type it comes.
    pub fn hash_columns(&self, columns: &[&ArrayRef]) -> Result<Vec<NameHash>> {
        let hash = |bytes: &[u8]| {
            let [high, low] = &self.states;
            u128::from(high.hash_one(bytes)) << 64 | u128::from(low.hash_one(bytes))
        };
        Ok(encoded(columns)?.iter().map(|name| hash(name.as_ref())).collect())
    }
}

fn named<'r>(rows: &'r RecordBatch, columns: &[&str]) -> Result<Vec<&'r ArrayRef>> {
    let column = |name: &&str| rows.column_by_name(name).with_context(|| format!("column {name} is missing"));
    columns.iter().map(column).collect()
}

/// The columns of each row as bytes, text in one type.
fn encoded(columns: &[&ArrayRef]) -> Result<Rows> {
    let in_one_type = |column: &&ArrayRef| match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => compute::cast(column, &DataType::Utf8View),
        _ => Ok(ArrayRef::clone(column)),
    };
    let arrays: Vec<ArrayRef> = columns.iter().map(in_one_type).collect::<Result<_, _>>()?;
    let fields = arrays.iter().map(|a| SortField::new(a.data_type().clone())).collect();
    Ok(RowConverter::new(fields)?.convert_columns(&arrays)?)
}

impl Share {
    /// All names.
    pub const ALL: Self = Self { rest: 0, divisor: 1 };
    /// Memory that does not suffice for so small a share never will.
    const MAX_DIVISOR: u64 = 1 << 20;

    pub fn has(self, hash: NameHash) -> bool {
        (hash >> 64) as u64 % self.divisor == self.rest
    }

    /// Two shares that are this one; None if it is small enough for any memory.
    pub fn halves(self) -> Option<[Self; 2]> {
        self.halves_of_at_most(Self::MAX_DIVISOR)
    }

    /// The same; None if it is one of so many shares already.
    pub fn halves_of_at_most(self, n_shares: u64) -> Option<[Self; 2]> {
        let Self { rest, divisor } = self;
        let halves = [rest, rest + divisor].map(|rest| Self { rest, divisor: 2 * divisor });
        (divisor < n_shares).then_some(halves)
    }
}

impl Sources {
    /// The place of each row, read from its position columns.
    pub fn places(&mut self, rows: &RecordBatch) -> Result<Vec<Place>> {
        let column = |name: &str| rows.column_by_name(name).with_context(|| format!("column {name} is missing"));
        let topics = compute::cast(column("_topic")?, &DataType::Utf8View)?;
        let topics = topics.as_string_view();
        let partitions = column("_partition")?.as_primitive::<Int32Type>();
        let offsets = column("_offset")?.as_primitive::<Int64Type>();
        let nths = column("_nth")?.as_primitive::<Int32Type>();
        let mut places = Vec::with_capacity(rows.num_rows());
        // Rows of a partition come together.
        let mut source = 0;
        for i in 0..rows.num_rows() {
            let (topic, partition) = (topics.value(i), partitions.value(i));
            if !self.names.get(source).is_some_and(|(t, p)| *p == partition && t == topic) {
                source = self.number_of(topic, partition);
            }
            places.push(Place { source: source as u32, nth: nths.value(i) as u32, offset: offsets.value(i) as u64 });
        }
        Ok(places)
    }

    /// Whether a row comes before another: by topic, partition, offset, place in the record.
    pub fn is_before(&self, one: Place, other: Place) -> bool {
        if one.source != other.source {
            return self.names[one.source as usize] < self.names[other.source as usize];
        }
        (one.offset, one.nth) < (other.offset, other.nth)
    }

    /// Whether any row was seen of a partition.
    pub fn has(&self, partition: &TopicPartition) -> bool {
        self.names
            .iter()
            .any(|(topic, number)| *number == partition.partition as i32 && topic == partition.topic.as_str())
    }

    /// The offset in `next` of the partition that has a number; 0 if it is not there.
    pub fn next_in(&self, next: &BTreeMap<TopicPartition, Offset>, source: usize) -> u64 {
        let (topic, number) = &self.names[source];
        let found = next.iter().find(|(p, _)| p.topic.as_str() == topic && p.partition as i32 == *number);
        found.map_or(0, |(_, offset)| offset.0)
    }

    /// Whether a place is in a partition, or in one behind it.
    pub fn is_in_or_behind(&self, place: Place, partition: &TopicPartition) -> bool {
        let (topic, number) = &self.names[place.source as usize];
        (topic.as_str(), *number) >= (partition.topic.as_str(), partition.partition as i32)
    }

    fn number_of(&mut self, topic: &str, partition: i32) -> usize {
        if let Some(known) = self.names.iter().position(|(t, p)| *p == partition && t == topic) {
            return known;
        }
        self.names.push((topic.to_owned(), partition));
        self.names.len() - 1
    }
}

/// Passes a hash through.
#[derive(Default)]
pub struct Unhashed(u64);

impl Hasher for Unhashed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are keys");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::{
        array::{Int64Array, StringArray, StringViewArray},
        datatypes::{Field, Schema},
    };

    use super::*;

    fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        let fields: Vec<Field> = columns.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("equal lengths")
    }

    #[test]
    fn names_are_the_same_exactly_if_their_columns_are() {
        let hasher = NameHasher::default();
        let texts = [Some("a"), None, Some(""), Some("a")];
        let others = [None, Some("a"), Some("a"), None];
        let views = rows(vec![
            ("x", Arc::new(StringViewArray::from_iter(texts))),
            ("y", Arc::new(StringViewArray::from_iter(others))),
        ]);
        let plain =
            rows(vec![("x", Arc::new(StringArray::from_iter(texts))), ("y", Arc::new(StringArray::from_iter(others)))]);
        let hashes = hasher.hash(&views, &["x", "y"]).expect("hashes");
        assert_eq!(hashes, hasher.hash(&plain, &["x", "y"]).expect("hashes"));
        assert_eq!(hashes[0], hashes[3]);
        assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
        assert_ne!(hashes, NameHasher::default().hash(&views, &["x", "y"]).expect("hashes"));
    }

    #[test]
    fn a_name_is_in_one_of_two_halves() {
        let hashes = NameHasher::default()
            .hash(&rows(vec![("x", Arc::new((0..1000).collect::<Int64Array>()))]), &["x"])
            .expect("hashes");
        let mut shares = vec![Share::ALL];
        for _ in 0..4 {
            shares = shares.into_iter().flat_map(|share| share.halves().expect("two")).collect();
        }
        assert_eq!(shares.len(), 16);
        for hash in hashes {
            assert_eq!(shares.iter().filter(|share| share.has(hash)).count(), 1);
        }
        assert!(shares.iter().all(|share| share.divisor == 16));
    }

    #[test]
    fn places_are_in_the_order_of_topic_partition_offset_and_row() {
        let mut sources = Sources::default();
        let order = [("a", 1, 5, 0), ("a", 1, 5, 1), ("a", 1, 6, 0), ("a", 2, 0, 0), ("b", 0, 0, 0)];
        // Seen in another order than theirs.
        let seen: Vec<_> = order.iter().rev().collect();
        let batch = rows(vec![
            ("_topic", Arc::new(StringArray::from_iter_values(seen.iter().map(|s| s.0)))),
            ("_partition", Arc::new(seen.iter().map(|s| s.1).collect::<datafusion::arrow::array::Int32Array>())),
            ("_offset", Arc::new(seen.iter().map(|s| s.2).collect::<Int64Array>())),
            ("_nth", Arc::new(seen.iter().map(|s| s.3).collect::<datafusion::arrow::array::Int32Array>())),
        ]);
        let mut places = sources.places(&batch).expect("places");
        places.reverse();
        for (i, one) in places.iter().enumerate() {
            for (j, other) in places.iter().enumerate() {
                assert_eq!(sources.is_before(*one, *other), i < j);
            }
        }
    }
}

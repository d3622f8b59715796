//! Rows as they come, and what they change: which of them count beside all that came before,
//! and which earlier rows they are joined with.
//!
//! What came before a fold began is in tables, and is asked for by name or by join key when a
//! row needs it. What came since is kept, in generations: once the tables have the oldest, it
//! becomes part of the past, and of it only hashes are kept, on disk. A row that comes later but
//! stands before one of the same name, and says something else, changes what was counted
//! already: then the fold ends.

mod sorted;

mod held;

mod known;

mod past;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::BuildHasherDefault,
    sync::Arc,
};

use anyhow::{Context, Result};
use datafusion::{
    arrow::{
        array::{BooleanArray, RecordBatch},
        compute::{self, interleave_record_batch},
        datatypes::SchemaRef,
    },
    catalog::TableProvider,
    prelude::SessionContext,
};
use model::{Offset, TopicPartition};

pub use self::past::{Keys, Past};
use self::{
    held::{Held, Kept, let_go},
    known::Said,
    sorted::Sorted,
};
use crate::identity::{NameHasher, Place, Sources, Unhashed};

type ByHash<V> = HashMap<u64, V, BuildHasherDefault<Unhashed>>;
type Hashes = HashSet<u64, BuildHasherDefault<Unhashed>>;

/// What the fold keeps of a row by its name: hash, place, what it says, and the map's own.
const BYTES_PER_NAME: usize = 40;

/// Streams whose rows are folded.
pub struct Fold {
    hasher: NameHasher,
    streams: BTreeMap<String, Folded>,
    /// How far the closed generations of every stream reach, the oldest first.
    closed: VecDeque<Through>,
}

/// A stream as a fold knows it.
struct Folded {
    how: StreamFold,
    sources: Sources,
    /// What was asked of the past, since it became what it is.
    found: Found,
    /// Those that are closed, the oldest first.
    closed: VecDeque<Closed>,
    open: Generation,
}

/// Rows that came one after the other.
#[derive(Default)]
struct Generation {
    /// The offset after its last row, by the number of the partition.
    ends: Vec<u64>,
    names: ByHash<Entry>,
    /// Those that count, if they are joined.
    held: Held,
}

/// A generation to which nothing is added.
struct Closed {
    names: Sorted<Entry>,
    held: Kept,
}

/// Rows of the past.
#[derive(Default)]
struct Found {
    names: ByHash<Entry>,
    /// Join keys that were asked for.
    asked: Hashes,
    /// The rows that count and have one of them.
    held: Held,
}

/// The first row of a name.
#[derive(Clone, Copy)]
struct Entry {
    place: Place,
    /// The hash of its columns.
    says: u64,
}

/// How far a generation reaches: of every partition it has rows below these offsets only, and those
/// that come later have none.
pub type Through = BTreeMap<TopicPartition, Offset>;

/// What rows change: those that count now, and those that counted before with which they are
/// joined, by stream.
#[derive(Default)]
pub struct Epoch {
    pub new: BTreeMap<String, Vec<RecordBatch>>,
    pub old: BTreeMap<String, Vec<RecordBatch>>,
}

/// How a stream is folded.
pub struct StreamFold {
    pub name: String,
    /// The columns that name a row; none means that every row counts.
    pub identity: Vec<String>,
    /// The column that it is joined by.
    pub join: Option<String>,
    /// The columns that views name.
    pub schema: SchemaRef,
    /// The columns that are asked of the past: all of these, and the place.
    pub columns: Vec<String>,
    pub past: Past,
}

impl Fold {
    /// Begins where the pasts end. The hasher is the one that their keys were hashed by.
    pub fn begin(hasher: NameHasher, streams: Vec<StreamFold>) -> Self {
        let folded = |s: StreamFold| (s.name.clone(), Folded::begin(s));
        Self { hasher, streams: streams.into_iter().map(folded).collect(), closed: VecDeque::new() }
    }

    /// Bytes that it takes in memory.
    pub fn size_bytes(&self) -> usize {
        self.streams.values().map(Folded::size_bytes).sum()
    }

    /// Bytes of the rows that came since the last generation was closed.
    pub fn open_bytes(&self) -> usize {
        self.streams.values().map(|s| s.open.size_bytes()).sum()
    }

    /// Closes a generation, unless it has rows beyond what it is said to reach.
    pub fn close_generation(&mut self, through: Through) {
        if self.streams.values().all(|s| s.open.is_below(&s.sources, &through)) {
            self.closed.push_back(through);
            for stream in self.streams.values_mut() {
                stream.closed.push_back(std::mem::take(&mut stream.open).close());
            }
        }
    }

    /// How far the closed generations reach and what they take in memory, the oldest first.
    pub fn closed(&self) -> impl Iterator<Item = (&Through, usize)> {
        let size = |nth: usize| self.streams.values().map(|s| s.closed[nth].size_bytes()).sum();
        self.closed.iter().enumerate().map(move |(nth, through)| (through, size(nth)))
    }

    /// Makes the oldest generations part of the past, whose rows are in these tables from now on.
    pub fn make_past(&mut self, n_generations: usize, tables: &BTreeMap<String, Arc<dyn TableProvider>>) -> Result<()> {
        for _ in 0..n_generations {
            let through = self.closed.pop_front().context("there is such a generation")?;
            for (name, stream) in &mut self.streams {
                let table = tables.get(name).with_context(|| format!("no table of stream {name}"))?;
                stream.make_past(&through, table.clone())?;
            }
        }
        Ok(())
    }

    /// The names and join keys of all rows, by stream, and how they were hashed.
    pub fn into_keys(self) -> Result<(NameHasher, BTreeMap<String, Keys>)> {
        let keys = self.streams.into_iter().map(|(name, stream)| Ok((name, stream.into_keys()?)));
        Ok((self.hasher, keys.collect::<Result<_>>()?))
    }

    /// Takes in rows of some streams. None if they change what was counted before; the fold
    /// is of no use any more then, as after an error.
    pub async fn advance(
        &mut self,
        context: &SessionContext,
        fresh: &BTreeMap<String, Vec<RecordBatch>>,
    ) -> Result<Option<Epoch>> {
        let mut epoch = Epoch::default();
        let mut keys = Vec::new();
        for (name, rows) in fresh {
            let stream = self.streams.get_mut(name).with_context(|| format!("stream {name} is not folded"))?;
            let Some(new) = stream.take(context, &self.hasher, rows).await? else { return Ok(None) };
            for batch in &new {
                keys.extend(stream.join_keys(batch)?);
            }
            epoch.new.insert(name.clone(), new);
        }
        let mut wanted: ByHash<(usize, usize)> = ByHash::default();
        for (at, batch) in keys.iter().enumerate() {
            for (row, hash) in self.hasher.short_hashes(batch, &[KEY])?.into_iter().enumerate() {
                wanted.entry(hash).or_insert((at, row));
            }
        }
        for (name, stream) in &mut self.streams {
            stream.ask_for_partners(context, &self.hasher, &keys, &wanted).await?;
            let old = stream.partners(wanted.keys())?;
            epoch.old.insert(name.clone(), old);
        }
        for (name, new) in &epoch.new {
            let stream = self.streams.get_mut(name).context("it was there")?;
            for batch in new {
                stream.hold(&self.hasher, batch.clone())?;
            }
        }
        Ok(Some(epoch))
    }
}

/// The name under which join keys of all streams go.
const KEY: &str = "key";

impl Folded {
    fn begin(how: StreamFold) -> Self {
        Self {
            how,
            sources: Sources::default(),
            found: Found::default(),
            closed: VecDeque::new(),
            open: Generation::default(),
        }
    }

    fn size_bytes(&self) -> usize {
        let past = self.how.past.known.size_bytes();
        let found = self.found.names.capacity() * BYTES_PER_NAME + self.found.held.size_bytes();
        past + found + self.closed.iter().map(Closed::size_bytes).sum::<usize>() + self.open.size_bytes()
    }

    /// The first row of a name, as far as it is in memory.
    fn entry(&self, name: u64) -> Option<Entry> {
        self.recent_entry(name).or_else(|| self.found.names.get(&name).copied())
    }

    /// The first row of a name, if it is none of the past.
    fn recent_entry(&self, name: u64) -> Option<Entry> {
        self.open.names.get(&name).copied().or_else(|| self.closed.iter().find_map(|closed| closed.names.get(name)))
    }

    /// Makes the oldest generation part of the past.
    fn make_past(&mut self, through: &Through, table: Arc<dyn TableProvider>) -> Result<()> {
        let generation = self.closed.pop_front().context("there is such a generation")?;
        let past = &mut self.how.past;
        past.table = Some(table);
        let own = through.iter().filter(|(partition, _)| self.sources.has(partition));
        past.below.next.extend(own.map(|(partition, offset)| (partition.clone(), *offset)));
        generation.add_to(&mut past.known)?;
        // Rows of that generation would be missing in what was found before.
        self.found = Found::default();
        Ok(())
    }

    fn into_keys(self) -> Result<Keys> {
        let mut known = self.how.past.known;
        for generation in self.closed.into_iter().chain([self.open.close()]) {
            generation.add_to(&mut known)?;
        }
        Ok(known)
    }

    /// The rows that count beside all others, with the columns that views name. None if one
    /// of them should have counted instead of an earlier one.
    async fn take(
        &mut self,
        context: &SessionContext,
        hasher: &NameHasher,
        fresh: &[RecordBatch],
    ) -> Result<Option<Vec<RecordBatch>>> {
        let mut new = Vec::new();
        if self.how.identity.is_empty() {
            for batch in fresh.iter().filter(|b| b.num_rows() > 0) {
                self.open.reach(&self.sources.places(batch)?);
                new.push(let_go(&self.narrow(batch)?)?);
            }
            return Ok(Some(new));
        }
        let identity: Vec<&str> = self.how.identity.iter().map(String::as_str).collect();
        let mut named = Vec::new();
        let mut unknown = Vec::new();
        for batch in fresh.iter().filter(|b| b.num_rows() > 0) {
            let names = hasher.short_hashes(batch, &identity)?;
            let places = self.sources.places(batch)?;
            self.open.reach(&places);
            let own = self.narrow(batch)?;
            let says = past::says(hasher, &own)?;
            let (mut asks, mut is_replay) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
            let may_be_there = self.how.past.may_name(&names);
            for (((name, place), says), may_be_there) in names.iter().zip(&places).zip(&says).zip(may_be_there) {
                let said = match self.entry(*name) {
                    None if may_be_there => self.how.past.said(*name)?,
                    _ => Said::Nothing,
                };
                // What says the same again changes nothing, wherever it stands; and behind all of the
                // past it does not matter what the first row of its name says.
                let is_again = match said {
                    Said::Nothing => false,
                    Said::Only(known) if known == *says => true,
                    Said::Only(_) | Said::Several => self.how.past.ends_before(&self.sources, *place),
                };
                asks.push(said != Said::Nothing && !is_again);
                is_replay.push(is_again);
            }
            let asks = BooleanArray::from(asks);
            if asks.true_count() > 0 {
                unknown.push(compute::filter_record_batch(&project(batch, &identity)?, &asks)?);
            }
            named.push((own, names, places, says, is_replay));
        }
        self.learn(context, hasher, unknown).await?;
        for (own, names, places, says, is_replay) in named {
            let mut counts = Vec::with_capacity(names.len());
            for (((name, place), is_replay), says) in names.into_iter().zip(places).zip(is_replay).zip(says) {
                match self.entry(name) {
                    None if is_replay => counts.push(false),
                    None => {
                        self.open.names.insert(name, Entry { place, says });
                        counts.push(true);
                    }
                    Some(first) if says == first.says || self.sources.is_before(first.place, place) => {
                        counts.push(false);
                    }
                    Some(_) => return Ok(None),
                }
            }
            let kept = compute::filter_record_batch(&own, &BooleanArray::from(counts))?;
            if kept.num_rows() > 0 {
                new.push(let_go(&kept)?);
            }
        }
        Ok(Some(new))
    }

    /// Learns from the past which rows are the first of their names.
    async fn learn(&mut self, context: &SessionContext, hasher: &NameHasher, names: Vec<RecordBatch>) -> Result<()> {
        let n_names: usize = names.iter().map(RecordBatch::num_rows).sum();
        if n_names == 0 {
            return Ok(());
        }
        tracing::debug!(stream = self.how.name, n_names, "asking the tables for names");
        let identity: Vec<&str> = self.how.identity.iter().map(String::as_str).collect();
        for batch in self.how.past.find(context, names, &self.how.columns).await? {
            let places = self.sources.places(&batch)?;
            let says = past::says(hasher, &self.narrow(&batch)?)?;
            for ((name, place), says) in hasher.short_hashes(&batch, &identity)?.into_iter().zip(places).zip(says) {
                if self.recent_entry(name).is_some() {
                    // It was found to count beside the past when it came.
                    continue;
                }
                let first = self.found.names.entry(name).or_insert(Entry { place, says });
                if self.sources.is_before(place, first.place) {
                    *first = Entry { place, says };
                }
            }
        }
        Ok(())
    }

    /// Fetches those rows of the past that count and have one of the keys.
    async fn ask_for_partners(
        &mut self,
        context: &SessionContext,
        hasher: &NameHasher,
        keys: &[RecordBatch],
        wanted: &ByHash<(usize, usize)>,
    ) -> Result<()> {
        let Some(join) = self.how.join.clone() else { return Ok(()) };
        let unasked = wanted.iter().filter(|(key, _)| !self.found.asked.contains(*key));
        let (unasked, at): (Vec<u64>, Vec<(usize, usize)>) = unasked.map(|(key, at)| (*key, *at)).unzip();
        let are_there = self.how.past.joins(&unasked)?;
        let unasked = unasked.into_iter().zip(at).zip(are_there).filter(|(_, is_there)| *is_there);
        let unasked: Vec<(u64, (usize, usize))> = unasked.map(|(unasked, _)| unasked).collect();
        if unasked.is_empty() {
            return Ok(());
        }
        let batches: Vec<&RecordBatch> = keys.iter().collect();
        let asked = interleave_record_batch(&batches, &unasked.iter().map(|(_, at)| *at).collect::<Vec<_>>())?;
        let asked = renamed(&asked, &join)?;
        self.found.asked.extend(unasked.iter().map(|(key, _)| *key));
        tracing::debug!(stream = self.how.name, n_keys = asked.num_rows(), "asking the tables for join keys");
        let found = self.how.past.find(context, vec![asked], &self.how.columns).await?;
        if !self.how.identity.is_empty() {
            // A row of the same name but another key may be the first.
            let identity: Vec<&str> = self.how.identity.iter().map(String::as_str).collect();
            let names = found.iter().map(|b| project(b, &identity)).collect::<Result<Vec<_>>>()?;
            self.learn(context, hasher, names).await?;
        }
        for batch in found {
            let own = self.narrow(&batch)?;
            if self.how.identity.is_empty() {
                self.found.held.hold(hasher, own, &join)?;
                continue;
            }
            let identity: Vec<&str> = self.how.identity.iter().map(String::as_str).collect();
            let places = self.sources.places(&batch)?;
            let names = hasher.short_hashes(&batch, &identity)?;
            let counts: BooleanArray = names
                .iter()
                .zip(places)
                .map(|(name, place)| Some(self.entry(*name).is_some_and(|first| first.place == place)))
                .collect();
            self.found.held.hold(hasher, compute::filter_record_batch(&own, &counts)?, &join)?;
        }
        Ok(())
    }

    /// The rows that count and have one of the keys.
    fn partners<'k>(&self, keys: impl Iterator<Item = &'k u64> + Clone) -> Result<Vec<RecordBatch>> {
        let open = [&self.found.held, &self.open.held].map(|held| held.of(keys.clone()));
        let closed = self.closed.iter().map(|closed| closed.held.of(keys.clone()));
        open.into_iter().chain(closed).filter_map(Result::transpose).collect()
    }

    fn hold(&mut self, hasher: &NameHasher, rows: RecordBatch) -> Result<()> {
        match &self.how.join {
            Some(join) => self.open.held.hold(hasher, rows, join),
            None => Ok(()),
        }
    }

    fn join_keys(&self, rows: &RecordBatch) -> Result<Option<RecordBatch>> {
        let Some(join) = self.how.join.as_deref() else { return Ok(None) };
        renamed(&project(rows, &[join])?, KEY).map(Some)
    }

    fn narrow(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        past::narrow(rows, &self.how.schema)
    }
}

impl Generation {
    fn size_bytes(&self) -> usize {
        self.names.capacity() * BYTES_PER_NAME + self.held.size_bytes()
    }

    fn close(self) -> Closed {
        Closed { names: Sorted::of(self.names), held: self.held.keep() }
    }

    fn reach(&mut self, places: &[Place]) {
        for place in places {
            if self.ends.len() <= place.source() {
                self.ends.resize(place.source() + 1, 0);
            }
            let end = &mut self.ends[place.source()];
            *end = (*end).max(place.offset() + 1);
        }
    }

    fn is_below(&self, sources: &Sources, through: &Through) -> bool {
        self.ends.iter().enumerate().all(|(source, end)| *end <= sources.next_in(through, source))
    }
}

impl Closed {
    fn add_to(&self, known: &mut Keys) -> Result<()> {
        let names = self.names.iter().map(|(name, entry)| [name, entry.says]).collect();
        known.add(names, self.held.keys().collect())
    }

    fn size_bytes(&self) -> usize {
        self.names.size_bytes() + self.held.size_bytes()
    }
}

fn project(rows: &RecordBatch, columns: &[&str]) -> Result<RecordBatch> {
    let indices = columns.iter().map(|name| rows.schema().index_of(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(rows.project(&indices)?)
}

/// A batch of one column under another name.
fn renamed(rows: &RecordBatch, name: &str) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter_with_nullable([(name, rows.column(0).clone(), true)])?)
}

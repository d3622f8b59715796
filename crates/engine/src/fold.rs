//! Rows as they come, and what they change: which of them count beside all that came before,
//! and which earlier rows they are joined with.
//!
//! What came before a fold began is in tables, and is asked for by name or by join key when a
//! row needs it; what came since is kept. A row that comes later but stands before one of the
//! same name, and says something else, changes what was counted already: then the fold ends.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    hash::BuildHasherDefault,
    sync::Arc,
};

use anyhow::{Context, Result};
use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, BooleanArray, RecordBatch},
        compute::{self, interleave_record_batch},
        datatypes::SchemaRef,
    },
    catalog::{MemTable, TableProvider},
    common::JoinType,
    prelude::{Column, Expr, SessionContext},
};
use futures::TryStreamExt;
use model::Checkpoint;

use crate::{
    identity::{ByName, NameHash, NameHasher, Place, Sources, Unhashed},
    relation::below,
};

type NameSet = HashSet<NameHash, BuildHasherDefault<Unhashed>>;

/// What the fold keeps of a row by its name: hash, place, what it says, and the map's own.
const BYTES_PER_NAME: usize = 80;
/// The same by its join key.
const BYTES_PER_KEY: usize = 64;
/// A batch of fewer rows is small, and so many small ones become one.
const SMALL_ROWS: usize = 4096;
const MAX_SMALL: usize = 64;

/// Streams whose rows are folded.
pub struct Fold {
    hasher: NameHasher,
    streams: BTreeMap<String, Folded>,
}

/// A stream as a fold knows it.
struct Folded {
    how: StreamFold,
    sources: Sources,
    names: ByName<Entry>,
    /// Join keys that the past was asked for.
    asked: NameSet,
    /// Rows that count, by join key: which batch, which row.
    joined: ByName<Vec<(usize, usize)>>,
    rows: Vec<RecordBatch>,
    n_bytes: usize,
}

/// The first row of a name.
#[derive(Clone, Copy)]
struct Entry {
    place: Place,
    /// The hash of its columns.
    says: NameHash,
}

/// A stream's rows from before the fold: those of a table below a checkpoint.
pub struct Past {
    pub table: Option<Arc<dyn TableProvider>>,
    pub below: Checkpoint,
    /// Which names and join keys may be there; without them all may.
    pub known: Option<Keys>,
}

/// Hashes of the names and of the join keys of a table.
#[derive(Default)]
pub struct Keys {
    names: Sorted,
    /// None where the join key is the name.
    joins: Option<Sorted>,
}

/// A set of hashes, cut to 64 bits: what is not in it is not there, and what is in it is there but
/// for one name in a billion billions.
#[derive(Default)]
struct Sorted(Vec<u64>);

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
        let folded = |s: StreamFold| {
            let name = s.name.clone();
            let folded = Folded {
                how: s,
                sources: Sources::default(),
                names: ByName::default(),
                asked: NameSet::default(),
                joined: ByName::default(),
                rows: Vec::new(),
                n_bytes: 0,
            };
            (name, folded)
        };
        Self { hasher, streams: streams.into_iter().map(folded).collect() }
    }

    /// Bytes that it takes.
    pub fn size_bytes(&self) -> usize {
        let size =
            |s: &Folded| {
                let past =
                    s.how.past.known.as_ref().map_or(0, |k| {
                        8 * (k.names.0.capacity() + k.joins.as_ref().map_or(0, |joins| joins.0.capacity()))
                    });
                past + s.n_bytes + s.names.capacity() * BYTES_PER_NAME + s.joined.capacity() * BYTES_PER_KEY
            };
        self.streams.values().map(size).sum()
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
        let mut wanted: ByName<(usize, usize)> = ByName::default();
        for (at, batch) in keys.iter().enumerate() {
            for (row, hash) in self.hasher.hash(batch, &[KEY])?.into_iter().enumerate() {
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
                new.push(let_go(&self.narrow(batch)?)?);
            }
            return Ok(Some(new));
        }
        let identity: Vec<&str> = self.how.identity.iter().map(String::as_str).collect();
        let mut named = Vec::new();
        let mut unknown = Vec::new();
        for batch in fresh.iter().filter(|b| b.num_rows() > 0) {
            let names = hasher.hash(batch, &identity)?;
            let places = self.sources.places(batch)?;
            let (mut asks, mut is_replay) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
            for (name, place) in names.iter().zip(&places) {
                let may_be_there = !self.names.contains_key(name) && self.how.past.may_name(*name);
                // Behind all of the past it does not matter what the first row of its name says.
                let is_behind = may_be_there && self.how.past.is_known_to_end_before(&self.sources, *place);
                asks.push(may_be_there && !is_behind);
                is_replay.push(is_behind);
            }
            let asks = BooleanArray::from(asks);
            if asks.true_count() > 0 {
                unknown.push(compute::filter_record_batch(&project(batch, &identity)?, &asks)?);
            }
            named.push((batch, names, places, is_replay));
        }
        self.learn(context, hasher, unknown).await?;
        for (batch, names, places, is_replay) in named {
            let own = self.narrow(batch)?;
            let says = self.says(hasher, &own)?;
            let mut counts = Vec::with_capacity(names.len());
            for (((name, place), is_replay), says) in names.into_iter().zip(places).zip(is_replay).zip(says) {
                match self.names.get(&name) {
                    None if is_replay => counts.push(false),
                    None => {
                        self.names.insert(name, Entry { place, says });
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
        let identity: Vec<&str> = self.how.identity.iter().map(String::as_str).collect();
        for batch in self.how.past.find(context, names, &self.how.columns).await? {
            let places = self.sources.places(&batch)?;
            let says = self.says(hasher, &self.narrow(&batch)?)?;
            for ((name, place), says) in hasher.hash(&batch, &identity)?.into_iter().zip(places).zip(says) {
                let first = self.names.entry(name).or_insert(Entry { place, says });
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
        wanted: &ByName<(usize, usize)>,
    ) -> Result<()> {
        let Some(join) = self.how.join.clone() else { return Ok(()) };
        let unasked = wanted.iter().filter(|(key, _)| !self.asked.contains(*key) && self.how.past.may_join(**key));
        let unasked: Vec<(NameHash, (usize, usize))> = unasked.map(|(key, at)| (*key, *at)).collect();
        if unasked.is_empty() {
            return Ok(());
        }
        let batches: Vec<&RecordBatch> = keys.iter().collect();
        let asked = interleave_record_batch(&batches, &unasked.iter().map(|(_, at)| *at).collect::<Vec<_>>())?;
        let asked = renamed(&asked, &join)?;
        self.asked.extend(unasked.iter().map(|(key, _)| *key));
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
                self.hold(hasher, own)?;
                continue;
            }
            let identity: Vec<&str> = self.how.identity.iter().map(String::as_str).collect();
            let places = self.sources.places(&batch)?;
            let names = hasher.hash(&batch, &identity)?;
            let counts: BooleanArray = names
                .iter()
                .zip(places)
                .map(|(name, place)| Some(self.names.get(name).is_some_and(|first| first.place == place)))
                .collect();
            self.hold(hasher, compute::filter_record_batch(&own, &counts)?)?;
        }
        Ok(())
    }

    /// The rows held that have one of the keys.
    fn partners<'k>(&self, keys: impl Iterator<Item = &'k NameHash>) -> Result<Vec<RecordBatch>> {
        let places: Vec<(usize, usize)> = keys.filter_map(|key| self.joined.get(key)).flatten().copied().collect();
        if places.is_empty() {
            return Ok(vec![]);
        }
        let batches: Vec<&RecordBatch> = self.rows.iter().collect();
        Ok(vec![interleave_record_batch(&batches, &places)?])
    }

    fn hold(&mut self, hasher: &NameHasher, rows: RecordBatch) -> Result<()> {
        let Some(join) = self.how.join.as_deref() else { return Ok(()) };
        if rows.num_rows() == 0 {
            return Ok(());
        }
        for (row, key) in hasher.hash(&rows, &[join])?.into_iter().enumerate() {
            self.joined.entry(key).or_default().push((self.rows.len(), row));
        }
        self.n_bytes += rows.get_array_memory_size();
        self.rows.push(rows);
        let n_small = self.rows.iter().rev().take_while(|b| b.num_rows() < SMALL_ROWS).count();
        if n_small >= MAX_SMALL {
            self.join_small(hasher, join_of(&self.how)?, self.rows.len() - n_small)?;
        }
        Ok(())
    }

    /// Makes one batch of those from `first` on: questions that come often leave many small ones.
    fn join_small(&mut self, hasher: &NameHasher, join: String, first: usize) -> Result<()> {
        let small = self.rows.split_off(first);
        let one = compute::concat_batches(&self.how.schema, &small)?;
        let keys = hasher.hash(&one, &[&join])?;
        for key in &keys {
            self.joined.entry(*key).or_default().retain(|(batch, _)| *batch < first);
        }
        for (row, key) in keys.into_iter().enumerate() {
            self.joined.entry(key).or_default().push((first, row));
        }
        self.rows.push(one);
        Ok(())
    }

    fn join_keys(&self, rows: &RecordBatch) -> Result<Option<RecordBatch>> {
        let Some(join) = self.how.join.as_deref() else { return Ok(None) };
        renamed(&project(rows, &[join])?, KEY).map(Some)
    }

    fn narrow(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.how.schema.fields().iter().map(|field| {
            let column = rows.column_by_name(field.name()).with_context(|| format!("no column {}", field.name()))?;
            Ok(compute::cast(column, field.data_type())?)
        });
        Ok(RecordBatch::try_new(self.how.schema.clone(), columns.collect::<Result<Vec<_>>>()?)?)
    }

    fn says(&self, hasher: &NameHasher, own: &RecordBatch) -> Result<Vec<NameHash>> {
        let columns: Vec<&str> = self.how.schema.fields().iter().map(|f| f.name().as_str()).collect();
        hasher.hash(own, &columns)
    }
}

impl Past {
    fn may_name(&self, name: NameHash) -> bool {
        self.table.is_some() && self.known.as_ref().is_none_or(|k| k.names.has(name))
    }

    fn may_join(&self, key: NameHash) -> bool {
        self.table.is_some() && self.known.as_ref().is_none_or(|k| k.joins.as_ref().unwrap_or(&k.names).has(key))
    }

    /// Whether all rows of the past whose names are known stand before a place.
    fn is_known_to_end_before(&self, sources: &Sources, place: Place) -> bool {
        let begun = self.below.next.iter().filter(|(_, next)| next.0 > 0).map(|(partition, _)| partition);
        self.known.is_some() && begun.max().is_none_or(|last| sources.is_in_or_behind(place, last))
    }

    /// Rows whose columns are equal to those of one of the `asked`.
    async fn find(
        &self,
        context: &SessionContext,
        asked: Vec<RecordBatch>,
        columns: &[String],
    ) -> Result<Vec<RecordBatch>> {
        let (Some(table), Some(first)) = (&self.table, asked.first()) else { return Ok(vec![]) };
        let schema = first.schema();
        let asked = context.read_table(Arc::new(MemTable::try_new(schema.clone(), vec![asked])?))?.distinct()?;
        let rows = context.read_table(table.clone())?;
        let rows = match below(&self.below.next) {
            Some(below) => rows.filter(below)?,
            None => return Ok(vec![]),
        };
        let rows = rows.select(columns.iter().map(|c| Expr::Column(Column::from_name(c))).collect::<Vec<_>>())?;
        let rows = rows.alias("past")?;
        let asked = asked.alias("asked")?;
        // NULLs are equal here, as they are where rows are told apart.
        let same = schema.fields().iter().map(|f| {
            let of = |side: &str| Expr::Column(Column::new(Some(side), f.name()));
            datafusion::logical_expr::binary_expr(
                of("past"),
                datafusion::logical_expr::Operator::IsNotDistinctFrom,
                of("asked"),
            )
        });
        let found = rows.join_on(asked, JoinType::LeftSemi, same)?;
        Ok(found.collect().await?)
    }
}

impl Keys {
    /// Reads them from a table.
    pub async fn read(
        context: &SessionContext,
        table: &Arc<dyn TableProvider>,
        hasher: &NameHasher,
        identity: &[String],
        join: Option<&str>,
        at_most: &Checkpoint,
    ) -> Result<Self> {
        let mut keys = Self::default();
        let Some(below) = below(&at_most.next) else { return Ok(keys) };
        let columns: BTreeSet<&str> = identity.iter().map(String::as_str).chain(join).collect();
        if columns.is_empty() {
            return Ok(keys);
        }
        let columns: Vec<Expr> = columns.into_iter().map(|c| Expr::Column(Column::from_name(c))).collect();
        let rows = context.read_table(table.clone())?.filter(below)?.select(columns)?;
        let mut rows = rows.execute_stream().await?;
        let identity: Vec<&str> = identity.iter().map(String::as_str).collect();
        while let Some(batch) = rows.try_next().await? {
            if !identity.is_empty() {
                keys.names.0.extend(hasher.hash(&batch, &identity)?.into_iter().map(short));
            }
            if let Some(join) = join.filter(|join| identity != [*join]) {
                let joins = keys.joins.get_or_insert_default();
                joins.0.extend(hasher.hash(&batch, &[join])?.into_iter().map(short));
            }
        }
        keys.names.order();
        if let Some(joins) = &mut keys.joins {
            joins.order();
        }
        Ok(keys)
    }
}

impl Sorted {
    fn order(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
        self.0.shrink_to_fit();
    }

    fn has(&self, hash: NameHash) -> bool {
        self.0.binary_search(&short(hash)).is_ok()
    }
}

fn short(hash: NameHash) -> u64 {
    (hash >> 64) as u64
}

fn join_of(how: &StreamFold) -> Result<String> {
    how.join.clone().with_context(|| format!("stream {} is not joined", how.name))
}

/// Rows that no longer hold on to the text of others.
fn let_go(rows: &RecordBatch) -> Result<RecordBatch> {
    let columns = rows.columns().iter().map(|column| match column.as_string_view_opt() {
        Some(texts) => Arc::new(texts.gc()) as ArrayRef,
        None => column.clone(),
    });
    Ok(RecordBatch::try_new(rows.schema(), columns.collect())?)
}

fn project(rows: &RecordBatch, columns: &[&str]) -> Result<RecordBatch> {
    let indices = columns.iter().map(|name| rows.schema().index_of(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(rows.project(&indices)?)
}

/// A batch of one column under another name.
fn renamed(rows: &RecordBatch, name: &str) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter_with_nullable([(name, rows.column(0).clone(), true)])?)
}

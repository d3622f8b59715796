//! The rows of a stream that count: of each name the first, in the order of the log.
//!
//! Three looks at the rows: one finds the names that may be there more than once, which few are, the next
//! the first place of each of these, and the last keeps the rows that are there or have another name, and
//! of them only the columns that are asked for. Where those names do not fit in memory, the ones with one
//! rest of their hash are looked at after the others.

use std::{fs::File, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use datafusion::{
    arrow::{
        array::{BooleanArray, RecordBatch},
        compute,
        datatypes::SchemaRef,
    },
    catalog::MemTable,
    execution::memory_pool::{MemoryConsumer, MemoryReservation},
    parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties},
    prelude::{DataFrame, ParquetReadOptions, SessionContext},
};
use futures::StreamExt;

use crate::{
    decode::POSITION,
    filter::Seen,
    identity::{ByName, NameHash, NameHasher, Place, Share, Sources},
    session::{Scratch, quoted},
};

/// A map holds a hash and a place per slot, one byte more, and is never filled wholly.
const BYTES_PER_SLOT: usize = size_of::<(NameHash, Option<Place>)>() + 1;
/// So many names are looked at whatever the memory: to divide them would help nobody.
const FEW_NAMES: usize = 1024;
/// Kept rows go to a file when they take more than this part of the memory.
const HELD_PART: usize = 8;
/// Rows of a group in such a file: the least that a thread reads at a time.
const GROUP_ROWS: usize = 128 * 1024;

/// Rows kept for one run or one question: in memory, or in a file where they are many.
pub struct Held {
    schema: SchemaRef,
    rows: Rows,
    _in_memory: MemoryReservation,
}

enum Rows {
    InMemory(Vec<RecordBatch>),
    InFile(PathBuf),
}

/// Rows that are being kept.
struct Keeping {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    in_memory: MemoryReservation,
    max_bytes: usize,
    file: PathBuf,
    writer: Option<ArrowWriter<File>>,
}

impl Held {
    /// Makes the rows known to a session under a name.
    pub async fn register(&self, context: &SessionContext, name: &str) -> Result<()> {
        let batches = match &self.rows {
            Rows::InMemory(batches) => batches,
            Rows::InFile(file) => {
                let file = file.to_str().with_context(|| format!("{} is not UTF-8", file.display()))?;
                context.register_parquet(quoted(name), file, ParquetReadOptions::default()).await?;
                return Ok(());
            }
        };
        let mut parts = vec![Vec::new(); context.state().config().target_partitions()];
        let n_parts = parts.len();
        for (i, batch) in batches.iter().enumerate() {
            parts[i % n_parts].push(batch.clone());
        }
        context.register_table(quoted(name), Arc::new(MemTable::try_new(self.schema.clone(), parts)?))?;
        Ok(())
    }
}

impl Keeping {
    /// Keeps the first columns of a batch, which are those of the schema.
    fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(c, f)| compute::cast(c, f.data_type())).collect::<Result<Vec<_>, _>>()?;
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        if let Some(writer) = &mut self.writer {
            return Ok(writer.write(&batch)?);
        }
        let n_bytes = batch.get_array_memory_size();
        if self.in_memory.size() + n_bytes <= self.max_bytes && self.in_memory.try_grow(n_bytes).is_ok() {
            self.batches.push(batch);
            return Ok(());
        }
        let file = File::create(&self.file).with_context(|| format!("cannot make {}", self.file.display()))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::UNCOMPRESSED)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        let mut writer = ArrowWriter::try_new(file, self.schema.clone(), Some(properties))?;
        for batch in self.batches.drain(..) {
            writer.write(&batch)?;
        }
        self.in_memory.free();
        writer.write(&batch)?;
        self.writer = Some(writer);
        Ok(())
    }

    fn finish(self) -> Result<Held> {
        let Self { schema, batches, in_memory, file, writer, .. } = self;
        let rows = match writer {
            None => Rows::InMemory(batches),
            Some(writer) => {
                writer.close().with_context(|| format!("cannot write {}", file.display()))?;
                Rows::InFile(file)
            }
        };
        Ok(Held { schema, rows, _in_memory: in_memory })
    }
}

/// Names that may be there more than once, and where each is first.
struct Suspects {
    firsts: ByName<Option<Place>>,
    sources: Sources,
    in_memory: MemoryReservation,
}

/// Keeps the rows of `all` that count, by the columns that name them; without such columns all.
/// `all` has the position columns, the naming ones, and those of `schema`, which are kept.
pub async fn keep_first_of_each(
    context: &SessionContext,
    all: &DataFrame,
    identity: &[&str],
    schema: SchemaRef,
    scratch: &Scratch,
    table: &str,
) -> Result<Held> {
    let in_memory = MemoryConsumer::new("rows that count").register(&context.runtime_env().memory_pool);
    let max_bytes = scratch.memory_bytes / HELD_PART;
    let mut keeping =
        Keeping { schema, batches: Vec::new(), in_memory, max_bytes, file: scratch.file(table), writer: None };
    if identity.is_empty() {
        let columns: Vec<String> = keeping.schema.fields().iter().map(|f| f.name().clone()).collect();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let mut rows = all.clone().select_columns(&columns)?.execute_stream().await?;
        while let Some(batch) = rows.next().await {
            keeping.push(batch?)?;
        }
        return keeping.finish();
    }
    let hasher = NameHasher::default();
    let mut shares = vec![Share::ALL];
    while let Some(share) = shares.pop() {
        let Some(mut suspects) = suspects(context, all, identity, &hasher, share).await? else {
            shares.extend(share.halves().context("the names do not fit in memory")?);
            continue;
        };
        suspects.find_firsts(all, identity, &hasher).await?;
        keep(all, identity, &hasher, share, &mut suspects, &mut keeping).await?;
    }
    keeping.finish()
}

/// The names of a share that may be there more than once. None if they do not fit in memory.
async fn suspects(
    context: &SessionContext,
    all: &DataFrame,
    identity: &[&str],
    hasher: &NameHasher,
    share: Share,
) -> Result<Option<Suspects>> {
    let reserved = |what| MemoryConsumer::new(what).register(&context.runtime_env().memory_pool);
    let (mut seen, of_seen) = (Seen::default(), reserved("filter of names"));
    let mut suspects =
        Suspects { firsts: ByName::default(), sources: Sources::default(), in_memory: reserved("names of rows") };
    let mut rows = all.clone().select_columns(identity)?.execute_stream().await?;
    while let Some(batch) = rows.next().await {
        if seen.is_full() {
            if of_seen.try_resize(seen.size_bytes() + seen.growth_bytes()).is_err() {
                return Ok(None);
            }
            seen.grow();
        }
        let mut hashes = hasher.hash(&batch?, identity)?;
        hashes.retain(|hash| share.has(*hash));
        let were_seen = seen.see(&hashes.iter().map(|hash| *hash as u64).collect::<Vec<_>>());
        for (hash, _) in hashes.into_iter().zip(were_seen).filter(|(_, was_seen)| *was_seen) {
            if !suspects.has_room() {
                return Ok(None);
            }
            suspects.firsts.insert(hash, None);
        }
    }
    Ok(Some(suspects))
}

impl Suspects {
    fn has_room(&self) -> bool {
        if self.firsts.len() < self.firsts.capacity() {
            return true;
        }
        // A map that grows has both its tables for a moment.
        let slots = (self.firsts.capacity() + 1).next_power_of_two() * 2;
        self.in_memory.try_resize(slots * BYTES_PER_SLOT * 3 / 2).is_ok() || self.firsts.len() < FEW_NAMES
    }

    async fn find_firsts(&mut self, all: &DataFrame, identity: &[&str], hasher: &NameHasher) -> Result<()> {
        if self.firsts.is_empty() {
            return Ok(());
        }
        let columns: Vec<&str> = identity.iter().copied().chain(POSITION.iter().map(|(name, _)| *name)).collect();
        let mut rows = all.clone().select_columns(&columns)?.execute_stream().await?;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let places = self.sources.places(&batch)?;
            for (hash, place) in hasher.hash(&batch, identity)?.into_iter().zip(places) {
                let Some(first) = self.firsts.get_mut(&hash) else { continue };
                if first.is_none_or(|first| self.sources.is_before(place, first)) {
                    *first = Some(place);
                }
            }
        }
        Ok(())
    }

    /// Whether no row before one has its name.
    fn has_none_before(&self, hash: NameHash, place: Place) -> bool {
        self.firsts.get(&hash).is_none_or(|first| *first == Some(place))
    }
}

/// Keeps the rows of a share that stand where their names are first.
async fn keep(
    all: &DataFrame,
    identity: &[&str],
    hasher: &NameHasher,
    share: Share,
    suspects: &mut Suspects,
    keeping: &mut Keeping,
) -> Result<()> {
    let wanted: Vec<String> = keeping.schema.fields().iter().map(|f| f.name().clone()).collect();
    let mut columns: Vec<&str> = wanted.iter().map(String::as_str).collect();
    for name in identity.iter().copied().chain(POSITION.iter().map(|(name, _)| *name)) {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    let mut rows = all.clone().select_columns(&columns)?.execute_stream().await?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let places = suspects.sources.places(&batch)?;
        let hashes = hasher.hash(&batch, identity)?;
        let counts = |(hash, place)| Some(share.has(hash) && suspects.has_none_before(hash, place));
        let counts: BooleanArray = hashes.into_iter().zip(places).map(counts).collect();
        keeping.push(compute::filter_record_batch(&batch, &counts)?)?;
    }
    Ok(())
}

//! Views that stand: their groups are kept and take up what is new, so that an answer costs what
//! came since the last one, whatever the history. In serving they follow the log; a batch run
//! brings them to the end of its tables.
//!
//! They begin with the groups that the last batch run left and with the hashes of the names
//! that its tables hold. What comes since is kept in memory until the tables have it, so that
//! memory follows what is new. Where views cannot follow (a row changes what was counted before,
//! the memory does not suffice), answers are computed from all rows until a batch run has left
//! newer groups.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, Result};
use datafusion::{
    arrow::{array::RecordBatch, compute::concat_batches},
    catalog::TableProvider,
    prelude::{DataFrame, Expr, SessionContext, col, lit},
};
use futures::StreamExt;
use model::{Checkpoint, LogId, Offset, TopicPartition, ViewDef};
use tokio::task::JoinSet;

use crate::{
    fold::{Epoch, Fold, Keys, Past, StreamFold, Through},
    identity::NameHasher,
    mergeable::{Marks, Mergeable, Saved},
    relation::{below, not_below},
    session::{Mode, Resources},
};

/// Rows of the tables folded at a time when views begin, at most.
const MAX_CHUNK_ROWS: usize = 1 << 17;
/// Records of all streams between two offsets that views take up one after the other when they
/// begin, at most.
const MAX_STRETCH_RECORDS: usize = 1 << 19;
/// What a row takes while it is folded, about.
const BYTES_PER_NEW_ROW: usize = 512;
/// So few rows fit in any memory.
const FEW_ROWS: usize = 1 << 12;
/// What came last is left to the tables in so many parts.
const GENERATIONS: usize = 4;
/// New rows that wait for views which nobody asks for; beyond it all views take them up at once.
const MANY_NEW_ROWS: usize = 1 << 19;
/// Groups added to a view before they are merged into the others.
const MANY_NEW_GROUPS: usize = 4 << 10;

/// The views of a pipeline that can stand.
pub struct Standing {
    mergeable: Arc<Mergeable>,
    resources: Arc<Resources>,
    /// Where hashes go that outgrow memory.
    spill: PathBuf,
    /// A quarter of the memory is left to what questions compute.
    max_bytes: usize,
    /// Of what came last, so many bytes are kept even if the tables have it.
    max_recent_bytes: usize,
    views: Vec<ViewDef>,
    state: State,
}

enum State {
    Down,
    Up(Box<Running>),
    /// Groups that cannot be followed: those of this origin.
    Spoiled(Origin),
}

/// From which groups views begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub log: LogId,
    pub marks: Marks,
    pub through: BTreeMap<TopicPartition, Offset>,
}

struct Running {
    origin: Origin,
    /// Where the present lives of partitions began, and how far the batch tables reached, when the
    /// views did.
    begins: Through,
    batch_through: Through,
    fold: Fold,
    through: BTreeMap<TopicPartition, Offset>,
    epochs: VecDeque<Arc<Epoch>>,
    /// Epochs that every view has taken up.
    n_gone: usize,
    n_pending_rows: usize,
    views: BTreeMap<String, Kept>,
}

struct Kept {
    groups: Vec<RecordBatch>,
    n_merged: usize,
    n_added: usize,
    /// The epoch that it takes up next.
    next: usize,
}

/// What views know of the names of all rows below where they end. A batch run leaves it to the next one
/// of its process, so that this one need not read the history again.
pub struct Names {
    /// From which groups views would begin that end where these do.
    end: Origin,
    hasher: NameHasher,
    keys: BTreeMap<String, Keys>,
}

/// All rows of a stream, and how far they reach.
pub struct StreamRows {
    pub rows: DataFrame,
    pub batch: Option<Arc<dyn TableProvider>>,
    /// How far the groups reach in its partitions.
    pub before: BTreeMap<TopicPartition, Offset>,
    pub through: BTreeMap<TopicPartition, Offset>,
    /// The first offsets of the present lives of its partitions.
    pub live: Through,
    pub batch_through: Through,
    /// Those rows that tables have, and how far these reach.
    pub tables: Arc<dyn TableProvider>,
    pub tables_through: BTreeMap<TopicPartition, Offset>,
}

impl Standing {
    pub fn of(
        mergeable: Arc<Mergeable>,
        views: Vec<ViewDef>,
        resources: Arc<Resources>,
        spill: PathBuf,
        memory_bytes: usize,
        max_recent_bytes: usize,
    ) -> Self {
        let max_bytes = memory_bytes / 4 * 3;
        Self { mergeable, resources, spill, max_bytes, max_recent_bytes, views, state: State::Down }
    }

    /// Whether there is nothing to be done before `advance`.
    pub fn is_up(&self, log: LogId, marks: &Marks) -> bool {
        matches!(&self.state, State::Up(running) if running.origin.log == log && running.origin.marks == *marks)
    }

    /// Whether views that began there could not follow.
    pub fn is_spoiled(&self, origin: &Origin) -> bool {
        matches!(&self.state, State::Spoiled(spoiled) if spoiled == origin)
    }

    /// Begins where the last batch run ended, and takes up what the tables have beyond. Names that end
    /// elsewhere are of no use. Returns whether the views stand.
    pub async fn begin(
        &mut self,
        context: &SessionContext,
        origin: Origin,
        saved: &Saved,
        streams: BTreeMap<String, StreamRows>,
        names: Option<Names>,
    ) -> Result<bool> {
        let (hasher, mut kept) = match names.filter(|names| names.end_at(&origin, &streams)) {
            Some(names) => (names.hasher, names.keys),
            None => (NameHasher::default(), BTreeMap::new()),
        };
        let mut reading = JoinSet::new();
        for (name, shape) in &self.mergeable.streams {
            let stream = streams.get(name).with_context(|| format!("stream {name} was not looked at"))?;
            let below = Checkpoint { log: origin.log, next: stream.before.clone() };
            let (identity, join) = (&shape.identity, shape.join.as_deref());
            let kept = kept.remove(name).filter(|keys| keys.are_of(identity, join, &shape.schema));
            let fresh = Keys::within(&self.spill, identity, join, &shape.schema);
            let (name, table, context, hasher) = (name.clone(), stream.batch.clone(), context.clone(), hasher.clone());
            reading.spawn(async move {
                let known = match (kept, &table) {
                    (Some(known), _) => known,
                    (None, Some(table)) => fresh.read(&context, table, &hasher, &below).await?,
                    (None, None) => fresh,
                };
                Ok::<_, anyhow::Error>((name, Past { table, below, known }))
            });
        }
        let mut folds = Vec::new();
        while let Some(read) = reading.join_next().await {
            let (name, past) = read??;
            folds.push(StreamFold::of(&name, &self.mergeable.streams[&name], past));
        }
        let mut views = BTreeMap::new();
        for view in &self.views {
            let groups = saved.groups(&self.mergeable, view, &origin.marks).cloned();
            if groups.is_none() && !origin.through.is_empty() {
                // Made by other definitions: the next batch run makes them anew.
                self.state = State::Spoiled(origin);
                return Ok(false);
            }
            let groups = groups.unwrap_or_default();
            let n_merged = groups.iter().map(RecordBatch::num_rows).sum();
            views.insert(view.name.clone(), Kept { groups, n_merged, n_added: 0, next: 0 });
        }
        let fold = Fold::begin(hasher, folds);
        let mut running = Box::new(Running {
            through: origin.through.clone(),
            origin: origin.clone(),
            begins: streams.values().flat_map(|s| s.live.clone()).collect(),
            batch_through: streams.values().flat_map(|s| s.batch_through.clone()).collect(),
            fold,
            epochs: VecDeque::new(),
            n_gone: 0,
            n_pending_rows: 0,
            views,
        });
        // Until they stand, also when this takes too long for whoever asked: not tried again then.
        self.state = State::Spoiled(origin);
        let streams: BTreeMap<String, StreamRows> =
            streams.into_iter().filter(|(name, _)| self.mergeable.streams.contains_key(name)).collect();
        let tables = streams.iter().map(|(name, stream)| (name.clone(), stream.tables.clone())).collect();
        let tables_through = streams.values().flat_map(|s| s.tables_through.clone()).collect();
        for stretch in stretches(&streams, self.at_most(MAX_STRETCH_RECORDS)) {
            for (name, stream) in &streams {
                if !self.take_stretch(&mut running, context, name, stream, &stretch).await? {
                    return Ok(false);
                }
            }
            running.through.extend(stretch.end.unwrap_or_else(|| all_through(&streams)));
            running.close_generation(self.max_recent_bytes);
            running.fold.make_past(running.n_covered(&tables_through, self.max_recent_bytes), &tables)?;
        }
        self.state = State::Up(running);
        Ok(true)
    }

    /// What the views know of names, if they stand.
    pub fn into_names(self) -> Result<Option<Names>> {
        let State::Up(running) = self.state else { return Ok(None) };
        let Running { origin, through, fold, .. } = *running;
        let (hasher, keys) = fold.into_keys()?;
        Ok(Some(Names { end: Origin { through, ..origin }, hasher, keys }))
    }

    /// Takes in the rows of a stream between some offsets.
    async fn take_stretch(
        &self,
        running: &mut Running,
        context: &SessionContext,
        name: &str,
        stream: &StreamRows,
        stretch: &Stretch,
    ) -> Result<bool> {
        let mut rows = not_below(stream.rows.clone(), &stretch.start)?.filter(stretch.hint(stream))?;
        if let Some(end) = &stretch.end {
            let Some(below) = below(end) else { return Ok(true) };
            rows = rows.filter(below)?;
        }
        let columns = self.mergeable.streams[name].columns();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let mut rows = rows.select_columns(&columns)?.execute_stream().await?;
        let mut chunk = Vec::new();
        let mut n_rows = 0;
        loop {
            let batch = rows.next().await.transpose()?;
            let is_end = batch.is_none();
            if let Some(batch) = batch {
                n_rows += batch.num_rows();
                chunk.push(batch);
            }
            if (is_end && n_rows > 0) || n_rows >= self.at_most(MAX_CHUNK_ROWS) {
                let fresh = BTreeMap::from([(name.to_owned(), std::mem::take(&mut chunk))]);
                n_rows = 0;
                if !self.take(running, context, &fresh).await? {
                    return Ok(false);
                }
                self.take_up_all(running).await?;
            }
            if is_end {
                return Ok(true);
            }
        }
    }

    /// So many rows, or as many as fit in memory while they are folded.
    fn at_most(&self, n_rows: usize) -> usize {
        (self.max_bytes / BYTES_PER_NEW_ROW).clamp(FEW_ROWS, n_rows)
    }

    /// Whether rows are to be left to tables that reach so far.
    pub fn may_rely_on(&self, tables_through: &Through) -> bool {
        matches!(&self.state, State::Up(running) if running.n_covered(tables_through, self.max_recent_bytes) > 0)
    }

    /// Leaves to the tables what they have.
    pub fn rely_on(
        &mut self,
        tables: &BTreeMap<String, Arc<dyn TableProvider>>,
        tables_through: &Through,
    ) -> Result<()> {
        let State::Up(mut running) = std::mem::replace(&mut self.state, State::Down) else { return Ok(()) };
        running.fold.make_past(running.n_covered(tables_through, self.max_recent_bytes), tables)?;
        self.state = State::Up(running);
        Ok(())
    }

    /// What the views take in next of a partition.
    pub fn next_of(&self, partition: &TopicPartition) -> Offset {
        match &self.state {
            State::Up(running) => running.through.get(partition).copied().unwrap_or_default(),
            _ => Offset::ZERO,
        }
    }

    /// Whether a topic's life ended with records that the views have not seen, or have seen and the
    /// tables do not have: the log does not tell them any more. `live` says where the partitions begin
    /// that it has; `tables` and `batch`, how far both tables together reach, and the batch table.
    pub fn has_missed<'a>(
        &self,
        live: &Through,
        deleted: impl IntoIterator<Item = &'a TopicPartition>,
        tables: &Through,
        batch: &Through,
    ) -> bool {
        let State::Up(running) = &self.state else { return false };
        let at = |reach: &Through, p: &TopicPartition| reach.get(p).copied().unwrap_or_default();
        // A batch run may find landed what the log had lost when the views began behind it.
        let has_filled = |p: &TopicPartition, begin| at(&running.batch_through, p) < begin && begin <= at(batch, p);
        live.iter().any(|(p, begin)| at(&running.begins, p) != *begin || has_filled(p, *begin))
            || deleted.into_iter().any(|p| at(&running.through, p) != at(tables, p))
    }

    /// Takes in the rows of some streams, up to `through`. Returns whether the views still stand.
    pub async fn advance(
        &mut self,
        fresh: &BTreeMap<String, Vec<RecordBatch>>,
        through: BTreeMap<TopicPartition, Offset>,
    ) -> Result<bool> {
        let State::Up(mut running) = std::mem::replace(&mut self.state, State::Down) else { return Ok(false) };
        let context = self.resources.session(Mode::InMemory);
        if !self.take(&mut running, &context, fresh).await? {
            self.state = State::Spoiled(running.origin);
            return Ok(false);
        }
        running.through.extend(through);
        running.close_generation(self.max_recent_bytes);
        if running.n_pending_rows > MANY_NEW_ROWS {
            self.take_up_all(&mut running).await?;
        }
        self.state = State::Up(running);
        Ok(true)
    }

    /// The groups of a view as of the last advance; None if it does not stand.
    pub async fn groups(&mut self, view: &ViewDef) -> Result<Option<Vec<RecordBatch>>> {
        let State::Up(running) = &mut self.state else { return Ok(None) };
        if !running.views.contains_key(&view.name) {
            return Ok(None);
        }
        take_up(&self.mergeable, &self.resources, running, view).await?;
        // With each question one more view follows, so that none has to take up a lot at once.
        let last = self.views.iter().min_by_key(|view| running.views.get(&view.name).map(|kept| kept.next));
        if let Some(last) = last {
            take_up(&self.mergeable, &self.resources, running, last).await?;
        }
        running.let_go();
        let kept = running.views.get(&view.name).context("the view stands")?;
        Ok(Some(kept.groups.clone()))
    }

    async fn take(
        &self,
        running: &mut Running,
        context: &SessionContext,
        fresh: &BTreeMap<String, Vec<RecordBatch>>,
    ) -> Result<bool> {
        let Some(epoch) = running.fold.advance(context, fresh).await? else {
            tracing::info!("a row changes what was counted before it: views are computed from all rows");
            return Ok(false);
        };
        if running.fold.size_bytes() > self.max_bytes {
            tracing::info!(
                max_bytes = self.max_bytes,
                "views do not fit in three quarters of the memory: they are computed from all rows"
            );
            return Ok(false);
        }
        let n_rows = n_new_rows(&epoch);
        if n_rows > 0 {
            running.n_pending_rows += n_rows;
            running.epochs.push_back(Arc::new(epoch));
        }
        Ok(true)
    }

    async fn take_up_all(&self, running: &mut Running) -> Result<()> {
        for view in &self.views {
            take_up(&self.mergeable, &self.resources, running, view).await?;
        }
        running.let_go();
        Ok(())
    }
}

impl Names {
    /// Whether they end just where groups of these streams do.
    fn end_at(&self, origin: &Origin, streams: &BTreeMap<String, StreamRows>) -> bool {
        let mut before = streams.values().flat_map(|stream| &stream.before);
        let ends = |(p, end): (&TopicPartition, &Offset)| self.end.through.get(p).copied().unwrap_or_default() == *end;
        self.end.log == origin.log && self.end.marks == origin.marks && before.all(ends)
    }
}

impl Running {
    /// Closes the open generation if it has grown.
    fn close_generation(&mut self, max_recent_bytes: usize) {
        if self.fold.open_bytes() > max_recent_bytes / GENERATIONS {
            self.fold.close_generation(self.through.clone());
        }
    }

    /// How many generations are left to tables that reach so far: as few as the limit allows, since
    /// the parts of a post come shortly after each other, and what is in memory need not be asked for.
    fn n_covered(&self, tables_through: &Through, max_recent_bytes: usize) -> usize {
        // Of partitions that are in no log nothing has come since the views began.
        let has = |p: &TopicPartition| tables_through.get(p).or_else(|| self.origin.through.get(p)).copied();
        let is_covered = |through: &Through| through.iter().all(|(p, end)| has(p).unwrap_or_default() >= *end);
        let mut n_bytes = self.fold.open_bytes() + self.fold.closed().map(|(_, size)| size).sum::<usize>();
        let is_too_much = |(through, size): &(&Through, usize)| {
            let is_too_much = n_bytes > max_recent_bytes;
            n_bytes -= size;
            is_too_much && is_covered(through)
        };
        self.fold.closed().take_while(is_too_much).count()
    }

    /// Lets go of the epochs that all views have taken up.
    fn let_go(&mut self) {
        let done = self.views.values().map(|kept| kept.next).min().unwrap_or(self.n_gone);
        for epoch in self.epochs.drain(..done - self.n_gone) {
            self.n_pending_rows -= n_new_rows(&epoch);
        }
        self.n_gone = done;
    }
}

/// Rows between offsets: from `start` on, and below `end`, or all that there are.
struct Stretch {
    start: Through,
    end: Option<Through>,
}

impl Stretch {
    /// What is true of all its rows and can be seen in the statistics of files, so that the others are
    /// not read.
    fn hint(&self, stream: &StreamRows) -> Expr {
        let partitions = || stream.through.keys().chain(stream.before.keys());
        let start = partitions().map(|p| self.start.get(p).map_or(0, |next| next.0)).min().unwrap_or(0);
        let ends = |end: &Through| partitions().filter_map(|p| end.get(p)).map(|end| end.0).max().unwrap_or(0);
        let end = self.end.as_ref().map_or(i64::MAX as u64, ends);
        col("_offset").gt_eq(lit(start as i64)).and(col("_offset").lt(lit(end as i64)))
    }
}

/// Cuts what the groups do not have into stretches in which all streams go on alike.
fn stretches(streams: &BTreeMap<String, StreamRows>, n_records_each: usize) -> Vec<Stretch> {
    let before: Through = streams.values().flat_map(|s| s.before.clone()).collect();
    let begin = |partition: &TopicPartition| before.get(partition).map_or(0, |next| next.0);
    let through = all_through(streams);
    let n_records: u64 = through.iter().map(|(p, end)| end.0.saturating_sub(begin(p))).sum();
    let n = n_records.div_ceil(n_records_each as u64).max(1);
    let until = |nth: u64| {
        let end = |(p, end): (&TopicPartition, &Offset)| {
            let length = u128::from(end.0.saturating_sub(begin(p)));
            (p.clone(), Offset(begin(p) + (length * u128::from(nth) / u128::from(n)) as u64))
        };
        let mut until = before.clone();
        until.extend(through.iter().map(end));
        until
    };
    (0..n).map(|nth| Stretch { start: until(nth), end: (nth + 1 < n).then(|| until(nth + 1)) }).collect()
}

fn all_through(streams: &BTreeMap<String, StreamRows>) -> Through {
    streams.values().flat_map(|s| s.through.clone()).collect()
}

fn n_new_rows(epoch: &Epoch) -> usize {
    epoch.new.values().flatten().map(RecordBatch::num_rows).sum()
}

/// Adds to a view's groups what has changed since it was last asked for.
async fn take_up(mergeable: &Mergeable, resources: &Resources, running: &mut Running, view: &ViewDef) -> Result<()> {
    let kept = running.views.get_mut(&view.name).with_context(|| format!("view {} does not stand", view.name))?;
    let end = running.n_gone + running.epochs.len();
    for at in kept.next..end {
        let epoch = &running.epochs[at - running.n_gone];
        let changes = mergeable.changes(resources, Mode::InMemory, view, epoch).await.context("what is new")?;
        // Together, with no wait in between: whoever asked may give up at any wait, and an epoch
        // counts once.
        kept.n_added += changes.iter().map(RecordBatch::num_rows).sum::<usize>();
        kept.groups.extend(changes);
        kept.next = at + 1;
        // With each epoch: what all of them add may not fit in memory.
        if kept.n_added > MANY_NEW_GROUPS.max(kept.n_merged / 4) || kept.groups.len() > 64 {
            let groups = mergeable.merge(&resources.session(Mode::InMemory), view, kept.groups.clone()).await?;
            let schema = groups.first().context("groups have a schema")?.schema();
            let merged = concat_batches(&schema, &groups)?;
            kept.n_merged = merged.num_rows();
            kept.n_added = 0;
            kept.groups = vec![merged];
        }
    }
    Ok(())
}

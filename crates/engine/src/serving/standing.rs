//! Views that stand: their groups are kept in memory and follow the log, so that a question
//! costs what is new since the last one, whatever the history.
//!
//! They begin with the groups that the last batch run left and with the hashes of the names
//! that its tables hold. Where they cannot follow (a row changes what was counted before, the
//! memory does not suffice), questions are answered from all rows until a batch run has left
//! newer groups.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use anyhow::{Context, Result};
use datafusion::{
    arrow::{array::RecordBatch, compute::concat_batches},
    prelude::{SessionContext, not},
};
use futures::StreamExt;
use model::{Checkpoint, LogId, Offset, TopicPartition, ViewDef};

use crate::{
    fold::{Epoch, Fold, Keys, Past, StreamFold},
    identity::NameHasher,
    mergeable::{Marks, Mergeable, Saved},
    relation::below,
    session::{Mode, Resources},
};

/// Rows of the tables folded at a time when views begin.
const CHUNK_ROWS: usize = 1 << 17;
/// New rows that wait for views which nobody asks for; beyond it all views take them up at once.
const MANY_NEW_ROWS: usize = 1 << 19;
/// Groups added to a view before they are merged into the others.
const MANY_NEW_GROUPS: usize = 4 << 10;

/// The views of a pipeline that can stand.
pub struct Standing {
    mergeable: Arc<Mergeable>,
    resources: Arc<Resources>,
    max_bytes: usize,
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

/// All rows of a stream, and how far they reach.
pub struct StreamRows {
    pub rows: datafusion::prelude::DataFrame,
    pub batch: Option<Arc<dyn datafusion::catalog::TableProvider>>,
    /// How far the groups reach in its partitions.
    pub before: BTreeMap<TopicPartition, Offset>,
    pub through: BTreeMap<TopicPartition, Offset>,
}

impl Standing {
    pub fn of(mergeable: Arc<Mergeable>, views: Vec<ViewDef>, resources: Arc<Resources>, max_bytes: usize) -> Self {
        Self { mergeable, resources, max_bytes, views, state: State::Down }
    }

    /// Whether there is nothing to be done before `advance`.
    pub fn is_up(&self, log: LogId, marks: &Marks) -> bool {
        matches!(&self.state, State::Up(running) if running.origin.log == log && running.origin.marks == *marks)
    }

    /// Whether views that began there could not follow.
    pub fn is_spoiled(&self, origin: &Origin) -> bool {
        matches!(&self.state, State::Spoiled(spoiled) if spoiled == origin)
    }

    /// Begins where the last batch run ended, and takes up what the tables have beyond. Returns
    /// whether the views stand.
    pub async fn begin(
        &mut self,
        context: &SessionContext,
        origin: Origin,
        saved: &Saved,
        streams: BTreeMap<String, StreamRows>,
    ) -> Result<bool> {
        let hasher = NameHasher::default();
        let mut folds = Vec::new();
        for (name, shape) in &self.mergeable.streams {
            let stream = streams.get(name).with_context(|| format!("stream {name} was not looked at"))?;
            let before = Checkpoint { log: origin.log, next: stream.before.clone() };
            let known = match &stream.batch {
                Some(table) => {
                    let join = shape.join.as_deref();
                    Some(Keys::read(context, table, &hasher, &shape.identity, join, &before).await?)
                }
                None => None,
            };
            let past = Past { table: stream.batch.clone(), below: before, known };
            folds.push(StreamFold::of(name, shape, past));
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
            fold,
            epochs: VecDeque::new(),
            n_gone: 0,
            n_pending_rows: 0,
            views,
        });
        // Until they stand, also when this takes too long for whoever asked: not tried again then.
        self.state = State::Spoiled(origin);
        for (name, stream) in streams.into_iter().filter(|(name, _)| self.mergeable.streams.contains_key(name)) {
            let rows = match below(&stream.before) {
                Some(below) => stream.rows.filter(not(below))?,
                None => stream.rows,
            };
            let columns = self.mergeable.streams[&name].columns();
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
                if (is_end && n_rows > 0) || n_rows >= CHUNK_ROWS {
                    let fresh = BTreeMap::from([(name.clone(), std::mem::take(&mut chunk))]);
                    n_rows = 0;
                    if !self.take(&mut running, context, &fresh).await? {
                        return Ok(false);
                    }
                    self.take_up_all(&mut running).await?;
                }
                if is_end {
                    break;
                }
            }
            running.through.extend(stream.through);
        }
        self.state = State::Up(running);
        Ok(true)
    }

    /// What the views take in next of a partition.
    pub fn next_of(&self, partition: &TopicPartition) -> Offset {
        match &self.state {
            State::Up(running) => running.through.get(partition).copied().unwrap_or_default(),
            _ => Offset::ZERO,
        }
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
        if running.n_pending_rows > MANY_NEW_ROWS {
            self.take_up_all(&mut running).await?;
        }
        self.state = State::Up(running);
        Ok(true)
    }

    /// The groups of a view as of the last advance.
    pub async fn groups(&mut self, view: &ViewDef) -> Result<Option<Vec<RecordBatch>>> {
        let State::Up(running) = &mut self.state else { return Ok(None) };
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
            tracing::info!(
                "a row changes what was counted before it: views are computed from all rows until a batch run"
            );
            return Ok(false);
        };
        if running.fold.size_bytes() > self.max_bytes {
            tracing::info!(
                "views do not fit in three quarters of serving.memory_bytes: they are computed from all rows until a batch run"
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

impl Running {
    /// Lets go of the epochs that all views have taken up.
    fn let_go(&mut self) {
        let done = self.views.values().map(|kept| kept.next).min().unwrap_or(self.n_gone);
        for epoch in self.epochs.drain(..done - self.n_gone) {
            self.n_pending_rows -= n_new_rows(&epoch);
        }
        self.n_gone = done;
    }
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
        let changes = mergeable.changes(resources, Mode::InMemory, view, epoch).await?;
        // Together, with no wait in between: whoever asked may give up at any wait, and an epoch
        // counts once.
        kept.n_added += changes.iter().map(RecordBatch::num_rows).sum::<usize>();
        kept.groups.extend(changes);
        kept.next = at + 1;
    }
    if kept.n_added > MANY_NEW_GROUPS.max(kept.n_merged / 4) || kept.groups.len() > 64 {
        let groups = mergeable.merge(&resources.session(Mode::InMemory), view, kept.groups.clone()).await?;
        let schema = groups.first().context("groups have a schema")?.schema();
        let merged = concat_batches(&schema, &groups)?;
        kept.n_merged = merged.num_rows();
        kept.n_added = 0;
        kept.groups = vec![merged];
    }
    Ok(())
}

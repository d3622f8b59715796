//! The views of a run: each whose input or text changed is answered, and its table replaced.
//!
//! A view that can be merged takes up its groups where the last run left them, and adds what
//! the new rows change; the others, and all when most is new, are computed from all rows that
//! count.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use anyhow::Result;
use datafusion::arrow::{array::RecordBatch, datatypes::SchemaRef};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use model::{LogId, Offset, TopicPartition, ViewDef};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, OnceCell, RwLock};
use uuid::Uuid;

use super::{
    Batch, Progress, Watch,
    inputs::Inputs,
    manifest::{Manifest, ViewRun},
};
use crate::{
    definitions,
    fold::Through,
    mergeable::{Marks, Mergeable, Saved},
    relation,
    session::{Mode, Resources, is_out_of_memory},
    standing::{Names, Origin, Standing, StreamRows},
    table::{Change, Files, Table, TableDef},
};

/// Views written at a time: one computes while another waits for the disk.
const N_AT_A_TIME: usize = 4;
/// Of the memory, this part may hold rows that came last: the parts of a post that come so close
/// together need not be looked for in the tables.
const SHARE_OF_RECENT: usize = 4;

/// What the last run of this process knew of names: with it the next one does not read the history.
#[derive(Clone, Default)]
pub struct LastNames(Arc<std::sync::Mutex<Option<Names>>>);

impl LastNames {
    fn take(&self) -> Option<Names> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn leave(&self, standing: Standing) {
        match standing.into_names() {
            Ok(names) => *self.0.lock().unwrap_or_else(PoisonError::into_inner) = names,
            Err(e) => tracing::warn!("the next batch run has to read all names again: {e:#}"),
        }
    }
}

/// What the views of one run share.
struct Work<'a> {
    batch: &'a Batch,
    log: Uuid,
    run: &'a str,
    resources: Arc<Resources>,
    mergeable: Arc<Mergeable>,
    marks: Marks,
    /// The views that go on from the last run's groups, brought up to date.
    standing: Option<Mutex<Standing>>,
    inputs: OnceCell<Inputs<'a>>,
    /// Held by the views that are at work; one that did not fit in beside others has it alone.
    memory: RwLock<()>,
}

/// A view's table written, and the groups that its answer came from.
struct Written {
    run: ViewRun,
    groups: Option<Vec<RecordBatch>>,
}

/// A view's answer, and the groups that it came from.
type Evaluated = (SchemaRef, Vec<RecordBatch>, Option<Vec<RecordBatch>>);

impl Batch {
    /// Writes every view whose input or definition changed. Returns whether any was written.
    pub(super) async fn write_views(
        &self,
        log: Uuid,
        previous: Option<&Manifest>,
        manifest: &mut Manifest,
        watch: Watch<'_>,
        troubles: &mut Vec<String>,
    ) -> Result<bool> {
        let is_recomputed = manifest.streams.values().any(|s| s.whole);
        let total = self.definitions.views.len();
        let mut due = Vec::new();
        for view in &self.definitions.views {
            let definition = view_definition(view, manifest);
            let before = previous.and_then(|m| m.views.get(&view.name));
            let is_current = !is_recomputed && before.is_some_and(|v| v.definition == definition);
            if let (true, Some(before), Some(_)) = (is_current, before, self.tables.open(&path_of(view)).await?) {
                manifest.views.insert(view.name.clone(), before.clone());
            } else {
                due.push((view, definition));
            }
        }
        if due.is_empty() {
            return Ok(false);
        }
        let through = manifest.through();
        let mut work = Work::begin(self, log, &manifest.run, &through).await?;
        let mut groups = Saved::at(log, through);
        let mut writing: Vec<BoxFuture<'_, (&ViewDef, Result<Written>)>> = Vec::new();
        for (view, definition) in due {
            let work = &work;
            writing.push(async move { (view, work.write(view, definition).await) }.boxed());
        }
        let mut writing = stream::iter(writing).buffered(N_AT_A_TIME);
        let mut is_changed = false;
        while let Some((view, written)) = writing.next().await {
            watch(Progress::View { name: &view.name, done: manifest.views.len(), total });
            match written {
                Ok(written) => {
                    manifest.views.insert(view.name.clone(), written.run);
                    if let Some(of_view) = written.groups {
                        groups.put(&work.mergeable, view, &work.marks, of_view);
                    }
                    is_changed = true;
                }
                Err(e) => troubles.push(format!("view {}: {e:#}", view.name)),
            }
        }
        drop(writing);
        groups.save(&self.tables).await?;
        if let Some(standing) = work.standing.take() {
            self.names.leave(standing.into_inner());
        }
        watch(Progress::View { name: "", done: total, total });
        Ok(is_changed)
    }
}

impl<'a> Work<'a> {
    async fn begin(
        batch: &'a Batch,
        log: Uuid,
        run: &'a str,
        through: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<Self> {
        let mergeable = Mergeable::of(&batch.definitions, batch.dedup).await?;
        let resources = Resources::new(batch.config.memory_bytes, &batch.spill)?;
        let mut marks = Marks::new();
        for name in mergeable.streams.keys() {
            let table = batch.tables.open(&format!("batch/{name}")).await?;
            if let Some(mark) = table.as_ref().and_then(Table::replaced) {
                marks.insert(name.clone(), mark.to_owned());
            }
        }
        let (inputs, memory) = (OnceCell::new(), RwLock::new(()));
        let mut work =
            Self { batch, log, run, resources, mergeable: Arc::new(mergeable), marks, standing: None, inputs, memory };
        work.standing = match work.stand(through).await {
            Err(e) if is_out_of_memory(&e) => None,
            standing => standing?.map(Mutex::new),
        };
        Ok(work)
    }

    /// The views that have groups of the last run, brought up to date; None where all is to be computed.
    async fn stand(&self, through: &BTreeMap<TopicPartition, Offset>) -> Result<Option<Standing>> {
        let context = self.resources.session(Mode::InMemory);
        let Some(saved) = Saved::load(&context, &self.batch.tables, self.log).await? else { return Ok(None) };
        let has_groups = |view: &&ViewDef| saved.groups(&self.mergeable, view, &self.marks).is_some();
        let views: Vec<ViewDef> = self.batch.definitions.views.iter().filter(has_groups).cloned().collect();
        let known =
            |partition: &TopicPartition, end: &Offset| saved.through.get(partition).map_or(0, |next| next.0.min(end.0));
        let n_known: u64 = through.iter().map(|(partition, end)| known(partition, end)).sum();
        let n_all: u64 = through.values().map(|end| end.0).sum();
        if views.is_empty() || n_all - n_known > n_known {
            return Ok(None);
        }
        let mut streams = BTreeMap::new();
        for cleaning in &self.batch.definitions.streams {
            let stream = cleaning.stream();
            if !self.mergeable.streams.contains_key(&stream.name) {
                continue;
            }
            let Some(table) = self.batch.tables.open(&format!("batch/{}", stream.name)).await? else { return Ok(None) };
            let table = table.scan(&context).await?;
            let own = |reach: &BTreeMap<TopicPartition, Offset>| {
                let own = reach.iter().filter(|(partition, _)| stream.takes(partition.topic.as_str()));
                own.map(|(partition, offset)| (partition.clone(), *offset)).collect::<BTreeMap<_, _>>()
            };
            let rows = StreamRows {
                rows: context.read_table(table.clone())?,
                batch: Some(table.clone()),
                before: own(&saved.through),
                through: own(through),
                live: Through::new(),
                batch_through: own(through),
                tables: table,
                tables_through: own(through),
            };
            streams.insert(stream.name.clone(), rows);
        }
        let memory_bytes = self.batch.config.memory_bytes;
        let (resources, spill) = (self.resources.clone(), self.batch.spill.clone());
        let mut standing =
            Standing::of(self.mergeable.clone(), views, resources, spill, memory_bytes, memory_bytes / SHARE_OF_RECENT);
        let log = LogId { id: self.log, epoch: 0 };
        let origin = Origin { log, marks: self.marks.clone(), through: saved.through.clone() };
        let names = self.batch.names.take();
        Ok(standing.begin(&context, origin, &saved, streams, names).await?.then_some(standing))
    }

    async fn write(&self, view: &ViewDef, definition: String) -> Result<Written> {
        let (schema, batches, groups) = self.evaluate(view).await?;
        let def = TableDef { path: path_of(view), schema, definition: definition.clone(), log: self.log };
        let mut table = self.batch.tables.open_or_create(&def).await?;
        let mut writer = table.writer(&def.schema, Files::of(&self.batch.config, 1));
        for batch in &batches {
            writer.write(batch).await?;
        }
        let pending = writer.finish().await?;
        let n_rows = pending.n_rows;
        table.commit(&def, &[], pending, Change::Replace, &json!({"run": self.run})).await?;
        Ok(Written { run: ViewRun { definition, n_rows, table_version: table.version() }, groups })
    }

    async fn evaluate(&self, view: &ViewDef) -> Result<Evaluated> {
        let mut evaluated = {
            let _beside_others = self.memory.read().await;
            self.evaluate_by(view, Mode::InMemory).await
        };
        for mode in self.mergeable.modes_for_little_memory(&view.name) {
            if !evaluated.as_ref().is_err_and(is_out_of_memory) {
                break;
            }
            let _alone = self.memory.write().await;
            evaluated = self.evaluate_by(view, *mode).await;
        }
        evaluated
    }

    async fn evaluate_by(&self, view: &ViewDef, mode: Mode) -> Result<Evaluated> {
        if !self.mergeable.has(&view.name) {
            let context = self.inputs().await?.session(view, mode).await?;
            let (schema, rows) = relation::evaluate(&context, view).await?;
            return Ok((schema, rows, None));
        }
        let merged = match mode {
            Mode::InMemory => self.merged(view).await?,
            // What stands did not fit in memory.
            Mode::ByShares | Mode::Spilling | Mode::SortingJoins => None,
        };
        let groups = match merged {
            Some(groups) => groups,
            None => self.groups(view, mode).await?,
        };
        let (schema, rows) = self.mergeable.answer(&self.resources.session(mode), view, groups.clone()).await?;
        Ok((schema, rows, Some(groups)))
    }

    /// The last run's groups with what has changed.
    async fn merged(&self, view: &ViewDef) -> Result<Option<Vec<RecordBatch>>> {
        let Some(standing) = &self.standing else { return Ok(None) };
        let Some(groups) = standing.lock().await.groups(view).await? else { return Ok(None) };
        Ok(Some(self.mergeable.merge(&self.resources.session(Mode::InMemory), view, groups).await?))
    }

    /// The groups of all rows that count.
    async fn groups(&self, view: &ViewDef, mode: Mode) -> Result<Vec<RecordBatch>> {
        let context = self.inputs().await?.session(view, mode).await?;
        let split = self.mergeable.split(&context, view).await?;
        if mode.is_by_shares() {
            return split.groups_by_shares(&context, mode).await;
        }
        let groups = split.groups(&context).await?;
        split.merge(&context, groups).await
    }

    async fn inputs(&self) -> Result<&Inputs<'a>> {
        self.inputs.get_or_try_init(|| Inputs::prepare(self.batch, self.resources.clone())).await
    }
}

fn path_of(view: &ViewDef) -> String {
    format!("views/{}", view.name)
}

/// A hash of the view's text and of the exact rows it is computed from.
fn view_definition(view: &ViewDef, manifest: &Manifest) -> String {
    let mut hash = Sha256::new();
    hash.update(&view.sql);
    for (name, run) in &manifest.streams {
        let inputs: BTreeMap<String, Offset> = run.through.iter().map(|(p, o)| (p.to_string(), *o)).collect();
        hash.update(json!([name, run.definition, run.dedup, inputs, run.table_version]).to_string());
    }
    definitions::in_hex(hash)
}

//! The views of a run: each whose input or text changed is answered, and its table replaced.
//!
//! A view that can be merged takes up its groups where the last run left them, and adds what
//! the new rows change; the others, and all when much is new, are computed from all rows that
//! count.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    execution::runtime_env::RuntimeEnv,
    prelude::{SessionContext, not},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use model::{Checkpoint, LogId, Offset, TopicPartition, ViewDef};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::{
    Batch, Progress, Watch,
    inputs::Inputs,
    manifest::{Manifest, ViewRun},
};
use crate::{
    fold::{Epoch, Fold, Past, StreamFold},
    identity::NameHasher,
    mergeable::{Marks, Mergeable, Saved},
    relation::below,
    serving::is_out_of_memory,
    session::{self, Joins},
    table::{Change, TableDef},
};

/// Views written at a time: one computes while another waits for the disk.
const N_AT_A_TIME: usize = 4;
/// What a new row takes while it is folded, about; many new rows are computed as a whole.
const BYTES_PER_NEW_ROW: u64 = 512;

/// What the views of one run share.
struct Work<'a> {
    batch: &'a Batch,
    log: Uuid,
    run: &'a str,
    runtime: Arc<RuntimeEnv>,
    mergeable: Mergeable,
    marks: Marks,
    /// The last run's groups, and what has changed since.
    saved: Option<(Saved, Epoch)>,
    inputs: OnceCell<Inputs<'a>>,
}

/// A view's table written, and the groups that its answer came from.
struct Written {
    run: ViewRun,
    groups: Option<Vec<RecordBatch>>,
}

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
        let work = Work::begin(self, log, &manifest.run, &through).await?;
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
        let runtime = session::runtime(batch.config.memory_bytes, &batch.spill)?;
        let mut marks = Marks::new();
        for name in mergeable.streams.keys() {
            if let Some(table) = batch.tables.open(&format!("batch/{name}")).await? {
                marks.insert(name.clone(), table.replaced().unwrap_or_default().to_owned());
            }
        }
        let inputs = OnceCell::new();
        let mut work = Self { batch, log, run, runtime, mergeable, marks, saved: None, inputs };
        work.saved = match work.changes(through).await {
            Err(e) if is_out_of_memory(&e) => None,
            changes => changes?,
        };
        Ok(work)
    }

    /// The last run's groups and what changes them; None where all is to be computed.
    async fn changes(&self, through: &BTreeMap<TopicPartition, Offset>) -> Result<Option<(Saved, Epoch)>> {
        let context = session::session(self.runtime.clone(), Joins::InMemory);
        let Some(saved) = Saved::load(&context, &self.batch.tables, self.log).await? else { return Ok(None) };
        let n_new: u64 = through
            .iter()
            .map(|(partition, end)| end.0 - saved.through.get(partition).map_or(0, |next| next.0.min(end.0)))
            .sum();
        if n_new * BYTES_PER_NEW_ROW > self.batch.config.memory_bytes as u64 {
            return Ok(None);
        }
        let before = Checkpoint { log: LogId { id: self.log, epoch: 0 }, next: saved.through.clone() };
        let mut streams = Vec::new();
        let mut fresh = BTreeMap::new();
        for (name, shape) in &self.mergeable.streams {
            let Some(table) = self.batch.tables.open(&format!("batch/{name}")).await? else { return Ok(None) };
            let table = table.scan(&context).await?;
            let rows = context.read_table(table.clone())?;
            let rows = match below(&before.next) {
                Some(below) => rows.filter(not(below))?,
                None => rows,
            };
            let columns = shape.columns();
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            fresh.insert(name.clone(), rows.select_columns(&columns)?.collect().await?);
            let past = Past { table: Some(table), below: before.clone(), known: None };
            streams.push(StreamFold::of(name, shape, past));
        }
        let mut fold = Fold::begin(NameHasher::default(), streams);
        Ok(fold.advance(&context, &fresh).await?.map(|epoch| (saved, epoch)))
    }

    async fn write(&self, view: &ViewDef, definition: String) -> Result<Written> {
        let (schema, batches, groups) = self.evaluate(view).await?;
        let def = TableDef { path: path_of(view), schema, definition: definition.clone(), log: self.log };
        let config = &self.batch.config;
        let mut table = self.batch.tables.open_or_create(&def).await?;
        let mut writer = table.writer(&def.schema, config.row_group_rows, config.target_file_bytes);
        for batch in &batches {
            writer.write(batch).await?;
        }
        let pending = writer.finish().await?;
        let n_rows = pending.n_rows;
        table.commit(&def, &[], pending, Change::Replace, &json!({"run": self.run})).await?;
        Ok(Written { run: ViewRun { definition, n_rows, table_version: table.version() }, groups })
    }

    async fn evaluate(&self, view: &ViewDef) -> Result<(SchemaRef, Vec<RecordBatch>, Option<Vec<RecordBatch>>)> {
        if !self.mergeable.has(&view.name) {
            let inputs = self.inputs().await?;
            let answer = match inputs.evaluate(view, Joins::InMemory).await {
                Err(e) if is_out_of_memory(&e) => inputs.evaluate(view, Joins::Spilling).await,
                answer => answer,
            };
            return answer.map(|(schema, rows)| (schema, rows, None));
        }
        let groups = match self.merged(view).await? {
            Some(groups) => groups,
            None => self.groups(view).await?,
        };
        let (schema, rows) = self.mergeable.answer(&self.runtime, view, groups.clone()).await?;
        Ok((schema, rows, Some(groups)))
    }

    /// The last run's groups with what has changed.
    async fn merged(&self, view: &ViewDef) -> Result<Option<Vec<RecordBatch>>> {
        let Some((saved, epoch)) = &self.saved else { return Ok(None) };
        let Some(groups) = saved.groups(&self.mergeable, view, &self.marks) else { return Ok(None) };
        let changes = self.mergeable.changes(&self.runtime, view, epoch).await?;
        if changes.is_empty() {
            return Ok(Some(groups.clone()));
        }
        Ok(Some(self.mergeable.merge(&self.runtime, view, [groups.clone(), changes].concat()).await?))
    }

    /// The groups of all rows that count.
    async fn groups(&self, view: &ViewDef) -> Result<Vec<RecordBatch>> {
        let inputs = self.inputs().await?;
        let of = async |joins| {
            let context: SessionContext = inputs.session(view, joins).await?;
            let split = self.mergeable.split(&context, view).await?;
            let groups = split.groups(&context).await?;
            split.merge(&context, groups).await
        };
        match of(Joins::InMemory).await {
            Err(e) if is_out_of_memory(&e) => of(Joins::Spilling).await,
            groups => groups,
        }
    }

    async fn inputs(&self) -> Result<&Inputs<'a>> {
        self.inputs.get_or_try_init(|| Inputs::prepare(self.batch, self.runtime.clone())).await
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
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

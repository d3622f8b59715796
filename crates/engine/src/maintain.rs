//! Upkeep of tables and log: compact, vacuum, trim. Each is a task; none of them changes what
//! any question is answered. Where a layer's commit is in the way, the layer goes first.

use std::{collections::BTreeMap, num::NonZeroU64, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use deltalake_core::operations::vacuum::VacuumMode;
use model::{
    Checkpoint, EventLog, LogId, Offset, Report, Stop, Task, TopicPartition,
    config::{BatchConfig, MaintainConfig},
};

use crate::{
    batch::manifest,
    definitions::Definitions,
    landing::Floors,
    mergeable,
    session::{Mode, Resources},
    table::{self, Table, Tables},
};

/// A file that no commit names is a dead writer's once it is older than any run takes.
const ORPHAN_AGE_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// Manifests kept; older ones are deleted by vacuum.
const N_MANIFESTS: usize = 1000;

/// Merges small files of tables that have many.
pub struct Compact {
    pub tables: Tables,
    pub definitions: Arc<Definitions>,
    pub config: MaintainConfig,
    pub batch: BatchConfig,
    pub spill: PathBuf,
}

/// Deletes files that no table version within the retention needs.
pub struct Vacuum {
    pub tables: Tables,
    pub definitions: Arc<Definitions>,
    pub config: MaintainConfig,
}

/// Deletes log segments that every layer has taken, and real-time rows that the batch tables
/// have.
pub struct Trim {
    pub log: Arc<dyn EventLog>,
    pub retain: Retain,
    pub landing: Floors,
    pub tables: Tables,
    pub definitions: Arc<Definitions>,
}

/// Applies the log's retention below these offsets; gives the number of bytes deleted.
pub type Retain =
    Box<dyn Fn(BTreeMap<TopicPartition, Offset>) -> futures::future::BoxFuture<'static, Result<u64>> + Send + Sync>;

/// `batch/pin`, `batch/pin_rejected`, `realtime/pin`, … of every stream.
fn stream_tables(definitions: &Definitions) -> Vec<String> {
    let names = definitions.streams.iter().flat_map(|c| [c.stream().name.clone(), c.stream().rejected()]);
    names.flat_map(|name| [format!("batch/{name}"), format!("realtime/{name}")]).collect()
}

/// Notes why a table could not be dealt with. That a layer committed meanwhile is no trouble: the
/// next run comes by again.
fn note(troubles: &mut Vec<String>, table: &str, error: &anyhow::Error) {
    if table::was_in_the_way(error) {
        tracing::info!(table, "a layer committed meanwhile: the next run deals with the table");
    } else {
        troubles.push(format!("table {table}: {error:#}"));
    }
}

/// What was done for the others is done; the error tells of the rest.
fn finish(report: Report, troubles: &[String]) -> Result<Report> {
    ensure!(troubles.is_empty(), "{}", troubles.join("; "));
    Ok(report)
}

#[async_trait]
impl Task for Compact {
    fn name(&self) -> &'static str {
        "compact"
    }

    async fn run(&mut self, stop: &Stop) -> Result<Report> {
        let mut report = Report::default();
        let mut troubles = Vec::new();
        for path in stream_tables(&self.definitions) {
            if stop.is_cancelled() {
                break;
            }
            let table = match self.tables.open(&path).await {
                Ok(Some(table)) => table,
                Ok(None) => continue,
                Err(e) => {
                    troubles.push(format!("{e:#}"));
                    continue;
                }
            };
            let (n_files, size_bytes) = table.files()?;
            let target = self.config.compact_target_bytes.max(1);
            let n_wanted = size_bytes / target + 1;
            if n_files < self.config.compact_min_files || n_files as u64 <= n_wanted {
                continue;
            }
            if let Err(e) = self.compact(&table, target, &mut report).await {
                note(&mut troubles, &path, &e);
            }
        }
        finish(report, &troubles)
    }
}

impl Compact {
    async fn compact(&self, table: &Table, target: u64, report: &mut Report) -> Result<()> {
        let session = Resources::new(self.batch.memory_bytes, &self.spill)?.session(Mode::Spilling);
        let optimize = table
            .delta()
            .clone()
            .optimize()
            .with_target_size(NonZeroU64::new(target).context("maintain.compact_target_bytes is 0")?)
            .with_max_concurrent_tasks(1)
            .with_session_state(Arc::new(session.state()));
        let (_, metrics) = optimize.await?;
        if metrics.num_files_removed > 0 {
            report.did_work = true;
            report.add("n_files_removed", metrics.num_files_removed);
            report.add("n_files_added", metrics.num_files_added);
        }
        Ok(())
    }
}

#[async_trait]
impl Task for Vacuum {
    fn name(&self) -> &'static str {
        "vacuum"
    }

    async fn run(&mut self, stop: &Stop) -> Result<Report> {
        let mut report = Report::default();
        let mut troubles = Vec::new();
        let views = self.definitions.views.iter().map(|v| format!("views/{}", v.name));
        let state = [mergeable::PATH.to_owned()];
        for path in stream_tables(&self.definitions).into_iter().chain(views).chain(state) {
            if stop.is_cancelled() {
                break;
            }
            let removed = match self.tables.open(&path).await {
                Ok(Some(table)) => self.vacuum(&table).await,
                Ok(None) => Ok(0),
                Err(e) => Err(e),
            };
            match removed {
                Ok(0) => {}
                Ok(n_removed) => {
                    report.did_work = true;
                    report.add("n_files_removed", n_removed);
                }
                Err(e) => note(&mut troubles, &path, &e),
            }
        }
        report.add("n_manifests_removed", manifest::prune(&self.tables, N_MANIFESTS).await?);
        finish(report, &troubles)
    }
}

impl Vacuum {
    /// First the files that a commit removed, then those that no commit ever named.
    async fn vacuum(&self, table: &Table) -> Result<u64> {
        let retention = chrono::Duration::milliseconds(self.config.vacuum_retention_ms as i64);
        let orphans = retention.max(chrono::Duration::milliseconds(ORPHAN_AGE_MS));
        let mut n_deleted = 0;
        for (mode, age) in [(VacuumMode::Lite, retention), (VacuumMode::Full, orphans)] {
            let vacuum = table.delta().clone().vacuum().with_mode(mode).with_retention_period(age);
            let (_, metrics) = vacuum.with_enforce_retention_duration(false).await?;
            n_deleted += metrics.files_deleted.len() as u64;
        }
        Ok(n_deleted)
    }
}

#[async_trait]
impl Task for Trim {
    fn name(&self) -> &'static str {
        "trim"
    }

    async fn run(&mut self, stop: &Stop) -> Result<Report> {
        let mut report = Report::default();
        let description = self.log.describe().await?;
        let landed = self.landing.read().await?;
        // Another log's landing folder says nothing about this log's records.
        let is_ours = landed.log.id == description.id.id;
        let mut floors = BTreeMap::new();
        for partition in description.partitions().filter(|p| !p.topic.is_internal()) {
            let floor = if is_ours { landed.next_of(&partition) } else { Offset::ZERO };
            floors.insert(partition, floor);
        }
        let mut troubles = Vec::new();
        for cleaning in &self.definitions.streams {
            if stop.is_cancelled() {
                return Ok(report);
            }
            let takes = |p: &TopicPartition| cleaning.stream().takes(p.topic.as_str());
            // Rows of deleted topics leave as others do.
            let partitions: Vec<TopicPartition> =
                description.partitions().chain(description.deleted()).filter(takes).collect();
            for name in [cleaning.stream().name.clone(), cleaning.stream().rejected()] {
                let none = Checkpoint::start_of(description.id);
                let (batch_at, realtime_at) =
                    match self.trim_realtime(&name, description.id, &partitions, &mut report).await {
                        Ok(at) => at,
                        // Its records stay in the log; the others' need not.
                        Err(e) => {
                            note(&mut troubles, &format!("realtime/{name}"), &e);
                            (none.clone(), none)
                        }
                    };
                for partition in &partitions {
                    let lowest = batch_at.next_of(partition).min(realtime_at.next_of(partition));
                    floors.entry(partition.clone()).and_modify(|floor| *floor = (*floor).min(lowest));
                }
            }
        }
        let deleted_bytes = (self.retain)(floors).await?;
        if deleted_bytes > 0 {
            report.did_work = true;
            report.add("deleted_bytes", deleted_bytes);
        }
        finish(report, &troubles)
    }
}

impl Trim {
    /// Forgets real-time rows that the batch table has. Gives both tables' checkpoints.
    async fn trim_realtime(
        &self,
        name: &str,
        log: LogId,
        partitions: &[TopicPartition],
        report: &mut Report,
    ) -> Result<(Checkpoint, Checkpoint)> {
        let none = Checkpoint::start_of(log);
        let Some(mut realtime) = self.tables.open(&format!("realtime/{name}")).await? else {
            return Ok((none.clone(), none));
        };
        let realtime_at = realtime.checkpoint(log, partitions).await?;
        let Some(mut batch) = self.tables.open(&format!("batch/{name}")).await? else {
            return Ok((none, realtime_at));
        };
        let batch_at = batch.checkpoint(log, partitions).await?;
        let floors = realtime.floors(log, partitions).await?;
        let has_rows_below = |p: &TopicPartition| {
            let below = batch_at.next_of(p).min(realtime_at.next_of(p));
            (below > floors.next_of(p)).then(|| (p.clone(), below))
        };
        let below: BTreeMap<TopicPartition, Offset> = partitions.iter().filter_map(has_rows_below).collect();
        let (n_files, _) = realtime.files()?;
        if !below.is_empty() && n_files > 0 {
            let n_rows = realtime.forget_below(log, &below).await?;
            report.did_work |= n_rows > 0;
            report.add("n_rows_forgotten", n_rows);
        }
        Ok((batch_at, realtime_at))
    }
}

//! The batch layer: the landing objects, cleaned, become batch tables and batch views.
//!
//! A run takes in what is new since its tables' checkpoints, or everything where a definition
//! changed. It needs no log: any folder in the layout of the S3 sink will do.

mod inputs;
mod intake;
pub mod manifest;
mod views;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use model::{Checkpoint, Dedup, LogId, Offset, OffsetRange, Report, Stop, Task, TopicPartition, config::BatchConfig};
use serde_json::json;
use uuid::Uuid;

pub use self::views::LastNames;
use self::{
    intake::{Intake, Plan, Source},
    manifest::{Manifest, StreamRun},
};
use crate::{
    cleaning::{self, Cleaning},
    definitions::Definitions,
    landing::{
        marker,
        objects::{self, LandingObject},
    },
    store::Store,
    table::{Change, Files, Table, TableDef, Tables},
};

pub struct Batch {
    pub landing: Store,
    pub tables: Tables,
    pub definitions: Arc<Definitions>,
    pub config: BatchConfig,
    /// Overrides the streams' own setting.
    pub dedup: Option<Dedup>,
    /// Where work goes that does not fit in memory.
    pub spill: PathBuf,
    /// What each run leaves to the next.
    pub names: LastNames,
}

/// How far a run has come, for progress bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    Cleaning { done_bytes: u64, total_bytes: u64 },
    View { name: &'a str, done: usize, total: usize },
}

pub type Watch<'a> = &'a (dyn Fn(Progress<'_>) + Sync);

/// What a run did. Without a manifest there was nothing to do.
pub struct Outcome {
    pub manifest: Option<Manifest>,
    pub report: Report,
}

impl Batch {
    /// One run; `whole` computes everything anew.
    pub async fn run(&self, whole: bool, stop: &Stop, watch: Watch<'_>) -> Result<Outcome> {
        let began = Instant::now();
        let previous = manifest::latest(&self.tables).await?;
        let folder = || format!("the landing folder {}", self.landing);
        let partitions = objects::partitions(&self.landing).await.with_context(folder)?;
        // After them: who sees an object of ours sees the marker that was written before.
        let marker = marker::read(self.landing.as_ref()).await?;
        let log = marker.as_ref().map_or_else(Uuid::nil, |m| m.log);
        let mut manifest = Manifest::begin(log);
        let mut report = Report::default();
        let mut troubles = Vec::new();
        let mut begun = Vec::new();
        // Where nothing was ever landed, it is not known yet whose landing folder it will be.
        let is_anyones = partitions.is_empty() && previous.is_none();
        let streams: &[Arc<Cleaning>] = if is_anyones { &[] } else { &self.definitions.streams };
        for cleaning in streams {
            match self.begin_stream(cleaning, log, whole, &partitions, previous.as_ref()).await {
                Ok(stream) => begun.push(stream),
                Err(e) => troubles.push(format!("stream {}: {e:#}", cleaning.stream().name)),
            }
        }
        let from = Checkpoint { log: LogId { id: log, epoch: 0 }, next: wanted(&partitions, &begun) };
        let listing = objects::list(&self.landing, None, &from).await.with_context(folder)?;
        manifest.skipped.extend(listing.foreign.iter().map(ToString::to_string));
        let n_unnamed = listing.n_foreign - listing.foreign.len();
        if n_unnamed > 0 {
            manifest.skipped.push(format!("{n_unnamed} more objects are no landing objects"));
        }
        self.note_topics_of_no_stream(&partitions, &mut report);
        if is_anyones {
            report.notices.extend(manifest.skipped);
            return Ok(Outcome { manifest: None, report });
        }

        let mut objects: BTreeMap<TopicPartition, Vec<LandingObject>> = BTreeMap::new();
        // A partition that came meanwhile is for the next run, which sees whose it is.
        for object in listing.objects.into_iter().filter(|o| from.next.contains_key(&o.partition)) {
            objects.entry(object.partition.clone()).or_default().push(object);
        }
        let source = || marker.clone().map_or(Source::Foreign, Source::Own);
        let works: Vec<Work> = begun.into_iter().map(|stream| stream.plan(&mut objects, source())).collect();
        let total_bytes = works.iter().map(|w| w.plan.size_bytes()).sum();
        let mut done_bytes = 0;
        let mut is_changed = false;
        for work in works {
            if stop.is_cancelled() {
                break;
            }
            let n_bytes = work.plan.size_bytes();
            let on_bytes = |n: u64| watch(Progress::Cleaning { done_bytes: done_bytes + n, total_bytes });
            let run = match self.run_stream(&work, stop, &on_bytes, &mut manifest.skipped).await {
                Ok(run) => run,
                Err(e) => {
                    troubles.push(format!("stream {}: {e:#}", work.cleaning.stream().name));
                    continue;
                }
            };
            done_bytes += n_bytes;
            if let Some((run, changed)) = run {
                is_changed |= changed;
                for (figure, n) in [
                    ("n_records", run.n_records),
                    ("n_rows", run.n_rows),
                    ("n_rejects", run.n_rejects),
                    ("n_objects", run.n_objects),
                    ("n_values_lost", run.lost.values().sum()),
                ] {
                    report.add(figure, n);
                }
                manifest.streams.insert(work.cleaning.stream().name.clone(), run);
            }
        }
        report.notices.extend(manifest.skipped.iter().cloned());
        // Views are of all streams together: with one of them in trouble they stay as they are.
        if troubles.is_empty() && !stop.is_cancelled() {
            is_changed |= self.write_views(log, previous.as_ref(), &mut manifest, watch, &mut troubles).await?;
        }
        if is_changed && troubles.is_empty() && !stop.is_cancelled() {
            manifest.finished_ms = model::Timestamp::now().0;
            manifest.seconds = began.elapsed().as_secs_f64();
            manifest.write(&self.tables).await?;
            report.did_work = true;
            return Ok(Outcome { manifest: Some(manifest), report });
        }
        ensure!(troubles.is_empty(), "{}", troubles.join("; "));
        report.did_work = is_changed;
        Ok(Outcome { manifest: None, report })
    }

    fn note_topics_of_no_stream(&self, partitions: &[TopicPartition], report: &mut Report) {
        let topics: BTreeSet<&str> = partitions.iter().map(|p| p.topic.as_str()).collect();
        for topic in topics.into_iter().filter(|t| self.definitions.stream_of(t).is_none()) {
            report.notices.push(format!("topic {topic} belongs to no stream: it is kept and landed, and not cleaned"));
        }
    }

    fn def(&self, cleaning: &Cleaning, log: Uuid, name: &str, schema: &SchemaRef) -> TableDef {
        TableDef {
            path: format!("batch/{name}"),
            schema: schema.clone(),
            definition: cleaning.definition().to_owned(),
            log,
        }
    }

    /// Opens a stream's tables, and decides from where its run takes in what was landed.
    async fn begin_stream(
        &self,
        cleaning: &Arc<Cleaning>,
        log: Uuid,
        whole: bool,
        landed: &[TopicPartition],
        previous: Option<&Manifest>,
    ) -> Result<Begun> {
        let stream = cleaning.stream();
        let rows_def = self.def(cleaning, log, &stream.name, cleaning.schema());
        let rejects_def = self.def(cleaning, log, &stream.rejected(), &cleaning::rejects_schema());
        let mut rows = self.tables.open_or_create(&rows_def).await?;
        let mut rejects = self.tables.open_or_create(&rejects_def).await?;
        let landed = landed.iter().filter(|p| stream.takes(p.topic.as_str()));
        // A partition may have lost its objects; its table still knows it.
        let before = previous.and_then(|m| m.streams.get(&stream.name));
        let known = before.into_iter().flat_map(|run| run.through.keys());
        let partitions: BTreeSet<TopicPartition> = landed.chain(known).cloned().collect();
        self.definitions.refuse_shared(stream, &partitions)?;
        let partitions: Vec<TopicPartition> = partitions.into_iter().collect();
        let id = LogId { id: log, epoch: 0 };
        let at = rows.checkpoint(id, &partitions).await?;
        let rejects_at = rejects.checkpoint(id, &partitions).await?;
        let is_another_definition = [&rows, &rejects].iter().any(|t| t.definition() != Some(cleaning.definition()));
        let lags = partitions.iter().any(|p| rejects_at.next_of(p) < at.next_of(p));
        let whole = whole || is_another_definition || lags;
        let from = if whole { Checkpoint::start_of(id) } else { at.clone() };
        Ok(Begun { cleaning: cleaning.clone(), rows_def, rejects_def, rows, rejects, at, rejects_at, whole, from })
    }

    /// Cleans what is new of a stream and commits it. None if stopped; the flag says whether
    /// the tables changed.
    async fn run_stream(
        &self,
        work: &Work,
        stop: &Stop,
        on_bytes: &(dyn Fn(u64) + Sync),
        skipped: &mut Vec<String>,
    ) -> Result<Option<(StreamRun, bool)>> {
        let stream = work.cleaning.stream();
        let mut run = StreamRun {
            definition: work.cleaning.definition().to_owned(),
            dedup: self.dedup.unwrap_or(stream.dedup),
            whole: work.whole,
            through: work.at.next.clone(),
            table_version: work.rows.version(),
            ..StreamRun::default()
        };
        if work.plan.is_empty() && !work.whole {
            return Ok(Some((run, false)));
        }
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut rows_writer = work.rows.writer(&work.rows_def.schema, Files::of(&self.config, n_threads));
        let mut rejects_writer = work.rejects.writer(&work.rejects_def.schema, Files::of(&self.config, 1));
        let mut intake =
            Intake::begin(self.landing.objects(), work.cleaning.clone(), &work.plan, self.config.chunk_rows, n_threads);
        let rejects_at = if work.whole { Checkpoint::start_of(work.at.log) } else { work.rejects_at.clone() };
        while let Some(piece) = intake.next().await? {
            if stop.is_cancelled() {
                return Ok(None);
            }
            rows_writer.write(&piece.cleaned.rows).await?;
            let rejects = cleaning::rejects_batch(&piece.cleaned.rejects);
            run.n_rejects += rejects.num_rows() as u64;
            rejects_writer.write(&crate::sink::keep_at_or_above(&rejects, &rejects_at)).await?;
            for (column, n) in piece.cleaned.lost {
                *run.lost.entry(column).or_default() += n;
            }
            run.n_records += piece.n_records;
            on_bytes(piece.done_bytes);
        }
        let mut taken = intake.finish();
        skipped.extend(std::mem::take(&mut taken.notices));
        if work.whole {
            work.account_for_what_was_there(&mut taken.ranges)?;
        }
        run.n_objects = taken.n_objects;
        run.ranges = taken.ranges.clone();
        let rows_pending = rows_writer.finish().await?;
        run.n_rows = rows_pending.n_rows;
        let rejects_pending = rejects_writer.finish().await?;

        let change = if work.whole { Change::Replace } else { Change::Append };
        if taken.ranges.is_empty() && change == Change::Append {
            return Ok(Some((run, false)));
        }
        let note = json!({"layer": "batch", "whole": work.whole});
        // Rejects first: a crash in between leaves them ahead, and then they are passed over.
        let beyond = |r: &OffsetRange| {
            let start = rejects_at.next.get(&r.partition).map_or(r.start, |next| r.start.max(*next));
            (start < r.end).then(|| OffsetRange { start, ..r.clone() })
        };
        let rejects_ranges: Vec<OffsetRange> = taken.ranges.iter().filter_map(beyond).collect();
        let mut rejects = self.tables.open_or_create(&work.rejects_def).await?;
        if !rejects_ranges.is_empty() || change == Change::Replace {
            rejects.commit(&work.rejects_def, &rejects_ranges, rejects_pending, change, &note).await?;
        }
        let mut rows = self.tables.open_or_create(&work.rows_def).await?;
        rows.commit(&work.rows_def, &taken.ranges, rows_pending, change, &note).await?;
        run.through.extend(taken.ranges.iter().map(|r| (r.partition.clone(), r.end)));
        run.table_version = rows.version();
        Ok(Some((run, true)))
    }
}

/// One stream's part of a run, before it is known which objects it takes in.
struct Begun {
    cleaning: Arc<Cleaning>,
    rows_def: TableDef,
    rejects_def: TableDef,
    rows: Table,
    rejects: Table,
    at: Checkpoint,
    rejects_at: Checkpoint,
    whole: bool,
    from: Checkpoint,
}

/// From where the streams take in what was landed; of topics that none takes, nothing.
fn wanted(partitions: &[TopicPartition], begun: &[Begun]) -> BTreeMap<TopicPartition, Offset> {
    let from = |p: &TopicPartition| {
        let stream = begun.iter().find(|begun| begun.cleaning.stream().takes(p.topic.as_str()));
        stream.map_or(Offset(u64::MAX), |begun| begun.from.next_of(p))
    };
    partitions.iter().map(|p| (p.clone(), from(p))).collect()
}

impl Begun {
    /// Takes its objects out of those that were found.
    fn plan(self, objects: &mut BTreeMap<TopicPartition, Vec<LandingObject>>, source: Source) -> Work {
        let Self { cleaning, rows_def, rejects_def, rows, rejects, at, rejects_at, whole, from } = self;
        let own = objects.extract_if(.., |partition, _| cleaning.stream().takes(partition.topic.as_str())).collect();
        let plan = Plan::of(&own, &from, source);
        Work { cleaning, rows_def, rejects_def, rows, rejects, at, rejects_at, whole, plan }
    }
}

/// One stream's part of a run.
struct Work {
    cleaning: Arc<Cleaning>,
    rows_def: TableDef,
    rejects_def: TableDef,
    rows: Table,
    rejects: Table,
    at: Checkpoint,
    rejects_at: Checkpoint,
    whole: bool,
    plan: Plan,
}

impl Work {
    /// A run that replaces everything must reach as far as the table did, or records that only
    /// the table still has would be lost; elsewhere the partition begins anew.
    fn account_for_what_was_there(&self, ranges: &mut Vec<OffsetRange>) -> Result<()> {
        for (partition, at) in &self.at.next {
            let end = ranges.iter().find(|r| r.partition == *partition).map(|r| r.end);
            ensure!(
                !self.plan.is_own() || end.unwrap_or_default() >= *at,
                "{partition}: the landing objects end at {}, but the batch table has the records below {at}: restore \
                 the objects; the table is left as it is",
                end.unwrap_or_default()
            );
            if end.is_none() {
                let nothing = OffsetRange { partition: partition.clone(), start: Offset::ZERO, end: Offset::ZERO };
                ranges.push(nothing);
            }
        }
        Ok(())
    }
}

/// The batch layer as a task of the driver.
pub struct BatchTask(pub Batch);

#[async_trait]
impl Task for BatchTask {
    fn name(&self) -> &'static str {
        "batch"
    }

    async fn run(&mut self, stop: &Stop) -> Result<Report> {
        Ok(self.0.run(false, stop, &|_| ()).await?.report)
    }
}

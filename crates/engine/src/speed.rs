//! The speed layer: micro-batches from the log, through the same cleaning as the batch layer,
//! into the real-time tables, exactly once.
//!
//! Each run asks the sinks where they go on. A micro-batch is due when its oldest record has
//! waited for `linger_ms` or when it is large; until then the serving layer reads those
//! records from the log's tail, so nobody waits for it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use async_trait::async_trait;
use model::{
    Checkpoint, EventLog, LogError, LogId, Offset, OffsetRange, Report, Stop, Task, TopicPartition,
    config::{BatchConfig, SpeedConfig},
};

use crate::{
    cleaning::{self, Cleaning},
    decode::Decoder,
    definitions::Definitions,
    haste::Haste,
    landing::line,
    sink::{CommitError, Committed, DeltaSink, MicroBatch, Sink},
    table::{TableDef, Tables},
};

pub struct Speed {
    log: Arc<dyn EventLog>,
    tables: Tables,
    definitions: Arc<Definitions>,
    config: SpeedConfig,
    files: BatchConfig,
    haste: Haste,
    /// When a stream's records, seen to wait, are due. A hint that saves looking: a run
    /// that forgot it looks and finds the same.
    due: BTreeMap<String, Due>,
    /// Sinks kept open between runs; they are asked anew each time.
    lanes: BTreeMap<String, Lane>,
}

/// Records that wait: since when, and where they begin, summed over the partitions.
struct Due {
    seen: Instant,
    position: u64,
}

/// A stream's sinks at work in one run.
struct Lane {
    cleaning: Arc<Cleaning>,
    log: LogId,
    partitions: Vec<TopicPartition>,
    /// Those of deleted topics, of which the tables may have rows.
    deleted: Vec<TopicPartition>,
    rows: DeltaSink,
    rejects: DeltaSink,
    rows_at: Checkpoint,
    rejects_at: Checkpoint,
}

/// Records of one stream, cleaned, and whether there is reason to commit them now.
struct Gathered {
    ranges: Vec<OffsetRange>,
    /// What of the ranges the log has no more.
    gone: Vec<OffsetRange>,
    cleaned: cleaning::Cleaned,
    n_records: u64,
    is_large: bool,
    /// Where the records begin, summed over the partitions.
    position: u64,
}

impl Speed {
    pub fn new(
        log: Arc<dyn EventLog>,
        tables: Tables,
        definitions: Arc<Definitions>,
        config: SpeedConfig,
        files: BatchConfig,
    ) -> Self {
        let (haste, due, lanes) = Default::default();
        Self { log, tables, definitions, config, files, haste, due, lanes }
    }

    /// Without waiting for more of the topics that somebody is in haste with.
    #[must_use]
    pub fn hurried_by(self, haste: Haste) -> Self {
        Self { haste, ..self }
    }

    async fn run_stream(&mut self, cleaning: &Arc<Cleaning>, stop: &Stop, report: &mut Report) -> Result<()> {
        let description = self.log.describe().await?;
        let stream = cleaning.stream();
        let takes = |p: &TopicPartition| stream.takes(p.topic.as_str());
        let partitions: Vec<TopicPartition> = description.partitions().filter(takes).collect();
        if partitions.is_empty() {
            return Ok(());
        }
        self.definitions.refuse_shared(stream, &partitions)?;
        if !self.may_be_due(&stream.name, &partitions).await? {
            return Ok(());
        }
        // Taken out: after an error the sinks are opened anew.
        let mut lane = match self.lanes.remove(&stream.name) {
            Some(lane) if lane.log.id == description.id.id => lane,
            _ => self.lane(cleaning, description.id),
        };
        lane.partitions = partitions;
        lane.deleted = description.deleted().filter(takes).collect();
        self.check_definition(&mut lane).await?;
        while !stop.is_cancelled() {
            lane.ask().await?;
            let gathered = self.gather(&lane).await?;
            if gathered.n_records == 0 {
                self.due.remove(&stream.name);
                break;
            }
            // By the wall clock since they were first seen: producers' clocks may be wrong.
            let position = gathered.position;
            let due = self.due.entry(stream.name.clone()).or_insert(Due { seen: Instant::now(), position });
            due.position = position;
            let is_due = due.seen.elapsed() >= Duration::from_millis(self.config.linger_ms);
            if !gathered.is_large && !is_due && !self.is_hurried(&lane.partitions) {
                break;
            }
            self.commit(&mut lane, gathered, report).await?;
            self.due.remove(&stream.name);
        }
        self.lanes.insert(stream.name.clone(), lane);
        Ok(())
    }

    /// Whether a look at the records is worth it: none is due before the oldest's linger is
    /// over, unless many have come.
    async fn may_be_due(&mut self, stream: &str, partitions: &[TopicPartition]) -> Result<bool> {
        let Some(due) = self.due.get(stream) else { return Ok(true) };
        if due.seen.elapsed() >= Duration::from_millis(self.config.linger_ms) || self.is_hurried(partitions) {
            return Ok(true);
        }
        let mut end = 0;
        for partition in partitions {
            end += self.log.bounds(partition).await?.end.0;
        }
        Ok(end.saturating_sub(due.position) >= self.config.max_rows as u64)
    }

    fn is_hurried(&self, partitions: &[TopicPartition]) -> bool {
        partitions.iter().any(|partition| self.haste.is_with(&partition.topic))
    }

    fn lane(&self, cleaning: &Arc<Cleaning>, log: LogId) -> Lane {
        let stream = cleaning.stream();
        let sink = |name: &str, schema: &datafusion::arrow::datatypes::SchemaRef| {
            let def = TableDef {
                path: format!("realtime/{name}"),
                schema: schema.clone(),
                definition: cleaning.definition().to_owned(),
                log: log.id,
            };
            DeltaSink::new(self.tables.clone(), def, self.files.clone())
        };
        Lane {
            rows: sink(&stream.name, cleaning.schema()),
            rejects: sink(&stream.rejected(), &cleaning::rejects_schema()),
            cleaning: cleaning.clone(),
            rows_at: Checkpoint::start_of(log),
            rejects_at: Checkpoint::start_of(log),
            log,
            partitions: Vec::new(),
            deleted: Vec::new(),
        }
    }

    /// Rows made by another definition are given up; what the batch table does not have is
    /// cleaned anew from the log, which is never trimmed beyond the batch table.
    async fn check_definition(&self, lane: &mut Lane) -> Result<()> {
        let definition = lane.cleaning.definition().to_owned();
        for (sink, name) in [
            (&mut lane.rows, lane.cleaning.stream().name.clone()),
            (&mut lane.rejects, lane.cleaning.stream().rejected()),
        ] {
            if sink.table().await?.definition() == Some(definition.as_str()) {
                continue;
            }
            let known: Vec<TopicPartition> = lane.partitions.iter().chain(&lane.deleted).cloned().collect();
            let mut from = batch_checkpoint(&self.tables, &name, lane.log, &known).await?;
            for partition in &lane.partitions {
                let start = self.log.bounds(partition).await?.start;
                let next = from.next.entry(partition.clone()).or_default();
                *next = (*next).max(start);
            }
            // What the batch table lacks of these it finds in the landing objects.
            for partition in &lane.deleted {
                from.next.entry(partition.clone()).or_default();
            }
            tracing::info!(table = name, "the definition changed: real-time rows are made anew");
            sink.restart_at(&from).await?;
        }
        Ok(())
    }

    /// Reads and cleans what the sinks do not have, up to the size of one micro-batch.
    async fn gather(&self, lane: &Lane) -> Result<Gathered> {
        let mut decoder = Decoder::new(lane.cleaning.stream());
        let mut gathered = Gathered {
            ranges: Vec::new(),
            gone: Vec::new(),
            cleaned: lane.cleaning.apply(decoder.finish())?,
            n_records: 0,
            is_large: false,
            position: 0,
        };
        for partition in &lane.partitions {
            let bounds = self.log.bounds(partition).await?;
            let start = lane.next_of(partition, bounds.start);
            ensure!(
                start <= bounds.end,
                "partition {partition} of the log ends at {}, but the real-time table has taken {start} already: \
                 records were lost from the log; restore it, or move the real-time tables away",
                bounds.end
            );
            // Records that are gone are covered, too: the table goes on behind them.
            let mut next = start.max(bounds.start);
            gathered.position += next.0;
            while next < bounds.end && !gathered.is_large {
                let n_bytes = self.config.max_bytes.saturating_sub(decoder.size_bytes()).max(1);
                let records = self.log.fetch(partition, next, n_bytes).await?;
                ensure!(!records.is_empty(), "partition {partition}: nothing at {next} below the log end offset");
                for stored in &records {
                    decoder.push(partition, stored.offset, &line::canonical(&stored.record));
                    next = stored.offset.plus(1);
                    gathered.n_records += 1;
                    if (gathered.n_records as usize).max(decoder.n_rows() + decoder.n_rejects()) >= self.config.max_rows
                    {
                        gathered.is_large = true;
                        break;
                    }
                }
                gathered.is_large |= decoder.size_bytes() >= self.config.max_bytes;
            }
            if start < bounds.start {
                gathered.gone.push(OffsetRange { partition: partition.clone(), start, end: bounds.start });
            }
            if next > start {
                gathered.ranges.push(OffsetRange { partition: partition.clone(), start, end: next });
            }
        }
        gathered.cleaned = lane.cleaning.apply(decoder.finish())?;
        Ok(gathered)
    }

    async fn commit(&self, lane: &mut Lane, gathered: Gathered, report: &mut Report) -> Result<()> {
        let rejects = cleaning::rejects_batch(&gathered.cleaned.rejects);
        let n_rows = gathered.cleaned.rows.num_rows() as u64;
        let n_rejects = rejects.num_rows() as u64;
        let parts =
            [(&mut lane.rejects, &lane.rejects_at, rejects), (&mut lane.rows, &lane.rows_at, gathered.cleaned.rows)];
        for (sink, at, rows) in parts {
            let Some(batch) = MicroBatch { ranges: gathered.ranges.clone(), rows }.beyond(at) else { continue };
            match sink.commit(batch).await {
                Ok(Committed::Done | Committed::AlreadyThere) => {}
                // Another speed layer took it in: the next round asks where to go on.
                Err(CommitError::Overtaken { table } | CommitError::NotAdjacent { table, .. }) => {
                    tracing::info!(table, "another writer is ahead; going on from its checkpoint");
                    return Ok(());
                }
                Err(e) => return Err(e.into()),
            }
        }
        report.did_work = true;
        report.add("n_commits", 1);
        report.add("n_records", gathered.n_records);
        report.add("n_rows", n_rows);
        report.add("n_rejects", n_rejects);
        for gone in gathered.gone {
            report.add("n_records_gone", gone.end.0 - gone.start.0);
            report.notices.push(format!(
                "{}: the records [{}, {}) were gone from the log before the speed layer took them; it goes on at {}, and \
                 what was landed of them comes with the next batch run",
                gone.partition, gone.start, gone.end, gone.end
            ));
        }
        for (column, n) in gathered.cleaned.lost {
            report.add("n_values_lost", n);
            let stream = &lane.cleaning.stream().name;
            report.notices.push(format!("{stream}.{column}: {n} values could not be read and are NULL"));
        }
        Ok(())
    }
}

impl Lane {
    async fn ask(&mut self) -> Result<()> {
        self.rows_at = self.rows.checkpoint(&self.partitions).await?;
        self.rejects_at = self.rejects.checkpoint(&self.partitions).await?;
        Ok(())
    }

    /// The lower of the two sinks' next offsets. A sink that has not seen the partition begins where
    /// the log does.
    fn next_of(&self, partition: &TopicPartition, log_start: Offset) -> Offset {
        let [rows, rejects] =
            [&self.rows_at, &self.rejects_at].map(|at| at.next.get(partition).copied().unwrap_or(log_start));
        rows.min(rejects)
    }
}

/// Where the batch table of a relation goes on.
pub async fn batch_checkpoint(
    tables: &Tables,
    name: &str,
    log: LogId,
    partitions: &[TopicPartition],
) -> Result<Checkpoint> {
    match tables.open(&format!("batch/{name}")).await? {
        Some(mut table) => table.checkpoint(log, partitions).await,
        None => Ok(Checkpoint::start_of(log)),
    }
}

#[async_trait]
impl Task for Speed {
    fn name(&self) -> &'static str {
        "speed"
    }

    async fn run(&mut self, stop: &Stop) -> Result<Report> {
        let mut report = Report::default();
        let mut troubles = Vec::new();
        for cleaning in self.definitions.streams.clone() {
            let name = &cleaning.stream().name;
            match self.run_stream(&cleaning, stop, &mut report).await {
                // A topic was deleted meanwhile; that woke the next run, which does without it.
                Err(e) if e.downcast_ref::<LogError>().is_some_and(LogError::is_gone) => {}
                Err(e) => troubles.push(format!("stream {name}: {e:#}")),
                Ok(()) => {}
            }
        }
        ensure!(troubles.is_empty(), "{}", troubles.join("; "));
        Ok(report)
    }
}

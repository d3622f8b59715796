//! Landing: the log's records become immutable objects, the master dataset.
//!
//! Exactly once without a checkpoint of its own (I5): an object is named by the offset that it
//! starts at and created only if nothing has that name, so where a partition goes on is asked
//! of the store: after the last line of its last object. Two landers at once cost work, not
//! truth: who comes second takes over what the first wrote, after comparing it with the log.

mod cut;
pub mod line;
pub mod marker;
pub mod objects;
mod reader;

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use async_trait::async_trait;
use futures::stream::BoxStream;
use model::{
    Bounds, Checkpoint, EventLog, LogError, LogId, Offset, Report, Stop, Task, TopicPartition, config::LandingConfig,
};
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, path::Path};

use self::{
    cut::{Closed, Open},
    marker::Marker,
    objects::{LandingObject, Listed},
    reader::Reader,
};
use crate::{haste::Haste, store::Store};

/// A partition that is neither idle nor full is looked at so many times per rotate interval,
/// and at least this often, to see whether time or bytes have filled an object. Looking reads
/// what waits, at most one object.
const LOOKS_PER_ROTATE_INTERVAL: u32 = 4;
const MAX_LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// Partitions whose trouble an error tells in words; more are counted.
const MAX_TOLD: usize = 5;

type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

/// The landing task.
pub struct Landing {
    log: Arc<dyn EventLog>,
    store: Store,
    config: LandingConfig,
    haste: Haste,
    clock: Clock,
    /// What this process knows of each partition. A hint: it saves asking the store while
    /// nothing happens, and the conditional put finds it out if it is wrong.
    hints: BTreeMap<TopicPartition, Hint>,
}

/// Partitions that could not be landed; all others were.
#[derive(Debug)]
pub struct Waiting {
    pub report: Report,
    pub partitions: Vec<(TopicPartition, anyhow::Error)>,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the partitions cannot be landed", self.partitions.len())?;
        for (partition, problem) in self.partitions.iter().take(MAX_TOLD) {
            write!(f, "; {partition}: {problem:#}")?;
        }
        let n_more = self.partitions.len().saturating_sub(MAX_TOLD);
        if n_more > 0 { write!(f, "; and {n_more} more") } else { Ok(()) }
    }
}

impl std::error::Error for Waiting {}

impl Landing {
    /// Lands `log` below `topics/` of `store`.
    pub fn new(log: Arc<dyn EventLog>, store: Store, config: LandingConfig) -> Self {
        let begin = Instant::now();
        let clock = Box::new(move || begin.elapsed());
        Self { log, store, config, haste: Haste::default(), clock, hints: BTreeMap::new() }
    }

    /// With another clock for the idle flush; it must not go backwards.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), ..self }
    }

    /// Without waiting for more of the topics that somebody is in haste with.
    #[must_use]
    pub fn hurried_by(self, haste: Haste) -> Self {
        Self { haste, ..self }
    }

    /// Where a partition goes on, as the store says: after its last object, which must hold what the
    /// log holds. Everything below is durable.
    pub async fn position(&self, log: LogId, partition: &TopicPartition) -> anyhow::Result<Offset> {
        let marker = marker::read_alone(self.store.as_ref()).await?.filter(|marker| marker.log == log.id);
        let Some(marker) = marker else { return Ok(Offset::ZERO) };
        let begin_at = marker.begin_at.get(partition).copied().unwrap_or_default();
        let listing = objects::list_from(&self.store, partition, Offset(u64::MAX)).await?;
        let Some(last) = listing.objects.last() else { return Ok(begin_at) };
        let end = self.end_of(last).await?;
        self.store.settle([objects::folder_of(partition)].into()).await?;
        Ok(end.max(begin_at))
    }

    /// How far landing has come, as the store says: durable, exact, and as expensive as
    /// reading the last object of every partition.
    pub async fn checkpoint(store: &Store) -> anyhow::Result<Checkpoint> {
        let mut checkpoint = Floors::of(store.clone()).read().await?;
        let last = objects::last_of_each(store).await?;
        let folders = last.iter().map(|last| objects::folder_of(&last.partition)).collect();
        for last in last {
            let n_lines = objects::count_lines(store.as_ref(), &last).await?;
            checkpoint.next.insert(last.partition, Offset(last.start.0 + n_lines));
        }
        store.settle(folders).await?;
        Ok(checkpoint)
    }
}

/// The start of the last object of every partition: all records before it are landed and durable. No
/// object is looked at for it. This is what trimming wants: it leaves the log what it takes to check
/// the last object.
pub struct Floors {
    store: Store,
    /// Where those start whose names are known to be durable: only what came since is synced.
    settled: BTreeMap<TopicPartition, Offset>,
}

impl Floors {
    pub fn of(store: Store) -> Self {
        Self { store, settled: BTreeMap::new() }
    }

    /// Asks the store. The caller compares `log.id` with the log's; it is `LogId::NONE` where no log of
    /// ours has landed.
    pub async fn read(&mut self) -> anyhow::Result<Checkpoint> {
        let marker = marker::read_alone(self.store.as_ref()).await?;
        let log = marker.map_or(LogId::NONE, |marker| LogId { id: marker.log, epoch: 0 });
        let last = objects::last_starts(&self.store).await?;
        let came = last.iter().filter(|(partition, start)| self.settled.get(*partition) != Some(*start));
        let folders = came.flat_map(|(partition, _)| objects::folders_of(partition)).collect();
        self.store.settle(folders).await?;
        self.settled.clone_from(&last);
        Ok(Checkpoint { log, next: last })
    }
}

impl Listed for Store {
    fn objects(&self) -> &dyn ObjectStore {
        self.as_ref()
    }

    fn names(&self, prefix: &Path) -> BoxStream<'static, object_store::Result<(Path, Option<u64>)>> {
        Self::names(self, prefix)
    }
}

/// What is known of a partition from the last run.
#[derive(Clone, Debug)]
struct Hint {
    /// Everything below is in objects.
    position: Offset,
    /// The start of the object that ends at `position`.
    last: Option<Offset>,
    log_end: Offset,
    /// When the log end offset was seen to rise.
    grown_at: Duration,
    /// When to look whether time or bytes have filled an object.
    look_at: Duration,
}

impl Hint {
    fn n_pending(&self) -> u64 {
        self.log_end.0.saturating_sub(self.position.0)
    }

    fn see(&mut self, log_end: Offset, now: Duration, look_interval: Duration) {
        if log_end > self.log_end {
            if self.n_pending() == 0 {
                self.look_at = now + look_interval;
            }
            self.log_end = log_end;
            self.grown_at = now;
        }
    }
}

/// What one run found so far; the marker once it was needed.
struct Run<'a> {
    log_id: LogId,
    stop: &'a Stop,
    report: Report,
    marker: Option<Marker>,
    /// The landing folder is not for this log: no partition can be landed.
    is_refused: bool,
}

#[async_trait]
impl Task for Landing {
    fn name(&self) -> &'static str {
        "landing"
    }

    async fn run(&mut self, stop: &Stop) -> anyhow::Result<Report> {
        let log = self.log.describe().await.context("the log does not tell its topics")?;
        let mut run = Run { log_id: log.id, stop, report: Report::default(), marker: None, is_refused: false };
        let mut waiting = Vec::new();
        for partition in log.partitions().filter(|p| !p.topic.is_internal()) {
            if stop.is_cancelled() {
                break;
            }
            let Err(problem) = self.land(&partition, &mut run).await else { continue };
            self.hints.remove(&partition);
            if run.is_refused {
                return Err(problem);
            }
            if problem.downcast_ref::<LogError>().is_some_and(LogError::is_gone) {
                continue; // Deleted since the topics were asked for.
            }
            waiting.push((partition, problem));
        }
        let did_work = ["n_objects", "n_records_gone"].iter().any(|figure| run.report.get(figure) > 0);
        let report = Report { did_work, ..run.report };
        if waiting.is_empty() {
            return Ok(report);
        }
        Err(Waiting { report, partitions: waiting }.into())
    }
}

impl Landing {
    /// Writes the objects of one partition that are due.
    async fn land(&mut self, partition: &TopicPartition, run: &mut Run<'_>) -> anyhow::Result<()> {
        let bounds = self.log.bounds(partition).await?;
        let now = (self.clock)();
        let rotate_interval = Duration::from_millis(self.config.rotate_interval_ms);
        let look_interval = (rotate_interval / LOOKS_PER_ROTATE_INTERVAL).min(MAX_LOOK_INTERVAL);
        let mut known = self.hints.get(partition).cloned();
        if let Some(hint) = &mut known {
            hint.see(bounds.end, now, look_interval);
        }
        if known.as_ref().is_none_or(|hint| self.is_due(partition, hint, bounds, now)) {
            self.admit(run).await?;
            // Admission forgets all hints when the landing folder is a new one.
            let still_known = known.filter(|_| self.hints.contains_key(partition));
            let mut hint = match still_known {
                Some(hint) if self.is_there(partition, hint.last).await? => hint,
                _ => self.ask_store(partition, now, run).await?,
            };
            // Asked again: another lander may have landed what came after the first answer.
            if hint.position < self.log.bounds(partition).await?.start {
                self.pass_deleted(partition, &mut hint, run).await?;
            }
            check_range(partition, hint.position, self.log.bounds(partition).await?)?;
            let is_idle = self.is_idle(partition, &hint, now);
            self.write_due(partition, &mut hint, is_idle, run).await?;
            hint.look_at = now + look_interval;
            known = Some(hint);
        }
        let hint = known.expect("a partition without a hint was asked for above");
        run.report.add("lag_records", hint.n_pending());
        self.hints.insert(partition.clone(), hint);
        Ok(())
    }

    /// Goes on behind the records that went with an earlier life of the topic before they were landed.
    /// Batch runs wait at a hole that they do not know of, so it is noted before the next object.
    async fn pass_deleted(&self, partition: &TopicPartition, hint: &mut Hint, run: &mut Run<'_>) -> anyhow::Result<()> {
        let begin = self.log.describe().await?.begin(partition);
        if hint.position >= begin {
            return Ok(());
        }
        let marker = run.marker.as_ref().context("a partition is looked at once the folder is admitted")?;
        if marker::note_deletion(&*self.store.objects(), marker, partition, begin).await? {
            run.report.add("n_records_gone", begin.0 - hint.position.0);
            run.report.notices.push(format!(
                "{partition}: the records [{}, {begin}) were deleted with their topic before they were landed; landing \
                 goes on at {begin}",
                hint.position
            ));
        }
        hint.position = begin;
        Ok(())
    }

    fn is_due(&self, partition: &TopicPartition, hint: &Hint, bounds: Bounds, now: Duration) -> bool {
        let is_out_of_range = hint.position > bounds.end || hint.position < bounds.start;
        let is_full = hint.n_pending() >= self.config.flush_size as u64;
        is_out_of_range
            || is_full
            || self.is_idle(partition, hint, now)
            || (hint.n_pending() > 0 && now >= hint.look_at)
    }

    fn is_idle(&self, partition: &TopicPartition, hint: &Hint, now: Duration) -> bool {
        let idle = now.saturating_sub(hint.grown_at);
        let is_long = idle >= Duration::from_millis(self.config.idle_flush_ms);
        hint.n_pending() > 0 && (is_long || self.haste.is_with(&partition.topic))
    }

    /// Makes sure, once per run and before anything is written, that the landing folder is
    /// this log's.
    async fn admit(&mut self, run: &mut Run<'_>) -> anyhow::Result<()> {
        if run.marker.is_some() {
            return Ok(());
        }
        let admitted = marker::admit(&*self.store.objects(), run.log_id).await;
        run.is_refused = admitted.is_err();
        let (marker, is_new) = admitted?;
        if is_new {
            self.hints.clear();
        }
        run.marker = Some(marker);
        Ok(())
    }

    /// Whether the object that a hint relies on was left in its place.
    async fn is_there(&self, partition: &TopicPartition, last: Option<Offset>) -> anyhow::Result<bool> {
        let Some(start) = last else { return Ok(true) };
        match self.store.objects().head(&objects::key_of(partition, start)).await {
            Err(Error::NotFound { .. }) => Ok(false),
            head => {
                head.map(|_| true).with_context(|| format!("the last landing object of {partition} cannot be read"))
            }
        }
    }

    /// Where the partition goes on: after its last object, which must hold what the log holds.
    async fn ask_store(&self, partition: &TopicPartition, now: Duration, run: &mut Run<'_>) -> anyhow::Result<Hint> {
        let listing = objects::list_from(&self.store, partition, Offset(u64::MAX)).await?;
        run.report.notices.extend(listing.foreign.iter().map(ToString::to_string));
        if listing.n_foreign > listing.foreign.len() {
            run.report.notices.push(format!("{} objects of {partition} are no landing objects", listing.n_foreign));
        }
        let begin_at = run.marker.as_ref().and_then(|m| m.begin_at.get(partition)).copied().unwrap_or_default();
        let position = match listing.objects.last() {
            Some(last) => self.end_of(last).await?.max(begin_at),
            None => begin_at,
        };
        // Only names of our width can be asked for again.
        let is_ours = |o: &&LandingObject| o.key == objects::key_of(partition, o.start);
        let last = listing.objects.last().filter(is_ours).map(|o| o.start);
        let log_end = self.log.bounds(partition).await?.end;
        Ok(Hint { position, last, log_end, grown_at: now, look_at: now })
    }

    /// Cuts and writes objects from the hint's position on; the last, open one only if
    /// `is_idle`.
    async fn write_due(
        &self,
        partition: &TopicPartition,
        hint: &mut Hint,
        is_idle: bool,
        run: &mut Run<'_>,
    ) -> anyhow::Result<()> {
        let mut records = Reader::new(&*self.log, partition, hint.log_end);
        while !run.stop.is_cancelled() {
            let Some(object) = self.fill(hint.position, is_idle, &mut records).await? else { break };
            hint.last = Some(object.start);
            hint.position = self.put(partition, object, run).await?;
        }
        // What another lander wrote may reach further than the log end offset seen above.
        hint.log_end = hint.log_end.max(hint.position);
        Ok(())
    }

    /// The next object to write, if its end is reached (or need not be).
    async fn fill(&self, start: Offset, is_idle: bool, records: &mut Reader<'_>) -> anyhow::Result<Option<Closed>> {
        let mut open = Open::at(start, &self.config);
        let mut is_over = false;
        while !is_over {
            let Some(record) = records.at(open.next()).await? else { break };
            is_over = !open.take(record, &line::canonical(record)) || open.is_full();
        }
        let is_due = is_over || (is_idle && !open.is_empty());
        Ok(is_due.then(|| open.close()))
    }

    /// Creates the object, or takes over the one of that name; returns the offset after it.
    async fn put(&self, partition: &TopicPartition, object: Closed, run: &mut Run<'_>) -> anyhow::Result<Offset> {
        let Closed { start, n_records, lines } = object;
        let key = objects::key_of(partition, start);
        let size_bytes = lines.content_length() as u64;
        match self.store.objects().put_opts(&key, lines, PutMode::Create.into()).await {
            Ok(_) => {
                run.report.add("n_objects", 1);
                run.report.add("n_records", n_records as u64);
                run.report.add("written_bytes", size_bytes);
                Ok(start.plus(n_records))
            }
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                let size_bytes = self.store.objects().head(&key).await?.size;
                let there = LandingObject { partition: partition.clone(), start, key, size_bytes };
                run.report.add("n_taken_over", 1);
                self.end_of(&there).await
            }
            Err(e) => Err(e).with_context(|| format!("landing object {key} cannot be written")),
        }
    }

    /// The offset after the object's last line, once every line was compared with the log, as
    /// far as the log still reaches back.
    async fn end_of(&self, object: &LandingObject) -> anyhow::Result<Offset> {
        let LandingObject { partition, key, .. } = object;
        let bounds = self.log.bounds(partition).await?;
        let mut records = Reader::new(&*self.log, partition, bounds.end);
        let mut lines = objects::lines(&*self.store.objects(), object).await?;
        let mut end = object.start;
        while let Some(block) = lines.next_block().await? {
            for (offset, landed) in block.lines() {
                end = offset.plus(1);
                if offset < bounds.start {
                    continue;
                }
                let Some(record) = records.at(offset).await? else {
                    bail!(
                        "landing object {key} holds offset {offset}, but the log of {partition} ends at {}: {LOST_RECORDS}",
                        bounds.end
                    );
                };
                if line::canonical(record) != landed {
                    bail!(
                        "landing object {key} does not hold what the log holds at offset {offset}: it was changed, \
                         or written from another log; move it away, with all later ones of {partition}, and landing \
                         writes them again from the log"
                    );
                }
            }
        }
        Ok(end)
    }
}

const LOST_RECORDS: &str = "the log has lost records that were landed, and new records would get their offsets; \
                            restore the log's folder, or begin with a new log and a new landing folder";

/// Landing may only go on within the log.
fn check_range(partition: &TopicPartition, position: Offset, bounds: Bounds) -> anyhow::Result<()> {
    if position > bounds.end {
        bail!(
            "landing has come to offset {position}, but the log of {partition} ends at {}: {LOST_RECORDS}",
            bounds.end
        );
    }
    if position < bounds.start {
        bail!(
            "the log of {partition} begins at offset {start}, but landing has come to {position} only: the records \
             [{position}, {start}) were trimmed before they were landed; restore their objects from a backup or, to \
             go on without them, write \"begin_at\": {{\"{partition}\": {start}}} into corkboard.json of the \
             landing folder",
            start = bounds.start
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::executor::block_on;

    use super::*;
    use crate::store::{self, journal};

    const N_OBJECTS: u64 = 300;

    /// Without a runtime all work is done on the test's own thread, whose calls are noted: after many
    /// objects of two partitions, and one more of each foreign kind.
    fn landed(store: &Store) -> [TopicPartition; 2] {
        let partitions = ["t-0", "t-1"].map(|partition| partition.parse().unwrap());
        for partition in &partitions {
            (0..N_OBJECTS).for_each(|n| put(store, partition, n));
        }
        for name in ["t+0+0000000007.txt", "t+0+7.json"] {
            let key = objects::folder_of(&partitions[0]).join(name);
            block_on(store.objects().put(&key, "1\n".into())).unwrap();
        }
        partitions
    }

    fn put(store: &Store, partition: &TopicPartition, start: u64) {
        block_on(store.objects().put(&objects::key_of(partition, Offset(start)), "1\n".into())).unwrap();
    }

    #[test]
    fn of_what_was_landed_long_ago_the_names_are_read_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = store::open(folder.path().to_str().unwrap()).unwrap();
        let [first, second] = landed(&store);
        let next = [(first, Offset(N_OBJECTS - 2)), (second, Offset(N_OBJECTS))].into();
        journal::take();
        let listing = block_on(objects::list(&store, None, &Checkpoint { log: LogId::NONE, next })).unwrap();
        assert_eq!(journal::take(), [""; 0]);
        let found: Vec<_> = listing.objects.iter().map(|o| (o.partition.partition, o.start.0, o.size_bytes)).collect();
        assert_eq!(found, [(0, N_OBJECTS - 2, 2), (0, N_OBJECTS - 1, 2), (1, N_OBJECTS - 1, 2)]);
        let foreign: Vec<_> = listing.foreign.iter().map(|f| f.key.filename().unwrap()).collect();
        assert_eq!((foreign, listing.n_foreign), (vec!["t+0+0000000007.txt", "t+0+7.json"], 2));
    }

    #[test]
    fn what_was_seen_to_be_durable_is_not_synced_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = store::open(folder.path().to_str().unwrap()).unwrap();
        let [first, second] = landed(&store);
        let mut floors = Floors::of(store.clone());
        journal::take();
        let mut read = || (block_on(floors.read()).unwrap().next, journal::take());
        let at = |n| BTreeMap::from([(first.clone(), Offset(N_OBJECTS - 1)), (second.clone(), Offset(n))]);
        let all = ["sync folder topics", "sync folder t", "sync folder partition=0", "sync folder partition=1"];
        assert_eq!(read(), (at(N_OBJECTS - 1), all.map(str::to_owned).to_vec()));
        assert_eq!(read(), (at(N_OBJECTS - 1), vec![]));
        put(&store, &second, N_OBJECTS);
        journal::take();
        let fresh = ["sync folder topics", "sync folder t", "sync folder partition=1"];
        assert_eq!(read(), (at(N_OBJECTS), fresh.map(str::to_owned).to_vec()));
        assert_eq!(read(), (at(N_OBJECTS), vec![]));
    }
}

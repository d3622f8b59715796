//! The serving layer: one answer out of three adjacent ranges of every partition (I6): the
//! batch table below its checkpoint `w`, the real-time table in `[w, c)`, and the tail of the
//! log in `[c, end)`, cleaned on the spot by the same definition.

mod standing;
mod tail;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use async_trait::async_trait;
use datafusion::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    prelude::SessionContext,
};
use model::{
    Answer, Checkpoint, Dedup, EventLog, LogDescription, LogError, LogId, Offset, Query, QueryError, Scope,
    TopicPartition, ViewDef,
    config::ServingConfig,
    query::{Ask, Boundary},
};
use tokio::sync::{Mutex, OnceCell, Semaphore};

use self::{
    standing::{Origin, Standing, StreamRows},
    tail::Tail,
};
use crate::{
    batch::manifest,
    cleaning::Cleaning,
    definitions::Definitions,
    mergeable::{Marks, Mergeable, Saved},
    relation::{self, Parts, Relation},
    rows,
    session::{Mode, Resources, Scratch, is_out_of_memory},
    table::{Table, Tables},
};

/// Tables move while they are looked at; so many looks until three adjacent ranges are seen.
const MAX_LOOKS: usize = 8;
/// Cleaned bytes of the log that groups take up at a time.
const MAX_STEP_BYTES: usize = 64 << 20;
/// Rejects shown for one stream; the newest come first.
const MAX_REJECTS: usize = 1000;

/// Answers views from a data folder's tables and, where there is one, its log.
pub struct Serving {
    log: Option<Arc<dyn EventLog>>,
    tables: Tables,
    definitions: Arc<Definitions>,
    dedup: Option<Dedup>,
    config: ServingConfig,
    resources: Arc<Resources>,
    spill: PathBuf,
    permits: Semaphore,
    streams: Vec<StreamState>,
    mergeable: OnceCell<Arc<Mergeable>>,
    standing: Mutex<Option<Standing>>,
}

/// Opened tables and the cached tail of one stream, for its rows and for its rejects.
struct StreamState {
    cleaning: Arc<Cleaning>,
    rows: Mutex<Layers>,
    rejects: Mutex<Layers>,
    tail: Arc<Mutex<Tail>>,
}

/// The two tables of one relation, kept open between questions.
struct Layers {
    batch: Opened,
    realtime: Opened,
}

struct Opened {
    path: String,
    table: Option<Table>,
}

/// One relation at one moment.
struct Moment {
    parts: Parts,
    batch_through: BTreeMap<TopicPartition, Offset>,
    realtime_through: BTreeMap<TopicPartition, Offset>,
    tail_through: BTreeMap<TopicPartition, Offset>,
    batch_age_ms: Option<u64>,
    realtime_age_ms: Option<u64>,
    complete: bool,
}

impl Serving {
    /// `log` is None for a tables folder alone, which answers in the batch scope only.
    pub fn new(
        log: Option<Arc<dyn EventLog>>,
        tables: Tables,
        definitions: Arc<Definitions>,
        dedup: Option<Dedup>,
        config: ServingConfig,
        spill: &Path,
    ) -> Result<Self> {
        let state_of = |cleaning: &Arc<Cleaning>| {
            let stream = cleaning.stream();
            StreamState {
                cleaning: cleaning.clone(),
                rows: Mutex::new(Layers::of(&stream.name)),
                rejects: Mutex::new(Layers::of(&stream.rejected())),
                tail: Arc::new(Mutex::new(Tail::new(cleaning.clone(), config.max_tail_bytes))),
            }
        };
        Ok(Self {
            streams: definitions.streams.iter().map(state_of).collect(),
            resources: Resources::new(config.memory_bytes, spill)?,
            spill: spill.to_owned(),
            permits: Semaphore::new(config.max_concurrent_queries),
            log,
            tables,
            definitions,
            dedup,
            config,
            mergeable: OnceCell::new(),
            standing: Mutex::new(None),
        })
    }

    async fn answer(&self, ask: &Ask) -> Result<Answer, QueryError> {
        let view = self.view(&ask.view)?;
        let deadline = Duration::from_millis(self.config.query_timeout_ms);
        let work = async {
            let _permit = self.permits.acquire().await.context("the server is stopping")?;
            self.answer_in_time(&view, ask).await
        };
        match tokio::time::timeout(deadline, work).await {
            Ok(answer) => answer,
            Err(_) => Err(QueryError::Unavailable(format!(
                "view {} took longer than serving.query_timeout_ms = {}; ask again when less is going on, or raise it",
                view.name, self.config.query_timeout_ms
            ))),
        }
    }

    async fn answer_in_time(&self, view: &ViewDef, ask: &Ask) -> Result<Answer, QueryError> {
        if ask.scope == Scope::Batch && view.materialised {
            return self.materialised(view, ask).await;
        }
        if self.log.is_none() && ask.scope != Scope::Batch {
            return Err(QueryError::Unavailable(format!(
                "a tables folder alone has no {} scope; ask for --scope batch",
                ask.scope
            )));
        }
        if ask.scope == Scope::Merged
            && let Some(answer) = self.answer_from_groups(view, ask).await?
        {
            return Ok(answer);
        }
        match self.evaluate(view, ask, Mode::InMemory).await {
            Err(QueryError::Failed(e)) if is_out_of_memory(&e) => {
                tracing::info!(view = view.name, "asking again with less at a time: it did not fit in memory");
                let is_mergeable = self.mergeable().await?.has(&view.name);
                let mode = if is_mergeable { Mode::Spilling } else { Mode::SortingJoins };
                self.evaluate(view, ask, mode).await
            }
            answer => answer,
        }
    }

    /// The answer of a view whose groups follow the log; None if they do not.
    async fn answer_from_groups(&self, view: &ViewDef, ask: &Ask) -> Result<Option<Answer>, QueryError> {
        let mut standing = self.standing.lock().await;
        let groups = match self.follow(&mut standing, view).await {
            Ok(groups) => groups,
            Err(e) => {
                // Tables and log moved on, or memory was short: all rows give the same answer.
                tracing::debug!(view = view.name, error = format!("{e:#}"), "the view's groups are built anew");
                *standing = None;
                None
            }
        };
        drop(standing);
        let Some((mergeable, groups, mut boundary)) = groups else { return Ok(None) };
        let (schema, batches) = mergeable.answer(&self.resources.session(Mode::InMemory), view, groups).await?;
        boundary.dedup = self.dedup_in_words();
        self.encoded(ask, &schema, &batches, boundary).map(Some)
    }

    /// Brings the views' groups to the end of the log, and gives those of one view.
    async fn follow(
        &self,
        standing: &mut Option<Standing>,
        view: &ViewDef,
    ) -> Result<Option<(Arc<Mergeable>, Vec<RecordBatch>, Boundary)>> {
        let Some(log) = self.log.as_ref() else { return Ok(None) };
        let mergeable = self.mergeable().await?;
        if !mergeable.has(&view.name) {
            return Ok(None);
        }
        let standing = standing.get_or_insert_with(|| {
            let views = self.definitions.views.iter().filter(|v| mergeable.has(&v.name)).cloned().collect();
            Standing::of(mergeable.clone(), views, self.resources.clone(), self.config.memory_bytes / 4 * 3)
        });
        let description = log.describe().await?;
        let mut boundary = Boundary { scope: Scope::Merged, complete: true, ..Boundary::default() };
        let mut marks = Marks::new();
        let states: Vec<&StreamState> =
            self.streams.iter().filter(|s| mergeable.streams.contains_key(&s.cleaning.stream().name)).collect();
        for state in &states {
            let mut layers = state.rows.lock().await;
            let partitions: Vec<TopicPartition> = partitions_of(state, &description).collect();
            let Some(reach) = self.reach(state, &mut layers, description.id, &partitions).await? else {
                return Ok(None);
            };
            let name = &state.cleaning.stream().name;
            if let Some(mark) = &reach.mark {
                marks.insert(name.clone(), mark.clone());
            }
            if mergeable.streams_of(&view.name).any(|s| s == name) {
                reach.tell(&mut boundary);
            }
        }
        if !standing.is_up(description.id, &marks) && !self.begin(standing, &states, &description, marks).await? {
            return Ok(None);
        }
        loop {
            let mut fresh = BTreeMap::new();
            let mut through = BTreeMap::new();
            let mut n_bytes = 0;
            for state in &states {
                let tail = state.tail.lock().await;
                let mut rows = Vec::new();
                for partition in partitions_of(state, &description) {
                    let mut next = standing.next_of(&partition);
                    while n_bytes < MAX_STEP_BYTES
                        && let Some((batch, end)) = tail.rows_from(log.as_ref(), &partition, next).await?
                    {
                        n_bytes += batch.get_array_memory_size();
                        rows.push(batch);
                        next = end;
                    }
                    through.insert(partition, next);
                }
                if rows.iter().any(|batch| batch.num_rows() > 0) {
                    fresh.insert(state.cleaning.stream().name.clone(), rows);
                }
            }
            if !standing.advance(&fresh, through).await? {
                return Ok(None);
            }
            if n_bytes < MAX_STEP_BYTES {
                break;
            }
        }
        let partitions = boundary.realtime_through.keys().map(|p| (p.clone(), standing.next_of(p)));
        boundary.tail_through = partitions.collect();
        let groups = standing.groups(view).await?;
        Ok(groups.map(|groups| (mergeable.clone(), groups, boundary)))
    }

    async fn mergeable(&self) -> Result<&Arc<Mergeable>> {
        let plan = async || Ok(Arc::new(Mergeable::of(&self.definitions, self.dedup).await?));
        self.mergeable.get_or_try_init(plan).await
    }

    /// Begins to follow the log where the last batch run ended.
    async fn begin(
        &self,
        standing: &mut Standing,
        states: &[&StreamState],
        description: &LogDescription,
        marks: Marks,
    ) -> Result<bool> {
        let context = self.resources.session(Mode::InMemory);
        let log = description.id;
        let saved = match Saved::load(&context, &self.tables, log.id).await? {
            Some(saved) => saved,
            None if marks.is_empty() => Saved::at(log.id, BTreeMap::new()),
            // The batch tables are of an earlier version, or their run was cut off.
            None => return Ok(false),
        };
        let origin = Origin { log, marks, through: saved.through.clone() };
        if standing.is_spoiled(&origin) {
            return Ok(false);
        }
        let mut streams = BTreeMap::new();
        for state in states {
            let look = Look { context: &context, kind: Kind::Rows, scope: Scope::Merged };
            let moment = self.look(state, &state.rows, look).await?;
            let relation = Relation::rows(&state.cleaning, Dedup::Off);
            let through = moment.tail_through.clone();
            let batch = moment.parts.batch.clone();
            let rows = relation.unite(&context, moment.parts).await?;
            let reached = saved.through.iter().filter(|(p, _)| state.cleaning.stream().takes(p.topic.as_str()));
            let before = reached.map(|(partition, next)| (partition.clone(), *next)).collect();
            streams.insert(relation.name, StreamRows { rows, batch, before, through });
        }
        standing.begin(&context, origin, &saved, streams).await
    }

    /// What the last batch run wrote.
    async fn materialised(&self, view: &ViewDef, ask: &Ask) -> Result<Answer, QueryError> {
        let path = format!("views/{}", view.name);
        let table = self.tables.open(&path).await?;
        let manifest = manifest::latest(&self.tables).await?;
        let (Some(table), Some(manifest)) = (table, manifest) else {
            return Err(QueryError::Unavailable(format!(
                "view {} has no batch view yet: run `corkboard batch run`",
                view.name
            )));
        };
        let context = self.resources.session(Mode::InMemory);
        // One partition keeps the order in which the rows were written.
        context.state_ref().write().config_mut().options_mut().execution.target_partitions = 1;
        let provider = table.scan(&context).await?;
        let frame = context.read_table(provider).map_err(anyhow::Error::from)?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await.map_err(anyhow::Error::from)?;
        let boundary = Boundary {
            scope: Scope::Batch,
            batch_through: manifest.through(),
            batch_age_ms: Some(manifest.age_ms()),
            complete: true,
            dedup: self.dedup_in_words(),
            ..Boundary::default()
        };
        self.encoded(ask, &schema, &batches, boundary)
    }

    async fn evaluate(&self, view: &ViewDef, ask: &Ask, mode: Mode) -> Result<Answer, QueryError> {
        let context = self.resources.session(mode);
        let mut boundary = Boundary { scope: ask.scope, complete: true, ..Boundary::default() };
        let wanted = relation::tables_of(&context, &view.sql)?;
        let look = |kind| Look { context: &context, kind, scope: ask.scope };
        let scratch = Arc::new(Scratch::within(&self.spill, self.config.memory_bytes)?);
        let columns = self.definitions.columns_of([view]);
        // Rows that count live as long as the question.
        let mut held = Vec::new();
        for state in &self.streams {
            let stream = state.cleaning.stream();
            if wanted.contains(&stream.name) {
                let moment = self.look(state, &state.rows, look(Kind::Rows)).await?;
                let relation = Relation::rows(&state.cleaning, self.dedup.unwrap_or(stream.dedup));
                moment.tell(&mut boundary);
                held.push(relation.register(&context, moment.parts, &columns, &scratch, mode).await?);
            }
            if wanted.contains(&stream.rejected()) {
                let moment = self.look(state, &state.rejects, look(Kind::Rejects)).await?;
                moment.tell(&mut boundary);
                let relation = Relation::rejects(&state.cleaning);
                held.push(relation.register(&context, moment.parts, &columns, &scratch, mode).await?);
            }
        }
        boundary.dedup = self.dedup_in_words();
        let (schema, batches) = if mode == Mode::Spilling {
            let split = self.mergeable().await?.split(&context, view).await?;
            let groups = split.groups_by_shares(&context).await?;
            split.answer(&context, groups).await?
        } else {
            relation::evaluate(&context, view).await?
        };
        self.encoded(ask, &schema, &batches, boundary)
    }

    fn encoded(
        &self,
        ask: &Ask,
        schema: &SchemaRef,
        batches: &[RecordBatch],
        boundary: Boundary,
    ) -> Result<Answer, QueryError> {
        let n_rows = batches.iter().map(RecordBatch::num_rows).sum();
        Ok(Answer { n_rows, body: rows::encode(ask.format, schema, batches)?, boundary })
    }

    /// Looks at the layers of one relation until their ranges are adjacent.
    async fn look(&self, state: &StreamState, layers: &Mutex<Layers>, look: Look<'_>) -> Result<Moment, QueryError> {
        let (log, partitions) = match &self.log {
            Some(log) => {
                let description = log.describe().await.map_err(anyhow::Error::from)?;
                let takes = |p: &TopicPartition| state.cleaning.stream().takes(p.topic.as_str());
                (description.id, description.partitions().filter(takes).collect::<Vec<_>>())
            }
            None => (LogId::NONE, vec![]),
        };
        let mut layers = layers.lock().await;
        for _ in 0..MAX_LOOKS {
            if let Some(moment) = self.look_once(state, &mut layers, log, &partitions, look).await? {
                return Ok(moment);
            }
        }
        Err(QueryError::Failed(anyhow::anyhow!(
            "the ranges of {} and {} are not adjacent: ask again; if this goes on, the batch table was set back, and \
             `corkboard batch run` brings it up to where it was",
            layers.batch.path,
            layers.realtime.path
        )))
    }

    /// How far the tables reach now; None if another definition made one of them.
    async fn reach(
        &self,
        state: &StreamState,
        layers: &mut Layers,
        log: LogId,
        partitions: &[TopicPartition],
    ) -> Result<Option<Reach>> {
        let definition = Some(state.cleaning.definition());
        let mut reach = Reach {
            batch: Checkpoint::start_of(log),
            mark: None,
            realtime: BTreeMap::new(),
            batch_age_ms: None,
            realtime_age_ms: None,
        };
        if let Some(table) = layers.batch.at_its_newest(&self.tables).await? {
            if table.definition() != definition {
                return Ok(None);
            }
            reach.batch = table.checkpoint(log, partitions).await?;
            reach.mark = Some(table.replaced().unwrap_or_default().to_owned());
            reach.batch_age_ms = table.age_ms().await;
        }
        let mut realtime_at = Checkpoint::start_of(log);
        if let Some(table) = layers.realtime.at_its_newest(&self.tables).await? {
            if table.definition() != definition {
                return Ok(None);
            }
            realtime_at = table.checkpoint(log, partitions).await?;
            reach.realtime_age_ms = table.age_ms().await;
        }
        let furthest = |p: &TopicPartition| (p.clone(), reach.batch.next_of(p).max(realtime_at.next_of(p)));
        reach.realtime = partitions.iter().map(furthest).collect();
        Ok(Some(reach))
    }

    /// None if a layer moved on in between.
    async fn look_once(
        &self,
        state: &StreamState,
        layers: &mut Layers,
        log: LogId,
        partitions: &[TopicPartition],
        look: Look<'_>,
    ) -> Result<Option<Moment>, QueryError> {
        let Look { context, kind, scope } = look;
        let mut moment = Moment::empty();
        let mut batch_at = Checkpoint::start_of(log);
        let is_current = |table: &Table| table.definition() == Some(state.cleaning.definition());
        if let Some(table) = layers.batch.at_its_newest(&self.tables).await? {
            if scope != Scope::Realtime && !is_current(table) {
                return self.look_at_log_alone(state, partitions, look).await.map(Some);
            }
            batch_at = table.checkpoint(log, partitions).await?;
            moment.batch_age_ms = table.age_ms().await;
            if scope != Scope::Realtime {
                moment.parts.batch = Some(table.scan(context).await?);
            }
        }
        moment.batch_through = batch_at.next.clone();
        let Some(event_log) = self.log.as_ref().filter(|_| scope != Scope::Batch) else {
            return Ok(Some(moment));
        };
        let mut realtime_at = Checkpoint::start_of(log);
        // Until the speed layer makes it anew, a table of another definition holds nothing.
        if let Some(table) = layers.realtime.at_its_newest(&self.tables).await?.filter(|t| is_current(t)) {
            realtime_at = table.checkpoint(log, partitions).await?;
            let floors = table.floors(log, partitions).await?;
            // Its rows below a floor are gone because the batch table has them: look again.
            let has_gap = |p: &TopicPartition| {
                floors.next_of(p) > batch_at.next_of(p) && realtime_at.next_of(p) > batch_at.next_of(p)
            };
            if partitions.iter().any(has_gap) && !self.begins_there(event_log, &floors, &batch_at).await? {
                return Ok(None);
            }
            moment.realtime_age_ms = table.age_ms().await;
            moment.parts.realtime = Some((table.scan(context).await?, batch_at.clone()));
        }
        let mut tail = state.tail.lock().await;
        for partition in partitions {
            let mut from = batch_at.next_of(partition).max(realtime_at.next_of(partition));
            if from == Offset::ZERO {
                // No table has any of it; the log may have been trimmed since tables were lost.
                from = event_log.bounds(partition).await.map_err(anyhow::Error::from)?.start;
                moment.complete &= from == Offset::ZERO;
            }
            moment.realtime_through.insert(partition.clone(), from);
            let read = match tail.read(event_log.as_ref(), partition, from, kind.into()).await {
                Ok(read) => read,
                Err(e) if moved_on(&e) => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            moment.complete &= read.is_complete;
            moment.tail_through.insert(partition.clone(), read.through);
            moment.parts.tail.extend(read.batches);
        }
        Ok(Some(moment))
    }

    /// One relation whose batch table another definition made. The real-time table goes on where
    /// that one ends, so the log has to answer alone, as long as it reaches back to its start.
    async fn look_at_log_alone(
        &self,
        state: &StreamState,
        partitions: &[TopicPartition],
        look: Look<'_>,
    ) -> Result<Moment, QueryError> {
        let outdated = || {
            QueryError::Unavailable(format!(
                "the definition of stream {} is not the one that its batch table was made by: run `corkboard batch \
                 run`, which makes it anew",
                state.cleaning.stream().name
            ))
        };
        let Some(event_log) = self.log.as_ref().filter(|_| look.scope != Scope::Batch) else { return Err(outdated()) };
        let mut moment = Moment::empty();
        let mut tail = state.tail.lock().await;
        for partition in partitions {
            match tail.read(event_log.as_ref(), partition, Offset::ZERO, look.kind.into()).await {
                Ok(read) if read.is_complete => {
                    moment.realtime_through.insert(partition.clone(), Offset::ZERO);
                    moment.tail_through.insert(partition.clone(), read.through);
                    moment.parts.tail.extend(read.batches);
                }
                // Trimmed, or more than is read for one answer.
                Ok(_) => return Err(outdated()),
                Err(e) if moved_on(&e) => return Err(outdated()),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(moment)
    }

    /// Whether a real-time table that begins above the batch table leaves nothing out: there
    /// is no batch table of that partition, and the log held nothing earlier.
    async fn begins_there(&self, log: &Arc<dyn EventLog>, floors: &Checkpoint, batch_at: &Checkpoint) -> Result<bool> {
        for (partition, floor) in &floors.next {
            if batch_at.next_of(partition) < *floor {
                let bounds = log.bounds(partition).await?;
                if batch_at.next.contains_key(partition) || bounds.start < *floor {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn view(&self, name: &str) -> Result<ViewDef, QueryError> {
        let views = self.views();
        let known = || views.iter().map(|v| v.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = views.iter().find(|v| v.name == name).cloned();
        found.ok_or_else(|| QueryError::UnknownView { name: name.to_owned(), known: known() })
    }

    fn dedup_in_words(&self) -> BTreeMap<String, Dedup> {
        let streams = self.definitions.streams.iter().map(|c| c.stream());
        streams.map(|s| (s.name.clone(), self.dedup.unwrap_or(s.dedup))).collect()
    }
}

#[async_trait]
impl Query for Serving {
    fn views(&self) -> Vec<ViewDef> {
        let rejects = self.definitions.streams.iter().map(|c| rejects_view(&c.stream().rejected()));
        self.definitions.views.iter().cloned().chain(rejects).collect()
    }

    async fn query(&self, ask: &Ask) -> Result<Answer, QueryError> {
        self.answer(ask).await
    }
}

/// The rejects of a stream as a view that is never materialised.
fn rejects_view(table: &str) -> ViewDef {
    ViewDef {
        name: table.to_owned(),
        title: format!("Rejects: {table}"),
        question: "Which records could not be cleaned, and why?".to_owned(),
        chart: "table".to_owned(),
        sql: format!(
            "SELECT _topic, _partition, _offset, _nth, reason, raw FROM \"{table}\" \
             ORDER BY _offset DESC, _topic, _partition, _nth LIMIT {MAX_REJECTS}"
        ),
        materialised: false,
    }
}

impl Moment {
    fn empty() -> Self {
        Self {
            parts: Parts::default(),
            batch_through: BTreeMap::new(),
            realtime_through: BTreeMap::new(),
            tail_through: BTreeMap::new(),
            batch_age_ms: None,
            realtime_age_ms: None,
            complete: true,
        }
    }

    /// Adds to the boundary of an answer how far its parts reach.
    fn tell(&self, boundary: &mut Boundary) {
        boundary.batch_through.extend(self.batch_through.clone());
        boundary.realtime_through.extend(self.realtime_through.clone());
        boundary.tail_through.extend(self.tail_through.clone());
        boundary.batch_age_ms = boundary.batch_age_ms.max(self.batch_age_ms);
        boundary.realtime_age_ms = boundary.realtime_age_ms.max(self.realtime_age_ms);
        if boundary.scope != Scope::Batch {
            boundary.tail_age_ms = Some(0);
        }
        boundary.complete &= self.complete;
    }
}

/// One look at a relation: by which session, at what, how far.
#[derive(Clone, Copy)]
struct Look<'a> {
    context: &'a SessionContext,
    kind: Kind,
    scope: Scope,
}

/// What is asked of a stream's tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rows,
    Rejects,
}

impl From<Kind> for tail::Want {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Rows => Self::Rows,
            Kind::Rejects => Self::Rejects,
        }
    }
}

/// The partitions of a stream that a log has.
fn partitions_of<'a>(
    state: &'a StreamState,
    description: &'a LogDescription,
) -> impl Iterator<Item = TopicPartition> + 'a {
    description.partitions().filter(|p| state.cleaning.stream().takes(p.topic.as_str()))
}

/// How far the tables of a relation reach.
struct Reach {
    batch: Checkpoint,
    /// The commit that last replaced the batch table's rows; None if there is no table.
    mark: Option<String>,
    realtime: BTreeMap<TopicPartition, Offset>,
    batch_age_ms: Option<u64>,
    realtime_age_ms: Option<u64>,
}

impl Reach {
    fn tell(self, boundary: &mut Boundary) {
        boundary.batch_through.extend(self.batch.next);
        boundary.realtime_through.extend(self.realtime);
        boundary.batch_age_ms = boundary.batch_age_ms.max(self.batch_age_ms);
        boundary.realtime_age_ms = boundary.realtime_age_ms.max(self.realtime_age_ms);
        boundary.tail_age_ms = Some(0);
    }
}

impl Layers {
    fn of(name: &str) -> Self {
        let opened = |layer: &str| Opened { path: format!("{layer}/{name}"), table: None };
        Self { batch: opened("batch"), realtime: opened("realtime") }
    }
}

impl Opened {
    async fn at_its_newest(&mut self, tables: &Tables) -> Result<Option<&mut Table>> {
        match self.table.take() {
            Some(mut table) => {
                table.refresh().await?;
                self.table = Some(table);
            }
            None => self.table = tables.open(&self.path).await?,
        }
        Ok(self.table.as_mut())
    }
}

/// The log was trimmed under the reader: the layers below have moved on.
fn moved_on(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<LogError>(), Some(LogError::OutOfRange { .. }))
}

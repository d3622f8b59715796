//! The layers of one relation, and one look at them: adjacent ranges of every partition, in the
//! batch table, in the real-time table and in the tail of the log.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use datafusion::prelude::SessionContext;
use model::{
    Checkpoint, EventLog, LogDescription, LogError, LogId, Offset, QueryError, Scope, TopicPartition, query::Boundary,
};
use tokio::sync::Mutex;

use super::{Serving, StreamState, tail};
use crate::{
    relation::Parts,
    table::{Table, Tables},
};

/// Tables move while they are looked at; so many looks until three adjacent ranges are seen.
const MAX_LOOKS: usize = 8;

/// The two tables of one relation, kept open between questions.
pub(super) struct Layers {
    batch: Opened,
    realtime: Opened,
}

pub(super) struct Opened {
    path: String,
    table: Option<Table>,
}

/// One relation at one moment.
pub(super) struct Moment {
    pub(super) parts: Parts,
    pub(super) batch_through: BTreeMap<TopicPartition, Offset>,
    realtime_through: BTreeMap<TopicPartition, Offset>,
    pub(super) tail_through: BTreeMap<TopicPartition, Offset>,
    batch_age_ms: Option<u64>,
    realtime_age_ms: Option<u64>,
    complete: bool,
}

/// One look at a relation: by which session, at what, how far.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) context: &'a SessionContext,
    pub(super) kind: Kind,
    pub(super) scope: Scope,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rows,
    /// Without those that no table has.
    TableRows,
    Rejects,
}

impl Kind {
    fn of_tail(self) -> Option<tail::Want> {
        match self {
            Self::Rows => Some(tail::Want::Rows),
            Self::TableRows => None,
            Self::Rejects => Some(tail::Want::Rejects),
        }
    }
}

/// How far the tables of a relation reach.
pub(super) struct Reach {
    pub(super) batch: Checkpoint,
    /// The commit that last replaced the batch table's rows; None if none did.
    pub(super) mark: Option<String>,
    /// How far the further one of the two tables reaches.
    pub(super) realtime: BTreeMap<TopicPartition, Offset>,
    batch_age_ms: Option<u64>,
    realtime_age_ms: Option<u64>,
}

impl Reach {
    pub(super) fn tell(self, boundary: &mut Boundary) {
        boundary.batch_through.extend(self.batch.next);
        boundary.realtime_through.extend(self.realtime);
        boundary.batch_age_ms = boundary.batch_age_ms.max(self.batch_age_ms);
        boundary.realtime_age_ms = boundary.realtime_age_ms.max(self.realtime_age_ms);
        boundary.tail_age_ms = Some(0);
    }
}

impl Serving {
    /// Looks at the layers of one relation until their ranges are adjacent.
    pub(super) async fn look(
        &self,
        state: &StreamState,
        layers: &Mutex<Layers>,
        look: Look<'_>,
    ) -> Result<Moment, QueryError> {
        let mut layers = layers.lock().await;
        for _ in 0..MAX_LOOKS {
            // Asked with each look: topics may have been deleted since the last.
            let (log, partitions) = match &self.log {
                Some(log) => {
                    let description = log.describe().await.map_err(anyhow::Error::from)?;
                    (description.id, self.partitions(state, &description)?)
                }
                None => (LogId::NONE, Partitions::default()),
            };
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

    /// The partitions of a stream, which must have its topics for itself.
    pub(super) fn partitions(
        &self,
        state: &StreamState,
        description: &LogDescription,
    ) -> Result<Partitions, QueryError> {
        let partitions = Partitions::of(state, description);
        let is_own = self.definitions.refuse_shared(state.cleaning.stream(), &partitions.all);
        is_own.map_err(|e| QueryError::Unavailable(e.to_string()))?;
        Ok(partitions)
    }

    /// How far the tables reach now; None if another definition made one of them.
    pub(super) async fn reach(
        &self,
        state: &StreamState,
        layers: &mut Layers,
        log: LogId,
        partitions: &Partitions,
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
            reach.batch = table.checkpoint(log, &partitions.all).await?;
            reach.mark = table.replaced().map(str::to_owned);
            reach.batch_age_ms = table.age_ms().await;
        }
        let mut realtime_at = Checkpoint::start_of(log);
        if let Some(table) = layers.realtime.at_its_newest(&self.tables).await? {
            if table.definition() != definition {
                return Ok(None);
            }
            realtime_at = table.checkpoint(log, &partitions.all).await?;
            reach.realtime_age_ms = table.age_ms().await;
        }
        let furthest = |p: &TopicPartition| (p.clone(), reach.batch.next_of(p).max(realtime_at.next_of(p)));
        let is_anywhere =
            |(p, next): &(TopicPartition, Offset)| *next > Offset::ZERO || partitions.live.contains_key(p);
        reach.realtime = partitions.all.iter().map(furthest).filter(is_anywhere).collect();
        Ok(Some(reach))
    }

    /// None if a layer moved on in between.
    async fn look_once(
        &self,
        state: &StreamState,
        layers: &mut Layers,
        log: LogId,
        partitions: &Partitions,
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
            batch_at = table.checkpoint(log, &partitions.all).await?;
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
            realtime_at = table.checkpoint(log, &partitions.all).await?;
            let floors = table.floors(log, &partitions.all).await?;
            // Its rows below a floor are gone because the batch table has them: look again.
            let has_gap = |p: &TopicPartition| {
                floors.next_of(p) > batch_at.next_of(p) && realtime_at.next_of(p) > batch_at.next_of(p)
            };
            if partitions.all.iter().any(has_gap) {
                let newest = match layers.batch.at_its_newest(&self.tables).await? {
                    Some(batch) => batch.checkpoint(log, &partitions.all).await?,
                    None => Checkpoint::start_of(log),
                };
                let has_moved = newest.next != batch_at.next;
                if has_moved || !self.begins_there(event_log, &floors, &batch_at, partitions).await? {
                    return Ok(None);
                }
            }
            moment.realtime_age_ms = table.age_ms().await;
            // Where it has forgotten all there was, there is nothing to leave out.
            let mut below = batch_at.clone();
            below.next.retain(|p, _| floors.next_of(p) < realtime_at.next_of(p));
            moment.parts.realtime = Some((table.scan(context).await?, below));
        }
        let reached = |p: &TopicPartition| batch_at.next_of(p).max(realtime_at.next_of(p));
        // Of what was deleted there is what tables have.
        for partition in partitions.deleted() {
            let through = reached(partition);
            if through > Offset::ZERO {
                moment.realtime_through.insert(partition.clone(), through);
                moment.tail_through.insert(partition.clone(), through);
            }
        }
        let mut tail = state.tail.lock().await;
        tail.keep(|partition| partitions.live.contains_key(partition));
        for (partition, begin) in &partitions.live {
            let mut from = reached(partition).max(*begin);
            if from == *begin {
                // No table has any of it; the log may have been trimmed since tables were lost.
                from = match event_log.bounds(partition).await {
                    Ok(bounds) => bounds.start,
                    Err(e) if e.is_gone() => return Ok(None),
                    Err(e) => return Err(anyhow::Error::from(e).into()),
                };
                moment.complete &= from == *begin;
            }
            moment.realtime_through.insert(partition.clone(), from);
            let Some(want) = kind.of_tail() else { continue };
            let read = match tail.read(event_log.as_ref(), partition, from, want).await {
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
        partitions: &Partitions,
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
        let want = look.kind.of_tail().ok_or_else(outdated)?;
        if partitions.deleted().next().is_some() {
            return Err(outdated());
        }
        let mut tail = state.tail.lock().await;
        for partition in partitions.live.keys() {
            match tail.read(event_log.as_ref(), partition, Offset::ZERO, want).await {
                Ok(read) if read.is_complete => {
                    moment.realtime_through.insert(partition.clone(), Offset::ZERO);
                    moment.tail_through.insert(partition.clone(), read.through);
                    moment.parts.tail.extend(read.batches);
                }
                // Trimmed, deleted, or more than is read for one answer.
                Ok(_) => return Err(outdated()),
                Err(e) if moved_on(&e) => return Err(outdated()),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(moment)
    }

    /// Whether a real-time table that begins above the batch table leaves nothing out: there
    /// is no batch table of that partition, and the log held nothing earlier; or what is between
    /// them went with an earlier life of the topic.
    async fn begins_there(
        &self,
        log: &Arc<dyn EventLog>,
        floors: &Checkpoint,
        batch_at: &Checkpoint,
        partitions: &Partitions,
    ) -> Result<bool> {
        for (partition, floor) in &floors.next {
            if batch_at.next_of(partition) < *floor && partitions.begin(partition) < *floor {
                let is_earlier = match log.bounds(partition).await {
                    Ok(bounds) => bounds.start < *floor,
                    Err(e) if e.is_gone() => false,
                    Err(e) => return Err(e.into()),
                };
                if batch_at.next.contains_key(partition) || is_earlier {
                    return Ok(false);
                }
            }
        }
        Ok(true)
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

    /// How far the further one of the two tables reaches.
    pub(super) fn tables_through(&self) -> &BTreeMap<TopicPartition, Offset> {
        &self.realtime_through
    }

    /// Adds to the boundary of an answer how far its parts reach.
    pub(super) fn tell(&self, boundary: &mut Boundary) {
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

/// The partitions of a stream.
#[derive(Default)]
pub(super) struct Partitions {
    /// Those that the log has, and the first offsets of their present lives.
    pub(super) live: BTreeMap<TopicPartition, Offset>,
    /// Those of deleted topics, whose rows stay, and the offsets where they ended.
    deleted: BTreeMap<TopicPartition, Offset>,
    all: Vec<TopicPartition>,
}

impl Partitions {
    pub(super) fn of(state: &StreamState, description: &LogDescription) -> Self {
        let takes = |p: &TopicPartition| state.cleaning.stream().takes(p.topic.as_str());
        let with_begin = |p: TopicPartition| (p.clone(), description.begin(&p));
        Self {
            live: description.partitions().filter(takes).map(with_begin).collect(),
            deleted: description.deleted().filter(takes).map(with_begin).collect(),
            all: description.partitions().chain(description.deleted()).filter(takes).collect(),
        }
    }

    pub(super) fn deleted(&self) -> impl Iterator<Item = &TopicPartition> {
        self.deleted.keys()
    }

    /// Below it there is nothing in the log, now or ever again.
    fn begin(&self, partition: &TopicPartition) -> Offset {
        self.live.get(partition).or_else(|| self.deleted.get(partition)).copied().unwrap_or_default()
    }
}

impl Layers {
    pub(super) fn of(name: &str) -> Self {
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

/// The log was trimmed under the reader, and the layers below have moved on; or a topic was deleted.
fn moved_on(error: &anyhow::Error) -> bool {
    error.downcast_ref::<LogError>().is_some_and(|e| e.is_gone() || matches!(e, LogError::OutOfRange { .. }))
}

//! Answers of views that stand: their groups are brought to the end of the log with each question.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use datafusion::arrow::array::RecordBatch;
use model::{
    Answer, Dedup, LogDescription, QueryError, Scope, ViewDef,
    config::ServingConfig,
    query::{Ask, Boundary},
};

use super::{
    Serving, StreamState,
    layers::{Kind, Look, Partitions},
};
use crate::{
    fold::Through,
    mergeable::{Marks, Mergeable, Saved},
    relation::Relation,
    session::Mode,
    standing::{Origin, Standing, StreamRows},
};

/// Cleaned bytes of the log that groups take up at a time.
const MAX_STEP_BYTES: usize = 32 << 20;

impl Serving {
    /// The answer of a view whose groups follow the log; None if they do not.
    pub(super) async fn answer_from_groups(&self, view: &ViewDef, ask: &Ask) -> Result<Option<Answer>, QueryError> {
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
            let ServingConfig { memory_bytes, max_recent_bytes, .. } = self.config;
            let (resources, spill) = (self.resources.clone(), self.spill.clone());
            Standing::of(mergeable.clone(), views, resources, spill, memory_bytes, max_recent_bytes)
        });
        let description = log.describe().await?;
        let mut boundary = Boundary { scope: Scope::Merged, complete: true, ..Boundary::default() };
        let mut marks = Marks::new();
        let mut tables_through = Through::new();
        let mut is_over_unseen = false;
        let states: Vec<&StreamState> =
            self.streams.iter().filter(|s| mergeable.streams.contains_key(&s.cleaning.stream().name)).collect();
        for state in &states {
            let mut layers = state.rows.lock().await;
            let partitions = self.partitions(state, &description)?;
            let Some(reach) = self.reach(state, &mut layers, description.id, &partitions).await? else {
                return Ok(None);
            };
            let (tables, batch) = (&reach.realtime, &reach.batch.next);
            is_over_unseen |= standing.has_missed(&partitions.live, partitions.deleted(), tables, batch);
            let name = &state.cleaning.stream().name;
            if let Some(mark) = &reach.mark {
                marks.insert(name.clone(), mark.clone());
            }
            tables_through.extend(reach.realtime.clone());
            if mergeable.streams_of(&view.name).any(|s| s == name) {
                reach.tell(&mut boundary);
            }
        }
        let must_begin = is_over_unseen || !standing.is_up(description.id, &marks);
        if must_begin && !self.begin(standing, &states, &description, marks).await? {
            return Ok(None);
        }
        // What comes after the question is for the next one: on a busy machine this one would not end.
        let mut ends = Vec::new();
        for state in &states {
            let mut of_stream = Through::new();
            for partition in Partitions::of(state, &description).live.into_keys() {
                let end = log.bounds(&partition).await?.end;
                of_stream.insert(partition, end);
            }
            ends.push(of_stream);
        }
        loop {
            let mut fresh = BTreeMap::new();
            let mut through = BTreeMap::new();
            let mut n_bytes = 0;
            for (state, ends) in states.iter().zip(&ends) {
                let tail = state.tail.lock().await;
                let mut rows = Vec::new();
                for (partition, end) in ends {
                    let mut next = standing.next_of(partition);
                    while n_bytes < MAX_STEP_BYTES
                        && let Some((batch, after)) = tail.rows_between(log.as_ref(), partition, next, *end).await?
                    {
                        n_bytes += batch.get_array_memory_size();
                        rows.push(batch);
                        next = after;
                    }
                    through.insert(partition.clone(), next);
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
        if standing.may_rely_on(&tables_through) {
            self.rely_on_tables(standing, &states).await?;
        }
        let partitions = boundary.realtime_through.keys().map(|p| (p.clone(), standing.next_of(p)));
        boundary.tail_through = partitions.collect();
        let groups = standing.groups(view).await?;
        Ok(groups.map(|groups| (mergeable.clone(), groups, boundary)))
    }

    pub(super) async fn mergeable(&self) -> Result<&Arc<Mergeable>> {
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
            let live = Partitions::of(state, description).live;
            let batch_through = moment.batch_through.clone();
            let batch = moment.parts.batch.clone();
            let tables_through = moment.tables_through().clone();
            let tables = relation.unite(&context, moment.parts.of_tables()).await?.into_view();
            let rows = relation.unite(&context, moment.parts).await?;
            let reached = saved.through.iter().filter(|(p, _)| state.cleaning.stream().takes(p.topic.as_str()));
            let before = reached.map(|(partition, next)| (partition.clone(), *next)).collect();
            let stream = StreamRows { rows, batch, before, through, live, batch_through, tables, tables_through };
            streams.insert(relation.name, stream);
        }
        standing.begin(&context, origin, &saved, streams, None).await
    }

    /// Lets the views' groups rely on the tables for what these have.
    async fn rely_on_tables(&self, standing: &mut Standing, states: &[&StreamState]) -> Result<()> {
        let context = self.resources.session(Mode::InMemory);
        let (mut tables, mut tables_through) = (BTreeMap::new(), Through::new());
        for state in states {
            let look = Look { context: &context, kind: Kind::TableRows, scope: Scope::Merged };
            let moment = self.look(state, &state.rows, look).await?;
            tables_through.extend(moment.tables_through().clone());
            let relation = Relation::rows(&state.cleaning, Dedup::Off);
            let rows = relation.unite(&context, moment.parts).await?;
            tables.insert(relation.name, rows.into_view());
        }
        standing.rely_on(&tables, &tables_through)
    }
}

//! The serving layer: one answer out of three adjacent ranges of every partition (I6): the
//! batch table below its checkpoint `w`, the real-time table in `[w, c)`, and the tail of the
//! log in `[c, end)`, cleaned on the spot by the same definition.

mod following;
mod layers;
mod tail;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use async_trait::async_trait;
use datafusion::arrow::{array::RecordBatch, datatypes::SchemaRef};
use model::{
    Answer, Dedup, EventLog, Query, QueryError, Scope, ViewDef,
    config::ServingConfig,
    query::{Ask, Boundary},
};
use tokio::sync::{Mutex, OnceCell, Semaphore};

use self::{
    layers::{Kind, Layers, Look},
    tail::Tail,
};
use crate::{
    batch::manifest,
    cleaning::Cleaning,
    definitions::Definitions,
    mergeable::Mergeable,
    relation::{self, Relation},
    rows,
    session::{Mode, Resources, Scratch, is_out_of_memory},
    standing::Standing,
    table::Tables,
};

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
        let does_not_fit = |answer: &Result<_, _>| matches!(answer, Err(QueryError::Failed(e)) if is_out_of_memory(e));
        let mut answer = self.evaluate(view, ask, Mode::InMemory).await;
        if !does_not_fit(&answer) {
            return answer;
        }
        for mode in self.mergeable().await?.modes_for_little_memory(&view.name) {
            tracing::info!(view = view.name, "asking again with less at a time: it did not fit in memory");
            answer = self.evaluate(view, ask, *mode).await;
            if !does_not_fit(&answer) {
                break;
            }
        }
        answer
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
        let (schema, batches) = if mode.is_by_shares() {
            let split = self.mergeable().await?.split(&context, view).await?;
            let groups = split.groups_by_shares(&context, mode).await?;
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

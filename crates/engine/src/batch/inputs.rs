//! What the views of a run are computed from: the batch tables' rows that count, found once
//! per table and not once per view, with the columns that the views name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::Result;
use datafusion::prelude::SessionContext;
use model::ViewDef;

use super::Batch;
use crate::{
    counted::Held,
    relation::{self, Parts, Relation},
    session::{Mode, Resources, Scratch, is_out_of_memory},
};

pub struct Inputs<'a> {
    batch: &'a Batch,
    resources: Arc<Resources>,
    scratch: Scratch,
    columns: BTreeSet<String>,
    /// The rows that count, by table.
    held: BTreeMap<String, Held>,
}

impl<'a> Inputs<'a> {
    pub async fn prepare(batch: &'a Batch, resources: Arc<Resources>) -> Result<Self> {
        let scratch = Scratch::within(&batch.spill, batch.config.memory_bytes)?;
        let columns = batch.definitions.columns_of(&batch.definitions.views);
        let mut inputs = Self { batch, resources, scratch, columns, held: BTreeMap::new() };
        let context = inputs.resources.session(Mode::InMemory);
        let mut wanted = BTreeSet::new();
        for view in &batch.definitions.views {
            wanted.extend(relation::tables_of(&context, &view.sql)?);
        }
        for relation in inputs.relations().iter().filter(|r| wanted.contains(&r.name)) {
            let held = match inputs.hold(relation, Mode::InMemory).await {
                Err(e) if is_out_of_memory(&e) => inputs.hold(relation, Mode::Spilling).await,
                done => done,
            };
            inputs.held.insert(relation.name.clone(), held?);
        }
        Ok(inputs)
    }

    /// A session that has the tables of a view.
    pub async fn session(&self, view: &ViewDef, mode: Mode) -> Result<SessionContext> {
        let context = self.resources.session(mode);
        let wanted = relation::tables_of(&context, &view.sql)?;
        for (name, held) in self.held.iter().filter(|(name, _)| wanted.contains(*name)) {
            held.register(&context, name).await?;
        }
        Ok(context)
    }

    fn relations(&self) -> Vec<Relation<'a>> {
        let of_stream = |cleaning: &'a Arc<crate::cleaning::Cleaning>| {
            let dedup = self.batch.dedup.unwrap_or(cleaning.stream().dedup);
            [Relation::rows(cleaning, dedup), Relation::rejects(cleaning)]
        };
        self.batch.definitions.streams.iter().flat_map(of_stream).collect()
    }

    async fn hold(&self, relation: &Relation<'_>, mode: Mode) -> Result<Held> {
        let context = self.resources.session(mode);
        let parts = self.parts(&context, relation).await?;
        let all = relation.unite(&context, parts).await?;
        relation.hold(&context, &all, &self.columns, &self.scratch).await
    }

    async fn parts(&self, context: &SessionContext, relation: &Relation<'_>) -> Result<Parts> {
        let batch = match self.batch.tables.open(&format!("batch/{}", relation.name)).await? {
            Some(table) => Some(table.scan(context).await?),
            None => None,
        };
        Ok(Parts { batch, ..Parts::default() })
    }
}

//! What the views of a run are computed from: the batch tables' rows that count, found once
//! per table and not once per view, with the columns that the views name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result};
use datafusion::prelude::SessionContext;
use model::ViewDef;
use tokio::runtime::Handle;

use super::Batch;
use crate::{
    counted::Held,
    relation::{self, Parts, Relation},
    session::{Mode, Resources, Scratch, is_out_of_memory},
};

pub struct Inputs<'a> {
    batch: &'a Batch,
    resources: Arc<Resources>,
    scratch: Arc<Scratch>,
    columns: BTreeSet<String>,
    /// The rows that count, by table.
    held: BTreeMap<String, Held>,
}

impl<'a> Inputs<'a> {
    pub async fn prepare(batch: &'a Batch, resources: Arc<Resources>) -> Result<Self> {
        let scratch = Arc::new(Scratch::within(&batch.spill, batch.config.memory_bytes)?);
        let columns = batch.definitions.columns_of(&batch.definitions.views);
        let mut inputs = Self { batch, resources, scratch, columns, held: BTreeMap::new() };
        let context = inputs.resources.session(Mode::InMemory);
        let mut wanted = BTreeSet::new();
        for view in &batch.definitions.views {
            wanted.extend(relation::tables_of(&context, &view.sql)?);
        }
        let relations = inputs.relations();
        let mut holding = Vec::new();
        for relation in relations.iter().filter(|r| wanted.contains(&r.name)) {
            let inputs = &inputs;
            holding.push(async move {
                let held = match inputs.hold(relation, Mode::InMemory).await {
                    Err(e) if is_out_of_memory(&e) => inputs.hold(relation, Mode::Spilling).await,
                    held => held,
                };
                Ok::<_, anyhow::Error>((relation.name.clone(), held?))
            });
        }
        let held = futures::future::try_join_all(holding).await?;
        inputs.held.extend(held);
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

    /// On a thread of its own.
    async fn hold(&self, relation: &Relation<'_>, mode: Mode) -> Result<Held> {
        let context = self.resources.session(mode);
        let parts = self.parts(&context, relation).await?;
        let all = relation.unite(&context, parts).await?;
        let hold = relation.hold(&context, all, &self.columns, self.scratch.clone());
        tokio::task::spawn_blocking(|| Handle::current().block_on(hold)).await.context("ended")?
    }

    async fn parts(&self, context: &SessionContext, relation: &Relation<'_>) -> Result<Parts> {
        let batch = match self.batch.tables.open(&format!("batch/{}", relation.name)).await? {
            Some(table) => Some(table.scan(context).await?),
            None => None,
        };
        Ok(Parts { batch, ..Parts::default() })
    }
}

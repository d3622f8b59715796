//! The views that are kept up to date: which they are, what each stream contributes to them,
//! what an epoch changes, and their groups as a batch run leaves them.
//!
//! The groups of all views lie in one Delta table, `state`, whose commits carry the offsets
//! that they cover, as all tables' do (I3).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result};
use datafusion::{
    arrow::{
        array::{AsArray, BinaryArray, RecordBatch, StringArray},
        compute,
        datatypes::{DataType, Field, Schema, SchemaRef},
        ipc::{reader::StreamReader, writer::StreamWriter},
    },
    catalog::MemTable,
    prelude::SessionContext,
};
use model::{Dedup, Offset, OffsetRange, TopicPartition, ViewDef};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    decode::POSITION,
    definitions::{self, Definitions},
    fold::{Epoch, Past, StreamFold},
    relation::{self, Relation},
    session::{Mode, Resources, quoted},
    split::Split,
    table::{Change, Files, TableDef, Tables},
};

/// The table that they lie in.
pub const PATH: &str = "state";
/// Raised when groups are kept or merged in another way.
const FORMAT: &str = "groups-1";

/// The views that can be merged, and their streams.
pub struct Mergeable {
    views: BTreeMap<String, BTreeSet<String>>,
    pub streams: BTreeMap<String, Shape>,
}

/// What views need of a stream.
pub struct Shape {
    /// The columns that name a row; none means that every row counts.
    pub identity: Vec<String>,
    /// The column that it is joined by, if any view joins it.
    pub join: Option<String>,
    /// The columns that views name.
    pub schema: SchemaRef,
    /// What decides its rows and which of them count.
    definition: String,
}

/// The groups of views, and how far they reach: also in partitions that are in no log any more.
pub struct Saved {
    log: Uuid,
    pub through: BTreeMap<TopicPartition, Offset>,
    views: BTreeMap<String, (String, Vec<RecordBatch>)>,
}

/// What stands beside the groups of each view.
#[derive(Serialize, Deserialize)]
struct Reach {
    log: Uuid,
    through: BTreeMap<TopicPartition, Offset>,
}

/// Which commit last replaced the rows of each stream's batch table: groups belong to it.
pub type Marks = BTreeMap<String, String>;

impl Mergeable {
    pub async fn of(definitions: &Definitions, dedup: Option<Dedup>) -> Result<Self> {
        let context = SessionContext::new();
        let mut streams = BTreeMap::new();
        for cleaning in &definitions.streams {
            let stream = cleaning.stream();
            let dedup = dedup.unwrap_or(stream.dedup);
            let relation = Relation::rows(cleaning, dedup);
            let none = MemTable::try_new(relation.schema.clone(), vec![vec![]])?;
            context.register_table(quoted(&relation.name), Arc::new(none))?;
            let rejected = Relation::rejects(cleaning);
            let none = MemTable::try_new(rejected.schema.clone(), vec![vec![]])?;
            context.register_table(quoted(&rejected.name), Arc::new(none))?;
            let shape = Shape {
                identity: relation.identity.iter().map(|c| (*c).to_owned()).collect(),
                join: None,
                schema: relation.schema.clone(),
                definition: format!("{} {}", cleaning.definition(), json!(dedup)),
            };
            streams.insert(relation.name, shape);
        }
        let names: BTreeSet<String> = streams.keys().cloned().collect();
        let mut views: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut columns = BTreeSet::new();
        for view in &definitions.views {
            let frame = relation::plan(&context, &view.sql).await?;
            let Some(split) = Split::of(frame.logical_plan(), &names)? else { continue };
            let joins_as_others_do = split.streams.iter().all(|(name, join)| {
                let known = streams.get(name).and_then(|s| s.join.as_ref());
                join.is_none() || known.is_none() || known == join.as_ref()
            });
            if !joins_as_others_do || !has_one_type(&split.streams, &streams) {
                continue;
            }
            for (name, join) in &split.streams {
                if let (Some(stream), Some(join)) = (streams.get_mut(name), join) {
                    stream.join = Some(join.clone());
                }
            }
            columns.extend(definitions.columns_of([view]));
            views.insert(view.name.clone(), split.streams.into_keys().collect());
        }
        let wanted: BTreeSet<&String> = views.values().flatten().collect();
        streams.retain(|name, _| wanted.contains(name));
        for stream in streams.values_mut() {
            let fields = stream.schema.fields().iter();
            let own = fields.filter(|f| columns.contains(f.name()) || stream.join.as_ref() == Some(f.name())).cloned();
            let mut own: Vec<_> = own.collect();
            if own.is_empty() {
                own.extend(stream.schema.fields().first().cloned());
            }
            stream.schema = Arc::new(Schema::new(own));
        }
        Ok(Self { views, streams })
    }

    pub fn has(&self, view: &str) -> bool {
        self.views.contains_key(view)
    }

    /// How a view is evaluated when it did not fit in memory, one after the other: one taken apart computes
    /// its groups share by share, others join by sorting.
    pub fn modes_for_little_memory(&self, view: &str) -> &'static [Mode] {
        if self.has(view) { &[Mode::ByShares, Mode::Spilling] } else { &[Mode::SortingJoins] }
    }

    pub fn streams_of(&self, view: &str) -> impl Iterator<Item = &String> {
        self.views.get(view).into_iter().flatten()
    }

    /// What an epoch adds to a view's groups.
    pub async fn changes(
        &self,
        resources: &Resources,
        mode: Mode,
        view: &ViewDef,
        epoch: &Epoch,
    ) -> Result<Vec<RecordBatch>> {
        let rows = |of: &BTreeMap<String, Vec<RecordBatch>>, name: &str| of.get(name).cloned().unwrap_or_default();
        if self.streams_of(&view.name).all(|name| rows(&epoch.new, name).is_empty()) {
            return Ok(vec![]);
        }
        let with = |name: &str| [rows(&epoch.old, name), rows(&epoch.new, name)].concat();
        let context = resources.session(mode);
        self.register(&context, &view.name, with)?;
        let mut changes = self.split(&context, view).await?.groups(&context).await?;
        // Without partners in all of its streams nothing was counted before.
        if self.streams_of(&view.name).all(|name| !rows(&epoch.old, name).is_empty()) {
            let context = resources.session(mode);
            self.register(&context, &view.name, |name| rows(&epoch.old, name))?;
            let split = self.split(&context, view).await?;
            for groups in split.groups(&context).await? {
                changes.extend(split.negative(&groups)?);
            }
        }
        changes.retain(|batch| batch.num_rows() > 0);
        Ok(changes)
    }

    /// One row per group. The session is a new one, here and for answers.
    pub async fn merge(
        &self,
        context: &SessionContext,
        view: &ViewDef,
        groups: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>> {
        self.register(context, &view.name, |_| vec![])?;
        self.split(context, view).await?.merge(context, groups).await
    }

    /// A view's answer out of its groups.
    pub async fn answer(
        &self,
        context: &SessionContext,
        view: &ViewDef,
        groups: Vec<RecordBatch>,
    ) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        self.register(context, &view.name, |_| vec![])?;
        self.split(context, view).await?.answer(context, groups).await
    }

    /// The view taken apart, over the tables that a session has.
    pub async fn split(&self, context: &SessionContext, view: &ViewDef) -> Result<Split> {
        let frame = relation::plan(context, &view.sql).await?;
        let names = self.streams.keys().cloned().collect();
        let split = Split::of(frame.logical_plan(), &names)?;
        split.with_context(|| format!("view {} is not what it was", view.name))
    }

    /// Makes rows of a view's streams known to a session.
    fn register(&self, context: &SessionContext, view: &str, rows: impl Fn(&str) -> Vec<RecordBatch>) -> Result<()> {
        for name in self.streams_of(view) {
            let table = MemTable::try_new(self.streams[name].schema.clone(), vec![rows(name)])?;
            context.register_table(quoted(name), Arc::new(table))?;
        }
        Ok(())
    }

    /// A hash of all that decides a view's groups but the rows themselves.
    fn definition(&self, view: &ViewDef, marks: &Marks) -> String {
        let mut hash = Sha256::new();
        hash.update(FORMAT);
        hash.update(&view.sql);
        for name in self.streams_of(&view.name) {
            let shape = &self.streams[name];
            hash.update(json!([name, shape.definition, shape.identity, shape.join, marks.get(name)]).to_string());
        }
        definitions::in_hex(hash)
    }
}

/// Whether all streams of a view have the same type where they are joined.
fn has_one_type(joins: &BTreeMap<String, Option<String>>, streams: &BTreeMap<String, Shape>) -> bool {
    let kind = |(name, join): (&String, &Option<String>)| {
        Some(streams.get(name)?.schema.field_with_name(join.as_ref()?).ok()?.data_type().clone())
    };
    joins.iter().filter_map(kind).collect::<BTreeSet<DataType>>().len() <= 1
}

impl StreamFold {
    pub fn of(name: &str, shape: &Shape, past: Past) -> Self {
        Self {
            name: name.to_owned(),
            identity: shape.identity.clone(),
            join: shape.join.clone(),
            schema: shape.schema.clone(),
            columns: shape.columns(),
            past,
        }
    }
}

impl Shape {
    /// The columns that a fold reads: those that views name, those that name a row, its place.
    pub fn columns(&self) -> Vec<String> {
        let own = self.schema.fields().iter().map(|f| f.name().clone());
        let all = own.chain(self.identity.iter().cloned()).chain(POSITION.iter().map(|(name, _)| (*name).to_owned()));
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl Saved {
    /// No groups yet, of views that will reach so far.
    pub fn at(log: Uuid, through: BTreeMap<TopicPartition, Offset>) -> Self {
        Self { log, through, views: BTreeMap::new() }
    }

    /// The groups of a view, if they were made by its definition.
    pub fn groups(&self, mergeable: &Mergeable, view: &ViewDef, marks: &Marks) -> Option<&Vec<RecordBatch>> {
        let (definition, groups) = self.views.get(&view.name)?;
        (*definition == mergeable.definition(view, marks)).then_some(groups)
    }

    pub fn put(&mut self, mergeable: &Mergeable, view: &ViewDef, marks: &Marks, groups: Vec<RecordBatch>) {
        self.views.insert(view.name.clone(), (mergeable.definition(view, marks), groups));
    }

    /// What the last batch run over a log left.
    pub async fn load(context: &SessionContext, tables: &Tables, log: Uuid) -> Result<Option<Self>> {
        let Some(table) = tables.open(PATH).await? else { return Ok(None) };
        if table.definition() != Some(FORMAT) {
            return Ok(None);
        }
        let rows = context.read_table(table.scan(context).await?)?.collect().await?;
        let mut saved: Option<Self> = None;
        for batch in &rows {
            let column = |name: &str, kind: &DataType| {
                let column = batch.column_by_name(name).with_context(|| format!("the state has no column {name}"))?;
                Ok::<_, anyhow::Error>(compute::cast(column, kind)?)
            };
            let (views, definitions) = (column("view", &DataType::Utf8)?, column("definition", &DataType::Utf8)?);
            let (reach, groups) = (column("reach", &DataType::Utf8)?, column("groups", &DataType::Binary)?);
            for i in 0..batch.num_rows() {
                let reach: Reach = serde_json::from_str(reach.as_string::<i32>().value(i)).context("the state")?;
                if reach.log != log {
                    return Ok(None);
                }
                let saved = saved.get_or_insert_with(|| Self::at(log, reach.through));
                let reader = StreamReader::try_new(groups.as_binary::<i32>().value(i), None)?;
                let read = reader.collect::<Result<Vec<_>, _>>()?;
                let definition = definitions.as_string::<i32>().value(i).to_owned();
                saved.views.insert(views.as_string::<i32>().value(i).to_owned(), (definition, read));
            }
        }
        Ok(saved)
    }

    pub async fn save(&self, tables: &Tables) -> Result<()> {
        if self.views.is_empty() {
            return Ok(());
        }
        let text = |name: &str, kind| Field::new(name, kind, false);
        let schema = Arc::new(Schema::new(vec![
            text("view", DataType::Utf8),
            text("definition", DataType::Utf8),
            text("reach", DataType::Utf8),
            text("groups", DataType::Binary),
        ]));
        let mut bytes = Vec::new();
        for (view, (_, groups)) in &self.views {
            let first = groups.first().with_context(|| format!("view {view} has no groups"))?;
            let mut writer = StreamWriter::try_new(Vec::new(), first.schema_ref())?;
            for batch in groups {
                writer.write(batch)?;
            }
            bytes.push(writer.into_inner()?);
        }
        let reach = serde_json::to_string(&Reach { log: self.log, through: self.through.clone() })?;
        let rows = RecordBatch::try_new(
            schema.clone(),
            vec![
                Arc::new(StringArray::from_iter_values(self.views.keys())),
                Arc::new(StringArray::from_iter_values(self.views.values().map(|(definition, _)| definition))),
                Arc::new(StringArray::from_iter_values(self.views.keys().map(|_| &reach))),
                Arc::new(BinaryArray::from_iter_values(bytes)),
            ],
        )?;
        let def = TableDef { path: PATH.to_owned(), schema, definition: FORMAT.to_owned(), log: self.log };
        let mut table = tables.open_or_create(&def).await?;
        let mut writer = table.writer(&def.schema, Files::ONE);
        writer.write(&rows).await?;
        let pending = writer.finish().await?;
        let covered = |(partition, end): (&TopicPartition, &Offset)| OffsetRange {
            partition: partition.clone(),
            start: Offset::ZERO,
            end: *end,
        };
        let ranges: Vec<OffsetRange> = self.through.iter().map(covered).collect();
        table.commit(&def, &ranges, pending, Change::Replace, &json!({"layer": "batch"})).await?;
        Ok(())
    }
}

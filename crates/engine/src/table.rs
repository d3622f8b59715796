//! One Delta table whose commits carry the offsets they cover (I3).
//!
//! Offsets are `txn` actions, one per log and partition, whose version is the next offset to
//! take in. delta-rs writes such actions but does not check them, so they are re-read here
//! before every commit and after every commit whose outcome is unknown. Two writers at once
//! are told apart by Delta's conflict check, which fails the one whose `txn` came second.

mod writer;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use datafusion::{
    arrow::datatypes::{Schema, SchemaRef},
    catalog::TableProvider,
    prelude::SessionContext,
};
use deltalake_core::{
    DeltaTable, DeltaTableBuilder, DeltaTableError,
    kernel::{
        Action, StructType, Transaction, Version,
        engine::arrow_conversion::{TryFromArrow, TryIntoArrow},
        transaction::{CommitBuilder, CommitProperties, TransactionError},
    },
    operations::create::CreateBuilder,
    protocol::{DeltaOperation, SaveMode},
};
use model::{Checkpoint, LogId, Offset, OffsetRange, TopicPartition, config::MaintainConfig};
use object_store::{ObjectStore, prefix::PrefixStore};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

pub use self::writer::{Files, Pending, TableWriter, stored_schema};
use crate::{relation::below, store::Store};

/// The table property that names the definition its rows were made by.
const DEFINITION: &str = "corkboard.definition";
/// The table property that names the log its rows come from.
const LOG: &str = "corkboard.log";
/// The table property that names the commit that last replaced the rows.
const REPLACED: &str = "corkboard.replaced";
/// The pause before the second try of a commit, doubled with each further one.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Tries of one commit against other writers before giving up until the next run.
const MAX_TRIES: usize = 10;

/// Where tables are kept.
#[derive(Clone, Debug)]
pub struct Tables {
    /// A store whose root is the root of the URL, as Delta wants it.
    root: Arc<dyn ObjectStore>,
    url: Url,
    config: MaintainConfig,
}

/// What a table is made of; it is created on the first commit.
#[derive(Clone, Debug)]
pub struct TableDef {
    /// Below the tables folder: `batch/pin`.
    pub path: String,
    pub schema: SchemaRef,
    /// The hash of what decides its rows.
    pub definition: String,
    pub log: Uuid,
}

/// How a commit changes the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The pending files come to what is there.
    Append,
    /// The pending files replace what is there, and the definition with it.
    Replace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    Done,
    /// Every range lies behind the checkpoint: an earlier commit has it.
    AlreadyThere,
}

/// Why a commit does not fit what the table says.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("table {table}: {} [{}, {}) leaves a gap or overlaps: the table goes on at {next}", range.partition, range.start, range.end)]
    NotAdjacent { table: String, range: OffsetRange, next: Offset },
    #[error("table {table}: another writer is ahead; the next run starts from its checkpoint")]
    Overtaken { table: String },
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl Tables {
    pub fn new(store: &Store, config: &MaintainConfig) -> Result<Self> {
        let root: Arc<dyn ObjectStore> = match store.folder() {
            Some(_) => crate::store::open("/")?.objects(),
            None => store.objects(),
        };
        Ok(Self { root, url: store.url().clone(), config: config.clone() })
    }

    /// The tables folder, for people.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Objects below `path`, for what is kept beside tables.
    pub fn objects(&self, path: &str) -> Result<Arc<dyn ObjectStore>> {
        let url = self.url.join(path)?;
        let prefix = object_store::path::Path::from_url_path(url.path())?;
        Ok(Arc::new(PrefixStore::new(self.root.clone(), prefix)))
    }

    /// Opens a table, or gives None where there is none.
    pub async fn open(&self, path: &str) -> Result<Option<Table>> {
        let delta = self.builder(path)?.build()?;
        let exists = delta.verify_deltatable_existence().await.with_context(|| self.trouble(path))?;
        if !exists {
            return Ok(None);
        }
        let mut table = Table { path: path.to_owned(), delta, offsets: BTreeMap::new(), read_at: None };
        table.refresh().await?;
        Ok(Some(table))
    }

    async fn create(&self, def: &TableDef) -> Result<Table> {
        let fields: StructType = StructType::try_from_arrow(stored_schema(&def.schema).as_ref())?;
        let interval = |ms: u64| format!("interval {} seconds", (ms / 1000).max(1));
        let properties = [
            (DEFINITION, def.definition.clone()),
            (LOG, def.log.to_string()),
            ("delta.checkpointInterval", self.config.checkpoint_commits.max(1).to_string()),
            ("delta.logRetentionDuration", interval(self.config.commit_retention_ms)),
            ("delta.deletedFileRetentionDuration", interval(self.config.vacuum_retention_ms)),
        ];
        let properties = properties.into_iter().map(|(k, v)| (k.to_owned(), Some(v)));
        // Every table may come to hold a timestamp without a zone when its definition changes;
        // the protocol is not changed later.
        let protocol = serde_json::from_value(serde_json::json!({
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": ["timestampNtz"],
            "writerFeatures": ["timestampNtz"],
        }))?;
        let created = CreateBuilder::new()
            .with_actions([Action::Protocol(protocol)])
            .with_log_store(self.builder(&def.path)?.build_storage()?)
            .with_table_name(def.path.replace('/', "_"))
            .with_columns(fields.fields().cloned())
            .with_raise_if_key_not_exists(false)
            .with_configuration(properties)
            .await;
        match created {
            Ok(delta) => Ok(Table { path: def.path.clone(), delta, offsets: BTreeMap::new(), read_at: None }),
            // Someone else was first; what counts is that it is there.
            Err(e) => self.open(&def.path).await?.ok_or(e).with_context(|| self.trouble(&def.path)),
        }
    }

    /// Opens the table of a definition, creating it empty if it is not there. A table that
    /// another log feeds is refused.
    pub async fn open_or_create(&self, def: &TableDef) -> Result<Table> {
        let table = match self.open(&def.path).await? {
            Some(table) => table,
            None => self.create(def).await?,
        };
        let fed_by = table.property(LOG);
        ensure!(
            fed_by == Some(def.log.to_string().as_str()),
            "table {}{} is fed by the log {}, not by {}: restore the log that belongs to it, or move the table away and run again",
            self.url,
            def.path,
            fed_by.unwrap_or("of an unknown program"),
            def.log
        );
        Ok(table)
    }

    fn builder(&self, path: &str) -> Result<DeltaTableBuilder> {
        let url = self.url.join(&format!("{path}/"))?;
        Ok(DeltaTableBuilder::from_url(url.clone())?.with_storage_backend(self.root.clone(), url))
    }

    fn trouble(&self, path: &str) -> String {
        format!(
            "table {}{path} cannot be read: restore it, or move it away and run `corkboard batch run`, which makes it anew from the landing objects",
            self.url
        )
    }
}

pub struct Table {
    path: String,
    delta: DeltaTable,
    /// Versions of `txn` actions by app id, as of `read_at`.
    offsets: BTreeMap<String, Option<i64>>,
    read_at: Option<Version>,
}

impl Table {
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn version(&self) -> u64 {
        self.delta.version().unwrap_or_default()
    }

    pub fn definition(&self) -> Option<&str> {
        self.property(DEFINITION)
    }

    /// The commit that last replaced the rows.
    pub fn replaced(&self) -> Option<&str> {
        self.property(REPLACED)
    }

    fn property(&self, name: &str) -> Option<&str> {
        self.delta.snapshot().ok()?.metadata().configuration().get(name).map(String::as_str)
    }

    /// The Arrow schema that the table's files have.
    pub fn schema(&self) -> Result<Schema> {
        Ok(self.delta.snapshot()?.schema().as_ref().try_into_arrow()?)
    }

    pub fn delta(&self) -> &DeltaTable {
        &self.delta
    }

    /// Milliseconds since the table last changed.
    pub async fn age_ms(&self) -> Option<u64> {
        let state = self.delta.snapshot().ok()?;
        let changed = state.version_timestamp(state.version())?;
        Some(u64::try_from(model::Timestamp::now().0 - changed).unwrap_or_default())
    }

    /// Number and size of the files that make up the table now.
    pub fn files(&self) -> Result<(usize, u64)> {
        let log_data = self.delta.snapshot()?.log_data();
        let sizes = log_data.iter().map(|f| u64::try_from(f.size()).unwrap_or_default());
        Ok((log_data.num_files(), sizes.sum()))
    }

    /// Brings the table up to its newest version.
    pub async fn refresh(&mut self) -> Result<()> {
        let path = self.path.clone();
        let read = match self.delta.update_state().await {
            // Another writer may have cleaned the Delta log under the reader; there is a newer
            // checkpoint now.
            Err(_) => self.delta.update_state().await,
            read => read,
        };
        read.with_context(|| {
            format!("table {path} cannot be read: it is damaged or written by a newer program; restore it, or move it away and run `corkboard batch run`")
        })
    }

    /// A scan of the table at this version, reading as the session is set up to read.
    pub async fn scan(&self, context: &SessionContext) -> Result<Arc<dyn TableProvider>> {
        Ok(self.delta.table_provider().with_session(Arc::new(context.state())).await?)
    }

    /// The next offsets that the table takes in, of these partitions.
    pub async fn checkpoint(&mut self, log: LogId, partitions: &[TopicPartition]) -> Result<Checkpoint> {
        self.read_offsets(log, partitions, "").await
    }

    /// The offsets below which the table has forgotten its rows.
    pub async fn floors(&mut self, log: LogId, partitions: &[TopicPartition]) -> Result<Checkpoint> {
        self.read_offsets(log, partitions, FLOOR).await
    }

    async fn read_offsets(&mut self, log: LogId, partitions: &[TopicPartition], kind: &str) -> Result<Checkpoint> {
        self.follow_txns().await?;
        let mut checkpoint = Checkpoint::start_of(log);
        for partition in partitions {
            let app_id = app_id(log.id, partition, kind);
            let version = match self.offsets.get(&app_id) {
                Some(known) => *known,
                None => {
                    let state = self.delta.snapshot()?;
                    let read = state.transaction_version(self.delta.log_store().as_ref(), &app_id).await?;
                    self.offsets.insert(app_id, read);
                    read
                }
            };
            if let Some(version) = version {
                let next = u64::try_from(version).with_context(|| format!("table {}: txn below 0", self.path))?;
                checkpoint.next.insert(partition.clone(), Offset(next));
            }
        }
        Ok(checkpoint)
    }

    /// Takes the `txn` actions of commits since `read_at` over, so that a version seen twice
    /// costs no second look through the Delta log.
    async fn follow_txns(&mut self) -> Result<()> {
        let now = self.delta.version();
        if self.read_at == now {
            return Ok(());
        }
        let (Some(from), Some(to)) = (self.read_at, now) else {
            self.offsets.clear();
            self.read_at = now;
            return Ok(());
        };
        for version in from + 1..=to {
            let Some(commit) = self.delta.log_store().read_commit_entry(version).await? else {
                // Cleaned away meanwhile: ask anew.
                self.offsets.clear();
                break;
            };
            for line in commit.split(|b| *b == b'\n').filter(|l| l.starts_with(b"{\"txn\"")) {
                let action: Value = serde_json::from_slice(line)?;
                let (app_id, version) = (action["txn"]["appId"].as_str(), action["txn"]["version"].as_i64());
                if let (Some(app_id), Some(version)) = (app_id, version) {
                    self.offsets.insert(app_id.to_owned(), Some(version));
                }
            }
        }
        self.read_at = now;
        Ok(())
    }

    /// Starts to write files that a later `commit` will name, in the schema of the definition:
    /// a commit that replaces the rows may bring other columns than the table has now.
    pub fn writer(&self, schema: &SchemaRef, files: Files) -> TableWriter {
        TableWriter::begin(self.delta.log_store().object_store(None), schema, files)
    }

    /// Commits the pending files together with the offsets they cover.
    pub async fn commit(
        &mut self,
        def: &TableDef,
        ranges: &[OffsetRange],
        pending: Pending,
        change: Change,
        note: &Value,
    ) -> Result<Committed, CommitError> {
        let log = LogId { id: def.log, epoch: 0 };
        let partitions: Vec<TopicPartition> = ranges.iter().map(|r| r.partition.clone()).collect();
        let mark = Uuid::new_v4().to_string();
        let mut last_error: Option<DeltaTableError> = None;
        for n_before in 0..MAX_TRIES {
            if n_before > 0 {
                tokio::time::sleep(RETRY_PAUSE * (1 << n_before)).await;
            }
            self.refresh().await?;
            let at = self.checkpoint(log, &partitions).await?;
            let known = |r: &OffsetRange| at.next.get(&r.partition).copied();
            let is_done = |r: &OffsetRange| known(r).is_some_and(|next| r.end <= next);
            if change == Change::Append {
                if ranges.iter().all(is_done) {
                    return Ok(Committed::AlreadyThere);
                }
                let misfit = ranges.iter().find_map(|r| known(r).filter(|next| *next != r.start).map(|next| (r, next)));
                if let Some((range, next)) = misfit {
                    return Err(self.does_not_fit(range, next, last_error.is_some()));
                }
                if self.definition() != Some(def.definition.as_str()) {
                    return Err(CommitError::Overtaken { table: self.path.clone() });
                }
            } else if self.replaced() == Some(mark.as_str()) {
                return Ok(Committed::Done);
            }
            // The last try's outcome is known now; what no retry cures is not tried again.
            if last_error.as_ref().is_some_and(|e| !is_conflict(e)) {
                break;
            }
            // Where a table begins with a partition, what came before is not in it.
            let floors: Vec<&OffsetRange> =
                ranges.iter().filter(|r| change == Change::Replace || known(r).is_none()).collect();
            let replaced = (change == Change::Replace).then_some(mark.as_str());
            match self.try_commit(def, ranges, &floors, &pending, replaced, note).await {
                Ok(()) => return Ok(Committed::Done),
                Err(e) => {
                    tracing::warn!(table = self.path, error = %e, "commit did not go through; reading the table again");
                    last_error = Some(e);
                }
            }
        }
        let is_tried_out = last_error.as_ref().is_none_or(is_conflict);
        let error = last_error.map_or_else(|| anyhow::anyhow!("no try was made"), anyhow::Error::from);
        let what = if is_tried_out { format!("{MAX_TRIES} tries to commit") } else { "cannot commit".to_owned() };
        Err(CommitError::Failed(error.context(format!("table {}: {what}", self.path))))
    }

    fn does_not_fit(&self, range: &OffsetRange, next: Offset, was_tried: bool) -> CommitError {
        let table = self.path.clone();
        if was_tried {
            CommitError::Overtaken { table }
        } else {
            CommitError::NotAdjacent { table, range: range.clone(), next }
        }
    }

    async fn try_commit(
        &mut self,
        def: &TableDef,
        ranges: &[OffsetRange],
        floors: &[&OffsetRange],
        pending: &Pending,
        replaced: Option<&str>,
        note: &Value,
    ) -> Result<(), DeltaTableError> {
        let mut actions: Vec<Action> = pending.adds.iter().cloned().map(Action::Add).collect();
        let mut mode = SaveMode::Append;
        let state = self.delta.snapshot()?;
        if let Some(mark) = replaced {
            mode = SaveMode::Overwrite;
            actions.extend(state.log_data().iter().map(|f| Action::Remove(f.remove_action(true))));
            actions.push(Action::Metadata(self.metadata_of(def, mark)?));
        }
        let txn = |r: &OffsetRange, offset: Offset, kind: &str| {
            let now = model::Timestamp::now().0;
            Transaction::new_with_last_update(app_id(def.log, &r.partition, kind), offset.0 as i64, Some(now))
        };
        let mut txns: Vec<Transaction> = ranges.iter().map(|r| txn(r, r.end, "")).collect();
        txns.extend(floors.iter().map(|r| txn(r, r.start, FLOOR)));
        let mut properties = CommitProperties::default();
        if replaced.is_some() {
            // delta-rs would put the same removes upon a table that was compacted meanwhile, and
            // the compacted rows would stay; the next try makes them anew.
            properties = properties.with_max_retries(0);
        }
        let properties = properties
            .with_application_transactions(txns)
            .with_metadata([("corkboard".to_owned(), commit_note(def, ranges, note))]);
        let operation = DeltaOperation::Write { mode, partition_by: None, predicate: None };
        CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(state), self.delta.log_store(), operation)
            .await?;
        self.delta.update_state().await
    }

    /// The table's metadata with the schema and the definition of `def`.
    fn metadata_of(&self, def: &TableDef, mark: &str) -> Result<deltalake_core::kernel::Metadata, DeltaTableError> {
        let fields: StructType = StructType::try_from_arrow(stored_schema(&def.schema).as_ref())?;
        let mut metadata = serde_json::to_value(self.delta.snapshot()?.metadata())?;
        metadata["schemaString"] = Value::String(serde_json::to_string(&fields)?);
        metadata["configuration"][DEFINITION] = Value::String(def.definition.clone());
        metadata["configuration"][REPLACED] = Value::String(mark.to_owned());
        Ok(serde_json::from_value(metadata)?)
    }

    /// Forgets the rows below `floors`: another table has them now.
    pub async fn forget_below(&mut self, log: LogId, floors: &BTreeMap<TopicPartition, Offset>) -> Result<u64> {
        let Some(predicate) = below(floors) else { return Ok(0) };
        let now = model::Timestamp::now().0;
        let txns = floors.iter().map(|(partition, floor)| {
            Transaction::new_with_last_update(app_id(log.id, partition, FLOOR), floor.0 as i64, Some(now))
        });
        let properties = CommitProperties::default().with_application_transactions(txns.collect());
        self.refresh().await?;
        let (delta, metrics) =
            self.delta.clone().delete().with_predicate(predicate).with_commit_properties(properties).await?;
        self.delta = delta;
        Ok(metrics.num_deleted_rows.unwrap_or_default() as u64)
    }
}

const FLOOR: &str = ":floor";

/// Whether another writer's commit was in the way, so that a new look may help.
fn is_conflict(error: &DeltaTableError) -> bool {
    matches!(error, DeltaTableError::Transaction { .. } | DeltaTableError::VersionAlreadyExists(_))
}

/// Whether work on a table as it was came to nothing because of another writer's commit, and
/// nothing else.
pub fn was_in_the_way(error: &anyhow::Error) -> bool {
    use TransactionError::{CommitConflict, MaxCommitAttempts, VersionAlreadyExists};
    error.chain().any(|cause| {
        let Some(DeltaTableError::Transaction { source }) = cause.downcast_ref() else { return false };
        matches!(source, CommitConflict(_) | MaxCommitAttempts(_) | VersionAlreadyExists(_))
    })
}

fn app_id(log: Uuid, partition: &TopicPartition, kind: &str) -> String {
    format!("corkboard:{log}:{partition}{kind}")
}

/// What every commit says of itself, for people and for audits.
fn commit_note(def: &TableDef, ranges: &[OffsetRange], note: &Value) -> Value {
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "definition": def.definition,
        "log": def.log.to_string(),
        "ranges": ranges,
        "run": note,
    })
}

//! All layers over a log in memory, each at work when a test says so.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use engine::{
    batch::{Batch, LastNames},
    definitions::Definitions,
    haste::Haste,
    landing::{Floors, Landing},
    maintain::{Retain, Trim},
    serving::Serving,
    speed::Speed,
    store::Store,
    table::Tables,
    taken::Taken,
};
use event_log::MemoryLog;
use model::{
    EventLog, Layers, Offset, Query, QueryError, Record, Report, Scope, Stop, Task, TopicChange, TopicPartition,
    config::Config,
    query::{Ask, RowFormat},
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const TOPIC: &str = "a.pin";

pub(crate) struct Pipeline {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) landing: Store,
    pub(crate) tables: Tables,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) config: Config,
    /// The floors that trim gave the log.
    pub(crate) retained: Arc<Mutex<BTreeMap<TopicPartition, Offset>>>,
    following: tokio::sync::Mutex<Option<(Arc<Definitions>, Arc<Serving>)>>,
    names: LastNames,
    scratch: TempDir,
}

/// A pin that is cleaned without loss.
pub(crate) fn pin(n: u64, category: &str) -> String {
    json!({"index": n, "unique_id": format!("u{n}"), "category": category, "follower_count": "1k"}).to_string()
}

/// The default pipeline with text replaced in its files, and views of positions and whole rows.
pub(crate) async fn definitions(edits: &[(&str, &str, &str)]) -> Arc<Definitions> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in Definitions::default_files() {
        let path = folder.path().join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut text = text.to_owned();
        for (_, from, to) in edits.iter().filter(|(file, _, _)| *file == name) {
            assert!(text.contains(from), "{name} has no {from:?}");
            text = text.replace(from, to);
        }
        fs::write(path, text).unwrap();
    }
    let place = "_topic, _partition, _offset";
    for (view, columns, table) in
        [("positions", place, "pin"), ("whole_pins", "*", "pin"), ("rejects", place, "pin_rejected")]
    {
        let sql =
            format!("-- title: {view}\n-- question: Where?\nSELECT {columns} FROM {table} ORDER BY {place}, _nth");
        fs::write(folder.path().join("views").join(view).with_extension("sql"), sql).unwrap();
    }
    Arc::new(Definitions::read(folder.path()).await.unwrap())
}

impl Pipeline {
    /// One topic of pins with so many partitions.
    pub(crate) async fn new(tables: &Store, n_partitions: u32) -> Self {
        let log = Arc::new(MemoryLog::new());
        log.change_topic(&TOPIC.parse().unwrap(), TopicChange::Create { n_partitions }).await.unwrap();
        let mut config = Config::defaults();
        config.landing.idle_flush_ms = 0;
        config.speed.linger_ms = 0;
        Self {
            log,
            landing: Store::in_memory(),
            tables: Tables::new(tables, &config.maintain).unwrap(),
            definitions: definitions(&[]).await,
            config,
            retained: Arc::default(),
            following: tokio::sync::Mutex::default(),
            names: LastNames::default(),
            scratch: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn partition(n: u32) -> TopicPartition {
        TopicPartition::new(TOPIC.parse().unwrap(), n)
    }

    pub(crate) async fn post(&self, partition: u32, values: impl IntoIterator<Item = String>) {
        let records = values.into_iter().map(Record::of_value).collect();
        self.log.append(&Self::partition(partition), records).await.unwrap();
    }

    pub(crate) async fn land(&self) {
        let mut landing = Landing::new(self.log.clone(), self.landing.clone(), self.config.landing.clone());
        landing.run(&Stop::new()).await.unwrap();
    }

    pub(crate) async fn run_batch(&self) -> Report {
        self.try_batch().await.unwrap()
    }

    /// What a process knows is not known to another.
    pub(crate) async fn run_batch_elsewhere(&self) -> Report {
        self.batch_with(LastNames::default()).await.unwrap()
    }

    pub(crate) async fn try_batch(&self) -> anyhow::Result<Report> {
        self.batch_with(self.names.clone()).await
    }

    async fn batch_with(&self, names: LastNames) -> anyhow::Result<Report> {
        let batch = Batch {
            landing: self.landing.clone(),
            tables: self.tables.clone(),
            definitions: self.definitions.clone(),
            config: self.config.batch.clone(),
            dedup: None,
            spill: self.scratch.path().to_owned(),
            names,
        };
        Ok(batch.run(false, &Stop::new(), &|_| ()).await?.report)
    }

    pub(crate) fn speed(&self) -> Speed {
        Speed::new(
            self.log.clone(),
            self.tables.clone(),
            self.definitions.clone(),
            self.config.speed.clone(),
            self.config.batch.clone(),
        )
    }

    pub(crate) async fn run_speed(&self) -> anyhow::Result<Report> {
        self.speed().run(&Stop::new()).await
    }

    /// Trims the real-time tables, and notes how far the log may be trimmed.
    pub(crate) async fn trim(&self) -> Report {
        let retained = Arc::clone(&self.retained);
        let retain: Retain = Box::new(move |floors| {
            *retained.lock().unwrap() = floors;
            Box::pin(async { Ok(0) })
        });
        let mut trim = Trim {
            log: self.log.clone(),
            retain,
            landing: Floors::of(self.landing.clone()),
            tables: self.tables.clone(),
            definitions: self.definitions.clone(),
        };
        trim.run(&Stop::new()).await.unwrap()
    }

    /// Whether landing and the speed layer have taken a topic; it wakes nobody.
    pub(crate) fn taken(&self) -> Taken {
        Taken {
            log: self.log.clone(),
            landing: Some(Landing::new(self.log.clone(), self.landing.clone(), self.config.landing.clone())),
            tables: Some(self.tables.clone()),
            definitions: self.definitions.clone(),
            haste: Haste::default(),
            wake: Box::new(|| ()),
        }
    }

    /// Deletes a topic as the doors do.
    pub(crate) async fn delete(&self, topic: &str) {
        self.land().await;
        self.run_speed().await.unwrap();
        let topic = topic.parse().unwrap();
        let sum_of_ends = self.taken().take(&topic, Duration::ZERO).await.unwrap();
        self.log.change_topic(&topic, TopicChange::DeleteUnlessGrown { sum_of_ends }).await.unwrap();
    }

    /// A serving layer that has looked at nothing yet.
    pub(crate) fn serving(&self) -> Serving {
        Serving::new(
            Some(self.log.clone()),
            self.tables.clone(),
            self.definitions.clone(),
            None,
            self.config.serving.clone(),
            self.scratch.path(),
        )
        .unwrap()
    }

    /// One that has seen all that was asked before, and follows what is new.
    async fn following(&self) -> Arc<Serving> {
        let mut following = self.following.lock().await;
        match following.as_ref().filter(|(definitions, _)| Arc::ptr_eq(definitions, &self.definitions)) {
            Some((_, serving)) => Arc::clone(serving),
            None => {
                let serving = Arc::new(self.serving());
                *following = Some((Arc::clone(&self.definitions), Arc::clone(&serving)));
                serving
            }
        }
    }

    /// What serving layers answer, whether they have seen much or nothing yet.
    pub(crate) async fn ask(&self, view: &str, scope: Scope) -> Value {
        let answer = rows(&self.serving(), view, scope).await.unwrap();
        assert_eq!(rows(&*self.following().await, view, scope).await.unwrap(), answer, "{view}, followed");
        answer
    }

    /// The offsets of one partition in a view of positions.
    pub(crate) async fn offsets(&self, view: &str, scope: Scope, partition: u32) -> Vec<u64> {
        let rows = self.ask(view, scope).await;
        let of_partition = rows.as_array().unwrap().iter().filter(|r| r["_partition"] == partition);
        of_partition.map(|r| r["_offset"].as_u64().unwrap()).collect()
    }

    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }
}

pub(crate) async fn rows(serving: &Serving, view: &str, scope: Scope) -> Result<Value, QueryError> {
    let ask = Ask { view: view.to_owned(), scope, format: RowFormat::Json };
    let answer = serving.query(&ask).await?;
    Ok(serde_json::from_slice(&answer.body).unwrap())
}

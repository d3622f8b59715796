//! A log in memory that changes between two steps of those who use it, as it does when others are at work.

use std::sync::Mutex;

use async_trait::async_trait;
use event_log::MemoryLog;
use model::{
    Bounds, EventLog, LogDescription, LogError, Offset, OffsetRange, Record, StoredRecord, TopicChange, TopicName,
    TopicPartition,
};
use tokio::sync::{Semaphore, watch};

pub(crate) struct Meddled {
    pub(crate) log: MemoryLog,
    /// Trimmed as soon as somebody reads of it.
    trims: Mutex<Option<(TopicPartition, Offset)>>,
    deleted: Semaphore,
    /// Whoever deleted a topic is told that.
    tells: Semaphore,
}

impl Meddled {
    pub(crate) fn new() -> Self {
        let (deleted, tells) = (Semaphore::new(0), Semaphore::new(0));
        Self { log: MemoryLog::new(), trims: Mutex::default(), deleted, tells }
    }

    pub(crate) fn trim_on_read(&self, partition: TopicPartition, before: Offset) {
        *self.trims.lock().unwrap() = Some((partition, before));
    }

    /// A topic is gone, and whoever deleted it does not know yet.
    pub(crate) async fn has_deleted(&self) {
        self.deleted.acquire().await.unwrap().forget();
    }

    pub(crate) fn tell(&self) {
        self.tells.add_permits(1);
    }
}

#[async_trait]
impl EventLog for Meddled {
    async fn describe(&self) -> Result<LogDescription, LogError> {
        self.log.describe().await
    }

    async fn change_topic(&self, topic: &TopicName, change: TopicChange) -> Result<(), LogError> {
        let changed = self.log.change_topic(topic, change).await;
        if matches!(change, TopicChange::Delete | TopicChange::DeleteUnlessGrown { .. }) {
            self.deleted.add_permits(1);
            self.tells.acquire().await.unwrap().forget();
        }
        changed
    }

    async fn append(&self, partition: &TopicPartition, records: Vec<Record>) -> Result<OffsetRange, LogError> {
        self.log.append(partition, records).await
    }

    async fn fetch(&self, partition: &TopicPartition, from: Offset, n: usize) -> Result<Vec<StoredRecord>, LogError> {
        let trim = self.trims.lock().unwrap().take_if(|(trimmed, _)| trimmed == partition);
        if let Some((partition, before)) = trim {
            self.log.trim(&partition, before).await?;
        }
        self.log.fetch(partition, from, n).await
    }

    async fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        self.log.bounds(partition).await
    }

    async fn trim(&self, partition: &TopicPartition, before: Offset) -> Result<(), LogError> {
        self.log.trim(partition, before).await
    }

    fn moved(&self) -> watch::Receiver<u64> {
        self.log.moved()
    }
}

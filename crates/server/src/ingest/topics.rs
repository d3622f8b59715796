//! Which topics there are, remembered so that a record needs no question to the log, and made
//! when a producer names one that is not there.
//!
//! What is remembered may be out of date: whoever changes a topic here has it forgotten
//! (`Topics::change`), a topic that the log no longer knows is forgotten when an append says so, and
//! before a partition is said not to be there, the log is asked. Internal topics are not there for
//! producers.
//!
//! A topic is deleted once the layers have taken all that was acknowledged in it (`Ending`).

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use model::{
    EventLog, Layers, LogDescription, LogError, TopicChange, TopicName, config::IngestConfig,
    position::InvalidTopicName,
};
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::idempotency::Window;
use crate::{Services, error::KafkaError};

pub(super) struct Topic {
    pub(super) name: TopicName,
    pub(super) n_partitions: u32,
    keyless_turn: AtomicU32,
}

impl Topic {
    pub(super) fn new(name: TopicName, n_partitions: u32) -> Self {
        Self { name, n_partitions, keyless_turn: AtomicU32::new(0) }
    }

    /// Where the records without key of the next request go: all to one partition, so that a
    /// request is one append, and to each partition in turn.
    pub(super) fn next_keyless(&self) -> u32 {
        self.keyless_turn.fetch_add(1, Relaxed) % self.n_partitions
    }
}

pub(super) struct Topics {
    log: Arc<dyn EventLog>,
    config: IngestConfig,
    known: RwLock<HashMap<TopicName, Arc<Topic>>>,
    /// Held while a topic is created, so that `max_topics` is kept.
    creating: Mutex<()>,
    layers: Option<Arc<dyn Layers>>,
    /// Topics that are about to be deleted, once for each that deletes them: nothing is appended there.
    ending: RwLock<Vec<TopicName>>,
    /// The keys of requests go with their topic.
    window: Arc<Window>,
    unattended: TaskTracker,
}

impl Topics {
    pub(super) fn new(services: &Services) -> Self {
        let Services { log, layers, unattended, .. } = services.clone();
        let config = services.config.ingest.clone();
        let window = Arc::new(Window::new(&config));
        let (known, creating, ending) = Default::default();
        Self { log, config, known, creating, layers, ending, window, unattended }
    }

    /// The topic, None where there is none.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Arc<Topic>>, KafkaError> {
        if let Some(topic) = self.remembered(name) {
            return Ok(Some(topic));
        }
        match name.parse::<TopicName>() {
            Ok(name) if !name.is_internal() => Ok(self.look_up(&name).await?.0),
            _ => Ok(None),
        }
    }

    /// The topic, created if it may be. It has the partition `highest`, or the request is refused
    /// and nothing is created.
    pub(super) async fn find_or_create(
        self: &Arc<Self>,
        name: &str,
        highest: Option<u32>,
    ) -> Result<Arc<Topic>, KafkaError> {
        // Without that partition it may have grown since.
        let known = self.remembered(name).filter(|t| highest.is_none_or(|highest| highest < t.n_partitions));
        let topic = match known {
            Some(topic) => topic,
            None => self.look_up_or_create(name, highest).await?,
        };
        check_partition(highest, topic.n_partitions)?;
        Ok(topic)
    }

    async fn look_up_or_create(self: &Arc<Self>, name: &str, highest: Option<u32>) -> Result<Arc<Topic>, KafkaError> {
        let name: TopicName = name.parse().map_err(|e: InvalidTopicName| KafkaError::invalid_topic(e.to_string()))?;
        if name.is_internal() {
            return Err(KafkaError::invalid_topic(format!("topic {name} is internal: nobody else writes there")));
        }
        if let (Some(topic), _) = self.look_up(&name).await? {
            return Ok(topic);
        }
        if !self.config.auto_create_topics {
            return Err(KafkaError::topic_not_found());
        }
        let _creating = self.creating.lock().await;
        match self.look_up(&name).await? {
            (Some(topic), _) => Ok(topic),
            (None, n_topics) => self.create(&name, n_topics, highest).await,
        }
    }

    /// The topic as the log has it now, and how many topics there are beside internal ones.
    async fn look_up(&self, name: &TopicName) -> Result<(Option<Arc<Topic>>, usize), KafkaError> {
        let description = self.log.describe().await.map_err(|e| KafkaError::of_log(&e))?;
        let n_topics = description.topics.keys().filter(|topic| !topic.is_internal()).count();
        Ok((self.remember(&description, name), n_topics))
    }

    async fn create(
        self: &Arc<Self>,
        name: &TopicName,
        n_topics: usize,
        highest: Option<u32>,
    ) -> Result<Arc<Topic>, KafkaError> {
        let limit = self.config.max_topics;
        if n_topics >= limit {
            let message = format!("topic {name} was not created: there are {limit} already (ingest.max_topics)");
            return Err(KafkaError::invalid_topic(message));
        }
        let n_partitions = self.config.default_partitions.min(self.config.max_partitions_per_topic);
        check_partition(highest, n_partitions)?;
        match self.change(name, TopicChange::Create { n_partitions }).await {
            Ok(()) => info!(topic = %name, n_partitions, "created topic {name}, which a producer named"),
            // Another process shares this log.
            Err(LogError::TopicExists(_)) => {}
            Err(e) => return Err(KafkaError::of_log(&e)),
        }
        self.look_up(name).await?.0.ok_or_else(KafkaError::topic_not_found)
    }

    /// Creates a topic that is not there yet, with so many partitions, or only says whether it could.
    pub(super) async fn create_new(
        self: &Arc<Self>,
        name: &TopicName,
        n_partitions: u32,
        really: bool,
    ) -> Result<(), KafkaError> {
        self.check_count(n_partitions)?;
        let _creating = self.creating.lock().await;
        let limit = self.config.max_topics;
        match self.look_up(name).await? {
            (Some(_), _) => return Err(KafkaError::topic_exists(name.as_str())),
            (None, n_topics) if n_topics >= limit => {
                let message = format!("topic {name} was not created: there are {limit} already (ingest.max_topics)");
                return Err(KafkaError::invalid_topic(message));
            }
            _ if !really => return Ok(()),
            _ => {}
        }
        let created = self.change(name, TopicChange::Create { n_partitions }).await;
        created.map_err(|e| match e {
            LogError::TopicExists(_) => KafkaError::topic_exists(name.as_str()),
            e => KafkaError::of_log(&e),
        })
    }

    /// Whether a topic may have so many partitions.
    pub(super) fn check_count(&self, n_partitions: u32) -> Result<(), KafkaError> {
        let limit = self.config.max_partitions_per_topic;
        match n_partitions {
            0 => Err(KafkaError::invalid_topic("Number of partitions was set to an invalid non-positive value.")),
            n if n > limit => Err(KafkaError::invalid_topic(format!(
                "a topic of {n} partitions is too large, {limit} are allowed (ingest.max_partitions_per_topic)"
            ))),
            _ => Ok(()),
        }
    }

    /// Begins to delete a topic. As long as what is given back lives, nothing more is appended to it.
    pub(super) fn end(self: &Arc<Self>, name: &TopicName) -> Ending {
        self.ending.write().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        let patience = Duration::from_millis(self.config.delete_timeout_ms);
        Ending { topics: self.clone(), name: name.clone(), deadline: Instant::now() + patience }
    }

    /// Refuses what is appended to a topic that is about to be deleted. Who tries again soon finds it
    /// deleted, or as it was.
    pub(super) fn check_stays(&self, name: &TopicName) -> Result<(), LogError> {
        let ending = self.ending.read().unwrap_or_else(PoisonError::into_inner);
        match ending.contains(name) {
            true => Err(LogError::unavailable(format!("topic {name} is being deleted"))),
            false => Ok(()),
        }
    }

    /// Changes the topic in the log, and no longer counts on what was known of it. Both, or neither,
    /// whoever waits for it.
    pub(super) async fn change(self: &Arc<Self>, name: &TopicName, change: TopicChange) -> Result<(), LogError> {
        let (this, name) = (self.clone(), name.clone());
        let changing = self.unattended.spawn(async move {
            let changed = this.log.change_topic(&name, change).await;
            this.forget(&name);
            let is_deletion = matches!(change, TopicChange::Delete | TopicChange::DeleteUnlessGrown { .. });
            if is_deletion && !matches!(changed, Err(LogError::TopicGrew(_))) {
                this.window.forget(&name);
            }
            changed
        });
        let lost = |e| LogError::Unavailable { reason: format!("the change was lost: {e}"), outcome_unknown: true };
        changing.await.unwrap_or_else(|e| Err(lost(e)))
    }

    pub(super) fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// An append, or another question, did not find what was known.
    pub(super) fn missed(&self, name: &TopicName, error: &LogError) {
        match error {
            LogError::UnknownTopic(_) => {
                self.forget(name);
                self.window.forget(name);
            }
            LogError::UnknownPartition(_) => self.forget(name),
            _ => {}
        }
    }

    pub(super) fn forget(&self, name: &TopicName) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn remembered(&self, name: &str) -> Option<Arc<Topic>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn remember(&self, description: &LogDescription, name: &TopicName) -> Option<Arc<Topic>> {
        let n_partitions = *description.topics.get(name)?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let topic = known.entry(name.clone()).or_insert_with(|| Arc::new(Topic::new(name.clone(), n_partitions)));
        if topic.n_partitions != n_partitions {
            *topic = Arc::new(Topic::new(name.clone(), n_partitions));
        }
        Some(topic.clone())
    }
}

/// A topic that is about to be deleted.
pub(super) struct Ending {
    topics: Arc<Topics>,
    name: TopicName,
    deadline: Instant,
}

impl Ending {
    /// How it is deleted, once the layers have taken all that is acknowledged. What was on its way
    /// when the deletion began may still come: then the change is refused as `TopicGrew`, and this is
    /// asked again.
    pub(super) async fn settle(&self) -> Result<TopicChange, KafkaError> {
        let Some(layers) = &self.topics.layers else { return Ok(TopicChange::Delete) };
        let patience = self.deadline.saturating_duration_since(Instant::now());
        let taken = layers.take(&self.name, patience).await;
        let sum_of_ends = taken.map_err(|behind| {
            KafkaError::topic_in_use(format!(
                "Topic {} was not deleted: its records would be lost to the views. {behind}. Try again in a moment.",
                self.name
            ))
        })?;
        Ok(TopicChange::DeleteUnlessGrown { sum_of_ends })
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut ending = self.topics.ending.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = ending.iter().position(|name| *name == self.name) {
            ending.swap_remove(at);
        }
    }
}

fn check_partition(highest: Option<u32>, n_partitions: u32) -> Result<(), KafkaError> {
    match highest {
        Some(partition) if partition >= n_partitions => Err(KafkaError::partition_not_found()),
        _ => Ok(()),
    }
}

//! Groups of consumers that read over HTTP: who there is, which partitions each of them reads, and
//! how far. All of it is kept in the log, and nothing in the process.
//!
//! Delivery is at least once. An answer's records are handed out by a command (`Act::Send`) before
//! the answer goes out, so that the next question goes on behind them, wherever it is asked. They
//! count as returned, and may be committed, when the next question comes; when the answer did not
//! leave whole, or the log was not closed in order since, they are handed out again. A partition
//! changes hands when its reader asks again and so has no records of it in work, or when its lease
//! ends; then what it still commits is refused.

mod balance;
mod group;
mod state;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use model::{EventLog, LogDescription, Timestamp, TopicName, TopicPartition, config::ConsumersConfig};
use regex::{Regex, RegexBuilder};
use tokio::runtime;
use tokio_util::task::TaskTracker;

use self::state::Command;
pub(super) use self::state::{
    Act, Committed, Consumers, Format, Group, Instance, Interest, Limits, Move, Refusal, Reset, Settings,
};
use crate::{Services, error::KafkaError, replicated::Replicated};

/// A pattern compiles to no more than this: matching takes time linear in the name, whatever it is.
const MAX_PATTERN_BYTES: usize = 1 << 20;

pub(super) struct Groups {
    state: Replicated<Consumers>,
    log: Arc<dyn EventLog>,
    pub(super) config: ConsumersConfig,
    unattended: TaskTracker,
    turn: AtomicUsize,
}

/// One instance, as a request names it.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) group: String,
    pub(super) instance: String,
}

/// What one question of an instance needs to know.
pub(super) struct View {
    pub(super) settings: Settings,
    /// The partitions that it reads, and from where; None: from what is committed.
    pub(super) places: Vec<Place>,
    pub(super) turns: u64,
    pub(super) epoch: u32,
    /// Something was returned that is not committed, and that the next question commits.
    pub(super) has_to_commit: bool,
    pub(super) next_expiry_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: TopicPartition,
    pub(super) position: Option<model::Offset>,
    pub(super) committed: Option<model::Offset>,
}

impl Groups {
    pub(super) fn new(services: &Services) -> Self {
        let Services { log, unattended, .. } = services.clone();
        let config = services.config.consumers.clone();
        Self { state: Replicated::new(log.clone()), log, config, unattended, turn: AtomicUsize::new(0) }
    }

    pub(super) async fn describe(&self) -> Result<LogDescription, KafkaError> {
        self.log.describe().await.map_err(|e| KafkaError::of_log(&e))
    }

    /// Looks at all groups.
    pub(super) async fn read<R>(&self, look: impl FnOnce(&Consumers) -> R + Send) -> Result<R, KafkaError> {
        self.state.read(look).await.map_err(|e| KafkaError::of_log(&e))
    }

    /// Looks at one instance, which must be there.
    pub(super) async fn look<R: Send>(
        &self,
        name: &Name,
        look: impl FnOnce(&Group, &Instance) -> R + Send,
    ) -> Result<R, KafkaError> {
        let found = self.read(|all| all.instance(&name.group, &name.instance).map(|(g, i)| look(g, i))).await?;
        found.ok_or_else(KafkaError::instance_not_found)
    }

    pub(super) async fn submit(&self, name: &Name, epoch: u32, act: Act) -> Result<Result<(), Refusal>, KafkaError> {
        let Name { group, instance } = name.clone();
        let ConsumersConfig { lease_ms, max_partitions_per_group: max_offsets, .. } = self.config;
        let command = Command { group, instance, epoch, lease_ms, max_offsets, act };
        self.state.submit(command).await.map_err(|e| KafkaError::of_log(&e))
    }

    /// The same, with refusals in the words of the door.
    pub(super) async fn act(&self, name: &Name, epoch: u32, act: Act) -> Result<(), KafkaError> {
        self.submit(name, epoch, act).await?.map_err(|refusal| self.explain(&refusal))
    }

    pub(super) async fn create(&self, name: &Name, settings: Settings) -> Result<(), KafkaError> {
        let limits = Limits {
            groups: self.config.max_groups,
            instances: self.config.max_instances_per_group,
            instance_retention_ms: self.config.instance_retention_ms,
            offset_retention_ms: self.config.offset_retention_ms,
        };
        self.act(name, 0, Act::Create { settings, limits }).await
    }

    /// So that no partition always comes first.
    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Relaxed)
    }

    /// An answer did not leave; nobody is there to wait until that is written down.
    pub(super) fn unsend(self: &Arc<Self>, name: Name, epoch: u32, moves: Vec<Move>, turns: u64) {
        let Ok(runtime) = runtime::Handle::try_current() else { return };
        let groups = self.clone();
        let unsend = async move {
            if let Err(e) = groups.submit(&name, epoch, Act::Unsend { moves, turns }).await {
                let Name { group, instance } = name;
                tracing::warn!("what {instance} of {group} did not receive is not returned again: {}", e.message);
            }
        };
        self.unattended.spawn_on(unsend, &runtime);
    }

    /// An instance that is asked anything stays a member; one that lost its partitions has to read.
    pub(super) async fn keep(&self, name: &Name) -> Result<(), KafkaError> {
        let (now, lease_ms) = (Timestamp::now(), self.config.lease_ms);
        let due = self.look(name, |_, i| !i.is_fenced && i.is_live(now) && i.needs_renewal(now, lease_ms)).await?;
        if due { self.act(name, 0, Act::Renew).await } else { Ok(()) }
    }

    /// The instance's view for reading on, after whatever has to be written down first.
    pub(super) async fn view(&self, name: &Name) -> Result<View, KafkaError> {
        let description = self.describe().await?;
        let (now, lease_ms, epoch) = (Timestamp::now(), self.config.lease_ms, description.id.epoch);
        let interest = self.look(name, |_, instance| instance.interest.clone()).await?;
        let topics = self.topics(&interest, &description)?;
        let has_to_join = self
            .look(name, |group, instance| {
                let someone_left = group.next_expiry_ms().is_some_and(|expiry_ms| expiry_ms < now.0);
                let looked_up = !interest.is_subscription() || instance.topics == topics;
                let is_at_rest = !instance.is_fenced && !instance.needs_renewal(now, lease_ms) && looked_up;
                !is_at_rest || someone_left || group.has_to_give_up(&name.instance)
            })
            .await?;
        if has_to_join {
            let is_gone = |topic: &&TopicName| !description.topics.contains_key(*topic);
            let gone = |group: &Group| group.committed.keys().map(|p| &p.topic).filter(is_gone).cloned().collect();
            let gone = self.look(name, |group, _| gone(group)).await?;
            self.act(name, epoch, Act::Join { topics, gone }).await?;
        }
        self.look(name, |group, instance| View::of(group, instance, &name.instance, epoch)).await
    }

    /// The topics that a subscription means now, and their partitions.
    pub(super) fn topics(
        &self,
        interest: &Interest,
        description: &LogDescription,
    ) -> Result<BTreeMap<TopicName, u32>, KafkaError> {
        let there = description.topics.iter().filter(|(topic, _)| !topic.is_internal());
        let known = |(topic, n): (&TopicName, &u32)| (topic.clone(), *n);
        let limit = self.config.max_topics_per_subscription;
        let topics: BTreeMap<_, _> = match interest {
            Interest::Topics(names) => there.filter(|(topic, _)| names.contains(*topic)).map(known).collect(),
            Interest::Pattern(pattern) => {
                let pattern = compiled(pattern)?;
                there.filter(|(topic, _)| pattern.is_match(topic.as_str())).map(known).collect()
            }
            Interest::Nothing | Interest::Partitions(_) => BTreeMap::new(),
        };
        if topics.len() > limit {
            let what = format!(
                "the subscription means {} topics, {limit} are allowed (consumers.max_topics_per_subscription)",
                topics.len()
            );
            return Err(KafkaError::invalid_consumer(what));
        }
        let (n, limit) = (topics.values().map(|n| *n as usize).sum::<usize>(), self.config.max_partitions_per_group);
        if n > limit {
            let what = format!(
                "the subscription means {n} partitions, {limit} are allowed (consumers.max_partitions_per_group)"
            );
            return Err(KafkaError::invalid_consumer(what));
        }
        Ok(topics)
    }

    pub(super) fn explain(&self, refusal: &Refusal) -> KafkaError {
        let ConsumersConfig { max_groups, max_instances_per_group, max_partitions_per_group, .. } = &self.config;
        match refusal {
            Refusal::UnknownInstance => KafkaError::instance_not_found(),
            Refusal::Exists => KafkaError::instance_exists(),
            Refusal::TooManyGroups => {
                KafkaError::invalid_consumer(format!("there are {max_groups} groups already (consumers.max_groups)"))
            }
            Refusal::TooManyInstances => KafkaError::invalid_consumer(format!(
                "the group has {max_instances_per_group} instances already (consumers.max_instances_per_group)"
            )),
            Refusal::TooManyOffsets => KafkaError::invalid_consumer(format!(
                "the group has committed {max_partitions_per_group} partitions (consumers.max_partitions_per_group)"
            )),
            Refusal::OtherInterest => {
                KafkaError::illegal_state("Subscription to topics, partitions and pattern are mutually exclusive")
            }
            Refusal::NotAssigned(partition) => {
                KafkaError::illegal_state(format!("No current assignment for partition {partition}"))
            }
            Refusal::Fenced => KafkaError::illegal_state(
                "Offset commit cannot be completed since the consumer is not part of an active group for auto \
                 partition assignment; it is likely that the consumer was kicked out of the group.",
            ),
            Refusal::Stale => KafkaError::illegal_state("the position was moved meanwhile"),
        }
    }
}

/// The whole name has to match.
pub(super) fn compiled(pattern: &str) -> Result<Regex, KafkaError> {
    let whole = RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(MAX_PATTERN_BYTES).build();
    whole.map_err(|e| KafkaError::unprocessable(422, format!("topic_pattern is not a regular expression: {e}")))
}

impl View {
    fn of(group: &Group, instance: &Instance, name: &str, epoch: u32) -> Self {
        let place = |partition: TopicPartition| Place {
            position: instance.position(&partition, epoch),
            committed: group.committed.get(&partition).map(|c| c.offset),
            partition,
        };
        let places: Vec<_> = group.assignment(name).into_iter().map(place).collect();
        let has_to_commit = instance.settings.auto_commit
            && places
                .iter()
                .any(|p| p.position.is_some() && p.position != p.committed && group.may_commit(name, &p.partition));
        Self {
            settings: instance.settings.clone(),
            turns: instance.turns,
            epoch,
            has_to_commit,
            next_expiry_ms: group.next_expiry_ms(),
            places,
        }
    }
}

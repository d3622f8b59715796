//! Groups of consumers, and how far they are behind the log.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{FromRequestParts, Path},
    response::Response,
};
use http::request::Parts;
use model::{LogError, Offset, TopicPartition};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Cluster, said};
use crate::{
    auth::{Action, Caller},
    error::KafkaError,
    ingest::{Doors, consumers::Group, json::shortened},
};

/// Who asks, and for which of the names that a path may have.
pub(super) struct Asked {
    doors: Arc<Doors>,
    caller: Caller,
    cluster: Cluster,
    group: String,
    consumer: String,
    topic: String,
    partition: u32,
}

impl FromRequestParts<Arc<Doors>> for Asked {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, doors: &Arc<Doors>) -> Result<Self, Response> {
        #[derive(Deserialize)]
        struct Names {
            cluster: String,
            #[serde(default)]
            group: String,
            #[serde(default)]
            consumer: String,
            #[serde(default)]
            topic: String,
            #[serde(default)]
            partition: u32,
        }
        let asked = async {
            let path = Path::<Names>::from_request_parts(parts, doors).await;
            let Path(names) = path.map_err(|_| KafkaError::not_found())?;
            let Names { cluster, group, consumer, topic, partition } = names;
            let caller = Caller::of(&parts.extensions, &doors.services.auth);
            let cluster = doors.cluster(&cluster, &parts.headers).await?;
            Ok(Self { doors: doors.clone(), caller, cluster, group, consumer, topic, partition })
        };
        asked.await.map_err(|error| said(Err(error)))
    }
}

pub(super) async fn list(asked: Asked) -> Response {
    let Asked { doors, cluster, .. } = &asked;
    let groups = doors.groups.read(|all| all.groups.iter().map(|(name, g)| cluster.group(name, g)).collect());
    said(groups.await.map(|data| cluster.list("KafkaConsumerGroupList", &["consumer-groups"], data)))
}

pub(super) async fn one(asked: Asked) -> Response {
    said(asked.look(|group| asked.cluster.group(&asked.group, group)).await)
}

pub(super) async fn consumers(asked: Asked) -> Response {
    let Asked { cluster, group: name, .. } = &asked;
    let members = |group: &Group| group.instances.keys().map(|i| cluster.member(name, i)).collect();
    let members = asked.look(members).await;
    said(members.map(|data| cluster.list("KafkaConsumerList", &["consumer-groups", name, "consumers"], data)))
}

pub(super) async fn consumer(asked: Asked) -> Response {
    said(asked.look_at_consumer(|_| asked.cluster.member(&asked.group, &asked.consumer)).await)
}

pub(super) async fn assignments(asked: Asked) -> Response {
    let place = ["consumer-groups", &asked.group, "consumers", &asked.consumer, "assignments"];
    let data = |assigned: Vec<_>| assigned.iter().map(|partition| asked.assignment(partition)).collect();
    let list = |assigned| asked.cluster.list("KafkaConsumerAssignmentList", &place, data(assigned));
    said(asked.assigned().await.map(list))
}

pub(super) async fn assignment(asked: Asked) -> Response {
    let found = asked.assigned().await.and_then(|assigned| asked.find(assigned, |partition| partition, "Assignment"));
    said(found.map(|partition| asked.assignment(&partition)))
}

pub(super) async fn lags(asked: Asked) -> Response {
    let Asked { cluster, group, .. } = &asked;
    said(asked.lags().await.map(|lags| {
        let data = lags.iter().map(|lag| lag.json(cluster, group)).collect();
        cluster.list("KafkaConsumerLagList", &["consumer-groups", group, "lags"], data)
    }))
}

pub(super) async fn lag(asked: Asked) -> Response {
    let found = asked.lags().await.and_then(|lags| asked.find(lags, |lag| &lag.partition, "Consumer lag"));
    said(found.map(|lag| lag.json(&asked.cluster, &asked.group)))
}

pub(super) async fn lag_summary(asked: Asked) -> Response {
    let Asked { cluster, group: name, .. } = &asked;
    let summary = async {
        let lags = asked.lags().await?;
        let most = lags.iter().max_by_key(|lag| lag.lag());
        let most = most.ok_or_else(|| KafkaError::nothing_called(format!("Consumer lag summary of group {name}")))?;
        let total: u64 = lags.iter().map(Lag::lag).sum();
        let (topic, p) = (most.partition.topic.as_str(), most.partition.partition.to_string());
        let fields = json!({
            "consumer_group_id": name,
            "max_lag_consumer_id": most.reader,
            "max_lag_instance_id": most.reader,
            "max_lag_client_id": most.reader,
            "max_lag_topic_name": topic,
            "max_lag_partition_id": most.partition.partition,
            "max_lag": most.lag(),
            "total_lag": total,
            "max_lag_consumer": cluster.related(&["consumer-groups", name, "consumers", &most.reader]),
            "max_lag_partition": cluster.related(&["topics", topic, "partitions", &p]),
        });
        let names = format!("/consumer-group={name}/lag-summary");
        let kind = "KafkaConsumerGroupLagSummary";
        Ok(cluster.object(kind, &["consumer-groups", name, "lag-summary"], &names, fields))
    };
    said(summary.await)
}

/// How far a group is behind in one partition.
struct Lag {
    partition: TopicPartition,
    reader: String,
    committed: Offset,
    end: Offset,
}

impl Asked {
    /// Looks at the group, which must be there.
    async fn look<R: Send>(&self, look: impl FnOnce(&Group) -> R + Send) -> Result<R, KafkaError> {
        let found = self.doors.groups.read(|all| all.groups.get(&self.group).map(look)).await?;
        found.ok_or_else(|| KafkaError::nothing_called(format!("Consumer group {}", shortened(&self.group))))
    }

    /// The same, and the consumer must be one of its instances.
    async fn look_at_consumer<R: Send>(&self, look: impl FnOnce(&Group) -> R + Send) -> Result<R, KafkaError> {
        let found = self.look(|group| group.instances.contains_key(&self.consumer).then(|| look(group))).await?;
        found.ok_or_else(|| KafkaError::nothing_called(format!("Consumer {}", shortened(&self.consumer))))
    }

    /// What the consumer reads, of the topics that the caller may read.
    async fn assigned(&self) -> Result<Vec<TopicPartition>, KafkaError> {
        let seen = |partition: &TopicPartition| self.may_read(partition);
        self.look_at_consumer(|group| group.assignment(&self.consumer).into_iter().filter(seen).collect()).await
    }

    /// The one of the path's partition.
    fn find<T>(&self, all: Vec<T>, place: impl Fn(&T) -> &TopicPartition, what: &'static str) -> Result<T, KafkaError> {
        let is_asked = |one: &T| place(one).topic.as_str() == self.topic && place(one).partition == self.partition;
        all.into_iter().find(is_asked).ok_or_else(|| {
            let (topic, partition) = (shortened(&self.topic), self.partition);
            KafkaError::nothing_called(format!("{what} of partition {partition} of topic {topic}"))
        })
    }

    fn may_read(&self, partition: &TopicPartition) -> bool {
        self.caller.may(Action::Consume, partition.topic.as_str())
    }

    fn assignment(&self, partition: &TopicPartition) -> Value {
        let Self { cluster, group, consumer, .. } = self;
        let (topic, p) = (partition.topic.as_str(), partition.partition.to_string());
        cluster.object(
            "KafkaConsumerAssignment",
            &["consumer-groups", group, "consumers", consumer, "assignments", topic, "partitions", &p],
            &format!("/consumer-group={group}/consumer={consumer}/assignment={topic}/partition={p}"),
            json!({
                "consumer_group_id": group,
                "consumer_id": consumer,
                "topic_name": topic,
                "partition_id": partition.partition,
                "partition": cluster.related(&["topics", topic, "partitions", &p]),
                "lag": cluster.related(&["consumer-groups", group, "lags", topic, "partitions", &p]),
            }),
        )
    }

    /// Of the topics that the caller may read.
    async fn lags(&self) -> Result<Vec<Lag>, KafkaError> {
        let committed = |group: &Group| {
            let of = |(partition, committed): (&TopicPartition, &crate::ingest::consumers::Committed)| {
                let reader = group.owners.get(partition).cloned().unwrap_or_default();
                (partition.clone(), (reader, committed.offset))
            };
            group.committed.iter().filter(|(p, _)| self.may_read(p)).map(of).collect::<BTreeMap<_, _>>()
        };
        let committed = self.look(committed).await?;
        let mut lags = Vec::with_capacity(committed.len());
        for (partition, (reader, committed)) in committed {
            match self.doors.services.log.bounds(&partition).await {
                Ok(bounds) => lags.push(Lag { partition, reader, committed, end: bounds.end }),
                // What was committed of a topic outlives it.
                Err(LogError::UnknownTopic(_) | LogError::UnknownPartition(_)) => {}
                Err(e) => return Err(KafkaError::of_log(&e)),
            }
        }
        Ok(lags)
    }
}

impl Lag {
    fn lag(&self) -> u64 {
        self.end.0.saturating_sub(self.committed.0)
    }

    fn json(&self, cluster: &Cluster, group: &str) -> Value {
        let (topic, p) = (self.partition.topic.as_str(), self.partition.partition.to_string());
        cluster.object(
            "KafkaConsumerLag",
            &["consumer-groups", group, "lags", topic, "partitions", &p],
            &format!("/consumer-group={group}/lag={topic}/partition={p}"),
            json!({
                "consumer_group_id": group,
                "topic_name": topic,
                "partition_id": self.partition.partition,
                "current_offset": self.committed,
                "log_end_offset": self.end,
                "lag": self.lag(),
                "consumer_id": self.reader,
                "instance_id": self.reader,
                "client_id": self.reader,
            }),
        )
    }
}

impl Cluster {
    fn group(&self, name: &str, group: &Group) -> Value {
        let at = |rest: &str| self.related(&["consumer-groups", name, rest]);
        let state = match (group.owners.is_empty(), group.owners == group.targets) {
            (true, _) => "EMPTY",
            (false, true) => "STABLE",
            (false, false) => "PREPARING_REBALANCE",
        };
        self.object(
            "KafkaConsumerGroup",
            &["consumer-groups", name],
            &format!("/consumer-group={name}"),
            json!({
                "consumer_group_id": name,
                "is_simple": false,
                "partition_assignor": "sticky",
                "state": state,
                "generation": group.generation,
                "coordinator": self.broker_related(),
                "consumer": at("consumers"),
                "lag_summary": at("lag-summary"),
            }),
        )
    }

    fn member(&self, group: &str, instance: &str) -> Value {
        self.object(
            "KafkaConsumer",
            &["consumer-groups", group, "consumers", instance],
            &format!("/consumer-group={group}/consumer={instance}"),
            json!({
                "consumer_group_id": group,
                "consumer_id": instance,
                "instance_id": instance,
                "client_id": instance,
                "assignments": self.related(&["consumer-groups", group, "consumers", instance, "assignments"]),
            }),
        )
    }
}

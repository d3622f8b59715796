//! Groups of consumers, and how far they are behind the log.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Path, State, rejection::PathRejection},
    response::Response,
};
use http::Extensions;
use model::{LogError, Offset, TopicPartition};
use serde_json::{Value, json};

use super::{BROKER, Base, Cluster, said};
use crate::{
    auth::{Action, Caller},
    error::KafkaError,
    ingest::{Doors, consumers::Group},
};

type GroupPath = Result<Path<(String, String)>, PathRejection>;

pub(super) async fn list(
    State(doors): State<Arc<Doors>>,
    path: Result<Path<String>, PathRejection>,
    base: Base,
) -> Response {
    let list = async {
        let Path(cluster) = path.map_err(|_| KafkaError::not_found())?;
        let cluster = doors.cluster(&cluster, base).await?;
        let data = doors.groups.read(|all| all.groups.iter().map(|(name, g)| cluster.group(name, g)).collect()).await?;
        Ok(cluster.list("KafkaConsumerGroupList", &["consumer-groups"], data))
    };
    said(list.await)
}

pub(super) async fn one(State(doors): State<Arc<Doors>>, path: GroupPath, base: Base) -> Response {
    said(doors.of_group(path, base, Cluster::group).await.map(|(_, _, group)| group))
}

pub(super) async fn consumers(State(doors): State<Arc<Doors>>, path: GroupPath, base: Base) -> Response {
    let members = |cluster: &Cluster, name: &str, group: &Group| {
        let member = |instance: &String| cluster.member(name, instance);
        group.instances.keys().map(member).collect::<Vec<_>>()
    };
    let found = doors.of_group(path, base, members).await;
    said(found.map(|(cluster, name, members)| {
        cluster.list("KafkaConsumerList", &["consumer-groups", &name, "consumers"], members)
    }))
}

pub(super) async fn lags(
    State(doors): State<Arc<Doors>>,
    path: GroupPath,
    extensions: Extensions,
    base: Base,
) -> Response {
    let caller = Caller::of(&extensions, &doors.services.auth);
    let found = doors.lags(&caller, path, base).await;
    said(found.map(|(cluster, name, lags)| {
        let data = lags.iter().map(|lag| lag.json(&cluster, &name)).collect();
        cluster.list("KafkaConsumerLagList", &["consumer-groups", &name, "lags"], data)
    }))
}

pub(super) async fn lag_summary(
    State(doors): State<Arc<Doors>>,
    path: GroupPath,
    extensions: Extensions,
    base: Base,
) -> Response {
    let caller = Caller::of(&extensions, &doors.services.auth);
    let summary = async {
        let (cluster, name, lags) = doors.lags(&caller, path, base).await?;
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
            "max_lag_consumer": cluster.related(&["consumer-groups", &name, "consumers", &most.reader]),
            "max_lag_partition": cluster.related(&["topics", topic, "partitions", &p]),
        });
        let names = format!("/consumer-group={name}/lag-summary");
        let kind = "KafkaConsumerGroupLagSummary";
        Ok(cluster.object(kind, &["consumer-groups", &name, "lag-summary"], &names, fields))
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

impl Doors {
    async fn of_group<R: Send>(
        &self,
        path: GroupPath,
        base: Base,
        look: impl FnOnce(&Cluster, &str, &Group) -> R + Send,
    ) -> Result<(Cluster, String, R), KafkaError> {
        let Path((cluster, name)) = path.map_err(|_| KafkaError::not_found())?;
        let cluster = self.cluster(&cluster, base).await?;
        let found = self.groups.read(|all| all.groups.get(&name).map(|group| look(&cluster, &name, group))).await?;
        let found = found.ok_or_else(|| {
            KafkaError::nothing_called(format!("Consumer group {}", crate::ingest::json::shortened(&name)))
        })?;
        Ok((cluster, name, found))
    }

    /// Of the topics that the caller may read.
    async fn lags(
        &self,
        caller: &Caller,
        path: GroupPath,
        base: Base,
    ) -> Result<(Cluster, String, Vec<Lag>), KafkaError> {
        let committed = |_: &Cluster, _: &str, group: &Group| {
            let of = |(partition, committed): (&TopicPartition, &crate::ingest::consumers::Committed)| {
                let reader = group.owners.get(partition).cloned().unwrap_or_default();
                (partition.clone(), (reader, committed.offset))
            };
            let seen = group.committed.iter().filter(|(p, _)| caller.may(Action::Consume, p.topic.as_str()));
            seen.map(of).collect::<BTreeMap<_, _>>()
        };
        let (cluster, name, committed) = self.of_group(path, base, committed).await?;
        let mut lags = Vec::with_capacity(committed.len());
        for (partition, (reader, committed)) in committed {
            match self.services.log.bounds(&partition).await {
                Ok(bounds) => lags.push(Lag { partition, reader, committed, end: bounds.end }),
                // What was committed of a topic outlives it.
                Err(LogError::UnknownTopic(_) | LogError::UnknownPartition(_)) => {}
                Err(e) => return Err(KafkaError::of_log(&e)),
            }
        }
        Ok((cluster, name, lags))
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
                "coordinator": self.related(&["brokers", &BROKER.to_string()]),
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

//! What there is: topics, partitions, offsets, brokers. There is one broker, this one.

use std::sync::Arc;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    response::Response,
};
use http::{Extensions, HeaderMap};
use model::{TopicName, TopicPartition, config::Config};
use serde_json::{Map, Value, json};

use super::answered;
use crate::{
    auth::{Action, Caller},
    error::KafkaError,
    ingest::{Doors, topics::Topic},
};

pub(super) const BROKER: u32 = 1;

type TopicPath = Result<Path<String>, PathRejection>;
type PartitionPath = Result<Path<(String, i64)>, PathRejection>;

pub(super) async fn brokers(headers: HeaderMap) -> Response {
    answered(&headers, Ok(json!({ "brokers": [BROKER] }).to_string()))
}

/// Those that the caller may see.
pub(super) async fn topics(State(doors): State<Arc<Doors>>, extensions: Extensions, headers: HeaderMap) -> Response {
    let caller = Caller::of(&extensions, &doors.services.auth);
    let description = doors.services.log.describe().await;
    let seen = |topic: &TopicName| !topic.is_internal() && caller.may(Action::Describe, topic.as_str());
    let names = description.map(|d| Value::from_iter(d.topics.into_keys().filter(seen).map(String::from)).to_string());
    answered(&headers, names.map_err(|e| KafkaError::of_log(&e)))
}

pub(super) async fn topic(State(doors): State<Arc<Doors>>, path: TopicPath, headers: HeaderMap) -> Response {
    let topic = doors.topic(path).await;
    answered(&headers, topic.map(|t| topic_json(&doors, &t)))
}

pub(super) async fn partitions(State(doors): State<Arc<Doors>>, path: TopicPath, headers: HeaderMap) -> Response {
    let topic = doors.topic(path).await;
    answered(&headers, topic.map(|t| partitions_json(&t)))
}

pub(super) async fn partition(State(doors): State<Arc<Doors>>, path: PartitionPath, headers: HeaderMap) -> Response {
    let partition = doors.partition(path).await;
    answered(&headers, partition.map(|p| partition_json(p.partition)))
}

pub(super) async fn offsets(State(doors): State<Arc<Doors>>, path: PartitionPath, headers: HeaderMap) -> Response {
    answered(&headers, doors.offsets(path).await)
}

impl Doors {
    async fn topic(&self, path: TopicPath) -> Result<Arc<Topic>, KafkaError> {
        let Path(name) = path.map_err(|_| KafkaError::not_found())?;
        let not_there =
            if self.services.config.ingest.strict { KafkaError::not_hosted } else { KafkaError::topic_not_found };
        self.topics.find(&name).await?.ok_or_else(not_there)
    }

    async fn partition(&self, path: PartitionPath) -> Result<TopicPartition, KafkaError> {
        let Path((name, partition)) = path.map_err(|_| KafkaError::not_found())?;
        let topic = self.topic(Ok(Path(name))).await?;
        let partition = u32::try_from(partition).ok().filter(|p| *p < topic.n_partitions);
        let partition = partition.ok_or_else(KafkaError::partition_not_found)?;
        Ok(TopicPartition::new(topic.name.clone(), partition))
    }

    async fn offsets(&self, path: PartitionPath) -> Result<String, KafkaError> {
        let partition = self.partition(path).await?;
        let bounds = self.services.log.bounds(&partition).await.map_err(|e| KafkaError::of_log(&e))?;
        Ok(format!(r#"{{"beginning_offset":{},"end_offset":{}}}"#, bounds.start, bounds.end))
    }
}

/// What Kafka calls the settings that all topics share.
pub(super) fn topic_settings(config: &Config) -> [(&'static str, String); 5] {
    // Kafka says -1 where nothing is deleted for that reason.
    let unless_zero = |limit: u64| if limit == 0 { "-1".to_owned() } else { limit.to_string() };
    [
        ("cleanup.policy", "delete".to_owned()),
        ("max.message.bytes", config.ingest.max_record_bytes.to_string()),
        ("retention.bytes", unless_zero(config.log.retention_bytes)),
        ("retention.ms", unless_zero(config.log.retention_ms)),
        ("segment.bytes", config.log.segment_bytes.to_string()),
    ]
}

/// Written by hand: the fields stand in Confluent's order.
fn topic_json(doors: &Doors, topic: &Topic) -> String {
    let settings = topic_settings(&doors.services.config).into_iter();
    let configs: Value =
        settings.map(|(name, value)| (name.to_owned(), Value::from(value))).collect::<Map<_, _>>().into();
    format!(r#"{{"name":"{}","configs":{configs},"partitions":{}}}"#, topic.name, partitions_json(topic))
}

fn partitions_json(topic: &Topic) -> String {
    let partitions: Vec<String> = (0..topic.n_partitions).map(partition_json).collect();
    format!("[{}]", partitions.join(","))
}

fn partition_json(partition: u32) -> String {
    format!(
        r#"{{"partition":{partition},"leader":{BROKER},"replicas":[{{"broker":{BROKER},"leader":true,"in_sync":true}}]}}"#
    )
}

//! The cluster and its topics. Their settings are those of the server: they can be read, and set to
//! what they are.

use std::sync::Arc;

use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use model::{LogError, TopicChange, TopicName, position::InvalidTopicName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{BROKER, Cluster, check_media_type, said, said_with};
use crate::{
    auth::{Action, Caller},
    error::KafkaError,
    ingest::{
        Doors, Permit,
        json::{Object, Whole, shortened},
        kafka_rest::{consumers::parse, metadata::topic_settings},
    },
};

pub(super) type Names<T> = Result<Path<T>, PathRejection>;

pub(super) fn names<T>(path: Names<T>) -> Result<T, KafkaError> {
    path.map(|Path(names)| names).map_err(|_| KafkaError::not_found())
}

pub(super) async fn clusters(State(doors): State<Arc<Doors>>, headers: HeaderMap) -> Response {
    let list = async {
        let id = doors.groups.describe().await?.id.id.to_string();
        let cluster = doors.cluster(&id, &headers).await?;
        let link = cluster.base.strip_suffix(&format!("/{id}")).unwrap_or(&cluster.base);
        let metadata = json!({ "self": link, "next": null });
        Ok(json!({ "kind": "KafkaClusterList", "metadata": metadata, "data": [cluster.itself()] }))
    };
    said(list.await)
}

pub(super) async fn cluster(State(doors): State<Arc<Doors>>, path: Names<String>, headers: HeaderMap) -> Response {
    said(async { Ok(doors.cluster(&names(path)?, &headers).await?.itself()) }.await)
}

/// Those that the caller may see.
pub(super) async fn list(
    State(doors): State<Arc<Doors>>,
    path: Names<String>,
    extensions: Extensions,
    headers: HeaderMap,
) -> Response {
    let caller = Caller::of(&extensions, &doors.services.auth);
    let list = async {
        let cluster = doors.cluster(&names(path)?, &headers).await?;
        let seen = |topic: &TopicName| !topic.is_internal() && caller.may(Action::Describe, topic.as_str());
        let shown = cluster.description.topics.iter().filter(|(topic, _)| seen(topic));
        let data = shown.map(|(topic, n)| cluster.topic(topic, *n)).collect();
        Ok(cluster.list("KafkaTopicList", &["topics"], data))
    };
    said(list.await)
}

pub(super) async fn one(
    State(doors): State<Arc<Doors>>,
    path: Names<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let one = async {
        let (cluster, topic) = doors.topic_of(path, &headers).await?;
        Ok(cluster.topic(&topic.0, topic.1))
    };
    said(one.await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateRequest {
    topic_name: String,
    partitions_count: Option<Whole>,
    replication_factor: Option<Whole>,
    #[serde(default)]
    configs: Vec<Object<Setting>>,
    /// Only one broker could be named.
    replicas_assignments: Option<std::collections::BTreeMap<u32, Vec<Whole>>>,
    #[serde(default)]
    validate_only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    name: String,
    #[serde(default)]
    value: Option<Value>,
    #[serde(default)]
    operation: Option<Operation>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Operation {
    #[serde(alias = "set")]
    Set,
    #[serde(alias = "delete")]
    Delete,
}

pub(super) async fn create(State(doors): State<Arc<Doors>>, path: Names<String>, request: Request) -> Response {
    match doors.create_topic(path, request).await {
        Ok((status, location, topic)) => {
            let mut response = said_with(status, Ok(topic));
            if let Ok(location) = HeaderValue::try_from(location) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            response
        }
        Err(error) => said(Err(error)),
    }
}

pub(super) async fn grow(State(doors): State<Arc<Doors>>, path: Names<(String, String)>, request: Request) -> Response {
    said(doors.grow_topic(path, request).await)
}

pub(super) async fn delete(
    State(doors): State<Arc<Doors>>,
    path: Names<(String, String)>,
    request: Request,
) -> Response {
    let delete = async {
        let (mut head, _) = request.into_parts();
        doors.check_origin(&mut head).await?;
        let (_, (topic, _)) = doors.topic_of(path, &head.headers).await?;
        doors.delete_topic(&topic).await
    };
    done(delete.await)
}

fn done(outcome: Result<(), KafkaError>) -> Response {
    match outcome {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => said(Err(error)),
    }
}

pub(super) async fn configs(
    State(doors): State<Arc<Doors>>,
    path: Names<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let configs = async {
        let (cluster, (topic, _)) = doors.topic_of(path, &headers).await?;
        let settings = topic_settings(&doors.services.config);
        let data = settings.into_iter().map(|(name, value)| cluster.setting(&topic, name, &value)).collect();
        Ok(cluster.list("KafkaTopicConfigList", &["topics", topic.as_str(), "configs"], data))
    };
    said(configs.await)
}

pub(super) async fn config(
    State(doors): State<Arc<Doors>>,
    path: Names<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    let config = async {
        let (cluster, topic, name) = names(path)?;
        let (cluster, (topic, _)) = doors.topic_of(Ok(Path((cluster, topic))), &headers).await?;
        let (name, value) = doors.setting(&topic, &name)?;
        Ok(cluster.setting(&topic, name, &value))
    };
    said(config.await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlterRequest {
    data: Vec<Object<Setting>>,
    #[serde(default, rename = "validate_only")]
    _validate_only: bool,
}

/// Nothing changes, so that it is the same whether it is only validated.
pub(super) async fn alter(
    State(doors): State<Arc<Doors>>,
    path: Names<(String, String)>,
    request: Request,
) -> Response {
    let alter = async {
        let (headers, body, _permit) = doors.plain_body(request).await?;
        let (_, (topic, _)) = doors.topic_of(path, &headers).await?;
        let asked: AlterRequest = parse(&body)?;
        asked.data.iter().try_for_each(|Object(asked)| doors.check_setting(&topic, asked))
    };
    done(alter.await)
}

pub(super) async fn partitions(
    State(doors): State<Arc<Doors>>,
    path: Names<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let partitions = async {
        let (cluster, (topic, n)) = doors.topic_of(path, &headers).await?;
        let data = (0..n).map(|p| cluster.partition(&topic, p)).collect();
        Ok(cluster.list("KafkaPartitionList", &["topics", topic.as_str(), "partitions"], data))
    };
    said(partitions.await)
}

pub(super) async fn partition(
    State(doors): State<Arc<Doors>>,
    path: Names<(String, String, u32)>,
    headers: HeaderMap,
) -> Response {
    let partition = async {
        let (cluster, topic, partition) = doors.partition_of(path, &headers).await?;
        Ok(cluster.partition(&topic, partition))
    };
    said(partition.await)
}

impl Doors {
    /// Headers and body of a call that changes something; the permit has to live as long as the body.
    pub(super) async fn plain_body(&self, request: Request) -> Result<(HeaderMap, Bytes, Permit), KafkaError> {
        let (mut head, body) = request.into_parts();
        self.check_origin(&mut head).await?;
        check_media_type(&head.headers)?;
        let (body, permit) = self.bodies.read(&head.headers, body).await?;
        if body.is_empty() {
            return Err(KafkaError::payload_error("Request body is empty. Data is required."));
        }
        Ok((head.headers, body, permit))
    }

    /// The topic of a path, and how many partitions it has.
    pub(super) async fn topic_of(
        &self,
        path: Names<(String, String)>,
        headers: &HeaderMap,
    ) -> Result<(Cluster, (TopicName, u32)), KafkaError> {
        let (cluster, topic) = names(path)?;
        let cluster = self.cluster(&cluster, headers).await?;
        let known = cluster.description.topics.get_key_value(topic.as_str()).map(|(topic, n)| (topic.clone(), *n));
        let known = known.filter(|(topic, _)| !topic.is_internal()).ok_or_else(KafkaError::not_hosted)?;
        Ok((cluster, known))
    }

    /// The partition of a path.
    pub(super) async fn partition_of(
        &self,
        path: Names<(String, String, u32)>,
        headers: &HeaderMap,
    ) -> Result<(Cluster, TopicName, u32), KafkaError> {
        let (cluster, topic, partition) = names(path)?;
        let (cluster, (topic, n)) = self.topic_of(Ok(Path((cluster, topic))), headers).await?;
        if partition < n { Ok((cluster, topic, partition)) } else { Err(KafkaError::partition_not_found()) }
    }

    async fn create_topic(
        &self,
        path: Names<String>,
        request: Request,
    ) -> Result<(StatusCode, String, Value), KafkaError> {
        let caller = Caller::of(request.extensions(), &self.services.auth);
        let (headers, body, _permit) = self.plain_body(request).await?;
        let cluster = self.cluster(&names(path)?, &headers).await?;
        let asked: CreateRequest = parse(&body)?;
        let name: TopicName =
            asked.topic_name.parse().map_err(|_: InvalidTopicName| KafkaError::payload_error("Invalid topic name."))?;
        if !caller.may(Action::Admin, name.as_str()) {
            return Err(KafkaError::forbidden(Action::Admin, name.as_str()));
        }
        if name.is_internal() {
            return Err(KafkaError::invalid_topic(format!("topic {name} is internal: nobody else writes there")));
        }
        if let Some(factor) =
            asked.replication_factor.map(|Whole(factor)| factor).filter(|factor| ![-1, 1].contains(factor))
        {
            return Err(KafkaError::invalid_topic(format!(
                "Replication factor: {factor} larger than available brokers: 1."
            )));
        }
        let n_assigned = asked.replicas_assignments.map(|replicas| i64::try_from(replicas.len()).unwrap_or(i64::MAX));
        let usual = i64::from(self.services.config.ingest.default_partitions);
        let n_partitions =
            asked.partitions_count.map(|Whole(n)| n).or(n_assigned).map_or(usual, |n| if n == -1 { usual } else { n });
        let n_partitions = u32::try_from(n_partitions).unwrap_or(if n_partitions < 0 { 0 } else { u32::MAX });
        asked.configs.iter().try_for_each(|Object(asked)| self.check_setting(&name, asked))?;
        self.topics.create_new(&name, n_partitions, !asked.validate_only).await?;
        let status = if asked.validate_only { StatusCode::OK } else { StatusCode::CREATED };
        Ok((status, cluster.link(&["topics", name.as_str()]), cluster.topic(&name, n_partitions)))
    }

    async fn grow_topic(&self, path: Names<(String, String)>, request: Request) -> Result<Value, KafkaError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct GrowRequest {
            partitions_count: Whole,
        }
        let (headers, body, _permit) = self.plain_body(request).await?;
        let (cluster, (topic, n)) = self.topic_of(path, &headers).await?;
        let Whole(asked) = parse::<GrowRequest>(&body)?.partitions_count;
        let wanted = u32::try_from(asked).unwrap_or(if asked < 0 { 0 } else { u32::MAX });
        self.topics.check_count(wanted)?;
        let refused = match wanted {
            wanted if wanted == n => Some(format!("Topic already has {n} partitions.")),
            wanted if wanted < n => {
                Some(format!("Topic currently has {n} partitions, which is higher than the requested {wanted}."))
            }
            _ => None,
        };
        if let Some(message) = refused {
            return Err(KafkaError::invalid_topic(message));
        }
        let change = TopicChange::Grow { n_partitions: wanted };
        self.topics.change(&topic, change).await.map_err(|e| KafkaError::of_log(&e))?;
        Ok(cluster.topic(&topic, wanted))
    }

    /// With the producers' last records, which the layers take before.
    async fn delete_topic(&self, topic: &TopicName) -> Result<(), KafkaError> {
        let ending = self.topics.end(topic);
        loop {
            match self.topics.change(topic, ending.settle().await?).await {
                Err(LogError::TopicGrew(_)) => {}
                changed => return changed.map_err(|e| KafkaError::of_log(&e)),
            }
        }
    }

    fn setting(&self, topic: &TopicName, name: &str) -> Result<(&'static str, String), KafkaError> {
        let settings = topic_settings(&self.services.config);
        settings.into_iter().find(|(known, _)| *known == name).ok_or_else(|| {
            let name = shortened(name);
            KafkaError::nothing_called(format!("Config {name} of topic {topic}"))
        })
    }

    /// Topics have no settings of their own: what is asked for must be what is.
    fn check_setting(&self, topic: &TopicName, asked: &Setting) -> Result<(), KafkaError> {
        let (name, is) = self.setting(topic, &asked.name)?;
        let is_reset = asked.operation == Some(Operation::Delete);
        let wanted = match &asked.value {
            None | Some(Value::Null) => is.clone(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        if is_reset || wanted == is {
            return Ok(());
        }
        let wanted = shortened(&wanted);
        Err(KafkaError::invalid_topic(format!(
            "Invalid value {wanted} for configuration {name}: it is {is} for all topics, a setting of the server"
        )))
    }
}

impl Cluster {
    fn itself(&self) -> Value {
        self.object(
            "KafkaCluster",
            &[],
            "",
            json!({
                "controller": self.broker_related(),
                "acls": self.related(&["acls"]),
                "brokers": self.related(&["brokers"]),
                "broker_configs": self.related(&["broker-configs"]),
                "consumer_groups": self.related(&["consumer-groups"]),
                "topics": self.related(&["topics"]),
                "partition_reassignments": self.related(&["topics", "-", "partitions", "-", "reassignment"]),
            }),
        )
    }

    fn topic(&self, topic: &TopicName, n_partitions: u32) -> Value {
        let at = |rest: &[&str]| self.related(&[&["topics", topic.as_str()], rest].concat());
        self.object(
            "KafkaTopic",
            &["topics", topic.as_str()],
            &format!("/topic={topic}"),
            json!({
                "topic_name": topic,
                "is_internal": false,
                "replication_factor": 1,
                "partitions_count": n_partitions,
                "partitions": at(&["partitions"]),
                "configs": at(&["configs"]),
                "partition_reassignments": at(&["partitions", "-", "reassignment"]),
            }),
        )
    }

    fn setting(&self, topic: &TopicName, name: &str, value: &str) -> Value {
        let source = "STATIC_BROKER_CONFIG";
        self.object(
            "KafkaTopicConfig",
            &["topics", topic.as_str(), "configs", name],
            &format!("/topic={topic}/config={name}"),
            json!({
                "topic_name": topic,
                "name": name,
                "value": value,
                "is_default": true,
                "is_read_only": true,
                "is_sensitive": false,
                "source": source,
                "synonyms": [{ "name": name, "value": value, "source": source }],
            }),
        )
    }

    fn partition(&self, topic: &TopicName, partition: u32) -> Value {
        let (topic_name, p) = (topic.as_str(), partition.to_string());
        let at = |rest: &[&str]| self.related(&[&["topics", topic_name, "partitions", &p], rest].concat());
        self.object(
            "KafkaPartition",
            &["topics", topic_name, "partitions", &p],
            &format!("/topic={topic}/partition={p}"),
            json!({
                "topic_name": topic,
                "partition_id": partition,
                "leader": at(&["replicas", &BROKER.to_string()]),
                "replicas": at(&["replicas"]),
                "reassignment": at(&["reassignment"]),
            }),
        )
    }
}

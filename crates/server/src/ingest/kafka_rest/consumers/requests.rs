//! What the bodies of the consumers' calls say. Unknown fields are errors, as with Confluent's
//! proxy, and every error names the field.

use std::collections::{BTreeMap, BTreeSet};

use model::{Offset, Timestamp, TopicName, TopicPartition, config::ConsumersConfig, position::InvalidTopicName};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::super::records::timestamp_of;
use crate::{
    error::KafkaError,
    ingest::{
        consumers::{Committed, Format, Interest, Reset, Settings, compiled},
        json::{Object, Whole, shortened},
    },
};

/// Longer names of groups and instances are refused.
const MAX_NAME_BYTES: usize = 249;
const MAX_METADATA_BYTES: usize = 4096;
/// What Confluent's proxy takes for `fetch.min.bytes`.
const MIN_BYTES: std::ops::RangeInclusive<i64> = -1..=10_000_000;

/// The body, an object, or what is wrong with which field.
pub(in crate::ingest::kafka_rest) fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, KafkaError> {
    // To know the way to every field costs more than to read it.
    let parsed: Result<Object<T>, _> = serde_json::from_slice(body);
    parsed.map(|Object(parsed)| parsed).or_else(|_| parse_knowing_where(body))
}

fn parse_knowing_where<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, KafkaError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Object(parsed) = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        let text = e.into_inner().to_string();
        let unknown = text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
        match unknown {
            Some((field, _)) => KafkaError::unrecognized_field(&shortened(field)),
            None if path == "." || path == "?" => KafkaError::bad_request(text),
            None => KafkaError::bad_request(format!("{path}: {text}")),
        }
    })?;
    json.end().map_err(|e| KafkaError::bad_request(e.to_string()))?;
    Ok(parsed)
}

/// The body of a call that needs one.
pub(super) fn parse_needed<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, KafkaError> {
    if body.is_empty() {
        return Err(KafkaError::unprocessable(422, "the request body must not be null (was null)"));
    }
    parse(body)
}

pub(super) fn check_name(what: &str, name: &str) -> Result<(), KafkaError> {
    if (1..=MAX_NAME_BYTES).contains(&name.len()) {
        return Ok(());
    }
    let n = name.len();
    Err(KafkaError::invalid_consumer(format!("the {what} has {n} bytes, 1 to {MAX_NAME_BYTES} are allowed")))
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CreateRequest {
    id: Option<String>,
    name: Option<String>,
    format: Option<String>,
    #[serde(rename = "auto.offset.reset")]
    auto_offset_reset: Option<String>,
    #[serde(rename = "auto.commit.enable", deserialize_with = "text")]
    auto_commit_enable: Option<String>,
    #[serde(rename = "fetch.min.bytes", alias = "responseMinBytes", deserialize_with = "number")]
    fetch_min_bytes: Option<i64>,
    #[serde(rename = "consumer.request.timeout.ms", alias = "requestWaitMs", deserialize_with = "number")]
    request_timeout_ms: Option<i64>,
}

/// Jackson takes what is not quoted for text, too.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        value @ (Value::Bool(_) | Value::Number(_)) => Ok(Some(value.to_string())),
        _ => Err(D::Error::custom("not a text")),
    }
}

/// And a number that is.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    match text(deserializer)? {
        None => Ok(None),
        Some(text) => {
            let whole = text.trim().parse().ok().or_else(|| serde_json::from_str(&text).ok().map(|Whole(n)| n));
            whole.map(Some).ok_or_else(|| D::Error::custom("not a whole number"))
        }
    }
}

impl CreateRequest {
    /// The name that the client wants, `id` before `name`, and the settings.
    pub(super) fn read(self, config: &ConsumersConfig) -> Result<(Option<String>, Settings), KafkaError> {
        let name = self.id.or(self.name);
        if let Some(name) = &name {
            check_name("name of the instance", name)?;
        }
        let format = match self.format.map(|format| format.to_ascii_lowercase()).as_deref() {
            None | Some("binary") => Format::Binary,
            Some("json") => Format::Json,
            Some(schema @ ("avro" | "protobuf" | "jsonschema")) => {
                let what = format!("this server has no schema registry, so it does not take the {schema} format");
                return Err(KafkaError::invalid_consumer(what));
            }
            Some(_) => return Err(KafkaError::unprocessable(422, "Invalid format type.")),
        };
        let invalid = |value: &str, name: &str, allowed: &str| {
            let value = shortened(value);
            KafkaError::invalid_consumer(format!("Invalid value {value} for configuration {name}: {allowed}"))
        };
        let reset = match self.auto_offset_reset.as_deref() {
            Some("earliest") => Reset::Earliest,
            None | Some("latest") => Reset::Latest,
            Some("none") => Reset::None,
            Some(other) => {
                return Err(invalid(other, "auto.offset.reset", "String must be one of: latest, earliest, none"));
            }
        };
        let auto_commit = match self.auto_commit_enable.map(|text| text.trim().to_ascii_lowercase()).as_deref() {
            None | Some("true") => true,
            Some("false") => false,
            Some(other) => {
                let allowed = "Expected value to be either true or false";
                return Err(invalid(other, "enable.auto.commit", allowed));
            }
        };
        let min_bytes = self.fetch_min_bytes.unwrap_or(-1);
        if !MIN_BYTES.contains(&min_bytes) {
            let message = format!(
                "Invalid consumer configuration. It does not abide by the constraints: Invalid value {min_bytes} for \
                 configuration fetch.min.bytes: Value must be between {} and {}",
                MIN_BYTES.start(),
                MIN_BYTES.end()
            );
            return Err(KafkaError::unprocessable(40001, message));
        }
        let timeout_ms = match self.request_timeout_ms {
            None => config.request_timeout_ms,
            Some(ms) => u64::try_from(ms)
                .map_err(|_| invalid(&ms.to_string(), "consumer.request.timeout.ms", "Value must be at least 0"))?,
        };
        let timeout_ms = timeout_ms.min(config.max_request_timeout_ms);
        let min_bytes = usize::try_from(min_bytes).unwrap_or(0);
        Ok((name, Settings { format, reset, auto_commit, min_bytes, timeout_ms }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubscribeRequest {
    topics: Option<Vec<String>>,
    topic_pattern: Option<String>,
}

impl SubscribeRequest {
    /// An empty list ends a subscription, as with Kafka's consumer.
    pub(super) fn read(self, config: &ConsumersConfig) -> Result<Interest, KafkaError> {
        match (self.topics, self.topic_pattern) {
            (Some(_), Some(_)) => {
                Err(KafkaError::illegal_state("Subscription to topics, partitions and pattern are mutually exclusive"))
            }
            (None, None) => Err(KafkaError::unprocessable(422, "topics must not be null (was null)")),
            (None, Some(pattern)) => compiled(&pattern).map(|_| Interest::Pattern(pattern)),
            (Some(topics), None) => {
                let limit = config.max_topics_per_subscription;
                if topics.len() > limit {
                    let what = format!(
                        "topics has {} names, {limit} are allowed (consumers.max_topics_per_subscription)",
                        topics.len()
                    );
                    return Err(KafkaError::invalid_consumer(what));
                }
                let topics = topics.iter().map(|name| topic(name)).collect::<Result<BTreeSet<_>, _>>()?;
                Ok(if topics.is_empty() { Interest::Nothing } else { Interest::Topics(topics) })
            }
        }
    }
}

/// A topic that clients may know of.
fn topic(name: &str) -> Result<TopicName, KafkaError> {
    let topic: TopicName = name.parse().map_err(|e: InvalidTopicName| KafkaError::invalid_topic(e.to_string()))?;
    if topic.is_internal() {
        return Err(KafkaError::invalid_topic(format!("topic {topic} is internal")));
    }
    Ok(topic)
}

fn partition(place: &str, name: &str, Whole(partition): Whole) -> Result<TopicPartition, KafkaError> {
    let negative = || {
        let message = format!("{place}.partition must be greater than or equal to 0 (was {partition})");
        KafkaError::unprocessable(422, message)
    };
    if partition < 0 {
        return Err(negative());
    }
    let partition = u32::try_from(partition).map_err(|_| KafkaError::partition_not_found())?;
    Ok(TopicPartition::new(topic(name)?, partition))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartitionsRequest {
    partitions: Vec<Object<NamedPartition>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedPartition {
    topic: String,
    partition: Whole,
}

impl PartitionsRequest {
    pub(super) fn read(self, config: &ConsumersConfig) -> Result<BTreeSet<TopicPartition>, KafkaError> {
        check_count("partitions", self.partitions.len(), config)?;
        let named = self.partitions.iter().enumerate();
        named.map(|(i, Object(p))| partition(&format!("partitions[{i}]"), &p.topic, p.partition)).collect()
    }
}

fn check_count(field: &str, n: usize, config: &ConsumersConfig) -> Result<(), KafkaError> {
    let limit = config.max_partitions_per_group;
    if n <= limit {
        return Ok(());
    }
    let what = format!("{field} has {n} entries, {limit} are allowed (consumers.max_partitions_per_group)");
    Err(KafkaError::invalid_consumer(what))
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct OffsetsRequest {
    offsets: Option<Vec<Object<NamedOffset>>>,
    timestamps: Option<Vec<Object<NamedTime>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedOffset {
    topic: String,
    partition: Whole,
    offset: Whole,
    #[serde(default)]
    metadata: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedTime {
    topic: String,
    partition: Whole,
    timestamp: Value,
    #[serde(default, rename = "metadata")]
    _metadata: Option<String>,
}

impl OffsetsRequest {
    /// As the client named them, with what it wants to be remembered.
    pub(super) fn offsets(&self, config: &ConsumersConfig) -> Result<BTreeMap<TopicPartition, Committed>, KafkaError> {
        let named = self.offsets.as_deref().unwrap_or_default();
        check_count("offsets", named.len(), config)?;
        let offset = |(i, Object(named)): (usize, &Object<NamedOffset>)| {
            let place = format!("offsets[{i}]");
            let partition = partition(&place, &named.topic, named.partition)?;
            let Whole(offset) = named.offset;
            let offset = u64::try_from(offset).map_err(|_| {
                let message = format!("{place}.offset must be greater than or equal to 0 (was {offset})");
                KafkaError::unprocessable(422, message)
            })?;
            let metadata = named.metadata.clone().unwrap_or_default();
            if metadata.len() > MAX_METADATA_BYTES {
                let message =
                    format!("{place}.metadata has {} bytes, {MAX_METADATA_BYTES} are allowed", metadata.len());
                return Err(KafkaError::bad_request(message));
            }
            Ok((partition, Committed { offset: Offset(offset), metadata }))
        };
        named.iter().enumerate().map(offset).collect()
    }

    /// For a commit, which knows no times and needs a list.
    pub(super) fn to_commit(
        &self,
        config: &ConsumersConfig,
    ) -> Result<BTreeMap<TopicPartition, Committed>, KafkaError> {
        if self.timestamps.is_some() {
            return Err(KafkaError::unrecognized_field("timestamps"));
        }
        if self.offsets.is_none() {
            return Err(KafkaError::unprocessable(422, "offsets must not be null (was null)"));
        }
        let mut offsets = self.offsets(config)?;
        // What is committed is the next one to read.
        offsets.values_mut().for_each(|committed| committed.offset = committed.offset.plus(1));
        Ok(offsets)
    }

    pub(super) fn times(&self, config: &ConsumersConfig) -> Result<BTreeMap<TopicPartition, Timestamp>, KafkaError> {
        let named = self.timestamps.as_deref().unwrap_or_default();
        check_count("timestamps", named.len(), config)?;
        let time = |(i, Object(named)): (usize, &Object<NamedTime>)| {
            let place = format!("timestamps[{i}]");
            let json = named.timestamp.to_string();
            let time = timestamp_of(&json).ok_or_else(|| {
                KafkaError::bad_request(format!("{place}.timestamp is not an RFC 3339 time (was {})", shortened(&json)))
            })?;
            Ok((partition(&place, &named.topic, named.partition)?, time))
        };
        named.iter().enumerate().map(time).collect()
    }
}
